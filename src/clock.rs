//! The store's clocks.
//!
//! Owns the conversion between `SystemTime` and the unix milliseconds of the file, the rule for clocks that step
//! backwards, and the one for a system clock that was never set. A time that this module returns always lies in
//! `MIN_MS..=MAX_MS`: 0 stays free to
//! mean "tombstone" in the file, and a time fits the 48 bits that the index keeps of it.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::machine::{MonotonicTime, wall_clock};

/// The earliest time that an entry can expire at, and the earliest `now`.
pub(crate) const MIN_MS: i64 = 1;
/// The latest time of both, in the year 10889; later times saturate.
pub(crate) const MAX_MS: i64 = (1 << 48) - 2;
/// Backward steps up to this size are absorbed: time stands still until the clock catches up.
pub(crate) const ABSORBED_STEP_MS: i64 = 60_000;
/// How far the time in the file may differ from a store's own before a commit of that store writes it again.
pub(crate) const CLOCK_WRITE_INTERVAL_MS: i64 = 1_000;

/// 2026-11-01T00:00:00Z. Raised with each release of this crate: no program with this version can run before it was
/// released.
const RELEASED_MS: i64 = 1_793_491_200_000;

/// The source of a store's time of day.
///
/// The default is [`SystemClock`]. Tests use a [`ManualClock`] and advance it. What any other clock than the system's
/// shows is taken as it is; see also [`Config::check_clock`](crate::Config::check_clock).
pub trait Clock: Any + Send + Sync {
    /// Returns the present time. Must not call a store that uses this clock.
    fn now(&self) -> SystemTime;
}

impl fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Returns when this version was released. An earlier reading of the clock shows that it was never set: see
    /// [`Config::check_clock`](crate::Config::check_clock).
    pub fn released() -> SystemTime {
        from_ms(RELEASED_MS)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        wall_clock()
    }
}

/// Returns whether this is the operating system's clock, and not one that the caller has made.
fn is_system(clock: &Arc<dyn Clock>) -> bool {
    let clock: &dyn Any = &**clock;
    clock.is::<SystemClock>() || clock.is::<Arc<SystemClock>>()
}

/// A clock that moves only when it is advanced or set, for tests of programs that use a store.
///
/// ```
/// use seen_store::{Config, ManualClock, SeenStore};
/// use std::{sync::Arc, time::Duration};
/// # fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("seen.db");
/// let clock = Arc::new(ManualClock::default());
/// let config = Config::default().ttl(Duration::from_secs(60)).clock(clock.clone());
/// let store = SeenStore::open_with(path, config)?;
/// store.mark_seen("a")?;
/// clock.advance(Duration::from_secs(60));
/// assert!(!store.is_seen("a"));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Returns a clock that shows `start`, rounded down to the millisecond.
    pub fn new(start: SystemTime) -> Self {
        Self(AtomicI64::new(to_ms(start)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(duration_ms(by), Ordering::SeqCst);
    }

    /// Sets the clock to `time`, which may be earlier than what it shows.
    pub fn set(&self, time: SystemTime) {
        self.0.store(to_ms(time), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// Returns a clock that shows 2020-01-01T00:00:00Z.
    fn default() -> Self {
        Self(AtomicI64::new(1_577_836_800_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        from_ms(self.0.load(Ordering::SeqCst))
    }
}

/// A store's view of its clock, in milliseconds, with small backward steps absorbed.
///
/// A clock that NTP sets back must not make expired entries live again. A clock that is set back by an hour
/// was wrong before, and to stand still for an hour would be worse than to follow it.
///
/// What always holds: the time is the latest of this store's own readings, or the time that other stores on
/// the file have reached, if that is up to 60 s later. A store that stands still ahead of another store,
/// which has committed since, goes back to that store's time: a step binds a store only as far as the file
/// knows of its time.
pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    /// What is reckoned with while the clock shows no time; `None` where it is not judged.
    reckoning: Option<Reckoning>,
    latest_ms: AtomicI64,
    /// The time that stores have reached according to the file. It may go back: when another store has
    /// followed a large step, this one must not stay ahead of it.
    file_ms: AtomicI64,
}

/// The time of a system clock that was never set, as on a board without a battery that begins in 1970 at each boot.
///
/// Marks made at such a time would have expired as soon as the clock is set, and be told again at every boot. So time
/// goes on from the release date of this version, or from the time that stores on the file have reached if that is
/// later.
#[derive(Default)]
struct Reckoning {
    /// Since the clock was first found to show no time.
    since: OnceLock<Stopwatch>,
    /// The latest time that the file has told, less what had passed since by then.
    start_ms: AtomicI64,
}

impl Reckoning {
    fn now_ms(&self) -> i64 {
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            log::warn!(
                "the system clock shows a time before the release of this program: it was never set; time goes on \
                 from 2026-11-01 or from the latest time in the store until the clock is set"
            );
        });
        let passed = duration_ms(self.since.get_or_init(Stopwatch::start).elapsed());
        self.start_ms.load(Ordering::Relaxed).max(RELEASED_MS).saturating_add(passed)
    }

    fn learn(&self, file_ms: i64) {
        if let Some(since) = self.since.get() {
            let start = file_ms.saturating_sub(duration_ms(since.elapsed()));
            self.start_ms.fetch_max(start, Ordering::Relaxed);
        }
    }
}

/// The time in the file, as a store finds it after another one has committed. It is that store's time, to
/// within [`CLOCK_WRITE_INTERVAL_MS`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileTime {
    pub(crate) ms: i64,
    /// The value differs from the one that this store knew. A value that the store wrote itself is not new.
    pub(crate) is_new: bool,
}

impl SteadyClock {
    /// `check` says whether the system clock is taken to be unset while it shows a time before the release of this
    /// version.
    pub(crate) fn new(clock: Arc<dyn Clock>, check: bool) -> Self {
        let reckoning = (check && is_system(&clock)).then(Reckoning::default);
        Self {
            clock,
            reckoning,
            latest_ms: AtomicI64::new(MIN_MS),
            file_ms: AtomicI64::new(MIN_MS),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        let read = self.read_ms();
        let latest = self.latest_ms.load(Ordering::Relaxed);
        let own = if read > latest || latest - read > ABSORBED_STEP_MS {
            self.replace_latest(latest, read);
            if read < latest {
                // The clock made a large step back: the time in the file is from before it.
                self.file_ms.store(MIN_MS, Ordering::Relaxed);
            }
            read
        } else {
            latest
        };
        let file = self.file_ms.load(Ordering::Relaxed);
        if file > own && file - own <= ABSORBED_STEP_MS { file } else { own }
    }

    /// Adopts the time that another store on the same file has reached, as far as the rules below allow.
    ///
    /// This store continues from that time if it is ahead by at most a backward step that is absorbed: this
    /// clock was set back before the store opened, or this machine's clock lags. Farther ahead, one of the
    /// two clocks is wrong, and each store follows its own.
    ///
    /// If that time is earlier and this store stands still, then the other store has followed a large step,
    /// or it never knew of this store's time, which was only read and not written. Its leases may end before
    /// this store's time, so this store goes back to its clock's reading or the other's time, whichever is
    /// later. A time that is farther before this clock's reading than an absorbed step was not written since
    /// the step: it comes from a file that was restored.
    pub(crate) fn observe(&self, reached: FileTime) {
        if let Some(reckoning) = &self.reckoning {
            reckoning.learn(reached.ms);
        }
        let latest = self.latest_ms.load(Ordering::Relaxed);
        let back_to = Some(reached.ms)
            .filter(|reached_ms| latest.saturating_sub(*reached_ms) >= CLOCK_WRITE_INTERVAL_MS)
            .map(|_| self.read_ms())
            .filter(|read| *read < latest)
            .filter(|read| read.saturating_sub(reached.ms) <= ABSORBED_STEP_MS);
        if reached.is_new || back_to.is_some() {
            self.file_ms.store(reached.ms, Ordering::Relaxed);
        }
        if let Some(read) = back_to {
            self.replace_latest(latest, read);
        }
    }

    /// Replaces the latest reading. If another thread does so first, it has just read the same clock, and its
    /// reading is as good.
    fn replace_latest(&self, latest: i64, read: i64) {
        let _ = self.latest_ms.compare_exchange(latest, read, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn read_ms(&self) -> i64 {
        let read = to_ms(self.clock.now());
        let time = match &self.reckoning {
            Some(reckoning) if read < RELEASED_MS => reckoning.now_ms(),
            _ => read,
        };
        time.clamp(MIN_MS, MAX_MS)
    }
}

impl fmt::Debug for SteadyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SteadyClock").field(&self.latest_ms).field(&self.file_ms).finish()
    }
}

/// Elapsed time that clock changes do not affect, for waits and for the age of a catch-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(MonotonicTime);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(MonotonicTime::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Converts a time to unix milliseconds: rounded down, negative before 1970, saturating, at most [`MAX_MS`].
pub(crate) fn to_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => duration_ms(after).min(MAX_MS),
        Err(before) => {
            let before = before.duration();
            let whole = duration_ms(before);
            let round_down = i64::from(before.subsec_nanos() % 1_000_000 != 0);
            -whole.saturating_add(round_down)
        }
    }
}

/// The inverse of [`to_ms`]. A time that `SystemTime` cannot hold becomes the epoch.
pub(crate) fn from_ms(ms: i64) -> SystemTime {
    let magnitude = Duration::from_millis(ms.unsigned_abs());
    let time =
        if ms < 0 { UNIX_EPOCH.checked_sub(magnitude) } else { UNIX_EPOCH.checked_add(magnitude) };
    time.unwrap_or(UNIX_EPOCH)
}

/// Converts a duration to whole milliseconds: rounded down, saturating.
pub(crate) fn duration_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady() -> (Arc<ManualClock>, SteadyClock) {
        let manual = Arc::new(ManualClock::default());
        (manual.clone(), SteadyClock::new(manual, true))
    }

    /// A clock that is judged as the system's, and shows 1970.
    fn unset() -> (Arc<ManualClock>, SteadyClock) {
        let (manual, steady) = steady();
        manual.set(UNIX_EPOCH + Duration::from_secs(300));
        (manual, SteadyClock { reckoning: Some(Reckoning::default()), ..steady })
    }

    /// The test may take some seconds.
    fn assert_soon_after(time_ms: i64, start_ms: i64) {
        assert!((start_ms..start_ms + 60_000).contains(&time_ms), "{}", time_ms - start_ms);
    }

    #[test]
    fn a_system_clock_that_was_never_set_goes_on_from_the_release_or_from_the_time_in_the_file() {
        let (manual, steady) = unset();
        assert_soon_after(steady.now_ms(), RELEASED_MS);
        let before = steady.now_ms();
        steady.observe(FileTime { ms: 1_000, is_new: true });
        assert!(steady.now_ms() >= before, "a time in the file from before the release is none");
        let month_later = RELEASED_MS + 30 * 86_400_000;
        steady.observe(FileTime { ms: month_later, is_new: true });
        assert_soon_after(steady.now_ms(), month_later);
        // Its own commits tell the same time again, and do not move it.
        steady.observe(FileTime { ms: steady.now_ms(), is_new: false });
        assert_soon_after(steady.now_ms(), month_later);
        // The clock is set.
        manual.set(from_ms(month_later + 86_400_000));
        assert_eq!(steady.now_ms(), month_later + 86_400_000);
    }

    #[test]
    fn any_number_in_the_file_is_borne_while_the_clock_is_not_set() {
        for ms in [i64::MIN, -1, 0, i64::MAX] {
            let (_, steady) = unset();
            steady.now_ms();
            steady.observe(FileTime { ms, is_new: true });
            assert!((RELEASED_MS..=MAX_MS).contains(&steady.now_ms()), "{ms}");
        }
    }

    #[test]
    fn only_the_system_clock_is_judged_and_only_if_it_is_to_be() {
        for (clock, check, judged) in [
            (Arc::new(SystemClock) as Arc<dyn Clock>, true, true),
            (Arc::new(Arc::new(SystemClock)), true, true),
            (Arc::new(SystemClock), false, false),
            (Arc::new(ManualClock::new(UNIX_EPOCH)), true, false),
        ] {
            assert_eq!(SteadyClock::new(clock, check).reckoning.is_some(), judged);
        }
        let (manual, steady) = steady();
        manual.set(UNIX_EPOCH + Duration::from_secs(300));
        assert_eq!(steady.now_ms(), 300_000);
    }

    #[test]
    fn a_backward_step_of_a_minute_stands_still_and_a_longer_one_is_followed() {
        let (manual, steady) = steady();
        let start = steady.now_ms();
        manual.set(from_ms(start - 60_000));
        assert_eq!(steady.now_ms(), start);
        manual.set(from_ms(start - 60_001));
        assert_eq!(steady.now_ms(), start - 60_001);
    }

    #[test]
    fn a_time_that_others_have_reached_moves_this_clock_only_within_a_minute() {
        // How far the clock is set back; the time in the file; the expected time. All relative to the time
        // before.
        let cases = [
            (0, 60_000, 60_000),
            (0, 60_001, 0),
            (0, -10_000, 0), // This clock was not set back.
            (40_000, -30_000, -30_000),
            (40_000, -50_000, -40_000),
            (40_000, -1_000, -1_000),
            (40_000, -999, 0), // The file is not more exact.
            (40_000, -100_000, -40_000),
            (40_000, -100_001, 0), // From a restored file.
        ];
        for (back, reached, right) in cases {
            let (manual, steady) = steady();
            let start = steady.now_ms();
            manual.set(from_ms(start - back));
            assert_eq!(steady.now_ms(), start);
            steady.observe(FileTime { ms: start + reached, is_new: true });
            assert_eq!(steady.now_ms() - start, right, "{back} back, {reached} reached");
        }
    }

    #[test]
    fn any_number_in_the_file_can_be_observed() {
        for ms in [i64::MIN, -1, 0, i64::MAX] {
            let (manual, steady) = steady();
            let start = steady.now_ms();
            manual.set(from_ms(start - 1_000));
            steady.observe(FileTime { ms, is_new: true });
            assert_eq!(steady.now_ms(), start);
        }
    }

    #[test]
    fn time_never_leaves_the_range_that_the_file_can_hold() {
        let (manual, steady) = steady();
        manual.set(from_ms(-5));
        assert_eq!(steady.now_ms(), MIN_MS);
        manual.set(UNIX_EPOCH + Duration::from_millis(u64::try_from(MAX_MS).unwrap() + 7));
        assert_eq!(steady.now_ms(), MAX_MS);
    }

    #[test]
    fn times_before_1970_round_down_and_survive_the_round_trip() {
        assert_eq!(to_ms(UNIX_EPOCH - Duration::from_micros(1_500)), -2);
        assert_eq!(to_ms(from_ms(-2)), -2);
        assert_eq!(to_ms(from_ms(1_700_000_000_123)), 1_700_000_000_123);
    }
}
