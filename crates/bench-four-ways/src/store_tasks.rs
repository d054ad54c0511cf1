//! This store, called by tasks: its async form, and its blocking form with each call on a thread of the runtime for
//! blocking work. Opened as `store` is, with the same durability.

use std::collections::BTreeMap;

use harness::{Contender, Measured, Plan, Report, Result, Worker, Workload};
use seen_store::{AsyncClaim, AsyncSeenStore, SeenStore, Verdict};

use crate::store::{self, LEASE, Store};
use crate::tasks::{Caller, Tasks};

/// A form of this store that tasks can call.
pub(crate) trait Form: Caller + From<SeenStore> {
    /// How it is called.
    const CALLS: &str;
}

impl Form for AsyncSeenStore {
    const CALLS: &str = "callers are tasks";
}

impl Caller for AsyncSeenStore {
    async fn test_and_set(&self, id: &str, _: bool) -> Result<bool> {
        Ok(self.check_and_mark(id).await? == Verdict::New)
    }

    async fn test_and_set_all(&self, ids: &[String]) -> Result<u64> {
        Ok(store::count_new(&self.check_and_mark_all(ids).await?))
    }

    async fn claim_and_confirm(&self, id: &str) -> Result<bool> {
        let AsyncClaim::Granted(mut lease) = self.claim(id, LEASE).await? else { return Ok(false) };
        lease.confirm().await?;
        Ok(true)
    }
}

/// Each call takes a thread of the runtime for as long as it lasts.
#[derive(Clone)]
pub(crate) struct Blocking(SeenStore);

impl From<SeenStore> for Blocking {
    fn from(store: SeenStore) -> Self {
        Self(store)
    }
}

impl Form for Blocking {
    const CALLS: &str = "callers are tasks, each call by spawn_blocking (at most 512 threads)";
}

impl Blocking {
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&SeenStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.0.clone();
        tokio::task::spawn_blocking(move || call(&store)).await?
    }
}

impl Caller for Blocking {
    async fn test_and_set(&self, id: &str, _: bool) -> Result<bool> {
        // The closure has to own what it uses.
        let id = id.to_owned();
        self.call(move |store| Ok(store.check_and_mark(&id)? == Verdict::New)).await
    }

    async fn test_and_set_all(&self, ids: &[String]) -> Result<u64> {
        let ids = ids.to_vec();
        self.call(move |store| Ok(store::count_new(&store.check_and_mark_all(&ids)?))).await
    }

    async fn claim_and_confirm(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.call(move |store| store::claim_and_confirm(store, &id)).await
    }
}

pub(crate) struct StoreTasks<F> {
    // Dropped first: the last handle of the store is the one that closes it.
    tasks: Tasks<F>,
    store: Store,
}

impl<F: Form> Contender for StoreTasks<F> {
    fn open(plan: &Plan) -> Result<Self> {
        let store = Store::open(plan)?;
        let tasks = Tasks::new(async { Ok(F::from(store.handle())) })?;
        Ok(Self { tasks, store })
    }

    fn report(&self) -> Report {
        let Report { version, settings } = self.store.report();
        Report { version, settings: format!("{}; {settings}", F::CALLS) }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(&self.tasks))
    }

    fn unsupported(plan: &Plan) -> Option<String> {
        (plan.workload == Workload::Purge).then(|| "measured with threads only".to_owned())
    }

    fn extra(&self) -> Result<BTreeMap<String, f64>> {
        self.store.extra()
    }

    fn drive(&self, plan: &Plan) -> Result<Vec<Measured>> {
        self.tasks.drive(plan)
    }

    fn close(self) -> Result<()> {
        drop(self.tasks);
        self.store.close()
    }
}
