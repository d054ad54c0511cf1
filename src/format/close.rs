//! Closing connections: the last one on a file copies the log into it, unless that could do harm.
//!
//! Owns what becomes of the log then. What always holds: a log that may not be the file's own is neither copied nor
//! deleted, and one with content is never deleted uncopied.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::open::open_secure;
use super::sqlite_errors::failure;
use crate::config::Config;
use crate::file::{self, OpenedFiles, shown};
use crate::process::Registered;

/// Closes a connection and returns whether that worked. The connection is gone in either case.
pub(crate) fn close(connection: Registered<Connection>) -> rusqlite::Result<()> {
    connection.close(|open| open.close().map_err(|(_, error)| error)).unwrap_or(Ok(()))
}

/// Closes a store's connection. The last one on the file copies the log into it and deletes the log, unless
/// `may_copy_log` is false: then the log may not be the file's own.
pub(crate) fn close_store(
    connection: Registered<Connection>,
    files: OpenedFiles,
    may_copy_log: bool,
) -> rusqlite::Result<()> {
    if !may_copy_log {
        skip_checkpoint_on_close(&connection)?;
    }
    // Dropped before the connection: an index that another thread creates from then on is a new one.
    drop(files);
    close(connection)
}

/// Removes the log and its index if the log is empty and no connection has the file open. A read-only
/// connection creates both, and cannot remove them when it closes. So this opens a connection that may write:
/// if it is the last one, SQLite removes them when it closes.
///
/// Does nothing to a log with content: copying it would change the file. If another connection writes to the
/// log in the meantime and closes, the copy is the one that its close would have made.
pub(crate) fn remove_empty_log(path: &Path) {
    let log = file::beside(path, "-wal");
    if !file::exists(&log) || file::wal_bytes(path) > 0 {
        return;
    }
    let removed = open_secure(path, &Config::default()).and_then(|connection| {
        // SQLite opens the log only for a read.
        let read = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        read.and_then(|()| close(connection)).map_err(|e| failure("close", &shown(path), e))
    });
    // Another store may have the file open in exclusive mode, or the file may not be writable.
    if let Err(e) = removed {
        let file = shown(path);
        log::debug!(
            file = file.as_str(), error:% = e, error_kind = e.kind().word();
            "{} stays: {e}", shown(&log)
        );
    }
}

/// Makes the connection close without copying or deleting the log.
pub(crate) fn skip_checkpoint_on_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}
