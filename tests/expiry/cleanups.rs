//! Cleanups by one store, and what they cost the others on the file: no wrong answer, no rebuild, no wait.
#![expect(clippy::disallowed_methods, reason = "waits are measured")]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use seen_store::{Claim, Filter, SeenStore, Verdict};

use crate::common::{Place, clock_and_config, ms, secs};

fn rebuilds(store: &SeenStore) -> u64 {
    store.stats().unwrap().since_opened.rebuilds
}

fn old_and_recent(store: &SeenStore, clock: &seen_store::ManualClock, count: usize) {
    store.seed((0..count).map(|n| format!("old {n}"))).unwrap();
    clock.advance(secs(10));
    store.seed((0..count).map(|n| format!("recent {n}"))).unwrap();
}

/// A verb by its name, and whether it takes the id for seen.
type Verb = (&'static str, fn(&SeenStore, &str) -> bool);

#[test]
fn after_a_cleanup_elsewhere_each_verb_knows_what_is_gone_and_what_is_not() {
    let verbs: [Verb; 6] = [
        ("try_is_seen", |store, id| store.try_is_seen(id).unwrap()),
        ("get", |store, id| store.get(id).unwrap().is_some()),
        ("check_and_mark", |store, id| store.check_and_mark(id).unwrap() == Verdict::Duplicate),
        ("check_and_mark_all", |store, id| {
            store.check_and_mark_all([id]).unwrap() == [Verdict::Duplicate]
        }),
        ("claim", |store, id| matches!(store.claim(id, secs(9)).unwrap(), Claim::Seen(_))),
        ("forget", |store, id| store.forget(id).unwrap()),
    ];
    for (name, verb) in verbs {
        let place = Place::in_ram();
        let (clock, config) = clock_and_config();
        let [one, other] = [0, 1].map(|_| place.open(config.clone()));
        old_and_recent(&one, &clock, 300);
        assert!(!other.try_is_seen("a look").unwrap());
        assert_eq!(one.cleanup_old_entries(secs(5)).unwrap(), 300);
        // A look that notices: from now on memory alone must not answer.
        assert!(!other.try_is_seen("a look").unwrap());
        for n in (0..300).step_by(7) {
            assert!(!verb(&other, &format!("old {n}")), "{name}, old {n}");
            assert!(verb(&other, &format!("recent {n}")), "{name}, recent {n}");
        }
        assert_eq!(rebuilds(&other), 0);
        assert_eq!(other.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn a_mark_refreshed_elsewhere_while_the_index_is_in_doubt_stays_seen() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let [one, other] = [0, 1].map(|_| place.open(config.clone()));
    old_and_recent(&one, &clock, 2_000);
    assert!(!other.try_is_seen("a look").unwrap());
    one.cleanup_old_entries(secs(5)).unwrap();
    for n in 0..2_000 {
        let id = format!("recent {n}");
        one.mark_seen(&id).unwrap(); // Its row moves.
        assert!(other.try_is_seen(&id).unwrap(), "{id}");
        assert_eq!(other.check_and_mark(&id).unwrap(), Verdict::Duplicate);
    }
    let listed = other.entries(Filter::default()).map(Result::unwrap).count();
    assert_eq!((listed, other.stats().unwrap().seen), (2_000, 2_000));
}

#[test]
fn what_is_gone_leaves_memory_beside_commits_and_lookups() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let [one, other] = [0, 1].map(|_| place.open(config.clone()));
    old_and_recent(&one, &clock, 5_000);
    one.cleanup_old_entries(secs(5)).unwrap();
    for n in 0..400 {
        other.mark_seen(format!("new {n}")).unwrap();
    }
    let lookups = Instant::now();
    for _ in 0..1_000 {
        assert!(other.is_seen("recent 1"));
    }
    println!("a hit after the doubt: {:?}", lookups.elapsed() / 1_000);
    assert_eq!(other.stats().unwrap().seen, 5_400);
}

/// The longest wait of single marks by one store while another removes `count` old marks.
fn longest_wait(count: usize) -> Duration {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let config = config.busy_timeout(Duration::from_secs(5));
    let [one, other] = [0, 1].map(|_| place.open(config.clone()));
    one.seed((0..count).map(|n| format!("old {n}"))).unwrap();
    clock.advance(secs(10));
    one.mark_seen("recent").unwrap();
    assert!(other.try_is_seen("old 1").unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(one.cleanup_old_entries(secs(5)).unwrap(), count as u64);
            done.store(true, SeqCst);
        });
        let (mut longest, mut n) = (Duration::ZERO, 0);
        let mut after = 0;
        while after < 50 {
            after += u32::from(done.load(SeqCst));
            let started = Instant::now();
            other.mark_seen(format!("new {n}")).unwrap();
            longest = longest.max(started.elapsed());
            n += 1;
        }
        assert_eq!(rebuilds(&other), 0);
        assert_eq!(other.check_and_mark("old 1").unwrap(), Verdict::New);
        assert_eq!(other.check_and_mark("recent").unwrap(), Verdict::Duplicate);
        longest
    })
}

#[test]
fn a_large_cleanup_elsewhere_delays_no_mark_for_long() {
    // The best of three: other tests keep the processors busy.
    let waits: Vec<Duration> = (0..3).map(|_| longest_wait(100_000)).collect();
    println!("longest waits of a mark beside a cleanup of 100,000: {waits:?}");
    assert!(*waits.iter().min().unwrap() < ms(500), "{waits:?}");
}

#[test]
fn stats_and_verify_end_beside_a_store_that_goes_on_cleaning_up() {
    const MOST: u32 = 20_000;
    let place = Place::in_ram();
    let (_clock, config) = clock_and_config();
    let store = place.open(config.clone());
    store.seed((0..20_000).map(|n| format!("{n}"))).unwrap();
    // The trace that each step of a cleanup leaves.
    let other = place.sql();
    other.busy_timeout(secs(30)).unwrap();
    let step = "UPDATE meta SET value = value + 1 WHERE key = 'generation'";
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = &ended;
        let steps = scope.spawn(move || {
            (0..MOST).find(|_| {
                other.execute(step, []).unwrap();
                thread::yield_now();
                ended.load(SeqCst)
            })
        });
        let (stats, report) = (store.stats().unwrap(), store.verify().unwrap());
        ended.store(true, SeqCst);
        assert!(steps.join().unwrap().is_some(), "they ended after {MOST} steps of cleanups");
        assert_eq!((stats.seen, report.problems.len()), (20_000, 0), "{:?}", report.problems);
    });
}

#[test]
fn a_cleanup_that_was_killed_midway_is_noticed_as_far_as_it_came() {
    // Each step raises the generation with the rows that it deletes: here one step of another program.
    let place = Place::in_ram();
    let (_clock, config) = clock_and_config();
    let store = place.open(config.clone());
    store.seed(["a", "b", "c"]).unwrap();
    place
        .sql()
        .execute_batch(
            "BEGIN IMMEDIATE; DELETE FROM seen WHERE id = 'a'; \
             UPDATE meta SET value = value + 1 WHERE key = 'generation'; COMMIT",
        )
        .unwrap();
    assert!(!store.try_is_seen("a look").unwrap());
    assert!(!store.is_seen("a"));
    assert!(store.is_seen("b"));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
}
