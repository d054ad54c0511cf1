//! A store's file is replaced by a backup, and a backup by a later one.
//!
//! Owns the order of the steps. What always holds: the backup is copied and checked before anything of the store is
//! touched, and the file gets its new contents by one rename, while no store has it open. So a crash leaves the old
//! store or the new one, and the old one is also kept; where there was none, it may leave an empty file. Where the log cannot be written into the old file first, because
//! that is damaged or is a copy that was put beside the log of another file, the log is removed after the rename: a
//! crash in between leaves the new file beside that log, which each open refuses and another replacement mends.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::close::close;
use super::open::{accept, open_secure};
use super::open_for_reading::open_to_copy;
use super::recognise::{Format, recognise};
use super::sqlite_errors::failure;
use super::waiting::retry_while_locked;
use super::{APPLICATION_ID, copy, integrity_problems};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, bytes, shown};
use crate::process::Registered;

/// Replaces the store at `path` by the backup. Returns under which name the old one is kept. `at_step` is called between
/// the steps.
pub(crate) fn replace(
    path: &Path,
    backup: &Path,
    at_step: &mut dyn FnMut(),
) -> Result<Option<PathBuf>> {
    file::refuse_irregular(path)?;
    file::refuse_unsafe_names(path)?;
    if file::identity(backup).ok().is_some_and(|own| file::identity(path).ok() == Some(own)) {
        return Err(Error::new(
            ErrorKind::InvalidPath,
            format!("{} is the store itself; give the path of a backup", shown(backup)),
        ));
    }
    let new = file::temporary_name(path, ".restoring");
    let replaced = copy_of_backup(backup, &new)
        .and_then(|()| file::adopt_owner_and_mode(&new, path))
        .and_then(|()| file::sync_file(&new))
        .and_then(|()| {
            at_step();
            empty_log(path)?;
            at_step();
            file::while_unopened(path, |old| {
                let kept = file::keep_replaced(path, old)?;
                at_step();
                // Before the rename: nothing would tell SQLite that it is not the new file's journal.
                file::remove_side_file(path, "-journal")?;
                file::sync_folder(path)?;
                at_step();
                // Before the file has its name, and until the side files of the old one are gone: a store that is opened
                // in between would lose its own log.
                let locked = file::lock_unopened(&new)?;
                file::rename(&new, path)?;
                at_step();
                file::remove_side_file(path, "-wal")?;
                at_step();
                file::remove_side_file(path, "-shm")?;
                file::sync_folder(path)?;
                drop(locked);
                Ok(kept)
            })
        });
    if replaced.is_err() {
        file::remove_copy(&new);
    }
    replaced
}

/// Replaces an earlier backup by the copy that `copy` makes, in one step: under the name there is always a whole backup.
pub(crate) fn replace_backup(target: &Path, copy: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let check = |old: Option<&File>| {
        file::refuse_for_next_copy(target)?;
        old.map_or(Ok(()), |old| refuse_no_backup(target, old))
    };
    file::refuse_irregular(target)?;
    file::refuse_for_next_copy(target)?;
    if file::exists(target) {
        file::while_unopened(target, check)?;
    }
    let new = file::temporary_name(target, ".copying");
    let replaced = copy(&new).and_then(|()| file::sync_file(&new)).and_then(|()| {
        file::while_unopened(target, |old| check(old).and_then(|()| file::rename(&new, target)))
    });
    if replaced.is_err() {
        file::remove_copy(&new);
    }
    replaced
}

/// Refuses what is neither a store's file nor empty.
fn refuse_no_backup(path: &Path, mut file: &File) -> Result<()> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    /// Where the header of a database has its application id.
    const ID_AT: usize = 68;
    let mut header = [0; ID_AT + 4];
    let is_backup = file.read_exact(&mut header).is_ok()
        && header.starts_with(MAGIC)
        && i64::from(u32::from_be_bytes([header[68], header[69], header[70], header[71]]))
            == APPLICATION_ID;
    if is_backup || bytes(path) == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::WrongApplication,
        format!(
            "{} is no backup of a store, and was not replaced; choose another name",
            shown(path)
        ),
    ))
}

/// Copies the backup, and checks the copy.
fn copy_of_backup(backup: &Path, new: &Path) -> Result<()> {
    let config = Config::default();
    let damaged = |why: &str| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the backup {} is damaged ({why}); give another one", shown(backup)),
        )
    };
    let explain =
        |e: Error| if e.kind() == ErrorKind::Corrupt { damaged(&e.to_string()) } else { e };
    let source = open_to_copy(backup, &config)?;
    match retry_while_locked(backup, &config, "read", || recognise(&source.connection)) {
        // An older file is upgraded when the store is opened.
        Ok(Format::Current | Format::Legacy) => {}
        Ok(other) => accept(backup, &config.create(false), other).map(drop)?,
        Err(e) => return Err(explain(e)),
    }
    copy::copy(&source.connection, new).map_err(explain)?;
    source.check_unchanged(backup)?;
    let copied = open_to_copy(new, &Config::default())?;
    let problems = integrity_problems(&copied.connection);
    let problems = problems.map_err(|e| failure("verify the copy of", &shown(backup), e))?;
    // What is wrong with the index only is left to compacting.
    problems.of_marks.first().map_or(Ok(()), |problem| Err(damaged(problem)))
}

/// Writes the log of the old store into its file, so that the rename replaces all of it. Leaves a file that is damaged
/// as it is, with its log.
///
/// # Errors
///
/// - `Busy` if a store has the file open;
/// - `WrongApplication` if the file is a database of something else.
fn empty_log(path: &Path) -> Result<()> {
    if bytes(path) == 0 {
        return Ok(());
    }
    let config = Config::default().busy_timeout(Duration::ZERO).exclusive(true);
    let opened = open_secure(path, &config).and_then(|connection| {
        let format = retry_while_locked(path, &config, "open", || recognise(&connection))?;
        Ok((connection, format))
    });
    match opened {
        Ok((_, format @ Format::Foreign(_))) => accept(path, &config, format).map(drop),
        Ok((connection, _)) => copy_log(connection, path),
        Err(e) if e.kind() == ErrorKind::Busy => Err(e),
        Err(e) => {
            let file = shown(path);
            log::debug!(
                file = file.as_str(), error:% = e, error_kind = e.kind().word();
                "{file} is replaced with its log: {e}"
            );
            Ok(())
        }
    }
}

/// Closes the only connection to a file, which copies the log into the file and deletes it. A log that cannot be
/// copied, because the disk is full, stays, and is kept beside the replaced file.
fn copy_log(connection: Registered<Connection>, path: &Path) -> Result<()> {
    let allowed = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    allowed.and_then(|_| close(connection)).map_err(|e| failure("close", &shown(path), e))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::file::beside;

    fn store_with(path: &Path, ids: &[&str]) -> Registered<Connection> {
        let opened = crate::format::open::open(path, &Config::default(), 1).unwrap();
        for id in ids {
            let sql = "INSERT INTO seen (id, first_seen, last_seen) VALUES (?1, 1, 1)";
            opened.connection.execute(sql, [id]).unwrap();
        }
        opened.connection
    }

    fn ids(path: &Path) -> Result<Vec<String>> {
        let opened = crate::format::open::open(path, &Config::default(), 1)?;
        let ids = opened
            .connection
            .prepare("SELECT id FROM seen ORDER BY id")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(rusqlite::Result::unwrap)
            .collect();
        close(opened.connection).unwrap();
        Ok(ids)
    }

    /// What is in the folder of the store at each step of a replacement, as a kill would leave it.
    struct Steps {
        folder: tempfile::TempDir,
        path: PathBuf,
        left: Vec<tempfile::TempDir>,
    }

    /// Replaces a store that was killed with its marks in the log.
    fn replace_killed(damage: impl FnOnce(&Path, &Path)) -> Steps {
        let other = tempfile::tempdir().unwrap();
        let live = other.path().canonicalize().unwrap().join("live.db");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let backup = live.with_file_name("backup.db");
        let connection = store_with(&live, &["new"]);
        copy::copy(&connection, &backup).unwrap();
        connection.execute("UPDATE seen SET id = 'old'", []).unwrap();
        for suffix in ["", "-wal"] {
            fs::copy(beside(&live, suffix), beside(&path, suffix)).unwrap();
        }
        damage(&path, &backup);
        let mut left = Vec::new();
        replace(&path, &backup, &mut || {
            let copy = tempfile::tempdir().unwrap();
            for file in fs::read_dir(folder.path()).unwrap() {
                let file = file.unwrap();
                // Not the database by itself where this process has it locked: its lock would end.
                fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
            left.push(copy);
        })
        .unwrap();
        Steps { folder, path, left }
    }

    #[test]
    fn whichever_step_a_kill_comes_after_the_old_store_is_there_or_the_new_one() {
        let steps = replace_killed(|_, _| {});
        let found: Vec<_> =
            steps.left.iter().map(|left| ids(&left.path().join("seen.db")).unwrap()).collect();
        assert_eq!(found.len(), 6);
        let replaced_at = found.iter().position(|ids| *ids == ["new"]).unwrap();
        assert!(found[..replaced_at].iter().all(|ids| *ids == ["old"]), "{found:?}");
        assert!(found[replaced_at..].iter().all(|ids| *ids == ["new"]), "{found:?}");
        assert_eq!(ids(&steps.path).unwrap(), ["new"]);
        assert_eq!(ids(&beside(&steps.path, ".replaced")).unwrap(), ["old"]);
        let mut names: Vec<_> = fs::read_dir(steps.folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["seen.db", "seen.db.replaced"]);
    }

    /// Run by another test, in a process of its own.
    #[cfg(unix)]
    #[test]
    fn opens_the_store_that_the_environment_names() {
        let Some(path) = std::env::var_os("SEEN_TEST_OPEN") else { return };
        let config = Config::default().busy_timeout(Duration::ZERO);
        let kind = crate::format::open::open(Path::new(&path), &config, 1).err().map(|e| e.kind());
        println!("@{kind:?}");
    }

    /// Otherwise the log of that store would be removed in place of the old one.
    #[cfg(unix)]
    #[test]
    fn no_process_opens_the_new_file_before_the_side_files_of_the_old_one_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let backup = path.with_file_name("backup.db");
        let connection = store_with(&path, &["id"]);
        copy::copy(&connection, &backup).unwrap();
        close(connection).unwrap();
        assert_eq!(opened_elsewhere_during_a_replacement(&path, &backup), ["Some(Busy)"; 2]);
        assert_eq!(open_elsewhere(&path), "None");
    }

    /// Otherwise that store would be replaced with its marks.
    #[cfg(unix)]
    #[test]
    fn no_process_makes_a_store_where_one_is_put_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let backup = path.with_file_name("backup.db");
        close(store_with(&backup, &["id"])).unwrap();
        assert_eq!(opened_elsewhere_during_a_replacement(&path, &backup), ["Some(Busy)"; 4]);
        assert_eq!(ids(&path).unwrap(), ["id"]);
    }

    /// Returns what a process is told that opens the path, at each step in which another file than before is there.
    #[cfg(unix)]
    fn opened_elsewhere_during_a_replacement(path: &Path, backup: &Path) -> Vec<String> {
        let before = file::identity(path).ok();
        let mut told = Vec::new();
        replace(path, backup, &mut || {
            if file::identity(path).is_ok_and(|found| before != Some(found)) {
                told.push(open_elsewhere(path));
            }
        })
        .unwrap();
        told
    }

    #[cfg(unix)]
    fn open_elsewhere(path: &Path) -> String {
        let test = "format::replace::tests::opens_the_store_that_the_environment_names";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("SEEN_TEST_OPEN", path)
            .output();
        let told = String::from_utf8(child.unwrap().stdout).unwrap();
        told.lines().find_map(|line| line.split_once('@')).unwrap().1.to_owned()
    }

    #[test]
    fn a_copy_beside_another_log_is_replaced_and_a_kill_leaves_what_is_refused_until_it_is_replaced_again()
     {
        let steps = replace_killed(|path, backup| {
            fs::copy(backup, path).unwrap();
        });
        assert_eq!(ids(&steps.path).unwrap(), ["new"]);
        let kept = beside(&steps.path, ".replaced");
        assert!(bytes(&kept) > 0 && bytes(&beside(&kept, "-wal")) > 0);
        for left in &steps.left {
            let path = left.path().canonicalize().unwrap().join("seen.db");
            if file::wal_bytes(&path) == 0 {
                assert_eq!(ids(&path).unwrap(), ["new"]);
                continue;
            }
            let error = ids(&path).unwrap_err();
            assert!(error.to_string().contains("`seen restore`"), "{error}");
            replace(&path, &steps.path, &mut || {}).unwrap();
            assert_eq!(ids(&path).unwrap(), ["new"]);
        }
    }

    #[test]
    fn a_damaged_store_and_a_lost_one_are_replaced_and_what_was_there_is_kept() {
        for damage in [&b""[..], b"short", &[0; 4_096], b"lost"] {
            let steps = replace_killed(|path, _| match damage {
                b"lost" => fs::remove_file(path).unwrap(),
                _ => fs::write(path, damage).unwrap(),
            });
            assert_eq!(ids(&steps.path).unwrap(), ["new"]);
            let kept = beside(&steps.path, ".replaced");
            assert!(bytes(&beside(&kept, "-wal")) > 0);
            if damage != b"lost" {
                assert_eq!(fs::read(kept).unwrap(), damage);
            }
        }
    }
}
