//! Work that blocks, on a thread of the runtime.
//!
//! Owns the work until a thread takes it. What always holds: work whose future is dropped before that never begins, and what
//! it owns is dropped at once; work that was begun is carried on. Knows nothing of stores.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};
use crate::machine::Mutex;

/// Work on a thread of the runtime, or on its way there. If it is dropped, the work is carried on, or never begun if no
/// thread has begun it.
pub(super) struct Blocking<T> {
    thread: JoinHandle<Option<Result<T>>>,
    /// The work, until a thread takes it.
    work: Arc<Mutex<Option<Work<T>>>>,
}

type Work<T> = Box<dyn FnOnce() -> Result<T> + Send>;

/// Begins what blocks on a thread of the runtime for blocking work.
///
/// # Errors
///
/// Outside a Tokio runtime, or where the runtime can start no thread. The work was not begun then, and what it owns is
/// dropped.
pub(super) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Blocking<T>> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
        let message =
            "this call needs a Tokio runtime for its blocking work: call it from a task of one";
        Error::new(ErrorKind::InvalidConfig, message)
    })?;
    let work: Arc<Mutex<Option<Work<T>>>> = Arc::new(Mutex::new(Some(Box::new(work))));
    let taken = Arc::clone(&work);
    let run = move || {
        let work = taken.lock().take();
        work.map(|work| work())
    };
    // It panics where it cannot start a thread, and may have queued the closure then.
    if let Ok(thread) = catch_unwind(AssertUnwindSafe(|| runtime.spawn_blocking(run))) {
        return Ok(Blocking { thread, work });
    }
    drop(work.lock().take());
    let message =
        "the Tokio runtime cannot start a thread for blocking work; try again when there are fewer";
    Err(Error::new(ErrorKind::Io, message))
}

impl<T> Future for Blocking<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.thread).poll(context)) {
            Ok(Some(done)) => done,
            Err(e) if e.is_panic() => resume_unwind(e.into_panic()),
            Ok(None) | Err(_) => Err(Error::new(
                ErrorKind::Closed,
                "the Tokio runtime was shut down before the call began",
            )),
        })
    }
}

impl<T> Drop for Blocking<T> {
    fn drop(&mut self) {
        let work = self.work.lock().take();
        drop(work);
    }
}
