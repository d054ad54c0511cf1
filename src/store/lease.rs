//! The lease: a granted claim in the hands of its worker.
//!
//! Owns the object that ends a claim exactly once. What always holds: a lease that is dropped, also by a panic,
//! releases its claim, unless a verb that ends it was called before. Decides nothing: each verb is the store's
//! verb for the claim's token.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use super::SeenStore;
use crate::clock::from_ms;
use crate::decide::claim::Previous;
use crate::decide::verbs::Confirmed;
use crate::engine::renewal::shown;
use crate::error::{Error, ErrorKind, Result};
use crate::token::Token;

/// Why an attempt failed, and when another may follow. A text is a failure that says nothing of the latter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Failure {
    pub(super) reason: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) is_final: bool,
}

impl Failure {
    /// Returns a failure for this reason. Another attempt may follow after the
    /// [`Config::retry_delay`](crate::Config::retry_delay).
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry_after: None, is_final: false }
    }

    /// Sets how long no attempt may follow, such as what a service asks for by `Retry-After`.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// No attempt may follow: the id is [given up](crate::State::GivenUp) until it is
    /// [resolved](SeenStore::resolve) or its attempts are forgotten. In another
    /// [version](crate::Item::version) it may be tried: the attempts at the latest version alone are remembered.
    pub fn is_final(mut self) -> Self {
        self.is_final = true;
        self
    }
}

impl<T: Into<String>> From<T> for Failure {
    fn from(reason: T) -> Self {
        Self::new(reason)
    }
}

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
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Lease {
    pub(super) store: Box<dyn Granter>,
    pub(super) id: Vec<u8>,
    pub(super) token: Token,
    pub(super) attempt: u32,
    pub(super) until_ms: Arc<AtomicI64>,
    /// Whether the store renews it.
    pub(super) renews: bool,
    pub(super) previous: Previous,
    pub(super) is_change: bool,
    /// Whether it was confirmed after its end.
    pub(super) was_late: bool,
    /// A verb that ends the claim was called.
    pub(super) end_attempted: bool,
}

impl Lease {
    #[cfg(feature = "backend")]
    pub(crate) fn granted(
        store: Box<dyn Granter>,
        id: &[u8],
        renews: bool,
        (token, attempt, until_ms): (Token, u32, Arc<AtomicI64>),
        (previous, is_change): (Previous, bool),
    ) -> Self {
        Self {
            store,
            id: id.to_vec(),
            token,
            attempt,
            until_ms,
            renews,
            previous,
            is_change,
            was_late: false,
            end_attempted: false,
        }
    }

    /// Returns the claimed id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Returns the number of this attempt: 1 for the first claim of an id, 2 after one that was released,
    /// failed or ran out, and so on.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns how the attempt before this one ended. After [`Previous::Abandoned`] the work may have been done:
    /// a sender that can ask the receiver whether it has the message does so first.
    pub fn previous(&self) -> &Previous {
        &self.previous
    }

    /// Returns whether the id is seen in another [version](crate::Item::version), so that this is a change of it.
    pub fn is_change(&self) -> bool {
        self.is_change
    }

    /// Returns whether the claim was confirmed after its lease had run out, with no other worker having taken it over.
    /// The work is done, and took longer than the lease: another worker might have done it too.
    pub fn was_late(&self) -> bool {
        self.was_late
    }

    /// Returns when the lease ends and another worker may take the id over.
    pub fn expires_at(&self) -> SystemTime {
        from_ms(self.until_ms.load(Relaxed))
    }

    /// Returns the token of the claim, with which a worker in another process can confirm, fail, release or
    /// renew it.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Ends this lease object without releasing the claim, and returns its token. The holder of the token
    /// confirms, fails or releases the claim. The claim no longer [renews itself](SeenStore::renewing).
    pub fn into_token(mut self) -> Token {
        self.end_attempted = true;
        self.stop_renewing();
        self.token
    }

    /// Returns whether the claim is still this lease's and the lease has not run out. It may be lost right after.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub fn is_held(&self) -> Result<bool> {
        self.store.is_held(&self.id, &self.token)
    }

    /// Ends the claim by this verb. After a failure that leaves the claim as it was, such as [`ErrorKind::Busy`], the
    /// lease goes on to renew itself, so that the verb can be called again.
    fn end<T>(&mut self, verb: impl FnOnce(&dyn Granter, &[u8], &Token) -> Result<T>) -> Result<T> {
        self.begin_end();
        let ended = verb(&*self.store, &self.id, &self.token);
        self.after_end(&ended);
        ended
    }

    /// From now on, dropping the lease does not release the claim.
    pub(crate) fn begin_end(&mut self) {
        self.end_attempted = true;
    }

    /// Whether a verb that ends the claim was called.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_ended(&self) -> bool {
        self.end_attempted
    }

    pub(crate) fn after_end<T>(&mut self, ended: &Result<T>) {
        if ended.as_ref().err().is_none_or(|e| e.kind() == ErrorKind::LeaseLost) {
            self.stop_renewing();
        }
    }

    pub(crate) fn stop_renewing(&mut self) {
        if std::mem::take(&mut self.renews) {
            self.store.stop_renewing(&self.token);
        }
    }

    /// Renews the lease: it ends `lease` from now. A lease that [renews itself](SeenStore::renewing) goes on to do
    /// so, which never shortens it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the claim was lost,
    /// [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a lease of zero; otherwise those of
    /// [`SeenStore::mark_seen`].
    pub fn renew(&mut self, lease: Duration) -> Result<()> {
        let until_ms = self.store.renew(&self.id, &self.token, lease)?;
        self.was_renewed(until_ms);
        Ok(())
    }

    pub(crate) fn was_renewed(&self, until_ms: i64) {
        self.until_ms.store(until_ms, Relaxed);
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
        self.confirm_and_note(None)
    }

    /// Makes the id seen and stores a receipt with it, such as the message id by which the alert can be edited
    /// later. [`SeenStore::get`] returns the receipt, and so does a claim that is refused. When a claim is confirmed
    /// twice, the first receipt stays. A receipt of more than 4,096 bytes has a commit of its own.
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm), and [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a receipt that
    /// is longer than [`Config::max_receipt`](crate::Config::max_receipt).
    pub fn confirm_with(&mut self, receipt: impl AsRef<[u8]>) -> Result<()> {
        self.confirm_and_note(Some(receipt.as_ref()))
    }

    fn confirm_and_note(&mut self, receipt: Option<&[u8]>) -> Result<()> {
        let was_late = self.end(|store, id, token| store.confirm(id, token, receipt))?;
        self.was_confirmed(was_late);
        Ok(())
    }

    pub(crate) fn was_confirmed(&mut self, was_late: bool) {
        self.was_late |= was_late;
    }

    /// Gives the claim up, as if the id had never been claimed, except that the attempt counts.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the claim was lost; otherwise those of
    /// [`SeenStore::mark_seen`].
    pub fn release(&mut self) -> Result<()> {
        self.end(|store, id, token| store.release(id, token))
    }

    /// Records why the attempt failed and gives the claim up. The id can be claimed again after the
    /// [`Config::retry_delay`](crate::Config::retry_delay), unless the [`Failure`] says otherwise. Of a reason
    /// longer than 65,536 bytes the beginning is kept.
    ///
    /// ```
    /// use seen_store::{Claim, Failure};
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// # let minute = Duration::from_secs(60);
    /// if let Claim::Granted(mut lease) = store.claim("incident-17", minute)? {
    ///     lease.fail(Failure::new("429 Too Many Requests").retry_after(5 * minute))?;
    /// }
    /// if let Claim::Granted(mut lease) = store.claim("incident-18", minute)? {
    ///     lease.fail(Failure::new("404 Not Found").is_final())?;
    /// }
    /// assert!(matches!(store.claim("incident-17", minute)?, Claim::InFlight { .. }));
    /// assert!(matches!(store.claim("incident-18", minute)?, Claim::GivenUp { .. }));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the claim was lost; otherwise those of
    /// [`SeenStore::mark_seen`].
    pub fn fail(&mut self, failure: impl Into<Failure>) -> Result<()> {
        let failure = failure.into();
        self.end(|store, id, token| store.fail(id, token, failure))
    }
}

/// The store that granted a claim, as its lease uses it.
#[allow(clippy::missing_errors_doc, reason = "those of the verbs of the same names")]
#[cfg_attr(not(feature = "backend"), expect(unreachable_pub, reason = "part of `backend`"))]
pub trait Granter: Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Confirms the claim. Returns whether its lease had run out.
    fn confirm(&self, id: &[u8], token: &Token, receipt: Option<&[u8]>) -> Result<bool>;
    /// Gives the claim up.
    fn release(&self, id: &[u8], token: &Token) -> Result<()>;
    /// Gives the claim up with a reason.
    fn fail(&self, id: &[u8], token: &Token, failure: Failure) -> Result<()>;
    /// Renews the lease. Returns when it ends, in unix milliseconds.
    fn renew(&self, id: &[u8], token: &Token, lease: Duration) -> Result<i64>;
    /// Returns whether the claim is this token's and its lease has not run out.
    fn is_held(&self, id: &[u8], token: &Token) -> Result<bool>;
    /// Lets the lease no longer renew itself.
    fn stop_renewing(&self, token: &Token);
    /// Returns the names of the store and of the scope, for messages.
    fn name_and_scope(&self) -> (&str, &str);
}

impl Granter for SeenStore {
    fn confirm(&self, id: &[u8], token: &Token, receipt: Option<&[u8]>) -> Result<bool> {
        Ok(self.confirm_claim(&id.into(), *token, receipt)? == Confirmed::Late)
    }

    fn release(&self, id: &[u8], token: &Token) -> Result<()> {
        SeenStore::release(self, id, token)
    }

    fn fail(&self, id: &[u8], token: &Token, failure: Failure) -> Result<()> {
        SeenStore::fail(self, id, token, failure)
    }

    fn renew(&self, id: &[u8], token: &Token, lease: Duration) -> Result<i64> {
        self.renew_until(&id.into(), *token, lease)
    }

    fn is_held(&self, id: &[u8], token: &Token) -> Result<bool> {
        self.holds(id, *token)
    }

    fn stop_renewing(&self, token: &Token) {
        self.engine.stop_renewing(*token);
    }

    fn name_and_scope(&self) -> (&str, &str) {
        (&self.engine.name, self.scope.name())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_renewing();
        if self.end_attempted {
            return;
        }
        self.was_released(self.store.release(&self.id, &self.token));
    }
}

impl Lease {
    /// Logs that the reason of a failure is not stored.
    pub(crate) fn failure_is_lost(&self, e: &Error) {
        let (name, scope) = self.store.name_and_scope();
        log::warn!(
            file = name, scope = scope, id = shown(&self.id).as_str(),
            error:% = e, error_kind = e.kind().word();
            "{name}: a failure could not be written down: {e}"
        );
    }

    /// Logs that a dropped lease could not be released.
    pub(crate) fn was_released(&self, released: Result<()>) {
        match released {
            Ok(()) => {}
            // In a forked child the claim belongs to the parent, which goes on with it.
            Err(e) if matches!(e.kind(), ErrorKind::LeaseLost | ErrorKind::Forked) => {}
            Err(e) => {
                let (name, scope) = self.store.name_and_scope();
                log::warn!(
                    file = name, scope = scope, id = shown(&self.id).as_str(),
                    error:% = e, error_kind = e.kind().word();
                    "{name}: a dropped claim could not be released and blocks its id until its lease ends: {e}"
                );
            }
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
