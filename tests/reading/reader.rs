//! `Reader` beside the store whose file it reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use seen_store::{Claim, Config, Entry, ErrorKind, Filter, Reader, SeenStore, State, Ttl};

use crate::common::{Place, clock_and_config, secs};
use crate::support_process::{self, Child};

#[test]
fn child() {
    if support_process::role().as_deref() == Some("puppet") {
        support_process::puppet();
    }
}

/// A store with ids in every state and in two scopes.
fn fill(store: &SeenStore) {
    for n in 0..1_500 {
        store.mark_seen(format!("id {n}")).unwrap();
    }
    for n in 0..1_500 {
        let scope = store.scope("feed");
        match n % 5 {
            0 => scope.mark_seen(format!("id {n}")).unwrap(),
            1 => scope.ttl(secs(1)).mark_seen(format!("id {n}")).unwrap(),
            2 => drop(store.forget(format!("id {n}")).unwrap()),
            3 => match scope.claim(format!("id {n}"), secs(60)).unwrap() {
                Claim::Granted(mut lease) if n % 2 == 0 => lease.fail("no").unwrap(),
                Claim::Granted(mut lease) if n % 3 == 0 => lease.confirm_with("receipt").unwrap(),
                Claim::Granted(lease) => drop(lease.into_token()),
                other => panic!("{other:?}"),
            },
            _ => {}
        }
    }
    store.mark_seen("id 0").unwrap();
    store.mark_seen(b"\xff\x00").unwrap();
}

fn sorted(entries: impl Iterator<Item = seen_store::Result<Entry>>) -> Vec<Entry> {
    let entries = entries.map(Result::unwrap);
    let by_id: BTreeMap<_, _> =
        entries.map(|entry| ((entry.scope.clone(), entry.id.clone()), entry)).collect();
    by_id.into_values().collect()
}

/// Checks that the reader answers as the store does.
fn assert_agrees(store: &SeenStore, reader: &Reader) {
    let mut ids: Vec<Vec<u8>> = (0..1_501).map(|n| format!("id {n}").into_bytes()).collect();
    ids.push(b"\xff\x00".to_vec());
    for scope in ["", "feed", "none"] {
        let handle = store.scope(scope);
        let read = reader.scope(scope).get_all(&ids).unwrap();
        assert_eq!(read.len(), ids.len());
        for (id, read) in ids.iter().zip(read) {
            let known = handle.get(id).unwrap();
            // What has expired is only told by the reader.
            let read = read.filter(|entry| known.is_some() || entry.state != State::Expired);
            assert_eq!(read, known, "{scope:?} {id:?}");
        }
        // Few ids are looked for in another way than many.
        for id in ["id 0", "id 1", "id 2", "id 3", "id 8", "id 1500", "none"] {
            assert_eq!(
                reader.scope(scope).try_is_seen(id).unwrap(),
                handle.try_is_seen(id).unwrap(),
                "{id}"
            );
        }
    }
    for filter in [
        Filter::default(),
        Filter::default().state(State::Seen),
        Filter::default().state(State::InFlight),
        Filter::default().state(State::Failed),
        Filter::default().state(State::Expired),
        Filter::default().scope("feed").prefix("id 1"),
    ] {
        let read = sorted(reader.entries(filter.clone()));
        assert!(read == sorted(store.entries(filter.clone())), "{filter:?}");
    }
    let stats = reader.stats(secs(3600), 4).unwrap();
    let (stats, total) = (store.stats().unwrap(), stats.total());
    assert_eq!(
        (total.seen, total.in_flight, total.failed),
        (stats.seen, stats.in_flight, stats.failed)
    );
    assert!(reader.verify().unwrap().is_ok());
}

#[test]
fn a_reader_answers_as_the_store_does() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    // Nothing is purged, so that the file holds what has expired.
    let config = config.purge_interval(None).purge_on_open(false);
    let store = place.open(config.clone());
    fill(&store);
    let reader = Reader::open_with(place.path(), config.clone()).unwrap();
    assert_agrees(&store, &reader); // From the log.
    clock.advance(secs(1));
    assert_agrees(&store, &reader);
    store.checkpoint().unwrap();
    assert_agrees(&store, &reader); // From the file.
    clock.advance(secs(60));
    assert_agrees(&store, &reader);
    store.close().unwrap();
    assert!(reader.try_is_seen("id 0").unwrap());
    let expired = reader.scope("feed").get("id 1").unwrap().unwrap();
    assert_eq!(expired.state, State::Expired);
    assert_eq!(reader.get("id 2").unwrap(), None);
    assert!(!reader.try_is_seen("id 2").unwrap(), "it was forgotten");
}

#[test]
fn a_reader_sees_what_was_acknowledged_before_it_was_asked() {
    let place = Place::new();
    drop(place.open(Config::default()));
    let reader = Reader::open(place.path()).unwrap();
    let (marked, rounds) = (AtomicU64::new(0), 300);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for n in 1..=rounds {
                // Each second one leaves its mark in the file, and the log empty or gone.
                let store = place.open(Config::default());
                store.mark_seen(format!("id {n}")).unwrap();
                if n % 2 == 0 {
                    store.close().unwrap();
                }
                marked.store(n, SeqCst);
            }
        });
        loop {
            let last = marked.load(SeqCst);
            let seen = last == 0 || reader.try_is_seen(format!("id {last}")).unwrap();
            assert!(seen, "id {last} was marked and is not seen");
            if last == rounds {
                break;
            }
        }
    });
}

#[test]
fn a_reader_notices_what_was_written_since_it_last_read() {
    let place = Place::new();
    drop(place.open(Config::default()));
    let reader = Reader::open(place.path()).unwrap();
    for n in 0..5 {
        let id = format!("id {n}");
        assert!(!reader.try_is_seen(&id).unwrap());
        let store = place.open(Config::default());
        store.mark_seen(&id).unwrap();
        assert!(reader.try_is_seen(&id).unwrap(), "it is in the log");
        store.close().unwrap();
        assert!(reader.try_is_seen(&id).unwrap(), "it is in the file");
    }
}

#[test]
fn a_claim_that_is_confirmed_during_a_listing_is_listed_once() {
    let place = Place::new();
    let store = place.open(Config::default());
    for id in ["a", "b"] {
        store.mark_seen(format!("mark {id}")).unwrap();
    }
    let Claim::Granted(mut lease) = store.claim("claimed", secs(60)).unwrap() else { panic!() };
    let reader = Reader::open(place.path()).unwrap();
    let mut listing = reader.entries(Filter::default());
    assert_eq!(listing.next().unwrap().unwrap().id, b"claimed");
    lease.confirm().unwrap();
    store.mark_seen("mark a").unwrap(); // Its row moves behind the listing's place, or has come before.
    let ids: Vec<_> = listing.map(|entry| entry.unwrap().id).collect();
    assert_eq!(ids, [b"mark b", b"mark a"]);
}

#[test]
fn a_reader_that_closes_leaves_the_locks_of_a_store_in_its_process() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    store.checkpoint().unwrap();
    drop(Reader::open(place.path()).unwrap());
    // The last process to close a store deletes its log, unless it sees the lock of another.
    let mut other = Child::with_store(place.path());
    assert_eq!(other.ask("mark b"), "ok");
    assert_eq!(other.ask("close"), "ok");
    assert_eq!(place.files().len(), 3, "the log of an open store was deleted");
    store.mark_seen("c").unwrap();
    assert!(Reader::open(place.path()).unwrap().try_is_seen("c").unwrap());
}

#[test]
fn a_census_counts_when_and_until_when() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let store = place.open(config.clone());
    store.ttl(Ttl::Never).mark_seen("first").unwrap();
    clock.advance(secs(3 * 3600));
    store.ttl(secs(3600)).mark_seen("an hour").unwrap();
    store.ttl(secs(3601)).mark_seen("longer").unwrap();
    store.ttl(secs(24 * 3600 + 1)).mark_seen("longest").unwrap();
    store.close().unwrap();
    let reader = Reader::open_with(place.path(), config.clone()).unwrap();
    let stats = reader.stats(secs(4 * 3600), 4).unwrap();
    assert_eq!(stats.marks, [1, 0, 0, 3]);
    assert_eq!((stats.expiring_within_hour, stats.expiring_within_day), (1, 2));
    let now = reader.now();
    assert_eq!((stats.oldest, stats.newest), (Some(now - secs(3 * 3600)), Some(now)));
    // Longer ago than was asked for.
    assert_eq!(reader.stats(secs(3600), 2).unwrap().marks, [0, 3]);
    assert_eq!(reader.stats(secs(1), 0).unwrap_err().kind(), ErrorKind::InvalidConfig);
    // As long as there has been a clock, and longer.
    let ages: u64 = reader.stats(Duration::MAX, 3).unwrap().marks.iter().sum();
    assert_eq!(ages, 4);
}

#[test]
fn the_estimate_of_an_index_is_near_what_it_takes() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    for n in [1_000_u32, 20_000, 50_000] {
        let _ = store.check_and_mark_all((0..n).map(u32::to_be_bytes)).unwrap();
        let estimated = Reader::open(place.path()).unwrap().stats(secs(1), 1).unwrap().index_bytes;
        let taken = store.stats().unwrap().memory_bytes;
        assert!((taken / 2..=taken * 2).contains(&estimated), "{estimated} for {taken}");
    }
}

#[test]
fn an_id_that_cannot_be_one_is_told() {
    let place = Place::new();
    drop(place.open(Config::default()));
    let reader = Reader::open(place.path()).unwrap();
    assert_eq!(reader.get("").unwrap_err().kind(), ErrorKind::InvalidId);
    assert_eq!(reader.get(vec![b'x'; 65_537]).unwrap_err().kind(), ErrorKind::InvalidId);
    assert!(reader.get_all([b""; 0]).unwrap().is_empty());
}

#[test]
fn a_path_with_anything_in_it_is_read() {
    let place = Place::new();
    let path = place.folder().join("50% ?mode=memory&x=#é.db");
    let store = SeenStore::open(&path).unwrap();
    store.mark_seen("a").unwrap();
    store.close().unwrap();
    assert!(Reader::open(&path).unwrap().try_is_seen("a").unwrap());
    assert_eq!(place.files().len(), 1);
}

/// A log without a `-shm` is read in exclusive mode: readers and whoever opens the store wait for each
/// other.
#[test]
fn readers_and_a_store_that_come_at_once_to_what_a_killed_exclusive_process_left_all_succeed() {
    for _ in 0..5 {
        let place = Place::new();
        let mut holder = Child::puppet();
        assert_eq!(holder.ask(&format!("open-exclusive {}", place.path().display())), "ok");
        for n in 0..300 {
            assert_eq!(holder.ask(&format!("mark id {n}")), "ok");
        }
        holder.kill();
        assert_eq!(place.files(), ["seen.db", "seen.db-wal"]);
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    start.wait();
                    let reader = Reader::open(place.path()).unwrap();
                    assert_eq!(reader.verify().unwrap().rows, 300);
                    assert_eq!(reader.entries(Filter::default()).count(), 300);
                });
            }
            start.wait();
            assert!(place.open(Config::default()).is_seen("id 299"));
        });
        assert!(place.open(Config::default()).verify().unwrap().is_ok());
    }
}
