//! Which process has stores and readers open.
//!
//! Owns the register of what this process has open, and the error for a process that was forked while anything
//! was. Such a child can never use what it inherited, and can never open anything of its own, of any file:
//! SQLite's knowledge in memory of which locks are held is its parent's, and a thread that the child does not
//! have may have held any lock in memory at the fork. What always holds:
//!
//! - Every connection is registered before it is opened, and before any lock is taken or folder created for it,
//!   until after it is closed.
//! - The register is one atomic word without a lock, so that a child finds it consistent.
//! - A [`Registered`] value is dropped only by the process that made it. A child leaks it: a thread of its
//!   parent may have been changing it at the fork, and closing it could wait for ever, or delete the parent's
//!   log.
//!
//! A fork while nothing is open is harmless. Knows nothing of files.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::error::{Error, ErrorKind, Result};

/// The high half is the process that opened something last, the low half is how many things it has open.
static REGISTER: AtomicU64 = AtomicU64::new(0);

/// The process that made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// Returns false in a forked child.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Fails if another process made it. `name` is the name of the thing in the error.
    pub(crate) fn check(self, name: &str) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(forked(name)) }
    }
}

fn forked(name: &str) -> Error {
    Error::new(
        ErrorKind::Forked,
        format!(
            "{name}: this process was forked from one that had a store or a reader open, and cannot use any; \
             close them before forking, or fork and exec"
        ),
    )
}

/// The registration of one open thing.
#[derive(Debug)]
pub(crate) struct Registration(Process);

impl Registration {
    /// Registers a thing that is about to be opened. `name` is its name in the error.
    ///
    /// # Errors
    ///
    /// [`Forked`](ErrorKind::Forked) in a child of a process that had something open at the fork.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let process = Process::current();
        let added = REGISTER.fetch_update(SeqCst, SeqCst, |word| with_one_more(word, process));
        added.map(|_| Self(process)).map_err(|_| forked(name))
    }

    /// Returns the process that made the registration.
    pub(crate) fn process(&self) -> Process {
        self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // In a child, the word keeps what the parent had open, for ever.
        if self.0.is_current() {
            REGISTER.fetch_sub(1, SeqCst);
        }
    }
}

/// A value that is registered as long as it lives, and that a forked child neither drops nor closes.
///
/// The owner must check whether its process may use the value.
pub(crate) struct Registered<T> {
    /// `None` once the value is being closed.
    value: Option<T>,
    /// Dropped after the value.
    registration: Registration,
}

impl<T> Registered<T> {
    /// Wraps a value that was opened under this registration.
    pub(crate) fn new(registration: Registration, value: T) -> Self {
        Self { value: Some(value), registration }
    }

    /// Returns the process that made the value.
    pub(crate) fn process(&self) -> Process {
        self.registration.process()
    }

    /// Closes the value while it is still registered. Returns `None` in a forked child, which leaks the value.
    pub(crate) fn close<R>(mut self, close: impl FnOnce(T) -> R) -> Option<R> {
        if !self.process().is_current() {
            return None;
        }
        self.value.take().map(close)
    }
}

impl<T> Drop for Registered<T> {
    fn drop(&mut self) {
        if !self.process().is_current() {
            std::mem::forget(self.value.take());
        }
    }
}

impl<T> Deref for Registered<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("present until it is closed")
    }
}

impl<T> DerefMut for Registered<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("present until it is closed")
    }
}

/// Returns the register with one more open thing; `None` if another process has things open in it.
fn with_one_more(word: u64, process: Process) -> Option<u64> {
    let (owner, count) = (word >> 32, word & u64::from(u32::MAX));
    let own = u64::from(process.0);
    (owner == own || count == 0).then_some(own << 32 | (count + 1))
}

/// Returns a label for what this process holds: the name of the machine and the number of the process.
pub(crate) fn default_holder() -> String {
    #[cfg(unix)]
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let host = std::env::var("COMPUTERNAME").unwrap_or_else(|_| "localhost".to_owned());
    format!("{host}:{}", std::process::id())
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
