//! When a claim that was not confirmed is forgotten.
#![expect(clippy::unchecked_time_subtraction, reason = "below zero it panics, as a test should")]

use std::time::Duration;

use seen_store::{Filter, Ttl};

use crate::bench::{Bench, LEASE, TTL, claim_rows, granted, until};
use crate::common::ms;

/// Claims three ids and ends them in each way that leaves them unconfirmed, at the present time.
fn leave_unconfirmed(bench: &Bench) -> [&'static str; 3] {
    bench.granted("ran out").into_token();
    bench.clock.advance(LEASE);
    bench.granted("released").release().unwrap();
    bench.granted("failed").fail("why").unwrap();
    ["ran out", "released", "failed"]
}

#[test]
fn a_claim_that_was_not_confirmed_expires_one_ttl_after_its_last_change() {
    for advance in [TTL - ms(1), TTL] {
        let bench = Bench::new();
        let ids = leave_unconfirmed(&bench);
        bench.clock.advance(advance);
        for id in ids {
            let entry = bench.store.get(id).unwrap();
            if advance < TTL {
                assert_eq!(entry.unwrap().expires_at, Some(bench.after(ms(1))));
                assert_eq!(bench.granted(id).attempt(), 2, "{id}");
            } else {
                assert_eq!(entry, None, "{id}");
                assert_eq!(bench.store.entries(Filter::default()).count(), 0);
                assert_eq!(bench.store.stats().unwrap().failed, 0);
                assert!(!bench.store.forget(id).unwrap(), "there is nothing to forget");
                drop(bench.granted(id));
                assert_eq!(bench.granted(id).attempt(), 2, "the count began again at 1");
                assert!(bench.store.forget(id).unwrap());
            }
        }
    }
}

#[test]
fn a_claim_in_flight_does_not_expire_though_its_lease_is_longer_than_the_ttl() {
    let bench = Bench::new();
    let mut lease = granted(bench.store.claim("a", TTL * 3).unwrap());
    bench.clock.advance(TTL * 3 - ms(1));
    bench.store.purge_expired().unwrap();
    assert_eq!(until(&bench.claim("a")), bench.after(ms(1)));
    lease.confirm().unwrap();
    // The attempts of a store whose marks never expire do not either.
    let never = bench.store.ttl(Ttl::Never);
    drop(never.claim("b", LEASE).unwrap());
    bench.clock.advance(TTL * 1_000);
    bench.store.purge_expired().unwrap();
    assert_eq!(bench.entry("b").expires_at, None);
    assert_eq!(granted(never.claim("b", LEASE).unwrap()).attempt(), 2);
}

#[test]
fn a_purge_removes_expired_claims_and_no_others() {
    let bench = Bench::with(|config| config.purge_interval(None));
    // More than a step of the purge goes through.
    let ids: Vec<String> = (0..2_500).map(|n| n.to_string()).collect();
    drop(bench.store.claim_all(&ids, LEASE).unwrap());
    let sql = bench.place.sql();
    bench.clock.advance(TTL - LEASE);
    leave_unconfirmed(&bench);
    assert_eq!(claim_rows(&sql), 2_503);
    assert_eq!(bench.store.purge_expired().unwrap(), 0, "claims are no marks");
    assert_eq!(claim_rows(&sql), 3);
    bench.clock.advance(TTL - ms(1));
    bench.store.purge_expired().unwrap();
    assert_eq!(claim_rows(&sql), 3);
    bench.clock.advance(ms(1));
    bench.store.purge_expired().unwrap();
    assert_eq!(claim_rows(&sql), 0);
}

#[test]
fn commits_purge_expired_claims_by_and_by() {
    let bench = Bench::with(|config| config.purge_interval(Duration::from_secs(3_600)));
    let ids: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    drop(bench.store.claim_all(&ids, LEASE).unwrap());
    let _in_flight = granted(bench.store.claim("in flight", TTL * 2).unwrap());
    let sql = bench.place.sql();
    bench.clock.advance(TTL - ms(1));
    for n in 0..50 {
        bench.store.mark_seen(format!("one {n}")).unwrap();
    }
    assert_eq!(claim_rows(&sql), 1_001);
    bench.clock.advance(Duration::from_secs(3_600));
    for n in 0..50 {
        bench.store.mark_seen(format!("other {n}")).unwrap();
    }
    assert_eq!(claim_rows(&sql), 1);
}
