#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "tokio")]
mod async_store;
#[cfg(feature = "backend")]
pub mod backend;
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

/// What is not offered and what to do instead, the store in async code, damaged stores, other programs.
#[doc = include_str!("../docs/guide.md")]
#[allow(clippy::doc_markdown, reason = "names of sites and programs")]
pub mod guide {}

/// What a store tells about itself, and what to watch.
#[doc = include_str!("../docs/monitoring.md")]
pub mod monitoring {}

#[cfg(feature = "tokio")]
pub use async_store::{AsyncClaim, AsyncEntries, AsyncKnown, AsyncLease, AsyncSeenStore};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Abandoned, Config, IndexMode, RetryDelay, Synchronous, Ttl, Window};
pub use decide::claim::Previous;
pub use decide::verbs::{Observation, Ownership, Resolution, Verdict};
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
    Claim, Entries, Failure, Known, Lease, LegacyFile, Once, OnceError, Refused, RestoreSummary,
    SeenStore, Stats, Store, StoreExt,
};
pub use token::Token;
