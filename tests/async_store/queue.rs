//! The queue: how much waits in it, who waits before it, and for how long.

use std::pin::pin;
use std::time::Duration;

use seen_store::{AsyncSeenStore, Claim, Config, ErrorKind, Verdict};

use crate::common::Place;
use crate::polled::{drained, poll};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn beyond_its_bound_calls_wait_before_the_queue_and_nothing_happens_if_they_are_dropped() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default().async_queue(3)));
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let names: Vec<_> = (0..10).map(|n| format!("id {n}")).collect();
    let mut calls: Vec<_> = names.iter().map(|id| Box::pin(store.mark_seen(id))).collect();
    for call in &mut calls {
        assert!(poll(call.as_mut(), 1, false).is_none());
    }
    drop(calls);
    foreign.execute_batch("ROLLBACK").unwrap();
    drained(&store).await;
    let mut seen = Vec::new();
    for id in &names {
        seen.push(store.is_seen(id).await);
    }
    assert_eq!(seen, [[true; 3].as_slice(), &[false; 7]].concat());
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_place_back() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default().async_queue(2)));
    for n in 0..10 {
        let foreign = place.sql();
        foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (marked, claimed) = (format!("marked {n}"), format!("claimed {n}"));
        assert!(poll(pin!(store.mark_seen(&marked)), 1, false).is_none());
        assert!(poll(pin!(store.claim(&claimed, MINUTE)), 1, false).is_none());
        foreign.execute_batch("ROLLBACK").unwrap();
        let drained = tokio::time::timeout(MINUTE / 6, drained(&store));
        drained.await.expect("the queue has places again");
        assert!(store.is_seen(&marked).await);
        let left = store.get(&claimed).await.unwrap();
        assert!(left.is_none_or(|entry| entry.state == seen_store::State::Released));
    }
}

#[tokio::test]
async fn what_ends_a_claim_waits_for_no_place_in_the_queue() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default().async_queue(1)));
    let Claim::Granted(mut lease) = store.claim("a", MINUTE).await.unwrap() else { panic!() };
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut first = Box::pin(store.mark_seen("b"));
    assert!(poll(first.as_mut(), 1, false).is_none());
    // Polled once, and dropped.
    assert!(poll(pin!(lease.confirm()), 1, false).is_none());
    foreign.execute_batch("ROLLBACK").unwrap();
    drop(first);
    drained(&store).await;
    assert!(store.is_seen("a").await);
    // The claim was ended, so this does not release it.
    drop(lease);
    drained(&store).await;
    assert!(store.is_seen("a").await);
}

#[tokio::test]
async fn each_call_waits_for_other_processes_as_long_as_its_handle_says() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    store.mark_seen("known").await.unwrap();
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let patient = store.clone();
    let patient = tokio::spawn(async move { patient.check_and_mark("a").await });
    let hasty = store.busy_timeout(Duration::from_millis(50));
    let busy = hasty.check_and_mark("b").await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(busy.to_string().contains("50ms"), "{busy}");
    let once = store.busy_timeout(Duration::ZERO).mark_seen("c").await.unwrap_err();
    assert_eq!(once.kind(), ErrorKind::Busy);
    // Calls that only look go on.
    assert!(!store.try_is_seen("b").await.unwrap());
    assert!(store.get("known").await.unwrap().is_some());
    assert_eq!(store.check_and_mark("known").await.unwrap(), Verdict::Duplicate);
    assert!(!patient.is_finished());
    foreign.execute_batch("ROLLBACK").unwrap();
    assert_eq!(patient.await.unwrap().unwrap(), Verdict::New);
    let activity = store.stats().await.unwrap().since_opened;
    assert_eq!(activity.errors.get(&ErrorKind::Busy), Some(&2), "each error is counted once");
    assert!(activity.waits >= 1);
}

#[tokio::test]
async fn one_call_of_a_group_that_is_refused_fails_alone() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    let item = |payload: &'static str| seen_store::Item::new("key").payload(payload);
    let _ = store.check_and_mark(item("1 book")).await.unwrap();
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let spawn = |id: String, payload: Option<&'static str>| {
        let store = store.clone();
        tokio::spawn(async move {
            match payload {
                Some(payload) => store.check_and_mark(item(payload)).await,
                None => store.check_and_mark(id).await,
            }
        })
    };
    let good: Vec<_> = (0..20).map(|n| spawn(format!("id {n}"), None)).collect();
    let bad = spawn(String::new(), Some("2 books"));
    let more: Vec<_> = (20..40).map(|n| spawn(format!("id {n}"), None)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    foreign.execute_batch("ROLLBACK").unwrap();
    assert_eq!(bad.await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    for task in good.into_iter().chain(more) {
        assert_eq!(task.await.unwrap().unwrap(), Verdict::New);
    }
}

#[tokio::test]
async fn calls_that_wait_together_share_a_commit() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.check_and_mark(format!("id {n}")).await.unwrap() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = store.stats().await.unwrap().since_opened.commits;
    foreign.execute_batch("ROLLBACK").unwrap();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Verdict::New);
    }
    let after = store.stats().await.unwrap().since_opened;
    assert!(after.commits - before <= 3, "{} commits", after.commits - before);
    assert!(after.largest_group >= 100, "{}", after.largest_group);
}

/// A clock that panics when it is told to.
#[derive(Debug, Default)]
struct Fragile(std::sync::atomic::AtomicBool);

impl seen_store::Clock for Fragile {
    fn now(&self) -> std::time::SystemTime {
        assert!(!self.0.load(std::sync::atomic::Ordering::SeqCst), "the clock has stopped");
        std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }
}

#[tokio::test]
async fn a_panic_on_the_stores_thread_fails_its_calls_and_no_others() {
    let clock = std::sync::Arc::new(Fragile::default());
    let store = AsyncSeenStore::in_memory_with(Config::default().clock(clock.clone())).unwrap();
    store.mark_seen("a").await.unwrap();
    clock.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let failed = store.mark_seen("b").await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Io);
    clock.0.store(false, std::sync::atomic::Ordering::SeqCst);
    store.mark_seen("c").await.unwrap();
    assert!(store.is_seen("a").await && !store.is_seen("b").await);
}
