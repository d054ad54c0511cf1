//! A store that is replaced by a backup, and a backup that is replaced by a later one.
//!
//! Owns the public calls. The first takes paths and no handle: while a store is open, its file cannot be replaced.

use std::path::{Path, PathBuf};

use super::SeenStore;
use crate::error::Result;
use crate::file;
use crate::format::replace::{replace, replace_backup};
use crate::process::Registration;

impl SeenStore {
    /// Replaces the store at `path` by a [`backup`](Self::backup), and returns under which name the old one is kept;
    /// `None` where there was none. The new file has the owner and the mode of the old one. To add what a listing or
    /// an export holds to a store, use [`restore`](Self::restore).
    ///
    /// A backup that is copied over a store by other means stands beside the log of the old store, which would undo or
    /// damage it. This call removes the side files too. All stores on the file must be closed, in all processes.
    ///
    /// The backup is copied beside the store (`<path>.restoring.*`) and checked first. The old store is kept as
    /// `<path>.replaced`, or `<path>.replaced.2` and so on where that name is taken; remove it when you no longer need
    /// it. A crash at any point leaves the old store or the new one. (Where there was none, it may leave an empty file,
    /// which is opened as a new store. If the old file was damaged, or a copy beside another file's log, a crash may leave
    /// the new file beside the old log: that is refused when it is opened; call this again.) Needs room for two copies. A backup in the older format is upgraded when the store is opened.
    ///
    /// ```
    /// use seen_store::SeenStore;
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let (path, backup) = (folder.path().join("seen.db"), folder.path().join("backup.db"));
    /// let store = SeenStore::open(&path)?;
    /// store.mark_seen("incident-17")?;
    /// store.backup(&backup)?;
    /// store.forget("incident-17")?; // by mistake
    /// store.close()?;
    /// let old = SeenStore::replace_with_backup(&path, &backup)?;
    /// assert!(SeenStore::open(&path)?.is_seen("incident-17"));
    /// assert!(!SeenStore::open(old.unwrap())?.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing is changed.
    ///
    /// - [`Busy`](crate::ErrorKind::Busy) when a store on the file is open, in this process or another one;
    /// - [`NotFound`](crate::ErrorKind::NotFound), [`NotADatabase`](crate::ErrorKind::NotADatabase),
    ///   [`WrongApplication`](crate::ErrorKind::WrongApplication), [`NewerVersion`](crate::ErrorKind::NewerVersion) or
    ///   [`Corrupt`](crate::ErrorKind::Corrupt) when `backup` is no backup of a store, or damaged;
    /// - [`WrongApplication`](crate::ErrorKind::WrongApplication) when the file at `path` is a database of another
    ///   application;
    /// - [`InvalidPath`](crate::ErrorKind::InvalidPath) when `path` cannot be a store;
    /// - [`PermissionDenied`](crate::ErrorKind::PermissionDenied) when the old owner or mode cannot be given to the
    ///   new file, or the files cannot be read or written;
    /// - [`StorageFull`](crate::ErrorKind::StorageFull), [`Io`](crate::ErrorKind::Io) and other errors of the
    ///   operating system.
    pub fn replace_with_backup(
        path: impl AsRef<Path>,
        backup: impl AsRef<Path>,
    ) -> Result<Option<PathBuf>> {
        let _opening = Registration::new(&file::shown(path.as_ref()))?;
        let path = file::resolve(path.as_ref(), false)?;
        let backup = file::resolve_source(backup.as_ref())?;
        replace(&path, &backup, &mut || {})
    }

    /// Copies the store as [`backup`](Self::backup) does, and puts the copy in the place of an earlier backup in one
    /// step: under its name there is always a whole backup, the earlier one or this one. The copy is made beside it
    /// (`<path>.copying.*`). Where there is no earlier one, an empty file has the name for a moment.
    ///
    /// ```
    /// # use seen_store::{Reader, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let store = SeenStore::open(folder.path().join("seen.db"))?;
    /// # let backup = folder.path().join("backup.db");
    /// store.replace_backup(&backup)?; // last night
    /// store.mark_seen("incident-17")?;
    /// store.replace_backup(&backup)?; // tonight
    /// assert!(Reader::open(&backup)?.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The earlier backup stays as it is.
    ///
    /// - [`WrongApplication`](crate::ErrorKind::WrongApplication) when what is at `path` is neither a store's file nor
    ///   empty;
    /// - [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when a side file of it is there, as beside a store in use;
    /// - [`Busy`](crate::ErrorKind::Busy) when it is open;
    /// - otherwise those of [`backup`](Self::backup).
    pub fn replace_backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.engine.check_open()?;
        let target = file::resolve(path.as_ref(), false)?;
        replace_backup(&target, |new| self.copy_to(new))
    }
}
