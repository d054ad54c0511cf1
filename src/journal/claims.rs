//! The table `claims`: ids that a worker has taken and not confirmed.
//!
//! Owns one row an id, from its first claim until it is seen, forgotten or purged. What always holds:
//! a claim is decided on only under the write lock, so no memory has to follow it; an id has a claim row
//! or a live mark, never both: an expired row that is met under the write lock is deleted there. A row
//! keeps an empty token once its claim has ended, for its count of attempts. Whether a lease still runs
//! is the reader's question.
//!
//! A claim that ended without a delay has `lease_until` = `claimed_at`. So no time of the day is stored
//! that could keep its id from being claimed when the clock is set back.
//!
//! A store that is alone with the table, as most are, remembers it as [`Known`], and is spared the search
//! for each claim. What is remembered holds until another connection commits or a transaction is rolled
//! back; then the table is asked again.
//!
//! An id in a storage class that no store gives it is told of wherever it is met: the table would take it for
//! another id.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use rusqlite::{Connection, OptionalExtension, Row};

use super::transaction::KeyIsHash;
use super::{Journal, Transaction};
use crate::clock::{ABSORBED_STEP_MS, from_ms};
use crate::entry::{Entry, State};
use crate::error::Result;
use crate::format::{self, IdValue, TwinValue};
use crate::id::{Id, Key};
use crate::machine::at_once;
use crate::token::Token;

/// What is known of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimRow {
    /// `None` once it was released or has failed.
    pub(crate) token: Option<Token>,
    pub(crate) claimed_at: i64,
    /// When the lease ends; of a failed claim with a delay, when the id may be claimed again; of any
    /// other that has ended, `claimed_at`.
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

    /// Until when the id cannot be claimed, if that is later than now: the end of the lease, or of the
    /// delay after a failure.
    ///
    /// A lease binds everybody until its end, whatever the clock does. A delay is only advice, and is
    /// void when the clock stands further before the claim than two clocks may differ: then it was set
    /// back since, and the delay could last for days.
    pub(crate) fn blocked_until(&self, now_ms: i64) -> Option<i64> {
        let binds = self.token.is_some()
            || self.claimed_at < self.lease_until
                && self.claimed_at <= now_ms.saturating_add(ABSORBED_STEP_MS);
        (binds && now_ms < self.lease_until).then_some(self.lease_until)
    }

    /// Takes the claim from its holder at `now_ms`. The id may be claimed again at `again_ms`: at once
    /// if that is not later.
    pub(crate) fn end(&mut self, now_ms: i64, again_ms: i64) {
        self.token = None;
        // The clock may have been set back since the claim, and this claim is not to be taken for one
        // from before such a step.
        self.claimed_at = self.claimed_at.min(now_ms);
        self.lease_until = if again_ms > now_ms { again_ms } else { self.claimed_at };
    }

    /// Whether it is time to forget that the id was ever claimed.
    pub(crate) fn is_expired(&self, now_ms: i64) -> bool {
        self.blocked_until(now_ms).is_none() && self.expires_at.is_some_and(|at| now_ms >= at)
    }

    /// Whether the claim last changed before `before_ms`. One that is in flight changes when its lease
    /// ends.
    fn is_older_than(&self, before_ms: i64) -> bool {
        self.claimed_at.max(self.lease_until) < before_ms
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
            // What no longer blocks the id blocks it until now at the latest.
            lease_until: Some(from_ms(
                self.blocked_until(now_ms).unwrap_or(self.lease_until.min(now_ms)),
            )),
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
            attempts: attempts(row.get(3)?),
            last_error: row.get(4)?,
            expires_at: row.get(5)?,
        })
    }
}

/// A count as the file holds it, where any number may stand: a count fails nothing.
pub(crate) fn attempts(stored: i64) -> u32 {
    u32::try_from(stored.max(0)).unwrap_or(u32::MAX)
}

/// An empty scope is bound as NULL and made '' again by SQL. rusqlite binds empty text as a dangling
/// pointer, and comparing no bytes at it takes some processors 200 ns, at every step of a search.
fn bound(scope: &str) -> Option<&str> {
    (!scope.is_empty()).then_some(scope)
}

const FIND: &str = "\
SELECT token, claimed_at, lease_until, attempts, last_error, expires_at, id FROM claims \
WHERE scope = ifnull(?1, '') AND id IN (?2, ?3)";

pub(crate) fn find(connection: &Connection, id: Id<'_>) -> rusqlite::Result<Option<ClaimRow>> {
    connection
        .prepare_cached(FIND)?
        .query_row((bound(id.scope), IdValue(id.bytes), TwinValue(id.bytes)), |row| {
            format::id_bytes(row.get_ref(6)?)?;
            ClaimRow::read(row)
        })
        .optional()
}

const PUT: &str = "\
INSERT OR REPLACE INTO claims \
(scope, id, token, claimed_at, lease_until, attempts, last_error, expires_at) \
VALUES (ifnull(?1, ''), ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

fn put(connection: &Connection, claims: &[(Id<'_>, ClaimRow)]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(PUT)?;
    for (id, claim) in claims {
        let token = claim.token.map(Token::bytes);
        insert.execute((
            bound(id.scope),
            IdValue(id.bytes),
            token.as_ref().map_or(&[][..], |token| &token[..]),
            claim.claimed_at,
            claim.lease_until,
            claim.attempts,
            &claim.last_error,
            claim.expires_at,
        ))?;
    }
    Ok(())
}

const DELETE: &str = "DELETE FROM claims WHERE scope = ifnull(?1, '') AND id = ?2";

/// How many claims are remembered: those of some batches, at about 150 bytes each.
const ROOM: usize = at_once!(1 << 16, in_a_simulation: 4);

/// What is known of the table without asking it.
#[derive(Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    /// It has rows.
    Rows,
    /// It has these rows and no others.
    All(HashMap<Key, ClaimRow, BuildHasherDefault<KeyIsHash>>),
}

impl Known {
    fn put(&mut self, id: Id<'_>, claim: &ClaimRow) {
        match self {
            Self::All(claims) if claims.len() < ROOM => {
                claims.insert(id.key, claim.clone());
            }
            _ => *self = Self::Rows,
        }
    }
}

impl Transaction<'_> {
    /// The id's claim. One whose attempts have expired is deleted: it is not to stand beside the mark
    /// that may be made now.
    pub(crate) fn claim(&mut self, id: Id<'_>) -> Result<Option<ClaimRow>> {
        self.learn_whether_claims()?;
        let row = match &self.journal.claims {
            Known::All(claims) => claims.get(&id.key).cloned(),
            _ => self.with(|connection| find(connection, id))?,
        };
        match row {
            Some(row) if row.is_expired(self.now_ms) => {
                if self.is_evident_by_claim_alone(id) {
                    // Written by this very transaction, with a TTL of zero.
                    self.append_tombstone(id)?;
                }
                self.delete_claim(id)?;
                Ok(None)
            }
            row => Ok(row),
        }
    }

    /// Asks whether there are claims at all, once after each change by others, so that a store without
    /// claims pays nothing for them.
    fn learn_whether_claims(&mut self) -> Result<()> {
        if matches!(self.journal.claims, Known::Nothing) {
            let found = self.with(|connection| {
                connection.prepare_cached("SELECT 1 FROM claims LIMIT 1")?.exists([])
            })?;
            self.journal.claims = if found { Known::Rows } else { Known::All(HashMap::default()) };
        }
        Ok(())
    }

    /// Reads the table before a batch of `size` ids, unless it has more rows than the batch: then to
    /// search for each id costs less.
    pub(crate) fn learn_claims(&mut self, size: usize) -> Result<()> {
        self.learn_whether_claims()?;
        if !matches!(self.journal.claims, Known::Rows) {
            return Ok(());
        }
        let size = size.min(ROOM);
        let limit = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
        let rows = self.with(|connection| page(connection, &Place::default(), limit))?;
        if rows.len() <= size {
            let hasher = &self.journal.hasher;
            let key = |place: &Place| hasher.scoped(&place.scope).key(&place.id);
            let claims = rows.into_iter().map(|(place, claim)| (key(&place), claim)).collect();
            self.journal.claims = Known::All(claims);
        }
        Ok(())
    }

    pub(crate) fn put_claim(&mut self, id: Id<'_>, claim: ClaimRow) -> Result<()> {
        self.put_claims(vec![(id, claim)])
    }

    /// Writes the claims of many ids, each of which comes once.
    pub(crate) fn put_claims(&mut self, mut claims: Vec<(Id<'_>, ClaimRow)>) -> Result<()> {
        // In the table's order, so that neighbours share a page while it is at hand.
        claims.sort_unstable_by(|(one, _), (other, _)| place(*one).cmp(&place(*other)));
        self.with(|connection| put(connection, &claims))?;
        for (id, claim) in &claims {
            self.journal.claims.put(*id, claim);
        }
        if let Some((id, claim)) = claims.pop() {
            self.evidence_is_claim(id, claim);
        }
        Ok(())
    }

    pub(crate) fn delete_claim(&mut self, id: Id<'_>) -> Result<bool> {
        Ok(self.delete_claims(vec![id])? > 0)
    }

    /// Deletes the claims of these ids; how many had one.
    pub(crate) fn delete_claims(&mut self, mut ids: Vec<Id<'_>>) -> Result<usize> {
        if let Known::All(claims) = &mut self.journal.claims {
            ids.retain(|id| claims.remove(&id.key).is_some());
            if ids.is_empty() {
                return Ok(0);
            }
            if claims.is_empty() {
                // These are all that there are: SQLite gives the table's pages back without a look at
                // the rows.
                return self.with(|connection| {
                    connection.prepare_cached("DELETE FROM claims")?.execute([])
                });
            }
        } else {
            // They may have been the last.
            self.journal.claims = Known::Nothing;
        }
        ids.sort_unstable_by(|one, other| place(*one).cmp(&place(*other)));
        self.with(|connection| {
            let mut delete = connection.prepare_cached(DELETE)?;
            ids.iter().try_fold(0, |deleted, id| {
                Ok(deleted + delete.execute((bound(id.scope), IdValue(id.bytes)))?)
            })
        })
    }

    /// Deletes the claims whose attempts have expired, among the next `limit` after `after`.
    pub(crate) fn purge_claims(&mut self, after: &Place, limit: i64) -> Result<ClaimsStep> {
        let now_ms = self.now_ms;
        let step = self.delete_among(after, limit, |_, claim| claim.is_expired(now_ms))?;
        if step.deleted > 0 {
            self.note_purge()?;
        }
        Ok(step)
    }

    /// Deletes the claims of a scope that last changed before `before_ms`, among the next `limit` after
    /// `after`, which is in that scope.
    pub(crate) fn cleanup_claims(
        &mut self,
        scope: &str,
        before_ms: i64,
        after: &Place,
        limit: i64,
    ) -> Result<ClaimsStep> {
        let is_old = |claim: &ClaimRow| claim.is_older_than(before_ms);
        let mut step =
            self.delete_among(after, limit, |place, claim| place.scope == scope && is_old(claim))?;
        // Scopes follow each other in the table.
        step.next = step.next.filter(|next| next.scope == scope);
        Ok(step)
    }

    fn delete_among(
        &mut self,
        after: &Place,
        limit: i64,
        is_doomed: impl Fn(&Place, &ClaimRow) -> bool,
    ) -> Result<ClaimsStep> {
        let mut step = ClaimsStep { next: None, deleted: 0 };
        self.learn_whether_claims()?;
        if matches!(&self.journal.claims, Known::All(claims) if claims.is_empty()) {
            return Ok(step);
        }
        let page = self.with(|connection| page(connection, after, limit))?;
        for (place, _) in page.iter().filter(|(place, claim)| is_doomed(place, claim)) {
            self.journal.claims = Known::Nothing;
            self.with(|connection| {
                connection
                    .prepare_cached(DELETE)?
                    .execute((bound(&place.scope), IdValue(&place.id)))
            })?;
            step.deleted += 1;
        }
        let full = i64::try_from(page.len()).is_ok_and(|length| length == limit);
        step.next = page.into_iter().next_back().map(|(place, _)| place).filter(|_| full);
        Ok(step)
    }
}

/// Where an id comes in the table's order, almost: SQLite has all TEXT before the first BLOB.
fn place(id: Id<'_>) -> (&str, &[u8]) {
    (id.scope, id.bytes)
}

/// What a step through the claims did.
pub(crate) struct ClaimsStep {
    /// The place to go on after; `None` when the end was reached.
    pub(crate) next: Option<Place>,
    pub(crate) deleted: u64,
}

/// A claim's place in the table's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) scope: String,
    pub(crate) id: Vec<u8>,
}

pub(crate) fn page(
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
            let id = format::id_bytes(row.get_ref(7)?)?.to_vec();
            let place = Place { scope: row.get(6)?, id };
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
        let row = self.stored_claim(id)?;
        Ok(row.filter(|row| !row.is_expired(now_ms)))
    }

    /// The same, expired or not.
    pub(crate) fn stored_claim(&mut self, id: Id<'_>) -> Result<Option<ClaimRow>> {
        self.ensure_open()?;
        self.with("read", |connection| find(connection, id))
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
            // Whether there is an error, but not the error itself: of a million claims that is much.
            let mut statement = connection.prepare_cached(
                "SELECT token, claimed_at, lease_until, attempts, substr(last_error, 1, 0), \
                        expires_at FROM claims",
            )?;
            let mut counts = ClaimCounts { in_flight: 0, failed: 0 };
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                match ClaimRow::read(row)?.state(now_ms) {
                    State::InFlight => counts.in_flight += 1,
                    State::Failed => counts.failed += 1,
                    _ => {}
                }
            }
            Ok(counts)
        })
    }
}
