//! From a path to connections that read a store and leave no trace.
//!
//! Owns the choice of how to read a file. An ordinary connection to a database with a write-ahead log creates
//! a `-wal` and a `-shm` beside it, and cannot read at all if it may not create them. What always holds:
//! nothing here creates, deletes or checkpoints anything. A file that is read as
//! [`Immutable`](ReadMode::Immutable) is not locked, so its stamp must be compared afterwards: what was read
//! while the file changed is not valid.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::open::{Found, open_secure, opened_files, refuse_old_sqlite, secure};
use super::sqlite_errors::failure;
use super::waiting::{has_log_without_shm, retry_while_locked, retry_while_locked_unless};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::wal::ExclusiveReadLock;
use crate::file::{self, Identity, OpenedFiles, Stamp, beside, shown};
use crate::process::{Registered, Registration};

/// How a file can be read at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// The log is empty: everything is in the file, and a store that writes does not change the file before
    /// its next checkpoint. Read as if the file could not change, without a lock.
    Immutable(Stamp),
    /// The log has content and a `-shm`: read like the stores that share it, under SQLite's locks.
    Shared(Identity),
    /// The log has content but no `-shm`: a store in exclusive mode wrote the log, or the `-shm` was deleted.
    /// Read in exclusive mode, so that none is created. Others wait meanwhile: a lock on the log tells them
    /// that it is not a store in exclusive mode that keeps them out.
    Exclusive(Identity),
}

impl ReadMode {
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let identity = file::prepare(path, false)?;
        if let Some(mode) = Self::for_log(path, identity) {
            return Ok(mode);
        }
        let stamp = Stamp::settled(path)?;
        // Again after the stamp: a log that gets content from now on changes the stamp when it is copied.
        Ok(Self::for_log(path, identity).unwrap_or(Self::Immutable(stamp)))
    }

    /// Returns how to read a file whose log has content.
    fn for_log(path: &Path, identity: Identity) -> Option<Self> {
        let has_content = |suffix| file::bytes(&beside(path, suffix)) > 0;
        if has_content("-wal") {
            let shared = file::exists(&beside(path, "-shm"));
            return Some(if shared { Self::Shared(identity) } else { Self::Exclusive(identity) });
        }
        let ordinary = has_content("-journal") || cfg!(not(unix));
        ordinary.then_some(Self::Shared(identity))
    }

    /// Returns whether what was read since then may be partly old and partly new.
    pub(crate) fn has_changed(self, path: &Path) -> Result<bool> {
        match self {
            Self::Immutable(stamp) => Ok(Stamp::of(path)? != stamp),
            Self::Shared(identity) | Self::Exclusive(identity) => {
                Ok(file::identity(path)? != identity)
            }
        }
    }

    /// Returns how many connections may read at the same time.
    pub(crate) fn max_connections(self) -> usize {
        if self.is_exclusive() { 1 } else { usize::MAX }
    }

    /// Returns whether a connection must be closed as soon as it has read, because it blocks others.
    pub(crate) fn is_exclusive(self) -> bool {
        matches!(self, Self::Exclusive(_))
    }
}

/// A connection for reading.
pub(crate) struct ReadConnection {
    /// The files that the connection shares with others. Dropped before it, as in `close::close_store`.
    files: Option<OpenedFiles>,
    pub(crate) connection: Registered<Connection>,
    /// Dropped after the connection.
    _alone: Option<ExclusiveReadLock>,
}

impl ReadConnection {
    /// Returns whether the log that the connection reads is still the file's own.
    pub(crate) fn is_current(&self) -> bool {
        self.files.as_ref().is_none_or(|files| files.check().is_ok())
    }
}

/// Opens a store to read it in this mode. Refuses what an ordinary open refuses. `None` if another reader
/// reads alone, or if the log is shared by now: determine the mode again after a short pause.
pub(crate) fn open(path: &Path, config: &Config, mode: ReadMode) -> Result<Option<ReadConnection>> {
    let Some((connection, alone)) = connect(path, config, mode)? else { return Ok(None) };
    let read = || Found::read(&connection, path);
    let found = if mode.is_exclusive() {
        // The lock on the log is taken, so no other reader can be the one that has the file locked.
        let no_wait = config.clone().busy_timeout(Duration::ZERO);
        match retry_while_locked_unless(|| has_log_without_shm(path), path, &no_wait, "open", read)
        {
            Err(e) if e.kind() == ErrorKind::Busy && !has_log_without_shm(path) => return Ok(None),
            found => found?,
        }
    } else {
        retry_while_locked(path, config, "open", read)?
    };
    found.accept(path, &config.clone().read_only(true))?;
    let files = match mode {
        ReadMode::Shared(identity) => Some(opened_files(&connection, path, config, identity)?),
        ReadMode::Immutable(_) | ReadMode::Exclusive(_) => None,
    };
    Ok(Some(ReadConnection { connection, files, _alone: alone }))
}

type Connected = (Registered<Connection>, Option<ExclusiveReadLock>);

fn connect(path: &Path, config: &Config, mode: ReadMode) -> Result<Option<Connected>> {
    refuse_old_sqlite()?;
    let fail = |e| failure("open", &shown(path), e);
    let alone = match mode {
        ReadMode::Exclusive(_) => match ExclusiveReadLock::acquire(path)? {
            None => return Ok(None),
            alone => alone,
        },
        _ => None,
    };
    let connection = match mode {
        ReadMode::Immutable(_) => {
            let registration = Registration::new(&shown(path))?;
            let connection = file::open_database(path, || immutable(path))?;
            Registered::new(registration, connection.map_err(fail)?)
        }
        ReadMode::Shared(_) => open_secure(path, &config.clone().read_only(true).exclusive(false))?,
        ReadMode::Exclusive(_) => {
            open_secure(path, &config.clone().read_only(false).exclusive(true))
                .map_err(|e| explain_lost_shm(path, e))?
        }
    };
    connection.pragma_update(None, "query_only", true).map_err(fail)?;
    // For all modes: a log that is empty now may have content when this connection closes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fail)?;
    Ok(Some((connection, alone)))
}

/// A file that is read to be copied, in whatever format it is.
pub(crate) struct CopySource {
    pub(crate) connection: Registered<Connection>,
    mode: ReadMode,
    /// Dropped after the connection.
    _alone: Option<ExclusiveReadLock>,
}

impl CopySource {
    /// Fails if the file was changed since it was opened, so that a copy may be partly old and partly new.
    pub(crate) fn check_unchanged(&self, path: &Path) -> Result<()> {
        if self.mode.has_changed(path)? { Err(busy_source(path)) } else { Ok(()) }
    }
}

/// Opens a file to copy it, and leaves no trace.
pub(crate) fn open_to_copy(path: &Path, config: &Config) -> Result<CopySource> {
    let mode = ReadMode::at(path)?;
    let (connection, alone) = connect(path, config, mode)?.ok_or_else(|| busy_source(path))?;
    Ok(CopySource { connection, mode, _alone: alone })
}

fn busy_source(path: &Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("{} is used by another process while it is copied; try again", shown(path)),
    )
}

/// Opens a file that may be damaged, to read what can be read. Recognises nothing and refuses nothing: what is
/// there may be no store. Reads the log too, if it has content; only then may others be in the way.
pub(crate) fn open_damaged(path: &Path, config: &Config) -> Result<Registered<Connection>> {
    refuse_old_sqlite()?;
    let fail = |e| failure("open", &shown(path), e);
    let connection = match ReadMode::at(path)? {
        ReadMode::Immutable(_) => {
            let registration = Registration::new(&shown(path))?;
            Registered::new(registration, immutable(path).map_err(fail)?)
        }
        ReadMode::Shared(_) => open_secure(path, &config.clone().read_only(true).exclusive(false))?,
        ReadMode::Exclusive(_) => {
            open_secure(path, &config.clone().read_only(false).exclusive(true))
                .map_err(|e| explain_lost_shm(path, e))?
        }
    };
    let prepare = || {
        connection.pragma_update(None, "query_only", true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // So SQLite reads a file that is shorter than its header says. Nothing is written in this mode.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        connection.pragma_update(None, "writable_schema", true)
    };
    prepare().map_err(fail)?;
    Ok(connection)
}

/// Opens a connection with which SQLite ignores the log, takes no locks and creates no files.
fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable_uri(path), flags)?;
    secure(&connection)?;
    Ok(connection)
}

fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(byte.into());
        } else {
            let _ = write!(uri, "%{byte:02X}"); // Writing to a String cannot fail.
        }
    }
    uri + "?immutable=1"
}

fn explain_lost_shm(path: &Path, error: Error) -> Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    Error::with_source(
        ErrorKind::PermissionDenied,
        format!(
            "{}: its log holds data and {} is missing, so reading needs write access to the file; \
             let its owner open it once",
            shown(path),
            shown(&beside(path, "-shm")),
        ),
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_path_is_taken_for_a_part_of_the_uri() {
        assert_eq!(
            immutable_uri(Path::new("/a b/50%?mode=rwc#é.db")),
            "file:/a%20b/50%25%3Fmode%3Drwc%23%C3%A9.db?immutable=1"
        );
    }
}
