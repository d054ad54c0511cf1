//! Makes an empty database a store.
//!
//! Owns the first contents: the tables, the rows of `meta`, the application id, the format version and the page
//! size. What always holds: everything is written in one transaction, so a crash leaves an empty database or a
//! complete store. If several processes create a store at the same time, one does it and the others
//! find it done. Must not know of paths: `file` creates the file, `format::open` decides whether it is empty.

use rusqlite::Connection;

use super::pragmas::apply_pragmas;
use super::recognise::{missing_derived_tables, objects};
use super::{APPLICATION_ID, FORMAT_VERSION, PAGE_SIZE, TABLES, open};
use crate::config::Config;
use crate::id::random_key;

/// Creates the tables and writes the application id and version. The caller has a transaction open.
pub(super) fn define(connection: &Connection) -> rusqlite::Result<()> {
    for (_, sql) in TABLES {
        connection.execute_batch(sql)?;
    }
    connection.execute_batch(
        "INSERT INTO meta (key, value) VALUES ('generation', 0), ('floor', 0), ('last_purge_at', 0)",
    )?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT_VERSION)?;
    define_derived(connection)
}

/// Creates the derived tables that are missing, empty, and the hash key. The caller has a transaction open.
fn define_derived(connection: &Connection) -> rusqlite::Result<()> {
    for sql in missing_derived_tables(connection)? {
        connection.execute_batch(sql)?;
    }
    if !has_hash_key(connection)? {
        connection.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('hash_key', ?1)",
            [random_key()],
        )?;
    }
    Ok(())
}

/// Returns whether the file has a hash key. Without one no store can use the runs.
fn has_hash_key(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare(
            "SELECT 1 FROM meta WHERE key = 'hash_key' AND typeof(value) = 'blob' AND length(value) = 16",
        )?
        .exists([])
}

/// Adds the derived tables to the file of an earlier program.
pub(super) fn add_derived(connection: &mut Connection) -> rusqlite::Result<()> {
    if missing_derived_tables(connection)?.is_empty() && has_hash_key(connection)? {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    define_derived(&transaction)?;
    transaction.commit()
}

/// Makes an empty database a store. Does nothing and returns false if another process has just done so: of all that
/// open a new store at the same time, one gets true.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<bool> {
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let is_empty = objects(&transaction)?.is_empty();
    if is_empty {
        define(&transaction)?;
    }
    transaction.commit()?;
    Ok(is_empty)
}

/// Returns a connection to a new store in memory.
pub(crate) fn create_in_memory(config: &Config) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    open::secure(&connection)?;
    create(&mut connection)?;
    apply_pragmas(&connection, config)?;
    Ok(connection)
}
