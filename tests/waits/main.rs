//! A single mark gets in beside every other use of the file, and the log stays short.
//!
//! - Promise 10, waits: at most 500 ms for a mark beside batches, imports, purges and cleanups; at most 16 MiB
//!   of log, 8 MiB with one store.
//! - Promise 5, errors: a call that does not wait, or no longer, fails with `Busy` and has changed nothing.
//!
//! The waits beside one large purge are in `purge_latency`, which needs the machine for itself.

mod beside_works;
mod between_steps;
mod checkpoints;
#[path = "../common/mod.rs"]
mod common;
mod handles;
#[path = "../support_process/mod.rs"]
mod support_process;
