//! `seen release`: a claimed id goes back undone.

use std::process::ExitCode;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::holder::Holder;

/// Give a claimed id back as if it had never been claimed
///
/// Only the attempt counts. Statuses: 0 done; 1 the claim is no longer this token's; 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    holder: Holder,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.holder.act(Config::default(), |store, id, token| store.release(id, token))
}
