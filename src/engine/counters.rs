//! What a store has done since it was opened.
//!
//! Owns the counters, and which of them each event adds to. What always holds: a counter only grows; to count takes
//! no lock, so a forked child counts without waiting; and threads that count the same event at the same time
//! mostly write to different cache lines, because a duplicate costs little more than one that moves. Must not
//! decide what an event is: those that count say so, after the call that made it has succeeded.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind};

#[cfg(feature = "metrics")]
use super::meters::Meters;

/// What a store has done since it was opened, through all its handles. In another process, or after it was opened
/// again, it begins at 0.
///
/// What is counted is the answer of a call: a call that failed counts in [`errors`](Self::errors) alone, except
/// that a batch of more than 10,000 ids that fails has been committed in part. With the feature `metrics` the same
/// figures go to the program's recorder: see [`monitoring`](crate::monitoring).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Activity {
    /// Answers [`Verdict::New`](crate::Verdict::New).
    pub new: u64,
    /// Answers [`Verdict::Changed`](crate::Verdict::Changed).
    pub changed: u64,
    /// Answers [`Verdict::Duplicate`](crate::Verdict::Duplicate).
    pub duplicates: u64,
    /// Answers [`Verdict::InFlight`](crate::Verdict::InFlight).
    pub in_flight: u64,
    /// Claims that were granted.
    pub claims_granted: u64,
    /// Granted claims of an id whose attempt before ended with its lease, without a word of its holder. They are
    /// among the granted ones.
    pub claims_abandoned: u64,
    /// Claims that were refused because the id is seen.
    pub claims_seen: u64,
    /// Claims that were refused because another worker has the id, or because its retry delay is not over.
    pub claims_in_flight: u64,
    /// Claims that were refused because the id waits for [`resolve`](crate::SeenStore::resolve).
    pub claims_unresolved: u64,
    /// Claims that were refused because the id is given up.
    pub claims_given_up: u64,
    /// Claims that their holder confirmed.
    pub claims_confirmed: u64,
    /// Claims that their holder gave up with a failure.
    pub claims_failed: u64,
    /// Claims that their holder released, also by dropping the lease.
    pub claims_released: u64,
    /// Calls of a holder that had lost its claim.
    pub claims_lost: u64,
    /// How often `is_seen` returned false because of an error.
    pub failed_open: u64,
    /// Errors of the calls that use the file, and of the work in the background, by kind. Kinds that did not occur
    /// are missing. Arguments that are refused before the file is used are not counted, nor is anything in a
    /// closed store or a forked child.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// How many calls, and steps of work in the background, paused because another process was in the way.
    pub waits: u64,
    /// How long they paused, all together.
    #[cfg_attr(feature = "serde", serde(with = "crate::texts::duration"))]
    pub waited: Duration,
    /// The number of transactions that changed the file.
    pub commits: u64,
    /// The number of transactions that several calls shared.
    pub groups: u64,
    /// The number of calls that shared a transaction with others.
    pub grouped_calls: u64,
    /// The most calls that shared one transaction.
    pub largest_group: u64,
    /// Expired marks and claims that this store removed from the file.
    pub purged: u64,
    /// How often the index was rebuilt, because the file was restored in place, or another program compacted it
    /// or deleted rows.
    pub rebuilds: u64,
}

/// What is counted one by one, or some at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    New,
    Changed,
    Duplicate,
    InFlight,
    ClaimGranted,
    ClaimAbandoned,
    ClaimSeen,
    ClaimInFlight,
    ClaimUnresolved,
    ClaimGivenUp,
    ClaimConfirmed,
    ClaimFailed,
    ClaimReleased,
    ClaimLost,
    FailedOpen,
    Commit,
    Purged,
    Rebuild,
}

impl Event {
    /// All events, in their order.
    pub(super) const ALL: [Self; Self::Rebuild as usize + 1] = [
        Self::New,
        Self::Changed,
        Self::Duplicate,
        Self::InFlight,
        Self::ClaimGranted,
        Self::ClaimAbandoned,
        Self::ClaimSeen,
        Self::ClaimInFlight,
        Self::ClaimUnresolved,
        Self::ClaimGivenUp,
        Self::ClaimConfirmed,
        Self::ClaimFailed,
        Self::ClaimReleased,
        Self::ClaimLost,
        Self::FailedOpen,
        Self::Commit,
        Self::Purged,
        Self::Rebuild,
    ];
}

/// Into how many parts the counters are divided.
const STRIPES: usize = 16;

/// The counters of some threads, in cache lines of their own. (Processors fetch lines in pairs.)
#[derive(Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; Event::ALL.len()]);

/// See the module's header.
#[derive(Default)]
pub(crate) struct Counters {
    stripes: [Stripe; STRIPES],
    errors: [AtomicU64; ErrorKind::ALL.len()],
    waits: AtomicU64,
    waited_ns: AtomicU64,
    groups: AtomicU64,
    grouped_calls: AtomicU64,
    largest_group: AtomicU64,
    #[cfg(feature = "metrics")]
    meters: Meters,
}

impl Counters {
    pub(crate) fn add(&self, event: Event, count: u64) {
        self.stripes[stripe_of_thread()].0[event as usize].fetch_add(count, Relaxed);
        #[cfg(feature = "metrics")]
        self.meters.add(event, count);
    }

    /// Counts an error that a call on an open store met.
    pub(crate) fn add_error(&self, error: &Error) {
        let kind = error.kind();
        if matches!(kind, ErrorKind::Closed | ErrorKind::Forked) {
            return;
        }
        self.errors[kind as usize].fetch_add(1, Relaxed);
        #[cfg(feature = "metrics")]
        self.meters.add_error(kind);
    }

    /// Counts a transaction of small writes that this many calls shared.
    pub(crate) fn add_group(&self, calls: usize) {
        let calls = calls as u64;
        if calls > 1 {
            self.groups.fetch_add(1, Relaxed);
            self.grouped_calls.fetch_add(calls, Relaxed);
            self.largest_group.fetch_max(calls, Relaxed);
        }
        #[cfg(feature = "metrics")]
        self.meters.record_group(calls);
    }

    /// Counts the pauses of a call, when it is over.
    pub(super) fn wait(&self, backoff: Backoff) -> Wait<'_> {
        Wait { backoff, counters: self }
    }

    fn add_wait(&self, waited: Duration) {
        self.waits.fetch_add(1, Relaxed);
        let ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.waited_ns.fetch_add(ns, Relaxed);
        #[cfg(feature = "metrics")]
        self.meters.record_wait(waited);
    }

    /// Begins to measure a transaction.
    pub(super) fn commit_timer() -> CommitTimer {
        CommitTimer {
            #[cfg(feature = "metrics")]
            held: crate::clock::Stopwatch::start(),
        }
    }

    /// Counts a transaction that has changed the file.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "it measures nothing"))]
    pub(super) fn add_commit(&self, timer: CommitTimer) {
        self.add(Event::Commit, 1);
        #[cfg(feature = "metrics")]
        self.meters.record_commit(timer.held.elapsed());
    }

    fn count(&self, event: Event) -> u64 {
        let of_stripe = |stripe: &Stripe| stripe.0[event as usize].load(Relaxed);
        self.stripes.iter().map(of_stripe).fold(0, u64::wrapping_add)
    }

    /// Returns the counts at about this moment.
    pub(crate) fn activity(&self) -> Activity {
        let count = |event| self.count(event);
        let errors = ErrorKind::ALL.into_iter().filter_map(|kind| {
            let count = self.errors[kind as usize].load(Relaxed);
            (count > 0).then_some((kind, count))
        });
        Activity {
            new: count(Event::New),
            changed: count(Event::Changed),
            duplicates: count(Event::Duplicate),
            in_flight: count(Event::InFlight),
            claims_granted: count(Event::ClaimGranted),
            claims_abandoned: count(Event::ClaimAbandoned),
            claims_seen: count(Event::ClaimSeen),
            claims_in_flight: count(Event::ClaimInFlight),
            claims_unresolved: count(Event::ClaimUnresolved),
            claims_given_up: count(Event::ClaimGivenUp),
            claims_confirmed: count(Event::ClaimConfirmed),
            claims_failed: count(Event::ClaimFailed),
            claims_released: count(Event::ClaimReleased),
            claims_lost: count(Event::ClaimLost),
            failed_open: count(Event::FailedOpen),
            errors: errors.collect(),
            waits: self.waits.load(Relaxed),
            waited: Duration::from_nanos(self.waited_ns.load(Relaxed)),
            commits: count(Event::Commit),
            groups: self.groups.load(Relaxed),
            grouped_calls: self.grouped_calls.load(Relaxed),
            largest_group: self.largest_group.load(Relaxed),
            purged: count(Event::Purged),
            rebuilds: count(Event::Rebuild),
        }
    }
}

/// Measures how long a transaction takes, for the recorder.
#[derive(Clone, Copy)]
pub(super) struct CommitTimer {
    #[cfg(feature = "metrics")]
    held: crate::clock::Stopwatch,
}

/// A call that may have to pause for other processes. Dropping it counts its pauses as one wait.
pub(super) struct Wait<'c> {
    backoff: Backoff,
    counters: &'c Counters,
}

impl Wait<'_> {
    /// See [`Backoff::pause`].
    pub(super) fn pause(&mut self) -> bool {
        self.backoff.pause()
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(waited) = self.backoff.paused() {
            self.counters.add_wait(waited);
        }
    }
}

/// Returns the stripe of the calling thread. Threads take turns at them, in the order of their first events.
fn stripe_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT.fetch_add(1, Relaxed) % STRIPES);
        }
        stripe.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_and_each_kind_of_error_has_a_counter_of_its_own() {
        for (n, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, n, "{event:?}");
        }
        let counters = Counters::default();
        for event in Event::ALL {
            counters.add(event, event as u64 + 1);
        }
        for event in Event::ALL {
            assert_eq!(counters.count(event), event as u64 + 1, "{event:?}");
        }
        for kind in ErrorKind::ALL {
            counters.add_error(&Error::new(kind, ""));
        }
        let told = counters.activity().errors;
        let uncounted = [ErrorKind::Closed, ErrorKind::Forked];
        for kind in ErrorKind::ALL {
            assert_eq!(told.contains_key(&kind), !uncounted.contains(&kind), "{kind:?}");
        }
    }

    #[test]
    fn what_many_threads_count_adds_up() {
        let counters = Counters::default();
        rayon::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|_| (0..1_000).for_each(|_| counters.add(Event::Duplicate, 1)));
            }
        });
        assert_eq!(counters.activity().duplicates, 2 * 1_000 * STRIPES as u64);
    }

    #[test]
    fn a_group_is_two_calls_or_more() {
        let counters = Counters::default();
        for calls in [1, 3, 2] {
            counters.add_group(calls);
        }
        let told = counters.activity();
        assert_eq!((told.groups, told.grouped_calls, told.largest_group), (2, 5, 3));
    }

    #[test]
    fn a_call_that_did_not_pause_has_not_waited() {
        let counters = Counters::default();
        drop(counters.wait(Backoff::new(Duration::from_secs(1))));
        assert_eq!(counters.activity().waits, 0);
        let mut wait = counters.wait(Backoff::new(Duration::from_secs(1)));
        assert!(wait.pause() && wait.pause());
        drop(wait);
        let told = counters.activity();
        assert_eq!(told.waits, 1);
        assert!(told.waited > Duration::ZERO);
    }
}
