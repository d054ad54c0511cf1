//! Tasks that wait for a claim, and what they wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use seen_store::{AsyncSeenStore, Claim, Config, Once, OnceError, SeenStore};
use tokio::sync::Barrier;

use crate::common::Place;

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

async fn granted(store: &AsyncSeenStore, id: &str) -> seen_store::AsyncLease {
    match store.claim(id, MINUTE).await.unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn ten_thousand_tasks_wait_without_a_thread_of_their_own_and_all_hear_of_the_end() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::from(place.open(Config::default()));
    let mut leases = Vec::new();
    for n in 0..200 {
        leases.push(granted(&store, &format!("id {n}")).await);
    }
    let waiting = store.waiting(10 * MINUTE);
    let before = threads();
    let asked = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..10_000)
        .map(|n| {
            let (store, asked) = (waiting.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                asked.fetch_add(1, SeqCst);
                store.claim(format!("id {}", n % 200), MINUTE).await.unwrap()
            })
        })
        .collect();
    while asked.load(SeqCst) < 10_000 {
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
async fn of_threads_and_tasks_that_wait_for_an_id_the_one_that_came_first_gets_it() {
    let place = Place::in_ram();
    let sync = place.open(Config::default());
    let store = AsyncSeenStore::from(sync.clone());
    let first = granted(&store, "a").await;
    let order = Arc::new(order::Order::default());
    let (task, its) = (store.waiting(10 * MINUTE), Arc::clone(&order));
    let task = tokio::spawn(async move {
        let lease = granted(&task, "a").await;
        its.note("task");
        drop(lease);
    });
    // The task is polled until it waits.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (thread, its) = (sync.waiting(10 * MINUTE), Arc::clone(&order));
    let thread = std::thread::spawn(move || {
        let Claim::Granted(lease) = thread.claim("a", MINUTE).unwrap() else { panic!() };
        its.note("thread");
        drop(lease);
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(first);
    task.await.unwrap();
    thread.join().unwrap();
    assert_eq!(order.noted(), ["task", "thread"]);
}

fn has_paper() -> bool {
    false
}

mod order {
    use std::sync::Mutex;

    #[derive(Default)]
    pub(super) struct Order(Mutex<Vec<&'static str>>);

    impl Order {
        pub(super) fn note(&self, name: &'static str) {
            self.0.lock().unwrap().push(name);
        }

        pub(super) fn noted(&self) -> Vec<&'static str> {
            self.0.lock().unwrap().clone()
        }
    }
}

#[tokio::test]
async fn a_task_waits_no_longer_than_asked_for() {
    let store = AsyncSeenStore::in_memory().unwrap();
    let _held = granted(&store, "a").await;
    let claim = store.waiting(Duration::from_millis(30)).claim("a", MINUTE).await.unwrap();
    assert!(matches!(claim, Claim::InFlight { .. }));
    assert_eq!(store.stats().await.unwrap().since_opened.claims_in_flight, 1);
    assert_eq!(store.get("a").await.unwrap().unwrap().duplicates, 1, "it was refused once");
}

#[tokio::test]
async fn a_task_hears_of_a_claim_of_another_store() {
    let place = Place::in_ram();
    let (one, other) = (place.open(Config::default()), place.open(Config::default()));
    let Claim::Granted(mut lease) = other.claim("a", MINUTE).unwrap() else { panic!() };
    let store = AsyncSeenStore::from(one);
    let waiting = store.waiting(10 * MINUTE);
    let task = tokio::spawn(async move { waiting.claim("a", MINUTE).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(20)).await;
    lease.confirm_with("4711").unwrap();
    let Claim::Seen(known) = task.await.unwrap() else { panic!() };
    assert_eq!(known.receipt().await.unwrap().unwrap(), b"4711");
}

#[tokio::test]
async fn a_waiting_task_that_is_cancelled_lets_the_next_one_ask() {
    let store = AsyncSeenStore::in_memory().unwrap();
    let mut held = granted(&store, "a").await;
    let spawn = || {
        let waiting = store.waiting(10 * MINUTE);
        tokio::spawn(async move { waiting.claim("a", MINUTE).await.unwrap() })
    };
    let (first, second) = (spawn(), spawn());
    tokio::time::sleep(Duration::from_millis(20)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    held.confirm().await.unwrap();
    assert!(matches!(second.await.unwrap(), Claim::Seen(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_done_once_and_all_tasks_get_its_answer() {
    let store = AsyncSeenStore::in_memory().unwrap().waiting(10 * MINUTE);
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
    let store = AsyncSeenStore::in_memory().unwrap();
    let failing = || async { Err::<&str, _>("503") };
    let failed = store.once("a", MINUTE, failing).await.unwrap_err();
    assert!(matches!(failed, OnceError::Work("503")));
    let reason = || async { store.get("a").await.unwrap().unwrap().last_error.unwrap() };
    assert_eq!(reason().await, "503");
    for late in [false, true] {
        let panicking = store.clone();
        let task = tokio::spawn(async move {
            let work = || async move {
                if late {
                    tokio::task::yield_now().await;
                }
                assert!(has_paper(), "no paper");
                Ok::<_, String>("")
            };
            panicking.once("a", MINUTE, work).await.map(drop)
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(reason().await.contains("no paper"));
    }
    let done = store.once("a", MINUTE, || async { Ok::<_, String>("done") }).await.unwrap();
    assert_eq!(done, Once::Ran("done"));
    assert!(SeenStore::from(store).is_seen("a"));
}
