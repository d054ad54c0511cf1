//! Whether a store is made where there is none, and whether it tells that it was.

use std::fs;
use std::sync::Barrier;
use std::thread;

use rusqlite::Connection;
use seen_store::{Config, ErrorKind, SeenStore};

use crate::common::Place;
use crate::support_process::{self, Child, say, variable};

#[test]
fn child() {
    if support_process::role().as_deref() == Some("open") {
        support_process::lines().next();
        let store = SeenStore::open(variable("STORE")).unwrap();
        say(format!("{}", store.was_created()));
    }
}

#[test]
fn a_store_tells_whether_this_open_made_it() {
    let place = Place::new();
    let store = place.open(Config::default());
    assert!(store.was_created() && store.scope("other").was_created());
    let second = place.open(Config::default());
    assert!(!second.was_created());
    drop((store, second));
    for config in [
        Config::default(),
        Config::default().exclusive(true),
        Config::default().read_only(true),
        Config::default().create(false),
    ] {
        assert!(!place.open(config).was_created());
    }
    assert!(SeenStore::in_memory().unwrap().was_created());
}

#[test]
fn an_empty_file_is_made_a_store_and_an_upgraded_one_was_there_before() {
    let place = Place::new();
    fs::write(place.path(), "").unwrap();
    assert!(place.open(Config::default()).was_created());
    let old = place.folder().join("old.db");
    let seed = "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)";
    Connection::open(&old).unwrap().execute_batch(seed).unwrap();
    let store = SeenStore::open_with(&old, Config::default().create(false)).unwrap();
    assert!(!store.was_created() && store.upgrade_report().unwrap().is_some());
}

#[test]
fn of_stores_that_are_opened_at_the_same_time_one_tells_that_it_was_created() {
    for _ in 0..20 {
        let place = Place::in_ram();
        let (start, opened) = (Barrier::new(6), Barrier::new(6));
        let open = || {
            start.wait();
            let store = SeenStore::open(place.path());
            opened.wait();
            store.unwrap().was_created()
        };
        let told: Vec<bool> = thread::scope(|scope| {
            let all: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(told.iter().filter(|created| **created).count(), 1, "{told:?}");
    }
}

#[test]
fn of_processes_that_open_a_store_at_the_same_time_one_is_told_that_it_was_created() {
    let place = Place::new();
    let path = place.path().to_str().unwrap();
    let mut children: Vec<_> = (0..6).map(|_| Child::spawn("open", &[("STORE", path)])).collect();
    for child in &mut children {
        child.tell("now");
    }
    let told: Vec<_> = children.iter_mut().map(|child| child.hear().unwrap()).collect();
    assert_eq!(told.iter().filter(|created| *created == "true").count(), 1, "{told:?}");
}

#[test]
fn a_store_that_is_not_to_be_made_is_missed_and_neither_file_nor_folder_is_made() {
    let place = Place::new();
    let missing = place.folder().join("mnt/data/seen.db");
    for config in [Config::default().create(false), Config::default().create(false).exclusive(true)]
    {
        for path in [place.path(), &missing] {
            let error = SeenStore::open_with(path, config.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            let message = error.to_string();
            assert!(message.contains(&*path.to_string_lossy()), "{message}");
        }
        assert_eq!(place.files(), [""; 0]);
        fs::write(place.path(), "").unwrap();
        let error = SeenStore::open_with(place.path(), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADatabase, "{error}");
        assert_eq!(fs::metadata(place.path()).unwrap().len(), 0);
        fs::remove_file(place.path()).unwrap();
    }
}
