//! Which names a store's file may be opened by, and a copy be made at.
//!
//! What always holds: a file that passes has one name, as far as the operating system can tell, that name is
//! not one of another database's side file, and what stands at the names of its side files are plain files.
//! SQLite names the log after the name that a file was opened by, so a file with two names gets two logs, and
//! each store writes over what the other has committed. Only asks for metadata, and removes a copy that
//! failed; knows nothing of what is in the files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{beside, exists, exists_already, shown};
use crate::error::{Error, ErrorKind, Result};

const SIDE_FILES: [&str; 3] = ["-journal", "-wal", "-shm"];

/// Refuses a file by its names, before it is opened and before anything is made beside it. A file that
/// is not there passes.
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

/// Refuses the name of a copy that is to be made where something stands. SQLite would take what stands at the
/// names of its side files for the copy's own, and write it into the copy or delete it. That may be the log
/// of a store: the error does not advise to move it away.
pub(crate) fn refuse_for_copy(path: &Path) -> Result<()> {
    refuse_side_name(path)?;
    if exists(path) {
        return Err(exists_already(path));
    }
    match SIDE_FILES.map(|suffix| beside(path, suffix)).iter().find(|side| exists(side)) {
        None => Ok(()),
        Some(side) => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{} stands where SQLite would keep a side file of the copy; choose another name",
                shown(side)
            ),
        )),
    }
}

/// Removes a copy that failed, with the side files that a failure may have left: none was there before it.
pub(crate) fn remove_copy(path: &Path) {
    // What failed is told already.
    let _ = fs::remove_file(path);
    for suffix in SIDE_FILES {
        let _ = fs::remove_file(beside(path, suffix));
    }
}

/// Opening a database deletes what stands at the names of its side files, whatever it is.
fn refuse_side_name(path: &Path) -> Result<()> {
    let bases = SIDE_FILES.iter().filter_map(|suffix| without_suffix(path, suffix));
    match bases.into_iter().find(|base| exists(base)) {
        None => Ok(()),
        Some(base) => refuse(
            path,
            &format!(
                "is where SQLite keeps a side file of {}, and would be deleted; choose another name",
                shown(&base)
            ),
        ),
    }
}

/// `None` where the name does not end with it, or is nothing else.
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

/// SQLite would follow a link at the name of its journal.
fn refuse_wrong_side_file(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => refuse(path, "is a symbolic link; remove it"),
        Ok(metadata) if !metadata.is_file() => {
            refuse(path, "is not a regular file, and stands where SQLite keeps one; move it away")
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("cannot look at {}", shown(path)), e)),
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

/// False where the kernel cannot tell (Linux before 5.8).
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
