//! What cannot be a store is refused and left as it was, and the error says what to do.
//!
//! - Promise 5, errors: the kind of an error, the path and the remedy that it names.
//! - Promise 9, several stores: a second name of the file is refused.
//! - Promise 17: a store is made where it was asked for, and private.

mod access;
mod attempts;
mod backups;
#[path = "../common/mod.rs"]
mod common;
mod created;
mod damaged;
mod file_systems;
mod foreign;
mod names;
mod opened_together;
mod opening_and_closing;
mod paths;
mod replaced;
mod restored_copies;
mod rows;
#[path = "../support_process/mod.rs"]
mod support_process;
