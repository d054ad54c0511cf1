//! Makes an empty database a store.
//!
//! Owns the first contents: the tables, the rows of `meta`, the application id, the format version and the page size; and
//! the derived tables where a store lacks them, or they are made anew. What always holds: everything is written in one
//! transaction, so a crash leaves an empty database or a complete store. If several processes create a store at the same
//! time, one does it and the others find it done. Must not know of paths: `file` creates the file, `format::open` decides
//! whether it is empty.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::pragmas::{apply_pragmas, pragma_number};
use super::recognise::{missing_derived_tables, objects};
use super::{APPLICATION_ID, DERIVED_TABLES, FORMAT_VERSION, PAGE_SIZE, TABLES, open};
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
pub(super) fn add_derived(connection: &Connection) -> rusqlite::Result<()> {
    if missing_derived_tables(connection)?.is_empty() && has_hash_key(connection)? {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    define_derived(&transaction)?;
    transaction.commit()
}

/// Makes the derived tables anew, empty, without reading their pages, in which SQLite finds damage. `VACUUM` then leaves
/// these pages out. (SQLite cannot drop such a table; its documentation of `PRAGMA writable_schema` names this way to
/// recover.)
pub(crate) fn replace_derived(connection: &Connection) -> rusqlite::Result<()> {
    let replaced = connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)
        .and_then(|_| connection.execute_batch("PRAGMA writable_schema = ON"))
        .and_then(|()| forget_derived(connection));
    // Also reads the schema again.
    connection.execute_batch("PRAGMA writable_schema = RESET")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.flush_prepared_statement_cache();
    replaced.and_then(|()| add_derived(connection))
}

fn forget_derived(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    for (table, _) in DERIVED_TABLES {
        transaction.execute("DELETE FROM sqlite_schema WHERE tbl_name = ?1", [table])?;
    }
    // Tells all connections that the schema is another one.
    let version = pragma_number(&transaction, "schema_version")?;
    transaction.pragma_update(None, "schema_version", version.wrapping_add(1))?;
    transaction.commit()
}

/// Makes an empty database a store. Does nothing and returns false if another process has just done so: of all that
/// open a new store at the same time, one gets true.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<bool> {
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
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
