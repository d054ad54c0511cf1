//! The lease of a task.
//!
//! Owns the object that ends a claim exactly once. What always holds: a lease that is dropped releases its claim without
//! blocking, unless a verb that ends it was called before; a verb that was begun is carried on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use seen_store::backend::{EndOfClaim, Granted, Policy, time_of};
use seen_store::{Error, ErrorKind, Failure, Item, Previous, Result, Token};

use super::AsyncClusterStore;
use super::renewal::Renewal;

/// A claim that a task holds. Its promises are those of a [`Lease`](seen_store::Lease).
///
/// Dropping it releases the claim: a task of the runtime does that. Once one of the verbs that end it was polled, the claim
/// is not released, and that verb is carried on, also when its future is dropped.
#[must_use = "a lease that is dropped is released"]
pub struct AsyncClusterLease {
    store: AsyncClusterStore,
    item: Item<'static>,
    granted: Granted,
    until_ms: Arc<AtomicI64>,
    renews: bool,
    was_late: bool,
    end_attempted: bool,
}

impl AsyncClusterLease {
    pub(super) fn new(
        store: AsyncClusterStore,
        item: &Item<'_>,
        granted: Granted,
        length: Duration,
    ) -> Self {
        let item = Item::from(item.id()).into_owned();
        let until_ms = Arc::new(AtomicI64::new(granted.until_ms));
        let renews = store.policy.renewed_for().is_some();
        if let Some(at_most) = store.policy.renewed_for() {
            let (item, until_ms) = (item.clone(), Arc::clone(&until_ms));
            let renewal = Renewal {
                store: store.clone(),
                item,
                token: granted.token,
                length,
                at_most,
                until_ms,
            };
            store.shared.renewals.keep(&store.shared.runtime, renewal);
        }
        Self { store, item, granted, until_ms, renews, was_late: false, end_attempted: false }
    }

    /// Gives the claim to a lease for threads.
    pub(crate) fn into_granted(mut self) -> (Granted, Arc<AtomicI64>, bool) {
        self.end_attempted = true;
        let renews = std::mem::take(&mut self.renews);
        (self.granted.clone(), Arc::clone(&self.until_ms), renews)
    }

    /// Returns the claimed id.
    pub fn id(&self) -> &[u8] {
        self.item.id()
    }

    /// Returns the number of this attempt: see [`Lease::attempt`](seen_store::Lease::attempt).
    pub fn attempt(&self) -> u32 {
        self.granted.attempt
    }

    /// Returns how the attempt before this one ended: see [`Lease::previous`](seen_store::Lease::previous).
    pub fn previous(&self) -> &Previous {
        &self.granted.previous
    }

    /// Returns whether the id is seen in another version: see [`Lease::is_change`](seen_store::Lease::is_change).
    pub fn is_change(&self) -> bool {
        self.granted.is_change
    }

    /// Returns whether the claim was confirmed after its lease had run out.
    pub fn was_late(&self) -> bool {
        self.was_late
    }

    /// Returns when the lease ends, by the clock of the servers.
    pub fn expires_at(&self) -> SystemTime {
        time_of(self.until_ms.load(Relaxed))
    }

    /// Returns the token of the claim: see [`Lease::token`](seen_store::Lease::token).
    pub fn token(&self) -> Token {
        self.granted.token
    }

    /// Ends this lease object without releasing the claim, and returns its token: see
    /// [`Lease::into_token`](seen_store::Lease::into_token). The claim no longer renews itself.
    pub fn into_token(mut self) -> Token {
        self.end_attempted = true;
        self.stop_renewing();
        self.token()
    }

    /// Returns whether the claim is still this lease's and the lease has not run out.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::try_is_seen`].
    pub async fn is_held(&self) -> Result<bool> {
        self.store.is_held(&self.item, self.token()).await
    }

    /// Renews the lease: it ends `lease` from now.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::renew`].
    pub async fn renew(&mut self, lease: Duration) -> Result<()> {
        let end = Policy::prolonging(lease)?;
        let until_ms = self.store.end_claim(&self.item, self.token(), end).await?;
        self.until_ms.store(until_ms, Relaxed);
        Ok(())
    }

    /// Makes the id seen. Call it after the send.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm`].
    pub async fn confirm(&mut self) -> Result<()> {
        self.confirm_and_note(None).await
    }

    /// Makes the id seen and stores a receipt with it.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm_with`].
    pub async fn confirm_with(&mut self, receipt: impl AsRef<[u8]>) -> Result<()> {
        self.confirm_and_note(Some(receipt.as_ref())).await
    }

    async fn confirm_and_note(&mut self, receipt: Option<&[u8]>) -> Result<()> {
        self.end_attempted = true;
        let confirmed = self.store.confirm_claim(&self.item, self.token(), receipt).await;
        self.after_end(&confirmed);
        self.was_late |= confirmed?;
        Ok(())
    }

    /// Gives the claim up: see [`Lease::release`](seen_store::Lease::release).
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::release`].
    pub async fn release(&mut self) -> Result<()> {
        self.end(Policy::releasing()).await
    }

    /// Gives the claim up with a reason: see [`Lease::fail`](seen_store::Lease::fail).
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::fail`].
    pub async fn fail(&mut self, failure: impl Into<Failure>) -> Result<()> {
        let end = self.store.policy.failing(failure.into());
        self.end(end).await
    }

    pub(super) fn failure_is_lost(&self, e: &Error) {
        let name = self.store.policy.store_name();
        log::warn!(store = name, error:% = e; "{name}: a failure could not be written down: {e}");
    }

    async fn end(&mut self, end: EndOfClaim) -> Result<()> {
        self.end_attempted = true;
        let ended = self.store.end_claim(&self.item, self.token(), end).await;
        self.after_end(&ended);
        ended.map(drop)
    }

    /// A claim whose end failed still has to be renewed until it is tried again.
    fn after_end<T>(&mut self, ended: &Result<T>) {
        if ended.as_ref().err().is_none_or(|e| e.kind() == ErrorKind::LeaseLost) {
            self.stop_renewing();
        }
    }

    fn stop_renewing(&mut self) {
        if std::mem::take(&mut self.renews) {
            self.store.stop_renewing(self.token());
        }
    }
}

impl AsyncClusterStore {
    pub(crate) fn stop_renewing(&self, token: Token) {
        if self.is_forked() {
            // The tasks are the parent's, and so may be the locks.
            return;
        }
        self.shared.renewals.stop(token);
    }
}

impl Drop for AsyncClusterLease {
    fn drop(&mut self) {
        self.stop_renewing();
        if self.end_attempted || self.store.is_forked() {
            return;
        }
        let (store, item, token) = (self.store.clone(), self.item.clone(), self.token());
        let released = async move {
            match store.release(&item, &token).await {
                Err(e) if !matches!(e.kind(), ErrorKind::LeaseLost | ErrorKind::Forked) => {
                    let name = store.policy.store_name();
                    log::warn!(
                        store = name, error:% = e;
                        "{name}: a dropped claim could not be released and blocks its id until its lease ends: {e}"
                    );
                }
                _ => {}
            }
        };
        let shared = &self.store.shared;
        drop(shared.tasks.spawn_on(released, &shared.runtime));
    }
}

impl fmt::Debug for AsyncClusterLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncClusterLease")
            .field("id", &String::from_utf8_lossy(self.id()))
            .field("attempt", &self.attempt())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}
