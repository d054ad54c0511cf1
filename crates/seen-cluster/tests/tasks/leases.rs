use std::time::Duration;

use cluster_harness::needs_server;
use seen_cluster::{AsyncClusterLease, AsyncClusterStore};
use seen_store::{Abandoned, Claim, ErrorKind, Failure, Filter, Item, Previous, State};

use super::cancelled::poll_and_drop;
use super::{MINUTE, again, entry, granted, store};

#[tokio::test]
async fn a_lease_ends_its_claim_as_it_is_told() {
    needs_server!();
    let store = store().await;
    let mut lease = granted(&store, "a").await;
    assert_eq!((lease.id(), lease.attempt()), (&b"a"[..], 1));
    assert!(lease.is_held().await.unwrap());
    let until = lease.expires_at();
    lease.renew(10 * MINUTE).await.unwrap();
    assert!(lease.expires_at() > until + 8 * MINUTE);
    lease.fail(Failure::new("503").retry_after(Duration::ZERO)).await.unwrap();
    assert!(!lease.is_held().await.unwrap());
    let mut lease = granted(&store, "a").await;
    assert_eq!(
        (lease.attempt(), lease.previous()),
        (2, &Previous::Failed { error: "503".to_owned() })
    );
    lease.release().await.unwrap();
    let mut lease = granted(&store, "a").await;
    assert_eq!((lease.attempt(), lease.previous()), (3, &Previous::Released));
    lease.confirm_with("4711").await.unwrap();
    assert!(!lease.was_late());
    let entry = entry(&store, "a").await;
    assert_eq!((entry.state, entry.receipt), (State::Seen, Some(b"4711".to_vec())));
    assert_eq!(entry.last_error.as_deref(), Some("503"));
    // A second end is refused, and changes nothing.
    assert_eq!(lease.fail("late").await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(store.is_seen("a").await);
    assert!(granted(&store, "b").await.renew(Duration::ZERO).await.is_err());
}

#[tokio::test]
async fn a_lease_that_is_dropped_is_released_and_one_whose_token_was_taken_is_not() {
    needs_server!();
    let store = store().await;
    drop(granted(&store, "a").await);
    let lease = match store.waiting(MINUTE).claim("a", MINUTE).await.unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    };
    assert_eq!((lease.attempt(), lease.previous()), (2, &Previous::Released));
    let token = lease.into_token();
    // Also outside of the runtime.
    let other = granted(&store, "b").await;
    std::thread::spawn(move || drop(other)).join().unwrap();
    store.close().await.unwrap();
    let store = again(&store).await;
    assert_eq!(granted(&store, "b").await.previous(), &Previous::Released, "close waits for it");
    assert!(matches!(store.claim("a", MINUTE).await.unwrap(), Claim::InFlight { .. }));
    store.confirm("a", &token).await.unwrap();
    assert!(store.is_seen("a").await);
}

#[tokio::test]
async fn a_lease_renews_itself_until_it_ends() {
    needs_server!();
    let store = store().await;
    let short = Duration::from_secs(1);
    let renewing = store.renewing(MINUTE);
    let (mut confirmed, mut kept) = (Vec::new(), Vec::new());
    for n in 0..50 {
        let Claim::Granted(lease) = renewing.claim(format!("{n}"), short).await.unwrap() else {
            panic!("{n}")
        };
        if n % 2 == 0 { confirmed.push(lease) } else { kept.push(lease) }
    }
    tokio::time::sleep(2 * short).await;
    for lease in &mut confirmed {
        lease.confirm().await.unwrap();
        assert!(!lease.was_late());
    }
    for lease in kept {
        let id = lease.id().to_vec();
        assert!(lease.is_held().await.unwrap());
        // It no longer renews itself.
        lease.into_token();
        let waiting = store.waiting(MINUTE).abandoned(Abandoned::Retry);
        let again = waiting.claim(id.as_slice(), MINUTE).await.unwrap();
        let Claim::Granted(again) = again else { panic!("{again:?}") };
        assert!(matches!(again.previous(), Previous::Abandoned { .. }));
    }
}

#[tokio::test]
async fn a_listing_shows_each_entry_once_also_when_its_pages_are_dropped() {
    needs_server!();
    let store = store().await;
    store.seed((0..3_000).map(|n| format!("id {n}"))).await.unwrap();
    let mut entries = store.entries(Filter::default());
    let mut listed = std::collections::HashSet::new();
    for polls in 0.. {
        match poll_and_drop(entries.next(), polls % 25, true).await {
            Some(Some(entry)) => assert!(listed.insert(entry.unwrap().id)),
            Some(None) => break,
            // Asked again.
            None => {}
        }
    }
    assert_eq!(listed.len(), 3_000);
    assert!(entries.next().await.is_none(), "it goes on after its end");
}

/// Tasks may move between threads while they wait for any verb. Compiled, not run.
#[allow(dead_code, clippy::future_not_send, reason = "only its types matter")]
fn all_futures_are_send(store: &AsyncClusterStore, lease: &mut AsyncClusterLease) {
    fn send<T: Send>(_: T) {}
    fn shared<T: Send + Sync>(_: &T) {}
    let mut entries = store.entries(Filter::default());
    shared(store);
    shared(lease);
    send(entries.next());
    send(AsyncClusterStore::open("redis://node1/"));
    send(store.is_seen("a"));
    send(store.get("a"));
    send(store.mark_seen("a"));
    send(store.check_and_mark(String::new()));
    send(store.check_and_mark_all(["a"]));
    send(store.claim(Item::new("a").version("1"), MINUTE));
    send(store.claim_all(vec!["a"], MINUTE));
    send(store.once("a", MINUTE, || async { Ok::<_, String>("") }));
    send(store.remove(Filter::default()));
    send(store.restore([]));
    send(store.close());
    send(lease.confirm());
    send(lease.fail("503"));
}
