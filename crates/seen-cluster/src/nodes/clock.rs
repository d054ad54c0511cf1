//! The servers' time, and the only place that reads a clock.
//!
//! Owns the samples of a server's time and what is made of them. What always holds: the local time of day is never
//! asked; what one server's clock shows here never goes back by less than a minute; it is wrong by half of the shortest
//! round trip at most, so a server that stood still while it was asked is asked again. Knows nothing of connections.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often a server is asked for its time while it is used.
const ASK_INTERVAL_US: i64 = 1_000_000;
/// How many samples are kept, and for how long.
const SAMPLES: usize = 8;
const SAMPLE_AGE_US: i64 = 60_000_000;
/// How far two samples may differ beyond their round trips before the older one is taken for outdated: the server's
/// clock was set.
const TOLERANCE_US: i64 = 10_000;
/// After a longer round trip the server is asked again at once, at most so often. A network may need longer each time.
const LONG_ROUND_TRIP_US: i64 = 20_000;
pub(super) const ASKED_AGAIN: usize = 3;
/// A backward step up to this size is absorbed: the time stands still until the server's clock catches up.
const ABSORBED_STEP_MS: i64 = 60_000;

/// Returns the microseconds since some moment in the past. On Linux this clock goes on while the machine sleeps, so an
/// offset that was measured before a sleep still holds after it.
pub(super) fn steady_us() -> i64 {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::Boottime);
        time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::sync::LazyLock;
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        i64::try_from(START.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

/// Until when a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        // A timeout that the clock cannot hold is a year.
        Self(now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(31_536_000)))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Returns the earlier of this deadline and `timeout` from now.
    pub(crate) fn within(self, timeout: Duration) -> Self {
        Self(self.0.min(Self::after(timeout).0))
    }

    /// Returns what the future returns, or `None` once the deadline has passed.
    pub(crate) async fn limit<T>(self, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.0, future).await.ok()
    }

    pub(super) fn instant(self) -> Instant {
        self.0
    }
}

/// What is known of one server's clock.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    samples: VecDeque<Sample>,
    asked_us: Option<i64>,
    /// The latest time that was shown.
    shown_ms: Option<i64>,
}

/// All in microseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    taken_at: i64,
    round_trip: i64,
    /// What to add to [`steady_us`].
    offset: i64,
}

impl ServerClock {
    /// Returns whether the server is to be asked for its time now. The caller then asks it: until the interval is over,
    /// others are told no.
    pub(super) fn is_due(&self, now_us: i64) -> bool {
        let mut known = self.known.lock();
        let is_due = known.asked_us.is_none_or(|asked_us| now_us - asked_us >= ASK_INTERVAL_US);
        if is_due {
            known.asked_us = Some(now_us);
        }
        is_due
    }

    /// Takes in that the server answered `server_us` to a question sent and answered at these local times.
    pub(super) fn record(&self, sent_us: i64, received_us: i64, server_us: i64) {
        let round_trip = (received_us - sent_us).max(0);
        // The server read its clock at some moment between the two; the middle is wrong by half the round trip at most.
        let offset = server_us - (sent_us + round_trip / 2);
        let sample = Sample { taken_at: received_us, round_trip, offset };
        let mut known = self.known.lock();
        known.samples.retain(|old| old.agrees_with(&sample));
        if known.samples.len() == SAMPLES {
            known.samples.pop_front();
        }
        known.samples.push_back(sample);
        known.asked_us = known.asked_us.max(Some(received_us));
    }

    /// Returns whether all that is known was measured over long round trips: the server may have stood still meanwhile,
    /// and the middle of the round trip is then far from the moment at which it read its clock.
    pub(super) fn is_rough(&self) -> bool {
        let known = self.known.lock();
        known.samples.iter().all(|sample| sample.round_trip > LONG_ROUND_TRIP_US)
    }

    /// Returns what to add to the local clock to get the server's, or `None` before the first answer.
    pub(super) fn offset_us(&self) -> Option<i64> {
        self.known.lock().offset_us()
    }

    /// Returns the server's time. `guess` is the offset to take before the first answer.
    pub(super) fn now_ms(&self, steady_us: i64, guess: impl FnOnce() -> i64) -> i64 {
        // Asked without the lock: the guess looks at other clocks.
        let offset_us = self.offset_us().unwrap_or_else(guess);
        let now_ms = (steady_us + offset_us).div_euclid(1_000);
        let mut known = self.known.lock();
        let shown_ms = match known.shown_ms {
            Some(shown) if now_ms < shown && shown - now_ms <= ABSORBED_STEP_MS => shown,
            _ => now_ms,
        };
        known.shown_ms = Some(shown_ms);
        shown_ms
    }
}

impl Known {
    fn offset_us(&self) -> Option<i64> {
        self.samples.iter().min_by_key(|sample| sample.round_trip).map(|sample| sample.offset)
    }
}

impl Sample {
    /// Returns whether both can be of one clock that nobody set, and this one is young enough to count beside the new
    /// one.
    fn agrees_with(&self, new: &Self) -> bool {
        let apart = (self.offset - new.offset).abs();
        apart <= i64::midpoint(self.round_trip, new.round_trip) + TOLERANCE_US
            && new.taken_at - self.taken_at <= SAMPLE_AGE_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn no_guess() -> i64 {
        panic!("the clock was measured")
    }

    #[test]
    fn the_offset_is_taken_from_the_middle_of_the_round_trip() {
        let clock = ServerClock::default();
        clock.record(1_000, 3_000, 5_002_000);
        assert_eq!(clock.offset_us(), Some(5_000_000));
        assert_eq!(clock.now_ms(10_000, no_guess), 5_010);
    }

    #[test]
    fn the_sample_with_the_shortest_round_trip_counts() {
        let clock = ServerClock::default();
        clock.record(0, 100, 1_000_050);
        // The answer was 80 ms late, so the middle is wrong by 40 ms.
        clock.record(SECOND, SECOND + 80_100, 2 * SECOND + 50);
        assert_eq!(clock.offset_us(), Some(1_000_000));
    }

    #[test]
    fn a_sample_is_forgotten_after_eight_more_or_a_minute() {
        let clock = ServerClock::default();
        clock.record(0, 100, 50);
        for n in 1..=8 {
            assert_eq!(clock.offset_us(), Some(0));
            clock.record(n * SECOND, n * SECOND + 1_000, n * SECOND + 500 + 7);
        }
        assert_eq!(clock.offset_us(), Some(7));
        let late = 100 * SECOND;
        clock.record(late, late + 2_000, late + 1_000 + 9);
        assert_eq!(clock.offset_us(), Some(9));
    }

    #[test]
    fn a_server_clock_that_was_set_is_followed_by_the_next_sample() {
        let clock = ServerClock::default();
        clock.record(0, 100, 50);
        clock.record(SECOND, SECOND + 500, 31 * SECOND + 250);
        assert_eq!(clock.offset_us(), Some(30 * SECOND));
    }

    #[test]
    fn a_small_backward_step_is_waited_out_and_a_large_one_is_followed() {
        let clock = ServerClock::default();
        clock.record(0, 0, 500 * SECOND);
        assert_eq!(clock.now_ms(0, no_guess), 500_000);
        clock.record(SECOND, SECOND, 441 * SECOND);
        assert_eq!(clock.now_ms(SECOND, no_guess), 500_000);
        assert_eq!(clock.now_ms(59 * SECOND, no_guess), 500_000);
        assert_eq!(clock.now_ms(62 * SECOND, no_guess), 502_000);
        clock.record(62 * SECOND, 62 * SECOND, 400 * SECOND);
        assert_eq!(clock.now_ms(62 * SECOND, no_guess), 400_000);
    }

    #[test]
    fn a_guess_serves_until_the_first_answer() {
        let clock = ServerClock::default();
        assert_eq!(clock.now_ms(0, || 9 * SECOND), 9_000);
        clock.record(0, 0, 8 * SECOND);
        // Not back, for this is the same server.
        assert_eq!(clock.now_ms(0, no_guess), 9_000);
        assert_eq!(clock.now_ms(2 * SECOND, no_guess), 10_000);
    }

    #[test]
    fn a_server_that_stood_still_is_asked_again() {
        let clock = ServerClock::default();
        assert!(clock.is_rough());
        // It stood still for 3 s and then read its clock: the middle is wrong by 1.5 s.
        clock.record(0, 3 * SECOND, 3 * SECOND);
        assert!(clock.is_rough());
        clock.record(3 * SECOND, 3 * SECOND + 200, 3 * SECOND + 100);
        assert!(!clock.is_rough());
        assert_eq!(clock.offset_us(), Some(0));
    }

    #[test]
    fn one_caller_a_second_asks() {
        let clock = ServerClock::default();
        assert!(clock.is_due(0));
        assert!(!clock.is_due(999_999));
        assert!(clock.is_due(SECOND));
        clock.record(SECOND, SECOND + 300_000, 0);
        assert!(!clock.is_due(2 * SECOND));
        assert!(clock.is_due(2 * SECOND + 300_000));
    }

    #[test]
    fn the_steady_clock_goes_forward() {
        let before = steady_us();
        assert!(steady_us() >= before);
    }
}
