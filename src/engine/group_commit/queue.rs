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
    /// soon as it is told, and is not to be the last to hold it while the mutex is held.
    fn end(self, news: Stage<A>) {
        drop(self.job);
        self.promise.tell(news);
    }
}

/// Where a waiter learns what became of its job.
struct Promise<A> {
    stage: Mutex<Stage<A>>,
    changed: Condvar,
    /// A hint that the stage has changed, to be looked at without its lock. It orders nothing: the waiter
    /// takes the lock before it acts on it.
    news: AtomicBool,
}

enum Stage<A> {
    Waiting,
    /// The waiter is in charge of the queue.
    Leading,
    Answered(A),
    Abandoned,
}

impl<A> Promise<A> {
    fn new() -> Self {
        Self {
            stage: Mutex::new(Stage::Waiting),
            changed: Condvar::new(),
            news: AtomicBool::new(false),
        }
    }

    fn tell(&self, news: Stage<A>) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Waiting | Stage::Leading) {
            *stage = news;
        }
        self.news.store(true, Relaxed);
        self.changed.notify_one();
    }

    fn has_news(&self) -> bool {
        self.news.load(Relaxed)
    }

    /// Sleeps until there is news: the outcome, or `None` when the waiter is to lead.
    fn wait(&self) -> Option<Outcome<A>> {
        let stage = self.stage.lock();
        let stage = self.changed.wait_while(stage, |stage| matches!(stage, Stage::Waiting));
        self.take(stage)
    }

    /// The outcome, if the job is over.
    fn settled(&self) -> Option<Outcome<A>> {
        self.take(self.stage.lock())
    }

    fn take(&self, mut stage: MutexGuard<'_, Stage<A>>) -> Option<Outcome<A>> {
        self.news.store(false, Relaxed);
        match std::mem::replace(&mut *stage, Stage::Waiting) {
            Stage::Answered(answer) => Some(Outcome::Answered(answer)),
            Stage::Abandoned => Some(Outcome::Abandoned),
            Stage::Waiting | Stage::Leading => None,
        }
    }
}

/// What became of a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<A> {
    Answered(A),
    /// Its leader panicked with the job in hand.
    Abandoned,
    /// Its waiter had no more patience; the job was not done.
    Withdrawn,
}

/// What a leader reports.
pub(crate) enum Led {
    /// The jobs it took are answered.
    Done,
    /// It could not begin, or could not go on: it took no job, or gave those that are not answered back.
    /// The mutex is let go of during a pause.
    Busy,
}

/// The mutex, held. Letting go hands the queue over to a waiter.
pub(crate) struct Turn<'c, S, J, A> {
    combiner: &'c GroupCommit<S, J, A>,
    guard: Option<MutexGuard<'c, S>>,
}

impl<S, J, A> Turn<'_, S, J, A> {
    /// Lets go, to whoever blocks on the mutex if anybody does.
    pub(crate) fn end_fair(mut self) {
        if let Some(guard) = self.guard.take() {
            unlock_fair(guard);
        }
    }

    /// What the mutex protects, and the jobs that wait for it.
    pub(crate) fn parts(&mut self) -> (&mut S, Jobs<'_, J, A>) {
        let GroupCommit { queue, waiting, .. } = self.combiner;
        (self.guard.as_mut().expect("held until dropped"), Jobs { queue, waiting })
    }

    /// Lets go without handing over: the caller stays in charge of the queue.
    fn end_in_charge(mut self) {
        self.guard = None;
        std::mem::forget(self);
    }
}

impl<S, J, A> Deref for Turn<'_, S, J, A> {
    type Target = S;

    fn deref(&self) -> &S {
        self.guard.as_ref().expect("held until dropped")
    }
}

impl<S, J, A> DerefMut for Turn<'_, S, J, A> {
    fn deref_mut(&mut self) -> &mut S {
        self.guard.as_mut().expect("held until dropped")
    }
}

impl<S, J, A> Drop for Turn<'_, S, J, A> {
    fn drop(&mut self) {
        self.guard = None;
        self.combiner.hand_over();
    }
}

/// What a waiter has waited for.
enum Waited<'c, S, J, A> {
    Turn(Turn<'c, S, J, A>),
    Over(Outcome<A>),
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
    pub(crate) fn take(&self, limit: usize) -> Vec<Taken<J, A>> {
        let mut queue = self.queue.lock();
        let count = queue.len().min(limit);
        self.waiting.store(queue.len() - count, Relaxed);
        queue.drain(..count).map(|waiting| Taken(Some(waiting))).collect()
    }

    /// Puts jobs that were taken and not done back to where they were, in their order.
    pub(crate) fn give_back(&self, taken: impl DoubleEndedIterator<Item = Taken<J, A>>) {
        let mut queue = self.queue.lock();
        for waiting in taken.rev().filter_map(|mut taken| taken.0.take()) {
            queue.push_front(waiting);
        }
        self.waiting.store(queue.len(), Relaxed);
    }
}

/// A job in a leader's hands; `None` once it was answered or given back.
pub(crate) struct Taken<J, A>(Option<Waiting<J, A>>);

impl<J, A> Taken<J, A> {
    pub(crate) fn job(&mut self) -> &mut J {
        &mut self.0.as_mut().expect("in hand until it is answered").job
    }

    pub(crate) fn answer(mut self, answer: A) {
        if let Some(waiting) = self.0.take() {
            waiting.end(Stage::Answered(answer));
        }
    }
}

impl<J, A> Drop for Taken<J, A> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.take() {
            waiting.end(Stage::Abandoned);
        }
    }
}

/// A waiter's place in the queue, given up when the waiter leaves, also by a panic of the turn it leads.
struct Place<'c, S, J, A> {
    combiner: &'c GroupCommit<S, J, A>,
    promise: Arc<Promise<A>>,
}

impl<S, J, A> Place<'_, S, J, A> {
    /// Takes the job back; false when a leader has it.
    fn withdraw(&self) -> bool {
        let mut queue = self.combiner.queue.lock();
        let found = queue.iter().position(|waiting| Arc::ptr_eq(&waiting.promise, &self.promise));
        let job = found.and_then(|place| queue.remove(place));
        self.combiner.waiting.store(queue.len(), Relaxed);
        drop(queue);
        // Dropped with no lock held: a job may be anything.
        job.is_some()
    }
}

impl<S, J, A> Drop for Place<'_, S, J, A> {
    fn drop(&mut self) {
        // A turn that ended by a panic put the first in the queue in charge, perhaps this one, which will
        // not lead any more.
        if self.withdraw() {
            self.combiner.hand_over();
        }
    }
}

impl<S, J, A> GroupCommit<S, J, A> {
    /// `yields` is how often a waiter gives the processor away before it parks. Where a turn takes no
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
    pub(crate) fn lock(&self) -> Turn<'_, S, J, A> {
        Turn { combiner: self, guard: Some(self.state.lock()) }
    }

    pub(crate) fn try_lock(&self) -> Option<Turn<'_, S, J, A>> {
        let guard = self.state.try_lock()?;
        Some(Turn { combiner: self, guard: Some(guard) })
    }

    /// The mutex, if it is free and nobody waits: what a lone caller gets.
    pub(crate) fn try_lock_idle(&self) -> Option<Turn<'_, S, J, A>> {
        if self.waiting.load(Relaxed) > 0 {
            return None;
        }
        self.try_lock()
    }

    /// Queues the job and waits for what becomes of it. The waiter may be told to lead: then `lead` does
    /// the waiting jobs, this one among them. When it reports `Busy`, `pause` sleeps a little with no
    /// lock held, or returns false to give up.
    pub(crate) fn submit(
        &self,
        job: J,
        mut lead: impl FnMut(&mut S, &Jobs<'_, J, A>) -> Led,
        mut pause: impl FnMut() -> bool,
    ) -> Outcome<A> {
        let place = Place { combiner: self, promise: Arc::new(Promise::new()) };
        self.push(Waiting { job, promise: Arc::clone(&place.promise) });
        // Whoever held the mutex a moment ago may have looked at the queue before this job was in it.
        let mut turn = self.try_lock();
        loop {
            let Some(mut held) = turn else {
                match self.wait(&place.promise) {
                    Waited::Turn(held) => turn = Some(held),
                    Waited::Over(outcome) => return outcome,
                }
                continue;
            };
            // Another leader may have come first, or this one before a pause.
            if let Some(outcome) = place.promise.settled() {
                return outcome;
            }
            let jobs = Jobs { queue: &self.queue, waiting: &self.waiting };
            match lead(&mut held, &jobs) {
                Led::Done => {
                    drop(held);
                    turn = None;
                }
                Led::Busy => {
                    held.end_in_charge();
                    if pause() {
                        turn = Some(self.lock());
                    } else {
                        let withdrawn = place.withdraw();
                        self.hand_over();
                        if withdrawn {
                            return Outcome::Withdrawn;
                        }
                        turn = None;
                    }
                }
            }
        }
    }

    /// Waits until the job is over or the mutex is free, whichever comes first. Whoever runs when it
    /// becomes free leads: to wait for the one that was told to, which may be long in coming to a
    /// processor, would leave the mutex idle.
    fn wait(&self, promise: &Promise<A>) -> Waited<'_, S, J, A> {
        loop {
            for _ in 0..self.yields {
                if promise.has_news() {
                    break;
                }
                if let Some(turn) = self.try_lock() {
                    return Waited::Turn(turn);
                }
                yield_now();
            }
            if let Some(outcome) = promise.wait() {
                return Waited::Over(outcome);
            }
            // Told to lead. If somebody else was quicker, that one tells again when it lets go.
            if let Some(turn) = self.try_lock() {
                return Waited::Turn(turn);
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
            first.promise.tell(Stage::Leading);
        }
    }
}
