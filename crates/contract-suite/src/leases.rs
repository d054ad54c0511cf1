//! The lease in the hands of its worker: renewed, dropped, given away.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use seen_store::{ErrorKind, State};

use crate::Place;
use crate::bench::{Bench, SHORT, assert_kind, check, claimed, entry, state, word};

pub(crate) fn a_renewed_lease_ends_later(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let mut renewed = claimed(store, "renewed", bench.short());
    let mut by_token = claimed(store, "by token", bench.short());
    let plain = claimed(store, "plain", bench.short());
    let now = bench.now();
    renewed.renew(bench.long()).unwrap();
    bench.assert_near(renewed.expires_at(), now + bench.long());
    assert_eq!(entry(store, "renewed").lease_until, Some(renewed.expires_at()));
    assert_eq!(entry(store, "renewed").expires_at, Some(renewed.expires_at() + bench.long()));
    again.renew("by token".into(), &by_token.token(), bench.long()).unwrap();
    bench.short_passes();
    assert!(renewed.is_held().unwrap() && by_token.is_held().unwrap() && !plain.is_held().unwrap());
    assert_eq!(word(&*again, "renewed", bench.long()), "in flight");
    assert_eq!(word(&*again, "by token", bench.long()), "in flight");
    renewed.confirm().unwrap();
    by_token.confirm().unwrap();
    assert!(!renewed.was_late() && !by_token.was_late());
    assert_eq!(entry(store, "renewed").attempts, 1, "a renewal is no attempt");
    // It ends so long from now, which may be sooner than before.
    let mut shorter = claimed(store, "shorter", bench.long());
    shorter.renew(bench.short()).unwrap();
    bench.short_passes();
    assert!(!shorter.is_held().unwrap());
    assert_eq!(word(&*again, "shorter", bench.long()), "granted");
}

pub(crate) fn a_lease_that_is_dropped_is_released(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    drop(claimed(store, "dropped", bench.long()));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _lease = claimed(store, "panicked", bench.long());
        assert_eq!(state(store, "panicked"), State::InFlight);
        resume_unwind(Box::new("no route"));
    }));
    assert!(panicked.is_err());
    let mut renewed = claimed(store, "renewed", bench.short());
    renewed.renew(bench.long()).unwrap();
    drop(renewed);
    let forgotten = store.claim("forgotten".into(), bench.long()).unwrap();
    drop(forgotten);
    for id in ["dropped", "panicked", "renewed", "forgotten"] {
        assert_eq!(state(store, id), State::Released, "{id}");
        assert_eq!(claimed(&*again, id, bench.long()).attempt(), 2, "{id}");
    }
    // To a thread that panics too.
    let ended = std::thread::scope(|threads| {
        let worker = threads.spawn(|| {
            let _lease = claimed(store, "thread", bench.long());
            resume_unwind(Box::new("no route"));
        });
        worker.join().is_err()
    });
    assert!(ended);
    assert_eq!(state(store, "thread"), State::Released);
    assert_eq!(check(store, "thread"), seen_store::Verdict::New);
}

pub(crate) fn a_lease_whose_end_was_told_is_not_released_when_it_is_dropped(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let token = claimed(store, "given away", bench.long()).into_token();
    assert_eq!(state(store, "given away"), State::InFlight);
    claimed(store, "confirmed", bench.long()).confirm().unwrap();
    claimed(store, "failed", bench.long()).fail("503").unwrap();
    assert_eq!((state(store, "confirmed"), state(store, "failed")), (State::Seen, State::Failed));
    store.confirm("given away".into(), &token).unwrap();
    // Each end is told once.
    let mut lease = claimed(store, "a", bench.long());
    lease.release().unwrap();
    assert_kind(lease.release(), ErrorKind::LeaseLost);
    assert_kind(lease.confirm(), ErrorKind::LeaseLost);
    let mut lease = claimed(store, "a", bench.long());
    lease.fail("503").unwrap();
    assert_kind(lease.fail("504"), ErrorKind::LeaseLost);
    assert_kind(lease.confirm(), ErrorKind::LeaseLost);
    assert_eq!(
        (state(store, "a"), entry(store, "a").last_error.as_deref()),
        (State::Failed, Some("503"))
    );
}

pub(crate) fn a_lease_tells_whether_it_is_held(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let is_held = |lease: &seen_store::Lease| lease.is_held().unwrap();
    let mut lease = claimed(store, "a", bench.long());
    assert!(is_held(&lease));
    lease.release().unwrap();
    assert!(!is_held(&lease), "released");
    let mut next = claimed(&*again, "a", bench.long());
    assert!(is_held(&next) && !is_held(&lease));
    next.confirm().unwrap();
    assert!(!is_held(&next), "confirmed");
    let lease = claimed(store, "b", bench.units(SHORT));
    bench.short_passes();
    assert!(!is_held(&lease), "run out");
    let mut next = claimed(&*again, "b", bench.long());
    assert!(!is_held(&lease) && is_held(&next), "taken over");
    next.fail("503").unwrap();
    assert!(!is_held(&next), "failed");
    let lease = claimed(store, "c", bench.long());
    again.mark_seen("c".into()).unwrap();
    assert!(!is_held(&lease), "marked");
}

pub(crate) fn a_lease_outlives_the_handle_that_granted_it(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let scope = store.scope("x").ttl(bench.long().into());
    let mut lease = claimed(&*scope, "a", bench.long());
    drop(scope);
    assert!(lease.is_held().unwrap());
    lease.confirm_with("4711").unwrap();
    assert_eq!(entry(&*store.scope("x"), "a").receipt.as_deref(), Some(&b"4711"[..]));
    assert!(!store.is_seen("a".into()), "it is of its scope");
}
