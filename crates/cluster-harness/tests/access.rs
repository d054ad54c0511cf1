//! TLS, users and passwords, as a cluster client meets them.

#![cfg(unix)]

use std::fs;

use cluster_harness::{Cluster, Options, needs_server};
use redis::cluster::{ClusterClient, ClusterClientBuilder, ClusterConnection};
use redis::{RedisResult, TlsCertificates, cmd};

/// The URLs of the single nodes, as the client wants them.
fn urls(cluster: &Cluster, scheme: &str, user: &str) -> Vec<String> {
    cluster.addresses().iter().map(|address| format!("{scheme}://{user}{address}")).collect()
}

fn connect(cluster: &Cluster, user: &str) -> RedisResult<ClusterConnection> {
    ClusterClient::new(urls(cluster, "redis", user))?.get_connection()
}

#[test]
fn a_cluster_with_tls_is_reached_by_those_that_trust_its_authority() {
    needs_server!();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::start_with(&Options::new().tls(true));
    assert!(cluster.url().starts_with("rediss://127.0.0.1:"));
    let connect = |root_cert| {
        let certificates = TlsCertificates { client_tls: None, root_cert };
        let urls = urls(&cluster, "rediss", "");
        ClusterClientBuilder::new(urls).certs(certificates).build()?.get_connection()
    };
    let mut client = connect(Some(fs::read(cluster.ca_path()).unwrap())).unwrap();
    for number in 0..30 {
        cmd("SET").arg(number).arg("value").exec(&mut client).unwrap();
    }
    // Without it: only the authorities that the system trusts.
    assert!(connect(None).is_err());
    // Servers speak TLS to each other too.
    let slot = cluster.slot_of("1");
    let to =
        cluster.masters().into_iter().find(|to| to.index() != cluster.master_of_slot(slot).index());
    cluster.migrate_slots(slot..=slot, to.unwrap());
    let value: String = cmd("GET").arg(1).query(&mut client).unwrap();
    assert_eq!(value, "value");
}

#[test]
fn a_user_may_do_what_its_rules_say() {
    needs_server!();
    let rules = "alice on >secret ~seen:* &* +@all -del";
    let cluster = Cluster::start_with(&Options::new().user(rules));
    assert!(cluster.url_as("alice", "secret").starts_with("redis://alice:secret@127.0.0.1:"));
    let mut alice = connect(&cluster, "alice:secret@").unwrap();
    cmd("SET").arg("seen:1").arg("value").exec(&mut alice).unwrap();
    let refused = cmd("SET").arg("other").arg("value").exec(&mut alice).unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    let refused = cmd("DEL").arg("seen:1").exec(&mut alice).unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    assert!(connect(&cluster, "alice:wrong@").is_err());
    assert!(connect(&cluster, "bob:secret@").is_err());
}

#[test]
fn a_required_password_is_required_of_clients_and_no_hindrance_to_replicas() {
    needs_server!();
    // Starting includes that the replicas follow.
    let cluster = Cluster::start_with(&Options::new().require_default_password("secret"));
    assert!(connect(&cluster, "").is_err());
    assert!(connect(&cluster, ":wrong@").is_err());
    let mut client = connect(&cluster, ":secret@").unwrap();
    cmd("SET").arg("key").arg("value").exec(&mut client).unwrap();
}
