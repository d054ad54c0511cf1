//! The files of an open store, and whether they still stand at their names.
//!
//! What always holds: a connection that is open keeps a lock on the database, and SQLite then deletes
//! neither its log (`-wal`) nor the log's index (`-shm`). So a side file that is gone or another one
//! was taken away by other means. A commit goes into a file that nobody else will read, and a
//! checkpoint copies pages over those that others have written since. Only asks for metadata, but for the
//! log (see `wal`); knows nothing of SQL.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::names::has_other_names;
use super::wal::Header;
use super::{Identity, beside, check_still_there, shown};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Mutex;

/// The index of each log that this process has open. All connections of a process to one database
/// share one index, that of the first: a later one uses it even where another stands at the name.
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
    /// Set once the connection was given up because its files were taken away: opening again would
    /// answer out of another history.
    lost: Option<Error>,
    told_of_link: bool,
    /// Up to which frame the log with this header was found whole.
    pub(crate) found_whole: Option<(Header, u32)>,
}

/// What stands at the name of a side file.
enum Found {
    OwnOrNothing,
    OtherEmpty,
    Other,
}

impl OpenedFiles {
    /// Takes down which files stand at their names, once a connection has opened them.
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
                Err(e) if e.kind() == io::ErrorKind::NotFound => Err(taken_before(&path)),
                Err(e) => Err(Error::io(format!("cannot look at {}", shown(&path)), e)),
            }
        };
        let log = if has_log { Some(side("-wal")?) } else { None };
        let index = if has_index {
            let identity = side("-shm")?;
            Some((identity, use_index(path, database, identity)?))
        } else {
            None
        };
        Ok(Self {
            path: path.to_owned(),
            database,
            log,
            index,
            lost: None,
            told_of_link: false,
            found_whole: None,
        })
    }

    pub(crate) fn database(&self) -> Identity {
        self.database
    }

    /// Whether all of the files are still those that were opened.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        check_still_there(&self.path, self.database)?;
        self.check_side_files()
    }

    pub(crate) fn check_side_files(&self) -> Result<()> {
        if let Some(log) = self.log {
            check_still_there(&beside(&self.path, "-wal"), log)?;
        }
        if let Some((index, _)) = self.index {
            check_still_there(&beside(&self.path, "-shm"), index)?;
        }
        Ok(())
    }

    /// Whether closing may copy the log that was opened into the database, as SQLite does for the last
    /// connection.
    ///
    /// Where the names of the side files are merely free it may: another process that opened the store
    /// since would have made both, and SQLite leaves them in place while this connection is open. An
    /// empty log was made by one that uses the same index, in which it has committed nothing that is
    /// not to be copied. Another index, or a log with content, means that others have gone on without
    /// what this connection knows.
    pub(crate) fn may_copy_log(&self) -> bool {
        let stands = |suffix, own: Option<Identity>| own.map(|own| self.found(suffix, own));
        let log = stands("-wal", self.log);
        let index = stands("-shm", self.index.as_ref().map(|(index, _)| *index));
        self.lost.is_none()
            && !matches!(log, Some(Found::Other))
            && !matches!(index, Some(Found::OtherEmpty | Found::Other))
    }

    /// The log that was opened; `None` where it does not stand at its name.
    pub(crate) fn open_log(&self) -> Option<File> {
        let log = File::open(beside(&self.path, "-wal")).ok()?;
        (self.log == Some(Identity::of(&log.metadata().ok()?))).then_some(log)
    }

    fn found(&self, suffix: &str, identity: Identity) -> Found {
        match fs::symlink_metadata(beside(&self.path, suffix)) {
            Ok(metadata) if Identity::of(&metadata) == identity => Found::OwnOrNothing,
            Ok(metadata) if metadata.len() == 0 => Found::OtherEmpty,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Found::OwnOrNothing,
            Ok(_) | Err(_) => Found::Other,
        }
    }

    /// To be called before the connection closes and another is opened in its place: SQLite may delete
    /// the side files from now on. `checked` is what a check has just found.
    pub(crate) fn let_go(&mut self, checked: Result<()>) {
        match checked {
            Err(e) if e.kind() == ErrorKind::FileReplaced => self.lost = Some(e),
            _ => (self.log, self.index) = (None, None),
        }
    }

    /// Takes the place of `before`, whose connection was given up.
    pub(crate) fn follows(self, before: &Self) -> Self {
        Self { told_of_link: before.told_of_link, ..self }
    }

    /// Logs, once, that the database was given a second name. It does no harm yet: opening by that name
    /// is refused.
    pub(crate) fn tell_of_second_name(&mut self) {
        if !self.told_of_link && fs::symlink_metadata(&self.path).is_ok_and(|m| has_other_names(&m))
        {
            self.told_of_link = true;
            log::warn!(
                "{} was given a second name (a hard link) while it is open; it cannot be opened anew \
                 before that is removed",
                shown(&self.path)
            );
        }
    }
}

/// Refuses an index other than the one that this process uses already.
fn use_index(path: &Path, database: Identity, identity: Identity) -> Result<Arc<()>> {
    let mut indexes = INDEXES.lock();
    indexes.retain(|index| index.used.strong_count() > 0);
    if indexes.iter().any(|index| index.database == database && index.identity != identity) {
        return Err(taken_before(&beside(path, "-shm")));
    }
    let used = Arc::new(());
    indexes.push(Index { database, identity, used: Arc::downgrade(&used) });
    Ok(used)
}

fn taken_before(path: &Path) -> Error {
    Error::new(
        ErrorKind::FileReplaced,
        format!(
            "{} was moved, deleted or replaced while a store was open; close every store on the file \
             and open it anew",
            shown(path)
        ),
    )
}
