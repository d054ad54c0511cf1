//! Many threads on few ids, through one store and through two: each id is handled once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use seen_store::{Claim, Item, Store, Verdict};

use crate::Place;
use crate::bench::{Bench, LONG, claimed};

const THREADS: usize = 8;
const IDS: usize = 200;

/// How often something happened to each id.
type Counts = Vec<AtomicU32>;

fn names() -> Vec<String> {
    (0..IDS).map(|n| format!("incident {n}")).collect()
}

fn assert_once_each(counts: &Counts, what: &str) {
    let counts: Vec<u32> = counts.iter().map(|count| count.load(SeqCst)).collect();
    assert!(counts.iter().all(|count| *count == 1), "{what}: {counts:?}");
}

/// Lets all threads do the same at once: each is given a store, the ids in an order of its own, and counts what happens.
fn race(
    stores: &[&dyn Store],
    work: impl Fn(&dyn Store, &[(usize, String)], &Counts) + Sync,
) -> Counts {
    let counts: Counts = (0..IDS).map(|_| AtomicU32::new(0)).collect();
    let start = Barrier::new(THREADS);
    thread::scope(|threads| {
        for number in 0..THREADS {
            let (counts, start, work) = (&counts, &start, &work);
            let store = stores[number % stores.len()];
            threads.spawn(move || {
                let mut ids: Vec<_> = names().into_iter().enumerate().collect();
                // Half of them meet at each id, the others come from elsewhere.
                if number >= THREADS / 2 {
                    ids.rotate_left(number * IDS / THREADS);
                }
                start.wait();
                work(store, &ids, counts);
            });
        }
    });
    counts
}

fn one_check_is_new(stores: &[&dyn Store], what: &str) {
    let counts = race(stores, |store, ids, counts| {
        for (n, id) in ids {
            match store.check_and_mark(id.into()).unwrap() {
                Verdict::New => drop(counts[*n].fetch_add(1, SeqCst)),
                Verdict::Duplicate => assert!(store.is_seen(id.into()), "{id}"),
                other => panic!("{other:?}"),
            }
        }
    });
    assert_once_each(&counts, what);
}

pub(crate) fn of_many_checks_of_an_id_one_is_new_in_each_window(place: &dyn Place) {
    let window = 40;
    let bench = Bench::with(place, |config| config.ttl(place.unit() * window));
    let (store, again) = (bench.store(), bench.again());
    one_check_is_new(&[store], "one store");
    bench.passes(window);
    one_check_is_new(&[store, &*again], "two stores");
    bench.passes(window);
    one_check_is_new(&[store, &*again], "the window after");
}

pub(crate) fn of_many_batches_one_has_each_id_as_new(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let counts = race(&[store, &*again], |store, ids, counts| {
        for some in ids.chunks(17) {
            let items: Vec<Item<'_>> = some.iter().map(|(_, id)| id.into()).collect();
            let verdicts = store.check_and_mark_all(&items).unwrap();
            for ((n, _), verdict) in some.iter().zip(verdicts) {
                if verdict == Verdict::New {
                    counts[*n].fetch_add(1, SeqCst);
                }
            }
        }
    });
    assert_once_each(&counts, "batches");
}

pub(crate) fn of_many_checks_of_a_version_one_has_changed(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    for (version, expected) in [("1", Verdict::New), ("2", Verdict::Changed)] {
        let counts = race(&[store, &*again], |store, ids, counts| {
            for (n, id) in ids {
                let verdict = store.check_and_mark(Item::new(id).version(version)).unwrap();
                if verdict == expected {
                    counts[*n].fetch_add(1, SeqCst);
                } else {
                    assert_eq!(verdict, Verdict::Duplicate);
                }
            }
        });
        assert_once_each(&counts, version);
    }
}

pub(crate) fn an_id_is_granted_to_one_of_many_workers(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let long = place.unit() * LONG;
    let counts = race(&[store, &*again], |store, ids, counts| {
        for (n, id) in ids {
            match store.claim(id.into(), long).unwrap() {
                Claim::Granted(mut lease) => {
                    assert_eq!(lease.attempt(), 1);
                    counts[*n].fetch_add(1, SeqCst);
                    lease.confirm_with(id).unwrap();
                }
                Claim::InFlight { .. } => {}
                Claim::Seen(known) => {
                    assert_eq!(known.receipt().unwrap().as_deref(), Some(id.as_bytes()));
                }
                other => panic!("{other:?}"),
            }
        }
    });
    assert_once_each(&counts, "claims");
}

pub(crate) fn each_kind_of_caller_leaves_an_id_to_the_first(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let long = place.unit() * LONG;
    let turn = AtomicU32::new(0);
    let counts = race(&[store, &*again], |store, ids, counts| {
        let kind = turn.fetch_add(1, SeqCst) % 4;
        for (n, id) in ids {
            let is_first = match kind {
                0 => store.check_and_mark(id.into()).unwrap() == Verdict::New,
                1 => store.seed(&[id.into()]).unwrap() == 1,
                2 => store.observe(id.into()).unwrap().verdict == Verdict::New,
                // A claim that is confirmed, unless a seed has been quicker.
                _ => match store.claim(id.into(), long).unwrap() {
                    Claim::Granted(lease) => {
                        lease.into_token();
                        false
                    }
                    _ => false,
                },
            };
            counts[*n].fetch_add(u32::from(is_first), SeqCst);
        }
    });
    for (n, id) in names().iter().enumerate() {
        // An id that is only claimed is left to its worker.
        let count = counts[n].load(SeqCst);
        assert_eq!(count, u32::from(store.is_seen(id.into())), "{id}");
    }
}

pub(crate) fn workers_that_wait_never_hold_an_id_together(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let (long, waits) = (place.unit() * LONG, Duration::from_secs(60));
    let held: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
    let turns = AtomicU32::new(0);
    thread::scope(|threads| {
        for number in 0..6 {
            let (held, turns) = (&held, &turns);
            let store = if number % 2 == 0 { store } else { &*again };
            threads.spawn(move || {
                let store = store.waiting(waits);
                for turn in 0..6 {
                    let n = (turn + number) % held.len();
                    let mut lease = claimed(&*store, format!("job {n}"), long);
                    assert_eq!(held[n].fetch_add(1, SeqCst), 0, "two workers hold one id");
                    thread::sleep(Duration::from_millis(1));
                    turns.fetch_add(1, SeqCst);
                    held[n].fetch_sub(1, SeqCst);
                    lease.fail("for the next").unwrap();
                }
            });
        }
    });
    assert_eq!(turns.load(SeqCst), 36);
}
