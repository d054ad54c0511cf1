//! The contract of stores on a file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract_suite::{Opened, Place};
use seen_store::{Clock, Config, ManualClock, SeenStore};
use tempfile::TempDir;

/// Stores on files, each in a folder of its own, that share a clock.
#[derive(Default)]
struct Files(Arc<ManualClock>);

/// Returns a new folder, where syncs cost nothing if the system has such a place.
fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).unwrap()
}

impl Place for Files {
    fn open(&self, config: Config) -> Opened {
        let (folder, config) = (folder(), config.clock(Arc::clone(&self.0)));
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let open = move || SeenStore::open_with(&path, config.clone()).unwrap();
        let store = open();
        Opened::new(Box::new(store), move || {
            // The folder lives as long as the way to it.
            let _ = &folder;
            Box::new(open())
        })
    }

    fn time_passes(&self, by: Duration) {
        self.0.advance(by);
    }

    fn clock_is_set_back(&self, by: Duration) {
        self.0.set(self.0.now() - by);
    }

    fn unit(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    fn keeps_its_own_clock(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        true
    }
}

contract_suite::tests!(Files::default());
