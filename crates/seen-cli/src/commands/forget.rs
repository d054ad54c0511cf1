//! `seen forget`: makes ids new again.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use seen_store::Config;

use crate::Result;
use crate::args::database::{self, Database};
use crate::args::ids;
use crate::output;

/// Forget ids, so that they are new again
///
/// Removes all that is known about an id: that it was seen, a claim on it, its failed attempts. If a worker has
/// claimed it, its confirm fails. Statuses: 0 all ids were known, 1 some were not (standard error says which), 2 an
/// error.
#[derive(Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["ids", "all"]))]
pub(crate) struct Arguments {
    /// The ids. `-` reads ids from standard input, one a line.
    #[arg(value_name = "ID")]
    ids: Vec<OsString>,

    #[command(flatten)]
    database: Database,

    /// Forget every id of the --scope, which must be given (`--scope ''` is the one without a name). Prints
    /// how many entries were removed, including expired ones.
    #[arg(long, requires = "scope")]
    all: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let store = arguments.database.open_existing(Config::default().purge_on_open(false))?;
    if arguments.all {
        let forgotten = store.forget_scope()?;
        database::close(&store);
        return output::line(&format!("{forgotten} forgotten"));
    }
    let mut unknown = 0;
    ids::for_each(&arguments.ids, |id| {
        if !store.forget(id)? {
            unknown += 1;
            log::warn!("{}: not known, nothing to forget", ids::shown(id));
        }
        Ok(())
    })?;
    database::close(&store);
    Ok(ExitCode::from(u8::from(unknown > 0)))
}
