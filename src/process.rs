//! Which process has stores and readers open.
//!
//! Owns the register of what this process has open, and the error for a process that was forked while
//! anything was. Such a child can use nothing that it inherited and open nothing of its own, of any file,
//! for ever: SQLite's knowledge in memory of who has locked what is its parent's, and any lock in memory
//! may have been held at the fork by a thread that the child does not have. What always holds:
//!
//! - Every connection is registered before it is opened, and before any lock is taken or folder made for it,
//!   until after it is closed.
//! - The register is one atomic word without a lock, so that a child finds it whole.
//! - What is [`Own`] is dropped only by the process that made it. A child leaks it: a thread of its parent may
//!   have been changing it at the fork, and closing it could wait for ever, or delete the parent's log.
//!
//! A fork while nothing is open is harmless. Knows nothing of files.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::error::{Error, ErrorKind, Result};

/// In the high half the process that opened something last, in the low half how much it has open.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// The process that made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// False in a forked child.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Refuses what was made by another process. `name` is what the error calls it.
    pub(crate) fn check(self, name: &str) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(forked(name)) }
    }
}

fn forked(name: &str) -> Error {
    Error::new(
        ErrorKind::Forked,
        format!(
            "{name}: this process was forked from one that had a store or a reader open, and can use none; \
             close them before forking, or fork and exec"
        ),
    )
}

/// One thing that this process has open.
#[derive(Debug)]
pub(crate) struct Registration(Process);

impl Registration {
    /// Registers what is about to be opened. `name` is what the error calls it.
    ///
    /// # Errors
    ///
    /// [`Forked`](ErrorKind::Forked) in a child of a process that had something open at the fork.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let process = Process::current();
        let added = OPEN.fetch_update(SeqCst, SeqCst, |word| with_one_more(word, process));
        added.map(|_| Self(process)).map_err(|_| forked(name))
    }

    /// The process that made it.
    pub(crate) fn process(&self) -> Process {
        self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // A child's copy of the word says for ever what its parent had open.
        if self.0.is_current() {
            OPEN.fetch_sub(1, SeqCst);
        }
    }
}

/// Something that is registered as long as it lives, and that a forked child neither drops nor closes.
///
/// Whether a child may use it is for its owner to check.
pub(crate) struct Own<T> {
    /// `None` once it was taken to be closed.
    value: Option<T>,
    /// Dropped after the value.
    registration: Registration,
}

impl<T> Own<T> {
    /// What was opened under this registration.
    pub(crate) fn new(registration: Registration, value: T) -> Self {
        Self { value: Some(value), registration }
    }

    /// The process that made it.
    pub(crate) fn process(&self) -> Process {
        self.registration.process()
    }

    /// Closes the value while it is still registered; `None` in a forked child, which leaks it.
    pub(crate) fn close<R>(mut self, close: impl FnOnce(T) -> R) -> Option<R> {
        if !self.process().is_current() {
            return None;
        }
        self.value.take().map(close)
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if !self.process().is_current() {
            std::mem::forget(self.value.take());
        }
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until it is closed")
    }
}

impl<T> DerefMut for Own<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until it is closed")
    }
}

/// The register with one more thing open; `None` where another process's are open in it.
fn with_one_more(word: u64, process: Process) -> Option<u64> {
    let (owner, count) = (word >> 32, word & u64::from(u32::MAX));
    let own = u64::from(process.0);
    (owner == own || count == 0).then_some(own << 32 | (count + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_the_register_over_only_when_nothing_is_open() {
        let (parent, child) = (Process(7), Process(u32::MAX));
        let one = with_one_more(0, parent).unwrap();
        let two = with_one_more(one, parent).unwrap();
        assert_eq!((with_one_more(one, child), with_one_more(two, child)), (None, None));
        let closed = two - 2;
        let taken = with_one_more(closed, child).unwrap();
        assert_eq!(taken, u64::from(u32::MAX) << 32 | 1);
        assert_eq!(with_one_more(taken, parent), None);
    }

    #[test]
    fn what_another_process_made_is_refused_by_its_name() {
        let error = Process(std::process::id() ^ 1).check("/x/seen.db").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forked);
        assert!(error.to_string().starts_with("/x/seen.db: "), "{error}");
        Process::current().check("/x/seen.db").unwrap();
    }
}
