//! The real machine: locks, threads, time and randomness of this process.

use std::hash::BuildHasher;
use std::io;
use std::time::{Instant, SystemTime};

pub(crate) use parking_lot::{Mutex, MutexGuard};
pub(crate) use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel,
};
pub(crate) use std::thread::{JoinHandle as Thread, sleep, yield_now};

/// A lock of which a process has only one.
pub(crate) struct ProcessLock(Mutex<()>);

impl ProcessLock {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock()
    }
}

/// A condition variable that takes its guard by value.
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        self.0.wait_while(&mut guard, condition);
        guard
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

/// Unlocks the mutex and hands it to a waiting thread, if there is one.
pub(crate) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
    MutexGuard::unlock_fair(guard);
}

/// A point in monotonic time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MonotonicTime(Instant);

impl MonotonicTime {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// Returns the monotonic time in milliseconds, up to [`COARSE_RESOLUTION_MS`](super::COARSE_RESOLUTION_MS) late.
/// Only differences have a meaning.
///
/// On Linux this is the time of the kernel's last tick, which is cheaper than to read the counter.
pub(crate) fn coarse_ms() -> u64 {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        let tick = clock_gettime(ClockId::MonotonicCoarse);
        let (s, ns) = (u64::try_from(tick.tv_sec), u64::try_from(tick.tv_nsec));
        s.unwrap_or(0) * 1_000 + ns.unwrap_or(0) / 1_000_000
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::LazyLock<MonotonicTime> =
            std::sync::LazyLock::new(MonotonicTime::now);
        u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Returns the operating system's time of day.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Fills `bytes` from the operating system's secure source of randomness.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system provides random bytes");
}

/// Returns a number that differs between waiting threads. It is cheap to get, and not secret.
pub(crate) fn random_u64() -> u64 {
    // Each `RandomState` has keys of its own.
    std::hash::RandomState::new().hash_one(0)
}

pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Thread<()>> {
    std::thread::Builder::new().name(name.into()).spawn(run)
}
