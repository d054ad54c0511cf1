use cluster_harness::{Cluster, Fault, Options, needs_server};
use redis::Value;
use tokio::task::JoinSet;

use super::{behind_proxies, calls, command, connect, keys_at, patient, settings, text};
use crate::nodes::Nodes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_come_together_share_a_pipeline_and_its_wait() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new());
    let mut settings = settings(&cluster);
    settings.min_replicas = 1;
    let nodes = Nodes::connect(settings, patient()).await.unwrap();
    let master = cluster.node(0);

    let mut tasks = JoinSet::new();
    for key in keys_at(&nodes, master).take(64) {
        let nodes = nodes.clone();
        tasks.spawn(async move {
            for n in 1..=20 {
                let incr = command(&["INCR", &key]);
                let written = nodes.write(key.as_bytes(), incr, patient()).await.unwrap();
                assert_eq!(written.value, Value::Int(n));
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(calls(master, "incr"), 64 * 20);
    let waits = calls(master, "wait");
    assert!((20..64 * 20 / 4).contains(&waits), "{waits} waits for {} writes", 64 * 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_dropped_takes_no_answer_from_the_others() {
    needs_server!();
    let cluster = behind_proxies();
    let nodes = connect(&cluster).await;
    let (master, proxy) = (cluster.node(0), cluster.proxy(0));
    let keys: Vec<_> = keys_at(&nodes, master).take(5).collect();
    let start = |n: usize| {
        let (nodes, key) = (nodes.clone(), keys[n].clone());
        tokio::spawn(async move {
            nodes.write(key.as_bytes(), command(&["SET", &key, "v"]), patient()).await
        })
    };

    let held = proxy.inject(Fault::hold_answer().on(&["SET"]).nth(1));
    let leader = start(0);
    held.wait_for_hits(1);
    let followers: Vec<_> = (1..5).map(start).collect();
    wait_until_queued(&nodes, &keys[0], 4).await;
    // The leader's command was sent, the first follower's was not.
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    followers[0].abort();
    let mut followers = followers.into_iter();
    assert!(followers.next().unwrap().await.unwrap_err().is_cancelled());
    held.remove();
    for follower in followers {
        assert_eq!(follower.await.unwrap().unwrap().value, Value::Okay);
    }
    let get = |n: usize| nodes.read(keys[n].as_bytes(), command(&["GET", &keys[n]]), patient());
    assert_eq!(get(0).await.unwrap(), text("v"));
    assert_eq!(get(1).await.unwrap(), Value::Nil);
    assert_eq!(get(2).await.unwrap(), text("v"));
    assert_eq!(start(1).await.unwrap().unwrap().value, Value::Okay);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_dropped_leaves_its_group_the_answers() {
    needs_server!();
    let cluster = behind_proxies();
    let nodes = connect(&cluster).await;
    let proxy = cluster.proxy(0);
    let keys: Vec<_> = keys_at(&nodes, cluster.node(0)).take(3).collect();
    let start = |n: usize| {
        let (nodes, key) = (nodes.clone(), keys[n].clone());
        tokio::spawn(async move {
            nodes.write(key.as_bytes(), command(&["SET", &key, "v"]), patient()).await
        })
    };

    // The leader has to connect first, so the others come into its group.
    proxy.cut_connections();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let connecting = proxy.inject(Fault::hold_answer().on(&["TIME"]).nth(1));
    let answering = proxy.inject(Fault::hold_answer().on(&["SET"]).nth(1));
    let leader = start(0);
    connecting.wait_for_hits(1);
    let followers = [start(1), start(2)];
    wait_until_queued(&nodes, &keys[0], 2).await;
    connecting.remove();
    answering.wait_for_hits(1);
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    answering.remove();
    for follower in followers {
        assert_eq!(follower.await.unwrap().unwrap().value, Value::Okay);
    }
    assert_eq!(answering.matched(), 3);
}

/// Returns when so many writes wait behind the pipeline that is under way.
async fn wait_until_queued(nodes: &Nodes, key: &str, count: usize) {
    let cluster = &nodes.cluster;
    let owner = cluster.map().owner(crate::nodes::slot(key.as_bytes())).unwrap().clone();
    let node = cluster.node(&owner);
    while node.lane(crate::nodes::node::Purpose::Write).waiting() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn callers_that_are_dropped_at_any_moment_leave_the_lane_usable() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().masters(1).replicas_per_master(0));
    let nodes = connect(&cluster).await;
    let incr = || command(&["INCR", "k"]);
    for round in 0..300_u64 {
        let mut tasks = JoinSet::new();
        for task in 0..4_u64 {
            let nodes = nodes.clone();
            tasks.spawn(async move {
                for _ in 0..(round + task) % 7 {
                    tokio::task::yield_now().await;
                }
                let patience = std::time::Duration::from_micros(round * task);
                _ = tokio::time::timeout(patience, nodes.write(b"k", incr(), patient())).await;
            });
        }
        tasks.join_all().await;
    }
    let written = nodes.write(b"k", incr(), patient()).await.unwrap();
    let Value::Int(count) = written.value else { panic!("{written:?}") };
    // Each that was sent was executed once, and the last one after them.
    assert_eq!(u64::try_from(count).unwrap(), calls(cluster.node(0), "incr"));
}
