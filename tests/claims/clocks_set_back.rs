//! Claims under a clock that was set back since they were made.

use seen_store::{
    Claim, Clock as _, Filter, Lease, Ownership, Reader, Result, SeenStore, State, Verdict,
};

use crate::bench::{Bench, LEASE, TTL, granted, until};
use crate::common::{Place, ms, secs};

/// Each way in which a holder gives its id back without a delay.
type GiveBack = (&'static str, fn(&SeenStore, Lease));
const GIVE_BACKS: [GiveBack; 5] = [
    ("release", |_, mut lease| lease.release().unwrap()),
    ("drop", |_, lease| drop(lease)),
    ("fail", |_, mut lease| lease.fail("why").unwrap()),
    ("release by token", |store, lease| {
        let id = lease.id().to_vec();
        store.release(&id, &lease.into_token()).unwrap();
    }),
    ("release_all", |store, lease| {
        let (id, token) = (lease.id().to_vec(), lease.into_token());
        assert_eq!(store.release_all([(id, token)]).unwrap(), [Ownership::Held]);
    }),
];

#[test]
fn an_id_that_was_given_back_can_be_claimed_at_once_though_the_clock_is_set_back_by_days() {
    for (case, give_back) in GIVE_BACKS {
        for back in [ms(60_001), TTL * 5] {
            let bench = Bench::new();
            let lease = bench.granted("a");
            bench.clock.advance(secs(30));
            give_back(&bench.store, lease);
            let (ended, expires) = (bench.clock.now(), bench.entry("a").expires_at);
            assert_eq!(expires, Some(ended + TTL), "{case}: one TTL after the moment it ended");
            bench.clock.set(ended - back);
            let now = bench.clock.now();
            let reader = Reader::open_with(bench.place.path(), bench.config.clone()).unwrap();
            for entry in [bench.entry("a"), reader.get("a").unwrap().unwrap()] {
                assert!(entry.lease_until.unwrap() <= now, "{case}: {entry:?}");
                assert_eq!(entry.expires_at, expires, "{case}");
                assert_ne!(entry.state, State::InFlight, "{case}");
            }
            assert_eq!(bench.store.stats().unwrap().in_flight, 0, "{case}");
            // What another store takes over is free there too.
            let elsewhere = Place::in_ram();
            let copy = elsewhere.open(bench.config.clone());
            let entries: Vec<_> =
                bench.store.entries(Filter::default()).map(Result::unwrap).collect();
            assert_eq!(copy.restore(entries).unwrap().added, 1);
            for store in [&bench.store, &copy] {
                assert_eq!(granted(store.claim("a", LEASE).unwrap()).attempt(), 2, "{case}");
            }
        }
    }
}

#[test]
fn what_was_exported_after_a_release_is_free_wherever_it_is_imported_under_an_earlier_clock() {
    let bench = Bench::new();
    let lease = bench.granted("a");
    bench.clock.advance(secs(30));
    drop(lease);
    let entries: Vec<_> = bench.store.entries(Filter::default()).map(Result::unwrap).collect();
    let elsewhere = Place::in_ram();
    let copy = elsewhere.open(bench.config.clone());
    assert_eq!(copy.restore(entries).unwrap().added, 1);
    bench.clock.set(bench.clock.now() - TTL * 5);
    assert_eq!(granted(copy.claim("a", LEASE).unwrap()).attempt(), 2);
}

#[test]
fn a_retry_delay_is_void_once_the_clock_stands_more_than_a_minute_before_the_claim() {
    let delay = secs(10);
    for (back, is_void) in [(ms(60_000), false), (ms(60_001), true), (TTL * 5, true)] {
        let bench = Bench::with(|config| config.retry_delay(delay));
        let claimed = bench.clock.now();
        let mut lease = bench.granted("a");
        bench.clock.advance(secs(5));
        lease.fail("why").unwrap();
        let again = bench.after(delay);
        bench.clock.set(claimed - back);
        // A store that is opened now has not seen the later time.
        let store = bench.place.open(bench.config.clone());
        let reader = Reader::open_with(bench.place.path(), bench.config.clone()).unwrap();
        let now = bench.clock.now();
        for entry in [store.get("a").unwrap(), reader.get("a").unwrap()] {
            let entry = entry.unwrap();
            assert_eq!(entry.state, State::Failed);
            assert_eq!(entry.lease_until, Some(if is_void { now } else { again }), "{back:?}");
        }
        assert_eq!(store.stats().unwrap().failed, 1);
        match store.claim("a", LEASE).unwrap() {
            Claim::Granted(lease) => assert_eq!((lease.attempt(), is_void), (2, true), "{back:?}"),
            Claim::InFlight { until, .. } => {
                assert_eq!((until, is_void), (again, false), "{back:?}");
            }
            other => panic!("{back:?}: {other:?}"),
        }
    }
}

#[test]
fn a_failure_after_the_clock_was_set_back_has_its_delay() {
    let bench = Bench::with(|config| config.retry_delay(secs(10)));
    let mut lease = bench.granted("a");
    bench.clock.set(bench.clock.now() - TTL);
    lease.fail("why").unwrap();
    let again = bench.after(secs(10));
    assert_eq!(until(&bench.claim("a")), again);
    assert_eq!(bench.entry("a").lease_until, Some(again));
    bench.clock.advance(secs(10));
    assert_eq!(bench.granted("a").attempt(), 2);
}

#[test]
fn a_lease_that_is_held_keeps_its_end_when_the_clock_is_set_back() {
    let bench = Bench::new();
    let _held = bench.granted("a");
    let end = bench.after(LEASE);
    bench.clock.set(bench.clock.now() - TTL);
    assert_eq!(until(&bench.claim("a")), end);
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::InFlight);
}
