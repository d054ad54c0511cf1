//! The log (`-wal`) and its index (`-shm`) taken away from under an open store. The store says so within
//! 100 ms, and what was acknowledged before is in the file once the store is closed.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "that it is told within 100 ms is measured")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use seen_store::{Config, Error, ErrorKind, Reader, SeenStore};

use crate::common::{Place, ms, secs};
use crate::support_process::{self, Child};

/// A call that begins later than this after the fact must tell of it.
const NOTICED: Duration = Duration::from_millis(100);

#[test]
fn child() {
    if support_process::role().as_deref() == Some("puppet") {
        support_process::puppet();
    }
}

/// The ways to take side files away, and the one that is named in the error.
const DELETIONS: [(&[&str], &str); 3] =
    [(&["-wal"], "-wal"), (&["-shm"], "-shm"), (&["-wal", "-shm"], "-wal")];

fn delete(place: &Place, suffixes: &[&str]) {
    for suffix in suffixes {
        fs::remove_file(place.beside(suffix)).unwrap();
    }
}

fn ids(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{prefix} {n}"))
}

fn mark_all(store: &SeenStore, ids: impl Iterator<Item = String>) -> Vec<String> {
    ids.inspect(|id| store.mark_seen(id).unwrap()).collect()
}

fn assert_told(error: &Error, place: &Place, suffix: &str) {
    let message = error.to_string();
    assert_eq!(error.kind(), ErrorKind::FileReplaced, "{message}");
    let name = place.beside(suffix).display().to_string() + " ";
    assert!(message.contains(&name), "{suffix} is not named: {message}");
}

/// Marks until the store tells that a side file was taken away, which must be within 100 ms. Returns what
/// it acknowledged until then.
fn marked_until_told(store: &SeenStore, place: &Place, suffix: &str) -> Vec<String> {
    let since = Instant::now();
    let mut acknowledged = Vec::new();
    for id in ids("late", usize::MAX) {
        let begun = since.elapsed();
        match store.mark_seen(&id) {
            Ok(()) => {
                assert!(begun <= NOTICED, "marked into nowhere {begun:?} later");
                acknowledged.push(id);
            }
            // A file that was cut cannot always be read.
            Err(e) if begun <= NOTICED && e.kind() != ErrorKind::FileReplaced => {}
            Err(e) => {
                assert_told(&e, place, suffix);
                break;
            }
        }
    }
    acknowledged
}

/// Every verb that reaches the file errs, and none makes a side file.
fn assert_each_verb_tells(store: &SeenStore, place: &Place, suffix: &str) {
    let names = place.files();
    let copy = place.folder().join("copy.db");
    for error in [
        store.mark_seen("x").unwrap_err(),
        store.check_and_mark("x").unwrap_err(),
        store.claim("x", secs(1)).unwrap_err(),
        store.check_and_mark_all(["x", "y"]).unwrap_err(),
        store.forget("late 0").unwrap_err(),
        store.cleanup_old_entries(secs(0)).unwrap_err(),
        store.verify().unwrap_err(),
        store.backup(&copy).unwrap_err(),
        store.checkpoint().unwrap_err(),
        store.compact().unwrap_err(),
    ] {
        assert_told(&error, place, suffix);
    }
    assert_eq!(place.files(), names);
}

fn assert_all_seen(place: &Place, ids: &[String]) {
    let store = place.open(Config::default());
    let lost: Vec<_> = ids.iter().filter(|id| !store.try_is_seen(id).unwrap()).collect();
    assert!(lost.is_empty(), "{} of {} lost, such as {:?}", lost.len(), ids.len(), lost[0]);
    assert!(store.verify().unwrap().is_ok());
    store.close().unwrap();
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn a_deleted_side_file_is_told_within_100_ms_and_closing_brings_all_marks_into_the_file() {
    for (suffixes, named) in DELETIONS {
        for close in [true, false] {
            let place = Place::new();
            let store = place.open(Config::default());
            let mut marked = mark_all(&store, ids("early", 50));
            delete(&place, suffixes);
            marked.extend(marked_until_told(&store, &place, named));
            assert_told(&store.try_is_seen("never marked").unwrap_err(), &place, named);
            assert_each_verb_tells(&store, &place, named);
            if close {
                assert_told(&store.close().unwrap_err(), &place, named);
            }
            drop(store);
            assert_all_seen(&place, &marked);
        }
    }
}

#[test]
fn no_thread_of_the_store_makes_a_side_file_that_was_deleted() {
    let place = Place::new();
    let store = place.open(Config::default());
    mark_all(&store, ids("early", 50));
    delete(&place, &["-wal", "-shm"]);
    // So many that they are written to the index in the file, by a thread with a connection of its own.
    let _ = store.seed(ids("late", 20_000));
    std::thread::sleep(ms(500));
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn closing_at_once_after_the_deletion_loses_nothing_either() {
    for (suffixes, _) in DELETIONS {
        let place = Place::new();
        let store = place.open(Config::default());
        let marked = mark_all(&store, ids("early", 50));
        delete(&place, suffixes);
        drop(store);
        assert_all_seen(&place, &marked);
    }
}

#[test]
fn a_store_in_exclusive_mode_tells_of_its_deleted_log_too() {
    let place = Place::new();
    let store = place.open(Config::default().exclusive(true));
    let mut marked = mark_all(&store, ids("early", 50));
    delete(&place, &["-wal"]);
    marked.extend(marked_until_told(&store, &place, "-wal"));
    assert_each_verb_tells(&store, &place, "-wal");
    let impatient = Config::default().busy_timeout(ms(20));
    let error = SeenStore::open_with(place.path(), impatient).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(store);
    assert_all_seen(&place, &marked);
}

#[test]
fn a_read_only_store_tells_of_a_deleted_side_file() {
    for (suffixes, named) in DELETIONS {
        let place = Place::new();
        let writer = place.open(Config::default());
        let marked = mark_all(&writer, ids("early", 50));
        let reading = place.open(Config::default().read_only(true));
        assert!(!reading.try_is_seen("x").unwrap());
        delete(&place, suffixes);
        let since = Instant::now();
        let error = loop {
            let begun = since.elapsed();
            match reading.try_is_seen("never marked") {
                Ok(seen) => assert!(!seen && begun <= NOTICED, "{begun:?} later"),
                Err(e) => break e,
            }
        };
        assert_told(&error, &place, named);
        drop(reading);
        drop(writer);
        assert_all_seen(&place, &marked);
    }
}

#[test]
fn of_two_stores_in_one_process_both_tell_and_the_marks_of_both_are_kept() {
    for (suffixes, named) in DELETIONS {
        let place = Place::new();
        let stores = [place.open(Config::default()), place.open(Config::default())];
        let mut marked = mark_all(&stores[0], ids("first", 50));
        marked.extend(mark_all(&stores[1], ids("second", 50)));
        delete(&place, suffixes);
        for store in &stores {
            marked.extend(marked_until_told(store, &place, named));
        }
        drop(stores);
        assert_all_seen(&place, &marked);
    }
}

/// SQLite gives a later connection of the process the index that the earlier one has open.
#[test]
fn a_store_opened_beside_one_of_its_process_that_lost_its_index_is_refused() {
    for replaced in [false, true] {
        let place = Place::new();
        let store = place.open(Config::default());
        let marked = mark_all(&store, ids("early", 50));
        delete(&place, &["-shm"]);
        let mut other = None;
        if replaced {
            other = Some(Child::with_store(place.path()));
        }
        let error = SeenStore::open(place.path()).unwrap_err();
        assert_told(&error, &place, "-shm");
        assert!(error.to_string().contains("close every store on the file"), "{error}");
        let error = Reader::open(place.path()).expect_err("a reader read by a lost index");
        // Without an index it would read alone, which it cannot beside a store.
        let kind = if replaced { ErrorKind::FileReplaced } else { ErrorKind::Busy };
        assert_eq!(error.kind(), kind, "{error}");
        drop(store);
        drop(other);
        assert_all_seen(&place, &marked);
    }
}

#[test]
fn what_another_process_marks_after_it_opened_anew_is_kept_and_never_written_over() {
    for (suffixes, named) in DELETIONS {
        for whole_log in [true, false] {
            let place = Place::new();
            let store = place.open(Config::default());
            let mut marked = mark_all(&store, ids("early", 500));
            // What only the log holds has no place in the file any more once another log is begun.
            if !whole_log {
                store.checkpoint().unwrap();
            }
            delete(&place, suffixes);
            let mut other = Child::puppet();
            let opened = other.ask(&format!("open {}", place.path().display()));
            let is_open = opened == "ok";
            assert!(is_open || opened.starts_with("error"), "{opened}");
            let since = Instant::now();
            while since.elapsed() <= NOTICED {
                std::hint::spin_loop();
            }
            let error = store.mark_seen("too late").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileReplaced, "{error}");
            let mut theirs = Vec::new();
            if is_open {
                for id in ids("theirs", 50) {
                    if other.ask(&format!("mark {id}")) == "ok" {
                        theirs.push(id);
                    }
                }
            }
            drop(store);
            if is_open {
                for id in ids("after", 50) {
                    assert_eq!(other.ask(&format!("mark {id}")), "ok");
                    theirs.push(id);
                }
                assert_eq!(other.ask("verify"), "[]");
                assert_eq!(other.ask("close"), "ok");
            }
            if whole_log && is_open && suffixes.contains(&"-wal") {
                marked.clear();
            }
            println!("{named} {suffixes:?} {whole_log}: {opened}, {} of theirs", theirs.len());
            marked.extend(theirs);
            drop(other);
            assert_all_seen(&place, &marked);
        }
    }
}

#[test]
fn a_log_replaced_by_another_file_is_told_and_that_file_left_alone() {
    for config in [Config::default(), Config::default().exclusive(true)] {
        let place = Place::new();
        let store = place.open(config);
        let marked = mark_all(&store, ids("early", 50));
        store.checkpoint().unwrap();
        store.mark_seen("in the log").unwrap();
        let other = place.folder().join("other");
        fs::write(&other, "somebody's notes").unwrap();
        fs::rename(&other, place.beside("-wal")).unwrap();
        marked_until_told(&store, &place, "-wal");
        assert_told(&store.close().unwrap_err(), &place, "-wal");
        assert_eq!(fs::read(place.beside("-wal")).unwrap(), b"somebody's notes");
        fs::remove_file(place.beside("-wal")).unwrap();
        assert_all_seen(&place, &marked);
    }
}

#[test]
fn a_log_that_is_cut_is_told_and_closing_spoils_nothing() {
    for exclusive in [false, true] {
        for left in [0, 32, 5_000] {
            let place = Place::new();
            let store = place.open(Config::default().exclusive(exclusive));
            let marked = mark_all(&store, ids("early", 50));
            store.checkpoint().unwrap();
            let _ = mark_all(&store, ids("in the log", 50));
            let log = fs::OpenOptions::new().write(true).open(place.beside("-wal")).unwrap();
            log.set_len(left).unwrap();
            drop(log);
            // The next commits would make the file as long as it was.
            let since = Instant::now();
            while since.elapsed() <= NOTICED {
                std::hint::spin_loop();
            }
            marked_until_told(&store, &place, "-wal");
            assert_each_verb_tells(&store, &place, "-wal");
            assert_told(&store.close().unwrap_err(), &place, "-wal");
            assert_all_seen(&place, &marked);
        }
    }
}

/// Takes frames from the log: it is cut, or zeros are written over its end.
#[derive(Clone, Copy, Debug)]
enum Spoilt {
    CutTo(u64),
    CutBy(u64),
    ZeroedFrom(u64),
}

fn spoil(place: &Place, how: Spoilt) {
    let log = fs::OpenOptions::new().write(true).open(place.beside("-wal")).unwrap();
    let bytes = log.metadata().unwrap().len();
    let left = match how {
        Spoilt::CutTo(left) | Spoilt::ZeroedFrom(left) => left,
        Spoilt::CutBy(taken) => bytes - taken,
    };
    log.set_len(left).unwrap();
    if let Spoilt::ZeroedFrom(_) = how {
        log.set_len(bytes).unwrap();
    }
}

const SPOILT: [Spoilt; 5] = [
    Spoilt::CutTo(0),
    Spoilt::CutTo(32),
    Spoilt::CutTo(5_000),
    Spoilt::CutBy(100),
    Spoilt::ZeroedFrom(5_000),
];

/// A store with marks in the database, which it returns, and others in the log, which is then spoilt.
fn with_spoilt_log(place: &Place, config: Config, how: Spoilt) -> (SeenStore, Vec<String>) {
    let store = place.open(config);
    let marked: Vec<_> = ids("early", 2_000).collect();
    store.seed(&marked).unwrap();
    store.checkpoint().unwrap();
    let _ = mark_all(&store, ids("in the log", 50));
    spoil(place, how);
    (store, marked)
}

/// What is written next goes where it belongs: the log is as long as it was, with a hole of zeros.
#[test]
fn a_spoilt_log_is_told_within_100_ms_though_the_store_went_on_writing() {
    for exclusive in [false, true] {
        for how in SPOILT {
            let place = Place::in_ram();
            let (store, marked) =
                with_spoilt_log(&place, Config::default().exclusive(exclusive), how);
            marked_until_told(&store, &place, "-wal");
            assert_each_verb_tells(&store, &place, "-wal");
            assert_told(&store.close().unwrap_err(), &place, "-wal");
            assert_all_seen(&place, &marked);
        }
    }
}

#[test]
fn no_verb_copies_a_spoilt_log_that_was_written_to_a_moment_ago() {
    for exclusive in [false, true] {
        for how in SPOILT {
            for verb in ["checkpoint", "compact", "backup", "verify", "close", "drop"] {
                let place = Place::in_ram();
                let (store, marked) =
                    with_spoilt_log(&place, Config::default().exclusive(exclusive), how);
                let at_once = store.mark_seen("at once");
                let copy = place.folder().join("copy.db");
                let told = match verb {
                    "checkpoint" => store.checkpoint(),
                    "compact" => store.compact(),
                    "backup" => store.backup(&copy),
                    "verify" => store.verify().map(drop),
                    "close" => store.close(),
                    _ => Ok(()),
                };
                println!("{how:?}, exclusive {exclusive}, {verb}: {at_once:?}, {told:?}");
                drop(store);
                if verb != "drop" {
                    assert_told(&told.unwrap_err(), &place, "-wal");
                }
                assert!(!copy.exists());
                assert_all_seen(&place, &marked);
            }
        }
    }
}

#[test]
fn no_commit_and_no_thread_copies_a_spoilt_log() {
    for config in [
        Config::default().wal_autocheckpoint(100),
        Config::default().wal_autocheckpoint(1_500),
        Config::default().wal_autocheckpoint(100).exclusive(true),
    ] {
        for how in SPOILT {
            let place = Place::in_ram();
            let shared = !format!("{config:?}").contains("exclusive: true");
            let other = shared.then(|| place.open(config.clone()));
            let (store, marked) = with_spoilt_log(&place, config.clone(), how);
            let writers = [other.as_ref().unwrap_or(&store), &store];
            for (n, id) in ids("late", 2_000).enumerate() {
                let _ = writers[n % 2].mark_seen(&id);
            }
            drop((store, other));
            assert_all_seen(&place, &marked);
        }
    }
}

fn reading_connection(place: &Place) -> Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    Connection::open_with_flags(place.path(), flags).unwrap()
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM seen", [], |row| row.get(0)).unwrap()
}

/// SQLite copies the log only for its last connection, and a reader copies nothing.
#[test]
fn closing_without_the_side_files_loses_nothing_though_a_reader_lives() {
    for (suffixes, _) in DELETIONS {
        for close in [true, false] {
            let place = Place::in_ram();
            let store = place.open(Config::default());
            let marked = mark_all(&store, ids("early", 50));
            let reader = Reader::open(place.path()).unwrap();
            assert!(reader.try_is_seen("early 1").unwrap());
            let read_only = place.open(Config::default().read_only(true));
            let foreign = reading_connection(&place);
            assert_eq!(count(&foreign), 50);
            delete(&place, suffixes);
            if close {
                assert_eq!(store.close().unwrap_err().kind(), ErrorKind::FileReplaced);
            }
            drop(store);
            drop((reader, read_only, foreign));
            assert_all_seen(&place, &marked);
        }
    }
}

#[test]
fn closing_tells_of_what_a_readers_snapshot_keeps_from_being_copied() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let mut marked = mark_all(&store, ids("early", 50));
    let foreign = reading_connection(&place);
    let snapshot = foreign.unchecked_transaction().unwrap();
    assert_eq!(count(&snapshot), 50);
    marked.extend(mark_all(&store, ids("after the snapshot", 50)));
    delete(&place, &["-wal"]);
    let error = store.close().unwrap_err();
    assert_told(&error, &place, "-wal");
    assert!(error.to_string().contains("lost"), "{error}");
    drop(snapshot);
    drop(foreign);
    let again = place.open(Config::default());
    assert!(marked.iter().any(|id| !again.is_seen(id)), "nothing was lost");
}

#[test]
fn a_store_that_was_moved_with_its_side_files_keeps_its_marks_at_the_new_place() {
    let place = Place::new();
    let store = place.open(Config::default());
    let mut marked = mark_all(&store, ids("early", 50));
    let elsewhere = place.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for name in ["seen.db", "seen.db-wal", "seen.db-shm"] {
        fs::rename(place.folder().join(name), elsewhere.join(name)).unwrap();
    }
    marked.extend(marked_until_told(&store, &place, ""));
    drop(store);
    let store = SeenStore::open(elsewhere.join("seen.db")).unwrap();
    assert!(marked.iter().all(|id| store.is_seen(id)));
    assert!(store.verify().unwrap().is_ok());
}

/// What legitimately happens to side files while a store is open.
#[test]
fn no_store_is_told_of_what_stores_do_themselves() {
    for (config, shared) in [
        (Config::default(), true),
        (Config::default().exclusive(true), false),
        (Config::default().journal_size_limit(0), true),
        (Config::default().wal_autocheckpoint(20), true),
    ] {
        let place = Place::new();
        let store = place.open(config.clone());
        let mut other = shared.then(|| Child::with_store(place.path()));
        let reading = shared.then(|| place.open(Config::default().read_only(true)));
        let since = Instant::now();
        let mut rounds = 0;
        while since.elapsed() < ms(350) {
            store.mark_seen(format!("id {rounds}")).unwrap();
            store.seed(ids(&format!("batch {rounds}"), 200)).unwrap();
            match rounds % 4 {
                0 => store.checkpoint().unwrap(),
                1 => store.compact().unwrap(),
                2 => drop(store.cleanup_old_entries(secs(3600)).unwrap()),
                _ => {}
            }
            if let Some(other) = &mut other {
                assert_eq!(other.ask(&format!("check id {rounds}")), "duplicate");
                assert_eq!(other.ask("compact"), "ok");
                assert_eq!(other.ask(&format!("mark other {rounds}")), "ok");
                assert!(Reader::open(place.path()).unwrap().try_is_seen("id 0").unwrap());
            }
            if let Some(reading) = &reading {
                assert!(reading.try_is_seen(format!("id {rounds}")).unwrap());
                assert!(reading.try_is_seen(format!("other {rounds}")).unwrap());
            }
            rounds += 1;
        }
        drop((reading, other));
        store.close().unwrap();
        assert_eq!(place.files(), ["seen.db"]);
    }
    let in_memory = SeenStore::in_memory().unwrap();
    let since = Instant::now();
    while since.elapsed() < ms(150) {
        in_memory.mark_seen("a").unwrap();
    }
    in_memory.close().unwrap();
}

/// Such as a backup, which has no log until a store opens it for writing.
#[test]
fn a_read_only_store_on_a_file_without_a_log_goes_on_when_another_store_begins_one() {
    let place = Place::new();
    let original = place.open(Config::default());
    original.mark_seen("a").unwrap();
    let copy = place.folder().join("copy.db");
    original.backup(&copy).unwrap();
    let reading = SeenStore::open_with(&copy, Config::default().read_only(true)).unwrap();
    let writing = SeenStore::open(&copy).unwrap();
    let since = Instant::now();
    while since.elapsed() < ms(250) {
        writing.mark_seen("b").unwrap();
        assert!(reading.try_is_seen("a").unwrap() && reading.try_is_seen("b").unwrap());
        assert!(!reading.try_is_seen("c").unwrap());
    }
}

/// Leaves what it writes in the log, as a crash does.
fn write_and_crash(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn a_reader_reads_by_the_log_that_stands_beside_the_file_now() {
    let place = Place::new();
    place.open(Config::default()).close().unwrap();
    write_and_crash(
        place.path(),
        "INSERT INTO seen (id, first_seen, last_seen) VALUES ('first', 1, 1)",
    );
    let reader = Reader::open(place.path()).unwrap();
    assert!(reader.get("first").unwrap().is_some());
    // The reader alone has the file open: another process takes the log in and begins one anew.
    delete(&place, &["-wal", "-shm"]);
    let mut other = Child::with_store(place.path());
    assert_eq!(other.ask("mark second"), "ok");
    assert!(reader.try_is_seen("second").unwrap());
    assert!(reader.get("first").unwrap().is_none(), "read from a log that was deleted");
}
