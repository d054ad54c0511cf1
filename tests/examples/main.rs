//! The examples and a real feed, run as users run them: each alert once, also over restarts and kills.
//!
//! - Promises 2 and 3 (durable, atomic), as a program that uses the library meets them.

mod alert_bot;
mod claiming;
#[path = "../common/mod.rs"]
mod common;
mod feed;
mod programs;
