//! This store, with its defaults. Where a process lives on, its index is awake from the beginning: left alone it wakes after
//! some lookups, and a short measurement would be of the waking.
//!
//! Durability: `Synchronous::Normal` survives a killed process, `Synchronous::Full` a power cut.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Contender, Durability, Plan, Report, Result, Worker, Workload};
use seen_store::{Claim, Config, IndexMode, SeenStore, Synchronous, Verdict};

/// How long a mark of the steady load lasts: short, so that its purges have something to remove.
const STEADY_TTL: Duration = Duration::from_secs(1);
const STEADY_PURGE_INTERVAL: Duration = Duration::from_millis(500);
pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) struct Store {
    opened: SeenStore,
    steady: bool,
    settings: String,
}

impl Store {
    /// A handle for one caller.
    pub(crate) fn handle(&self) -> SeenStore {
        if self.steady { self.opened.ttl(STEADY_TTL) } else { self.opened.clone() }
    }
}

impl Contender for Store {
    fn open(plan: &Plan) -> Result<Self> {
        let steady = plan.workload == Workload::Steady;
        let exclusive = plan.contender == "store-exclusive";
        let synchronous = match plan.durability {
            Durability::Kill => Synchronous::Normal,
            Durability::Power => Synchronous::Full,
        };
        let lives_on = !plan.workload.is_start() && plan.workload != Workload::Fill;
        let mut config = Config::default().synchronous(synchronous).exclusive(exclusive);
        if lives_on {
            config = config.index(IndexMode::Awake);
        }
        if steady {
            config = config.purge_interval(STEADY_PURGE_INTERVAL).purge_thread(true);
        }
        let settings = format!(
            "Config::default(), synchronous {synchronous:?}{}{}",
            if exclusive { ", exclusive" } else { "" },
            if lives_on { ", index awake" } else { "" }
        );
        let opened = SeenStore::open_with(plan.dir.join("seen.db"), config)?;
        Ok(Self { opened, steady, settings })
    }

    fn report(&self) -> Report {
        let version = format!("this tree, SQLite {}", rusqlite::version());
        Report { version, settings: self.settings.clone() }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(Handle { store: self.handle() }))
    }

    fn unsupported(_: &Plan) -> Option<String> {
        None
    }

    fn extra(&self) -> Result<BTreeMap<String, f64>> {
        let index_bytes = self.opened.stats()?.memory_bytes as f64;
        Ok(BTreeMap::from([("index_bytes".to_owned(), index_bytes)]))
    }

    fn mark_expired(&self, ids: &[String]) -> Result<()> {
        self.opened.ttl(Duration::ZERO).seed(ids)?;
        Ok(())
    }

    fn purge(&self) -> Result<u64> {
        Ok(self.opened.purge_expired()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.opened.close()?)
    }
}

struct Handle {
    store: SeenStore,
}

impl Worker for Handle {
    fn test_and_set(&mut self, id: &str, _: bool) -> Result<bool> {
        Ok(self.store.check_and_mark(id)? == Verdict::New)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        Ok(count_new(&self.store.check_and_mark_all(ids)?))
    }

    fn claim_and_confirm(&mut self, id: &str) -> Result<bool> {
        claim_and_confirm(&self.store, id)
    }
}

pub(crate) fn count_new(verdicts: &[Verdict]) -> u64 {
    verdicts.iter().filter(|verdict| **verdict == Verdict::New).count() as u64
}

pub(crate) fn claim_and_confirm(store: &SeenStore, id: &str) -> Result<bool> {
    let Claim::Granted(mut lease) = store.claim(id, LEASE)? else { return Ok(false) };
    lease.confirm()?;
    Ok(true)
}
