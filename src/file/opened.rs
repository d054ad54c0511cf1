//! The files of an open store, and whether they are still at their names.
//!
//! What always holds: an open connection keeps a lock on the database, and SQLite then deletes neither its
//! log (`-wal`) nor the log's index (`-shm`). So if a side file is gone or replaced, another program did it.
//! A commit then goes into a file that no other connection will read, and a checkpoint overwrites pages that
//! others have written since. Reads only metadata, except for the log (see `wal`); knows nothing of SQL.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::names::has_other_names;
use super::wal::Header;
use super::{Identity, beside, check_not_replaced, metadata_error, shown};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Mutex;

/// The index of each log that this process has open. All connections of a process to one database share one
/// index, that of the first connection. A later one uses it even if another file is at the name.
static INDEXES: Mutex<Vec<Index>> = Mutex::new(Vec::new());

struct Index {
    database: Identity,
    identity: Identity,
    used: Weak<()>,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct OpenedFiles {
    path: PathBuf,
    database: Identity,
    log: Option<Identity>,
    index: Option<(Identity, Arc<()>)>,
    /// Set after the connection was closed because its files were moved, deleted or replaced. Opening the path
    /// again would give answers of another history.
    lost: Option<Error>,
    warned_about_link: bool,
    /// The header of the log, and up to which of its frames the log was found intact.
    pub(crate) intact_frames: Option<(Header, u32)>,
}

/// What is at the name of a side file.
enum SideFile {
    OwnOrMissing,
    OtherEmpty,
    Other,
}

impl OpenedFiles {
    /// Records which files are at their names. To be called once a connection has opened them.
    pub(crate) fn record(
        path: &Path,
        database: Identity,
        has_log: bool,
        has_index: bool,
    ) -> Result<Self> {
        let side = |suffix| {
            let path = beside(path, suffix);
            match fs::symlink_metadata(&path) {
                Ok(metadata) => Ok(Identity::of(&metadata)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Err(replaced_while_open(&path)),
                Err(e) => Err(metadata_error(&path, e)),
            }
        };
        let log = if has_log { Some(side("-wal")?) } else { None };
        let index = if has_index {
            let identity = side("-shm")?;
            Some((identity, register_index(path, database, identity)?))
        } else {
            None
        };
        Ok(Self {
            path: path.to_owned(),
            database,
            log,
            index,
            lost: None,
            warned_about_link: false,
            intact_frames: None,
        })
    }

    pub(crate) fn database(&self) -> Identity {
        self.database
    }

    /// Fails unless all files are still those that were opened.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        check_not_replaced(&self.path, self.database)?;
        self.check_side_files()
    }

    pub(crate) fn check_side_files(&self) -> Result<()> {
        if let Some(log) = self.log {
            check_not_replaced(&beside(&self.path, "-wal"), log)?;
        }
        if let Some((index, _)) = self.index {
            check_not_replaced(&beside(&self.path, "-shm"), index)?;
        }
        Ok(())
    }

    /// Returns whether closing may copy the opened log into the database, as SQLite does for the last
    /// connection.
    ///
    /// It may if there is no file at the names of the side files: a process that opened the store since would
    /// have created both, and SQLite leaves them in place while this connection is open. It may also if there
    /// is another, empty log but the same index: the process that created that log uses this index, and has
    /// committed nothing that must not be copied. With another index, or another log with content, others have
    /// gone on without what this connection knows.
    pub(crate) fn may_copy_log(&self) -> bool {
        let stands = |suffix, own: Option<Identity>| own.map(|own| self.side_file(suffix, own));
        let log = stands("-wal", self.log);
        let index = stands("-shm", self.index.as_ref().map(|(index, _)| *index));
        self.lost.is_none()
            && !matches!(log, Some(SideFile::Other))
            && !matches!(index, Some(SideFile::OtherEmpty | SideFile::Other))
    }

    /// Returns the log that was opened; `None` if it is not at its name any more.
    pub(crate) fn open_log(&self) -> Option<File> {
        let log = File::open(beside(&self.path, "-wal")).ok()?;
        (self.log == Some(Identity::of(&log.metadata().ok()?))).then_some(log)
    }

    fn side_file(&self, suffix: &str, identity: Identity) -> SideFile {
        match fs::symlink_metadata(beside(&self.path, suffix)) {
            Ok(metadata) if Identity::of(&metadata) == identity => SideFile::OwnOrMissing,
            Ok(metadata) if metadata.len() == 0 => SideFile::OtherEmpty,
            Err(e) if e.kind() == io::ErrorKind::NotFound => SideFile::OwnOrMissing,
            Ok(_) | Err(_) => SideFile::Other,
        }
    }

    /// Prepares for closing the connection and opening another one: SQLite may delete the side files from now
    /// on. `checked` is the result of a check that was just made.
    pub(crate) fn release_side_files(&mut self, checked: Result<()>) {
        match checked {
            Err(e) if e.kind() == ErrorKind::FileReplaced => self.lost = Some(e),
            _ => (self.log, self.index) = (None, None),
        }
    }

    /// Returns the record for a new connection, which replaces the failed connection of `before`.
    pub(crate) fn replacing(self, before: &Self) -> Self {
        Self { warned_about_link: before.warned_about_link, ..self }
    }

    /// Logs, once, that the database was given a second name. That does no harm yet, because opening it by that
    /// name is refused.
    pub(crate) fn warn_about_second_name(&mut self) {
        if !self.warned_about_link
            && fs::symlink_metadata(&self.path).is_ok_and(|m| has_other_names(&m))
        {
            self.warned_about_link = true;
            let file = shown(&self.path);
            log::warn!(
                file = file.as_str();
                "{file} was given a second name (a hard link) while it is open; it cannot be opened again \
                 until that name is removed"
            );
        }
    }
}

/// Records that an index is used. Refuses another index than the one that this process uses already.
fn register_index(path: &Path, database: Identity, identity: Identity) -> Result<Arc<()>> {
    let mut indexes = INDEXES.lock();
    indexes.retain(|index| index.used.strong_count() > 0);
    if indexes.iter().any(|index| index.database == database && index.identity != identity) {
        return Err(replaced_while_open(&beside(path, "-shm")));
    }
    let used = Arc::new(());
    indexes.push(Index { database, identity, used: Arc::downgrade(&used) });
    Ok(used)
}

fn replaced_while_open(path: &Path) -> Error {
    Error::new(
        ErrorKind::FileReplaced,
        format!(
            "{} was moved, deleted or replaced while a store was open; close every store on the file \
             and open it again",
            shown(path)
        ),
    )
}
