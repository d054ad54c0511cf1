//! What the verbs answer, on both kinds of runtime.

use std::time::Duration;

use seen_store::{
    AsyncSeenStore, Claim, Config, Filter, IndexMode, Item, Ownership, SeenStore, State, Verdict,
};

use crate::common::Place;

const MINUTE: Duration = Duration::from_secs(60);

async fn exactly_one_is_new(store: &AsyncSeenStore) {
    let mut tasks = Vec::new();
    for n in 0..10_000 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            (n % 200, store.check_and_mark(format!("id {}", n % 200)).await.unwrap())
        }));
    }
    let mut new = vec![0; 200];
    for task in tasks {
        let (id, verdict) = task.await.unwrap();
        new[id] += usize::from(verdict == Verdict::New);
    }
    assert!(new.iter().all(|count| *count == 1), "{new:?}");
}

#[tokio::test]
async fn of_10_000_tasks_on_one_thread_exactly_one_is_told_that_an_id_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let store = AsyncSeenStore::open(folder.path().join("seen.db")).await.unwrap();
    exactly_one_is_new(&store).await;
    store.close().await.unwrap();
    assert!(!folder.path().join("seen.db-wal").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_10_000_tasks_on_four_threads_exactly_one_is_told_that_an_id_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let store = AsyncSeenStore::open(folder.path().join("seen.db")).await.unwrap();
    exactly_one_is_new(&store).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_dropped_is_released() {
    let store = AsyncSeenStore::in_memory().unwrap();
    let Claim::Granted(lease) = store.claim("a", MINUTE).await.unwrap() else { panic!() };
    drop(lease);
    let Claim::Granted(mut lease) = store.claim("a", MINUTE).await.unwrap() else { panic!() };
    assert_eq!(lease.attempt(), 2);
    lease.confirm_with("4711").await.unwrap();
    let Claim::Seen(known) = store.claim("a", MINUTE).await.unwrap() else { panic!() };
    assert_eq!(known.receipt().await.unwrap().unwrap(), b"4711");
    let sync = SeenStore::from(store);
    assert!(sync.is_seen("a"));
}

/// Those that `tests/model` does not call in their async form.
#[tokio::test]
async fn long_verbs_and_figures_answer_as_those_for_threads() {
    let place = Place::in_ram();
    let store = AsyncSeenStore::open(place.path()).await.unwrap();
    assert!(store.was_created());
    assert!(store.upgrade_report().await.unwrap().is_none());
    assert_eq!(store.pragmas().await.unwrap().journal_mode, "wal");
    assert!(store.announce("feed bot").await.unwrap().is_empty());
    assert_eq!(store.announced().await.unwrap(), ["feed bot"]);

    let other = store.scope("other");
    assert_eq!(other.seed(["db1/disk", "db2/disk"]).await.unwrap(), 2);
    let selected = || Filter::default().prefix("db1/");
    assert_eq!(other.count(selected()).await.unwrap(), 1);
    assert_eq!(other.remove(selected()).await.unwrap(), 1);
    assert_eq!(other.forget_scope().await.unwrap(), 1);

    let mut claims = Vec::new();
    for claim in store.claim_all(["a", "b", "c"], MINUTE).await.unwrap() {
        let Claim::Granted(lease) = claim else { panic!() };
        assert!(lease.is_held().await.unwrap());
        claims.push((lease.id().to_vec(), lease.into_token()));
    }
    let held = [Ownership::Held, Ownership::Held, Ownership::Held];
    assert_eq!(store.renew_all(claims.clone(), 2 * MINUTE).await.unwrap(), held);
    assert_eq!(store.confirm_all(claims.drain(..2)).await.unwrap(), held[..2]);
    assert_eq!(store.release_all(claims).await.unwrap(), held[..1]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.seen, stats.released), (2, 1));

    assert!(store.verify().await.unwrap().is_ok());
    store.checkpoint().await.unwrap();
    store.compact().await.unwrap();
    let copy = place.folder().join("copy.db");
    store.backup(&copy).await.unwrap();
    store.replace_backup(&copy).await.unwrap();
    let copied = AsyncSeenStore::open(&copy).await.unwrap();
    assert!(copied.is_seen("a").await);
    let newest = copied.entries(Filter::default()).newest(10).await.unwrap();
    copied.close().await.unwrap();

    let fresh = AsyncSeenStore::in_memory_with(Config::default()).unwrap();
    assert_eq!(fresh.restore(newest).await.unwrap().added, 3);
    store.close().await.unwrap();
    let replaced = AsyncSeenStore::replace_with_backup(place.path(), &copy).await.unwrap();
    assert!(replaced.is_some());
}

#[tokio::test]
async fn a_listing_shows_each_entry_once_also_when_it_is_cancelled_in_between() {
    let store = AsyncSeenStore::in_memory().unwrap();
    store.seed((0..3_000).map(|n| format!("id {n}"))).await.unwrap();
    let mut entries = store.entries(Filter::default().state(State::Seen));
    let mut listed = std::collections::HashSet::new();
    loop {
        // Polled once and dropped, and then asked again.
        if let Some(Some(entry)) = crate::polled::poll(std::pin::pin!(entries.next()), 1, false) {
            assert!(listed.insert(entry.unwrap().id));
            continue;
        }
        match entries.next().await {
            Some(entry) => assert!(listed.insert(entry.unwrap().id)),
            None => break,
        }
    }
    assert_eq!(listed.len(), 3_000);
    assert!(entries.next().await.is_none(), "it goes on after its end");
}

#[tokio::test]
async fn an_index_that_is_asleep_and_versions_are_answered_from_the_file() {
    let place = Place::in_ram();
    let config = || Config::default().index(IndexMode::Asleep);
    let first = place.open(config());
    first.seed((0..10_000).map(|n| format!("id {n}"))).unwrap();
    let fire = |version: &'static str| Item::new("fire").version(version);
    assert_eq!(first.check_and_mark(fire("1")).unwrap(), Verdict::New);
    first.close().unwrap();
    let store = AsyncSeenStore::from(place.open(config()));
    assert_eq!(store.check_and_mark("id 17").await.unwrap(), Verdict::Duplicate);
    assert!(store.is_seen("id 18").await && !store.is_seen("id 10000").await);
    assert!(matches!(store.claim("id 19", MINUTE).await.unwrap(), Claim::Seen(_)));
    assert!(store.is_seen(fire("1")).await && !store.is_seen(fire("2")).await);
    assert_eq!(store.check_and_mark(fire("1")).await.unwrap(), Verdict::Duplicate);
    assert_eq!(store.check_and_mark(fire("2")).await.unwrap(), Verdict::Changed);
    let entry = store.get("id 17").await.unwrap().unwrap();
    assert_eq!(entry.duplicates, 1);
}

#[tokio::test]
async fn what_another_store_forgot_is_noticed_after_100_ms() {
    let place = Place::in_ram();
    let (one, other) = (place.open(Config::default()), place.open(Config::default()));
    let store = AsyncSeenStore::from(one);
    store.mark_seen("a").await.unwrap();
    assert!(store.is_seen("a").await);
    other.forget("a").unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert!(!store.is_seen("a").await);
    assert_eq!(store.check_and_mark("a").await.unwrap(), Verdict::New);
}

/// Tasks may move between threads while they wait for any verb. Compiled, not run.
#[allow(dead_code, clippy::future_not_send, reason = "only its types matter")]
fn all_futures_are_send(store: &AsyncSeenStore, lease: &mut seen_store::AsyncLease) {
    fn send<T: Send>(_: T) {}
    fn shared<T: Send + Sync>(_: &T) {}
    let mut entries = store.entries(Filter::default());
    shared(store);
    shared(lease);
    shared(&entries);
    send(entries.next());
    send(entries.newest(1));
    send(AsyncSeenStore::open("seen.db"));
    send(store.is_seen("a"));
    send(store.get("a"));
    send(store.check_and_mark(String::new()));
    send(store.check_and_mark_all(["a"]));
    send(store.claim(Item::new("a").version("1"), MINUTE));
    send(store.claim_all(vec!["a"], MINUTE));
    send(store.once("a", MINUTE, || async { Ok::<_, String>("") }));
    send(store.restore([]));
    send(store.close());
    send(lease.confirm());
    send(lease.fail("503"));
}
