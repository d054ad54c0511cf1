//! A cluster that fails while four processes use it: `make cluster-faults`.
//!
//! Owns the load and what is counted. Each test takes up to a minute and prints its figures, so they are run by name. What
//! always holds: what a client was told is written to a file by the client itself before it goes on, so a count is of what
//! callers saw.
#![cfg(unix)]

mod client;
mod skew;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cluster_harness::{Cluster, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{ErrorKind, Verdict};

use self::client::{Clients, Told};

const CLIENTS: usize = 4;

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Returns how many of the ids that were acknowledged as new are answered as new again.
fn new_again(url: &str, told: &[Told]) -> Vec<String> {
    let store = ClusterStore::open(url).unwrap();
    let ids: Vec<_> = told.iter().filter(|told| told.answer == "new").map(|it| &*it.id).collect();
    let verdicts = store.check_and_mark_all(&ids).unwrap();
    let again = ids.iter().zip(verdicts).filter(|(_, verdict)| *verdict == Verdict::New);
    again.map(|(id, _)| (*id).to_owned()).collect()
}

fn by_answer(told: &[Told]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for told in told {
        *counts.entry(&*told.answer).or_default() += 1;
    }
    counts
}

fn kill_a_master(min_replicas: u32) -> (Vec<Told>, Vec<String>) {
    let cluster = Cluster::start();
    let url = format!("{}?min_replicas={min_replicas}", cluster.url());
    let folder = tempfile::tempdir().unwrap();
    let clients = Clients::start(CLIENTS, "check", &url, folder.path());
    pause(3);
    let master = cluster.master_of_slot(0);
    master.kill();
    cluster.wait_until_ok(Duration::from_secs(40));
    // Each client has to find the new master.
    pause(5);
    let told = clients.end();
    let again = new_again(&format!("{}?min_replicas=0", cluster.url()), &told);
    eprintln!(
        "a master killed under load, min_replicas {min_replicas}: {:?}; {} acknowledged ids were new again",
        by_answer(&told),
        again.len()
    );
    (told, again)
}

#[test]
#[ignore = "takes long, and reports"]
fn what_was_acknowledged_survives_the_death_of_a_master() {
    needs_server!();
    let (told, again) = kill_a_master(1);
    assert_eq!(again, Vec::<String>::new());
    let after = told.iter().filter(|told| told.answer == "new").count();
    assert!(after > 1_000, "{after}");
    let longest = told.iter().map(|told| told.took_ms).max().unwrap_or(0);
    eprintln!("the longest call took {longest} ms");
    // The time limit of a call, and a little.
    assert!(longest < 32_000, "{longest} ms");
}

#[test]
#[ignore = "takes long, and reports"]
fn without_replicas_what_was_acknowledged_may_be_lost_and_is_counted() {
    needs_server!();
    let (told, again) = kill_a_master(0);
    assert!(again.len() < told.len() / 10, "{} of {}", again.len(), told.len());
}

#[test]
#[ignore = "takes long, and reports"]
fn slots_that_move_under_load_bring_no_error_to_a_caller() {
    needs_server!();
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let clients = Clients::start(CLIENTS, "check", &cluster.url(), folder.path());
    pause(1);
    let masters = cluster.masters();
    for round in 0..4_u16 {
        let to = masters[usize::from(round + 1) % masters.len()];
        cluster.migrate_slots(round * 400..=round * 400 + 399, to);
        cluster.wait_until_ok(Duration::from_secs(20));
    }
    let told = clients.end();
    let counts = by_answer(&told);
    eprintln!("1,600 slots moved under load: {counts:?}");
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&"new"], "{counts:?}");
    assert_eq!(new_again(&cluster.url(), &told), Vec::<String>::new());
}

#[test]
#[ignore = "takes long, and reports"]
fn a_node_that_pauses_makes_no_own_mark_a_duplicate() {
    needs_server!();
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let clients = Clients::start(CLIENTS, "check", &cluster.url(), folder.path());
    pause(1);
    let master = cluster.master_of_slot(0);
    for _ in 0..3 {
        master.pause();
        // Longer than an answer may take, and shorter than until a failover.
        pause(3);
        master.resume();
        pause(1);
    }
    let told = clients.end();
    let counts = by_answer(&told);
    eprintln!("a master paused three times for 3 s: {counts:?}");
    assert!(!counts.contains_key("duplicate"), "{counts:?}");
    assert_eq!(new_again(&cluster.url(), &told), Vec::<String>::new());
}

#[test]
#[ignore = "takes long, and reports"]
fn a_cluster_that_is_gone_is_an_error_within_the_timeout() {
    needs_server!();
    let cluster = Cluster::start();
    let store = ClusterStore::open(&cluster.url()).unwrap().busy_timeout(Duration::from_secs(2));
    store.mark_seen("known").unwrap();
    cluster.nodes().iter().for_each(cluster_harness::Node::kill);
    for _ in 0..3 {
        let begun = client::now();
        let error = store.try_is_seen("known").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let error = store.check_and_mark("new").unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown),
            "{error}"
        );
        assert!(!store.is_seen("known"));
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    }
    let error = ClusterStore::open_with(
        &cluster.url(),
        seen_store::Config::default().busy_timeout(Duration::from_secs(1)),
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
}

fn read_told(folder: &Path, client: usize) -> Vec<Told> {
    let text = std::fs::read_to_string(folder.join(client.to_string())).unwrap_or_default();
    text.lines().filter_map(Told::read).collect()
}
