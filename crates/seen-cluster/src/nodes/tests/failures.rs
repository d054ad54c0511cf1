use std::time::Duration;

use cluster_harness::{Cluster, Fault, Options, needs_server};
use redis::Value;

use super::{
    address, behind_proxies, command, connect, in_ms, keyed, keys_at, patient, settings, text,
};
use crate::nodes::clock::steady_us;
use crate::nodes::{NodeErrorKind, Nodes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_may_be_executed_and_is_not_sent_again() {
    needs_server!();
    let cluster = behind_proxies();
    let nodes = connect(&cluster).await;
    let keys: Vec<_> = keys_at(&nodes, cluster.node(0)).take(3).collect();
    let fault = cluster.proxy(0).inject(Fault::lose_answer().on(&["SET"]).nth(1));

    // What was answered before the connection broke stands.
    let all = vec![
        keyed(&["INCR", &keys[0]]),
        keyed(&["SET", &keys[1], "v"]),
        keyed(&["INCR", &keys[2]]),
    ];
    let [first, second, third] = nodes.write_all(all, patient()).await.try_into().unwrap();
    assert_eq!(first.unwrap().value, Value::Int(1));
    for result in [second, third] {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.may_be_executed()), (NodeErrorKind::Lost, true));
    }
    assert_eq!(fault.matched(), 1);
    let get = command(&["GET", &keys[1]]);
    assert_eq!(nodes.read(keys[1].as_bytes(), get, patient()).await.unwrap(), text("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_answer_is_lost_is_sent_again() {
    needs_server!();
    let cluster = behind_proxies();
    let nodes = connect(&cluster).await;
    let key = keys_at(&nodes, cluster.node(0)).next().unwrap();
    let fault = cluster.proxy(0).inject(Fault::lose_answer().on(&["GET"]).nth(1));
    let get = command(&["GET", &key]);
    assert_eq!(nodes.read(key.as_bytes(), get, patient()).await.unwrap(), Value::Nil);
    assert_eq!(fault.matched(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_late_counts_as_lost_and_the_next_call_connects_anew() {
    needs_server!();
    let cluster = behind_proxies();
    let mut settings = settings(&cluster);
    settings.response_timeout = Duration::from_millis(200);
    let nodes = Nodes::connect(settings, patient()).await.unwrap();
    let key = keys_at(&nodes, cluster.node(0)).next().unwrap();
    let fault = cluster.proxy(0).inject(Fault::hold_answer().on(&["INCR"]).nth(1));
    let incr = || nodes.write(key.as_bytes(), command(&["INCR", &key]), patient());
    assert!(incr().await.unwrap_err().may_be_executed());
    assert_eq!(incr().await.unwrap().value, Value::Int(2));
    assert_eq!(fault.hits(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_deadline_passes_is_told_whether_its_command_was_sent() {
    needs_server!();
    let cluster = behind_proxies();
    let nodes = connect(&cluster).await;
    let keys: Vec<_> = keys_at(&nodes, cluster.node(0)).take(2).collect();
    let held = cluster.proxy(0).inject(Fault::hold_answer().on(&["INCR"]).nth(1));
    let incr = |n: usize, deadline| {
        let (nodes, key) = (nodes.clone(), keys[n].clone());
        tokio::spawn(async move {
            nodes.write(key.as_bytes(), command(&["INCR", &key]), deadline).await
        })
    };
    let leader = incr(0, in_ms(400));
    held.wait_for_hits(1);
    let error = incr(1, in_ms(100)).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.may_be_executed()), (NodeErrorKind::Timeout, false));
    let error = leader.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.may_be_executed()), (NodeErrorKind::Timeout, true));
    held.remove();
    assert_eq!(incr(1, patient()).await.unwrap().unwrap().value, Value::Int(1));
    assert_eq!(incr(0, patient()).await.unwrap().unwrap().value, Value::Int(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_is_not_stormed_and_is_used_once_it_takes_connections() {
    needs_server!();
    let cluster = behind_proxies();
    let nodes = connect(&cluster).await;
    let key = keys_at(&nodes, cluster.node(0)).next().unwrap();
    let proxy = cluster.proxy(0);
    proxy.refuse_connections(true);
    proxy.cut_connections();
    // The connection's end arrives a moment later; what is sent before that may be executed.
    let mut error = None;
    while error.is_none() {
        let get = command(&["SET", &key, "0"]);
        let result = nodes.write(key.as_bytes(), get, in_ms(100)).await;
        error = result.err().filter(|error| !error.may_be_executed());
    }
    assert_eq!(error.unwrap().kind(), NodeErrorKind::Timeout);

    let before = proxy.counts().refused;
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            let (nodes, key) = (nodes.clone(), key.clone());
            tokio::spawn(async move {
                nodes.write(key.as_bytes(), command(&["INCR", &key]), patient()).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // 300 callers pause for 100 ms on average: if each connected by itself, it would be more than 1,000.
    let refused = proxy.counts().refused - before;
    assert!((1..300).contains(&refused), "{refused}");
    proxy.refuse_connections(false);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let get = command(&["GET", &key]);
    assert_eq!(nodes.read(key.as_bytes(), get, patient()).await.unwrap(), text("300"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_a_master_was_killed_and_none_is_executed_twice() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().node_timeout(Duration::from_secs(1)));
    let mut settings = settings(&cluster);
    settings.min_replicas = 1;
    // The new master has no replica, and servers look for the end of a wait ten times a second.
    settings.wait_timeout = Duration::from_millis(10);
    let nodes = Nodes::connect(settings, patient()).await.unwrap();
    let master = cluster.node(0);
    let tasks: Vec<_> = keys_at(&nodes, master)
        .take(16)
        .map(|key| {
            let nodes = nodes.clone();
            tokio::spawn(async move {
                let (mut certain, mut possible) = (0, 0);
                while certain < 40 {
                    let incr = command(&["INCR", &key]);
                    match nodes.write(key.as_bytes(), incr, patient()).await {
                        Ok(_) => certain += 1,
                        Err(error) if error.may_be_executed() => possible += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                let get = command(&["GET", &key]);
                let value = nodes.read(key.as_bytes(), get, patient()).await.unwrap();
                let Value::BulkString(count) = value else { panic!("{value:?}") };
                let count: i32 = String::from_utf8(count).unwrap().parse().unwrap();
                assert!(count <= certain + possible, "{count} > {certain} + {possible}");
                // Only the one pipeline that was under way.
                assert!(possible <= 1, "{possible}");
            })
        })
        .collect();
    let first = keys_at(&nodes, master).next().unwrap();
    let get = || nodes.read(first.as_bytes(), command(&["GET", &first]), patient());
    while get().await.unwrap() == Value::Nil {}
    master.kill();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(!nodes.masters().contains(&address(master)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_holds_up_neither_the_others_nor_the_map() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    let mut settings = settings(&cluster);
    settings.response_timeout = Duration::from_millis(800);
    settings.connect_timeout = Duration::from_millis(800);
    let nodes = Nodes::connect(settings, patient()).await.unwrap();
    let stuck = keys_at(&nodes, cluster.node(0)).next().unwrap();
    let others: Vec<_> = keys_at(&nodes, cluster.node(1)).take(3).collect();
    cluster.node(0).pause();

    let waiting = tokio::spawn({
        let (nodes, stuck) = (nodes.clone(), stuck.clone());
        async move { nodes.write(stuck.as_bytes(), command(&["SET", &stuck, "v"]), patient()).await }
    });
    let start = steady_us();
    for key in &others {
        nodes.write(key.as_bytes(), command(&["SET", key, "v"]), patient()).await.unwrap();
        nodes.read(key.as_bytes(), command(&["GET", key]), patient()).await.unwrap();
    }
    while nodes.cluster.refreshes() == 0 {
        nodes.cluster.refreshed(0).await;
    }
    let took_ms = (steady_us() - start) / 1_000;
    assert!(took_ms < 700, "{took_ms} ms");
    assert!(!waiting.is_finished());
    assert!(waiting.await.unwrap().unwrap_err().may_be_executed());

    // The system takes the connection, and nobody answers on it: certainly not executed.
    let set = command(&["SET", &stuck, "w"]);
    let error = nodes.write(stuck.as_bytes(), set, in_ms(1_200)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_be_executed()), (NodeErrorKind::Timeout, false));
    // Of a batch, only what is for that server fails.
    let mut all: Vec<_> = others.iter().map(|key| keyed(&["SET", key, "w"])).collect();
    all.push(keyed(&["SET", &stuck, "w"]));
    let results = nodes.write_all(all, in_ms(500)).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert!(!results[3].as_ref().unwrap_err().may_be_executed());
    cluster.node(0).resume();
    let get = command(&["GET", &stuck]);
    assert_ne!(nodes.read(stuck.as_bytes(), get, patient()).await.unwrap(), text("w"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_closed_while_idle_costs_no_write() {
    needs_server!();
    let cluster = behind_proxies();
    let nodes = connect(&cluster).await;
    let key = keys_at(&nodes, cluster.node(0)).next().unwrap();
    for n in 1..=20 {
        cluster.proxy(0).cut_connections();
        // Until the runtime has heard of it, a write would be lost.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let incr = command(&["INCR", &key]);
        let written = nodes.write(key.as_bytes(), incr, patient()).await.unwrap();
        assert_eq!(written.value, Value::Int(n));
    }
}
