//! The figures of a store for the program's recorder, by the facade `metrics`.
//!
//! Owns the names, labels and units, and nothing else: `counters` says when something is counted. What always
//! holds: each name and each label here stands in `docs/monitoring.md`, and no label tells of an id. The figures are
//! registered with the recorder that is installed when the store is opened, all at once, so that to count needs no
//! lock of the recorder's registry, also in a forked child.

use std::time::Duration;

use metrics::{Counter, Histogram, Unit};

use super::counters::Event;
use crate::error::ErrorKind;

pub(super) struct Meters {
    events: [Counter; Event::ALL.len()],
    errors: [Counter; ErrorKind::ALL.len()],
    commit: Histogram,
    wait: Histogram,
    group: Histogram,
}

/// The name of what counts an event, and its label.
fn name(event: Event) -> (&'static str, Option<(&'static str, &'static str)>) {
    const VERDICTS: &str = "seen_store_verdicts_total";
    const CLAIMS: &str = "seen_store_claims_total";
    const CLAIMS_ENDED: &str = "seen_store_claims_ended_total";
    match event {
        Event::New => (VERDICTS, Some(("verdict", "new"))),
        Event::Changed => (VERDICTS, Some(("verdict", "changed"))),
        Event::Duplicate => (VERDICTS, Some(("verdict", "duplicate"))),
        Event::InFlight => (VERDICTS, Some(("verdict", "in_flight"))),
        Event::ClaimGranted => (CLAIMS, Some(("answer", "granted"))),
        Event::ClaimSeen => (CLAIMS, Some(("answer", "seen"))),
        Event::ClaimInFlight => (CLAIMS, Some(("answer", "in_flight"))),
        Event::ClaimUnresolved => (CLAIMS, Some(("answer", "unresolved"))),
        Event::ClaimGivenUp => (CLAIMS, Some(("answer", "given_up"))),
        Event::ClaimAbandoned => ("seen_store_claims_abandoned_total", None),
        Event::ClaimConfirmed => (CLAIMS_ENDED, Some(("outcome", "confirmed"))),
        Event::ClaimFailed => (CLAIMS_ENDED, Some(("outcome", "failed"))),
        Event::ClaimReleased => (CLAIMS_ENDED, Some(("outcome", "released"))),
        Event::ClaimLost => (CLAIMS_ENDED, Some(("outcome", "lost"))),
        Event::FailedOpen => ("seen_store_failed_open_total", None),
        Event::Commit => ("seen_store_commits_total", None),
        Event::Purged => ("seen_store_purged_total", None),
        Event::Rebuild => ("seen_store_rebuilds_total", None),
    }
}

const ERRORS: &str = "seen_store_errors_total";
const COMMIT: &str = "seen_store_commit_seconds";
const WAIT: &str = "seen_store_wait_seconds";
const GROUP: &str = "seen_store_group_calls";

fn describe() {
    let count = |name, text| metrics::describe_counter!(name, Unit::Count, text);
    count("seen_store_verdicts_total", "Answers of check_and_mark, by verdict.");
    count("seen_store_claims_total", "Answers of claim.");
    count(
        "seen_store_claims_abandoned_total",
        "Granted claims whose attempt before was abandoned.",
    );
    count("seen_store_claims_ended_total", "Claims that their holders ended, by outcome.");
    count("seen_store_failed_open_total", "Lookups answered \"not seen\" because of an error.");
    count(ERRORS, "Errors of calls and of background work, by kind.");
    count("seen_store_commits_total", "Transactions that changed the file.");
    count("seen_store_purged_total", "Expired marks and claims that were removed.");
    count("seen_store_rebuilds_total", "Rebuilds of the index.");
    metrics::describe_histogram!(COMMIT, Unit::Seconds, "How long a commit held the write lock.");
    metrics::describe_histogram!(
        WAIT,
        Unit::Seconds,
        "How long a call paused for other processes."
    );
    metrics::describe_histogram!(GROUP, Unit::Count, "How many calls shared a commit.");
}

impl Default for Meters {
    /// Registers all figures with the recorder that is installed now.
    fn default() -> Self {
        describe();
        Self {
            events: Event::ALL.map(|event| match name(event) {
                (name, Some((key, value))) => metrics::counter!(name, key => value),
                (name, None) => metrics::counter!(name),
            }),
            errors: ErrorKind::ALL.map(|kind| metrics::counter!(ERRORS, "kind" => kind.word())),
            commit: metrics::histogram!(COMMIT),
            wait: metrics::histogram!(WAIT),
            group: metrics::histogram!(GROUP),
        }
    }
}

impl Meters {
    pub(super) fn add(&self, event: Event, count: u64) {
        self.events[event as usize].increment(count);
    }

    pub(super) fn add_error(&self, kind: ErrorKind) {
        self.errors[kind as usize].increment(1);
    }

    pub(super) fn record_commit(&self, held: Duration) {
        self.commit.record(held);
    }

    pub(super) fn record_wait(&self, waited: Duration) {
        self.wait.record(waited);
    }

    pub(super) fn record_group(&self, calls: u64) {
        self.group.record(calls as f64);
    }
}
