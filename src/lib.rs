#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod answer;
mod clock;
mod combine;
mod config;
mod error;
mod file;
mod fingerprint;
mod id;
mod index;
mod journal;
mod lease;
mod machine;
mod maintenance;
mod patience;
mod process;
mod reader;
mod schema;
mod store;
mod suppressed;
mod token;

pub use answer::{
    Census, Counts, Entry, Inspection, Pragmas, Refused, Report, Restored, State, Stats, Upgrade,
    Verdict,
};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, Synchronous, Ttl, Window};
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::fingerprint;
pub use lease::{Claim, Lease, Ownership};
#[cfg(simulated)]
pub use machine::{Machine, run_on};
pub use reader::{Listing, Reader};
pub use store::{Entries, Filter, SeedFile, SeenStore};
pub use token::Token;
