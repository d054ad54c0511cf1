//! How long what is known of an id is kept after it stopped being seen, for all commands that mark ids.

use std::time::Duration;

use clap::Args;
use seen_store::Config;

use crate::args::duration::parse_duration;

#[derive(Args)]
pub(crate) struct Retention {
    /// Keep what is known of an id this long after it was last marked: 36h, 30d. Default: for its --ttl.
    ///
    /// An id whose --ttl is over is new again; `seen show` still tells of it, and of the windows before, until
    /// then. At least as long as --ttl.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retention: Option<Duration>,
}

impl Retention {
    pub(crate) fn put_into(&self, config: Config) -> Config {
        config.retention(self.retention)
    }
}
