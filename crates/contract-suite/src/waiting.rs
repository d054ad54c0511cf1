//! Claims that wait for the present holder.

use std::thread;
use std::time::Duration;

use seen_store::{Abandoned, Claim, Failure, Store};

use crate::Place;
use crate::bench::{Bench, check, claimed, granted, known, word};

/// Longer than any test takes.
const MINUTE: Duration = Duration::from_secs(60);

/// Gives a thread that is about to ask the time to wait. Nothing outside tells that it does.
fn let_it_wait() {
    thread::sleep(Duration::from_millis(150));
}

/// Lets a waiter through each store wait for an id that is held, and returns its answer to what the holder then does.
fn waited_for(bench: &Bench<'_>, end: impl Fn(seen_store::Lease)) -> [Claim; 2] {
    let again = bench.again();
    let answer = |waiter: &dyn Store, id: &str| {
        let lease = claimed(bench.store(), id, bench.long());
        thread::scope(|threads| {
            let claim =
                threads.spawn(|| waiter.waiting(MINUTE).claim(id.into(), bench.long()).unwrap());
            let_it_wait();
            assert!(!claim.is_finished(), "it does not wait");
            end(lease);
            claim.join().unwrap()
        })
    };
    [answer(bench.store(), "waited for"), answer(&*again, "waited for elsewhere")]
}

pub(crate) fn a_waiter_is_granted_what_its_holder_gives_up(place: &dyn Place) {
    let bench = Bench::new(place);
    for claim in waited_for(&bench, drop) {
        assert_eq!(granted(claim).attempt(), 2);
    }
    let bench = Bench::new(place);
    for claim in waited_for(&bench, |mut lease| lease.fail("503").unwrap()) {
        let lease = granted(claim);
        assert_eq!(*lease.previous(), seen_store::Previous::Failed { error: "503".to_owned() });
    }
    let bench = Bench::new(place);
    for claim in waited_for(&bench, |mut lease| lease.fail(Failure::new("404").is_final()).unwrap())
    {
        assert!(matches!(claim, Claim::GivenUp { attempts: 1 }), "{claim:?}");
    }
    let bench = Bench::new(place);
    for claim in waited_for(&bench, |lease| {
        let id = String::from_utf8(lease.id().to_vec()).unwrap();
        assert!(bench.store().forget((&id).into()).unwrap());
    }) {
        assert_eq!(granted(claim).attempt(), 1);
    }
}

pub(crate) fn a_waiter_gets_the_receipt_of_what_was_done(place: &dyn Place) {
    let bench = Bench::new(place);
    for claim in waited_for(&bench, |mut lease| lease.confirm_with("4711").unwrap()) {
        assert_eq!(known(claim).receipt().unwrap().as_deref(), Some(&b"4711"[..]));
    }
    let bench = Bench::new(place);
    for claim in waited_for(&bench, |lease| {
        let id = String::from_utf8(lease.id().to_vec()).unwrap();
        bench.store().mark_seen((&id).into()).unwrap();
    }) {
        assert_eq!(known(claim).receipt().unwrap(), None);
    }
}

pub(crate) fn a_waiter_gets_what_its_holder_abandons(place: &dyn Place) {
    let bench = Bench::new(place);
    for (id, abandoned, expected) in
        [("a", Abandoned::Retry, "granted"), ("b", Abandoned::Hold, "unresolved")]
    {
        let store = bench.store().abandoned(abandoned);
        claimed(&*store, id, bench.short()).into_token();
        let waiter = bench.again().waiting(MINUTE);
        let answer = thread::scope(|threads| {
            let claim = threads.spawn(|| word(&*waiter, id, bench.long()));
            let_it_wait();
            bench.short_passes();
            claim.join().unwrap()
        });
        assert_eq!(answer, expected);
    }
    // The delay after a failure is waited for too.
    let failure = Failure::new("429").retry_after(bench.short());
    claimed(bench.store(), "c", bench.long()).fail(failure).unwrap();
    let waiter = bench.store().waiting(MINUTE);
    thread::scope(|threads| {
        let claim = threads.spawn(|| claimed(&*waiter, "c", bench.long()).attempt());
        let_it_wait();
        bench.short_passes();
        assert_eq!(claim.join().unwrap(), 2);
    });
}

pub(crate) fn a_waiter_whose_time_is_over_is_told_who_has_the_id(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let lease = claimed(store, "a", bench.long());
    for store in [store, &*again] {
        for at_most in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(120)] {
            match store.waiting(at_most).claim("a".into(), bench.long()).unwrap() {
                Claim::InFlight { until, holder } => {
                    assert_eq!((until, holder.as_deref()), (lease.expires_at(), Some("worker 1")));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(lease.is_held().unwrap());
}

pub(crate) fn a_waiter_does_not_wait_for_what_is_decided(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    // So long that a wait would never end.
    let waiter = store.waiting(Duration::MAX);
    assert_eq!(check(store, "seen"), seen_store::Verdict::New);
    claimed(store, "given up", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    bench.abandoned(&*store.abandoned(Abandoned::Hold), "unresolved");
    for (id, expected) in [
        ("free", "granted"),
        ("seen", "seen"),
        ("given up", "given up"),
        ("unresolved", "unresolved"),
    ] {
        assert_eq!(word(&*waiter, id, bench.long()), expected);
    }
    // A batch does not wait at all.
    let _held = claimed(store, "held", bench.long());
    let claims = waiter.claim_all(&["held".into()], bench.long()).unwrap();
    assert_eq!(crate::bench::word_of(&claims[0]), "in flight");
    assert_eq!(check(&*waiter, "held"), seen_store::Verdict::InFlight);
}

pub(crate) fn each_of_many_waiters_has_its_turn(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let first = claimed(store, "a", bench.long());
    let mut attempts: Vec<u32> = thread::scope(|threads| {
        let waiters: Vec<_> = (0..6)
            .map(|number| {
                let store = if number % 2 == 0 { store } else { &*again };
                let long = bench.long();
                threads.spawn(move || {
                    let mut lease = claimed(&*store.waiting(MINUTE), "a", long);
                    assert!(lease.is_held().unwrap());
                    lease.fail("for the next").unwrap();
                    lease.attempt()
                })
            })
            .collect();
        let_it_wait();
        drop(first);
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    });
    attempts.sort_unstable();
    assert_eq!(attempts, [2, 3, 4, 5, 6, 7]);
}
