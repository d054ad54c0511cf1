//! Why the operating system refused, where SQLite does not tell.
//!
//! SQLite says that it is unable to open a file, or that a read or a write failed, and does not keep what the operating
//! system said. What always holds: this looks at the state of the files and of the file system after the failure,
//! changes nothing, and names a cause only where it finds one. Knows nothing of SQL.

use std::path::Path;

use crate::error::ErrorKind;

/// Less free space than this is none: SQLite enlarges the index of its log by so much at once.
#[cfg(unix)]
const NO_ROOM_BYTES: u64 = 32 << 10;

/// Returns the kind and the cause of a failure at the file. `None` if nothing is found.
#[cfg(unix)]
pub(crate) fn cause(path: &Path) -> Option<(ErrorKind, String)> {
    // What is not an absolute path is the name of a store in memory.
    let place = path.is_absolute().then(|| existing(path))?;
    let found = rustix::fs::statvfs(place).ok()?;
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Some((ErrorKind::ReadOnly, "the file system is read-only".into()));
    }
    if let Some(told) = denied(path) {
        return Some((ErrorKind::PermissionDenied, told));
    }
    let free = if rustix::process::geteuid().is_root() { found.f_bfree } else { found.f_bavail };
    if found.f_blocks > 0 && free.saturating_mul(found.f_frsize) < NO_ROOM_BYTES {
        return Some((ErrorKind::StorageFull, "no space is left on the file system".into()));
    }
    if found.f_files > 0 && found.f_favail == 0 {
        let told = "the file system has space, but no inodes are left for new files (`df -i`)";
        return Some((ErrorKind::StorageFull, told.into()));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current?;
    let longest = super::bytes(path).max(super::wal_bytes(path));
    (longest.saturating_add(NO_ROOM_BYTES) > limit).then(|| {
        let told =
            format!("this process may not write files of more than {limit} bytes (`ulimit -f`)");
        (ErrorKind::Io, told)
    })
}

#[cfg(not(unix))]
pub(crate) fn cause(_: &Path) -> Option<(ErrorKind, String)> {
    None
}

/// Returns the path, or the nearest folder above it that exists.
#[cfg(unix)]
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| super::exists(path)).unwrap_or(path)
}

/// Returns which file or folder this process may not use, whose it is, and who asks.
#[cfg(unix)]
fn denied(path: &Path) -> Option<String> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let (both, folder) = (Access::READ_OK | Access::WRITE_OK, Access::WRITE_OK | Access::EXEC_OK);
    let side = |suffix| (super::beside(path, suffix), both);
    let mut needed =
        vec![(path.to_owned(), Access::READ_OK), side("-wal"), side("-shm"), side("-journal")];
    needed.extend(path.parent().map(|parent| (existing(parent).to_owned(), folder)));
    needed.push((path.to_owned(), both));
    needed.into_iter().find_map(|(path, access)| {
        let is_denied =
            accessat(CWD, &path, access, AtFlags::EACCESS) == Err(rustix::io::Errno::ACCESS);
        is_denied.then(|| whose(&path)).flatten()
    })
}

/// Returns whose the file or folder is, with its mode, and who asks.
#[cfg(not(unix))]
pub(crate) fn whose(_: &Path) -> Option<String> {
    None
}

/// Returns whose the file or folder is, with its mode, and who asks.
#[cfg(unix)]
pub(crate) fn whose(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    // Where the folder may not be searched, its own owner and mode are what matters.
    let (path, found) = path
        .ancestors()
        .find_map(|path| std::fs::symlink_metadata(path).ok().map(|found| (path, found)))?;
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    Some(format!(
        "permission denied: {} belongs to user {} and group {} (mode {:04o}), and this process runs as user {} and \
         group {}",
        super::shown(path),
        found.uid(),
        found.gid(),
        found.mode() & 0o7777,
        user.as_raw(),
        group.as_raw(),
    ))
}
