//! A lock for each of many groups of ids, for contenders that have no test-and-set of their own.

use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Makes read-then-write atomic for contenders that have no test-and-set of their own: a lock for each
/// of many groups of ids, so that different ids hardly ever wait for each other. Quicker than their
/// transactions, and as safe within one process.
pub struct Locks {
    batches: RwLock<()>,
    groups: Vec<Mutex<()>>,
}

impl Default for Locks {
    fn default() -> Self {
        Self { batches: RwLock::new(()), groups: (0..512).map(|_| Mutex::new(())).collect() }
    }
}

impl Locks {
    /// Keeps all other threads from deciding on `id`.
    ///
    /// # Panics
    ///
    /// If a holder has panicked.
    pub fn one(&self, id: &str) -> (RwLockReadGuard<'_, ()>, MutexGuard<'_, ()>) {
        // The ids end in well-mixed digits.
        let tail = id.as_bytes()[id.len() - 4..].iter().rev();
        let group = tail.fold(0, |sum: usize, byte| sum * 31 + usize::from(*byte));
        let batches = self.batches.read().expect("no holder panics");
        (batches, self.groups[group % self.groups.len()].lock().expect("no holder panics"))
    }

    /// Keeps all other threads from deciding on any id.
    ///
    /// # Panics
    ///
    /// If a holder has panicked.
    pub fn all(&self) -> RwLockWriteGuard<'_, ()> {
        self.batches.write().expect("no holder panics")
    }
}
