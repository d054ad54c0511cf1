//! Deleting rows: expired ones (a purge), and selected ones (a cleanup or another removal).
//!
//! Owns the steps. Each reads a bounded number of rows, so that no other caller waits long, and returns where
//! the next one goes on. What always holds: the newest row is deleted only after its tombstone was appended,
//! and every deletion leaves the trace that other processes need (see the header of `journal`). A mark that is
//! retained is deleted when its retention is over. A step that finds nothing to delete writes nothing.

use super::row::{MarkRow, columns};
use super::selection::{SelectedMark, Selection};
use super::{Journal, Transaction};
use crate::error::Result;
use crate::id::Id;

/// How long tombstones are kept, so that processes that rarely catch up need not scan their index.
const TOMBSTONE_MS: i64 = 3_600_000;

/// The result of one step of a purge, a removal or a count, of marks (by `seq`) or of claims (by their position).
pub(crate) struct Step<P> {
    /// The position after which to go on; `None` at the end of the table.
    pub(crate) next: Option<P>,
    /// How many marks or claims were deleted or counted, without tombstones.
    pub(crate) count: u64,
}

/// Some expired rows, ordered by `seq`.
pub(crate) struct ExpiredRows {
    pub(crate) rows: Vec<(i64, MarkRow)>,
    /// Where to go on; `None` at the end of the table.
    pub(crate) next: Option<i64>,
}

/// What to delete among some rows.
struct Scan {
    /// The last row that was read.
    last: i64,
    next: Option<i64>,
    marks: u64,
    /// Whether some of the marks were kept after their expiry: the indexes of all stores may have them.
    includes_retained: bool,
    newest_tombstone: Option<i64>,
    /// Whether the newest row of the table is one of the marks.
    includes_newest: bool,
}

impl Scan {
    fn found_any(&self) -> bool {
        self.marks > 0 || self.newest_tombstone.is_some()
    }
}

/// When a purge may delete a row: 0 for a tombstone, NULL for never. A mark that was refreshed may expire later than
/// its retention ends.
macro_rules! purge_at {
    () => {
        "max(expires_at, ifnull(retain_until, 0))"
    };
}

const SCAN: &str = concat!(
    "SELECT seq, ",
    purge_at!(),
    ", last_seen, retain_until IS NOT NULL FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2"
);

const DELETE_EXPIRED: &str = concat!(
    "DELETE FROM seen WHERE seq > ?1 AND seq <= ?2 AND (",
    purge_at!(),
    " BETWEEN 1 AND ?3 OR expires_at = 0 AND last_seen <= ?4)"
);

const EXPIRED_BY_SCOPE: &str = concat!(
    "SELECT scope, count(*) FROM seen WHERE seq > ?1 AND seq <= ?2 AND ",
    purge_at!(),
    " BETWEEN 1 AND ?3 GROUP BY scope"
);

const RETAINED: &str = concat!(
    "SELECT seq, scope, id FROM seen WHERE seq > ?1 AND seq <= ?2 AND retain_until IS NOT NULL AND ",
    purge_at!(),
    " <= ?3"
);

fn scan(
    connection: &rusqlite::Connection,
    newest: Option<i64>,
    after: i64,
    limit: i64,
    now_ms: i64,
) -> rusqlite::Result<Scan> {
    let mut statement = connection.prepare_cached(SCAN)?;
    let mut rows = statement.query((after, limit))?;
    let mut scan = Scan {
        last: after,
        next: None,
        marks: 0,
        includes_retained: false,
        newest_tombstone: None,
        includes_newest: false,
    };
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        count += 1;
        let is_newest = match newest {
            Some(newest) if seq <= newest => seq == newest,
            _ => break, // Another process has just appended it.
        };
        let purge_at = row.get::<_, Option<i64>>(1)?;
        if is_newest && purge_at == Some(0) {
            break; // A tombstone stays while it is the newest row.
        }
        scan.last = seq;
        match purge_at {
            Some(0) if row.get::<_, i64>(2)? <= now_ms - TOMBSTONE_MS => {
                scan.newest_tombstone = Some(seq);
            }
            Some(1..) if purge_at <= Some(now_ms) => {
                scan.marks += 1;
                scan.includes_retained |= row.get::<_, bool>(3)?;
                scan.includes_newest = is_newest;
            }
            _ => {}
        }
    }
    scan.next = (count == limit && scan.last > after).then_some(scan.last);
    Ok(scan)
}

impl Journal {
    /// Returns the expired marks among the next `limit` rows after `after`, and where to go on.
    pub(crate) fn expired_after(
        &mut self,
        after: i64,
        limit: i64,
        now_ms: i64,
    ) -> Result<ExpiredRows> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(concat!(
                "SELECT ",
                columns!(),
                ", seq FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2"
            ))?;
            let mut rows = statement.query((after, limit))?;
            let (mut expired, mut last, mut count) = (Vec::new(), after, 0);
            while let Some(row) = rows.next()? {
                (last, count) = (row.get(13)?, count + 1);
                if row.get::<_, Option<i64>>(4)?.is_some_and(|at| (1..=now_ms).contains(&at)) {
                    expired.push((last, MarkRow::read(row)?));
                }
            }
            Ok(ExpiredRows { rows: expired, next: (count == limit).then_some(last) })
        })
    }

    /// Searches the next `limit` rows for expired ones, without the write lock.
    pub(crate) fn find_expired(
        &mut self,
        after: i64,
        limit: i64,
        now_ms: i64,
    ) -> Result<ExpiredSearch> {
        self.ensure_open()?;
        let scan = self.with("purge", |connection| {
            // The newest row now: other processes may have appended since the last catch-up.
            let newest: Option<i64> = connection
                .prepare_cached("SELECT max(seq) FROM seen")?
                .query_row([], |row| row.get(0))?;
            scan(connection, newest, after, limit, now_ms)
        })?;
        if scan.found_any() {
            return Ok(ExpiredSearch::Expired);
        }
        Ok(ExpiredSearch::Nothing { next: scan.next })
    }

    /// Counts the marks that a purge would delete among the next `limit` rows after `after`.
    pub(crate) fn count_expired(
        &mut self,
        after: i64,
        limit: i64,
        now_ms: i64,
    ) -> Result<Step<i64>> {
        self.read(|connection| {
            connection
                .prepare_cached(concat!(
                    "SELECT count(*) FILTER (WHERE purge_at BETWEEN 1 AND ?3), count(*), max(seq) \
                     FROM (SELECT seq, ",
                    purge_at!(),
                    " AS purge_at FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2)",
                ))?
                .query_row((after, limit, now_ms), |row| {
                    let (count, read): (i64, i64) = (row.get(0)?, row.get(1)?);
                    let next = row.get::<_, Option<i64>>(2)?.filter(|_| read == limit);
                    Ok(Step { next, count: count.cast_unsigned() })
                })
        })
    }

    /// Counts the selected marks among the next `limit` rows after `after`.
    pub(crate) fn count_selected_marks(
        &mut self,
        selection: &Selection,
        after: i64,
        limit: i64,
        now_ms: i64,
    ) -> Result<Step<i64>> {
        let mut count = 0;
        let next = self.read(|connection| {
            count = 0;
            for_each_selected(connection, selection, after, limit, now_ms, |_, _| count += 1)
        })?;
        Ok(Step { next, count })
    }

    pub(crate) fn last_purge_ms(&mut self) -> Result<i64> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT value FROM meta WHERE key = 'last_purge_at'")?
                .query_row([], |row| row.get(0))
        })
    }
}

/// The result of [`Journal::find_expired`].
pub(crate) enum ExpiredSearch {
    Expired,
    Nothing { next: Option<i64> },
}

impl Transaction<'_> {
    /// Deletes the expired rows among the next `limit` rows after `after`.
    pub(crate) fn purge_step(&mut self, after: i64, limit: i64) -> Result<Step<i64>> {
        let (newest, now_ms) = (self.tip.map(|tip| tip.seq), self.now_ms);
        let scan = self.with(|connection| scan(connection, newest, after, limit, now_ms))?;
        if scan.includes_newest {
            self.append_tombstone_of(scan.last)?;
        }
        if scan.includes_retained {
            self.remove_retained(after, scan.last)?;
        }
        if scan.found_any() {
            self.has_deleted = true;
            self.uncount_expired(after, scan.last)?;
            self.with(|connection| {
                connection.prepare_cached(DELETE_EXPIRED)?.execute((
                    after,
                    scan.last,
                    now_ms,
                    now_ms - TOMBSTONE_MS,
                ))
            })?;
            self.note_purge()?;
        }
        if let Some(tombstone) = scan.newest_tombstone
            && tombstone > self.counters.1
        {
            self.set_counter("floor", tombstone)?;
            self.counters.1 = tombstone;
        }
        Ok(Step { next: scan.next, count: scan.marks })
    }

    /// Counts the expired marks among some rows no longer.
    fn uncount_expired(&mut self, after: i64, last: i64) -> Result<()> {
        let (last, now_ms) = (last.min(self.journal.covered_by_runs()?), self.now_ms);
        if last <= after {
            return Ok(());
        }
        let expired = self.with(|connection| {
            connection
                .prepare_cached(EXPIRED_BY_SCOPE)?
                .query_map((after, last, now_ms), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<Vec<(String, i64)>>>()
        })?;
        for (scope, count) in expired {
            self.uncount(&scope, count);
        }
        Ok(())
    }

    /// Lets the indexes of all stores drop the rows that are kept no longer: no expiry of a slot tells of that.
    fn remove_retained(&mut self, after: i64, last: i64) -> Result<()> {
        let now_ms = self.now_ms;
        let rows = self.with(|connection| {
            connection
                .prepare_cached(RETAINED)?
                .query_map((after, last, now_ms), |row| {
                    let id = row.get_ref(2)?.as_bytes()?.to_vec();
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, id))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        for (seq, scope, id) in rows {
            let key = self.journal.hasher.scoped(&scope).key(&id);
            self.record_removal(key, seq);
        }
        self.raise_generation()
    }

    fn raise_generation(&mut self) -> Result<()> {
        let generation = self.counters.0 + 1;
        self.set_counter("generation", generation)?;
        self.counters.0 = generation;
        Ok(())
    }

    /// Tells the other processes on the file that a purge is running.
    pub(super) fn note_purge(&mut self) -> Result<()> {
        self.set_counter("last_purge_at", self.now_ms)
    }

    fn append_tombstone_of(&mut self, seq: i64) -> Result<()> {
        let (scope, id): (String, Vec<u8>) = self.with(|connection| {
            connection
                .prepare_cached("SELECT scope, id FROM seen WHERE seq = ?1")?
                .query_row([seq], |row| Ok((row.get(0)?, row.get_ref(1)?.as_bytes()?.to_vec())))
        })?;
        let key = self.journal.hasher.scoped(&scope).key(&id);
        self.append_tombstone(Id { scope: &scope, bytes: &id, key, digest: None, retry_of: None })
    }

    /// Deletes the selected marks among the next `limit` rows after `after`.
    pub(crate) fn remove_marks(
        &mut self,
        selection: &Selection,
        after: i64,
        limit: i64,
    ) -> Result<Step<i64>> {
        let (scope, now_ms) = (selection.scope.as_str(), self.now_ms);
        let scoped = self.journal.hasher.scoped(scope);
        let mut to_delete = Vec::new();
        let next = self.with(|connection| {
            for_each_selected(connection, selection, after, limit, now_ms, |seq, id| {
                to_delete.push((seq, id.to_vec()));
            })
        })?;
        if let Some((seq, id)) = to_delete.last()
            && self.tip.is_some_and(|tip| tip.seq == *seq)
        {
            let key = scoped.key(id);
            self.append_tombstone(Id { scope, bytes: id, key, digest: None, retry_of: None })?;
        }
        for (seq, id) in &to_delete {
            self.delete(scope, *seq)?;
            self.record_removal(scoped.key(id), *seq);
        }
        if !to_delete.is_empty() {
            self.raise_generation()?;
        }
        Ok(Step { next, count: to_delete.len() as u64 })
    }
}

/// Calls a function with the number and the id of each selected mark among the next `limit` rows after `after`, and
/// returns the row after which to go on.
fn for_each_selected(
    connection: &rusqlite::Connection,
    selection: &Selection,
    after: i64,
    limit: i64,
    now_ms: i64,
    mut found: impl FnMut(i64, &[u8]),
) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, scope, id, expires_at, last_seen FROM seen \
         WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = statement.query((after, limit))?;
    let (mut last, mut count) = (after, 0);
    while let Some(row) = rows.next()? {
        count += 1;
        last = row.get(0)?;
        let (id, expires_at) = (row.get_ref(2)?.as_bytes()?, row.get(3)?);
        let is_candidate =
            expires_at != TOMBSTONE && row.get_ref(1)?.as_bytes()? == selection.scope.as_bytes();
        if is_candidate {
            let mark = SelectedMark { id, last_seen: row.get(4)?, expires_at };
            if selection.takes_mark(&mark, now_ms) {
                found(last, id);
            }
        }
    }
    Ok((count == limit).then_some(last))
}

/// The expiry of a tombstone.
const TOMBSTONE: Option<i64> = Some(0);
