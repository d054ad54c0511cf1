//! Polls a future by hand.

use std::pin::Pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use seen_store::AsyncSeenStore;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` up to `times` times, and waits to be woken between two polls; `None` if it is not ready then.
/// `also_woken`: waits to be woken after the last poll too, so that an answer is on its way that is never taken.
pub(crate) fn poll<T>(
    mut future: Pin<&mut impl Future<Output = T>>,
    times: usize,
    also_woken: bool,
) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    for poll in 1..=times {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if poll < times || also_woken {
            // A wake-up that is not for this future does no harm: it only polls once more.
            std::thread::park_timeout(Duration::from_secs(10));
        }
    }
    None
}

/// Returns once the calls that are in the queue now are done.
pub(crate) async fn drained(store: &AsyncSeenStore) {
    store.scope("a scope of its own").forget("nothing").await.unwrap();
}

/// Returns once the long calls that run now are over.
pub(crate) async fn idle(store: &AsyncSeenStore) {
    // Four long calls that wait for each other: all that may run at the same time.
    let barrier = Arc::new(Barrier::new(4));
    let wait = || {
        let barrier = Arc::clone(&barrier);
        store.restore(std::iter::from_fn(move || {
            barrier.wait();
            None
        }))
    };
    let (a, b, c, d) = tokio::join!(wait(), wait(), wait(), wait());
    assert!(a.and(b).and(c).and(d).is_ok());
}
