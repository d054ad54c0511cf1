//! A claim belongs to one worker until its lease ends, and no alert is lost with its worker.
//!
//! - Promise 3, atomic: of all who claim an id, one is granted it.
//! - Promise 11, unknown outcomes: a holder that vanished is told apart from one that failed or released.
//! - Promise 18: a held claim binds every store, and every verb.

mod beside_marks;
#[path = "../common/mod.rs"]
mod common;
mod life;
mod processes;
#[path = "../support_process/mod.rs"]
mod support_process;
