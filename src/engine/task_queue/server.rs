//! The thread that does the calls of tasks.
//!
//! Owns the calls from when they are taken from the queue until they are told their answers. The header of `task_queue`
//! states what always holds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{Queued, TaskCall, TaskQueue};
use crate::backoff::Backoff;
use crate::clock::Stopwatch;
use crate::engine::Engine;
use crate::engine::counters::Wait;
use crate::engine::group_commit::LeadResult;
use crate::engine::write::{MAX_GROUP, Member};
use crate::error::{ErrorKind, Result};
use crate::journal::Transaction;
use crate::machine::Receiver;

/// Does the calls of a queue until no more can come.
pub(super) fn serve(queue: &TaskQueue, rings: &Receiver<()>) {
    let mut server = Server::new(queue);
    // A panic that was not expected, such as one of a recorder of figures, ends no call but those at hand.
    while catch_unwind(AssertUnwindSafe(|| server.serve(rings))).is_err() {}
}

/// The thread, and the calls that it has taken from the queue.
struct Server<'q> {
    queue: &'q TaskQueue,
    /// Calls to look for.
    looking: VecDeque<Queued>,
    /// Calls to decide on.
    deciding: VecDeque<Queued>,
    /// Since when another process is in the way, and the pauses since then.
    busy: Option<(Stopwatch, Wait<'q>)>,
}

impl<'q> Server<'q> {
    fn new(queue: &'q TaskQueue) -> Self {
        Self { queue, looking: VecDeque::new(), deciding: VecDeque::new(), busy: None }
    }

    fn serve(&mut self, rings: &Receiver<()>) {
        loop {
            let is_idle = self.looking.is_empty() && self.deciding.is_empty();
            let most = MAX_GROUP.saturating_sub(self.looking.len());
            let round = self.queue.next_round(most, is_idle);
            for task in round.woken {
                quietly(|| task.notify_one());
            }
            if let Some(end) = round.end {
                return self.queue.end(end);
            }
            self.looking.extend(round.arrived);
            if self.looking.is_empty() && self.deciding.is_empty() {
                self.busy = None;
                if self.queue.has_more_soon() {
                    continue;
                }
                let _ = match round.nap {
                    Some(nap) => rings.recv_timeout(nap).is_ok(),
                    None => rings.recv().is_ok(),
                };
                continue;
            }
            let mut is_busy = self.look();
            is_busy |= matches!(self.decide(), LeadResult::Busy);
            if is_busy {
                self.pause();
            } else {
                self.busy = None;
            }
        }
    }

    /// Lets the other process go on for a moment. Tells the calls that have waited for as long as their handles say, and
    /// drops those that are not wanted any more, which gives their places to others.
    fn pause(&mut self) {
        let counters = &self.queue.engine.counters;
        let begin = || (Stopwatch::start(), counters.wait(Backoff::new(Duration::MAX)));
        let (since, pauses) = self.busy.get_or_insert_with(begin);
        let busy = since.elapsed();
        for calls in [&mut self.looking, &mut self.deciding] {
            let is_kept = |queued: &Queued| queued.call.is_wanted() && !queued.is_over(busy);
            if calls.iter().all(is_kept) {
                continue;
            }
            let (kept, rest): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(calls).into_iter().partition(is_kept);
            *calls = kept;
            for queued in rest {
                if queued.call.is_wanted() {
                    let engine = self.queue.engine.waiting_at_most(queued.timeout);
                    finish(queued.call, Err(engine.busy_error()));
                } else {
                    quietly(|| drop(queued));
                }
            }
        }
        pauses.pause();
    }

    /// Does what needs no write lock. Returns whether another process was in the way.
    fn look(&mut self) -> bool {
        let mut is_busy = false;
        for mut queued in std::mem::take(&mut self.looking) {
            if !queued.call.is_wanted() {
                quietly(|| drop(queued));
                continue;
            }
            match catch_unwind(AssertUnwindSafe(|| queued.call.look())) {
                Ok(Ok(false)) => self.deciding.push_back(queued),
                Ok(Ok(true)) => finish(queued.call, Ok(())),
                Ok(Err(e)) if e.kind() == ErrorKind::Busy => {
                    is_busy = true;
                    self.looking.push_back(queued);
                }
                Ok(Err(e)) => finish(queued.call, Err(e)),
                Err(_) => finish(queued.call, Err(self.queue.engine.abandoned_error())),
            }
        }
        is_busy
    }

    /// Decides on some calls in one transaction.
    fn decide(&mut self) -> LeadResult {
        // A large one is decided alone.
        let small =
            self.deciding.iter().take(MAX_GROUP).take_while(|queued| !queued.call.is_large());
        let count = small.count().max(1).min(self.deciding.len());
        let (group, unwanted): (Vec<_>, Vec<_>) =
            self.deciding.drain(..count).partition(|queued| queued.call.is_wanted());
        quietly(|| drop(unwanted));
        if group.is_empty() {
            return LeadResult::Done;
        }
        let engine = &self.queue.engine;
        let done = Done { engine, calls: RefCell::default() };
        let group = group.into_iter().map(|queued| Deciding { queued: Some(queued), done: &done });
        let mut group: Vec<_> = group.collect();
        let mut given_back = Vec::new();
        let led = catch_unwind(AssertUnwindSafe(|| {
            let mut guard = engine.writer.lock();
            let (writer, jobs) = guard.parts();
            let led = engine.commit_members(
                writer,
                |_| std::mem::take(&mut group),
                |members| given_back = members,
            );
            // Before the mutex is free: this thread would mostly take it again before their callers have woken up.
            engine.commit_waiting_jobs(writer, &jobs);
            led
        }));
        given_back.append(&mut group);
        let is_over = led.is_err();
        for member in given_back.into_iter().rev() {
            match member {
                // A panic before the decision.
                member if is_over => drop(member),
                member => self.deciding.push_front(member.give_back()),
            }
        }
        if !matches!(led, Ok(LeadResult::Busy)) {
            // What was waited for is over, and counted before a caller can ask for the count.
            self.busy = None;
        }
        for (queued, outcome) in done.calls.take() {
            finish(queued.call, outcome);
        }
        led.unwrap_or(LeadResult::Done)
    }
}

/// A call whose decision shares a transaction. It is done when it is answered; one that is dropped without an answer, by
/// a panic, is told so.
struct Deciding<'d> {
    queued: Option<Queued>,
    done: &'d Done<'d>,
}

/// The calls that were answered with the mutex held, to be told when it is free.
struct Done<'e> {
    engine: &'e Engine,
    calls: RefCell<Vec<(Queued, Result<()>)>>,
}

impl Deciding<'_> {
    /// Takes the call back, unanswered.
    fn give_back(mut self) -> Queued {
        self.queued.take().expect("present until it is answered")
    }
}

impl Member for Deciding<'_> {
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> Result<()> {
        self.queued.as_mut().expect("present until it is answered").call.decide(transaction)
    }

    fn answer(mut self, outcome: Result<()>) {
        self.done.calls.borrow_mut().extend(self.queued.take().map(|queued| (queued, outcome)));
    }
}

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        if let Some(queued) = self.queued.take() {
            let abandoned = Err(self.done.engine.abandoned_error());
            self.done.calls.borrow_mut().push((queued, abandoned));
        }
    }
}

fn finish(call: Box<dyn TaskCall>, outcome: Result<()>) {
    quietly(|| call.finish(outcome));
}

/// Runs what may run code of a task: a waker, or the destructor of what it left. The thread goes on after a panic in it.
pub(super) fn quietly(run: impl FnOnce()) {
    // The panic's own message has been printed.
    let _ = catch_unwind(AssertUnwindSafe(run));
}
