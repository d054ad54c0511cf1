//! Work that is done once, for tasks.

use std::fmt;
use std::time::Duration;

use seen_store::backend::{TaskLease, refused, work_once};
use seen_store::{Claim, Item, Once, OnceError, Result};

use super::{AsyncClusterLease, AsyncClusterStore};

impl AsyncClusterStore {
    /// Does the work once for the id, and gives all callers its answer: see
    /// [`AsyncSeenStore::once`](https://docs.rs/seen-store/latest/seen_store/struct.AsyncSeenStore.html#method.once).
    ///
    /// The work runs in the task of the caller. When the future is dropped, so is the work, and the id is given back.
    ///
    /// # Errors
    ///
    /// [`OnceError::Work`] with the error of the work; [`OnceError::Store`] with those of [`claim`](Self::claim) and
    /// [`AsyncClusterLease::confirm`].
    pub async fn once<'a, T: AsRef<[u8]>, E: fmt::Display, W>(
        &self,
        id: impl Into<Item<'a>>,
        lease: Duration,
        work: impl FnOnce() -> W,
    ) -> Result<Once<T>, OnceError<E>>
    where
        W: Future<Output = Result<T, E>>,
    {
        let (handle, item) = (self.renewing(self.policy.renewed_for_once()), id.into());
        let lease = loop {
            match handle.claim(&item, lease).await? {
                Claim::Granted(lease) => break lease,
                Claim::Seen(known) => {
                    if let Some(entry) = known.entry()? {
                        return Ok(Once::Replayed(entry.receipt));
                    }
                }
                other => return Ok(refused(other)),
            }
        };
        work_once(lease, work).await
    }
}

impl TaskLease for AsyncClusterLease {
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
