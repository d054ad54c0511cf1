//! `seen fail`: ends a claim because its work failed.

use std::process::ExitCode;

use clap::Args;
use seen_store::{Config, Failure};

use crate::Result;
use crate::args::claiming::RetryAfter;
use crate::args::holder::Holder;

/// End a claim because the work on its id failed
///
/// The id can be claimed again, at once or after --retry-after. The error and the number of attempts are kept:
/// `seen show` prints them. Statuses: 0 done; 1 the claim is no longer this token's; 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    holder: Holder,

    /// What went wrong
    #[arg(long, value_name = "TEXT", default_value = "failed", allow_hyphen_values = true)]
    error: String,

    /// Let it not be tried again: it is given up until `seen resolve`, or until its attempts are forgotten
    #[arg(long = "final", conflicts_with_all = ["retry_after", "retry_max"])]
    is_final: bool,

    #[command(flatten)]
    retry_after: RetryAfter,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let config = arguments.retry_after.put_into(Config::default());
    let failure = Failure::new(&arguments.error);
    let failure = if arguments.is_final { failure.is_final() } else { failure };
    arguments.holder.act(config, "failed", |store, id, token| store.fail(id, token, failure))
}
