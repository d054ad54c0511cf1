//! What a store says of itself: counts of duplicates, statistics, and what a check of the file finds.

use rusqlite::Connection;
use seen_store::{Clock, Config, SeenStore, Verdict};

use crate::common::{Place, clock_and_config, manual_store, rows, secs};

#[test]
fn an_entry_counts_the_duplicates_that_were_turned_away_also_across_a_restart() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.mark_seen("a").unwrap();
    let duplicates = |store: &SeenStore| store.get("a").unwrap().unwrap().duplicates;
    assert_eq!(duplicates(&store), 0);
    for _ in 0..3 {
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    }
    assert_eq!(store.check_and_mark_all(["a", "a"]).unwrap(), [Verdict::Duplicate; 2]);
    assert_eq!(duplicates(&store), 5);
    // Neither a look nor a mark is a duplicate turned away; a refresh keeps the count.
    assert!(store.is_seen("a"));
    store.mark_seen("a").unwrap();
    assert_eq!(duplicates(&store), 5);
    drop(store);
    let config = Config::default().ttl(secs(60)).clock(clock.clone());
    let store = place.open(config.clone());
    assert_eq!(duplicates(&store), 5);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    store.purge_expired().unwrap();
    assert_eq!(duplicates(&store), 6);
    assert_eq!(rows(&place.sql()).last().unwrap().duplicates, 6);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    store.close().unwrap();
    assert_eq!(rows(&place.sql()).last().unwrap().duplicates, 7);
    // What expired and came back begins at nought.
    let store = place.open(config);
    clock.advance(secs(60));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(duplicates(&store), 0);
}

#[test]
fn stats_count_what_is_seen_and_what_has_only_expired() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)).purge_interval(None));
    assert_eq!(store.stats().unwrap().seen, 0);
    assert_eq!(store.stats().unwrap().last_purge_at, None);
    store.seed(["a", "b"]).unwrap();
    clock.advance(secs(60));
    store.scope("other").mark_seen("c").unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (1, 2));
    assert!(stats.wal_bytes > 0);
    assert!(stats.memory_bytes > 0);
    assert_eq!(stats.since_opened.failed_open, 0);
    store.checkpoint().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(stats.wal_bytes, 0);
    assert!(stats.file_bytes >= 1024);
    store.purge_expired().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (1, 0));
    assert_eq!(stats.last_purge_at, Some(clock.now()));
}

/// A store of five ids that has looked, and a plain connection to its file.
fn store_to_tamper_with(place: &Place) -> (SeenStore, Connection) {
    let store = place.open(Config::default());
    store.seed(["a", "b", "c", "d", "e"]).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!(report.rows, 5);
    (store, place.sql())
}

#[test]
fn verify_reports_a_row_that_vanished_behind_the_stores_back() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    file.execute("DELETE FROM seen WHERE id = 'b'", []).unwrap();
    let report = store.verify().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("row 2")), "{report:?}");
}

#[test]
fn verify_reports_a_row_that_was_slipped_in_behind_the_stores_back() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    store.forget("b").unwrap();
    file.execute("INSERT INTO seen (seq, id, first_seen, last_seen) VALUES (2, 'bogus', 1, 1)", [])
        .unwrap();
    let report = store.verify().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("row 2")), "{report:?}");
}

#[test]
fn verify_reports_an_expiry_that_was_changed_behind_the_stores_back() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    file.execute("UPDATE seen SET expires_at = expires_at + 1000 WHERE id = 'b'", []).unwrap();
    let report = store.verify().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("row 2")), "{report:?}");
}

#[test]
fn a_file_whose_history_went_back_is_read_anew() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    // As a restore in place does: the newest row is gone without a trace.
    file.execute("DELETE FROM seen WHERE id IN ('d', 'e')", []).unwrap();
    assert_eq!(store.get("e").unwrap(), None);
    assert!(!store.is_seen("d"));
    assert!(store.is_seen("a"));
    assert_eq!(store.check_and_mark("e").unwrap(), Verdict::New);
    assert!(store.verify().unwrap().is_ok());
}
