#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod answer;
mod clock;
mod config;
mod error;
mod file;
mod id;
mod index;
mod journal;
mod maintenance;
mod patience;
mod schema;
mod store;
mod suppressed;

pub use answer::{Entry, Pragmas, Report, Stats, Verdict};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, Synchronous, Ttl};
pub use error::{Error, ErrorKind, Result};
pub use store::SeenStore;
