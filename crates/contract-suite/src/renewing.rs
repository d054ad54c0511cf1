//! Leases that renew themselves. Stores do that in real time, whatever their clock shows.

use std::thread;
use std::time::Duration;

use seen_store::{Lease, State};

use crate::Place;
use crate::bench::{Bench, claimed, entry, state, word};

/// A lease, in real time. It is renewed after a third of it.
const LEASE: Duration = Duration::from_millis(1_200);

/// Waits until the condition holds; fails after a long time.
fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..4_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}");
}

/// Lets half a lease pass, and waits until all have been renewed since.
fn half_a_lease_passes(bench: &Bench<'_>, leases: &[Lease]) {
    let ends: Vec<_> = leases.iter().map(Lease::expires_at).collect();
    bench.place.time_passes(LEASE / 2);
    until("no renewal", || leases.iter().zip(&ends).all(|(lease, end)| lease.expires_at() > *end));
}

pub(crate) fn a_lease_that_renews_itself_outlives_its_length(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let renewing = store.renewing(Duration::from_secs(3_600));
    let mut leases = vec![claimed(&*renewing, "a", LEASE), claimed(&*renewing, "b", LEASE)];
    let batch = renewing.claim_all(&["c".into(), "d".into()], LEASE).unwrap();
    leases.extend(batch.into_iter().map(crate::bench::granted));
    for _ in 0..5 {
        half_a_lease_passes(&bench, &leases);
    }
    for lease in &leases {
        assert!(lease.is_held().unwrap());
        let id = lease.id();
        assert_eq!(word(&*again, id, bench.long()), "in flight");
        assert_eq!((entry(store, id).attempts, state(store, id)), (1, State::InFlight));
    }
    // It ends with the lease, however that ends.
    let mut leases = leases.into_iter();
    let mut next = || leases.next().unwrap();
    let mut confirmed = next();
    confirmed.confirm().unwrap();
    assert!(!confirmed.was_late());
    drop(next());
    let mut failed = next();
    failed.fail("503").unwrap();
    let token = next().into_token();
    let states = ["a", "b", "c", "d"].map(|id| state(&*again, id));
    assert_eq!(states, [State::Seen, State::Released, State::Failed, State::InFlight]);
    until("a token is renewed", || {
        bench.place.time_passes(LEASE / 4);
        state(&*again, "d") == State::Abandoned
    });
    store.confirm("d".into(), &token).unwrap();
}

pub(crate) fn a_lease_is_renewed_no_longer_than_asked_for(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let mut lease = claimed(&*store.renewing(LEASE / 2), "a", LEASE);
    let unlimited = claimed(&*store.renewing(Duration::MAX), "b", LEASE);
    thread::sleep(LEASE / 2);
    until("it never ends", || {
        half_a_lease_passes(&bench, std::slice::from_ref(&unlimited));
        !lease.is_held().unwrap()
    });
    assert_eq!(state(store, "a"), State::Abandoned);
    assert!(unlimited.is_held().unwrap());
    lease.confirm().unwrap();
    assert!(lease.was_late());
}

pub(crate) fn a_renewal_never_shortens_a_lease(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let renewing = store.renewing(Duration::from_secs(3_600));
    let mut lease = claimed(&*renewing, "a", LEASE);
    lease.renew(bench.long()).unwrap();
    let end = lease.expires_at();
    let others = [claimed(&*renewing, "b", LEASE)];
    half_a_lease_passes(&bench, &others);
    half_a_lease_passes(&bench, &others);
    assert!(lease.expires_at() >= end);
    assert!(entry(store, "a").lease_until.unwrap() >= end);
}

pub(crate) fn a_lease_that_was_lost_is_not_renewed(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let renewing = store.renewing(Duration::from_secs(3_600));
    let lease = claimed(&*renewing, "a", LEASE);
    let others = [claimed(&*renewing, "b", LEASE)];
    assert!(again.forget("a".into()).unwrap());
    let next = claimed(&*again, "a", bench.long());
    let before = entry(&*again, "a");
    half_a_lease_passes(&bench, &others);
    half_a_lease_passes(&bench, &others);
    assert!(!lease.is_held().unwrap() && next.is_held().unwrap());
    assert_eq!(entry(&*again, "a"), before);
}
