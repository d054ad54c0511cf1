//! A store's files in the page cache, and out of it.
//!
//! What always holds: files that are said to be out of the page cache were looked for in it afterwards. Nothing else on the
//! machine is dropped from it: neither other files, nor programs, nor what the kernel knows about the files (their
//! inodes, and
//! where their blocks are).

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::Result;
use rustix::fs::{SeekFrom, seek};

/// A page that another processor is about to put into the page cache's lists is dropped only by a later attempt.
const ATTEMPTS: usize = 3;

/// Drops the files below a folder from the page cache. Only what has been synced can be dropped.
pub(super) fn drop_files(folder: &Path) -> Result<()> {
    let files = files(folder)?;
    let mut left = 0;
    for _ in 0..ATTEMPTS {
        for file in &files {
            drop_file(&File::open(file)?)?;
        }
        left = in_page_cache(&files)?;
        if left == 0 {
            return Ok(());
        }
    }
    Err(format!("{left} bytes of its files stay in the page cache").into())
}

#[cfg(target_os = "linux")]
fn drop_file(file: &File) -> Result<()> {
    use rustix::fs::{Advice, fadvise};
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(not(target_os = "linux"))]
fn drop_file(_: &File) -> Result<()> {
    Err("only Linux can drop files from it".into())
}

/// Reads the files below a folder into the page cache, without their holes.
pub(super) fn read_files(folder: &Path) -> Result<()> {
    for path in files(folder)? {
        let mut file = File::open(&path)?;
        let mut begin = 0;
        // Fails where no data follows.
        while let Ok(data) = seek(&file, SeekFrom::Data(begin)) {
            let hole = seek(&file, SeekFrom::Hole(data))?;
            file.seek(std::io::SeekFrom::Start(data))?;
            std::io::copy(&mut (&file).take(hole - data), &mut std::io::sink())?;
            begin = hole;
        }
    }
    Ok(())
}

/// How many bytes of the files are in the page cache, by `fincore` of util-linux, which calls mincore(2).
fn in_page_cache(files: &[PathBuf]) -> Result<u64> {
    let output = Command::new("fincore")
        .args(["--noheadings", "--bytes", "--output", "RES", "--"])
        .args(files)
        .output()
        .map_err(|e| format!("fincore (util-linux), which would tell what is cached: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(line.trim().parse::<u64>()?)).sum()
}

/// All files below a folder that have any content.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let (path, kind) = {
            let entry = entry?;
            (entry.path(), entry.metadata()?)
        };
        if kind.is_dir() {
            files.extend(self::files(&path)?);
        } else if kind.is_file() && kind.len() > 0 {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// In the build's folder: what lies in memory only cannot be dropped.
    fn folder_on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    #[test]
    fn files_are_dropped_and_read_again_without_their_holes() {
        let folder = folder_on_disk();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let paths = [below.join("sparse")];
        std::fs::write(&paths[0], vec![1; 1 << 20]).unwrap();
        let file = File::options().write(true).open(&paths[0]).unwrap();
        file.set_len(1 << 30).unwrap();
        file.sync_all().unwrap();

        drop_files(folder.path()).unwrap();
        assert_eq!(in_page_cache(&paths).unwrap(), 0);
        read_files(folder.path()).unwrap();
        let cached = in_page_cache(&paths).unwrap();
        assert!((1 << 20..16 << 20).contains(&cached), "{cached}");
    }
}
