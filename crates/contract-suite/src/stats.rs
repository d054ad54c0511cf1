//! The figures of a store.

use seen_store::{Abandoned, Failure, Item, Stats, Verdict};

use crate::Place;
use crate::bench::{Bench, assert_kind, check, check_all, claimed, items, word};

pub(crate) fn entries_are_counted_by_state(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let figures = |stats: &Stats| {
        let Stats { seen, in_flight, released, failed, given_up, abandoned, unresolved, .. } =
            *stats;
        [seen, in_flight, released, failed, given_up, abandoned, unresolved]
    };
    assert_eq!(figures(&store.stats().unwrap()), [0; 7]);
    let x = store.scope("x");
    assert_eq!(check_all(store, &["a", "b", "a"])[0], Verdict::New);
    claimed(&*x, "confirmed", bench.long()).confirm().unwrap();
    claimed(&*x.abandoned(Abandoned::Hold), "unresolved", bench.short()).into_token();
    for id in ["abandoned 1", "abandoned 2"] {
        claimed(&*x, id, bench.short()).into_token();
    }
    bench.short_passes();
    for id in ["released 1", "released 2", "released 3"] {
        drop(claimed(&*x, id, bench.long()));
    }
    for id in ["failed 1", "failed 2"] {
        claimed(store, id, bench.long()).fail("503").unwrap();
    }
    claimed(store, "given up", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    let held = claimed(store, "held", bench.long());
    for store in [store, &*again, &*x] {
        assert_eq!(figures(&store.stats().unwrap()), [3, 1, 3, 2, 1, 2, 1]);
    }
    drop(held);
    assert!(store.forget("a".into()).unwrap());
    assert_eq!(figures(&store.stats().unwrap()), [2, 0, 4, 2, 1, 2, 1]);
    assert_eq!(store.stats().unwrap().expired, 0);
    let short = store.ttl(bench.short().into()).retention(Some(bench.long()));
    assert_eq!(check(&*short, "kept after its end"), Verdict::New);
    bench.short_passes();
    assert_eq!(store.stats().unwrap().expired, 1);
    assert_eq!(figures(&store.stats().unwrap()), [2, 0, 4, 2, 1, 2, 1]);
}

pub(crate) fn what_is_seen_is_counted_by_scope(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    assert!(store.stats().unwrap().scopes.is_empty());
    for (scope, ids) in [("", &["a", "b", "c"][..]), ("x", &["a"]), ("y:{z}%", &["a", "b"])] {
        assert_eq!(store.scope(scope).seed(&items(ids)).unwrap(), ids.len() as u64);
    }
    drop(claimed(&*store.scope("claims only"), "a", bench.long()));
    let scopes = store.stats().unwrap().scopes;
    let scopes: Vec<_> = scopes.iter().map(|(scope, seen)| (scope.as_str(), *seen)).collect();
    assert_eq!(scopes, [("", 3), ("x", 1), ("y:{z}%", 2)]);
    assert!(store.scope("x").forget("a".into()).unwrap());
    let scopes = store.stats().unwrap().scopes;
    assert_eq!(scopes.get("x").copied().unwrap_or(0), 0);
}

pub(crate) fn the_answers_of_a_store_are_counted_since_it_was_opened(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let version = |version: &str| Item::new("v").version(version);
    assert_eq!(check_all(store, &["a", "b", "a"])[2], Verdict::Duplicate);
    assert_eq!(check(&*store.scope("x"), "a"), Verdict::New);
    assert_eq!(check(store, "a"), Verdict::Duplicate);
    assert_eq!(store.observe("a".into()).unwrap().verdict, Verdict::Duplicate);
    assert_eq!(
        (check(store, version("1")), check(store, version("2"))),
        (Verdict::New, Verdict::Changed)
    );
    let mut lease = claimed(store, "c", bench.long());
    assert_eq!(
        (word(store, "c", bench.long()), check(store, "c")),
        ("in flight", Verdict::InFlight)
    );
    lease.confirm().unwrap();
    assert_eq!(word(store, "c", bench.long()), "seen");
    drop(claimed(store, "d", bench.long()));
    claimed(store, "d", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    assert_eq!(word(store, "d", bench.long()), "given up");
    bench.abandoned(&*store.abandoned(Abandoned::Hold), "e");
    assert_eq!(word(store, "e", bench.long()), "unresolved");
    let token = bench.abandoned(store, "f");
    let mut next = claimed(store, "f", bench.long());
    next.release().unwrap();
    assert_kind(store.confirm("f".into(), &token), seen_store::ErrorKind::LeaseLost);
    let done = store.stats().unwrap().since_opened;
    let verdicts = (done.new, done.changed, done.duplicates, done.in_flight);
    assert_eq!(verdicts, (4, 1, 3, 1));
    let claims =
        (done.claims_granted, done.claims_in_flight, done.claims_seen, done.claims_given_up);
    assert_eq!(claims, (6, 1, 1, 1));
    assert_eq!((done.claims_unresolved, done.claims_abandoned), (1, 1));
    let ends = (done.claims_confirmed, done.claims_released, done.claims_failed, done.claims_lost);
    assert_eq!(ends, (1, 2, 1, 1));
    assert_eq!(done.failed_open, 0);
    // A store that cannot tell says "not seen", and counts it.
    assert!(!store.is_seen("".into()));
    assert_eq!(store.stats().unwrap().since_opened.failed_open, 1);
    if place.is_shared() {
        let other = bench.again().stats().unwrap().since_opened;
        assert_eq!((other.new, other.claims_granted), (0, 0), "another store has done nothing");
    }
}
