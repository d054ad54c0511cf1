//! Looks for broken promises that no test was written for: many stores on one file, in one process, under
//! one seed.
//!
//! `simulate` runs seeds, each in a process of its own; see `simulate --help`. A seed that fails is printed,
//! and made small: which of its operations are needed.

mod events;
mod fork;
mod known;
mod model;
mod ops;
mod run;
mod scheduler;
mod setup;
#[path = "../../model/state.rs"]
#[allow(dead_code, reason = "shared with the model test")]
mod state;
mod vfs;
mod world;

fn main() {
    run::main();
}
