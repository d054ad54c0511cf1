//! Waiting for other processes.
//!
//! Owns the deadline and the pauses between two tries. The pauses are short, growing and jittered, so that
//! waiting processes neither try in step nor sleep long after the file is free. They are shorter again for a
//! call that has waited long. (SQLite's own busy handler sleeps up to 100 ms and lets newcomers in first.) A
//! call that pauses must hold no lock. Also owns the share of the file's write lock that a store leaves to
//! others.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::error::{ErrorKind, Result};
use crate::machine::{random_u64, sleep};

const FIRST_PAUSE: Duration = Duration::from_micros(50);
const MAX_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause of a call that has waited long. It tries more often than calls that came after it.
const MAX_URGENT_PAUSE: Duration = Duration::from_micros(200);

/// After how long a wait is long: for a small write, and for a long transaction, which lets small ones go
/// first.
const URGENT_AFTER: Duration = Duration::from_millis(20);
const URGENT_AFTER_LONG_WORK: Duration = Duration::from_millis(200);

pub(crate) struct Backoff {
    started: Stopwatch,
    timeout: Duration,
    urgent_after: Duration,
    pauses: u32,
    /// How long all pauses took.
    paused: Duration,
}

impl Backoff {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            started: Stopwatch::start(),
            timeout,
            urgent_after: URGENT_AFTER,
            pauses: 0,
            paused: Duration::ZERO,
        }
    }

    /// For a transaction that will make others wait.
    pub(crate) fn for_long_work(timeout: Duration) -> Self {
        Self { urgent_after: URGENT_AFTER_LONG_WORK, ..Self::new(timeout) }
    }

    /// Sleeps for a short time and returns true, or returns false when the timeout is over.
    pub(crate) fn pause(&mut self) -> bool {
        let waited = self.started.elapsed();
        let left = self.timeout.saturating_sub(waited);
        if left.is_zero() {
            return false;
        }
        let most = (FIRST_PAUSE * 2_u32.pow(self.pauses.min(7))).min(self.max_pause_after(waited));
        sleep(jittered(most).min(left));
        self.pauses += 1;
        self.paused += self.started.elapsed().saturating_sub(waited);
        true
    }

    /// Returns how long all pauses took; `None` when there was none.
    pub(crate) fn paused(&self) -> Option<Duration> {
        (self.pauses > 0).then_some(self.paused)
    }

    fn max_pause_after(&self, waited: Duration) -> Duration {
        if waited < self.urgent_after { MAX_PAUSE } else { MAX_URGENT_PAUSE }
    }
}

/// Pauses once for a short time, for callers with a deadline of their own.
pub(crate) fn short_pause() {
    sleep(jittered(2 * FIRST_PAUSE));
}

/// A random time between a quarter of `most` and all of it.
fn jittered(most: Duration) -> Duration {
    most * u32::try_from(256 + random_u64() % 768).unwrap_or(1024) / 1024
}

/// The share of the write lock that a store leaves to other stores.
///
/// SQLite gives the lock to the first process that asks while it is free, and waiting processes ask only from
/// time to time. A store that takes the lock again as soon as it has released it leaves others hardly a
/// moment, and never one that is long enough for a transaction of theirs to begin in. So a store leaves the
/// lock alone for a tenth of the time for which it held it. It pauses as soon as the sum is long enough for
/// others to notice.
pub(crate) struct LockShare {
    /// Pause time that is due and not slept yet.
    due: Duration,
    since_release: Stopwatch,
}

/// How many times longer the lock is held than left alone.
const HELD_PER_PAUSE: u32 = 10;

/// The longest pause that is due for one transaction, which may have waited for a disk.
const MAX_PAUSE_PER_USE: Duration = Duration::from_millis(5);

/// The shortest pause that is worth making: about twice the longest pause of a call that has waited long.
const MIN_PAUSE: Duration = Duration::from_micros(400);

impl LockShare {
    pub(crate) fn new() -> Self {
        Self { due: Duration::ZERO, since_release: Stopwatch::start() }
    }

    /// Sleeps for the time that is due. Must be called before the write lock is taken.
    pub(crate) fn pause(&mut self) {
        if let Some(pause) = self.pause_after(self.since_release.elapsed()) {
            sleep(pause);
        }
    }

    /// Returns how long to pause when the lock was already left alone for `left`.
    fn pause_after(&mut self, left: Duration) -> Option<Duration> {
        let is_long_enough = self.due >= MIN_PAUSE;
        self.due = self.due.saturating_sub(left);
        (is_long_enough && !self.due.is_zero()).then(|| std::mem::take(&mut self.due))
    }

    /// Records that the lock was held for `held` until now.
    pub(crate) fn record_use(&mut self, held: Duration) {
        self.due += (held / HELD_PER_PAUSE).min(MAX_PAUSE_PER_USE);
        self.since_release = Stopwatch::start();
    }
}

/// Runs a step again while it fails with `Busy`, up to the timeout. For steps that no other thread of this
/// process waits for.
pub(crate) fn retry_while_busy<T>(
    timeout: Duration,
    mut step: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut backoff = Backoff::new(timeout);
    loop {
        match step() {
            Err(e) if e.kind() == ErrorKind::Busy && backoff.pause() => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_at_the_deadline_and_not_before() {
        let waited = Stopwatch::start();
        let mut backoff = Backoff::new(Duration::from_millis(20));
        while backoff.pause() {}
        assert!(waited.elapsed() >= Duration::from_millis(20));
        assert!(backoff.pauses > 2);
    }

    #[test]
    fn a_long_wait_tries_more_often_and_that_of_a_long_transaction_later() {
        let longest = |backoff: &Backoff, ms| backoff.max_pause_after(Duration::from_millis(ms));
        let (small, long) = (Backoff::new(URGENT_AFTER), Backoff::for_long_work(URGENT_AFTER));
        assert_eq!((longest(&small, 19), longest(&small, 20)), (MAX_PAUSE, MAX_URGENT_PAUSE));
        assert_eq!((longest(&long, 199), longest(&long, 200)), (MAX_PAUSE, MAX_URGENT_PAUSE));
    }

    #[test]
    fn a_tenth_of_the_time_is_left_to_others_in_pauses_that_they_can_use() {
        let (ms, none) = (Duration::from_millis, Duration::ZERO);
        let mut share = LockShare::new();
        share.record_use(ms(3));
        assert_eq!(share.pause_after(none), None, "too short a pause");
        share.record_use(ms(3));
        assert_eq!(share.pause_after(none), Some(Duration::from_micros(600)));
        assert_eq!(share.pause_after(none), None, "slept already");
        share.record_use(ms(50));
        assert_eq!(share.pause_after(ms(2)), Some(ms(3)), "time without the lock counts");
        share.record_use(ms(50));
        assert_eq!(share.pause_after(ms(5)), None);
    }

    #[test]
    fn no_timeout_means_no_wait() {
        assert!(!Backoff::new(Duration::ZERO).pause());
    }
}
