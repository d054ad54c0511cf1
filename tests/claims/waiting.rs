//! Callers that wait for the present holder, and leases that renew themselves.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use seen_store::{Claim, Clock, Config, ErrorKind, Lease, SeenStore, State, SystemClock};

use crate::common::{Place, ms, secs};

fn granted(store: &SeenStore, id: &str, lease: Duration) -> Lease {
    match store.claim(id, lease).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{id}: {other:?}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a call really waits")]
fn now() -> Instant {
    Instant::now()
}

/// Gives a thread that is about to ask the time to wait. Nothing outside tells that it does.
fn let_them_wait() {
    thread::sleep(ms(150));
}

#[test]
fn a_waiter_gets_the_receipt_as_soon_as_the_holder_confirms() {
    let store = SeenStore::in_memory().unwrap();
    let mut lease = granted(&store, "a", secs(60));
    thread::scope(|threads| {
        let waiter = threads.spawn(|| store.waiting(secs(30)).claim("a", secs(60)).unwrap());
        let_them_wait();
        let confirmed = now();
        lease.confirm_with("4711").unwrap();
        let Claim::Seen(known) = waiter.join().unwrap() else { panic!() };
        assert_eq!(known.receipt().unwrap(), Some(b"4711".to_vec()));
        assert!(confirmed.elapsed() < secs(5));
    });
}

#[test]
fn of_several_waiters_the_first_is_granted_first_and_each_after_the_other() {
    let store = SeenStore::in_memory().unwrap();
    let first = granted(&store, "a", secs(60));
    let (order, taken) = mpsc::channel();
    thread::scope(|threads| {
        for number in 0..4 {
            let (order, store) = (order.clone(), &store);
            threads.spawn(move || {
                let mut lease = granted(&store.waiting(secs(30)), "a", secs(60));
                order.send(number).unwrap();
                lease.fail("for the next").unwrap();
            });
            let_them_wait(); // Each is in the queue before the next.
        }
        drop(first);
    });
    drop(order);
    assert_eq!(taken.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_waiter_waits_no_longer_than_asked_for_and_is_told_who_holds_the_id() {
    let store = SeenStore::in_memory_with(Config::default().holder("worker 1")).unwrap();
    let _held = granted(&store, "a", secs(60));
    let asked = now();
    let claim = store.waiting(ms(120)).claim("a", secs(60)).unwrap();
    let Claim::InFlight { holder, .. } = claim else { panic!("{claim:?}") };
    assert_eq!(holder.as_deref(), Some("worker 1"));
    assert!((ms(120)..secs(10)).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    // A wait of zero does not wait.
    assert!(matches!(store.waiting(ms(0)).claim("a", secs(60)).unwrap(), Claim::InFlight { .. }));
}

#[test]
fn a_waiter_is_not_blocked_by_a_holder_that_vanished_or_by_another_store() {
    let place = Place::in_ram();
    let [store, other] = [0, 1].map(|_| place.open(Config::default()));
    granted(&other, "vanished", ms(150)).into_token();
    let lease = granted(&store.waiting(secs(30)), "vanished", secs(60));
    assert_eq!(lease.attempt(), 2);
    let mut held = granted(&other, "elsewhere", secs(60));
    thread::scope(|threads| {
        let waiter = threads.spawn(|| store.waiting(secs(30)).claim("elsewhere", secs(60)));
        let_them_wait();
        held.confirm().unwrap();
        assert!(matches!(waiter.join().unwrap().unwrap(), Claim::Seen(_)));
    });
}

#[test]
fn a_waiter_is_told_when_the_store_is_closed() {
    let store = SeenStore::in_memory().unwrap();
    granted(&store, "a", secs(60)).into_token();
    thread::scope(|threads| {
        let waiter = threads.spawn(|| store.waiting(secs(30)).claim("a", secs(60)));
        let_them_wait();
        store.close().unwrap();
        assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

/// Waits until the condition holds; fails after a long time.
fn until(what: &str, condition: impl Fn() -> bool) {
    let began = now();
    while !condition() {
        assert!(began.elapsed() < secs(20), "{what}");
        thread::sleep(ms(5));
    }
}

#[test]
fn a_lease_that_renews_itself_lives_until_it_is_dropped() {
    let place = Place::in_ram();
    let [store, other] = [0, 1].map(|_| place.open(Config::default()));
    let renewing = store.renewing(secs(3_600));
    let leases = ["a", "b", "c"].map(|id| granted(&renewing, id, ms(400)));
    let ends = leases[0].expires_at();
    until("no renewal", || leases.iter().all(|lease| lease.expires_at() > ends + ms(800)));
    for lease in &leases {
        assert!(lease.is_held().unwrap());
    }
    let batch = other.claim_all(["a", "b", "c"], secs(60)).unwrap();
    assert!(batch.iter().all(|claim| matches!(claim, Claim::InFlight { .. })), "{batch:?}");
    let [mut a, b, c] = leases;
    a.confirm().unwrap();
    drop(b);
    let token = c.into_token();
    assert_eq!(granted(&other, "b", secs(60)).attempt(), 2);
    // A token is not renewed.
    until("it is renewed", || matches!(other.claim("c", secs(60)).unwrap(), Claim::Granted(_)));
    assert_eq!(store.confirm("c", &token).unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(other.get("a").unwrap().unwrap().state, State::Seen);
}

#[test]
fn a_lease_is_renewed_no_longer_than_asked_for() {
    let store = SeenStore::in_memory().unwrap();
    let lease = granted(&store.renewing(ms(300)), "a", ms(200));
    until("it never ends", || !lease.is_held().unwrap());
    assert_eq!(store.get("a").unwrap().unwrap().state, State::Abandoned);
}

#[test]
fn a_panic_ends_the_renewals_with_the_lease() {
    let store = SeenStore::in_memory().unwrap();
    let renewing = store.renewing(secs(3_600));
    let panicked = thread::scope(|threads| {
        let worker = threads.spawn(|| {
            let _lease = granted(&renewing, "a", ms(300));
            std::panic::resume_unwind(Box::new("the work failed"));
        });
        worker.join()
    });
    assert!(panicked.is_err());
    assert_eq!(store.get("a").unwrap().unwrap().state, State::Released);
}

#[test]
fn a_lease_that_was_forgotten_is_not_brought_back_by_a_renewal() {
    let store = SeenStore::in_memory().unwrap();
    let lease = granted(&store.renewing(secs(60)), "a", ms(90));
    store.forget("a").unwrap();
    assert!(!lease.is_held().unwrap());
    let other = granted(&store, "a", secs(60));
    let ends = other.expires_at();
    thread::sleep(ms(120)); // Several renewals would have been due.
    assert!(other.is_held().unwrap());
    assert_eq!(store.get("a").unwrap().unwrap().lease_until, Some(ends));
}

/// A clock that panics once, in the thread that renews.
struct PanicsInRenewals(AtomicBool);

impl Clock for PanicsInRenewals {
    fn now(&self) -> SystemTime {
        if thread::current().name() == Some("seen-renew") && self.0.swap(false, SeqCst) {
            std::panic::resume_unwind(Box::new("the clock failed"));
        }
        SystemClock.now()
    }
}

#[test]
fn a_panic_in_a_renewal_ends_no_other() {
    let clock = PanicsInRenewals(AtomicBool::new(true));
    let store = SeenStore::in_memory_with(Config::default().clock(clock)).unwrap();
    let lease = granted(&store.renewing(secs(3_600)), "a", secs(3));
    let ends = lease.expires_at();
    until("no renewal", || lease.expires_at() > ends + secs(2));
    assert!(lease.is_held().unwrap());
}

#[test]
fn a_claim_that_cannot_be_read_ends_no_other_renewal() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let renewing = store.renewing(secs(3_600));
    let [_broken, sound] = ["a", "b"].map(|id| granted(&renewing, id, secs(2)));
    let sql = "UPDATE claims SET id = CAST(id AS BLOB) WHERE id = 'a'";
    assert_eq!(place.sql().execute(sql, []).unwrap(), 1);
    let ends = sound.expires_at();
    until("no renewal", || sound.expires_at() > ends + secs(1));
    assert!(sound.is_held().unwrap());
}

#[test]
fn a_holder_does_not_wait_for_a_renewal_that_waits_for_another_process() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let lease = granted(&store.renewing(secs(3_600)), "a", ms(600));
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::sleep(ms(300)); // A renewal is due, and waits.
    let began = now();
    lease.into_token();
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
    other.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_lease_is_renewed_until_it_is_ended_although_a_confirm_failed() {
    let store = SeenStore::in_memory().unwrap();
    let mut lease = granted(&store.renewing(secs(3_600)), "a", secs(2));
    let error = lease.confirm_with(vec![0; 65_537]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidClaim);
    let ends = lease.expires_at();
    until("no renewal", || lease.expires_at() > ends + secs(1));
    lease.confirm().unwrap();
}

#[test]
fn a_renewal_never_shortens_a_lease() {
    let store = SeenStore::in_memory().unwrap();
    let mut lease = granted(&store.renewing(secs(3_600)), "a", ms(90));
    lease.renew(secs(3_600)).unwrap();
    let ends = lease.expires_at();
    let other = granted(&store.renewing(secs(3_600)), "b", ms(90));
    let renewed = other.expires_at() + ms(200);
    until("no renewal", || other.expires_at() > renewed);
    assert!(lease.expires_at() >= ends);
    assert!(store.get("a").unwrap().unwrap().lease_until.unwrap() >= ends - secs(1));
}
