//! Several stores at the same time, in threads and in processes that are killed, while runs are written, merged and thrown
//! away all the time.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use seen_store::{Filter, IndexMode, Reader, State, Verdict};

use crate::common::{clock_and_config, secs};
use crate::support_process::{Child, role, say};
use crate::{asleep, id, place};

const MODES: [IndexMode; 3] = [IndexMode::Asleep, IndexMode::Wakes, IndexMode::Awake];

#[test]
fn of_all_stores_that_mark_an_id_one_gets_new() {
    for round in 0..4 {
        let place = place();
        let (_, config) = clock_and_config();
        let config = config.ttl(secs(600));
        let is_over = AtomicBool::new(false);
        let news: Vec<AtomicUsize> = (0..600).map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|threads| {
            if round % 2 == 1 {
                let (place, is_over) = (&place, &is_over);
                threads.spawn(move || {
                    let sql = place.sql();
                    sql.busy_timeout(secs(10)).unwrap();
                    while !is_over.load(SeqCst) {
                        for damage in [
                            "DELETE FROM blocks",
                            "UPDATE blocks SET entries = zeroblob(length(entries))",
                            "BEGIN IMMEDIATE; DELETE FROM runs; DELETE FROM blocks; DELETE FROM counts; COMMIT",
                        ] {
                            // Without its tables it may not be there yet.
                            let _ = sql.execute_batch(damage);
                            thread::sleep(std::time::Duration::from_millis(20));
                        }
                    }
                });
            }
            let workers: Vec<_> = (0..4_usize)
                .map(|n| {
                    let (place, config, news) = (&place, config.clone(), &news);
                    threads.spawn(move || {
                        let mut store = place.open(config.clone().index(MODES[n % 3]));
                        for k in 0..600 {
                            if k % 60 == 7 * n {
                                store = place.open(config.clone().index(MODES[(n + k) % 3]));
                            }
                            if k % 50 < 10 {
                                let verdicts = store.check_and_mark_all([id(k)]).unwrap();
                                if verdicts[0] == Verdict::New {
                                    news[k].fetch_add(1, SeqCst);
                                }
                            } else if store.check_and_mark(id(k)).unwrap() == Verdict::New {
                                news[k].fetch_add(1, SeqCst);
                            }
                            let back = k.saturating_sub(37 * n);
                            assert!(store.try_is_seen(id(back)).unwrap(), "{back} is lost");
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            is_over.store(true, SeqCst);
            for one in ended {
                one.unwrap();
            }
        });
        let wrong: Vec<_> = (0..600)
            .filter(|k| news[*k].load(SeqCst) != 1)
            .map(|k| (k, news[k].load(SeqCst)))
            .collect();
        assert!(wrong.is_empty(), "round {round}: {wrong:?}");
    }
}

#[test]
fn a_listing_asleep_has_each_entry_once_while_other_stores_move_them() {
    let place = place();
    let (_, config) = clock_and_config();
    let config = config.ttl(secs(600));
    place.open(config.clone()).seed((0..400).map(id)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        for mode in &MODES[..2] {
            let (place, config, is_over) = (&place, config.clone(), &is_over);
            threads.spawn(move || {
                let store = place.open(config.index(*mode));
                let mut k = 0;
                while !is_over.load(SeqCst) {
                    store.mark_seen(id(k % 400)).unwrap();
                    let other = format!("other-{}", k % 50);
                    store.mark_seen(&other).unwrap();
                    store.forget(&other).unwrap();
                    k += 7;
                    // With tiny sizes and no pause, runs are written faster than merged.
                    thread::sleep(std::time::Duration::from_micros(300));
                }
            });
        }
        let store = place.open(asleep(config.clone()));
        let wakes = place.open(config.clone());
        for round in 0..6 {
            let store = if round % 2 == 0 { &store } else { &wakes };
            let mut listed = HashSet::new();
            for entry in store.entries(Filter::default().state(State::Seen)) {
                let text = String::from_utf8(entry.unwrap().id).unwrap();
                assert!(listed.insert(text.clone()), "{text} twice");
            }
            let missing: Vec<_> = (0..400).filter(|n| !listed.contains(&id(*n))).collect();
            if !missing.is_empty() {
                is_over.store(true, SeqCst);
            }
            assert!(missing.is_empty(), "{missing:?} not listed");
        }
        is_over.store(true, SeqCst);
    });
}

/// Marks and forgets, and says so each time.
#[test]
fn child() {
    let Some(path) = role().map(|_| std::env::var("STORE").unwrap()) else { return };
    crate::small_sizes();
    let from: usize = std::env::var("FROM").unwrap().parse().unwrap();
    let mode = MODES[from / 1_000 % 3];
    let (_, config) = clock_and_config();
    let store = seen_store::SeenStore::open_with(path, config.ttl(secs(600)).index(mode)).unwrap();
    for n in from..from + 1_000 {
        store.mark_seen(id(n)).unwrap();
        say(format!("marked {n}"));
        if n % 5 == 0 {
            assert!(store.forget(id(n)).unwrap());
            say(format!("forgot {n}"));
        }
        if n > from + 20 && n % 3 == 0 && (n - 9) % 5 != 0 {
            assert_eq!(store.check_and_mark(id(n - 9)).unwrap(), Verdict::Duplicate, "{n}");
        }
    }
}

#[test]
fn what_was_acknowledged_is_seen_after_kills_at_any_time() {
    let place = place();
    let (_, config) = clock_and_config();
    let config = config.ttl(secs(600));
    let (mut marked, mut forgotten) = (HashSet::new(), HashSet::new());
    for round in 0..15_usize {
        let from = (round * 1_000).to_string();
        let mut child =
            Child::spawn("worker", &[("STORE", place.path().to_str().unwrap()), ("FROM", &from)]);
        // Heard so much, it is killed.
        let lines = 20 + round * 37 % 200;
        let mut said: Vec<String> =
            (0..lines).map(|_| child.hear().expect("the child ended")).collect();
        child.kill();
        said.extend(std::iter::from_fn(|| child.hear()));
        for said in said {
            let (what, n) = said.split_once(' ').unwrap();
            let of = if what == "marked" { &mut marked } else { &mut forgotten };
            of.insert(n.parse::<usize>().unwrap());
        }
        child.wait_for_death();
        let store = place.open(asleep(config.clone()));
        for n in &marked {
            let may_be_forgotten = n % 5 == 0;
            if !may_be_forgotten {
                assert!(store.try_is_seen(id(*n)).unwrap(), "round {round}: {n} is lost");
            }
        }
        for n in &forgotten {
            assert!(!store.try_is_seen(id(*n)).unwrap(), "round {round}: {n} came back");
        }
        if round % 8 == 0 {
            assert!(store.verify().unwrap().is_ok());
            let reader = Reader::open_with(place.path(), config.clone()).unwrap();
            let problems = reader.verify().unwrap().problems;
            assert!(problems.is_empty(), "{problems:?}");
        }
    }
}
