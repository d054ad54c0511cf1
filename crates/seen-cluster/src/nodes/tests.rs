//! The layer against real servers.
//!
//! Owns what these tests share: how they connect, and keys of a server of their choice.

mod batches;
mod connecting;
mod failures;
mod grouping;
mod redirects;
mod replicas;

use std::time::Duration;

use cluster_harness::{Cluster, Node, Options};
use redis::{Cmd, Value};

use super::{Address, Deadline, Nodes, Settings};

/// For calls that are to succeed, also after a failover.
fn patient() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn in_ms(ms: u64) -> Deadline {
    Deadline::after(Duration::from_millis(ms))
}

fn settings(cluster: &Cluster) -> Settings {
    let seed = |address: std::net::SocketAddr| (address.ip().to_string(), address.port());
    Settings::new(cluster.addresses().into_iter().map(seed).collect())
}

async fn connect(cluster: &Cluster) -> Nodes {
    Nodes::connect(settings(cluster), patient()).await.unwrap()
}

/// A cluster in which clients reach each server through a proxy.
fn behind_proxies() -> Cluster {
    Cluster::start_with(&Options::new().replicas_per_master(0).announce_through_proxies(true))
}

fn address(node: &Node) -> Address {
    Address::new("127.0.0.1", node.port())
}

/// Returns different keys in slots of this master, as the map has it now.
fn keys_at(nodes: &Nodes, master: &Node) -> impl Iterator<Item = String> {
    let (map, address) = (nodes.cluster.map(), address(master));
    let keys = (0..).map(|n| format!("key-{n}"));
    keys.filter(move |key| map.owner(super::slot(key.as_bytes())) == Some(&address))
}

fn command(words: &[&str]) -> Cmd {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
}

/// A command with its key, which is the second word.
fn keyed(words: &[&str]) -> (Vec<u8>, Cmd) {
    (words[1].into(), command(words))
}

fn text(text: &str) -> Value {
    Value::BulkString(text.into())
}

/// Returns how often the server has executed this command.
fn calls(node: &Node, command: &str) -> u64 {
    let stats = node.command(&["INFO", "commandstats"]).text();
    let line =
        stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}
