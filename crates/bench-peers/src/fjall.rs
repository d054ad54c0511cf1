//! fjall, a log-structured merge tree in Rust.
//!
//! Durability: an insert writes the journal to the operating system before it returns
//! (`PersistMode::Buffer`), which survives a killed process. For a power cut `PersistMode::SyncData`
//! follows each insert.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use harness::{Contender, Durability, Locks, Plan, Report, Result, Worker};

pub(crate) struct Fjall {
    database: Database,
    seen: Keyspace,
    locks: Locks,
    persist: PersistMode,
}

impl Contender for Fjall {
    fn open(plan: &Plan) -> Result<Self> {
        let database = Database::builder(plan.dir.join("fjall"))
            .cache_size(crate::CACHE_BYTES.into())
            .open()?;
        let seen = database.keyspace("seen", KeyspaceCreateOptions::default)?;
        let persist = match plan.durability {
            Durability::Kill => PersistMode::Buffer,
            Durability::Power => PersistMode::SyncData,
        };
        Ok(Self { database, seen, locks: Locks::default(), persist })
    }

    fn report(&self) -> Report {
        Report {
            version: "fjall 3.1".to_owned(),
            settings: format!(
                "PersistMode::{:?} with each write, cache 512 MiB, otherwise defaults; get and insert \
                 under a lock a group of ids",
                self.persist
            ),
        }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }

    /// Random inserts of ten million ids stall behind compactions for minutes. Ingestion leaves the
    /// same tree: sorted, compacted, nothing in the journal.
    fn load(&self, ids: &mut dyn Iterator<Item = String>) -> Result<bool> {
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        let mut ingestion = self.seen.start_ingestion()?;
        for id in ids {
            ingestion.write(id, crate::expiry())?;
        }
        ingestion.finish()?;
        Ok(true)
    }

    fn settle(&self) -> Result<()> {
        self.database.persist(PersistMode::SyncAll)?;
        Ok(self.seen.major_compact()?)
    }
}

impl Fjall {
    fn holds(&self, id: &str) -> Result<bool> {
        Ok(self.seen.get(id)?.is_some_and(|value| crate::is_live(&value)))
    }
}

impl Worker for &Fjall {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        if !likely_new && self.holds(id)? {
            return Ok(false);
        }
        let lock = self.locks.one(id);
        if self.holds(id)? {
            return Ok(false);
        }
        self.seen.insert(id, crate::expiry())?;
        // A duplicate is turned away before this is on disk; the marking call itself waits for it.
        drop(lock);
        if self.persist != PersistMode::Buffer {
            self.database.persist(self.persist)?;
        }
        Ok(true)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        let _lock = self.locks.all();
        let mut batch = self.database.batch().durability(Some(self.persist));
        for id in ids {
            if !self.holds(id)? {
                batch.insert(&self.seen, id.as_str(), crate::expiry());
            }
        }
        let new = batch.len() as u64;
        batch.commit()?;
        Ok(new)
    }
}
