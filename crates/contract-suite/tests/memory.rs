//! The contract of a store in memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use contract_suite::{Opened, Place};
use seen_store::{Clock, Config, ManualClock, SeenStore, Store};

/// Stores in memory. A second one on the same ids is there not.
#[derive(Default)]
struct Memory(Arc<ManualClock>);

impl Place for Memory {
    fn open(&self, config: Config) -> Opened {
        let store = SeenStore::in_memory_with(config.clock(Arc::clone(&self.0))).unwrap();
        let handle = store.clone();
        Opened::new(store.boxed(), move || handle.boxed())
    }

    fn time_passes(&self, by: Duration) {
        self.0.advance(by);
    }

    fn clock_is_set_back(&self, by: Duration) {
        let now: SystemTime = self.0.now();
        self.0.set(now - by);
    }

    fn unit(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    fn keeps_its_own_clock(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        false
    }
}

contract_suite::tests!(Memory::default());
