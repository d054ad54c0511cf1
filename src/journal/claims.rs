//! The table `claims`: ids that a worker has claimed and not confirmed.
//!
//! Owns one row per id, from its first claim until the id is seen, forgotten or purged. What always holds:
//! a claim is decided only under the write lock, so no index in memory follows the table. An id has a claim row
//! or a live mark, and both only while a changed version of it is handled: then the digest of the claim is not that
//! of the mark. An expired claim row that is found under the write lock is deleted there. When a claim ends, its row stays with an empty token, for its count of attempts. Whether a lease still runs
//! is for the reader of a row to decide. A claim whose lease has run out with its token in place is *abandoned*:
//! whether its holder did the work is not known.
//!
//! A claim that ended without a delay has `lease_until` = `claimed_at`. So its row holds no time that could
//! block the id after the clock was set back.
//!
//! A store that is alone with the table, as most are, remembers it as a [`ClaimsCache`] and saves the search
//! for each claim. The cache is valid until another connection commits or a transaction is rolled back. Then
//! the table is read again.
//!
//! An id in a storage class that no store gives it is an error wherever it is found: to SQLite it is another id
//! than the one with the same bytes.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::purge::Step;
use super::row::{digest, duplicates_plus};
use super::selection::Selection;
use super::transaction::KeyIsHash;
use super::{Journal, Transaction};
use crate::clock::{ABSORBED_STEP_MS, from_ms};
use crate::entry::{Counts, Entry, State};
use crate::error::Result;
use crate::format::{self, IdValue, OtherClassValue};
use crate::id::{Id, Key};
use crate::index::Refused;
use crate::item::Digest;
use crate::machine::step_size;
use crate::token::Token;

/// How a holder ended its claim without marking the id. The numbers are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Released = 1,
    Failed = 2,
    /// Failed, and no attempt may follow.
    FailedFinally = 3,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimRow {
    /// `None` once the holder has ended the claim.
    pub(crate) token: Option<Token>,
    /// `None` while there is a token.
    pub(crate) outcome: Option<Outcome>,
    /// Whether the claim binds after its lease, until it is resolved.
    pub(crate) held: bool,
    /// The label of the holder.
    pub(crate) holder: Option<Arc<str>>,
    pub(crate) claimed_at: i64,
    /// The end of the lease. For a failed claim with a delay: when the id may be claimed again. For any other
    /// claim that has ended: `claimed_at`.
    pub(crate) lease_until: i64,
    pub(crate) attempts: u32,
    /// How many attempts before this one were abandoned.
    pub(crate) abandoned: u32,
    /// What the version or the payload that is handled is told by.
    pub(crate) digest: Option<Digest>,
    /// How many callers were refused while it was in flight. Not negative.
    pub(crate) duplicates: i64,
    pub(crate) last_error: Option<String>,
    /// When the count of attempts expires; `None` is never.
    pub(crate) expires_at: Option<i64>,
}

impl ClaimRow {
    pub(crate) fn is_in_flight(&self, now_ms: i64) -> bool {
        self.token.is_some() && now_ms < self.lease_until
    }

    /// Returns whether the lease has run out with nothing said by the holder.
    pub(crate) fn is_abandoned(&self, now_ms: i64) -> bool {
        self.token.is_some() && now_ms >= self.lease_until
    }

    /// Returns whether the claim was abandoned and binds every caller until it is resolved.
    pub(crate) fn is_unresolved(&self, now_ms: i64) -> bool {
        self.held && self.is_abandoned(now_ms)
    }

    /// Returns how many attempts were abandoned by `now_ms`, this one included.
    pub(crate) fn abandoned_by(&self, now_ms: i64) -> u32 {
        self.abandoned.saturating_add(u32::from(self.is_abandoned(now_ms)))
    }

    /// Returns until when the id cannot be claimed, if that is later than now: until the end of the lease, or
    /// of the delay after a failure.
    ///
    /// A lease binds every caller until its end, whatever the clock does. A delay is only advice. It is void
    /// if the clock shows a time before the claim by more than two clocks may differ: then the clock was set
    /// back since, and the delay could last for days.
    pub(crate) fn blocked_until(&self, now_ms: i64) -> Option<i64> {
        let binds = self.token.is_some()
            || self.claimed_at < self.lease_until
                && self.claimed_at <= now_ms.saturating_add(ABSORBED_STEP_MS);
        (binds && now_ms < self.lease_until).then_some(self.lease_until)
    }

    /// Takes the claim from its holder at `now_ms`. The id may be claimed again at `again_ms`, or at once if
    /// that is not later.
    pub(crate) fn end(&mut self, outcome: Outcome, now_ms: i64, again_ms: i64) {
        (self.token, self.outcome) = (None, Some(outcome));
        // If the clock was set back since the claim, the ended claim must not look like one from before such a
        // step.
        self.claimed_at = self.claimed_at.min(now_ms);
        self.lease_until = if again_ms > now_ms { again_ms } else { self.claimed_at };
    }

    /// Returns whether the row, with its count of attempts, has expired.
    pub(crate) fn is_expired(&self, now_ms: i64) -> bool {
        self.blocked_until(now_ms).is_none()
            && !self.is_unresolved(now_ms)
            && self.expires_at.is_some_and(|at| now_ms >= at)
    }

    /// Returns whether the claim last changed before `before_ms`. A claim in flight changes when its lease
    /// ends. A held claim that is not ended has no age.
    pub(super) fn is_older_than(&self, before_ms: i64) -> bool {
        let waits_for_decision = self.held && self.token.is_some();
        self.claimed_at.max(self.lease_until) < before_ms && !waits_for_decision
    }

    pub(crate) fn state(&self, now_ms: i64) -> State {
        match self.outcome {
            _ if self.is_expired(now_ms) => State::Expired,
            None if self.is_in_flight(now_ms) => State::InFlight,
            None if self.held => State::Unresolved,
            None => State::Abandoned,
            Some(Outcome::Released) => State::Released,
            Some(Outcome::Failed) => State::Failed,
            Some(Outcome::FailedFinally) => State::GivenUp,
        }
    }

    pub(crate) fn entry(self, scope: &str, id: &[u8], now_ms: i64) -> Entry {
        Entry {
            scope: scope.to_owned(),
            id: id.to_vec(),
            state: self.state(now_ms),
            first_seen: from_ms(self.claimed_at),
            last_seen: from_ms(self.claimed_at),
            expires_at: self.expires_at.filter(|_| !self.is_unresolved(now_ms)).map(from_ms),
            retain_until: None,
            digest: self.digest,
            change: None,
            history: None,
            // A time that no longer blocks the id must not lie in the future.
            lease_until: Some(from_ms(
                self.blocked_until(now_ms).unwrap_or(self.lease_until.min(now_ms)),
            )),
            holder: self.holder.as_deref().map(str::to_owned),
            held: self.held,
            attempts: self.attempts,
            abandoned: self.abandoned,
            last_error: self.last_error,
            receipt: None,
            duplicates: self.duplicates.cast_unsigned(),
        }
    }

    /// Reads the columns of [`columns!`].
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let token = Token::from_bytes(row.get_ref(0)?.as_blob()?);
        Ok(Self {
            token,
            // Another program may have written any number: a claim that has ended did so in some way.
            outcome: match (token, row.get::<_, Option<i64>>(1)?) {
                (Some(_), _) => None,
                (None, Some(2)) => Some(Outcome::Failed),
                (None, Some(3)) => Some(Outcome::FailedFinally),
                (None, _) => Some(Outcome::Released),
            },
            held: row.get::<_, i64>(2)? != 0,
            holder: row.get(3)?,
            claimed_at: row.get(4)?,
            lease_until: row.get(5)?,
            attempts: attempts(row.get(6)?),
            abandoned: attempts(row.get(7)?),
            digest: digest(row.get_ref(8)?)?,
            duplicates: row.get::<_, i64>(9)?.max(0),
            last_error: row.get(10)?,
            expires_at: row.get(11)?,
        })
    }
}

/// The columns of a claim besides its scope and id, in the order in which [`ClaimRow::read`] reads them.
macro_rules! columns {
    () => {
        columns!("last_error")
    };
    ($last_error:literal) => {
        concat!(
            "token, outcome, held, holder, claimed_at, lease_until, attempts, abandoned, digest, duplicates, ",
            $last_error,
            ", expires_at"
        )
    };
}

/// Reads a count of the file. Any number may be there; a wrong count is no reason to fail.
pub(crate) fn attempts(stored: i64) -> u32 {
    u32::try_from(stored.max(0)).unwrap_or(u32::MAX)
}

/// Binds an empty scope as NULL, which the SQL turns into '' again. rusqlite binds empty text as a dangling
/// pointer, and some processors take 200 ns to compare no bytes there, at every step of a search.
fn scope_parameter(scope: &str) -> Option<&str> {
    (!scope.is_empty()).then_some(scope)
}

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    ", id FROM claims WHERE scope = ifnull(?1, '') AND id IN (?2, ?3)"
);

pub(crate) fn find(connection: &Connection, id: Id<'_>) -> rusqlite::Result<Option<ClaimRow>> {
    connection
        .prepare_cached(FIND)?
        .query_row(
            (scope_parameter(id.scope), IdValue(id.bytes), OtherClassValue(id.bytes)),
            |row| {
                format::id_bytes(row.get_ref(12)?)?;
                ClaimRow::read(row)
            },
        )
        .optional()
}

const PUT: &str = concat!(
    "INSERT OR REPLACE INTO claims (scope, id, ",
    columns!(),
    ") VALUES (ifnull(?1, ''), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
);

fn put(connection: &Connection, claims: &[(Id<'_>, ClaimRow)]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(PUT)?;
    for (id, claim) in claims {
        let token = claim.token.map(Token::bytes);
        insert.execute((
            scope_parameter(id.scope),
            IdValue(id.bytes),
            token.as_ref().map_or(&[][..], |token| &token[..]),
            claim.outcome.map(|outcome| outcome as i64),
            claim.held,
            &claim.holder,
            claim.claimed_at,
            claim.lease_until,
            claim.attempts,
            claim.abandoned,
            claim.digest.map(Digest::bytes),
            claim.duplicates,
            &claim.last_error,
            claim.expires_at,
        ))?;
    }
    Ok(())
}

const DELETE: &str = "DELETE FROM claims WHERE scope = ifnull(?1, '') AND id = ?2";

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

/// How many claims the cache holds at most: those of some batches, at about 150 bytes each.
const MAX_CACHED_CLAIMS: usize = step_size!(1 << 16, in_a_simulation: 4);

/// What is known of the table without reading it.
#[derive(Default)]
pub(super) enum ClaimsCache {
    #[default]
    Unknown,
    /// It has rows.
    NotEmpty,
    /// It has exactly these rows.
    All(HashMap<Key, ClaimRow, BuildHasherDefault<KeyIsHash>>),
}

impl ClaimsCache {
    fn put(&mut self, id: Id<'_>, claim: &ClaimRow) {
        match self {
            Self::All(claims) if claims.len() < MAX_CACHED_CLAIMS => {
                claims.insert(id.key, claim.clone());
            }
            _ => *self = Self::NotEmpty,
        }
    }
}

impl Transaction<'_> {
    /// Returns the id's claim. Deletes a claim that has expired, so that it does not stay beside a mark that
    /// this transaction may append.
    pub(crate) fn claim(&mut self, id: Id<'_>) -> Result<Option<ClaimRow>> {
        self.check_for_claims()?;
        let row = match &self.journal.claims {
            ClaimsCache::All(claims) => claims.get(&id.key).cloned(),
            _ => self.with(|connection| find(connection, id))?,
        };
        match row {
            Some(row) if row.is_expired(self.now_ms) => {
                if self.last_wrote_claim_of(id) {
                    // This very transaction wrote it, with a TTL of zero. A row must tell whether it was committed.
                    self.append_same(id)?;
                }
                self.delete_claim(id)?;
                Ok(None)
            }
            row => Ok(row),
        }
    }

    /// Finds out whether there are claims at all, once after each change by another connection. So a store
    /// without claims pays nothing for them.
    fn check_for_claims(&mut self) -> Result<()> {
        if matches!(self.journal.claims, ClaimsCache::Unknown) {
            let found = self.with(|connection| {
                connection.prepare_cached("SELECT 1 FROM claims LIMIT 1")?.exists([])
            })?;
            self.journal.claims =
                if found { ClaimsCache::NotEmpty } else { ClaimsCache::All(HashMap::default()) };
        }
        Ok(())
    }

    /// Reads the table into the cache before a batch of `size` ids, unless it has more rows than the batch:
    /// then a search for each id costs less.
    pub(crate) fn load_claims(&mut self, size: usize) -> Result<()> {
        self.check_for_claims()?;
        if !matches!(self.journal.claims, ClaimsCache::NotEmpty) {
            return Ok(());
        }
        let size = size.min(MAX_CACHED_CLAIMS);
        let limit = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
        let rows = self.with(|connection| page(connection, &ClaimPosition::default(), limit))?;
        if rows.len() <= size {
            let hasher = &self.journal.hasher;
            let key = |position: &ClaimPosition| hasher.scoped(&position.scope).key(&position.id);
            let claims =
                rows.into_iter().map(|(position, claim)| (key(&position), claim)).collect();
            self.journal.claims = ClaimsCache::All(claims);
        }
        Ok(())
    }

    pub(crate) fn put_claim(&mut self, id: Id<'_>, claim: ClaimRow) -> Result<()> {
        self.put_claims(vec![(id, claim)])
    }

    /// Writes the claims of many ids. No id may occur twice.
    pub(crate) fn put_claims(&mut self, mut claims: Vec<(Id<'_>, ClaimRow)>) -> Result<()> {
        // In the table's order: neighbours share a page, which is in the cache then.
        claims.sort_unstable_by(|(one, _), (other, _)| sort_key(*one).cmp(&sort_key(*other)));
        self.changed_claims = true;
        self.with(|connection| put(connection, &claims))?;
        for (id, claim) in &claims {
            self.journal.claims.put(*id, claim);
        }
        if let Some((id, claim)) = claims.pop() {
            self.record_claim_write(id, claim);
        }
        Ok(())
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
        match self.newest_slot(key) {
            Some(slot) if updated == 0 => self.with(|connection| {
                let mut update = connection.prepare_cached(ADD_REFUSALS_TO_MARK)?;
                update.execute((slot.seq, count, token.bytes())).map(drop)
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn delete_claim(&mut self, id: Id<'_>) -> Result<bool> {
        Ok(self.delete_claims(vec![id])? > 0)
    }

    /// Deletes the claims of these ids. Returns how many were deleted.
    pub(crate) fn delete_claims(&mut self, mut ids: Vec<Id<'_>>) -> Result<usize> {
        self.changed_claims = true;
        if let ClaimsCache::All(claims) = &mut self.journal.claims {
            ids.retain(|id| claims.remove(&id.key).is_some());
            if ids.is_empty() {
                return Ok(0);
            }
            if claims.is_empty() {
                // These are all rows: SQLite frees the table's pages without reading them.
                return self.with(|connection| {
                    connection.prepare_cached("DELETE FROM claims")?.execute([])
                });
            }
        } else {
            // They may have been the last rows.
            self.journal.claims = ClaimsCache::Unknown;
        }
        ids.sort_unstable_by(|one, other| sort_key(*one).cmp(&sort_key(*other)));
        self.with(|connection| {
            let mut delete = connection.prepare_cached(DELETE)?;
            ids.iter().try_fold(0, |deleted, id| {
                Ok(deleted + delete.execute((scope_parameter(id.scope), IdValue(id.bytes)))?)
            })
        })
    }

    /// Deletes the expired claims among the next `limit` rows after `after`.
    pub(crate) fn purge_claims(
        &mut self,
        after: &ClaimPosition,
        limit: i64,
    ) -> Result<Step<ClaimPosition>> {
        let now_ms = self.now_ms;
        let step = self.delete_among(after, limit, |_, claim| claim.is_expired(now_ms))?;
        if step.count > 0 {
            self.note_purge()?;
        }
        Ok(step)
    }

    /// Deletes the selected claims among the next `limit` rows after `after`, which is in the selection's scope.
    pub(crate) fn remove_claims(
        &mut self,
        selection: &Selection,
        after: &ClaimPosition,
        limit: i64,
    ) -> Result<Step<ClaimPosition>> {
        let (scope, now_ms) = (&selection.scope, self.now_ms);
        let mut step = self.delete_among(after, limit, |position, claim| {
            position.scope == *scope && selection.takes_claim(&position.id, claim, now_ms)
        })?;
        // The table is ordered by scope, so a row of another scope ends the removal.
        step.next = step.next.filter(|next| next.scope == *scope);
        Ok(step)
    }

    fn delete_among(
        &mut self,
        after: &ClaimPosition,
        limit: i64,
        should_delete: impl Fn(&ClaimPosition, &ClaimRow) -> bool,
    ) -> Result<Step<ClaimPosition>> {
        let mut step = Step { next: None, count: 0 };
        self.check_for_claims()?;
        if matches!(&self.journal.claims, ClaimsCache::All(claims) if claims.is_empty()) {
            return Ok(step);
        }
        let page = self.with(|connection| page(connection, after, limit))?;
        for (position, _) in page.iter().filter(|(position, claim)| should_delete(position, claim))
        {
            self.journal.claims = ClaimsCache::Unknown;
            self.changed_claims = true;
            self.with(|connection| {
                connection
                    .prepare_cached(DELETE)?
                    .execute((scope_parameter(&position.scope), IdValue(&position.id)))
            })?;
            step.count += 1;
        }
        let full = i64::try_from(page.len()).is_ok_and(|length| length == limit);
        step.next = page.into_iter().next_back().map(|(position, _)| position).filter(|_| full);
        Ok(step)
    }
}

/// The table's order, almost: SQLite sorts all TEXT before the first BLOB.
fn sort_key(id: Id<'_>) -> (&str, &[u8]) {
    (id.scope, id.bytes)
}

/// A claim's position in the table's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimPosition {
    pub(crate) scope: String,
    pub(crate) id: Vec<u8>,
}

pub(crate) fn page(
    connection: &Connection,
    after: &ClaimPosition,
    limit: i64,
) -> rusqlite::Result<Vec<(ClaimPosition, ClaimRow)>> {
    // No id is empty, so the default position comes before the first claim: TEXT sorts before BLOB.
    connection
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            ", scope, id FROM claims WHERE (scope, id) > (?1, ?2) ORDER BY scope, id LIMIT ?3",
        ))?
        .query_map((&after.scope, IdValue(&after.id), limit), |row| {
            let id = format::id_bytes(row.get_ref(13)?)?.to_vec();
            let position = ClaimPosition { scope: row.get(12)?, id };
            Ok((position, ClaimRow::read(row)?))
        })?
        .collect()
}

impl Journal {
    /// Returns the id's claim unless it has expired, read outside a write transaction.
    pub(crate) fn claim(&mut self, id: Id<'_>, now_ms: i64) -> Result<Option<ClaimRow>> {
        let row = self.stored_claim(id)?;
        Ok(row.filter(|row| !row.is_expired(now_ms)))
    }

    /// Returns the id's claim, expired or not.
    pub(crate) fn stored_claim(&mut self, id: Id<'_>) -> Result<Option<ClaimRow>> {
        self.read(|connection| find(connection, id))
    }

    /// Returns the next `limit` claims after a position, ordered by scope and id.
    pub(crate) fn claims_after(
        &mut self,
        after: &ClaimPosition,
        limit: i64,
    ) -> Result<Vec<(ClaimPosition, ClaimRow)>> {
        self.read(|connection| page(connection, after, limit))
    }

    /// Counts the selected claims among the next `limit` rows after `after`, which is in the selection's scope.
    pub(crate) fn count_selected_claims(
        &mut self,
        selection: &Selection,
        after: &ClaimPosition,
        limit: i64,
        now_ms: i64,
    ) -> Result<Step<ClaimPosition>> {
        let page = self.claims_after(after, limit)?;
        let full = i64::try_from(page.len()).is_ok_and(|length| length == limit);
        let in_scope = page.iter().take_while(|(position, _)| position.scope == selection.scope);
        let selected =
            in_scope.filter(|(position, claim)| selection.takes_claim(&position.id, claim, now_ms));
        let count = selected.count() as u64;
        let last = page.into_iter().next_back().map(|(position, _)| position);
        let next = last.filter(|last| full && last.scope == selection.scope);
        Ok(Step { next, count })
    }

    /// Counts the claims by their states.
    pub(crate) fn count_claims(&mut self, now_ms: i64) -> Result<Counts> {
        self.read(|connection| {
            // Whether there is an error, but not its text: the texts of a million claims are large.
            let mut statement = connection.prepare_cached(concat!(
                "SELECT ",
                columns!("substr(last_error, 1, 0)"),
                " FROM claims"
            ))?;
            let mut counts = Counts::default();
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                counts.add_one(ClaimRow::read(row)?.state(now_ms));
            }
            Ok(counts)
        })
    }
}
