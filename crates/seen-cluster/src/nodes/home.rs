//! The runtime that the connections belong to.
//!
//! Owns where calls run: their sockets, timers and tasks are that runtime's, on any thread that polls the call.
//! What always holds: nothing of one caller depends on the runtime of another, which may stand still or end; a call
//! is over at once when the home runtime has ended. Knows nothing of servers.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// A runtime that is known to be there.
pub(super) struct Home {
    runtime: Handle,
    has_ended: Arc<AtomicBool>,
    sentinel: AbortHandle,
}

/// Is dropped with the runtime.
struct AtEnd(Arc<AtomicBool>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Home {
    /// The runtime of this task.
    pub(super) fn current() -> Arc<Self> {
        let (runtime, has_ended) = (Handle::current(), Arc::new(AtomicBool::new(false)));
        let at_end = AtEnd(Arc::clone(&has_ended));
        let sentinel = runtime.spawn(async move {
            let _at_end = at_end;
            std::future::pending::<()>().await;
        });
        Arc::new(Self { runtime, has_ended, sentinel: sentinel.abort_handle() })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Runs a call as if in this runtime. `None`: the runtime has ended.
    pub(super) fn run<F: Future>(self: &Arc<Self>, call: F) -> AtHome<F> {
        AtHome { home: Arc::clone(self), call: Some(Box::pin(call)) }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.sentinel.abort();
    }
}

/// See [`Home::run`].
pub(super) struct AtHome<F> {
    home: Arc<Home>,
    /// `None` once it is over.
    call: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for AtHome<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = this.home.runtime.enter();
        // Timers of a runtime that has ended panic when they are polled.
        if this.home.has_ended() {
            this.call = None;
        }
        let Some(call) = &mut this.call else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
        let output = match polled {
            Ok(polled) => Some(ready!(polled)),
            // It has ended meanwhile.
            Err(_) if this.home.has_ended() => None,
            Err(panic) => resume_unwind(panic),
        };
        this.call = None;
        Poll::Ready(output)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn a_call_is_polled_in_its_home() {
        let (home, other) = (runtime(), runtime());
        let at_home = home.block_on(async { Home::current() });
        let call = at_home.run(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Handle::current().id()
        });
        assert_eq!(other.block_on(call), Some(home.handle().id()));
    }

    #[test]
    fn a_call_is_over_when_its_home_has_ended() {
        let (home, other) = (runtime(), runtime());
        let at_home = home.block_on(async { Home::current() });
        let call = at_home.run(async { tokio::time::sleep(Duration::from_secs(60)).await });
        let called = other.spawn(call);
        std::thread::sleep(Duration::from_millis(20));
        drop(home);
        assert_eq!(other.block_on(called).unwrap(), None);
        let mut late = pin!(at_home.run(async {}));
        assert_eq!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
    }
}
