//! The thread that copies the write-ahead log into the file, so that no commit has to.
//!
//! Owns when it starts, what it is told and when it ends. What always holds:
//!
//! - It copies beside the callers, on a connection of its own; they go on committing. A log that is copied
//!   whole while nobody commits is begun anew by the next commit.
//! - Where commits come so thick that no pass ever catches up with them, it takes the mutex for the little
//!   that is left: callers then wait for that, once for three quarters of `wal_autocheckpoint`.
//! - A log that has come to all of `wal_autocheckpoint` under a pass, because the disk is slow, grows no
//!   further: the next commit waits for the pass, and copies the rest.
//! - It begins with the first log that is worth the trouble, and has ended before the store's own
//!   connection closes, so that this one closes last and removes the log.
//!
//! A failure is logged and nobody's: the log grows on, until a commit copies it as SQLite does by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Config;
use crate::error::Result;
use crate::journal::{Journal, LogCopier, Source};
use crate::patience::Patience;
use crate::store::engine::SharedWriter;

/// After how many pages of log, by an estimate, SQLite is asked how many there are.
const PAGES_A_LOOK: u64 = 512;

/// The smallest `wal_autocheckpoint` that a thread is used for. A commit copies less than that in no time.
const WORTH_A_THREAD: u32 = 1_000;

/// How long a work in no hurry waits for the log to be copied, between two of its steps.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// How often a long log is copied beside the callers before they are made to wait.
const PASSES: usize = 32;

/// See the module's header.
pub(crate) struct Checkpoints {
    /// `None` where a commit has to do it, or nobody.
    source: Option<Source>,
    writer: SharedWriter,
    limits: Limits,
    /// Commits since the last look at the log.
    commits: AtomicU32,
    /// The connection's changed rows by then.
    changes: AtomicU64,
    /// Pages of a log that the thread was told to copy, when somebody looked last; 0 once the next commit
    /// will begin it anew, and where the thread cannot help.
    pages: Arc<AtomicU32>,
    /// Held while the thread copies beside the callers.
    copying: Arc<Mutex<()>>,
    thread: Mutex<Thread>,
}

/// From how many pages on the log is copied: beside the callers, with the mutex held, by a commit.
#[derive(Clone, Copy)]
struct Limits {
    due: u32,
    pressing: u32,
    most: u32,
}

enum Thread {
    NotNeeded,
    Runs { tell: SyncSender<()>, handle: JoinHandle<()> },
    Over,
}

impl Checkpoints {
    pub(crate) fn new(source: Option<Source>, writer: SharedWriter, config: &Config) -> Self {
        Self {
            source: source.filter(|_| config.wal_autocheckpoint >= WORTH_A_THREAD),
            writer,
            limits: Limits {
                due: config.wal_autocheckpoint / 2,
                pressing: config.wal_autocheckpoint / 4 * 3,
                most: config.wal_autocheckpoint,
            },
            commits: AtomicU32::new(0),
            changes: AtomicU64::new(0),
            pages: Arc::default(),
            copying: Arc::default(),
            thread: Mutex::new(Thread::NotNeeded),
        }
    }

    /// Takes note of a commit. The mutex is held.
    pub(crate) fn committed(&self, journal: &mut Journal) {
        let Some(source) = &self.source else { return };
        let commits = self.commits.load(Relaxed) + 1;
        let changes = journal.total_changes();
        // Rows that follow each other share a page, a dozen of them; others do not.
        let pages = u64::from(commits) * 2 + changes.abs_diff(self.changes.load(Relaxed)) / 2;
        if pages < PAGES_A_LOOK {
            self.commits.store(commits, Relaxed);
            return;
        }
        self.commits.store(0, Relaxed);
        self.changes.store(changes, Relaxed);
        if let Err(e) = self.look(source, journal) {
            log::warn!("a checkpoint is put off: {e}");
        }
    }

    fn look(&self, source: &Source, journal: &mut Journal) -> Result<()> {
        let pages = journal.log_pages()?;
        if pages < self.limits.due {
            self.pages.store(0, Relaxed);
            return Ok(());
        }
        let told = self.tell(source);
        self.pages.store(if told { pages } else { 0 }, Relaxed);
        if pages >= self.limits.most {
            let _pass_is_over = self.copying.lock();
            journal.copy_log()?;
            self.pages.store(0, Relaxed);
        }
        Ok(())
    }

    /// For work that is in no hurry: waits a little while the log is long and being copied. No lock is
    /// held.
    pub(crate) fn wait_while_pressing(&self) {
        if self.source.is_none() {
            return;
        }
        let mut patience = Patience::new(LONGEST_WAIT);
        while self.pages.load(Relaxed) >= self.limits.pressing && patience.pause() {}
    }

    /// False where there is no thread to tell.
    fn tell(&self, source: &Source) -> bool {
        let mut thread = self.thread.lock();
        if matches!(*thread, Thread::NotNeeded) {
            *thread = self.start(source.clone());
        }
        if let Thread::Runs { tell, .. } = &*thread {
            // Full: it has been told already.
            return !matches!(tell.try_send(()), Err(TrySendError::Disconnected(())));
        }
        false
    }

    fn start(&self, source: Source) -> Thread {
        let (tell, told) = sync_channel(1);
        let work = Work {
            source,
            writer: Arc::clone(&self.writer),
            pages: Arc::clone(&self.pages),
            copying: Arc::clone(&self.copying),
            limits: self.limits,
            copier: None,
            copied: 0,
        };
        let spawned = std::thread::Builder::new()
            .name("seen-checkpoint".into())
            .spawn(move || work.whenever_told(&told));
        match spawned {
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

/// What the thread has.
struct Work {
    source: Source,
    writer: SharedWriter,
    pages: Arc<AtomicU32>,
    copying: Arc<Mutex<()>>,
    limits: Limits,
    copier: Option<LogCopier>,
    /// How long the log was after the last pass.
    copied: u32,
}

impl Work {
    fn whenever_told(mut self, told: &Receiver<()>) {
        while told.recv().is_ok() {
            if let Err(e) = self.copy_if_due() {
                log::warn!("a checkpoint is put off: {e}");
                // Whatever happened to this connection, the next attempt has a fresh one.
                self.close();
                self.pages.store(0, Relaxed);
            }
        }
        self.close();
    }

    fn copy_if_due(&mut self) -> Result<()> {
        let copier = match &self.copier {
            Some(copier) => copier,
            None => self.copier.insert(LogCopier::open(&self.source)?),
        };
        let mut pages = copier.pages()?;
        // Copied not long ago, and appended to ever since: once more would hardly be luckier.
        let again = pages >= self.copied && pages - self.copied < self.limits.due / 4;
        if pages < self.limits.due || again && pages < self.limits.pressing {
            return Ok(());
        }
        // SQLite syncs the file only at the end of a pass during which nobody appended. With such a one
        // before it, the last pass has little to wait for.
        for _ in 0..PASSES {
            let _copying = self.copying.lock();
            pages = copier.copy()?;
            self.copied = pages;
            if pages < self.limits.pressing {
                return Ok(());
            }
            let now = copier.pages()?;
            if now == pages || now >= u32::midpoint(self.limits.pressing, self.limits.most) {
                break;
            }
        }
        // A commit that was under way at the end of a pass goes on appending. Now none is.
        let _held = self.writer.lock();
        copier.copy()?;
        self.pages.store(0, Relaxed);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(Err(e)) = self.copier.take().map(LogCopier::close) {
            log::warn!("{e}");
        }
    }
}
