//! Decisions on restored entries: newer knowledge is neither shortened nor overwritten.

use crate::item::{Comparison, compare};
use crate::journal::ClaimRow;
use crate::journal::MarkRow;
use crate::journal::row::later;

/// Merges an incoming mark into the known one. Returns `None` when the incoming mark adds nothing.
pub(crate) fn marks(known: &MarkRow, incoming: &MarkRow) -> Option<MarkRow> {
    // A receipt is the answer to one version, so the two are never taken from different marks.
    let is_newer = known.last_seen < incoming.last_seen;
    let (digest, receipt) = match compare(known.digest, incoming.digest) {
        _ if known.digest == incoming.digest => {
            (known.digest, known.receipt.as_ref().or(incoming.receipt.as_ref()))
        }
        Comparison::First => (incoming.digest, incoming.receipt.as_ref()),
        Comparison::Changed if is_newer => (incoming.digest, incoming.receipt.as_ref()),
        _ => (known.digest, known.receipt.as_ref()),
    };
    let merged = MarkRow {
        first_seen: known.first_seen.min(incoming.first_seen),
        last_seen: known.last_seen.max(incoming.last_seen),
        expires_at: later(known.expires_at, incoming.expires_at),
        retain_until: known.retain_until.max(incoming.retain_until),
        digest,
        duplicates: known.duplicates.max(incoming.duplicates),
        earlier: known.earlier.or(incoming.earlier),
        attempts: known.attempts.max(incoming.attempts),
        last_error: known.last_error.clone().or_else(|| incoming.last_error.clone()),
        receipt: receipt.cloned(),
        ..known.clone()
    };
    (merged != *known).then_some(merged)
}

/// Returns the claim that is to be written, or `None` when the incoming claim is not newer.
pub(crate) fn claims(
    known: Option<&ClaimRow>,
    incoming: ClaimRow,
    now_ms: i64,
) -> Option<ClaimRow> {
    let Some(known) = known else { return Some(incoming) };
    let binds = known.is_in_flight(now_ms) || known.is_unresolved(now_ms);
    // An ended claim may have an earlier time than when it was made, under a clock that was set back.
    let is_of_ended_attempt = known.outcome.is_some()
        && incoming.outcome.is_none()
        && incoming.attempts <= known.attempts;
    let is_newer = !binds && !is_of_ended_attempt && incoming.claimed_at > known.claimed_at;
    is_newer.then(|| ClaimRow {
        attempts: incoming.attempts.max(known.attempts),
        abandoned: incoming.abandoned.max(known.abandoned),
        duplicates: incoming.duplicates.max(known.duplicates),
        ..incoming
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Outcome;

    fn mark(first: i64, last: i64, expires_at: Option<i64>, duplicates: i64) -> MarkRow {
        MarkRow {
            scope: String::new(),
            id: b"a".to_vec(),
            first_seen: first,
            last_seen: last,
            expires_at,
            retain_until: None,
            digest: None,
            duplicates,
            earlier: None,
            token: None,
            attempts: 0,
            last_error: None,
            receipt: None,
        }
    }

    #[test]
    fn the_wider_window_the_later_expiry_and_the_higher_count_win() {
        let known = mark(5, 10, Some(100), 3);
        let table = [
            (mark(5, 10, Some(100), 3), None),
            (mark(6, 9, Some(99), 2), None),
            (mark(4, 9, Some(99), 2), Some(mark(4, 10, Some(100), 3))),
            (mark(6, 11, Some(101), 2), Some(mark(5, 11, Some(101), 3))),
            (mark(6, 9, None, 2), Some(mark(5, 10, None, 3))),
            (mark(6, 9, Some(1), 4), Some(mark(5, 10, Some(100), 4))),
        ];
        for (incoming, merged) in table {
            assert_eq!(marks(&known, &incoming), merged, "{incoming:?}");
            if let Some(merged) = merged {
                assert_eq!(marks(&merged, &incoming), None, "incoming twice: {incoming:?}");
            }
        }
    }

    #[test]
    fn a_claim_that_is_brought_replaces_an_older_one_that_is_not_in_flight() {
        let claim = |claimed_at, lease_until, attempts| ClaimRow {
            token: Some(crate::token::Tokens::new().make()),
            outcome: None,
            held: false,
            holder: None,
            claimed_at,
            lease_until,
            attempts,
            abandoned: 0,
            digest: None,
            duplicates: 0,
            last_error: None,
            expires_at: None,
        };
        let now_ms = 50;
        assert!(claims(None, claim(10, 20, 1), now_ms).is_some());
        let (runs, over) = (claim(30, 60, 1), claim(30, 40, 7));
        assert_eq!(claims(Some(&runs), claim(45, 70, 2), now_ms), None);
        assert_eq!(claims(Some(&over), claim(30, 70, 2), now_ms), None);
        let held = ClaimRow { held: true, ..over.clone() };
        assert_eq!(claims(Some(&held), claim(45, 70, 2), now_ms), None, "held and abandoned");
        let ended = ClaimRow { token: None, outcome: Some(Outcome::Failed), ..claim(10, 10, 7) };
        assert_eq!(claims(Some(&ended), claim(45, 70, 7), now_ms), None, "the same attempt");
        assert!(claims(Some(&ended), claim(45, 70, 8), now_ms).is_some());
        let merged = claims(Some(&over), claim(45, 70, 2), now_ms).unwrap();
        assert_eq!((merged.claimed_at, merged.attempts), (45, 7));
    }
}
