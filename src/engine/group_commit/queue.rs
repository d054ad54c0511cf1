//! The queue of the group commit. The header of `group_commit` states its invariants.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::Relaxed;

use super::locks::{
    Arc, AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard, unlock_fair, yield_now,
};

/// A mutex around `S` with a queue of jobs `J` that are answered by `A`.
pub(crate) struct GroupCommit<S, J, A> {
    state: Mutex<S>,
    queue: Mutex<VecDeque<Waiting<J, A>>>,
    /// The number of waiting jobs: a hint that avoids the queue's lock.
    waiting: AtomicUsize,
    /// How often a waiter yields the processor before it parks.
    yields: u32,
}

struct Waiting<J, A> {
    job: J,
    promise: Arc<Promise<A>>,
}

impl<J, A> Waiting<J, A> {
    /// Drops the job and then notifies its waiter. The order matters: a job may share ownership of what its
    /// waiter drops as soon as it is notified. The job must not be the last owner while the mutex is held.
    fn finish(self, new_state: JobState<A>) {
        drop(self.job);
        self.promise.notify(new_state);
    }
}

/// Tells a waiter what became of its job.
struct Promise<A> {
    state: Mutex<JobState<A>>,
    changed: Condvar,
    /// A hint that the state has changed, which is read without the lock. It orders nothing: the waiter takes
    /// the lock before it acts on it.
    notified: AtomicBool,
}

enum JobState<A> {
    Waiting,
    /// The waiter is in charge of the queue.
    Leading,
    Answered(A),
    Abandoned,
}

impl<A> Promise<A> {
    fn new() -> Self {
        Self {
            state: Mutex::new(JobState::Waiting),
            changed: Condvar::new(),
            notified: AtomicBool::new(false),
        }
    }

    fn notify(&self, new_state: JobState<A>) {
        let mut state = self.state.lock();
        if matches!(*state, JobState::Waiting | JobState::Leading) {
            *state = new_state;
        }
        self.notified.store(true, Relaxed);
        self.changed.notify_one();
    }

    fn is_notified(&self) -> bool {
        self.notified.load(Relaxed)
    }

    /// Sleeps until the waiter is notified. Returns the outcome, or `None` when the waiter is to lead.
    fn wait(&self) -> Option<JobOutcome<A>> {
        let state = self.state.lock();
        let state = self.changed.wait_while(state, |state| matches!(state, JobState::Waiting));
        self.take_from(state)
    }

    /// Takes the outcome, if the job has one.
    fn take_outcome(&self) -> Option<JobOutcome<A>> {
        self.take_from(self.state.lock())
    }

    fn take_from(&self, mut state: MutexGuard<'_, JobState<A>>) -> Option<JobOutcome<A>> {
        self.notified.store(false, Relaxed);
        match std::mem::replace(&mut *state, JobState::Waiting) {
            JobState::Answered(answer) => Some(JobOutcome::Answered(answer)),
            JobState::Abandoned => Some(JobOutcome::Abandoned),
            JobState::Waiting | JobState::Leading => None,
        }
    }
}

/// What became of a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JobOutcome<A> {
    Answered(A),
    /// Its leader panicked after it took the job.
    Abandoned,
    /// Its waiter gave up; the job was not done.
    Withdrawn,
}

/// What a leader did.
pub(crate) enum LeadResult {
    /// The jobs that it took are answered.
    Done,
    /// It could not begin or continue: it took no job, or gave back those that are not answered. The mutex is
    /// released during a pause.
    Busy,
}

/// The locked mutex. Dropping it hands the queue over to a waiter.
pub(crate) struct GroupGuard<'c, S, J, A> {
    group: &'c GroupCommit<S, J, A>,
    guard: Option<MutexGuard<'c, S>>,
}

impl<S, J, A> GroupGuard<'_, S, J, A> {
    /// Releases the mutex, and hands it directly to a thread that waits for it, if there is one.
    pub(crate) fn unlock_fair(mut self) {
        if let Some(guard) = self.guard.take() {
            unlock_fair(guard);
        }
    }

    /// Returns what the mutex protects, and the jobs that wait for it.
    pub(crate) fn parts(&mut self) -> (&mut S, Jobs<'_, J, A>) {
        let GroupCommit { queue, waiting, .. } = self.group;
        (self.guard.as_mut().expect("held until dropped"), Jobs { queue, waiting })
    }

    /// Releases the mutex without handing the queue over: the caller stays in charge of it.
    fn unlock_without_handing_over(mut self) {
        self.guard = None;
        std::mem::forget(self);
    }
}

impl<S, J, A> Deref for GroupGuard<'_, S, J, A> {
    type Target = S;

    fn deref(&self) -> &S {
        self.guard.as_ref().expect("held until dropped")
    }
}

impl<S, J, A> DerefMut for GroupGuard<'_, S, J, A> {
    fn deref_mut(&mut self) -> &mut S {
        self.guard.as_mut().expect("held until dropped")
    }
}

impl<S, J, A> Drop for GroupGuard<'_, S, J, A> {
    fn drop(&mut self) {
        self.guard = None;
        self.group.hand_over();
    }
}

/// The end of a waiter's wait.
enum WaitResult<'c, S, J, A> {
    Guard(GroupGuard<'c, S, J, A>),
    Over(JobOutcome<A>),
}

/// The waiting jobs, as a leader sees them.
pub(crate) struct Jobs<'c, J, A> {
    queue: &'c Mutex<VecDeque<Waiting<J, A>>>,
    waiting: &'c AtomicUsize,
}

impl<J, A> Jobs<'_, J, A> {
    /// Returns true when no job waits, as far as the hint tells.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    /// Takes up to `limit` jobs, the oldest first. Each must be answered or given back.
    pub(crate) fn take(&self, limit: usize) -> Vec<TakenJob<J, A>> {
        let mut queue = self.queue.lock();
        let count = queue.len().min(limit);
        self.waiting.store(queue.len() - count, Relaxed);
        queue.drain(..count).map(|waiting| TakenJob(Some(waiting))).collect()
    }

    /// Puts jobs that were taken and not done back to the front of the queue, in their order.
    pub(crate) fn give_back(&self, taken: impl DoubleEndedIterator<Item = TakenJob<J, A>>) {
        let mut queue = self.queue.lock();
        for waiting in taken.rev().filter_map(|mut taken| taken.0.take()) {
            queue.push_front(waiting);
        }
        self.waiting.store(queue.len(), Relaxed);
    }
}

/// A job that a leader took; `None` once it is answered or given back.
pub(crate) struct TakenJob<J, A>(Option<Waiting<J, A>>);

impl<J, A> TakenJob<J, A> {
    pub(crate) fn job(&mut self) -> &mut J {
        &mut self.0.as_mut().expect("present until it is answered").job
    }

    pub(crate) fn answer(mut self, answer: A) {
        if let Some(waiting) = self.0.take() {
            waiting.finish(JobState::Answered(answer));
        }
    }
}

impl<J, A> Drop for TakenJob<J, A> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.take() {
            waiting.finish(JobState::Abandoned);
        }
    }
}

/// A waiter with its job in the queue. Dropping it takes the job back, also when the waiter panics as leader.
struct Waiter<'c, S, J, A> {
    group: &'c GroupCommit<S, J, A>,
    promise: Arc<Promise<A>>,
}

impl<S, J, A> Waiter<'_, S, J, A> {
    /// Takes the job out of the queue; returns false when a leader has taken it.
    fn withdraw(&self) -> bool {
        let mut queue = self.group.queue.lock();
        let found = queue.iter().position(|waiting| Arc::ptr_eq(&waiting.promise, &self.promise));
        let job = found.and_then(|position| queue.remove(position));
        self.group.waiting.store(queue.len(), Relaxed);
        drop(queue);
        // Drop the job with no lock held: its destructor may do anything.
        job.is_some()
    }
}

impl<S, J, A> Drop for Waiter<'_, S, J, A> {
    fn drop(&mut self) {
        // A leader that panicked put the first waiter in charge. That may be this waiter, which will not lead
        // any more.
        if self.withdraw() {
            self.group.hand_over();
        }
    }
}

impl<S, J, A> GroupCommit<S, J, A> {
    /// `yields` is how often a waiter yields the processor before it parks. Where a commit takes no longer
    /// than to park and wake a thread, some dozens of yields save time. Where a commit waits for a disk, none
    /// do: they would keep the processor from the callers that were just answered.
    pub(crate) fn new(state: S, yields: u32) -> Self {
        Self {
            state: Mutex::new(state),
            queue: Mutex::new(VecDeque::new()),
            waiting: AtomicUsize::new(0),
            yields,
        }
    }

    /// Waits for the mutex and takes it. The queue is not used.
    pub(crate) fn lock(&self) -> GroupGuard<'_, S, J, A> {
        GroupGuard { group: self, guard: Some(self.state.lock()) }
    }

    pub(crate) fn try_lock(&self) -> Option<GroupGuard<'_, S, J, A>> {
        let guard = self.state.try_lock()?;
        Some(GroupGuard { group: self, guard: Some(guard) })
    }

    /// Takes the mutex if it is free and no job waits: the path of a lone caller.
    pub(crate) fn try_lock_idle(&self) -> Option<GroupGuard<'_, S, J, A>> {
        if self.waiting.load(Relaxed) > 0 {
            return None;
        }
        self.try_lock()
    }

    /// Queues the job, waits, and returns its outcome. The waiter may be told to lead: then `lead` does the
    /// waiting jobs, this one among them. When `lead` reports `Busy`, `pause` sleeps a little with no lock
    /// held, or returns false to give up.
    pub(crate) fn submit(
        &self,
        job: J,
        mut lead: impl FnMut(&mut S, &Jobs<'_, J, A>) -> LeadResult,
        mut pause: impl FnMut() -> bool,
    ) -> JobOutcome<A> {
        let waiter = Waiter { group: self, promise: Arc::new(Promise::new()) };
        self.push(Waiting { job, promise: Arc::clone(&waiter.promise) });
        // A previous holder of the mutex may have looked at the queue before this job was in it.
        let mut locked = self.try_lock();
        loop {
            let Some(mut guard) = locked else {
                match self.wait(&waiter.promise) {
                    WaitResult::Guard(guard) => locked = Some(guard),
                    WaitResult::Over(outcome) => return outcome,
                }
                continue;
            };
            // Another leader may have done the job already, or this one before a pause.
            if let Some(outcome) = waiter.promise.take_outcome() {
                return outcome;
            }
            let jobs = Jobs { queue: &self.queue, waiting: &self.waiting };
            match lead(&mut guard, &jobs) {
                LeadResult::Done => {
                    drop(guard);
                    locked = None;
                }
                LeadResult::Busy => {
                    guard.unlock_without_handing_over();
                    if pause() {
                        locked = Some(self.lock());
                    } else {
                        let withdrawn = waiter.withdraw();
                        self.hand_over();
                        if withdrawn {
                            return JobOutcome::Withdrawn;
                        }
                        locked = None;
                    }
                }
            }
        }
    }

    /// Waits until the job has an outcome or the mutex is free, whichever comes first. Any waiter that finds
    /// the mutex free leads. The waiter that was told to lead may have to wait long for a processor; to wait
    /// for it would leave the mutex idle.
    fn wait(&self, promise: &Promise<A>) -> WaitResult<'_, S, J, A> {
        loop {
            for _ in 0..self.yields {
                if promise.is_notified() {
                    break;
                }
                if let Some(guard) = self.try_lock() {
                    return WaitResult::Guard(guard);
                }
                yield_now();
            }
            if let Some(outcome) = promise.wait() {
                return WaitResult::Over(outcome);
            }
            // Told to lead. If another thread has taken the mutex first, it notifies a waiter again when it
            // releases it.
            if let Some(guard) = self.try_lock() {
                return WaitResult::Guard(guard);
            }
        }
    }

    /// The number of waiting jobs.
    #[cfg(test)]
    #[allow(dead_code, reason = "for `model`, which compiles this file too")]
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().len()
    }

    fn push(&self, waiting: Waiting<J, A>) {
        let mut queue = self.queue.lock();
        queue.push_back(waiting);
        self.waiting.store(queue.len(), Relaxed);
    }

    /// Puts the first waiter in charge, if there is one. Called after the mutex was released. The queue's
    /// lock orders this with `push`: either this sees the job, or the job's waiter sees the mutex free.
    fn hand_over(&self) {
        if let Some(first) = self.queue.lock().front() {
            first.promise.notify(JobState::Leading);
        }
    }
}
