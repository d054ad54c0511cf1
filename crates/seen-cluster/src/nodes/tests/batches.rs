use cluster_harness::{Cluster, Options, needs_server};
use redis::Value;

use super::{calls, command, connect, keyed, keys_at, patient, text};
use crate::nodes::{NodeErrorKind, Replicated};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_in_its_order_by_all_masters() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    let nodes = connect(&cluster).await;
    let names: Vec<_> = (0..3_500).map(|n| (format!("key-{n}"), n.to_string())).collect();

    let sets = names.iter().map(|(key, n)| keyed(&["SET", key, n])).collect();
    for written in nodes.write_all(sets, patient()).await {
        let written = written.unwrap();
        assert_eq!((written.value, written.replicated), (Value::Okay, Replicated::Unneeded));
    }
    let gets = names.iter().map(|(key, _)| keyed(&["GET", key])).collect();
    for ((_, n), value) in names.iter().zip(nodes.read_all(gets, patient()).await) {
        assert_eq!(value.unwrap(), text(n));
    }

    let mut sizes = 0;
    for master in nodes.masters() {
        let size = nodes.on_master(&master, command(&["DBSIZE"]), patient()).await.unwrap();
        let Value::Int(size) = size else { panic!("{size:?}") };
        assert!(size > 1_000, "{master} has {size}");
        sizes += size;
    }
    assert_eq!(sizes, 3_500);
    assert!(nodes.write_all(Vec::new(), patient()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_that_of_its_command_alone() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    let nodes = connect(&cluster).await;
    let master = cluster.node(0);
    let keys: Vec<_> = keys_at(&nodes, master).take(3).collect();
    nodes.write(keys[1].as_bytes(), command(&["RPUSH", &keys[1], "x"]), patient()).await.unwrap();

    let all = keys.iter().map(|key| keyed(&["INCR", key])).collect();
    let [first, second, third] = nodes.write_all(all, patient()).await.try_into().unwrap();
    assert_eq!(first.unwrap().value, Value::Int(1));
    let error = second.unwrap_err();
    assert_eq!((error.kind(), error.code()), (NodeErrorKind::Refused, Some("WRONGTYPE")));
    assert!(!error.may_be_executed());
    assert_eq!(third.unwrap().value, Value::Int(1));
    assert_eq!(calls(master, "incr"), 3);

    let error = nodes.read(b"x", command(&["GET"]), patient()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (NodeErrorKind::Refused, Some("ERR")));
}
