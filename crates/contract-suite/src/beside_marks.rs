//! Marks and checks of an id that a worker has claimed.

use std::time::Duration;

use seen_store::{ErrorKind, Item, State, Verdict};

use crate::Place;
use crate::bench::{Bench, assert_kind, check, check_all, claimed, entry, items, known, word};

pub(crate) fn a_mark_ends_a_claim_and_its_holder_may_confirm_it(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let ids = ["marked", "seeded", "marked elsewhere"];
    let mut leases = ids.map(|id| claimed(store, id, bench.long()));
    store.mark_seen("marked".into()).unwrap();
    assert_eq!(store.seed(&items(&["seeded"])).unwrap(), 1);
    again.mark_seen("marked elsewhere".into()).unwrap();
    for (id, lease) in ids.into_iter().zip(&mut leases) {
        assert_eq!(check(store, id), Verdict::Duplicate, "{id}");
        assert_eq!(word(&*again, id, bench.long()), "seen", "{id}");
        assert!(!lease.is_held().unwrap(), "{id}");
        assert_eq!((entry(store, id).state, entry(store, id).attempts), (State::Seen, 1), "{id}");
        let token = lease.token();
        assert_kind(store.release(id.into(), &token), ErrorKind::LeaseLost);
        assert_kind(store.renew(id.into(), &token, bench.long()), ErrorKind::LeaseLost);
        lease.confirm_with("4711").unwrap();
        let seen = known(again.claim(id.into(), bench.long()).unwrap());
        assert_eq!(seen.receipt().unwrap().as_deref(), Some(&b"4711"[..]), "{id}");
    }
    // Dropped, such a lease releases nothing.
    let lease = claimed(store, "dropped", bench.long());
    store.mark_seen("dropped".into()).unwrap();
    drop(lease);
    assert!(store.is_seen("dropped".into()));
}

pub(crate) fn a_mark_of_a_claimed_id_lasts_until_its_lease_ends_at_least(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let short = store.ttl(bench.units(1).into());
    let lease = claimed(store, "a", bench.long());
    let until = lease.expires_at();
    short.mark_seen("a".into()).unwrap();
    assert_eq!(entry(store, "a").expires_at, Some(until));
    bench.passes(2);
    assert_eq!(check(store, "a"), Verdict::Duplicate);
    // A mark that would expire at once is not made, and the claim stays.
    let mut lease = claimed(store, "b", bench.long());
    store.ttl(Duration::ZERO.into()).mark_seen("b".into()).unwrap();
    store.mark_seen_at("b".into(), bench.now() - bench.long() * 2).unwrap();
    assert!(lease.is_held().unwrap() && !store.is_seen("b".into()));
    assert_eq!(
        (word(store, "b", bench.long()), check(store, "b")),
        ("in flight", Verdict::InFlight)
    );
    // A mark of a time before the claim, which lives, ends it.
    store.mark_seen_at("b".into(), bench.now() - bench.units(10)).unwrap();
    assert!(!lease.is_held().unwrap() && store.is_seen("b".into()));
    lease.confirm().unwrap();
}

pub(crate) fn a_check_leaves_a_claim_in_flight_alone(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let mut lease = claimed(store, "a", bench.long());
    let before = entry(store, "a");
    for store in [store, &*again] {
        assert_eq!(check(store, "a"), Verdict::InFlight);
        assert_eq!(check_all(store, &["a", "a"]), [Verdict::InFlight; 2]);
        assert_eq!(store.observe("a".into()).unwrap().verdict, Verdict::InFlight);
        assert_eq!(check(&*store.ttl(Duration::ZERO.into()), "a"), Verdict::InFlight);
    }
    let after = entry(store, "a");
    assert_eq!((after.lease_until, after.attempts), (before.lease_until, before.attempts));
    assert_eq!((after.state, after.expires_at), (before.state, before.expires_at));
    assert!(lease.is_held().unwrap());
    lease.confirm().unwrap();
}

pub(crate) fn a_mark_of_an_id_whose_attempt_is_over_knows_of_it(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    claimed(store, "marked", bench.long()).fail("503").unwrap();
    claimed(store, "checked", bench.long()).fail("503").unwrap();
    let mut abandoned = claimed(store, "abandoned", bench.short());
    bench.short_passes();
    store.mark_seen("marked".into()).unwrap();
    assert_eq!(check(store, "checked"), Verdict::New);
    store.mark_seen("abandoned".into()).unwrap();
    for id in ["marked", "checked"] {
        let entry = entry(store, id);
        assert_eq!((entry.state, entry.attempts), (State::Seen, 1), "{id}");
        assert_eq!(entry.last_error.as_deref(), Some("503"), "{id}");
    }
    assert_eq!(entry(store, "abandoned").attempts, 1);
    // `mark_seen` is told by somebody who knows: the holder has nothing to add. A check has taken the id for itself.
    abandoned.confirm().unwrap();
}

pub(crate) fn a_mark_that_is_over_by_itself_is_decided_beside_the_claim(place: &dyn Place) {
    let bench = Bench::new(place);
    for (kept, scope) in [(None, "over"), (Some(bench.units(1_000)), "kept")] {
        let store = bench.store().scope(scope);
        let short = store.ttl(bench.units(100).into()).retention(kept);
        let over = bench.now() - bench.units(200);
        for id in ["unclaimed", "in flight", "released"] {
            let mut lease = (id != "unclaimed").then(|| claimed(&*store, id, bench.long()));
            if id == "released" {
                lease.take().unwrap().release().unwrap();
            }
            short.mark_seen_at(id.into(), over).unwrap();
            assert!(!store.is_seen(id.into()), "{scope} {id}");
            let still_held = lease.map(|mut lease| lease.confirm().is_ok());
            assert_ne!(still_held, Some(false), "{scope} {id}: the claim is its holder's");
        }
        assert!(store.is_seen("in flight".into()), "{scope}: it was confirmed");
        assert_eq!(claimed(&*store, "unclaimed", bench.long()).attempt(), 1, "{scope}");
    }
}

pub(crate) fn items_of_a_batch_that_differ_are_decided_beside_the_claim(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let token = claimed(store, "a", bench.long()).into_token();
    let differing = [Item::new("a").payload("99 EUR"), Item::new("a").version("2")];
    // Of themselves they would conflict. They do not come to that: the id is in flight.
    assert_eq!(store.check_and_mark_all(&differing).unwrap(), [Verdict::InFlight; 2]);
    for item in differing {
        assert_eq!(store.check_and_mark(item).unwrap(), Verdict::InFlight);
    }
    store.confirm("a".into(), &token).unwrap();
}
