//! How much of the index in the file is worth a piece of work, and how large a piece is.
//!
//! Owns the sizes. What always holds: beside callers, a piece holds the mutex for some milliseconds at most. Knows nothing of
//! connections.

use super::super::runs::StepLimits;
use crate::machine::index_size;

/// The length of a tail, in rows, that is written to a run beside commits: opening reads as much in a millisecond.
pub(super) fn long_tail() -> i64 {
    index_size!(4_096, in_tests: 9)
}
/// How many rows are written to one run: half a megabyte, and two milliseconds.
pub(super) fn rows_per_run() -> i64 {
    index_size!(32_768, in_tests: 9)
}
/// The length of a tail that is worth writing when a store closes: reading it takes a third of a millisecond.
pub(super) fn tail_worth_writing() -> i64 {
    index_size!(1_024, in_tests: 4)
}
/// The length of a tail that is written to runs before the index is filled.
pub(super) fn tail_to_write_first() -> i64 {
    index_size!(65_536, in_tests: 12)
}
/// How many rows are written to one run when a file without runs is opened: about 4 MB of memory.
fn rows_per_run_at_open() -> i64 {
    index_size!(262_144, in_tests: 7)
}

/// What callers do meanwhile. The more they write, the larger are the pieces: so each row is written less often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    WriteLittle,
    /// A tail was written a moment ago.
    WriteMuch,
    /// They hold it for many milliseconds at a time.
    HoldTheMutex,
}

/// How much is worth a piece of work.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// The shortest tail, in rows, that is written to a run.
    pub(super) shortest_tail: i64,
    /// The most rows that are written to one.
    pub(super) rows_per_run: i64,
    pub(super) step: StepLimits,
}

impl Limits {
    pub(super) fn beside(callers: Callers) -> Self {
        let few = Self {
            shortest_tail: long_tail(),
            rows_per_run: rows_per_run(),
            step: StepLimits::small(),
        };
        match callers {
            Callers::WriteLittle => few,
            Callers::WriteMuch => Self { shortest_tail: rows_per_run(), ..few },
            Callers::HoldTheMutex => Self {
                shortest_tail: 2 * rows_per_run(),
                rows_per_run: 2 * rows_per_run(),
                step: StepLimits::beside_long_calls(),
            },
        }
    }

    pub(super) fn at_close() -> Self {
        Self { shortest_tail: tail_worth_writing(), ..Self::beside(Callers::WriteLittle) }
    }

    pub(super) fn at_open() -> Self {
        Self {
            shortest_tail: tail_to_write_first(),
            rows_per_run: rows_per_run_at_open(),
            ..Self::beside(Callers::WriteLittle)
        }
    }

    pub(super) fn for_compacting() -> Self {
        Self { step: StepLimits::for_compacting(), ..Self::at_close() }
    }
}
