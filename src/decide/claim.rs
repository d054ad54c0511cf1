//! Decisions on claims: grant, confirm, renew, release, fail.

use std::sync::Arc;
use std::time::SystemTime;

use super::lifetime::Lifetime;
use super::mark::{after_claim, superseding};
use crate::clock::{MAX_MS, from_ms};
use crate::config::{Abandoned, RetryDelay, Ttl};
use crate::entry::Entry;
use crate::item::{self, Digest};
use crate::journal::{ClaimRow, Outcome};
use crate::journal::{MarkRow, NewMark};
use crate::token::Token;

/// How the attempt before a claim ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Previous {
    /// There was none, or it is forgotten.
    None,
    /// Its holder gave it up as if nothing had been tried: by a call, or by dropping its lease. A task that was cancelled
    /// while it sent has dropped its lease too.
    Released,
    /// It failed, for this reason.
    Failed {
        /// The reason that its holder gave.
        error: String,
    },
    /// Its lease ran out, and its holder said nothing: the work may have been done. Ask the receiver, if it can
    /// tell, before doing it again.
    Abandoned {
        /// When the lease ran out.
        since: SystemTime,
        /// The label of its holder.
        holder: Option<String>,
    },
    /// There was none: the id is seen in another version. The entry is of that version, with its receipt.
    Superseded(Box<Entry>),
}

/// The terms of a claim.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) lease: Ttl,
    /// How long the attempts are remembered after the lease ends.
    pub(crate) ttl: Ttl,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) max_abandoned: Option<u32>,
    pub(crate) abandoned: Abandoned,
    pub(crate) holder: Arc<str>,
    /// What the version or the payload is told by.
    pub(crate) digest: Option<Digest>,
}

/// The decision on a claim of an id that is not seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// The claim, how the attempt before it ended, and whether the id is seen in another version.
    Granted(ClaimRow, Previous, bool),
    InFlight {
        until_ms: i64,
        holder: Option<Arc<str>>,
    },
    Unresolved {
        since_ms: i64,
        holder: Option<Arc<str>>,
    },
    GivenUp {
        attempts: u32,
    },
}

/// Decides on a claim of an id that is not seen, or seen in another version: `superseded`. `token` makes the token of
/// a new claim.
pub(crate) fn claim(
    before: Option<ClaimRow>,
    superseded: Option<Entry>,
    terms: Terms,
    token: impl FnOnce() -> Token,
    now_ms: i64,
) -> Decision {
    let (mut attempts, mut abandoned, mut last_error) = (0, 0, None);
    let (mut digest, mut duplicates) = (terms.digest, 0);
    let is_change = superseded.is_some();
    let mut previous = superseded.map_or(Previous::None, |old| Previous::Superseded(Box::new(old)));
    if let Some(claim) = before {
        // This includes a failed claim whose retry delay is not over.
        if let Some(until_ms) = claim.blocked_until(now_ms) {
            return Decision::InFlight { until_ms, holder: claim.holder };
        }
        if claim.is_unresolved(now_ms) {
            return Decision::Unresolved { since_ms: claim.lease_until, holder: claim.holder };
        }
        // The attempts at one version say nothing of the next.
        if !item::is_change(terms.digest, claim.digest) {
            (attempts, abandoned) = (claim.attempts, claim.abandoned_by(now_ms));
        }
        let is_final = claim.outcome == Some(Outcome::FailedFinally) && attempts > 0;
        let reached = |most: Option<u32>, count| most.is_some_and(|most| count >= most);
        if is_final
            || reached(terms.max_attempts, attempts)
            || reached(terms.max_abandoned, abandoned)
        {
            return Decision::GivenUp { attempts };
        }
        previous = previous_of(&claim);
        (digest, duplicates) = (digest.or(claim.digest), claim.duplicates);
        last_error = claim.last_error;
    }
    let lease_until = end_of(terms.lease, now_ms);
    let claim = ClaimRow {
        token: Some(token()),
        outcome: None,
        held: terms.abandoned == Abandoned::Hold,
        holder: Some(terms.holder),
        claimed_at: now_ms,
        lease_until,
        attempts: attempts.saturating_add(1),
        abandoned,
        digest,
        duplicates,
        last_error,
        expires_at: terms.ttl.expires_at(lease_until),
    };
    Decision::Granted(claim, previous, is_change)
}

/// Returns how an attempt ended that is over.
fn previous_of(claim: &ClaimRow) -> Previous {
    match claim.outcome {
        None => Previous::Abandoned {
            since: from_ms(claim.lease_until),
            holder: claim.holder.as_deref().map(str::to_owned),
        },
        Some(Outcome::Released) => Previous::Released,
        Some(Outcome::Failed | Outcome::FailedFinally) => {
            Previous::Failed { error: claim.last_error.clone().unwrap_or_default() }
        }
    }
}

/// Returns the mark of a confirmed claim; `old` is the mark of the version before.
pub(crate) fn confirm<'a>(
    lifetime: Lifetime,
    claim: &'a ClaimRow,
    receipt: Option<&'a [u8]>,
    old: Option<&MarkRow>,
    now_ms: i64,
) -> NewMark<'a> {
    let begun = old.map_or(claim.claimed_at, |old| old.first_seen.min(claim.claimed_at));
    let first_seen = lifetime.window_start(begun, now_ms);
    let mark = NewMark { receipt, ..lifetime.mark(now_ms, first_seen) };
    let expires_at = mark.expires_at;
    superseding(NewMark { expires_at, ..after_claim(mark, claim, now_ms) }, old)
}

/// A change that a holder makes to its claim, or, where it has vanished, the one who decides.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Renew {
        lease: Ttl,
    },
    Release,
    Fail(Fail),
    /// Releases a claim without a holder, and counts its attempts from 0.
    Retry,
}

/// What a holder says of a failed attempt, with what the store makes of it.
#[derive(Clone, Debug)]
pub(crate) struct Fail {
    pub(crate) reason: String,
    pub(crate) is_final: bool,
    pub(crate) retry_delay: RetryDelay,
    /// A random number for the delay.
    pub(crate) chance: u64,
}

impl Change {
    pub(crate) fn apply(&self, claim: &mut ClaimRow, ttl: Ttl, now_ms: i64) {
        match self {
            Self::Renew { lease } => claim.lease_until = end_of(*lease, now_ms),
            Self::Release => claim.end(Outcome::Released, now_ms, now_ms),
            Self::Retry => {
                claim.end(Outcome::Released, now_ms, now_ms);
                (claim.attempts, claim.abandoned) = (0, 0);
            }
            Self::Fail(fail) if fail.is_final => {
                claim.end(Outcome::FailedFinally, now_ms, now_ms);
                claim.last_error = Some(fail.reason.clone());
            }
            Self::Fail(fail) => {
                let delay = Ttl::After(fail.retry_delay.after(claim.attempts, fail.chance));
                claim.end(Outcome::Failed, now_ms, end_of(delay, now_ms));
                claim.last_error = Some(fail.reason.clone());
            }
        }
        // The attempts of a claim that ends now are remembered from now on.
        claim.expires_at = ttl.expires_at(claim.lease_until.max(now_ms));
    }
}

/// Returns when a length of time that begins now ends.
pub(crate) fn end_of(length: Ttl, now_ms: i64) -> i64 {
    length.expires_at(now_ms).unwrap_or(MAX_MS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Window;
    use crate::token::Tokens;

    const NOW: i64 = 1_000_000;

    fn ms(ms: u64) -> Ttl {
        Ttl::After(Duration::from_millis(ms))
    }

    /// A claim made 10 ms ago; ended in this way unless it has a token.
    fn claimed(token: Option<Token>, lease_until: i64, attempts: u32) -> ClaimRow {
        let last_error = Some("503".to_owned());
        let outcome = token.is_none().then_some(Outcome::Failed);
        ClaimRow {
            token,
            outcome,
            held: false,
            holder: Some("host:1".into()),
            claimed_at: NOW - 10,
            lease_until,
            attempts,
            abandoned: 0,
            digest: None,
            duplicates: 0,
            last_error,
            expires_at: None,
        }
    }

    #[test]
    fn a_claim_is_granted_once_a_lease_or_a_delay_has_ended_and_attempts_are_left() {
        let token = Tokens::new().make();
        let terms = |max_attempts, max_abandoned| Terms {
            lease: ms(60),
            ttl: ms(1_000),
            max_attempts,
            max_abandoned,
            abandoned: Abandoned::Retry,
            holder: "host:2".into(),
            digest: None,
        };
        let in_flight = Decision::InFlight { until_ms: NOW + 1, holder: Some("host:1".into()) };
        let granted = |attempts, abandoned, previous| {
            let claim = ClaimRow {
                token: Some(token),
                outcome: None,
                held: false,
                holder: Some("host:2".into()),
                claimed_at: NOW,
                lease_until: NOW + 60,
                attempts,
                abandoned,
                digest: None,
                duplicates: 0,
                last_error: (attempts > 1).then(|| "503".to_owned()),
                expires_at: Some(NOW + 1_060),
            };
            Decision::Granted(claim, previous, false)
        };
        let failed = || Previous::Failed { error: "503".to_owned() };
        let abandoned =
            || Previous::Abandoned { since: from_ms(NOW), holder: Some("host:1".to_owned()) };
        let ended = |outcome| ClaimRow { outcome: Some(outcome), ..claimed(None, NOW - 10, 2) };
        let given_up = Decision::GivenUp { attempts: 2 };
        let leased = |until, attempts| claimed(Some(token), until, attempts);
        let held = |until| ClaimRow { held: true, ..leased(until, 1) };
        let unresolved = Decision::Unresolved { since_ms: NOW, holder: Some("host:1".into()) };
        let abandoned_twice = ClaimRow { abandoned: 1, ..leased(NOW, 2) };
        let table = [
            ("no claim", None, (None, None), granted(1, 0, Previous::None)),
            ("a lease", Some(leased(NOW + 1, 1)), (None, None), in_flight.clone()),
            ("a delay", Some(claimed(None, NOW + 1, 1)), (Some(1), None), in_flight.clone()),
            ("abandoned", Some(leased(NOW, 1)), (Some(2), None), granted(2, 1, abandoned())),
            ("a failure", Some(claimed(None, NOW - 10, 2)), (None, None), granted(3, 0, failed())),
            (
                "a release",
                Some(ended(Outcome::Released)),
                (None, None),
                granted(3, 0, Previous::Released),
            ),
            (
                "a final failure",
                Some(ended(Outcome::FailedFinally)),
                (None, None),
                given_up.clone(),
            ),
            ("too many attempts", Some(claimed(None, NOW, 2)), (Some(2), None), given_up.clone()),
            ("abandoned too often", Some(abandoned_twice), (None, Some(2)), given_up),
            ("held", Some(held(NOW + 1)), (None, None), in_flight),
            ("held and abandoned", Some(held(NOW)), (None, None), unresolved),
        ];
        for (what, before, (attempts, abandoned), expected) in table {
            let decision = claim(before, None, terms(attempts, abandoned), || token, NOW);
            assert_eq!(decision, expected, "{what}");
        }
    }

    #[test]
    fn a_confirmed_claim_keeps_its_token_and_counts_its_age_from_the_claim() {
        let token = Tokens::new().make();
        let lifetime = |max_age| Lifetime {
            ttl: ms(100),
            window: Window::Sliding { max_age: Some(Duration::from_millis(max_age)) },
            retention: None,
        };
        let claim = claimed(Some(token), NOW + 500, 3);
        // Maximum age, expected beginning and expiry.
        for (max_age, first_seen, expires_at) in [(50, NOW - 10, NOW + 40), (10, NOW, NOW + 10)] {
            let mark = confirm(lifetime(max_age), &claim, Some(b"4711"), None, NOW);
            assert_eq!((mark.first_seen, mark.expires_at), (first_seen, Some(expires_at)));
            assert_eq!((mark.token, mark.attempts), (Some(token), 3));
            assert_eq!((mark.last_error, mark.receipt), (Some("503"), Some(&b"4711"[..])));
        }
    }

    #[test]
    fn what_a_holder_does_ends_or_prolongs_the_lease_and_the_memory_of_attempts() {
        let fail = |delay, is_final| {
            let retry_delay = RetryDelay::Fixed(Duration::from_millis(delay));
            Change::Fail(Fail { reason: "later".to_owned(), is_final, retry_delay, chance: 0 })
        };
        // Change, whether the token stays, end of the lease or the delay, end of the attempts.
        let table = [
            (Change::Renew { lease: ms(70) }, true, NOW + 70, NOW + 1_070),
            (Change::Release, false, NOW - 10, NOW + 1_000),
            (fail(0, false), false, NOW - 10, NOW + 1_000),
            (fail(30, false), false, NOW + 30, NOW + 1_030),
            (fail(30, true), false, NOW - 10, NOW + 1_000),
            (Change::Retry, false, NOW - 10, NOW + 1_000),
        ];
        for (change, keeps_token, lease_until, expires_at) in table {
            let mut claim = claimed(Some(Tokens::new().make()), NOW + 5, 1);
            change.apply(&mut claim, ms(1_000), NOW);
            assert_eq!(claim.token.is_some(), keeps_token, "{change:?}");
            assert_eq!(claim.outcome.is_none(), keeps_token, "{change:?}");
            assert_eq!((claim.lease_until, claim.expires_at), (lease_until, Some(expires_at)));
            let error = if matches!(change, Change::Fail(_)) { "later" } else { "503" };
            assert_eq!(claim.last_error.as_deref(), Some(error));
        }
    }
}
