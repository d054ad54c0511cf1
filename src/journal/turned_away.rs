//! What a transaction turned away: duplicates of marks, and refusals of ids in flight.
//!
//! Owns their way into memory and into the file. What always holds: they are counted in memory once the transaction
//! is committed, since a decision may run again; and an answer has both what is in the file and what is not yet.

use std::mem;
use std::time::Duration;

use super::Transaction;
use super::claim_row::ClaimRow;
use super::claims::{ClaimsCache, scope_parameter};
use super::row::{MarkRow, duplicates_plus};
use crate::error::Result;
use crate::format::IdValue;
use crate::id::Id;
use crate::index::{Refused, Repeats, Slot};
use crate::token::Token;

const ADD_REFUSALS: &str = concat!(
    "UPDATE claims SET duplicates = ",
    duplicates_plus!("?3"),
    " WHERE scope = ifnull(?1, '') AND id = ?2 AND token = ?4"
);

const ADD_REFUSALS_TO_MARK: &str = concat!(
    "UPDATE seen SET duplicates = ",
    duplicates_plus!("?2"),
    " WHERE seq = ?1 AND token = ?3"
);

impl Transaction<'_> {
    /// Counts a refusal of an id that is claimed with this token.
    pub(crate) fn count_refusal(&mut self, id: Id<'_>, token: Option<Token>) {
        self.refusals.extend(token.map(|token| (token, Refused::once(id))));
    }

    /// Counts a duplicate of the id whose row is `seq`.
    pub(crate) fn count_duplicate(&mut self, seq: i64) {
        let repeats = self.repeats.entry(seq).or_insert(Repeats::NONE);
        *repeats = repeats.and(Repeats::at(self.now_ms));
    }

    /// Returns whether the mark is known to have reached the maximum age of its sliding window.
    pub(crate) fn is_at_max_age(&self, seq: i64, max_age: Duration) -> Result<bool> {
        // In a transaction this is not a forked child.
        self.index.at_max_age.covers(seq, max_age, || Ok(()))
    }

    /// Returns the duplicates of a row that are not in the file yet.
    pub(super) fn repeats_of(&self, seq: i64) -> Repeats {
        let own = self.repeats.get(&seq).copied().unwrap_or(Repeats::NONE);
        own.and(self.index.duplicates.pending(seq))
    }

    /// Returns the row of an id, including the duplicates that were counted since it was written.
    pub(crate) fn row(&mut self, slot: Slot) -> Result<Option<MarkRow>> {
        let row = self.journal.row(slot.seq)?;
        Ok(row.map(|row| row.with(self.repeats_of(slot.seq))))
    }

    /// Returns the row of an id of which another mark takes the place, with all that was turned away of it.
    pub(crate) fn last_row(&mut self, slot: Slot) -> Result<Option<MarkRow>> {
        let row = self.row(slot)?;
        Ok(row.map(|row| {
            let refusals = self.index.refusals.pending(row.token).into();
            MarkRow { duplicates: row.duplicates.saturating_add(refusals), ..row }
        }))
    }

    /// Returns a claim of which another claim, or a mark without its token, takes the place, with all that was refused
    /// of it.
    pub(crate) fn last_claim(&self, claim: ClaimRow) -> ClaimRow {
        let refusals = self.index.refusals.pending(claim.token).into();
        ClaimRow { duplicates: claim.duplicates.saturating_add(refusals), ..claim }
    }

    /// Adds to the duplicate counts of rows.
    pub(crate) fn add_duplicates(&mut self, counts: &[(i64, Repeats)]) -> Result<()> {
        self.with(|connection| {
            let mut update = connection.prepare_cached(concat!(
                "UPDATE seen SET duplicates = ",
                duplicates_plus!("?2"),
                ", last_seen = max(last_seen, ?3) WHERE seq = ?1 AND expires_at IS NOT 0",
            ))?;
            counts.iter().try_for_each(|(seq, Repeats { count, last_ms })| {
                update.execute((seq, count, last_ms)).map(drop)
            })
        })
    }

    /// Adds to the duplicate count of a claim, or of the mark that it has become.
    pub(crate) fn add_refusals(&mut self, token: Token, refused: &Refused) -> Result<()> {
        let Refused { scope, id, count } = refused;
        let updated = self.with(|connection| {
            connection.prepare_cached(ADD_REFUSALS)?.execute((
                scope_parameter(scope),
                IdValue(id),
                count,
                token.bytes(),
            ))
        })?;
        let key = self.journal.hasher.scoped(scope).key(id);
        if let ClaimsCache::All(claims) = &mut self.journal.claims
            && let Some(claim) = claims.get_mut(&key).filter(|claim| claim.token == Some(token))
        {
            claim.duplicates = claim.duplicates.saturating_add((*count).into());
        }
        match self.newest_slot(key)? {
            Some(slot) if updated == 0 => self.with(|connection| {
                let mut update = connection.prepare_cached(ADD_REFUSALS_TO_MARK)?;
                update.execute((slot.seq, count, token.bytes())).map(drop)
            }),
            _ => Ok(()),
        }
    }

    /// Counts in memory what the transaction turned away, because it is committed now.
    pub(super) fn count_turned_away(&mut self) -> Result<()> {
        for (token, refused) in mem::take(&mut self.refusals) {
            self.index.refusals.add(token, refused);
        }
        mem::take(&mut self.repeats)
            .into_iter()
            .try_for_each(|(seq, repeats)| self.index.duplicates.add(seq, repeats, || Ok(())))
    }
}
