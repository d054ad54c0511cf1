//! Counts of duplicates: each is told once, and those of ids that are gone are given up.

use std::time::Duration;

use cluster_harness::{Cluster, Fault, Options, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{ErrorKind, Verdict};

use super::{MINUTE, behind_proxies, calls, master_of};

fn three_duplicates(store: &ClusterStore, id: &str) {
    store.mark_seen(id).unwrap();
    for _ in 0..3 {
        assert_eq!(store.check_and_mark(id).unwrap(), Verdict::Duplicate);
    }
}

fn duplicates(store: &ClusterStore, id: &str) -> u64 {
    store.get(id).unwrap().expect("it was marked").duplicates
}

#[test]
fn a_duplicate_counts_once_however_often_its_id_is_written_for_too_few_replicas() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().node_timeout(MINUTE));
    let url = format!("{}?wait_timeout_ms=100", cluster.url());
    let store = ClusterStore::open(&url).unwrap();
    three_duplicates(&store, "a");
    let replica = cluster.replica_of(master_of(&cluster, "a"));
    replica.pause();
    for _ in 0..3 {
        let e = store.mark_seen("a").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(duplicates(&store, "a"), 3);
    }
    replica.resume();
    store.close().unwrap();
    assert_eq!(duplicates(&ClusterStore::open(&url).unwrap(), "a"), 3);
}

#[test]
fn a_duplicate_counts_once_also_when_an_answer_is_lost() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    three_duplicates(&store, "a");
    // From now on the server knows the script.
    store.mark_seen("a").unwrap();
    three_duplicates(&store, "a");
    let proxy = cluster.proxy_of(master_of(&cluster, "a"));
    let lost = proxy.inject(Fault::lose_answer().on(&["EVALSHA"]).nth(1));
    store.mark_seen("a").unwrap();
    assert_eq!(lost.hits(), 1);
    store.close().unwrap();
    assert_eq!(duplicates(&ClusterStore::open(&cluster.url()).unwrap(), "a"), 6);
}

#[test]
fn counts_of_ids_that_have_expired_are_given_up() {
    needs_server!();
    let cluster = Cluster::start();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let short = store.ttl(Duration::from_secs(1));
    let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert!(short.check_and_mark_all(&ids).unwrap().iter().all(|v| *v == Verdict::New));
    assert!(short.check_and_mark_all(&ids).unwrap().iter().all(|v| *v == Verdict::Duplicate));
    let gets = || -> u64 { (0..3).map(|node| calls(cluster.node(node), "get")).sum() };
    // Longer than the interval in which counts are written, twice.
    std::thread::sleep(Duration::from_secs(8));
    let before = gets();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(gets(), before, "an idle store asks for ids that are gone");
}
