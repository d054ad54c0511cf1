//! A pipeline that its caller sends, as long as the caller polls it.
//!
//! Owns who polls the sending. What always holds: it goes on when its caller is dropped, and a task takes it over when
//! another caller has waited for it a while, because its own caller may have stopped polling it. The caller gets the answer
//! all the same. Knows nothing of requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Sending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The caller's side: the answer of the pipeline; `None` if the runtime of the task that sent it has ended.
pub(super) struct Led<T: Send + 'static> {
    lead: Lead<T>,
    /// Where it goes on when the caller is dropped.
    runtime: Handle,
}

/// The side of those that wait meanwhile.
pub(super) struct Lead<T>(Arc<Mutex<Sender<T>>>);

/// Who sends.
enum Sender<T> {
    /// The caller, which was polled with this waker last.
    Caller(Sending<T>, Option<Waker>),
    /// A task, which gives the answer here.
    Task(oneshot::Receiver<T>),
    /// No one any more.
    Over,
}

impl<T> Clone for Lead<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> Lead<T> {
    /// Has a task of this runtime send, unless one does already. Returns false while the caller polls: try again.
    pub(super) fn take_over(&self, runtime: &Handle) -> bool {
        let Some(mut sender) = self.0.try_lock() else { return false };
        let (answer, receiver) = oneshot::channel();
        match std::mem::replace(&mut *sender, Sender::Task(receiver)) {
            Sender::Caller(sending, waker) => {
                drop(sender);
                runtime.spawn(async move { answer.send(sending.await) });
                // It has to ask the task from now on.
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            other => *sender = other,
        }
        true
    }
}

impl<T: Send + 'static> Led<T> {
    /// Has the caller send.
    pub(super) fn new(runtime: Handle, sending: impl Future<Output = T> + Send + 'static) -> Self {
        let sender = Sender::Caller(Box::pin(sending), None);
        Self { lead: Lead(Arc::new(Mutex::new(sender))), runtime }
    }

    pub(super) fn lead(&self) -> Lead<T> {
        self.lead.clone()
    }
}

impl<T: Send + 'static> Future for Led<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // Those that wait only try the lock, so it is held while the sending is polled.
        let mut sender = self.lead.0.lock();
        let polled = match &mut *sender {
            Sender::Caller(sending, waker) => {
                let polled = sending.as_mut().poll(context).map(Some);
                if polled.is_pending()
                    && !waker.as_ref().is_some_and(|it| it.will_wake(context.waker()))
                {
                    *waker = Some(context.waker().clone());
                }
                polled
            }
            Sender::Task(answer) => Pin::new(answer).poll(context).map(Result::ok),
            Sender::Over => unreachable!("it is not polled after it was ready"),
        };
        if polled.is_ready() {
            *sender = Sender::Over;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Led<T> {
    fn drop(&mut self) {
        let sender = std::mem::replace(&mut *self.lead.0.lock(), Sender::Over);
        if let Sender::Caller(sending, _) = sender {
            self.runtime.spawn(sending);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn sending(answer: oneshot::Receiver<u32>) -> u32 {
        answer.await.unwrap()
    }

    /// Polls once, and finds it pending.
    async fn begin(pipeline: &mut Led<u32>) {
        poll_fn(|context| {
            assert!(Pin::new(&mut *pipeline).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_caller_that_polls_sends_itself() {
        let (answer, receiver) = oneshot::channel();
        let pipeline = Led::new(Handle::current(), sending(receiver));
        answer.send(17).unwrap();
        assert_eq!(pipeline.await, Some(17));
    }

    #[tokio::test]
    async fn a_task_takes_over_what_is_not_polled_and_the_caller_is_told() {
        let (answer, receiver) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let mut pipeline = Led::new(Handle::current(), async move {
            let answer = receiver.await.unwrap();
            done.send(()).unwrap();
            answer
        });
        let lead = pipeline.lead();
        begin(&mut pipeline).await;
        assert!(lead.take_over(&Handle::current()));
        answer.send(17_u32).unwrap();
        // Without the caller.
        is_done.await.unwrap();
        assert!(lead.take_over(&Handle::current()), "twice changes nothing");
        assert_eq!(pipeline.await, Some(17));
        assert!(lead.take_over(&Handle::current()), "nor does it when it is over");
    }

    #[tokio::test]
    async fn a_caller_that_waits_is_woken_by_the_task() {
        let (answer, receiver) = oneshot::channel();
        let pipeline = Led::new(Handle::current(), sending(receiver));
        let lead = pipeline.lead();
        let caller = tokio::spawn(pipeline);
        tokio::task::yield_now().await;
        assert!(lead.take_over(&Handle::current()));
        answer.send(17).unwrap();
        assert_eq!(caller.await.unwrap(), Some(17));
    }

    #[tokio::test]
    async fn it_goes_on_when_its_caller_is_dropped() {
        let (answer, receiver) = oneshot::channel::<u32>();
        let (done, is_done) = oneshot::channel();
        let mut pipeline = Led::new(Handle::current(), async move {
            done.send(receiver.await.unwrap()).unwrap();
            0
        });
        begin(&mut pipeline).await;
        drop(pipeline);
        answer.send(17).unwrap();
        assert_eq!(is_done.await, Ok(17));
    }
}
