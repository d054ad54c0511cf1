//! A backup that was copied over a store while the log of the old file was still there.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use seen_store::{Config, ErrorKind, LegacyFile, Reader, SeenStore, Ttl};

use crate::common::Place;
use crate::support_process::{self, Child, say, variable};

#[test]
fn child() {
    if support_process::role().as_deref() == Some("open and close") {
        let store = SeenStore::open(variable("STORE")).unwrap();
        store.mark_seen("of the child").unwrap();
        store.close().unwrap();
        say("closed");
    }
}

/// Leaves at `path` what a killed process leaves: a store whose marks are in the log. Returns an older backup.
fn killed_store(path: &Path) -> PathBuf {
    let place = Place::new();
    let store = place.open(Config::default());
    store.seed((0..5).map(|n| format!("old {n}"))).unwrap();
    let backup = path.with_file_name("backup");
    store.backup(&backup).unwrap();
    store.seed((0..300).map(|n| format!("new {n}"))).unwrap();
    for suffix in ["", "-wal"] {
        let mut to = path.as_os_str().to_owned();
        to.push(suffix);
        fs::copy(place.beside(suffix), to).unwrap();
    }
    backup
}

#[test]
fn a_backup_that_was_copied_over_a_store_with_a_log_is_refused_and_nothing_is_changed() {
    let place = Place::new();
    let backup = killed_store(place.path());
    fs::copy(&backup, place.path()).unwrap();
    let before = ["", "-wal"].map(|suffix| fs::read(place.beside(suffix)).unwrap());
    let names = place.files();
    let open = |config| SeenStore::open_with(place.path(), config).map(drop);
    for (way, opened) in [
        ("open", open(Config::default())),
        ("exclusive", open(Config::default().exclusive(true))),
        ("read-only", open(Config::default().read_only(true))),
        ("reader", Reader::open(place.path()).map(drop)),
        ("legacy", LegacyFile::open(place.path(), Ttl::Never).map(drop)),
    ] {
        let error = opened.expect_err(way);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{way}: {error}");
        let message = error.to_string();
        assert!(message.contains("seen.db-wal is the log"), "{way}: {message}");
        assert!(message.contains("`seen restore`"), "{way}: {message}");
    }
    assert!(["", "-wal"].map(|suffix| fs::read(place.beside(suffix)).unwrap()) == before);
    assert_eq!(place.files(), names);
    // The backup alone is a store.
    fs::remove_file(place.beside("-wal")).unwrap();
    let store = place.open(Config::default());
    assert_eq!(store.stats().unwrap().seen, 5);
}

#[test]
fn what_a_killed_process_left_is_opened_with_its_log() {
    let place = Place::new();
    killed_store(place.path());
    assert_eq!(place.open(Config::default()).stats().unwrap().seen, 305);
}

#[test]
fn a_backup_beside_a_log_without_frames_is_opened() {
    let place = Place::new();
    let backup = killed_store(place.path());
    let header = fs::read(place.beside("-wal")).unwrap()[..32].to_owned();
    for log in [&b""[..], &header, &[0; 2_000]] {
        fs::copy(&backup, place.path()).unwrap();
        fs::write(place.beside("-wal"), log).unwrap();
        let store = place.open(Config::default());
        assert_eq!(store.stats().unwrap().seen, 5);
        store.close().unwrap();
    }
}

#[test]
fn an_old_file_in_rollback_format_with_a_hot_journal_is_opened_and_upgraded() {
    let place = Place::new();
    let other = Place::new();
    let seed = Connection::open(other.path()).unwrap();
    seed.execute_batch(
        "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
         INSERT INTO seen VALUES ('kept', 1577836800);
         PRAGMA cache_size = 1;
         BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO seen SELECT 'lost ' || i, 1 FROM n",
    )
    .unwrap();
    for suffix in ["", "-journal"] {
        fs::copy(other.beside(suffix), place.beside(suffix)).unwrap();
    }
    drop(seed);
    assert!(fs::metadata(place.beside("-journal")).unwrap().len() > 0);
    let reading = Config::default().read_only(true);
    for error in [
        SeenStore::open_with(place.path(), reading).unwrap_err(),
        Reader::open(place.path()).and_then(|reader| reader.try_is_seen("kept")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert!(error.to_string().contains("open it once for writing"), "{error}");
    }
    let store = place.open(Config::default().ttl(Ttl::Never));
    assert_eq!(store.upgrade_report().unwrap().unwrap().kept, 1);
}

/// Reading the header of a file that this process has open would cost it SQLite's locks on the file: the child, which
/// closes last as far as it can see, would delete the log.
#[test]
fn a_second_open_of_a_store_with_a_log_leaves_the_first_its_locks() {
    let place = Place::new();
    let first = place.open(Config::default());
    first.seed((0..300).map(|n| format!("id {n}"))).unwrap();
    let second = place.open(Config::default());
    drop(second);
    let path = place.path().to_str().unwrap();
    let mut child = Child::spawn("open and close", &[("STORE", path)]);
    assert_eq!(child.hear().as_deref(), Some("closed"));
    child.finish();
    assert!(place.beside("-wal").exists(), "the first store still needs it");
    first.mark_seen("more").unwrap();
    assert!(first.is_seen("of the child"));
    first.close().unwrap();
}
