//! Catch-ups: how the index follows what other connections do to the file.
//!
//! Owns the journal's position in the file's history. What always holds:
//!
//! - A catch-up reads the rows from the newest known one on, the *tip*. The index has applied every row up to
//!   the tip, except deletions that leave no row (see `stale`).
//! - The file's history may go back: the file may be restored in place. SQLite's `schema_version` changes with
//!   each restore through SQLite's backup, whatever the rows look like afterwards, and with each `VACUUM`. Then
//!   the index is rebuilt. Nothing in the file can tell a `VACUUM` from a restore, because a restore replaces
//!   everything in the file.
//! - The tip must still be there, or something must explain why it is gone: a later row of its id, its expiry,
//!   or deletions that `meta` announces. Otherwise another program deleted rows, and the index is rebuilt.
//! - A position that was discarded stays discarded until a rebuild has succeeded, whatever fails meanwhile.

use std::time::Duration;

use rusqlite::Connection;

use super::load::{ReadError, RowKeys, apply_row, check_version, key_columns, load_after};
use super::{Journal, Tip, claims, run};
use crate::clock::{ABSORBED_STEP_MS, FileTime, Stopwatch};
use crate::error::Result;
use crate::id::Key;
use crate::index::Index;
use crate::machine::step_size;

/// How many rows a catch-up reads in one statement. If there are more, the write lock is released first.
const TAIL_ROWS: usize = step_size!(1_000, in_a_simulation: 5);

/// The shortest time between two releases of the write lock for reading without it.
const LOCK_RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// Its parameter is the lowest rowid to read. The counters are columns here, so that one statement, and so
/// one snapshot, answers the whole catch-up.
const READ_TAIL: &str = concat!(
    "SELECT ",
    key_columns!(),
    ", (SELECT value FROM meta WHERE key = 'generation'), \
       (SELECT value FROM meta WHERE key = 'floor'), \
       (SELECT value FROM meta WHERE key = 'clock') \
     FROM seen WHERE seq >= ?1 ORDER BY seq LIMIT 1000"
);

/// Reads the same counters for a catch-up that finds no row.
const READ_COUNTERS: &str = "\
SELECT (SELECT value FROM meta WHERE key = 'generation'), \
       (SELECT value FROM meta WHERE key = 'floor'), \
       (SELECT value FROM meta WHERE key = 'clock')";

/// No store counts this far. A larger number is not a store's.
const MAX_COUNTER: i64 = i64::MAX / 2;

/// Up to where the index has followed the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) tip: Option<Tip>,
    pub(crate) counters: Counters,
    pub(crate) schema_version: i64,
    /// The key of a tip that is gone from the table, and that no row read so far explains.
    pub(crate) missing: Option<Key>,
}

/// The counters in `meta`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) generation: i64,
    pub(crate) floor: i64,
    /// The time that stores on this file have reached, in unix milliseconds; 0 is unknown.
    pub(crate) clock_ms: i64,
}

impl Counters {
    fn read(row: &rusqlite::Row<'_>, first: usize) -> Result<Self, ReadError> {
        let counter = |column| -> Result<i64, ReadError> {
            let value: Option<i64> = row.get(column)?;
            let value = value.ok_or(ReadError::Content("its table meta lacks a counter"))?;
            if !(0..=MAX_COUNTER).contains(&value) {
                return Err(ReadError::Content("a counter in its table meta is out of range"));
            }
            Ok(value)
        };
        Ok(Self {
            generation: counter(first)?,
            floor: counter(first + 1)?,
            // A file that only older versions have written to has no `clock`.
            clock_ms: row.get::<_, Option<i64>>(first + 2)?.unwrap_or(0),
        })
    }

    pub(crate) fn load(connection: &Connection) -> Result<Self, ReadError> {
        let mut statement = connection.prepare_cached(READ_COUNTERS)?;
        let mut rows = statement.query([])?;
        let row = rows.next()?.ok_or(ReadError::Content("its table meta cannot be read"))?;
        Self::read(row, 0)
    }
}

/// The result of reading one page of rows.
enum Tail {
    Complete,
    More,
    /// The file's history is another one now: rows can no longer bring the index up to date.
    NeedsRebuild,
}

impl Journal {
    /// Brings the index up to date with what other connections have committed.
    pub(crate) fn catch_up(&mut self, index: &Index, now_ms: i64) -> Result<()> {
        self.ensure_open()?;
        if self.is_private() && self.data_version.is_some() && !index.is_ahead_of(now_ms) {
            index.record_use(now_ms);
            return Ok(());
        }
        self.catch_up_now(index, now_ms)?;
        self.rebuild_if_clock_went_back(index, now_ms)
    }

    pub(crate) fn catch_up_now(&mut self, index: &Index, now_ms: i64) -> Result<()> {
        // The version is read before the rows, so a commit in between is read twice rather than never.
        let version = self.read_data_version()?;
        if self.data_version == Some(version) {
            return Ok(());
        }
        self.claims = claims::ClaimsCache::Unknown;
        // Beside a connection that writes as fast as this one reads, there would always be more rows. It is
        // enough to read what was there at the beginning.
        let mut newest = None;
        loop {
            match self.read_tail(index, now_ms)? {
                Tail::Complete => break,
                Tail::More => {
                    if newest.is_none() {
                        newest = self.with("read", read_newest)?;
                    }
                    if self.position.and_then(|position| position.tip).map(|tip| tip.seq) >= newest
                    {
                        break;
                    }
                }
                Tail::NeedsRebuild => {
                    self.rebuild(index, now_ms)?;
                    self.rebuilds += 1;
                    break;
                }
            }
        }
        self.data_version = Some(version);
        Ok(())
    }

    /// Rebuilds the index if it was used at a later time than `now_ms`: it may then lack marks that are live
    /// again, and hold marks that another store has purged. Afterwards all stores that follow the step of the
    /// clock agree with the file and so with each other.
    fn rebuild_if_clock_went_back(&mut self, index: &Index, now_ms: i64) -> Result<()> {
        if index.is_ahead_of(now_ms) {
            let history = self.position.map(|position| position.schema_version);
            self.rebuild(index, now_ms)?;
            if history != self.position.map(|position| position.schema_version) {
                self.rebuilds += 1; // The file was restored too.
            }
        }
        index.record_use(now_ms);
        Ok(())
    }

    /// Brings the index up to date under the write lock. Returns false, without having finished, if there is
    /// much to read and the lock may be released for that.
    pub(crate) fn catch_up_locked(&mut self, index: &Index, now_ms: i64) -> Result<bool> {
        if index.is_ahead_of(now_ms) {
            return Ok(false);
        }
        index.record_use(now_ms);
        let version = self.read_data_version()?;
        if self.data_version == Some(version) {
            return Ok(true);
        }
        self.other_commit_found = Some(Stopwatch::start());
        let all = self.lock_released.is_some_and(|then| then.elapsed() < LOCK_RELEASE_INTERVAL);
        self.catch_up_in_transaction(index, now_ms, version, all)
    }

    /// Brings the index up to date in a transaction that sees this version of the data. Returns false, without having
    /// finished, if the index must be filled anew, or there is much to read and not `all` shall be read.
    pub(super) fn catch_up_in_transaction(
        &mut self,
        index: &Index,
        now_ms: i64,
        version: i64,
        all: bool,
    ) -> Result<bool> {
        index.record_use(now_ms);
        if self.data_version == Some(version) {
            return Ok(true);
        }
        self.claims = claims::ClaimsCache::Unknown;
        loop {
            match self.read_tail(index, now_ms)? {
                Tail::Complete => break,
                Tail::More if all => {}
                Tail::More | Tail::NeedsRebuild => return Ok(false),
            }
        }
        self.data_version = Some(version);
        Ok(true)
    }

    /// Returns how long ago a transaction here found that another connection had committed.
    pub(crate) fn since_other_commit(&self) -> Option<Duration> {
        self.other_commit_found.map(Stopwatch::elapsed)
    }

    /// Returns whether no other connection has committed since the last catch-up.
    pub(crate) fn is_current(&mut self) -> Result<bool> {
        self.ensure_open()?;
        if self.is_private() {
            return Ok(true);
        }
        let version = self.read_data_version()?;
        Ok(self.data_version == Some(version))
    }

    pub(super) fn read_data_version(&mut self) -> Result<i64> {
        self.with("read", read_data_version)
    }

    /// Returns the `seq` of the newest row that the index has applied; 0 if there is none.
    pub(crate) fn newest_seq(&self) -> i64 {
        self.position.and_then(|position| position.tip).map_or(0, |tip| tip.seq)
    }

    /// Returns the time that another store on this file has reached, if one has committed since the last call.
    pub(crate) fn take_file_time(&mut self) -> Option<FileTime> {
        self.reached.take()
    }

    fn set_position(&mut self, position: Position) {
        // What this store wrote itself is not news: after a large backward step it must not go on from it.
        let (known, ms) =
            (self.position.map(|it| it.counters.clock_ms), position.counters.clock_ms);
        let is_new = known != Some(ms) || self.reached.is_some_and(|reached| reached.is_new);
        self.reached = Some(FileTime { ms, is_new });
        self.position = Some(position);
    }

    /// Applies up to [`TAIL_ROWS`] rows, from the tip on, to the index.
    fn read_tail(&mut self, index: &Index, now_ms: i64) -> Result<Tail> {
        let Some(known) = self.position else { return Ok(Tail::NeedsRebuild) };
        let page = self.read_page(index, known, now_ms).map_err(|e| e.at(&self.name()))?;
        let Some(Page { position, count, may_be_stale }) = page else {
            self.discard_position();
            return Ok(Tail::NeedsRebuild);
        };
        if may_be_stale {
            self.stale_scan.start(index);
        }
        self.set_position(position);
        if count == TAIL_ROWS {
            return Ok(Tail::More);
        }
        if position.missing.is_some() {
            self.discard_position();
            return Ok(Tail::NeedsRebuild);
        }
        Ok(Tail::Complete)
    }

    /// Returns `None` if the file's history is no longer the known one. Some rows may have been applied by
    /// then; the rebuild replaces them.
    fn read_page(
        &self,
        index: &Index,
        known: Position,
        now_ms: i64,
    ) -> Result<Option<Page>, ReadError> {
        let connection = self.open_connection();
        let mut position = known;
        check_version(connection)?;
        if read_schema_version(connection)? != known.schema_version {
            return Ok(None);
        }
        let mut statement = connection.prepare_cached(READ_TAIL)?;
        let mut rows = statement.query([known.tip.map_or(0, |tip| tip.seq)])?;
        let mut keys = RowKeys::new(&self.hasher);
        let (mut count, mut tip_found) = (0, known.tip.is_none());
        while let Some(row) = rows.next()? {
            let read = keys.read(row)?;
            let tip_here = read.tip();
            if count == 0 {
                position.counters = Counters::read(row, 6)?;
                if let Some(tip) = known.tip.filter(|tip| tip.seq == tip_here.seq) {
                    if tip.key != tip_here.key || tip.expires_at != tip_here.expires_at {
                        return Ok(None);
                    }
                    tip_found = true;
                }
            }
            count += 1;
            position.missing = position.missing.filter(|missing| *missing != read.key);
            tip_found |= known.tip.is_some_and(|tip| tip.key == read.key);
            apply_row(index, &read);
            position.tip = Some(tip_here);
        }
        if count == 0 {
            if known.tip.is_some() {
                return Ok(None); // A store never deletes the newest row.
            }
            position.counters = Counters::load(connection)?;
        }
        let (old, new) = (known.counters, position.counters);
        if new.generation < old.generation || new.floor < old.floor {
            return Ok(None);
        }
        let may_be_stale =
            new.generation > old.generation || known.tip.is_some_and(|tip| tip.seq < new.floor);
        if may_be_stale {
            position.missing = None;
        } else if let Some(tip) = known.tip.filter(|_| !tip_found) {
            // Another store, whose clock may be ahead of this one's, may have purged it.
            let may_be_purged =
                tip.expires_at.is_some_and(|at| at <= now_ms.saturating_add(ABSORBED_STEP_MS));
            if !may_be_purged {
                if position.missing.is_some() {
                    return Ok(None);
                }
                position.missing = Some(tip.key);
            }
        }
        Ok(Some(Page { position, count, may_be_stale }))
    }

    /// Discards the position: the index no longer matches the file, and the next catch-up rebuilds it.
    pub(super) fn discard_position(&mut self) {
        (self.position, self.data_version) = (None, None);
    }

    /// Fills the index anew from the file: from the whole table, or, where the file has an index of it, from what came
    /// after that. Returns the number of expired rows in the table, if all of it was read.
    pub(crate) fn rebuild(&mut self, index: &Index, now_ms: i64) -> Result<Option<u64>> {
        let version = self.read_data_version()?;
        self.with("read", |connection| run(connection, "BEGIN"))?;
        let loaded = self.first_to_load().and_then(|base| {
            let connection = self.open_connection();
            Ok((load_after(connection, &self.hasher, now_ms, base)?, base))
        });
        self.end_read();
        let (loaded, base) = loaded.map_err(|e| e.at(&self.name()))?;
        index.replace_with(loaded.index, now_ms);
        self.file_index.filled();
        self.stale_scan.finish(index);
        self.set_position(Position {
            tip: loaded.tip,
            counters: loaded.counters,
            schema_version: loaded.schema_version,
            missing: None,
        });
        self.data_version = Some(version);
        self.claims = claims::ClaimsCache::Unknown;
        Ok((base == 0).then_some(loaded.expired))
    }
}

/// One page of rows.
struct Page {
    position: Position,
    count: usize,
    /// Whether rows may have been deleted without a newer row that says so.
    may_be_stale: bool,
}

pub(crate) fn read_data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Returns the `seq` of the newest row.
pub(super) fn read_newest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT max(seq) FROM seen")?.query_row([], |row| row.get(0))
}

pub(crate) fn read_schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}
