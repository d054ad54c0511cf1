//! Looks: how the index follows what other connections do to the file.
//!
//! Owns the journal's place in the file's history. What always holds:
//!
//! - A look reads the rows from the newest known one on, the *tip*. The index has taken in every row up to
//!   the tip, but for those that are in doubt (see `doubt`).
//! - The file's history may go back, when it is restored in place. SQLite's `schema_version` changes with
//!   each restore through its backup, whatever the rows look like then, and with each `VACUUM`: then the
//!   index is rebuilt. Nothing in the file can tell one from the other, since a restore brings that along.
//! - The tip must still be there, or its absence be explained: by a later row of its id, by its expiry, or
//!   by deletions that are told of in `meta`. Otherwise rows were deleted by other means than a store's, and
//!   the index is rebuilt.
//! - A place that is lost stays lost until a rebuild has succeeded, whatever fails meanwhile.

use std::time::Duration;

use rusqlite::Connection;

use super::load::{ReadError, RowKeys, load, take_in};
use super::{Journal, Tip, claims};
use crate::clock::{ABSORBED_STEP_MS, FileTime, Stopwatch};
use crate::error::Result;
use crate::id::Key;
use crate::index::Index;
use crate::machine::at_once;

/// How many rows a look reads in one statement. With more to read, the write lock is given back first.
const TAIL_ROWS: usize = at_once!(1_000, in_a_simulation: 5);

/// How long the write lock, once given back to read without it, is not given back again.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(1);

/// Bound to the rowid at or above which to read. The counters come along so that one statement, and
/// so one snapshot, answers all of a look.
const READ_TAIL: &str = "\
SELECT seq, scope, id, expires_at, \
       (SELECT value FROM meta WHERE key = 'generation'), \
       (SELECT value FROM meta WHERE key = 'floor'), \
       (SELECT value FROM meta WHERE key = 'clock') \
FROM seen WHERE seq >= ?1 ORDER BY seq LIMIT 1000";

/// The same counters for a look that finds no row.
const READ_COUNTERS: &str = "\
SELECT (SELECT value FROM meta WHERE key = 'generation'), \
       (SELECT value FROM meta WHERE key = 'floor'), \
       (SELECT value FROM meta WHERE key = 'clock')";

/// No store counts as far as this.
const MAX_COUNTER: i64 = i64::MAX / 2;

/// What the index has taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) tip: Option<Tip>,
    pub(crate) counters: Counters,
    pub(crate) schema_version: i64,
    /// A tip that was gone from the file, and that no row read so far explains.
    pub(crate) missing: Option<Key>,
}

/// What `meta` tells besides the rows.
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
            // A file that no store of this version has written to has none.
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

/// What a read of the tail found.
enum Tail {
    Complete,
    More,
    /// The index can no longer be brought up to date row by row.
    Lost,
}

impl Journal {
    /// Brings the index up to date with what other connections have committed.
    pub(crate) fn catch_up(&mut self, index: &Index, now_ms: i64) -> Result<()> {
        self.ensure_open()?;
        if self.is_private() && self.data_version.is_some() && !index.is_ahead_of(now_ms) {
            index.used_at(now_ms);
            return Ok(());
        }
        self.catch_up_now(index, now_ms)?;
        self.go_back_with_clock(index, now_ms)
    }

    pub(crate) fn catch_up_now(&mut self, index: &Index, now_ms: i64) -> Result<()> {
        // The version is read before the rows: what is committed in between is read twice, not never.
        let version = self.read_data_version()?;
        if self.data_version == Some(version) {
            return Ok(());
        }
        self.claims = claims::Known::Nothing;
        // Reading on until there is nothing more would never end beside a connection that writes as fast as
        // this one reads. What was there at the beginning is enough.
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
                Tail::Lost => {
                    self.rebuild(index, now_ms)?;
                    self.rebuilds += 1;
                    break;
                }
            }
        }
        self.data_version = Some(version);
        Ok(())
    }

    /// Fills the index anew where it was used at a later time: for this one it may lack marks that live again,
    /// and hold marks that another store has purged. Stores that follow a step of the clock agree again then,
    /// and with the file.
    fn go_back_with_clock(&mut self, index: &Index, now_ms: i64) -> Result<()> {
        if index.is_ahead_of(now_ms) {
            let history = self.position.map(|position| position.schema_version);
            self.rebuild(index, now_ms)?;
            if history != self.position.map(|position| position.schema_version) {
                self.rebuilds += 1; // The file was restored at this very moment.
            }
        }
        index.used_at(now_ms);
        Ok(())
    }

    /// Brings the index up to date under the write lock. False when that would take long, and the lock
    /// can still be given back.
    pub(crate) fn catch_up_locked(&mut self, index: &Index, now_ms: i64) -> Result<bool> {
        if index.is_ahead_of(now_ms) {
            return Ok(false);
        }
        index.used_at(now_ms);
        let version = self.read_data_version()?;
        if self.data_version == Some(version) {
            return Ok(true);
        }
        self.met_others = Some(Stopwatch::start());
        let all = self.gave_back.is_some_and(|then| then.elapsed() < GIVE_BACK_EVERY);
        self.claims = claims::Known::Nothing;
        loop {
            match self.read_tail(index, now_ms)? {
                Tail::Complete => break,
                Tail::More if all => {}
                Tail::More | Tail::Lost => return Ok(false),
            }
        }
        self.data_version = Some(version);
        Ok(true)
    }

    /// How long ago a transaction here found that another connection had committed.
    pub(crate) fn since_others(&self) -> Option<Duration> {
        self.met_others.map(Stopwatch::elapsed)
    }

    /// Whether no other connection has committed since the last look.
    pub(crate) fn is_current(&mut self) -> Result<bool> {
        self.ensure_open()?;
        if self.is_private() {
            return Ok(true);
        }
        let version = self.read_data_version()?;
        Ok(self.data_version == Some(version))
    }

    fn read_data_version(&mut self) -> Result<i64> {
        self.with("read", read_data_version)
    }

    /// The number of the newest row that the index has taken in; 0 before the first.
    pub(crate) fn newest_seq(&self) -> i64 {
        self.position.and_then(|position| position.tip).map_or(0, |tip| tip.seq)
    }

    /// The time that another store on this file has reached, if one has committed since the last call.
    pub(crate) fn take_reached(&mut self) -> Option<FileTime> {
        self.reached.take()
    }

    fn move_to(&mut self, position: Position) {
        // What this store wrote itself is no news: after a large backward step it must not go on from it.
        let (known, ms) =
            (self.position.map(|it| it.counters.clock_ms), position.counters.clock_ms);
        let is_new = known != Some(ms) || self.reached.is_some_and(|reached| reached.is_new);
        self.reached = Some(FileTime { ms, is_new });
        self.position = Some(position);
    }

    /// Reads up to [`TAIL_ROWS`] rows from the tip on into the index.
    fn read_tail(&mut self, index: &Index, now_ms: i64) -> Result<Tail> {
        let Some(known) = self.position else { return Ok(Tail::Lost) };
        let page = self.read_page(index, known, now_ms).map_err(|e| e.at(&self.name()))?;
        let Some(Page { position, count, in_doubt }) = page else {
            self.lose_position();
            return Ok(Tail::Lost);
        };
        if in_doubt {
            self.doubts.arise(index);
        }
        self.move_to(position);
        if count == TAIL_ROWS {
            return Ok(Tail::More);
        }
        if position.missing.is_some() {
            self.lose_position();
            return Ok(Tail::Lost);
        }
        Ok(Tail::Complete)
    }

    /// `None` when the file's history is no longer the one that is known. What was taken in by then is
    /// replaced by the rebuild.
    fn read_page(
        &self,
        index: &Index,
        known: Position,
        now_ms: i64,
    ) -> Result<Option<Page>, ReadError> {
        let connection = self.open_connection();
        let mut position = known;
        if read_schema_version(connection)? != known.schema_version {
            return Ok(None);
        }
        let mut statement = connection.prepare_cached(READ_TAIL)?;
        let mut rows = statement.query([known.tip.map_or(0, |tip| tip.seq)])?;
        let mut keys = RowKeys::new(&self.hasher);
        let (mut count, mut tip_is_there) = (0, known.tip.is_none());
        while let Some(row) = rows.next()? {
            let (seq, key, expires_at) = keys.read(row)?;
            if count == 0 {
                position.counters = Counters::read(row, 4)?;
                if let Some(tip) = known.tip.filter(|tip| tip.seq == seq) {
                    if tip.key != key || tip.expires_at != expires_at {
                        return Ok(None);
                    }
                    tip_is_there = true;
                }
            }
            count += 1;
            position.missing = position.missing.filter(|missing| *missing != key);
            tip_is_there |= known.tip.is_some_and(|tip| tip.key == key);
            take_in(index, seq, key, expires_at);
            position.tip = Some(Tip { seq, key, expires_at });
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
        let in_doubt =
            new.generation > old.generation || known.tip.is_some_and(|tip| tip.seq < new.floor);
        if in_doubt {
            position.missing = None;
        } else if let Some(tip) = known.tip.filter(|_| !tip_is_there) {
            // Another store's clock may be ahead of this one's.
            let may_be_purged =
                tip.expires_at.is_some_and(|at| at <= now_ms.saturating_add(ABSORBED_STEP_MS));
            if !may_be_purged {
                if position.missing.is_some() {
                    return Ok(None);
                }
                position.missing = Some(tip.key);
            }
        }
        Ok(Some(Page { position, count, in_doubt }))
    }

    /// The index no longer stands for the file: the next look rebuilds it.
    fn lose_position(&mut self) {
        (self.position, self.data_version) = (None, None);
    }

    /// Fills the index anew from the whole table. Returns how many expired rows it saw.
    pub(crate) fn rebuild(&mut self, index: &Index, now_ms: i64) -> Result<u64> {
        let version = self.read_data_version()?;
        let loaded =
            load(self.open_connection(), &self.hasher, now_ms).map_err(|e| e.at(&self.name()))?;
        index.replace_with(loaded.index, now_ms);
        self.doubts.settle(index);
        self.move_to(Position {
            tip: loaded.tip,
            counters: loaded.counters,
            schema_version: loaded.schema_version,
            missing: None,
        });
        self.data_version = Some(version);
        self.claims = claims::Known::Nothing;
        Ok(loaded.expired)
    }
}

/// What was read of the tail.
struct Page {
    position: Position,
    count: usize,
    /// Rows may have been deleted that this page does not tell of.
    in_doubt: bool,
}

pub(crate) fn read_data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// The number of the newest row.
fn read_newest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT max(seq) FROM seen")?.query_row([], |row| row.get(0))
}

pub(crate) fn read_schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}
