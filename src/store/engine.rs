//! Wires the index and the journal together: one engine for each open store, shared by its handles.
//!
//! Owns the mutex around the journal, the index beside it, and when to look. What always holds: a hit
//! is answered without the mutex, except for one look every 100 ms; a miss is answered only after a
//! look that began after the call did; a call that waits for another process holds no lock, except where
//! the log has come to its limit. Lock order: the turn of long transactions, the journal's mutex, then a
//! shard of the index or of the counts. A forked child takes none of them but those that it finds free and
//! that no thread is ever woken through: before it takes the mutex, or waits for anything, a call checks
//! that it is made in the process that opened the store. Knows nothing of SQL.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use crate::answer::Entry;
use crate::clock::{Reached, SteadyClock, Stopwatch};
use crate::combine::{Combiner, Jobs, Led, Outcome, Taken};
use crate::config::{Config, Synchronous};
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::id::{Key, KeyHasher};
use crate::index::{Index, Slot, stored};
use crate::journal::{Begun, Journal, Lookup, StoredRow, Transaction};
use crate::machine::Mutex;
use crate::maintenance::{Checkpoints, PurgeSchedule, PurgeThread};
use crate::patience::{Patience, Share};
use crate::process::{Process, Registration};
use crate::suppressed::{self, Capped, Suppressed};
use crate::token::Tokens;

/// How old a look may be for a hit to be answered without another.
const LOOK_EVERY_MS: u64 = 100;

/// The most calls that share one transaction: enough to spread its cost thin, and few enough that the
/// first of them does not wait long for the last.
const GROUP: usize = 256;

/// How often a caller that waits for a commit without an fsync gives the processor away before it parks:
/// the commit is mostly done by then.
const YIELDS: u32 = 64;

/// A look that takes this store's time back is made once more at the earlier time. A clock that falls at each
/// reading cannot make it go on for ever.
const LOOKS_AT_MOST: u32 = 2;

/// How many rows that are in doubt are looked for beside a lookup or a commit: some 50 µs.
const DOUBTS_A_LOOKUP: usize = 64;
/// The same for a step of a work of its own: about a millisecond.
const DOUBTS_A_STEP: usize = 1_000;
/// For how long a store leaves a share of the write lock to others after one of them has committed. A store
/// that is alone pays nothing.
const ALONE_AFTER: Duration = Duration::from_secs(1);

/// How many counts of duplicates are written down in one transaction: each is a page of its own.
const FLUSHED_AT_ONCE: usize = 100;

/// For how long a store that closes waits for another connection, to write down the counts of duplicates: as
/// long as one that keeps the log short may hold the write lock, which includes the store's own.
const LONGEST_FLUSH: Duration = Duration::from_millis(250);

/// The part of the store that is behind the mutex.
pub(crate) struct Writer {
    pub(crate) journal: Journal,
    /// What the small transactions of this store leave to other stores, while there are others.
    share: Share,
    pub(crate) purges: PurgeSchedule,
    /// How many rebuilds of the index are accounted for.
    rebuilds: u64,
    /// The store's place among what this process has open, kept until all of it is closed.
    _registration: Registration,
}

/// What a look brings besides rows.
struct LookedAt {
    number: u64,
    reached: Option<Reached>,
    rebuilds: u64,
}

impl LookedAt {
    fn by(journal: &mut Journal, number: u64) -> Self {
        let reached = journal.take_reached();
        Self { number, reached, rebuilds: journal.rebuilds() }
    }
}

impl Writer {
    /// Whether other stores write to the file at the moment.
    fn has_company(&self) -> bool {
        self.journal.since_others().is_some_and(|since| since < ALONE_AFTER)
    }
}

/// A write that waits for a leader. It owns all that it needs.
pub(crate) type Job = Box<dyn FnMut(&mut Transaction<'_>) -> Result<()> + Send>;

/// The mutex, its queue, and what it protects; `None` once closed.
pub(crate) type SharedWriter = Arc<Combiner<Option<Writer>, Job, Result<()>>>;

/// See the module's header.
pub(crate) struct Engine {
    pub(crate) index: Index,
    pub(crate) suppressed: Suppressed,
    /// Marks that a sliding window's maximum age keeps from being extended.
    pub(crate) capped: Capped,
    pub(crate) tokens: Tokens,
    pub(crate) clock: SteadyClock,
    pub(crate) config: Config,
    pub(crate) hasher: KeyHasher,
    pub(crate) name: String,
    writer: SharedWriter,
    /// What the long transactions of this store leave to others. Held by the one whose turn it is, while it
    /// rests and while it runs.
    share: Mutex<Share>,
    checkpoints: Checkpoints,
    closed: AtomicBool,
    /// The process that opened the file. A forked child shares its parent's locks and buffers and must
    /// touch neither: it may even find the mutex held by a thread that it does not have.
    process: Process,
    /// No other connection can change the file.
    private: bool,
    opened: Stopwatch,
    /// When the last look ended, in milliseconds after `opened`.
    looked_at_ms: AtomicU64,
    /// Looks are numbered as they begin. One with a number above that read at the beginning of a call
    /// began after the call did.
    looks_begun: AtomicU64,
    last_good_look: AtomicU64,
    pub(crate) failed_open: AtomicU64,
    pub(crate) purge_thread: Mutex<Option<PurgeThread>>,
}

impl Engine {
    /// Opens the file. Returns also how many expired rows it holds.
    pub(crate) fn open(path: &Path, config: Config) -> Result<(Self, u64)> {
        let registration = Registration::new(&file::shown(path))?;
        config.validate()?;
        let path = file::resolve(path, !config.read_only)?;
        let clock = SteadyClock::new(Box::new(config.clock.clone()));
        let (index, hasher) = (Index::new(), KeyHasher::random());
        let (mut journal, expired) = Journal::open(path, &config, &hasher, &index, clock.now_ms())?;
        if let Some(reached) = journal.take_reached() {
            clock.hear(reached);
        }
        let engine = Self::new(registration, journal, index, hasher, clock, config);
        engine.tell_the_time();
        Ok((engine, expired))
    }

    pub(crate) fn in_memory(config: Config) -> Result<Self> {
        let registration = Registration::new("a store in memory")?;
        config.validate()?;
        let clock = SteadyClock::new(Box::new(config.clock.clone()));
        let (index, hasher) = (Index::new(), KeyHasher::random());
        let journal = Journal::in_memory(&config, &hasher, &index)?;
        Ok(Self::new(registration, journal, index, hasher, clock, config))
    }

    fn new(
        registration: Registration,
        journal: Journal,
        index: Index,
        hasher: KeyHasher,
        clock: SteadyClock,
        config: Config,
    ) -> Self {
        let yields = match config.synchronous {
            Synchronous::Normal => YIELDS,
            Synchronous::Full => 0,
        };
        let (name, private) = (journal.name(), journal.is_private());
        let log_source = journal.log_source();
        let process = registration.process();
        let writer = Writer {
            purges: PurgeSchedule::new(&config, clock.now_ms()),
            share: Share::new(),
            rebuilds: journal.rebuilds(),
            journal,
            _registration: registration,
        };
        let writer = Arc::new(Combiner::new(Some(writer), yields));
        Self {
            index,
            suppressed: Suppressed::new(),
            capped: Capped::new(),
            tokens: Tokens::new(),
            name,
            private,
            checkpoints: Checkpoints::new(log_source, Arc::clone(&writer), &config),
            writer,
            share: Mutex::new(Share::new()),
            clock,
            config,
            hasher,
            closed: AtomicBool::new(false),
            process,
            opened: Stopwatch::start(),
            looked_at_ms: AtomicU64::new(0),
            looks_begun: AtomicU64::new(0),
            last_good_look: AtomicU64::new(0),
            failed_open: AtomicU64::new(0),
            purge_thread: Mutex::new(None),
        }
    }

    /// Stores that open from now on are to know the time that this one has reached. They do without where
    /// it cannot be written now.
    fn tell_the_time(&self) {
        if self.config.read_only {
            return;
        }
        let mut writer = self.writer.lock();
        let Some(writer) = writer.as_mut() else { return };
        match self.try_write(writer, &mut |transaction| transaction.tell_the_time()) {
            Ok(_) => {}
            Err(e) => log::debug!("{}: the time is not written down: {e}", self.name),
        }
    }

    fn closed_error(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            format!("{} was closed through one of its handles; open it again", self.name),
        )
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Relaxed) { Err(self.closed_error()) } else { Ok(()) }
    }

    /// Comes before every use of the mutex, and before every wait for another lock.
    fn check_process(&self) -> Result<()> {
        self.process.check(&self.name)
    }

    /// The id's newest mark if it is live now, whichever store made it.
    pub(crate) fn live(&self, key: Key) -> Result<Option<Slot>> {
        // Read before the index: a look that begins after this and finds nothing answers the call.
        let (begun, now_ms) = (self.looks_begun.load(SeqCst), self.clock.now_ms());
        let hit = self.recently_live(key, now_ms)?;
        if hit.is_some() {
            return Ok(hit);
        }
        if self.private && !self.index.is_ahead_of(now_ms) {
            // Nothing to look for; but in a forked child the index stands still.
            self.check_process()?;
            return Ok(None);
        }
        self.live_in_file(key, begun)
    }

    /// The same after a look with a number above `begun`.
    fn live_in_file(&self, key: Key, begun: u64) -> Result<Option<Slot>> {
        let mut begun = begun;
        self.with_journal(|writer| {
            let has_looked = self.last_good_look.load(Relaxed) > begun;
            if !has_looked && self.look(writer)? == Begun::Busy {
                return Ok(None);
            }
            // Should the row have moved, only a later look will do.
            begun = self.looks_begun.load(SeqCst);
            self.live_after_look(writer, key)
        })
    }

    /// The same as far as the index knows. A hit is at most 100 ms out of date, a miss may be more.
    pub(crate) fn recently_live(&self, key: Key, now_ms: i64) -> Result<Option<Slot>> {
        self.check_open()?;
        let known = self.index.get_if_free(key, || self.check_process())?;
        let hit = known.filter(|slot| slot.is_live(now_ms));
        if hit.is_none() {
            return Ok(None);
        }
        if self.index.is_doubted() || self.index.is_ahead_of(now_ms) {
            return self.live_in_file(key, self.looks_begun.load(SeqCst));
        }
        if self.since_opened_ms() < self.looked_at_ms.load(Relaxed) + LOOK_EVERY_MS {
            return Ok(hit);
        }
        self.check_process()?;
        if self.private {
            self.looked_at_ms.store(self.since_opened_ms(), Relaxed);
            return Ok(hit);
        }
        // A forget elsewhere is to be noticed, but not by waiting for a commit here.
        let Some(mut writer) = self.writer.try_lock() else { return Ok(hit) };
        let writer = writer.as_mut().ok_or_else(|| self.closed_error())?;
        self.look(writer)?;
        self.live_after_look(writer, key).map(|found| found.unwrap_or(hit))
    }

    /// The id's mark if it is live now and, while the index is in doubt, its row is in the file. `None`: look
    /// again.
    #[expect(clippy::option_option, reason = "the outer one is `with_journal`'s: not answered yet")]
    fn live_after_look(&self, writer: &mut Writer, key: Key) -> Result<Option<Option<Slot>>> {
        let live = writer.journal.live(&self.index, key, self.clock.now_ms())?;
        self.settle_some_doubts(writer);
        Ok(match live {
            Lookup::Found(live) => Some(live),
            Lookup::Moved => None,
        })
    }

    /// Looks for some of the rows that are in doubt, if there are any. Never fails the caller.
    pub(crate) fn settle_some_doubts(&self, writer: &mut Writer) {
        if let Err(e) = writer.journal.settle_doubts(&self.index, DOUBTS_A_LOOKUP) {
            log::warn!("{}: looking for deleted marks is put off: {e}", self.name);
        }
    }

    /// Looks, and ends the doubt about marks that other stores have deleted, if there is any, in small
    /// steps.
    ///
    /// Beside a store that goes on deleting the doubt would not end: once all shards were begun and the last
    /// of them was done, what was deleted before the call is settled.
    pub(crate) fn settle_doubts(&self) -> Result<()> {
        let mut enough = None;
        while self.with_journal(|writer| {
            if self.look(writer)? == Begun::Busy {
                return Ok(None);
            }
            let begun = writer.journal.doubted_shards_begun();
            let enough = *enough.get_or_insert(begun + self.index.shard_count() + 1);
            let more = writer.journal.settle_doubts(&self.index, DOUBTS_A_STEP)?;
            Ok(Some(more && writer.journal.doubted_shards_begun() <= enough))
        })? {
            self.let_others_go();
        }
        Ok(())
    }

    /// Counts a duplicate that was turned away.
    pub(crate) fn turned_away(&self, seq: i64) -> Result<()> {
        self.suppressed.add(seq, || self.check_process())
    }

    /// Whether the mark is known to be at the maximum age of its sliding window.
    pub(crate) fn is_capped(&self, seq: i64, max_age: Duration) -> Result<bool> {
        self.capped.covers(seq, max_age, || self.check_process())
    }

    fn since_opened_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn look(&self, writer: &mut Writer) -> Result<Begun> {
        for _ in 0..LOOKS_AT_MOST {
            let number = self.looks_begun.fetch_add(1, SeqCst) + 1;
            if writer.journal.look(&self.index, self.clock.now_ms())? == Begun::Busy {
                return Ok(Begun::Busy);
            }
            let seen = LookedAt::by(&mut writer.journal, number);
            self.looked(&seen, &mut writer.rebuilds);
            if !self.is_behind_index() {
                break;
            }
        }
        self.sweep_when_due(writer);
        Ok(Begun::Ready)
    }

    /// Whether what a look has heard took this store's time back: the index is true for a later time only.
    fn is_behind_index(&self) -> bool {
        self.index.is_ahead_of(self.clock.now_ms())
    }

    /// Takes in what a look brings besides rows.
    fn looked(&self, seen: &LookedAt, rebuilds: &mut u64) {
        if let Some(reached) = seen.reached {
            self.clock.hear(reached);
        }
        if std::mem::replace(rebuilds, seen.rebuilds) != seen.rebuilds {
            // The file's history may have gone back: then its numbers are given again, to other ids.
            self.capped.clear();
            self.suppressed.clear();
        }
        self.last_good_look.store(seen.number, Relaxed);
        self.looked_at_ms.store(self.since_opened_ms(), Relaxed);
    }

    /// Runs `step` with the journal until it has an answer. `None`, or an error of kind `Busy`, means
    /// that another process is in the way: the mutex is released and the call sleeps a little.
    pub(crate) fn with_journal<T>(
        &self,
        step: impl FnMut(&mut Writer) -> Result<Option<T>>,
    ) -> Result<T> {
        self.with_journal_within(self.config.busy_timeout, step)
    }

    fn with_journal_within<T>(
        &self,
        timeout: Duration,
        mut step: impl FnMut(&mut Writer) -> Result<Option<T>>,
    ) -> Result<T> {
        self.check_process()?;
        let mut patience = Patience::new(timeout);
        loop {
            let mut guard = self.writer.lock();
            let writer = guard.as_mut().ok_or_else(|| self.closed_error())?;
            match step(writer) {
                Ok(Some(answer)) => return Ok(answer),
                Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
                Ok(None) | Err(_) => {}
            }
            drop(guard);
            if !patience.pause() {
                return Err(self.busy_error());
            }
        }
    }

    /// One transaction that may be long: a batch, or a step of a longer work. It begins when the last one
    /// has left the write lock alone for a while. At its end it does the small writes that wait.
    fn write_long<T>(
        &self,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
        and_then: impl Fn(&mut Writer),
    ) -> Result<T> {
        self.check_process()?;
        let mut patience = Patience::of_long_work(self.config.busy_timeout);
        loop {
            let mut share = self.share.lock();
            share.rest();
            let mut guard = self.writer.lock();
            let (writer, jobs) = guard.parts();
            let open = writer.as_mut().ok_or_else(|| self.closed_error())?;
            let held = Stopwatch::start();
            let written = self.try_write(open, decide);
            match written {
                Ok(Some(answer)) => {
                    and_then(open);
                    self.lead_waiting(writer, &jobs);
                    if writer.as_ref().is_some_and(Writer::has_company) {
                        share.used(held.elapsed());
                    }
                    return Ok(answer);
                }
                Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
                Ok(None) | Err(_) => {}
            }
            drop(guard);
            drop(share);
            if !patience.pause() {
                return Err(self.busy_error());
            }
        }
    }

    fn busy_error(&self) -> Error {
        Error::new(
            ErrorKind::Busy,
            format!(
                "{}: another process has held it for {:?}; try again",
                self.name, self.config.busy_timeout
            ),
        )
    }

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
                Ok(Some(answer)) => {
                    self.tidy_when_due(writer);
                    return Ok(answer);
                }
                Err(e) if e.kind() != ErrorKind::Busy => return Err(e),
                Ok(None) | Err(_) => {}
            }
        }
        let answer = Arc::new(Mutex::new(None));
        let (answered, mut decide) = (Arc::clone(&answer), owned());
        let job: Job = Box::new(move |transaction| {
            *answered.lock() = Some(decide(transaction)?);
            Ok(())
        });
        let mut patience = Patience::new(self.config.busy_timeout);
        let outcome =
            self.writer.submit(job, |writer, jobs| self.lead(writer, jobs), || patience.pause());
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
    fn lead(&self, writer: &mut Option<Writer>, jobs: &Jobs<'_, Job, Result<()>>) -> Led {
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
        let committed = match committed {
            Ok(Some(())) => Ok(()),
            Ok(None) => return Led::Busy,
            Err(e) if group.is_empty() && e.kind() == ErrorKind::Busy => return Led::Busy,
            Err(e) => Err(e),
        };
        if committed.is_err() && group.is_empty() {
            // The write lock could not even be asked for.
            group = jobs.take(GROUP);
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
    fn lead_waiting(&self, writer: &mut Option<Writer>, jobs: &Jobs<'_, Job, Result<()>>) {
        if !jobs.is_empty() {
            self.lead(writer, jobs);
        }
    }

    fn lead_one_by_one(
        &self,
        writer: &mut Writer,
        group: Vec<Taken<Job, Result<()>>>,
        jobs: &Jobs<'_, Job, Result<()>>,
    ) -> Led {
        let mut left = group.into_iter();
        while let Some(mut taken) = left.next() {
            match self.try_write(writer, taken.job()) {
                Ok(Some(())) => taken.answer(Ok(())),
                Err(e) if e.kind() != ErrorKind::Busy => taken.answer(Err(e)),
                Ok(None) | Err(_) => {
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
        self.let_others_go();
        Ok(answer)
    }

    /// Comes between the steps of a longer work, whether it writes or only reads. Does the small writes that
    /// wait in the queue, and hands the mutex to a thread that waits for it: a loop that takes it again at
    /// once would keep it to itself. Nor is the log to grow faster than it can be copied, which the others
    /// would have to wait for.
    pub(crate) fn let_others_go(&self) {
        let mut turn = self.writer.lock();
        let (writer, jobs) = turn.parts();
        self.lead_waiting(writer, &jobs);
        turn.end_fair();
        self.checkpoints.wait_while_pressing();
    }

    /// The same as [`try_write`](Self::try_write), of a store that shares the file with others at the
    /// moment: they get their share of the write lock.
    fn try_write_small<T>(
        &self,
        writer: &mut Writer,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        if !writer.has_company() {
            return self.try_write(writer, decide);
        }
        writer.share.rest();
        let held = Stopwatch::start();
        let written = self.try_write(writer, decide);
        if let Ok(Some(_)) = written {
            writer.share.used(held.elapsed());
        }
        written
    }

    /// `None` when another process holds the write lock.
    pub(crate) fn try_write<T>(
        &self,
        writer: &mut Writer,
        decide: &mut impl FnMut(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut looks = 0;
        let (newest, mut transaction) = loop {
            looks += 1;
            let number = self.looks_begun.fetch_add(1, SeqCst) + 1;
            if writer.journal.begin(&self.index, self.clock.now_ms())? == Begun::Busy {
                return Ok(None);
            }
            let seen = LookedAt::by(&mut writer.journal, number);
            let newest = writer.journal.newest_seq();
            // From here on a panic, of the caller's clock too, rolls back.
            let transaction = writer.journal.transaction(&self.index);
            self.looked(&seen, &mut writer.rebuilds);
            if looks == LOOKS_AT_MOST || !self.is_behind_index() {
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
            self.suppressed.forget_after(newest);
            self.capped.forget_after(newest);
        })?;
        self.checkpoints.committed(&mut writer.journal);
        Ok(Some(answer))
    }

    /// The row with this number, if it is of this id. A file that was restored since the look may have
    /// another id's row there.
    pub(crate) fn row_of(
        &self,
        writer: &mut Writer,
        key: Key,
        seq: i64,
    ) -> Result<Option<StoredRow>> {
        let Some(row) = writer.journal.row(seq)? else { return Ok(None) };
        let found = self.hasher.scoped(&row.scope).key(&row.id);
        Ok((stored(found) == stored(key)).then_some(row))
    }

    /// A row of the table as callers see it.
    pub(crate) fn entry(&self, seq: i64, row: StoredRow, now_ms: i64) -> Entry {
        let mut entry = row.entry(now_ms);
        entry.suppressed = entry.suppressed.saturating_add(self.suppressed.pending(seq).into());
        entry
    }

    /// Writes the counts of suppressed duplicates down, those of the beginning at least, with `pause`
    /// between two steps.
    pub(crate) fn flush_suppressed(&self, pause: &mut dyn FnMut()) -> Result<()> {
        self.flush_suppressed_within(self.config.busy_timeout, pause)
    }

    /// The same, waiting for other processes for so long at each step.
    fn flush_suppressed_within(&self, timeout: Duration, pause: &mut dyn FnMut()) -> Result<()> {
        let mut left = suppressed::ROOM;
        while left > 0 {
            let some = left.min(FLUSHED_AT_ONCE);
            let written =
                self.with_journal_within(timeout, |writer| self.write_suppressed(writer, some))?;
            self.let_others_go();
            if written == 0 {
                return Ok(());
            }
            left -= written;
            pause();
        }
        Ok(())
    }

    /// Writes up to `limit` counts down; how many. The mutex is held from reading the counts until they
    /// are taken off, or another thread would write the same ones.
    pub(crate) fn write_suppressed(
        &self,
        writer: &mut Writer,
        limit: usize,
    ) -> Result<Option<usize>> {
        let mut counts = self.suppressed.some(1);
        if counts.is_empty() {
            return Ok(Some(0));
        }
        let written = self.try_write(writer, &mut |transaction| {
            // Only now: the look under the write lock forgets the counts of rows of another history.
            counts = self.suppressed.some(limit);
            transaction.add_suppressed(&counts)
        })?;
        if written.is_none() {
            return Ok(None);
        }
        for &(seq, count) in &counts {
            self.suppressed.settle(seq, count);
        }
        Ok(Some(counts.len()))
    }

    /// The counts are not worth a wait: while another process writes, they are let go.
    fn flush_before_closing(&self) -> Result<()> {
        let timeout = LONGEST_FLUSH.min(self.config.busy_timeout);
        match self.flush_suppressed_within(timeout, &mut || {}) {
            Err(e) if e.kind() == ErrorKind::Busy => {
                log::debug!("{}: some counts of duplicates are not written down: {e}", self.name);
                Ok(())
            }
            flushed => flushed,
        }
    }

    /// Closes the journal for every handle. A background thread that still has the engine finds it closed
    /// at its next step.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_open()?;
        self.check_process()?;
        let flushed = if self.config.read_only { Ok(()) } else { self.flush_before_closing() };
        self.closed.store(true, SeqCst);
        drop(self.purge_thread.lock().take());
        self.checkpoints.stop();
        let writer = self.writer.lock().take().ok_or_else(|| self.closed_error())?;
        writer.journal.close().and(flushed)
    }
}

/// What the handles of a store share. The last one to be dropped closes the store, whichever threads of its
/// own still work: those have the engine alone.
pub(crate) struct Owner(Arc<Engine>);

impl Owner {
    pub(crate) fn new(engine: Engine) -> Self {
        Self(Arc::new(engine))
    }

    /// For a thread of the store's own, which must not keep it open.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0
    }
}

impl Deref for Owner {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Owner {
    /// No lock may be held: closing takes the mutex. A job in the queue has a handle too, but never the last
    /// one: it is gone before the call that has left it there returns, and that call has another.
    fn drop(&mut self) {
        if !self.process.is_current() {
            // A forked child: closing would wait for its parent's threads and give up its parent's locks.
            // The leak is the point.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        if !self.closed.load(SeqCst)
            && let Err(e) = self.close()
        {
            // That the files are gone is no failure of closing; the calls before have told it.
            let is_gone = e.kind() == ErrorKind::FileReplaced;
            let level = if is_gone { log::Level::Info } else { log::Level::Error };
            log::log!(level, "{}: closing failed: {e}", self.name);
        }
    }
}
