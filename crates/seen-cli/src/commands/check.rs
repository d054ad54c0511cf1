//! `seen check`: whether ids were seen, as a status.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgGroup, Args, ValueEnum};
use seen_store::{Digest, State};
use serde_json::json;

use crate::Result;
use crate::args::database::ReadLocation;
use crate::args::ids::Ids;
use crate::output::Output;
use crate::output::entry;
use crate::output::words;

/// Ask whether ids were seen: status 0 if all were, 1 if not
///
/// Prints nothing without --print or --json. An id counts as seen from when it was marked or confirmed until it
/// expires; one that is in flight or has failed does not. Changes nothing, and works without permission
/// to write. Statuses: 0 all ids are seen, 1 some are not, 2 an error.
///
/// Takes some 10 µs for each id, and 2 kB of memory. For more ids than a hundredth of the store's, and in a file without an
/// index, the store is read once for all: about a second for 10,000,000.
#[derive(Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["ids", "fields"]))]
pub(crate) struct Arguments {
    #[command(flatten)]
    ids: Ids,

    #[command(flatten)]
    database: ReadLocation,

    /// The namespace that the ids are in.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    scope: String,

    /// Ask whether the ids were seen in this version. One that was remembered without a version counts as seen.
    #[arg(long, value_name = "TEXT")]
    version: Option<OsString>,

    /// Print those arguments and lines that are seen, or those that are not, one a line, in the order given.
    ///
    /// As they were given; on a terminal, with control characters escaped.
    #[arg(long, value_name = "WHICH", conflicts_with = "json")]
    print: Option<Which>,

    /// Print a line with a JSON object for each id: its scope, id, state, and whether it is seen.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Seen,
    Unseen,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let reader = arguments.database.read()?;
    let ids = arguments.ids.read()?;
    let reader = reader.scope(&arguments.scope);
    let entries = reader.get_all(ids.iter().map(|it| &it.id))?;
    let mut output = Output::new();
    let version = arguments.version.as_ref().map(|it| Digest::of_version(it.as_encoded_bytes()));
    let mut all_seen = true;
    for (asked, found) in ids.iter().zip(entries) {
        if found.is_none() {
            asked.warn_if_spelled(|id| Ok(reader.get(id)?.is_some()))?;
        }
        let is_seen = found.as_ref().is_some_and(|it| it.state == State::Seen && it.is_of(version));
        let state = found.map(|entry| entry.state);
        all_seen &= is_seen;
        if arguments.json {
            let mut object = entry::unknown(&arguments.scope, &asked.id);
            object["state"] = state.map_or("unknown", State::as_str).into();
            object["seen"] = json!(is_seen);
            output.line(object.to_string())?;
        } else if arguments.print.is_some_and(|which| (which == Which::Seen) == is_seen) {
            print(&mut output, &asked.line, arguments.ids.end())?;
        }
    }
    output.finish()?;
    Ok(ExitCode::from(u8::from(!all_seen)))
}

fn print(output: &mut Output, line: &[u8], end: u8) -> Result<()> {
    if end == 0 {
        output.record(line, 0)
    } else if Output::is_terminal() {
        output.line(words::id(line))
    } else {
        output.line(line)
    }
}
