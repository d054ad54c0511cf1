//! `seen compact`: gives the room that a store no longer needs back to the file system.

use std::process::ExitCode;

use clap::Args;
use seen_store::{Config, SeenStore};

use crate::Result;
use crate::args::database::{self, Location};
use crate::output;
use crate::output::words;

/// Give the room of what was purged back to the file system
///
/// Removes what has expired, then writes the file anew without its free pages, and prints its size before and
/// after, its write-ahead log included. Others may have the store open: readers go on, writers wait, about a
/// second for each 100 MB. Needs up to twice the room of what is left, half of it in the folder for temporary
/// files (as `SQLITE_TMPDIR` or `TMPDIR` says, else /var/tmp). A crash leaves the store as it was. Statuses: 0 done, 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let store = arguments.location.open_existing(Config::default())?;
    let before = bytes(&store)?;
    store.compact()?;
    let after = bytes(&store)?;
    database::close(&store);
    output::line(&format!("{} before, {} after", words::size(before), words::size(after)))
}

fn bytes(store: &SeenStore) -> Result<u64> {
    let stats = store.stats()?;
    Ok(stats.file_bytes + stats.wal_bytes)
}
