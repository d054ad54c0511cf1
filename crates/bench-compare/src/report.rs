//! Writes docs/performance.md. Every figure in it comes from the run.

use std::fmt::Write;
use std::path::Path;

use harness::{Durability, IdLength, Result, Workload};

use crate::contenders::{ALL, ASYNC, Contender, EXCLUSIVE, Kind, STORE, label, rivals};
use crate::plots;
use crate::results::Results;
use crate::run::{filled_cell, resident_cell};
use crate::schedule::{Cell, MANY_TASKS, MEDIUM, PageCache, STEADY_THREADS, WAITING_TASKS};
use crate::targets;

pub(crate) mod opening;
mod tasks;

/// A time for people.
pub(crate) fn duration(ns: f64) -> String {
    let (value, unit) = match ns {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    match value {
        v if v >= 100.0 || unit == "ns" => format!("{v:.0} {unit}"),
        v if v >= 10.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.2} {unit}"),
    }
}

/// A number of ids for people.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes the report and its plots into a folder.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let plots = plots::draw(results, folder)?;
    let mut text = String::new();
    let out = &mut text;
    head(out, results)?;
    target_table(out, results)?;
    losses(out, results)?;
    throughput(out, results)?;
    tasks::write(out, results)?;
    latency(out, results)?;
    growth(out, results)?;
    opening::write(out, results)?;
    room(out, results)?;
    own(out, results)?;
    writeln!(out, "## Plots\n")?;
    for (file, title) in &plots {
        writeln!(out, "![{title}]({file})\n")?;
    }
    contenders(out, results)?;
    method(out, results)?;
    let path = folder.join("performance.md");
    std::fs::write(&path, text)?;
    eprintln!("written: {}", path.display());
    Ok(())
}

fn head(out: &mut String, results: &Results) -> Result<()> {
    let scale = &results.scale;
    writeln!(out, "# Performance\n")?;
    writeln!(
        out,
        "Written by `make compare`, which measured everything here in one run: {} in {:.0} \
         minutes, all contenders in turn, one process at a time. Run it again to have your own \
         machine's figures.\n",
        if results.rounds == 1 {
            "1 round".to_owned()
        } else {
            format!("{} rounds", results.rounds)
        },
        results.seconds / 60.0
    )?;
    if scale.quick {
        writeln!(
            out,
            "**This was a quick run** (`COMPARE_QUICK=1`): short measurements, and nothing of \
             10,000,000 ids. `make compare` without it is the one to quote.\n"
        )?;
    }
    for (contender, why) in &results.missing {
        writeln!(out, "**Without {}**: {why}.\n", label(contender))?;
    }
    for (name, value) in &results.machine {
        writeln!(out, "- {name}: {value}")?;
    }
    writeln!(
        out,
        "\nIn the tables, `1.00×` is this store in shared mode, unless a section names another: \
         another's `2.00×` took twice as long an id. `±` is the range over the rounds as a share of the \
         median.\n"
    )?;
    Ok(())
}

fn target_table(out: &mut String, results: &Results) -> Result<()> {
    writeln!(out, "## Targets\n\n| work | target | measured | |\n|---|---|---|---|")?;
    for target in targets::all(results) {
        let met = match target.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "-",
        };
        writeln!(out, "| {} | {} | {} | {met} |", target.work, target.asked, target.measured)?;
    }
    writeln!(out)?;
    Ok(())
}

/// What a cell is, in words.
fn describe(cell: Cell) -> String {
    let work = match cell.workload {
        Workload::New => "new ids",
        Workload::Duplicate => "duplicates",
        Workload::Mixed => "95 % duplicates",
        Workload::Batch => "batches of 1,000 new ids",
        Workload::OpenOne => "opening, one id asked, closing",
        Workload::OpenMany => "opening, 400 ids asked, closing",
        Workload::Cycle => "a bot's cycle",
        Workload::Claim => "claim and confirm",
        other => other.name(),
    };
    let mut text = format!("{work}, {} held", count(cell.ids));
    if !cell.workload.is_start() {
        let _ =
            write!(text, ", {} thread{}", cell.threads, if cell.threads == 1 { "" } else { "s" });
    }
    if cell.id_length == IdLength::Url {
        text.push_str(", URLs");
    }
    if cell.durability == Durability::Power {
        text.push_str(", power-cut safe");
    }
    if cell.page_cache == PageCache::Cold {
        text.push_str(", cold");
    }
    text
}

fn losses(out: &mut String, results: &Results) -> Result<()> {
    writeln!(out, "## Where this store loses\n")?;
    let mut lost = Vec::new();
    let cells = results.scale.cells();
    for cell in cells.iter().filter(|cell| cell.workload != Workload::Steady) {
        let Some(own) = results.ns(STORE, *cell) else { continue };
        for rival in rivals() {
            if let Some(ns) = results.ns(rival.name, *cell).filter(|ns| *ns < own) {
                lost.push((own / ns, rival.label, *cell, ns, own));
            }
        }
    }
    lost.sort_by(|a, b| b.0.total_cmp(&a.0));
    if lost.is_empty() {
        writeln!(out, "Nowhere in this run, by the time an id takes.\n")?;
    } else {
        writeln!(
            out,
            "Shared mode, by the time an id takes (opening: by the time of the whole):\n"
        )?;
        for (times, rival, cell, theirs, own) in lost {
            writeln!(
                out,
                "- {}: {rival} is {times:.2} times as fast ({} to {})",
                describe(cell),
                duration(theirs),
                duration(own)
            )?;
        }
        writeln!(out)?;
    }
    let memory = |name| results.median_of(name, resident_cell(), |o| o.rss_bytes as f64);
    let disk = |contender: &Contender| {
        let filler = ALL.iter().find(|other| other.family == contender.family)?;
        results
            .median_of(filler.name, filled_cell(IdLength::Short, MEDIUM), |o| o.disk_bytes as f64)
    };
    let own_disk = ALL.iter().find(|contender| contender.name == STORE).and_then(disk);
    for (what, own, theirs) in [
        ("memory", memory(STORE), &(|c: &Contender| memory(c.name)) as &dyn Fn(&Contender) -> _),
        ("disk", own_disk, &disk),
    ] {
        let Some(own) = own else { continue };
        let smaller: Vec<_> = rivals()
            .filter_map(|rival| Some((rival.label, theirs(rival).filter(|bytes| *bytes < own)?)))
            .map(|(label, bytes)| format!("{label} {:.0}", bytes / MEDIUM as f64))
            .collect();
        if !smaller.is_empty() {
            let own = own / MEDIUM as f64;
            writeln!(out, "Less {what}, bytes an id (here {own:.0}): {}.\n", smaller.join(", "))?;
        }
    }
    Ok(())
}

/// A table of contenders by cells, with ratios to the contender `base`.
fn table(
    out: &mut String,
    results: &Results,
    base: &str,
    columns: &[(String, Cell)],
    include: impl Fn(&Contender) -> bool,
) -> Result<()> {
    let measured: Vec<_> =
        columns.iter().filter(|(_, cell)| results.ns(base, *cell).is_some()).collect();
    write!(out, "| |")?;
    for (name, _) in &measured {
        write!(out, " {name} |")?;
    }
    writeln!(out, "\n|---|{}", "---|".repeat(measured.len()))?;
    for contender in ALL.iter().filter(|contender| include(contender)) {
        if measured.iter().all(|(_, cell)| results.ns(contender.name, *cell).is_none()) {
            continue;
        }
        write!(out, "| {} |", contender.label)?;
        for (_, cell) in &measured {
            match (results.ns(contender.name, *cell), results.ns(base, *cell)) {
                (Some(ns), Some(own)) => {
                    write!(out, " {:.2}× · {}", ns / own, duration(ns))?;
                    if let Some(spread) = results.spread(contender.name, *cell) {
                        write!(out, " ±{:.0} %", 100.0 * spread)?;
                    }
                    write!(out, " |")?;
                }
                _ => write!(out, " - |")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    Ok(())
}

fn threads_of(results: &Results, workload: Workload) -> Vec<(String, Cell)> {
    let cells = results.scale.cells().into_iter().filter(move |cell| {
        *cell == Cell::new(workload, cell.threads) && cell.threads != MANY_TASKS
    });
    let name = |n: usize| if n == 1 { "1 thread".to_owned() } else { format!("{n} threads") };
    cells.map(|cell| (name(cell.threads), cell)).collect()
}

fn throughput(out: &mut String, results: &Results) -> Result<()> {
    let contends = Contender::contends;
    for (workload, title) in [
        (Workload::New, "New ids"),
        (Workload::Duplicate, "Duplicates"),
        (Workload::Mixed, "95 % duplicates"),
    ] {
        writeln!(
            out,
            "## {title}\n\nA million ids of 25 bytes held. A mark survives a killed process.\n"
        )?;
        // The harness alone shows how much of the smallest figures is not the store's.
        table(out, results, STORE, &threads_of(results, workload), |contender| {
            contends(contender) || contender.name == "nothing"
        })?;
    }
    writeln!(out, "## Power-cut safe\n\nEvery call waits for the disk.\n")?;
    let power = [
        ("new ids, 1 thread".to_owned(), Cell::new(Workload::New, 1).power()),
        ("16 threads".to_owned(), Cell::new(Workload::New, 16).power()),
        ("batches of 1,000".to_owned(), Cell::new(Workload::Batch, 1).power()),
    ];
    table(out, results, STORE, &power, |contender| {
        contends(contender) || contender.name == "fsync"
    })?;
    for contender in ALL {
        if let Some(why) = results.unsupported(contender.name, power[0].1) {
            writeln!(out, "Without {}: {why}.\n", contender.label)?;
        }
    }
    writeln!(out, "## Batches, and long ids\n\nOne thread; a mark survives a killed process.\n")?;
    let urls = results.scale.url_ids;
    let columns = [
        ("batches of 1,000, an id".to_owned(), Cell::new(Workload::Batch, 1)),
        (
            format!("new 200-byte URLs, {} held", count(urls)),
            Cell::new(Workload::New, 1).ids(urls).url(),
        ),
        ("duplicate URLs".to_owned(), Cell::new(Workload::Duplicate, 1).ids(urls).url()),
    ];
    table(out, results, STORE, &columns, contends)
}

fn latency_rows(out: &mut String, results: &Results, rows: &[(&str, &str, Cell)]) -> Result<()> {
    writeln!(out, "| | p50 | p99 | p99.9 | worst |\n|---|---|---|---|---|")?;
    for (label, name, cell) in rows {
        let Some(latency) = results.latency(name, *cell) else { continue };
        let [p50, p99, p999, max] =
            [latency.p50, latency.p99, latency.p999, latency.max].map(duration);
        writeln!(out, "| {label} | {p50} | {p99} | {p999} | {max} |")?;
    }
    writeln!(out)?;
    Ok(())
}

fn latency(out: &mut String, results: &Results) -> Result<()> {
    writeln!(
        out,
        "## Waiting times\n\nA steady load: {STEADY_THREADS} threads, each five calls a millisecond at \
         most, one of them a new id; a million ids held. The load leaves processors idle, so that this \
         is the store's doing rather than the scheduler's. This store's new ids expire after a second \
         and are purged meanwhile. Medians of the rounds; the worst of all rounds. This store is \
         measured for {} s a round and the others for {} s, so that its worst had longer to \
         happen.\n",
        results.scale.own_steady_seconds, results.scale.steady_seconds
    )?;
    let steady = Cell::new(Workload::Steady, STEADY_THREADS);
    let contends = ALL.iter().filter(|contender| contender.contends());
    let mut rows: Vec<_> = contends.map(|c| (c.label, c.name, steady)).collect();
    rows.push(("a bare fsync, nothing else", "fsync", Cell::new(Workload::New, 1).power()));
    latency_rows(out, results, &rows)
}

fn growth(out: &mut String, results: &Results) -> Result<()> {
    writeln!(out, "## As the store grows\n\nOne thread, 25-byte ids, safe from kills.\n")?;
    let mut columns = Vec::new();
    for (workload, name) in [(Workload::New, "new"), (Workload::Duplicate, "duplicate")] {
        for &size in &results.scale.sizes {
            columns.push((format!("{name}, {}", count(size)), Cell::new(workload, 1).ids(size)));
        }
    }
    table(out, results, STORE, &columns, Contender::contends_everywhere)
}

fn room(out: &mut String, results: &Results) -> Result<()> {
    writeln!(
        out,
        "## Memory and disk\n\nA million ids held. Memory is what the process grew by at most after it \
         opened the store and while it looked up ids all over it, caches included; mapped files, which \
         the system can take back, apart. Disk is that of a store just filled.\n"
    )?;
    writeln!(
        out,
        "| | private memory an id | with mapped files | disk an id | disk a 200-byte URL |\n\
         |---|---|---|---|---|"
    )?;
    for contender in ALL.iter().filter(|contender| contender.contends_everywhere()) {
        let name = contender.name;
        if results.ns(name, resident_cell()).is_none() {
            continue;
        }
        let memory = |value: fn(&harness::Outcome) -> u64| {
            let bytes = results.median_of(name, resident_cell(), |outcome| value(outcome) as f64);
            bytes.map_or("-".to_owned(), |bytes| format!("{:.0}", bytes / MEDIUM as f64))
        };
        let filler =
            ALL.iter().find(|other| other.family == contender.family).map_or(name, |c| c.name);
        let disk = |id_length, ids: u64| {
            let cell = filled_cell(id_length, ids);
            let bytes = results.median_of(filler, cell, |outcome| outcome.disk_bytes as f64);
            bytes.map_or("-".to_owned(), |bytes| format!("{:.0}", bytes / ids as f64))
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            contender.label,
            memory(|outcome| outcome.anon_bytes),
            memory(|outcome| outcome.rss_bytes),
            disk(IdLength::Short, MEDIUM),
            disk(IdLength::Url, results.scale.url_ids)
        )?;
    }
    writeln!(out)?;
    Ok(())
}

/// What only this store does, and its own modes.
fn own(out: &mut String, results: &Results) -> Result<()> {
    writeln!(out, "## This store's modes, and what only it does\n")?;
    writeln!(
        out,
        "| | shared, Normal | exclusive, Normal | async, Normal | shared, Full | exclusive, Full | async, Full |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for (workload, threads) in [
        (Workload::New, 1),
        (Workload::New, 16),
        (Workload::Batch, 1),
        (Workload::Claim, 1),
        (Workload::Claim, 16),
    ] {
        let cell = Cell::new(workload, threads);
        write!(out, "| {} |", describe(cell))?;
        for cell in [cell, cell.power()] {
            for name in [STORE, EXCLUSIVE, ASYNC] {
                let ns = results.ns(name, cell).map_or("-".to_owned(), duration);
                write!(out, " {ns} |")?;
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "\nA claim and its confirmation are two commits; the figure is for both.\n")?;
    let purge = Cell::new(Workload::Purge, STEADY_THREADS);
    let extra = |name: &str| {
        results.median_of(STORE, purge, |o| o.extra.get(name).copied().unwrap_or(f64::NAN))
    };
    if let (Some(purged), Some(seconds)) = (extra("purged"), extra("purge_seconds")) {
        writeln!(
            out,
            "Purging {} expired of {} ids took {} ({} each), while {STEADY_THREADS} threads looked up \
             live ones at a steady pace and waited:\n",
            count(purged as u64),
            count(2 * purge.ids),
            duration(seconds * 1e9),
            duration(seconds * 1e9 / purged)
        )?;
        let rows = [(label(STORE), STORE, purge), (label(EXCLUSIVE), EXCLUSIVE, purge)];
        latency_rows(out, results, &rows)?;
    }
    Ok(())
}

fn contenders(out: &mut String, results: &Results) -> Result<()> {
    writeln!(
        out,
        "## The contenders\n\nWhy the settings are equal in durability is said where they are made: at \
         the top of each file in `crates/bench-four-ways/src` and `crates/bench-peers/src`. Before the \
         measurements each was killed (`SIGKILL`) while it marked ids, and opened again.\n"
    )?;
    writeln!(
        out,
        "| | version | to survive a kill | to survive a power cut | marks lost by the kill |\n\
         |---|---|---|---|---|"
    )?;
    for contender in ALL.iter().filter(|contender| contender.kind != Kind::Baseline) {
        let cell = Cell::new(Workload::New, 16);
        let Some((version, settings)) = results.about(contender.name, cell) else { continue };
        let power = [cell.power(), WAITING_TASKS]
            .iter()
            .find_map(|cell| results.about(contender.name, *cell))
            .map_or("-", |(_, settings)| settings);
        let survival = results.survival.get(contender.name).map_or("-".to_owned(), |survival| {
            format!("{} of {}", count(survival.lost), count(survival.acknowledged))
        });
        writeln!(out, "| {} | {version} | {settings} | {power} | {survival} |", contender.label)?;
    }
    writeln!(out)?;
    if !results.failures.is_empty() {
        writeln!(out, "Runs that failed:\n")?;
        for failure in &results.failures {
            writeln!(out, "- {failure}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn method(out: &mut String, results: &Results) -> Result<()> {
    writeln!(
        out,
        "## How it was measured\n\n\
         - Each figure is a process of its own, run for {} s after a warm-up, on files that were filled \
         beforehand in random order and copied (new ids) or read as they are (duplicates). Whatever \
         copying left unwritten is synced first.\n\
         - The files lie on the file system named above and in the page cache, as a store in use does. \
         They are never in memory only.\n\
         - The index of this store is awake in all tables but those of opening: a process that lives on \
         and asks much wakes it by itself. In those it is as `Config::default()` has it.\n\
         - For opening, each figure is one process, which opens the store once; the contenders take \
         turns, {} times a round after a first time that is not counted, and what was written is synced \
         before each. The start of the process is not in the time. For the cold figures the store's files \
         are dropped from the page cache before each process (`posix_fadvise(POSIX_FADV_DONTNEED)`), and \
         `fincore`, which calls `mincore`, finds nothing of them there. The program, and where the files' \
         blocks are, stay in memory; a virtual disk may have a cache of its own.\n\
         - Every contender keeps an expiry with the id and checks it when it reads, except SQLite used \
         directly, which keeps a timestamp and checks nothing, and Redis, which expires by itself.\n\
         - Every answer is checked: a contender that answers wrongly fails its run.\n\
         - Times an id are wall-clock time divided by the ids that all threads together got through. The \
         making of the id and one reading of the clock are in them: see \"the harness alone\".\n\
         - Callers are threads, with as much processor time as is left; more threads than processors \
         make the slowest calls the scheduler's. Waiting times are therefore measured under a paced \
         load.\n\
         - Callers of this store's async form and of tokio-rusqlite are tasks, as many as the tables have \
         threads. All tasks are measured in the same time: of many, one may get through few calls in it.\n\
         - Redis is a server: its processor time is not the caller's, its memory is counted, and a \
         call is a round trip.\n\
         - Short runs flatter log-structured trees (fjall, RocksDB): what they write is not compacted \
         yet when the run ends. This store and SQLite empty their logs within every run.\n",
        results.scale.seconds, results.scale.starts
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use harness::{Latency, Outcome};

    use super::*;
    use crate::results::Survival;
    use crate::schedule::{self, LARGE, STARTS, Scale};

    /// As if everybody had taken part in everything, and taken a time that grows with the number of ids.
    fn results() -> Results {
        let mut results = Results::new(&Scale::full(), Vec::new(), BTreeMap::new());
        for contender in ALL {
            let survival = Survival { acknowledged: 100, lost: 0 };
            results.survival.insert(contender.name.to_owned(), survival);
            for cell in results.scale.cells() {
                let ns = cell.ids as f64;
                let extra =
                    ["answered_ns", "index_bytes", "peak_bytes", "private_bytes", "read_bytes"];
                let extra = extra.iter().map(|name| ((*name).to_owned(), 24e6));
                let outcome = Outcome {
                    ops: 1,
                    ns_per_op: ns,
                    latency: Latency { p50: ns, p99: ns, p999: ns, max: ns },
                    // 24 MB of it are the index.
                    anon_bytes: if contender.kind == Kind::Baseline { 26 } else { 30 } * 1_000_000,
                    extra: extra.chain([("threads".to_owned(), 12.0)]).collect(),
                    ..Outcome::default()
                };
                results.add(contender.name, cell, outcome);
            }
        }
        results
    }

    fn report(results: &Results) -> String {
        let folder = tempfile::tempdir().unwrap();
        write(results, folder.path()).unwrap();
        std::fs::read_to_string(folder.path().join("performance.md")).unwrap()
    }

    fn row<'a>(report: &'a str, section: &str, label: &str) -> &'a str {
        let section = report.split_once(section).expect(section).1;
        let row = section.lines().find(|line| line.starts_with(&format!("| {label} |")));
        row.unwrap_or_else(|| panic!("{section}\nhas no row of {label}"))
    }

    #[test]
    fn the_report_has_opening_warm_and_cold_with_its_memory() {
        let report = report(&results());
        for section in [
            "\n1,000,000 ids held:",
            "\n10,000,000 ids held:",
            "\nUntil the last answer",
            "\nMemory of the",
            "\nWhat a process",
        ] {
            let own = row(&report, section, "this store, shared");
            assert!(!own.contains(" - "), "{section}: {own}");
            assert_eq!(own, row(&report, section, "LMDB").replace("LMDB", "this store, shared"));
        }
        let times = row(&report, "\n10,000,000 ids held:", "redb");
        assert_eq!(times.matches("1.00× · 10.0 ms, worst 10.0 ms").count(), STARTS.len());
        assert!(
            report.contains("| one id, warm | 400 ids, warm | a cycle, warm | one id, cold | 400")
        );
        assert!(row(&report, "\nMemory of the", "redb").contains(" 24 (24) "));
    }

    #[test]
    fn the_report_has_the_targets_of_opening() {
        let report = report(&results());
        // 1 ms for 1,000,000 ids, 10 ms for 10,000,000.
        for (work, met) in [
            ("open, ask one id, close; 1M ids", "met"),
            ("open, ask one id, close; 10M ids", "**missed**"),
            ("open, ask one id, close; 10M ids, cold page cache", "met"),
            ("a bot's cycle, 10M ids", "met"),
            ("memory of the process in a bot's cycle, 10M ids", "met"),
        ] {
            let row = row(&report, "## Targets", work);
            assert!(row.ends_with(&format!("| {met} |")), "{row}");
        }
    }

    #[test]
    fn what_could_not_be_made_cold_is_reported_as_not_measured() {
        let mut results = Results::new(&Scale::full(), Vec::new(), BTreeMap::new());
        let cold = Cell::new(Workload::OpenOne, 1).ids(LARGE).cold();
        let why = Some("it stays in the page cache".to_owned());
        results.add(STORE, cold, Outcome { unsupported: why, ..Outcome::default() });
        let report = report(&results);
        assert!(report.contains("this store, shared, one id, cold: it stays in the page cache."));
        let target =
            row(&report, "## Targets", "open, ask one id, close; 10M ids, cold page cache");
        assert!(target.ends_with("| not measured | - |"), "{target}");
    }

    #[test]
    fn the_report_has_async_callers_beside_the_blocking_form() {
        let mut results = results();
        let cell = Cell::new(Workload::New, MANY_TASKS);
        // A slower second round: twice as long by the median.
        for contender in ["store-blocking", "tokio-rusqlite"] {
            let again = Outcome { ops: 1, ns_per_op: 3e6, ..Outcome::default() };
            results.add(contender, cell, again);
        }
        let report = report(&results);
        let (_, section) = report.split_once("\n## Async callers\n").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let header = "| | duplicates, 1 task | 16 tasks | 1,000 tasks | new ids, 1 task |";
        assert!(section.contains(header), "{section}");
        for label in ["this store, shared", "this store, async"] {
            let row = row(section, "", label);
            assert_eq!(row.matches(" 1.00× · 1.00 ms |").count(), schedule::TASKS.len(), "{row}");
        }
        for label in ["this store, spawn_blocking", "SQLite, tokio-rusqlite"] {
            assert!(row(section, "", label).contains(" 2.00× · 2.00 ms ±100 % |"));
        }
        assert!(!section.contains("SQLite, one mutex"));
        let waiting = row(section, "\n| | memory, 1 task |", "this store, async");
        assert_eq!(waiting, "| this store, async | 4.0 | 4.0 | 12 | 1.00 ms | 1.00 ms |");
    }

    #[test]
    fn the_async_form_stands_beside_the_four_ways_to_use_sqlite_but_not_under_spawn_blocking() {
        let report = report(&results());
        for section in ["\n## New ids", "\n## Duplicates", "\n## Power-cut safe", "\n## Waiting"] {
            let (_, section) = report.split_once(section).unwrap();
            let (section, _) = section.split_once("\n## ").unwrap();
            for way in ["one mutex", "thread-local", "r2d2 pool", "tokio-rusqlite"] {
                row(section, "", &format!("SQLite, {way}"));
            }
            row(section, "", "this store, async");
            assert!(!section.contains("spawn_blocking"), "{section}");
            assert!(!section.contains("1,000 tasks") && !section.contains("1000 threads"));
        }
        assert!(row(&report, "## The contenders", "this store, spawn_blocking").contains("0 of"));
    }

    #[test]
    fn without_the_async_form_there_is_no_section_of_it() {
        let missing = BTreeMap::from([("store-async".to_owned(), "left out".to_owned())]);
        let report = report(&Results::new(&Scale::full(), Vec::new(), missing));
        assert!(!report.contains("## Async callers"));
        assert!(report.contains("**Without this store, async**: left out."));
        let target = row(&report, "## Targets", "duplicate, async, 1 task");
        assert!(target.ends_with("| not measured | - |"), "{target}");
    }

    #[test]
    fn an_async_duplicate_may_cost_a_third_more_or_a_little() {
        let cell = Cell::new(Workload::Duplicate, 1);
        for (thread, task, met) in [
            (1000.0, 1290.0, "met"),
            (1000.0, 1310.0, "**missed**"),
            (200.0, 299.0, "met"),
            (200.0, 301.0, "**missed**"),
            (200.0, 150.0, "met"),
        ] {
            let mut results = Results::new(&Scale::full(), Vec::new(), BTreeMap::new());
            for (contender, ns_per_op) in [(STORE, thread), (ASYNC, task)] {
                results.add(contender, cell, Outcome { ops: 1, ns_per_op, ..Outcome::default() });
            }
            let report = report(&results);
            let target = row(&report, "## Targets", "duplicate, async, 1 task");
            assert!(target.ends_with(&format!("| {met} |")), "{target}");
            let ratio = format!("| {:.2}× (", task / thread);
            assert!(target.contains(&ratio), "{target}");
        }
    }
}
