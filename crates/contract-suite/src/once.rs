//! Work that is done once, and whose answer all callers get.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use seen_store::{
    Abandoned, ErrorKind, Failure, Item, Once, OnceError, State, Store, StoreExt, Verdict,
};

use crate::Place;
use crate::bench::{Bench, check, claimed, entry, state};

fn run<'i>(
    store: &dyn Store,
    item: impl Into<Item<'i>>,
    lease: Duration,
    answer: &str,
) -> Once<String> {
    store.once(item, lease, || Ok::<_, Infallible>(answer.to_owned())).unwrap()
}

fn replayed(answer: &str) -> Once<String> {
    Once::Replayed(Some(answer.as_bytes().to_vec()))
}

pub(crate) fn work_is_done_once_and_its_answer_replayed(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let lease = bench.long();
    assert_eq!(run(store, "a", lease, "4711"), Once::Ran("4711".to_owned()));
    for store in [store, &*again, &*store.boxed()] {
        let ran = AtomicU32::new(0);
        let work = || {
            ran.fetch_add(1, SeqCst);
            Ok::<_, Infallible>("4712")
        };
        let answer = store.once("a", lease, work).unwrap();
        assert_eq!(answer, Once::Replayed(Some(b"4711".to_vec())));
        assert_eq!(ran.load(SeqCst), 0);
    }
    let entry = entry(store, "a");
    assert_eq!((entry.state, entry.attempts), (State::Seen, 1));
    // Any bytes are an answer.
    assert_eq!(run(store, "empty", lease, ""), Once::Ran(String::new()));
    assert_eq!(run(store, "empty", lease, "more"), replayed(""));
    // What another verb has marked has no answer.
    assert_eq!(check(store, "marked"), Verdict::New);
    assert_eq!(run(&*again, "marked", lease, "4711"), Once::Replayed(None));
    assert_eq!(check(store, "a"), Verdict::Duplicate);
}

pub(crate) fn an_error_of_the_work_comes_back_and_the_id_is_free(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    for attempt in 1..3 {
        let error = store.once("a", bench.long(), || Err::<&str, _>(format!("error {attempt}")));
        let OnceError::Work(error) = error.unwrap_err() else { panic!("not of the work") };
        assert_eq!(error, format!("error {attempt}"));
        let entry = entry(&*again, "a");
        assert_eq!((entry.state, entry.attempts), (State::Failed, attempt));
        assert_eq!(entry.last_error, Some(error));
    }
    assert_eq!(run(&*again, "a", bench.long(), "4711"), Once::Ran("4711".to_owned()));
    assert_eq!(run(store, "a", bench.long(), "4712"), replayed("4711"));
}

pub(crate) fn a_panic_of_the_work_goes_on_and_the_id_is_free(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let work = || -> Result<&str, Infallible> { resume_unwind(Box::new("no route")) };
    let panic = catch_unwind(AssertUnwindSafe(|| store.once("a", bench.long(), work)));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"no route"));
    let entry = entry(store, "a");
    assert_eq!(entry.state, State::Failed);
    assert!(entry.last_error.unwrap().contains("no route"));
    assert_eq!(run(store, "a", bench.long(), "4711"), Once::Ran("4711".to_owned()));
}

pub(crate) fn who_comes_while_it_is_done_is_told_or_waits(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let work = || {
        // From within the work, its own id is in flight.
        for store in [store, &*again] {
            match run(store, "a", bench.long(), "another") {
                Once::InFlight { holder, .. } => assert_eq!(holder.as_deref(), Some("worker 1")),
                other => panic!("{other:?}"),
            }
        }
        Ok::<_, Infallible>("4711")
    };
    assert_eq!(store.once("a", bench.long(), work).unwrap(), Once::Ran("4711"));

    let runs = AtomicU32::new(0);
    let answers: Vec<Vec<u8>> = thread::scope(|threads| {
        let callers: Vec<_> = (0..8)
            .map(|number| {
                let (store, runs) = (if number % 2 == 0 { store } else { &*again }, &runs);
                let lease = bench.long();
                threads.spawn(move || {
                    let work = || {
                        runs.fetch_add(1, SeqCst);
                        thread::sleep(Duration::from_millis(30));
                        Ok::<_, Infallible>(format!("answer of {number}").into_bytes())
                    };
                    match store.waiting(Duration::from_secs(60)).once("b", lease, work).unwrap() {
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

pub(crate) fn an_answer_that_is_too_long_is_told_and_the_work_is_done(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let error =
        store.once("a", bench.long(), || Ok::<_, Infallible>(vec![b'x'; 65_537])).unwrap_err();
    assert!(matches!(error, OnceError::Store(e) if e.kind() == ErrorKind::InvalidClaim));
    assert_eq!(run(store, "a", bench.long(), "again"), Once::Replayed(None));
}

pub(crate) fn refusals_of_the_store_are_told_as_they_are(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let lease = bench.long();
    claimed(store, "given up", lease).fail(Failure::new("404").is_final()).unwrap();
    assert_eq!(run(&*again, "given up", lease, "4711"), Once::GivenUp { attempts: 1 });
    bench.abandoned(&*store.abandoned(Abandoned::Hold), "unresolved");
    assert!(matches!(run(&*again, "unresolved", lease, "4711"), Once::Unresolved { .. }));
    bench.abandoned(store, "abandoned");
    assert_eq!(run(&*again, "abandoned", lease, "4711"), Once::Ran("4711".to_owned()));
    let error =
        |id: &str, lease| match store.once(id, lease, || Ok::<_, Infallible>("")).unwrap_err() {
            OnceError::Store(error) => error.kind(),
            OnceError::Work(never) => match never {},
        };
    assert_eq!(error("", lease), ErrorKind::InvalidId);
    assert_eq!(error("a", Duration::ZERO), ErrorKind::InvalidClaim);
}

pub(crate) fn another_version_is_work_to_be_done_anew_and_another_payload_is_refused(
    place: &dyn Place,
) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let lease = bench.long();
    let version = |version: &str| Item::new("a").version(version);
    assert_eq!(run(store, version("1"), lease, "first"), Once::Ran("first".to_owned()));
    assert_eq!(run(&*again, version("1"), lease, "more"), replayed("first"));
    assert_eq!(run(&*again, version("2"), lease, "second"), Once::Ran("second".to_owned()));
    assert_eq!(run(store, version("2"), lease, "more"), replayed("second"));
    assert_eq!(run(store, "a", lease, "more"), replayed("second"));
    let payload = |payload: &str| Item::new("key").payload(payload);
    assert_eq!(run(store, payload("10 EUR"), lease, "paid"), Once::Ran("paid".to_owned()));
    assert_eq!(run(&*again, payload("10 EUR"), lease, "more"), replayed("paid"));
    let error = again.once(payload("99 EUR"), lease, || Ok::<_, Infallible>("")).unwrap_err();
    assert!(matches!(error, OnceError::Store(e) if e.kind() == ErrorKind::Conflict));
}

pub(crate) fn work_that_takes_longer_than_its_lease_keeps_its_id(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let lease = Duration::from_millis(1_200);
    let work = || {
        for _ in 0..4 {
            let end = entry(&*again, "a").lease_until;
            bench.place.time_passes(lease / 2);
            // It is renewed in real time.
            let is_renewed = || entry(&*again, "a").lease_until > end;
            assert!((0..4_000).any(|_| is_renewed() || {
                thread::sleep(Duration::from_millis(5));
                false
            }));
        }
        assert_eq!(state(&*again, "a"), State::InFlight);
        Ok::<_, Infallible>("4711")
    };
    assert_eq!(store.once("a", lease, work).unwrap(), Once::Ran("4711"));
    assert_eq!(entry(store, "a").attempts, 1);
}
