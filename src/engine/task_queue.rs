//! Small calls of tasks, which must not block the thread that they run on.
//!
//! Owns the queue of these calls, the thread that does them (`server`), and the timers of tasks that wait for a claim.
//! The calls that wait at one time share a transaction. What always holds:
//!
//! - A call that is in the queue is done, or it is told why not, or its caller has gone and did not want it any more.
//!   It is told after its commit.
//! - A task is woken, and what a task left behind is dropped, on this thread with no lock of the store held: either may
//!   run code of any kind, and the last handle of the store may go with it.
//! - A call waits for other processes for as long as its handle says. Calls that only look go on beside those that wait
//!   for the write lock.
//! - The queue's lock is the last in the order of locks, and nothing that may wait is done under it.
//!
//! Knows neither verbs nor SQL.

mod server;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use self::server::{quietly, serve};
use super::{Engine, Handle, Owner, yields};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::journal::Transaction;
use crate::machine::{self, Mutex, Receiver, SyncSender, sync_channel};

/// How many long calls of a store run at the same time, each on a thread of the runtime. More wait for their turn.
const LONG_CALLS: usize = 4;

/// A small call of a task. It owns what it is about.
pub(crate) trait TaskCall: Send {
    /// Whether the call is still to be done: its caller may have gone.
    fn is_wanted(&self) -> bool;

    /// Does what needs no write lock, and returns whether the answer is known then. Does not wait for other processes.
    fn look(&mut self) -> Result<bool>;

    /// Decides under the write lock.
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> Result<()>;

    /// Whether it writes so much that others of a group would wait for it.
    fn is_large(&self) -> bool {
        false
    }

    /// Tells the caller the answer, or why there is none.
    fn finish(self: Box<Self>, outcome: Result<()>);
}

/// A call in the queue.
struct Queued {
    call: Box<dyn TaskCall>,
    /// How long it waits for other processes.
    timeout: Duration,
    arrived: Stopwatch,
}

impl Queued {
    /// Whether it has waited for as long as it may, while other processes have been in the way for `busy`.
    fn is_over(&self, busy: Duration) -> bool {
        busy.min(self.arrived.elapsed()) >= self.timeout
    }
}

/// What the async handles of a store share. When the last of them is dropped, the thread does what is in the queue and
/// ends, and closes the store if no other handle is left.
pub(crate) struct Tasks {
    queue: Arc<TaskQueue>,
    /// Keeps the store open until the thread can close it.
    handle: Option<Handle>,
}

pub(crate) struct TaskQueue {
    engine: Engine,
    state: Mutex<State>,
    /// Wakes the thread.
    bell: SyncSender<()>,
    /// The places of the queue, for calls that decide and for those that only look.
    room: Arc<Semaphore>,
    look_room: Arc<Semaphore>,
    long_calls: Arc<Semaphore>,
    /// How often the thread yields the processor before it parks.
    yields: u32,
    /// The time of timers counts from here.
    started: Stopwatch,
}

struct State {
    arrived: VecDeque<Queued>,
    /// Tasks to wake.
    woken: Vec<Arc<Notify>>,
    /// When to wake which task, by the time since `started` and a number.
    timers: BTreeMap<(Duration, u64), Arc<Notify>>,
    next_timer: u64,
    /// How many [`Tasks`] there are: one, and a moment longer one that is being dropped.
    tasks: u32,
    phase: Phase,
    /// What closes the store, once the last handle of it was dropped by a task.
    left: Option<Owner>,
}

type Told = Box<dyn FnOnce(Result<()>) + Send>;

enum Phase {
    Open,
    /// The last async handle is gone: the thread does what is in the queue, and ends.
    Left,
    /// Calls that come are refused, but for those that end a claim: the thread does what is in the queue, closes the
    /// store and says so.
    Closing(Told),
    /// The queue is empty, and the thread ends.
    Ending,
    /// The thread could not start. Calls get this error.
    Failed(Error),
    /// The thread has ended. Calls get this error.
    Over(Error),
}

impl Phase {
    /// Returns why no call of this kind is taken any more, if so.
    fn check(&self, kind: Kind, engine: &Engine) -> Result<()> {
        match self {
            Self::Open | Self::Left => Ok(()),
            Self::Closing(_) if kind == Kind::End => Ok(()),
            Self::Closing(_) | Self::Ending => Err(engine.closed_error()),
            Self::Failed(e) | Self::Over(e) => Err(e.clone()),
        }
    }
}

/// What a call is for the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has a place in the queue.
    Usual,
    /// It ends a claim. It needs no place, and is taken while the store closes, or that would leave claims behind.
    End,
}

/// What the thread takes from the queue at once.
struct Round {
    arrived: VecDeque<Queued>,
    woken: Vec<Arc<Notify>>,
    /// How long until the next timer.
    nap: Option<Duration>,
    /// Set when the queue is empty and no call comes after this round: what is left to do.
    end: Option<End>,
}

/// What the thread does at its end.
enum End {
    Leave,
    Close(Told),
}

/// Where a store finds what its async handles share. The queue is there until its thread has ended, which may be after
/// the last handle was dropped: a store has one queue at a time.
#[derive(Default)]
pub(crate) struct Slot {
    tasks: Weak<Tasks>,
    queue: Weak<TaskQueue>,
}

impl Handle {
    /// Returns what the async handles of this store share.
    pub(crate) fn tasks(&self) -> Arc<Tasks> {
        // In a forked child the lock may be taken for ever.
        if let Err(e) = self.check_process() {
            let queue = Arc::new(TaskQueue::new(self, Phase::Failed(e)).0);
            return Arc::new(Tasks { queue, handle: None });
        }
        let mut slot = self.tasks.lock();
        if let Some(tasks) = slot.tasks.upgrade()
            && !matches!(tasks.state.lock().phase, Phase::Failed(_))
        {
            return tasks;
        }
        let again = slot.queue.upgrade().filter(|queue| queue.open_again());
        let tasks = Arc::new(match again {
            Some(queue) => Tasks { queue, handle: Some(self.clone()) },
            None => Tasks::start(self),
        });
        *slot = Slot { tasks: Arc::downgrade(&tasks), queue: Arc::downgrade(&tasks.queue) };
        tasks
    }
}

impl Tasks {
    /// Starts the thread. Where there can be none, each call that needs it tells why.
    fn start(handle: &Handle) -> Self {
        let (queue, rings) = TaskQueue::new(handle, Phase::Open);
        let queue = Arc::new(queue);
        let served = Arc::clone(&queue);
        if let Err(e) = machine::spawn("seen-tasks", move || serve(&served, &rings)) {
            queue.state.lock().phase =
                Phase::Failed(Error::io("cannot start the thread for the calls of tasks", e));
            return Self { queue, handle: None };
        }
        Self { queue, handle: Some(handle.clone()) }
    }

    pub(crate) fn queue(&self) -> &Arc<TaskQueue> {
        &self.queue
    }
}

impl Deref for Tasks {
    type Target = TaskQueue;

    fn deref(&self) -> &TaskQueue {
        &self.queue
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        // In a forked child there is no thread, and the lock may be taken for ever.
        if handle.check_process().is_ok() {
            self.queue.leave(handle);
        }
    }
}

impl TaskQueue {
    fn new(handle: &Handle, phase: Phase) -> (Self, Receiver<()>) {
        let engine = Engine::clone(handle);
        let (bell, rings) = sync_channel(1);
        let state = State {
            arrived: VecDeque::new(),
            woken: Vec::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            tasks: 1,
            phase,
            left: None,
        };
        let queue = Self {
            room: Arc::new(Semaphore::new(engine.config.async_queue)),
            look_room: Arc::new(Semaphore::new(engine.config.async_queue)),
            long_calls: Arc::new(Semaphore::new(LONG_CALLS)),
            state: Mutex::new(state),
            started: Stopwatch::start(),
            yields: yields(engine.config.synchronous),
            engine,
            bell,
        };
        (queue, rings)
    }

    /// Whether another [`Tasks`] goes on with this queue, whose last one was dropped.
    fn open_again(&self) -> bool {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Left => state.phase = Phase::Open,
            Phase::Open | Phase::Closing(_) => {}
            Phase::Ending | Phase::Failed(_) | Phase::Over(_) => return false,
        }
        state.tasks += 1;
        true
    }

    /// Takes a place in the queue, if there is one.
    pub(crate) fn try_room(&self) -> Result<Option<OwnedSemaphorePermit>> {
        self.engine.check_process()?;
        Ok(Arc::clone(&self.room).try_acquire_owned().ok())
    }

    /// Waits for a place in the queue.
    pub(crate) async fn room(&self) -> Result<OwnedSemaphorePermit> {
        self.permit(&self.room).await
    }

    /// Waits for a place for a call that only looks. They have places of their own: what waits for the write lock of
    /// another process holds up no look.
    pub(crate) async fn look_room(&self) -> Result<OwnedSemaphorePermit> {
        self.permit(&self.look_room).await
    }

    /// Waits until a long call may run.
    pub(crate) async fn long_call(&self) -> Result<OwnedSemaphorePermit> {
        self.permit(&self.long_calls).await
    }

    async fn permit(&self, of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
        self.engine.check_process()?;
        if let Ok(permit) = Arc::clone(of).try_acquire_owned() {
            return Ok(permit);
        }
        let permit = self.here(Arc::clone(of).acquire_owned()).await?;
        permit.map_err(|_| self.engine.closed_error())
    }

    /// Waits for a future in the process that opened the store. In a forked child it fails, and leaks the future: a thread
    /// of the parent may have held a lock of it.
    pub(crate) async fn here<F: Future>(&self, future: F) -> Result<F::Output> {
        struct Here<'q, F>(&'q TaskQueue, Option<Pin<Box<F>>>);
        impl<F> Drop for Here<'_, F> {
            fn drop(&mut self) {
                if self.0.engine.check_process().is_err() {
                    std::mem::forget(self.1.take());
                }
            }
        }
        let mut here = Here(self, Some(Box::pin(future)));
        poll_fn(|context| {
            self.engine.check_process()?;
            let future = here.1.as_mut().expect("present until it is dropped");
            future.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Queues a call that waits this long for other processes. Does not wait.
    pub(crate) fn push(&self, call: Box<dyn TaskCall>, kind: Kind, timeout: Duration) {
        if let Err(e) = self.engine.check_process() {
            return call.finish(Err(e));
        }
        let mut state = self.state.lock();
        if let Err(e) = state.phase.check(kind, &self.engine) {
            drop(state);
            return call.finish(Err(e));
        }
        state.arrived.push_back(Queued { call, timeout, arrived: Stopwatch::start() });
        drop(state);
        self.ring();
    }

    /// Wakes the task a little later, on the thread. For callers that hold locks of the store.
    pub(crate) fn wake_later(&self, task: &Arc<Notify>) {
        self.state.lock().woken.push(Arc::clone(task));
        self.ring();
    }

    /// Waits until the task is woken, for this long at most.
    pub(crate) async fn sleep(&self, woken: &Arc<Notify>, time: Duration) -> Result<()> {
        let _timer = Timer::start(self, woken, time)?;
        self.here(woken.notified()).await
    }

    /// Does what is in the queue, refuses what comes later, closes the store, and tells the outcome.
    pub(crate) fn close(&self, told: impl FnOnce(Result<()>) + Send + 'static) {
        if let Err(e) = self.engine.check_process() {
            return told(Err(e));
        }
        let mut state = self.state.lock();
        if let Err(e) = state.phase.check(Kind::Usual, &self.engine) {
            drop(state);
            return told(Err(e));
        }
        state.phase = Phase::Closing(Box::new(told));
        let sleeping: Vec<_> = state.timers.values().cloned().collect();
        state.woken.extend(sleeping);
        drop(state);
        self.ring();
        // This wakes tasks: their wakers may do anything.
        for places in [&self.room, &self.look_room, &self.long_calls] {
            places.close();
        }
    }

    /// The last async handle is gone.
    fn leave(&self, handle: Handle) {
        let mut state = self.state.lock();
        state.tasks -= 1;
        if state.tasks == 0 && matches!(state.phase, Phase::Open) {
            state.phase = Phase::Left;
        }
        // To close the store is to wait for the disk.
        if let Some(last) = handle.into_last() {
            state.left = Some(last);
        }
        let closed = if matches!(state.phase, Phase::Over(_)) { state.left.take() } else { None };
        drop(state);
        self.ring();
        drop(closed);
    }

    /// Ends the thread: the queue is empty.
    fn end(&self, end: End) {
        if let End::Close(told) = end {
            let closed = catch_unwind(AssertUnwindSafe(|| self.engine.close()));
            let outcome = closed.unwrap_or_else(|_| Err(self.engine.abandoned_error()));
            quietly(|| told(outcome));
        }
        let mut state = self.state.lock();
        state.phase = Phase::Over(self.engine.closed_error());
        let left = state.left.take();
        drop(state);
        quietly(|| drop(left));
    }

    fn ring(&self) {
        // Where a ring waits already, one more is not needed.
        let _ = self.bell.try_send(());
    }

    /// Yields the processor for a moment, and returns whether there is something to do then. A task that was answered
    /// mostly calls again, and to park a thread and wake it takes longer than a commit without an fsync.
    fn has_more_soon(&self) -> bool {
        (0..self.yields).any(|_| {
            machine::yield_now();
            let state = self.state.lock();
            !state.arrived.is_empty() || !state.woken.is_empty()
        })
    }

    /// Returns what there is to do now, with up to `most` calls. `is_idle`: the thread has no other calls.
    fn next_round(&self, most: usize, is_idle: bool) -> Round {
        let mut state = self.state.lock();
        let now = self.started.elapsed();
        let mut woken = std::mem::take(&mut state.woken);
        while let Some(first) = state.timers.first_entry().filter(|first| first.key().0 <= now) {
            woken.push(first.remove());
        }
        let nap = state.timers.first_key_value().map(|(&(due, _), _)| due.saturating_sub(now));
        let count = state.arrived.len().min(most);
        let arrived: VecDeque<_> = state.arrived.drain(..count).collect();
        let mut end = None;
        if is_idle && arrived.is_empty() && matches!(state.phase, Phase::Left | Phase::Closing(_)) {
            end = match std::mem::replace(&mut state.phase, Phase::Ending) {
                Phase::Closing(told) => Some(End::Close(told)),
                _ => Some(End::Leave),
            };
        }
        Round { arrived, woken, nap, end }
    }
}

/// Wakes a task at a time. Dropping it stops that.
struct Timer<'q> {
    queue: &'q TaskQueue,
    key: (Duration, u64),
}

impl<'q> Timer<'q> {
    fn start(queue: &'q TaskQueue, task: &Arc<Notify>, time: Duration) -> Result<Self> {
        queue.engine.check_process()?;
        let mut state = queue.state.lock();
        state.phase.check(Kind::Usual, &queue.engine)?;
        let key = (queue.started.elapsed().saturating_add(time), state.next_timer);
        state.next_timer += 1;
        let is_first = state.timers.first_key_value().is_none_or(|(first, _)| key < *first);
        state.timers.insert(key, Arc::clone(task));
        drop(state);
        if is_first {
            queue.ring();
        }
        Ok(Self { queue, key })
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if self.queue.engine.check_process().is_ok() {
            self.queue.state.lock().timers.remove(&self.key);
        }
    }
}
