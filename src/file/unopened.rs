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
