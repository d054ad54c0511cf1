//! The lease of a task.
//!
//! Owns a [`Lease`] whose verbs go through the queue of the store's thread. What always holds: a lease that is dropped, also
//! with a task that is cancelled, releases its claim without blocking, unless a verb that ends it was called before; and
//! a verb that was begun is carried on by the store's thread, whatever becomes of its future.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::AsyncSeenStore;
use super::call::release_later;
use crate::decide::claim::{Change, Previous};
use crate::decide::verbs::Confirmed;
use crate::engine::task_queue::Tasks;
use crate::error::{Error, Result};
use crate::item::Item;
use crate::store::{Failure, Lease, SeenStore, checked_lease};
use crate::token::Token;

/// A claim that a task holds.
///
/// Its promises are those of a [`Lease`]. Dropping it releases the claim: the store's thread does that a moment later, and
/// the task is not blocked. Once one of the verbs that end it was polled for the first time, the claim is not released,
/// and that verb is carried on, also when its future is dropped.
///
/// A task that is cancelled *while it sends* drops its lease too, and the next holder is told
/// [`Previous::Released`], although the message may have been sent. Where that matters, let the claim run out instead: take
/// its token before the send by [`into_token`](Self::into_token), and confirm by the token. A task that is
/// cancelled then leaves a claim that is [`Previous::Abandoned`]; it no longer renews itself. Or ask the receiver after
/// `Released` too.
#[must_use = "a lease that is dropped is released"]
pub struct AsyncLease {
    /// `None` once it is dropped. It has the handle by which the id was claimed.
    lease: Option<Lease>,
    store: SeenStore,
    // Dropped last: it has a handle too, so the lease never has the last one.
    tasks: Arc<Tasks>,
}

impl AsyncLease {
    pub(super) fn new(lease: Lease, store: SeenStore, tasks: Arc<Tasks>) -> Self {
        Self { lease: Some(lease), store, tasks }
    }

    fn store(&self) -> AsyncSeenStore {
        AsyncSeenStore { store: self.store.clone(), tasks: Arc::clone(&self.tasks) }
    }

    fn lease(&self) -> &Lease {
        self.lease.as_ref().expect("present until it is dropped")
    }

    fn lease_mut(&mut self) -> &mut Lease {
        self.lease.as_mut().expect("present until it is dropped")
    }

    /// Returns the claimed id.
    pub fn id(&self) -> &[u8] {
        self.lease().id()
    }

    /// Returns the number of this attempt: see [`Lease::attempt`].
    pub fn attempt(&self) -> u32 {
        self.lease().attempt()
    }

    /// Returns how the attempt before this one ended: see [`Lease::previous`].
    pub fn previous(&self) -> &Previous {
        self.lease().previous()
    }

    /// Returns whether the id is seen in another version: see [`Lease::is_change`].
    pub fn is_change(&self) -> bool {
        self.lease().is_change()
    }

    /// Returns whether the claim was confirmed after its lease had run out: see [`Lease::was_late`].
    pub fn was_late(&self) -> bool {
        self.lease().was_late()
    }

    /// Returns when the lease ends and another worker may take the id over.
    pub fn expires_at(&self) -> SystemTime {
        self.lease().expires_at()
    }

    /// Returns the token of the claim: see [`Lease::token`].
    pub fn token(&self) -> Token {
        self.lease().token()
    }

    /// Ends this lease object without releasing the claim, and returns its token: see [`Lease::into_token`]. The claim no
    /// longer renews itself.
    pub fn into_token(mut self) -> Token {
        let token = self.token();
        self.lease.take().map_or(token, Lease::into_token)
    }

    /// Returns whether the claim is still this lease's and the lease has not run out. It may be lost right after.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`](crate::SeenStore::try_is_seen).
    pub async fn is_held(&self) -> Result<bool> {
        let (id, token) = (self.id().to_vec(), self.token());
        self.store().look(move |store| store.holds(&id, token)).await
    }

    /// Renews the lease: it ends `lease` from now. See [`Lease::renew`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::renew`].
    pub async fn renew(&mut self, lease: Duration) -> Result<()> {
        let change = Change::Renew { lease: checked_lease(lease)? };
        let until_ms = self.change(change).await?;
        self.lease().was_renewed(until_ms);
        Ok(())
    }

    /// Makes the id seen. Call it after the send. See [`Lease::confirm`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm`].
    pub async fn confirm(&mut self) -> Result<()> {
        self.confirm_and_note(None).await
    }

    /// Makes the id seen and stores a receipt with it: see [`Lease::confirm_with`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm_with`].
    pub async fn confirm_with(&mut self, receipt: impl AsRef<[u8]>) -> Result<()> {
        self.confirm_and_note(Some(receipt.as_ref().to_vec())).await
    }

    async fn confirm_and_note(&mut self, receipt: Option<Vec<u8>>) -> Result<()> {
        self.lease_mut().begin_end();
        let item = Item::from(self.lease().id());
        let confirmed = self.store().confirm_claim(&item, self.token(), receipt).await;
        let lease = self.lease_mut();
        lease.after_end(&confirmed);
        lease.was_confirmed(confirmed? == Confirmed::Late);
        Ok(())
    }

    /// Gives the claim up: see [`Lease::release`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::release`].
    pub async fn release(&mut self) -> Result<()> {
        self.end(Change::Release).await
    }

    /// Records why the attempt failed and gives the claim up: see [`Lease::fail`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::fail`].
    pub async fn fail(&mut self, failure: impl Into<Failure>) -> Result<()> {
        let change = self.store.failing(failure.into());
        self.end(change).await
    }

    pub(super) fn failure_is_lost(&self, e: &Error) {
        self.lease().failure_is_lost(e);
    }

    async fn end(&mut self, change: Change) -> Result<()> {
        self.lease_mut().begin_end();
        let ended = self.change(change).await;
        self.lease_mut().after_end(&ended);
        ended.map(drop)
    }

    async fn change(&self, change: Change) -> Result<i64> {
        self.store().change_claim(&Item::from(self.lease().id()), self.token(), change).await
    }
}

impl Drop for AsyncLease {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        if !lease.is_ended() {
            release_later(&self.tasks, &self.store, lease);
        }
    }
}

impl fmt::Debug for AsyncLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncLease")
            .field("id", &String::from_utf8_lossy(self.id()))
            .field("attempt", &self.attempt())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}
