//! Attempts to open what must be refused, and what every refusal has in common.

use std::fs::{self};
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use seen_store::{Config, Error, ErrorKind, SeenStore};

use crate::common::Place;

/// What a refusal must leave as it was: the bytes of the database and of its log. An empty log does not count:
/// SQLite creates one for a connection that reads a database in WAL mode, and a process that may not write to the
/// file cannot remove it.
pub(crate) fn contents(path: &Path) -> [Option<Vec<u8>>; 2] {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    [fs::read(path).ok(), fs::read(log).ok().filter(|bytes| !bytes.is_empty())]
}

/// Opens what must be refused, and checks what every refusal has in common.
pub(crate) fn refused_with(path: &Path, config: Config, kind: ErrorKind, remedy: &str) -> Error {
    let before = contents(path);
    let error = SeenStore::open_with(path, config).expect_err("opened what is no store");
    assert_eq!(error.kind(), kind, "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&*path.to_string_lossy()), "no path: {message}");
    assert!(message.contains(remedy), "no remedy: {message}");
    let after = contents(path);
    assert!(after[0] == before[0], "the file was changed: {message}");
    assert!(after[1] == before[1], "the log was changed: {message}");
    error
}

/// The same for writing and for reading.
pub(crate) fn refused(path: &Path, kind: ErrorKind, remedy: &str) {
    refused_with(path, Config::default(), kind, remedy);
    refused_with(path, Config::default().read_only(true), kind, remedy);
}

/// A closed store of 500 ids: some 30 pages.
pub(crate) fn closed_store(place: &Place) {
    let store = place.open(Config::default());
    store.seed((0..500).map(|number| format!("id-{number}"))).unwrap();
    store.close().unwrap();
}

/// Runs some SQL on the file, as another program would.
pub(crate) fn tamper(place: &Place, sql: &str) {
    place.sql().execute_batch(sql).unwrap();
}

/// Runs some SQL on a database in WAL mode and leaves what it wrote in the log, as a crash does.
pub(crate) fn tamper_and_crash(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// The file's bytes while a store of this process has it open: read by another process, for closing a
/// descriptor of it here would cancel the store's locks.
pub(crate) fn bytes_of_an_open_file(path: &Path) -> Vec<u8> {
    Command::new("cat").arg(path).output().unwrap().stdout
}
