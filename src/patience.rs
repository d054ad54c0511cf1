//! How long to wait for another process, and how.
//!
//! Owns the deadline and the pauses between two tries: short, growing and jittered, so that waiting
//! processes neither march in step nor sleep long after the file is free. (SQLite's own busy handler
//! sleeps up to 100 ms and lets newcomers in first.) Whoever pauses must hold no lock.

use std::hash::BuildHasher;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::error::{ErrorKind, Result};

const SHORTEST: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_millis(4);

pub(crate) struct Patience {
    started: Stopwatch,
    timeout: Duration,
    pauses: u32,
}

impl Patience {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { started: Stopwatch::start(), timeout, pauses: 0 }
    }

    /// Sleeps a little, or returns false when the time is up.
    pub(crate) fn pause(&mut self) -> bool {
        let left = self.timeout.saturating_sub(self.started.elapsed());
        if left.is_zero() {
            return false;
        }
        let most = (SHORTEST * 2_u32.pow(self.pauses.min(7))).min(LONGEST);
        // Each `RandomState` has keys of its own: enough randomness to part the waiters.
        let random = std::hash::RandomState::new().hash_one(self.pauses);
        // Between a quarter and all of the longest pause.
        let share = u32::try_from(256 + random % 768).unwrap_or(1024);
        std::thread::sleep((most * share / 1024).min(left));
        self.pauses += 1;
        true
    }
}

/// Runs a step again while another process is in the way, up to the timeout. For steps that nobody else
/// in this process waits for.
pub(crate) fn retried<T>(timeout: Duration, mut step: impl FnMut() -> Result<T>) -> Result<T> {
    let mut patience = Patience::new(timeout);
    loop {
        match step() {
            Err(e) if e.kind() == ErrorKind::Busy && patience.pause() => {}
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
        let mut patience = Patience::new(Duration::from_millis(20));
        while patience.pause() {}
        assert!(waited.elapsed() >= Duration::from_millis(20));
        assert!(patience.pauses > 2);
    }

    #[test]
    fn no_timeout_means_no_wait() {
        assert!(!Patience::new(Duration::ZERO).pause());
    }
}
