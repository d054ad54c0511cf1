//! `seen claim`: claims an id for one worker and prints the token of the claim.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use seen_store::Previous;

use crate::Result;
use crate::args::claiming::{Claimed, Claiming, Version};
use crate::args::database::{self, Database};
use crate::args::ids::{self, OneId};
use crate::output::words::local_time;

/// Claim an id, and print the token of the claim
///
/// Of any number of workers, one gets the claim, until its lease ends. It does its work and then calls
/// `seen confirm ID --token TOKEN`; or `seen fail` or `seen release`, after which the id can be claimed again. If
/// the work takes longer, it calls `seen renew` before the lease ends. `seen run` does all this for a command.
/// Statuses: 0 claimed; 1 not claimed (seen before, claimed by another worker, given up, or to be
/// resolved: standard error says which); 2 an error.
#[derive(Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["id", "fields"]))]
pub(crate) struct Arguments {
    #[command(flatten)]
    id: OneId,

    #[command(flatten)]
    database: Database,

    #[command(flatten)]
    claiming: Claiming,

    #[command(flatten)]
    version: Version,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let id = arguments.id.read()?;
    let store = arguments.database.open(arguments.claiming.config(None))?;
    arguments.database.announce(&store, "claim");
    let status = match arguments.claiming.claim(&*store, &arguments.version.of(&id))? {
        Claimed::Ours(lease) => {
            if let Previous::Abandoned { since, .. } = *lease.previous() {
                log::warn!(
                    "{}: its worker vanished, and had it until {}; the work may have been done",
                    ids::shown(&id),
                    local_time(since)
                );
            }
            log::info!("{}: claimed", ids::shown(&id));
            let token = lease.into_token();
            if let Err(e) = writeln!(io::stdout(), "{token}") {
                // The token was not printed, so no worker could end the claim.
                store.release(id.as_slice().into(), &token)?;
                if e.kind() != io::ErrorKind::BrokenPipe {
                    return Err(format!("cannot write to standard output: {e}").into());
                }
            }
            ExitCode::SUCCESS
        }
        Claimed::Refused(refusal) => {
            log::warn!("{}", refusal.told(&ids::shown(&id)));
            ExitCode::FAILURE
        }
    };
    database::close(&store);
    Ok(status)
}
