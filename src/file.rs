//! The file in the file system: which paths can be a store, how a new file is created, and whether the file at
//! the path is still the one that was opened.
//!
//! What always holds: once a file exists, this module reads only its metadata, except where `unopened` says that more
//! is safe. If a process opens and closes a database without SQLite, it loses the POSIX locks that it holds on the
//! file, and another process may then delete a write-ahead log that is in use. (The log itself may be opened: see
//! `wal`.) Knows nothing of what is in the database.

mod cause;
mod names;
mod opened;
mod replacing;
mod spelling;
mod temporary;
mod unopened;
pub(crate) mod wal;

pub(crate) use cause::{cause, whose};
pub(crate) use names::{refuse_for_copy, refuse_for_next_copy, refuse_unsafe_names, remove_copy};
pub(crate) use opened::OpenedFiles;
pub(crate) use replacing::{
    adopt_owner_and_mode, keep_replaced, refuse_irregular, remove_side_file, rename, sync_file,
    sync_folder,
};
pub(crate) use temporary::temporary_name;
pub(crate) use unopened::{lock_unopened, open_database, read_unopened, while_unopened};

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::backoff::Backoff;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::ProcessLock;

/// Held while a path is checked and a missing file created: the descriptor that creates the file must be closed
/// before another thread of this process lets SQLite lock the same file. Also held while a connection closes:
/// of two that close at the same time, each would leave the log to the other.
static OPEN_CLOSE_LOCK: ProcessLock = ProcessLock::new();

/// How long an empty file beside a log may last. Until then, another process may be creating the store. After
/// it, the database is taken to be lost.
const RECHECK_TIMEOUT: Duration = Duration::from_millis(200);

/// File systems round times to the kernel's tick, of up to 10 ms: two writes within one tick look like one.
const TIME_GRANULARITY: Duration = Duration::from_millis(20);

/// The size of SQLite's smallest page, and so of its smallest database.
const SMALLEST_BYTES: u64 = 512;

/// Tells a file from another one that has replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Identity {
    #[cfg(unix)]
    fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    #[cfg(not(unix))]
    fn of(_: &fs::Metadata) -> Self {
        Self {}
    }
}

/// Tells whether a file has changed: a write changes the stamp, if the stamp was
/// [settled](Stamp::settled).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    identity: Identity,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let metadata = fs::symlink_metadata(path).map_err(|e| metadata_error(path, e))?;
        Ok(Self {
            identity: Identity::of(&metadata),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }

    /// Returns a stamp that any later write changes: the last change is old enough for the next to have another
    /// time. Waits for that, a few milliseconds after the last change.
    ///
    /// # Errors
    ///
    /// [`Busy`](ErrorKind::Busy) if the file keeps changing.
    pub(crate) fn settled(path: &Path) -> Result<Self> {
        let mut backoff = Backoff::new(RECHECK_TIMEOUT);
        loop {
            let stamp = Self::of(path)?;
            let age = stamp.modified.and_then(|at| SystemClock.now().duration_since(at).ok());
            // No write now can give the file a time in the future.
            if age.is_none_or(|age| age > TIME_GRANULARITY) {
                return Ok(stamp);
            }
            if !backoff.pause() {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("{} is being written to without a pause; try again", shown(path)),
                ));
            }
        }
    }
}

/// Returns the absolute path for SQLite to open, with the links of every folder resolved.
///
/// The last component stays as it is: [`prepare`] refuses a link there. Of a link that is followed, the stores that are
/// open would not notice when it is made to point to another file; a file that is replaced, they notice.
pub(crate) fn resolve(path: &Path, create_folders: bool) -> Result<PathBuf> {
    let refuse =
        |why: &str| Err(Error::new(ErrorKind::InvalidPath, format!("{}: {why}", shown(path))));
    let text = path.as_os_str().as_encoded_bytes();
    if text.is_empty() {
        return refuse("the path of the store is empty; give the path of a file");
    }
    if text.starts_with(b":memory:") {
        return refuse(
            "a store in memory does not keep its ids; give the path of a file, or use \
             SeenStore::in_memory in tests",
        );
    }
    if text.contains(&0) {
        return refuse("a path cannot contain a NUL byte");
    }
    spelling::refuse_unexpanded(path)?;
    let Some(name) = path.file_name() else {
        return refuse("is a folder; give the path of a file in it");
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if create_folders {
        make_folders(folder)
            .map_err(|e| Error::io(format!("cannot create the folder {}", shown(folder)), e))?;
    }
    match canonicalize(folder) {
        Ok(folder) => Ok(folder.join(name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::with_source(
            ErrorKind::NotFound,
            format!(
                "{}: there is no folder {}; give another path, or make the folder",
                shown(path),
                shown(folder)
            ),
            e,
        )),
        Err(e) => Err(Error::io(format!("cannot find the folder of {}", shown(path)), e)),
    }
}

/// Returns the absolute path of a file that is only read, with all links resolved.
pub(crate) fn resolve_source(path: &Path) -> Result<PathBuf> {
    let resolved = resolve(path, false)?;
    canonicalize(&resolved).map_err(|e| Error::io(format!("cannot find {}", shown(path)), e))
}

/// Resolves the links of a path. On Windows the result is a path as people write it (`C:\store`), not the
/// longer form of the same path (`\\?\C:\store`), unless only that form can name it.
fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    #[cfg(windows)]
    return dunce::canonicalize(path);
    #[cfg(not(windows))]
    path.canonicalize()
}

/// Creates the missing folders, readable only for their owner, like the file in them.
fn make_folders(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes sure that there is a file for SQLite to open. Creates it with mode 0600 if it is missing and `create`
/// is set.
pub(crate) fn prepare(path: &Path, create: bool) -> Result<Identity> {
    let mut backoff = Backoff::new(RECHECK_TIMEOUT);
    loop {
        let guard = OPEN_CLOSE_LOCK.lock();
        let found = match fs::symlink_metadata(path) {
            Ok(metadata) => {
                refuse_wrong_file(path, &metadata)?;
                (metadata.len() > 0).then(|| Identity::of(&metadata))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if !create {
                    return Err(no_store(path));
                }
                None
            }
            Err(e) => return Err(metadata_error(path, e)),
        };
        if let Some(identity) = found {
            return Ok(identity);
        }
        // SQLite takes an empty database beside a log for a new one and deletes the log.
        if wal_bytes(path) == 0 {
            if create {
                create_private(path)?;
            }
            return identity(path);
        }
        drop(guard);
        if !backoff.pause() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{0}: the database is empty or missing but {1} holds data; put the database back \
                     beside it, or move {1} away to start with an empty store",
                    shown(path),
                    shown(&beside(path, "-wal")),
                ),
            ));
        }
    }
}

/// Returns the error for a path where no store is, and none is to be made.
fn no_store(path: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "{}: there is no store here, and this open is not to make one; give the path of a store, or mount its \
             volume",
            shown(path)
        ),
    )
}

/// Closes a connection while no other thread of this process opens or closes one.
pub(crate) fn close_serialized<T>(close: impl FnOnce() -> T) -> T {
    let _guard = OPEN_CLOSE_LOCK.lock();
    close()
}

fn refuse_wrong_file(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    if metadata.is_file() && (1..SMALLEST_BYTES).contains(&metadata.len()) {
        // SQLite takes a file of one byte for a new database.
        return Err(Error::new(
            ErrorKind::NotADatabase,
            format!(
                "{}: it is too short to be a SQLite database, and was not changed; give another path, or restore a \
                 backup if it was a store",
                shown(path)
            ),
        ));
    }
    let why = if metadata.is_symlink() {
        let target = fs::canonicalize(path).map_or(String::new(), |to| format!(", {}", shown(&to)));
        &format!("is a symbolic link; give the path that it points to{target}")
    } else if metadata.is_dir() {
        "is a folder; give the path of a file in it"
    } else if !metadata.is_file() {
        "is not a regular file; give the path of one"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidPath, format!("{} {why}", shown(path))))
}

/// Creates an empty file that only its owner may read. Does nothing if another process has just created it.
///
/// SQLite would create it with the umask's mode. Its side files get the mode of the database.
fn create_private(path: &Path) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::io(format!("cannot create {}", shown(path)), e)),
    }
}

/// Creates the file of a copy. It must not exist yet.
pub(crate) fn create_new(path: &Path) -> Result<()> {
    let _guard = OPEN_CLOSE_LOCK.lock();
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => create_private(path),
        Err(e) => Err(metadata_error(path, e)),
        Ok(_) => Err(exists_already(path)),
    }
}

fn exists_already(path: &Path) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{} exists already; choose another path", shown(path)),
    )
}

pub(crate) fn identity(path: &Path) -> Result<Identity> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Identity::of(&metadata)),
        Err(e) => Err(metadata_error(path, e)),
    }
}

fn metadata_error(path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot read the metadata of {}", shown(path)), error)
}

/// Fails if the file at the path is gone, or not the one that was opened.
pub(crate) fn check_not_replaced(path: &Path, opened: Identity) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if Identity::of(&metadata) == opened => Ok(()),
        Ok(_) => Err(replaced(path, "was replaced by another file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(replaced(path, "was moved or deleted"))
        }
        Err(e) => Err(metadata_error(path, e)),
    }
}

/// Fails if a side file of an open store is gone: one more connection would make a new one.
pub(crate) fn check_side_files_exist(path: &Path) -> Result<()> {
    let side_files = ["-wal", "-shm"].map(|suffix| beside(path, suffix));
    let gone = side_files.iter().find(|file| !exists(file));
    gone.map_or(Ok(()), |file| Err(replaced(file, "was moved or deleted")))
}

fn replaced(path: &Path, happened: &str) -> Error {
    Error::new(
        ErrorKind::FileReplaced,
        format!("{} {happened} while the store was open; close it and open it again", shown(path)),
    )
}

/// Returns the error for a log that has lost committed frames.
pub(crate) fn damaged_log(path: &Path) -> Error {
    Error::new(
        ErrorKind::FileReplaced,
        format!(
            "{} was cut or written over while the store was open, and its data is lost; close \
             the store and open it again",
            shown(&beside(path, "-wal"))
        ),
    )
}

/// Returns whether the file is on a read-only file system, where permissions do not matter.
#[cfg(unix)]
pub(crate) fn is_on_read_only_file_system(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(not(unix))]
pub(crate) fn is_on_read_only_file_system(_: &Path) -> bool {
    false
}

/// Returns the size of the file; 0 if it is missing.
pub(crate) fn bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Returns the size of the write-ahead log beside the file; 0 if there is none.
pub(crate) fn wal_bytes(path: &Path) -> u64 {
    bytes(&beside(path, "-wal"))
}

/// Returns the path of the side file: the file's path with `suffix` added.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Returns the path for messages. Control characters are escaped, because a message may go to a terminal.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .flat_map(|c| {
            let escaped: Box<dyn Iterator<Item = char>> = if c.is_control() {
                Box::new(c.escape_default())
            } else {
                Box::new([c].into_iter())
            };
            escaped
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(windows)]
    #[test]
    fn a_resolved_path_is_as_people_write_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = resolve(&folder.path().join("seen.db"), false).unwrap();
        assert!(!shown(&path).starts_with(r"\\?\"), "{}", shown(&path));
    }

    #[test]
    fn a_path_with_escape_codes_is_shown_harmlessly() {
        assert_eq!(shown(Path::new("a\u{1b}[31m b")), "a\\u{1b}[31m b");
    }
}
