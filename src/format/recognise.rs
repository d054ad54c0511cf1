//! What a database is: a store, a store of a later version, a legacy file, or something else.
//!
//! Owns the recognition of a format by its application id, version and tables. What always holds: it only reads.
//! Must not know what is done with a file of each format: `format::open` decides.

use rusqlite::Connection;

use super::pragmas::pragma_number;
use super::{APPLICATION_ID, DERIVED_TABLES, FORMAT_VERSION, TABLES};

/// What a database was recognised as.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A database without content.
    Empty,
    /// A store of this version.
    Current,
    /// The table of the Python program that came before this crate: `seen(id, ts)`, `ts` in seconds.
    Legacy,
    /// A store of a later version.
    Newer(i64),
    /// A store whose tables are not those of this version, and the difference.
    Altered(String),
    /// Something else, and how that was recognised.
    Foreign(String),
}

/// Recognises the database in one read transaction. Writes nothing.
pub(super) fn recognise(connection: &Connection) -> rusqlite::Result<Format> {
    let transaction = connection.unchecked_transaction()?;
    recognise_within(&transaction)
}

/// Recognises the database within the caller's transaction.
pub(super) fn recognise_within(connection: &Connection) -> rusqlite::Result<Format> {
    let objects = objects(connection)?;
    let application_id = pragma_number(connection, "application_id")?;
    let user_version = pragma_number(connection, "user_version")?;
    if application_id == APPLICATION_ID {
        if user_version > FORMAT_VERSION {
            return Ok(Format::Newer(user_version));
        }
        if user_version != FORMAT_VERSION {
            return Ok(Format::Altered(format!("its format version is {user_version}")));
        }
        return Ok(difference(&objects).map_or(Format::Current, Format::Altered));
    }
    if application_id != 0 {
        return Ok(Format::Foreign(format!("its application id is {application_id:#x}")));
    }
    if objects.is_empty() && user_version == 0 {
        return Ok(Format::Empty);
    }
    if user_version == 0 && is_legacy(connection, &objects)? {
        return Ok(Format::Legacy);
    }
    let names: Vec<_> = objects.iter().take(3).map(|object| &*object.name).collect();
    Ok(Format::Foreign(format!(
        "it has no application id, version {user_version} and {} objects such as {:?}",
        objects.len(),
        names.join(", ")
    )))
}

pub(super) struct Object {
    name: String,
    sql: Option<String>,
}

pub(super) fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    connection
        .prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?
        .query_map([], |row| Ok(Object { name: row.get(0)?, sql: row.get(1)? }))?
        .collect()
}

/// Returns the first difference between the objects and those of this version. It matters also for additional
/// ones: a trigger would run with every mark. The derived tables may be missing.
pub(super) fn difference(objects: &[Object]) -> Option<String> {
    let mut missing = TABLES.iter().filter(|(name, _)| objects.iter().all(|it| it.name != *name));
    if let Some((name, _)) = missing.next() {
        return Some(format!("its table {name} is missing"));
    }
    objects.iter().find_map(|object| {
        let known = TABLES.iter().chain(&DERIVED_TABLES).find(|(name, _)| object.name == *name);
        match known {
            Some((_, sql)) if object.sql.as_deref() == Some(sql) => None,
            Some((name, _)) => Some(format!("its table {name} is not defined as in this version")),
            None => {
                Some(format!("it has an object that does not belong to a store: {:?}", object.name))
            }
        }
    })
}

/// Returns the derived tables that are missing, as the statements that create them.
pub(super) fn missing_derived_tables(
    connection: &Connection,
) -> rusqlite::Result<Vec<&'static str>> {
    let objects = objects(connection)?;
    let is_missing = |name: &str| objects.iter().all(|object| object.name != name);
    let missing = DERIVED_TABLES.iter().filter(|(name, _)| is_missing(name));
    Ok(missing.map(|(_, sql)| *sql).collect())
}

/// Returns whether the only table is `seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)`.
pub(super) fn is_legacy(connection: &Connection, objects: &[Object]) -> rusqlite::Result<bool> {
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
