//! How many marks the runs are about, by scope: so that a call need not count them.
//!
//! Owns the table `counts`. What always holds: for each scope, unless there are too many, and for all of them together, it
//! has the number of marks in the table `seen` whose `seq` is at most the last one that the runs cover, expired ones
//! included. So it grows when a run is written, and every transaction that deletes such a mark subtracts it. The marks
//! after that, the tail, are few, and are counted when asked for.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::MAX_PROBLEMS;
use super::load::{ReadError, RowKeys, damaged_index, key_columns};
use super::runs::{Entry, has_tables};
use crate::format::sqlite_errors::is_damage;
use crate::id::KeyHasher;
use crate::index::MAX_SEQ;
use crate::machine::index_size;

/// The key of the number of marks of all scopes, so that it takes no longer where there are many. No scope is a number.
const ALL_SCOPES: i64 = 0;

/// The key of a row that says that the marks of each scope are not counted, because there are too many scopes.
const MANY_SCOPES: i64 = 1;

/// For how many scopes the marks are counted, and with names of how many bytes. Each changes a page of the table: 32,768 new
/// ones in a transaction took a second.
fn max_scopes() -> usize {
    index_size!(1_024, in_tests: 8)
}
const LONGEST_NAME: usize = 256;

/// How many marks there are, expired ones included.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) all: i64,
    /// `None` if there are too many scopes.
    pub(crate) by_scope: Option<ByScope>,
}

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
    let total: i64 = marks.values().sum();
    if !has_many_scopes(connection)? {
        let mut are_many = are_many(marks);
        if !are_many {
            for (scope, count) in marks {
                add.execute((scope, count))?;
            }
            let mut count = connection.prepare_cached("SELECT count(*) FROM counts")?;
            are_many = count.query_row([], |row| row.get::<_, u32>(0))? as usize > max_scopes() + 1;
        }
        if are_many {
            connection
                .prepare_cached("DELETE FROM counts WHERE scope != ?1")?
                .execute([ALL_SCOPES])?;
            add.execute((MANY_SCOPES, 0))?;
        }
    }
    if total != 0 {
        add.execute((ALL_SCOPES, total))?;
    }
    Ok(())
}

fn are_many(scopes: &ByScope) -> bool {
    scopes.len() > max_scopes() || scopes.keys().any(|scope| scope.len() > LONGEST_NAME)
}

fn has_many_scopes(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM counts WHERE scope = ?1")?.exists([MANY_SCOPES])
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

/// Counts all marks, expired ones included. Where the counts are damaged, the table is read.
pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Counts> {
    let (mut counts, after) = match counted(connection) {
        Err(e) if is_damage(&e) => {
            (Counts { by_scope: Some(ByScope::new()), ..Counts::default() }, 0)
        }
        counted => counted?,
    };
    let mut statement = connection.prepare_cached(
        "SELECT scope FROM seen WHERE seq > ?1 AND expires_at IS NOT 0 ORDER BY seq",
    )?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        counts.all = counts.all.saturating_add(1);
        let Some(marks) = &mut counts.by_scope else { continue };
        let scope = row.get_ref(0)?.as_str()?;
        match marks.get_mut(scope) {
            Some(count) => *count = count.saturating_add(1),
            None => add_to(marks, scope, 1),
        }
        if marks.len() > max_scopes() || scope.len() > LONGEST_NAME {
            counts.by_scope = None;
        }
    }
    Ok(counts)
}

/// Returns the counts, and the `seq` of the last row that they are about.
fn counted(connection: &Connection) -> rusqlite::Result<(Counts, i64)> {
    let mut counts = Counts { all: 0, by_scope: Some(ByScope::new()) };
    let last = covered(connection)?;
    if last == 0 {
        return Ok((counts, 0));
    }
    let all = "SELECT ifnull(max(marks), 0) FROM counts WHERE scope = ?1";
    counts.all = connection.prepare_cached(all)?.query_row([ALL_SCOPES], |row| row.get(0))?;
    counts.by_scope = if has_many_scopes(connection)? {
        None
    } else {
        let mut statement =
            connection.prepare_cached("SELECT scope, marks FROM counts WHERE scope != ?1")?;
        let by_scope = statement.query_map([ALL_SCOPES], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Some(by_scope.collect::<rusqlite::Result<_>>()?)
    };
    Ok((counts, last))
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
    let mut compare = |of: &str, counted: i64, marks: i64| {
        if counted != marks && problems.len() < MAX_PROBLEMS {
            let what = format!("it counts {counted} marks in {of}, and the table has {marks}");
            problems.push(damaged_index(&what));
        }
    };
    let mut statement = connection.prepare("SELECT scope, marks FROM counts ORDER BY scope")?;
    let mut rows = statement.query([])?;
    let all = marks.values().sum();
    if has_many_scopes(connection)? {
        marks.clear();
    }
    while let Some(row) = rows.next()? {
        match row.get_ref(0)? {
            ValueRef::Integer(ALL_SCOPES) => {
                compare("all scopes", row.get(1)?, all);
                continue;
            }
            ValueRef::Integer(MANY_SCOPES) => continue,
            _ => {}
        }
        let scope: String = row.get(0)?;
        let in_table = marks.remove(&scope).unwrap_or(0);
        compare(&format!("scope {scope:?}"), row.get(1)?, in_table);
    }
    for (scope, in_table) in marks {
        compare(&format!("scope {scope:?}"), 0, in_table);
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::format::create::create_in_memory;

    #[test]
    fn the_marks_of_each_scope_are_counted_until_there_are_too_many_scopes() {
        let most = i64::try_from(max_scopes()).unwrap();
        for (scopes, name, has_scopes) in [
            (most, "s", true),
            (most + 1, "s", false),
            (3, &*"s".repeat(LONGEST_NAME - 1), true),
            (3, &*"s".repeat(LONGEST_NAME), false),
        ] {
            let connection = create_in_memory(&Config::default()).unwrap();
            for n in 0..scopes {
                add(&connection, &ByScope::from([(format!("{name}{n}"), 2)])).unwrap();
            }
            let run = "INSERT INTO runs VALUES (1, 1, 0, 1000000, 0, 0, 0, 0)";
            connection.execute(run, []).unwrap();
            let counts = all(&connection).unwrap();
            assert_eq!(counts.all, 2 * scopes);
            let by_scope = counts.by_scope.map(|it| it.len().try_into());
            assert_eq!(by_scope, has_scopes.then_some(Ok(scopes)));
            subtract(&connection, &ByScope::from([(format!("{name}1"), 1)])).unwrap();
            assert_eq!(all(&connection).unwrap().all, 2 * scopes - 1);
            assert_eq!(total(&connection).unwrap(), 2 * scopes - 1);
        }
    }
}
