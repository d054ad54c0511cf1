//! How attempts end, what the next one is told of it, and when there is none.

use seen_store::{
    Claim, ErrorKind, Failure, Lease, Previous, Resolution, RetryDelay, State, Store, Verdict,
};

use crate::Place;
use crate::bench::{Bench, SHORT, assert_kind, check, claimed, entry, get, ids, state, word};

/// Ends an attempt.
type End = fn(Lease);

/// Ends an attempt, by its lease or through another store.
type EndThrough = fn(Lease, &dyn Store);

pub(crate) fn the_next_attempt_is_told_how_the_one_before_ended(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let failed = |error: &str| Previous::Failed { error: error.to_owned() };
    let ends: [(State, EndThrough, Previous); 6] = [
        (State::Released, |lease, _| drop(lease), Previous::Released),
        (State::Released, |mut lease, _| lease.release().unwrap(), Previous::Released),
        (State::Failed, |mut lease, _| lease.fail("503").unwrap(), failed("503")),
        (State::Failed, |mut lease, _| lease.fail("").unwrap(), failed("")),
        (State::Failed, |mut lease, _| lease.fail(Failure::new("é\0\n")).unwrap(), failed("é\0\n")),
        (
            State::Released,
            |lease, again| again.release("a".into(), &lease.into_token()).unwrap(),
            Previous::Released,
        ),
    ];
    let mut last_error = None;
    for (n, (left, end, previous)) in (0..).zip(ends) {
        let lease = claimed(store, "a", bench.long());
        assert_eq!(lease.attempt(), 2 * n + 1, "attempts are counted on");
        end(lease, &*again);
        if let Previous::Failed { error } = &previous {
            last_error = Some(error.clone());
        }
        for store in [store, &*again] {
            let entry = entry(store, "a");
            assert_eq!((entry.state, entry.attempts), (left, 2 * n + 1));
            assert_eq!(
                (entry.last_error, entry.abandoned),
                (last_error.clone(), 0),
                "the last error stays"
            );
            assert!(!store.is_seen("a".into()));
        }
        assert_eq!(*claimed(&*again, "a", bench.long()).previous(), previous, "{n}");
    }
    // A confirmed id keeps both.
    let mut lease = claimed(store, "a", bench.long());
    lease.confirm().unwrap();
    let entry = entry(store, "a");
    assert_eq!((entry.attempts, entry.last_error), (13, last_error));
}

pub(crate) fn a_failed_id_can_be_claimed_again_after_its_delay(place: &dyn Place) {
    let unit = place.unit();
    let delays = |config: seen_store::Config| config.retry_delay(unit * SHORT);
    let bench = Bench::with(place, delays);
    let (store, again) = (bench.store(), bench.again());
    let now = bench.now();
    claimed(store, "delay of the store", bench.long()).fail("503").unwrap();
    let fail = |id: &str, delay| {
        claimed(store, id, bench.long()).fail(Failure::new("429").retry_after(delay)).unwrap();
    };
    fail("delay of the failure", bench.short());
    fail("long", bench.long());
    fail("none", std::time::Duration::ZERO);
    for store in [store, &*again] {
        for id in ["delay of the store", "delay of the failure", "long"] {
            match store.claim(id.into(), bench.long()).unwrap() {
                Claim::InFlight { until, holder } => {
                    let delay = if id == "long" { bench.long() } else { bench.short() };
                    bench.assert_near(until, now + delay);
                    assert_eq!(holder.as_deref(), Some("worker 1"));
                    assert_eq!(entry(store, id).lease_until, Some(until));
                }
                other => panic!("{id}: {other:?}"),
            }
            assert_eq!(state(store, id), State::Failed);
        }
    }
    assert_eq!(claimed(store, "none", bench.long()).attempt(), 2);
    // To a check a failed id is new at once.
    fail("checked", bench.long());
    assert_eq!(check(&*again, "checked"), Verdict::New);
    assert_eq!(entry(store, "checked").attempts, 1);
    bench.short_passes();
    for id in ["delay of the store", "delay of the failure"] {
        let lease = claimed(&*again, id, bench.long());
        assert_eq!(lease.attempt(), 2);
        assert!(matches!(lease.previous(), Previous::Failed { .. }));
    }
    assert_eq!(word(store, "long", bench.long()), "in flight");
}

pub(crate) fn a_delay_that_doubles_lies_between_its_half_and_its_whole(place: &dyn Place) {
    let unit = place.unit();
    let delay = RetryDelay::Exponential { first: unit * 100, max: unit * 150 };
    let bench = Bench::with(place, |config| config.retry_delay(delay));
    let store = bench.store();
    for (attempt, most) in [(1, 100), (2, 150), (3, 150)] {
        let mut lease = claimed(store, "a", bench.long());
        assert_eq!(lease.attempt(), attempt);
        let now = bench.now();
        lease.fail("503").unwrap();
        let until = entry(store, "a").lease_until.unwrap();
        let delay = until.duration_since(now).unwrap();
        let margin = if place.keeps_its_own_clock() { 20 } else { 0 };
        assert!(
            delay >= bench.units(most / 2) && delay <= bench.units(most + margin),
            "{attempt}: {delay:?}"
        );
        // So that the next attempt need not wait.
        assert!(store.resolve("a".into(), Resolution::Retry).unwrap());
        for _ in 0..attempt {
            let mut lease = claimed(store, "a", bench.long());
            lease.fail(Failure::new("503").retry_after(std::time::Duration::ZERO)).unwrap();
        }
    }
}

pub(crate) fn an_id_that_failed_finally_is_given_up_until_a_decision(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    drop(claimed(store, "a", bench.long()));
    claimed(store, "a", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    for store in [store, &*again] {
        match store.claim("a".into(), bench.long()).unwrap() {
            Claim::GivenUp { attempts } => assert_eq!(attempts, 2),
            other => panic!("{other:?}"),
        }
        let entry = entry(store, "a");
        assert_eq!((entry.state, entry.attempts), (State::GivenUp, 2));
        assert_eq!(entry.last_error.as_deref(), Some("404"));
        assert!(!store.is_seen("a".into()));
    }
    assert!(again.resolve("a".into(), Resolution::Retry).unwrap());
    let lease = claimed(store, "a", bench.long());
    assert_eq!((lease.attempt(), lease.previous()), (1, &Previous::Released));
    drop(lease);
    // To a check it is new.
    claimed(store, "b", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    assert_eq!(check(store, "b"), Verdict::New);
}

pub(crate) fn after_as_many_attempts_as_allowed_an_id_is_given_up(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.max_attempts(2));
    let (store, again) = (bench.store(), bench.again());
    drop(claimed(store, "a", bench.long()));
    claimed(&*again, "a", bench.long()).fail("503").unwrap();
    for store in [store, &*again] {
        match store.claim("a".into(), bench.long()).unwrap() {
            Claim::GivenUp { attempts } => assert_eq!(attempts, 2),
            other => panic!("{other:?}"),
        }
        assert_eq!(state(store, "a"), State::Failed, "the limit is the store's");
    }
    assert!(store.resolve("a".into(), Resolution::Retry).unwrap());
    assert_eq!(claimed(store, "a", bench.long()).attempt(), 1);
    // The last attempt that is allowed may succeed.
    drop(claimed(store, "b", bench.long()));
    claimed(store, "b", bench.long()).confirm().unwrap();
    assert_eq!(word(store, "b", bench.long()), "seen");
}

pub(crate) fn the_reason_of_a_failure_is_kept_up_to_its_limit(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let long = "é".repeat(40_000);
    for (reason, kept) in
        [("x".repeat(65_536), 65_536), ("x".repeat(70_000), 65_536), (long, 65_536)]
    {
        claimed(store, "a", bench.long()).fail(reason.clone()).unwrap();
        let stored = entry(store, "a").last_error.unwrap();
        assert_eq!(stored.len(), kept);
        assert!(reason.starts_with(&stored));
    }
    // A character is not cut.
    claimed(store, "a", bench.long()).fail(format!("x{}", "é".repeat(40_000))).unwrap();
    assert_eq!(entry(store, "a").last_error.unwrap().len(), 65_535);
}

pub(crate) fn attempts_are_forgotten_one_ttl_after_their_end(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let short = store.ttl(bench.short().into());
    claimed(&*short, "failed", bench.long()).fail("503").unwrap();
    drop(claimed(&*short, "released", bench.long()));
    claimed(&*short, "given up", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    claimed(store, "remembered", bench.long()).fail("503").unwrap();
    let mut held = claimed(&*short, "held", bench.long());
    bench.short_passes();
    for id in ["failed", "released", "given up"] {
        assert_eq!(get(store, id), None, "{id}");
        let lease = claimed(store, id, bench.long());
        assert_eq!((lease.attempt(), lease.previous()), (1, &Previous::None), "{id}");
    }
    assert_eq!(claimed(store, "remembered", bench.long()).attempt(), 2);
    assert_eq!(entry(store, "held").state, State::InFlight, "a lease that runs is not forgotten");
    held.confirm().unwrap();
    assert!(store.is_seen("held".into()));
}

pub(crate) fn what_is_over_can_be_resolved(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let ends: [(&str, End); 4] = [
        ("released", drop),
        ("failed", |mut lease| lease.fail("503").unwrap()),
        ("given up", |mut lease| lease.fail(Failure::new("404").is_final()).unwrap()),
        ("abandoned", |lease| {
            lease.into_token();
        }),
    ];
    for (how, end) in ends {
        for id in [format!("{how}, done"), format!("{how}, again")] {
            end(claimed(store, &id, bench.short()));
        }
    }
    bench.short_passes();
    for (how, _) in ends {
        let (done, retried) = (format!("{how}, done"), format!("{how}, again"));
        assert!(again.resolve((&done).into(), Resolution::Done).unwrap(), "{how}");
        assert!(store.is_seen((&done).into()), "{how}");
        assert_eq!(entry(store, &done).attempts, 1, "{how}");
        assert!(again.resolve((&retried).into(), Resolution::Retry).unwrap(), "{how}");
        assert_eq!(state(store, &retried), State::Released, "{how}");
        let lease = claimed(store, &retried, bench.long());
        assert_eq!((lease.attempt(), lease.previous()), (1, &Previous::Released), "{how}");
    }
    // What is seen, in flight or unknown is not.
    assert_eq!(check(store, "seen"), Verdict::New);
    let mut held = claimed(store, "in flight", bench.long());
    for resolution in [Resolution::Done, Resolution::Retry] {
        for id in ["seen", "in flight", "unknown"] {
            assert!(!store.resolve(id.into(), resolution).unwrap(), "{id}");
        }
    }
    assert!(held.is_held().unwrap() && get(store, "unknown").is_none());
    held.confirm().unwrap();
    assert_eq!(ids(store, seen_store::Filter::default().state(State::InFlight)), [""; 0]);
}

pub(crate) fn a_lease_of_no_length_is_refused(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let none = std::time::Duration::ZERO;
    assert_kind(store.claim("a".into(), none), ErrorKind::InvalidClaim);
    assert_kind(store.claim_all(&["a".into()], none), ErrorKind::InvalidClaim);
    assert_eq!(get(store, "a"), None);
    let mut lease = claimed(store, "a", bench.long());
    let token = lease.token();
    assert_kind(lease.renew(none), ErrorKind::InvalidClaim);
    assert_kind(store.renew("a".into(), &token, none), ErrorKind::InvalidClaim);
    assert_kind(store.renew_all(&[("a".into(), token)], none), ErrorKind::InvalidClaim);
    assert!(lease.is_held().unwrap());
    assert_eq!(word(store, "b", std::time::Duration::from_nanos(1)), "granted");
}
