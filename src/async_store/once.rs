//! Work that is done once, for tasks.

use std::fmt;
use std::time::Duration;

use super::{AsyncLease, AsyncSeenStore};
use crate::error::Result;
use crate::item::Item;
use crate::store::in_task::{TaskLease, work_once};
use crate::store::{Claim, Once, OnceError};

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
        let lease = loop {
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
        work_once(lease, work).await
    }
}

impl TaskLease for AsyncLease {
    async fn confirm_with(&mut self, answer: &[u8]) -> Result<()> {
        Self::confirm_with(self, answer).await
    }

    async fn confirm(&mut self) -> Result<()> {
        Self::confirm(self).await
    }

    async fn fail(&mut self, reason: String) {
        if let Err(e) = Self::fail(self, reason).await {
            self.failure_is_lost(&e);
        }
    }
}
