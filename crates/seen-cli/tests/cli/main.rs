//! The command `seen` as its users run it: a process with arguments, pipes and a status.
//!
//! `support_process.rs` is a link to the library's, `recipes.md` to its README, and `monitoring.md`, `alerts.yml` and
//! `alerts.test.yml` to its documents, so that the package has them.

#[cfg(unix)]
mod decisions;
#[cfg(unix)]
mod each;
#[cfg(unix)]
mod exchange;
mod filter;
#[cfg(unix)]
mod filter_claims;
#[cfg(unix)]
mod filter_ends;
#[cfg(unix)]
mod filter_options;
#[cfg(unix)]
mod golden;
#[cfg(unix)]
mod help;
#[cfg(unix)]
mod monitoring;
#[cfg(unix)]
mod naming;
#[cfg(unix)]
mod naming_pairs;
#[cfg(unix)]
mod reading;
#[cfg(target_os = "linux")]
mod recipes;
#[cfg(target_os = "linux")]
mod recovery;
#[cfg(unix)]
mod run_command;
#[cfg(unix)]
mod stores;
mod support;
#[cfg(unix)]
mod support_process;
#[cfg(unix)]
mod versions;
mod writing;
