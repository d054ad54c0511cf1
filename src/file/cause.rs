//! Why the operating system refused, where SQLite does not tell.
//!
//! SQLite says that it is unable to open a file, or that a read or a write failed, and does not keep what the operating
//! system said. What always holds: this looks at the state of the files and of the file system after the failure,
//! changes nothing that lasts, and names a cause only where it finds one. Knows nothing of SQL.

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
        let told = "the file system is read-only; mount it writable, or give another path";
        return Some((ErrorKind::ReadOnly, told.into()));
    }
    if let Some(told) = denied(path) {
        return Some((ErrorKind::PermissionDenied, told));
    }
    let free = if rustix::process::geteuid().is_root() { found.f_bfree } else { found.f_bavail };
    if found.f_blocks > 0 && free.saturating_mul(found.f_frsize) < NO_ROOM_BYTES {
        let told = "no space is left on the file system; make room and try again";
        return Some((ErrorKind::StorageFull, told.into()));
    }
    if found.f_files > 0 && found.f_favail == 0 {
        let told = "the file system has space, but no inodes are left for new files (`df -i`); remove some";
        return Some((ErrorKind::StorageFull, told.into()));
    }
    if place.ancestors().find(|place| place.is_dir()).is_some_and(quota_is_used_up) {
        let user = rustix::process::geteuid().as_raw();
        let told =
            format!("the disk quota of user {user} is used up; make room, or raise the quota");
        return Some((ErrorKind::StorageFull, told));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current?;
    let longest = super::bytes(path).max(super::wal_bytes(path));
    (longest.saturating_add(NO_ROOM_BYTES) > limit).then(|| {
        let told = format!(
            "this process may not write files of more than {limit} bytes; raise `ulimit -f`"
        );
        (ErrorKind::Io, told)
    })
}

#[cfg(not(unix))]
pub(crate) fn cause(_: &Path) -> Option<(ErrorKind, String)> {
    None
}

/// Returns whether a quota of this user refuses a write in the folder. Only a write tells: it goes to a file without a
/// name, which ends with it.
#[cfg(target_os = "linux")]
fn quota_is_used_up(folder: &Path) -> bool {
    use std::io::{self, Read as _};
    use std::os::unix::fs::OpenOptionsExt as _;
    let without_name = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    let file =
        std::fs::File::options().write(true).mode(0o600).custom_flags(without_name).open(folder);
    file.and_then(|mut file| io::copy(&mut io::repeat(0).take(NO_ROOM_BYTES), &mut file))
        .is_err_and(|e| e.kind() == std::io::ErrorKind::QuotaExceeded)
}

/// Only Linux has files without a name.
#[cfg(all(unix, not(target_os = "linux")))]
fn quota_is_used_up(_: &Path) -> bool {
    false
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn to_ask_for_the_quota_leaves_nothing_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!quota_is_used_up(folder.path()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
