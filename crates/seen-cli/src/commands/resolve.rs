//! `seen resolve`: a decision on ids whose last attempt is over.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use seen_store::{Config, Resolution, Ttl};

use crate::Result;
use crate::args::database::{self, Database};
use crate::args::duration::parse_ttl;
use crate::args::ids::{self, Ids};

/// Decide on ids whose worker vanished, or that failed
///
/// A worker whose lease ended before it confirmed may have done its work or not. `seen list --state unresolved` lists
/// the ids that wait for this decision because they were claimed with --hold, `--state abandoned` those that can be
/// claimed again, and `--state given-up` those that failed finally. Statuses: 0 all were decided on; 1 some were seen,
/// in flight or unknown, and are unchanged (standard error says which); 2 an error.
#[derive(Args)]
#[command(
    group = ArgGroup::new("subject").required(true).args(["ids", "fields"]),
    group = ArgGroup::new("decision").required(true).args(["done", "retry"])
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    ids: Ids,

    #[command(flatten)]
    database: Database,

    /// The work was done: the ids are seen from now on.
    #[arg(long)]
    done: bool,

    /// The work was not done: the ids can be claimed again, and their attempts are counted anew.
    #[arg(long)]
    retry: bool,

    /// How long the ids are remembered from now on: 90s, 36h, 7d, never. A day has 24 hours. With --every: twice the
    /// period.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl,
          conflicts_with = "every")]
    ttl: Ttl,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let ttl = arguments.ids.ttl(arguments.ttl);
    let store = arguments.database.open_existing(Config::default().ttl(ttl))?;
    let resolution = if arguments.done { Resolution::Done } else { Resolution::Retry };
    let mut others = 0;
    arguments.ids.for_each(|asked| {
        if !store.resolve((&asked.id).into(), resolution)? {
            others += 1;
            if !asked.warn_if_spelled(|id| Ok(store.get(id.into())?.is_some()))? {
                let line = ids::shown(&asked.line);
                log::warn!("{line}: seen, in flight or not known: nothing to decide");
            }
        }
        Ok(())
    })?;
    database::close(&store);
    Ok(ExitCode::from(u8::from(others > 0)))
}
