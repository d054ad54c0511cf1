//! A file that a newer program upgrades while it is open.

use std::time::Duration;

use seen_store::{Config, ErrorKind, Filter, Reader, SeenStore};

use crate::common::Place;

const NEWER: &str = "PRAGMA user_version = 2";

#[test]
fn a_newer_format_stops_open_stores_and_readers_at_their_next_look() {
    type Call = (&'static str, fn(&SeenStore) -> seen_store::Result<()>);
    let calls: [Call; 9] = [
        ("check_and_mark", |store| store.check_and_mark("new").map(drop)),
        ("a batch", |store| store.check_and_mark_all(["new", "more"]).map(drop)),
        ("mark_seen", |store| store.mark_seen("a")),
        ("claim", |store| store.claim("new", Duration::from_secs(1)).map(drop)),
        ("a miss", |store| store.try_is_seen("new").map(drop)),
        ("get", |store| store.get("a").map(drop)),
        ("entries", |store| store.entries(Filter::default()).try_for_each(|it| it.map(drop))),
        ("stats", |store| store.stats().map(drop)),
        ("purge_expired", |store| store.forget("a").map(drop)),
    ];
    // A newer program may change the tables too.
    for change in ["", "ALTER TABLE seen RENAME COLUMN digest TO version;"] {
        for (verb, call) in calls {
            let place = Place::in_ram();
            let store = place.open(Config::default());
            store.mark_seen("a").unwrap();
            let reader = Reader::open(place.path()).unwrap();
            let newer = place.sql();
            newer.execute_batch(&format!("BEGIN; {change} {NEWER}; COMMIT")).unwrap();
            let before: i64 =
                newer.query_row("SELECT max(seq) FROM seen", [], |r| r.get(0)).unwrap();
            for round in 0..2 {
                let error = call(&store).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NewerVersion, "{verb}, {round}: {error}");
                assert!(error.to_string().contains("update the program"), "{error}");
            }
            assert!(!store.is_seen("new"));
            let error = reader.get("a").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NewerVersion, "{error}");
            let after: i64 =
                newer.query_row("SELECT max(seq) FROM seen", [], |r| r.get(0)).unwrap();
            assert_eq!(before, after, "{verb} wrote");
            store.close().unwrap();
        }
    }
}

#[test]
fn a_hit_is_answered_from_memory_until_the_next_look() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    place.sql().execute_batch(NEWER).unwrap();
    std::thread::sleep(Duration::from_millis(110));
    assert_eq!(store.try_is_seen("a").unwrap_err().kind(), ErrorKind::NewerVersion);
}
