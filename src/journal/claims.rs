//! The table `claims`: ids that a worker has taken and not confirmed.
//!
//! Owns one row an id, from its first claim until it is seen, forgotten or purged. What always holds:
//! a claim is read and written only under the write lock, so it needs no copy in memory; an id has a
//! claim row or a live mark, never both. A row keeps an empty token once its claim has ended, for its
//! count of attempts. Whether a lease still runs is the reader's question.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Journal, Transaction};
use crate::answer::{Entry, State};
use crate::clock::{MAX_MS, from_ms};
use crate::error::Result;
use crate::id::Id;
use crate::schema::IdValue;
use crate::token::Token;

/// What is known of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimRow {
    /// `None` once it was released or has failed.
    pub(crate) token: Option<Token>,
    pub(crate) claimed_at: i64,
    /// When the lease ends; of a failed claim, when the id may be claimed again.
    pub(crate) lease_until: i64,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
    /// When the attempts are forgotten; `None` is never.
    pub(crate) expires_at: Option<i64>,
}

impl ClaimRow {
    pub(crate) fn is_in_flight(&self, now_ms: i64) -> bool {
        self.token.is_some() && now_ms < self.lease_until
    }

    /// Takes the claim from its holder. The id may be claimed again at `again_ms`.
    pub(crate) fn end(&mut self, again_ms: i64) {
        (self.token, self.lease_until) = (None, again_ms);
    }

    /// Whether it is time to forget that the id was ever claimed.
    pub(crate) fn is_expired(&self, now_ms: i64) -> bool {
        now_ms >= self.lease_until && self.expires_at.is_some_and(|at| now_ms >= at)
    }

    pub(crate) fn state(&self, now_ms: i64) -> State {
        match self {
            _ if self.is_in_flight(now_ms) => State::InFlight,
            _ if self.token.is_none() && self.last_error.is_some() && !self.is_expired(now_ms) => {
                State::Failed
            }
            _ => State::Expired,
        }
    }

    pub(crate) fn entry(self, scope: &str, id: &[u8], now_ms: i64) -> Entry {
        Entry {
            scope: scope.to_owned(),
            id: id.to_vec(),
            state: self.state(now_ms),
            first_seen: from_ms(self.claimed_at),
            last_seen: from_ms(self.claimed_at),
            expires_at: self.expires_at.map(from_ms),
            lease_until: Some(from_ms(self.lease_until)),
            attempts: self.attempts,
            last_error: self.last_error,
            receipt: None,
            suppressed: 0,
        }
    }

    /// From the columns `token` to `expires_at`, in the table's order.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            token: Token::from_bytes(row.get_ref(0)?.as_blob()?),
            claimed_at: row.get(1)?,
            lease_until: row.get(2)?,
            attempts: row.get(3)?,
            last_error: row.get(4)?,
            expires_at: row.get(5)?,
        })
    }
}

/// What a confirmed claim leaves behind in its mark.
#[derive(Clone, Copy, Default)]
pub(crate) struct Confirmed<'a> {
    pub(crate) token: Option<Token>,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<&'a str>,
    pub(crate) receipt: Option<&'a [u8]>,
}

/// An empty scope is bound as NULL and made '' again by SQL. rusqlite binds empty text as a dangling
/// pointer, and comparing no bytes at it takes some processors 200 ns, at every step of a search.
fn bound(scope: &str) -> Option<&str> {
    (!scope.is_empty()).then_some(scope)
}

const FIND: &str = "\
SELECT token, claimed_at, lease_until, attempts, last_error, expires_at FROM claims \
WHERE scope = ifnull(?1, '') AND id = ?2";

pub(super) fn find(connection: &Connection, id: Id<'_>) -> rusqlite::Result<Option<ClaimRow>> {
    connection
        .prepare_cached(FIND)?
        .query_row((bound(id.scope), IdValue(id.bytes)), ClaimRow::read)
        .optional()
}

impl Transaction<'_> {
    /// The id's claim, unless its attempts have expired.
    pub(crate) fn claim(&mut self, id: Id<'_>) -> Result<Option<ClaimRow>> {
        if !self.has_claims()? {
            return Ok(None);
        }
        let now_ms = self.now_ms;
        let row = self.with(|connection| find(connection, id))?;
        Ok(row.filter(|row| !row.is_expired(now_ms)))
    }

    /// Whether there are claims at all. Asked once after each change of the table, so that a store
    /// without claims pays nothing for them.
    fn has_claims(&mut self) -> Result<bool> {
        if let Some(known) = self.journal.has_claims {
            return Ok(known);
        }
        let found = self.with(|connection| {
            connection.prepare_cached("SELECT 1 FROM claims LIMIT 1")?.exists([])
        })?;
        self.journal.has_claims = Some(found);
        Ok(found)
    }

    pub(crate) fn put_claim(&mut self, id: Id<'_>, claim: &ClaimRow) -> Result<()> {
        // A rollback forgets this again.
        self.journal.has_claims = Some(true);
        self.with(|connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO claims \
                     (scope, id, token, claimed_at, lease_until, attempts, last_error, expires_at) \
                     VALUES (ifnull(?1, ''), ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute((
                    bound(id.scope),
                    IdValue(id.bytes),
                    claim.token.map_or_else(Vec::new, |token| token.bytes().to_vec()),
                    claim.claimed_at,
                    claim.lease_until,
                    claim.attempts,
                    &claim.last_error,
                    claim.expires_at,
                ))
        })?;
        self.proof_is_claim(id, claim);
        Ok(())
    }

    pub(crate) fn delete_claim(&mut self, id: Id<'_>) -> Result<bool> {
        self.claims_changed();
        let deleted = self.with(|connection| {
            connection
                .prepare_cached("DELETE FROM claims WHERE scope = ifnull(?1, '') AND id = ?2")?
                .execute((bound(id.scope), IdValue(id.bytes)))
        })?;
        Ok(deleted > 0)
    }

    /// Deletes up to `limit` claims of a scope, whatever has become of them; how many.
    pub(crate) fn delete_claims(&mut self, scope: &str, limit: i64) -> Result<u64> {
        self.claims_changed();
        let deleted = self.with(|connection| {
            connection
                .prepare_cached(
                    "DELETE FROM claims WHERE scope = ?1 \
                     AND id IN (SELECT id FROM claims WHERE scope = ?1 LIMIT ?2)",
                )?
                .execute((scope, limit))
        })?;
        Ok(deleted as u64)
    }

    /// Deletes the claims whose attempts have expired, among the next `limit` after `after`.
    pub(crate) fn purge_claims(&mut self, after: &Place, limit: i64) -> Result<Option<Place>> {
        if !self.has_claims()? {
            return Ok(None);
        }
        let now_ms = self.now_ms;
        let page = self.with(|connection| page(connection, after, limit))?;
        for (place, claim) in &page {
            if claim.is_expired(now_ms) {
                self.claims_changed();
                self.with(|connection| {
                    connection
                        .prepare_cached(
                            "DELETE FROM claims WHERE scope = ifnull(?1, '') AND id = ?2",
                        )?
                        .execute((bound(&place.scope), IdValue(&place.id)))
                })?;
            }
        }
        let full = i64::try_from(page.len()).is_ok_and(|length| length == limit);
        Ok(page.into_iter().next_back().map(|(place, _)| place).filter(|_| full))
    }
}

/// A claim's place in the table's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) scope: String,
    pub(crate) id: Vec<u8>,
}

pub(super) fn page(
    connection: &Connection,
    after: &Place,
    limit: i64,
) -> rusqlite::Result<Vec<(Place, ClaimRow)>> {
    // No id is empty, so the empty place comes before the first claim: TEXT sorts before BLOB.
    connection
        .prepare_cached(
            "SELECT token, claimed_at, lease_until, attempts, last_error, expires_at, scope, id \
             FROM claims WHERE (scope, id) > (?1, ?2) ORDER BY scope, id LIMIT ?3",
        )?
        .query_map((&after.scope, IdValue(&after.id), limit), |row| {
            let place = Place { scope: row.get(6)?, id: row.get_ref(7)?.as_bytes()?.to_vec() };
            Ok((place, ClaimRow::read(row)?))
        })?
        .collect()
}

/// How many claims are in flight, and how many failed in their last attempt.
pub(crate) struct ClaimCounts {
    pub(crate) in_flight: u64,
    pub(crate) failed: u64,
}

impl Journal {
    /// The id's claim, read outside any transaction of this store.
    pub(crate) fn claim(&mut self, id: Id<'_>, now_ms: i64) -> Result<Option<ClaimRow>> {
        self.ensure_open()?;
        let row = self.with("read", |connection| find(connection, id))?;
        Ok(row.filter(|row| !row.is_expired(now_ms)))
    }

    /// The next `limit` claims after a place, in the order of scope and id.
    pub(crate) fn claims_after(
        &mut self,
        after: &Place,
        limit: i64,
    ) -> Result<Vec<(Place, ClaimRow)>> {
        self.ensure_open()?;
        self.with("read", |connection| page(connection, after, limit))
    }

    pub(crate) fn count_claims(&mut self, now_ms: i64) -> Result<ClaimCounts> {
        self.ensure_open()?;
        self.with("read", |connection| {
            connection
                .prepare_cached(
                    "SELECT count(*) FILTER (WHERE token <> x'' AND lease_until > ?1), \
                            count(*) FILTER (WHERE last_error IS NOT NULL AND token = x'') \
                     FROM claims WHERE lease_until > ?1 OR coalesce(expires_at, ?2) > ?1",
                )?
                .query_row((now_ms, MAX_MS), |row| {
                    let counts: (i64, i64) = (row.get(0)?, row.get(1)?);
                    Ok(ClaimCounts {
                        in_flight: counts.0.cast_unsigned(),
                        failed: counts.1.cast_unsigned(),
                    })
                })
        })
    }
}
