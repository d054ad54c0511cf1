//! The life of a claim: granted, then confirmed, given back or taken over.
#![expect(clippy::unchecked_time_subtraction, reason = "below zero it panics, as a test should")]

use std::panic::{catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use seen_store::{Claim, Clock as _, ErrorKind, Lease, Ownership, Result, State, Token};

use crate::bench::{
    Bench, LEASE, TTL, VERBS, assert_kind, assert_lost, assert_seen, claim_rows, granted, until,
};
use crate::common::{ms, secs};

#[test]
fn an_id_is_granted_once_in_flight_for_others_and_seen_after_its_confirm() {
    let bench = Bench::new();
    let ends = bench.after(LEASE);
    let mut lease = bench.granted("a");
    assert_eq!((lease.id(), lease.attempt(), lease.expires_at()), (&b"a"[..], 1, ends));
    bench.clock.advance(secs(20));
    for _ in 0..2 {
        assert_eq!(until(&bench.claim("a")), ends);
    }
    assert!(!bench.store.is_seen("a"));
    lease.confirm().unwrap();
    assert_seen(&bench.claim("a"));
    assert!(bench.store.is_seen("a"));
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.attempts), (State::Seen, 1));
    assert_eq!(entry.expires_at, Some(bench.after(TTL)), "a confirm is when the mark begins");
    assert_eq!((entry.first_seen, entry.last_seen), (ends - LEASE, bench.clock.now()));
    assert_eq!(claim_rows(&bench.place.sql()), 0);
}

#[test]
fn of_many_threads_one_is_granted_the_id() {
    let bench = Bench::new();
    let barrier = Barrier::new(8);
    for id in 0..50_u32 {
        let claims: Vec<Claim> = thread::scope(|scope| {
            let claim = || {
                barrier.wait();
                bench.store.claim(id.to_be_bytes(), LEASE).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let granted = claims.iter().filter(|claim| matches!(claim, Claim::Granted(_))).count();
        let waiting = claims.iter().filter(|claim| matches!(claim, Claim::InFlight { .. })).count();
        assert_eq!((granted, waiting), (1, 7), "{claims:?}");
    }
}

#[test]
fn attempts_count_on_over_a_release_a_failure_a_drop_and_a_lease_that_ran_out() {
    let bench = Bench::new();
    let mut tokens = Vec::new();
    for attempt in 1..=5 {
        let mut lease = bench.granted("a");
        assert_eq!(lease.attempt(), attempt);
        assert!(!tokens.contains(&lease.token()), "a token came twice");
        tokens.push(lease.token());
        match attempt {
            1 => lease.release().unwrap(),
            2 => lease.fail("no answer").unwrap(),
            3 => drop(lease),
            4 => {
                lease.into_token();
                bench.clock.advance(LEASE);
            }
            _ => lease.confirm().unwrap(),
        }
    }
    let entry = bench.entry("a");
    assert_eq!((entry.attempts, entry.last_error.as_deref()), (5, Some("no answer")));
}

#[test]
fn a_lease_of_zero_is_an_error_and_changes_nothing() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    let token = lease.token();
    let before = bench.file();
    let zero = Duration::ZERO;
    assert_kind(bench.store.claim("b", zero), ErrorKind::InvalidClaim);
    assert_kind(bench.store.claim_all(["b", "c"], zero), ErrorKind::InvalidClaim);
    assert_kind(lease.renew(zero), ErrorKind::InvalidClaim);
    assert_kind(bench.store.renew("a", &token, zero), ErrorKind::InvalidClaim);
    assert_kind(bench.store.renew_all([("a", token)], zero), ErrorKind::InvalidClaim);
    assert_eq!(bench.file(), before);
    // The shortest lease lasts a millisecond.
    let shortest = bench.store.claim("b", Duration::from_nanos(1)).unwrap();
    assert_eq!(granted(shortest).expires_at(), bench.after(ms(1)));
}

#[test]
fn a_dead_holders_id_is_taken_over_when_its_lease_ends_and_not_a_millisecond_before() {
    let bench = Bench::new();
    let dead = bench.granted("a");
    let ends = dead.expires_at();
    let dead = dead.into_token();
    bench.clock.advance(LEASE - ms(1));
    assert_eq!(until(&bench.claim("a")), ends);
    bench.clock.advance(ms(1));
    let taker = bench.granted("a");
    assert_eq!(taker.attempt(), 2);
    assert_ne!(taker.token(), dead);
    assert_eq!(until(&bench.claim("a")), bench.after(LEASE));
}

#[test]
fn a_lease_can_be_renewed_before_and_after_it_ran_out() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    let token = lease.token();
    for (wait, renewal) in [(secs(30), LEASE), (LEASE - ms(1), LEASE), (secs(500), secs(5))] {
        bench.clock.advance(wait);
        lease.renew(renewal).unwrap();
        assert_eq!(lease.expires_at(), bench.after(renewal));
        assert_eq!(until(&bench.claim("a")), bench.after(renewal));
    }
    bench.store.renew("a", &token, secs(7)).unwrap();
    assert_eq!(bench.entry("a").lease_until, Some(bench.after(secs(7))));
    assert_eq!(bench.entry("a").attempts, 1);
    bench.clock.advance(secs(7));
    assert_eq!(bench.granted("a").attempt(), 2);
}

#[test]
fn a_lease_that_ran_out_and_was_not_taken_over_is_still_its_holders() {
    let bench = Bench::new();
    for (verb, by_lease, by_token) in VERBS {
        let (one, other) = (format!("{verb} by lease"), format!("{verb} by token"));
        let (mut lease, token) = (bench.granted(&one), bench.granted(&other).into_token());
        bench.clock.advance(LEASE * 100);
        assert_eq!(bench.entry(&one).state, State::Abandoned);
        by_lease(&mut lease).unwrap();
        by_token(&bench.store, &other, &token).unwrap();
        let state = match verb {
            "confirm" | "confirm_with" => State::Seen,
            "renew" => State::InFlight,
            "release" => State::Released,
            _ => State::Failed,
        };
        assert_eq!([&one, &other].map(|id| bench.entry(id).state), [state; 2], "{verb}");
    }
}

#[test]
fn a_holder_that_was_taken_over_is_told_by_every_verb_and_changes_nothing() {
    type Step = fn(&mut Lease) -> Result<()>;
    let takers: [(&str, Step); 5] = [
        ("holds", |_| Ok(())),
        ("has renewed", |lease| lease.renew(LEASE * 2)),
        ("has confirmed", |lease| lease.confirm_with("the taker's")),
        ("has failed", |lease| lease.fail("the taker's")),
        ("has released", Lease::release),
    ];
    for (taker, step) in takers {
        for (verb, by_lease, by_token) in VERBS {
            let bench = Bench::new();
            let (mut stale, mut lease) = bench.taken_over("a");
            step(&mut lease).unwrap();
            let before = bench.file();
            let said = format!("{verb} of a stale holder while the taker {taker}");
            assert_lost(by_lease(&mut stale));
            assert_eq!(bench.file(), before, "{said}, by lease");
            assert_lost(by_token(&bench.store, "a", &stale.token()));
            assert_eq!(bench.file(), before, "{said}, by token");
            drop(stale);
            assert_eq!(bench.file(), before, "{said}, dropped");
            // The taker notices nothing of it.
            if taker != "has failed" && taker != "has released" {
                lease.confirm().unwrap();
            }
        }
    }
}

#[test]
fn a_holder_that_was_taken_over_is_told_in_a_batch_while_the_others_are_served() {
    let bench = Bench::new();
    let stale = bench.granted("stale").into_token();
    bench.clock.advance(LEASE);
    let _taker = bench.granted("stale");
    let claims =
        || [("held", bench.granted("held").into_token()), ("stale", stale)].map(|c| (c.0, c.1));
    let (held, lost) = (Ownership::Held, Ownership::Lost);
    assert_eq!(bench.store.release_all(claims()).unwrap(), [held, lost]);
    let again = claims();
    assert_eq!(bench.store.renew_all(again, LEASE * 3).unwrap(), [held, lost]);
    assert_eq!(bench.entry("held").lease_until, Some(bench.after(LEASE * 3)));
    assert_eq!(bench.entry("stale").lease_until, Some(bench.after(LEASE)));
    assert_eq!(bench.store.confirm_all(again).unwrap(), [held, lost]);
    assert!(bench.store.is_seen("held") && !bench.store.is_seen("stale"));
    assert_eq!(bench.store.confirm_all(again).unwrap(), [held, lost]);
}

#[test]
fn confirming_again_with_the_same_token_is_ok_and_changes_nothing() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    lease.confirm_with("receipt").unwrap();
    let before = bench.file();
    lease.confirm().unwrap();
    lease.confirm_with("another receipt").unwrap();
    let token: Token = lease.token().to_string().parse().unwrap();
    drop(lease);
    bench.store.confirm("a", &token).unwrap();
    let other = bench.place.open(bench.config.clone());
    other.confirm("a", &token).unwrap();
    other.confirm_with("a", &token, "a third").unwrap();
    assert_eq!(bench.file(), before);
    assert_eq!(other.get("a").unwrap().unwrap().receipt.as_deref(), Some(&b"receipt"[..]));
    // What is done cannot be undone with the token either.
    for result in [
        other.renew("a", &token, LEASE),
        other.release("a", &token),
        other.fail("a", &token, "too late"),
    ] {
        assert_lost(result);
    }
    assert_eq!(bench.file(), before);
}

#[test]
fn a_token_confirms_from_another_store_and_only_its_own_id() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    let _b = bench.granted("b");
    let other = bench.place.open(bench.config.clone());
    let text = token.to_string();
    assert_lost(other.confirm("b", &text.parse().unwrap()));
    assert_lost(other.scope("s").confirm("a", &text.parse().unwrap()));
    assert_lost(other.confirm("never claimed", &token));
    other.confirm("a", &text.to_uppercase().parse().unwrap()).unwrap();
    assert_seen(&bench.claim("a"));
}

#[test]
fn a_dropped_lease_releases_its_id_also_during_a_panic() {
    let bench = Bench::new();
    drop(bench.granted("a"));
    assert_eq!(bench.entry("a").state, State::Released);
    let store = &bench.store;
    let panicked = catch_unwind(|| {
        let _lease = granted(store.claim("a", LEASE).unwrap());
        resume_unwind(Box::new("the send panicked"));
    });
    assert!(panicked.is_err());
    assert_eq!(bench.granted("a").attempt(), 3);
    drop(bench.store.claim_all(["a", "b"], LEASE).unwrap());
    assert_eq!(bench.store.stats().unwrap().in_flight, 0);
    // A renewal ends nothing, so that the lease is still released.
    let mut lease = bench.granted("a");
    lease.renew(LEASE).unwrap();
    drop(lease);
    assert_eq!(bench.granted("a").attempt(), 6);
}

#[test]
fn a_lease_whose_confirm_was_attempted_in_vain_is_not_released_when_dropped() {
    let bench = Bench::with(|config| config.busy_timeout(ms(1)));
    let attempts: [fn(&mut Lease) -> Result<()>; 2] = [Lease::confirm, |l| l.confirm_with("r")];
    for (id, attempt) in ["a", "b"].into_iter().zip(attempts) {
        let mut lease = bench.granted(id);
        let token = lease.token();
        let blocker = bench.place.sql();
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(assert_kind(attempt(&mut lease), ErrorKind::Busy).is_retryable());
        blocker.execute_batch("ROLLBACK").unwrap();
        // The way is free again: it is not the drop that fails.
        drop(lease);
        assert_eq!(until(&bench.claim(id)), bench.after(LEASE));
        bench.store.confirm(id, &token).unwrap();
    }
    let mut lease = bench.granted("c");
    assert_kind(lease.confirm_with(vec![0; 65_537]), ErrorKind::InvalidClaim);
    drop(lease);
    assert_eq!(until(&bench.claim("c")), bench.after(LEASE));
}

#[test]
fn a_confirm_that_failed_can_be_tried_again() {
    let bench = Bench::with(|config| config.busy_timeout(ms(1)));
    let mut lease = bench.granted("a");
    let blocker = bench.place.sql();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_kind(lease.confirm_with("r"), ErrorKind::Busy);
    assert!(!bench.store.is_seen("a"));
    blocker.execute_batch("ROLLBACK").unwrap();
    lease.confirm_with("r").unwrap();
    assert_eq!(bench.entry("a").receipt.as_deref(), Some(&b"r"[..]));
}

#[test]
fn a_token_taken_from_its_lease_keeps_the_claim() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    assert_eq!(until(&bench.claim("a")), bench.after(LEASE));
    bench.store.confirm("a", &token).unwrap();
    assert_seen(&bench.claim("a"));
}
