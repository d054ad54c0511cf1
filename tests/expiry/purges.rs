//! What a purge and a cleanup remove, and when one is due.
#![expect(clippy::disallowed_methods, reason = "one test waits for a thread, up to a deadline")]

use std::thread;
use std::time::{Duration, Instant};

use seen_store::{Clock, Config, Ttl};

use crate::common::{Place, clock_and_config, manual_store, marks, ms, rows, secs};

#[test]
fn an_entry_purged_by_a_store_whose_clock_is_ahead_is_answered_at_once_by_the_others() {
    let place = Place::new();
    // Two machines whose clocks are half a minute apart disagree about what has expired.
    let (clock, config) = clock_and_config();
    let (late_clock, late_config) = clock_and_config();
    let with = |config: Config| config.ttl(secs(60)).busy_timeout(ms(200));
    let ahead = place.open(with(config));
    ahead.seed(["a", "b"]).unwrap();
    clock.advance(secs(60));
    late_clock.advance(secs(30));
    let behind = place.open(with(late_config));
    assert!(behind.is_seen("a"));
    assert_eq!(ahead.purge_expired().unwrap(), 2);
    // Either answer is right; that another process holds the file is not.
    behind.get("a").unwrap();
    behind.mark_seen("a").unwrap();
    assert!(behind.is_seen("a"));
}

#[test]
fn a_purge_counts_what_it_removed_and_touches_nothing_that_lives() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.seed((0..2_500).map(|number| format!("old-{number}"))).unwrap();
    store.scope("other").mark_seen("old").unwrap();
    clock.advance(secs(30));
    store.seed((0..100).map(|number| format!("young-{number}"))).unwrap();
    store.ttl(Ttl::Never).mark_seen("eternal").unwrap();
    assert_eq!(store.purge_expired().unwrap(), 0);
    clock.advance(ms(29_999));
    assert_eq!(store.purge_expired().unwrap(), 0);
    clock.advance(ms(1));
    assert_eq!(store.purge_expired().unwrap(), 2_501);
    assert_eq!(store.purge_expired().unwrap(), 0);
    assert_eq!(marks(&place.sql()).len(), 101);
    assert!((0..100).all(|number| store.is_seen(format!("young-{number}"))));
    assert!(store.is_seen("eternal"));
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (101, 0));
}

#[test]
fn a_cleanup_goes_by_last_seen_and_by_scope() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(Ttl::Never));
    let other = store.scope("other");
    for store in [&store, &other] {
        store.mark_seen("old").unwrap();
        store.mark_seen("refreshed").unwrap();
    }
    clock.advance(secs(10));
    store.mark_seen("refreshed").unwrap();
    // Exactly as old as asked is not longer ago than asked.
    assert_eq!(store.cleanup_old_entries(secs(10)).unwrap(), 0);
    clock.advance(ms(1));
    assert_eq!(store.cleanup_old_entries(secs(10)).unwrap(), 1);
    assert!(!store.is_seen("old"));
    assert!(store.is_seen("refreshed"));
    assert!(other.is_seen("old"));
    assert_eq!(other.cleanup_old_entries(secs(10)).unwrap(), 2);
    assert_eq!(store.cleanup_old_entries(Duration::MAX).unwrap(), 0);
    assert_eq!(store.stats().unwrap().seen, 1);
}

#[test]
fn a_cleanup_is_noticed_by_another_store_at_its_next_look() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let [one, other] = [0, 1].map(|_| place.open(config.clone()));
    one.seed(["a", "b"]).unwrap();
    clock.advance(secs(10));
    one.mark_seen("c").unwrap();
    assert!(other.is_seen("a") && other.is_seen("c"));
    assert_eq!(one.cleanup_old_entries(secs(5)).unwrap(), 2);
    assert_eq!(other.get("a").unwrap(), None);
    assert!(!other.is_seen("b"));
    assert!(other.is_seen("c"));
    assert_eq!(other.stats().unwrap().since_opened.rebuilds, 0);
}

#[test]
fn no_number_of_a_row_is_ever_given_twice_whatever_is_removed() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    let other = place.open(Config::default().clock(clock.clone()));
    let file = place.sql();
    let newest = || rows(&file).last().map_or(0, |row| row.seq);
    let mut last = 0;
    for round in 0..4 {
        store.seed(["a", "b", "c"]).unwrap();
        assert!(newest() > last);
        last = newest();
        assert!(other.is_seen("c"));
        match round {
            0 => {
                clock.advance(ms(1));
                assert_eq!(store.cleanup_old_entries(Duration::ZERO).unwrap(), 3);
            }
            1 => {
                clock.advance(secs(60));
                store.purge_expired().unwrap();
            }
            2 => {
                for id in ["c", "b", "a"] {
                    assert!(store.forget(id).unwrap());
                }
                // Long enough for the tombstones to be purged too.
                clock.advance(secs(7_200));
                store.purge_expired().unwrap();
            }
            _ => {}
        }
        assert!(newest() >= last);
        last = newest();
        assert_eq!(store.stats().unwrap().seen, if round == 3 { 3 } else { 0 });
    }
    // A store that slept through all of it ends with the same answer.
    assert!(other.is_seen("a") && other.is_seen("c"));
    assert!(other.verify().unwrap().is_ok());
}

#[test]
fn a_purge_that_is_due_rides_on_commits_until_what_expired_is_gone_from_the_file() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)).purge_interval(secs(600)));
    store.seed((0..1_000).map(|number| format!("old-{number}"))).unwrap();
    let file = place.sql();
    clock.advance(ms(599_999));
    store.mark_seen("early").unwrap();
    assert_eq!(marks(&file).len(), 1_001);
    clock.advance(ms(1));
    store.mark_seen("first").unwrap();
    let after_one = marks(&file).len();
    assert!((500..1_000).contains(&after_one), "a step took {} rows", 1_002 - after_one);
    for number in 0..20 {
        store.mark_seen(format!("mark-{number}")).unwrap();
    }
    assert_eq!(marks(&file).len(), 22);
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (22, 0));
    assert_eq!(stats.last_purge_at, Some(clock.now()));
}

#[test]
fn without_a_purge_interval_only_a_purge_purges() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(60)).purge_interval(None).purge_on_open(false);
    let store = place.open(config.clone());
    store.seed(["a", "b"]).unwrap();
    clock.advance(secs(1_000_000));
    store.mark_seen("c").unwrap();
    drop(store);
    let store = place.open(config.clone());
    assert_eq!(marks(&place.sql()).len(), 3);
    drop(store);
    drop(place.open(config.purge_on_open(true)));
    assert_eq!(marks(&place.sql()).len(), 1);
}

#[test]
fn a_purge_thread_purges_while_nobody_writes_and_ends_with_the_store() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(60)).purge_interval(ms(5)).purge_thread(true);
    let store = place.open(config);
    store.seed((0..10).map(|number| format!("old-{number}"))).unwrap();
    store.ttl(Ttl::Never).mark_seen("eternal").unwrap();
    clock.advance(secs(60));
    let file = place.sql();
    let deadline = Instant::now() + secs(20);
    while marks(&file).len() > 1 {
        assert!(Instant::now() < deadline, "the thread has not purged");
        thread::yield_now();
    }
    assert!(store.is_seen("eternal"));
    drop(file);
    // The thread holds no handle: the store closes with its last one.
    drop(store);
    assert_eq!(place.files(), ["seen.db"], "the store was not closed");
}
