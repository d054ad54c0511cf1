//! Copying the write-ahead log into the file: SQLite's checkpoints.
//!
//! Owns the three kinds of checkpoint, on the store's own connection or on a second one. What always holds:
//!
//! - Before each checkpoint, the files are checked to be the opened ones: an old log must not be copied over
//!   what other connections have written since. All frames that it may copy are checked too, because SQLite
//!   itself checks them only in a recovery: see [`log_is_damaged`].
//! - A *copy* (passive) does not wait, and no other connection waits for it. It cannot finish while others
//!   append, and it does not copy over pages that a reader's snapshot may need.
//! - A *restart* first waits shortly for the write lock. Under it, it copies the rest and waits shortly for
//!   readers. Then the next commit restarts the log. Without the write lock it is a copy. Writers wait for
//!   it as long as the disk takes, and at most [`MAX_PAUSES`] short pauses for a reader.
//! - A *truncation* is a restart that also cuts the log to length 0.

use std::ffi::c_int;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OptionalExtension};

use super::second_connection::ConnectionSource;
use super::{Journal, Location};
use crate::backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, OpenedFiles, shown, wal};
use crate::format::open;
use crate::format::sqlite_errors::failure;

/// How many short pauses a restart waits for the write lock and for readers: about 5 ms in all.
const MAX_PAUSES: i32 = 40;

const LOG_STATE: &str = "PRAGMA wal_checkpoint(NOOP)";
const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";
const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";

/// The length of the log at one moment, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogState {
    pub(crate) pages: u32,
    /// How many of them are in the file too.
    pub(crate) copied: u32,
}

impl LogState {
    /// Returns whether all of the log is in the file, so that the next transaction restarts the log.
    pub(crate) fn is_copied(self) -> bool {
        self.copied >= self.pages
    }
}

/// The result of a copy or a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointResult {
    /// All of the log is in the file. The next commit restarts the log, unless a commit was appended after
    /// a copy.
    Done(LogState),
    /// Writers or readers were in the way.
    Partial(LogState),
    /// Another connection is running a checkpoint.
    Busy,
}

/// How many frames a check of the files reads, in their order: about 0.5 ms. The next check goes on from there.
pub(super) const FRAMES_PER_CHECK: u32 = 1_000;

/// For a check before a checkpoint.
pub(super) const ALL_FRAMES: u32 = u32::MAX;

/// Returns whether frames that SQLite has committed are no longer in the log as SQLite wrote them: another
/// program cut the log or wrote over it. Returns false if the log is gone, and if SQLite cannot tell its
/// length, as within a transaction.
///
/// SQLite reads and copies the frames that its index lists without checking their checksums, and it writes
/// each frame at its place. So after a cut, the next commit makes the log as long as it was, with a hole of
/// zeros that ends with the frame that was the last one at the cut. The length therefore tells nothing, and
/// each frame is read once, in order. A hole that a later cut makes ends in a later frame, or in the frame
/// that was read last, and that one is read again. One call reads at most `most` further frames, and always
/// the last one.
///
/// This cannot notice a log that is cut, and written to, between this check and the copy.
pub(super) fn log_is_damaged(connection: &Connection, files: &mut OpenedFiles, most: u32) -> bool {
    if rusqlite::version_number() < open::MIN_NOOP_VERSION || !connection.is_autocommit() {
        return false;
    }
    let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0));
    let Ok(page_bytes) = page_bytes else { return false };
    // Two tries, each of which reads the header before and after: another process may restart the log, and
    // cut it, at any moment.
    for _ in 0..2 {
        let Some(file) = files.open_log() else { return false };
        let Ok(header) = wal::header(&file) else { return false };
        let Ok(log) = log_state(connection) else { return false };
        if log.pages == 0 {
            return false;
        }
        // Frames that were copied already need no check: transactions read their pages from the file.
        let first = match (files.intact_frames, header) {
            (Some((known, frames)), Some(header)) if known == header => frames.min(log.pages),
            _ => log.copied.clamp(1, log.pages),
        };
        let last = log.pages.min(first.saturating_add(most));
        let is_whole = header.is_some_and(|header| {
            [first..=last, log.pages..=log.pages].into_iter().all(|frames| {
                wal::has_frames(&file, &header, page_bytes, frames).unwrap_or_else(|e| {
                    log::debug!(error:% = e; "cannot read the frames of a log: {e}");
                    true
                })
            })
        });
        if is_whole {
            files.intact_frames = header.map(|header| (header, last));
            return false;
        }
        if wal::header(&file).ok() != Some(header) {
            return false;
        }
    }
    true
}

/// A connection and its files, ready for the checkpoints that the module's header describes.
pub(crate) struct LogHandle<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) files: &'c mut OpenedFiles,
    pub(super) path: &'c Path,
}

impl LogHandle<'_> {
    pub(crate) fn state(&self) -> Result<LogState> {
        self.with_context(log_state(self.connection))
    }

    pub(crate) fn copy(&mut self) -> Result<CheckpointResult> {
        self.check_files()?;
        self.with_context(run_checkpoint(self.connection, COPY))
    }

    pub(crate) fn restart(&mut self) -> Result<CheckpointResult> {
        self.check_files()?;
        let done = restart(self.connection);
        self.with_context(done)
    }

    fn check_files(&mut self) -> Result<()> {
        self.files.check()?;
        if log_is_damaged(self.connection, self.files, ALL_FRAMES) {
            return Err(file::damaged_log(self.path));
        }
        Ok(())
    }

    fn with_context<T>(&self, done: rusqlite::Result<T>) -> Result<T> {
        done.map_err(|e| failure("checkpoint", &shown(self.path), e))
    }
}

fn log_state(connection: &Connection) -> rusqlite::Result<LogState> {
    Ok(match run_checkpoint(connection, LOG_STATE)? {
        CheckpointResult::Done(log) | CheckpointResult::Partial(log) => log,
        CheckpointResult::Busy => LogState::default(), // There is no log.
    })
}

fn run_checkpoint(connection: &Connection, pragma: &str) -> rusqlite::Result<CheckpointResult> {
    let (busy, pages, copied) = connection
        .prepare_cached(pragma)?
        .query_row([], |row| Ok((row.get::<_, i64>(0)? != 0, row.get(1)?, row.get(2)?)))?;
    let pages_of = |pages: i64| u32::try_from(pages).ok();
    let log =
        pages_of(pages).zip(pages_of(copied)).map(|(pages, copied)| LogState { pages, copied });
    Ok(match (log, busy) {
        (Some(log), false) => CheckpointResult::Done(log),
        (Some(log), true) => CheckpointResult::Partial(log),
        (None, true) => CheckpointResult::Busy,
        (None, false) => CheckpointResult::Done(LogState::default()),
    })
}

fn restart(connection: &mut Connection) -> rusqlite::Result<CheckpointResult> {
    connection.busy_handler(Some(pause_while_busy))?;
    let done = run_checkpoint(connection, RESTART);
    // Every other statement of this connection fails at once when it is busy.
    connection.busy_timeout(Duration::ZERO)?;
    done
}

fn pause_while_busy(waits: i32) -> bool {
    if waits < MAX_PAUSES {
        backoff::short_pause();
    }
    waits < MAX_PAUSES
}

/// Cuts the log to length 0. Returns true if nothing of the log is left.
pub(super) fn truncate_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
        .optional()
        .map(|done| done.unwrap_or(true))
}

/// Copies the log, if `may_copy`, before its connection closes. Returns an error if a part of the log is not
/// in the file afterwards.
pub(super) fn copy_log_before_close(
    connection: &Connection,
    name: &str,
    may_copy: bool,
) -> Result<()> {
    let copied = if may_copy { truncate_log(connection).map(drop) } else { Ok(()) };
    let lost = "data that only its log holds may be lost";
    match copied.and_then(|()| log_state(connection)) {
        Ok(log) if log.is_copied() => Ok(()),
        Ok(_) if may_copy => Err(Error::new(
            ErrorKind::FileReplaced,
            format!(
                "{name}: {lost}, because a reader prevents copying the log; look for the newest ids"
            ),
        )),
        Ok(_) => Err(Error::new(
            ErrorKind::FileReplaced,
            format!(
                "{name}: {lost}, because the log cannot be copied any more; look for the newest ids"
            ),
        )),
        Err(e) => Err(failure("copy the log of", &format!("{name} ({lost})"), e)),
    }
}

impl Journal {
    /// Returns where a second connection that copies the log comes from. `None` if there can be none, or if SQLite keeps
    /// the log short by itself.
    pub(crate) fn log_source(&self) -> Option<ConnectionSource> {
        self.connection_source().filter(|_| open::keeps_log_short(&self.config))
    }

    /// Returns how many rows this connection has changed so far.
    pub(crate) fn total_changes(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.total_changes())
    }

    /// Makes SQLite report the length of the log after each commit. To be called after a connection was opened.
    pub(super) fn watch_log(&mut self) -> Result<()> {
        if !open::keeps_log_short(&self.config) {
            return Ok(()); // A hook would switch off SQLite's own checkpoints.
        }
        let pages = Arc::clone(&self.log_pages);
        let watch = move |_: &mut Wal, in_log: c_int| {
            pages.store(in_log.try_into().unwrap_or(0), Relaxed);
            Ok(())
        };
        let connection = self.connection.as_mut().expect("the caller has opened it");
        let watched = connection.wal_hook(Some(watch));
        watched.map_err(|e| self.failure("watch the log of", e))
    }

    /// Returns the length of the log after the last commit of this connection; 0 if that was taken before.
    pub(crate) fn take_log_pages(&self) -> u32 {
        self.log_pages.swap(0, Relaxed)
    }

    /// Returns access to the log through the store's own connection; `None` for a store in memory.
    pub(crate) fn log_handle(&mut self) -> Result<Option<LogHandle<'_>>> {
        self.ensure_open()?;
        Ok(match (&mut self.location, &mut self.connection) {
            (Location::File { path, files, .. }, Some(connection)) => {
                Some(LogHandle { connection, files, path })
            }
            _ => None,
        })
    }

    /// Copies the log into the file and cuts it to length 0.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        self.refuse_read_only()?;
        self.check_files(ALL_FRAMES)?;
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

    use super::super::second_connection::SecondConnection;
    use super::*;
    use crate::config::Config;

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
            let source = ConnectionSource { path: path.clone(), identity, config };
            let mut copier = SecondConnection::open(&source).unwrap();
            copier.log_handle().copy().unwrap();
            let insert = "INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)";
            store.connection.execute(insert, []).unwrap();
            spoil(&path);
            let modified = || path.metadata().unwrap().modified().unwrap();
            let before = modified();
            let error = copier.log_handle().copy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileReplaced, "{error}");
            assert!(error.to_string().contains(&format!("seen.db{named} ")), "{error}");
            copier.close().unwrap();
            assert_eq!(modified(), before, "the file was written to");
        }
    }
}
