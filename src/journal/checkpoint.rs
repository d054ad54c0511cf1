//! The copying of the write-ahead log into the file: SQLite's checkpoints.
//!
//! Owns both ways: whole, and then cut to nothing; or as far as it goes while others commit and read
//! (passive), from the store's own connection or from one beside it. A passive one never waits for
//! anybody; what is in use stays in the log. What always holds: before each, the files are found to be
//! those that were opened. An old log must not be copied over what others have written since.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension};

use super::{Begun, Home, Journal};
use crate::config::Config;
use crate::error::Result;
use crate::file::wal::bytes_of_frames;
use crate::file::{self, Identity, OpenedFiles, shown};
use crate::process::Own;
use crate::schema::connect;
use crate::schema::failure::{failure, is_busy};

/// The first version that can tell how long the log is without copying it.
const KNOWS_NOOP: i32 = 3_051_000;

/// What a second connection to a store's file needs to know.
#[derive(Clone)]
pub(crate) struct Source {
    path: PathBuf,
    identity: Identity,
    config: Config,
}

const LOOK: &str = "PRAGMA wal_checkpoint(NOOP)";
const COPY: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// See the module's header.
pub(crate) struct LogCopier {
    connection: Own<Connection>,
    files: OpenedFiles,
    path: PathBuf,
}

impl LogCopier {
    pub(crate) fn open(source: &Source) -> Result<Self> {
        let (connection, files) = connect::reopen(&source.path, &source.config, source.identity)?;
        Ok(Self { connection, files, path: source.path.clone() })
    }

    /// How long the log is.
    pub(crate) fn pages(&self) -> Result<u32> {
        pages_after(LOOK, &self.connection, &shown(&self.path))
    }

    /// Copies what can be copied now, and waits for the disk. Returns how long the log is. If nobody
    /// else was at work all of it was copied, and the next commit begins it anew.
    pub(crate) fn copy(&self) -> Result<u32> {
        self.files.check()?;
        if log_is_cut(&self.connection, &self.files) {
            return Err(file::cut_log(&self.path));
        }
        pages_after(COPY, &self.connection, &shown(&self.path))
    }

    pub(crate) fn close(self) -> Result<()> {
        let Self { connection, files, path } = self;
        let may_copy_log = files.may_copy_log() && !log_is_cut(&connection, &files);
        file::close_alone(|| connect::close_store(connection, files, may_copy_log))
            .map_err(|e| failure("close", &shown(&path), e))
    }
}

/// Whether the log file is shorter than the log that SQLite has in it: it was cut by other means. SQLite
/// itself first says in the index that the log is empty, and then cuts the file. False where the log is
/// gone, and where SQLite cannot tell, as within a transaction.
pub(super) fn log_is_cut(connection: &Connection, files: &OpenedFiles) -> bool {
    if rusqlite::version_number() < KNOWS_NOOP || !connection.is_autocommit() {
        return false;
    }
    let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0));
    let Ok(page_bytes) = page_bytes else { return false };
    // Twice, and each time the file is measured before and after: another process may begin the log
    // anew, and cut it, at any moment.
    (0..2).all(|_| {
        let Some(bytes) = files.log_bytes() else { return false };
        let Ok(frames) = pages_after(LOOK, connection, "the log") else { return false };
        let too_short = frames > 0 && bytes < bytes_of_frames(frames, page_bytes);
        too_short && files.log_bytes() == Some(bytes)
    })
}

fn pages_after(pragma: &str, connection: &Connection, name: &str) -> Result<u32> {
    let pages = connection
        .prepare_cached(pragma)
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(1)));
    // Negative where there is no log.
    pages.map(|pages| u32::try_from(pages).unwrap_or(0)).map_err(|e| failure("checkpoint", name, e))
}

/// True when nothing of the log is left.
pub(super) fn truncate_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
        .optional()
        .map(|done| done.unwrap_or(true))
}

impl Journal {
    /// Where a second connection can copy the log; `None` where none can, or none may, or where SQLite
    /// is too old to tell how long the log is.
    pub(crate) fn log_source(&self) -> Option<Source> {
        let Home::File { path, files, .. } = &self.home else { return None };
        if self.config.exclusive || self.config.read_only || rusqlite::version_number() < KNOWS_NOOP
        {
            return None;
        }
        Some(Source { path: path.clone(), identity: files.database(), config: self.config.clone() })
    }

    /// How many rows this connection has changed so far.
    pub(crate) fn total_changes(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.total_changes())
    }

    /// How long the log is.
    pub(crate) fn log_pages(&mut self) -> Result<u32> {
        self.ensure_open()?;
        pages_after(LOOK, self.open_connection(), &self.name())
    }

    /// Copies what can be copied now, and waits for the disk.
    pub(crate) fn copy_log(&mut self) -> Result<u32> {
        self.ensure_open()?;
        self.check_files()?;
        pages_after(COPY, self.open_connection(), &self.name())
    }

    /// Copies the log into the file and cuts it to nothing.
    pub(crate) fn checkpoint(&mut self) -> Result<Begun> {
        self.refuse_read_only()?;
        self.check_files()?;
        match truncate_log(self.connection()?) {
            Ok(true) => Ok(Begun::Ready),
            Ok(false) => Ok(Begun::Busy),
            Err(e) if is_busy(&e) => Ok(Begun::Busy),
            Err(e) => Err(self.failure("checkpoint", e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::ErrorKind;

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
            let store = connect::open(&path, &config, 1).unwrap();
            let identity = store.files.database();
            let source = Source { path: path.clone(), identity, config };
            let copier = LogCopier::open(&source).unwrap();
            copier.copy().unwrap();
            let insert = "INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)";
            store.connection.execute(insert, []).unwrap();
            spoil(&path);
            let modified = || path.metadata().unwrap().modified().unwrap();
            let before = modified();
            let error = copier.copy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileReplaced, "{error}");
            assert!(error.to_string().contains(&format!("seen.db{named} ")), "{error}");
            copier.close().unwrap();
            assert_eq!(modified(), before, "the file was written to");
        }
    }
}
