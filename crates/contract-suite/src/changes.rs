//! Claims of another version of an id that is seen.

use seen_store::{
    Abandoned, ErrorKind, Failure, Filter, Item, Previous, Resolution, State, Store, Verdict,
};

use crate::Place;
use crate::bench::{Bench, assert_kind, check, claimed, entry, get, known, state, word};

fn version(version: &str) -> Item<'_> {
    Item::new("a").version(version)
}

/// A store in which version 1 was confirmed with a receipt.
fn confirmed(place: &dyn Place) -> Bench<'_> {
    let bench = Bench::new(place);
    claimed(bench.store(), version("1"), bench.long()).confirm_with("first").unwrap();
    bench
}

fn states(store: &dyn Store) -> Vec<State> {
    let states = store.entries(Filter::default()).map(|entry| entry.unwrap().state);
    let mut states: Vec<_> = states.collect();
    states.sort_by_key(|state| state.as_str());
    states
}

pub(crate) fn a_changed_version_is_granted_and_the_id_stays_seen_until_it_is_confirmed(
    place: &dyn Place,
) {
    let bench = confirmed(place);
    let (store, again) = (bench.store(), bench.again());
    let first = entry(store, "a");
    assert_eq!(word(store, version("1"), bench.long()), "seen");
    let mut lease = claimed(store, version("2"), bench.long());
    assert!(lease.is_change());
    let Previous::Superseded(old) = lease.previous() else { panic!("{:?}", lease.previous()) };
    assert_eq!((old.digest, old.receipt.as_deref()), (first.digest, Some(&b"first"[..])));
    assert_eq!((old.first_seen, old.state, lease.attempt()), (first.first_seen, State::Seen, 1));
    for store in [store, &*again] {
        assert!(
            store.is_seen("a".into())
                && store.is_seen(version("1"))
                && !store.is_seen(version("2"))
        );
        let seen = known(store.claim("a".into(), bench.long()).unwrap());
        assert_eq!(seen.receipt().unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(word(store, version("1"), bench.long()), "seen");
        for other in ["2", "3"] {
            assert_eq!(word(store, version(other), bench.long()), "in flight");
            assert_eq!(check(store, version(other)), Verdict::InFlight);
        }
        assert_eq!(check(store, version("1")), Verdict::Duplicate);
        let entry = entry(store, "a");
        assert_eq!((entry.state, entry.digest), (State::Seen, first.digest));
        let change = entry.change.expect("the claim of the other version");
        assert_eq!((change.state, change.digest), (State::InFlight, version("2").digest()));
        assert_eq!((change.attempts, change.holder.as_deref()), (1, Some("worker 1")));
        assert_eq!(states(store), [State::InFlight, State::Seen]);
    }
    lease.confirm_with("second").unwrap();
    lease.confirm().unwrap();
    let second = entry(store, "a");
    assert_eq!((second.digest, second.change), (version("2").digest(), None));
    assert_eq!(
        (second.first_seen, second.receipt.as_deref()),
        (first.first_seen, Some(&b"second"[..]))
    );
    for store in [store, &*again] {
        assert!(store.is_seen(version("2")) && !store.is_seen(version("1")));
        assert_eq!(states(store), [State::Seen]);
    }
}

pub(crate) fn an_attempt_at_a_change_that_fails_loses_neither_the_mark_nor_the_change(
    place: &dyn Place,
) {
    type End = (&'static str, State, fn(&Bench<'_>, seen_store::Lease), fn(&Previous) -> bool);
    let ends: [End; 4] = [
        ("dropped", State::Released, |_, lease| drop(lease), |it| *it == Previous::Released),
        (
            "released",
            State::Released,
            |_, mut lease| lease.release().unwrap(),
            |it| *it == Previous::Released,
        ),
        (
            "failed",
            State::Failed,
            |_, mut lease| lease.fail("503").unwrap(),
            |it| *it == Previous::Failed { error: "503".to_owned() },
        ),
        (
            "abandoned",
            State::Abandoned,
            |bench, lease| {
                lease.into_token();
                bench.short_passes();
            },
            |it| matches!(it, Previous::Abandoned { .. }),
        ),
    ];
    for (end, left, ends, previous) in ends {
        let bench = confirmed(place);
        let (store, again) = (bench.store(), bench.again());
        ends(&bench, claimed(store, version("2"), bench.short()));
        for store in [store, &*again] {
            assert!(store.is_seen(version("1")) && !store.is_seen(version("2")), "{end}");
            let entry = entry(store, "a");
            assert_eq!(entry.receipt.as_deref(), Some(&b"first"[..]), "{end}");
            assert_eq!(entry.change.map(|change| change.state), Some(left), "{end}");
        }
        let mut lease = claimed(&*again, version("2"), bench.long());
        assert!(previous(lease.previous()) && lease.is_change(), "{end}: {:?}", lease.previous());
        assert_eq!(lease.attempt(), 2, "{end}");
        lease.confirm().unwrap();
        assert!(store.is_seen(version("2")), "{end}");
    }
}

pub(crate) fn the_attempts_at_one_version_say_nothing_of_the_next(place: &dyn Place) {
    let bench = confirmed(place);
    let store = bench.store();
    claimed(store, version("2"), bench.long()).fail(Failure::new("404").is_final()).unwrap();
    assert_eq!(word(store, version("2"), bench.long()), "given up");
    assert_eq!(entry(store, "a").change.unwrap().state, State::GivenUp);
    let lease = claimed(store, version("3"), bench.long());
    assert_eq!((lease.attempt(), lease.is_change()), (1, true));
    drop(lease);
    // The same of an id that is not seen at all.
    let fresh = |version| Item::new("fresh").version(version);
    for attempt in 1..3 {
        let mut lease = claimed(store, fresh("1"), bench.long());
        assert_eq!(lease.attempt(), attempt);
        lease.fail("503").unwrap();
    }
    assert_eq!(claimed(store, fresh("2"), bench.long()).attempt(), 1);
    // The old version is seen all the while.
    assert_eq!(check(store, version("1")), Verdict::Duplicate);
}

pub(crate) fn a_mark_beside_the_claim_of_a_change_ends_it_only_in_its_version(place: &dyn Place) {
    let bench = confirmed(place);
    let store = bench.store();
    // A mark of a third version leaves the claim alone.
    let mut lease = claimed(store, version("2"), bench.long());
    store.mark_seen(version("3")).unwrap();
    assert!(lease.is_held().unwrap());
    assert_eq!(entry(store, "a").digest, version("3").digest());
    lease.confirm_with("second").unwrap();
    assert_eq!(entry(store, "a").digest, version("2").digest());
    // A mark without a version refreshes the one that is seen.
    let mut lease = claimed(store, version("4"), bench.long());
    store.mark_seen("a".into()).unwrap();
    assert_eq!(entry(store, "a").digest, version("2").digest());
    assert!(lease.is_held().unwrap());
    // A mark of the claimed version does the holder's work, who may confirm it, with its receipt.
    store.mark_seen(version("4")).unwrap();
    assert!(!lease.is_held().unwrap());
    let marked = entry(store, "a");
    assert_eq!((marked.digest, marked.change, marked.receipt), (version("4").digest(), None, None));
    lease.confirm_with("fourth").unwrap();
    assert_eq!(entry(store, "a").receipt.as_deref(), Some(&b"fourth"[..]));
}

pub(crate) fn a_change_that_was_taken_over_is_lost_to_its_holder(place: &dyn Place) {
    let bench = confirmed(place);
    let store = bench.store();
    let mut stale = claimed(store, version("2"), bench.short());
    bench.short_passes();
    // By a check: the changed version is marked.
    assert_eq!(check(store, version("2")), Verdict::Changed);
    let before = entry(store, "a");
    assert_kind(stale.confirm_with("stale"), ErrorKind::LeaseLost);
    assert_eq!(entry(store, "a"), before);
    // By another worker, at a later version.
    let mut stale = claimed(store, version("3"), bench.short());
    bench.short_passes();
    let mut lease = claimed(store, version("4"), bench.long());
    assert_eq!(lease.attempt(), 1);
    assert_kind(stale.confirm(), ErrorKind::LeaseLost);
    lease.confirm().unwrap();
    assert_eq!(entry(store, "a").digest, version("4").digest());
}

pub(crate) fn a_held_change_waits_for_a_decision(place: &dyn Place) {
    let bench = confirmed(place);
    let store = bench.store();
    let hold = store.abandoned(Abandoned::Hold);
    bench_abandon(&bench, &*hold, "2");
    assert_eq!(word(store, version("2"), bench.long()), "unresolved");
    assert_eq!(check(store, version("2")), Verdict::InFlight);
    assert_eq!(entry(store, "a").change.unwrap().state, State::Unresolved);
    assert_eq!(check(store, version("1")), Verdict::Duplicate);
    assert!(store.resolve("a".into(), Resolution::Done).unwrap());
    assert_eq!(entry(store, "a").digest, version("2").digest());
    assert!(store.is_seen(version("2")) && !store.is_seen(version("1")));
    bench_abandon(&bench, &*hold, "3");
    assert!(store.resolve("a".into(), Resolution::Retry).unwrap());
    assert_eq!(claimed(store, version("3"), bench.long()).attempt(), 1);
}

fn bench_abandon(bench: &Bench<'_>, store: &dyn Store, of: &str) {
    claimed(store, version(of), bench.short()).into_token();
    bench.short_passes();
}

pub(crate) fn the_claim_of_a_change_outlives_the_mark_beside_it(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    assert_eq!(check(&*store.ttl(bench.short().into()), version("1")), Verdict::New);
    let mut lease = claimed(store, version("2"), bench.long());
    bench.short_passes();
    assert!(!store.is_seen("a".into()));
    assert_eq!(
        (state(store, "a"), check(store, version("1"))),
        (State::InFlight, Verdict::InFlight)
    );
    lease.confirm().unwrap();
    assert!(store.is_seen(version("2")));
    // And is forgotten with it.
    let mut lease = claimed(store, version("3"), bench.long());
    assert!(store.forget("a".into()).unwrap());
    assert_eq!(get(store, "a"), None);
    assert_kind(lease.confirm(), ErrorKind::LeaseLost);
}
