//! Looking ids up in the file: one scan of the table for all of them.

use std::collections::HashMap;
use std::ops::Range;
use std::thread;

use rusqlite::{Connection, ToSql};

use super::access::{FileReader, Moment, Read, of_one_history};
use crate::entry::Entry;
use crate::error::Result;
use crate::format::{IdValue, OtherClassValue};
use crate::id::Id;
use crate::journal::MarkRow;
use crate::journal::claims::{self, ClaimRow};
use crate::journal::load::{checked_seq, id_bytes};
use crate::journal::row::columns;

/// How many threads scan the table for an id. More than two would wait for the disk, or for each other.
pub(super) const SCANNERS: usize = 2;

/// Up to how many ids SQLite compares each row with, in both storage classes. Beyond, a hash table is faster.
const COMPARED_BY_SQL: usize = 3;

impl FileReader {
    /// What is known of each id, expired or not. One scan for all of them.
    pub(crate) fn find(&mut self, ids: &[Id<'_>], now_ms: i64) -> Result<Vec<Option<Entry>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (claims, marks) = self.read(SCANNERS, |connections| {
            // The claims first, and then the ranges in the order of the table: whatever moves meanwhile
            // moves to where it will still be met.
            let mut moments = Vec::new();
            for connection in connections {
                moments.push(Moment::begin(connection)?);
            }
            of_one_history(&moments)?;
            let claims = ids.iter().map(|id| claims::find(moments[0].0, *id));
            let claims: Vec<_> = claims.collect::<Result<_, _>>()?;
            Ok((claims, newest_marks(moments, ids)?))
        })?;
        Ok(claims
            .into_iter()
            .zip(marks)
            .zip(ids)
            .map(|((claim, mark), id)| outcome(*id, mark, claim, now_ms))
            .collect())
    }
}

/// What an id comes to: a live mark, else its claim, else what has expired.
fn outcome(
    id: Id<'_>,
    mark: Option<MarkRow>,
    claim: Option<ClaimRow>,
    now_ms: i64,
) -> Option<Entry> {
    match (mark, claim) {
        (Some(mark), _) if mark.is_live(now_ms) => Some(mark.entry(now_ms)),
        (mark, Some(claim)) if mark.is_none() || !claim.is_expired(now_ms) => {
            Some(claim.entry(id.scope, id.bytes, now_ms))
        }
        (mark, _) => mark.map(|mark| mark.entry(now_ms)),
    }
}

/// The newest row of each id, unless it is a tombstone. Each moment scans its part of the table.
fn newest_marks(moments: Vec<Moment<'_>>, ids: &[Id<'_>]) -> Read<Vec<Option<MarkRow>>> {
    let (first, last): (Option<i64>, Option<i64>) = moments[0].0.query_row(
        "SELECT (SELECT min(seq) FROM seen), (SELECT max(seq) FROM seen)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(ids.iter().map(|_| None).collect());
    };
    let ranges = ranges(checked_seq(first)?, checked_seq(last)?, moments.len());
    let found: Vec<Read<Found>> = thread::scope(|threads| {
        let scans: Vec<_> = moments
            .into_iter()
            .zip(ranges)
            .map(|(moment, range)| threads.spawn(move || scan(moment.0, range, ids)))
            .collect();
        scans
            .into_iter()
            .map(|scan| scan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut newest: Found = HashMap::new();
    for found in found {
        newest.extend(found?);
    }
    Ok((0..ids.len()).map(|n| newest.remove(&n).filter(|row| row.expires_at != Some(0))).collect())
}

/// Parts of the table of about equal size. The last one has no end: it takes in what is appended between
/// one moment and the next.
fn ranges(first: i64, last: i64, parts: usize) -> Vec<Range<i64>> {
    let parts = i64::try_from(parts).unwrap_or(1);
    let step = (last - first) / parts + 1;
    (0..parts)
        .map(|n| {
            let end = if n + 1 == parts { i64::MAX } else { first + (n + 1) * step };
            first + n * step..end
        })
        .collect()
}

/// The newest row found of the id with this number.
type Found = HashMap<usize, MarkRow>;

fn scan(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<Found> {
    if ids.len() <= COMPARED_BY_SQL {
        scan_by_sql(connection, range, ids)
    } else {
        scan_by_hash(connection, range, ids)
    }
}

fn scan_by_sql(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<Found> {
    // The plus keeps SQLite from gathering the comparisons into a search tree, which is slower.
    let comparisons: Vec<String> =
        (0..2 * ids.len()).map(|n| format!("+id = ?{}", n + 3)).collect();
    let sql = format!(
        "SELECT {}, seq FROM seen WHERE seq >= ?1 AND seq < ?2 AND ({}) ORDER BY seq",
        columns!(),
        comparisons.join(" OR ")
    );
    let values: Vec<_> =
        ids.iter().map(|id| (IdValue(id.bytes), OtherClassValue(id.bytes))).collect();
    let mut parameters: Vec<&dyn ToSql> = vec![&range.start, &range.end];
    // A twin is not to be passed over in silence.
    parameters.extend(values.iter().flat_map(|(value, twin)| [value as &dyn ToSql, twin]));
    let mut found = Found::new();
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(&*parameters)?;
    while let Some(row) = rows.next()? {
        let row = MarkRow::read(row)?;
        for (n, id) in ids.iter().enumerate() {
            if id.scope == row.scope && id.bytes == row.id {
                found.insert(n, row.clone());
            }
        }
    }
    Ok(found)
}

fn scan_by_hash(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<Found> {
    let mut wanted: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (n, id) in ids.iter().enumerate() {
        wanted.entry(id.bytes).or_default().push(n);
    }
    let mut found = Found::new();
    let mut statement = connection.prepare(concat!(
        "SELECT ",
        columns!(),
        ", seq FROM seen WHERE seq >= ?1 AND seq < ?2 ORDER BY seq"
    ))?;
    let mut rows = statement.query((range.start, range.end))?;
    while let Some(row) = rows.next()? {
        let Some(numbers) = wanted.get(id_bytes(row.get_ref(1)?)?) else { continue };
        let row = MarkRow::read(row)?;
        for &n in numbers {
            if ids[n].scope == row.scope {
                found.insert(n, row.clone());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_table_without_an_overlap() {
        for (first, last, parts) in [(1, 1, 2), (1, 2, 2), (5, 10_000_000, 2), (1, 7, 3)] {
            let ranges = ranges(first, last, parts);
            assert_eq!((ranges[0].start, ranges[parts - 1].end), (first, i64::MAX));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{ranges:?}");
        }
    }
}
