//! The queue: see the header of `combine`.

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
    /// How many jobs wait: a hint that spares the queue's lock.
    waiting: AtomicUsize,
    /// How often a waiter gives the processor away before it parks.
    yields: u32,
}

struct Waiting<J, A> {
    job: J,
    promise: Arc<Promise<A>>,
}

impl<J, A> Waiting<J, A> {
    /// Ends the job and then tells its waiter. In this order: a job may hold what its waiter lets go of as
    /// soon as it is told, and is not to be the last to hold it while the mutex is guard.
    fn end(self, new_state: JobState<A>) {
        drop(self.job);
        self.promise.notify(new_state);
    }
}

/// Where a waiter learns what became of its job.
struct Promise<A> {
    state: Mutex<JobState<A>>,
    changed: Condvar,
    /// A hint that the state has changed, to be looked at without its lock. It orders nothing: the waiter
    /// takes the lock before it acts on it.
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

    /// Sleeps until there is notified: the outcome, or `None` when the waiter is to lead.
    fn wait(&self) -> Option<JobOutcome<A>> {
        let state = self.state.lock();
        let state = self.changed.wait_while(state, |state| matches!(state, JobState::Waiting));
        self.take_from(state)
    }

    /// The outcome, if the job is over.
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
    /// Its leader panicked with the job in hand.
    Abandoned,
    /// Its waiter had no more patience; the job was not done.
    Withdrawn,
}

/// What a leader reports.
pub(crate) enum LeadResult {
    /// The jobs it took are answered.
    Done,
    /// It could not begin, or could not go on: it took no job, or gave those that are not answered back.
    /// The mutex is let go of during a pause.
    Busy,
}

/// The mutex, guard. Letting go hands the queue over to a waiter.
pub(crate) struct GroupGuard<'c, S, J, A> {
    group: &'c GroupCommit<S, J, A>,
    guard: Option<MutexGuard<'c, S>>,
}

impl<S, J, A> GroupGuard<'_, S, J, A> {
    /// Lets go, to whoever blocks on the mutex if anybody does.
    pub(crate) fn unlock_fair(mut self) {
        if let Some(guard) = self.guard.take() {
            unlock_fair(guard);
        }
    }

    /// What the mutex protects, and the jobs that wait for it.
    pub(crate) fn parts(&mut self) -> (&mut S, Jobs<'_, J, A>) {
        let GroupCommit { queue, waiting, .. } = self.group;
        (self.guard.as_mut().expect("held until dropped"), Jobs { queue, waiting })
    }

    /// Lets go without handing over: the caller stays in charge of the queue.
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

/// What a waiter has waited for.
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
    /// Whether no job waits, as far as can be told without the queue's lock.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    /// Takes up to `limit` jobs, those that came first. Each must be answered or given back.
    pub(crate) fn take(&self, limit: usize) -> Vec<TakenJob<J, A>> {
        let mut queue = self.queue.lock();
        let count = queue.len().min(limit);
        self.waiting.store(queue.len() - count, Relaxed);
        queue.drain(..count).map(|waiting| TakenJob(Some(waiting))).collect()
    }

    /// Puts jobs that were taken and not done back to where they were, in their order.
    pub(crate) fn give_back(&self, taken: impl DoubleEndedIterator<Item = TakenJob<J, A>>) {
        let mut queue = self.queue.lock();
        for waiting in taken.rev().filter_map(|mut taken| taken.0.take()) {
            queue.push_front(waiting);
        }
        self.waiting.store(queue.len(), Relaxed);
    }
}

/// A job in a leader's hands; `None` once it was answered or given back.
pub(crate) struct TakenJob<J, A>(Option<Waiting<J, A>>);

impl<J, A> TakenJob<J, A> {
    pub(crate) fn job(&mut self) -> &mut J {
        &mut self.0.as_mut().expect("in hand until it is answered").job
    }

    pub(crate) fn answer(mut self, answer: A) {
        if let Some(waiting) = self.0.take() {
            waiting.end(JobState::Answered(answer));
        }
    }
}

impl<J, A> Drop for TakenJob<J, A> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.take() {
            waiting.end(JobState::Abandoned);
        }
    }
}

/// A waiter's waiter in the queue, given up when the waiter leaves, also by a panic of the guard it leads.
struct Waiter<'c, S, J, A> {
    group: &'c GroupCommit<S, J, A>,
    promise: Arc<Promise<A>>,
}

impl<S, J, A> Waiter<'_, S, J, A> {
    /// Takes the job back; false when a leader has it.
    fn withdraw(&self) -> bool {
        let mut queue = self.group.queue.lock();
        let found = queue.iter().position(|waiting| Arc::ptr_eq(&waiting.promise, &self.promise));
        let job = found.and_then(|position| queue.remove(position));
        self.group.waiting.store(queue.len(), Relaxed);
        drop(queue);
        // Dropped with no lock guard: a job may be anything.
        job.is_some()
    }
}

impl<S, J, A> Drop for Waiter<'_, S, J, A> {
    fn drop(&mut self) {
        // A guard that ended by a panic put the first in the queue in charge, perhaps this one, which will
        // not lead any more.
        if self.withdraw() {
            self.group.hand_over();
        }
    }
}

impl<S, J, A> GroupCommit<S, J, A> {
    /// `yields` is how often a waiter gives the processor away before it parks. Where a guard takes no
    /// longer than a park and a wake, some dozens pay; where it waits for a disk, none do: they would
    /// keep the processor from those who have just been answered.
    pub(crate) fn new(state: S, yields: u32) -> Self {
        Self {
            state: Mutex::new(state),
            queue: Mutex::new(VecDeque::new()),
            waiting: AtomicUsize::new(0),
            yields,
        }
    }

    /// Waits for the mutex, past the queue.
    pub(crate) fn lock(&self) -> GroupGuard<'_, S, J, A> {
        GroupGuard { group: self, guard: Some(self.state.lock()) }
    }

    pub(crate) fn try_lock(&self) -> Option<GroupGuard<'_, S, J, A>> {
        let guard = self.state.try_lock()?;
        Some(GroupGuard { group: self, guard: Some(guard) })
    }

    /// The mutex, if it is free and nobody waits: what a lone caller gets.
    pub(crate) fn try_lock_idle(&self) -> Option<GroupGuard<'_, S, J, A>> {
        if self.waiting.load(Relaxed) > 0 {
            return None;
        }
        self.try_lock()
    }

    /// Queues the job and waits for what becomes of it. The waiter may be told to lead: then `lead` does
    /// the waiting jobs, this one among them. When it reports `Busy`, `pause` sleeps a little with no
    /// lock guard, or returns false to give up.
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

    /// Waits until the job is over or the mutex is free, whichever comes first. Whoever runs when it
    /// becomes free leads: to wait for the one that was told to, which may be long in coming to a
    /// processor, would leave the mutex idle.
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
            // Told to lead. If somebody else was quicker, that one tells again when it lets go.
            if let Some(guard) = self.try_lock() {
                return WaitResult::Guard(guard);
            }
        }
    }

    /// How many jobs wait.
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

    /// Puts the first waiter in charge, if there is one. Comes after the mutex was let go of; the queue's
    /// lock orders it with `push`, so either this sees the job or its waiter sees the mutex free.
    fn hand_over(&self) {
        if let Some(first) = self.queue.lock().front() {
            first.promise.notify(JobState::Leading);
        }
    }
}
