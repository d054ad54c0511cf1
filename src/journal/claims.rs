//! The table `claims`: ids that a worker has claimed and not confirmed.
//!
//! Owns one row per id, from its first claim until the id is seen, forgotten or purged. What always holds:
//! a claim is decided only under the write lock, so no index in memory follows the table. An id has a claim row
//! or a live mark, and both only while a changed version of it is handled: then the digest of the claim is not that
//! of the mark. An expired claim row that is found under the write lock is deleted there. When a claim ends, its row
//! stays with an empty token, for its count of attempts. Whether a lease still runs
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

use rusqlite::{Connection, OptionalExtension};

use super::claim_row::{ClaimRow, columns};
use super::purge::Step;
use super::selection::Selection;
use super::transaction::{ChangedClaims, KeyIsHash};
use super::{Journal, Transaction};
use crate::entry::Counts;
use crate::error::Result;
use crate::format::{self, IdValue, OtherClassValue};
use crate::id::{Id, Key};
use crate::item::Digest;
use crate::machine::step_size;
use crate::token::Token;

/// Binds an empty scope as NULL, which the SQL turns into '' again. rusqlite binds empty text as a dangling
/// pointer, and some processors take 200 ns to compare no bytes there, at every step of a search.
pub(super) fn scope_parameter(scope: &str) -> Option<&str> {
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
        self.changed_claims.add(claims.iter().map(|(id, _)| id.key));
        self.with(|connection| put(connection, &claims))?;
        for (id, claim) in &claims {
            self.journal.claims.put(*id, claim);
        }
        if let Some((id, claim)) = claims.pop() {
            self.record_claim_write(id, claim);
        }
        Ok(())
    }

    pub(crate) fn delete_claim(&mut self, id: Id<'_>) -> Result<bool> {
        Ok(self.delete_claims(vec![id])? > 0)
    }

    /// Deletes the claims of these ids. Returns how many were deleted.
    pub(crate) fn delete_claims(&mut self, mut ids: Vec<Id<'_>>) -> Result<usize> {
        self.changed_claims.add(ids.iter().map(|id| id.key));
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
            self.changed_claims = ChangedClaims::Any;
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

/// Returns the last claim after one position and before another, for a table whose beginning is damaged.
pub(crate) fn last_between(
    connection: &Connection,
    after: &ClaimPosition,
    before: Option<&ClaimPosition>,
) -> rusqlite::Result<Option<(ClaimPosition, ClaimRow)>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            ", scope, id FROM claims WHERE (scope, id) > (?1, ?2) AND (?3 IS NULL OR (scope, id) < (?3, ?4)) \
             ORDER BY scope DESC, id DESC LIMIT 1",
        ))?
        .query_row(
            (
                &after.scope,
                IdValue(&after.id),
                before.map(|it| &it.scope),
                before.map(|it| IdValue(&it.id)),
            ),
            |row| {
                let id = format::id_bytes(row.get_ref(13)?)?.to_vec();
                Ok((ClaimPosition { scope: row.get(12)?, id }, ClaimRow::read(row)?))
            },
        )
        .optional()
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
