//! Claims, confirms, renewals and releases of many ids in one call.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use seen_store::{Claim, Config, ErrorKind, ManualClock, Ownership, Token};

use crate::bench::{Bench, LEASE, TTL, assert_kind, assert_lost, claim_rows, granted, until};
use crate::common::{Place, ms, secs};

#[test]
fn a_batch_of_claims_is_one_commit_with_an_answer_for_each_in_order() {
    let bench = Bench::new();
    bench.store.mark_seen("seen").unwrap();
    let theirs = bench.granted("theirs");
    bench.clock.advance(secs(1));
    let before = bench.commits();
    let claims = bench.store.claim_all(["a", "seen", "a", "theirs", "b", "b"], LEASE).unwrap();
    assert_eq!(bench.commits(), before + 1);
    let ours = bench.after(LEASE);
    let [Claim::Granted(a), Claim::Seen(_), rest @ ..] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!((a.id(), until(&rest[0])), (&b"a"[..], ours));
    assert_eq!(until(&rest[1]), theirs.expires_at());
    let Claim::Granted(b) = &rest[2] else { panic!("{claims:?}") };
    assert_eq!((b.id(), b.attempt(), until(&rest[3])), (&b"b"[..], 1, ours));
    assert_ne!(a.token(), b.token());
    assert!(bench.store.claim_all([""; 0], LEASE).unwrap().is_empty());
    // An invalid id spoils the batch before anything is claimed.
    let before = bench.file();
    assert_kind(bench.store.claim_all(["c", ""], LEASE), ErrorKind::InvalidId);
    assert_eq!(bench.file(), before);
}

#[test]
fn batches_confirm_renew_and_release_in_one_commit_each() {
    let bench = Bench::new();
    let held = |ids: [&'static str; 3]| -> Vec<(&'static str, Token)> {
        let claims = bench.store.claim_all(ids, LEASE).unwrap();
        ids.into_iter().zip(claims.into_iter().map(|claim| granted(claim).into_token())).collect()
    };
    let all = [Ownership::Held; 3];
    let claims = held(["a", "b", "c"]);
    let before = bench.commits();
    bench.clock.advance(secs(1));
    assert_eq!(bench.store.renew_all(claims.clone(), LEASE).unwrap(), all);
    assert_eq!(bench.commits(), before + 1);
    assert_eq!(until(&bench.claim("c")), bench.after(LEASE));
    let before = bench.commits();
    assert_eq!(bench.store.release_all(claims.clone()).unwrap(), all);
    assert_eq!(bench.commits(), before + 1);
    assert_eq!(bench.store.release_all(claims).unwrap(), [Ownership::Lost; 3]);
    let claims = held(["a", "b", "c"]);
    let before = bench.commits();
    assert_eq!(bench.store.confirm_all(claims.clone()).unwrap(), all);
    assert_eq!(bench.commits(), before + 1);
    assert!(["a", "b", "c"].iter().all(|id| bench.store.is_seen(id)));
    // Equal claims in a batch: the second finds what the first has done.
    let twice = bench.granted("d").into_token();
    let (held, lost) = (Ownership::Held, Ownership::Lost);
    assert_eq!(bench.store.confirm_all([("d", twice), ("d", twice)]).unwrap(), [held, held]);
    let twice = bench.granted("e").into_token();
    assert_eq!(bench.store.release_all([("e", twice), ("e", twice)]).unwrap(), [held, lost]);
    // A mark that expires at once leaves nothing that could be confirmed again, as one by one.
    let brief = bench.store.ttl(Duration::ZERO);
    let (one, twice) = (bench.granted("f").into_token(), bench.granted("g").into_token());
    brief.confirm("f", &one).unwrap();
    assert_lost(brief.confirm("f", &one));
    assert_eq!(brief.confirm_all([("g", twice), ("g", twice)]).unwrap(), [held, lost]);
}

/// A store remembers the claims that it knows to be the only ones, and then deletes them all at once.
#[test]
fn a_batch_that_is_confirmed_leaves_the_claims_of_other_stores_alone() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    let tokens = |claims: Vec<Claim>| claims.into_iter().map(|claim| granted(claim).into_token());
    let ours: Vec<Token> = tokens(bench.store.claim_all(["a", "b"], LEASE).unwrap()).collect();
    let theirs = granted(other.claim("theirs", LEASE).unwrap()).into_token();
    let confirmed = bench.store.confirm_all(["a", "b"].into_iter().zip(ours)).unwrap();
    assert_eq!(confirmed, [Ownership::Held; 2]);
    assert!(matches!(bench.claim("theirs"), Claim::InFlight { .. }));
    other.confirm("theirs", &theirs).unwrap();
    assert!(bench.store.is_seen("theirs") && bench.store.is_seen("a"));
}

#[test]
fn a_batch_that_is_confirmed_in_part_leaves_the_rest_claimed() {
    let bench = Bench::new();
    let claims = bench.store.claim_all(["a", "b", "c"], LEASE).unwrap();
    let tokens: Vec<Token> = claims.into_iter().map(|claim| granted(claim).into_token()).collect();
    let confirmed = bench.store.confirm_all([("b", tokens[1])]).unwrap();
    assert_eq!(confirmed, [Ownership::Held]);
    assert!(matches!(bench.claim("a"), Claim::InFlight { .. }));
    // What the file holds, not what the store remembers.
    let count: i64 =
        bench.place.sql().query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2);
    bench.store.confirm("a", &tokens[0]).unwrap();
    bench.store.confirm("c", &tokens[2]).unwrap();
    assert!(bench.store.is_seen("a") && bench.store.is_seen("c"));
}

/// What a transaction that came to nothing had noted of claims must be forgotten with it.
#[test]
fn a_batch_that_was_refused_leaves_no_claim_behind() {
    let bench = Bench::new();
    drop(granted(bench.claim("before")));
    let a = granted(bench.claim("a")).into_token();
    let locker = bench.place.sql();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let impatient = bench.place.open(bench.config.clone().busy_timeout(Duration::from_millis(1)));
    assert_kind(impatient.claim_all(["b"], LEASE), ErrorKind::Busy);
    locker.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(impatient.claim("b", LEASE).unwrap(), Claim::Granted(_)));
    bench.store.confirm("a", &a).unwrap();
}

#[test]
fn a_batch_that_meets_expired_claims_leaves_only_its_own() {
    let bench = Bench::with(|config| config.purge_interval(None));
    drop(bench.store.claim_all(["a", "b", "c"], LEASE).unwrap());
    bench.clock.advance(TTL);
    let leases: Vec<_> =
        bench.store.claim_all(["b", "c"], LEASE).unwrap().into_iter().map(granted).collect();
    assert!(leases.iter().all(|lease| lease.attempt() == 1));
    let held = leases.into_iter().map(|lease| (lease.id().to_vec(), lease.into_token()));
    assert_eq!(bench.store.confirm_all(held).unwrap(), [Ownership::Held; 2]);
    assert_eq!(claim_rows(&bench.place.sql()), 1);
    assert!(!bench.store.forget("a").unwrap());
    assert_eq!(claim_rows(&bench.place.sql()), 0);
}

/// A clock that is a millisecond later at each reading, so that each commit has a time of its own.
struct Ticking(ManualClock);

impl seen_store::Clock for Ticking {
    fn now(&self) -> SystemTime {
        self.0.advance(ms(1));
        self.0.now()
    }
}

#[test]
fn batches_of_claims_are_committed_10_000_at_a_time() {
    let place = Place::in_ram();
    let clock = Arc::new(Ticking(ManualClock::default()));
    let store = place.open(Config::default().clock(clock).purge_interval(None));
    let sql = place.sql();
    let times = |sql_text: &str| -> i64 {
        sql.query_row(&format!("SELECT count(DISTINCT {sql_text}"), [], |row| row.get(0)).unwrap()
    };
    let ids: Vec<_> = (0..25_000).map(|n| format!("id {n}")).chain(["id 1".to_owned()]).collect();
    let mut claims = store.claim_all(&ids, secs(600)).unwrap();
    assert!(matches!(claims.pop(), Some(Claim::InFlight { .. })), "the second of two equal ids");
    assert_eq!(times("claimed_at) FROM claims"), 3);
    let claims: Vec<_> = ids
        .iter()
        .zip(claims)
        .map(|(id, claim)| match claim {
            Claim::Granted(lease) => (id, lease.into_token()),
            other => panic!("{other:?}"),
        })
        .collect();
    let held = |owned: Vec<Ownership>| {
        owned.len() == 25_000 && owned.iter().all(|owned| *owned == Ownership::Held)
    };
    assert!(held(store.renew_all(claims.iter().copied(), secs(6_000)).unwrap()));
    assert_eq!(times("lease_until) FROM claims"), 3);
    assert!(held(store.confirm_all(claims.iter().copied()).unwrap()));
    assert_eq!(times("last_seen) FROM seen"), 3);
    let others = store.scope("other");
    let claims = others.claim_all(&ids[..25_000], secs(600)).unwrap();
    let tokens = claims.into_iter().map(|claim| match claim {
        Claim::Granted(lease) => lease.into_token(),
        other => panic!("{other:?}"),
    });
    assert!(held(others.release_all(ids.iter().zip(tokens)).unwrap()));
    assert_eq!(times("lease_until) FROM claims"), 3);
}
