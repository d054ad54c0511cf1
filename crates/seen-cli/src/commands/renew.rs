//! `seen renew`: extends the lease of a claim.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seen_store::Config;

use crate::Result;
use crate::args::duration::parse_lease;
use crate::args::holder::Holder;

/// Extend the lease of a claimed id
///
/// Statuses: 0 done; 1 the claim is no longer this token's; 2 an error.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    holder: Holder,

    /// How long the lease lasts from now on
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_lease)]
    lease: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.holder.act(Config::default(), "renewed", |store, id, token| {
        store.renew(id, token, arguments.lease)
    })
}
