//! Writes: how a decision comes to its transaction.
//!
//! Small ones that come at the same time share one; long ones, and the steps of longer work, have one each
//! and leave the others a share of the write lock. What always holds: a call that waits for another process
//! holds no lock, except where the log has come to its limit.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::group_commit::{Jobs, Led, Outcome, Taken};
use super::read::{CATCH_UPS_AT_MOST, CaughtUp};
use super::{Engine, Job, Writer};
use crate::backoff::Backoff;
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Transaction;
use crate::machine::Mutex;

/// The most calls that share one transaction: enough to spread its cost thin, and few enough that the
/// first of them does not wait long for the last.
const GROUP: usize = 256;

/// For how long a store leaves a share of the write lock to others after one of them has committed. A store
/// that is alone pays nothing.
const ALONE_AFTER: Duration = Duration::from_secs(1);

impl Writer {
    /// Whether other stores write to the file at the moment.
    fn has_company(&self) -> bool {
        self.journal.since_other_commit().is_some_and(|since| since < ALONE_AFTER)
    }
}

impl Engine {
    /// Like [`write`](Self::write) for one small decision. Callers that come at the same time share one
    /// transaction; `owned` makes the decision fit to be left in the queue, and a lone caller never
    /// calls it.
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
                    self.tidy_when_due(writer);
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
        let mut backoff = Backoff::new(self.config.busy_timeout);
        let outcome =
            self.writer.submit(job, |writer, jobs| self.lead(writer, jobs), || backoff.pause());
        match outcome {
            Outcome::Answered(committed) => {
                committed?;
                Ok(answer.lock().take().expect("a job that ran has answered"))
            }
            Outcome::Withdrawn => Err(self.busy_error()),
            Outcome::Abandoned => Err(Error::new(
                ErrorKind::Io,
                format!("{}: a thread panicked while it committed for this call", self.name),
            )),
        }
    }

    /// Runs the waiting jobs as one transaction. A commit that fails fails all of them. When one of the
    /// decisions fails, all are run again, each in a transaction of its own: only that one is to fail.
    pub(super) fn lead(
        &self,
        writer: &mut Option<Writer>,
        jobs: &Jobs<'_, Job, Result<()>>,
    ) -> Led {
        let Some(writer) = writer else {
            for job in jobs.take(usize::MAX) {
                job.answer(Err(self.closed_error()));
            }
            return Led::Done;
        };
        let (mut group, mut refused) = (Vec::new(), false);
        let committed = self.try_write_small(writer, &mut |transaction| {
            // Only once the write lock is held: who comes until then is of the group.
            group = jobs.take(GROUP);
            let decided = group.iter_mut().try_for_each(|taken| taken.job()(transaction));
            refused = decided.is_err();
            decided
        });
        if refused && group.len() > 1 {
            return self.lead_one_by_one(writer, group, jobs);
        }
        match &committed {
            Err(e) if group.is_empty() && e.kind() == ErrorKind::Busy => return Led::Busy,
            // The write lock could not even be asked for.
            Err(_) if group.is_empty() => group = jobs.take(GROUP),
            _ => {}
        }
        for taken in group {
            taken.answer(committed.clone());
        }
        if committed.is_ok() {
            self.tidy_when_due(writer);
        }
        Led::Done
    }

    /// Does the small writes that wait in the queue, before a longer work lets go of the mutex: it would mostly
    /// have it again before their callers have woken up.
    pub(super) fn lead_waiting(
        &self,
        writer: &mut Option<Writer>,
        jobs: &Jobs<'_, Job, Result<()>>,
    ) {
        if !jobs.is_empty() {
            self.lead(writer, jobs);
        }
    }

    pub(super) fn lead_one_by_one(
        &self,
        writer: &mut Writer,
        group: Vec<Taken<Job, Result<()>>>,
        jobs: &Jobs<'_, Job, Result<()>>,
    ) -> Led {
        let mut left = group.into_iter();
        while let Some(mut taken) = left.next() {
            match self.try_write(writer, taken.job()) {
                Ok(()) => taken.answer(Ok(())),
                Err(e) if e.kind() != ErrorKind::Busy => taken.answer(Err(e)),
                Err(_) => {
                    // Another process has the write lock now.
                    jobs.give_back(std::iter::once(taken).chain(left));
                    return Led::Busy;
                }
            }
        }
        self.tidy_when_due(writer);
        Led::Done
    }

    /// Runs `decide` in one write transaction and commits it. What `decide` answers holds once this
    /// returns Ok, and never did otherwise.
    pub(crate) fn write<T>(
        &self,
        mut decide: impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_open()?;
        self.write_long(&mut decide, |writer| self.tidy_when_due(writer))
    }

    /// One step of a longer work: like [`write`](Self::write), and lets whoever waits go first.
    pub(crate) fn write_step<T>(
        &self,
        mut decide: impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let answer = self.write_long(&mut decide, |_| {})?;
        self.yield_to_waiters();
        Ok(answer)
    }

    /// One transaction that may be long: a batch, or a step of a longer work. It begins when the last one
    /// has left the write lock alone for a while. At its end it does the small writes that wait.
    pub(super) fn write_long<T>(
        &self,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
        and_then: impl Fn(&mut Writer),
    ) -> Result<T> {
        self.check_process()?;
        let mut backoff = Backoff::for_long_work(self.config.busy_timeout);
        loop {
            let mut share = self.share.lock();
            share.rest();
            let mut guard = self.writer.lock();
            let (writer, jobs) = guard.parts();
            let open = writer.as_mut().ok_or_else(|| self.closed_error())?;
            let held = Stopwatch::start();
            let written = self.try_write(open, decide);
            match written {
                Ok(answer) => {
                    and_then(open);
                    self.lead_waiting(writer, &jobs);
                    if writer.as_ref().is_some_and(Writer::has_company) {
                        share.used(held.elapsed());
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

    /// Comes between the steps of a longer work, whether it writes or only reads. Does the small writes that
    /// wait in the queue, and hands the mutex to a thread that waits for it: a loop that takes it again at
    /// once would keep it to itself. Nor is the log to grow faster than it can be copied, which the others
    /// would have to wait for.
    pub(crate) fn yield_to_waiters(&self) {
        let mut turn = self.writer.lock();
        let (writer, jobs) = turn.parts();
        self.lead_waiting(writer, &jobs);
        turn.end_fair();
        self.checkpoints.wait_while_pressing();
    }

    /// The same as [`try_write`](Self::try_write), of a store that shares the file with others at the
    /// moment: they get their share of the write lock.
    pub(super) fn try_write_small<T>(
        &self,
        writer: &mut Writer,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        if !writer.has_company() {
            return self.try_write(writer, decide);
        }
        writer.share.rest();
        let held = Stopwatch::start();
        let written = self.try_write(writer, decide);
        if written.is_ok() {
            writer.share.used(held.elapsed());
        }
        written
    }

    /// `Busy` when another process holds the write lock.
    pub(crate) fn try_write<T>(
        &self,
        writer: &mut Writer,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut looks = 0;
        let (newest, mut transaction) = loop {
            looks += 1;
            let number = self.catch_ups_begun.fetch_add(1, SeqCst) + 1;
            writer.journal.begin(&self.index, self.clock.now_ms())?;
            let seen = CaughtUp::by(&mut writer.journal, number);
            let newest = writer.journal.newest_seq();
            // From here on a panic, of the caller's clock too, rolls back.
            let transaction = writer.journal.transaction(&self.index);
            self.caught_up(&seen, &mut writer.rebuilds);
            if looks == CATCH_UPS_AT_MOST || !self.is_behind_index() {
                break (newest, transaction);
            }
        };
        transaction.now_ms = self.clock.now_ms();
        let done = match decide(&mut transaction) {
            Ok(answer) => transaction.commit().map(|()| answer),
            Err(e) => {
                drop(transaction);
                Err(e)
            }
        };
        let answer = done.inspect_err(|_| {
            // The numbers of its rows will be given again.
            self.index.duplicates.forget_after(newest);
            self.index.at_max_age.forget_after(newest);
        })?;
        self.checkpoints.committed(&mut writer.journal);
        Ok(answer)
    }

    /// Runs `step` with the journal until it has an answer. `Busy` means that another process is in the way:
    /// the mutex is released and the call sleeps a little.
    pub(crate) fn with_journal<T>(&self, step: impl FnMut(&mut Writer) -> Result<T>) -> Result<T> {
        self.with_journal_within(self.config.busy_timeout, step)
    }

    pub(super) fn with_journal_within<T>(
        &self,
        timeout: Duration,
        mut step: impl FnMut(&mut Writer) -> Result<T>,
    ) -> Result<T> {
        self.check_process()?;
        let mut backoff = Backoff::new(timeout);
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

    pub(super) fn busy_error(&self) -> Error {
        Error::new(
            ErrorKind::Busy,
            format!(
                "{}: another process has held it for {:?}; try again",
                self.name, self.config.busy_timeout
            ),
        )
    }
}
