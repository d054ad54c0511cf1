//! What a store takes from its machine besides files: locks, threads, sleep, time and randomness; and how much
//! it does in one step.
//!
//! Owns the one place where these are named, so that the simulator (`tests/simulator`) can replace them: it
//! compiles the library with `cfg(simulated)`. What always holds: a lock that is held while its thread may wait
//! for anything else is one of these. (Locks under which no thread waits, such as those of the index, need not
//! be.) Knows nothing of stores.

#[cfg(not(simulated))]
mod real;
#[cfg(simulated)]
mod simulated;

#[cfg(not(simulated))]
pub(crate) use real::{
    Condvar, MonotonicTime, Mutex, MutexGuard, ProcessLock, Receiver, RecvTimeoutError, SyncSender,
    Thread, TrySendError, coarse_ms, fill_random, random_u64, sleep, spawn, sync_channel,
    unlock_fair, wall_clock, yield_now,
};
#[cfg(simulated)]
pub(crate) use simulated::{
    Condvar, MonotonicTime, Mutex, MutexGuard, ProcessLock, Receiver, RecvTimeoutError, SyncSender,
    Thread, TrySendError, coarse_ms, fill_random, random_u64, sleep, spawn, sync_channel,
    unlock_fair, wall_clock, yield_now,
};
#[cfg(simulated)]
pub use simulated::{Machine, run_on};

/// How far [`coarse_ms`] may be behind: one tick of a kernel with 100 ticks a second, the fewest that are in use.
pub(crate) const COARSE_RESOLUTION_MS: u64 = 10;

/// How many rows or ids one step of a longer work takes. In a simulation this is so few that small stores need
/// several steps.
macro_rules! step_size {
    ($usual:expr, in_a_simulation: $few:expr) => {
        if cfg!(simulated) { $few } else { $usual }
    };
}
pub(crate) use step_size;

/// Whether the index in the file is worked on in so small steps that small stores need all of them: in a simulation, and
/// in tests that set `SEEN_SMALL_INDEX`. A program that is built without debug assertions does not look at that.
pub(crate) fn has_small_index() -> bool {
    static IS_SET: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("SEEN_SMALL_INDEX").is_some());
    cfg!(simulated) || cfg!(debug_assertions) && *IS_SET
}

/// How much of the index in the file is written, merged or remembered at once.
macro_rules! index_size {
    ($usual:expr, in_tests: $few:expr) => {
        if crate::machine::has_small_index() { $few } else { $usual }
    };
}
pub(crate) use index_size;
