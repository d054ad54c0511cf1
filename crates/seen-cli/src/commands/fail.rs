//! `seen fail`: the work on a claimed id went wrong.

use std::process::ExitCode;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::claiming::RetryAfter;
use crate::args::holder::Holder;

/// Give a claimed id back because the work on it failed
///
/// It may be claimed again, at once or after --retry-after. What went wrong and how often is kept for
/// `seen show`. Statuses: 0 done; 1 the claim is no longer this token's; 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    holder: Holder,

    /// What went wrong
    #[arg(long, value_name = "TEXT", default_value = "failed", allow_hyphen_values = true)]
    error: String,

    #[command(flatten)]
    retry_after: RetryAfter,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let config = arguments.retry_after.put_into(Config::default());
    arguments.holder.act(config, |store, id, token| store.fail(id, token, &arguments.error))
}
