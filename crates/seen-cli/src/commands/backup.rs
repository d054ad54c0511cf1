//! `seen backup`: a copy of the store.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::database::{self, Location};

/// Copy the store to a new file while others go on writing
///
/// The copy is the store as it stands at one moment: one file of mode 0600, a store itself, that can be put in
/// the place of the store when nobody has it open. Where something stands at PATH nothing is written.
/// Statuses: 0 done, 2 an error; no half copy stays behind.
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
