//! The settings of SQLite: applied, read back, and compared with what was asked for.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::open::{keeps_log_short, sqlite_autocheckpoint};
use super::waiting::retry_while_locked;
use crate::config::{Config, Synchronous};
use crate::error::{Error, ErrorKind, Result};
use crate::file::shown;

/// What SQLite reports of itself and of a store's file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// For example `3.51.3`.
    pub sqlite_version: String,
    /// The options that SQLite was compiled with.
    pub sqlite_options: Vec<String>,
    /// How many pages the file has.
    pub pages: u64,
    /// How many of them are free, for later marks.
    pub free_pages: u64,
    /// The settings of a store with this configuration. `journal_mode` is `off` if the file was read
    /// without its empty log.
    pub pragmas: Pragmas,
}

/// The settings in force, read back from SQLite.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pragmas {
    /// `wal`, or `memory` for a store in memory.
    pub journal_mode: String,
    /// 1 is NORMAL, 2 is FULL.
    pub synchronous: i64,
    /// In pages when positive, in KiB when negative.
    pub cache_size: i64,
    /// 2 is MEMORY.
    pub temp_store: i64,
    /// How long a call waits for other processes. The store does the waiting, not SQLite, so that its other
    /// threads can go on meanwhile.
    pub busy_timeout: Duration,
    /// The length of the log, in pages, after which a commit runs a checkpoint.
    pub wal_autocheckpoint: i64,
    /// The size, in bytes, that a longer log is cut to after a checkpoint.
    pub journal_size_limit: i64,
    /// 0: memory mapping is off.
    pub mmap_size: i64,
    /// `normal` or `exclusive`.
    pub locking_mode: String,
    /// The size of a page in bytes.
    pub page_size: i64,
    /// `0x5345454E`, "SEEN".
    pub application_id: i64,
    /// The version of the file format.
    pub user_version: i64,
}

pub(super) fn pragma_number(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    // A pragma without an answer, such as mmap_size in memory, returns no row.
    let number = connection.pragma_query_value(None, name, |row| row.get(0)).optional()?;
    Ok(number.unwrap_or(0))
}

pub(super) fn pragma_text(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Returns what SQLite reports of itself and of the file.
pub(crate) fn info(connection: &Connection, config: &Config) -> rusqlite::Result<FileInfo> {
    let count = |name| pragma_number(connection, name).map(i64::cast_unsigned);
    Ok(FileInfo {
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

/// Reads the settings back from SQLite.
pub(crate) fn pragmas(connection: &Connection, config: &Config) -> rusqlite::Result<Pragmas> {
    let number = |name| pragma_number(connection, name);
    Ok(Pragmas {
        journal_mode: pragma_text(connection, "journal_mode")?,
        synchronous: number("synchronous")?,
        cache_size: number("cache_size")?,
        temp_store: number("temp_store")?,
        busy_timeout: config.busy_timeout,
        // SQLite's own checkpoints are off if this crate runs them.
        wal_autocheckpoint: if keeps_log_short(config) {
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

pub(crate) fn apply_pragmas(connection: &Connection, config: &Config) -> rusqlite::Result<()> {
    let synchronous = synchronous_number(config);
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", config.cache_size)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // With a mapped file, a truncation by another program would be a SIGBUS.
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(())).or_else(ignore_no_rows)?;
    connection.pragma_update_and_check(
        None,
        "wal_autocheckpoint",
        sqlite_autocheckpoint(config),
        |_| Ok(()),
    )?;
    let limit = i64::try_from(config.journal_size_limit).unwrap_or(i64::MAX);
    connection.pragma_update_and_check(None, "journal_size_limit", limit, |_| Ok(()))
}

pub(super) fn ignore_no_rows(error: rusqlite::Error) -> rusqlite::Result<()> {
    if error == rusqlite::Error::QueryReturnedNoRows { Ok(()) } else { Err(error) }
}

pub(super) fn synchronous_number(config: &Config) -> i64 {
    match config.synchronous {
        Synchronous::Normal => 1,
        Synchronous::Full => 2,
    }
}

/// Reads every setting back, because SQLite ignores a pragma that it cannot apply without an error.
pub(super) fn check(connection: &Connection, path: &Path, config: &Config) -> Result<()> {
    let wanted = [
        ("synchronous", synchronous_number(config)),
        ("cache_size", config.cache_size),
        ("temp_store", 2),
        ("mmap_size", 0),
        ("wal_autocheckpoint", i64::from(sqlite_autocheckpoint(config))),
        ("journal_size_limit", i64::try_from(config.journal_size_limit).unwrap_or(i64::MAX)),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
    ];
    for (name, wanted) in wanted {
        // With waiting: another process may be recovering the log now.
        let answer =
            retry_while_locked(path, config, "configure", || pragma_number(connection, name))?;
        if answer != wanted {
            return Err(Error::new(
                ErrorKind::UnsupportedSqlite,
                format!(
                    "{}: this SQLite answers {answer} when asked for {name} = {wanted}; \
                     build with the feature `bundled`",
                    shown(path)
                ),
            ));
        }
    }
    Ok(())
}
