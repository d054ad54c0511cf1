//! sled, a log-structured tree in Rust.
//!
//! Durability: sled keeps what was written in its own buffers for up to `flush_every_ms`, so only a
//! `flush` after each write survives a killed process; it has no cheaper level that does. That flush
//! writes and calls `sync_file_range`, which never tells the disk to empty its own cache: it does not
//! promise to survive a power cut, so sled does not run there.

use harness::{Contender, Durability, Plan, Report, Result, Worker};
use sled::{Batch, Db};

pub(crate) struct Sled {
    db: Db,
    locks: harness::Locks,
}

impl Contender for Sled {
    fn open(plan: &Plan) -> Result<Self> {
        let db = sled::Config::new()
            .path(plan.dir.join("sled"))
            .mode(sled::Mode::HighThroughput)
            .cache_capacity(crate::CACHE_BYTES.into())
            .flush_every_ms(None)
            .open()?;
        Ok(Self { db, locks: harness::Locks::default() })
    }

    fn report(&self) -> Report {
        Report {
            version: "sled 0.34".to_owned(),
            settings: "flush after each write (it has nothing weaker that survives a kill), \
                       HighThroughput, cache 512 MiB; compare_and_swap"
                .to_owned(),
        }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }

    fn unsupported(plan: &Plan) -> Option<String> {
        if plan.durability == Durability::Power {
            return Some("its flush does not empty the disk's own cache".to_owned());
        }
        matches!(plan.workload, harness::Workload::Claim | harness::Workload::Purge)
            .then(|| "measured for this store only".to_owned())
    }
}

impl Worker for &Sled {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        if !likely_new && self.db.get(id)?.is_some_and(|value| crate::is_live(&value)) {
            return Ok(false);
        }
        // Singles among themselves are atomic by compare_and_swap; only batches need them to wait.
        let _lock = self.locks.one(id);
        let mut old = None;
        while let Err(conflict) =
            self.db.compare_and_swap(id, old.take(), Some(&crate::expiry()))?
        {
            if conflict.current.as_deref().is_some_and(crate::is_live) {
                return Ok(false);
            }
            old = conflict.current;
        }
        self.db.flush()?;
        Ok(true)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        let _lock = self.locks.all();
        let mut batch = Batch::default();
        let mut new = 0;
        for id in ids {
            if !self.db.get(id)?.is_some_and(|value| crate::is_live(&value)) {
                batch.insert(id.as_str(), &crate::expiry());
                new += 1;
            }
        }
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        Ok(new)
    }
}
