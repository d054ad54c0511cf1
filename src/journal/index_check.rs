//! The check of the index in the file: its runs, and its counts.
//!
//! Owns what is reported of them. What always holds: nothing is repaired, and no problem found here is about a mark: the
//! index is derived from the marks, and is made anew when the store is compacted.

use rusqlite::Connection;

use super::Journal;
use super::counts;
use super::load::{KeyRow, ReadError, damaged_index};
use super::runs::{Check, has_tables, hash_key};
use crate::error::Result;
use crate::id::KeyHasher;

/// A check that is under way.
pub(crate) enum IndexCheck {
    NotBegun,
    Runs(Box<Check>),
    Counts,
}

impl IndexCheck {
    /// Does one step, and calls `on_row` with the rows that it reads. Returns the problems once all is checked.
    fn step(
        &mut self,
        connection: &Connection,
        on_row: impl FnMut(&KeyRow),
    ) -> Result<Option<Vec<String>>, ReadError> {
        match self.try_step(connection, on_row).map_err(ReadError::in_the_index) {
            Err(ReadError::Index(what)) => Ok(Some(vec![damaged_index(what)])),
            stepped => stepped,
        }
    }

    fn try_step(
        &mut self,
        connection: &Connection,
        on_row: impl FnMut(&KeyRow),
    ) -> Result<Option<Vec<String>>, ReadError> {
        match self {
            Self::NotBegun => {
                if !has_tables(connection)? {
                    return Ok(Some(Vec::new())); // The file of an earlier program.
                }
                let key = hash_key(connection)?;
                let key = key.ok_or(ReadError::Index("the key of its hashes is missing"))?;
                *self = Self::Runs(Box::new(Check::new(KeyHasher::with_key(key))));
            }
            Self::Runs(check) => {
                if !check.step(connection, on_row)? {
                    *self = Self::Counts;
                }
            }
            Self::Counts => return Ok(Some(counts::problems(connection)?)),
        }
        Ok(None)
    }
}

/// Checks the index in one snapshot, and returns its problems. If there are none, calls `on_row` with each row that it
/// covers, else with some.
pub(crate) fn index_problems(
    connection: &Connection,
    mut on_row: impl FnMut(&KeyRow),
) -> Result<Vec<String>, ReadError> {
    let mut check = IndexCheck::NotBegun;
    loop {
        if let Some(problems) = check.step(connection, &mut on_row)? {
            return Ok(problems);
        }
    }
}

impl Journal {
    /// Does one step of a check through this journal's own connection. Returns the problems once all is checked.
    pub(crate) fn index_check_step(
        &mut self,
        check: &mut IndexCheck,
    ) -> Result<Option<Vec<String>>> {
        self.ensure_open()?;
        check.step(self.open_connection(), |_| ()).map_err(|e| e.at(&self.name()))
    }
}
