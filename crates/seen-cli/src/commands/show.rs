//! `seen show`: everything known about an id.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::{ArgGroup, Args};
use seen_store::{Entry, State};

use serde_json::json;

use crate::Result;
use crate::args::database::ReadLocation;
use crate::args::ids::Ids;
use crate::output::Output;
use crate::output::entry;
use crate::output::words::{self, harmless, local_time, rough_duration};
use crate::work::replay::Replay;

/// How many other scopes of an id are told of.
const SCOPES_TOLD: usize = 10;

/// Print everything that is known about ids
///
/// When an id was first and last seen, when it expires, how many duplicates were refused; for a
/// claim, its attempts, its last error and when its lease ends; for a confirmed claim, its receipt. Expired
/// marks are shown until they are purged. Changes nothing, and works without permission to write. Statuses: 0 all
/// ids are known, 1 some are not, 2 an error.
///
/// Takes some 10 µs for each id, and 2 kB of memory. For more ids than a hundredth of the store's, and in a file without an
/// index, the store is read once for all: about a second for 10,000,000. If some are not known in the --scope, it is read
/// too, and other scopes that know them are named.
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

    /// Print a line with a JSON object for each id; the state of an id that is not known is "unknown", and
    /// `other_scopes` has the scopes that know it.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let reader = arguments.database.read()?;
    let ids = arguments.ids.read()?;
    let reader = reader.scope(&arguments.scope);
    let entries = reader.get_all(ids.iter().map(|it| &it.id))?;
    let now = reader.now();
    let unknown = ids.iter().zip(&entries).filter(|(_, found)| found.is_none());
    let unknown: Vec<&Vec<u8>> = unknown.map(|(asked, _)| &asked.id).collect();
    let elsewhere =
        if unknown.is_empty() { Vec::new() } else { reader.get_in_all_scopes(unknown)? };
    let mut output = Output::new();
    let mut all_known = true;
    for (asked, found) in ids.iter().zip(entries) {
        let others = || elsewhere.iter().filter(|entry| entry.id == asked.id);
        all_known &= found.is_some();
        if found.is_none() {
            asked.warn_if_spelled(|id| Ok(reader.get(id)?.is_some()))?;
        }
        match found {
            Some(entry) if arguments.json => output.line(entry::to_json(&entry).to_string())?,
            None if arguments.json => {
                let mut object = entry::unknown(&arguments.scope, &asked.id);
                object["other_scopes"] = others()
                    .map(|it| json!({ "scope": it.scope, "state": it.state.as_str() }))
                    .collect();
                output.line(object.to_string())?;
            }
            Some(entry) => tell(&mut output, &entry, now)?,
            None => {
                output.line(words::id(&asked.id))?;
                for line in not_known(&arguments.scope, others()) {
                    output.line(format!("  {line}"))?;
                }
            }
        }
    }
    output.finish()?;
    Ok(ExitCode::from(u8::from(!all_known)))
}

/// Says that the scope does not know an id, and which others do.
fn not_known<'a>(scope: &str, others: impl Iterator<Item = &'a Entry>) -> Vec<String> {
    let others: Vec<&Entry> = others.collect();
    if others.is_empty() {
        return vec!["not seen: the store knows nothing of it".to_owned()];
    }
    let of = |name: &str| match name {
        "" => "the scope without a name".to_owned(),
        name => format!("scope {}", harmless(name)),
    };
    let mut lines = vec![format!("not seen in {}; name the scope that is meant:", of(scope))];
    lines.extend(others.iter().take(SCOPES_TOLD).map(|entry| {
        let option = format!("--scope {}", words::for_shell(&entry.scope));
        format!("{option:<20} {}, last seen {}", entry.state, local_time(entry.last_seen))
    }));
    if others.len() > SCOPES_TOLD {
        lines
            .push(format!("and {} more scopes", words::count((others.len() - SCOPES_TOLD) as u64)));
    }
    lines
}

fn tell(output: &mut Output, entry: &Entry, now: SystemTime) -> Result<()> {
    output.line(words::id(&entry.id))?;
    for (name, value) in facts(entry, now) {
        output.line(format!("  {name:<12}{value}"))?;
    }
    if let Some(change) = &entry.change {
        output.line("  a change of it:")?;
        for (name, value) in facts(change, now) {
            output.line(format!("    {name:<12}{value}"))?;
        }
    }
    Ok(())
}

fn facts(entry: &Entry, now: SystemTime) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if !entry.scope.is_empty() {
        facts.push(("scope", harmless(&entry.scope)));
    }
    facts.push(("state", entry.state.to_string()));
    let is_claim = entry.lease_until.is_some();
    if is_claim {
        facts.push(("claimed", moment(entry.first_seen, now)));
    } else {
        facts.push(("first seen", moment(entry.first_seen, now)));
        facts.push(("last seen", moment(entry.last_seen, now)));
    }
    match (entry.lease_until, entry.state) {
        (Some(until), State::InFlight) => facts.push(("lease ends", moment(until, now))),
        (Some(until), State::Abandoned | State::Unresolved) => {
            facts.push(("lease ended", moment(until, now)));
        }
        (Some(until), State::Failed) if until > now => {
            facts.push(("retry from", moment(until, now)));
        }
        _ => {}
    }
    let expires = entry.expires_at.map_or_else(|| "never".into(), |at| moment(at, now));
    facts.push((if is_claim { "forgotten" } else { "expires" }, expires));
    if let Some(until) = entry.retain_until {
        facts.push(("kept until", moment(until, now)));
    }
    if let Some(digest) = entry.digest {
        facts.push(("digest", digest.to_string()));
    }
    if !is_claim || entry.duplicates > 0 {
        facts.push(("duplicates", words::count(entry.duplicates)));
    }
    if let Some(history) = &entry.history {
        let earlier = format!(
            "{}, {}; since {}, until {}",
            words::counted(history.windows, "earlier window"),
            words::counted(history.duplicates, "duplicate"),
            local_time(history.first_seen),
            moment(history.last_seen, now)
        );
        facts.push(("before", earlier));
    }
    if let Some(holder) = &entry.holder {
        facts.push(("holder", harmless(holder)));
    }
    if entry.held {
        facts.push(("held", "when its worker vanishes, until `seen resolve`".to_owned()));
    }
    if entry.attempts > 0 {
        let abandoned = match entry.abandoned {
            0 => String::new(),
            abandoned => format!(", {abandoned} of them abandoned"),
        };
        facts.push(("attempts", format!("{}{abandoned}", entry.attempts)));
    }
    if let Some(error) = &entry.last_error {
        facts.push(("last error", harmless(error)));
    }
    if let Some(receipt) = &entry.receipt {
        facts.push(match Replay::from_receipt(receipt) {
            Some(stored) => ("replays", replayed(&stored)),
            None => ("receipt", words::id(receipt)),
        });
    }
    facts
}

fn replayed(stored: &Replay) -> String {
    format!(
        "status {}, {} of standard output, {} of standard error",
        stored.status,
        words::size(stored.stdout.len() as u64),
        words::size(stored.stderr.len() as u64)
    )
}

/// Returns a time and its distance from now.
fn moment(time: SystemTime, now: SystemTime) -> String {
    let distance = match time.duration_since(now) {
        Ok(ahead) if !ahead.is_zero() => format!("in {}", rough_duration(ahead)),
        _ => format!("{} ago", rough_duration(now.duration_since(time).unwrap_or_default())),
    };
    format!("{} ({distance})", local_time(time))
}
