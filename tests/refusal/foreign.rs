//! What belongs to others, or to a newer version: databases, folders, links, logs.

use std::fs::{self};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use seen_store::{Config, ErrorKind, SeenStore};

use crate::attempts::{closed_store, refused, refused_with, tamper, tamper_and_crash};
use crate::common::Place;

#[test]
fn a_database_of_another_application_is_refused() {
    for sql in [
        "PRAGMA application_id = 7",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",
        "PRAGMA user_version = 3",
        // Almost the seed's table.
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER)",
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL, note TEXT)",
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL); CREATE TABLE other (x)",
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL); PRAGMA user_version = 1",
    ] {
        let place = Place::new();
        tamper(&place, sql);
        refused(place.path(), ErrorKind::WrongApplication, "give another path");
    }
}

#[test]
fn a_database_of_another_application_keeps_its_log_with_all_that_is_in_it() {
    let place = Place::new();
    tamper_and_crash(
        place.path(),
        "PRAGMA journal_mode = WAL; CREATE TABLE notes (text); INSERT INTO notes VALUES ('dear')",
    );
    assert!(fs::metadata(place.beside("-wal")).unwrap().len() > 0);
    refused(place.path(), ErrorKind::WrongApplication, "give another path");
    let note: String =
        place.sql().query_row("SELECT text FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(note, "dear");
}

#[test]
fn a_store_that_is_not_marked_as_one_is_refused() {
    let place = Place::new();
    closed_store(&place);
    tamper(&place, "PRAGMA application_id = 0");
    refused(place.path(), ErrorKind::WrongApplication, "give another path");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let place = Place::new();
    closed_store(&place);
    tamper(&place, "PRAGMA user_version = 2");
    refused(place.path(), ErrorKind::NewerVersion, "update the program");
}

#[test]
fn a_store_of_a_build_from_before_the_first_release_is_refused() {
    let place = Place::new();
    tamper(
        &place,
        "CREATE TABLE claims (scope TEXT NOT NULL, id ANY NOT NULL, token BLOB NOT NULL,
           claimed_at INTEGER NOT NULL, lease_until INTEGER NOT NULL, attempts INTEGER NOT NULL,
           last_error TEXT, expires_at INTEGER, PRIMARY KEY (scope, id)) STRICT, WITHOUT ROWID;
         CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
         CREATE TABLE seen (seq INTEGER PRIMARY KEY, scope TEXT NOT NULL DEFAULT '', id ANY NOT NULL,
           first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, expires_at INTEGER,
           suppressed INTEGER NOT NULL DEFAULT 0, token BLOB, attempts INTEGER, last_error TEXT,
           receipt BLOB) STRICT;
         PRAGMA application_id = 0x5345454E; PRAGMA user_version = 1",
    );
    refused(place.path(), ErrorKind::WrongApplication, "before the first release");
}

#[test]
fn a_store_that_somebody_added_code_or_tables_to_is_refused() {
    for sql in [
        "CREATE TRIGGER t AFTER INSERT ON seen BEGIN DELETE FROM seen; END",
        "CREATE TABLE extra (x)",
        "CREATE VIEW v AS SELECT * FROM seen",
        "CREATE INDEX i ON seen (id)",
        "ALTER TABLE seen ADD COLUMN extra INTEGER",
        "DROP TABLE claims",
    ] {
        let place = Place::new();
        closed_store(&place);
        tamper(&place, sql);
        refused(place.path(), ErrorKind::WrongApplication, "altered by another program");
    }
}

#[test]
fn a_folder_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    refused(place.path(), ErrorKind::InvalidPath, "give the path of a file");
    let with_slash = PathBuf::from(format!("{}/", place.path().display()));
    let error = SeenStore::open(with_slash).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPath);
    assert_eq!(SeenStore::open("/").unwrap_err().kind(), ErrorKind::InvalidPath);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn what_is_neither_file_nor_folder_is_refused() {
    let place = Place::new();
    let made = Command::new("mkfifo").arg(place.path()).status().unwrap();
    assert!(made.success());
    let error = SeenStore::open(place.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPath);
    assert!(error.to_string().contains("seen.db is not a regular file"));
}

#[test]
fn names_that_sqlite_would_take_for_something_else_are_refused() {
    let place = Place::new();
    let inside = |name: &str| name.replace("FOLDER", &place.folder().to_string_lossy());
    for (name, remedy) in [
        (":memory:", "SeenStore::in_memory"),
        ("file:FOLDER/seen.db", "plain path"),
        ("file::memory:?cache=shared", "plain path"),
        ("file:FOLDER/seen.db?mode=memory", "plain path"),
        ("", "give the path of a file"),
        ("FOLDER/a\0b", "NUL"),
    ] {
        let name = inside(name);
        let error = SeenStore::open(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPath);
        let message = error.to_string();
        assert!(message.contains(remedy), "{message}");
        assert!(name.contains('\0') || message.contains(&name), "{message}");
    }
    assert_eq!(place.files(), [""; 0]);
    for stray in [":memory:", "file::memory:?cache=shared"] {
        assert!(!Path::new(stray).exists(), "{stray} was created");
    }
}

#[test]
fn a_symbolic_link_is_refused_wherever_it_points() {
    let place = Place::new();
    let real = place.folder().join("real.db");
    symlink(&real, place.path()).unwrap();
    refused(place.path(), ErrorKind::InvalidPath, "give the path that it points to");
    assert!(!real.exists(), "the link was followed");
    SeenStore::open(&real).unwrap().mark_seen("a").unwrap();
    refused(place.path(), ErrorKind::InvalidPath, "give the path that it points to");
}

#[test]
fn a_folder_may_be_reached_by_a_link() {
    let place = Place::new();
    let link = place.folder().join("link");
    fs::create_dir(place.folder().join("real")).unwrap();
    symlink(place.folder().join("real"), &link).unwrap();
    SeenStore::open(link.join("seen.db")).unwrap().mark_seen("a").unwrap();
    assert!(SeenStore::open(place.folder().join("real/seen.db")).unwrap().is_seen("a"));
}

#[test]
fn an_empty_or_missing_database_beside_a_log_that_holds_data_is_refused() {
    let place = Place::new();
    closed_store(&place);
    tamper_and_crash(
        place.path(),
        "INSERT INTO seen (id, first_seen, last_seen) VALUES ('in the log', 1, 1)",
    );
    let _ = fs::remove_file(place.beside("-shm"));
    let whole = fs::read(place.path()).unwrap();
    let log = fs::read(place.beside("-wal")).unwrap();
    assert!(!log.is_empty());

    fs::write(place.path(), "").unwrap();
    refused(place.path(), ErrorKind::Corrupt, "put the database back");
    fs::remove_file(place.path()).unwrap();
    refused_with(place.path(), Config::default(), ErrorKind::Corrupt, "put the database back");
    assert_eq!(place.files(), ["seen.db-wal"]);

    // And what it says helps.
    fs::write(place.path(), whole).unwrap();
    let store = place.open(Config::default());
    assert!(store.is_seen("in the log") && store.is_seen("id-499"));
}
