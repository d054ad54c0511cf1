//! Futures, listings and answers that are held and not polled, and what they must not hold up.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use seen_store::{AsyncSeenStore, Claim, Config, Filter, SeenStore, Verdict};
use tokio::time::timeout;

use crate::common::Place;
use crate::polled::{drained, idle, poll};

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than anything here takes that is not held up.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_listing_that_is_kept_after_a_timeout_holds_no_place_among_the_long_calls() {
    let store = AsyncSeenStore::in_memory().unwrap();
    store.mark_seen("a").await.unwrap();
    let goes_on = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (store, goes_on) = (store.clone(), Arc::clone(&goes_on));
        tasks.push(tokio::spawn(async move {
            let ends = std::iter::from_fn(move || {
                while !goes_on.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                None
            });
            store.restore(ends).await
        }));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut listings = Vec::new();
    for _ in 0..4 {
        let mut listing = store.entries(Filter::default());
        assert!(timeout(Duration::from_millis(5), listing.next()).await.is_err());
        listings.push(listing);
    }
    goes_on.store(true, SeqCst);
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().added, 0);
    }
    timeout(SOON, store.stats()).await.expect("a long call has its turn").unwrap();
    for mut listing in listings {
        assert!(listing.next().await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn lookups_and_duplicates_pass_a_full_queue() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default().async_queue(100)));
    store.mark_seen("known").await.unwrap();
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let names: Vec<_> = (0..150).map(|n| format!("id {n}")).collect();
    let mut marks: Vec<_> = names.iter().map(|id| Box::pin(store.mark_seen(id))).collect();
    for mark in &mut marks {
        assert!(poll(mark.as_mut(), 1, false).is_none());
    }
    // The last look was more than 100 ms ago: a hit has to look, too.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let lookups = async {
        assert!(store.try_is_seen("known").await.unwrap());
        assert!(!store.try_is_seen("unknown").await.unwrap());
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(store.check_and_mark("known").await.unwrap(), Verdict::Duplicate);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(matches!(store.claim("known", MINUTE).await.unwrap(), Claim::Seen(_)));
        assert!(store.get("known").await.unwrap().is_some());
    };
    timeout(SOON, lookups).await.expect("nothing waits for the write lock");
    foreign.execute_batch("ROLLBACK").unwrap();
    for mark in marks {
        mark.await.unwrap();
    }
}

#[tokio::test]
async fn calls_that_are_dropped_give_their_places_back_while_the_file_is_locked() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default().async_queue(300)));
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let names: Vec<_> = (0..300).map(|n| format!("id {n}")).collect();
    let mut claims: Vec<_> =
        names.iter().map(|id| Box::pin(store.claim(id.as_str(), MINUTE))).collect();
    for claim in &mut claims {
        assert!(poll(claim.as_mut(), 1, false).is_none());
    }
    // The first ones of the queue stay.
    claims.truncate(260);
    let hasty = store.busy_timeout(Duration::from_millis(50));
    let refused = timeout(SOON, hasty.mark_seen("x")).await.expect("it has a place");
    assert!(refused.is_err());
    foreign.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test]
async fn what_was_begun_before_the_last_handle_went_is_done_before_what_comes_later() {
    let place = Place::in_ram();
    let sync = place.open(Config::default());
    let store = AsyncSeenStore::from(sync.clone());
    let Claim::Granted(mut lease) = store.claim("a", MINUTE).await.unwrap() else { panic!() };
    let foreign = place.sql();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(poll(pin!(lease.confirm()), 1, false).is_none());
    drop((lease, store));
    let again = AsyncSeenStore::from(sync);
    let closing = tokio::spawn(async move { again.close().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    foreign.execute_batch("ROLLBACK").unwrap();
    drop(foreign);
    closing.await.unwrap().unwrap();
    assert!(place.open(Config::default()).is_seen("a"));
    for _ in 0..100 {
        let sync = SeenStore::in_memory().unwrap();
        let one = AsyncSeenStore::from(sync.clone());
        let Claim::Granted(lease) = one.claim("a", MINUTE).await.unwrap() else { panic!() };
        drop((lease, one));
        let other = AsyncSeenStore::from(sync);
        assert!(matches!(other.claim("a", MINUTE).await.unwrap(), Claim::Granted(_)));
    }
}

/// Closing beside a writer waits for up to 250 ms, to write the counts of duplicates.
#[tokio::test]
async fn whatever_is_dropped_last_closes_the_store_on_its_own_thread() {
    let place = Place::in_ram();
    for last in ["known", "listing", "page", "lease"] {
        let store = AsyncSeenStore::from(place.open(Config::default()));
        store.mark_seen("a").await.unwrap();
        let Claim::Seen(known) = store.claim("a", MINUTE).await.unwrap() else { panic!() };
        let Claim::Granted(lease) = store.claim(last, MINUTE).await.unwrap() else { panic!() };
        let mut page = store.entries(Filter::default());
        assert!(page.next().await.unwrap().is_ok());
        let listing = store.entries(Filter::default());
        idle(&store).await;
        drained(&store).await;
        let foreign = place.sql();
        let lock = || foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        let dropped: Box<dyn FnOnce()> = match last {
            "known" => {
                drop((listing, page, lease, store));
                Box::new(move || drop(known))
            }
            "listing" => {
                drop((known, page, lease, store));
                Box::new(move || drop(listing))
            }
            "page" => {
                drop((known, listing, lease, store));
                Box::new(move || drop(page))
            }
            _ => {
                drop((known, listing, page, store));
                Box::new(move || drop(lease))
            }
        };
        // What was dropped first is released.
        tokio::time::sleep(Duration::from_millis(50)).await;
        lock();
        let waited = late(dropped);
        assert!(waited < Duration::from_millis(100), "{last}: {waited:?} in a destructor");
        foreign.execute_batch("ROLLBACK").unwrap();
        drop(foreign);
        crate::closing::closed(&place);
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long a destructor takes")]
fn late(run: impl FnOnce()) -> Duration {
    let begun = std::time::Instant::now();
    run();
    begun.elapsed()
}
