//! The section on callers that are tasks.

use std::fmt::Write;

use harness::{Outcome, Result, Workload};

use super::opening::megabytes;
use super::{count, duration, table};
use crate::contenders::{ALL, ASYNC, Contender, Kind, NOTHING_TASKS, STORE, label};
use crate::results::Results;
use crate::schedule::{Cell, MANY_TASKS, TASKS, WAITING_TASKS};

/// The table's columns.
const COLUMNS: [&str; TASKS.len()] = [
    "duplicates, 1 task",
    "16 tasks",
    "1,000 tasks",
    "new ids, 1 task",
    "16 tasks",
    "1,000 tasks",
    "new ids, power-cut safe, 1,000 tasks",
];

pub(super) fn write(out: &mut String, results: &Results) -> Result<()> {
    let columns: Vec<_> =
        COLUMNS.iter().zip(TASKS).map(|(name, cell)| ((*name).to_owned(), cell)).collect();
    if columns.iter().all(|(_, cell)| results.ns(ASYNC, *cell).is_none()) {
        return Ok(());
    }
    writeln!(
        out,
        "## Async callers\n\nTasks on a Tokio runtime with as many threads as processors, each of which waits for \
         an answer before it asks again. A million ids of 25 bytes held; a mark survives a killed process, or a power \
         cut where that is said. In this section `1.00×` is this store's async form. In the row \"{}\" the callers are \
         as many threads instead, and block.\n",
        label(STORE)
    )?;
    table(out, results, ASYNC, &columns, |contender| {
        contender.by_tasks || contender.name == STORE
    })?;
    memory(out, results)
}

/// What waiting tasks hold.
fn memory(out: &mut String, results: &Results) -> Result<()> {
    let extra = |outcome: &Outcome, name: &str| outcome.extra.get(name).copied();
    let private = |name, cell| {
        results.median_of(name, cell, |outcome| {
            outcome.anon_bytes as f64 - extra(outcome, "index_bytes").unwrap_or(0.0)
        })
    };
    let beyond_the_harness = |name, cell| {
        let bytes = private(name, cell)? - private(NOTHING_TASKS, cell)?;
        Some(megabytes(bytes.max(0.0)))
    };
    writeln!(
        out,
        "What {} tasks hold while they wait for the disk, as in the last column. Memory is the most private memory \
         that the process grew by, in MB, without the index of this store and without what the harness itself takes; \
         beside it that of 1 task that marks new ids. Then the most threads of the process, and how long a call \
         waits.\n\n\
         | | memory, 1 task | memory, {0} tasks | threads | p50 | p99 |\n|---|---|---|---|---|---|",
        count(MANY_TASKS as u64)
    )?;
    let contends = |contender: &&Contender| contender.by_tasks && contender.kind != Kind::Baseline;
    for contender in ALL.iter().filter(contends) {
        let name = contender.name;
        let Some(latency) = results.latency(name, WAITING_TASKS) else { continue };
        let [one, many] = [Cell::new(Workload::New, 1), WAITING_TASKS]
            .map(|cell| beyond_the_harness(name, cell).unwrap_or("-".to_owned()));
        let threads = results
            .median_of(name, WAITING_TASKS, |o| extra(o, "threads").unwrap_or(f64::NAN))
            .map_or("-".to_owned(), |threads| format!("{threads:.0}"));
        let [p50, p99] = [latency.p50, latency.p99].map(duration);
        writeln!(out, "| {} | {one} | {many} | {threads} | {p50} | {p99} |", contender.label)?;
    }
    writeln!(out)?;
    Ok(())
}
