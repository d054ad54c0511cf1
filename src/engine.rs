//! Wires the index and the journal together: one engine for each open store, shared by its handles.
//!
//! Owns the mutex around the journal, the index beside it, and when to look. What always holds: a hit
//! is answered without the mutex, except for one look every 100 ms; a miss is answered only after a
//! look that began after the call did; a call that waits for another process holds no lock, except where
//! the log has come to its limit. Lock order: the turn of long transactions, the journal's mutex, then a
//! shard of the index or of the counts. A forked child takes none of them but those that it finds free and
//! that no thread is ever woken through: before it takes the mutex, or waits for anything, a call checks
//! that it is made in the process that opened the store. Knows nothing of SQL.

mod checkpointer;
mod duplicates;
mod group_commit;
pub(crate) mod purge;
mod read;
mod write;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use self::checkpointer::Checkpoints;
use self::group_commit::GroupCommit;
use self::purge::{PurgeSchedule, PurgeThread};
use crate::backoff::Share;
use crate::clock::{SteadyClock, Stopwatch};
use crate::config::{Config, Synchronous};
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::id::KeyHasher;
use crate::index::Index;
use crate::journal::{Journal, Transaction};
use crate::machine::Mutex;
use crate::process::{Process, Registration};
use crate::token::Tokens;

/// How often a caller that waits for a commit without an fsync gives the processor away before it parks:
/// the commit is mostly done by then.
const YIELDS: u32 = 64;

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

/// A write that waits for a leader. It owns all that it needs.
pub(crate) type Job = Box<dyn FnMut(&mut Transaction<'_>) -> Result<()> + Send>;

/// The mutex, its queue, and what it protects; `None` once closed.
pub(crate) type SharedWriter = Arc<GroupCommit<Option<Writer>, Job, Result<()>>>;

/// See the module's header.
pub(crate) struct Engine {
    pub(crate) index: Index,
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
    caught_up_at_ms: AtomicU64,
    /// Looks are numbered as they begin. One with a number above that read at the beginning of a call
    /// began after the call did.
    catch_ups_begun: AtomicU64,
    last_catch_up: AtomicU64,
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
        let writer = Arc::new(GroupCommit::new(Some(writer), yields));
        Self {
            index,
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
            caught_up_at_ms: AtomicU64::new(0),
            catch_ups_begun: AtomicU64::new(0),
            last_catch_up: AtomicU64::new(0),
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
        match self.try_write(writer, &mut |transaction| transaction.write_clock()) {
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
