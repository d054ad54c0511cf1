//! The verbs that tidy a store up: giving room back, forgetting a scope, counting before a purge, and telling
//! what an upgrade did.

use std::time::Duration;

use seen_store::{Claim, Clock as _, Config, ErrorKind, Reader, SeenStore, Ttl, Verdict};

use crate::common::{Place, clock_and_config, manual_store, marks, ms, rows, secs};
use crate::support_process::{self, Child, Random};

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

/// Fills the store with brief and lasting marks, side by side.
fn fill(store: &SeenStore) {
    for (brief, lasting) in ids("brief").chunks(500).zip(ids("lasting").chunks(500)) {
        store.scope("brief").seed(brief).unwrap();
        store.seed(lasting).unwrap();
    }
}

/// Fills the store, and lets the brief marks go.
fn with_holes(store: &SeenStore) {
    fill(store);
    assert_eq!(store.scope("brief").forget_scope().unwrap(), IDS as u64);
}

#[test]
fn a_compacted_store_is_smaller_and_answers_as_before() {
    for exclusive in [false, true] {
        let place = Place::in_ram();
        let store = place.open(Config::default().exclusive(exclusive));
        fill(&store);
        store.compact().unwrap(); // Also what is written beside callers, the index in the file, is there now.
        let before = store.stats().unwrap().file_bytes;
        assert_eq!(store.scope("brief").forget_scope().unwrap(), IDS as u64);
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
fn other_stores_answer_as_before_and_rebuild_once() {
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
    assert_eq!(other.ask("rebuilds"), "1");
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
    assert_eq!(store.stats().unwrap().since_opened.rebuilds, 0, "the store that compacts knows");
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
    clock.advance(secs(60));
    let left = marks(&place.sql()).len() as u64;
    assert_eq!(store.count_expired().unwrap(), left);
    assert_eq!(store.purge_expired().unwrap(), left);
    assert_eq!((store.count_expired().unwrap(), store.purge_expired().unwrap()), (0, 0));
}

#[test]
fn a_purge_takes_the_newest_row_too() {
    for count in [1_usize, 2, 10, 1_000, 1_001] {
        let place = Place::in_ram();
        let (clock, store) = manual_store(&place, secs(10));
        let other = place.open(Config::default().clock(clock.clone()).purge_interval(None));
        store.seed(&ids("old")[..count]).unwrap();
        assert!(other.is_seen(&ids("old")[count - 1]));
        let file = place.sql();
        let newest = rows(&file).last().unwrap().seq;
        clock.advance(secs(10));
        let reader = Reader::open_with(place.path(), Config::default().clock(clock.clone()));
        let stats = |reader: &Reader| reader.stats(secs(1), 1).unwrap().total().expired;
        let reader = reader.unwrap();
        assert_eq!((stats(&reader), store.count_expired().unwrap()), (count as u64, count as u64));
        assert_eq!(store.purge_expired().unwrap(), count as u64);
        assert_eq!((stats(&reader), store.count_expired().unwrap()), (0, 0));
        // A tombstone keeps its number from being given again.
        let left = rows(&file);
        assert_eq!(
            left.iter().map(|row| (row.seq, row.expires_at)).collect::<Vec<_>>(),
            [(newest + 1, Some(0))]
        );
        // The other store knows the deleted row as the newest: the tombstone explains it.
        assert_eq!(other.check_and_mark(&ids("old")[count - 1]).unwrap(), Verdict::New);
        assert_eq!(other.stats().unwrap().since_opened.rebuilds, 0);
        for store in [&store, &other] {
            assert_eq!(store.verify().unwrap().problems, [""; 0]);
        }
    }
}

/// A row of `meta`.
fn meta(place: &Place, key: &str) -> i64 {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    place.sql().query_row(sql, [key], |row| row.get(0)).unwrap()
}

#[test]
fn a_purge_that_finds_nothing_writes_nothing() {
    let place = Place::in_ram();
    let (clock, store) = manual_store(&place, secs(10));
    let watcher = place.sql();
    let version =
        || -> i64 { watcher.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap() };
    let claim = |id: &str| match store.ttl(Ttl::Never).claim(id, secs(60)).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    };
    // Empty; a live mark and a live claim; a tombstone alone; a tombstone that is old and the newest row.
    let steps: [&dyn Fn(); 4] = [
        &|| {},
        &|| {
            store.mark_seen("a").unwrap();
            let _ = claim("held").into_token();
        },
        &|| assert!(store.forget("a").unwrap()),
        &|| clock.advance(secs(1_000_000)),
    ];
    for (number, step) in steps.into_iter().enumerate() {
        step();
        let before = (version(), meta(&place, "last_purge_at"));
        assert_eq!(store.purge_expired().unwrap(), 0);
        assert_eq!((version(), meta(&place, "last_purge_at")), before, "step {number}");
        assert_eq!(store.stats().unwrap().last_purge_at, None, "step {number}");
    }
    // One that finds a claim does.
    drop(store.ttl(secs(1)).claim("b", secs(1)).unwrap());
    clock.advance(secs(2));
    let before = version();
    assert_eq!(store.purge_expired().unwrap(), 0, "claims are no marks");
    assert_ne!(version(), before);
    assert_eq!(store.stats().unwrap().last_purge_at, Some(clock.now()));
}

#[test]
fn a_purge_that_rides_on_commits_and_finds_nothing_writes_nothing_either() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.purge_interval(secs(60)));
    for round in 0..3 {
        clock.advance(secs(60));
        let before = rows(&place.sql()).len();
        for mark in 0..5 {
            store.mark_seen(format!("{round} {mark}")).unwrap();
        }
        assert_eq!(rows(&place.sql()).len(), before + 5);
        assert_eq!(meta(&place, "last_purge_at"), 0);
    }
}

#[test]
fn tombstones_of_purges_do_not_pile_up() {
    let place = Place::in_ram();
    let (clock, store) = manual_store(&place, secs(10));
    let slow = place.open(Config::default().clock(clock.clone()).purge_interval(None));
    slow.ttl(Ttl::Never).mark_seen("lasting").unwrap();
    for round in 0..50 {
        store.mark_seen(format!("brief {round}")).unwrap();
        clock.advance(secs(600));
        assert_eq!(store.purge_expired().unwrap(), 1);
        assert_eq!(store.purge_expired().unwrap(), 0);
        let rows = rows(&place.sql());
        let tombstones = rows.iter().filter(|row| row.expires_at == Some(0)).count();
        assert!(tombstones <= 7, "an hour's worth, not {tombstones}");
        assert_eq!(rows.len() - tombstones, 1);
    }
    assert!(meta(&place, "floor") > 0);
    // Whoever missed the tombstones that are gone rebuilds and is right.
    assert!(!slow.is_seen("brief 0") && slow.is_seen("lasting"));
    assert_eq!(slow.check_and_mark("brief 49").unwrap(), Verdict::New);
    assert_eq!(slow.verify().unwrap().problems, [""; 0]);
}

#[test]
fn a_cleanup_removes_old_claims_that_are_not_in_flight() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let delay = secs(100);
    let store = place.open(config.ttl(Ttl::Never).retry_delay(delay));
    let claim = |store: &SeenStore, id: &str, lease| match store.claim(id, lease).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    };
    let other = store.scope("other");
    for store in [&store, &other] {
        store.mark_seen("marked").unwrap();
        claim(store, "failed", secs(10)).fail("why").unwrap();
        drop(claim(store, "released", secs(10)));
        let _ = claim(store, "vanished", secs(50)).into_token();
        let _ = claim(store, "held", secs(5_000)).into_token();
    }
    let start = clock.now();
    let left = |store: &SeenStore| -> Vec<&str> {
        let ids = ["marked", "failed", "released", "vanished", "held"];
        ids.into_iter().filter(|id| store.get(id).unwrap().is_some()).collect()
    };
    // The time at which each is older than 1,000 s: of a claim, its later end counts.
    for (after, gone, remaining) in [
        (1_000_000, 0, vec!["marked", "failed", "released", "vanished", "held"]),
        (1_000_001, 2, vec!["failed", "vanished", "held"]),
        (1_050_000, 0, vec!["failed", "vanished", "held"]),
        (1_050_001, 1, vec!["failed", "held"]),
        (1_100_000, 0, vec!["failed", "held"]),
        (1_100_001, 1, vec!["held"]),
        (5_999_999, 0, vec!["held"]),
        (6_000_000, 0, vec!["held"]),
        (6_000_001, 1, vec![]),
    ] {
        clock.set(start + ms(after));
        let age = secs(1_000);
        assert_eq!(store.count_old_entries(age).unwrap(), gone, "after {after}");
        assert_eq!(store.cleanup_old_entries(age).unwrap(), gone, "after {after}");
        assert_eq!(left(&store), remaining, "after {after}");
        assert_eq!(left(&other).len(), 5);
    }
    assert_eq!(store.stats().unwrap().since_opened.rebuilds, 0);
    // Whatever is in flight stays, however short the age that is asked for.
    let mut held = claim(&store, "again", secs(60));
    clock.advance(secs(59));
    assert_eq!(store.cleanup_old_entries(Duration::ZERO).unwrap(), 0);
    held.confirm().unwrap();
    // The attempts are forgotten with the claim.
    clock.set(start + ms(6_000_001));
    assert_eq!(claim(&store, "failed", secs(10)).attempt(), 1);
}

#[test]
fn a_cleanup_under_a_clock_that_was_set_back_removes_no_younger_claims() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(Ttl::Never));
    drop(store.claim("a", secs(10)).unwrap());
    store.mark_seen("b").unwrap();
    clock.set(clock.now().checked_sub(secs(86_400)).unwrap());
    assert_eq!(store.count_old_entries(Duration::ZERO).unwrap(), 0);
    assert_eq!(store.cleanup_old_entries(Duration::ZERO).unwrap(), 0);
    assert_eq!(store.cleanup_old_entries(Duration::MAX).unwrap(), 0);
}

#[test]
fn more_old_claims_than_a_step_takes_are_cleaned_up_and_none_of_another_scope() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(Ttl::Never));
    let scopes = ["a", "b", "c"].map(|scope| store.scope(scope));
    for scope in &scopes {
        let mut claims = scope.claim_all(&ids("id")[..2_500], secs(10)).unwrap();
        // Some are no text, and come after those that are.
        claims.extend(scope.claim_all([b"\xff", b"\xfe"], secs(10)).unwrap());
        drop(claims);
    }
    clock.advance(secs(100));
    let young = scopes[1].claim_all(&ids("young")[..1_500], secs(10)).unwrap();
    drop(young);
    clock.advance(secs(5));
    assert_eq!(scopes[1].count_old_entries(secs(50)).unwrap(), 2_502);
    assert_eq!(scopes[1].cleanup_old_entries(secs(50)).unwrap(), 2_502);
    let counts = |scope: &str| -> i64 {
        let sql = "SELECT count(*) FROM claims WHERE scope = ?1";
        place.sql().query_row(sql, [scope], |row| row.get(0)).unwrap()
    };
    assert_eq!(["a", "b", "c"].map(counts), [2_502, 1_500, 2_502]);
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
    let upgrade = store.upgrade_report().unwrap().unwrap();
    assert_eq!((upgrade.kept, upgrade.skipped, upgrade.undated), (2, 1, 1));
    assert_eq!(upgrade.copy, place.beside(".v0.bak"));
    let (_, config) = clock_and_config();
    assert_eq!(place.open(config).upgrade_report().unwrap(), None);
}
