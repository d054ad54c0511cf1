//! The contract of all stores, on a real cluster: see the crate `contract-suite` for the tests and the exceptions.
#![cfg(unix)]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use cluster_harness::{Cluster, available_or_skipped};
use contract_suite::{Opened, Place};
use seen_cluster::ClusterStore;
use seen_store::Config;

/// One cluster for all tests. Each store has a namespace of its own.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::start);

struct Servers;

impl Place for Servers {
    fn open(&self, config: Config) -> Opened {
        static NAMESPACES: AtomicU32 = AtomicU32::new(0);
        let url = format!("{}store{}", CLUSTER.url(), NAMESPACES.fetch_add(1, Relaxed));
        let open = move || ClusterStore::open_with(&url, config.clone()).unwrap();
        Opened::new(Box::new(open()), move || Box::new(open()))
    }

    fn time_passes(&self, by: Duration) {
        std::thread::sleep(by);
    }

    fn unit(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn keeps_its_own_clock(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        true
    }
}

contract_suite::tests!(Servers, if available_or_skipped);
