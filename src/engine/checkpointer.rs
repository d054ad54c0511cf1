//! The thread that copies the write-ahead log into the file, so that no commit has to.
//!
//! Owns when it starts, what it is told and when it ends. What always holds, with `w` for
//! `wal_autocheckpoint`:
//!
//! - From `w / 2` on it copies beside the callers, on a connection of its own; they go on committing. A log
//!   that is copied whole while nobody commits is begun anew by the next commit.
//! - Where commits come so thick that no pass ever catches up with them, in this store or in others on the
//!   file, it has the log restarted from `w * 3 / 4` on: all writers of all stores then wait for the little
//!   that is left.
//! - A log that has come to `w` under a pass, because the disk is slow or many write, grows no further: a
//!   commit that finds it so waits for the pass, and restarts the log itself. Each store does so. So the log
//!   stays below `w`, the size of a transaction for each store aside.
//! - A snapshot that somebody holds (a backup, a verify, a program that reads) keeps the log from being
//!   restarted. That is tried for a moment and then left alone for a while; the log grows meanwhile.
//! - It begins with the first log that is worth the trouble, and has ended before the store's own
//!   connection closes, so that this one closes last and removes the log. Where `w` is small there is none:
//!   commits do what is left to do.
//!
//! In exclusive mode no second connection is possible: the commit that finds the log at `w` copies it.
//!
//! A failure is logged and nobody's: the log grows on, until a later commit finds it long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Stopwatch;
use crate::config::Config;
use crate::engine::SharedWriter;
use crate::error::Result;
use crate::journal::{CheckpointResult, Journal, LogCopier, LogHandle, LogSource, LogState};
use crate::machine::{
    self, Mutex, Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel,
};

/// By how many pages the log grows until the thread is told again.
const PAGES_A_TELL: u32 = 512;

/// The smallest `wal_autocheckpoint` that a thread is used for. A commit copies less than that in no time.
const WORTH_A_THREAD: u32 = 1_000;

/// How long a work in no hurry waits for the log to be copied, between two of its steps.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// How often a long log is copied beside the callers before they are made to wait.
const PASSES: usize = 32;

/// How long restarting the log is tried, and so how long a commit that finds it too long waits at most.
const LONGEST_TRY: Duration = Duration::from_millis(250);

/// How many restarts in turn must have come no further, for a snapshot to be in the way and not a passing
/// reader.
const STUCK: u32 = 3;

/// How long a log is left alone that a snapshot keeps from being restarted, unless it grows by
/// `wal_autocheckpoint` before.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// See the module's header.
pub(crate) struct Checkpoints {
    /// `None` where no second connection is possible, where SQLite copies the log itself, and where it is never
    /// copied.
    source: Option<LogSource>,
    writer: SharedWriter,
    /// How long the log was when the thread was told last; 0 once it was short again.
    told_at: AtomicU32,
    shared: Arc<Shared>,
    thread: Mutex<Thread>,
}

/// What commits and the thread tell each other.
struct Shared {
    limits: Limits,
    /// Pages of a log that the thread was told to copy, when somebody looked last; 0 once the next commit
    /// will begin it anew, and where the thread cannot help.
    pages: AtomicU32,
    /// Held while the log is copied or restarted.
    copying: Mutex<()>,
    /// Set while a snapshot keeps the log from being restarted.
    held: Mutex<Option<Held>>,
}

/// From how many pages on the log is copied beside the callers, restarted by the thread, by a commit.
#[derive(Clone, Copy)]
struct Limits {
    due: u32,
    pressing: u32,
    most: u32,
}

/// A log that a snapshot keeps from being copied any further.
struct Held {
    log: LogState,
    since: Stopwatch,
}

enum Thread {
    NotNeeded,
    Runs { tell: SyncSender<()>, handle: machine::Thread<()> },
    Over,
}

impl Shared {
    fn is_held(&self) -> bool {
        self.held.lock().is_some()
    }

    /// Whether a log of so many pages was held not long ago, and would still be if it were tried again.
    fn is_left_alone(&self, pages: u32) -> bool {
        self.held.lock().as_ref().is_some_and(|held| {
            (held.log.pages..held.log.pages.saturating_add(self.limits.most)).contains(&pages)
                && held.since.elapsed() < LEFT_ALONE
        })
    }

    /// Whether a held log is still held: then a copy comes no further. Costs nothing where it is.
    fn is_still_held(&self, log_handle: &mut LogHandle<'_>) -> Result<bool> {
        let Some(copied) = self.held.lock().as_ref().map(|held| held.log.copied) else {
            return Ok(false);
        };
        let held = match log_handle.copy()? {
            CheckpointResult::Partial(log) | CheckpointResult::Done(log)
                if log.copied == copied && !log.is_copied() =>
            {
                log
            }
            CheckpointResult::Busy => return Ok(true),
            _ => return Ok(false),
        };
        self.hold(held);
        Ok(true)
    }

    fn hold(&self, log: LogState) {
        self.pages.store(0, Relaxed);
        *self.held.lock() = Some(Held { log, since: Stopwatch::start() });
    }

    /// Waits for a pass of this store's, then has the log restarted if that can be done at the moment.
    fn try_restart(&self, log_handle: &mut LogHandle<'_>) -> Result<CheckpointResult> {
        let Some(_pass_is_over) = self.copying.try_lock_for(LONGEST_TRY) else {
            return Ok(CheckpointResult::Busy);
        };
        let pass = log_handle.restart()?;
        if matches!(pass, CheckpointResult::Done(_)) {
            self.restarted();
        }
        Ok(pass)
    }

    fn restarted(&self) {
        self.pages.store(0, Relaxed);
        *self.held.lock() = None;
    }

    /// Has the log restarted, in several tries. Ends too when another store has done it, and when a
    /// snapshot holds the log.
    fn restart(&self, log_handle: &mut LogHandle<'_>, short: u32) -> Result<()> {
        let mut backoff = Backoff::new(LONGEST_TRY);
        let (mut stuck, mut copied) = (0, None);
        loop {
            let log = match self.try_restart(log_handle)? {
                CheckpointResult::Done(_) => return Ok(()),
                // All copied: somebody writes, or reads the end of the log.
                CheckpointResult::Partial(log) if log.is_copied() => log,
                CheckpointResult::Partial(log) => {
                    stuck =
                        if copied.replace(log.copied) == Some(log.copied) { stuck + 1 } else { 1 };
                    log
                }
                CheckpointResult::Busy => log_handle.state()?,
            };
            if log.pages < short {
                self.restarted();
                return Ok(());
            }
            if stuck >= STUCK {
                self.hold(log);
                return Ok(());
            }
            if !backoff.pause() {
                return Ok(());
            }
        }
    }
}

impl Checkpoints {
    pub(crate) fn new(source: Option<LogSource>, writer: SharedWriter, config: &Config) -> Self {
        let limits = Limits {
            due: config.wal_autocheckpoint / 2,
            pressing: config.wal_autocheckpoint - config.wal_autocheckpoint / 4,
            most: config.wal_autocheckpoint,
        };
        Self {
            source,
            writer,
            told_at: AtomicU32::new(0),
            shared: Arc::new(Shared {
                limits,
                pages: AtomicU32::new(0),
                copying: Mutex::new(()),
                held: Mutex::new(None),
            }),
            thread: Mutex::new(Thread::NotNeeded),
        }
    }

    /// Takes note of a commit. The mutex is held.
    pub(crate) fn committed(&self, journal: &mut Journal) {
        let (pages, shared) = (journal.take_log_pages(), &self.shared);
        let Some(source) = &self.source else {
            if pages > 0
                && pages >= shared.limits.most
                && let Err(e) = copy_alone(journal)
            {
                log::warn!("a checkpoint is put off: {e}");
            }
            return;
        };
        if pages < shared.limits.due {
            if pages > 0 && self.told_at.swap(0, Relaxed) > 0 {
                shared.pages.store(0, Relaxed);
            }
            return;
        }
        if let Err(e) = self.keep_short(source, journal, pages) {
            log::warn!("a checkpoint is put off: {e}");
        }
    }

    fn keep_short(&self, source: &LogSource, journal: &mut Journal, pages: u32) -> Result<()> {
        let (Limits { most, .. }, shared) = (self.shared.limits, &self.shared);
        if shared.is_left_alone(pages) {
            return Ok(());
        }
        let told_at = self.told_at.load(Relaxed);
        if told_at == 0 || !(told_at..told_at.saturating_add(PAGES_A_TELL)).contains(&pages) {
            let told = self.tell(source);
            self.told_at.store(pages, Relaxed);
            shared.pages.store(if told { pages } else { 0 }, Relaxed);
        }
        if pages < most {
            return Ok(());
        }
        // A log that was held is long: if it can be copied now, then by the thread first.
        let is_the_threads = self.has_thread() && shared.is_held();
        if is_the_threads {
            return Ok(());
        }
        let Some(mut log_handle) = journal.log_handle()? else { return Ok(()) };
        if shared.is_still_held(&mut log_handle)? {
            return Ok(());
        }
        shared.restart(&mut log_handle, most)
    }

    /// For work that is in no hurry: waits a little while the log is long and being copied. No lock is
    /// held.
    pub(crate) fn wait_while_pressing(&self) {
        if self.source.is_none() {
            return;
        }
        let mut backoff = Backoff::new(LONGEST_WAIT);
        let Shared { pages, limits, .. } = &*self.shared;
        while pages.load(Relaxed) >= limits.pressing && backoff.pause() {}
    }

    fn has_thread(&self) -> bool {
        matches!(*self.thread.lock(), Thread::Runs { .. })
    }

    /// False where there is no thread to tell.
    fn tell(&self, source: &LogSource) -> bool {
        let mut thread = self.thread.lock();
        if matches!(*thread, Thread::NotNeeded) && self.shared.limits.most >= WORTH_A_THREAD {
            *thread = self.start(source.clone());
        }
        if let Thread::Runs { tell, .. } = &*thread {
            // Full: it has been told already.
            return !matches!(tell.try_send(()), Err(TrySendError::Disconnected(())));
        }
        false
    }

    fn start(&self, source: LogSource) -> Thread {
        let (tell, told) = sync_channel(1);
        let work = Work {
            source,
            writer: Arc::clone(&self.writer),
            shared: Arc::clone(&self.shared),
            copier: None,
        };
        match machine::spawn("seen-checkpoint", move || work.whenever_told(&told)) {
            Ok(handle) => Thread::Runs { tell, handle },
            Err(e) => {
                log::warn!("cannot start the checkpoint thread, commits will do its work: {e}");
                Thread::Over
            }
        }
    }

    /// Ends the thread for good. The mutex must be free: the thread may be waiting for it.
    pub(crate) fn stop(&self) {
        let thread = std::mem::replace(&mut *self.thread.lock(), Thread::Over);
        if let Thread::Runs { tell, handle } = thread {
            drop(tell);
            if handle.join().is_err() {
                log::error!("the checkpoint thread panicked");
            }
        }
    }
}

/// In exclusive mode no other connection has the file: the copy is whole, and the next commit begins the log anew.
fn copy_alone(journal: &mut Journal) -> Result<()> {
    match journal.log_handle()? {
        Some(mut log_handle) => log_handle.copy().map(drop),
        None => Ok(()),
    }
}

/// What the thread has.
struct Work {
    source: LogSource,
    writer: SharedWriter,
    shared: Arc<Shared>,
    copier: Option<LogCopier>,
}

impl Work {
    fn whenever_told(mut self, told: &Receiver<()>) {
        while self.is_wanted(told) {
            if let Err(e) = self.copy_if_due() {
                log::warn!("a checkpoint is put off: {e}");
                // Whatever happened to this connection, the next attempt has a fresh one.
                self.close();
                self.shared.pages.store(0, Relaxed);
            }
        }
        self.close();
    }

    /// Waits until there is something to do; false at the end. A log that is held is tried again in a
    /// while, even if nobody writes.
    fn is_wanted(&self, told: &Receiver<()>) -> bool {
        if !self.shared.is_held() {
            return told.recv().is_ok();
        }
        told.recv_timeout(LEFT_ALONE) != Err(RecvTimeoutError::Disconnected)
    }

    fn copy_if_due(&mut self) -> Result<()> {
        let copier = match &mut self.copier {
            Some(copier) => copier,
            None => self.copier.insert(LogCopier::open(&self.source)?),
        };
        let (mut log_handle, Shared { limits, pages, copying, .. }) =
            (copier.log_handle(), &*self.shared);
        let log = log_handle.state()?;
        // Copied not long ago, and appended to ever since: once more would hardly be luckier.
        let again = log.pages - log.copied.min(log.pages) < limits.due / 4;
        if log.pages < limits.due {
            self.shared.restarted();
            return Ok(());
        }
        if again && log.pages < limits.pressing {
            return Ok(());
        }
        if self.shared.is_left_alone(log.pages) || self.shared.is_still_held(&mut log_handle)? {
            return Ok(());
        }
        // SQLite syncs the file only at the end of a pass during which nobody appended. With such a one
        // before it, the restart has little to wait for.
        for _ in 0..PASSES {
            let _copying = copying.lock();
            if let CheckpointResult::Done(log) = log_handle.copy()?
                && log.pages < limits.pressing
            {
                *self.shared.held.lock() = None;
                return Ok(());
            }
            let now = log_handle.state()?;
            let little = now.pages - now.copied.min(now.pages) < limits.due / 2;
            if now.is_copied() || little && now.pages >= u32::midpoint(limits.pressing, limits.most)
            {
                break;
            }
        }
        // A commit that was under way at the end of a pass goes on appending. A restart lets none be. Where
        // no other store writes it succeeds at once with the mutex held, for which callers wait as they
        // wait for each other, without asking again and again for the write lock.
        let held = self.writer.lock();
        let pass = self.shared.try_restart(&mut log_handle)?;
        drop(held);
        if !matches!(pass, CheckpointResult::Done(_)) {
            self.shared.restart(&mut log_handle, limits.pressing)?;
        }
        pages.store(0, Relaxed);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(Err(e)) = self.copier.take().map(LogCopier::close) {
            log::warn!("{e}");
        }
    }
}
