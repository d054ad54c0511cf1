//! `seen compact`: gives the free pages of a store back to the file system.

use std::process::ExitCode;

use clap::Args;
use seen_store::{Config, SeenStore};

use crate::Result;
use crate::args::database;
use crate::args::place::FileLocation;
use crate::output;
use crate::output::words;

/// Make the file of a store smaller
///
/// Removes what has expired, then writes the file anew without its free pages, and prints its size before and
/// after, including the write-ahead log. Other programs may have the store open: readers continue, writers wait,
/// about a second for each 100 MB. Needs up to twice the new size as free space, half of it in the folder for
/// temporary files (`SQLITE_TMPDIR`, `TMPDIR` or /var/tmp). A crash leaves the store as it was. Statuses: 0 done,
/// 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: FileLocation,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let store = arguments.location.place("compact")?.open_existing(Config::default())?;
    let before = bytes(&store)?;
    store.compact()?;
    let after = bytes(&store)?;
    database::close_file(&store);
    output::line(&format!("{} before, {} after", words::size(before), words::size(after)))
}

fn bytes(store: &SeenStore) -> Result<u64> {
    let stats = store.stats()?;
    Ok(stats.file_bytes + stats.wal_bytes)
}
