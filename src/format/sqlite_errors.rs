//! The translation of SQLite's errors into this crate's.
//!
//! Owns the mapping of result codes to [`ErrorKind`]. Every message names the action, the file and, if there
//! is one, the remedy. SQLite's own message is kept as the cause. Where SQLite does not say what the operating system
//! said, `file::cause` finds out.

use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::error::{Error, ErrorKind};
use crate::file;

/// Returns whether the content of the file is at fault.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    let damages = [ErrorCode::DatabaseCorrupt, ErrorCode::ConstraintViolation];
    error.sqlite_error_code().is_some_and(|code| damages.contains(&code))
}

/// Returns whether SQLite cannot make sense of a page.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// Returns whether another connection is in the way, so that the same step may succeed in a moment.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(is_busy_code)
}

/// The locking protocol fails for a while when another process is stopped at the wrong moment.
fn is_busy_code(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed
    )
}

/// Returns the error for a step that failed while `doing` something to `name`.
pub(crate) fn failure(doing: &str, name: &str, error: rusqlite::Error) -> Error {
    let extended = error.sqlite_error().map_or(0, |e| e.extended_code);
    let (kind, remedy) = match error.sqlite_error_code() {
        Some(code) if is_busy_code(code) => {
            (ErrorKind::Busy, ": another process has it locked; try again")
        }
        Some(ErrorCode::DiskFull) => (
            ErrorKind::StorageFull,
            ": no space is left on the file system, and nothing was changed; make room and try again",
        ),
        Some(ErrorCode::NotADatabase) => (
            ErrorKind::NotADatabase,
            ": it is not a SQLite database, or its beginning is damaged, and was not changed; give another path, or \
             restore a backup if it was a store",
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            ": the database is damaged, and was not changed; restore a backup of it",
        ),
        Some(ErrorCode::ReadOnly) if extended == ffi::SQLITE_READONLY_DBMOVED => (
            ErrorKind::FileReplaced,
            ": the file was moved or deleted; close the store and open it again",
        ),
        Some(ErrorCode::ReadOnly) if extended == ffi::SQLITE_READONLY_ROLLBACK => (
            ErrorKind::ReadOnly,
            ": a process was killed while it changed the file, and reading does not undo that; open it once for writing",
        ),
        Some(ErrorCode::ReadOnly) => {
            (ErrorKind::ReadOnly, ": it is read-only; make it and its folder writable")
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => (
            ErrorKind::PermissionDenied,
            ": check the permissions of the file, of its side files and of its folder",
        ),
        // SQLite enlarges the index of the log by writing to it, and does not ask why that failed.
        Some(ErrorCode::SystemIoFailure) if extended == ffi::SQLITE_IOERR_SHMSIZE => (
            ErrorKind::StorageFull,
            ": no space is left on the file system for the index of its log (-shm); make room and try again",
        ),
        Some(ErrorCode::SystemIoFailure) => (
            ErrorKind::Io,
            ": the operating system failed a read or a write; look at its log (`dmesg`), and at quotas",
        ),
        Some(ErrorCode::OutOfMemory) => (
            ErrorKind::Io,
            ": SQLite got no memory, and nothing was changed; let the process have more (`ulimit -v`, or the limit of \
             its container)",
        ),
        // Any other error is caused by content that no version of this crate writes.
        _ => (
            ErrorKind::Corrupt,
            ": the database has content that no store writes; restore a backup of it",
        ),
    };
    // A file's name is its path, which is absolute.
    let is_unexplained =
        matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnly | ErrorKind::Io)
            || extended == ffi::SQLITE_IOERR_SHMSIZE;
    match is_unexplained.then(|| file::cause(Path::new(name))).flatten() {
        Some((kind, cause)) => {
            Error::with_source(kind, format!("cannot {doing} {name}: {cause}"), error)
        }
        None => Error::with_source(kind, format!("cannot {doing} {name}{remedy}"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_for_want_of_memory_is_not_told_as_damage() {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_NOMEM), None);
        let told = failure("read", "a store in memory", error);
        assert_eq!(told.kind(), ErrorKind::Io);
        assert!(told.to_string().contains("SQLite got no memory"), "{told}");
    }
}
