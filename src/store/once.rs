//! Work that is done once, and whose answer all callers get.
//!
//! Owns the way from a claim to its end around a closure. What always holds: the claim is confirmed only after
//! the work has succeeded, with its answer in the same commit; work that fails or panics gives the id back with
//! the reason. Decides nothing: it uses the verbs of claims.

#[cfg(any(feature = "tokio", feature = "backend"))]
pub(crate) mod in_task;

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, SystemTime};

use super::{Claim, Failure, Lease, SeenStore, Store};
use crate::error::{Error, ErrorKind};
use crate::item::Item;

/// For how long the lease of [`SeenStore::once`] renews itself unless the handle says otherwise.
pub(crate) const RENEWED_AT_MOST: Duration = Duration::from_secs(24 * 3_600);

/// The answer of [`SeenStore::once`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Once<T> {
    /// This call did the work.
    Ran(T),
    /// The work was done before, with this answer; `None` when the id was marked by another verb.
    Replayed(Option<Vec<u8>>),
    /// Another caller is doing it.
    InFlight {
        /// When that caller's lease ends, unless it is renewed.
        until: SystemTime,
        /// The label of that caller.
        holder: Option<String>,
    },
    /// Another caller began it and vanished: see [`Claim::Unresolved`].
    Unresolved {
        /// When its lease ran out.
        since: SystemTime,
        /// The label of that caller.
        holder: Option<String>,
    },
    /// It failed finally or too often: see [`Claim::GivenUp`].
    GivenUp {
        /// How often it was tried.
        attempts: u32,
    },
}

/// An error of [`SeenStore::once`].
#[derive(Debug)]
pub enum OnceError<E> {
    /// The work failed. The id can be claimed again, and keeps the text of this error as its last one.
    Work(E),
    /// The store failed. The work was not begun, or its answer could not be written down: then the claim stays
    /// until its lease ends.
    Store(Error),
}

impl<E: fmt::Display> fmt::Display for OnceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(e) => write!(f, "the work failed: {e}"),
            Self::Store(e) => e.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for OnceError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Work(e) => Some(e),
            Self::Store(e) => e.source(),
        }
    }
}

impl<E> From<Error> for OnceError<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl SeenStore {
    /// Does the work once for the id, however often and by however many callers it is asked for, and gives
    /// all of them its answer.
    ///
    /// The work runs under a claim whose lease renews itself, for up to a day or as
    /// [`renewing`](Self::renewing) says. Its answer is stored as the receipt when the
    /// claim is confirmed. An error of the work, or a panic in it, gives the id back and is kept as its last
    /// error. On a handle that [waits](Self::waiting), callers that come meanwhile wait for the answer.
    ///
    /// An id that comes in another [version](crate::Item::version) is work to be done anew; one that comes with another
    /// [payload](crate::Item::payload) is refused.
    ///
    /// The work must not ask for its own id: it would find itself in flight.
    ///
    /// Work that was done in a process that was killed before its answer was stored is done again, unless the
    /// handle [holds](crate::Abandoned::Hold) such ids.
    ///
    /// Two commits when the work runs; a lookup in memory and the reading of one row when it is replayed.
    ///
    /// ```
    /// use seen_store::{Once, SeenStore};
    /// use std::time::Duration;
    /// # fn charge() -> Result<String, std::io::Error> { Ok("receipt 4711".to_owned()) }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = SeenStore::in_memory()?;
    /// let minute = Duration::from_secs(60);
    /// for _ in 0..2 {
    ///     let receipt = match store.once("invoice-17", minute, charge)? {
    ///         Once::Ran(receipt) => receipt.into_bytes(),
    ///         Once::Replayed(receipt) => receipt.unwrap_or_default(),
    ///         _ => continue, // in flight, given up, or to be resolved
    ///     };
    ///     assert_eq!(receipt, b"receipt 4711");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`OnceError::Work`] with the error of the work; [`OnceError::Store`] with those of [`claim`](Self::claim)
    /// and [`Lease::confirm`](crate::Lease::confirm). When the answer is longer than
    /// [`Config::max_receipt`](crate::Config::max_receipt), the id is seen
    /// without it, and the error is [`InvalidClaim`](ErrorKind::InvalidClaim).
    pub fn once<'a, T: AsRef<[u8]>, E: fmt::Display>(
        &self,
        id: impl Into<Item<'a>>,
        lease: Duration,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<Once<T>, OnceError<E>> {
        run_once(self, &id.into(), lease, work)
    }

    /// Returns the handle by which [`once`](Self::once) claims.
    #[cfg(feature = "tokio")]
    pub(crate) fn renewing_for_once(&self) -> Self {
        self.renewing(self.renewing.unwrap_or(RENEWED_AT_MOST))
    }
}

/// Does the work of [`SeenStore::once`], on any store.
pub(super) fn run_once<S: Store + ?Sized, T: AsRef<[u8]>, E: fmt::Display>(
    store: &S,
    item: &Item<'_>,
    lease: Duration,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<Once<T>, OnceError<E>> {
    let handle = store.renewing(store.renewed_for().unwrap_or(RENEWED_AT_MOST));
    let mut lease = loop {
        match handle.claim(item.into(), lease)? {
            Claim::Granted(lease) => break lease,
            Claim::Seen(known) => {
                if let Some(entry) = known.entry()? {
                    return Ok(Once::Replayed(entry.receipt));
                }
                // It was forgotten, or changed to another version, since: ask again.
            }
            refused => return Ok(Once::refused(refused)),
        }
    };
    let failed = |lease: &mut Lease, reason: String| {
        if let Err(e) = lease.fail(Failure::new(reason)) {
            lease.failure_is_lost(&e);
        }
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(answer)) => {
            if let Err(e) = lease.confirm_with(&answer) {
                if e.kind() == ErrorKind::InvalidClaim {
                    // The work is done. That its answer is too long is no reason to do it again.
                    lease.confirm()?;
                }
                return Err(e.into());
            }
            Ok(Once::Ran(answer))
        }
        Ok(Err(e)) => {
            failed(&mut lease, e.to_string());
            Err(OnceError::Work(e))
        }
        Err(panic) => {
            failed(&mut lease, format!("panicked: {}", panic_message(&*panic)));
            resume_unwind(panic)
        }
    }
}

impl<T> Once<T> {
    /// Returns the answer for a claim that was refused although the id is not seen.
    pub(crate) fn refused<L, K>(claim: Claim<L, K>) -> Self {
        match claim {
            Claim::InFlight { until, holder } => Self::InFlight { until, holder },
            Claim::Unresolved { since, holder } => Self::Unresolved { since, holder },
            Claim::GivenUp { attempts } => Self::GivenUp { attempts },
            Claim::Granted(_) | Claim::Seen(_) => unreachable!("it was not refused so"),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
