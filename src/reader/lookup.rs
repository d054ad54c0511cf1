//! Looks ids up in the file: in its sorted runs and the rows after them, or else with one scan of the table for all ids.
//!
//! Owns the choice, and the scan: how the table is divided among threads, and how rows are compared with the ids. What
//! always holds: for each id the row with the highest `seq` counts, and a tombstone counts as no mark. An entry that moves
//! during the scan is still found, because claims are read first and the parts of the table in their order. A row
//! with the same bytes in another storage class is an error. Must not know how the file was opened, nor use an
//! index in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::thread;

use rusqlite::{Connection, ToSql};

use super::access::{FileReader, Read, Snapshot, check_same_history};
use crate::entry::Entry;
use crate::error::Result;
use crate::format::{IdValue, OtherClassValue};
use crate::id::{Id, KeyHasher};
use crate::index::run_hash;
use crate::item::is_change;
use crate::journal::ClaimRow;
use crate::journal::MarkRow;
use crate::journal::claims;
use crate::journal::load::{ReadError, checked_seq, id_bytes};
use crate::journal::row::columns;
use crate::journal::runs::{self, Runs};
use crate::machine::index_size;

/// How many threads scan the table. More than two would wait for the disk, or for each other.
pub(super) const SCANNERS: usize = 2;

/// A lookup in the runs takes as long as a scan of this many rows.
fn rows_per_lookup() -> usize {
    index_size!(100, in_tests: 1)
}

/// Up to this number of ids, SQLite compares each row with them, in both storage classes. With more ids a
/// hash table is faster.
const MAX_COMPARED_BY_SQL: usize = 3;

impl FileReader {
    /// Returns what is known about each id, expired or not. One scan finds all of them.
    pub(crate) fn find(&mut self, ids: &[Id<'_>], now_ms: i64) -> Result<Vec<Option<Entry>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (claims, marks) = self.read(SCANNERS, |connections| {
            // Read the claims first, and then the ranges in the order of the table: an entry that moves
            // meanwhile moves to a place that is read later.
            let mut snapshots = Vec::new();
            for connection in connections {
                snapshots.push(Snapshot::begin(connection)?);
            }
            check_same_history(&snapshots)?;
            let claims = ids.iter().map(|id| claims::find(snapshots[0].0, *id));
            let claims: Vec<_> = claims.collect::<Result<_, _>>()?;
            Ok((claims, newest_marks(snapshots, ids)?))
        })?;
        Ok(claims
            .into_iter()
            .zip(marks)
            .zip(ids)
            .map(|((claim, mark), id)| newest_entry(*id, mark, claim, now_ms))
            .collect())
    }

    /// Returns the scopes in which there is a row or a claim of one of these ids, each with the id.
    pub(crate) fn places_of(
        &mut self,
        ids: &HashSet<&[u8]>,
    ) -> Result<BTreeSet<(String, Vec<u8>)>> {
        self.read(1, |connections| {
            let snapshot = Snapshot::begin(connections[0])?;
            let mut places = BTreeSet::new();
            for sql in ["SELECT scope, id FROM claims", "SELECT scope, id FROM seen"] {
                let mut statement = snapshot.0.prepare(sql)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let id = id_bytes(row.get_ref(1)?)?;
                    if ids.contains(id) {
                        places.insert((row.get(0)?, id.to_vec()));
                    }
                }
            }
            Ok(places)
        })
    }
}

/// Returns the entry of an id: its live mark, else its claim, else what has expired.
fn newest_entry(
    id: Id<'_>,
    mark: Option<MarkRow>,
    claim: Option<ClaimRow>,
    now_ms: i64,
) -> Option<Entry> {
    match (mark, claim) {
        (Some(mark), claim) if mark.is_live(now_ms) => {
            let is_change =
                |it: &ClaimRow| !it.is_expired(now_ms) && is_change(it.digest, mark.digest);
            let change = claim.filter(is_change).map(|it| it.entry(id.scope, id.bytes, now_ms));
            Some(Entry { change: change.map(Box::new), ..mark.entry(now_ms) })
        }
        (mark, Some(claim)) if mark.is_none() || !claim.is_expired(now_ms) => {
            Some(claim.entry(id.scope, id.bytes, now_ms))
        }
        (mark, _) => mark.map(|mark| mark.entry(now_ms)),
    }
}

/// Returns the newest row of each id, unless it is a tombstone. Each snapshot scans its part of the table.
fn newest_marks(snapshots: Vec<Snapshot<'_>>, ids: &[Id<'_>]) -> Read<Vec<Option<MarkRow>>> {
    let (first, last): (Option<i64>, Option<i64>) = snapshots[0].0.query_row(
        "SELECT (SELECT min(seq) FROM seen), (SELECT max(seq) FROM seen)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(ids.iter().map(|_| None).collect());
    };
    let rows = usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX);
    if ids.len().saturating_mul(rows_per_lookup()) <= rows
        && let Some(found) = find_in_runs(snapshots[0].0, ids)?
    {
        return Ok(found);
    }
    let ranges = ranges(checked_seq(first)?, checked_seq(last)?, snapshots.len());
    let found: Vec<Read<NewestRows>> = thread::scope(|threads| {
        let scans: Vec<_> = snapshots
            .into_iter()
            .zip(ranges)
            .map(|(snapshot, range)| threads.spawn(move || scan(snapshot.0, range, ids)))
            .collect();
        scans
            .into_iter()
            .map(|scan| scan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut newest: NewestRows = HashMap::new();
    for found in found {
        newest.extend(found?);
    }
    Ok((0..ids.len()).map(|n| newest.remove(&n).filter(|row| row.expires_at != Some(0))).collect())
}

/// Returns the newest row of each id by the sorted runs of the file; `None` if it has none that can be used.
fn find_in_runs(connection: &Connection, ids: &[Id<'_>]) -> Read<Option<Vec<Option<MarkRow>>>> {
    if !runs::has_tables(connection)? {
        return Ok(None);
    }
    let Some(key) = runs::hash_key(connection)? else { return Ok(None) };
    let hasher = KeyHasher::with_key(key);
    let found = Runs::read(connection, &hasher).and_then(|runs| {
        let tail = scan(connection, runs.complete_to().saturating_add(1)..i64::MAX, ids)?;
        let newest = |(n, id): (usize, &Id<'_>)| {
            if let Some(row) = tail.get(&n) {
                return Ok(Some(row.clone()));
            }
            let hash = run_hash(hasher.scoped(id.scope).key(id.bytes));
            runs.find(connection, &hasher, hash, |seq| row_of(connection, *id, seq))
        };
        ids.iter().enumerate().map(newest).collect::<Read<Vec<_>>>()
    });
    match found.map_err(ReadError::in_the_index) {
        Ok(found) => Ok(Some(
            found.into_iter().map(|row| row.filter(|row| row.expires_at != Some(0))).collect(),
        )),
        Err(ReadError::Index(what)) => {
            log::debug!("the index in the file is damaged, and the whole file is read: {what}");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Returns the row with this number, if it is there and of this id.
fn row_of(connection: &Connection, id: Id<'_>, seq: i64) -> Read<Option<MarkRow>> {
    let mut statement =
        connection.prepare_cached(concat!("SELECT ", columns!(), " FROM seen WHERE seq = ?1"))?;
    let mut rows = statement.query([seq])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    id_bytes(row.get_ref(1)?)?;
    let row = MarkRow::read(row)?;
    Ok((row.scope == id.scope && row.id == id.bytes).then_some(row))
}

/// Splits the table into parts of about equal size. The last part has no end: it includes rows that are
/// appended between one snapshot and the next.
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

/// The newest row found for each id, by the position of the id.
type NewestRows = HashMap<usize, MarkRow>;

fn scan(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<NewestRows> {
    if ids.len() <= MAX_COMPARED_BY_SQL {
        scan_by_sql(connection, range, ids)
    } else {
        scan_by_hash(connection, range, ids)
    }
}

fn scan_by_sql(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<NewestRows> {
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
    // Rows of the other storage class must not be skipped: reading one reports the error.
    parameters.extend(values.iter().flat_map(|(value, twin)| [value as &dyn ToSql, twin]));
    let mut found = NewestRows::new();
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

fn scan_by_hash(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<NewestRows> {
    let mut wanted: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (n, id) in ids.iter().enumerate() {
        wanted.entry(id.bytes).or_default().push(n);
    }
    let mut found = NewestRows::new();
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
