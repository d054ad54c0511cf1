//! Running a future on the calling thread.
//!
//! Not by `Runtime::block_on`, which panics on a worker of a runtime: a bot's async code may call a blocking verb by
//! mistake, and shall be slow rather than dead.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::Handle;

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Returns the output of a call, whose sockets and timers are those of this runtime.
///
/// On a worker of a runtime the call does not count towards what the task there may do before it yields (Tokio's cooperative
/// scheduling): once that is used up, nothing is ready until the task returns, and its thread waits here.
pub(super) fn wait<T>(runtime: &Handle, call: impl Future<Output = T>) -> T {
    let _entered = runtime.enter();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut call = pin!(tokio::task::unconstrained(call));
    loop {
        match call.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Calls here, or on another thread if this one is ending: then it can enter no runtime any more.
pub(super) fn also_at_the_end_of_a_thread<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    if !Handle::try_current().is_err_and(|e| e.is_thread_local_destroyed()) {
        return call();
    }
    thread::scope(|threads| {
        threads.spawn(call).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
