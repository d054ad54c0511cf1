//! The index in the file: sorted runs that are written, merged, damaged and thrown away beside all else that a store does.
//!
//! The sizes are tiny (`SEEN_SMALL_INDEX`), so that stores of some dozen ids need all of the machinery. Where the usual
//! sizes matter, a test says so and runs in a process of its own.

#![cfg(unix)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../support_process/mod.rs"]
mod support_process;

mod alone;
mod damage;
mod full;
mod histories;
mod random;
mod together;
mod usual;

use std::sync::Once;

use common::Place;
use seen_store::{Config, IndexMode, SeenStore};

/// Set in a process whose sizes are the usual ones.
const USUAL: &str = "SEEN_USUAL_INDEX";

/// Makes all sizes of the index in the file tiny, in this process.
pub(crate) fn small_sizes() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        if std::env::var_os(USUAL).is_none() {
            // SAFETY: each test does this first, and no other code of this process changes the environment.
            unsafe { std::env::set_var("SEEN_SMALL_INDEX", "1") };
        }
    });
}

/// A place for a store with a tiny index.
pub(crate) fn place() -> Place {
    small_sizes();
    Place::in_ram()
}

pub(crate) fn asleep(config: Config) -> Config {
    config.index(IndexMode::Asleep)
}

pub(crate) fn id(n: usize) -> String {
    format!("id-{n}")
}

/// Marks these ids, a few in each of several stores, so that several runs are written.
pub(crate) fn fill(place: &Place, config: &Config, ids: std::ops::Range<usize>) {
    let all: Vec<usize> = ids.collect();
    for some in all.chunks(11) {
        let store = place.open(config.clone());
        assert_eq!(store.seed(some.iter().map(|n| id(*n))).unwrap(), some.len() as u64);
        store.close().unwrap();
    }
}

/// Waits until the whole index is in memory, without a call that would let it get there; returns false if it takes too
/// long.
pub(crate) fn wakes(store: &SeenStore) -> bool {
    eventually(|| store.stats().unwrap().index_is_awake)
}

/// Waits for something that a thread does.
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    (0..600).any(|_| {
        std::thread::sleep(common::ms(50));
        is_so()
    })
}

/// Asks a store for ids, and returns those that are not seen.
pub(crate) fn missed(store: &SeenStore, ids: std::ops::Range<usize>) -> Vec<usize> {
    ids.filter(|n| !store.try_is_seen(id(*n)).unwrap()).collect()
}
