//! Reading a legacy file, `seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)`, without changing it.
//!
//! Owns the connection and the position of the reading. What always holds: nothing is written, and no
//! snapshot is held between two pages.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::open::reader;
use super::recognise::{Format, recognise};
use super::sqlite_errors::failure;
use super::waiting::retry_while_locked;
use crate::backoff::retry_while_busy;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{refuse_unsafe_names, shown};
use crate::process::Registered;

pub(crate) struct LegacyRows {
    connection: Registered<Connection>,
    name: String,
    busy_timeout: Duration,
    after: i64,
}

/// A row. A value of the wrong type is `None`.
pub(crate) struct LegacyRow {
    pub(crate) id: Option<Vec<u8>>,
    /// Seconds since 1970.
    pub(crate) seconds: Option<i64>,
}

impl LegacyRows {
    pub(crate) fn open(path: &Path, config: &Config) -> Result<Self> {
        let (name, busy_timeout) = (shown(path), config.busy_timeout);
        if !crate::file::exists(path) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{name} does not exist; give the path of the older file"),
            ));
        }
        refuse_unsafe_names(path)?;
        let connection = reader(path, config)?;
        let why = match retry_while_locked(path, config, "read", || recognise(&connection))? {
            Format::Legacy => return Ok(Self { connection, name, busy_timeout, after: i64::MIN }),
            Format::Current | Format::Newer(_) | Format::Altered(_) => {
                "is a store already; export it and import the export".to_owned()
            }
            Format::Empty => "is an empty database; give another file".to_owned(),
            Format::Foreign(why) => {
                format!(
                    "belongs to another application ({why}); give a file with the table seen(id, ts), or its ids as \
                     lines: `sqlite3 FILE 'SELECT column FROM table' | seen import -`"
                )
            }
        };
        Err(Error::new(ErrorKind::WrongApplication, format!("{name} {why}")))
    }

    pub(crate) fn count(&self) -> Result<u64> {
        self.retry_while_locked(|connection| {
            connection
                .query_row("SELECT count(*) FROM seen", [], |row| row.get(0))
                .map(i64::cast_unsigned)
        })
    }

    /// Returns the next rows; fewer than `limit` at the end.
    pub(crate) fn next_page(&mut self, limit: usize) -> Result<Vec<LegacyRow>> {
        let (rows, last) =
            self.retry_while_locked(|connection| page(connection, self.after, limit))?;
        self.after = last;
        Ok(rows)
    }

    /// Waits for another program that may be writing to its file now.
    fn retry_while_locked<T>(
        &self,
        read: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.connection.process().check(&self.name)?;
        retry_while_busy(self.busy_timeout, || {
            read(&self.connection).map_err(|e| failure("read", &self.name, e))
        })
    }
}

/// Returns some rows after `after`, and the rowid of the last.
fn page(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> rusqlite::Result<(Vec<LegacyRow>, i64)> {
    // A numeric id becomes its text, a REAL timestamp is truncated.
    let mut statement = connection.prepare_cached(
        "SELECT rowid, CAST(id AS BLOB), \
                iif(typeof(ts) IN ('integer', 'real'), CAST(ts AS INTEGER), NULL) \
         FROM seen WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
    )?;
    let mut rows = statement.query((after, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let (mut page, mut last) = (Vec::with_capacity(limit), after);
    while let Some(row) = rows.next()? {
        last = row.get(0)?;
        page.push(LegacyRow { id: row.get(1)?, seconds: row.get(2)? });
    }
    Ok((page, last))
}
