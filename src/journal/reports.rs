//! What the journal reports about itself: settings, integrity, a copy.
//!
//! Owns reads that are neither catch-ups nor lookups of marks. Long ones use a short-lived connection of their
//! own if the file allows one, so that marks go on.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::catch_up::read_data_version;
use super::checkpoint::ALL_FRAMES;
use super::index_check::index_problems;
use super::load::{ReadError, RowKeys, damaged_index, key_columns};
use super::stale::row_exists;
use super::{Journal, Location, counts};
use crate::config::Config;
use crate::error::Result;
use crate::file::shown;
use crate::format::pragmas::Pragmas;
use crate::format::sqlite_errors::failure;
use crate::format::{self, Problems, copy, open};
use crate::index::Index;

/// The result of [`verify`](crate::SeenStore::verify).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IntegrityReport {
    /// How many rows were checked.
    pub rows: u64,
    /// One sentence for each problem.
    pub problems: Vec<String>,
    /// How many of the problems, the last ones, are only about the index in the file. They are no reason to restore a
    /// backup: no mark is lost, and [`compact`](crate::SeenStore::compact) makes the index anew.
    pub index_problems: usize,
}

impl IntegrityReport {
    /// Returns whether there are no problems.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// Returns the report of what SQLite found, and whether that was nothing.
    pub(crate) fn of(found: Problems) -> (Self, bool) {
        let of_index = found.of_index.first().map(|first| {
            let (count, pages) = (found.of_index.len(), "in pages that hold no mark");
            damaged_index(&format!("SQLite finds {count} problems {pages}, the first {first:?}"))
        });
        let is_sound = found.of_marks.is_empty() && of_index.is_none();
        let mut report = Self { problems: found.of_marks, ..Self::default() };
        report.add_index_problems(of_index.into_iter().collect());
        (report, is_sound)
    }

    pub(crate) fn add_index_problems(&mut self, problems: Vec<String>) {
        self.index_problems += problems.len();
        self.problems.extend(problems);
    }
}

/// How many problems of one kind a report lists.
pub(crate) const MAX_PROBLEMS: usize = 20;

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

    /// Runs SQLite's integrity check.
    pub(crate) fn integrity_problems(&mut self) -> Result<Problems> {
        let problems = format::integrity_problems(self.connection()?);
        problems.map_err(|e| self.failure("verify", e))
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        match &self.location {
            Location::File { path, .. } => Some(path.clone()),
            Location::Memory => None,
        }
    }

    /// Returns the path at which a second connection can read what this one has committed; `None` if none can.
    /// Fails unless the files are the opened ones: another connection would create a log that is missing.
    pub(crate) fn readable_path(&mut self) -> Result<Option<PathBuf>> {
        self.check_files(ALL_FRAMES)?;
        Ok(self.path().filter(|_| !self.config.exclusive))
    }

    /// Compares up to `limit` rows after `after` with the index.
    ///
    /// # Errors
    ///
    /// `Busy` if another process has committed since the last catch-up: catch up and try again.
    pub(crate) fn compare_rows(
        &mut self,
        index: &Index,
        now_ms: i64,
        after: i64,
        limit: i64,
    ) -> Result<Compared> {
        let hasher = self.hasher.clone();
        // What an index that is asleep does not hold, the runs have: a check of the file compares them with the table.
        let base = index.base();
        self.read_unchanged(|connection| {
            let mut statement = connection.prepare_cached(concat!(
                "SELECT ",
                key_columns!(),
                " FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2"
            ))?;
            let mut rows = statement.query((after, limit))?;
            let mut keys = RowKeys::new(&hasher);
            let mut compared = Compared { next: after, rows: 0, problems: Vec::new() };
            while let Some(row) = rows.next()? {
                let row = keys.read(row)?;
                let seq = row.slot.seq;
                (compared.next, compared.rows) = (seq, compared.rows + 1);
                let slot = index.get(row.key);
                let wrong = match (row.slot.expires_at, slot) {
                    (Some(0), Some(slot)) => {
                        slot.seq < seq || slot.seq == seq && slot.expires_at != Some(0)
                    }
                    (Some(at), _) if at <= now_ms => false,
                    (_, Some(slot)) => slot.seq < seq || slot.seq == seq && slot != row.slot,
                    (_, None) => seq > base,
                };
                if wrong && compared.problems.len() < MAX_PROBLEMS {
                    compared.problems.push(format!("row {seq} differs from the index: {slot:?}"));
                }
            }
            Ok(compared)
        })
    }

    /// Returns a problem for each live id of one shard of the index that has no row. While the index may be
    /// stale, it returns none: another store has deleted such an id.
    ///
    /// # Errors
    ///
    /// `Busy` as for [`compare_rows`](Self::compare_rows).
    pub(crate) fn missing_rows(
        &mut self,
        index: &Index,
        now_ms: i64,
        shard: usize,
    ) -> Result<Vec<String>> {
        self.read_unchanged(|connection| {
            let mut problems = Vec::new();
            if index.may_be_stale() {
                return Ok(problems);
            }
            for (_, seq) in index.live_slots(shard, now_ms) {
                if !row_exists(connection, seq)? && problems.len() < MAX_PROBLEMS {
                    problems
                        .push(format!("the index has row {seq}, which is missing in the table"));
                }
            }
            Ok(problems)
        })
    }

    /// Returns the number of marks, expired ones included.
    pub(crate) fn marks(&mut self) -> Result<counts::Counts> {
        self.read(|connection| {
            let _one_snapshot = connection.unchecked_transaction()?;
            counts::all(connection)
        })
    }

    /// Reads the table in the state of the last catch-up; fails if another connection has committed since.
    fn read_unchanged<T>(
        &mut self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T> {
        self.ensure_open()?;
        let (known, is_private) = (self.data_version, self.is_private());
        let connection = self.open_connection();
        let read = || {
            let _one_snapshot = connection.unchecked_transaction()?;
            // A failed VACUUM changes SQLite's counter too. So it is not read if no other connection can write.
            let unchanged = is_private || known == Some(read_data_version(connection)?);
            if unchanged { read(connection) } else { Err(ReadError::Changed) }
        };
        read().map_err(|e: ReadError| e.at(&self.name()))
    }
}

/// The result of comparing some rows.
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

/// Runs SQLite's integrity check on the store at `path` while others write, and compares the index in the file, if that
/// finds nothing.
pub(crate) fn check_file(path: &Path, config: &Config) -> Result<IntegrityReport> {
    let connection = open::reader(path, config)?;
    let name = shown(path);
    let problems = format::integrity_problems(&connection);
    let problems = problems.map_err(|e| failure("verify", &name, e))?;
    let (mut report, is_sound) = IntegrityReport::of(problems);
    if is_sound {
        report.add_index_problems(index_of(&connection, &name)?);
    }
    Ok(report)
}

/// Checks the index in the file of the store at `path` while others write. Returns its problems.
pub(crate) fn check_index(path: &Path, config: &Config) -> Result<Vec<String>> {
    index_of(&*open::reader(path, config)?, &shown(path))
}

fn index_of(connection: &Connection, name: &str) -> Result<Vec<String>> {
    let check = || {
        let _one_snapshot = connection.unchecked_transaction()?;
        index_problems(connection, |_| ())
    };
    check().map_err(|e: ReadError| e.at(name))
}
