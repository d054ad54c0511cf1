//! Counts what the verbs answer.
//!
//! Owns which answer is which event. What always holds: an answer is counted when the verb returns it, so neither a
//! decision that is made again nor one that was rolled back is counted.

use super::{Claim, SeenStore};
use crate::decide::claim::{Change, Previous};
use crate::decide::verbs::{Ownership, Verdict};
use crate::engine::counters::{Counters, Event};
use crate::error::Error;

impl SeenStore {
    pub(crate) fn count_verdict(&self, verdict: Verdict) {
        self.engine.counters.add(event_of(verdict), 1);
    }

    pub(super) fn count_verdicts(&self, verdicts: &[Verdict]) {
        for verdict in [Verdict::New, Verdict::Changed, Verdict::Duplicate, Verdict::InFlight] {
            let count = verdicts.iter().filter(|one| **one == verdict).count();
            self.engine.counters.add(event_of(verdict), count as u64);
        }
    }

    /// Counts the answer to a claim; `previous` is how the attempt before a granted one ended.
    pub(crate) fn count_claim<L, K>(&self, claim: &Claim<L, K>, previous: fn(&L) -> &Previous) {
        count_claim(&self.engine.counters, claim, previous);
    }

    pub(super) fn count_ends(&self, end: Option<Event>, owned: &[Ownership]) {
        let held = owned.iter().filter(|one| **one == Ownership::Held).count();
        if let Some(end) = end {
            self.engine.counters.add(end, held as u64);
        }
        self.engine.counters.add(Event::ClaimLost, (owned.len() - held) as u64);
    }

    /// Counts the error of a holder that has lost its claim.
    pub(crate) fn count_lost(&self, lost: Error) -> Error {
        self.engine.counters.add(Event::ClaimLost, 1);
        self.engine.counters.add_error(&lost);
        lost
    }
}

/// Counts the answer to a claim.
pub(crate) fn count_claim<L, K>(
    counters: &Counters,
    claim: &Claim<L, K>,
    previous: fn(&L) -> &Previous,
) {
    let event = match claim {
        Claim::Granted(_) => Event::ClaimGranted,
        Claim::InFlight { .. } => Event::ClaimInFlight,
        Claim::Seen(_) => Event::ClaimSeen,
        Claim::Unresolved { .. } => Event::ClaimUnresolved,
        Claim::GivenUp { .. } => Event::ClaimGivenUp,
    };
    counters.add(event, 1);
    if let Claim::Granted(lease) = claim
        && let Previous::Abandoned { .. } = previous(lease)
    {
        counters.add(Event::ClaimAbandoned, 1);
    }
}

pub(crate) fn event_of(verdict: Verdict) -> Event {
    match verdict {
        Verdict::New => Event::New,
        Verdict::Changed => Event::Changed,
        Verdict::Duplicate => Event::Duplicate,
        Verdict::InFlight => Event::InFlight,
    }
}

/// Returns the event of a claim that this change ends. A renewal ends none, and a retry ends what is over.
pub(crate) fn end_of(change: &Change) -> Option<Event> {
    match change {
        Change::Release => Some(Event::ClaimReleased),
        Change::Fail(_) => Some(Event::ClaimFailed),
        Change::Renew { .. } | Change::Retry => None,
    }
}
