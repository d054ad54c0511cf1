//! What cannot be a store is refused and left as it was, and the error says what to do.
//!
//! - Promise 5, errors: the kind of an error, the path and the remedy that it names.
//! - Promise 9, several stores: a second name of the file is refused.
//! - Promise 17: a store is made where it was asked for, and private.

#[path = "../common/mod.rs"]
mod common;
mod file_systems;
mod names;
mod refusals;
#[path = "../support_process/mod.rs"]
mod support_process;
