//! A copy of a database as it stands at one moment.
//!
//! Owns the new file until it is complete: whatever goes wrong, no half copy stays behind. The copy is
//! one file of mode 0600 without a log beside it.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::open;
use super::sqlite_errors::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{create_new, refuse_for_copy, remove_copy, shown};
use crate::process::{Own, Registration};

/// How many pages are copied between two looks at the result.
const PAGES: i32 = 1_000;

/// Copies what `connection` sees to `target`, which must not exist, nor a side file of it.
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
    let mut connection = Own::new(registration, Connection::open(target).map_err(fail)?);
    // One read transaction, so that writers go on and the copy is still of one moment.
    let moment = source.unchecked_transaction().map_err(fail)?;
    moment.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(fail)?;
    let backup = Backup::new(&moment, &mut connection).map_err(fail)?;
    loop {
        match backup.step(PAGES).map_err(fail)? {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else can know the new file, and the source is read in one transaction.
            other => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("cannot write the copy {}: {other:?}", shown(target)),
                ));
            }
        }
    }
    drop(backup);
    drop(moment);
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(fail)?;
    open::close(connection).map_err(fail)
}
