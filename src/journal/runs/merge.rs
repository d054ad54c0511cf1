//! Merging runs, so that a lookup has few of them to search, in small steps.
//!
//! Owns which runs are merged and when, and what a step reads. What always holds: while a merge is under way its inputs
//! stay active, and its output is not searched. How far it has come is in the file, so any store goes on with it. The
//! entries of rows that are gone are left out. An active run does not change, so a step may be read before the transaction
//! that writes it, as long as the headers of all runs are the same then.
//!
//! Once more than half of all entries are about rows that are gone, runs are merged with a look for each row. Not again
//! before half of the marks that were counted then are gone too, or as many entries came whose rows no merge has looked
//! for: so wrong counts, or many tombstones, do not make the same merge be done for ever.
//!
//! Sizes fall into classes, each four times the one before; four runs of a class become one of the next. (Size-tiered
//! compaction.) So an entry is written once for each class, and a lookup searches at most three runs of each. While
//! callers leave little time, 16 become one, and however many there are by then, up to 32: an entry skips classes.

use std::ops::Range;

use rusqlite::Connection;

use super::block::{END, Entry};
use super::{NEVER, Run, Runs, State};
use crate::id::KeyHasher;
use crate::journal::load::ReadError;
use crate::journal::stale::row_exists;
use crate::machine::index_size;

/// The number of entries up to which a run is in the lowest class.
fn smallest_class() -> i64 {
    index_size!(1_024, in_tests: 4)
}
/// How many times as large as those of a class the runs of the next one are, and how many runs of a class are merged, at
/// least, while callers leave time for it.
fn fan_in() -> usize {
    index_size!(4, in_tests: 2)
}
/// How many runs are merged at most.
fn max_inputs() -> usize {
    index_size!(32, in_tests: 3)
}
/// The entries of so many rows that are gone are left alone beside commits.
pub(crate) fn gone_left() -> i64 {
    index_size!(16_384, in_tests: 8)
}

/// How many blocks are read at most to look for the row of each entry: some 2 ms.
const BLOCKS_LOOKED_FOR: u32 = 16;

/// What is worth a step, and how large it is.
#[derive(Clone, Copy)]
pub(crate) struct StepLimits {
    /// The entries of so many rows that are gone are no reason to merge.
    gone_left: i64,
    /// How many runs of a class are merged, at least. The more, the less often each entry is written.
    fan_in: usize,
    /// About how many blocks are read, and written. Each takes some 10 µs with the mutex held.
    blocks: u32,
}

impl StepLimits {
    /// For steps between which callers get their turn.
    pub(crate) fn small() -> Self {
        let blocks = index_size!(64, in_tests: 2);
        Self { gone_left: gone_left(), fan_in: fan_in(), blocks }
    }

    /// For steps that take longer than a caller should have to wait behind another one.
    fn large() -> Self {
        Self { blocks: index_size!(1_024, in_tests: 3), ..Self::small() }
    }

    /// For steps that leave no entry of a row that is gone.
    pub(crate) fn for_compacting() -> Self {
        Self { gone_left: 0, ..Self::large() }
    }

    /// For steps beside callers that themselves hold the mutex for many milliseconds: few large ones.
    pub(crate) fn beside_long_calls() -> Self {
        Self { fan_in: 4 * fan_in(), ..Self::large() }
    }
}

fn class(entries: i64) -> u32 {
    let steps = (entries / smallest_class()).max(1).ilog2();
    steps / fan_in().ilog2()
}

/// What is to be merged into one run.
struct Merge {
    /// The rows of the inputs. The first is after its start.
    range: Range<i64>,
    /// See [`Run::marks`].
    marks: i64,
}

/// A step of the work on runs, with what it had to read.
pub(crate) enum Step {
    /// A merge begins, with this output.
    Begin(Run),
    /// A part of a merge: the entries of a range of places.
    Merge { range: Range<u64>, entries: Vec<Entry> },
    /// So many blocks of a run that is not used any more are deleted.
    Delete { blocks: u32 },
}

impl Runs {
    /// Returns whether there is anything to merge or to delete. `marks` is how many marks the runs are about.
    pub(crate) fn has_work(&self, marks: i64) -> bool {
        self.building.is_some()
            || !self.dropped.is_empty()
            || self.to_merge(marks, StepLimits::small()).is_some()
    }

    /// Returns what is to be merged.
    fn to_merge(&self, marks: i64, limits: StepLimits) -> Option<Merge> {
        // The oldest first.
        let runs: Vec<Run> = self.active.iter().rev().copied().collect();
        let merged = |group: &[Run], looks: bool| {
            let group = &group[..group.len().min(max_inputs())];
            let range = group.first()?.after..group.last()?.last;
            Some(Merge { range, marks: if looks { marks } else { NEVER } })
        };
        let may_be_gone = |run: &&Run| run.marks / 2 > marks;
        let not_looked_for: i64 = runs.iter().filter(may_be_gone).map(|run| run.entries).sum();
        let entries = self.entries();
        if entries > marks.saturating_mul(2).saturating_add(limits.gone_left)
            && not_looked_for > entries / 2
        {
            return merged(&runs, true);
        }
        let highest = runs.iter().map(|run| class(run.entries)).max()?;
        (0..=highest).find_map(|size| {
            let groups = runs.split(|run| class(run.entries) > size);
            let is_full = |group: &&[Run]| {
                group.iter().filter(|run| class(run.entries) == size).count() >= limits.fan_in
            };
            groups.rev().find(is_full).and_then(|group| merged(group, false))
        })
    }

    /// Reads what the next step needs; `None` if there is nothing to do. `marks` is how many marks the runs are about. The
    /// caller has a snapshot.
    pub(crate) fn read_step(
        &self,
        connection: &Connection,
        hasher: &KeyHasher,
        marks: i64,
        limits: StepLimits,
    ) -> Result<Option<Step>, ReadError> {
        let blocks = limits.blocks;
        if let Some(output) = &self.building {
            return self.read_merge(connection, hasher, output, blocks).map(Some);
        }
        if !self.dropped.is_empty() {
            // That takes half as long as to write them.
            return Ok(Some(Step::Delete { blocks: 2 * blocks }));
        }
        let Some(Merge { range, marks }) = self.to_merge(marks, limits) else { return Ok(None) };
        let Some(number) = self.free_number(connection)? else { return Ok(None) };
        Ok(Some(Step::Begin(Run {
            number,
            state: State::Building,
            after: range.start,
            last: range.end,
            entries: 0,
            written_to: 0,
            marks,
        })))
    }

    fn read_merge(
        &self,
        connection: &Connection,
        hasher: &KeyHasher,
        output: &Run,
        blocks: u32,
    ) -> Result<Step, ReadError> {
        let inputs: Vec<&Run> = self.inputs(output).collect();
        let ranges = (inputs.last().map(|run| run.after), inputs.first().map(|run| run.last));
        if ranges != (Some(output.after), Some(output.last)) {
            return Err(ReadError::Index("the runs that are being merged have changed"));
        }
        let looks = output.marks != NEVER;
        // To look for each row takes longer than all else, and a long snapshot keeps the log from being started again.
        let blocks = i64::from(if looks { blocks.min(BLOCKS_LOOKED_FOR) } else { blocks });
        let all: i64 = inputs.iter().map(|run| run.entries).sum();
        let from = output.written_to;
        let (mut entries, mut to) = (Vec::new(), END);
        for input in &inputs {
            // Hashes are spread evenly: this much of each run is about the same range of them.
            let share = 1 + blocks * input.entries / all.max(1);
            let share = u32::try_from(share).unwrap_or(u32::MAX);
            to = to.min(input.read_blocks(connection, hasher, from, share, &mut entries)?);
        }
        entries.retain(|entry| entry.hash < to);
        retain_existing(connection, &mut entries, looks)?;
        // The inputs are in order already, which this sort makes use of.
        entries.sort();
        Ok(Step::Merge { range: from..to, entries })
    }

    /// Returns the runs that are merged into this one, the newest first.
    pub(super) fn inputs(&self, output: &Run) -> impl Iterator<Item = &Run> {
        let range = output.after..=output.last;
        self.active
            .iter()
            .filter(move |run| range.contains(&run.after) && range.contains(&run.last))
    }
}

#[cfg(test)]
impl Runs {
    /// Does a step of the work that there is, for each row that is gone too; returns false if there is none.
    pub(super) fn do_step(
        &mut self,
        connection: &Connection,
        hasher: &KeyHasher,
        marks: i64,
    ) -> bool {
        let limits = StepLimits { gone_left: 0, ..StepLimits::small() };
        let Some(step) = self.read_step(connection, hasher, marks, limits).unwrap() else {
            return false;
        };
        self.write_step(connection, hasher, step).unwrap();
        true
    }
}

/// Leaves entries out whose rows are gone: those before the first row of the table, which costs nothing, and, if `all`, also
/// the others, about a microsecond for each entry.
fn retain_existing(
    connection: &Connection,
    entries: &mut Vec<Entry>,
    all: bool,
) -> rusqlite::Result<()> {
    let first: Option<i64> =
        connection.prepare_cached("SELECT min(seq) FROM seen")?.query_row([], |row| row.get(0))?;
    let first = first.unwrap_or(i64::MAX);
    entries.retain(|entry| entry.seq >= first);
    if !all {
        return Ok(());
    }
    let mut kept = Vec::with_capacity(entries.len());
    for entry in entries.iter() {
        if row_exists(connection, entry.seq)? {
            kept.push(*entry);
        }
    }
    *entries = kept;
    Ok(())
}
