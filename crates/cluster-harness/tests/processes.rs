//! Starting, failing and ending servers.

#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "the start of real processes is measured")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cluster_harness::{Cluster, Options, Reply, Role, needs_server};
use rustix::process::{Pid, test_kill_process};

const LONG: Duration = Duration::from_secs(20);

fn quick_to_fail() -> Options {
    Options::new().node_timeout(Duration::from_secs(1))
}

fn lives(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    test_kill_process(pid).is_ok()
}

fn wait_until_gone(pids: &[u32]) {
    let begun = Instant::now();
    while let Some(pid) = pids.iter().find(|pid| lives(**pid)) {
        assert!(begun.elapsed() < LONG, "{pid} lives");
        thread::sleep(Duration::from_millis(10));
    }
}

fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.nodes().iter().filter_map(cluster_harness::Node::pid).collect()
}

#[test]
fn a_cluster_is_ready_soon_and_leaves_nothing_behind() {
    needs_server!();
    let begun = Instant::now();
    let cluster = Cluster::start();
    let took = begun.elapsed();
    let _ = writeln!(std::io::stderr(), "a cluster of 3 + 3 started in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(cluster.masters().len(), 3);
    let replica = cluster.replica_of(cluster.node(0));
    assert_eq!((replica.index(), replica.role()), (3, Role::Replica));

    let pids = pids(&cluster);
    assert!(pids.len() == 6 && pids.iter().all(|pid| lives(*pid)));
    let folder = cluster.node(0).folder().to_owned();
    drop(cluster);
    // `lives` is also true of a process that has ended, but whose parent has not asked how.
    assert!(!pids.iter().any(|pid| lives(*pid)));
    assert!(!folder.exists());
}

#[test]
fn a_panic_leaves_no_process() {
    needs_server!();
    let (sender, receiver) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        let cluster = Cluster::start_with(&Options::new().masters(1).replicas_per_master(0));
        sender.send(pids(&cluster)).unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(panicked.join().is_err());
    let pids = receiver.recv().unwrap();
    assert!(pids.len() == 1 && !lives(pids[0]));
}

/// Not a test: the program that [`a_killed_program_leaves_no_server`] kills.
#[test]
fn killed_program() {
    if std::env::var_os("CLUSTER_HARNESS_CHILD").is_none() {
        return;
    }
    let cluster = Cluster::start_with(&Options::new().masters(1));
    cluster.node(1).pause();
    for pid in pids(&cluster) {
        println!("pid {pid}");
    }
    println!("folder {}", cluster.node(0).folder().display());
    loop {
        thread::park();
    }
}

#[test]
fn a_killed_program_leaves_no_server() {
    needs_server!();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["killed_program", "--exact", "--nocapture"])
        .env("CLUSTER_HARNESS_CHILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pids: Vec<u32> = Vec::new();
    let mut folder = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(pid) = line.strip_prefix("pid ") {
            pids.push(pid.parse().unwrap());
        } else if let Some(path) = line.strip_prefix("folder ") {
            path.clone_into(&mut folder);
            break;
        }
    }
    assert!(pids.len() == 2 && pids.iter().all(|pid| lives(*pid)));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone(&pids);
    let begun = Instant::now();
    while std::path::Path::new(&folder).exists() {
        assert!(begun.elapsed() < LONG, "{folder} is still there");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_replica_of_a_killed_master_is_promoted_and_the_master_comes_back_as_its_replica() {
    needs_server!();
    let cluster = Cluster::start_with(&quick_to_fail());
    let (master, replica) = (cluster.master_of_slot(0), cluster.replica_of(cluster.node(0)));
    master.kill();
    cluster.wait_until_ok(LONG);
    assert_eq!(cluster.master_of_slot(0).index(), replica.index());
    assert_eq!(replica.role(), Role::Master);
    assert!(master.try_command(&["PING"]).is_err());

    master.restart();
    cluster.wait_until_ok(LONG);
    assert_eq!(cluster.replica_of(replica).index(), master.index());
}

#[test]
fn a_paused_master_is_replaced_and_follows_once_it_continues() {
    needs_server!();
    let cluster = Cluster::start_with(&quick_to_fail());
    let (master, replica) = (cluster.node(1), cluster.replica_of(cluster.node(1)));
    let slot = cluster.slot_of("paused");
    cluster.migrate_slots(slot..=slot, master);
    cluster.wait_until_ok(LONG);
    master.pause();
    assert!(!master.is_running());
    cluster.wait_until_ok(LONG);
    assert_eq!(cluster.master_of_slot(slot).index(), replica.index());
    master.resume();
    cluster.wait_until_ok(LONG);
    assert_eq!(cluster.replica_of(replica).index(), master.index());
}

#[test]
fn a_failover_makes_the_replica_the_master() {
    needs_server!();
    let cluster = Cluster::start();
    let replica = cluster.replica_of(cluster.node(2));
    cluster.failover(replica);
    cluster.wait_until_ok(LONG);
    assert_eq!(cluster.master_of_slot(16_383).index(), replica.index());
    assert_eq!(cluster.replica_of(replica).index(), 2);
}

#[test]
fn a_restarted_server_has_its_keys_only_with_appendonly() {
    needs_server!();
    for appendonly in [true, false] {
        let options = Options::new().masters(1).replicas_per_master(0).appendonly(appendonly);
        let cluster = Cluster::start_with(&options);
        let node = cluster.node(0);
        assert_eq!(node.command(&["SET", "key", "value"]).text(), "OK");
        node.restart();
        cluster.wait_until_ok(LONG);
        let kept = node.command(&["GET", "key"]) == Reply::Bulk(b"value".to_vec());
        assert_eq!(kept, appendonly);
    }
}
