//! Writing runs: from the tail, and from others; and throwing them away.
//!
//! Owns how entries are divided into blocks. What always holds: the caller has a write transaction open, in which it read
//! the headers, and commits it.

use rusqlite::Connection;

use super::block::{END, Entry, encode, fitting, row_number, run_of};
use super::merge::Step;
use super::{MAX_NUMBER, NEVER, Run, Runs, State};
use crate::id::KeyHasher;
use crate::journal::load::ReadError;

impl Runs {
    /// Writes a run of these entries, in order, which are those of all rows after
    /// [`complete_to`](Self::complete_to) up to `last`. Returns false when there are too many runs.
    pub(crate) fn append(
        &mut self,
        connection: &Connection,
        hasher: &KeyHasher,
        last: i64,
        entries: &[Entry],
    ) -> Result<bool, ReadError> {
        let Some(number) = self.free_number(connection)? else { return Ok(false) };
        let after = self.complete_to();
        write_blocks(connection, hasher, number, 0..END, entries)?;
        let run = Run {
            number,
            state: State::Active,
            after,
            last,
            entries: count(entries),
            written_to: END,
            marks: NEVER,
        };
        run.save(connection, hasher)?;
        self.active.insert(0, run);
        Ok(true)
    }

    /// Does a step that was read from runs with the same headers.
    pub(crate) fn write_step(
        &mut self,
        connection: &Connection,
        hasher: &KeyHasher,
        step: Step,
    ) -> rusqlite::Result<()> {
        match step {
            Step::Begin(output) => {
                output.save(connection, hasher)?;
                self.building = Some(output);
                Ok(())
            }
            Step::Merge { range, entries } => self.write_merge(connection, hasher, range, &entries),
            Step::Delete { blocks } => self.delete_dropped(connection, blocks),
        }
    }

    fn write_merge(
        &mut self,
        connection: &Connection,
        hasher: &KeyHasher,
        range: std::ops::Range<u64>,
        entries: &[Entry],
    ) -> rusqlite::Result<()> {
        let Some(mut output) = self.building.take() else { return Ok(()) };
        output.entries += count(entries);
        output.written_to = range.end;
        write_blocks(connection, hasher, output.number, range, entries)?;
        if output.written_to < END {
            self.building = Some(output);
        } else {
            output.state = State::Active;
            let inputs: Vec<u16> = self.inputs(&output).map(|run| run.number).collect();
            self.active.retain(|run| !inputs.contains(&run.number));
            for input in inputs {
                self.save_dropped(connection, hasher, input)?;
            }
            self.active.push(output);
            self.active.sort_by_key(|run| std::cmp::Reverse(run.last));
        }
        output.save(connection, hasher)
    }

    /// Gives all runs up. Their blocks are deleted in later steps. Works on runs of any kind, also damaged ones.
    pub(crate) fn drop_all(connection: &Connection, hasher: &KeyHasher) -> rusqlite::Result<Self> {
        connection.prepare_cached("DELETE FROM runs")?.execute([])?;
        let mut runs = Self::default();
        let mut from = i64::MIN;
        let mut next =
            connection.prepare_cached("SELECT min(place) FROM blocks WHERE place >= ?1")?;
        while let Some(place) = next.query_row([from], |row| row.get::<_, Option<i64>>(0))? {
            let Ok(number @ 0..=MAX_NUMBER) = u16::try_from(run_of(place)) else {
                // No store numbers blocks so.
                connection.execute("DELETE FROM blocks WHERE place = ?1", [place])?;
                continue;
            };
            runs.save_dropped(connection, hasher, number)?;
            from = row_number(number, END - 1) + 1;
        }
        Ok(runs)
    }

    fn save_dropped(
        &mut self,
        connection: &Connection,
        hasher: &KeyHasher,
        number: u16,
    ) -> rusqlite::Result<()> {
        let gone = Run {
            number,
            state: State::Dropped,
            after: 0,
            last: 0,
            entries: 0,
            written_to: 0,
            marks: NEVER,
        };
        gone.save(connection, hasher)?;
        self.dropped.push(number);
        Ok(())
    }

    /// Deletes up to `limit` blocks of a run that is not used any more.
    fn delete_dropped(&mut self, connection: &Connection, limit: u32) -> rusqlite::Result<()> {
        let Some(&number) = self.dropped.last() else { return Ok(()) };
        let (first, last) = (row_number(number, 0), row_number(number, END - 1));
        let deleted = connection
            .prepare_cached(
                "DELETE FROM blocks WHERE place BETWEEN ?1 AND \
                 (SELECT max(place) FROM (SELECT place FROM blocks WHERE place BETWEEN ?1 AND ?2 \
                                          ORDER BY place LIMIT ?3))",
            )?
            .execute((first, last, limit))?;
        if deleted < limit as usize {
            connection.prepare_cached("DELETE FROM runs WHERE run = ?1")?.execute([number])?;
            self.dropped.pop();
        }
        Ok(())
    }
}

fn count(entries: &[Entry]) -> i64 {
    i64::try_from(entries.len()).unwrap_or(i64::MAX)
}

/// Writes the blocks for a range of places of a run. The entries are in order and within the range.
fn write_blocks(
    connection: &Connection,
    hasher: &KeyHasher,
    number: u16,
    range: std::ops::Range<u64>,
    entries: &[Entry],
) -> rusqlite::Result<()> {
    let mut insert =
        connection.prepare_cached("INSERT INTO blocks (place, entries) VALUES (?1, ?2)")?;
    let (mut begins, mut rest) = (range.start, entries);
    loop {
        let (these, others) = rest.split_at(fitting(rest, begins));
        let next = others.first().map_or(range.end, |entry| entry.hash);
        let row = row_number(number, begins);
        insert.execute((row, encode(these, next, row, hasher)))?;
        if next == range.end {
            return Ok(());
        }
        (begins, rest) = (next, others);
    }
}
