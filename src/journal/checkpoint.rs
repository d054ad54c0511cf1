//! The copying of the write-ahead log into the file: SQLite's checkpoints.
//!
//! Owns both ways: whole, and then cut to nothing; or as far as it goes while others commit and read
//! (passive), from the store's own connection or from one beside it. A passive one never waits for
//! anybody; what is in use stays in the log.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension};

use super::{Begun, Home, Journal};
use crate::config::Config;
use crate::error::Result;
use crate::file::{self, Identity, shown};
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
    name: String,
}

impl LogCopier {
    pub(crate) fn open(source: &Source) -> Result<Self> {
        let connection = connect::reopen(&source.path, &source.config, source.identity)?;
        Ok(Self { connection, name: shown(&source.path) })
    }

    /// How long the log is.
    pub(crate) fn pages(&self) -> Result<u32> {
        pages_after(LOOK, &self.connection, &self.name)
    }

    /// Copies what can be copied now, and waits for the disk. Returns how long the log is. If nobody
    /// else was at work all of it was copied, and the next commit begins it anew.
    pub(crate) fn copy(&self) -> Result<u32> {
        pages_after(COPY, &self.connection, &self.name)
    }

    pub(crate) fn close(self) -> Result<()> {
        let Self { connection, name } = self;
        file::close_alone(|| connect::close(connection).map_err(|e| failure("close", &name, e)))
    }
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
        let Home::File { path, identity, .. } = &self.home else { return None };
        if self.config.exclusive || self.config.read_only || rusqlite::version_number() < KNOWS_NOOP
        {
            return None;
        }
        Some(Source { path: path.clone(), identity: *identity, config: self.config.clone() })
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
        pages_after(COPY, self.open_connection(), &self.name())
    }

    /// Copies the log into the file and cuts it to nothing.
    pub(crate) fn checkpoint(&mut self) -> Result<Begun> {
        self.refuse_read_only()?;
        match truncate_log(self.connection()?) {
            Ok(true) => Ok(Begun::Ready),
            Ok(false) => Ok(Begun::Busy),
            Err(e) if is_busy(&e) => Ok(Begun::Busy),
            Err(e) => Err(self.failure("checkpoint", e)),
        }
    }
}
