//! What tasks themselves cost: the harness and the runtime, with no store.

use harness::{Contender, Measured, Plan, Report, Result, Worker, Workload};
use tokio::task::coop::consume_budget;

use crate::tasks::{Caller, Tasks};

/// Answers what is expected, at once.
#[derive(Clone)]
struct Answer(bool);

impl Caller for Answer {
    async fn test_and_set(&self, id: &str, _: bool) -> Result<bool> {
        // Otherwise a task would not let the others run before its time is over.
        consume_budget().await;
        std::hint::black_box(id);
        Ok(self.0)
    }

    async fn test_and_set_all(&self, ids: &[String]) -> Result<u64> {
        consume_budget().await;
        std::hint::black_box(ids);
        Ok(ids.len() as u64)
    }
}

pub(crate) struct NothingTasks(Tasks<Answer>);

impl Contender for NothingTasks {
    fn open(plan: &Plan) -> Result<Self> {
        let answer = Answer(plan.workload == Workload::New);
        Tasks::new(async { Ok(answer) }).map(Self)
    }

    fn report(&self) -> Report {
        Report { version: String::new(), settings: "the harness and the runtime alone".to_owned() }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(&self.0))
    }

    fn drive(&self, plan: &Plan) -> Result<Vec<Measured>> {
        self.0.drive(plan)
    }
}
