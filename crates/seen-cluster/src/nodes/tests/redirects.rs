use cluster_harness::{Cluster, Options, needs_server};
use redis::Value;

use super::{address, calls, command, connect, in_ms, keyed, keys_at, patient, settings, text};
use crate::nodes::{NodeErrorKind, Nodes, Replicated, slot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_follow_a_slot_that_has_moved_and_the_rest_of_the_pipeline_stays() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    let nodes = connect(&cluster).await;
    let (from, to) = (cluster.node(0), cluster.node(1));
    let keys: Vec<_> = keys_at(&nodes, from).take(3).collect();
    let incr_all = || keys.iter().map(|key| keyed(&["INCR", key])).collect();
    for written in nodes.write_all(incr_all(), patient()).await {
        assert_eq!(written.unwrap().value, Value::Int(1));
    }

    let moving = slot(keys[1].as_bytes());
    cluster.migrate_slots(moving..=moving, to);
    for written in nodes.write_all(incr_all(), patient()).await {
        assert_eq!(written.unwrap().value, Value::Int(2));
    }
    assert_eq!(calls(from, "incr"), 5);
    assert_eq!(calls(to, "incr"), 1);
    assert_eq!(nodes.cluster.map().owner(moving), Some(&address(to)));

    cluster.migrate_slots(moving..=moving, from);
    let get = command(&["GET", &keys[1]]);
    assert_eq!(nodes.read(keys[1].as_bytes(), get, patient()).await.unwrap(), text("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_slot_half_way_are_found_on_both_sides() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new());
    let mut settings = settings(&cluster);
    settings.min_replicas = 1;
    let nodes = Nodes::connect(settings, patient()).await.unwrap();
    let (from, to) = (cluster.node(0), cluster.node(1));
    let tag = keys_at(&nodes, from).next().unwrap();
    let moving = slot(tag.as_bytes());
    let keys: Vec<_> = (0..10).map(|n| format!("{{{tag}}}{n}")).collect();
    let incr_all = |n: usize| keys[..n].iter().map(|key| keyed(&["INCR", key])).collect();
    for written in nodes.write_all(incr_all(8), patient()).await {
        assert_eq!(written.unwrap().value, Value::Int(1));
    }

    assert_eq!(cluster.migrate_half(moving, to, 4), 4);
    let written = nodes.write_all(incr_all(10), patient()).await;
    for (n, written) in written.into_iter().enumerate() {
        let written = written.unwrap();
        assert_eq!(written.value, Value::Int(if n < 8 { 2 } else { 1 }));
        assert_eq!(written.replicated, Replicated::Enough);
    }
    // Four that had moved, and the two new ones.
    assert_eq!(calls(to, "incr"), 6);
    assert!(calls(to, "wait") > 0);
    assert_eq!(nodes.cluster.map().owner(moving), Some(&address(from)));

    cluster.migrate_slots(moving..=moving, to);
    for written in nodes.write_all(incr_all(8), patient()).await {
        assert_eq!(written.unwrap().value, Value::Int(3));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_without_a_master_is_waited_for() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    let nodes = connect(&cluster).await;
    let master = cluster.node(0);
    let key = keys_at(&nodes, master).next().unwrap();
    let slot = slot(key.as_bytes()).to_string();
    assert_eq!(master.command(&["CLUSTER", "DELSLOTS", &slot]).text(), "OK");

    let set = || command(&["SET", &key, "v"]);
    let error = nodes.write(key.as_bytes(), set(), in_ms(300)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_be_executed()), (NodeErrorKind::Timeout, false));

    let waiting = tokio::spawn({
        let (nodes, key, set) = (nodes.clone(), key.clone(), set());
        async move { nodes.write(key.as_bytes(), set, patient()).await }
    });
    assert_eq!(master.command(&["CLUSTER", "ADDSLOTS", &slot]).text(), "OK");
    assert_eq!(waiting.await.unwrap().unwrap().value, Value::Okay);
}
