//! Waiting for other processes that have the file locked, while it is opened.
//!
//! Owns how long a step is tried again, and how a store in exclusive mode is known, which is not waited for. What always
//! holds: only what SQLite says is locked is tried again. Knows nothing of the steps.

use std::path::Path;
use std::time::Duration;

use super::sqlite_errors::{failure, is_busy};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::wal::ExclusiveReadLock;
use crate::file::{self, shown};
use crate::machine::sleep;

/// How often a file that seems to be open in exclusive mode is tried again before the caller gets an error.
const EXCLUSIVE_TRIES: u32 = 10;

/// Runs a step again while other processes are in the way, up to the busy timeout.
///
/// A store in exclusive mode keeps its lock until it closes, so waiting does not help, and the error comes at
/// once. Such a store has a log without a `-shm`. So has a [reader](super::open_for_reading) that reads alone,
/// but that one holds a lock on the log, and is waited for. A connection that is itself exclusive and must not wait is
/// tried once: [`open`](super::open) does the waiting.
pub(super) fn retry_while_locked<T>(
    path: &Path,
    config: &Config,
    doing: &str,
    step: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T> {
    let is_tried_once = config.exclusive && config.busy_timeout.is_zero();
    let is_held = || !is_tried_once && is_held_exclusively(path);
    retry_while_locked_unless(is_held, path, config, doing, step)
}

/// Returns whether the file seems to be open in exclusive mode, and not by a reader that reads alone.
pub(super) fn is_held_exclusively(path: &Path) -> bool {
    has_log_without_shm(path) && !ExclusiveReadLock::is_held(path)
}

/// Returns whether there is a log without a `-shm`.
pub(super) fn has_log_without_shm(path: &Path) -> bool {
    file::exists(&file::beside(path, "-wal")) && !file::exists(&file::beside(path, "-shm"))
}

/// Runs a step again like [`retry_while_locked`]; `is_held` tells whether the file seems to be open in
/// exclusive mode.
pub(super) fn retry_while_locked_unless<T>(
    is_held: impl Fn() -> bool,
    path: &Path,
    config: &Config,
    doing: &str,
    mut step: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T> {
    let mut patience = Patience::new(config);
    loop {
        let error = match step() {
            Ok(done) => return Ok(done),
            Err(error) if is_busy(&error) => error,
            Err(error) => return Err(failure(doing, &shown(path), error)),
        };
        match patience.pause(is_held()) {
            Paused::Shortly => {}
            Paused::ForExclusive => return Err(held_exclusively(path, doing, error)),
            Paused::TooOften => return Err(failure(doing, &shown(path), error)),
        }
    }
}

/// How long to try again while others are in the way.
pub(super) struct Patience {
    backoff: Backoff,
    exclusive_tries: u32,
}

pub(super) enum Paused {
    /// The next try may succeed.
    Shortly,
    /// A store in exclusive mode has the file.
    ForExclusive,
    /// The busy timeout is over.
    TooOften,
}

impl Patience {
    pub(super) fn new(config: &Config) -> Self {
        Self { backoff: Backoff::new(config.busy_timeout), exclusive_tries: 0 }
    }

    /// Pauses before the next try, if there is to be one. `is_held` tells whether the file seems to be open in exclusive
    /// mode.
    pub(super) fn pause(&mut self, is_held: bool) -> Paused {
        self.exclusive_tries = if is_held { self.exclusive_tries + 1 } else { 0 };
        if self.exclusive_tries == EXCLUSIVE_TRIES {
            return Paused::ForExclusive;
        }
        // These tries are spread over some time: a process that is just closing also leaves a log without a
        // `-shm` for a moment.
        if is_held {
            sleep(Duration::from_millis(5));
            return Paused::Shortly;
        }
        if self.backoff.pause() { Paused::Shortly } else { Paused::TooOften }
    }
}

/// Returns the error of a step that a store in exclusive mode is in the way of.
pub(super) fn held_exclusively(
    path: &Path,
    doing: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::with_source(
        ErrorKind::Busy,
        format!(
            "cannot {doing} {}: another store holds it in exclusive mode; close that one first",
            shown(path)
        ),
        error,
    )
}
