//! The store closes with its last handle, whatever that is and whatever its threads are doing.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::SystemTime;

use seen_store::{Claim, Clock, Config, Filter, ManualClock, SeenStore, Ttl, Verdict};

use crate::common::{self, Place, ms, secs};

/// How many marks are to be purged: some hundred steps.
const MARKS: usize = 100_000;

/// A manual clock that waits once for the test when the purge thread reads it.
struct WatchingClock {
    clock: ManualClock,
    armed: AtomicBool,
    purging: Barrier,
}

impl Clock for WatchingClock {
    fn now(&self) -> SystemTime {
        let reads_here = thread::current().name() == Some("seen-purge");
        if reads_here && self.armed.swap(false, SeqCst) {
            self.purging.wait();
        }
        self.clock.now()
    }
}

/// A store whose thread has just begun to purge [`MARKS`] expired marks.
fn purging_store(place: &Place) -> SeenStore {
    let clock = Arc::new(WatchingClock {
        clock: ManualClock::default(),
        armed: AtomicBool::new(false),
        purging: Barrier::new(2),
    });
    let config = Config::default()
        .clock(clock.clone())
        .ttl(secs(60))
        .purge_interval(ms(20))
        .purge_thread(true);
    let store = place.open(config);
    store.seed((0..MARKS).map(|n| format!("id-{n}"))).unwrap();
    clock.clock.advance(secs(60));
    clock.armed.store(true, SeqCst);
    clock.purging.wait();
    store
}

/// Opens the file in exclusive mode, which works only if no other connection is left.
fn assert_closed(place: &Place, what: &str) -> SeenStore {
    assert_eq!(place.files(), ["seen.db"], "{what} was dropped and left the store open");
    let exclusive = Config::default().exclusive(true).busy_timeout(ms(1)).purge_on_open(false);
    SeenStore::open_with(place.path(), exclusive)
        .unwrap_or_else(|e| panic!("{what} was dropped and left the store open: {e}"))
}

fn assert_the_purge_was_cut_short(store: &SeenStore, what: &str) {
    assert!(store.count_expired().unwrap() > 0, "{what}: the purge was over before");
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn a_store_that_its_thread_is_purging_closes_with_its_last_handle() {
    let place = Place::in_ram();
    let store = purging_store(&place);
    let clone = store.scope("another");
    drop(store);
    clone.mark_seen("a").unwrap();
    drop(clone);
    assert_the_purge_was_cut_short(&assert_closed(&place, "a store"), "a store");
}

#[test]
fn a_store_that_its_thread_is_purging_closes_when_it_is_told_to() {
    let place = Place::in_ram();
    let store = purging_store(&place);
    store.close().unwrap();
    assert_the_purge_was_cut_short(&assert_closed(&place, "nothing"), "nothing");
}

#[test]
fn a_lease_that_is_the_last_handle_is_released_and_closes_the_store() {
    let place = Place::in_ram();
    let store = purging_store(&place);
    let Claim::Granted(lease) = store.claim("claimed", secs(60)).unwrap() else { panic!() };
    drop(store);
    drop(lease);
    let store = assert_closed(&place, "a lease");
    assert_the_purge_was_cut_short(&store, "a lease");
    assert_eq!(store.stats().unwrap().in_flight, 0);
}

#[test]
fn a_listing_that_is_the_last_handle_closes_the_store() {
    let place = Place::in_ram();
    let store = purging_store(&place);
    store.mark_seen("a").unwrap();
    let mut listing = store.entries(Filter::default());
    drop(store);
    assert_eq!(listing.next().unwrap().unwrap().id, b"a");
    drop(listing);
    assert_the_purge_was_cut_short(&assert_closed(&place, "a listing"), "a listing");
}

#[test]
fn counts_of_duplicates_are_written_once_when_a_store_closes_while_it_is_purged() {
    let place = Place::in_ram();
    let store = purging_store(&place);
    let ids: Vec<String> = (0..2_000).map(|n| format!("duplicate-{n}")).collect();
    store.ttl(Ttl::Never).seed(&ids).unwrap();
    for id in &ids {
        assert_eq!(store.check_and_mark(id).unwrap(), Verdict::Duplicate);
    }
    thread::scope(|scope| {
        // Also written down by the thread, and by these.
        for _ in 0..2 {
            let purger = store.clone();
            scope.spawn(move || drop(purger.purge_expired()));
        }
        drop(store);
    });
    let store = assert_closed(&place, "a store");
    let counts: Vec<u64> = store
        .entries(Filter::default().prefix("duplicate-"))
        .map(|entry| entry.unwrap().duplicates)
        .collect();
    drop(store);
    let wrong = counts.iter().filter(|count| **count != 1).count();
    assert_eq!((counts.len(), wrong), (ids.len(), 0), "counted twice or not at all");
}

#[test]
fn threads_that_mark_together_and_drop_their_handles_leave_the_store_closed() {
    for round in 0..50 {
        let place = Place::in_ram();
        let store = place.open(Config::default());
        let begin = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (store, begin) = (store.clone(), &begin);
                scope.spawn(move || {
                    begin.wait();
                    for n in 0..5 {
                        store.mark_seen(format!("{thread}-{n}")).unwrap();
                    }
                    let lease = store.claim("claimed", secs(60)).unwrap();
                    drop(store);
                    drop(lease);
                });
            }
            drop(store);
        });
        let store = assert_closed(&place, &format!("round {round}: a store"));
        assert_eq!(store.stats().unwrap().seen, 20);
    }
}

#[test]
fn closing_waits_for_no_other_writer_and_lets_the_counts_go() {
    for by_drop in [false, true] {
        let place = Place::in_ram();
        let store = place.open(Config::default().busy_timeout(secs(60)));
        store.mark_seen("a").unwrap();
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
        let other = place.sql();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (say, heard) = mpsc::channel();
        thread::spawn(move || {
            if !by_drop {
                store.close().unwrap();
            }
            drop(store);
            say.send(()).unwrap();
        });
        heard.recv_timeout(secs(20)).expect("closing waits for the other writer");
        other.execute_batch("ROLLBACK").unwrap();
        drop(other);
        let store = place.open(Config::default());
        assert!(store.is_seen("a"));
    }
}

#[test]
fn a_store_in_memory_is_purged_by_its_thread_until_its_last_handle_is_dropped() {
    let (clock, config) = common::clock_and_config();
    let watched = Arc::downgrade(&clock);
    let config = config.ttl(secs(60)).purge_interval(ms(1)).purge_thread(true);
    let store = SeenStore::in_memory_with(config).unwrap();
    store.seed(["a", "b", "c"]).unwrap();
    clock.advance(secs(60));
    let (say, heard) = mpsc::channel();
    let asking = store.clone();
    thread::spawn(move || {
        while asking.count_expired().unwrap() > 0 {
            thread::yield_now();
        }
        drop(asking);
        say.send(()).unwrap();
    });
    heard.recv_timeout(secs(20)).expect("the thread does not purge");
    drop((store, clock));
    // The thread has ended, or is about to: it has let go of the clock, or will.
    while watched.strong_count() > 0 {
        thread::yield_now();
    }
}
