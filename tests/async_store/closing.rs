//! The end of a store, of its handles and of the runtime.

use std::pin::pin;
use std::time::Duration;

use seen_store::{AsyncSeenStore, Claim, Config, ErrorKind, SeenStore};
use tokio::runtime::Builder;

use crate::common::Place;
use crate::polled::{drained, poll};

const MINUTE: Duration = Duration::from_secs(60);

/// Waits until the store at this place was closed: its log is gone. Of two connections that close at the same moment, each
/// may leave the log to the other: then the file can be opened in exclusive mode.
pub(crate) fn closed(place: &Place) {
    let alone = Config::default().exclusive(true).busy_timeout(Duration::ZERO);
    for tries in 0..1_000 {
        let is_alone = || SeenStore::open_with(place.path(), alone.clone()).is_ok();
        if !place.beside("-wal").exists() || tries > 200 && is_alone() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the store was not closed: {:?}", place.files());
}

#[tokio::test]
async fn close_does_what_is_in_the_queue_and_refuses_what_comes_later() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut tasks = Vec::new();
    for n in 0..100 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move { store.mark_seen(format!("id {n}")).await }));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let closing = store.clone();
    let closing = tokio::spawn(async move { closing.close().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.mark_seen("late").await.unwrap_err().kind(), ErrorKind::Closed);
    foreign.execute_batch("ROLLBACK").unwrap();
    drop(foreign);
    closing.await.unwrap().unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(!place.beside("-wal").exists());
    for error in [
        store.close().await.unwrap_err(),
        store.try_is_seen("id 1").await.unwrap_err(),
        store.check_and_mark("id 1").await.unwrap_err(),
        store.get("id 1").await.unwrap_err(),
        store.stats().await.unwrap_err(),
        store.claim("x", MINUTE).await.unwrap_err(),
        SeenStore::from(store.clone()).mark_seen("x").unwrap_err(),
        AsyncSeenStore::from(SeenStore::from(store)).mark_seen("x").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    let again = place.open(Config::default());
    assert!((0..100).all(|n| again.is_seen(format!("id {n}"))) && !again.is_seen("late"));
}

#[tokio::test]
async fn a_call_that_was_answered_keeps_no_handle() {
    let place = Place::in_ram();
    for _ in 0..200 {
        let store = AsyncSeenStore::from(place.open(Config::default()));
        store.mark_seen("a").await.unwrap();
        assert!(store.get("a").await.unwrap().is_some());
        drop(SeenStore::from(store));
        assert!(!place.beside("-wal").exists(), "the last handle did not close the store");
    }
}

#[tokio::test]
async fn close_is_carried_on_when_its_future_is_dropped() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    store.mark_seen("a").await.unwrap();
    let _ = poll(pin!(store.close()), 1, false);
    closed(&place);
}

/// The usual end of a program: its tasks are dropped wherever they are, and then the store is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_are_dropped_before_a_close_leave_no_claim_in_flight() {
    let place = Place::in_ram();
    for round in 0..20 {
        let store = AsyncSeenStore::from(place.open(Config::default()));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100 {
            let store = store.clone();
            tasks.spawn(async move {
                let claim = store.claim(format!("{round} {n}"), MINUTE).await.unwrap();
                let Claim::Granted(mut lease) = claim else { panic!() };
                tokio::task::yield_now().await;
                lease.confirm().await
            });
        }
        while tasks.len() > 90 {
            tasks.join_next().await;
        }
        tasks.shutdown().await;
        store.close().await.unwrap();
        let again = place.open(Config::default());
        assert_eq!(again.stats().unwrap().in_flight, 0, "round {round}");
        again.close().unwrap();
    }
}

#[tokio::test]
async fn a_claim_can_be_ended_while_the_store_closes() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    let mut leases = Vec::new();
    for id in ["confirmed", "dropped"] {
        let Claim::Granted(lease) = store.claim(id, MINUTE).await.unwrap() else { panic!() };
        leases.push(lease);
    }
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = Box::pin(store.mark_seen("waits"));
    assert!(poll(waiting.as_mut(), 1, false).is_none());
    let mut closing = Box::pin(store.close());
    assert!(poll(closing.as_mut(), 1, false).is_none());
    let mut confirmed = leases.remove(0);
    let mut confirming = Box::pin(confirmed.confirm());
    assert!(poll(confirming.as_mut(), 1, false).is_none());
    drop(leases);
    assert_eq!(store.claim("late", MINUTE).await.unwrap_err().kind(), ErrorKind::Closed);
    foreign.execute_batch("ROLLBACK").unwrap();
    drop(foreign);
    closing.await.unwrap();
    waiting.await.unwrap();
    confirming.await.unwrap();
    let again = place.open(Config::default());
    assert!(again.is_seen("waits") && again.is_seen("confirmed"));
    assert_eq!(again.stats().unwrap().in_flight, 0);
}

#[tokio::test]
async fn a_task_that_waits_for_a_claim_hears_that_the_store_was_closed() {
    let store = AsyncSeenStore::in_memory().unwrap();
    let Claim::Granted(_lease) = store.claim("a", MINUTE).await.unwrap() else { panic!() };
    let waiting = store.waiting(10 * MINUTE);
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let waiting = waiting.clone();
            tokio::spawn(async move { waiting.claim("a", MINUTE).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    store.close().await.unwrap();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn the_last_handle_closes_the_store_whatever_it_is() {
    let place = Place::in_ram();
    let open = || AsyncSeenStore::from(place.open(Config::default()));
    // The store itself.
    let store = open();
    store.mark_seen("a").await.unwrap();
    drop(store);
    closed(&place);
    // A lease, which is released first.
    let store = open();
    let Claim::Granted(lease) = store.claim("b", MINUTE).await.unwrap() else { panic!() };
    drop(store);
    assert!(place.beside("-wal").exists());
    drop(lease);
    closed(&place);
    // A claim that is in the queue, whose task has gone.
    let store = open();
    let _ = poll(pin!(store.claim("b", MINUTE)), 1, false);
    drop(store);
    closed(&place);
    // A store that was turned back.
    let store = SeenStore::from(open());
    let Claim::Granted(lease) = store.claim("b", MINUTE).unwrap() else { panic!() };
    drop((store, lease));
    closed(&place);
}

#[test]
fn a_runtime_that_is_dropped_loses_nothing_that_was_acknowledged_and_the_store_goes_on() {
    let place = Place::in_ram();
    let sync = place.open(Config::default());
    let store = AsyncSeenStore::from(sync.clone());
    for flavor in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let mut flavor = flavor;
        let runtime = flavor.enable_all().build().unwrap();
        let acknowledged = runtime.block_on(async {
            let Claim::Granted(lease) = store.claim("held", MINUTE).await.unwrap() else {
                panic!()
            };
            let waiting = store.waiting(10 * MINUTE);
            for n in 0..50 {
                let (store, waiting) = (store.clone(), waiting.clone());
                tokio::spawn(async move { drop(waiting.claim("held", MINUTE).await) });
                tokio::spawn(async move { store.mark_seen(format!("later {n}")).await });
            }
            tokio::spawn(async move {
                let _lease = lease;
                std::future::pending::<()>().await;
            });
            store.mark_seen("acknowledged").await.unwrap();
            store.seed((0..1_000).map(|n| format!("seeded {n}"))).await.unwrap()
        });
        drop(runtime);
        assert!(acknowledged == 1_000 || acknowledged == 0);
        assert!(sync.is_seen("acknowledged") && sync.is_seen("seeded 999"));
    }
    // The lease of the task that was dropped with its runtime was released, and another runtime goes on.
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        drained(&store).await;
        assert!(matches!(store.claim("held", MINUTE).await.unwrap(), Claim::Granted(_)));
        store.close().await.unwrap();
    });
}

#[test]
fn small_calls_need_no_runtime_and_long_ones_say_that_they_do() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    poll(pin!(store.mark_seen("a")), 1_000, false).unwrap().unwrap();
    assert!(poll(pin!(store.is_seen("a")), 1_000, false).unwrap());
    let error = poll(pin!(store.stats()), 1_000, false).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("Tokio runtime"), "{error}");
    poll(pin!(store.close()), 1_000, false).unwrap().unwrap();
}
