//! Work that is done once, and whose answer all callers get.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use seen_store::{Claim, Config, ErrorKind, Failure, Once, OnceError, SeenStore, State};

use crate::common::{Place, ms, secs};

const LEASE: Duration = Duration::from_secs(60);

#[test]
fn of_many_callers_one_does_the_work_and_all_get_its_answer() {
    let place = Place::in_ram();
    let stores = [0, 1].map(|_| place.open(Config::default()));
    let runs = AtomicU32::new(0);
    let answers: Vec<Vec<u8>> = thread::scope(|threads| {
        let callers: Vec<_> = (0..8)
            .map(|number| {
                let (store, runs) = (&stores[number % 2], &runs);
                threads.spawn(move || {
                    let work = || {
                        runs.fetch_add(1, SeqCst);
                        thread::sleep(ms(30));
                        Ok::<_, Infallible>(format!("answer of {number}").into_bytes())
                    };
                    match store.waiting(secs(60)).once("a", LEASE, work).unwrap() {
                        Once::Ran(answer) => answer,
                        Once::Replayed(answer) => answer.unwrap(),
                        other => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(runs.load(SeqCst), 1);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn an_error_comes_back_as_it_is_and_the_id_is_free_and_knows_it() {
    let store = SeenStore::in_memory().unwrap();
    let refused = || Err::<&str, _>("503".parse::<u8>().unwrap_err());
    let error = store.once("a", LEASE, refused).unwrap_err();
    let OnceError::Work(error) = error else { panic!("{error:?}") };
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!((entry.state, entry.last_error), (State::Failed, Some(error.to_string())));
    let work = || Ok::<_, Infallible>("sent");
    assert_eq!(store.once("a", LEASE, work).unwrap(), Once::Ran("sent"));
}

#[test]
fn a_panic_goes_on_and_the_id_is_free_and_knows_its_message() {
    let store = SeenStore::in_memory().unwrap();
    let work = || -> Result<&str, Infallible> { std::panic::resume_unwind(Box::new("no route")) };
    let panic = catch_unwind(AssertUnwindSafe(|| store.once("a", LEASE, work)));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"no route"));
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!(
        (entry.state, entry.last_error.as_deref()),
        (State::Failed, Some("panicked: no route"))
    );
}

#[test]
fn what_is_in_flight_given_up_or_marked_otherwise_is_told_as_that() {
    let store = SeenStore::in_memory_with(Config::default().holder("worker 1")).unwrap();
    let never = || -> Result<&str, Infallible> { unreachable!("it is not this caller's") };
    let held = store.claim("in flight", LEASE).unwrap();
    let once = store.once("in flight", LEASE, never).unwrap();
    let Once::InFlight { holder, .. } = once else { panic!("{once:?}") };
    assert_eq!(holder.as_deref(), Some("worker 1"));
    drop(held);
    let Claim::Granted(mut lease) = store.claim("given up", LEASE).unwrap() else { panic!() };
    lease.fail(Failure::new("404").is_final()).unwrap();
    assert_eq!(store.once("given up", LEASE, never).unwrap(), Once::GivenUp { attempts: 1 });
    store.mark_seen("marked").unwrap();
    assert_eq!(store.once("marked", LEASE, never).unwrap(), Once::Replayed(None));
}

#[test]
fn an_answer_that_is_too_long_is_an_error_and_the_work_is_not_done_again() {
    let store = SeenStore::in_memory().unwrap();
    let work = || Ok::<_, Infallible>(vec![0; 65_537]);
    let error = store.once("a", LEASE, work).unwrap_err();
    let OnceError::Store(error) = error;
    assert_eq!(error.kind(), ErrorKind::InvalidClaim);
    assert!(store.is_seen("a"));
}

#[test]
fn a_lease_of_zero_runs_nothing() {
    let store = SeenStore::in_memory().unwrap();
    let never = || -> Result<&str, Infallible> { unreachable!() };
    assert!(matches!(store.once("a", ms(0), never), Err(OnceError::Store(_))));
}
