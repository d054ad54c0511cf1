//! What was remembered elsewhere is taken over with nothing lost.
//!
//! - Promise 8, no silent forgetting: the file of the program that this crate grew from is upgraded in place, and
//!   what it guaranteed holds here too.
//! - Entries of another store are merged with what is known. One that cannot be written is refused alone.

#[path = "../common/mod.rs"]
mod common;
mod newer;
mod restore;
mod seed_contract;
mod seed_file;
#[path = "../support_process/mod.rs"]
mod support_process;
