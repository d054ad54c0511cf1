//! `seen mark`: remembers ids.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use seen_store::{Config, Ttl};

use crate::Result;
use crate::args::database::{self, Database};
use crate::args::duration::parse_ttl;
use crate::args::ids::Ids;

/// Remember ids as seen
///
/// If an id is seen already, it is remembered for longer, never for a shorter time. The command does not say
/// whether it was seen. Ask `seen check` before; if several programs may ask at the same time, use `seen claim` or
/// `seen run`. Statuses: 0 all are remembered; 2 an error, and the ids before it are remembered.
#[derive(Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["ids", "fields"]))]
pub(crate) struct Arguments {
    #[command(flatten)]
    ids: Ids,

    #[command(flatten)]
    database: Database,

    /// How long the ids are remembered: 90s, 36h, 7d, never. A day has 24 hours.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let store = arguments.database.open(Config::default().ttl(arguments.ttl))?;
    arguments.ids.for_each(|id| Ok(store.mark_seen(id)?))?;
    database::close(&store);
    Ok(ExitCode::SUCCESS)
}
