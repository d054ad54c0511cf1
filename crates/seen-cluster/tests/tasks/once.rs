use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use cluster_harness::needs_server;
use seen_store::{ErrorKind, Once, OnceError, Previous};
use tokio::sync::Barrier;

use super::{MINUTE, entry, granted, store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_done_once_and_all_tasks_get_its_answer() {
    needs_server!();
    let store = store().await.waiting(10 * MINUTE);
    let (runs, together) = (Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(100)));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (store, runs, together) = (store.clone(), Arc::clone(&runs), Arc::clone(&together));
            tokio::spawn(async move {
                together.wait().await;
                let work = || async {
                    runs.fetch_add(1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, String>("4711")
                };
                match store.once("invoice", MINUTE, work).await.unwrap() {
                    Once::Ran(answer) => answer.as_bytes().to_vec(),
                    Once::Replayed(answer) => answer.unwrap(),
                    other => panic!("{other:?}"),
                }
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), b"4711");
    }
    assert_eq!(runs.load(SeqCst), 1);
}

#[tokio::test]
async fn work_that_fails_or_panics_gives_the_id_back_with_the_reason() {
    needs_server!();
    let store = store().await;
    let failing = || async { Err::<&str, _>("503") };
    let failed = store.once("a", MINUTE, failing).await.unwrap_err();
    assert!(matches!(failed, OnceError::Work("503")));
    assert_eq!(entry(&store, "a").await.last_error.as_deref(), Some("503"));
    for late in [false, true] {
        let panicking = store.clone();
        let task = tokio::spawn(async move {
            let work = || async move {
                if late {
                    tokio::task::yield_now().await;
                }
                assert!(std::env::var_os("SEEN_PAPER").is_some(), "no paper");
                Ok::<_, String>("")
            };
            panicking.once("a", MINUTE, work).await.map(drop)
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(entry(&store, "a").await.last_error.unwrap().contains("no paper"));
    }
    let done = store.once("a", MINUTE, || async { Ok::<_, String>("done") }).await.unwrap();
    assert_eq!(done, Once::Ran("done"));
    assert!(store.is_seen("a").await);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_an_error_and_the_work_is_not_done_again() {
    needs_server!();
    let store = store().await;
    let work = || async { Ok::<_, String>(vec![b'x'; 65_537]) };
    let OnceError::Store(error) = store.once("a", MINUTE, work).await.unwrap_err() else {
        panic!("the work did not fail")
    };
    assert_eq!(error.kind(), ErrorKind::InvalidClaim);
    let again = store.once("a", MINUTE, || async { Ok::<&str, String>("again") }).await.unwrap();
    assert_eq!(again, Once::Replayed(None));
}

#[tokio::test]
async fn work_that_is_dropped_gives_the_id_back_and_the_next_attempt_is_told() {
    needs_server!();
    let store = store().await;
    let endless = || async { std::future::pending::<Result<&str, String>>().await };
    let work = store.once("a", MINUTE, endless);
    assert!(tokio::time::timeout(Duration::from_millis(300), work).await.is_err());
    assert_eq!(granted(&store.waiting(MINUTE), "a").await.previous(), &Previous::Released);
}
