//! Servers that start again beside a listing, and servers that forget.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use cluster_harness::{Cluster, Options, needs_server};
use seen_cluster::{AsyncClusterStore, ClusterStore};
use seen_store::{Claim, Config, ErrorKind, Filter, Verdict};

use super::{MINUTE, ids_of};

#[test]
fn a_listing_misses_nothing_when_servers_start_again_between_two_pages() {
    needs_server!();
    let options = Options::new().appendonly(true).setting("appendfsync always");
    let cluster = Cluster::start_with(&options.node_timeout(Duration::from_secs(30)));
    let store = ClusterStore::open(&format!("{}?min_replicas=0", cluster.url())).unwrap();
    let ids: Vec<String> = (0..6_000).map(|n| format!("incident-{n}")).collect();
    assert_eq!(store.seed(&ids).unwrap(), 6_000);
    let mut listing = store.entries(Filter::default());
    let mut listed: Vec<_> = listing.by_ref().take(1_000).map(|entry| entry.unwrap().id).collect();
    for master in cluster.masters() {
        master.restart();
    }
    cluster.wait_until_ok(Duration::from_secs(20));
    listed.extend(listing.map(|entry| entry.unwrap().id));
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 6_000);
    assert_eq!(listed.len(), 6_000, "some were listed twice");
}

#[test]
fn servers_that_forget_when_their_memory_is_full_are_refused() {
    needs_server!();
    let cluster = Cluster::start();
    let set = |name: &str, value: &str| {
        for node in cluster.nodes() {
            node.command(&["CONFIG", "SET", name, value]);
        }
    };
    set("maxmemory-policy", "volatile-lru");
    // Without a limit nothing is forgotten.
    ClusterStore::open(&cluster.url()).unwrap();
    set("maxmemory", "100mb");
    let e = ClusterStore::open(&cluster.url()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidConfig);
    let text = e.to_string();
    assert!(
        text.contains("volatile-lru") && text.contains("`maxmemory-policy noeviction`"),
        "{text}"
    );
    set("maxmemory-policy", "noeviction");
    ClusterStore::open(&cluster.url()).unwrap();
}

#[test]
fn a_right_that_is_missing_is_named_and_no_outcome_is_called_unknown_for_it() {
    needs_server!();
    let user = |without: &str| format!("{without} on >secret ~* &* +@all -{without}");
    let options = ["wait", "del", "set"]
        .iter()
        .fold(Options::new(), |options, right| options.user(&user(right)));
    let cluster = Cluster::start_with(&options);
    let open = |user: &str| ClusterStore::open(&cluster.url_as(user, "secret"));
    let error = open("wait").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("'wait'"), "{error}");
    let store = open("del").unwrap();
    store.mark_seen("a").unwrap();
    let error = store.forget("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "within the script: {error}");
    assert!(error.to_string().contains("rights"), "{error}");
    let error = open("set").unwrap().mark_seen("b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

/// Begins calls until one is not answered at once, as they may be on a busy machine, and returns that one.
fn begun<F: Future>(calls: impl Iterator<Item = F>) -> Pin<Box<F>> {
    let context = &mut Context::from_waker(Waker::noop());
    let mut is_begun = |call: &mut Pin<Box<F>>| call.as_mut().poll(context).is_pending();
    calls.map(Box::pin).find_map(|mut call| is_begun(&mut call).then_some(call)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_not_polled_holds_up_no_other() {
    needs_server!();
    let cluster = Cluster::start();
    let config = Config::default().busy_timeout(Duration::from_secs(3));
    let store = AsyncClusterStore::open_with(&cluster.url(), config).await.unwrap();
    let ids: Vec<String> = ids_of(&cluster, cluster.node(0)).take(83).collect();
    let writes = begun(ids[3..43].iter().map(|id| store.check_and_mark(id)));
    let reads = begun(ids[43..].iter().map(|id| store.try_is_seen(id)));
    assert_eq!(store.check_and_mark(&ids[0]).await.unwrap(), Verdict::New);
    assert!(!store.try_is_seen(&ids[1]).await.unwrap());
    assert!(matches!(store.claim(&ids[2], MINUTE).await.unwrap(), Claim::Granted(_)));
    assert_eq!(writes.await.unwrap(), Verdict::New);
    reads.await.unwrap();
}
