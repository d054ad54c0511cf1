//! How long the calls of one handle wait for other users of the file.
#![expect(clippy::disallowed_methods, reason = "the waits are what is measured")]

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use seen_store::{Claim, Config, Error, ErrorKind, Filter, SeenStore, Verdict};

use crate::common::Place;

const MINUTE: Duration = Duration::from_secs(60);

/// Calls a function while another program has the write lock.
fn while_locked<T>(place: &Place, act: impl FnOnce() -> T) -> T {
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = act();
    other.execute_batch("ROLLBACK").unwrap();
    answer
}

fn assert_busy<T>(what: &str, answer: Result<T, Error>) {
    assert_eq!(answer.err().map(|e| e.kind()), Some(ErrorKind::Busy), "{what}");
}

#[test]
fn a_handle_that_waits_for_nothing_fails_at_once_with_every_verb_that_writes() {
    let place = Place::in_ram();
    let store = place.open(Config::default().busy_timeout(10 * MINUTE));
    store.seed(["seen", "old"]).unwrap();
    let Claim::Granted(lease) = store.claim("claimed", MINUTE).unwrap() else { panic!() };
    let token = lease.into_token();
    let now = store.busy_timeout(Duration::ZERO);
    let began = Instant::now();
    while_locked(&place, || {
        assert_busy("mark", now.mark_seen("a"));
        assert_busy("check", now.check_and_mark("a"));
        assert_busy("batch", now.check_and_mark_all(["a", "b"]));
        assert_busy("seed", now.seed(["a"]));
        assert_busy("claim", now.claim("a", MINUTE));
        assert_busy("confirm", now.confirm("claimed", &token));
        assert_busy("forget", now.forget("seen"));
        assert_busy("cleanup", now.cleanup_old_entries(Duration::ZERO));
        assert_busy("remove", now.remove(Filter::default()));
        // What need not write need not wait.
        assert_eq!(now.check_and_mark("seen").unwrap(), Verdict::Duplicate);
        assert!(!now.try_is_seen("a").unwrap());
        // A derived handle keeps the timeout.
        assert_busy("derived", now.scope("other").ttl(MINUTE).mark_seen("a"));
    });
    assert!(began.elapsed() < MINUTE, "the handle waited as long as its store");
    assert_eq!(now.check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn the_error_names_the_time_that_the_handle_waited() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let brief = store.busy_timeout(Duration::from_millis(3));
    let error = while_locked(&place, || brief.mark_seen("a")).unwrap_err();
    assert!(error.to_string().contains("3ms"), "{error}");
}

#[test]
fn a_handle_waits_longer_than_its_store_and_another_one_fails_beside_it() {
    let place = Place::in_ram();
    let store: SeenStore = place.open(Config::default().busy_timeout(Duration::ZERO));
    let patient = store.busy_timeout(10 * MINUTE);
    let (done, ended) = mpsc::channel();
    thread::scope(|scope| {
        while_locked(&place, || {
            for id in ["a", "b"] {
                let (patient, done) = (patient.clone(), done.clone());
                scope.spawn(move || done.send(patient.check_and_mark(id)).unwrap());
            }
            for _ in 0..20 {
                assert_busy("the store's own handle", store.check_and_mark("c"));
                thread::yield_now();
            }
            assert!(ended.try_recv().is_err(), "the patient handle has waited for the lock");
        });
        for _ in 0..2 {
            assert_eq!(ended.recv_timeout(MINUTE).unwrap().unwrap(), Verdict::New);
        }
    });
    assert!(patient.is_seen("a") && patient.is_seen("b") && !patient.is_seen("c"));
}
