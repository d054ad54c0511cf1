//! A copy of a database as it is at one moment.
//!
//! Owns the new file until it is complete: if anything fails, the incomplete copy is removed. The copy is one
//! file of mode 0600 without a log beside it.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::close;
use super::sqlite_errors::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{create_new, open_database, refuse_for_copy, remove_copy, shown};
use crate::process::{Registered, Registration};

/// How many pages one step copies.
const PAGES: i32 = 1_000;

/// Copies what `connection` sees to `target`. Neither `target` nor a side file of it may exist.
pub(crate) fn copy(connection: &Connection, target: &Path) -> Result<()> {
    refuse_for_copy(target)?;
    create_new(target)?;
    let copied = fill(connection, target);
    if copied.is_err() {
        remove_copy(target);
    }
    copied
}

fn fill(source: &Connection, target: &Path) -> Result<()> {
    let fail = |e| failure("write the copy", &shown(target), e);
    let registration = Registration::new(&shown(target))?;
    let connection = open_database(target, || Connection::open(target))?.map_err(fail)?;
    let mut connection = Registered::new(registration, connection);
    // One read transaction: the copy is of one moment, and others can write meanwhile.
    let snapshot = source.unchecked_transaction().map_err(fail)?;
    snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(fail)?;
    let backup = Backup::new(&snapshot, &mut connection).map_err(fail)?;
    loop {
        match backup.step(PAGES).map_err(fail)? {
            StepResult::Done => break,
            StepResult::More => {}
            // No other process uses the new file, and the source is read in one transaction.
            other => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("cannot write the copy {}: {other:?}", shown(target)),
                ));
            }
        }
    }
    drop(backup);
    drop(snapshot);
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(fail)?;
    close::close(connection).map_err(fail)
}
