//! The locks that the queue runs on, in the shape that `model` also gives to the model checker's.

pub(super) use parking_lot::{Mutex, MutexGuard};
pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize};
pub(super) use std::thread::yield_now;

/// A condition variable that takes its guard by value.
pub(super) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(super) fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    pub(super) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        self.0.wait_while(&mut guard, condition);
        guard
    }

    pub(super) fn notify_one(&self) {
        self.0.notify_one();
    }
}

/// Lets go of the mutex, to whoever waits for it if anybody does.
pub(super) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
    MutexGuard::unlock_fair(guard);
}
