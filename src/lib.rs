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
mod item;
mod journal;
mod machine;
mod process;
mod reader;
mod store;
mod texts;
mod token;

/// Compiles and runs the examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide.md")]
struct Guide;

/// What a store tells about itself, and what to watch.
#[doc = include_str!("../docs/monitoring.md")]
pub mod monitoring {}

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Abandoned, Config, IndexMode, RetryDelay, Synchronous, Ttl, Window};
pub use decide::claim::Previous;
pub use engine::counters::Activity;
pub use entry::{Counts, Entry, Filter, History, State};
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::{fingerprint, fingerprint_fields};
pub use format::pragmas::{FileInfo, Pragmas};
pub use format::upgrade::UpgradeReport;
pub use item::{Digest, Item};
pub use journal::IntegrityReport;
#[cfg(simulated)]
pub use machine::{Machine, run_on};
pub use reader::{FileStats, Listing, Reader, Salvage, SalvageReport};
pub use store::{
    Claim, Entries, Failure, Known, Lease, LegacyFile, Observation, Once, OnceError, Ownership,
    Refused, Resolution, RestoreSummary, SeenStore, Stats, Verdict,
};
pub use token::Token;
