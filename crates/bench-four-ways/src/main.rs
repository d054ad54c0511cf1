//! This store against SQLite used directly.

mod connection;
mod direct;
mod nothing;
mod store;
mod store_tasks;
mod tasks;

fn main() {
    harness::main(|plan| match plan.contender.as_str() {
        "store" | "store-exclusive" => plan.run::<store::Store>(),
        "store-async" => plan.run::<store_tasks::StoreTasks<seen_store::AsyncSeenStore>>(),
        "store-blocking" => plan.run::<store_tasks::StoreTasks<store_tasks::Blocking>>(),
        "nothing-tasks" => plan.run::<nothing::NothingTasks>(),
        "mutex" => plan.run::<direct::Mutexed>(),
        "thread-local" => plan.run::<direct::ThreadLocal>(),
        other => Err(format!("no contender is called {other:?}").into()),
    });
}
