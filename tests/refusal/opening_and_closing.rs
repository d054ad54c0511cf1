//! What opening creates, what closing leaves behind, and what reading must not do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use seen_store::{Config, ErrorKind, SeenStore, Verdict};

use crate::attempts::{contents, refused_with};
use crate::common::{Place, clock_and_config, manual_store, marks, ms, rows, secs};

#[test]
fn settings_that_make_no_sense_are_refused_before_a_file_is_made() {
    let place = Place::new();
    for config in [
        Config::default().cache_size(0),
        Config::default().purge_interval(Duration::ZERO),
        Config::default().exclusive(true).read_only(true),
    ] {
        let error = SeenStore::open_with(place.path(), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn parent_folders_are_created() {
    let place = Place::new();
    let path = place.folder().join("some/folders/deeper/seen.db");
    SeenStore::open(&path).unwrap().mark_seen("a").unwrap();
    assert!(SeenStore::open(&path).unwrap().is_seen("a"));
}

#[test]
fn an_empty_file_becomes_a_store() {
    let place = Place::new();
    fs::write(place.path(), "").unwrap();
    assert_eq!(place.open(Config::default()).check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn the_file_and_its_side_files_are_private_whatever_the_umask() {
    let place = Place::new();
    // The umask is the whole process's. Other tests may create files in these moments, which ask for
    // a mode of their own or do not care.
    // SAFETY: changes a number of the process, no memory.
    let umask = unsafe { libc::umask(0) };
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    // SAFETY: as above.
    unsafe { libc::umask(umask) };
    for suffix in ["", "-wal", "-shm"] {
        let mode = fs::metadata(place.beside(suffix)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "seen.db{suffix}");
    }
}

#[test]
fn the_log_and_the_shared_memory_are_gone_when_the_last_handle_closes() {
    let place = Place::new();
    let [one, other] = [0, 1].map(|_| place.open(Config::default()));
    one.mark_seen("a").unwrap();
    other.mark_seen("b").unwrap();
    one.close().unwrap();
    assert!(place.beside("-wal").exists(), "the other store still needs it");
    assert!(other.is_seen("a"));
    other.close().unwrap();
    assert_eq!(place.files(), ["seen.db"]);
    assert_eq!(marks(&place.sql()).len(), 2);
}

#[test]
fn dropping_the_last_handle_closes_and_dropping_another_does_not() {
    let place = Place::new();
    let store = place.open(Config::default());
    let (clone, scoped) = (store.clone(), store.scope("other"));
    store.mark_seen("a").unwrap();
    drop(store);
    drop(clone);
    assert_eq!(scoped.check_and_mark("a").unwrap(), Verdict::New);
    assert!(place.beside("-wal").exists());
    drop(scoped);
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn any_call_after_close_on_any_handle_is_told_that_it_is_closed() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let handles = [store.clone(), store.scope("other"), store.ttl(secs(1)), store.clone()];
    store.close().unwrap();
    for handle in handles {
        let outcomes = [
            handle.try_is_seen("a").map(drop),
            handle.mark_seen("a"),
            handle.mark_seen_at("a", SystemTime::UNIX_EPOCH),
            handle.check_and_mark("a").map(drop),
            handle.check_and_mark_all(["a"]).map(drop),
            handle.check_and_mark_all([""; 0]).map(drop),
            handle.seed(["a"]).map(drop),
            handle.forget("a").map(drop),
            handle.get("a").map(drop),
            handle.purge_expired().map(drop),
            handle.cleanup_old_entries(secs(1)).map(drop),
            handle.stats().map(drop),
            handle.pragmas().map(drop),
            handle.verify().map(drop),
            handle.backup(place.folder().join("copy")),
            handle.checkpoint(),
            handle.close(),
        ];
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.expect_err("a verb of a closed store");
            assert_eq!(error.kind(), ErrorKind::Closed, "verb {number}");
            assert!(error.to_string().contains("seen.db"));
        }
        assert!(!handle.is_seen("a"));
    }
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn a_read_only_store_creates_nothing() {
    let place = Place::new();
    let read_only = Config::default().read_only(true);
    let missing = place.folder().join("folder/seen.db");
    for path in [place.path(), &missing] {
        let error = SeenStore::open_with(path, read_only.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let message = error.to_string();
        assert!(message.contains(&*path.to_string_lossy()), "{message}");
    }
    assert_eq!(place.files(), [""; 0]);
    fs::write(place.path(), "").unwrap();
    refused_with(place.path(), read_only, ErrorKind::NotADatabase, "empty");
}

#[test]
fn the_last_store_leaves_no_side_file_though_it_is_read_only() {
    let place = Place::new();
    let read_only = || place.open(Config::default().read_only(true));
    place.open(Config::default()).mark_seen("a").unwrap();
    let before = contents(place.path());
    let (one, other) = (read_only(), read_only());
    assert!(one.is_seen("a") && other.is_seen("a"));
    one.close().unwrap();
    assert!(other.is_seen("a"));
    drop(other);
    assert_eq!(place.files(), ["seen.db"]);
    assert!(contents(place.path()) == before, "closing changed the file");
}

#[test]
fn a_read_only_store_leaves_a_log_with_content_alone() {
    let place = Place::new();
    drop(place.open(Config::default()));
    // As a crash leaves it.
    let crashed = place.sql();
    crashed.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    crashed.execute("INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)", []).unwrap();
    drop(crashed);
    let before = contents(place.path());
    assert!(before[1].is_some());
    let store = place.open(Config::default().read_only(true));
    assert!(store.is_seen("a"));
    drop(store);
    assert!(contents(place.path()) == before, "reading changed the file or its log");
}

#[test]
fn a_read_only_store_answers_and_neither_purges_nor_writes() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.seed(["a", "b", "c"]).unwrap();
    clock.advance(secs(30));
    store.mark_seen("young").unwrap();
    drop(store);
    clock.advance(secs(30));
    let before = contents(place.path());
    let (_, config) = clock_and_config();
    let config = config.read_only(true).purge_on_open(true).purge_interval(ms(1)).clock(clock);
    let store = place.open(config);
    assert!(store.is_seen("young"));
    assert!(!store.is_seen("a"));
    assert_eq!(store.get("a").unwrap(), None);
    let writes = [
        store.mark_seen("d"),
        store.mark_seen_at("d", SystemTime::UNIX_EPOCH),
        store.check_and_mark("d").map(drop),
        store.check_and_mark_all(["d"]).map(drop),
        store.seed(["d"]).map(drop),
        store.forget("young").map(drop),
        store.purge_expired().map(drop),
        store.cleanup_old_entries(secs(1)).map(drop),
        store.checkpoint(),
    ];
    for (number, outcome) in writes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ReadOnly, "write {number}");
    }
    // Known from memory, so nothing is written.
    assert_eq!(store.check_and_mark("young").unwrap(), Verdict::Duplicate);
    assert!(store.verify().unwrap().is_ok());
    assert_eq!(rows(&place.sql()).len(), 4);
    store.close().unwrap();
    assert!(contents(place.path())[0] == before[0], "reading changed the file");
}

#[test]
fn a_read_only_store_sees_what_others_mark() {
    let place = Place::new();
    let writer = place.open(Config::default());
    let reader = place.open(Config::default().read_only(true));
    assert!(!reader.is_seen("a"));
    writer.mark_seen("a").unwrap();
    assert!(reader.is_seen("a"));
}
