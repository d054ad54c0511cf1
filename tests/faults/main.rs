//! Failing disks: a layer between SQLite and the operating system (`shim`) makes chosen calls fail, or kills
//! the process at them.
//!
//! - Promise 2, acknowledged means durable: whichever call fails, and wherever a kill comes.
//! - Promise 5, errors: each caller gets its true answer, and an error only where that cannot be known.
//!
//! A binary of its own: the shim becomes the default VFS of the process.

#![cfg(unix)]

#[path = "../support_group/mod.rs"]
mod support_group;
#[path = "../support_process/mod.rs"]
mod support_process;

mod calls;
mod commits;
mod every_call;
mod kills;
mod shim;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use shim::{Action, Faults};

fn new_file() -> (tempfile::TempDir, PathBuf) {
    // In memory where that is possible: what is at stake is which calls fail, not how long they take.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.unwrap();
    // The shim must be in place before the first file is opened.
    drop(Faults::on(folder.path(), None, "", Action::FailOnce, 0));
    let path = folder.path().join("seen.db");
    (folder, path)
}

/// Whether the file holds a row of the id, according to a connection of its own.
fn has_row(path: &Path, id: &str) -> bool {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT count(*) FROM seen WHERE id = ?1 AND expires_at IS NOT 0";
    connection.query_row(sql, [id], |row| row.get::<_, i64>(0)).unwrap() > 0
}

/// Copies the file and its log.
fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    let log = from.with_extension("db-wal");
    if log.exists() {
        std::fs::copy(log, to.with_extension("db-wal")).unwrap();
    }
}
