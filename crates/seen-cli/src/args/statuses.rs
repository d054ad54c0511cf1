//! The statuses of `run`, and which statuses of a command are success.
//!
//! Owns the numbers. What always holds: the failures of seen itself have the statuses that `env`, `timeout` and
//! `nohup` have for theirs, so a status below 125 is the command's own, unless an option chose it.

use std::process::ExitStatus;

use clap::Args;

use crate::args::claiming::Refusal;

/// The status of `run` and `each` when seen itself fails, wrong options included.
pub(crate) const SEEN_FAILED: u8 = 125;

/// The options for the statuses with which `run` ends when it does not run the command.
#[derive(Args)]
pub(crate) struct Statuses {
    /// The status if the id was seen before
    #[arg(long = "seen-status", value_name = "N", default_value_t = 0)]
    seen: u8,

    /// The status if another worker has the id, or if it failed and is not yet tried again
    #[arg(long = "in-flight-status", value_name = "N", default_value_t = 75)]
    in_flight: u8,

    /// The status if the id was given up, or is held and to be resolved
    #[arg(long = "given-up-status", value_name = "N", default_value_t = 69)]
    given_up: u8,
}

impl Statuses {
    pub(crate) fn of(&self, refusal: &Refusal) -> u8 {
        match refusal {
            Refusal::Seen(_) => self.seen,
            Refusal::InFlight { .. } | Refusal::Waiting { .. } => self.in_flight,
            Refusal::GivenUp { .. } | Refusal::Unresolved { .. } => self.given_up,
        }
    }

    pub(crate) fn seen(&self) -> u8 {
        self.seen
    }
}

/// The option for the statuses of a command that are success.
#[derive(Args, Clone)]
pub(crate) struct Successes {
    /// Statuses of CMD that are success too: 1 of borg, 24 of rsync. 0 always is
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',')]
    success_status: Vec<u8>,
}

impl Successes {
    pub(crate) fn include(&self, status: ExitStatus) -> bool {
        let declared = |code| self.success_status.iter().any(|success| i32::from(*success) == code);
        status.success() || status.code().is_some_and(declared)
    }
}
