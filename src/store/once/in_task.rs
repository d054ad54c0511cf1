//! The work of `once` in a task, on any store.
//!
//! Owns the way from a granted claim to its end around a future. What always holds: that of [`super`]; a future that is
//! dropped drops the work and the lease, which gives the id back.

#![cfg_attr(not(feature = "backend"), expect(unreachable_pub, reason = "exported by `backend`"))]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;

use super::{Once, OnceError, panic_message};
use crate::error::{ErrorKind, Result};

/// A lease that is held while a task does the work.
pub trait TaskLease: Send {
    /// Confirms the claim, with the answer as its receipt.
    fn confirm_with(&mut self, answer: &[u8]) -> impl Future<Output = Result<()>> + Send;
    /// Confirms the claim.
    fn confirm(&mut self) -> impl Future<Output = Result<()>> + Send;
    /// Gives the id back with the reason. That this failed is logged.
    fn fail(&mut self, reason: String) -> impl Future<Output = ()> + Send;
}

/// Does the work of `once` under its lease.
///
/// # Errors
///
/// [`OnceError::Work`] with the error of the work; [`OnceError::Store`] with those of confirming.
pub async fn work_once<T: AsRef<[u8]>, E: fmt::Display, W: Future<Output = Result<T, E>>>(
    mut lease: impl TaskLease,
    work: impl FnOnce() -> W,
) -> Result<Once<T>, OnceError<E>> {
    // The closure may panic too, before it has made the future.
    match catch_panic(async { work().await }).await {
        Ok(Ok(answer)) => {
            if let Err(e) = lease.confirm_with(answer.as_ref()).await {
                if e.kind() == ErrorKind::InvalidClaim {
                    // The work is done. That its answer is too long is no reason to do it again.
                    lease.confirm().await?;
                }
                return Err(e.into());
            }
            Ok(Once::Ran(answer))
        }
        Ok(Err(e)) => {
            lease.fail(e.to_string()).await;
            Err(OnceError::Work(e))
        }
        Err(panic) => {
            lease.fail(format!("panicked: {}", panic_message(&*panic))).await;
            resume_unwind(panic)
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
