#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod backoff;
mod clock;
mod config;
mod decide;
mod engine;
mod entry;
mod error;
mod file;
mod fingerprint;
mod format;
mod id;
mod index;
mod journal;
mod machine;
mod process;
mod reader;
mod store;
mod token;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, Synchronous, Ttl, Window};
pub use entry::{Entry, Filter, State};
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::fingerprint;
pub use format::pragmas::{Inspection, Pragmas};
pub use format::upgrade::Upgrade;
pub use journal::Report;
#[cfg(simulated)]
pub use machine::{Machine, run_on};
pub use reader::{Census, Counts, Listing, Reader};
pub use store::{
    Claim, Entries, Lease, Ownership, Refused, Restored, SeedFile, SeenStore, Stats, Verdict,
};
pub use token::Token;
