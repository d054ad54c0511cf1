//! `seen export`: what a store holds, for other programs and other machines.
//!
//! Owns the two formats of an export. What always holds: the store is only read; an entry is written before the
//! next one is read, so memory does not grow with their number.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use seen_store::{Clock, Entry, Filter, Salvage, SalvageReport, State, SystemClock};
use serde_json::Value;

use crate::Result;
use crate::args::database::ReadLocation;
use crate::output::entry::{MEMBERS, to_json, to_object};
use crate::output::message::with_causes;
use crate::output::words;

/// Print all that the store holds, for an import elsewhere
///
/// Prints the entries of all scopes, or of --scope: first ids in flight and failed ids, then seen ids in the order
/// in which they were marked. Times are UTC. `seen import` restores the same entries. The store may be in use
/// meanwhile: an entry that exists throughout is printed; one that is refreshed meanwhile may be printed twice, and
/// an import merges the two. Statuses: 0 done, 2 an error.
///
/// A claim in flight is printed without its token. Where it is imported, it cannot be confirmed, and ends with its
/// lease. Expired entries are printed only with --state expired, or while their retention lasts.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: ReadLocation,

    /// Print this scope only; without it, all scopes.
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,

    /// Print what can still be read of a damaged file.
    ///
    /// Goes around what is damaged, looks in all pages of the file for ids to which nothing leads any more, and prints
    /// these last. Says on standard error how much was lost: status 1 if something was. Then move the damaged file away
    /// with its -wal, and import into a new store. The file is only read.
    #[arg(long)]
    salvage: bool,

    /// The format of the output.
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    format: Format,

    /// Print only entries in this state: seen, in-flight, released, failed, given-up,
    /// abandoned, unresolved, expired.
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line. `id_hex` and `receipt_hex` hold bytes that are not UTF-8; an `expires_at` of null
    /// means never.
    Jsonl,
    /// Comma-separated values with a header. An empty receipt or error is read back as none.
    Csv,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.salvage {
        return salvage(arguments);
    }
    let mut filter = Filter::default();
    if let Some(scope) = &arguments.scope {
        filter = filter.scope(scope);
    }
    let reader = arguments.database.read()?;
    let now = reader.now();
    let is_kept = |entry: &Entry| entry.retain_until.is_some_and(|until| now < until);
    let (all, expired) = match arguments.state {
        Some(state) => (filter.state(state), None),
        None => (filter.clone(), Some(reader.entries(filter.state(State::Expired)))),
    };
    let kept = expired.into_iter().flatten().filter(|it| it.as_ref().map_or(true, is_kept));
    write(arguments.format, reader.entries(all).chain(kept))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what can be read of a damaged file.
fn salvage(arguments: &Arguments) -> Result<ExitCode> {
    let place = arguments.database.file("export --salvage")?;
    let path = place.path();
    // As text: an error of a damaged store would get the advice to do this.
    let mut salvage = Salvage::open(path).map_err(|e| with_causes(&e))?;
    let now = SystemClock.now();
    let is_wanted = |entry: &Entry| {
        let of_scope = arguments.scope.as_ref().is_none_or(|scope| entry.scope == *scope);
        let of_state = match arguments.state {
            Some(state) => entry.state == state,
            None => {
                entry.state != State::Expired || entry.retain_until.is_some_and(|until| now < until)
            }
        };
        of_scope && of_state
    };
    write(arguments.format, salvage.by_ref().filter(is_wanted).map(Ok))?;
    Ok(tell_of(path, salvage.report()))
}

/// Tells what was read and what was lost.
fn tell_of(path: &Path, report: &SalvageReport) -> ExitCode {
    let read = words::entries(report.entries);
    let scanned = match report.marks_from_scan {
        0 => String::new(),
        count if report.removed_may_return => format!(
            ", {count} of them by a scan of all pages; forgotten ids may be among these, since it cannot be read which \
             pages are free"
        ),
        count => format!(", {count} of them by a scan of all pages"),
    };
    let path = path.display();
    if report.is_complete() {
        log::warn!("{path}: {read} read{scanned}; nothing is lost");
        return ExitCode::SUCCESS;
    }
    let places = || words::counted(report.damaged_places, "damaged place");
    let marks = match report.marks_lost_at_most {
        Some(0) => "no marks".to_owned(),
        Some(lost) => format!("at most {} in {}", words::counted(lost, "mark"), places()),
        None => format!("an unknown number of marks in {}", places()),
    };
    let claims = if report.claims_are_lost { ", and an unknown number of claims" } else { "" };
    log::error!(
        "{path}: {read} read{scanned}; lost: {marks}{claims}; to go on, move the file away with its -wal and import \
         what was printed"
    );
    ExitCode::FAILURE
}

/// Prints the entries. A closed pipe ends it: the reader of the output wants no more of it.
fn write(format: Format, entries: impl Iterator<Item = seen_store::Result<Entry>>) -> Result<()> {
    let output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = match format {
        Format::Jsonl => write_json(output, entries),
        Format::Csv => write_csv(output, entries),
    };
    match written {
        Err(Failure::Store(e)) => Err(e.into()),
        Err(Failure::Output(e)) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {e}").into())
        }
        _ => Ok(()),
    }
}

enum Failure {
    Store(seen_store::Error),
    Output(io::Error),
}

impl From<seen_store::Error> for Failure {
    fn from(error: seen_store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(e) => Self::Output(e),
            other => Self::Output(io::Error::other(format!("{other:?}"))),
        }
    }
}

fn write_json(
    mut output: impl Write,
    entries: impl Iterator<Item = seen_store::Result<Entry>>,
) -> Result<(), Failure> {
    for entry in entries {
        serde_json::to_writer(&mut output, &to_json(&entry?)).map_err(io::Error::from)?;
        output.write_all(b"\n")?;
    }
    Ok(output.flush()?)
}

fn write_csv(
    output: impl Write,
    entries: impl Iterator<Item = seen_store::Result<Entry>>,
) -> Result<(), Failure> {
    let mut output = csv::Writer::from_writer(output);
    output.write_record(MEMBERS)?;
    for entry in entries {
        let object = to_object(&entry?);
        let fields = MEMBERS.map(|name| match object.get(name) {
            None => String::new(),
            Some(Value::Null) => "never".into(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        });
        output.write_record(fields)?;
    }
    Ok(output.flush()?)
}
