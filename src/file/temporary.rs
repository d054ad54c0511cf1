//! The names of files that are made before they take the name they are made for.
//!
//! What always holds: no two processes use one such name, also not those of two containers, which may have the same
//! number; and what a killed process has left does not stay for ever. Knows nothing of what is in the files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{beside, remove_copy};
use crate::machine::random_u64;

/// Who has not written to such a file for so long has ended.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// How many digits the random number in a name has.
const DIGITS: usize = 16;

/// Returns a new name beside `path`. Removes files of such names that are abandoned. (A process that was stopped for so
/// long finds its file gone, and fails.)
pub(crate) fn temporary_name(path: &Path, suffix: &str) -> PathBuf {
    let prefix = beside(path, &format!("{suffix}."));
    // If the folder cannot be read, the caller finds out when it writes there.
    let _ = remove_abandoned(&prefix);
    beside(&prefix, &format!("{:01$x}", random_u64(), DIGITS))
}

fn remove_abandoned(prefix: &Path) -> io::Result<()> {
    let (Some(folder), Some(prefix)) = (prefix.parent(), prefix.file_name()) else { return Ok(()) };
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name();
        let number = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        if number.is_some_and(is_number)
            && file.metadata()?.modified()?.elapsed().is_ok_and(|since| since > ABANDONED_AFTER)
        {
            remove_copy(&file.path());
        }
    }
    Ok(())
}

fn is_number(text: &[u8]) -> bool {
    text.len() == DIGITS && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.db");
        let abandoned =
            fs::metadata(folder.path()).unwrap().modified().unwrap() - ABANDONED_AFTER * 2;
        let (old, new) = (temporary_name(&path, ".copying"), temporary_name(&path, ".copying"));
        let others = ["seen.db", "seen.db.copying", "seen.db.copying.of-may", "seen.db.copying.17"];
        let others = others.map(|name| path.with_file_name(name));
        for path in [&old, &beside(&old, "-journal"), &new].into_iter().chain(&others) {
            let file = fs::File::create(path).unwrap();
            if *path != new {
                file.set_modified(abandoned).unwrap();
            }
        }
        assert_ne!(temporary_name(&path, ".restoring"), new);
        assert!(old.exists());
        assert_ne!(temporary_name(&path, ".copying"), new);
        assert!(!old.exists() && !beside(&old, "-journal").exists());
        assert!(new.exists() && others.iter().all(|other| other.exists()));
    }
}
