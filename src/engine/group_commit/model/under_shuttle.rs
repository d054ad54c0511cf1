//! The queue under shuttle, which tries thousands of random interleavings of several threads. Shuttle treats
//! every atomic as sequentially consistent.

#[path = "../queue.rs"]
#[expect(clippy::duplicate_mod, reason = "the real code, on other locks")]
#[allow(dead_code, reason = "the engine uses more of it than the checks")]
mod queue;
#[path = "scenarios.rs"]
#[allow(clippy::duplicate_mod, reason = "the same claims, on other locks")]
mod scenarios;

use std::sync::Arc;

use queue::JobOutcome;
use scenarios::{commit, group};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

/// Includes the main thread of the model.
const MOST_THREADS: u32 = 4;

const RUNS: usize = 5_000;

/// Runs `body` under random interleavings, with the number of yields for the queue.
fn check(body: impl Fn(u32) + Send + Sync + 'static) {
    shuttle::check_random(move || body(thread_rng().gen_range(0..3)), RUNS);
}

#[allow(dead_code, reason = "the queue uses more of it than the checks")]
mod locks {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
    pub(super) use shuttle::sync::{Arc, MutexGuard};
    pub(super) use shuttle::thread::yield_now;

    use std::sync::{PoisonError, TryLockError};

    /// Shuttle's mutex with the interface of the one in `locks`, which has no poisoning.
    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }
    }

    pub(super) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub(super) fn wait_while<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            condition: impl FnMut(&mut T) -> bool,
        ) -> MutexGuard<'a, T> {
            self.0.wait_while(guard, condition).unwrap_or_else(PoisonError::into_inner)
        }

        pub(super) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    pub(super) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
        drop(guard);
    }
}

// Only under shuttle: loom would try each number of times that the main thread may look in vain.
#[test]
fn jobs_are_served_first_come_first_served() {
    check(|yields| {
        let group = group(yields);
        let held = group.lock();
        let threads: Vec<_> = (0..3)
            .map(|job| {
                let submitter = Arc::clone(&group);
                let thread = thread::spawn(move || submitter.submit(job, commit, || true));
                while group.waiting() <= job as usize {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        drop(held);
        for (position, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), JobOutcome::Answered(Ok(position)));
        }
    });
}
