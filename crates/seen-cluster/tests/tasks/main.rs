//! The verbs for tasks: leases, work done once, waiting, and calls that are dropped. What the verbs decide is tested with the
//! contract of all stores, in `contract.rs`.
#![cfg(unix)]

mod cancelled;
mod leases;
mod once;
mod runtimes;
mod waits;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use cluster_harness::Cluster;
use seen_cluster::{AsyncClusterLease, AsyncClusterStore};
use seen_store::{Claim, Entry};

const MINUTE: Duration = Duration::from_secs(60);

/// One cluster for all tests.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::start);

/// Opens a store with a namespace of its own.
async fn store() -> AsyncClusterStore {
    static NAMESPACES: AtomicU32 = AtomicU32::new(0);
    let url = format!("{}tasks{}", CLUSTER.url(), NAMESPACES.fetch_add(1, Relaxed));
    AsyncClusterStore::open(&url).await.unwrap()
}

async fn granted(store: &AsyncClusterStore, id: &str) -> AsyncClusterLease {
    match store.claim(id, MINUTE).await.unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// Opens another store with the same namespace.
async fn again(store: &AsyncClusterStore) -> AsyncClusterStore {
    let shown = format!("{store:?}");
    let url = shown.split('"').find(|part| part.starts_with("redis://")).unwrap();
    AsyncClusterStore::open(url).await.unwrap()
}

async fn entry(store: &AsyncClusterStore, id: &str) -> Entry {
    store.get(id).await.unwrap().unwrap()
}
