//! What is in the file: its tables, its format version, and how a database is told to be a store.
//!
//! Owns the statements that define the format and the recognition of a file. What always holds: a
//! file is written to only after it was recognised, so whatever is refused is left as it was. With
//! `journal` this is all of the crate that speaks SQL. Knows nothing of ids that are looked up.

pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod failure;
pub(crate) mod onlooker;
pub(crate) mod seed;
mod upgrade;

use rusqlite::types::{FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use crate::answer::{Inspection, Pragmas};
use crate::config::Config;

/// "SEEN": marks a SQLite database as a store.
const APPLICATION_ID: i64 = 0x5345_454E;
/// The version of the file format, kept in `user_version`.
const FORMAT_VERSION: i64 = 1;
/// A small page: an appended row dirties one, and each dirty page is written twice.
const PAGE_SIZE: i64 = 1024;

/// The journal: one row a mark, in commit order. `seq` is never reused.
const CREATE_SEEN: &str = "\
CREATE TABLE seen (
  seq INTEGER PRIMARY KEY,
  scope TEXT NOT NULL DEFAULT '',
  id ANY NOT NULL, -- TEXT when UTF-8, else BLOB
  first_seen INTEGER NOT NULL, -- unix ms, like all times
  last_seen INTEGER NOT NULL,
  expires_at INTEGER, -- NULL = never; 0 = a tombstone: the id was forgotten
  suppressed INTEGER NOT NULL DEFAULT 0,
  token BLOB, attempts INTEGER, last_error TEXT, receipt BLOB -- what the confirmed claim left behind
) STRICT";

/// Claims that are not confirmed yet.
const CREATE_CLAIMS: &str = "\
CREATE TABLE claims (
  scope TEXT NOT NULL,
  id ANY NOT NULL,
  token BLOB NOT NULL,
  claimed_at INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  last_error TEXT,
  expires_at INTEGER,
  PRIMARY KEY (scope, id)
) STRICT, WITHOUT ROWID";

/// `generation`, `floor` and `last_purge_at`: see the header of `journal`. Where stores of this version write,
/// also `clock`: see `journal/look`.
const CREATE_META: &str = "\
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID";

const TABLES: [(&str, &str); 3] =
    [("claims", CREATE_CLAIMS), ("meta", CREATE_META), ("seen", CREATE_SEEN)];

/// An id as the file holds it: TEXT where it is UTF-8, so that people can read it, else a BLOB.
pub(crate) struct IdValue<'a>(pub(crate) &'a [u8]);

impl ToSql for IdValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match str::from_utf8(self.0) {
            Ok(_) => ValueRef::Text(self.0),
            Err(_) => ValueRef::Blob(self.0),
        }))
    }
}

/// The same bytes in the other storage class, which no store writes. To SQLite they are another value.
pub(crate) struct TwinValue<'a>(pub(crate) &'a [u8]);

impl ToSql for TwinValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match str::from_utf8(self.0) {
            Ok(_) => ValueRef::Blob(self.0),
            Err(_) => ValueRef::Text(self.0),
        }))
    }
}

/// Reads what an [`IdValue`] wrote, and nothing else: a lookup by the id would not find its twin.
pub(crate) fn id_bytes(value: ValueRef<'_>) -> FromSqlResult<&[u8]> {
    match value {
        ValueRef::Text(bytes) if str::from_utf8(bytes).is_ok() => Ok(bytes),
        ValueRef::Blob(bytes) if str::from_utf8(bytes).is_err() => Ok(bytes),
        _ => Err(FromSqlError::InvalidType),
    }
}

/// What a database was recognised as.
#[derive(Debug, PartialEq, Eq)]
enum Format {
    /// Nothing in it yet.
    Empty,
    /// A store of this version.
    Current,
    /// The table of the Python program that this crate grew from: `seen(id, ts)`, `ts` in seconds.
    Seed,
    /// A store of a later version.
    Newer(i64),
    /// Something else; what gave it away.
    Foreign(String),
}

/// Reads, in one transaction, what the database is. Writes nothing.
fn recognise(connection: &Connection) -> rusqlite::Result<Format> {
    let transaction = connection.unchecked_transaction()?;
    recognise_within(&transaction)
}

/// The same within the caller's transaction.
fn recognise_within(connection: &Connection) -> rusqlite::Result<Format> {
    let objects = objects(connection)?;
    let application_id = pragma_number(connection, "application_id")?;
    let user_version = pragma_number(connection, "user_version")?;
    if application_id == APPLICATION_ID {
        if user_version > FORMAT_VERSION {
            return Ok(Format::Newer(user_version));
        }
        if user_version != FORMAT_VERSION {
            return Ok(Format::Foreign(format!("its format version is {user_version}")));
        }
        return Ok(difference(&objects).map_or(Format::Current, Format::Foreign));
    }
    if application_id != 0 {
        return Ok(Format::Foreign(format!("its application id is {application_id:#x}")));
    }
    if objects.is_empty() && user_version == 0 {
        return Ok(Format::Empty);
    }
    if user_version == 0 && is_seed(connection, &objects)? {
        return Ok(Format::Seed);
    }
    let names: Vec<_> = objects.iter().take(3).map(|object| &*object.name).collect();
    Ok(Format::Foreign(format!(
        "it has no application id, version {user_version} and {} objects such as {:?}",
        objects.len(),
        names.join(", ")
    )))
}

struct Object {
    name: String,
    sql: Option<String>,
}

fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    connection
        .prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?
        .query_map([], |row| Ok(Object { name: row.get(0)?, sql: row.get(1)? }))?
        .collect()
}

/// The first way in which the objects are not exactly this version's: a trigger that somebody added
/// would run with every mark.
fn difference(objects: &[Object]) -> Option<String> {
    for (name, sql) in TABLES {
        match objects.iter().find(|object| object.name == name) {
            None => return Some(format!("its table {name} is missing")),
            Some(object) if object.sql.as_deref() != Some(sql) => {
                return Some(format!("its table {name} is not defined as in this version"));
            }
            Some(_) => {}
        }
    }
    let extra =
        objects.iter().find(|object| TABLES.iter().all(|(name, _)| object.name != *name))?;
    Some(format!("it has an object that is no store's: {:?}", extra.name))
}

/// Whether the only table is `seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)`.
fn is_seed(connection: &Connection, objects: &[Object]) -> rusqlite::Result<bool> {
    let only_seen = objects.iter().any(|object| object.name == "seen")
        && objects.iter().all(|o| o.name == "seen" || o.name == "sqlite_autoindex_seen_1");
    if !only_seen {
        return Ok(false);
    }
    let columns: Vec<(String, String, bool, i64)> = connection
        .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_info('seen')")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_, _>>()?;
    let columns: Vec<_> = columns
        .iter()
        .map(|(name, kind, not_null, key)| (&**name, &**kind, *not_null, *key))
        .collect();
    Ok(columns == [("id", "TEXT", false, 1), ("ts", "INTEGER", true, 0)])
}

/// Defines the tables and signs the file. The caller has a transaction open.
fn define(connection: &Connection) -> rusqlite::Result<()> {
    for (_, sql) in TABLES {
        connection.execute_batch(sql)?;
    }
    connection.execute_batch(
        "INSERT INTO meta (key, value) VALUES ('generation', 0), ('floor', 0), ('last_purge_at', 0)",
    )?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT_VERSION)
}

/// Makes an empty database a store; where another process has just done so, does nothing.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if objects(&transaction)?.is_empty() {
        define(&transaction)?;
    }
    transaction.commit()
}

/// The definition of a fresh store in memory.
pub(crate) fn create_in_memory(config: &Config) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    connect::secure(&connection)?;
    create(&mut connection)?;
    connect::tune(&connection, config)?;
    Ok(connection)
}

fn pragma_number(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    // A pragma that knows no answer, as mmap_size in memory, gives no row.
    let number = connection.pragma_query_value(None, name, |row| row.get(0)).optional()?;
    Ok(number.unwrap_or(0))
}

fn pragma_text(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// SQLite's own check of the whole file: one line for each thing that is wrong.
pub(crate) fn integrity_problems(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let lines: Vec<String> = connection
        .prepare("PRAGMA integrity_check")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// What SQLite says of itself and of the file.
pub(crate) fn inspect(connection: &Connection, config: &Config) -> rusqlite::Result<Inspection> {
    let count = |name| pragma_number(connection, name).map(i64::cast_unsigned);
    Ok(Inspection {
        sqlite_version: rusqlite::version().to_owned(),
        sqlite_options: connection
            .prepare("PRAGMA compile_options")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?,
        pages: count("page_count")?,
        free_pages: count("freelist_count")?,
        pragmas: pragmas(connection, config)?,
    })
}

/// Reads the settings back.
pub(crate) fn pragmas(connection: &Connection, config: &Config) -> rusqlite::Result<Pragmas> {
    let number = |name| pragma_number(connection, name);
    Ok(Pragmas {
        journal_mode: pragma_text(connection, "journal_mode")?,
        synchronous: number("synchronous")?,
        cache_size: number("cache_size")?,
        temp_store: number("temp_store")?,
        busy_timeout: config.busy_timeout,
        // SQLite's own is switched off where this crate does it.
        wal_autocheckpoint: if connect::keeps_log_short(config) {
            config.wal_autocheckpoint.into()
        } else {
            number("wal_autocheckpoint")?
        },
        journal_size_limit: number("journal_size_limit")?,
        mmap_size: number("mmap_size")?,
        locking_mode: pragma_text(connection, "locking_mode")?,
        page_size: number("page_size")?,
        application_id: number("application_id")?,
        user_version: number("user_version")?,
    })
}
