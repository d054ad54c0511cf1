//! The holder of a claim, who has its token: what `confirm`, `fail`, `release` and `renew` share.
//!
//! What always holds: if the claim is no longer the holder's, the command prints one line, ends with status 1, and
//! changes nothing.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use seen_store::{Config, ErrorKind, Item, Store, Token, Ttl};

use crate::Result;
use crate::args::database::{self, Database};
use crate::args::duration::parse_ttl;
use crate::args::ids::{OneId, shown};

/// The id, the token, and the store.
#[derive(Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["id", "fields"]))]
pub(crate) struct Holder {
    #[command(flatten)]
    id: OneId,

    /// What `seen claim` printed
    #[arg(long, value_name = "TOKEN")]
    token: Token,

    #[command(flatten)]
    database: Database,

    /// How long the id (after `confirm`) or its attempts (otherwise) are remembered from now on: 90s, 36h, 7d, never.
    /// A day has 24 hours.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,
}

impl Holder {
    pub(crate) fn reads_standard_input(&self) -> bool {
        self.id.reads_standard_input()
    }

    /// Runs one verb on the claim. `done` says what it did, in words.
    pub(crate) fn act(
        &self,
        config: Config,
        done: &str,
        act: impl FnOnce(&dyn Store, Item<'_>, &Token) -> seen_store::Result<()>,
    ) -> Result<ExitCode> {
        let id = self.id.read()?;
        let store = self.database.open_existing(config.ttl(self.ttl))?;
        let status = match act(&*store, Item::new(&id), &self.token) {
            Ok(()) => {
                log::info!("{}: {done}", shown(&id));
                ExitCode::SUCCESS
            }
            Err(e) if e.kind() == ErrorKind::LeaseLost => {
                log::error!(
                    "{}: this token no longer holds it: it was ended before, or its lease ran out and \
                     another worker took it over; nothing was changed",
                    shown(&id)
                );
                ExitCode::FAILURE
            }
            Err(e) => return Err(e.into()),
        };
        database::close(&store);
        Ok(status)
    }
}
