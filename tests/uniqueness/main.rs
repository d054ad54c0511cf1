//! Of all who ask about one id, exactly one is told that it is new.
//!
//! - Promise 3, atomic: of any number of threads and processes, one gets `New`.
//! - Promise 4, order: a mark is seen by every store on the file once the marking call has returned.
//! - Promise 9, several stores: both hold for stores in several processes.
//! - A member of a group, or one id of a batch, that cannot be written fails alone.

#[path = "../common/mod.rs"]
mod common;
mod groups;
mod processes;
#[path = "../support_group/mod.rs"]
mod support_group;
#[path = "../support_process/mod.rs"]
mod support_process;
mod verbs;
