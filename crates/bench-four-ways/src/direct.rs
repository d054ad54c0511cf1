//! One connection behind a mutex, and one connection a thread.

use std::sync::{Mutex, PoisonError};

use harness::{Contender, Plan, Report, Result, Worker};
use rusqlite::Connection;

use crate::connection::{Settings, test_and_set, test_and_set_all};

fn report(settings: &Settings) -> Report {
    let version = format!("rusqlite 0.41, SQLite {}", rusqlite::version());
    Report { version, settings: settings.describe() }
}

/// `Mutex<Connection>`.
pub(crate) struct Mutexed {
    connection: Mutex<Connection>,
    settings: Settings,
}

impl Contender for Mutexed {
    fn open(plan: &Plan) -> Result<Self> {
        let settings = Settings::new(plan, 1);
        Ok(Self { connection: Mutex::new(settings.create()?), settings })
    }

    fn report(&self) -> Report {
        report(&self.settings)
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }
}

impl Worker for &Mutexed {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(test_and_set(&connection, id, likely_new)?)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(test_and_set_all(&connection, ids)?)
    }
}

/// A connection that a thread opens for itself and keeps.
pub(crate) struct ThreadLocal {
    /// Keeps the log from being removed when the last worker ends before another begins.
    _first: Mutex<Connection>,
    settings: Settings,
}

impl Contender for ThreadLocal {
    fn open(plan: &Plan) -> Result<Self> {
        let settings = Settings::new(plan, plan.threads);
        Ok(Self { _first: Mutex::new(settings.create()?), settings })
    }

    fn report(&self) -> Report {
        report(&self.settings)
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(Own(self.settings.open()?)))
    }
}

struct Own(Connection);

impl Worker for Own {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        Ok(test_and_set(&self.0, id, likely_new)?)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        Ok(test_and_set_all(&self.0, ids)?)
    }
}
