//! The lease: a granted claim in the hands of its worker.
//!
//! Owns the object that ends a claim exactly once. What always holds: a lease that is dropped, also by a panic,
//! releases its claim, unless a verb that ends it was called before. Decides nothing: each verb is the store's
//! verb for the claim's token.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::SeenStore;
use crate::clock::from_ms;
use crate::error::{ErrorKind, Result};
use crate::token::Token;

/// A claim that this worker holds.
///
/// Dropping it releases the claim, also during a panic, unless one of the verbs that end it was called
/// before. Once [`confirm`](Self::confirm) was called the claim is not released, even if the call failed: the
/// send has happened, and no second worker must send again before the lease has run out.
///
/// Each verb is one commit. It fails with [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) and changes
/// nothing once the lease has run out *and* another worker has taken the id over (or the id was marked or
/// forgotten meanwhile). A lease that has only run out can still be confirmed.
#[must_use = "a lease that is dropped is released"]
pub struct Lease {
    pub(super) store: SeenStore,
    pub(super) id: Vec<u8>,
    pub(super) token: Token,
    pub(super) attempt: u32,
    pub(super) until_ms: i64,
    /// A verb that ends the claim was called.
    pub(super) end_attempted: bool,
}

impl Lease {
    /// Returns the claimed id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Returns the number of this attempt: 1 for the first claim of an id, 2 after one that was released,
    /// failed or ran out, and so on.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns when the lease ends and another worker may take the id over.
    pub fn expires_at(&self) -> SystemTime {
        from_ms(self.until_ms)
    }

    /// Returns the token of the claim, with which a worker in another process can confirm, fail, release or
    /// renew it.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Ends this lease object without releasing the claim, and returns its token. The holder of the token
    /// confirms, fails or releases the claim.
    pub fn into_token(mut self) -> Token {
        self.end_attempted = true;
        self.token
    }

    /// Renews the lease: it ends `lease` from now.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the claim was lost,
    /// [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a lease of zero; otherwise those of
    /// [`SeenStore::mark_seen`].
    pub fn renew(&mut self, lease: Duration) -> Result<()> {
        self.until_ms = self.store.renew_until(&self.id, self.token, lease)?;
        Ok(())
    }

    /// Makes the id seen. Call it after the send. To confirm twice succeeds as long as the mark lives.
    ///
    /// The maximum age of a [sliding window](crate::Window::Sliding) counts from the claim. When it is
    /// already over, it counts from now, so that the mark of a long send lives too.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the claim was lost; otherwise those of
    /// [`SeenStore::mark_seen`], after which it may be called again.
    pub fn confirm(&mut self) -> Result<()> {
        self.end_attempted = true;
        self.store.confirm(&self.id, &self.token)
    }

    /// Makes the id seen and stores a receipt of up to 65,536 bytes with it, such as the message id by which
    /// the alert can be edited later. [`SeenStore::get`] returns the receipt. When a claim is confirmed
    /// twice, the first receipt stays.
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm), and [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a longer
    /// receipt.
    pub fn confirm_with(&mut self, receipt: impl AsRef<[u8]>) -> Result<()> {
        self.end_attempted = true;
        self.store.confirm_with(&self.id, &self.token, receipt)
    }

    /// Gives the claim up, as if the id had never been claimed, except that the attempt counts.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the claim was lost; otherwise those of
    /// [`SeenStore::mark_seen`].
    pub fn release(&mut self) -> Result<()> {
        self.end_attempted = true;
        self.store.release(&self.id, &self.token)
    }

    /// Records why the attempt failed and gives the claim up. The id can be claimed again at once, or after
    /// [`Config::retry_delay`](crate::Config::retry_delay). Of a reason longer than 65,536 bytes the
    /// beginning is kept.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the claim was lost; otherwise those of
    /// [`SeenStore::mark_seen`].
    pub fn fail(&mut self, reason: &str) -> Result<()> {
        self.end_attempted = true;
        self.store.fail(&self.id, &self.token, reason)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.end_attempted {
            return;
        }
        match self.store.release(&self.id, &self.token) {
            Ok(()) => {}
            // In a forked child the claim belongs to the parent, which goes on with it.
            Err(e) if matches!(e.kind(), ErrorKind::LeaseLost | ErrorKind::Forked) => {}
            Err(e) => log::warn!(
                "{}: a dropped claim could not be released and blocks its id until its lease ends: {e}",
                self.store.engine.name
            ),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &String::from_utf8_lossy(&self.id))
            .field("attempt", &self.attempt)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}
