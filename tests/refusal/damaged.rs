//! Files that are no database, and databases that lost a part of themselves.

use std::fs::{self};
use std::path::Path;

use rusqlite::config::DbConfig;
use seen_store::{Config, ErrorKind, Reader, SeenStore};

use crate::attempts::{bytes_of_an_open_file, closed_store, contents, refused, tamper_and_crash};
use crate::common::{Place, marks};

#[test]
fn a_file_that_is_no_database_is_refused() {
    let long = "not a database\n".repeat(500);
    for content in ["xy", "a line\n", &long, &"\0".repeat(4096)] {
        let place = Place::new();
        fs::write(place.path(), content).unwrap();
        refused(place.path(), ErrorKind::NotADatabase, "give another path");
    }
}

/// SQLite takes a file of one byte for an empty one, and would write a database over it.
#[test]
fn a_file_of_one_byte_is_refused() {
    let place = Place::new();
    fs::write(place.path(), "x").unwrap();
    refused(place.path(), ErrorKind::NotADatabase, "give another path");
}

#[test]
fn a_truncated_database_is_refused_wherever_it_was_cut() {
    let place = Place::new();
    closed_store(&place);
    let whole = fs::read(place.path()).unwrap();
    let pages = whole.len() / 1024;
    assert!(pages > 20);
    let mut wrong = Vec::new();
    for length in (1..pages).map(|page| page * 1024).chain([512, 1500, whole.len() - 1000]) {
        fs::write(place.path(), &whole[..length]).unwrap();
        let before = contents(place.path());
        match SeenStore::open(place.path()) {
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                let message = e.to_string();
                assert!(message.contains("seen.db") && message.contains("restore a backup"));
            }
            other => wrong.push((length, other.map(|store| store.stats()))),
        }
        assert!(contents(place.path()) == before, "cut to {length} and then changed");
    }
    assert!(wrong.is_empty(), "{} bytes, cut to: {wrong:?}", whole.len());
}

/// SQLite fills a last page that is cut short with zeros, so an id could silently change.
#[test]
fn a_database_that_lost_the_last_byte_is_refused() {
    let place = Place::new();
    closed_store(&place);
    let whole = fs::read(place.path()).unwrap();
    fs::write(place.path(), &whole[..whole.len() - 1]).unwrap();
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

/// Cuts the database inside its last page.
fn cut_last_page(path: &Path) {
    let bytes = fs::metadata(path).unwrap().len();
    assert!(bytes.is_multiple_of(1024));
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes - 700).unwrap();
}

/// Rows on the last pages of the file, so that the page that is cut matters.
const CHANGE_ALL: &str = "UPDATE seen SET duplicates = duplicates + 1";

/// As a checkpoint leaves it that a power cut or a full disk ended.
#[test]
fn a_database_cut_inside_a_page_that_its_log_holds_is_whole() {
    for read_only in [false, true] {
        let place = Place::new();
        closed_store(&place);
        tamper_and_crash(place.path(), CHANGE_ALL);
        cut_last_page(place.path());
        let reader = Reader::open(place.path()).unwrap();
        assert!((0..500).all(|n| reader.try_is_seen(format!("id-{n}")).unwrap() || n % 50 > 0));
        assert!(reader.verify().unwrap().is_ok());
        drop(reader);
        let store = place.open(Config::default().read_only(read_only));
        assert!((0..500).all(|n| store.is_seen(format!("id-{n}"))));
        assert!(store.verify().unwrap().is_ok());
        drop(store);
        let store = place.open(Config::default());
        store.close().unwrap();
        assert_eq!(fs::metadata(place.path()).unwrap().len() % 1024, 0);
        let duplicates = marks(&place.sql()).iter().all(|row| row.duplicates == 1);
        assert!(duplicates, "what the log held is not in the file");
    }
}

#[test]
fn a_database_cut_inside_a_page_that_its_log_lacks_is_refused() {
    let place = Place::new();
    closed_store(&place);
    tamper_and_crash(place.path(), "UPDATE meta SET value = 1 WHERE key = 'last_purge_at'");
    let _ = fs::remove_file(place.beside("-shm"));
    cut_last_page(place.path());
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

#[test]
fn a_database_that_lost_pages_of_which_the_log_holds_only_some_is_refused() {
    let place = Place::new();
    closed_store(&place);
    // The last row, which is on the last page.
    tamper_and_crash(
        place.path(),
        "UPDATE seen SET duplicates = 1 WHERE seq = (SELECT max(seq) FROM seen)",
    );
    let _ = fs::remove_file(place.beside("-shm"));
    let bytes = fs::metadata(place.path()).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    file.set_len(bytes - 3 * 1024 - 700).unwrap();
    drop(file);
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

#[test]
fn a_page_that_only_uncommitted_frames_hold_counts_as_lost() {
    let place = Place::new();
    closed_store(&place);
    let connection = place.sql();
    connection.pragma_update(None, "cache_size", 1).unwrap();
    connection
        .execute_batch("UPDATE meta SET value = 1 WHERE key = 'last_purge_at'; BEGIN")
        .unwrap();
    connection.execute_batch(CHANGE_ALL).unwrap();
    let log = bytes_of_an_open_file(&place.beside("-wal"));
    let database = bytes_of_an_open_file(place.path());
    assert!(log.len() > 20 * 1048, "nothing was spilled into the log");
    drop(connection);
    fs::write(place.path(), database).unwrap();
    fs::write(place.beside("-wal"), log).unwrap();
    cut_last_page(place.path());
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

#[test]
fn a_page_that_only_frames_of_an_earlier_log_hold_counts_as_lost() {
    let place = Place::new();
    closed_store(&place);
    {
        let connection = place.sql();
        connection.execute_batch(CHANGE_ALL).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        // Begins the log anew, over the first frames.
        connection.execute_batch("UPDATE meta SET value = 1 WHERE key = 'last_purge_at'").unwrap();
    }
    assert!(fs::metadata(place.beside("-wal")).unwrap().len() > 20 * 1048);
    let _ = fs::remove_file(place.beside("-shm"));
    cut_last_page(place.path());
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}
