//! The queue under loom. Loom tries the interleavings of a few threads one after the other, up to a bound,
//! and lets each load see every value that its ordering allows. Shuttle treats every atomic as sequentially
//! consistent, so only loom finds out whether the queue relies on one of its `Relaxed` hints.
//!
//! Loom's own mutex panics once a panic has poisoned it. And a loom thread that is about to call `try_lock`
//! waits, as in `lock`, when another thread takes the mutex. So the locks here are made of loom's atomics.
//! They order what a mutex orders (`Acquire`, `Release`) and no more.

#[path = "../queue.rs"]
#[expect(clippy::duplicate_mod, reason = "the real code, on other locks")]
#[allow(dead_code, reason = "the engine uses more of it than the checks")]
mod queue;
#[path = "scenarios.rs"]
#[allow(clippy::duplicate_mod, reason = "the same claims, on other locks")]
mod scenarios;

use std::sync::Arc;

/// Includes the main thread of the model. Each further thread multiplies the interleavings.
const MOST_THREADS: u32 = 3;

/// How often a run may preempt a thread that could continue. Each further preemption multiplies the
/// interleavings too.
const PREEMPTIONS: usize = 2;

/// Runs `body` under all interleavings within the bound, with the number of yields for the queue.
fn check(body: impl Fn(u32) + Send + Sync + 'static) {
    let body = Arc::new(body);
    for yields in 0..2 {
        let body = Arc::clone(&body);
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            thread::begin();
            body(yields);
        });
    }
}

#[allow(dead_code, reason = "the queue uses more of it than the checks")]
mod locks {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicUsize};
    pub(super) use loom::thread::yield_now;
    pub(super) use std::sync::Arc;

    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

    use super::thread::Sleepers;

    pub(super) struct Mutex<T> {
        held: AtomicBool,
        sleepers: Sleepers,
        /// Never contended: `held` admits one thread at a time.
        value: std::sync::Mutex<T>,
    }

    pub(super) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        value: Option<std::sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self {
                held: AtomicBool::new(false),
                sleepers: Sleepers::default(),
                value: std::sync::Mutex::new(value),
            }
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            loop {
                if let Some(guard) = self.try_lock() {
                    return guard;
                }
                self.sleepers.sleep();
            }
        }

        pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.held.compare_exchange(false, true, Acquire, Relaxed).ok()?;
            let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            Some(MutexGuard { mutex: self, value: Some(value) })
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.value.as_ref().expect("held until dropped")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_mut().expect("held until dropped")
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.value = None;
            self.mutex.held.store(false, Release);
            while self.mutex.sleepers.wake_one() {}
        }
    }

    pub(super) struct Condvar(Sleepers);

    impl Condvar {
        pub(super) fn new() -> Self {
            Self(Sleepers::default())
        }

        pub(super) fn wait_while<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            mut condition: impl FnMut(&mut T) -> bool,
        ) -> MutexGuard<'a, T> {
            while condition(&mut guard) {
                let mutex = guard.mutex;
                self.0.sleep_after(|| drop(guard));
                guard = mutex.lock();
            }
            guard
        }

        pub(super) fn notify_one(&self) {
            self.0.wake_one();
        }
    }

    pub(super) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
        drop(guard);
    }
}

mod thread {
    pub(super) use loom::thread::yield_now;

    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::locks;

    thread_local! {
        /// The number of threads of the run that do not sleep. All of them run on one thread of the operating
        /// system.
        static AWAKE: Cell<u32> = const { Cell::new(0) };
    }

    /// Must be called first in each run.
    pub(super) fn begin() {
        AWAKE.set(1);
    }

    /// Records that a thread sleeps or has ended. Loom reports a deadlock too, but its runtime then cannot
    /// run the destructors that follow, and the process aborts.
    fn fall_asleep() {
        AWAKE.set(AWAKE.get() - 1);
        assert!(AWAKE.get() > 0, "all threads sleep: a deadlock or a lost wake-up");
    }

    /// The threads that sleep until an event, in their order. Loom switches threads only at its atomics, so
    /// the code between two of them is one step.
    #[derive(Default)]
    pub(super) struct Sleepers(Mutex<VecDeque<loom::thread::Thread>>);

    impl Sleepers {
        pub(super) fn sleep(&self) {
            self.sleep_after(|| {});
        }

        /// Adds the thread to the list, runs `last`, and then sleeps. A wake-up meanwhile is not lost: `park`
        /// then returns at once.
        pub(super) fn sleep_after(&self, last: impl FnOnce()) {
            self.0.lock().unwrap().push_back(loom::thread::current());
            last();
            fall_asleep();
            loom::thread::park();
        }

        /// Wakes the thread that has slept longest; returns false when none sleeps.
        pub(super) fn wake_one(&self) -> bool {
            let Some(thread) = self.0.lock().unwrap().pop_front() else { return false };
            AWAKE.set(AWAKE.get() + 1);
            thread.unpark();
            true
        }
    }

    pub(super) struct JoinHandle<T>(Arc<Ended<T>>);

    struct Ended<T> {
        result: locks::Mutex<Option<T>>,
        changed: locks::Condvar,
    }

    pub(super) fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        let ended =
            Arc::new(Ended { result: locks::Mutex::new(None), changed: locks::Condvar::new() });
        let handle = JoinHandle(Arc::clone(&ended));
        AWAKE.set(AWAKE.get() + 1);
        loom::thread::spawn(move || {
            let result = body();
            *ended.result.lock() = Some(result);
            ended.changed.notify_one();
            fall_asleep();
        });
        handle
    }

    impl<T> JoinHandle<T> {
        #[expect(clippy::unnecessary_wraps, reason = "as the standard library's")]
        pub(super) fn join(self) -> std::thread::Result<T> {
            let result = self.0.result.lock();
            let mut result = self.0.changed.wait_while(result, |result| result.is_none());
            Ok(result.take().expect("waited for"))
        }
    }
}
