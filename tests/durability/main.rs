//! What was acknowledged is in the file and stays there.
//!
//! - Promise 2, acknowledged means durable: a mark survives whatever happens to the store afterwards.
//! - Promise 5, errors: nothing is reported as done that was not, also when a caller's code panics.
//! - Promises 9 and 16: a deleted log and a restored file give right answers or an error.
//!
//! Kills are in `crash`, failing disks in `faults`.

#[path = "../common/mod.rs"]
mod common;
mod copies;
mod histories;
mod histories_by_chance;
mod journal_rules;
mod last_handle;
mod side_files;
#[path = "../support_process/mod.rs"]
mod support_process;
mod unwinding;
