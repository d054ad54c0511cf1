//! Writes: runs decisions in transactions.
//!
//! Small decisions that arrive at the same time share one transaction. Each long decision, and each step of
//! background work, has a transaction of its own and leaves other stores a share of the write lock. What
//! always holds: a call that waits for another process holds no lock, except where the log has reached its
//! limit.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::counters::Counters;
use super::group_commit::{JobOutcome, Jobs, LeadResult, TakenJob};
use super::read::{CaughtUp, MAX_CATCH_UPS};
use super::{Engine, Job, Writer};
use crate::backoff::Backoff;
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{ChangedClaims, Transaction};
use crate::machine::Mutex;

/// The most calls that share one transaction: enough to spread its cost, and few enough that the first of
/// them does not wait long for the last.
pub(super) const MAX_GROUP: usize = 256;

/// How long after another store's last commit this store goes on pausing for others. A store that is alone
/// never pauses.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// A small decision that shares a transaction with others.
pub(super) trait Member {
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> Result<()>;

    /// Tells its caller what became of it. Called with the mutex held.
    fn answer(self, outcome: Result<()>);
}

impl Member for TakenJob<Job, Result<()>> {
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> Result<()> {
        self.job()(transaction)
    }

    fn answer(self, outcome: Result<()>) {
        TakenJob::answer(self, outcome);
    }
}

impl Writer {
    /// Returns true when other stores have written to the file a short time ago.
    pub(super) fn shares_file(&self) -> bool {
        self.journal.since_other_commit().is_some_and(|since| since < SHARED_FOR)
    }
}

impl Engine {
    /// Like [`write`](Self::write) for one small decision. Callers that come at the same time share one
    /// transaction. `owned` makes a copy of the decision that can be left in the queue; it is not called when
    /// no other caller is there.
    pub(crate) fn write_one<T: Send + 'static, D>(
        &self,
        mut decide: impl FnMut(&mut Transaction<'_>) -> Result<T>,
        owned: impl FnOnce() -> D,
    ) -> Result<T>
    where
        D: FnMut(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    {
        self.check_open()?;
        self.check_process()?;
        if let Some(mut writer) = self.writer.try_lock_idle() {
            let writer = writer.as_mut().ok_or_else(|| self.closed_error())?;
            match self.try_write_small(writer, &mut decide) {
                Ok(answer) => {
                    self.counters.add_group(1);
                    self.maintenance_step(writer);
                    return Ok(answer);
                }
                Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
                Err(_) => {}
            }
        }
        let answer = Arc::new(Mutex::new(None));
        let (answered, mut decide) = (Arc::clone(&answer), owned());
        let job: Job = Box::new(move |transaction| {
            *answered.lock() = Some(decide(transaction)?);
            Ok(())
        });
        let mut backoff = self.counters.wait(Backoff::new(self.busy_timeout));
        let outcome = self.writer.submit(
            job,
            |writer, jobs| self.commit_group(writer, jobs),
            || backoff.pause(),
        );
        match outcome {
            JobOutcome::Answered(committed) => {
                committed?;
                Ok(answer.lock().take().expect("a job that ran has answered"))
            }
            JobOutcome::Withdrawn => Err(self.busy_error()),
            JobOutcome::Abandoned => Err(self.abandoned_error()),
        }
    }

    /// Runs the waiting jobs as one transaction: see [`commit_members`](Self::commit_members).
    pub(super) fn commit_group(
        &self,
        writer: &mut Option<Writer>,
        jobs: &Jobs<'_, Job, Result<()>>,
    ) -> LeadResult {
        let give_back = |taken: Vec<_>| jobs.give_back(taken.into_iter());
        self.commit_members(writer, |most| jobs.take(most), give_back)
    }

    /// Runs decisions as one transaction. When the commit fails, all of them fail. When one of the decisions fails,
    /// each runs again in a transaction of its own, so that only that one fails.
    pub(super) fn commit_members<M: Member>(
        &self,
        writer: &mut Option<Writer>,
        mut take: impl FnMut(usize) -> Vec<M>,
        give_back: impl FnOnce(Vec<M>),
    ) -> LeadResult {
        let Some(writer) = writer else {
            for member in take(usize::MAX) {
                member.answer(Err(self.closed_error()));
            }
            return LeadResult::Done;
        };
        let (mut group, mut refused) = (Vec::new(), false);
        let committed = self.try_write_small(writer, &mut |transaction| {
            // Take the members only now that the write lock is held: all callers that came until now join the
            // group.
            group = take(MAX_GROUP);
            let decided = group.iter_mut().try_for_each(|member| member.decide(transaction));
            refused = decided.is_err();
            decided
        });
        if refused && group.len() > 1 {
            return self.commit_one_by_one(writer, group, give_back);
        }
        match &committed {
            Err(e) if group.is_empty() && e.kind() == ErrorKind::Busy => return LeadResult::Busy,
            // A decision has to be made again, from what the file has now.
            Err(e) if e.kind() == ErrorKind::Busy => {
                give_back(group);
                return LeadResult::Busy;
            }
            // The transaction failed before it had the write lock: its error answers the waiting calls.
            Err(_) if group.is_empty() => group = take(MAX_GROUP),
            _ => {}
        }
        if committed.is_ok() && !group.is_empty() {
            self.counters.add_group(group.len());
        }
        for member in group {
            member.answer(committed.clone());
        }
        if committed.is_ok() {
            self.maintenance_step(writer);
        }
        LeadResult::Done
    }

    /// Commits the small writes that wait in the queue, before background work releases the mutex: otherwise
    /// it would mostly take the mutex again before their callers have woken up.
    pub(super) fn commit_waiting_jobs(
        &self,
        writer: &mut Option<Writer>,
        jobs: &Jobs<'_, Job, Result<()>>,
    ) {
        if !jobs.is_empty() {
            self.commit_group(writer, jobs);
        }
    }

    pub(super) fn commit_one_by_one<M: Member>(
        &self,
        writer: &mut Writer,
        group: Vec<M>,
        give_back: impl FnOnce(Vec<M>),
    ) -> LeadResult {
        let mut left = group.into_iter();
        while let Some(mut member) = left.next() {
            match self.try_write(writer, &mut |transaction| member.decide(transaction)) {
                Ok(()) => {
                    self.counters.add_group(1);
                    member.answer(Ok(()));
                }
                Err(e) if e.kind() != ErrorKind::Busy => member.answer(Err(e)),
                Err(_) => {
                    // Another process has the write lock now: these wait again.
                    give_back(std::iter::once(member).chain(left).collect());
                    return LeadResult::Busy;
                }
            }
        }
        self.maintenance_step(writer);
        LeadResult::Done
    }

    /// Runs `decide` in one write transaction, commits it and returns the answer. When this returns an error,
    /// nothing was written.
    pub(crate) fn write<T>(
        &self,
        mut decide: impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_open()?;
        let written = self.write_long(&mut decide, |writer| self.maintenance_step(writer));
        written.inspect_err(|e| self.counters.add_error(e))
    }

    /// Runs one step of background work: like [`write`](Self::write), and lets waiting callers go first.
    pub(crate) fn write_step<T>(
        &self,
        mut decide: impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let written = self.write_long(&mut decide, |_| {});
        let answer = written.inspect_err(|e| self.counters.add_error(e))?;
        self.yield_to_waiters();
        Ok(answer)
    }

    /// Runs one transaction that may be long: a batch, or a step of background work. It first pauses for
    /// other stores if the previous one requires that, and at its end it commits the small writes that wait.
    pub(super) fn write_long<T>(
        &self,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
        and_then: impl Fn(&mut Writer),
    ) -> Result<T> {
        self.check_process()?;
        let mut backoff = self.counters.wait(Backoff::for_long_work(self.busy_timeout));
        loop {
            let mut share = self.share.lock();
            share.pause();
            let mut guard = self.writer.lock();
            let (writer, jobs) = guard.parts();
            let open = writer.as_mut().ok_or_else(|| self.closed_error())?;
            let held = Stopwatch::start();
            let written = self.try_write(open, decide);
            match written {
                Ok(answer) => {
                    and_then(open);
                    self.commit_waiting_jobs(writer, &jobs);
                    if writer.as_ref().is_some_and(Writer::shares_file) {
                        share.record_use(held.elapsed());
                    }
                    return Ok(answer);
                }
                Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
                Err(_) => {}
            }
            drop(guard);
            drop(share);
            if !backoff.pause() {
                return Err(self.busy_error());
            }
        }
    }

    /// Lets waiting callers go first. Called between the steps of background work, whether it writes or only
    /// reads.
    ///
    /// Commits the small writes in the queue, and then gives the mutex to a thread that waits for it: a loop
    /// that takes the mutex again at once would never let another thread have it. Also waits while the log is
    /// long, so that the log does not grow faster than it is copied: the other callers would have to wait for
    /// that.
    pub(crate) fn yield_to_waiters(&self) {
        let mut guard = self.writer.lock();
        let (writer, jobs) = guard.parts();
        self.commit_waiting_jobs(writer, &jobs);
        guard.unlock_fair();
        self.checkpointer.wait_while_log_is_long();
    }

    /// Like [`try_write`](Self::try_write), with pauses for other stores while they use the file too.
    pub(super) fn try_write_small<T>(
        &self,
        writer: &mut Writer,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        if !writer.shares_file() {
            return self.try_write(writer, decide);
        }
        writer.share.pause();
        let held = Stopwatch::start();
        let written = self.try_write(writer, decide);
        if written.is_ok() {
            writer.share.record_use(held.elapsed());
        }
        written
    }

    /// Runs one write transaction. Fails with `Busy` when another process holds the write lock.
    pub(crate) fn try_write<T>(
        &self,
        writer: &mut Writer,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut catch_ups = 0;
        let (newest, mut transaction) = loop {
            catch_ups += 1;
            let number = self.catch_ups_begun.fetch_add(1, SeqCst) + 1;
            writer.journal.begin(&self.index, self.clock.now_ms())?;
            let caught_up = CaughtUp::by(&mut writer.journal, number);
            let newest = writer.journal.newest_seq();
            // From here on a panic, also one in the caller's clock, rolls back.
            let transaction = writer.journal.transaction(&self.index);
            self.apply_catch_up(&caught_up, &mut writer.rebuilds);
            if catch_ups == MAX_CATCH_UPS || !self.is_behind_index() {
                break (newest, transaction);
            }
        };
        transaction.now_ms = self.clock.now_ms();
        let timer = Counters::commit_timer();
        let (mut changed_file, mut changed_claims) = (false, ChangedClaims::default());
        let done = match decide(&mut transaction) {
            Ok(answer) => {
                changed_file = transaction.has_changes();
                changed_claims = std::mem::take(&mut transaction.changed_claims);
                transaction.commit().map(|()| answer)
            }
            Err(e) => {
                drop(transaction);
                Err(e)
            }
        };
        let answer = done.inspect_err(|_| {
            // The row numbers of this transaction will be given to other rows.
            self.index.at_max_age.forget_after(newest);
        })?;
        if changed_file {
            self.counters.add_commit(timer);
        }
        self.waiters.wake(&changed_claims);
        self.checkpointer.after_commit(&mut writer.journal);
        Ok(answer)
    }

    /// Runs `step` with the journal until it returns anything but `Busy`, which means that another process is
    /// in the way. Between two tries the mutex is released and the call pauses.
    pub(crate) fn with_journal<T>(&self, step: impl FnMut(&mut Writer) -> Result<T>) -> Result<T> {
        let done = self.with_journal_within(self.busy_timeout, step);
        done.inspect_err(|e| self.count_error(e))
    }

    pub(super) fn with_journal_within<T>(
        &self,
        timeout: Duration,
        mut step: impl FnMut(&mut Writer) -> Result<T>,
    ) -> Result<T> {
        self.check_process()?;
        let mut backoff = self.counters.wait(Backoff::new(timeout));
        loop {
            let mut guard = self.writer.lock();
            let writer = guard.as_mut().ok_or_else(|| self.closed_error())?;
            match step(writer) {
                Ok(answer) => return Ok(answer),
                Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
                Err(_) => {}
            }
            drop(guard);
            if !backoff.pause() {
                return Err(self.busy_error());
            }
        }
    }

    pub(crate) fn abandoned_error(&self) -> Error {
        Error::new(
            ErrorKind::Io,
            format!(
                "{}: a thread panicked while it committed for this call, whose ids may be marked or not; ask for them \
                 again",
                self.name
            ),
        )
    }

    pub(super) fn busy_error(&self) -> Error {
        Error::new(
            ErrorKind::Busy,
            format!(
                "{}: another process has held the file for {:?}; try again",
                self.name, self.busy_timeout
            ),
        )
    }
}
