//! Which names are allowed for a store's file and for a copy.
//!
//! What always holds: a file that passes has only one name, as far as the operating system can tell; that name
//! is not the name of another database's side file; and anything at the names of its own side files is a plain
//! file. SQLite names the log after the name that a file was opened by. So a file with two names gets two logs,
//! and each store overwrites what the other has committed. Only reads metadata, and removes a copy that failed;
//! knows nothing of what is in the files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{beside, exists, exists_already, metadata_error, shown};
use crate::error::{Error, ErrorKind, Result};

const SIDE_FILES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Refuses a file because of its names, before it is opened and before anything is created beside it. Accepts
/// a file that does not exist.
pub(crate) fn refuse_unsafe_names(path: &Path) -> Result<()> {
    refuse_side_name(path)?;
    for suffix in SIDE_FILES {
        refuse_wrong_side_file(&beside(path, suffix))?;
    }
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if has_other_names(&metadata) {
        return refuse(
            path,
            "has a second name (a hard link); a store that is opened by the other name has another \
             log, and marks would be lost. Remove all names but one, and make snapshots with `seen \
             backup` or `cp` instead of hard links",
        );
    }
    if metadata.is_file() && is_mount_point(path) {
        return refuse(
            path,
            "is mounted as a single file (a bind mount); a store that is opened by the file's other \
             name has another log, and marks would be lost; mount the folder instead",
        );
    }
    Ok(())
}

/// Refuses a path for a copy if it exists, or a side file of it does. SQLite would take such a side file for
/// the copy's own, and write it into the copy or delete it. It may be the log of a store, so the error does not
/// advise to move it away.
pub(crate) fn refuse_for_copy(path: &Path) -> Result<()> {
    refuse_side_name(path)?;
    if exists(path) {
        return Err(exists_already(path));
    }
    refuse_side_files(path)
}

/// Refuses a path for a copy that replaces an earlier one, as [`refuse_for_copy`] does. What is there by that name is
/// not looked at.
pub(crate) fn refuse_for_next_copy(path: &Path) -> Result<()> {
    refuse_side_name(path)?;
    refuse_side_files(path)
}

fn refuse_side_files(path: &Path) -> Result<()> {
    match SIDE_FILES.map(|suffix| beside(path, suffix)).iter().find(|side| exists(side)) {
        None => Ok(()),
        Some(side) => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{} exists, and SQLite would use it as a side file of the copy; choose another name",
                shown(side)
            ),
        )),
    }
}

/// Removes a copy that failed, with the side files that the failure may have left. None existed before it.
pub(crate) fn remove_copy(path: &Path) {
    // The caller reports the failure of the copy itself.
    let _ = fs::remove_file(path);
    for suffix in SIDE_FILES {
        let _ = fs::remove_file(beside(path, suffix));
    }
}

/// Refuses the name of another database's side file: opening that database deletes what is there.
fn refuse_side_name(path: &Path) -> Result<()> {
    let bases = SIDE_FILES.iter().filter_map(|suffix| without_suffix(path, suffix));
    match bases.into_iter().find(|base| exists(base)) {
        None => Ok(()),
        Some(base) => refuse(
            path,
            &format!(
                "has the name of a side file of {}, and SQLite would delete it; choose another name",
                shown(&base)
            ),
        ),
    }
}

/// Returns the path without the suffix. `None` if the name does not end with it, or is only the suffix.
#[cfg(unix)]
fn without_suffix(path: &Path, suffix: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let name = path.file_name()?.as_bytes().strip_suffix(suffix.as_bytes())?;
    (!name.is_empty()).then(|| path.with_file_name(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(not(unix))]
fn without_suffix(path: &Path, suffix: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    (!name.is_empty()).then(|| path.with_file_name(name))
}

/// Refuses what is not a plain file at the name of a side file. SQLite would follow a link at the name of its
/// journal.
fn refuse_wrong_side_file(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => refuse(path, "is a symbolic link; remove it"),
        Ok(metadata) if !metadata.is_file() => refuse(
            path,
            "is not a regular file, and SQLite needs its name for a side file; move it away",
        ),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(metadata_error(path, e)),
    }
}

fn refuse(path: &Path, why: &str) -> Result<()> {
    Err(Error::new(ErrorKind::InvalidPath, format!("{} {why}", shown(path))))
}

#[cfg(unix)]
pub(super) fn has_other_names(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.is_file() && metadata.nlink() > 1
}

#[cfg(not(unix))]
pub(super) fn has_other_names(_: &fs::Metadata) -> bool {
    false
}

/// Returns false if the kernel cannot tell (Linux before 5.8).
#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    // A kernel that does not know the attribute never sets it.
    statx(CWD, path, flags, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_: &Path) -> bool {
    false
}
