//! The upgrade of a legacy file, `seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)`, in place.
//!
//! Owns the copy that is made first and the one transaction that follows. A crash at any point leaves either
//! the legacy format, which the next open upgrades, or the new one. No row with a valid id is lost.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::IdValue;
use super::create::define;
use super::recognise::{Format, recognise_within};
use super::sqlite_errors::failure;
use super::waiting::retry_while_locked;
use crate::backoff::retry_while_busy;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{beside, bytes, create_new, exists, shown, temporary_name};
use crate::id::MAX_ID_BYTES;

/// What opening a store did to a file in the older format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpgradeReport {
    /// How many ids were kept, including those that have expired.
    pub kept: u64,
    /// How many rows had no valid id (NULL, empty or longer than 65,536 bytes) and were left out.
    pub skipped: u64,
    /// How many of the ids had no valid timestamp. They count as seen at the time of the upgrade.
    pub undated: u64,
    /// The path of the copy of the file as it was before.
    pub copy: PathBuf,
}

pub(super) fn upgrade_legacy(
    connection: &Connection,
    path: &Path,
    config: &Config,
    now_ms: i64,
) -> Result<Option<UpgradeReport>> {
    // The transaction is exclusive because its commit would have to wait for readers without a write-ahead log.
    // Several processes may do this at the same time, each with a copy. The first to get the write lock names
    // its own copy. The others find the upgrade done.
    let unfinished = retry_while_busy(config.busy_timeout, || copy(connection, path))?;
    let upgraded =
        retry_while_locked(path, config, "upgrade", || connection.execute_batch("BEGIN EXCLUSIVE"))
            .and_then(|()| {
                let upgraded = upgrade_within(connection, path, &unfinished, config, now_ms);
                let end = if matches!(upgraded, Ok(Some(_))) { "COMMIT" } else { "ROLLBACK" };
                let ended = connection.execute_batch(end);
                let upgraded = upgraded?;
                ended.map_err(|e| failure("upgrade", &shown(path), e))?;
                Ok(upgraded)
            });
    if exists(&unfinished) {
        remove(&unfinished)?;
    }
    let Some(upgrade) = upgraded? else { return Ok(None) };
    let UpgradeReport { kept, skipped, undated, copy } = &upgrade;
    let (file, copy) = (shown(path), shown(copy));
    log::info!(
        file = file.as_str(), copy = copy.as_str(), kept = kept;
        "{file}: upgraded {kept} ids; the old file is kept as {copy}"
    );
    if *skipped > 0 {
        log::warn!(
            file = file.as_str(), copy = copy.as_str(), skipped = skipped;
            "{file}: {skipped} rows had no valid id (NULL, empty or longer than {MAX_ID_BYTES} bytes) and \
             were left out; they are in {copy}"
        );
    }
    if *undated > 0 {
        log::warn!(
            file = file.as_str(), undated = undated;
            "{file}: {undated} ids had no valid timestamp and count as seen now"
        );
    }
    Ok(Some(upgrade))
}

/// Names the copy and converts the file, under the write lock. `None` if another process has upgraded it.
fn upgrade_within(
    connection: &Connection,
    path: &Path,
    unfinished: &Path,
    config: &Config,
    now_ms: i64,
) -> Result<Option<UpgradeReport>> {
    let fail = |e| failure("upgrade", &shown(path), e);
    if recognise_within(connection).map_err(fail)? != Format::Legacy {
        return Ok(None);
    }
    let copy = name(unfinished, path)?;
    Ok(Some(convert(connection, config, now_ms, copy).map_err(fail)?))
}

/// Copies the file to a name of its own, so that a file named `.v0.bak` is always a complete copy.
fn copy(connection: &Connection, path: &Path) -> Result<PathBuf> {
    let unfinished = temporary_name(path, ".upgrading");
    super::copy::copy(connection, &unfinished)?;
    Ok(unfinished)
}

/// Renames the copy to the first free name of `<path>.v0.bak`, `<path>.v0.bak.2`, ... Never overwrites an
/// existing copy: it may be the only good one.
///
/// An empty file takes the name first, because a rename overwrites any file. (A hard link would not, but a
/// crash could leave the copy with two names, and such a file is refused.) A crash in between leaves the empty
/// file, which counts as free.
fn name(unfinished: &Path, path: &Path) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let target = match number {
            1 => beside(path, ".v0.bak"),
            _ => beside(path, &format!(".v0.bak.{number}")),
        };
        match create_new(&target) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            taken => taken?,
        }
        if bytes(&target) > 0 {
            number += 1;
            continue;
        }
        return match fs::rename(unfinished, &target) {
            Ok(()) => Ok(target),
            Err(e) => Err(Error::io(format!("cannot name the copy {}", shown(&target)), e)),
        };
    }
}

fn remove(copy: &Path) -> Result<()> {
    fs::remove_file(copy).map_err(|e| Error::io(format!("cannot remove {}", shown(copy)), e))
}

fn convert(
    connection: &Connection,
    config: &Config,
    now_ms: i64,
    copy: PathBuf,
) -> rusqlite::Result<UpgradeReport> {
    connection.execute_batch("ALTER TABLE seen RENAME TO seed")?;
    define(connection)?;
    let mut done = UpgradeReport { kept: 0, skipped: 0, undated: 0, copy };
    {
        // An id may occur twice, as TEXT and as a BLOB of the same bytes. A numeric id becomes its text, a REAL
        // timestamp is truncated.
        let mut rows = connection.prepare(
            "SELECT CAST(id AS BLOB) AS bytes, \
                    min(iif(typeof(ts) IN ('integer', 'real'), CAST(ts AS INTEGER), NULL)), \
                    max(iif(typeof(ts) IN ('integer', 'real'), CAST(ts AS INTEGER), NULL)) AS newest, \
                    count(*) \
             FROM seed GROUP BY bytes ORDER BY newest",
        )?;
        let mut insert = connection.prepare(
            "INSERT INTO seen (id, first_seen, last_seen, expires_at) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = match row.get_ref(0)? {
                ValueRef::Blob(bytes) if (1..=MAX_ID_BYTES).contains(&bytes.len()) => bytes,
                _ => {
                    done.skipped += row.get::<_, i64>(3)?.cast_unsigned();
                    continue;
                }
            };
            let times: (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
            let (first, last) = if let (Some(first), Some(last)) = times {
                (first.saturating_mul(1000), last.saturating_mul(1000))
            } else {
                // Kept for one more TTL, so that it is not lost.
                done.undated += 1;
                (now_ms, now_ms)
            };
            let id = IdValue(bytes);
            insert.execute((id, first, last, config.ttl.expires_at(last)))?;
            done.kept += 1;
        }
    }
    connection.execute_batch("DROP TABLE seed")?;
    Ok(done)
}
