//! What this store set out to reach, held against what was measured.

use harness::{IdLength, Latency, Workload};

use crate::contenders::{ASYNC, EXCLUSIVE, STORE, label, rivals};
use crate::report::opening::{megabytes, peak_bytes};
use crate::report::{count, duration};
use crate::results::Results;
use crate::run::{filled_cell, resident_cell};
use crate::schedule::{Cell, LARGE, MEDIUM, STARTS, STEADY_THREADS};

pub(crate) struct Target {
    pub(crate) work: String,
    pub(crate) asked: String,
    pub(crate) measured: String,
    /// `None` when this run could not tell.
    pub(crate) met: Option<bool>,
}

fn target(work: &str, asked: &str, measured: Option<(String, bool)>) -> Target {
    let (measured, met) = match measured {
        Some((measured, met)) => (measured, Some(met)),
        None => ("not measured".to_owned(), None),
    };
    Target { work: work.to_owned(), asked: asked.to_owned(), measured, met }
}

/// The quickest rival in a cell.
pub(crate) fn best(results: &Results, cell: Cell) -> Option<(&'static str, f64)> {
    rivals()
        .filter_map(|rival| Some((rival.name, results.ns(rival.name, cell)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

struct Against<'a>(&'a Results);

impl Against<'_> {
    /// Our time as a share of a rival's, and whether that is small enough.
    fn ratio(&self, own: &str, rival: &str, cell: Cell, most: f64) -> Option<(String, bool)> {
        let (own_ns, rival_ns) = (self.0.ns(own, cell)?, self.0.ns(rival, cell)?);
        let ratio = own_ns / rival_ns;
        let (ours, theirs) = (duration(own_ns), duration(rival_ns));
        Some((format!("{ratio:.2}× ({ours} to {theirs} of {})", label(rival)), ratio <= most))
    }

    fn best(&self, own: &str, cell: Cell, most: f64) -> Option<(String, bool)> {
        self.ratio(own, best(self.0, cell)?.0, cell, most)
    }
}

/// All targets.
pub(crate) fn all(results: &Results) -> Vec<Target> {
    let mut targets = speed(results);
    targets.push(tasks(results));
    targets.extend(growth(results));
    targets.extend(waits(results));
    targets.extend(starts(results));
    targets.extend(sizes(results));
    targets
}

fn speed(results: &Results) -> Vec<Target> {
    let against = Against(results);
    let new = Cell::new(Workload::New, 1);
    let (new16, duplicate) = (Cell::new(Workload::New, 16), Cell::new(Workload::Duplicate, 1));
    let (batch, mixed) = (Cell::new(Workload::Batch, 1), Cell::new(Workload::Mixed, 16));
    let batch_ns = results.ns(STORE, batch);
    let power = new16.power();
    let synced = results.ns(STORE, power).zip(results.ns("mutex", power)).map(|(own, each)| {
        (format!("{:.1}× SQLite with one mutex", each / own), each / own >= 10.0)
    });
    let bare = results.ns(STORE, power).zip(results.ns("fsync", new.power())).map(|(own, each)| {
        (format!("{:.1}× a bare fsync for each", each / own), each / own >= 10.0)
    });
    vec![
        target(
            "duplicate, 1M ids, 1 thread",
            "at most 0.35× LMDB",
            against.ratio(STORE, "lmdb", duplicate, 0.35),
        ),
        target(
            "duplicate, 1M ids, 1 thread",
            "at most 0.15× RocksDB",
            against.ratio(STORE, "rocksdb", duplicate, 0.15),
        ),
        target(
            "new id, 1M ids, 1 thread, shared",
            "at most 1.2× RocksDB",
            against.ratio(STORE, "rocksdb", new, 1.2),
        ),
        target(
            "new id, 1M ids, 1 thread, shared",
            "at most 1.2× LMDB",
            against.ratio(STORE, "lmdb", new, 1.2),
        ),
        target(
            "new id, 1M ids, 1 thread, exclusive",
            "at most 1.3× fjall",
            against.ratio(EXCLUSIVE, "fjall", new, 1.3),
        ),
        target("new id, 16 threads", "at most 0.8× the best", against.best(STORE, new16, 0.8)),
        target(
            "batch of 1,000 new ids",
            "at most 0.9 µs an id",
            batch_ns.map(|ns| (duration(ns), ns <= 900.0)),
        ),
        target("batch of 1,000 new ids", "at most 0.5× the best", against.best(STORE, batch, 0.5)),
        target("new id, power-cut safe, 16 threads", "10× a store that syncs each mark", synced),
        target("new id, power-cut safe, 16 threads", "10× a sync of each mark", bare),
        target(
            "new id, power-cut safe, 16 threads",
            "at least level with the best",
            against.best(STORE, power, 1.0),
        ),
        target(
            "95 % duplicates, 16 threads",
            "at most 0.4× the best",
            against.best(STORE, mixed, 0.4),
        ),
    ]
}

fn tasks(results: &Results) -> Target {
    let cell = Cell::new(Workload::Duplicate, 1);
    let measured = results.ns(ASYNC, cell).zip(results.ns(STORE, cell)).map(|(task, thread)| {
        let text = format!("{:.2}× ({} to {})", task / thread, duration(task), duration(thread));
        (text, task <= 1.3 * thread || task <= thread + 100.0)
    });
    target(
        "duplicate, async, 1 task",
        "at most 1.3× the synchronous call, or 100 ns more",
        measured,
    )
}

fn growth(results: &Results) -> Vec<Target> {
    let (first, last) = (results.scale.sizes[0], *results.scale.sizes.last().unwrap_or(&0));
    let growth = |workload, most: f64| {
        let at = |ids| results.ns(STORE, Cell::new(workload, 1).ids(ids));
        let (small, large) = (at(first)?, at(last)?);
        let text = format!("{:.2}× ({} to {})", large / small, duration(small), duration(large));
        Some((text, large / small <= most))
    };
    let work = |what: &str| format!("{what}, growth from {} to {} ids", count(first), count(last));
    vec![
        target(&work("new id"), "at most 1.5×", growth(Workload::New, 1.5)),
        target(&work("duplicate"), "at most 5×", growth(Workload::Duplicate, 5.0)),
    ]
}

fn waits(results: &Results) -> Vec<Target> {
    let fsync = results.latency("fsync", Cell::new(Workload::New, 1).power());
    let worst = |cell| {
        let worst = results.latency(STORE, cell)?.max;
        let most = (3.0 * fsync.map_or(0.0, |fsync: Latency| fsync.p999)).max(20e6);
        let text = format!("{}, limit {} in this run", duration(worst), duration(most));
        Some((text, worst <= most))
    };
    let asked = "at most 20 ms, or 3 × the p99.9 of a bare fsync";
    let steady = Cell::new(Workload::Steady, STEADY_THREADS);
    let wal = results
        .outcomes(STORE, steady)
        .filter_map(|outcome| outcome.extra.get("wal_bytes").copied())
        .reduce(f64::max);
    vec![
        target("worst wait, steady load with checkpoints and purges", asked, worst(steady)),
        target(
            "worst wait of a reader during a whole purge",
            asked,
            worst(Cell::new(Workload::Purge, STEADY_THREADS)),
        ),
        target(
            "write-ahead log under the steady load",
            "at most 8 MiB",
            wal.map(|bytes| {
                (format!("{:.1} MiB", bytes / 1_048_576.0), bytes <= 8.0 * 1_048_576.0)
            }),
        ),
    ]
}

fn starts(results: &Results) -> Vec<Target> {
    let one = |ids| Cell::new(Workload::OpenOne, 1).ids(ids);
    let cycle = Cell::new(Workload::Cycle, 1).ids(LARGE);
    let within = |cell, most_ms: f64| {
        let worst = results.latency(STORE, cell)?.max;
        let ns = results.ns(STORE, cell)?;
        Some((format!("{}, worst {}", duration(ns), duration(worst)), ns <= most_ms * 1e6))
    };
    let peak = results.median_of(STORE, cycle, peak_bytes);
    vec![
        target("open, ask one id, close; 1M ids", "at most 3 ms", within(one(MEDIUM), 3.0)),
        target("open, ask one id, close; 10M ids", "at most 5 ms", within(one(LARGE), 5.0)),
        target(
            "open, ask one id, close; 10M ids, cold page cache",
            "at most 100 ms",
            within(one(LARGE).cold(), 100.0),
        ),
        target("a bot's cycle, 10M ids", "at most 40 ms", within(cycle, 40.0)),
        target(
            "memory of the process in a bot's cycle, 10M ids",
            "at most 25 MB",
            peak.map(|bytes| (format!("{} MB", megabytes(bytes)), bytes <= 25e6)),
        ),
    ]
}

fn sizes(results: &Results) -> Vec<Target> {
    let each = |bytes: f64| bytes / MEDIUM as f64;
    let memory = results.median_of(STORE, resident_cell(), |o| each(o.anon_bytes as f64));
    let index = results.median_of(STORE, resident_cell(), |o| {
        each(o.extra.get("index_bytes").copied().unwrap_or(f64::NAN))
    });
    let memory = index.zip(memory).map(|(index, process)| {
        let text =
            format!("{index:.0} bytes of index; the process grew by {process:.0} with caches");
        (text, index <= 64.0)
    });
    let disk = |ids: u64| {
        let bytes = |cell| results.median_of(STORE, cell, |outcome| outcome.disk_bytes as f64);
        let filled = bytes(filled_cell(IdLength::Short, ids))? / ids as f64;
        // A store that is filled at once goes on arranging its index in the file when it is opened again.
        let opened = STARTS.iter().filter_map(|cell| bytes(cell.ids(ids)));
        let most = opened.map(|bytes| bytes / ids as f64).fold(filled, f64::max);
        let text = format!("{filled:.0} bytes when just filled, {most:.0} after later openings");
        Some((text, most <= 100.0))
    };
    vec![
        target("memory an id, 1M ids, index awake", "at most 64 bytes", memory),
        target("disk an id of 25 bytes, 1M ids", "at most 100 bytes", disk(MEDIUM)),
        target("disk an id of 25 bytes, 10M ids", "at most 100 bytes", disk(LARGE)),
    ]
}
