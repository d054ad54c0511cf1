//! Which entries a command is about: the options of `list` and `forget`.
//!
//! Owns the options besides the scope, which each command has in its own way.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use seen_store::{Filter, State};

use crate::args::duration::{parse_duration, parse_since};

/// The options.
#[derive(Args)]
pub(crate) struct Selection {
    /// Only entries in this state: seen, in-flight, released, failed, given-up,
    /// abandoned, unresolved, expired. Without it, all but expired
    /// entries.
    #[arg(long, value_name = "STATE")]
    state: Option<State>,

    /// Only ids that begin with this text.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<OsString>,

    /// Only entries that were last seen at most this long ago: 90s, 36h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    since: Option<Duration>,

    /// Only entries that were last seen longer ago than this: 90s, 36h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
}

impl Selection {
    /// The names of the options, for a group of arguments.
    pub(crate) const OPTIONS: [&str; 4] = ["state", "prefix", "since", "older_than"];

    pub(crate) fn is_given(&self) -> bool {
        let ages = [self.since, self.older_than];
        self.state.is_some() || self.prefix.is_some() || ages.iter().any(Option::is_some)
    }

    pub(crate) fn filter(&self) -> Filter {
        let mut filter = Filter::default();
        if let Some(state) = self.state {
            filter = filter.state(state);
        }
        if let Some(prefix) = &self.prefix {
            filter = filter.prefix(prefix.as_encoded_bytes());
        }
        if let Some(since) = self.since {
            filter = filter.newer_than(since);
        }
        if let Some(age) = self.older_than {
            filter = filter.older_than(age);
        }
        filter
    }
}
