//! What every contender shares: the protocol, the ids, the workloads and the measuring.
//!
//! A contender is a process, started as `CONTENDER NAME --workload W --threads T --ids N
//! --durability kill|power --idlen short|url --seconds S --dir FOLDER`, that prints one line of JSON
//! (an [`Outcome`]). Each run is a process of its own, so that no contender inherits another's memory,
//! caches or threads. Knows nothing of any particular store.

#![expect(clippy::disallowed_methods, reason = "it measures, and needs no clock that steps")]

mod ids;
mod locks;
mod memory;
mod plan;
mod run;
mod start;

pub use ids::Ids;
pub use locks::Locks;
pub use plan::{Durability, IdLength, Latency, Outcome, Plan, Workload};
pub use run::{Contender, Measured, Pace, Report, Worker, main, run_worker};

/// Every failure ends the run: a benchmark has no caller that could handle an error.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// See [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// How long a mark lasts, for the contenders that have to keep it themselves: as the store's default.
pub const TTL_MS: u64 = 7 * 24 * 3600 * 1000;

/// Unix milliseconds, for the contenders that have to compare expiries themselves.
#[must_use]
pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
