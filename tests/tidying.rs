//! The verbs that tidy a store up: giving room back, forgetting a scope, counting before a purge, and telling
//! what an upgrade did.

mod common;
mod support_process;

use std::time::Duration;

use common::{Place, clock_and_config, manual_store, ms, secs};
use seen_store::{Claim, Config, ErrorKind, SeenStore, Ttl, Verdict};
use support_process::{Child, Random};

const IDS: usize = 20_000;

#[test]
fn child() {
    if support_process::role().is_some() {
        support_process::puppet();
    }
}

fn ids(kind: &str) -> Vec<String> {
    (0..IDS).map(|n| format!("{kind} {n:08}")).collect()
}

/// Fills the store with brief and lasting marks, side by side, and lets the brief ones go.
fn with_holes(store: &SeenStore) {
    for (brief, lasting) in ids("brief").chunks(500).zip(ids("lasting").chunks(500)) {
        store.scope("brief").seed(brief).unwrap();
        store.seed(lasting).unwrap();
    }
    assert_eq!(store.scope("brief").forget_scope().unwrap(), IDS as u64);
}

#[test]
fn a_compacted_store_is_smaller_and_answers_as_before() {
    for exclusive in [false, true] {
        let place = Place::in_ram();
        let store = place.open(Config::default().exclusive(exclusive));
        with_holes(&store);
        store.checkpoint().unwrap();
        let before = store.stats().unwrap().file_bytes;
        store.compact().unwrap();
        let stats = store.stats().unwrap();
        assert!(stats.file_bytes < before * 2 / 3, "{before} before, {} after", stats.file_bytes);
        assert_eq!((stats.wal_bytes, stats.seen), (0, IDS as u64));
        assert!(ids("lasting").iter().all(|id| store.try_is_seen(id).unwrap()));
        assert_eq!(store.check_and_mark("brief 00000000").unwrap(), Verdict::New);
        assert_eq!(store.verify().unwrap().problems, [""; 0]);
        assert_eq!(store.pragmas().unwrap().temp_store, 2);
    }
}

#[test]
fn a_store_in_memory_can_be_compacted_too() {
    let store = SeenStore::in_memory().unwrap();
    with_holes(&store);
    store.compact().unwrap();
    assert!(store.is_seen("lasting 00000000"));
}

#[test]
fn whoever_else_has_the_store_open_goes_on_without_a_rebuild() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    with_holes(&store);
    let mut other = Child::with_store(place.path());
    assert_eq!(other.ask("seen lasting 00000007"), "true");
    store.compact().unwrap();
    store.mark_seen("after").unwrap();
    assert_eq!(other.ask("seen after"), "true");
    assert_eq!(other.ask("check lasting 00000008"), "duplicate");
    assert_eq!(other.ask("check by the other"), "new");
    assert_eq!(store.check_and_mark("by the other").unwrap(), Verdict::Duplicate);
    assert_eq!(other.ask("rebuilds"), "0");
    assert_eq!(other.ask("verify"), "[]");
    other.finish();
}

#[test]
fn marks_go_on_while_the_store_is_compacted() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    with_holes(&store);
    let mut other = Child::with_store(place.path());
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| (0..10).for_each(|_| store.compact().unwrap()));
        let mut marks = 0;
        while !compacting.is_finished() || marks < 100 {
            assert_eq!(other.ask(&format!("check meanwhile {marks}")), "new");
            marks += 1;
        }
        assert!((0..marks).all(|n| store.is_seen(format!("meanwhile {n}"))));
    });
    assert_eq!(other.ask("rebuilds"), "0");
    assert_eq!(store.stats().unwrap().rebuilds, 0);
    assert_eq!(store.verify().unwrap().problems, [""; 0]);
}

#[test]
fn a_kill_while_the_store_is_compacted_costs_nothing() {
    let place = Place::in_ram();
    with_holes(&place.open(Config::default()));
    let mut random = Random::new("a_kill_while_the_store_is_compacted");
    for _ in 0..10 {
        let mut child = Child::with_store(place.path());
        child.tell("compact");
        std::thread::sleep(ms(random.below(40)));
        child.kill();
        let store = place.open(Config::default());
        assert_eq!(store.stats().unwrap().seen, IDS as u64);
        assert_eq!(store.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn compacting_waits_for_others_only_so_long_and_says_so() {
    let place = Place::in_ram();
    let store = place.open(Config::default().busy_timeout(ms(50)));
    with_holes(&store);
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Busy);
    other.execute_batch("ROLLBACK").unwrap();
    store.checkpoint().unwrap();
    // A reader does not keep the file from being written anew, but keeps the old pages where they are.
    let before = store.stats().unwrap().file_bytes;
    other.execute_batch("BEGIN; SELECT * FROM seen LIMIT 1").unwrap();
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::Busy);
    other.execute_batch("ROLLBACK").unwrap();
    store.checkpoint().unwrap();
    assert!(store.stats().unwrap().file_bytes < before);
}

#[test]
fn a_store_that_is_only_read_is_not_compacted() {
    let place = Place::in_ram();
    place.open(Config::default()).mark_seen("a").unwrap();
    let store = place.open(Config::default().read_only(true));
    assert_eq!(store.compact().unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn forgetting_a_scope_leaves_nothing_of_it_and_all_of_the_others() {
    let place = Place::in_ram();
    let (_, config) = clock_and_config();
    let store = place.open(config.clone());
    let (doomed, kept) = (store.scope("doomed"), store.scope("doomed 2"));
    for store in [&doomed, &kept, &store] {
        // Marked at this very moment, and claimed, and never to expire.
        store.mark_seen("now").unwrap();
        store.ttl(Ttl::Never).mark_seen(b"\xff").unwrap();
    }
    let Claim::Granted(mut lease) = doomed.claim("claimed", secs(60)).unwrap() else { panic!() };
    let Claim::Granted(mut other) = kept.claim("claimed", secs(60)).unwrap() else { panic!() };
    let onlooker = place.open(config);

    assert_eq!(doomed.forget_scope().unwrap(), 3);
    assert_eq!(lease.confirm().unwrap_err().kind(), ErrorKind::LeaseLost);
    other.confirm().unwrap();
    assert_eq!(doomed.check_and_mark("now").unwrap(), Verdict::New);
    assert!(!doomed.is_seen(b"\xff"));
    assert!(kept.is_seen("now") && kept.is_seen(b"\xff") && store.is_seen("now"));
    assert_eq!(store.verify().unwrap().problems, [""; 0]);
    std::thread::sleep(ms(101));
    assert!(!onlooker.scope("doomed").is_seen(b"\xff"));
    assert_eq!(doomed.forget_scope().unwrap(), 1);
    assert_eq!(doomed.forget_scope().unwrap(), 0);
}

#[test]
fn more_claims_than_a_step_takes_are_forgotten() {
    let store = SeenStore::in_memory().unwrap();
    for claim in store.claim_all(ids("claimed"), secs(60)).unwrap() {
        let Claim::Granted(lease) = claim else { panic!() };
        let _ = lease.into_token();
    }
    assert_eq!(store.forget_scope().unwrap(), IDS as u64);
    assert_eq!(store.stats().unwrap().in_flight, 0);
}

#[test]
fn a_count_tells_what_a_purge_will_remove() {
    let place = Place::in_ram();
    let (clock, store) = manual_store(&place, secs(10));
    for n in 0..5_u32 {
        store.mark_seen(n.to_string()).unwrap();
        store.scope("other").mark_seen(n.to_string()).unwrap();
        store.forget("0").unwrap();
        clock.advance(secs(3));
    }
    assert_eq!(store.count_expired().unwrap(), 3);
    assert_eq!(store.count_old_entries(secs(4)).unwrap(), 3);
    assert_eq!(store.cleanup_old_entries(secs(4)).unwrap(), 3);
    assert_eq!(store.count_expired().unwrap(), 2);
    assert_eq!(store.purge_expired().unwrap(), 2);
    assert_eq!(store.count_expired().unwrap(), 0);
    // The newest row stays, so it is not counted either.
    clock.advance(secs(60));
    let left = store.count_expired().unwrap();
    assert_eq!(store.purge_expired().unwrap(), left);
}

#[test]
fn an_upgrade_is_told_by_the_store_that_did_it() {
    let place = Place::in_ram();
    place
        .sql()
        .execute_batch(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
             INSERT INTO seen VALUES ('a', 1700000000), ('', 1), ('b', 'soon')",
        )
        .unwrap();
    let store = place.open(Config::default().ttl(Duration::from_secs(5)));
    let upgrade = store.upgrade().unwrap().unwrap();
    assert_eq!((upgrade.kept, upgrade.skipped, upgrade.undated), (2, 1, 1));
    assert_eq!(upgrade.copy, place.beside(".v0.bak"));
    let (_, config) = clock_and_config();
    assert_eq!(place.open(config).upgrade().unwrap(), None);
}
