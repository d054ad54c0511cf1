//! An r2d2 pool of connections, and tokio-rusqlite's one connection behind a channel.

#[path = "../../bench-four-ways/src/connection.rs"]
mod connection;
#[path = "../../bench-four-ways/src/tasks.rs"]
mod tasks;

use connection::{Settings, configure, test_and_set, test_and_set_all};
use harness::{Contender, Measured, Plan, Report, Result, Worker};
use r2d2_sqlite::SqliteConnectionManager;
use tasks::{Caller, Tasks};

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

/// Callers are tasks: its usual way.
struct Tokio {
    tasks: Tasks<tokio_rusqlite::Connection>,
    settings: Settings,
}

impl Contender for Tokio {
    fn open(plan: &Plan) -> Result<Self> {
        let settings = Settings::new(plan, 1);
        let own = settings.clone();
        let tasks = Tasks::new(async {
            let connection = tokio_rusqlite::Connection::open(&settings.path).await?;
            connection
                .call(move |connection| {
                    own.create()?;
                    configure(connection, &own)
                })
                .await?;
            Ok(connection)
        })?;
        Ok(Self { tasks, settings })
    }

    fn report(&self) -> Report {
        let version = format!("tokio-rusqlite 0.8, SQLite {}", rusqlite::version());
        Report { version, settings: format!("callers are tasks; {}", self.settings.describe()) }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(&self.tasks))
    }

    fn drive(&self, plan: &Plan) -> Result<Vec<Measured>> {
        self.tasks.drive(plan)
    }

    fn close(self) -> Result<()> {
        Ok(self.tasks.block_on(self.tasks.caller.clone().close())?)
    }
}

impl Caller for tokio_rusqlite::Connection {
    async fn test_and_set(&self, id: &str, likely_new: bool) -> Result<bool> {
        // The closure has to own what it uses.
        let id = id.to_owned();
        Ok(self.call(move |connection| test_and_set(connection, &id, likely_new)).await?)
    }

    async fn test_and_set_all(&self, ids: &[String]) -> Result<u64> {
        let ids = ids.to_vec();
        Ok(self.call(move |connection| test_and_set_all(connection, &ids)).await?)
    }
}

fn main() {
    harness::main(|plan| match plan.contender.as_str() {
        "r2d2" => plan.run::<Pool>(),
        "tokio-rusqlite" => plan.run::<Tokio>(),
        other => Err(format!("no contender is called {other:?}").into()),
    });
}
