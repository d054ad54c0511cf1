//! Looks for broken promises that no test was written for: many stores on one file, in one process, under
//! one seed.
//!
//! `simulate` runs seeds, each in a process of its own; see `simulate --help`. A seed that fails is printed,
//! and made small: which of its operations are needed.

#![expect(unreachable_pub, reason = "a program: no item of it is reached from outside")]
#![expect(
    clippy::cast_sign_loss,
    clippy::format_collect,
    clippy::items_after_statements,
    clippy::needless_for_each,
    clippy::semicolon_if_nothing_returned,
    clippy::similar_names,
    clippy::single_match_else,
    clippy::struct_excessive_bools,
    clippy::transmute_ptr_to_ptr,
    clippy::unused_self,
    reason = "written before the workspace's lints held here"
)]

mod events;
mod fork;
#[path = "../../model/known.rs"]
mod known;
mod model;
mod ops;
mod run;
mod scheduler;
mod setup;
#[path = "../../model/state.rs"]
#[allow(dead_code, reason = "shared with the model test")]
mod state;
#[path = "../../model/through.rs"]
#[allow(dead_code, reason = "shared with the model test")]
mod through;
mod vfs;
mod world;

fn main() {
    run::main();
}
