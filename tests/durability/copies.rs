//! Backups, and a file that was moved or replaced while it was open.
#![expect(clippy::disallowed_methods, reason = "one test waits up to a deadline")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use rusqlite::Connection;
use seen_store::{Config, ErrorKind, SeenStore};

use crate::common::{Place, marks, secs};

#[test]
fn a_backup_taken_while_threads_write_is_a_store_as_of_one_moment() {
    let place = Place::new();
    let store = place.open(Config::default());
    let copies: Vec<_> =
        (0..5).map(|number| place.folder().join(format!("copy-{number}"))).collect();
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        for writer in 0..4 {
            let (store, done) = (&store, &done);
            threads.spawn(move || {
                for number in 0.. {
                    if done.load(Relaxed) {
                        break;
                    }
                    // Marked in one commit, so a copy holds both or neither.
                    let pair = ["x", "y"].map(|half| format!("{writer}-{number}-{half}"));
                    assert_eq!(store.seed(pair).unwrap(), 2);
                }
            });
        }
        store.mark_seen("before").unwrap();
        for copy in &copies {
            store.mark_seen(format!("{}", copy.display())).unwrap();
            store.backup(copy).unwrap();
        }
        done.store(true, Relaxed);
    });
    let at_the_end = store.stats().unwrap().seen;
    let mut size_before = 0;
    for copy in &copies {
        let opened = SeenStore::open(copy).unwrap();
        assert!(opened.is_seen("before"));
        // What was acknowledged before the backup began is in it.
        assert!(opened.is_seen(format!("{}", copy.display())));
        assert!(opened.verify().unwrap().is_ok());
        let seen = opened.stats().unwrap().seen;
        assert!((size_before..=at_the_end).contains(&seen));
        size_before = seen;
        opened.close().unwrap();
        let rows = marks(&Connection::open(copy).unwrap());
        for writer in 0..4 {
            // Each writer's pairs without a hole: whole commits, in their order.
            let prefix = format!("{writer}-");
            let its: Vec<_> = rows
                .iter()
                .filter_map(|row| match &row.id {
                    rusqlite::types::Value::Text(id) => id.strip_prefix(&prefix),
                    _ => None,
                })
                .collect();
            let expected: Vec<_> = (0..its.len() / 2)
                .flat_map(|number| ["x", "y"].map(|half| format!("{number}-{half}")))
                .collect();
            assert_eq!(its, expected);
        }
    }
}

#[test]
fn a_backup_overwrites_nothing_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let copy = place.folder().join("copy");
    std::fs::write(&copy, "precious").unwrap();
    let error = store.backup(&copy).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("copy"));
    assert_eq!(std::fs::read(&copy).unwrap(), b"precious");
    assert_eq!(store.backup(place.path()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let copy = place.folder().join("another");
    store.backup(&copy).unwrap();
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(place.files().iter().all(|name| !name.starts_with("another-")));
}

#[test]
fn an_exclusive_store_and_one_in_memory_can_be_backed_up_too() {
    let place = Place::new();
    for (name, store) in [
        ("exclusive", place.open(Config::default().exclusive(true))),
        ("memory", SeenStore::in_memory().unwrap()),
    ] {
        store.mark_seen("a").unwrap();
        let copy = place.folder().join(name);
        store.backup(&copy).unwrap();
        assert!(store.verify().unwrap().is_ok());
        assert!(SeenStore::open(&copy).unwrap().is_seen("a"));
    }
}

#[test]
fn a_file_that_was_moved_or_replaced_is_told_and_not_written_to() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let moved = place.folder().join("moved.db");
    std::fs::rename(place.path(), &moved).unwrap();
    let kind = wait_for_an_error(&store);
    assert_eq!(kind, ErrorKind::FileReplaced);
    assert!(!place.path().exists(), "a moved store was created anew");
    std::fs::write(place.path(), "somebody else's").unwrap();
    assert_eq!(store.mark_seen("c").unwrap_err().kind(), ErrorKind::FileReplaced);
    assert_eq!(std::fs::read(place.path()).unwrap(), b"somebody else's");
}

/// Marks until it fails: that the file is gone is noticed within 100 ms.
fn wait_for_an_error(store: &SeenStore) -> ErrorKind {
    let deadline = Instant::now() + secs(5);
    loop {
        if let Err(e) = store.mark_seen("b") {
            return e.kind();
        }
        assert!(Instant::now() < deadline, "marks go on into a file that is not there");
        thread::yield_now();
    }
}
