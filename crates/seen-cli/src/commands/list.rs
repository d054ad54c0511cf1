//! `seen list`: what the store holds, one entry a line.

use std::process::ExitCode;

use clap::Args;
use seen_store::Entry;

use crate::Result;
use crate::args::database::ReadLocation;
use crate::args::selection::Selection;
use crate::output::Output;
use crate::output::entry;
use crate::output::words::{self, harmless, local_time};

/// List what the store holds, one entry a line
///
/// First the claims, then the marks in the order in which they were written, unless --newest is given. Without
/// --json a line is the state, when the id was last seen, the scope in brackets unless it is the empty one, and the
/// id with its control characters escaped. Changes nothing, and works without permission to write, in
/// little memory however large the store. What others write meanwhile may be listed or not; an id that
/// is refreshed meanwhile may be listed twice. Statuses: 0 done, 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: ReadLocation,

    /// List this scope only; without it, all scopes.
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,

    #[command(flatten)]
    selection: Selection,

    /// List only the N entries that were last seen, the newest first
    ///
    /// In memory for twice as many entries; the others are read too.
    #[arg(long, value_name = "N")]
    newest: Option<usize>,

    /// List at most N entries, those that come first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Print a line with a JSON object for each entry, with everything that is known.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let reader = arguments.database.read()?;
    let mut output = Output::new();
    let mut filter = arguments.selection.filter();
    if let Some(scope) = &arguments.scope {
        filter = filter.scope(scope);
    }
    let limit = arguments.limit.unwrap_or(usize::MAX);
    match arguments.newest {
        Some(count) => {
            let newest = reader.newest(filter, count)?;
            print(&mut output, newest.into_iter().map(Ok).take(limit), arguments.json)?;
        }
        None => print(&mut output, reader.entries(filter).take(limit), arguments.json)?,
    }
    output.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn print(
    output: &mut Output,
    entries: impl Iterator<Item = seen_store::Result<Entry>>,
    json: bool,
) -> Result<()> {
    for entry in entries {
        let entry = entry?;
        if json {
            output.line(entry::to_json(&entry).to_string())?;
        } else {
            let scope = match &*entry.scope {
                "" => String::new(),
                scope => format!("[{}] ", harmless(scope)),
            };
            output.line(format!(
                "{:<10} {}  {scope}{}",
                entry.state.as_str(),
                local_time(entry.last_seen),
                words::id(&entry.id)
            ))?;
        }
        if output.is_closed() {
            break;
        }
    }
    Ok(())
}
