//! How many marks the runs are about, by scope: so that a call need not count them.
//!
//! Owns the table `counts`. What always holds: for each scope it has the number of marks in the table `seen` whose `seq` is at
//! most the last one that the runs cover, expired ones included. So it grows when a run is written, and every
//! transaction that deletes such a mark subtracts it. The marks after that, the tail, are few, and are counted when
//! asked for.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::MAX_PROBLEMS;
use super::load::{INDEX_REMEDY, ReadError, RowKeys, key_columns};
use super::runs::{Entry, has_tables};
use crate::id::KeyHasher;
use crate::index::MAX_SEQ;

/// The key of the number of marks of all scopes, so that it takes no longer where there are many. No scope is a number.
const ALL_SCOPES: i64 = 0;

/// The number of marks by scope.
pub(crate) type ByScope = BTreeMap<String, i64>;

/// Some rows from the tail.
pub(super) struct Tail {
    /// The `seq` of the last one.
    pub(super) last: i64,
    /// Those of all rows, in order.
    pub(super) entries: Vec<Entry>,
    pub(super) marks: ByScope,
}

/// How many rows are read in one statement.
const ROWS_AT_ONCE: i64 = 4_096;

/// Reads up to `limit` rows after `after`; `None` if there is none. Without a transaction of the caller, several snapshots
/// do: rows are only appended, and one that is deleted meanwhile does no harm.
pub(super) fn read_tail(
    connection: &Connection,
    hasher: &KeyHasher,
    after: i64,
    limit: i64,
) -> Result<Option<Tail>, ReadError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        key_columns!(),
        " FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2"
    ))?;
    let mut keys = RowKeys::new(hasher);
    let mut tail = Tail { last: after, entries: Vec::new(), marks: ByScope::new() };
    let mut of_scope = 0;
    let mut scope = String::new();
    let mut left = limit;
    while left > 0 {
        let (at_once, mut count) = (left.min(ROWS_AT_ONCE), 0);
        let mut rows = statement.query((tail.last, at_once))?;
        while let Some(row) = rows.next()? {
            let row = keys.read(row)?;
            (tail.last, count) = (row.slot.seq, count + 1);
            tail.entries.push(Entry::new(row.key, row.slot.seq));
            if row.slot.exists().is_none() {
                continue; // A tombstone.
            }
            // Rows of one scope mostly follow each other.
            if keys.scope() != scope {
                add_to(&mut tail.marks, &scope, std::mem::take(&mut of_scope));
                keys.scope().clone_into(&mut scope);
            }
            of_scope += 1;
        }
        left = if count == at_once { left - count } else { 0 };
    }
    add_to(&mut tail.marks, &scope, of_scope);
    tail.entries.sort_unstable();
    Ok((tail.last > after).then_some(tail))
}

fn add_to(marks: &mut ByScope, scope: &str, count: i64) {
    if count != 0 {
        *marks.entry(scope.to_owned()).or_default() += count;
    }
}

/// Adds marks, because a run about them was written.
pub(super) fn add(connection: &Connection, marks: &ByScope) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO counts (scope, marks) VALUES (?1, ?2) \
         ON CONFLICT (scope) DO UPDATE SET marks = marks + ?2",
    )?;
    for (scope, count) in marks {
        add.execute((scope, count))?;
    }
    let total: i64 = marks.values().sum();
    if total != 0 {
        add.execute((ALL_SCOPES, total))?;
    }
    Ok(())
}

/// Subtracts marks, because a transaction deleted them.
pub(super) fn subtract(connection: &Connection, marks: &ByScope) -> rusqlite::Result<()> {
    if marks.is_empty() {
        return Ok(()); // The file may have no such table.
    }
    // Most transactions that delete a mark delete one, so this is one statement, for the scope and for all scopes.
    let mut subtract = connection
        .prepare_cached("UPDATE counts SET marks = marks - ?2 WHERE scope IN (?1, ?3)")?;
    let mut drop_empty =
        connection.prepare_cached("DELETE FROM counts WHERE scope = ?1 AND marks <= 0")?;
    for (scope, count) in marks {
        subtract.execute((scope, count, ALL_SCOPES))?;
        drop_empty.execute([scope])?;
    }
    Ok(())
}

/// Counts the marks of the rows after `after` up to `last`.
pub(super) fn of_rows(connection: &Connection, after: i64, last: i64) -> rusqlite::Result<ByScope> {
    connection
        .prepare_cached(
            "SELECT scope, count(*) FROM seen WHERE seq > ?1 AND seq <= ?2 AND expires_at IS NOT 0 \
             GROUP BY scope",
        )?
        .query_map((after, last), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Forgets all counts, because the runs are thrown away.
pub(super) fn clear(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM counts")?.execute([]).map(drop)
}

/// Returns the number of marks that the runs are about.
///
/// # Errors
///
/// [`ReadError::Index`] if no store counts so.
pub(super) fn total(connection: &Connection) -> Result<i64, ReadError> {
    let total: Option<i64> = connection
        .prepare_cached("SELECT marks FROM counts WHERE scope = ?1")?
        .query_row([ALL_SCOPES], |row| row.get(0))
        .optional()?;
    let total = total.unwrap_or(0);
    if (0..=MAX_SEQ).contains(&total) {
        Ok(total)
    } else {
        Err(ReadError::Index("its counts are out of range"))
    }
}

/// Returns the `seq` of the last row that the runs cover.
pub(super) fn covered(connection: &Connection) -> rusqlite::Result<i64> {
    if !has_tables(connection)? {
        return Ok(0);
    }
    connection
        .prepare_cached("SELECT ifnull(max(last), 0) FROM runs WHERE state = 1")?
        .query_row([], |row| row.get(0))
}

/// Returns the `seq` of the last row that the runs cover, and about how many rows there are after it.
pub(super) fn covered_and_tail(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let covered = covered(connection)?;
    let tail = connection
        .prepare_cached(
            "SELECT ifnull(max(seq) - max(?1, (SELECT min(seq) FROM seen) - 1), 0) FROM seen",
        )?
        .query_row([covered], |row| row.get(0))?;
    Ok((covered, tail))
}

/// Counts all marks by scope, expired ones included.
pub(crate) fn by_scope(connection: &Connection) -> rusqlite::Result<ByScope> {
    let (mut marks, after) = (ByScope::new(), covered(connection)?);
    if after > 0 {
        let mut statement =
            connection.prepare_cached("SELECT scope, marks FROM counts WHERE scope != 0")?;
        let counted = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        marks = counted.collect::<rusqlite::Result<_>>()?;
    }
    let mut statement = connection.prepare_cached(
        "SELECT scope FROM seen WHERE seq > ?1 AND expires_at IS NOT 0 ORDER BY seq",
    )?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        let scope = row.get_ref(0)?.as_str()?;
        match marks.get_mut(scope) {
            Some(count) => *count = count.saturating_add(1),
            None => add_to(&mut marks, scope, 1),
        }
    }
    Ok(marks)
}

/// Compares the counts with the table, in one snapshot.
pub(super) fn problems(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection
        .prepare("SELECT scope FROM seen WHERE seq <= ?1 AND expires_at IS NOT 0 ORDER BY seq")?;
    let mut rows = statement.query([covered(connection)?])?;
    let (mut marks, mut scope, mut of_scope) = (ByScope::new(), String::new(), 0);
    while let Some(row) = rows.next()? {
        let next = row.get_ref(0)?.as_str()?;
        if next != scope {
            add_to(&mut marks, &scope, std::mem::take(&mut of_scope));
            next.clone_into(&mut scope);
        }
        of_scope += 1;
    }
    add_to(&mut marks, &scope, of_scope);
    let mut problems = Vec::new();
    let mut compare = |scope: &str, counted: i64, marks: i64| {
        if counted != marks && problems.len() < MAX_PROBLEMS {
            problems.push(format!(
                "{counted} marks of scope {scope:?} are counted, and the table has {marks}; {INDEX_REMEDY}"
            ));
        }
    };
    let mut statement = connection.prepare("SELECT scope, marks FROM counts ORDER BY scope")?;
    let mut rows = statement.query([])?;
    let all = marks.values().sum();
    while let Some(row) = rows.next()? {
        if row.get_ref(0)? == ValueRef::Integer(ALL_SCOPES) {
            compare("all", row.get(1)?, all);
            continue;
        }
        let scope: String = row.get(0)?;
        let in_table = marks.remove(&scope).unwrap_or(0);
        compare(&scope, row.get(1)?, in_table);
    }
    for (scope, in_table) in marks {
        compare(&scope, 0, in_table);
    }
    Ok(problems)
}
