//! How an id is claimed, for `run` and `claim` alike.
//!
//! Owns the options of a claim, and why one is not granted, in words.

use std::time::{Duration, SystemTime};

use clap::Args;
use seen_store::{Claim, Config, SeenStore, State, Token, Ttl};

use crate::Result;
use crate::args::duration::{parse_duration, parse_lease, parse_ttl};
use crate::args::ids::shown;
use crate::output::words::{counted, local_time};

const RETRIES_HELP: &str = "\
Give the id up after N attempts in all. Without it there is no end.

Attempts are counted for the id, over all runs, for one --ttl after the last: a failed one, one that ended \
with its lease, and one that was given back. An id that was given up is not tried again until `seen forget` \
or the end of that time.";

/// The options of a claim.
#[derive(Args)]
pub(crate) struct Claiming {
    /// How long the claim lasts. If the worker dies, another one may claim the id after this time.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_lease)]
    pub(crate) lease: Duration,

    /// How long the id is remembered once it is done: 90s, 36h, 7d, never. A day has 24 hours.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,

    /// Refuse the id after N attempts, counting those of earlier runs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
          long_help = RETRIES_HELP)]
    pub(crate) retries: Option<u32>,
}

/// The result of a claim.
pub(crate) enum Claimed {
    Ours { token: Token, attempt: u32 },
    Refused(Refusal),
}

pub(crate) enum Refusal {
    Seen,
    InFlight {
        until: SystemTime,
    },
    /// Its last attempt failed a moment ago.
    Waiting {
        until: SystemTime,
    },
    GivenUp {
        attempts: u32,
    },
}

impl Claiming {
    pub(crate) fn config(&self) -> Config {
        Config::default().ttl(self.ttl).max_attempts(self.retries)
    }

    pub(crate) fn claim(&self, store: &SeenStore, id: &[u8]) -> Result<Claimed> {
        Ok(Claimed::Refused(match store.claim(id, self.lease)? {
            Claim::Granted(lease) => {
                let attempt = lease.attempt();
                return Ok(Claimed::Ours { token: lease.into_token(), attempt });
            }
            Claim::InFlight { until } => match store.get(id)? {
                Some(entry) if entry.state == State::Failed => Refusal::Waiting { until },
                _ => Refusal::InFlight { until },
            },
            Claim::GivenUp { attempts } => Refusal::GivenUp { attempts },
            _ => Refusal::Seen,
        }))
    }
}

/// The option that delays the next claim after a failure.
#[derive(Args)]
pub(crate) struct RetryAfter {
    /// Refuse claims of the id until this time has passed since the failure. Default: no wait.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retry_after: Option<Duration>,
}

impl RetryAfter {
    pub(crate) fn put_into(&self, config: Config) -> Config {
        config.retry_delay(self.retry_after.unwrap_or_default())
    }
}

impl Refusal {
    /// The reason in one line, without control characters.
    pub(crate) fn told(&self, id: &[u8]) -> String {
        let id = shown(id);
        match *self {
            Self::Seen => format!("{id}: seen before"),
            Self::InFlight { until } => {
                format!("{id}: another worker has it, until {} at most", local_time(until))
            }
            Self::Waiting { until } => {
                format!("{id}: it failed, and is not tried again before {}", local_time(until))
            }
            Self::GivenUp { attempts } => {
                let attempts = counted(attempts.into(), "attempt");
                format!("{id}: given up after {attempts}; `seen forget` lets it be tried again")
            }
        }
    }
}
