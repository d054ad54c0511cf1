//! Real Redis Cluster servers on loopback ports, and a proxy that loses their answers.
//!
//! Owns the servers' processes, their ports and their folders. What always holds: a dropped [`Cluster`] leaves
//! no process and no folder behind, also after a panic; when the program itself is killed, a watcher process
//! ends the servers. Each failure of the harness is a panic: a test has no caller that could handle an error.
//! Knows nothing of the store.
//!
//! A test begins with [`needs_server!`] and then starts what it needs:
//!
//! ```no_run
//! # use std::time::Duration;
//! use cluster_harness::{Cluster, Options};
//!
//! let cluster = Cluster::start_with(&Options::new().node_timeout(Duration::from_secs(1)));
//! cluster.master_of_slot(0).kill();
//! cluster.wait_until_ok(Duration::from_secs(10));
//! ```
//!
//! Environment: `SEEN_REDIS_SERVER` is the path of the server program; without it, `redis-server` and then
//! `valkey-server` are looked for on `PATH`. Redis 7.0 or newer. With `SEEN_REQUIRE_CLUSTER` set, a missing
//! server program fails a test instead of skipping it.
//!
//! Unix only; on other systems the crate is empty.

#![cfg(unix)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

mod certificates;
mod cluster;
mod connection;
mod migration;
mod node;
mod options;
mod ports;
mod program;
mod proxy;
mod resp;
mod topology;
mod waiting;
mod watcher;

pub use cluster::Cluster;
pub use connection::Connection;
pub use node::{Node, Role};
pub use options::Options;
pub use program::{available, available_or_skipped};
pub use proxy::{Counts, Fault, Injected, Proxy};
pub use resp::Reply;
