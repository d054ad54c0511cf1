//! From a path to connections that read a store and leave no trace of having done so.
//!
//! Owns the choice of how a file is read. An ordinary connection to a database with a write-ahead log
//! makes a `-wal` and a `-shm` beside it, and cannot read at all where it may not. What always holds:
//! nothing here creates, deletes or checkpoints anything. Whoever reads a file that is
//! [`Still`](Look::Still) holds no lock on it, and must look again afterwards: what was read while the
//! file changed counts for nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::open::{
    accept, has_log_alone, opened_files, refuse_cut_off, refuse_old_sqlite, retry_while_locked,
    retry_while_locked_unless, secure, secured,
};
use super::recognise::recognise;
use super::sqlite_errors::failure;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::wal::ReadingAlone;
use crate::file::{self, Identity, OpenedFiles, Stamp, beside, shown};
use crate::process::{Own, Registration};

/// How a file can be read at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing is in the log: the file is all there is, and whoever writes leaves it alone until the
    /// next checkpoint. Read as if it could not change, without a lock.
    Still(Stamp),
    /// Others share the log, or have left one: read as one of them, under SQLite's locks.
    Shared(Identity),
    /// The log has no `-shm`: whoever wrote it was in exclusive mode, or somebody deleted that. Read
    /// alone, so that none is made. Others wait meanwhile: a lock on the log tells them that they are
    /// not kept out by a store in exclusive mode.
    Alone(Identity),
}

impl Look {
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let identity = file::prepare(path, false)?;
        if let Some(look) = Self::at_log(path, identity) {
            return Ok(look);
        }
        let stamp = Stamp::settled(path)?;
        // Again, after the stamp: what leaves a log for the file from now on changes the stamp.
        Ok(Self::at_log(path, identity).unwrap_or(Self::Still(stamp)))
    }

    /// How to read a file whose log has content.
    fn at_log(path: &Path, identity: Identity) -> Option<Self> {
        let has_content = |suffix| file::bytes(&beside(path, suffix)) > 0;
        if has_content("-wal") {
            let shared = file::exists(&beside(path, "-shm"));
            return Some(if shared { Self::Shared(identity) } else { Self::Alone(identity) });
        }
        let ordinary = has_content("-journal") || cfg!(not(unix));
        ordinary.then_some(Self::Shared(identity))
    }

    /// Whether what was read since then may be half old and half new.
    pub(crate) fn is_spoilt(self, path: &Path) -> Result<bool> {
        match self {
            Self::Still(stamp) => Ok(Stamp::of(path)? != stamp),
            Self::Shared(identity) | Self::Alone(identity) => Ok(file::identity(path)? != identity),
        }
    }

    /// How many connections may read at once.
    pub(crate) fn most_connections(self) -> usize {
        if self.keeps_others_out() { 1 } else { usize::MAX }
    }

    /// Whether a connection must be given up as soon as it has read.
    pub(crate) fn keeps_others_out(self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

/// A connection that reads.
pub(crate) struct Reading {
    /// What the connection shares with others. Dropped before it, as `open::close_store` does.
    files: Option<OpenedFiles>,
    pub(crate) connection: Own<Connection>,
    /// Dropped after the connection.
    _alone: Option<ReadingAlone>,
}

impl Reading {
    /// Whether the log that the connection reads is still the file's own.
    pub(crate) fn is_current(&self) -> bool {
        self.files.as_ref().is_none_or(|files| files.check().is_ok())
    }
}

/// Opens a store to read it in this way. Refuses whatever an ordinary open refuses. `None` when another
/// reads alone, or shares the log by now: look again in a moment.
pub(crate) fn open(path: &Path, config: &Config, look: Look) -> Result<Option<Reading>> {
    refuse_old_sqlite()?;
    let fail = |e| failure("open", &shown(path), e);
    let alone = match look {
        Look::Alone(_) => match ReadingAlone::begin(path)? {
            None => return Ok(None),
            alone => alone,
        },
        _ => None,
    };
    let connection = match look {
        Look::Still(_) => {
            let registration = Registration::new(&shown(path))?;
            Own::new(registration, immutable(path).map_err(fail)?)
        }
        Look::Shared(_) => secured(path, &config.clone().read_only(true).exclusive(false))?,
        Look::Alone(_) => secured(path, &config.clone().read_only(false).exclusive(true))
            .map_err(|e| explain_lost_shm(path, e))?,
    };
    connection.pragma_update(None, "query_only", true).map_err(fail)?;
    // Also when the log had no content when this was opened, and has by the time it is closed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fail)?;
    let format = if look.keeps_others_out() {
        // Whoever has the file now is no other reader.
        let impatient = config.clone().busy_timeout(Duration::ZERO);
        let read = || recognise(&connection);
        match retry_while_locked_unless(|| has_log_alone(path), path, &impatient, "open", read) {
            Err(e) if e.kind() == ErrorKind::Busy && !has_log_alone(path) => return Ok(None),
            format => format?,
        }
    } else {
        retry_while_locked(path, config, "open", || recognise(&connection))?
    };
    refuse_cut_off(&connection, path)?;
    accept(path, &config.clone().read_only(true), format)?;
    let files = match look {
        Look::Shared(identity) => Some(opened_files(&connection, path, config, identity)?),
        Look::Still(_) | Look::Alone(_) => None,
    };
    Ok(Some(Reading { connection, files, _alone: alone }))
}

/// SQLite then ignores the log, takes no locks and makes no files.
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
            let _ = write!(uri, "%{byte:02X}"); // A String takes everything.
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
            "{}: its log holds data and {} is missing, so that only who may write to the file can read \
             it; let its owner open it once",
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
