//! What the journal can tell about itself: settings, integrity, a copy.
//!
//! Owns reads that are neither looks nor marks. Long ones use a short-lived connection of their own
//! where the file allows one, so that marks go on.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::catch_up::read_data_version;
use super::checkpoint::ALL;
use super::doubt::is_there;
use super::load::{ReadError, RowKeys};
use super::{Home, Journal};
use crate::config::Config;
use crate::error::Result;
use crate::file::shown;
use crate::format::pragmas::Pragmas;
use crate::format::sqlite_errors::failure;
use crate::format::{self, copy, open};
use crate::index::Index;

/// What [`verify`](crate::SeenStore::verify) found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many rows were compared with the index.
    pub rows: u64,
    /// One sentence for each thing that is wrong.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// How many problems of one kind a report lists.
pub(crate) const MOST_PROBLEMS: usize = 20;

impl Journal {
    pub(crate) fn pragmas(&mut self) -> Result<Pragmas> {
        let config = self.config.clone();
        let connection = self.connection()?;
        format::pragmas::pragmas(connection, &config).map_err(|e| self.failure("read", e))
    }

    /// Copies everything to a new file, for a journal that no second connection can read.
    pub(crate) fn copy_to(&mut self, target: &Path) -> Result<()> {
        copy::copy(self.connection()?, target)
    }

    pub(crate) fn integrity_problems(&mut self) -> Result<Vec<String>> {
        let problems = format::integrity_problems(self.connection()?);
        problems.map_err(|e| self.failure("verify", e))
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        match &self.home {
            Home::File { path, .. } => Some(path.clone()),
            Home::Memory => None,
        }
    }

    /// Where a second connection can read what this one has committed; `None` where none can. The files
    /// must be ours: another connection would make the log that is missing.
    pub(crate) fn readable_path(&mut self) -> Result<Option<PathBuf>> {
        self.check_files(ALL)?;
        Ok(self.path().filter(|_| !self.config.exclusive))
    }

    /// Compares up to `limit` rows after `after` with the index. `Busy` when another process wrote
    /// in between: catch up and try again.
    pub(crate) fn compare_rows(
        &mut self,
        index: &Index,
        now_ms: i64,
        after: i64,
        limit: i64,
    ) -> Result<Compared> {
        let hasher = self.hasher.clone();
        self.in_step(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT seq, scope, id, expires_at FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut rows = statement.query((after, limit))?;
            let mut keys = RowKeys::new(&hasher);
            let mut compared = Compared { next: after, rows: 0, problems: Vec::new() };
            while let Some(row) = rows.next()? {
                let (seq, key, expires_at) = keys.read(row)?;
                (compared.next, compared.rows) = (seq, compared.rows + 1);
                let slot = index.get(key);
                let wrong = match (expires_at, slot) {
                    (Some(0), Some(slot)) => slot.seq <= seq,
                    (Some(at), _) if at <= now_ms => false,
                    (at, Some(slot)) => slot.seq < seq || slot.seq == seq && slot.expires_at != at,
                    (_, None) => true,
                };
                if wrong && compared.problems.len() < MOST_PROBLEMS {
                    compared.problems.push(format!("row {seq} and the index disagree: {slot:?}"));
                }
            }
            Ok(compared)
        })
    }

    /// Which live ids of one shard of the index have no row. `Busy` as for `compare_rows`. While the index
    /// is in doubt, such an id is one that another store has deleted.
    pub(crate) fn missing_rows(
        &mut self,
        index: &Index,
        now_ms: i64,
        shard: usize,
    ) -> Result<Vec<String>> {
        self.in_step(|connection| {
            let mut problems = Vec::new();
            if index.is_doubted() {
                return Ok(problems);
            }
            for (_, seq) in index.live_slots(shard, now_ms) {
                if !is_there(connection, seq)? && problems.len() < MOST_PROBLEMS {
                    problems.push(format!("the index knows row {seq}, which the table lacks"));
                }
            }
            Ok(problems)
        })
    }

    /// Runs a read on the very state that the index was last brought up to.
    fn in_step<T>(&mut self, read: impl FnOnce(&Connection) -> Result<T, ReadError>) -> Result<T> {
        self.ensure_open()?;
        let (known, is_private) = (self.data_version, self.is_private());
        let connection = self.open_connection();
        let read = || {
            let _one_snapshot = connection.unchecked_transaction()?;
            // A failed VACUUM moves SQLite's counter. Where no other connection can write, it is not asked.
            let unchanged = is_private || known == Some(read_data_version(connection)?);
            if unchanged { read(connection) } else { Err(ReadError::Changed) }
        };
        read().map_err(|e: ReadError| e.at(&self.name()))
    }
}

/// What a comparison of some rows found.
pub(crate) struct Compared {
    pub(crate) next: i64,
    pub(crate) rows: u64,
    pub(crate) problems: Vec<String>,
}

/// Copies the store at `path` to a new file while others write.
pub(crate) fn copy_file(path: &Path, target: &Path, config: &Config) -> Result<()> {
    let connection = open::reader(path, config)?;
    copy::copy(&connection, target)
}

/// SQLite's own integrity check of the store at `path`, while others write.
pub(crate) fn check_file(path: &Path, config: &Config) -> Result<Vec<String>> {
    let connection = open::reader(path, config)?;
    format::integrity_problems(&connection).map_err(|e| failure("verify", &shown(path), e))
}
