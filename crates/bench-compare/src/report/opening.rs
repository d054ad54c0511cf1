//! The tables of opening: what a process costs that opens a store, asks little and ends.

use std::fmt::Write;

use harness::{Outcome, Result, Workload};

use super::{count, duration};
use crate::contenders::{ALL, STORE};
use crate::results::Results;
use crate::schedule::{Cell, PageCache, STARTS};

/// Megabytes (of a million bytes) for people.
pub(crate) fn megabytes(bytes: f64) -> String {
    let megabytes = bytes / 1e6;
    if megabytes >= 10.0 { format!("{megabytes:.0}") } else { format!("{megabytes:.1}") }
}

/// The most memory that the process ever had resident.
pub(crate) fn peak_bytes(outcome: &Outcome) -> f64 {
    figure(outcome, "peak_bytes")
}

fn figure(outcome: &Outcome, name: &str) -> f64 {
    outcome.extra.get(name).copied().unwrap_or(f64::NAN)
}

pub(super) fn write(out: &mut String, results: &Results) -> Result<()> {
    writeln!(
        out,
        "## Opening\n\nA process opens the store, asks for ids one after another, closes the store and \
         ends; the time is of the three. One id, or 400, all of them held; or what a bot does every few \
         minutes, a cycle: 400 ids of which 10 are new. Warm: the files are in the page cache. Cold: they \
         are not. Medians of all processes; the worst of all.\n"
    )?;
    let times = |contender: &str, cell: Cell| {
        let (ns, own) = (results.ns(contender, cell)?, results.ns(STORE, cell)?);
        let worst = results.latency(contender, cell)?.max;
        Some(format!("{:.2}× · {}, worst {}", ns / own, duration(ns), duration(worst)))
    };
    let sizes: Vec<_> = results.scale.sizes.iter().skip(1).copied().collect();
    for &ids in &sizes {
        writeln!(out, "{} ids held:\n", count(ids))?;
        let columns: Vec<_> = STARTS.iter().map(|cell| (column(*cell), cell.ids(ids))).collect();
        table(out, results, &columns, times)?;
    }
    let both = |of: PageCache| -> Vec<(String, Cell)> {
        let of_size = |ids| {
            let cells = STARTS.iter().filter(|cell| cell.page_cache == of);
            cells.map(move |cell| (format!("{}, {} held", asks(*cell), count(ids)), cell.ids(ids)))
        };
        sizes.iter().flat_map(|ids| of_size(*ids)).collect()
    };
    writeln!(out, "Until the last answer, without the closing. Warm:\n")?;
    table(out, results, &both(PageCache::Warm), |contender, cell| {
        Some(duration(results.median_of(contender, cell, |o| figure(o, "answered_ns"))?))
    })?;
    writeln!(
        out,
        "Memory of the process afterwards, in MB: the most that was ever resident, mapped files \
         included, and in brackets what was private before the store was closed. Warm; the harness is in \
         it.\n"
    )?;
    table(out, results, &both(PageCache::Warm), |contender, cell| {
        let peak = results.median_of(contender, cell, peak_bytes)?;
        let private = results.median_of(contender, cell, |o| figure(o, "private_bytes"))?;
        Some(format!("{} ({})", megabytes(peak), megabytes(private)))
    })?;
    writeln!(out, "What a process had the disk read when cold, in MB:\n")?;
    table(out, results, &both(PageCache::Cold), |contender, cell| {
        let read = results.median_of(contender, cell, |o| figure(o, "read_bytes"))?;
        Some(if read.is_nan() { "?".to_owned() } else { format!("{:.1}", read / 1e6) })
    })
}

/// What is asked.
fn asks(cell: Cell) -> &'static str {
    match cell.workload {
        Workload::OpenOne => "one id",
        Workload::OpenMany => "400 ids",
        _ => "a cycle",
    }
}

fn column(cell: Cell) -> String {
    let cached = match cell.page_cache {
        PageCache::Warm => "warm",
        PageCache::Cold => "cold",
    };
    format!("{}, {cached}", asks(cell))
}

/// A table of contenders by cells, and why some have no figure.
fn table(
    out: &mut String,
    results: &Results,
    columns: &[(String, Cell)],
    text: impl Fn(&str, Cell) -> Option<String>,
) -> Result<()> {
    write!(out, "| |")?;
    for (name, _) in columns {
        write!(out, " {name} |")?;
    }
    writeln!(out, "\n|---|{}", "---|".repeat(columns.len()))?;
    let mut without = Vec::new();
    for contender in ALL {
        let texts: Vec<_> = columns.iter().map(|(_, cell)| text(contender.name, *cell)).collect();
        let whys: Vec<_> = columns
            .iter()
            .zip(&texts)
            .filter(|(_, text)| text.is_none())
            .filter_map(|((column, cell), _)| {
                let why = results.unsupported(contender.name, *cell)?;
                Some(format!("Not measured: {}, {column}: {why}.\n", contender.label))
            })
            .collect();
        if texts.iter().all(Option::is_none) && whys.is_empty() {
            continue;
        }
        without.extend(whys);
        write!(out, "| {} |", contender.label)?;
        for text in &texts {
            write!(out, " {} |", text.as_deref().unwrap_or("-"))?;
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    for why in without {
        writeln!(out, "{why}")?;
    }
    Ok(())
}
