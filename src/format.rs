//! What is in the file: its tables, its format version, and how a database is recognised as a store.
//!
//! Owns the statements that define the format, and the recognition of a file. What always holds: a file is
//! written to only after it was recognised, so a refused file is left unchanged. Only this module, `journal`
//! and `reader` use SQL. Knows nothing of lookups.

pub(crate) mod close;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod legacy;
pub(crate) mod open;
pub(crate) mod open_for_reading;
pub(crate) mod pragmas;
mod recognise;
pub(crate) mod replace;
pub(crate) mod sqlite_errors;
pub(crate) mod upgrade;
mod waiting;

use rusqlite::Connection;
use rusqlite::types::{FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::error::{Error, ErrorKind};

/// "SEEN": marks a SQLite database as a store.
pub(crate) const APPLICATION_ID: i64 = 0x5345_454E;
/// The version of the file format, kept in `user_version`.
pub(crate) const FORMAT_VERSION: i64 = 1;
/// Pages are small because an appended row dirties one, and each dirty page is written twice.
pub(crate) const PAGE_SIZE: u32 = 1024;

/// The journal: one row per mark, in commit order. `seq` is never reused. `id` is TEXT when it is UTF-8, else a BLOB.
/// Times are unix milliseconds. An `expires_at` of NULL is never, and of 0 a tombstone: the id was forgotten.
/// `retain_until` is when a purge removes the row, if that is later. `digest` is that of the id's version or payload:
/// see `item`. `earlier` tells of the windows before this one, as a JSON array: their number, their duplicates, the
/// first time seen, the last time seen. From `token` on: what the confirmed claim left behind. (The statements are in
/// each file: comments and spaces there would cost it a page.)
const CREATE_SEEN: &str = "\
CREATE TABLE seen (
seq INTEGER PRIMARY KEY,
scope TEXT NOT NULL DEFAULT '',
id ANY NOT NULL,
first_seen INTEGER NOT NULL,
last_seen INTEGER NOT NULL,
expires_at INTEGER,
retain_until INTEGER,
digest BLOB,
duplicates INTEGER NOT NULL DEFAULT 0,
earlier TEXT,
token BLOB, attempts INTEGER, last_error TEXT, receipt BLOB) STRICT";

/// Claims that are not confirmed yet. `token` is empty once its holder has ended the claim; `outcome` says how: 1
/// released, 2 failed, 3 failed finally. `held` is 1 where only a decision frees the id once the lease has run out.
/// `abandoned` is the number of attempts before this one that ended with their leases. `duplicates` is the number of
/// callers that were refused meanwhile.
const CREATE_CLAIMS: &str = "\
CREATE TABLE claims (
scope TEXT NOT NULL,
id ANY NOT NULL,
token BLOB NOT NULL,
outcome INTEGER,
held INTEGER NOT NULL,
holder TEXT,
claimed_at INTEGER NOT NULL,
lease_until INTEGER NOT NULL,
attempts INTEGER NOT NULL,
abandoned INTEGER NOT NULL,
digest BLOB,
duplicates INTEGER NOT NULL,
last_error TEXT,
expires_at INTEGER,
PRIMARY KEY (scope, id)) STRICT, WITHOUT ROWID";

/// `generation`, `floor` and `last_purge_at`: see the header of `journal`. Stores of this version also write
/// `clock`: see `journal/transaction`. `hash_key` is the key of the hashes in runs, 16 random bytes.
const CREATE_META: &str = "\
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID";

const TABLES: [(&str, &str); 3] =
    [("claims", CREATE_CLAIMS), ("meta", CREATE_META), ("seen", CREATE_SEEN)];

/// The headers of sorted runs. See `journal/runs`, as for `blocks`. `state` is 1 active, 2 being merged, 3 dropped.
const CREATE_RUNS: &str = "\
CREATE TABLE runs (
run INTEGER PRIMARY KEY,
state INTEGER NOT NULL,
after INTEGER NOT NULL,
last INTEGER NOT NULL,
entries INTEGER NOT NULL,
written_to INTEGER NOT NULL,
marks INTEGER NOT NULL,
checksum INTEGER NOT NULL) STRICT";

/// The blocks of runs. The upper 16 bits of `place` are the number of the run, the others where the block begins.
const CREATE_BLOCKS: &str = "\
CREATE TABLE blocks (place INTEGER PRIMARY KEY, entries BLOB NOT NULL) STRICT";

/// How many marks of each scope the runs are about, and of all scopes, under the number 0: see `journal/counts`.
const CREATE_COUNTS: &str = "\
CREATE TABLE counts (scope ANY PRIMARY KEY, marks INTEGER NOT NULL) STRICT, WITHOUT ROWID";

/// The tables that are derived from the others. A file that an earlier program made has none of them.
const DERIVED_TABLES: [(&str, &str); 3] =
    [("blocks", CREATE_BLOCKS), ("counts", CREATE_COUNTS), ("runs", CREATE_RUNS)];

/// An id as the file holds it: TEXT if it is UTF-8, so that people can read it, else a BLOB.
pub(crate) struct IdValue<'a>(pub(crate) &'a [u8]);

impl ToSql for IdValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match str::from_utf8(self.0) {
            Ok(_) => ValueRef::Text(self.0),
            Err(_) => ValueRef::Blob(self.0),
        }))
    }
}

/// The same bytes in the storage class that no store gives them. To SQLite they are another value.
pub(crate) struct OtherClassValue<'a>(pub(crate) &'a [u8]);

impl ToSql for OtherClassValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match str::from_utf8(self.0) {
            Ok(_) => ValueRef::Blob(self.0),
            Err(_) => ValueRef::Text(self.0),
        }))
    }
}

/// Reads what an [`IdValue`] wrote, and fails for anything else: a lookup of the id would not find it.
pub(crate) fn id_bytes(value: ValueRef<'_>) -> FromSqlResult<&[u8]> {
    match value {
        ValueRef::Text(bytes) if str::from_utf8(bytes).is_ok() => Ok(bytes),
        ValueRef::Blob(bytes) if str::from_utf8(bytes).is_err() => Ok(bytes),
        _ => Err(FromSqlError::InvalidType),
    }
}

/// Returns the version of the file's format if it is later than this program's: another program has upgraded the file
/// since it was opened. Each read asks before it reads rows, which may mean something else now.
pub(crate) fn newer_version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let version: i64 =
        connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))?;
    Ok((version > FORMAT_VERSION).then_some(version))
}

/// Returns the error for a file of a later version.
pub(crate) fn newer_version_error(name: &str, version: i64) -> Error {
    Error::new(
        ErrorKind::NewerVersion,
        format!(
            "{name}: the file has format version {version}, this program supports up to {FORMAT_VERSION}; update \
             the program"
        ),
    )
}

/// Returns whether the database has the tables of a store of this version, and nothing else.
pub(crate) fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(recognise::difference(&recognise::objects(connection)?).is_none())
}

/// What SQLite's own check of the whole file found, a line for each problem.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) of_marks: Vec<String>,
    /// Those of a file in which only pages are damaged that hold no mark and no claim.
    pub(crate) of_index: Vec<String>,
}

/// Runs SQLite's own check of the whole file.
pub(crate) fn integrity_problems(connection: &Connection) -> rusqlite::Result<Problems> {
    let of_all = problems_of(connection, "PRAGMA integrity_check")?;
    if of_all.is_empty() {
        return Ok(Problems::default());
    }
    for (table, _) in TABLES {
        if !problems_of(connection, &format!("PRAGMA integrity_check({table})"))?.is_empty() {
            return Ok(Problems { of_marks: of_all, of_index: Vec::new() });
        }
    }
    Ok(Problems { of_marks: Vec::new(), of_index: of_all })
}

fn problems_of(connection: &Connection, check: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(check)?;
    let mut rows: Vec<String> = Vec::new();
    for row in statement.query_map([], |row| row.get(0))? {
        match row {
            Ok(row) => rows.push(row),
            // The check ends where it can go no further. What it has found until then is the answer.
            Err(e) if !rows.is_empty() => {
                rows.push(format!("the check could not go on: {e}"));
                break;
            }
            Err(e) => return Err(e),
        }
    }
    // A row may have several lines, under a title.
    let lines = rows.iter().flat_map(|row| row.lines());
    let problems = lines.filter(|line| *line != "ok" && !line.starts_with("*** in database"));
    Ok(problems.map(str::to_owned).collect())
}
