//! redb, a copy-on-write B+ tree in Rust.
//!
//! Durability: `Durability::None` keeps commits in the process's own memory, so a killed process loses
//! them; `Immediate` is redb's only level that survives. To survive a kill, and no more, this runs
//! `Immediate` on a storage backend that writes as redb's own does and leaves out the sync. For a power
//! cut it is redb's own backend.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;

use harness::{Contender, Durability, Plan, Report, Result, Worker};
use redb::backends::FileBackend;
use redb::{
    BackendError, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};

const SEEN: TableDefinition<'_, &str, u64> = TableDefinition::new("seen");

/// A file that is never synced.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
}

pub(crate) struct Redb {
    database: Database,
    durability: Durability,
}

fn open_file(plan: &Plan) -> io::Result<File> {
    let path = plan.dir.join("seen.redb");
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

impl Contender for Redb {
    fn open(plan: &Plan) -> Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(usize::try_from(crate::CACHE_BYTES)?);
        let backend = FileBackend::new(open_file(plan)?)?;
        let database = match plan.durability {
            Durability::Kill => builder.create_with_backend(Unsynced(backend))?,
            Durability::Power => builder.create_with_backend(backend)?,
        };
        let transaction = database.begin_write()?;
        transaction.open_table(SEEN)?;
        transaction.commit()?;
        Ok(Self { database, durability: plan.durability })
    }

    fn report(&self) -> Report {
        let backend = match self.durability {
            Durability::Kill => "a backend that leaves out the sync",
            Durability::Power => "its own file backend",
        };
        Report {
            version: "redb 4.4".to_owned(),
            settings: format!(
                "Durability::Immediate on {backend}, cache 512 MiB; duplicates by a read transaction \
                 first"
            ),
        }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }
}

impl Redb {
    fn mark_all<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Result<u64> {
        let transaction = self.database.begin_write()?;
        let mut new = 0;
        {
            let mut table = transaction.open_table(SEEN)?;
            for id in ids {
                let now = harness::now_ms();
                let held = table.get(id)?.is_some_and(|expiry| expiry.value() > now);
                if !held {
                    table.insert(id, now + harness::TTL_MS)?;
                    new += 1;
                }
            }
        }
        if new > 0 {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(new)
    }
}

impl Worker for &Redb {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        if !likely_new {
            let table = self.database.begin_read()?.open_table(SEEN)?;
            if table.get(id)?.is_some_and(|expiry| expiry.value() > harness::now_ms()) {
                return Ok(false);
            }
        }
        Ok(self.mark_all(std::iter::once(id))? == 1)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        self.mark_all(ids.iter().map(String::as_str))
    }
}
