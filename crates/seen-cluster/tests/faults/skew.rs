//! Clients whose clocks are wrong by hours.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cluster_harness::{Cluster, needs_server};

use crate::client::{Clients, command};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
#[ignore = "takes long, and reports"]
fn clients_with_wrong_clocks_confirm_each_id_once() {
    needs_server!();
    if !Path::new(FAKETIME).exists() {
        assert!(std::env::var_os("SEEN_REQUIRE_CLUSTER").is_none(), "{FAKETIME} is missing");
        eprintln!("SKIPPED clients_with_wrong_clocks_confirm_each_id_once: {FAKETIME} is missing");
        return;
    }
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let clients = ["+0", "+3h", "-26h", "+400d"].iter().enumerate().map(|(client, skew)| {
        let mut command = command(client, "claim", &cluster.url(), folder.path());
        command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", skew).env("DONT_FAKE_MONOTONIC", "1");
        command
    });
    let clients = Clients::of(folder.path(), clients.collect());
    std::thread::sleep(Duration::from_secs(8));
    let told = clients.end();
    let mut confirmed = BTreeMap::<_, u32>::new();
    for told in told.iter().filter(|told| told.answer == "confirmed") {
        *confirmed.entry(&told.id).or_default() += 1;
    }
    let twice = confirmed.values().filter(|count| **count > 1).count();
    eprintln!("wrong clocks: {} ids confirmed, {twice} of them twice", confirmed.len());
    assert_eq!(twice, 0);
    assert_eq!(confirmed.len(), 200);
}
