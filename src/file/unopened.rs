//! What can be learned from a database before SQLite opens it, and when that is safe.
//!
//! A process that opens and closes a database without SQLite loses the POSIX locks that it holds on the file, those of
//! SQLite in another part of the program included. What always holds: a database is read here only while this process
//! has no descriptor of it, and this crate opens no connection meanwhile. Knows the header of a database and nothing of
//! its pages.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::{Identity, beside, shown, wal};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::ProcessLock;

/// Held while a connection is opened, and while this process must have none on some file.
static OPENING: ProcessLock = ProcessLock::new();

/// Where the header of a database says how it is written and read: 1 by a rollback journal, 2 by a write-ahead log.
const FORMAT_AT: usize = 18;

/// Opens a connection, unless the database is a copy beside the log of another one.
pub(crate) fn open_database<T>(path: &Path, open: impl FnOnce() -> T) -> Result<T> {
    let _guard = OPENING.lock();
    refuse_copy_beside_log(path)?;
    Ok(open())
}

/// Refuses a database that has replaced another one whose log is still there, as when a backup is copied over a store
/// whose process was killed. SQLite would write the log into the copy: what was restored is undone, or the file is
/// damaged.
///
/// A backup is written in the format for a rollback journal, and a file is switched to the other format, and synced,
/// before its log is made; when it is switched back, the log is deleted first. So this format beside a log with frames
/// is certain to be such a copy.
fn refuse_copy_beside_log(path: &Path) -> Result<()> {
    if !wal::holds_frames(path) || !is_unopened(path) || !has_rollback_format(path) {
        return Ok(());
    }
    // Again: another process may have switched the file back since, which deletes the log first.
    if !wal::holds_frames(path) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "{}: it was replaced by a copy, such as a restored backup, and {} is the log of the file before it, which \
             would undo the copy or damage it; restore with `seen restore`, which sets the log aside, or put the file \
             back that the log belongs to",
            shown(path),
            shown(&beside(path, "-wal")),
        ),
    ))
}

/// Gives the step the database to read without SQLite. The step must not open a connection.
///
/// # Errors
///
/// `Busy` if this process has the file open.
pub(crate) fn read_unopened<T>(path: &Path, step: impl FnOnce(&File) -> Result<T>) -> Result<T> {
    let _guard = OPENING.lock();
    if cfg!(unix) && !is_unopened(path) {
        return Err(Error::new(
            ErrorKind::Busy,
            format!("{} is open in this process; close it there, and try again", shown(path)),
        ));
    }
    let file =
        File::open(path).map_err(|e| Error::io(format!("cannot open {}", shown(path)), e))?;
    step(&file)
}

/// Runs a step while no store has the database open, in this process or another one, and none can open it. Gives the
/// step the file, locked; `None` if there was none. An empty file then stands at the path meanwhile, so that there is one
/// to lock. The step must not open a connection, nor open and close the file.
///
/// # Errors
///
/// `Busy` if a connection to the file is open, or another process does the same.
pub(crate) fn while_unopened<T>(
    path: &Path,
    step: impl FnOnce(Option<&File>) -> Result<T>,
) -> Result<T> {
    let _guard = OPENING.lock();
    let busy = || {
        Error::new(
            ErrorKind::Busy,
            format!(
                "{} is open; close all stores on it, in all processes, and try again",
                shown(path)
            ),
        )
    };
    let was_missing = match super::create_new(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
        made => made.map(|()| true)?,
    };
    if cfg!(unix) && !is_unopened(path) {
        return Err(busy());
    }
    let file = lock_unopened(path)?.ok_or_else(busy)?;
    let done = step((!was_missing).then_some(&file));
    if was_missing && done.is_err() && is_at(&file, path) {
        let _ = fs::remove_file(path); // The caller reports the failure of the step.
    }
    done
}

/// Opens and locks a file that this process has no descriptor of: no connection reads it, by any name, until the result
/// is closed. `None` if another process has locked a part of it, or has given the name to another file.
pub(crate) fn lock_unopened(path: &Path) -> Result<Option<File>> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(|e| Error::io(format!("cannot open {}", shown(path)), e))?;
    let locked = lock_whole(&file);
    let locked = locked.map_err(|e| Error::io(format!("cannot lock {}", shown(path)), e))?;
    // Only now: a file keeps its name while it is locked so, but had not to before.
    Ok((locked && is_at(&file, path)).then_some(file))
}

/// Returns whether the path names this file.
fn is_at(file: &File, path: &Path) -> bool {
    let own = file.metadata().map(|own| Identity::of(&own));
    own.is_ok_and(|own| super::identity(path).is_ok_and(|named| named == own))
}

/// Locks the whole file as SQLite locks parts of it; false if a process has locked a part. The lock ends when any
/// descriptor that this process has of the file is closed.
#[cfg(unix)]
fn lock_whole(file: &File) -> io::Result<bool> {
    use rustix::fs::{FlockOperation, fcntl_lock};
    use rustix::io::Errno;
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(unix))]
fn lock_whole(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

fn has_rollback_format(path: &Path) -> bool {
    let mut header = [0; FORMAT_AT + 2];
    // Where the file cannot be read, SQLite says why.
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[FORMAT_AT..] == [1, 1]
}

/// Returns whether there is a file that this process may open and close: it has no descriptor of it. False where that
/// cannot be told. The caller holds [`OPENING`].
fn is_unopened(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_ok_and(|found| {
        found.is_file() && has_descriptor(Identity::of(&found)).is_ok_and(|has| !has)
    })
}

#[cfg(unix)]
fn has_descriptor(identity: Identity) -> io::Result<bool> {
    for descriptor in fs::read_dir("/dev/fd")? {
        // The descriptor of this very listing is gone when it is over.
        if let Ok(open) = fs::metadata(descriptor?.path())
            && Identity::of(&open) == identity
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(not(unix))]
fn has_descriptor(_: Identity) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}
