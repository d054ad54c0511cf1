//! Every way to open a store, at the same time, while one of them makes or upgrades it.
#![expect(clippy::disallowed_methods, reason = "how long an open takes is measured")]

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use seen_store::{Config, Error, ErrorKind, Reader, Result, SeenStore};

use crate::common::Place;

/// Opens in its own way, and closes again.
type Open = fn(&Place) -> Result<()>;

const FOR_WRITING: [Open; 4] = [
    |place| SeenStore::open(place.path()).map(drop),
    |place| SeenStore::open(place.path()).map(drop),
    |place| SeenStore::open(place.path()).map(drop),
    |place| with(place, Config::default().exclusive(true)),
];

/// These find no store yet if they come first.
const OF_A_STORE: [Open; 3] = [
    |place| with(place, Config::default().create(false)),
    |place| with(place, Config::default().read_only(true)),
    |place| Reader::open(place.path())?.stats(Duration::from_secs(60), 1).map(drop),
];

const NO_STORE_YET: [ErrorKind; 3] =
    [ErrorKind::NotFound, ErrorKind::NotADatabase, ErrorKind::NeedsUpgrade];

/// Returns whether the one in exclusive mode had the store for longer than others wait for such a one.
fn is_kept_out(error: &Error) -> bool {
    error.kind() == ErrorKind::Busy && error.to_string().contains("in exclusive mode")
}

fn with(place: &Place, config: Config) -> Result<()> {
    SeenStore::open_with(place.path(), config).map(drop)
}

/// What may be at the path before.
const BEFORE: [fn(&Place); 3] = [
    |_| {},
    |place| fs::write(place.path(), "").unwrap(),
    |place| {
        let legacy = "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)";
        Connection::open(place.path()).unwrap().execute_batch(legacy).unwrap();
    },
];

#[test]
fn those_that_open_a_store_at_the_same_time_are_not_in_each_others_way() {
    for make in BEFORE.iter().cycle().take(90) {
        let place = &Place::in_ram();
        make(place);
        let start = &Barrier::new(FOR_WRITING.len() + OF_A_STORE.len());
        thread::scope(|scope| {
            let opening = |open: Open| {
                scope.spawn(move || {
                    start.wait();
                    open(place)
                })
            };
            let (writing, reading) = (FOR_WRITING.map(opening), OF_A_STORE.map(opening));
            for opened in writing {
                if let Err(e) = opened.join().unwrap() {
                    assert!(is_kept_out(&e), "{e}");
                }
            }
            for opened in reading {
                if let Err(e) = opened.join().unwrap() {
                    assert!(is_kept_out(&e) || NO_STORE_YET.contains(&e.kind()), "{e}");
                }
            }
        });
    }
}

/// Each would keep a lock that the other one needs.
#[test]
fn of_two_that_open_a_store_in_exclusive_mode_at_the_same_time_one_is_told_so_at_once() {
    for make in BEFORE.iter().cycle().take(30) {
        let place = &Place::in_ram();
        make(place);
        let (start, opened) = (&Barrier::new(2), &Barrier::new(2));
        let open = || {
            start.wait();
            let begun = Instant::now();
            let store = SeenStore::open_with(place.path(), Config::default().exclusive(true));
            let took = begun.elapsed();
            opened.wait();
            (store.err().map(|e| e.kind()), took)
        };
        let (one, other) = thread::scope(|scope| {
            let (one, other) = (scope.spawn(open), scope.spawn(open));
            (one.join().unwrap(), other.join().unwrap())
        });
        let (mut kinds, longest) = ([one.0, other.0], one.1.max(other.1));
        kinds.sort_by_key(Option::is_some);
        assert_eq!(kinds, [None, Some(ErrorKind::Busy)]);
        assert!(longest < Duration::from_secs(10), "{longest:?}");
    }
}
