//! The contract of the bot that this crate grew from: its twelve concurrency tests and the three older
//! ones, as far as they are the library's. (`FEATURE_PERSIST_SEEN` is the bot's own switch.)

use std::collections::HashSet;
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use seen_store::{Config, ErrorKind, SeenStore, Synchronous, Ttl, Verdict};

use crate::common::{self, Place, marks, secs};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Runs `work(0..count)` on as many threads, all let go at the same moment.
fn at_once(count: usize, work: impl Fn(usize) + Sync) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
    let start = Barrier::new(count);
    pool.broadcast(|thread| {
        start.wait();
        work(thread.index());
    });
}

#[test]
fn a_hundred_threads_that_read_one_id_at_once_all_see_it() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("item").unwrap();
    at_once(100, |_| {
        assert!(store.is_seen("item"));
        assert!(!store.is_seen("another"));
    });
}

#[test]
fn a_hundred_threads_that_mark_distinct_ids_at_once_lose_none() {
    let place = Place::new();
    let store = place.open(Config::default());
    at_once(100, |thread| store.mark_seen(format!("item-{thread}")).unwrap());
    for thread in 0..100 {
        assert!(store.is_seen(format!("item-{thread}")));
    }
    assert_eq!(marks(&place.sql()).len(), 100);
}

#[test]
fn of_a_hundred_threads_that_check_one_id_at_once_exactly_one_is_told_new() {
    let place = Place::new();
    let store = place.open(Config::default());
    for round in 0..20 {
        let new = std::sync::atomic::AtomicUsize::new(0);
        at_once(100, |_| {
            if store.check_and_mark(format!("item-{round}")).unwrap() == Verdict::New {
                new.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        assert_eq!(new.into_inner(), 1);
    }
}

#[test]
fn the_write_ahead_log_is_really_on() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("item").unwrap();
    assert_eq!(store.pragmas().unwrap().journal_mode, "wal");
    // Also as another program sees the file.
    let mode: String =
        place.sql().pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    assert!(place.beside("-wal").exists());
}

#[test]
fn a_store_that_goes_out_of_scope_is_closed_and_keeps_its_marks() {
    let place = Place::new();
    {
        let store = place.open(Config::default());
        store.mark_seen("item").unwrap();
    }
    assert_eq!(place.files(), ["seen.db"]);
    assert!(place.open(Config::default()).is_seen("item"));
}

#[test]
fn a_cleanup_removes_the_old_and_keeps_the_recent() {
    let place = Place::new();
    let (clock, config) = common::clock_and_config();
    let store = place.open(config.ttl(Ttl::Never));
    store.mark_seen("old").unwrap();
    clock.advance(DAY * 31);
    store.mark_seen("recent").unwrap();
    assert_eq!(store.cleanup_old_entries(DAY * 30).unwrap(), 1);
    // Also from memory: the bot's cache went on answering "seen" here.
    assert!(!store.is_seen("old"));
    assert!(store.is_seen("recent"));
    drop(store);
    let store = place.open(Config::default());
    assert!(!store.is_seen("old"));
    assert!(store.is_seen("recent"));
}

#[test]
fn fifty_readers_and_fifty_writers_get_on_with_each_other() {
    let place = Place::new();
    let store = place.open(Config::default());
    at_once(100, |thread| {
        for op in 0..20 {
            if thread % 2 == 0 {
                store.mark_seen(format!("item-{thread}-{op}")).unwrap();
                assert!(store.is_seen(format!("item-{thread}-{op}")), "own mark not seen");
            } else {
                store.try_is_seen(format!("item-{}-{op}", thread - 1)).unwrap();
            }
        }
    });
    assert_eq!(marks(&place.sql()).len(), 50 * 20);
}

#[test]
fn the_settings_of_the_bot_are_in_force_by_default() {
    let place = Place::new();
    let pragmas = place.open(Config::default()).pragmas().unwrap();
    assert_eq!(pragmas.journal_mode, "wal");
    assert_eq!(pragmas.synchronous, 1);
    assert_eq!(pragmas.cache_size, 10_000);
    assert_eq!(pragmas.temp_store, 2);
    assert_eq!(pragmas.busy_timeout, secs(30));
    assert_eq!(pragmas.mmap_size, 0);
    assert_eq!(pragmas.page_size, 1024);
    assert_eq!(pragmas.application_id, 0x5345_454E);
    assert_eq!(pragmas.user_version, 1);
}

#[test]
fn settings_of_ones_own_are_in_force_too() {
    let place = Place::new();
    let config = Config::default()
        .synchronous(Synchronous::Full)
        .cache_size(-2_000)
        .busy_timeout(secs(3))
        .wal_autocheckpoint(77)
        .journal_size_limit(99_000)
        .exclusive(true);
    let pragmas = place.open(config).pragmas().unwrap();
    assert_eq!(pragmas.synchronous, 2);
    assert_eq!(pragmas.cache_size, -2_000);
    assert_eq!(pragmas.busy_timeout, secs(3));
    assert_eq!(pragmas.wal_autocheckpoint, 77);
    assert_eq!(pragmas.journal_size_limit, 99_000);
    assert_eq!(pragmas.locking_mode, "exclusive");
}

#[test]
fn on_an_error_is_seen_answers_false_and_is_counted_while_the_others_tell() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("item").unwrap();
    // An id that is none is an error of every verb.
    assert!(!store.is_seen(""));
    assert_eq!(store.try_is_seen("").unwrap_err().kind(), ErrorKind::InvalidId);
    assert_eq!(store.stats().unwrap().since_opened.failed_open, 1);
    assert_eq!(store.mark_seen("").unwrap_err().kind(), ErrorKind::InvalidId);
    store.close().unwrap();
    assert!(!store.is_seen("item"));
    assert_eq!(store.mark_seen("item").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.purge_expired().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.cleanup_old_entries(DAY).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn two_stores_on_one_file_see_each_others_marks_at_once() {
    let place = Place::new();
    let [one, other] = [0, 1].map(|_| place.open(Config::default()));
    for round in 0..100 {
        one.mark_seen(format!("one-{round}")).unwrap();
        assert!(other.is_seen(format!("one-{round}")));
        other.mark_seen(format!("other-{round}")).unwrap();
        assert!(one.is_seen(format!("other-{round}")));
        assert_eq!(one.check_and_mark(format!("other-{round}")).unwrap(), Verdict::Duplicate);
    }
}

#[test]
fn after_a_hundred_readers_and_a_hundred_writers_every_mark_is_there() {
    let place = Place::new();
    let store = place.open(Config::default());
    at_once(200, |thread| {
        for op in 0..50 {
            if thread % 2 == 0 {
                store.mark_seen(format!("item-{thread}-{op}")).unwrap();
            } else {
                store.try_is_seen(format!("item-{}-{op}", thread - 1)).unwrap();
            }
        }
    });
    let expected: HashSet<_> = (0..200)
        .step_by(2)
        .flat_map(|thread| (0..50).map(move |op| format!("item-{thread}-{op}")))
        .collect();
    assert!(expected.par_iter().all(|id| store.is_seen(id)));
    store.close().unwrap();
    let store = place.open(Config::default());
    assert!(expected.par_iter().all(|id| store.is_seen(id)));
    assert_eq!(store.stats().unwrap().seen, 5_000);
}

#[test]
fn many_threads_with_a_store_each_on_one_file_are_never_told_it_is_locked() {
    let place = Place::new();
    let new = std::sync::atomic::AtomicUsize::new(0);
    at_once(16, |_| {
        let store: SeenStore = place.open(Config::default());
        for id in 0..50 {
            if store.check_and_mark(format!("item-{id}")).unwrap() == Verdict::New {
                new.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    assert_eq!(new.into_inner(), 50);
    assert_eq!(marks(&place.sql()).len(), 50);
}

#[test]
fn what_was_marked_is_seen_and_nothing_else_also_after_a_restart() {
    let place = Place::new();
    let store = place.open(Config::default());
    assert!(!store.is_seen("item"));
    store.mark_seen("item").unwrap();
    assert!(store.is_seen("item"));
    assert!(!store.is_seen("another"));
    drop(store);
    let store = place.open(Config::default());
    assert!(store.is_seen("item"));
    assert!(!store.is_seen("another"));
}

#[test]
fn with_a_ttl_of_zero_an_old_mark_is_gone_after_a_purge() {
    let place = Place::new();
    let store = place.open(Config::default().ttl(Duration::ZERO));
    store.mark_seen_at("old", SystemTime::UNIX_EPOCH + DAY).unwrap();
    store.mark_seen_at("older", SystemTime::UNIX_EPOCH).unwrap();
    assert!(!store.is_seen("old"));
    store.purge_expired().unwrap();
    assert!(!store.is_seen("old"));
    assert_eq!(marks(&place.sql()).len(), 0);
}
