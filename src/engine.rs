//! The engine of an open store: it combines the index and the journal, and all handles of the store share it.
//!
//! Owns the mutex around the journal, the index beside it, and the decision when to catch up with the file.
//! What always holds:
//!
//! - A hit is answered without the mutex, except for one catch-up every 100 ms.
//! - A miss is answered only after a catch-up that began after the call did.
//! - A call that waits for another process holds no lock, except where the log has reached its limit.
//! - Lock order: the lock of long transactions, the journal's mutex, then the queues of waiters, a shard of the
//!   index or of the duplicate counts. The list of leases that renew themselves is locked with no other lock.
//! - A forked child takes none of these locks, except a lock that it finds free and that never has to wake a
//!   thread. Before a call takes the mutex or waits for anything, it checks that it runs in the process that
//!   opened the store.
//!
//! Knows nothing of SQL.

mod background;
mod checkpointer;
pub(crate) mod counters;
mod duplicates;
mod group_commit;
#[cfg(feature = "metrics")]
mod meters;
pub(crate) mod purge;
mod read;
pub(crate) mod renewal;
#[cfg(feature = "tokio")]
pub(crate) mod task_queue;
mod upkeep;
pub(crate) mod waiters;
mod write;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use self::checkpointer::Checkpointer;
use self::counters::Counters;
use self::group_commit::GroupCommit;
use self::purge::{PurgeSchedule, PurgeThread};
use self::renewal::Renewals;
use self::upkeep::Upkeep;
use self::waiters::Waiters;
use crate::backoff::LockShare;
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

/// How often a caller that waits for a commit without an fsync yields the processor before it parks: the
/// commit has mostly ended by then.
const YIELDS: u32 = 64;

/// How often a caller that waits for a commit yields the processor before it parks.
fn yields(synchronous: Synchronous) -> u32 {
    match synchronous {
        Synchronous::Normal => YIELDS,
        Synchronous::Full => 0,
    }
}

/// What the mutex protects.
pub(crate) struct Writer {
    pub(crate) journal: Journal,
    /// Pauses between small transactions, while other stores use the file.
    share: LockShare,
    pub(crate) purges: PurgeSchedule,
    /// The number of index rebuilds that the engine has reacted to.
    rebuilds: u64,
    /// Counts this store among those that the process has open, until the connection is closed.
    _registration: Registration,
}

/// A write that waits for a leader. It owns its data.
pub(crate) type Job = Box<dyn FnMut(&mut Transaction<'_>) -> Result<()> + Send>;

/// The mutex, its queue, and the writer that it protects: `None` once the store is closed.
pub(crate) type SharedWriter = Arc<GroupCommit<Option<Writer>, Job, Result<()>>>;

/// The engine as its callers use it: what all of them share, and how long these wait for other processes.
#[derive(Clone)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    busy_timeout: Duration,
    /// Whether a caller that finds another process in the way tries again by itself, so that this is no error yet.
    tries_again: bool,
}

/// What the callers of a store share.
pub(crate) struct Shared {
    pub(crate) index: Index,
    pub(crate) tokens: Tokens,
    pub(crate) clock: SteadyClock,
    pub(crate) config: Config,
    pub(crate) hasher: KeyHasher,
    pub(crate) name: String,
    /// Whether this open made the store.
    pub(crate) created: bool,
    /// The label that claims of this store carry.
    pub(crate) holder: Arc<str>,
    writer: SharedWriter,
    /// Pauses between long transactions. A long transaction holds this lock while it pauses and while it
    /// runs, so that only one runs at a time.
    share: Mutex<LockShare>,
    checkpointer: Checkpointer,
    closed: AtomicBool,
    /// The process that opened the file. A forked child shares its parent's locks and buffers and must use
    /// neither: the mutex may be held by a thread that does not exist in the child.
    process: Process,
    /// True when no other connection can change the file.
    private: bool,
    /// When the last catch-up ended, by [`coarse_ms`](crate::machine::coarse_ms).
    caught_up_at_ms: AtomicU64,
    /// Catch-ups are numbered as they begin. A catch-up with a number greater than the one read at the start
    /// of a call began after the call did.
    catch_ups_begun: AtomicU64,
    last_catch_up: AtomicU64,
    pub(crate) counters: Counters,
    pub(crate) purge_thread: Mutex<Option<PurgeThread>>,
    opened: Stopwatch,
    upkeep: Upkeep,
    renewals: Renewals,
    pub(crate) waiters: Waiters,
    #[cfg(feature = "tokio")]
    tasks: Mutex<task_queue::Slot>,
}

impl Engine {
    /// Opens the file. Also returns the number of expired rows in it, if all were read.
    pub(crate) fn open(path: &Path, config: Config) -> Result<(Self, Option<u64>)> {
        let registration = Registration::new(&file::shown(path))?;
        config.validate()?;
        let path = file::resolve(path, config.may_create())?;
        let clock = SteadyClock::new(config.clock.clone(), config.check_clock);
        let index = Index::new();
        let (mut journal, expired) = Journal::open(path, &config, &index, clock.now_ms())?;
        if let Some(file_time) = journal.take_file_time() {
            clock.observe(file_time);
        }
        let engine = Self::new(registration, journal, index, clock, config);
        engine.write_clock();
        Ok((engine, expired))
    }

    pub(crate) fn in_memory(config: Config) -> Result<Self> {
        let registration = Registration::new("a store in memory")?;
        config.validate()?;
        let clock = SteadyClock::new(config.clock.clone(), config.check_clock);
        let index = Index::new();
        let journal = Journal::in_memory(&config, &KeyHasher::random(), &index)?;
        Ok(Self::new(registration, journal, index, clock, config))
    }

    fn new(
        registration: Registration,
        journal: Journal,
        index: Index,
        clock: SteadyClock,
        config: Config,
    ) -> Self {
        let yields = yields(config.synchronous);
        let (name, private) = (journal.name(), journal.is_private());
        let hasher = journal.hasher().clone();
        let created = journal.was_created();
        let log_source = journal.log_source();
        let connection_source = journal.connection_source();
        let process = registration.process();
        let writer = Writer {
            purges: PurgeSchedule::new(&config, clock.now_ms()),
            share: LockShare::new(),
            rebuilds: journal.rebuilds(),
            journal,
            _registration: registration,
        };
        let writer = Arc::new(GroupCommit::new(Some(writer), yields));
        let busy_timeout = config.busy_timeout;
        let shared = Arc::new(Shared {
            index,
            tokens: Tokens::new(),
            name,
            created,
            private,
            checkpointer: Checkpointer::new(log_source, Arc::clone(&writer), &config),
            writer,
            share: Mutex::new(LockShare::new()),
            clock,
            holder: config.holder_label(),
            config,
            hasher,
            closed: AtomicBool::new(false),
            process,
            caught_up_at_ms: AtomicU64::new(0),
            catch_ups_begun: AtomicU64::new(0),
            last_catch_up: AtomicU64::new(0),
            counters: Counters::default(),
            purge_thread: Mutex::new(None),
            opened: Stopwatch::start(),
            upkeep: Upkeep::new(connection_source),
            renewals: Renewals::default(),
            waiters: Waiters::default(),
            #[cfg(feature = "tokio")]
            tasks: Mutex::default(),
        });
        Self { shared, busy_timeout, tries_again: false }
    }

    /// Returns the engine for callers that wait this long for other processes.
    pub(crate) fn waiting_at_most(&self, busy_timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), busy_timeout, tries_again: false }
    }

    /// Counts an error that a call on an open store met.
    pub(crate) fn count_error(&self, error: &Error) {
        if !(self.tries_again && error.kind() == ErrorKind::Busy) {
            self.counters.add_error(error);
        }
    }

    pub(crate) fn busy_timeout(&self) -> Duration {
        self.busy_timeout
    }

    /// Returns the engine for a background thread, which must not keep it in memory.
    fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.shared))
    }

    /// Writes this store's time to the file, so that stores that open later start from it. A failure is only
    /// logged: the next commit writes the time.
    fn write_clock(&self) {
        if self.config.read_only {
            return;
        }
        let mut writer = self.writer.lock();
        let Some(writer) = writer.as_mut() else { return };
        match self.try_write(writer, &mut |transaction| transaction.write_clock()) {
            Ok(()) => {}
            Err(e) => log::debug!(
                file = self.name.as_str(), error:% = e, error_kind = e.kind().word();
                "{}: cannot write the time to the file: {e}", self.name
            ),
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

    /// Fails in a forked child. Must be called before each use of the mutex and before each wait for another
    /// lock.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.process.check(&self.name)
    }

    /// Closes the journal for all handles. A background thread that still has the engine finds it closed at
    /// its next step.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_open()?;
        self.check_process()?;
        let flushed = if self.config.read_only { Ok(()) } else { self.flush_before_closing() };
        self.upkeep.stop();
        self.upkeep_before_closing();
        self.closed.store(true, SeqCst);
        drop(self.purge_thread.lock().take());
        self.renewals.stop();
        self.checkpointer.stop();
        let writer = self.writer.lock().take().ok_or_else(|| self.closed_error())?;
        writer.journal.close().and(flushed)
    }
}

impl Deref for Engine {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The engine of a background thread, between two steps.
struct WeakEngine(Weak<Shared>);

impl WeakEngine {
    /// Returns the engine with the store's own timeout, unless it is gone.
    fn upgrade(&self) -> Option<Engine> {
        let shared = self.0.upgrade()?;
        Some(Engine { busy_timeout: shared.config.busy_timeout, tries_again: false, shared })
    }
}

/// A handle's engine. Dropping the last handle closes the store, even while background threads of the store still
/// run: they have the engine, not its owner.
#[derive(Clone)]
pub(crate) struct Handle {
    engine: Engine,
    owner: Arc<Owner>,
}

impl Handle {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { owner: Arc::new(Owner(engine.clone())), engine }
    }

    /// Returns another handle on the same store, whose calls wait this long for other processes.
    pub(crate) fn waiting_at_most(&self, busy_timeout: Duration) -> Self {
        let engine = self.engine.waiting_at_most(busy_timeout);
        Self { engine, owner: Arc::clone(&self.owner) }
    }

    /// Returns another handle on the same store, whose calls try once, for a caller that tries again by itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn trying_once(&self) -> Self {
        let engine = Engine { tries_again: true, ..self.engine.waiting_at_most(Duration::ZERO) };
        Self { engine, owner: Arc::clone(&self.owner) }
    }

    /// Drops this handle. If it is the last, returns what closes the store when it is dropped.
    #[cfg(feature = "tokio")]
    fn into_last(self) -> Option<Owner> {
        Arc::into_inner(self.owner)
    }
}

impl Deref for Handle {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

/// What the handles of a store share.
struct Owner(Engine);

impl Drop for Owner {
    /// The caller must hold no lock: closing takes the mutex. A queued job has a handle too, but never the
    /// last one: the job is dropped before the call that queued it returns, and that call has another handle.
    fn drop(&mut self) {
        let engine = &self.0;
        if !engine.process.is_current() {
            // In a forked child, closing would wait for threads of the parent and release the parent's file
            // locks. Leak the engine instead.
            std::mem::forget(engine.clone());
            return;
        }
        if !engine.closed.load(SeqCst)
            && let Err(e) = engine.close()
        {
            // Missing files are not a failure of closing: earlier calls have reported them.
            let is_gone = e.kind() == ErrorKind::FileReplaced;
            let level = if is_gone { log::Level::Info } else { log::Level::Error };
            log::log!(
                level, file = engine.name.as_str(), error:% = e, error_kind = e.kind().word();
                "{}: closing failed: {e}", engine.name
            );
        }
    }
}
