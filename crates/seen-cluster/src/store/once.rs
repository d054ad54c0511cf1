//! Work that is done once, for tasks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use seen_store::backend::{panic_message, refused};
use seen_store::{Claim, ErrorKind, Item, Once, OnceError};

use super::{AsyncClusterLease, AsyncClusterStore};

/// For how long the lease of work renews itself, unless the handle says otherwise.
const RENEWED_AT_MOST: Duration = Duration::from_secs(24 * 3_600);

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
        let (handle, item) =
            (self.renewing(self.policy.renewed_for().unwrap_or(RENEWED_AT_MOST)), id.into());
        let mut lease = loop {
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
        // The closure may panic too, before it has made the future.
        match catch_panic(async { work().await }).await {
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
                self.failed_work(&mut lease, e.to_string()).await;
                Err(OnceError::Work(e))
            }
            Err(panic) => {
                self.failed_work(&mut lease, format!("panicked: {}", panic_message(&*panic))).await;
                resume_unwind(panic)
            }
        }
    }

    async fn failed_work(&self, lease: &mut AsyncClusterLease, reason: String) {
        if let Err(e) = lease.fail(reason).await {
            let name = self.policy.store_name();
            log::warn!(store = name, error:% = e; "{name}: a failure could not be written down: {e}");
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
