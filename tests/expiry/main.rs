//! An entry lives until its last millisecond, and not longer.
//!
//! - Promise 1, time: expiry holds when an entry is read; small backward steps of a clock are absorbed.
//! - Promise 6, purging: only what has expired, or was asked for, is removed.
//! - Promise 7, refresh: a mark that is refreshed is never shortened.
//! - Promise 8: no entry leaves earlier, except by a call that says so.
//! - Promise 9, several stores: all this holds for clocks that differ by up to 60 s.

mod cleanups;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod corrected_clocks;
mod kept;
mod lifetimes;
mod purges;
mod removals;
mod retention;
#[path = "../support_process/mod.rs"]
mod support_process;
mod tidying;
mod unset_clock;
mod windows;
