//! `seen backup`: a copy of the store.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::database::{self, Location};

/// Copy the store to a new file while others go on writing
///
/// The copy is the store at one moment, in one file of mode 0600. It is a store itself, and can replace the store
/// while no program has the store open. If PATH exists, nothing is written. Statuses: 0 done, 2 an error; after an
/// error no incomplete copy is left.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The new file
    #[arg(value_name = "PATH")]
    path: PathBuf,

    #[command(flatten)]
    location: Location,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let store = arguments.location.open_existing(Config::default().read_only(true))?;
    store.backup(&arguments.path)?;
    database::close(&store);
    Ok(ExitCode::SUCCESS)
}
