use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use cluster_harness::{Cluster, Fault, Injected, Options, needs_server};
use seen_cluster::AsyncClusterStore;
use seen_store::{Claim, ErrorKind, Ownership};

use super::{MINUTE, again, granted, store};

#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_thousand_tasks_wait_without_a_thread_of_their_own_and_all_hear_of_the_end() {
    needs_server!();
    let store = store().await;
    let mut leases = Vec::new();
    for n in 0..20 {
        leases.push(granted(&store, &format!("id {n}")).await);
    }
    let (waiting, before) = (store.waiting(10 * MINUTE), threads());
    let asked = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..2_000)
        .map(|n| {
            let (store, asked) = (waiting.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                asked.fetch_add(1, SeqCst);
                store.claim(format!("id {}", n % 20), MINUTE).await.unwrap()
            })
        })
        .collect();
    while asked.load(SeqCst) < 2_000 {
        tokio::task::yield_now().await;
    }
    // The others of this test binary may start some meanwhile.
    assert!(threads() < before + 40, "{} threads, {before} before", threads());
    for mut lease in leases {
        lease.confirm().await.unwrap();
    }
    for task in tasks {
        assert!(matches!(task.await.unwrap(), Claim::Seen(_)));
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_task_waits_no_longer_than_asked_for_and_one_that_is_cancelled_claims_nothing() {
    needs_server!();
    let store = store().await;
    let mut first = granted(&store, "a").await;
    let short = store.waiting(Duration::from_millis(100));
    let waited = tokio::time::timeout(Duration::from_secs(5), short.claim("a", MINUTE)).await;
    assert!(matches!(waited.unwrap().unwrap(), Claim::InFlight { .. }));
    let long = store.waiting(MINUTE);
    let cancelled = tokio::time::timeout(Duration::from_millis(100), long.claim("a", MINUTE)).await;
    assert!(cancelled.is_err());
    first.release().await.unwrap();
    assert_eq!(granted(&store, "a").await.attempt(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_refuses_new_claims_and_lets_those_in_flight_end() {
    needs_server!();
    let store = store().await;
    let mut held = granted(&store, "held").await;
    let claiming: Vec<_> = (0..4)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    match store.claim(format!("{task} {n}"), MINUTE).await {
                        Ok(Claim::Granted(lease)) => drop(lease.into_token()),
                        Ok(other) => panic!("{other:?}"),
                        Err(e) => return e.kind(),
                    }
                }
                unreachable!("there is always one more");
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = tokio::time::Instant::now();
    // It was begun before.
    let (confirmed, closed) = tokio::join!(held.confirm(), store.close());
    confirmed.unwrap();
    closed.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for task in claiming {
        assert_eq!(task.await.unwrap(), ErrorKind::Closed);
    }
    assert_eq!(store.close().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_waits_for_ends_of_claims_by_batches_and_a_second_close_for_the_first() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().announce_through_proxies(true));
    let store = AsyncClusterStore::open(&cluster.url()).await.unwrap();
    let mut claims = Vec::new();
    for id in ["a", "b", "c"] {
        claims.push((id, granted(&store, id).await.into_token()));
    }
    // The script is known then.
    granted(&store, "d").await.confirm().await.unwrap();
    let late = Fault::delay_answer(Duration::from_millis(300)).on(&["GET", "EVALSHA"]);
    let slow: Vec<_> = cluster.proxies().iter().map(|proxy| proxy.inject(late.clone())).collect();
    let confirming = {
        let (store, claims) = (store.clone(), claims.clone());
        tokio::spawn(async move { store.confirm_all(claims).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (first, second) = (store.clone(), store.clone());
    let first = tokio::spawn(async move { first.close().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(second.close().await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(confirming.is_finished(), "both wait for it");
    first.await.unwrap().unwrap();
    assert_eq!(confirming.await.unwrap().unwrap(), [Ownership::Held; 3]);
    slow.iter().for_each(Injected::remove);
    let store = again(&store).await;
    for (id, _) in claims {
        assert!(store.is_seen(id).await);
    }
}
