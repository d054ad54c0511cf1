#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod attempt;
mod blocking;
mod counts;
mod keys;
mod nodes;
mod open;
mod store;
mod url;

pub use blocking::{ClusterEntries, ClusterStore};
pub use open::{open_url, open_url_with};
pub use store::{AsyncClusterClaim, AsyncClusterEntries, AsyncClusterLease, AsyncClusterStore};
pub use url::is_cluster_url;
