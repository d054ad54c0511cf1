//! The upgrade of the seed's file, `seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)`, in place.
//!
//! Owns the copy that is made first and the one transaction that follows. A crash at any point leaves
//! either the old format, to be upgraded by the next open, or the new one. No row with a valid id is
//! lost.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, TransactionBehavior};

use super::connect::patiently;
use super::{Format, IdValue, define, recognise_within};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::file::{beside, exists, shown};
use crate::id::MAX_ID_BYTES;

pub(super) fn from_seed(
    connection: &mut Connection,
    path: &Path,
    config: &Config,
    now_ms: i64,
) -> Result<()> {
    let copy = copy(connection, path)?;
    let upgraded = patiently(path, config, "upgrade", || convert(connection, config, now_ms))?;
    let Some(Upgraded { kept, skipped, undated }) = upgraded else {
        // Another process was faster; its copy does.
        return remove(&copy);
    };
    log::info!("{}: upgraded {kept} ids; the old file is kept as {}", shown(path), shown(&copy));
    if skipped > 0 {
        log::warn!(
            "{}: {skipped} rows had no valid id (NULL, empty or longer than {MAX_ID_BYTES} bytes) and \
             were left out; they are in {}",
            shown(path),
            shown(&copy)
        );
    }
    if undated > 0 {
        log::warn!("{}: {undated} ids had no valid timestamp and count as seen now", shown(path));
    }
    Ok(())
}

/// Copies the file to the first free of `<path>.v0.bak`, `<path>.v0.bak.2`, ... An existing copy is
/// never overwritten: it may be the only good one.
fn copy(connection: &Connection, path: &Path) -> Result<PathBuf> {
    let mut target = beside(path, ".v0.bak");
    let mut number = 1;
    while exists(&target) {
        number += 1;
        target = beside(path, &format!(".v0.bak.{number}"));
    }
    // Under another name until it is complete, so that `.v0.bak` is never half a copy.
    let unfinished = beside(path, &format!(".v0.bak.{}.tmp", std::process::id()));
    if exists(&unfinished) {
        remove(&unfinished)?;
    }
    super::copy::copy(connection, &unfinished)?;
    let named = fs::rename(&unfinished, &target)
        .map_err(|e| Error::io(format!("cannot name the copy {}", shown(&target)), e));
    if named.is_err() {
        let _ = remove(&unfinished); // The first error is the one to tell.
    }
    named.map(|()| target)
}

fn remove(copy: &Path) -> Result<()> {
    fs::remove_file(copy).map_err(|e| Error::io(format!("cannot remove {}", shown(copy)), e))
}

struct Upgraded {
    kept: u64,
    skipped: u64,
    undated: u64,
}

/// `None` when the file has been upgraded since it was recognised.
fn convert(
    connection: &mut Connection,
    config: &Config,
    now_ms: i64,
) -> rusqlite::Result<Option<Upgraded>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if recognise_within(&transaction)? != Format::Seed {
        return Ok(None);
    }
    transaction.execute_batch("ALTER TABLE seen RENAME TO seed")?;
    define(&transaction)?;
    let mut done = Upgraded { kept: 0, skipped: 0, undated: 0 };
    {
        // One id may stand there twice, as TEXT and as a BLOB of the same bytes. A numeric id becomes
        // its text, a REAL timestamp is truncated.
        let mut rows = transaction.prepare(
            "SELECT CAST(id AS BLOB) AS bytes, \
                    min(iif(typeof(ts) IN ('integer', 'real'), CAST(ts AS INTEGER), NULL)), \
                    max(iif(typeof(ts) IN ('integer', 'real'), CAST(ts AS INTEGER), NULL)) AS newest \
             FROM seed GROUP BY bytes ORDER BY newest",
        )?;
        let mut insert = transaction.prepare(
            "INSERT INTO seen (id, first_seen, last_seen, expires_at) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = match row.get_ref(0)? {
                ValueRef::Blob(bytes) if (1..=MAX_ID_BYTES).contains(&bytes.len()) => bytes,
                _ => {
                    done.skipped += 1;
                    continue;
                }
            };
            let times: (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
            let (first, last) = if let (Some(first), Some(last)) = times {
                (first.saturating_mul(1000), last.saturating_mul(1000))
            } else {
                // Kept for one more TTL rather than lost.
                done.undated += 1;
                (now_ms, now_ms)
            };
            let id = IdValue(bytes);
            insert.execute((id, first, last, config.ttl.expires_at(last)))?;
            done.kept += 1;
        }
    }
    transaction.execute_batch("DROP TABLE seed")?;
    transaction.commit()?;
    Ok(Some(done))
}
