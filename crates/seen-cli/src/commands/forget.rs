//! `seen forget`: makes ids new again.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use seen_store::{Config, Filter, State};

use crate::Result;
use crate::args::database::{self, Database, Opened};
use crate::args::ids::{self, Ids};
use crate::args::selection::Selection;
use crate::output;

/// Forget ids, so that they are new again
///
/// Removes all that is known about an id: that it was seen, a claim on it, its failed attempts. If a worker has
/// claimed it, its confirm fails. Statuses: 0 all ids were known, 1 some were not (standard error says which), 2 an
/// error.
///
/// Instead of ids, --state, --prefix, --since and --older-than together select the entries of the --scope that are
/// forgotten; the command prints their number. Ids that are in flight, and those that wait for `seen resolve`, are
/// forgotten only with --state in-flight or --state unresolved.
#[derive(Args)]
#[command(
    group = ArgGroup::new("subject").required(true).multiple(true)
        .args(["ids", "fields", "all"]).args(Selection::OPTIONS),
    group = ArgGroup::new("listed").args(["ids", "fields", "all"]),
    group = ArgGroup::new("selected").multiple(true).args(Selection::OPTIONS)
        .conflicts_with("listed")
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    ids: Ids,

    #[command(flatten)]
    database: Database,

    /// Forget every id of the --scope, which must be given (`--scope ''` is the one without a name). Prints
    /// how many entries were removed, including expired ones.
    #[arg(long, requires = "scope")]
    all: bool,

    #[command(flatten)]
    selection: Selection,

    /// Change nothing, and print how many entries would be forgotten
    #[arg(long, requires = "selected", conflicts_with = "listed")]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let config = Config::default().purge_on_open(false).read_only(arguments.dry_run);
    let store = arguments.database.open_existing(config)?;
    if arguments.selection.is_given() {
        let filter = arguments.selection.filter();
        let (count, done) = if arguments.dry_run {
            (store.count(filter)?, "to be forgotten")
        } else {
            (store.remove(filter)?, "forgotten")
        };
        database::close(&store);
        return output::line(&format!("{count} {done}"));
    }
    if arguments.all {
        let forgotten = forget_scope(&store)?;
        database::close(&store);
        return output::line(&format!("{forgotten} forgotten"));
    }
    let mut unknown = 0;
    arguments.ids.for_each(|asked| {
        if store.forget((&asked.id).into())? {
            log::info!("{}: forgotten", ids::shown(&asked.line));
        } else {
            unknown += 1;
            if !asked.warn_if_spelled(|id| Ok(store.get(id.into())?.is_some()))? {
                log::warn!("{}: not known, nothing to forget", ids::shown(&asked.line));
            }
        }
        Ok(())
    })?;
    database::close(&store);
    Ok(ExitCode::from(u8::from(unknown > 0)))
}

fn forget_scope(store: &Opened) -> Result<u64> {
    if let Some(file) = store.file() {
        return Ok(file.forget_scope()?);
    }
    // Without a state, a filter leaves what is at work and what has expired.
    let others = [State::InFlight, State::Unresolved, State::Expired];
    let others = others.into_iter().map(|state| Filter::default().state(state));
    let all = [Filter::default()].into_iter().chain(others);
    Ok(all.map(|filter| store.remove(filter)).sum::<seen_store::Result<u64>>()?)
}
