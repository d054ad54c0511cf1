//! What a store, a reader and a listing say is what the file holds.
//!
//! - Promise 4, order: a reader sees what was acknowledged before it was asked.
//! - Promise 8, nothing is forgotten: a listing returns each id once, whatever is written meanwhile.
//! - Promise 9, several stores: a reader beside a store gives the store's answers.

mod activity;
#[path = "../common/mod.rs"]
mod common;
mod counts;
mod entries;
mod index_damage;
mod log_lines;
mod reader;
#[cfg(feature = "serde")]
mod serialized;
mod stats;
#[path = "../support_group/mod.rs"]
mod support_group;
#[path = "../support_process/mod.rs"]
mod support_process;
mod types;
