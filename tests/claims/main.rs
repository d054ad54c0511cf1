//! A claim belongs to one worker until its lease ends, and no alert is lost with its worker.
//!
//! - Promise 3, atomic: of all who claim an id, one is granted it.
//! - Promise 11, unknown outcomes: a holder that vanished is told apart from one that failed or released.
//! - Promise 18: a held claim binds every store, and every verb.

mod abandoned;
mod batches;
mod bench;
mod beside_marks;
mod changes;
mod clocks_set_back;
#[path = "../common/mod.rs"]
mod common;
mod expiry;
mod life;
mod marks;
mod once;
mod outcomes;
mod processes;
mod stores;
#[path = "../support_process/mod.rs"]
mod support_process;
mod versions;
mod waiting;
