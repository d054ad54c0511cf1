//! `seen mark`: remembers ids.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use seen_store::{Config, Ttl};

use crate::Result;
use crate::args::database::{self, Database};
use crate::args::duration::parse_ttl;
use crate::args::ids::{self, Ids};
use crate::args::retention::Retention;

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

    /// How long the ids are remembered: 90s, 36h, 7d, never. A day has 24 hours. With --every: twice the period.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl,
          conflicts_with = "every")]
    ttl: Ttl,

    #[command(flatten)]
    retention: Retention,

    /// Mark this version of the ids, whatever version of them was seen before.
    #[arg(long, value_name = "TEXT")]
    version: Option<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let config =
        arguments.retention.put_into(Config::default().ttl(arguments.ids.ttl(arguments.ttl)));
    let store = arguments.database.open(config)?;
    arguments.database.announce_unless_shared(&store, "mark");
    let version = arguments.version.as_deref();
    arguments.ids.for_each(|asked| {
        store.mark_seen(ids::item(&asked.id, version))?;
        log::info!("{}: marked", ids::shown(&asked.line));
        Ok(())
    })?;
    database::close(&store);
    Ok(ExitCode::SUCCESS)
}
