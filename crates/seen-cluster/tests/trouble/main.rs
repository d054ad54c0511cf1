//! A store on servers that lose answers, stand still, lack replicas, or have other keys.
#![cfg(unix)]

mod batches;
mod counts;
mod forks;
mod lost_answers;
mod other_keys;
mod replicas;
mod servers;
mod standing_still;
mod unknown_outcomes;

#[path = "../../../../tests/support_process/mod.rs"]
mod support_process;

use std::time::{Duration, Instant};

use cluster_harness::{Cluster, Fault, Injected, Node, Options};

const MINUTE: Duration = Duration::from_secs(60);

/// A cluster whose servers are reached through proxies.
fn behind_proxies() -> Cluster {
    Cluster::start_with(&Options::new().announce_through_proxies(true))
}

fn inject(cluster: &Cluster, fault: &Fault) -> Vec<Injected> {
    cluster.proxies().iter().map(|proxy| proxy.inject(fault.clone())).collect()
}

/// Returns the master that has this id of the default scope, in the namespace of a URL without one.
fn master_of<'a>(cluster: &'a Cluster, id: &str) -> &'a Node {
    cluster.master_of_slot(cluster.slot_of(&format!("seen{{}}::{id}")))
}

/// Returns different ids that this master has.
fn ids_of<'a>(cluster: &'a Cluster, master: &'a Node) -> impl Iterator<Item = String> + 'a {
    let ids = (0..).map(|n| format!("incident-{n}"));
    ids.filter(|id| master_of(cluster, id).index() == master.index())
}

/// Returns how often the server has executed this command.
fn calls(node: &Node, command: &str) -> u64 {
    let stats = node.command(&["INFO", "commandstats"]).text();
    let of_command = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&of_command));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "how long calls take")]
fn now() -> Instant {
    Instant::now()
}
