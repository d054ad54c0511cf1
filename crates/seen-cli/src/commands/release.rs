//! `seen release`: ends a claim without a result.

use std::process::ExitCode;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::holder::Holder;

/// End a claim without a result, so that the id can be claimed again
///
/// The attempt is counted all the same. Statuses: 0 done; 1 the claim is no longer this token's; 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    holder: Holder,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.holder.act(Config::default(), "released", |store, id, token| store.release(id, token))
}
