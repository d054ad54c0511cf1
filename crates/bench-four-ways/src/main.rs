//! This store against SQLite used directly.

mod connection;
mod direct;
mod store;

fn main() {
    harness::main(|plan| match plan.contender.as_str() {
        "store" | "store-exclusive" => plan.run::<store::Store>(),
        "mutex" => plan.run::<direct::Mutexed>(),
        "thread-local" => plan.run::<direct::ThreadLocal>(),
        other => Err(format!("no contender is called {other:?}").into()),
    });
}
