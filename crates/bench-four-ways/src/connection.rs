//! SQLite as one would use it without this crate: `id TEXT PRIMARY KEY` and an insert that does nothing
//! on conflict. Compiled with two versions of rusqlite: this file is also part of bench-pools.
//!
//! Durability: in WAL mode `synchronous=NORMAL` has every commit written, but not synced, before it
//! returns, so it survives a killed process; `FULL` syncs each. The same levels as this store's.

use std::path::Path;
use std::time::Duration;

use harness::{Durability, Plan};
use rusqlite::{Connection, OptionalExtension, params};

/// Page cache shared out among the connections, as long as each keeps what SQLite users commonly give
/// one: 10,000 pages of 4 KiB. A million short ids fit.
const CACHE_KIB: usize = 256 * 1024;
const LEAST_CACHE_KIB: usize = 40_000;

/// How connections are made.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) path: std::path::PathBuf,
    synchronous: &'static str,
    cache_kib: usize,
}

impl Settings {
    /// For so many connections at once.
    pub(crate) fn new(plan: &Plan, connections: usize) -> Self {
        let synchronous = match plan.durability {
            Durability::Kill => "NORMAL",
            Durability::Power => "FULL",
        };
        let cache_kib = (CACHE_KIB / connections).max(LEAST_CACHE_KIB);
        Self { path: plan.dir.join("seen.sqlite"), synchronous, cache_kib }
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "WAL, synchronous={}, busy_timeout 30 s, cache {} KiB a connection, mmap 1 GiB, \
             wal_autocheckpoint 2,000 (8 MiB), prepared statements; duplicates by SELECT first where \
             they are likely",
            self.synchronous, self.cache_kib
        )
    }

    pub(crate) fn open(&self) -> rusqlite::Result<Connection> {
        open(&self.path, self)
    }

    /// Creates the table.
    pub(crate) fn create(&self) -> rusqlite::Result<Connection> {
        let connection = self.open()?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL)",
        )?;
        Ok(connection)
    }
}

fn open(path: &Path, settings: &Settings) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    configure(&connection, settings)?;
    Ok(connection)
}

pub(crate) fn configure(connection: &Connection, settings: &Settings) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous={}; PRAGMA temp_store=MEMORY;
         PRAGMA cache_size=-{}; PRAGMA mmap_size=1073741824; PRAGMA wal_autocheckpoint=2000;",
        settings.synchronous, settings.cache_kib
    ))
}

/// Marks `id`; whether it was new.
pub(crate) fn test_and_set(
    connection: &Connection,
    id: &str,
    likely_new: bool,
) -> rusqlite::Result<bool> {
    // Only the insert decides. Where duplicates are likely, a read before it spares the write lock.
    if !likely_new {
        let mut select = connection.prepare_cached("SELECT 1 FROM seen WHERE id = ?1")?;
        if select.query_row([id], |_| Ok(())).optional()?.is_some() {
            return Ok(false);
        }
    }
    insert(connection, id)
}

fn insert(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    let mut insert = connection
        .prepare_cached("INSERT INTO seen (id, ts) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    Ok(insert.execute(params![id, harness::now_ms().cast_signed()])? == 1)
}

/// Marks all with one transaction; how many were new.
pub(crate) fn test_and_set_all(connection: &Connection, ids: &[String]) -> rusqlite::Result<u64> {
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
    let mut new = 0;
    for id in ids {
        new += u64::from(insert(&transaction, id)?);
    }
    transaction.commit()?;
    Ok(new)
}
