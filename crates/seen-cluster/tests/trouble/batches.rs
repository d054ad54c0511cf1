//! Batches of which some ids meet trouble.

use std::time::Duration;

use cluster_harness::{Cluster, Fault, Options, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{Claim, Config, Error, ErrorKind, Item, Verdict};

use super::{MINUTE, ids_of, now};

fn patient() -> Options {
    Options::new().node_timeout(MINUTE)
}

/// Returns an id on each of the first two masters.
fn two_ids(cluster: &Cluster) -> [String; 2] {
    [0, 1].map(|node| ids_of(cluster, cluster.node(node)).next().unwrap())
}

/// Checks that a batch of these ids, made again as its error says, has lost no mark.
fn assert_no_mark_is_lost(store: &ClusterStore, ids: &[&String; 2], e: &Error) {
    assert_eq!(e.kind(), ErrorKind::OutcomeUnknown, "{ids:?}: {e}");
    assert!(!e.is_retryable(), "{e}");
    let again = ids.map(|id| Item::new(id).retry_of(e.token()));
    assert_eq!(store.check_and_mark_all(again).unwrap(), [Verdict::New; 2], "{ids:?}");
}

#[test]
fn an_id_that_is_refused_hides_no_mark_that_too_few_replicas_have() {
    needs_server!();
    let cluster = Cluster::start_with(&patient());
    let store = ClusterStore::open(&format!("{}?wait_timeout_ms=100", cluster.url())).unwrap();
    let [a, b] = two_ids(&cluster);
    let (full, replica) = (cluster.node(0), cluster.replica_of(cluster.node(1)));
    for ids in [[&a, &b], [&b, &a]] {
        full.command(&["CONFIG", "SET", "maxmemory", "1"]);
        replica.pause();
        let e = store.check_and_mark_all(ids).unwrap_err();
        full.command(&["CONFIG", "SET", "maxmemory", "0"]);
        replica.resume();
        assert_no_mark_is_lost(&store, &ids, &e);
        for id in ids {
            store.forget(id).unwrap();
        }
    }
}

#[test]
fn a_server_that_is_gone_hides_no_mark_whose_answer_was_lost() {
    needs_server!();
    let cluster = Cluster::start_with(&patient().announce_through_proxies(true));
    let config = Config::default().busy_timeout(Duration::from_secs(2));
    let store = ClusterStore::open_with(&cluster.url(), config).unwrap();
    let [a, b] = two_ids(&cluster);
    for ids in [[&a, &b], [&b, &a]] {
        cluster.proxy(0).refuse_connections(true);
        cluster.proxy(0).cut_connections();
        let lost = cluster.proxy(1).inject(Fault::lose_answer().on(&["SET"]).nth(1));
        let e = store.check_and_mark_all(ids).unwrap_err();
        assert_eq!(lost.hits(), 1);
        cluster.proxy(0).refuse_connections(false);
        assert_no_mark_is_lost(&store, &ids, &e);
        for id in ids {
            store.forget(id).unwrap();
        }
    }
}

#[test]
fn a_server_that_stands_still_does_not_hold_up_the_ids_of_others() {
    needs_server!();
    let cluster = Cluster::start_with(&patient());
    let config = Config::default().busy_timeout(Duration::from_secs(3));
    let url = format!("{}?min_replicas=0", cluster.url());
    let store = ClusterStore::open_with(&url, config).unwrap();
    let [dead, alive] = two_ids(&cluster);
    let claims = store.claim_all([&dead, &alive], MINUTE).unwrap();
    let tokens: Vec<_> = claims
        .into_iter()
        .map(|claim| match claim {
            Claim::Granted(lease) => lease.into_token(),
            other => panic!("{other:?}"),
        })
        .collect();
    let others = [0, 1].map(|node| ids_of(&cluster, cluster.node(node)).nth(1).unwrap());
    cluster.node(0).pause();
    let begun = now();
    let confirming = store.clone();
    let claims = [(dead.clone(), tokens[0]), (alive.clone(), tokens[1])];
    let confirmed = std::thread::spawn(move || confirming.confirm_all(claims));
    while !store.try_is_seen(&alive).unwrap() {
        std::thread::sleep(Duration::from_millis(10));
        assert!(begun.elapsed() < Duration::from_secs(2), "{alive} waits for the server of {dead}");
    }
    let e = confirmed.join().unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::OutcomeUnknown, "{e}");
    // What cannot be claimed on all servers is given back on those that answer.
    store.claim_all(&others, MINUTE).unwrap_err();
    let waiting = store.waiting(Duration::from_secs(5)).claim(&others[1], MINUTE).unwrap();
    assert!(matches!(waiting, Claim::Granted(_)), "{waiting:?}");
    cluster.node(0).resume();
    store.confirm(&dead, &tokens[0]).unwrap();
}
