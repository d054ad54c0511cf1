//! Decisions on claims: grant, confirm, renew, release, fail.

use super::lifetime::Lifetime;
use super::mark::after_claim;
use crate::clock::MAX_MS;
use crate::config::Ttl;
use crate::journal::NewMark;
use crate::journal::claims::ClaimRow;
use crate::token::Token;

/// The terms of a claim.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) lease: Ttl,
    /// How long the attempts are remembered after the lease ends.
    pub(crate) ttl: Ttl,
    pub(crate) max_attempts: Option<u32>,
}

/// The decision on a claim of an id that is not seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    Granted(ClaimRow),
    InFlight { until_ms: i64 },
    GivenUp { attempts: u32 },
}

/// Decides on a claim of an id that is not seen. `token` makes the token of a new claim.
pub(crate) fn claim(
    before: Option<ClaimRow>,
    terms: Terms,
    token: impl FnOnce() -> Token,
    now_ms: i64,
) -> Decision {
    if let Some(claim) = &before {
        // This includes a failed claim whose retry delay is not over.
        if let Some(until_ms) = claim.blocked_until(now_ms) {
            return Decision::InFlight { until_ms };
        }
        if terms.max_attempts.is_some_and(|most| claim.attempts >= most) {
            return Decision::GivenUp { attempts: claim.attempts };
        }
    }
    let (attempts, last_error) =
        before.map_or((0, None), |claim| (claim.attempts, claim.last_error));
    let lease_until = end_of(terms.lease, now_ms);
    Decision::Granted(ClaimRow {
        token: Some(token()),
        claimed_at: now_ms,
        lease_until,
        attempts: attempts.saturating_add(1),
        last_error,
        expires_at: terms.ttl.expires_at(lease_until),
    })
}

/// Returns the mark of a confirmed claim.
pub(crate) fn confirm<'a>(
    lifetime: Lifetime,
    claim: &'a ClaimRow,
    receipt: Option<&'a [u8]>,
    now_ms: i64,
) -> NewMark<'a> {
    let first_seen = lifetime.window_start(claim.claimed_at, now_ms);
    let expires_at = lifetime.expires_at(now_ms, first_seen);
    let mark = NewMark { first_seen, receipt, ..NewMark::at(now_ms, expires_at) };
    NewMark { expires_at, ..after_claim(mark, claim, now_ms) }
}

/// A change that a holder makes to its claim.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Renew { lease: Ttl },
    Release,
    Fail { reason: String, retry_delay: Ttl },
}

impl Change {
    pub(crate) fn apply(&self, claim: &mut ClaimRow, ttl: Ttl, now_ms: i64) {
        match self {
            Self::Renew { lease } => claim.lease_until = end_of(*lease, now_ms),
            Self::Release => claim.end(now_ms, now_ms),
            Self::Fail { reason, retry_delay } => {
                claim.end(now_ms, end_of(*retry_delay, now_ms));
                claim.last_error = Some(reason.clone());
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

    fn claimed(token: Option<Token>, lease_until: i64, attempts: u32) -> ClaimRow {
        let last_error = Some("503".to_owned());
        ClaimRow {
            token,
            claimed_at: NOW - 10,
            lease_until,
            attempts,
            last_error,
            expires_at: None,
        }
    }

    #[test]
    fn a_claim_is_granted_once_a_lease_or_a_delay_has_ended_and_attempts_are_left() {
        let token = Tokens::new().make();
        let terms = |max_attempts| Terms { lease: ms(60), ttl: ms(1_000), max_attempts };
        let in_flight = Decision::InFlight { until_ms: NOW + 1 };
        let granted = |attempts| {
            Decision::Granted(ClaimRow {
                token: Some(token),
                claimed_at: NOW,
                lease_until: NOW + 60,
                attempts,
                last_error: (attempts > 1).then(|| "503".to_owned()),
                expires_at: Some(NOW + 1_060),
            })
        };
        let table = [
            ("no claim", None, None, granted(1)),
            ("a lease", Some(claimed(Some(token), NOW + 1, 1)), None, in_flight.clone()),
            ("a delay", Some(claimed(None, NOW + 1, 1)), Some(1), in_flight),
            ("a lease that has ended", Some(claimed(Some(token), NOW, 1)), Some(2), granted(2)),
            ("a failure", Some(claimed(None, NOW - 10, 2)), None, granted(3)),
            (
                "too many failures",
                Some(claimed(None, NOW - 10, 2)),
                Some(2),
                Decision::GivenUp { attempts: 2 },
            ),
        ];
        for (what, before, max_attempts, expected) in table {
            assert_eq!(claim(before, terms(max_attempts), || token, NOW), expected, "{what}");
        }
    }

    #[test]
    fn a_confirmed_claim_keeps_its_token_and_counts_its_age_from_the_claim() {
        let token = Tokens::new().make();
        let lifetime = |max_age| Lifetime {
            ttl: ms(100),
            window: Window::Sliding { max_age: Some(Duration::from_millis(max_age)) },
        };
        let claim = claimed(Some(token), NOW + 500, 3);
        // Maximum age, expected beginning and expiry.
        for (max_age, first_seen, expires_at) in [(50, NOW - 10, NOW + 40), (10, NOW, NOW + 10)] {
            let mark = confirm(lifetime(max_age), &claim, Some(b"4711"), NOW);
            assert_eq!((mark.first_seen, mark.expires_at), (first_seen, Some(expires_at)));
            assert_eq!((mark.token, mark.attempts), (Some(token), 3));
            assert_eq!((mark.last_error, mark.receipt), (Some("503"), Some(&b"4711"[..])));
        }
    }

    #[test]
    fn what_a_holder_does_ends_or_prolongs_the_lease_and_the_memory_of_attempts() {
        let fail = |delay| Change::Fail { reason: "later".to_owned(), retry_delay: ms(delay) };
        // Change, whether the token stays, end of the lease or the delay, end of the attempts.
        let table = [
            (Change::Renew { lease: ms(70) }, true, NOW + 70, NOW + 1_070),
            (Change::Release, false, NOW - 10, NOW + 1_000),
            (fail(0), false, NOW - 10, NOW + 1_000),
            (fail(30), false, NOW + 30, NOW + 1_030),
        ];
        for (change, keeps_token, lease_until, expires_at) in table {
            let mut claim = claimed(Some(Tokens::new().make()), NOW + 5, 1);
            change.apply(&mut claim, ms(1_000), NOW);
            assert_eq!(claim.token.is_some(), keeps_token, "{change:?}");
            assert_eq!((claim.lease_until, claim.expires_at), (lease_until, Some(expires_at)));
            let error = if matches!(change, Change::Fail { .. }) { "later" } else { "503" };
            assert_eq!(claim.last_error.as_deref(), Some(error));
        }
    }
}
