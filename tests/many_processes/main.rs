//! Several processes on one file, for real: single marks beside batches, imports, purges, cleanups and
//! claims, while processes are killed and stopped and a foreign tool holds the file.
//!
//! The parent starts children, each in one role in a process of its own, and does to them what follows from
//! one seed. Each child writes down in a ledger that all share what was acknowledged to it. Afterwards the
//! ledger and the file are compared, and one table tells what was found. `bugs/` holds changes to the
//! library that this harness must find.
//!
//! - [`settings`]: the environment variables, and how much is done
//! - [`phases`]: who takes part in what, and what is asked afterwards
//! - [`crew`], [`child`]: the two sides of a child; [`marker`], [`worker`], [`claimer`], [`foreign`]: the roles
//! - [`ledger`]: what was acknowledged; [`oracle`]: whether it can be true; [`table`]: the report

#![cfg(target_os = "linux")]
#![allow(clippy::needless_for_each, reason = "a line for a line")]
#![expect(clippy::disallowed_methods, reason = "the waits of real processes are measured")]

mod child;
mod claimer;
mod crew;
mod foreign;
mod ledger;
mod marker;
mod oracle;
mod phases;
mod settings;
#[path = "../support_process/mod.rs"]
mod support_process;
mod table;
mod worker;

use child::Me;
use settings::Settings;
use support_process::role;
use table::Table;

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("marker") => marker::run(&Me::from_env()),
        Some("worker") => worker::run(&Me::from_env()),
        Some("claimer") => claimer::run(&Me::from_env()),
        Some("foreign") => foreign::run(&Me::from_env()),
        Some(role) => panic!("unknown role {role:?}"),
    }
}

/// The number of the phase that asks whether single marks get in beside large batches.
const BATCHES: usize = 2;

#[test]
fn processes_get_in_beside_each_other_and_lose_nothing_whatever_is_killed_or_stopped() {
    let settings = Settings::from_env();
    println!("{settings:?}");
    let mut table = Table::default();
    let phases: [fn(Settings, &mut Table); 6] = [
        phases::alone,
        phases::streams,
        phases::batches,
        phases::free,
        phases::mortal,
        phases::hindered,
    ];
    for (number, phase) in phases.into_iter().enumerate() {
        // It asks for bounds on waits, and large batches take minutes where a run has a few rows.
        if settings.has_small_index && number == BATCHES {
            continue;
        }
        let begun = std::time::Instant::now();
        phase(settings, &mut table);
        println!("{:.1} s", begun.elapsed().as_secs_f64());
        // What breaks one phase may make the next ones take for ever.
        if table.is_broken(settings.asserts_bounds) {
            break;
        }
    }
    let broken = table.print(settings.asserts_bounds);
    assert!(broken.is_empty(), "SEEN_PROCESSES_SEED={}: {broken:#?}", settings.seed);
}
