//! A store's file is replaced by a backup.
//!
//! Owns the order of the steps. What always holds: the backup is copied and checked before anything of the store is
//! touched, and the file gets its new contents by one rename, while no store has it open. So a crash leaves the old
//! store or the new one, and the old one is also kept. Where the log cannot be written into the old file first, because
//! that is damaged or is a copy that was put beside the log of another file, the log is removed after the rename: a
//! crash in between leaves the new file beside that log, which each open refuses and another replacement mends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::open::{accept, close, open_secure, retry_while_locked};
use super::open_for_reading::open_to_copy;
use super::recognise::{Format, recognise};
use super::sqlite_errors::failure;
use super::{copy, integrity_problems};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, beside, bytes, shown};
use crate::process::Registered;

/// Replaces the store at `path` by the backup. Returns under which name the old one is kept. `at_step` is called between
/// the steps.
pub(crate) fn replace(
    path: &Path,
    backup: &Path,
    at_step: &mut dyn FnMut(),
) -> Result<Option<PathBuf>> {
    file::refuse_irregular(path)?;
    file::refuse_unsafe_names(path)?;
    if file::identity(backup).ok().is_some_and(|own| file::identity(path).ok() == Some(own)) {
        return Err(Error::new(
            ErrorKind::InvalidPath,
            format!("{} is the store itself; give the path of a backup", shown(backup)),
        ));
    }
    let new = unused_name(path);
    let replaced = copy_of_backup(backup, &new)
        .and_then(|()| file::adopt_owner_and_mode(&new, path))
        .and_then(|()| file::sync_file(&new))
        .and_then(|()| {
            at_step();
            empty_log(path)?;
            at_step();
            file::while_unopened(path, |old| {
                let kept = file::keep_replaced(path, old)?;
                at_step();
                // Before the rename: nothing would tell SQLite that it is not the new file's journal.
                file::remove_side_file(path, "-journal")?;
                file::sync_folder(path)?;
                at_step();
                file::rename(&new, path)?;
                at_step();
                file::remove_side_file(path, "-wal")?;
                at_step();
                file::remove_side_file(path, "-shm")?;
                file::sync_folder(path)?;
                Ok(kept)
            })
        });
    if replaced.is_err() {
        file::remove_copy(&new);
    }
    replaced
}

fn unused_name(path: &Path) -> PathBuf {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), COPIES.fetch_add(1, Relaxed));
    let name = beside(path, &format!(".restoring.{process}.{number}"));
    // Left by a process that crashed and had the same number.
    file::remove_copy(&name);
    name
}

/// Copies the backup, and checks the copy.
fn copy_of_backup(backup: &Path, new: &Path) -> Result<()> {
    let config = Config::default();
    let damaged = |why: &str| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the backup {} is damaged ({why}); give another one", shown(backup)),
        )
    };
    let explain = |e: Error| if e.kind() == ErrorKind::Corrupt { damaged(&e.to_string()) } else { e };
    let source = open_to_copy(backup, &config)?;
    match retry_while_locked(backup, &config, "read", || recognise(&source.connection)) {
        // An older file is upgraded when the store is opened.
        Ok(Format::Current | Format::Legacy) => {}
        Ok(other) => accept(backup, &config.create(false), other).map(drop)?,
        Err(e) => return Err(explain(e)),
    }
    copy::copy(&source.connection, new).map_err(explain)?;
    source.check_unchanged(backup)?;
    let copied = open_to_copy(new, &Config::default())?;
    let problems = integrity_problems(&copied.connection);
    let problems = problems.map_err(|e| failure("verify the copy of", &shown(backup), e))?;
    problems.first().map_or(Ok(()), |problem| Err(damaged(problem)))
}

/// Writes the log of the old store into its file, so that the rename replaces all of it. Leaves a file that is damaged
/// as it is, with its log.
///
/// # Errors
///
/// - `Busy` if a store has the file open;
/// - `WrongApplication` if the file is a database of something else.
fn empty_log(path: &Path) -> Result<()> {
    if bytes(path) == 0 {
        return Ok(());
    }
    let config = Config::default().busy_timeout(Duration::ZERO).exclusive(true);
    let opened = open_secure(path, &config).and_then(|connection| {
        let format = retry_while_locked(path, &config, "open", || recognise(&connection))?;
        Ok((connection, format))
    });
    match opened {
        Ok((connection, Format::Current | Format::Legacy)) => copy_log(connection, path),
        Ok((_, format @ Format::Foreign(_))) => {
            accept(path, &config, format).map(drop)
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::Busy => Err(e),
        Err(e) => {
            let file = shown(path);
            log::debug!(
                file = file.as_str(), error:% = e, error_kind = e.kind().word();
                "{file} is replaced with its log: {e}"
            );
            Ok(())
        }
    }
}

/// Closes the only connection to a file, which copies the log into the file and deletes it. A log that cannot be
/// copied, because the disk is full, stays, and is kept beside the replaced file.
fn copy_log(connection: Registered<Connection>, path: &Path) -> Result<()> {
    let allowed = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    allowed.and_then(|_| close(connection)).map_err(|e| failure("close", &shown(path), e))
}
