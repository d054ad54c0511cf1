//! What is run, and at which size.

use std::time::Duration;

use harness::{Durability, IdLength, Plan, Workload};
use serde::{Deserialize, Serialize};

use crate::contenders::{Contender, Kind};

pub(crate) const SMALL: u64 = 10_000;
pub(crate) const MEDIUM: u64 = 1_000_000;
pub(crate) const LARGE: u64 = 10_000_000;
/// The paced load's callers, and the purge's readers.
pub(crate) const STEADY_THREADS: usize = 4;

/// More tasks than a program would have threads.
pub(crate) const MANY_TASKS: usize = 1_000;

/// Whether a store's files are in the page cache when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum PageCache {
    Warm,
    Cold,
}

/// One figure of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) workload: Workload,
    pub(crate) threads: usize,
    pub(crate) ids: u64,
    pub(crate) durability: Durability,
    pub(crate) id_length: IdLength,
    pub(crate) page_cache: PageCache,
}

impl Cell {
    pub(crate) const fn new(workload: Workload, threads: usize) -> Self {
        let (ids, durability, id_length) = (MEDIUM, Durability::Kill, IdLength::Short);
        Self { workload, threads, ids, durability, id_length, page_cache: PageCache::Warm }
    }

    pub(crate) const fn ids(self, ids: u64) -> Self {
        Self { ids, ..self }
    }

    pub(crate) const fn power(self) -> Self {
        Self { durability: Durability::Power, ..self }
    }

    pub(crate) fn url(self) -> Self {
        Self { id_length: IdLength::Url, ..self }
    }

    pub(crate) const fn cold(self) -> Self {
        Self { page_cache: PageCache::Cold, ..self }
    }

    /// Whether a run leaves the files as they were.
    pub(crate) fn only_reads(self) -> bool {
        matches!(self.workload, Workload::Duplicate | Workload::OpenOne | Workload::OpenMany)
    }

    pub(crate) fn plan(self, contender: &Contender, scale: &Scale, dir: &std::path::Path) -> Plan {
        Plan {
            contender: contender.name.to_owned(),
            workload: self.workload,
            threads: self.threads,
            ids: self.ids,
            durability: self.durability,
            id_length: self.id_length,
            seconds: match self.workload {
                // A limit is made of its rarest values.
                _ if contender.name == "fsync" => scale.own_steady_seconds,
                Workload::Steady if matches!(contender.kind, Kind::Own | Kind::Async) => {
                    scale.own_steady_seconds
                }
                Workload::Steady | Workload::Purge => scale.steady_seconds,
                _ => scale.seconds,
            },
            dir: dir.to_owned(),
        }
    }
}

/// How thorough a run is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// When no further round begins that would end after it.
    pub(crate) budget: Duration,
    /// How often each contender is started in a round, for the figures of opening.
    pub(crate) starts: usize,
    pub(crate) seconds: f64,
    pub(crate) steady_seconds: f64,
    /// This store's steady load lasts longer: its checkpoints and purges have to come round often.
    pub(crate) own_steady_seconds: f64,
    pub(crate) threads: Vec<usize>,
    pub(crate) url_ids: u64,
    /// The sizes at which growth is measured.
    pub(crate) sizes: Vec<u64>,
}

impl Scale {
    pub(crate) fn quick() -> Self {
        Self {
            quick: true,
            rounds: 3,
            budget: Duration::from_secs(6 * 60 + 30),
            starts: 3,
            seconds: 0.2,
            steady_seconds: 0.5,
            own_steady_seconds: 3.0,
            threads: vec![1, 16],
            url_ids: SMALL,
            sizes: vec![SMALL, MEDIUM],
        }
    }

    pub(crate) fn full() -> Self {
        Self {
            quick: false,
            rounds: 3,
            budget: Duration::from_secs(33 * 60),
            starts: 5,
            seconds: 0.5,
            steady_seconds: 2.0,
            own_steady_seconds: 10.0,
            threads: vec![1, 2, 16, 64],
            url_ids: MEDIUM,
            sizes: vec![SMALL, MEDIUM, LARGE],
        }
    }

    /// All figures, in the order in which they are taken.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        use Workload::{Batch, Claim, Duplicate, Mixed, New, Purge, Steady};
        let mut cells = Vec::new();
        for &threads in &self.threads {
            cells.extend([Cell::new(New, threads), Cell::new(Duplicate, threads)]);
        }
        cells.extend(TASKS);
        for threads in [1, 16] {
            cells.push(Cell::new(Mixed, threads));
            cells.push(Cell::new(New, threads).power());
            cells.push(Cell::new(Claim, threads));
            cells.push(Cell::new(Claim, threads).power());
        }
        cells.push(Cell::new(Batch, 1));
        cells.push(Cell::new(Batch, 1).power());
        for workload in [New, Duplicate] {
            cells.extend(self.sizes.iter().map(|size| Cell::new(workload, 1).ids(*size)));
            cells.push(Cell::new(workload, 1).ids(self.url_ids).url());
        }
        for size in self.sizes.iter().skip(1) {
            cells.extend(STARTS.map(|cell| cell.ids(*size)));
        }
        cells.push(Cell::new(Steady, STEADY_THREADS));
        cells.push(Cell::new(Purge, STEADY_THREADS));
        let mut once = Vec::new();
        for cell in cells {
            if !once.contains(&cell) {
                once.push(cell);
            }
        }
        once
    }
}

/// The figures of opening. The cold ones come last: the files have to be read again after them.
pub(crate) const STARTS: [Cell; 5] = [
    Cell::new(Workload::OpenOne, 1),
    Cell::new(Workload::OpenMany, 1),
    Cell::new(Workload::Cycle, 1),
    Cell::new(Workload::OpenOne, 1).cold(),
    Cell::new(Workload::OpenMany, 1).cold(),
];

/// The figures of callers that are tasks.
pub(crate) const TASKS: [Cell; 7] = [
    Cell::new(Workload::Duplicate, 1),
    Cell::new(Workload::Duplicate, 16),
    Cell::new(Workload::Duplicate, MANY_TASKS),
    Cell::new(Workload::New, 1),
    Cell::new(Workload::New, 16),
    Cell::new(Workload::New, MANY_TASKS),
    WAITING_TASKS,
];

/// Where most tasks wait at any time.
pub(crate) const WAITING_TASKS: Cell = Cell::new(Workload::New, MANY_TASKS).power();

/// Whether a contender takes part in a figure.
pub(crate) fn includes(contender: &Contender, cell: Cell, round: usize) -> bool {
    match contender.kind {
        _ if cell.threads == MANY_TASKS && !contender.by_tasks => false,
        Kind::Blocking => TASKS.contains(&cell),
        Kind::Baseline if contender.by_tasks => TASKS.contains(&cell),
        Kind::Async => {
            let medium = cell.ids == MEDIUM && cell.id_length == IdLength::Short;
            medium && !cell.workload.is_start() && cell.workload != Workload::Purge
        }
        Kind::Baseline if contender.name == "fsync" => cell == Cell::new(Workload::New, 1).power(),
        Kind::Baseline => {
            let works = [Workload::New, Workload::Duplicate].contains(&cell.workload);
            // What the process itself is in the figures of opening.
            let opens = matches!(cell.workload, Workload::OpenOne | Workload::OpenMany)
                && cell.page_cache == PageCache::Warm;
            (works || opens) && cell.threads == 1 && cell.durability == Durability::Kill
        }
        Kind::Own => cell.ids < LARGE || round < 2,
        _ if matches!(cell.workload, Workload::Claim | Workload::Purge) => false,
        // The large ones cost the most time and vary the least.
        _ => cell.ids < LARGE || (contender.large && round < 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::ALL;

    #[test]
    fn only_tasks_are_as_many_as_no_program_has_threads() {
        for scale in [Scale::quick(), Scale::full()] {
            let cells = scale.cells();
            assert!(TASKS.iter().all(|cell| cells.contains(cell)));
            for (contender, tasks) in [
                ("store", false),
                ("store-exclusive", false),
                ("store-async", true),
                ("store-blocking", true),
                ("mutex", false),
                ("r2d2", false),
                ("tokio-rusqlite", true),
                ("redis", false),
                ("nothing", false),
                ("nothing-tasks", true),
                ("fsync", false),
            ] {
                let contender = ALL.iter().find(|other| other.name == contender).unwrap();
                let many = cells.iter().filter(|cell| cell.threads == MANY_TASKS);
                assert!(many.clone().count() == 3);
                assert!(many.into_iter().all(|cell| includes(contender, *cell, 0) == tasks));
            }
        }
    }

    #[test]
    fn the_forms_for_tasks_are_measured_where_the_report_has_a_place_for_them() {
        let cells = Scale::full().cells();
        let count = |name| {
            let contender = ALL.iter().find(|contender| contender.name == name).unwrap();
            cells.iter().filter(|cell| includes(contender, **cell, 0)).count()
        };
        // New and duplicate ids of 1, 2, 16, 64 and 1,000 callers and 1,000 that survive a power cut; 95 % duplicates,
        // new ids that survive it and both kinds of claims by 1 and 16; both kinds of batches; the steady load.
        assert_eq!(count("store-async"), 2 * 5 + 1 + 2 * 4 + 2 + 1);
        assert_eq!(count("store-blocking"), TASKS.len());
        assert_eq!(count("nothing-tasks"), TASKS.len());
    }
}
