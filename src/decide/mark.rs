//! Decisions on marks.

use super::lifetime::Lifetime;
use crate::item::Digest;
use crate::journal::ClaimRow;
use crate::journal::row::later;
use crate::journal::{MarkRow, NewMark};

/// Returns the mark of `mark_seen` for an id that may be claimed; `old` is the mark of another version of the id. `None`:
/// nothing is to be written.
pub(crate) fn mark<'a>(
    lifetime: Lifetime,
    claim: Option<&'a ClaimRow>,
    digest: Option<Digest>,
    old: Option<&MarkRow>,
    seen_at_ms: i64,
    now_ms: i64,
) -> Option<NewMark<'a>> {
    let mark = new(lifetime, digest, old, seen_at_ms, now_ms);
    let mark = match claim {
        // If the clock is set back, a mark that has already expired would live beside the claim. And no mark that
        // expires at once settles a claim that waits for a decision.
        Some(claim) if binds(claim, now_ms) && has_ended(mark.expires_at, now_ms) => return None,
        Some(claim) => after_claim(mark, claim, now_ms),
        None => mark,
    };
    Some(superseding(mark, old))
}

/// Returns the mark of `check_and_mark`, as [`mark`]. `None`: the id is in flight, or waits for a decision.
pub(crate) fn check<'a>(
    lifetime: Lifetime,
    claim: Option<&'a ClaimRow>,
    digest: Option<Digest>,
    old: Option<&MarkRow>,
    now_ms: i64,
) -> Option<NewMark<'a>> {
    let mark = new(lifetime, digest, old, now_ms, now_ms);
    let mark = match claim {
        Some(claim) if binds(claim, now_ms) => return None,
        // Without the token: the worker whose lease has run out is not the one to handle the id.
        Some(claim) => NewMark { token: None, ..after_claim(mark, claim, now_ms) },
        None => mark,
    };
    Some(superseding(mark, old))
}

/// Returns a mark of an id of which no claim is known. The maximum age of a changed version counts from the first one,
/// unless that is over.
fn new<'a>(
    lifetime: Lifetime,
    digest: Option<Digest>,
    old: Option<&MarkRow>,
    seen_at_ms: i64,
    now_ms: i64,
) -> NewMark<'a> {
    let begun = |old: &MarkRow| lifetime.window_start(old.first_seen, now_ms).min(seen_at_ms);
    NewMark { digest, ..lifetime.mark(seen_at_ms, old.map_or(seen_at_ms, begun)) }
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
        digest: mark.digest.or(claim.digest),
        duplicates: mark.duplicates.saturating_add(claim.duplicates),
        last_error: mark.last_error.or(claim.last_error.as_deref()),
        ..mark
    }
}

/// Returns the mark with what stays of the mark of another version that it replaces: its times and its counts. Its
/// receipt does not stay: it is the answer to that version.
pub(crate) fn superseding<'a>(mark: NewMark<'a>, old: Option<&MarkRow>) -> NewMark<'a> {
    let Some(old) = old else { return mark };
    NewMark {
        first_seen: mark.first_seen.min(old.first_seen),
        last_seen: mark.last_seen.max(old.last_seen),
        expires_at: later(mark.expires_at, old.expires_at),
        retain_until: mark.retain_until.max(old.retain_until),
        digest: mark.digest.or(old.digest),
        duplicates: mark.duplicates.saturating_add(old.duplicates),
        earlier: old.earlier,
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
        Lifetime {
            ttl: Ttl::After(Duration::from_millis(ttl_ms)),
            window: Window::Fixed,
            retention: None,
        }
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
            digest: None,
            duplicates: 0,
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
            let mark = mark(lifetime(ttl_ms), Some(&claim), None, None, NOW, NOW);
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
        assert_eq!(check(lifetime(100), Some(&claim(NOW + 1)), None, None, NOW), None);
        let held = ClaimRow { held: true, ..claim(NOW) };
        assert_eq!(check(lifetime(100), Some(&held), None, None, NOW), None, "held and abandoned");
        let taken = claim(NOW);
        let mark = check(lifetime(100), Some(&taken), None, None, NOW).unwrap();
        assert_eq!((mark.token, mark.attempts, mark.expires_at), (None, 2, Some(NOW + 100)));
        assert_eq!(
            check(lifetime(100), None, None, None, NOW),
            Some(NewMark::at(NOW, Some(NOW + 100)))
        );
    }
}
