//! The steps by which one file takes the place of another.
//!
//! What always holds: a file gets its name only once all of it is on the disk, and a name is on the disk before the
//! next step relies on it. Knows nothing of what is in the files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{beside, bytes, create_new, exists, remove_copy, shown};
use crate::error::{Error, ErrorKind, Result};

/// The side files that hold data of the store.
const REPLACED_SIDE_FILES: [&str; 2] = ["-journal", "-wal"];

/// Gives `new` the owner and the mode of the file that it is to replace. Does nothing if there is none.
pub(crate) fn adopt_owner_and_mode(new: &Path, replaced: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(replaced) else { return Ok(()) };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, chown};
        let own = fs::symlink_metadata(new).map_err(|e| super::metadata_error(new, e))?;
        let (owner, group) = (metadata.uid(), metadata.gid());
        if (own.uid(), own.gid()) != (owner, group) {
            chown(new, Some(owner), Some(group)).map_err(|e| {
                Error::io(
                    format!(
                        "cannot give the copy the owner {owner}:{group} of {}",
                        shown(replaced)
                    ),
                    e,
                )
            })?;
        }
    }
    fs::set_permissions(new, metadata.permissions())
        .map_err(|e| Error::io(format!("cannot give the copy the mode of {}", shown(replaced)), e))
}

/// Waits until the contents of the file are on the disk.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io(format!("cannot sync {}", shown(path)), e))
}

/// Waits until the names in the folder of `path` are on the disk.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(not(unix)) {
        return Ok(()); // A folder cannot be opened there.
    }
    let folder = path.parent().unwrap_or(path);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::io(format!("cannot sync the folder {}", shown(folder)), e))
}

/// Renames a file, over what has that name, and waits until that is on the disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .map_err(|e| Error::io(format!("cannot name the copy {}", shown(to)), e))?;
    sync_folder(to)
}

/// Removes a side file, if there is one.
pub(crate) fn remove_side_file(path: &Path, suffix: &str) -> Result<()> {
    let side = beside(path, suffix);
    match fs::remove_file(&side) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", shown(&side)), e))
        }
        _ => Ok(()),
    }
}

/// Copies a file that is to be replaced, and its log or journal, to the first free name of `<path>.replaced`,
/// `<path>.replaced.2`, ... The file is given by a descriptor: see [`while_unopened`](super::while_unopened).
/// Returns the name; `None` if there was nothing to keep. A failure leaves no copy.
pub(crate) fn keep_replaced(path: &Path, file: Option<&File>) -> Result<Option<PathBuf>> {
    let sides = REPLACED_SIDE_FILES;
    if file.is_none() && sides.iter().all(|suffix| bytes(&beside(path, suffix)) == 0) {
        return Ok(None);
    }
    let mut number = 1;
    let kept = loop {
        let kept = match number {
            1 => beside(path, ".replaced"),
            _ => beside(path, &format!(".replaced.{number}")),
        };
        if !exists(&kept) && sides.iter().all(|suffix| !exists(&beside(&kept, suffix))) {
            break kept;
        }
        number += 1;
    };
    let copied = copy_all(path, file, &kept);
    if copied.is_err() {
        remove_copy(&kept);
    }
    copied.map(|()| Some(kept))
}

fn copy_all(path: &Path, file: Option<&File>, kept: &Path) -> Result<()> {
    if let Some(file) = file {
        copy(file, kept)?;
        adopt_owner_and_mode(kept, path)?;
    }
    for suffix in REPLACED_SIDE_FILES {
        let side = beside(path, suffix);
        if bytes(&side) > 0 {
            let open = File::open(&side);
            let open = open.map_err(|e| Error::io(format!("cannot open {}", shown(&side)), e))?;
            copy(&open, &beside(kept, suffix))?;
        }
    }
    sync_folder(path)
}

fn copy(mut from: &File, to: &Path) -> Result<()> {
    create_new(to)?;
    let copied = File::options().write(true).open(to).and_then(|mut to| {
        io::Seek::rewind(&mut from)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    });
    copied.map_err(|e| Error::io(format!("cannot write {}", shown(to)), e))
}

/// Refuses what is there and is not a regular file.
pub(crate) fn refuse_irregular(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(Error::new(
            ErrorKind::InvalidPath,
            format!("{} is not a regular file; give the path of one", shown(path)),
        )),
        _ => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A full disk fails so, and each try again would take more of it.
    #[test]
    fn a_store_whose_log_cannot_be_copied_leaves_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.db");
        fs::write(&path, "store").unwrap();
        fs::write(beside(&path, "-journal"), "journal").unwrap();
        fs::create_dir(beside(&path, "-wal")).unwrap(); // It can be opened and not read.
        keep_replaced(&path, Some(&File::open(&path).unwrap())).unwrap_err();
        let names = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["seen.db", "seen.db-journal", "seen.db-wal"]);
    }
}
