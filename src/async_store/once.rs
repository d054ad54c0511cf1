//! Work that is done once, for tasks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{AsyncLease, AsyncSeenStore};
use crate::error::ErrorKind;
use crate::item::Item;
use crate::store::{Claim, Once, OnceError, panic_message};

impl AsyncSeenStore {
    /// Does the work once for the id, and gives all callers its answer: see [`SeenStore::once`](crate::SeenStore::once).
    ///
    /// The work is a future; it runs in the task of the caller. A future of `once` that is dropped drops the work where it
    /// stands, and the id is given back, also on a handle that [holds](crate::Abandoned::Hold) abandoned claims: the work is
    /// done again. Where it must not be dropped half-way, as in an HTTP handler whose client may go away, call `once` in a
    /// task of its own: `tokio::spawn(async move { store.once(..).await }).await`.
    ///
    /// ```
    /// use seen_store::{AsyncSeenStore, Once};
    /// use std::time::Duration;
    /// # async fn charge() -> Result<String, std::io::Error> { Ok("receipt 4711".to_owned()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = AsyncSeenStore::in_memory()?;
    /// let minute = Duration::from_secs(60);
    /// for _ in 0..2 {
    ///     let receipt = match store.once("invoice-17", minute, charge).await? {
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
    /// Those of [`SeenStore::once`](crate::SeenStore::once).
    pub async fn once<'a, T: AsRef<[u8]>, E: fmt::Display, W>(
        &self,
        id: impl Into<Item<'a>>,
        lease: Duration,
        work: impl FnOnce() -> W,
    ) -> Result<Once<T>, OnceError<E>>
    where
        W: Future<Output = Result<T, E>>,
    {
        let (handle, item) = (self.with(self.store.renewing_for_once()), id.into());
        let mut lease = loop {
            match handle.claim(&item, lease).await? {
                Claim::Granted(lease) => break lease,
                Claim::Seen(known) => {
                    if let Some(entry) = known.entry().await? {
                        return Ok(Once::Replayed(entry.receipt));
                    }
                    // It was forgotten, or changed to another version, since: ask again.
                }
                refused => return Ok(Once::refused(refused)),
            }
        };
        // The closure may panic too, before it has made the future.
        let work = async { work().await };
        match catch_panic(work).await {
            Ok(Ok(answer)) => {
                if let Err(e) = lease.confirm_with(&answer).await {
                    if e.kind() == ErrorKind::InvalidClaim {
                        // The work is done. That its answer is too long is no reason to do it again.
                        lease.confirm().await?;
                    }
                    return Err(e.into());
                }
                Ok(Once::Ran(answer))
            }
            Ok(Err(e)) => {
                self.failed(&mut lease, e.to_string()).await;
                Err(OnceError::Work(e))
            }
            Err(panic) => {
                let reason = format!("panicked: {}", panic_message(&*panic));
                self.failed(&mut lease, reason).await;
                resume_unwind(panic)
            }
        }
    }

    async fn failed(&self, lease: &mut AsyncLease, reason: String) {
        if let Err(e) = lease.fail(reason).await {
            lease.failure_is_lost(&e);
        }
    }
}

/// Returns the output of a future, or what it panicked with.
async fn catch_panic<T>(work: impl Future<Output = T>) -> std::thread::Result<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}
