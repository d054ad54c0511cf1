//! The checkpoint thread: it copies the write-ahead log into the database file, so that no commit has to.
//!
//! Owns when the thread starts, what wakes it and when it stops. What always holds, with `w` for
//! `wal_autocheckpoint`:
//!
//! - From `w / 2` pages on, the thread copies the log on a connection of its own while callers go on
//!   committing. Once the whole log is copied and no commit is running, the next commit starts the log again
//!   from its beginning.
//! - When commits are so frequent that no pass reaches the end of the log, in this store or in others on the
//!   file, the thread restarts the log from `w * 3 / 4` pages on. All writers of all stores then wait while
//!   the small rest is copied.
//! - A log that reaches `w` pages during a pass, because the disk is slow or there are many writers, grows no
//!   further. A commit that finds such a log waits for the pass to end and then restarts the log itself. Each
//!   store does so. The log therefore stays below `w`, plus the size of one transaction for each store.
//! - An open snapshot (a backup, a verify, a program that reads) prevents a restart of the log. The restart
//!   is tried for a short time, and then not again for `RETRY_BLOCKED_AFTER`. The log grows meanwhile.
//! - The thread starts when the log first reaches `w / 2`. It has stopped before the store's own connection
//!   closes, so that this connection closes last and removes the log. Where `w` is small there is no thread,
//!   and commits copy the log.
//!
//! In exclusive mode a second connection is not possible: the commit that finds the log at `w` copies it.
//!
//! A failure is logged and never returned to a caller. The log then grows until a later commit finds it long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Stopwatch;
use crate::config::Config;
use crate::engine::SharedWriter;
use crate::engine::background::Background;
use crate::error::{Error, Result};
use crate::journal::{
    CheckpointResult, ConnectionSource, Journal, LogHandle, LogState, SecondConnection,
};
use crate::machine::{Mutex, Receiver, RecvTimeoutError};

/// By how many pages the log grows before the thread is woken again.
const PAGES_BETWEEN_WAKE_UPS: u32 = 512;

/// The smallest `wal_autocheckpoint` that a thread is used for. A commit copies a shorter log at no
/// noticeable cost.
const MIN_PAGES_FOR_THREAD: u32 = 1_000;

/// How long background work waits for the log to be copied, between two of its steps.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// How many passes copy a long log while callers go on, before callers are made to wait.
const MAX_PASSES: usize = 32;

/// How long a restart of the log is tried. A commit that finds the log too long waits for at most this time.
const RESTART_TIMEOUT: Duration = Duration::from_millis(250);

/// After how many restarts in a row without progress a snapshot must be blocking the log, and not a reader
/// that ends soon.
const STALLED_RESTARTS: u32 = 3;

/// How long a log that a snapshot blocks is not tried again, unless it grows by `wal_autocheckpoint` before.
const RETRY_BLOCKED_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Checkpointer {
    /// `None` where no second connection is possible (exclusive mode), where SQLite checkpoints by itself,
    /// and where the log is never copied.
    source: Option<ConnectionSource>,
    writer: SharedWriter,
    /// Length of the log in pages when the thread was last woken; 0 after the log was short again.
    woken_at: AtomicU32,
    shared: Arc<Shared>,
    thread: Background,
}

/// What commits and the thread share.
struct Shared {
    limits: Limits,
    /// The last known length in pages of a log that the thread is to copy. 0 once the next commit starts the
    /// log again, and where the thread cannot help.
    pages: AtomicU32,
    /// Locked while the log is copied or restarted.
    copying: Mutex<()>,
    /// Set while a snapshot prevents a restart of the log.
    blocked: Mutex<Option<BlockedLog>>,
}

/// The lengths of the log in pages from which the thread copies it (`due`), the thread restarts it (`long`),
/// and a commit restarts it (`max`).
#[derive(Clone, Copy)]
struct Limits {
    due: u32,
    long: u32,
    max: u32,
}

/// A log that a snapshot prevents from being copied any further.
struct BlockedLog {
    log: LogState,
    since: Stopwatch,
}

impl Shared {
    fn is_blocked(&self) -> bool {
        self.blocked.lock().is_some()
    }

    /// Returns true when a log of this length was blocked a short time ago, so that another try would fail
    /// too.
    fn is_blocked_recently(&self, pages: u32) -> bool {
        self.blocked.lock().as_ref().is_some_and(|blocked| {
            (blocked.log.pages..blocked.log.pages.saturating_add(self.limits.max)).contains(&pages)
                && blocked.since.elapsed() < RETRY_BLOCKED_AFTER
        })
    }

    /// Returns true when a blocked log is still blocked. A pass over such a log copies nothing and is cheap.
    fn is_still_blocked(&self, log_handle: &mut LogHandle<'_>) -> Result<bool> {
        let Some(copied) = self.blocked.lock().as_ref().map(|blocked| blocked.log.copied) else {
            return Ok(false);
        };
        let blocked = match log_handle.copy()? {
            CheckpointResult::Partial(log) | CheckpointResult::Done(log)
                if log.copied == copied && !log.is_copied() =>
            {
                log
            }
            CheckpointResult::Busy => return Ok(true),
            _ => return Ok(false),
        };
        self.set_blocked(blocked);
        Ok(true)
    }

    fn set_blocked(&self, log: LogState) {
        self.pages.store(0, Relaxed);
        *self.blocked.lock() = Some(BlockedLog { log, since: Stopwatch::start() });
    }

    /// Waits for this store's running pass, then tries to restart the log once.
    fn try_restart(&self, log_handle: &mut LogHandle<'_>) -> Result<CheckpointResult> {
        let Some(_no_pass_runs) = self.copying.try_lock_for(RESTART_TIMEOUT) else {
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
        *self.blocked.lock() = None;
    }

    /// Restarts the log, in several tries. Also stops when another store has restarted it, and when a
    /// snapshot blocks it.
    fn restart(&self, log_handle: &mut LogHandle<'_>, until_below: u32) -> Result<()> {
        let mut backoff = Backoff::new(RESTART_TIMEOUT);
        let (mut stalled, mut copied) = (0, None);
        loop {
            let log = match self.try_restart(log_handle)? {
                CheckpointResult::Done(_) => return Ok(()),
                // All is copied: another connection writes, or reads the end of the log.
                CheckpointResult::Partial(log) if log.is_copied() => log,
                CheckpointResult::Partial(log) => {
                    stalled = if copied.replace(log.copied) == Some(log.copied) {
                        stalled + 1
                    } else {
                        1
                    };
                    log
                }
                CheckpointResult::Busy => log_handle.state()?,
            };
            if log.pages < until_below {
                self.restarted();
                return Ok(());
            }
            if stalled >= STALLED_RESTARTS {
                self.set_blocked(log);
                return Ok(());
            }
            if !backoff.pause() {
                return Ok(());
            }
        }
    }
}

impl Checkpointer {
    pub(crate) fn new(
        source: Option<ConnectionSource>,
        writer: SharedWriter,
        config: &Config,
    ) -> Self {
        let limits = Limits {
            due: config.wal_autocheckpoint / 2,
            long: config.wal_autocheckpoint - config.wal_autocheckpoint / 4,
            max: config.wal_autocheckpoint,
        };
        Self {
            source,
            writer,
            woken_at: AtomicU32::new(0),
            shared: Arc::new(Shared {
                limits,
                pages: AtomicU32::new(0),
                copying: Mutex::new(()),
                blocked: Mutex::new(None),
            }),
            thread: Background::new("seen-checkpoint"),
        }
    }

    /// Checks the length of the log after a commit. The caller holds the mutex.
    pub(crate) fn after_commit(&self, journal: &mut Journal) {
        let (pages, shared) = (journal.take_log_pages(), &self.shared);
        let Some(source) = &self.source else {
            if pages > 0
                && pages >= shared.limits.max
                && let Err(e) = copy_in_exclusive_mode(journal)
            {
                put_off(&journal.name(), &e);
            }
            return;
        };
        if pages < shared.limits.due {
            if pages > 0 && self.woken_at.swap(0, Relaxed) > 0 {
                shared.pages.store(0, Relaxed);
            }
            return;
        }
        if let Err(e) = self.limit_log(source, journal, pages) {
            put_off(&source.name(), &e);
        }
    }

    fn limit_log(
        &self,
        source: &ConnectionSource,
        journal: &mut Journal,
        pages: u32,
    ) -> Result<()> {
        let (Limits { max, .. }, shared) = (self.shared.limits, &self.shared);
        if shared.is_blocked_recently(pages) {
            return Ok(());
        }
        let woken_at = self.woken_at.load(Relaxed);
        if woken_at == 0
            || !(woken_at..woken_at.saturating_add(PAGES_BETWEEN_WAKE_UPS)).contains(&pages)
        {
            let is_woken = self.wake(source);
            self.woken_at.store(pages, Relaxed);
            shared.pages.store(if is_woken { pages } else { 0 }, Relaxed);
        }
        if pages < max {
            return Ok(());
        }
        // A log that was blocked is long. Once it can be copied, the thread copies it before commits do.
        let left_to_thread = self.thread.is_running() && shared.is_blocked();
        if left_to_thread {
            return Ok(());
        }
        let Some(mut log_handle) = journal.log_handle()? else { return Ok(()) };
        if shared.is_still_blocked(&mut log_handle)? {
            return Ok(());
        }
        shared.restart(&mut log_handle, max)
    }

    /// Waits for up to `MAX_WAIT` while the log is long and being copied. For background work; the caller
    /// holds no lock.
    pub(crate) fn wait_while_log_is_long(&self) {
        if self.source.is_none() {
            return;
        }
        let mut backoff = Backoff::new(MAX_WAIT);
        let Shared { pages, limits, .. } = &*self.shared;
        while pages.load(Relaxed) >= limits.long && backoff.pause() {}
    }

    /// Wakes the thread. Returns false where there is none.
    fn wake(&self, source: &ConnectionSource) -> bool {
        if self.shared.limits.max < MIN_PAGES_FOR_THREAD {
            return false;
        }
        self.thread.wake(|| {
            let worker = Worker {
                source: source.clone(),
                writer: Arc::clone(&self.writer),
                shared: Arc::clone(&self.shared),
                copier: None,
            };
            move |wake_ups: &Receiver<()>| worker.run(wake_ups)
        })
    }

    /// Stops the thread for good. The caller must not hold the mutex: the thread may be waiting for it.
    pub(crate) fn stop(&self) {
        self.thread.stop();
    }
}

/// Logs that a checkpoint failed. A later one does its work.
fn put_off(file: &str, e: &Error) {
    log::warn!(file = file, error:% = e, error_kind = e.kind().word(); "a checkpoint is put off: {e}");
}

/// Copies the log in exclusive mode. No other connection has the file, so the copy is complete and the next
/// commit starts the log again.
fn copy_in_exclusive_mode(journal: &mut Journal) -> Result<()> {
    match journal.log_handle()? {
        Some(mut log_handle) => log_handle.copy().map(drop),
        None => Ok(()),
    }
}

/// The state of the checkpoint thread.
struct Worker {
    source: ConnectionSource,
    writer: SharedWriter,
    shared: Arc<Shared>,
    copier: Option<SecondConnection>,
}

impl Worker {
    fn run(mut self, wake_ups: &Receiver<()>) {
        while self.wait_for_work(wake_ups) {
            if let Err(e) = self.copy_if_due() {
                put_off(&self.source.name(), &e);
                // This connection may be unusable: the next attempt opens a new one.
                self.close();
                self.shared.pages.store(0, Relaxed);
            }
        }
        self.close();
    }

    /// Waits until the thread is woken; returns false when it is to stop. A blocked log is tried again after
    /// `RETRY_BLOCKED_AFTER`, even without new commits.
    fn wait_for_work(&self, wake_ups: &Receiver<()>) -> bool {
        if !self.shared.is_blocked() {
            return wake_ups.recv().is_ok();
        }
        wake_ups.recv_timeout(RETRY_BLOCKED_AFTER) != Err(RecvTimeoutError::Disconnected)
    }

    fn copy_if_due(&mut self) -> Result<()> {
        let copier = match &mut self.copier {
            Some(copier) => copier,
            None => self.copier.insert(SecondConnection::open(&self.source)?),
        };
        let (mut log_handle, Shared { limits, pages, copying, .. }) =
            (copier.log_handle(), &*self.shared);
        let log = log_handle.state()?;
        // Most of the log was copied a short time ago and commits have appended since: another pass would
        // probably not reach the end either.
        let copied_recently = log.pages - log.copied.min(log.pages) < limits.due / 4;
        if log.pages < limits.due {
            self.shared.restarted();
            return Ok(());
        }
        if copied_recently && log.pages < limits.long {
            return Ok(());
        }
        if self.shared.is_blocked_recently(log.pages)
            || self.shared.is_still_blocked(&mut log_handle)?
        {
            return Ok(());
        }
        // SQLite syncs the file only at the end of a pass during which no commit was appended. After such a
        // pass, a restart has little to wait for.
        for _ in 0..MAX_PASSES {
            let _copying = copying.lock();
            if let CheckpointResult::Done(log) = log_handle.copy()?
                && log.pages < limits.long
            {
                *self.shared.blocked.lock() = None;
                return Ok(());
            }
            let log = log_handle.state()?;
            let is_little_left = log.pages - log.copied.min(log.pages) < limits.due / 2;
            if log.is_copied()
                || is_little_left && log.pages >= u32::midpoint(limits.long, limits.max)
            {
                break;
            }
        }
        // A commit that was running at the end of a pass goes on appending. A restart keeps commits out.
        // Where no other store writes, a restart with the mutex held succeeds at once: callers wait for the
        // mutex as they wait for each other, and no thread has to ask repeatedly for the write lock.
        let guard = self.writer.lock();
        let pass = self.shared.try_restart(&mut log_handle)?;
        drop(guard);
        if !matches!(pass, CheckpointResult::Done(_)) {
            self.shared.restart(&mut log_handle, limits.long)?;
        }
        pages.store(0, Relaxed);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(Err(e)) = self.copier.take().map(SecondConnection::close) {
            let file = self.source.name();
            log::warn!(file = file.as_str(), error:% = e, error_kind = e.kind().word(); "{e}");
        }
    }
}
