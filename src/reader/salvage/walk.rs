//! The way along the table of marks, around what is damaged.
//!
//! Owns the search for the next row behind damage. What always holds: rows come in the order of `seq`, each once, and a
//! `seq` that was passed is in a gap, or no row that could be reached has it. Must not know what is done with the rows.

use std::ops::RangeInclusive;

use rusqlite::Connection;

use super::is_what_a_store_writes;
use crate::index::MAX_SEQ;
use crate::journal::MarkRow;
use crate::journal::load::ReadError;
use crate::journal::row::columns;
use crate::reader::access::Read;

/// How many rows are read at a time where there is no damage.
const PAGE: i64 = 1_000;

/// Of a damaged range that is this long, each `seq` is tried. A longer one is gone through in steps of this part of
/// its length.
const TRIED_ONE_BY_ONE: i64 = 1_024;

pub(super) struct Walk {
    /// The last `seq` that was read or given up.
    after: i64,
    /// The last `seq` that a row may have. `None` if it cannot be read.
    last: Option<i64>,
    is_at_end: bool,
    /// The rows that were read, by `seq`.
    pub(super) reached: Vec<RangeInclusive<i64>>,
    /// What could not be read. A gap up to [`MAX_SEQ`] has no known end.
    pub(super) gaps: Vec<RangeInclusive<i64>>,
}

impl Walk {
    pub(super) fn new(connection: &Connection) -> Self {
        let last = connection.query_row("SELECT max(seq) FROM seen", [], |row| row.get(0));
        let last = last.map(|last: Option<i64>| last.unwrap_or(0)).ok();
        Self { after: 0, last, is_at_end: false, reached: Vec::new(), gaps: Vec::new() }
    }

    /// Reads the next rows; none where it goes around damage, and `None` at the end.
    pub(super) fn next(&mut self, connection: &Connection) -> Option<Vec<(i64, MarkRow)>> {
        let rows = self.read(connection)?;
        for (seq, _) in &rows {
            match self.reached.last_mut() {
                Some(run) if *run.end() + 1 == *seq => *run = *run.start()..=*seq,
                _ => self.reached.push(*seq..=*seq),
            }
        }
        Some(rows)
    }

    fn read(&mut self, connection: &Connection) -> Option<Vec<(i64, MarkRow)>> {
        if self.is_at_end {
            return None;
        }
        let mut rows = Vec::new();
        if let Ok(page) = marks_from(connection, self.after + 1, PAGE) {
            self.is_at_end = page.is_empty();
            rows = page;
        } else {
            // Row by row up to the damage, of which only a part of the page may have been the cause.
            loop {
                let after = rows.last().map_or(self.after, |(seq, _)| *seq);
                let Ok(row) = marks_from(connection, after + 1, 1) else {
                    self.after = after;
                    self.pass_damage(connection);
                    return Some(rows);
                };
                self.is_at_end = row.is_empty();
                if self.is_at_end {
                    break;
                }
                rows.extend(row);
            }
        }
        self.after = rows.last().map_or(self.after, |(seq, _)| *seq);
        Some(rows)
    }

    /// Looks for the next row that can be read after the damage that begins after `self.after`.
    fn pass_damage(&mut self, connection: &Connection) {
        let begin = self.after + 1;
        let limit = self.last.unwrap_or(MAX_SEQ);
        let (mut bad, mut next) = (begin, begin + 1);
        let found = loop {
            if next > limit {
                break None;
            }
            match marks_from(connection, next, 1) {
                Ok(rows) => break rows.first().map(|(seq, _)| *seq),
                Err(_) => bad = next,
            }
            next = next.saturating_add(((bad - begin) / TRIED_ONE_BY_ONE).max(1));
        };
        let Some(mut found) = found else {
            self.gaps.push(begin..=limit);
            self.is_at_end = true;
            return;
        };
        // The last step may have passed rows that can be read.
        let (mut low, mut high) = (bad, next);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match marks_from(connection, middle, 1) {
                Ok(rows) => {
                    high = middle;
                    found = rows.first().map_or(found, |(seq, _)| *seq);
                }
                Err(_) => low = middle,
            }
        }
        self.gaps.push(begin..=found - 1);
        self.after = found - 1;
    }
}

/// Reads up to `limit` rows from `first` on. All of them, or the error of one.
fn marks_from(connection: &Connection, first: i64, limit: i64) -> Read<Vec<(i64, MarkRow)>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        ", seq FROM seen WHERE seq >= ?1 ORDER BY seq LIMIT ?2"
    ))?;
    let mut rows = statement.query((first, limit))?;
    let (mut read, mut least) = (Vec::new(), first);
    while let Some(row) = rows.next()? {
        let (seq, mark): (i64, _) = (row.get(13)?, MarkRow::read(row)?);
        // In a damaged table rows may also be out of order.
        if seq < least || !is_what_a_store_writes(&mark) {
            return Err(ReadError::Content("a row is not what a store writes"));
        }
        least = seq + 1;
        read.push((seq, mark));
    }
    if limit == 1 && leads_past_others(connection, least - 1) {
        return Err(ReadError::Content("a row has a number that is not its own"));
    }
    Ok(read)
}

/// Returns whether the row behind this one comes before it: to go on behind this one would pass all between.
fn leads_past_others(connection: &Connection, seq: i64) -> bool {
    let next = "SELECT seq FROM seen WHERE seq >= ?1 ORDER BY seq LIMIT 1 OFFSET 1";
    connection.query_row(next, [seq], |row| row.get(0)).is_ok_and(|next: i64| next <= seq)
}
