//! Compares this store with what a user might pick instead, and writes docs/performance.md.
//!
//! `compare` runs everything; `COMPARE_QUICK=1` a short version; `COMPARE_ONLY=lmdb,fjall` this store
//! beside those only, also without its async form unless `store-async` is named; `compare render` only writes the report again from the figures of the last run.
//! The contenders are programs of their own, run in turn, each figure once a round, so that whatever
//! disturbs the machine disturbs all of them alike.

#![expect(clippy::disallowed_methods, reason = "it measures, and needs no clock that steps")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, which are neither large nor negative"
)]

mod build;
mod contenders;
mod machine;
mod plots;
mod report;
mod results;
mod run;
mod schedule;
mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::Result;
use results::Results;
use schedule::Scale;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn main() {
    if let Err(e) = compare() {
        eprintln!("{e}");
        std::process::exit(1);
    }
}

fn compare() -> Result<()> {
    let figures = root().join("target/compare.json");
    match std::env::args().nth(1).as_deref() {
        Some("render") => {
            return report::write(&Results::read(&figures)?, &root().join("docs"));
        }
        Some(other) => return Err(format!("what is {other:?}? Only \"render\" is known").into()),
        None => {}
    }
    let quick = std::env::var_os("COMPARE_QUICK").is_some_and(|value| !value.is_empty());
    let scale = if quick { Scale::quick() } else { Scale::full() };
    let only = std::env::var("COMPARE_ONLY").ok().filter(|only| !only.is_empty());
    let programs = build::all(only.as_deref())?;
    let scratch = Scratch::new()?;
    let began = Instant::now();
    let mut results = Results::new(&scale, machine::describe(&scratch.0), programs.missing.clone());
    let runner = run::Runner::new(&programs, &scratch.0, &scale);
    runner.check_that_marks_survive(&mut results)?;
    runner.fill(&mut results)?;
    let mut longest_round = Duration::ZERO;
    for round in 0..scale.rounds {
        // A slow machine measures fewer rounds rather than for longer; the report tells how many.
        if round > 0 && began.elapsed() + longest_round > scale.budget {
            eprintln!("no time left for round {}", round + 1);
            break;
        }
        let round_began = Instant::now();
        runner.round(round, &mut results);
        longest_round = longest_round.max(round_began.elapsed());
        results.rounds = round + 1;
        results.seconds = began.elapsed().as_secs_f64();
        results.write(&figures)?;
    }
    report::write(&results, &root().join("docs"))
}

/// A folder on a real disk that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let parent =
            std::env::var_os("COMPARE_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let folder = parent.join(format!("compare-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let scratch = Self(folder.canonicalize()?);
        let file_system = machine::file_system(&scratch.0);
        if ["tmpfs", "ramfs"].contains(&file_system.as_str()) {
            return Err(format!(
                "{} is in memory, where a sync costs nothing; name a folder on a disk in COMPARE_DIR",
                scratch.0.display()
            )
            .into());
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
