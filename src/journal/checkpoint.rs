//! The copying of the write-ahead log into the file: SQLite's checkpoints.
//!
//! Owns the three ways, on the store's own connection or on one beside it. What always holds:
//!
//! - Before each, the files are found to be those that were opened: an old log must not be copied over what
//!   others have written since. And all frames that it may copy are found to be as SQLite wrote them, as
//!   SQLite itself finds out only in a recovery: see [`log_is_spoilt`].
//! - A *copy* (passive) waits for nobody and makes nobody wait. It cannot end while others append, and what
//!   a reader's snapshot may need is not copied over.
//! - A *restart* first waits a little for the write lock, then copies the rest while nobody can append, and
//!   waits a little for readers: the next commit begins the log anew. Where it does not get the write lock
//!   it is a copy. It makes writers wait for a disk, and never longer than [`WAITS`] short pauses for a
//!   reader.
//! - A *truncation* is a restart that cuts the log to nothing.

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OptionalExtension};

use super::{Home, Journal};
use crate::backoff;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, Identity, OpenedFiles, shown, wal};
use crate::format::open;
use crate::format::sqlite_errors::failure;
use crate::process::Own;

/// How often a restart waits for the write lock and for readers: some 5 ms in all.
const WAITS: i32 = 40;

/// What a second connection to a store's file needs to know.
#[derive(Clone)]
pub(crate) struct Source {
    path: PathBuf,
    identity: Identity,
    config: Config,
}

const LOG_STATE: &str = "PRAGMA wal_checkpoint(NOOP)";
const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";
const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";

/// The log at one moment, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) pages: u32,
    /// How many of them are in the file too.
    pub(crate) copied: u32,
}

impl Log {
    /// Whether all of it is in the file, so that a transaction that begins now begins it anew.
    pub(crate) fn is_copied(self) -> bool {
        self.copied >= self.pages
    }
}

/// What a copy or a restart came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// All that was asked for: the next commit begins the log anew, if nobody appended after a copy.
    Done(Log),
    /// Writers or readers were in the way.
    Partial(Log),
    /// Another connection is copying.
    Taken,
}

/// A connection with which the log is copied beside the callers.
pub(crate) struct LogCopier {
    connection: Own<Connection>,
    files: OpenedFiles,
    path: PathBuf,
}

impl LogCopier {
    pub(crate) fn open(source: &Source) -> Result<Self> {
        let (connection, files) = open::reopen(&source.path, &source.config, source.identity)?;
        Ok(Self { connection, files, path: source.path.clone() })
    }

    pub(crate) fn on_log(&mut self) -> OnLog<'_> {
        OnLog { connection: &mut self.connection, files: &mut self.files, path: &self.path }
    }

    pub(crate) fn close(self) -> Result<()> {
        let Self { connection, mut files, path } = self;
        let may_copy_log = files.may_copy_log() && !log_is_spoilt(&connection, &mut files, ALL);
        file::close_alone(|| open::close_store(connection, files, may_copy_log))
            .map_err(|e| failure("close", &shown(&path), e))
    }
}

/// How many frames a look at the files reads in their order: some 0.5 ms. The rest is left to the next.
pub(super) const SOME: u32 = 1_000;

/// Before a copy.
pub(super) const ALL: u32 = u32::MAX;

/// Whether frames that SQLite has committed are no longer in the log as they were written: it was cut, or
/// written over, by other means. False where the log is gone, and where SQLite cannot tell how long it is, as
/// within a transaction.
///
/// SQLite reads and copies the frames that it has in its index without looking at their checksums. It writes
/// each at its place: after a cut, the next commit makes the log as long as it was, with a hole of zeros
/// that ends with the frame that was the last at the cut. So the length tells nothing, and each frame is
/// read, once in their order: a hole of later ends in a later frame, or in the one that was read last, which
/// is read again. At most `most` frames are read on, and the last one always.
///
/// A log that is cut between this and the copy, and written to, goes unnoticed.
pub(super) fn log_is_spoilt(connection: &Connection, files: &mut OpenedFiles, most: u32) -> bool {
    if rusqlite::version_number() < open::KNOWS_NOOP || !connection.is_autocommit() {
        return false;
    }
    let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0));
    let Ok(page_bytes) = page_bytes else { return false };
    // Twice, and each time the header is read before and after: another process may begin the log anew, and
    // cut it, at any moment.
    for _ in 0..2 {
        let Some(file) = files.open_log() else { return false };
        let Ok(header) = wal::header(&file) else { return false };
        let Ok(log) = log_state(connection) else { return false };
        if log.pages == 0 {
            return false;
        }
        // No transaction reads what has been copied.
        let first = match (files.found_whole, header) {
            (Some((known, frames)), Some(header)) if known == header => frames.min(log.pages),
            _ => log.copied.clamp(1, log.pages),
        };
        let last = log.pages.min(first.saturating_add(most));
        let is_whole = header.is_some_and(|header| {
            [first..=last, log.pages..=log.pages].into_iter().all(|frames| {
                wal::has_frames(&file, &header, page_bytes, frames).unwrap_or_else(|e| {
                    log::debug!("cannot read a log: {e}");
                    true
                })
            })
        });
        if is_whole {
            files.found_whole = header.map(|header| (header, last));
            return false;
        }
        if wal::header(&file).ok() != Some(header) {
            return false;
        }
    }
    true
}

/// What can be done to the log: see the module's header.
pub(crate) struct OnLog<'c> {
    connection: &'c mut Connection,
    files: &'c mut OpenedFiles,
    path: &'c Path,
}

impl OnLog<'_> {
    pub(crate) fn state(&self) -> Result<Log> {
        self.told(log_state(self.connection))
    }

    pub(crate) fn copy(&mut self) -> Result<Pass> {
        self.check_files()?;
        self.told(pass(self.connection, COPY))
    }

    pub(crate) fn restart(&mut self) -> Result<Pass> {
        self.check_files()?;
        let done = restart(self.connection);
        self.told(done)
    }

    fn check_files(&mut self) -> Result<()> {
        self.files.check()?;
        if log_is_spoilt(self.connection, self.files, ALL) {
            return Err(file::cut_log(self.path));
        }
        Ok(())
    }

    fn told<T>(&self, done: rusqlite::Result<T>) -> Result<T> {
        done.map_err(|e| failure("checkpoint", &shown(self.path), e))
    }
}

fn log_state(connection: &Connection) -> rusqlite::Result<Log> {
    Ok(match pass(connection, LOG_STATE)? {
        Pass::Done(log) | Pass::Partial(log) => log,
        Pass::Taken => Log::default(), // There is no log.
    })
}

fn pass(connection: &Connection, pragma: &str) -> rusqlite::Result<Pass> {
    let (busy, pages, copied) = connection
        .prepare_cached(pragma)?
        .query_row([], |row| Ok((row.get::<_, i64>(0)? != 0, row.get(1)?, row.get(2)?)))?;
    let pages_of = |pages: i64| u32::try_from(pages).ok();
    let log = pages_of(pages).zip(pages_of(copied)).map(|(pages, copied)| Log { pages, copied });
    Ok(match (log, busy) {
        (Some(log), false) => Pass::Done(log),
        (Some(log), true) => Pass::Partial(log),
        (None, true) => Pass::Taken,
        (None, false) => Pass::Done(Log::default()),
    })
}

fn restart(connection: &mut Connection) -> rusqlite::Result<Pass> {
    connection.busy_handler(Some(wait_a_little))?;
    let done = pass(connection, RESTART);
    // Nothing else waits on a connection.
    connection.busy_timeout(Duration::ZERO)?;
    done
}

fn wait_a_little(waits: i32) -> bool {
    if waits < WAITS {
        backoff::short_pause();
    }
    waits < WAITS
}

/// True when nothing of the log is left.
pub(super) fn truncate_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
        .optional()
        .map(|done| done.unwrap_or(true))
}

/// Copies the log, where it may be copied, before its connection closes. An error where not all of it came
/// into the file.
pub(super) fn keep_log(connection: &Connection, name: &str, may_copy: bool) -> Result<()> {
    let copied = if may_copy { truncate_log(connection).map(drop) } else { Ok(()) };
    let lost = "what only its log holds may be lost";
    match copied.and_then(|()| log_state(connection)) {
        Ok(log) if log.is_copied() => Ok(()),
        Ok(_) if may_copy => Err(Error::new(
            ErrorKind::FileReplaced,
            format!("{name}: {lost}, because a reader keeps it from being copied"),
        )),
        Ok(_) => Err(Error::new(
            ErrorKind::FileReplaced,
            format!("{name}: {lost}, because it cannot be copied any more"),
        )),
        Err(e) => Err(failure("copy the log of", &format!("{name} ({lost})"), e)),
    }
}

impl Journal {
    /// Where a second connection can copy the log; `None` where none can, or where this crate does not keep
    /// it short.
    pub(crate) fn log_source(&self) -> Option<Source> {
        let Home::File { path, files, .. } = &self.home else { return None };
        if self.config.exclusive || !open::keeps_log_short(&self.config) {
            return None;
        }
        Some(Source { path: path.clone(), identity: files.database(), config: self.config.clone() })
    }

    /// How many rows this connection has changed so far.
    pub(crate) fn total_changes(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.total_changes())
    }

    /// Has SQLite tell after each commit how long the log is. Comes when a connection was opened.
    pub(super) fn watch_log(&mut self) -> Result<()> {
        if !open::keeps_log_short(&self.config) {
            return Ok(()); // SQLite would no longer copy the log by itself.
        }
        let pages = Arc::clone(&self.log_pages);
        let watch = move |_: &mut Wal, in_log: c_int| {
            pages.store(in_log.try_into().unwrap_or(0), Relaxed);
            Ok(())
        };
        let connection = self.connection.as_mut().expect("callers have opened it");
        let watched = connection.wal_hook(Some(watch));
        watched.map_err(|e| self.failure("watch the log of", e))
    }

    /// How long the log was after a commit of this connection; 0 when that was asked before.
    pub(crate) fn take_log_pages(&self) -> u32 {
        self.log_pages.swap(0, Relaxed)
    }

    /// The log, by way of the store's own connection; `None` where there is no file.
    pub(crate) fn on_log(&mut self) -> Result<Option<OnLog<'_>>> {
        self.ensure_open()?;
        Ok(match (&mut self.home, &mut self.connection) {
            (Home::File { path, files, .. }, Some(connection)) => {
                Some(OnLog { connection, files, path })
            }
            _ => None,
        })
    }

    /// Copies the log into the file and cuts it to nothing.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        self.refuse_read_only()?;
        self.check_files(ALL)?;
        match truncate_log(self.connection()?) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::try_again()),
            Err(e) => Err(self.failure("checkpoint", e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_log_that_was_taken_away_is_not_copied() {
        type Spoil = fn(&Path);
        let spoilers: [(&str, Spoil); 4] = [
            ("-wal", |path| std::fs::remove_file(file::beside(path, "-wal")).unwrap()),
            ("-shm", |path| std::fs::remove_file(file::beside(path, "-shm")).unwrap()),
            ("-wal", |path| {
                std::fs::rename(file::beside(path, "-shm"), file::beside(path, "-wal")).unwrap();
            }),
            ("-wal", |path| {
                let log = std::fs::OpenOptions::new().write(true).open(file::beside(path, "-wal"));
                log.unwrap().set_len(0).unwrap();
            }),
        ];
        for (named, spoil) in spoilers {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().canonicalize().unwrap().join("seen.db");
            let config = Config::default();
            let store = open::open(&path, &config, 1).unwrap();
            let identity = store.files.database();
            let source = Source { path: path.clone(), identity, config };
            let mut copier = LogCopier::open(&source).unwrap();
            copier.on_log().copy().unwrap();
            let insert = "INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)";
            store.connection.execute(insert, []).unwrap();
            spoil(&path);
            let modified = || path.metadata().unwrap().modified().unwrap();
            let before = modified();
            let error = copier.on_log().copy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileReplaced, "{error}");
            assert!(error.to_string().contains(&format!("seen.db{named} ")), "{error}");
            copier.close().unwrap();
            assert_eq!(modified(), before, "the file was written to");
        }
    }
}
