//! Decisions on marks of an id that is not seen.

use super::lifetime::Lifetime;
use crate::journal::NewMark;
use crate::journal::claims::ClaimRow;

/// Returns the mark of `mark_seen` for an id that may be claimed. `None`: nothing is to be written.
pub(crate) fn mark(
    lifetime: Lifetime,
    claim: Option<&ClaimRow>,
    seen_at_ms: i64,
    now_ms: i64,
) -> Option<NewMark<'_>> {
    let mark = NewMark::at(seen_at_ms, lifetime.expires_at(seen_at_ms, seen_at_ms));
    match claim {
        // If the clock is set back, a mark that has already expired would live beside the claim. And no mark that
        // expires at once settles a claim that waits for a decision.
        Some(claim) if binds(claim, now_ms) && has_ended(mark.expires_at, now_ms) => None,
        Some(claim) => Some(after_claim(mark, claim, now_ms)),
        None => Some(mark),
    }
}

/// Returns the mark of `check_and_mark`. `None`: the id is in flight, or waits for a decision.
pub(crate) fn check(
    lifetime: Lifetime,
    claim: Option<&ClaimRow>,
    now_ms: i64,
) -> Option<NewMark<'_>> {
    let mark = NewMark::at(now_ms, lifetime.expires_at(now_ms, now_ms));
    match claim {
        Some(claim) if binds(claim, now_ms) => None,
        // Without the token: the worker whose lease has run out is not the one to handle the id.
        Some(claim) => Some(NewMark { token: None, ..after_claim(mark, claim, now_ms) }),
        None => Some(mark),
    }
}

/// Returns a mark that ends a claim. It keeps the holder's token, so that the holder's confirm still
/// succeeds, and lasts until the lease ends, so that no other worker is granted the id before.
pub(crate) fn after_claim<'a>(mark: NewMark<'a>, claim: &'a ClaimRow, now_ms: i64) -> NewMark<'a> {
    let in_flight = claim.is_in_flight(now_ms);
    NewMark {
        expires_at: mark
            .expires_at
            .map(|at| if in_flight { at.max(claim.lease_until) } else { at }),
        token: claim.token,
        attempts: mark.attempts.max(claim.attempts),
        last_error: mark.last_error.or(claim.last_error.as_deref()),
        ..mark
    }
}

/// Returns whether the claim keeps others from the id.
fn binds(claim: &ClaimRow, now_ms: i64) -> bool {
    claim.is_in_flight(now_ms) || claim.is_unresolved(now_ms)
}

fn has_ended(expires_at: Option<i64>, now_ms: i64) -> bool {
    expires_at.is_some_and(|at| at <= now_ms)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Ttl, Window};
    use crate::token::Tokens;

    const NOW: i64 = 1_000_000;

    fn lifetime(ttl_ms: u64) -> Lifetime {
        Lifetime { ttl: Ttl::After(Duration::from_millis(ttl_ms)), window: Window::Fixed }
    }

    fn claim(lease_until: i64) -> ClaimRow {
        ClaimRow {
            token: Some(Tokens::new().make()),
            outcome: None,
            held: false,
            holder: None,
            claimed_at: NOW - 10,
            lease_until,
            attempts: 2,
            abandoned: 0,
            last_error: Some("503".to_owned()),
            expires_at: None,
        }
    }

    #[test]
    fn a_mark_of_a_claimed_id_lasts_until_the_lease_ends_at_least() {
        // TTL, end of the lease, expected expiry; `None`: nothing is written.
        let table = [
            (100, NOW + 50, Some(NOW + 100)),
            (100, NOW + 500, Some(NOW + 500)),
            (0, NOW + 500, None),
            // The lease has run out.
            (0, NOW, Some(NOW)),
            (100, NOW, Some(NOW + 100)),
        ];
        for (ttl_ms, lease_until, expires_at) in table {
            let claim = claim(lease_until);
            let mark = mark(lifetime(ttl_ms), Some(&claim), NOW, NOW);
            assert_eq!(
                mark.map(|mark| mark.expires_at),
                expires_at.map(Some),
                "{ttl_ms} {lease_until}"
            );
            if let Some(mark) = mark {
                assert_eq!(
                    (mark.token, mark.attempts, mark.last_error),
                    (claim.token, 2, Some("503"))
                );
            }
        }
    }

    #[test]
    fn a_check_turns_away_from_a_lease_that_runs_and_takes_the_id_from_one_that_has_run_out() {
        assert_eq!(check(lifetime(100), Some(&claim(NOW + 1)), NOW), None);
        let held = ClaimRow { held: true, ..claim(NOW) };
        assert_eq!(check(lifetime(100), Some(&held), NOW), None, "held and abandoned");
        let taken = claim(NOW);
        let mark = check(lifetime(100), Some(&taken), NOW).unwrap();
        assert_eq!((mark.token, mark.attempts, mark.expires_at), (None, 2, Some(NOW + 100)));
        assert_eq!(check(lifetime(100), None, NOW), Some(NewMark::at(NOW, Some(NOW + 100))));
    }
}
