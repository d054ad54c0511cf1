//! Callers that share one transaction: what one of them meets is not the others' failure.

use std::sync::{Arc, Barrier};
use std::thread;

use rusqlite::Connection;
use seen_store::{Claim, Config, ErrorKind, SeenStore, Synchronous, Verdict};

use crate::common::{Place, secs};
use crate::support_group::{Call, Watch, as_one_group};

/// Puts a claim of the id into the file that no store can read: its error is no text.
fn poison(file: &Connection, id: &str) {
    file.execute(
        "INSERT INTO claims VALUES ('', ?1, x'', 2, 0, NULL, 1, 1, 1, 0, NULL, 0, CAST(x'ff' AS TEXT), NULL)",
        [id],
    )
    .unwrap();
}

#[test]
fn a_member_of_a_group_that_fails_leaves_the_others_their_own_answers() {
    for synchronous in [Synchronous::Normal, Synchronous::Full] {
        for place_of_the_poison in 0..3 {
            let place = Place::in_ram();
            let watch = Arc::new(Watch::default());
            let config = Config::default().clock(watch.clone()).purge_interval(None);
            let store = place.open(config.synchronous(synchronous));
            let file = place.sql();
            poison(&file, "poison");
            let mut ids = vec!["a", "b"];
            ids.insert(place_of_the_poison, "poison");
            let calls: Vec<Call<'_, _>> = ids
                .iter()
                .map(|id| -> Call<'_, _> {
                    let store = &store;
                    Box::new(move || store.check_and_mark(id))
                })
                .collect();
            let answers = as_one_group(file, &watch, calls, || {});
            for (id, answer) in ids.iter().zip(answers) {
                if *id == "poison" {
                    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Corrupt);
                } else {
                    assert_eq!(answer.unwrap(), Verdict::New);
                }
            }
            for id in ["a", "b"] {
                assert_eq!(store.check_and_mark(id).unwrap(), Verdict::Duplicate);
            }
            assert!(!store.is_seen("poison"));
        }
    }
}

#[test]
fn of_many_threads_and_stores_only_those_with_a_poisoned_id_fail() {
    const THREADS: usize = 12;
    const ROUNDS: usize = 60;
    let place = Place::in_ram();
    let stores = [0, 1].map(|_| place.open(Config::default()));
    poison(&place.sql(), "poison");
    let barrier = Barrier::new(THREADS);
    thread::scope(|threads| {
        for thread in 0..THREADS {
            let (store, barrier): (&SeenStore, _) = (&stores[usize::from(thread == 0)], &barrier);
            threads.spawn(move || {
                barrier.wait();
                for round in 0..ROUNDS {
                    let id = format!("{thread} {round}");
                    match thread % 4 {
                        1 => {
                            let error = store.mark_seen("poison").unwrap_err();
                            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                        }
                        2 => match store.claim(&id, secs(60)).unwrap() {
                            Claim::Granted(mut lease) => lease.confirm().unwrap(),
                            other => panic!("{other:?}"),
                        },
                        _ => assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New),
                    }
                }
            });
        }
    });
    for (thread, round) in (0..THREADS).flat_map(|thread| (0..ROUNDS).map(move |n| (thread, n))) {
        let seen = stores[0].is_seen(format!("{thread} {round}"));
        assert_eq!(seen, thread % 4 != 1, "{thread} {round}");
    }
}
