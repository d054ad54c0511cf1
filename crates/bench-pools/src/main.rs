//! An r2d2 pool of connections, and tokio-rusqlite's one connection behind a channel.

#[path = "../../bench-four-ways/src/connection.rs"]
mod connection;

use std::sync::Arc;

use connection::{Settings, configure, test_and_set, test_and_set_all};
use harness::{Contender, Error, Measured, Pace, Plan, Report, Result, Worker, Workload};
use r2d2_sqlite::SqliteConnectionManager;
use tokio::runtime::{Builder, Runtime};

/// r2d2's default. Fewer than 64 threads: more connections would only wait for each other in SQLite.
const MOST_CONNECTIONS: usize = 10;

struct Pool {
    pool: r2d2::Pool<SqliteConnectionManager>,
    settings: Settings,
    size: usize,
}

impl Contender for Pool {
    fn open(plan: &Plan) -> Result<Self> {
        let size = plan.threads.min(MOST_CONNECTIONS);
        let settings = Settings::new(plan, size);
        settings.create()?;
        let each = settings.clone();
        let manager = SqliteConnectionManager::file(&settings.path)
            .with_init(move |connection| configure(connection, &each));
        // A connection to a file does not go stale: asking it before each use would only cost.
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(size)?)
            .test_on_check_out(false)
            .build(manager)?;
        Ok(Self { pool, settings, size })
    }

    fn report(&self) -> Report {
        let version = format!("r2d2_sqlite 0.35, SQLite {}", rusqlite::version());
        let settings = format!("{} connections; {}", self.size, self.settings.describe());
        Report { version, settings }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }
}

impl Worker for &Pool {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        Ok(test_and_set(&*self.pool.get()?, id, likely_new)?)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        Ok(test_and_set_all(&*self.pool.get()?, ids)?)
    }
}

/// Callers are tasks of a runtime with as many threads as the machine has processors: its usual way.
struct Tokio {
    runtime: Runtime,
    connection: tokio_rusqlite::Connection,
    settings: Settings,
}

impl Contender for Tokio {
    fn open(plan: &Plan) -> Result<Self> {
        let settings = Settings::new(plan, 1);
        let runtime = Builder::new_multi_thread().enable_time().build()?;
        let own = settings.clone();
        let connection = runtime.block_on(async {
            let connection = tokio_rusqlite::Connection::open(&settings.path).await?;
            connection
                .call(move |connection| {
                    own.create()?;
                    configure(connection, &own)
                })
                .await?;
            Ok::<_, Error>(connection)
        })?;
        Ok(Self { runtime, connection, settings })
    }

    fn report(&self) -> Report {
        let version = format!("tokio-rusqlite 0.8, SQLite {}", rusqlite::version());
        Report { version, settings: format!("callers are tasks; {}", self.settings.describe()) }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }

    fn drive(&self, plan: &Plan) -> Result<Vec<Measured>> {
        let tasks: Vec<_> = (0..plan.threads)
            .map(|task| {
                let plan = plan.clone();
                self.runtime.spawn(run_task(self.connection.clone(), plan, task))
            })
            .collect();
        tasks.into_iter().map(|task| self.runtime.block_on(task)?).collect()
    }

    fn close(self) -> Result<()> {
        Ok(self.runtime.block_on(self.connection.close())?)
    }
}

async fn run_task(
    connection: tokio_rusqlite::Connection,
    plan: Plan,
    task: usize,
) -> Result<Measured> {
    let mut pace = Pace::new(&plan, task);
    let likely_new = pace.likely_new();
    while let Some(ids) = pace.next() {
        let new = if plan.workload == Workload::Batch {
            // The closure has to own what it uses.
            let ids: Arc<[String]> = ids.into();
            connection.call(move |connection| test_and_set_all(connection, &ids)).await?
        } else {
            let id = ids[0].clone();
            let new = connection.call(move |connection| test_and_set(connection, &id, likely_new));
            u64::from(new.await?)
        };
        if let Some(wait) = pace.done(new)? {
            tokio::time::sleep(wait).await;
            pace.resume();
        }
    }
    Ok(pace.finish())
}

impl Worker for &Tokio {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        let id = id.to_owned();
        let new = self.connection.call(move |connection| test_and_set(connection, &id, likely_new));
        Ok(self.runtime.block_on(new)?)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        let ids = ids.to_vec();
        let new = self.connection.call(move |connection| test_and_set_all(connection, &ids));
        Ok(self.runtime.block_on(new)?)
    }
}

fn main() {
    harness::main(|plan| match plan.contender.as_str() {
        "r2d2" => plan.run::<Pool>(),
        "tokio-rusqlite" => plan.run::<Tokio>(),
        other => Err(format!("no contender is called {other:?}").into()),
    });
}
