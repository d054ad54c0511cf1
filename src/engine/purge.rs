//! Purges in small steps, on request, beside commits, and in the optional purge thread.
//!
//! Owns when a purge is due, how far the running one has come, and the thread. What always holds: a failure
//! of a purge that no caller asked for is logged and not returned; the mutex is held for one small step at a
//! time. The processes on one file share the work by `last_purge_at` in its `meta`, which each step that
//! deletes something updates. A purge that finds nothing writes nothing.

use std::time::Duration;

use crate::clock::{Stopwatch, duration_ms};
use crate::config::Config;
use crate::engine::counters::Event;
use crate::engine::{Engine, WeakEngine, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::claims::ClaimPosition;
use crate::journal::selection::Selection;
use crate::journal::{ExpiredSearch, Step, Transaction};
use crate::machine::{self, Receiver, RecvTimeoutError, SyncSender, step_size, sync_channel};

/// How many rows one step of a requested purge goes through: about a millisecond.
const ROWS_PER_STEP: i64 = step_size!(1_000, in_a_simulation: 5);
/// How many steps a purge at opening does: some 10 ms.
const STEPS_AT_OPEN: usize = 8;
/// How many rows are counted while the mutex is held.
const ROWS_COUNTED_PER_STEP: i64 = step_size!(2_000, in_a_simulation: 5);
/// How many rows one step beside a commit goes through.
const ROWS_PER_COMMIT: i64 = step_size!(128, in_a_simulation: 3);
/// How many slots of the index one step beside a commit sweeps, at least.
const SLOTS_PER_COMMIT: usize = step_size!(2_048, in_a_simulation: 3);
/// How many duplicate counts are written at the end of a pass.
const COUNTS_PER_PASS: usize = step_size!(128, in_a_simulation: 2);

/// The longest pause of the purge thread after a step.
const MAX_REST: Duration = Duration::from_millis(5);

/// When the next pass is due, and how far the running pass has come.
pub(crate) struct PurgeSchedule {
    interval_ms: Option<i64>,
    due_ms: i64,
    pass: Option<Pass>,
    sweep: Sweep,
}

/// The sweep of the index by a store that only reads. A purge pass sweeps the index too.
struct Sweep {
    interval_ms: Option<i64>,
    due_ms: i64,
    /// The shard at which a running sweep continues.
    next_shard: Option<usize>,
}

/// A pass over the rows and claims of the file (unless another process does that) and the slots of the index.
#[derive(Clone)]
struct Pass {
    rows_after: Option<i64>,
    claims_after: Option<ClaimPosition>,
    next_shard: usize,
}

impl PurgeSchedule {
    pub(crate) fn new(config: &Config, now_ms: i64) -> Self {
        let every_ms = config.purge_interval.map(duration_ms);
        let due_ms = now_ms.saturating_add(every_ms.unwrap_or(0));
        let interval_ms = every_ms.filter(|_| !config.read_only);
        let sweep = Sweep { interval_ms: every_ms, due_ms, next_shard: None };
        Self { interval_ms, due_ms, pass: None, sweep }
    }

    /// Schedules the next pass after a purge has removed everything.
    fn purged(&mut self, now_ms: i64) {
        self.due_ms = now_ms.saturating_add(self.interval_ms.unwrap_or(0));
        self.pass = None;
    }

    fn is_due(&mut self, now_ms: i64) -> bool {
        let Some(interval_ms) = self.interval_ms else { return false };
        // A clock that was set back far must not delay the next pass by as much.
        self.due_ms = self.due_ms.min(now_ms.saturating_add(interval_ms));
        self.pass.is_some() || now_ms >= self.due_ms
    }
}

impl Engine {
    /// Sweeps a part of the index if that is due. Called after a catch-up.
    pub(crate) fn sweep_when_due(&self, writer: &mut Writer) {
        let (now_ms, sweep) = (self.clock.now_ms(), &mut writer.purges.sweep);
        let Some(interval_ms) = sweep.interval_ms else { return };
        sweep.due_ms = sweep.due_ms.min(now_ms.saturating_add(interval_ms));
        let is_due = now_ms >= sweep.due_ms;
        let Some(from) = sweep.next_shard.or(is_due.then_some(0)) else { return };
        let next = self.sweep_shards(from, now_ms);
        sweep.next_shard = (next < self.index.shard_count()).then_some(next);
        if sweep.next_shard.is_none() {
            sweep.due_ms = now_ms.saturating_add(interval_ms);
        }
    }

    /// Sweeps some shards from this one on and returns the next shard. The caller holds the mutex.
    fn sweep_shards(&self, from: usize, now_ms: i64) -> usize {
        let (mut next, mut swept) = (from, 0);
        while next < self.index.shard_count() && swept < SLOTS_PER_COMMIT {
            swept += self.index.sweep_shard(next, now_ms);
            next += 1;
        }
        next
    }

    /// Removes everything that has expired and returns the number of marks removed.
    pub(crate) fn purge_expired(&self) -> Result<u64> {
        self.purge(&mut || {})
    }

    /// Like [`purge_expired`](Self::purge_expired), and calls `pause` after each step.
    fn purge(&self, pause: &mut dyn FnMut()) -> Result<u64> {
        self.check_open()?;
        let mut deleted = 0;
        let mut after = Some(0);
        while let Some(from) = after {
            let found = self.with_journal(|writer| {
                writer.journal.find_expired(from, ROWS_PER_STEP, self.clock.now_ms())
            })?;
            after = match found {
                ExpiredSearch::Nothing { next } => {
                    self.yield_to_waiters();
                    next
                }
                ExpiredSearch::Expired => {
                    let step =
                        self.write_step(|transaction| transaction.purge_step(from, ROWS_PER_STEP))?;
                    self.counters.add(Event::Purged, step.count);
                    deleted += step.count;
                    step.next
                }
            };
            pause();
        }
        let claims = self.delete_in_steps(ClaimPosition::default(), |transaction, after| {
            transaction.purge_claims(after, ROWS_PER_STEP)
        })?;
        self.counters.add(Event::Purged, claims);
        self.sweep()?;
        self.flush_duplicates(pause)?;
        self.with_journal(|writer| {
            writer.purges.purged(self.clock.now_ms());
            Ok(())
        })?;
        Ok(deleted)
    }

    /// Removes expired marks from the oldest on, until a step finds none, for at most [`STEPS_AT_OPEN`] steps. What
    /// is left is removed beside commits.
    pub(crate) fn purge_oldest(&self) -> Result<()> {
        let mut after = 0;
        for _ in 0..STEPS_AT_OPEN {
            let found = self.with_journal(|writer| {
                writer.journal.find_expired(after, ROWS_PER_STEP, self.clock.now_ms())
            })?;
            if !matches!(found, ExpiredSearch::Expired) {
                return Ok(());
            }
            let step =
                self.write_step(|transaction| transaction.purge_step(after, ROWS_PER_STEP))?;
            self.counters.add(Event::Purged, step.count);
            let Some(next) = step.next else { return Ok(()) };
            after = next;
        }
        self.with_journal(|writer| {
            writer.purges.due_ms = self.clock.now_ms();
            Ok(())
        })
    }

    /// Removes the selected claims and marks and returns the number of both.
    pub(crate) fn remove(&self, selection: &Selection) -> Result<u64> {
        self.check_open()?;
        // What was turned away since is seen since.
        self.flush_duplicates(&mut || {})?;
        // Claims first: a claim that is confirmed between the two leaves a mark, which is removed then.
        let claims = self.delete_in_steps(selection.first_claim(), |transaction, after| {
            transaction.remove_claims(selection, after, ROWS_PER_STEP)
        })?;
        let marks = self.delete_in_steps(0, |transaction, after| {
            transaction.remove_marks(selection, *after, ROWS_PER_STEP)
        })?;
        // Frees the memory of the removed marks.
        self.sweep()?;
        Ok(claims + marks)
    }

    /// Counts what [`remove`](Self::remove) would remove.
    pub(crate) fn count(&self, selection: &Selection) -> Result<u64> {
        let claims = self.count_in_steps(selection.first_claim(), |writer, after| {
            let now_ms = self.clock.now_ms();
            writer.journal.count_selected_claims(selection, after, ROWS_COUNTED_PER_STEP, now_ms)
        })?;
        let marks = self.count_in_steps(0, |writer, after| {
            let now_ms = self.clock.now_ms();
            writer.journal.count_selected_marks(selection, *after, ROWS_COUNTED_PER_STEP, now_ms)
        })?;
        Ok(claims + marks)
    }

    /// Returns the number of marks that [`purge_expired`](Self::purge_expired) would remove.
    pub(crate) fn count_expired(&self) -> Result<u64> {
        self.count_in_steps(0, |writer, after| {
            writer.journal.count_expired(*after, ROWS_COUNTED_PER_STEP, self.clock.now_ms())
        })
    }

    /// Sums up counts of rows in steps.
    fn count_in_steps<P>(
        &self,
        first: P,
        mut step: impl FnMut(&mut Writer, &P) -> Result<Step<P>>,
    ) -> Result<u64> {
        self.check_open()?;
        let (mut count, mut next) = (0, Some(first));
        while let Some(after) = next {
            let done = self.with_journal(|writer| {
                // Catch up first: another store may know of a later time, which a purge would use.
                self.catch_up(writer)?;
                step(writer, &after)
            })?;
            count += done.count;
            next = done.next;
            self.yield_to_waiters();
        }
        Ok(count)
    }

    /// Deletes rows in steps, each in a transaction of its own, and returns their number.
    fn delete_in_steps<P>(
        &self,
        first: P,
        step: impl Fn(&mut Transaction<'_>, &P) -> Result<Step<P>>,
    ) -> Result<u64> {
        let (mut deleted, mut next) = (0, Some(first));
        while let Some(after) = next {
            let done = self.write_step(|transaction| step(transaction, &after))?;
            deleted += done.count;
            next = done.next;
        }
        Ok(deleted)
    }

    /// Sweeps the whole index.
    fn sweep(&self) -> Result<()> {
        let now_ms = self.with_journal(|_| {
            let now_ms = self.clock.now_ms();
            self.index.record_use(now_ms);
            Ok(now_ms)
        })?;
        self.index.sweep(now_ms);
        Ok(())
    }

    /// Does one small step of the background work that is due. Called after a commit; a failure is only
    /// logged.
    pub(crate) fn maintenance_step(&self, writer: &mut Writer) {
        self.drop_some_stale_slots(writer);
        self.wake_upkeep(writer);
        if writer.purges.is_due(self.clock.now_ms())
            && let Err(e) = self.purge_step(writer)
            && e.kind() != ErrorKind::Busy
        {
            log::warn!(
                file = self.name.as_str(), error:% = e, error_kind = e.kind().word();
                "{}: the purge is put off: {e}", self.name
            );
            writer.purges.purged(self.clock.now_ms());
        }
    }

    /// Does one step of the purge pass. Fails with `Busy` when another process writes; the same step is then
    /// tried again later.
    fn purge_step(&self, writer: &mut Writer) -> Result<()> {
        let mut pass = match writer.purges.pass.take() {
            Some(pass) => pass,
            None => self.begin_pass(writer)?,
        };
        let step = self.step(&mut pass, writer);
        if matches!(step, Ok(true)) {
            writer.purges.purged(self.clock.now_ms());
            return self.write_duplicates(writer, COUNTS_PER_PASS).map(drop);
        }
        writer.purges.pass = Some(pass);
        step.map(drop)
    }

    /// One small step of a pass. Returns true at its end.
    fn step(&self, pass: &mut Pass, writer: &mut Writer) -> Result<bool> {
        let now_ms = self.clock.now_ms();
        if let Some(from) = pass.rows_after {
            pass.rows_after = match writer.journal.find_expired(from, ROWS_PER_COMMIT, now_ms)? {
                ExpiredSearch::Nothing { next } => next,
                ExpiredSearch::Expired => {
                    let mut delete = |transaction: &mut Transaction<'_>| {
                        transaction.purge_step(from, ROWS_PER_COMMIT)
                    };
                    let step = self.try_write(writer, &mut delete)?;
                    self.counters.add(Event::Purged, step.count);
                    step.next
                }
            };
        }
        if let Some(after) = &pass.claims_after {
            let mut delete = |transaction: &mut Transaction<'_>| {
                transaction.purge_claims(after, ROWS_PER_COMMIT)
            };
            let step = self.try_write(writer, &mut delete)?;
            self.counters.add(Event::Purged, step.count);
            pass.claims_after = step.next;
        }
        pass.next_shard = self.sweep_shards(pass.next_shard, now_ms);
        Ok(pass.rows_after.is_none()
            && pass.claims_after.is_none()
            && pass.next_shard >= self.index.shard_count())
    }

    /// Starts a pass over the file and the index, or over the index alone when another process has purged the
    /// file within the interval.
    fn begin_pass(&self, writer: &mut Writer) -> Result<Pass> {
        let now_ms = self.clock.now_ms();
        let interval_ms = writer.purges.interval_ms.unwrap_or(i64::MAX);
        let last_ms = writer.journal.last_purge_ms()?;
        // A time in the future was written before the clock was set back.
        let is_done = last_ms <= now_ms && last_ms > now_ms.saturating_sub(interval_ms);
        Ok(Pass {
            rows_after: (!is_done).then_some(0),
            claims_after: (!is_done).then(ClaimPosition::default),
            next_shard: 0,
        })
    }
}

/// The thread that purges at intervals, also without any commits. Dropping this stops it.
pub(crate) struct PurgeThread {
    _stop: SyncSender<()>,
}

impl PurgeThread {
    /// Starts the thread. It holds no handle of the store, so that dropping the last handle closes the store,
    /// also during a purge.
    pub(crate) fn start(engine: &Engine, interval: Duration) -> Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let weak = engine.downgrade();
        machine::spawn("seen-purge", move || purge_every(&weak, interval, &stopped))
            .map_err(|e| Error::io("cannot start the purge thread", e))?;
        Ok(Self { _stop: stop })
    }
}

fn purge_every(engine: &WeakEngine, interval: Duration, stopped: &Receiver<()>) {
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let Some(engine) = engine.upgrade() else { return };
        // Pause after each step for as long as the step took, to leave the processors to callers.
        let mut step = Stopwatch::start();
        let mut rest = || {
            machine::sleep(step.elapsed().min(MAX_REST));
            step = Stopwatch::start();
        };
        match engine.purge(&mut rest) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Closed => return,
            Err(e) => log::warn!(
                file = engine.name.as_str(), error:% = e, error_kind = e.kind().word();
                "{}: the purge is put off: {e}", engine.name
            ),
        }
    }
}
