//! `seen purge`: removes what has expired, or what is old.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::database::{self, Database};
use crate::args::duration::parse_duration;
use crate::output;

/// Remove what has expired, or what is older than asked
///
/// Prints the number of marks removed. Expired claims are removed too. An expired id counts as new before it is
/// removed, and each program that uses the store removes some now and then. A purge frees their space for later
/// entries (`seen compact` gives it to the file system). Other programs can use the store meanwhile. Statuses: 0
/// done, 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// Remove instead the ids of the --scope that were last seen longer ago than this, expired or not. They are new
    /// again. Claims that failed, were released or ran out longer ago are removed and counted too.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,

    /// Change nothing, and print how many ids would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let age = arguments.older_than;
    if age.is_none() && !arguments.database.scope().is_empty() {
        return Err(
            "what has expired is purged in all scopes; --scope goes with --older-than".into()
        );
    }
    let config = Config::default().purge_on_open(false).read_only(arguments.dry_run);
    let store = arguments.database.open_existing(config)?;
    let count = match (age, arguments.dry_run, store.file()) {
        (None, false, _) => store.purge_expired()?,
        (None, true, Some(file)) => file.count_expired()?,
        // The servers remove what has expired.
        (None, true, None) => 0,
        (Some(age), false, _) => store.cleanup_old_entries(age)?,
        (Some(age), true, Some(file)) => file.count_old_entries(age)?,
        (Some(_), true, None) => {
            return Err("a dry run with --older-than is about a store in a file, and this one is on a cluster; \
                        `seen list --older-than` prints what was last seen before"
                .into());
        }
    };
    database::close(&store);
    output::line(&format!(
        "{count} {}",
        if arguments.dry_run { "to be removed" } else { "removed" }
    ))
}
