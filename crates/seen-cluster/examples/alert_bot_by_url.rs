//! The alert bot of `seen-store`, whose store is in a file or on a cluster.
//!
//! ```text
//! SEEN_DB_PATH=data/seen_ids.sqlite alert_bot_by_url FEED [POLLS] [SECONDS]
//! SEEN_DB_PATH=redis://node1,node2,node3/bot alert_bot_by_url FEED [POLLS] [SECONDS]
//! ```
//!
//! The bot itself is `examples/alert_bot.rs` of the repository, and the same for both.

use std::env;
use std::error::Error;

use seen_cluster::{is_cluster_url, open_url_with};
use seen_store::{Config, SeenStore, Store};

#[path = "../../../examples/alert_bot.rs"]
#[expect(dead_code, reason = "its own `main` opens files only")]
mod alert_bot;

fn main() -> Result<(), Box<dyn Error>> {
    alert_bot::run(open)
}

fn open() -> seen_store::Result<Box<dyn Store>> {
    match env::var("SEEN_DB_PATH") {
        Ok(url) if is_cluster_url(&url) => open_url_with(&url, Config::from_env()?),
        _ => Ok(Box::new(SeenStore::from_env()?)),
    }
}
