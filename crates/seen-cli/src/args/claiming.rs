//! How an id is claimed, for `run` and `claim` alike.
//!
//! Owns the options of a claim, and why one is not granted, in words.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use clap::Args;
use seen_store::{Abandoned, Claim, Config, Item, Known, Lease, RetryDelay, State, Store, Ttl};

use crate::Result;
use crate::args::duration::{parse_duration, parse_lease, parse_ttl};
use crate::args::ids::item;
use crate::args::retention::Retention;
use crate::output::words::{counted, harmless, local_time};

const RETRIES_HELP: &str = "\
Give the id up after N attempts in all. Without it there is no end.

Attempts are counted for the id, over all runs, for one --ttl after the last: a failed one, one that ended \
with its lease, and one that was given back. An id that was given up is not tried again until `seen resolve` \
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

    /// When this worker vanishes, keep the id from all others until `seen resolve`
    ///
    /// Without it, the id can be claimed again once the lease has ended, although the work may have been done.
    /// With it, the work is not done twice, and a person must decide.
    #[arg(long)]
    hold: bool,

    #[command(flatten)]
    retention: Retention,
}

/// The option of a command that claims one id.
#[derive(Args)]
pub(crate) struct Version {
    /// Claim this version of the id: one that was done in another version can be claimed again
    ///
    /// Until the new version is done, the id stays seen in its old one. An id that was remembered without a version
    /// takes the first one as its own.
    #[arg(long, value_name = "TEXT")]
    version: Option<OsString>,
}

impl Version {
    pub(crate) fn of<'a>(&self, id: &'a [u8]) -> Item<'a> {
        item(id, self.version.as_deref())
    }
}

/// The result of a claim.
pub(crate) enum Claimed {
    Ours(Box<Lease>),
    Refused(Refusal),
}

pub(crate) enum Refusal {
    Seen(Box<Known>),
    InFlight {
        until: SystemTime,
        holder: Option<String>,
    },
    /// Its last worker vanished, and it is held until a decision.
    Unresolved {
        since: SystemTime,
        holder: Option<String>,
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
    /// Returns the settings of a store that is claimed from. With `ttl`, ids are remembered for this time, whatever --ttl
    /// says.
    pub(crate) fn config(&self, ttl: Option<Duration>) -> Config {
        let abandoned = if self.hold { Abandoned::Hold } else { Abandoned::Retry };
        let ttl = ttl.map_or(self.ttl, Ttl::After);
        let config = Config::default().ttl(ttl).max_attempts(self.retries);
        self.retention.put_into(config.abandoned(abandoned))
    }

    pub(crate) fn claim(&self, store: &dyn Store, item: &Item<'_>) -> Result<Claimed> {
        Ok(Claimed::Refused(match store.claim(item.into(), self.lease)? {
            Claim::Granted(lease) => return Ok(Claimed::Ours(Box::new(lease))),
            Claim::InFlight { until, holder } => match store.get(item.id().into())? {
                Some(entry) if entry.state == State::Failed => Refusal::Waiting { until },
                _ => Refusal::InFlight { until, holder },
            },
            Claim::Unresolved { since, holder } => Refusal::Unresolved { since, holder },
            Claim::GivenUp { attempts } => Refusal::GivenUp { attempts },
            Claim::Seen(known) => Refusal::Seen(Box::new(known)),
            other => return Err(format!("{other:?} is not known to this version of seen").into()),
        }))
    }
}

/// The option that delays the next claim after a failure.
#[derive(Args)]
pub(crate) struct RetryAfter {
    /// Refuse claims of the id until this time has passed since the failure. Default: no wait.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retry_after: Option<Duration>,

    /// Double --retry-after after each attempt, up to this time, and vary it by chance
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "retry_after")]
    retry_max: Option<Duration>,
}

impl RetryAfter {
    pub(crate) fn put_into(&self, config: Config) -> Config {
        let first = self.retry_after.unwrap_or_default();
        config.retry_delay(match self.retry_max {
            Some(max) => RetryDelay::Exponential { first, max },
            None => RetryDelay::Fixed(first),
        })
    }
}

impl Refusal {
    /// The reason in one line, without control characters. `id` is the id as messages show it.
    pub(crate) fn told(&self, id: &str) -> String {
        let by = |holder: &Option<String>| match holder {
            Some(holder) => format!(" ({})", harmless(holder)),
            None => String::new(),
        };
        match self {
            Self::Seen(_) => format!("{id}: seen before"),
            Self::InFlight { until, holder } => {
                let until = local_time(*until);
                format!("{id}: another worker{} has it, until {until} at most", by(holder))
            }
            Self::Unresolved { since, holder } => format!(
                "{id}: its worker{} vanished, and had it until {}; whether it did the work is not known: \
                 `seen resolve` decides",
                by(holder),
                local_time(*since)
            ),
            Self::Waiting { until } => {
                format!("{id}: it failed, and is not tried again before {}", local_time(*until))
            }
            Self::GivenUp { attempts } => {
                let attempts = counted((*attempts).into(), "attempt");
                format!(
                    "{id}: given up after {attempts}; `seen resolve` decides what becomes of it"
                )
            }
        }
    }
}
