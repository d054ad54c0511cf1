//! `seen list`: what the store holds, one entry a line.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seen_store::{Filter, State};

use crate::Result;
use crate::args::database::ReadLocation;
use crate::args::duration::parse_since;
use crate::output::Output;
use crate::output::entry::{self, parse_state};
use crate::output::words::{self, harmless, local_time};

/// List what the store holds, one entry a line
///
/// First the claims, then the marks in the order in which they were written. Without --json a line is
/// the state, when the id was last seen, the scope in brackets unless it is the empty one, and the id
/// with its control characters escaped. Changes nothing, and works without permission to write, in
/// little memory however large the store. What others write meanwhile may be listed or not; an id that
/// is refreshed meanwhile may be listed twice. Statuses: 0 done, 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: ReadLocation,

    /// List this scope only; without it, all scopes.
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,

    /// List only entries in this state: seen, in-flight, released, failed, given-up,
    /// abandoned, unresolved, expired. Without it, all but expired
    /// entries.
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Option<State>,

    /// List only ids that begin with this text.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<std::ffi::OsString>,

    /// List only entries that were last seen at most this long ago: 90s, 36h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    since: Option<Duration>,

    /// Print a line with a JSON object for each entry, with everything that is known.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let reader = arguments.database.read()?;
    let mut output = Output::new();
    for entry in reader.entries(arguments.filter()) {
        let entry = entry?;
        if arguments.json {
            output.line(entry::to_json(&entry).to_string())?;
        } else {
            let scope = match &*entry.scope {
                "" => String::new(),
                scope => format!("[{}] ", harmless(scope)),
            };
            output.line(format!(
                "{:<9} {}  {scope}{}",
                entry::state_word(entry.state),
                local_time(entry.last_seen),
                words::id(&entry.id)
            ))?;
        }
        if output.is_closed() {
            break;
        }
    }
    output.finish()?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn filter(&self) -> Filter {
        let mut filter = Filter::default();
        if let Some(scope) = &self.scope {
            filter = filter.scope(scope);
        }
        if let Some(state) = self.state {
            filter = filter.state(state);
        }
        if let Some(prefix) = &self.prefix {
            filter = filter.prefix(prefix.as_encoded_bytes());
        }
        if let Some(since) = self.since {
            filter = filter.newer_than(since);
        }
        filter
    }
}
