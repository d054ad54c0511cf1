//! Purges and cleanups: they take what is over, and nothing else.

use std::time::UNIX_EPOCH;

use seen_store::{Abandoned, ErrorKind, Failure, Filter, State, Ttl, Verdict};

use crate::Place;
use crate::bench::{
    Bench, assert_kind, check, check_all, claimed, entry, get, ids, items, state, word,
};

pub(crate) fn a_purge_takes_nothing_that_is_of_use(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let short = store.ttl(bench.short().into());
    assert_eq!(check_all(&*short, &["expired 1", "expired 2"]), [Verdict::New; 2]);
    assert_eq!(check(&*short.retention(Some(bench.long())), "kept"), Verdict::New);
    assert_eq!(check_all(store, &["alive", "alive"])[0], Verdict::New);
    claimed(store, "receipt", bench.long()).confirm_with("4711").unwrap();
    claimed(store, "failed", bench.long()).fail("503").unwrap();
    claimed(&*short.abandoned(Abandoned::Hold), "held", bench.units(1)).into_token();
    let mut lease = claimed(&*short, "in flight", bench.long());
    assert_eq!(store.purge_expired().unwrap(), 0, "nothing has expired");
    bench.short_passes();
    let live = ["alive", "receipt", "failed", "held", "in flight", "kept"];
    let before = live.map(|id| entry(store, id));
    // Those that the server has dropped by itself are not counted.
    let purged = store.purge_expired().unwrap() + again.purge_expired().unwrap();
    assert!(purged <= 2, "{purged}");
    assert_eq!(live.map(|id| entry(store, id)), before);
    assert_eq!(ids(store, Filter::default().state(State::Expired)), ["kept"]);
    assert_eq!(store.purge_expired().unwrap(), 0);
    assert_eq!(check_all(&*again, &["alive", "expired 1"]), [Verdict::Duplicate, Verdict::New]);
    assert_eq!(check(&*again, "kept"), Verdict::New);
    assert_eq!(entry(&*again, "kept").history.unwrap().windows, 1);
    lease.confirm().unwrap();
}

pub(crate) fn a_cleanup_takes_what_was_last_seen_long_ago(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let now = bench.now();
    let long_ago = now - bench.units(200);
    for id in ["old", "refreshed", "repeated", "old too"] {
        store.mark_seen_at(id.into(), long_ago).unwrap();
    }
    store.scope("x").mark_seen_at("old".into(), long_ago).unwrap();
    store.mark_seen("new".into()).unwrap();
    store.mark_seen("refreshed".into()).unwrap();
    assert_eq!(check(store, "repeated"), Verdict::Duplicate);
    assert_eq!(store.cleanup_old_entries(bench.units(300)).unwrap(), 0);
    assert_eq!(store.cleanup_old_entries(bench.units(100)).unwrap(), 2);
    assert_eq!(store.cleanup_old_entries(bench.units(100)).unwrap(), 0);
    assert_eq!(ids(store, Filter::default().scope("")), ["new", "refreshed", "repeated"]);
    assert!(store.scope("x").is_seen("old".into()), "it is of the handle's scope");
    bench.others_notice();
    assert_eq!(check_all(&*again, &["old", "new"]), [Verdict::New, Verdict::Duplicate]);
    assert_eq!(store.scope("x").cleanup_old_entries(bench.units(100)).unwrap(), 1);
    assert_eq!(store.cleanup_old_entries(std::time::Duration::MAX).unwrap(), 0);
}

pub(crate) fn a_cleanup_takes_claims_that_are_over_and_spares_those_that_bind(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let lease = bench.units(1);
    drop(claimed(store, "released", lease));
    claimed(store, "failed", lease).fail("503").unwrap();
    claimed(store, "given up", lease).fail(Failure::new("404").is_final()).unwrap();
    claimed(store, "abandoned", lease).into_token();
    claimed(&*store.abandoned(Abandoned::Hold), "held", lease).into_token();
    let mut held = claimed(store, "in flight", bench.long());
    claimed(store, "delayed", lease).fail(Failure::new("429").retry_after(bench.long())).unwrap();
    store.mark_seen("marked".into()).unwrap();
    bench.passes(50);
    drop(claimed(store, "fresh", lease));
    // The four that are over, and the mark.
    assert_eq!(store.cleanup_old_entries(bench.units(20)).unwrap(), 5);
    assert_eq!(ids(store, Filter::default()), ["delayed", "fresh", "held", "in flight"]);
    assert_eq!(get(store, "abandoned"), None);
    assert_eq!(claimed(store, "failed", bench.long()).attempt(), 1, "its attempts are forgotten");
    assert_eq!(
        (word(store, "held", lease), word(store, "delayed", lease)),
        ("unresolved", "in flight")
    );
    held.confirm().unwrap();
    assert!(store.is_seen("in flight".into()));
    assert_eq!(claimed(store, "fresh", bench.long()).attempt(), 2);
}

pub(crate) fn a_cleanup_of_no_age_takes_all_that_is_not_of_now(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    assert_eq!(store.seed(&items(&["a", "b", "c"])).unwrap(), 3);
    let _held = claimed(store, "in flight", bench.long());
    bench.passes(1);
    assert_eq!(store.cleanup_old_entries(std::time::Duration::ZERO).unwrap(), 3);
    assert_eq!(state(store, "in flight"), State::InFlight);
    assert_eq!(check_all(store, &["a", "b"]), [Verdict::New; 2]);
}

pub(crate) fn what_marks_no_id_does_not_judge_for_how_long_marks_are_kept(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    store.mark_seen_at("a".into(), bench.now() - bench.units(200)).unwrap();
    store.mark_seen_at("b".into(), bench.now() - bench.units(20)).unwrap();
    // A handle by which nothing can be marked: the retention ends before the TTL.
    let unfit = store.retention(Some(bench.short()));
    assert_kind(unfit.mark_seen("c".into()), ErrorKind::InvalidConfig);
    assert_eq!(unfit.count(Filter::default()).unwrap(), 2);
    assert_eq!(ids(&*unfit, Filter::default()), ["a", "b"]);
    assert_eq!(unfit.stats().unwrap().seen, 2);
    assert_eq!(unfit.cleanup_old_entries(bench.units(100)).unwrap(), 1);
    assert_eq!(unfit.remove(Filter::default().prefix("b")).unwrap(), 1);
}

pub(crate) fn times_before_1970_are_listed_as_they_are(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, early) = (bench.store(), UNIX_EPOCH - bench.units(100));
    store.ttl(Ttl::Never).mark_seen_at("a".into(), early).unwrap();
    for store in [store, &*bench.again()] {
        let entry = entry(store, "a");
        assert_eq!((entry.first_seen, entry.last_seen), (early, early));
    }
}
