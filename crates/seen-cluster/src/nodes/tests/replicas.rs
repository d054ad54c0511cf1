use std::time::Duration;

use cluster_harness::{Cluster, needs_server};
use redis::Value;

use super::{command, in_ms, keys_at, patient, settings, text};
use crate::nodes::{NodeErrorKind, Nodes, Replicated};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_is_told_with_the_answer_and_delays_no_read() {
    needs_server!();
    let cluster = Cluster::start();
    let mut settings = settings(&cluster);
    settings.min_replicas = 1;
    settings.wait_timeout = Duration::from_millis(1_500);
    let nodes = Nodes::connect(settings, patient()).await.unwrap();
    let master = cluster.node(0);
    let key = keys_at(&nodes, master).next().unwrap();
    let write = |value: &'static str| {
        let (nodes, key) = (nodes.clone(), key.clone());
        tokio::spawn(async move {
            nodes.write(key.as_bytes(), command(&["SET", &key, value]), patient()).await.unwrap()
        })
    };
    assert_eq!(write("1").await.unwrap().replicated, Replicated::Enough);

    let replica = cluster.replica_of(master);
    replica.pause();
    let slow = write("2");
    // Each within a third of the wait, for the pipeline that waits has another connection.
    let mut seen = Value::Nil;
    while seen != text("2") {
        let get = command(&["GET", &key]);
        seen = nodes.read(key.as_bytes(), get, in_ms(500)).await.unwrap();
    }
    assert!(!slow.is_finished());
    let written = slow.await.unwrap();
    assert_eq!((written.value, written.replicated), (Value::Okay, Replicated::TooFew { by: 1 }));

    replica.resume();
    assert_eq!(write("3").await.unwrap().replicated, Replicated::Enough);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_that_never_had_the_replicas_are_refused_when_connecting() {
    needs_server!();
    let cluster = Cluster::start();
    let mut settings = settings(&cluster);
    settings.min_replicas = 2;
    let error = Nodes::connect(settings, patient()).await.err().unwrap();
    assert_eq!(error.kind(), NodeErrorKind::TooFewReplicas);
    let shown = error.to_string();
    assert!(shown.contains("127.0.0.1:") && shown.contains("min_replicas=1"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_missing_for_a_while_does_not_keep_a_store_from_connecting() {
    needs_server!();
    let cluster = Cluster::start();
    let mut settings = settings(&cluster);
    settings.min_replicas = 1;
    cluster.replica_of(cluster.node(0)).kill();
    let nodes = Nodes::connect(settings, in_ms(5_000)).await.unwrap();
    let key = keys_at(&nodes, cluster.node(0)).next().unwrap();
    let get = command(&["GET", &key]);
    assert_eq!(nodes.read(key.as_bytes(), get, patient()).await.unwrap(), Value::Nil);
    let elsewhere = keys_at(&nodes, cluster.node(1)).next().unwrap();
    let set = command(&["SET", &elsewhere, "v"]);
    let written = nodes.write(elsewhere.as_bytes(), set, patient()).await.unwrap();
    assert_eq!(written.replicated, Replicated::Enough);
}
