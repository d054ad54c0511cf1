//! Claims in scopes, in every kind of store, and between several stores on one file.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use seen_store::{ErrorKind, Lease, SeenStore, State, Verdict};

use crate::bench::{
    Bench, LEASE, TTL, VERBS, assert_kind, assert_lost, assert_seen, claim_rows, granted, until,
};
use crate::common::{Place, clock_and_config};

#[test]
fn scopes_keep_their_claims_apart() {
    let bench = Bench::new();
    let stores = ["", "one", "two"].map(|scope| bench.store.scope(scope));
    let mut leases = stores.each_ref().map(|store| granted(store.claim("a", LEASE).unwrap()));
    assert_eq!(leases.each_ref().map(Lease::attempt), [1; 3]);
    assert_lost(stores[1].confirm("a", &leases[2].token()));
    leases[1].confirm().unwrap();
    leases[2].fail("why").unwrap();
    assert_eq!(stores.each_ref().map(|store| store.is_seen("a")), [false, true, false]);
    let states = stores.each_ref().map(|store| store.get("a").unwrap().unwrap().state);
    assert_eq!(states, [State::InFlight, State::Seen, State::Failed]);
    assert!(stores[2].forget("a").unwrap());
    assert_eq!(stores[2].get("a").unwrap(), None);
    assert_eq!(until(&stores[0].claim("a", LEASE).unwrap()), bench.after(LEASE));
}

#[test]
fn odd_ids_are_claimed_like_any_other_and_none_for_another() {
    let bench = Bench::new();
    let long = "x".repeat(65_536);
    let ids: [&[u8]; 10] = [
        b"a",
        b"A",
        b"a ",
        b" a",
        b"a\0",
        b"\0",
        b"\xff\xfe",
        "\u{e9}".as_bytes(),
        b"e\xcc\x81",
        long.as_bytes(),
    ];
    let mut leases: Vec<Lease> =
        bench.store.claim_all(ids, LEASE).unwrap().into_iter().map(granted).collect();
    for (id, lease) in ids.iter().zip(&mut leases) {
        assert_eq!(lease.id(), *id);
        assert_eq!(until(&bench.store.claim(id, LEASE).unwrap()), bench.after(LEASE));
        lease.confirm().unwrap();
        assert_seen(&bench.store.claim(id, LEASE).unwrap());
        assert_eq!(bench.store.get(id).unwrap().unwrap().id, *id);
    }
    for id in ["", &format!("{long}x")] {
        assert_kind(bench.store.claim(id, LEASE), ErrorKind::InvalidId);
        assert_kind(bench.store.confirm(id, &leases[0].token()), ErrorKind::InvalidId);
    }
}

#[test]
fn stats_count_ids_by_state() {
    let bench = Bench::new();
    let stats = |bench: &Bench| {
        let stats = bench.store.stats().unwrap();
        (stats.seen, stats.in_flight, stats.failed)
    };
    bench.store.mark_seen("marked").unwrap();
    let mut confirmed = bench.granted("confirmed");
    let _held = granted(bench.store.scope("s").claim("held", LEASE * 2).unwrap());
    bench.granted("failed").fail("why").unwrap();
    bench.granted("released").release().unwrap();
    assert_eq!(stats(&bench), (1, 2, 1));
    confirmed.confirm().unwrap();
    assert_eq!(stats(&bench), (2, 1, 1));
    let _retry = bench.granted("failed");
    assert_eq!(stats(&bench), (2, 2, 0));
    bench.clock.advance(LEASE);
    assert_eq!(stats(&bench), (2, 1, 0));
    bench.clock.advance(TTL);
    assert_eq!(stats(&bench), (0, 0, 0));
}

#[test]
fn claims_survive_closing_and_opening() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    bench.granted("failed").fail("why").unwrap();
    let open = bench.granted("b");
    let ends = open.expires_at();
    bench.store.close().unwrap();
    // Nothing can be released any more; the lease sees to it.
    drop(open);
    let store = bench.place.open(bench.config.clone());
    assert_eq!(until(&store.claim("a", LEASE).unwrap()), ends);
    assert_eq!(until(&store.claim("b", LEASE).unwrap()), ends);
    assert_eq!(granted(store.claim("failed", LEASE).unwrap()).attempt(), 2);
    store.confirm("a", &token.to_string().parse().unwrap()).unwrap();
    bench.clock.advance(LEASE);
    assert_eq!(granted(store.claim("b", LEASE).unwrap()).attempt(), 2);
}

#[test]
fn claims_work_in_memory_and_in_exclusive_mode() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let config = config.ttl(TTL);
    let stores =
        [SeenStore::in_memory_with(config.clone()).unwrap(), place.open(config.exclusive(true))];
    for store in stores {
        let mut stale = granted(store.claim("a", LEASE).unwrap());
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::InFlight);
        clock.advance(LEASE);
        let mut taker = granted(store.claim("a", LEASE).unwrap());
        assert_lost(stale.confirm());
        taker.fail("why").unwrap();
        let mut third = granted(store.claim("a", LEASE).unwrap());
        third.confirm_with("receipt").unwrap();
        assert_seen(&store.claim("a", LEASE).unwrap());
        let entry = store.get("a").unwrap().unwrap();
        assert_eq!((entry.attempts, entry.receipt), (3, Some(b"receipt".to_vec())));
        drop(store.claim("b", LEASE).unwrap());
        clock.advance(TTL);
        store.purge_expired().unwrap();
        assert_eq!(granted(store.claim("b", LEASE).unwrap()).attempt(), 1);
    }
}

#[test]
fn a_read_only_store_shows_claims_and_refuses_to_change_them() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    bench.store.mark_seen("seen").unwrap();
    let reader = bench.place.open(bench.config.clone().read_only(true));
    let before = bench.file();
    assert_eq!(reader.get("a").unwrap().unwrap().state, State::InFlight);
    assert_eq!(reader.stats().unwrap().in_flight, 1);
    assert_seen(&reader.claim("seen", LEASE).unwrap());
    assert_kind(reader.claim("a", LEASE), ErrorKind::ReadOnly);
    assert_kind(reader.claim("b", LEASE), ErrorKind::ReadOnly);
    assert_kind(reader.claim_all(["b"], LEASE), ErrorKind::ReadOnly);
    for (_, _, by_token) in VERBS {
        assert_kind(by_token(&reader, "a", &token), ErrorKind::ReadOnly);
    }
    assert_eq!(bench.file(), before);
}

#[test]
fn what_one_store_does_with_a_claim_another_on_the_file_sees_at_once() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    for round in 0..20 {
        let id = format!("round {round}");
        let mut lease = bench.granted(&id);
        assert_eq!(until(&other.claim(&id, LEASE).unwrap()), lease.expires_at());
        assert_eq!(other.check_and_mark(&id).unwrap(), Verdict::InFlight);
        assert_eq!(other.get(&id).unwrap().unwrap().state, State::InFlight);
        lease.release().unwrap();
        let theirs = granted(other.claim(&id, LEASE).unwrap());
        assert_eq!(theirs.attempt(), 2);
        assert_eq!(until(&bench.claim(&id)), theirs.expires_at());
        bench.store.confirm(&id, &theirs.token()).unwrap();
        assert_seen(&other.claim(&id, LEASE).unwrap());
        assert!(other.is_seen(&id));
    }
}

/// A store remembers that there are no claims, which must not outlast another's first one.
#[test]
fn a_store_that_knew_of_no_claims_learns_of_anothers_first() {
    for looks in [false, true] {
        let bench = Bench::new();
        let other = bench.place.open(bench.config.clone());
        assert_eq!(other.check_and_mark("unclaimed").unwrap(), Verdict::New);
        let mut lease = bench.granted("a");
        if looks {
            assert!(!other.is_seen("whatever"), "a miss asks the file");
        }
        assert_eq!(other.check_and_mark("a").unwrap(), Verdict::InFlight);
        other.mark_seen("a").unwrap();
        lease.confirm().unwrap();
        assert_eq!(claim_rows(&bench.place.sql()), 0);
        // And the other way round, after the last claim has gone.
        let theirs = granted(other.claim("b", LEASE).unwrap());
        assert_eq!(bench.store.check_and_mark("b").unwrap(), Verdict::InFlight);
        drop(theirs);
        assert_eq!(bench.store.check_and_mark("b").unwrap(), Verdict::New);
    }
}

/// Also at the moment of the change: whoever asks in between is told the one or the other.
#[test]
fn an_id_that_another_store_confirms_is_never_unknown() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    let (claimed, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=10_000_u64 {
                let mut lease = granted(other.claim(n.to_be_bytes(), LEASE).unwrap());
                claimed.store(n, SeqCst);
                lease.confirm().unwrap();
            }
            done.store(true, SeqCst);
        });
        while !done.load(SeqCst) {
            let n = claimed.load(SeqCst);
            let found = bench.store.get(n.to_be_bytes()).unwrap();
            assert!(n == 0 || found.is_some(), "nothing is known of {n}, which was claimed");
        }
    });
}
