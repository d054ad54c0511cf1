//! LMDB (through heed), a memory-mapped B+ tree.
//!
//! Durability: with `NO_SYNC` and `WRITE_MAP` a commit is in the shared memory map, in order, before it
//! returns. The map is the operating system's, so that survives a killed process; it is several times
//! as fast as writing pages out of the process's own memory, which without `WRITE_MAP` would be the
//! same level. For a power cut LMDB's default: each commit is written and synced.

use harness::{Contender, Durability, Plan, Report, Result, Worker};
use heed::types::{Bytes, Str};
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

const MAP_BYTES: usize = 16 << 30;
const MOST_READERS: u32 = 256;

pub(crate) struct Lmdb {
    env: Env,
    seen: Database<Str, Bytes>,
    sync: bool,
}

impl Contender for Lmdb {
    fn open(plan: &Plan) -> Result<Self> {
        let flags = match plan.durability {
            Durability::Kill => EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP,
            Durability::Power => EnvFlags::empty(),
        };
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(MOST_READERS);
        // SAFETY: only this process has the folder open, and opens it once at a time; without a sync
        // only a crash of the machine can tear the file, and then the run is lost anyway.
        let env = unsafe { options.flags(flags).open(&plan.dir)? };
        let mut transaction = env.write_txn()?;
        let seen = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Self { env, seen, sync: plan.durability == Durability::Power })
    }

    fn report(&self) -> Report {
        let lmdb = heed::lmdb_version();
        Report {
            version: format!("heed 0.22, LMDB {}.{}.{}", lmdb.major, lmdb.minor, lmdb.patch),
            settings: format!(
                "{:?}, map 16 GiB; duplicates by a read transaction first",
                if self.sync { "defaults" } else { "NOSYNC, WRITEMAP" }
            ),
        }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl Lmdb {
    /// Within a write transaction, of which there is one at a time.
    fn mark(&self, transaction: &mut heed::RwTxn<'_>, id: &str) -> Result<bool> {
        // An expired one is overwritten; one descent of the tree answers for the usual case.
        let expiry = crate::expiry();
        let held = self.seen.get_or_put(transaction, id, &expiry)?.map(crate::is_live);
        if held == Some(false) {
            self.seen.put(transaction, id, &expiry)?;
        }
        Ok(held != Some(true))
    }
}

impl Worker for &Lmdb {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        if !likely_new {
            let transaction = self.env.read_txn()?;
            if self.seen.get(&transaction, id)?.is_some_and(crate::is_live) {
                return Ok(false);
            }
        }
        let mut transaction = self.env.write_txn()?;
        let new = self.mark(&mut transaction, id)?;
        if new {
            transaction.commit()?;
        }
        Ok(new)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        let mut transaction = self.env.write_txn()?;
        let mut new = 0;
        for id in ids {
            new += u64::from(self.mark(&mut transaction, id)?);
        }
        transaction.commit()?;
        Ok(new)
    }
}
