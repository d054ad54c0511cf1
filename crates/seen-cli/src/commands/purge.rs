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
/// Prints how many ids that were seen it removed; claims that have expired go too. What has expired
/// counts as new already, and is removed now and then by each program that uses the store: this only
/// gives its room back, for later entries (`seen compact` gives it to the file system). Others go on
/// meanwhile. Statuses: 0 done, 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// Remove instead what was last seen longer ago than this, in the --scope, expired or not: it is new
    /// again. Claims that failed, were released or ran out longer ago go too, and are counted.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,

    /// Change nothing, only print how many ids would be removed
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
    let count = match (age, arguments.dry_run) {
        (None, false) => store.purge_expired()?,
        (None, true) => store.count_expired()?,
        (Some(age), false) => store.cleanup_old_entries(age)?,
        (Some(age), true) => store.count_old_entries(age)?,
    };
    database::close(&store);
    output::line(&format!(
        "{count} {}",
        if arguments.dry_run { "to be removed" } else { "removed" }
    ))
}
