//! Callers that are tasks, on a runtime with as many threads as the machine has processors. This file is also part of
//! bench-pools.
//!
//! What always holds: all tasks are measured in the same time. Which call a task makes is decided here, once for all
//! contenders.

use harness::{Measured, Pace, Plan, Result, Worker, Workload};
use tokio::runtime::{Builder, Runtime};

/// A task's way to the store.
pub(crate) trait Caller: Clone + Send + Sync + 'static {
    /// See [`Worker::test_and_set`].
    fn test_and_set(&self, id: &str, likely_new: bool)
    -> impl Future<Output = Result<bool>> + Send;

    /// See [`Worker::test_and_set_all`].
    fn test_and_set_all(&self, ids: &[String]) -> impl Future<Output = Result<u64>> + Send;

    /// See [`Worker::claim_and_confirm`].
    fn claim_and_confirm(&self, _id: &str) -> impl Future<Output = Result<bool>> + Send {
        async { Err("not supported".into()) }
    }
}

/// A runtime, and what its tasks work with.
pub(crate) struct Tasks<C> {
    runtime: Runtime,
    pub(crate) caller: C,
}

impl<C: Caller> Tasks<C> {
    /// Starts a runtime, and makes there what its tasks work with.
    pub(crate) fn new(caller: impl Future<Output = Result<C>>) -> Result<Self> {
        let runtime = Builder::new_multi_thread().enable_time().build()?;
        let caller = runtime.block_on(caller)?;
        Ok(Self { runtime, caller })
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Runs the plan's tasks to their end.
    pub(crate) fn drive(&self, plan: &Plan) -> Result<Vec<Measured>> {
        let tasks: Vec<_> = Pace::of_tasks(plan)
            .into_iter()
            .map(|pace| self.runtime.spawn(run(self.caller.clone(), pace)))
            .collect();
        tasks.into_iter().map(|task| self.block_on(task)?).collect()
    }
}

async fn run<C: Caller>(caller: C, mut pace: Pace) -> Result<Measured> {
    let (workload, likely_new) = (pace.workload(), pace.likely_new());
    while let Some(ids) = pace.next() {
        let new = match workload {
            Workload::Batch => caller.test_and_set_all(ids).await?,
            Workload::Claim => u64::from(caller.claim_and_confirm(&ids[0]).await?),
            _ => u64::from(caller.test_and_set(&ids[0], likely_new).await?),
        };
        if let Some(wait) = pace.done(new)? {
            tokio::time::sleep(wait).await;
            pace.resume();
        }
    }
    Ok(pace.finish())
}

/// For what is not measured, and for a process that asks little and ends.
impl<C: Caller> Worker for &Tasks<C> {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        self.block_on(self.caller.test_and_set(id, likely_new))
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        self.block_on(self.caller.test_and_set_all(ids))
    }

    fn claim_and_confirm(&mut self, id: &str) -> Result<bool> {
        self.block_on(self.caller.claim_and_confirm(id))
    }
}
