//! Every way to open a store, at the same time, while one of them makes or upgrades it.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use seen_store::{Config, ErrorKind, Reader, Result, SeenStore};

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

fn with(place: &Place, config: Config) -> Result<()> {
    SeenStore::open_with(place.path(), config).map(drop)
}

#[test]
fn those_that_open_a_store_at_the_same_time_are_not_in_each_others_way() {
    let makes: [fn(&Place); 3] = [
        |_| {},
        |place| fs::write(place.path(), "").unwrap(),
        |place| {
            let legacy = "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)";
            Connection::open(place.path()).unwrap().execute_batch(legacy).unwrap();
        },
    ];
    for make in makes.iter().cycle().take(90) {
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
                opened.join().unwrap().unwrap();
            }
            for opened in reading {
                if let Err(e) = opened.join().unwrap() {
                    assert!(NO_STORE_YET.contains(&e.kind()), "{e}");
                }
            }
        });
    }
}
