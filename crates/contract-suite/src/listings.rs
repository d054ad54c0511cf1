//! Listings, counts and removals by a filter.

use std::collections::BTreeSet;
use std::time::Duration;

use seen_store::{Abandoned, Entry, Failure, Filter, Item, State, Store, Verdict};

use crate::Place;
use crate::bench::{Bench, check, check_all, claimed, entry, get, ids, items, listed, state};

fn everything() -> Filter {
    Filter::default()
}

/// A store with an id in each state, in the scope "x", and some marks in others.
fn mixed(place: &dyn Place) -> Bench<'_> {
    let bench = Bench::new(place);
    let store = bench.store();
    assert_eq!(store.seed(&items(&["db1/disk", "db1/load", "db2/disk"])).unwrap(), 3);
    let x = store.scope("x");
    x.mark_seen("seen".into()).unwrap();
    claimed(&*x, "confirmed", bench.long()).confirm_with("4711").unwrap();
    drop(claimed(&*x, "released", bench.long()));
    claimed(&*x, "failed", bench.long()).fail("503").unwrap();
    claimed(&*x, "given up", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    claimed(&*x.abandoned(Abandoned::Hold), "unresolved", bench.short()).into_token();
    claimed(&*x, "abandoned", bench.short()).into_token();
    claimed(&*x, "in flight", bench.long()).into_token();
    assert_eq!(check(&*x, Item::new("changed").version("1")), Verdict::New);
    claimed(&*x, Item::new("changed").version("2"), bench.long()).into_token();
    bench.short_passes();
    bench
}

const STATES: [(State, &[&str]); 7] = [
    (State::Seen, &["changed", "confirmed", "seen"]),
    (State::InFlight, &["changed", "in flight"]),
    (State::Released, &["released"]),
    (State::Failed, &["failed"]),
    (State::GivenUp, &["given up"]),
    (State::Abandoned, &["abandoned"]),
    (State::Unresolved, &["unresolved"]),
];

pub(crate) fn a_listing_tells_of_each_mark_and_claim_what_a_get_tells(place: &dyn Place) {
    let bench = mixed(place);
    let (store, again) = (bench.store(), bench.again());
    for store in [store, &*again] {
        let all: Vec<Entry> = store.entries(everything()).map(Result::unwrap).collect();
        assert_eq!(all.len(), 3 + 9 + 1, "{all:#?}");
        for listed in all {
            let mut known = entry(&*store.scope(&listed.scope), &listed.id);
            let change = known.change.take();
            let expected =
                if listed.state == known.state { Some(known) } else { change.map(|it| *it) };
            assert_eq!(Some(listed), expected, "of a change, its claim");
        }
    }
    assert_eq!(listed(&*Bench::new(place).again(), everything()), []);
}

pub(crate) fn a_filter_selects_by_state(place: &dyn Place) {
    let bench = mixed(place);
    let (store, again) = (bench.store(), bench.again());
    let x = store.scope("x");
    for (state, expected) in STATES {
        let filter = || everything().state(state);
        assert_eq!(ids(&*again, filter().scope("x")), expected, "{state}");
        assert!(store.entries(filter()).all(|entry| entry.unwrap().state == state));
        assert_eq!(x.count(filter()).unwrap(), expected.len() as u64, "{state}");
        let of_all = expected.len() + if state == State::Seen { 3 } else { 0 };
        assert_eq!(listed(store, filter()).len(), of_all, "{state}: a listing has all scopes");
    }
}

pub(crate) fn a_filter_selects_by_scope_and_prefix(place: &dyn Place) {
    let bench = mixed(place);
    let store = bench.store();
    assert_eq!(ids(store, everything().scope("")), ["db1/disk", "db1/load", "db2/disk"]);
    assert_eq!(ids(store, everything().scope("unknown")), [""; 0]);
    for (prefix, expected) in [
        ("db1/", &["db1/disk", "db1/load"][..]),
        ("db1/disk", &["db1/disk"]),
        ("db1/disk ", &[]),
        ("DB", &[]),
        ("d", &["db1/disk", "db1/load", "db2/disk"]),
    ] {
        assert_eq!(ids(store, everything().prefix(prefix)), expected, "{prefix}");
        assert_eq!(store.count(everything().prefix(prefix)).unwrap(), expected.len() as u64);
    }
    let filter = || everything().prefix("re").state(State::Released);
    assert_eq!(ids(store, filter()), ["released"]);
    assert_eq!(ids(store, filter().scope("")), [""; 0]);
    // A count is of the scope of its handle, or of the filter's.
    assert_eq!(store.count(filter()).unwrap(), 0);
    assert_eq!(store.count(filter().scope("x")).unwrap(), 1);
    assert_eq!(store.scope("x").count(filter()).unwrap(), 1);
}

pub(crate) fn a_filter_selects_by_age(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let now = bench.now();
    for age in [300, 200, 100] {
        store.mark_seen_at(format!("{age}").into(), now - bench.units(age)).unwrap();
    }
    store.mark_seen("now".into()).unwrap();
    let (older, newer) = (
        |age| everything().older_than(bench.units(age)),
        |age| everything().newer_than(bench.units(age)),
    );
    assert_eq!(ids(store, older(250)), ["300"]);
    assert_eq!(ids(store, newer(250)), ["100", "200", "now"]);
    assert_eq!(ids(store, older(150).newer_than(bench.units(250))), ["200"]);
    assert_eq!(ids(store, older(350)), [""; 0]);
    assert_eq!(ids(store, newer(50)), ["now"]);
    assert_eq!(store.count(older(150)).unwrap(), 2);
    assert_eq!(ids(store, everything().newer_than(Duration::MAX)).len(), 4);
    assert_eq!(ids(store, everything().older_than(Duration::MAX)), [""; 0]);
    // What counts is when an id was last seen.
    store.mark_seen("300".into()).unwrap();
    assert_eq!(check(store, "200"), Verdict::Duplicate);
    assert_eq!(ids(store, older(50)), ["100"]);
    assert_eq!(store.remove(older(50)).unwrap(), 1);
    assert_eq!(ids(store, everything()), ["200", "300", "now"]);
}

pub(crate) fn a_removal_takes_what_its_filter_counts_and_no_more(place: &dyn Place) {
    let bench = mixed(place);
    let (store, again) = (bench.store(), bench.again());
    let x = store.scope("x");
    assert_eq!(store.remove(everything().prefix("db1/")).unwrap(), 2);
    assert_eq!(store.remove(everything().prefix("db1/")).unwrap(), 0);
    assert_eq!(ids(store, everything().scope("")), ["db2/disk"]);
    for (state, expected) in STATES.into_iter().skip(2) {
        let filter = || everything().state(state);
        assert_eq!(x.count(filter()).unwrap(), expected.len() as u64, "{state}");
        assert_eq!(x.remove(filter()).unwrap(), expected.len() as u64, "{state}");
        assert_eq!(ids(store, filter()), [""; 0], "{state}");
        assert_eq!(get(&*x, expected[0]), None, "{state}");
        assert_eq!(claimed(&*x, expected[0], bench.long()).attempt(), 1, "{state}");
        assert!(x.forget(expected[0].into()).unwrap());
    }
    bench.others_notice();
    assert!(!again.is_seen("db1/disk".into()) && again.is_seen("db2/disk".into()));
    assert_eq!(check_all(&*again, &["db1/disk", "db2/disk"]), [Verdict::New, Verdict::Duplicate]);
    // By the filter's scope, through a handle of another.
    assert_eq!(store.remove(everything().scope("x").state(State::Seen)).unwrap(), 3);
    assert_eq!(ids(store, everything().scope("x")), ["changed", "in flight"]);
}

pub(crate) fn a_removal_spares_claims_that_bind_unless_asked_for_them(place: &dyn Place) {
    let bench = mixed(place);
    let store = bench.store().scope("x");
    assert_eq!(store.count(everything()).unwrap(), 7);
    assert_eq!(store.remove(everything()).unwrap(), 7);
    assert_eq!(ids(&*store, everything().scope("x")), ["changed", "in flight", "unresolved"]);
    assert_eq!(store.remove(everything()).unwrap(), 0);
    assert_eq!(state(&*store, "unresolved"), State::Unresolved);
    assert_eq!(store.remove(everything().state(State::Unresolved)).unwrap(), 1);
    assert_eq!(store.remove(everything().state(State::InFlight)).unwrap(), 2);
    assert_eq!(ids(&*store, everything().scope("x")), [""; 0]);
    assert_eq!(bench.store().count(everything()).unwrap(), 3, "other scopes keep theirs");
}

pub(crate) fn what_has_expired_is_listed_only_if_asked_for(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let short = store.ttl(bench.short().into());
    let kept = short.retention(Some(bench.long()));
    assert_eq!(check_all(&*short, &["expired"]), [Verdict::New]);
    assert_eq!(check_all(&*kept, &["kept"]), [Verdict::New]);
    assert_eq!(check_all(store, &["alive"]), [Verdict::New]);
    claimed(&*short, "attempts", bench.short()).fail("503").unwrap();
    bench.short_passes();
    for store in [store, &*again] {
        assert_eq!(ids(store, everything()), ["alive"]);
        assert_eq!(store.count(everything()).unwrap(), 1);
        assert_eq!(ids(store, everything().state(State::Seen)), ["alive"]);
        let expired = ids(store, everything().state(State::Expired));
        // What no retention keeps may be gone.
        assert!(expired == ["kept"] || expired == ["expired", "kept"], "{expired:?}");
        let counted = store.count(everything().state(State::Expired)).unwrap();
        assert!((1..=2).contains(&counted), "{counted}");
    }
    assert_eq!(store.remove(everything()).unwrap(), 1);
    assert_eq!(entry(store, "kept").state, State::Expired, "what is not asked for stays");
    let removed = store.remove(everything().state(State::Expired)).unwrap();
    assert!((1..=2).contains(&removed), "{removed}");
    assert_eq!(get(store, "kept"), None);
    assert_eq!(ids(store, everything().state(State::Expired)), [""; 0]);
}

pub(crate) fn a_long_listing_has_each_entry_once(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let all: BTreeSet<String> = (0..1_800).map(|n| format!("{n:04}")).collect();
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    let (marks, claims) = texts.split_at(1_300);
    assert_eq!(store.seed(&items(marks)).unwrap(), 1_300);
    drop(store.claim_all(&items(claims), bench.long()).unwrap());
    for store in [store, &*again] {
        let found = ids(store, everything());
        assert_eq!(found.len(), all.len());
        assert!(found.iter().eq(&all));
        assert_eq!(ids(store, everything().prefix("04")).len(), 100);
        assert_eq!(store.count(everything()).unwrap(), 1_800);
        assert_eq!(store.entries(everything()).take(3).count(), 3, "it may end early");
    }
    // What is written between two entries disturbs nothing: what was there throughout is listed once.
    let (mut found, mut added) = (BTreeSet::new(), 0);
    for (n, entry) in store.entries(everything().state(State::Seen)).enumerate() {
        let id = String::from_utf8(entry.unwrap().id).unwrap();
        assert!(found.insert(id.clone()), "{id} twice");
        if n % 100 == 0 {
            store.mark_seen((&id).into()).unwrap();
            assert_eq!(check(&*again, format!("new {n}")), Verdict::New);
            added += 1;
        }
    }
    assert!(marks.iter().all(|id| found.contains(*id)));
    assert_eq!(store.remove(everything()).unwrap(), 1_800 + added);
    assert_eq!(ids(store, everything()), [""; 0]);
}

/// The listing of a store that is a trait object can be kept by its caller.
pub(crate) fn a_listing_can_be_iterated_by_hand(place: &dyn Place) {
    let bench = Bench::new(place);
    let store: &dyn Store = bench.store();
    assert_eq!(check_all(store, &["a", "b"]), [Verdict::New; 2]);
    let mut listing = store.entries(everything());
    assert!(listing.next().unwrap().is_ok() && listing.next().unwrap().is_ok());
    assert!(listing.next().is_none() && listing.next().is_none());
}
