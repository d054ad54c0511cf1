//! `seen restore`: a backup in the place of the store.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use seen_store::{ErrorKind, SeenStore};

use crate::Result;
use crate::args::place::FileLocation;
use crate::output;
use crate::output::message::with_causes;

/// Put a backup in the place of the store
///
/// Checks the backup, copies it beside the store, and then replaces the store in one step, with the owner and the mode
/// of the old file, and without the old log. Prints under which name the old store is kept, PATH.replaced: remove it
/// when it is no longer needed. Refuses while a program has the store open. The backup stays as it is. Statuses: 0 done,
/// 2 an error, and nothing is changed.
///
/// Copying a backup over a store by other means leaves the old log beside it, which would undo or damage it; such a
/// store is refused until it is restored with this command. (To add what a backup holds to a store: `seen export --db
/// BACKUP | seen import -`.)
#[derive(Args)]
pub(crate) struct Arguments {
    /// The backup, as `seen backup` has written it
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,

    #[command(flatten)]
    location: FileLocation,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let place = arguments.location.place("restore")?;
    let restored = SeenStore::replace_with_backup(place.path(), &arguments.backup);
    let path = place.path().display();
    output::line(&match restored {
        Ok(Some(old)) => format!("{path}: restored; the old store is kept as {}", old.display()),
        Ok(None) => format!("{path}: restored; there was no store here before"),
        Err(e) if e.kind() == ErrorKind::Busy => {
            return Err(format!("{}; `seen doctor` names them", with_causes(&e)).into());
        }
        // Either of the two paths may be meant: the message says which.
        Err(e) => return Err(e.into()),
    })
}
