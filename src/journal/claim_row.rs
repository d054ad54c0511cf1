//! One row of the table `claims`, and what its times say of the claim.
//!
//! Owns its columns in SQL and what they mean.

use std::sync::Arc;

use rusqlite::Row;

use super::row::digest;
use crate::clock::{ABSORBED_STEP_MS, from_ms};
use crate::entry::{Entry, State};
use crate::item::Digest;
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
    pub(crate) fn is_older_than(&self, before_ms: i64) -> bool {
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
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
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
pub(super) use columns;

/// Reads a count of the file. Any number may be there; a wrong count is no reason to fail.
pub(crate) fn attempts(stored: i64) -> u32 {
    u32::try_from(stored.max(0)).unwrap_or(u32::MAX)
}
