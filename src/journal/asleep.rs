//! An index that is asleep: what it does not hold is looked up in the file, in the sorted runs.
//!
//! Owns the choice between memory and file, and when the index wakes. What always holds: the index holds the newest
//! row of each id with a `seq` above its base, whatever became of it, and the runs have an entry for each row up to
//! there. A lookup reads both in one snapshot. So it finds the newest row of an id, also one that another store wrote,
//! while other stores change the runs.
//!
//! What a lookup found in the file stays in the index, as if it had been read when the store opened, up to
//! [`max_remembered()`] rows. An index that has been asked for so much that it would have been cheaper to read the whole
//! file does that, in small steps: it *wakes*.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use rusqlite::Connection;

use super::load::{ReadError, RowKeys, key_columns, row_at};
use super::runs::{self, Entry, Runs};
use super::transaction::KeyIsHash;
use super::{Journal, counts, run};
use crate::config::IndexMode;
use crate::error::{Error, Result};
use crate::format::sqlite_errors::is_corrupt;
use crate::id::Key;
use crate::index::{Index, Slot, run_hash, stored};
use crate::machine::index_size;

/// How many rows found in the file stay in an index that is asleep: about 3 MB.
fn max_remembered() -> i64 {
    index_size!(65_536, in_tests: 4)
}
/// How many ids are remembered that have no row in the file: about 3 MB.
fn max_absent() -> usize {
    index_size!(65_536, in_tests: 4)
}
/// A file with so few marks is read whole when it is opened.
pub(super) fn always_awake() -> i64 {
    index_size!(4_096, in_tests: 3)
}
/// A lookup in the file takes as long as reading this many rows.
const ROWS_PER_LOOKUP: i64 = 32;
/// The fewest lookups in the file after which an index wakes.
fn min_lookups() -> i64 {
    index_size!(1_000, in_tests: 6)
}

/// What was found to be wrong with runs.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    what: &'static str,
    /// Which runs they were, if their headers could be read. Another store may have made them anew since.
    runs: Option<Arc<Runs>>,
}

impl Damage {
    pub(super) fn of(runs: Option<Runs>, what: &'static str) -> Self {
        Self { what, runs: runs.map(Arc::new) }
    }
}

/// Whether a store reads and writes the index in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Usability {
    /// It cannot: the file has none, or hashes ids under another key.
    #[default]
    None,
    Usable,
    /// It does so no more: SQLite found damage in its pages.
    Corrupt,
}

/// What a store knows of the index in the file.
#[derive(Default)]
pub(super) struct FileIndex {
    /// The runs as of the last catch-up, if nothing has committed since. Read again when needed.
    runs: Option<(Option<i64>, Arc<Runs>)>,
    /// The last row that they cover, likewise.
    covered: Option<(Option<i64>, i64)>,
    /// The last row that they covered when this store last read or wrote them.
    pub(super) complete_to: i64,
    /// Whether there were runs to merge or delete then, or many marks were deleted since.
    pub(super) has_work: bool,
    /// How many marks that the runs are about this store has deleted since that was found out.
    pub(super) gone: i64,
    /// How many transactions of this store have deleted marks.
    pub(super) deletions: u64,
    /// Whether a thread was woken that writes to the index in the file.
    pub(super) is_kept_up: bool,
    pub(super) usability: Usability,
    /// Ids that have no row up to the index's base. Rows are only appended, so that stays so.
    absent: HashSet<Key, BuildHasherDefault<KeyIsHash>>,
    /// How many rows were found in the file since the index was filled or emptied.
    remembered: i64,
    /// How many lookups had to read the file since the index was filled.
    lookups: i64,
    /// Up to which `seq` the index was filled, if it is waking.
    woken_to: Option<i64>,
    /// What was wrong with the runs. They are thrown away at the next opportunity.
    pub(super) damage: Option<Damage>,
}

impl FileIndex {
    /// Forgets what was known by the connection's count of commits, because there is a new connection.
    pub(super) fn reopened(&mut self) {
        (self.runs, self.covered) = (None, None);
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usability == Usability::Usable
    }

    pub(super) fn is_corrupt(&self) -> bool {
        self.usability == Usability::Corrupt
    }

    /// Records that the index in memory was filled.
    pub(super) fn filled(&mut self) {
        (self.remembered, self.lookups, self.woken_to) = (0, 0, None);
        self.absent.clear();
    }
}

impl Journal {
    /// Finds out whether this store can use the runs of the file, and returns after which `seq` the index has to be
    /// filled from the table; 0 for all of it. The caller has a snapshot.
    pub(super) fn first_to_load(&mut self) -> Result<i64, ReadError> {
        let connection = self.open_connection();
        let is_usable = runs::has_tables(connection)?
            && runs::hash_key(connection)?.is_some_and(|key| self.hasher.has_key(key));
        self.file_index.reopened();
        self.file_index.usability = if is_usable { Usability::Usable } else { Usability::None };
        if !is_usable {
            return Ok(0);
        }
        let connection = self.open_connection();
        let runs = self.sound_runs(connection).and_then(|runs| {
            let marks = counts::total(connection)?;
            Ok((runs, marks))
        });
        match runs.map_err(ReadError::in_the_index) {
            Ok((runs, marks)) => {
                let known = &mut self.file_index;
                (known.complete_to, known.has_work) = (runs.complete_to(), runs.has_work(marks));
                known.damage = None;
                let all = marks <= always_awake() || self.config.index == IndexMode::Awake;
                Ok(if all { 0 } else { runs.complete_to() })
            }
            Err(ReadError::Index(what)) => {
                self.runs_are_damaged(what);
                Ok(0)
            }
            Err(e) => Err(e),
        }
    }

    /// Reads the headers of the runs. Fails if they are those that are known to be damaged.
    pub(super) fn sound_runs(&self, connection: &Connection) -> Result<Runs, ReadError> {
        let runs = Runs::read(connection, &self.hasher)?;
        match &self.file_index.damage {
            Some(Damage { what, runs: Some(damaged) }) if **damaged == runs => {
                Err(ReadError::Index(what))
            }
            _ => Ok(runs),
        }
    }

    /// Records that SQLite finds damage in the pages of the index in the file, and returns the error with which a caller
    /// begins again: SQLite commits no transaction that met such a page.
    pub(super) fn index_is_corrupt(&mut self) -> Error {
        let name = self.name();
        log::warn!(
            file = name.as_str();
            "{name}: SQLite finds damage in the pages of the index in the file, which is not used any more; no mark is \
             lost: compact the store, which makes the index anew"
        );
        self.file_index.usability = Usability::Corrupt;
        Error::try_again()
    }

    /// Records that a transaction of this store has thrown the runs away.
    pub(super) fn runs_are_gone(&mut self) {
        self.file_index.reopened();
        (self.file_index.complete_to, self.file_index.has_work) = (0, true);
    }

    /// Records that the runs, as they are now, are damaged, so that they are thrown away.
    pub(super) fn runs_are_damaged(&mut self, what: &'static str) {
        let runs = self.connection.as_ref().and_then(|it| Runs::read(it, &self.hasher).ok());
        self.record_damage(Damage::of(runs, what));
    }

    pub(super) fn record_damage(&mut self, damage: Damage) {
        let what = damage.what;
        if self.file_index.damage.is_none() {
            let name = self.name();
            log::warn!(
                file = name.as_str();
                "{name}: the index in the file is damaged: {what}; no mark is lost: it is read from the table, and a \
                 store that writes to the file makes it anew"
            );
        }
        let known = &mut self.file_index;
        known.damage = Some(damage);
        (known.complete_to, known.has_work) = (0, true);
    }

    /// Returns the newest row of an id, expired or not, from the index or else from the file.
    pub(crate) fn newest(&mut self, index: &Index, key: Key, now_ms: i64) -> Result<Option<Slot>> {
        if let Some(slot) = index.get(key) {
            return Ok(Some(slot));
        }
        self.newest_in_file(index, key, now_ms)
    }

    /// Returns the newest row of an id of which the index knows nothing.
    pub(super) fn newest_in_file(
        &mut self,
        index: &Index,
        key: Key,
        now_ms: i64,
    ) -> Result<Option<Slot>> {
        if index.is_complete() {
            return Ok(None);
        }
        self.in_snapshot(index, now_ms, |journal| match index.get(key) {
            Some(slot) => Ok(Some(slot)),
            None => journal.find_in_runs(index, key),
        })
    }

    /// Looks for ids in the file, in one snapshot, before a transaction decides on them, which then knows the answers. So
    /// what the disk takes keeps no other store waiting for the write lock.
    pub(crate) fn look_ahead(&mut self, index: &Index, keys: &[Key], now_ms: i64) -> Result<()> {
        let is_known = |known: &FileIndex, key| known.absent.contains(&key);
        if index.is_complete() || keys.iter().all(|key| is_known(&self.file_index, *key)) {
            return Ok(());
        }
        let absent = self.in_snapshot(index, now_ms, |journal| {
            let mut absent = Vec::new();
            for key in keys.iter().filter(|key| index.get(**key).is_none()) {
                if !is_known(&journal.file_index, *key)
                    && journal.find_in_runs(index, *key)?.is_none()
                {
                    absent.push(*key);
                }
            }
            Ok(absent)
        })?;
        let known = &mut self.file_index.absent;
        if known.len() + absent.len() > max_absent() {
            known.clear();
        }
        known.extend(absent);
        Ok(())
    }

    /// Returns whether the id has no row in the file besides those that the index holds, as far as this is known.
    pub(super) fn is_absent(&self, key: Key) -> bool {
        self.file_index.absent.contains(&key)
    }

    /// Calls `read` in a read transaction in which the index is up to date.
    pub(super) fn in_snapshot<T>(
        &mut self,
        index: &Index,
        now_ms: i64,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.ensure_open()?;
        if !self.open_connection().is_autocommit() {
            return read(self); // The caller has a write transaction open, and has caught up in it.
        }
        for _ in 0..2 {
            self.with("read", |connection| run(connection, "BEGIN"))?;
            let done = match self.catch_up_within(index, now_ms) {
                Ok(true) => read(self).map(Some),
                Ok(false) => Ok(None),
                Err(e) => Err(e),
            };
            self.end_read();
            if let Some(answer) = done? {
                return Ok(answer);
            }
            self.catch_up(index, now_ms)?;
        }
        Err(Error::try_again())
    }

    /// Ends a read transaction.
    pub(super) fn end_read(&mut self) {
        let Some(connection) = &self.connection else { return };
        if let Err(e) = run(connection, "COMMIT") {
            let file = self.name();
            log::debug!(file = file.as_str(), error:% = e; "{file}: cannot end a read: {e}");
            self.rollback();
        }
    }

    /// Brings the index up to date within a read transaction. Returns false if it has to be filled anew.
    fn catch_up_within(&mut self, index: &Index, now_ms: i64) -> Result<bool> {
        if index.is_ahead_of(now_ms) {
            return Ok(false);
        }
        if self.is_private() && self.data_version.is_some() {
            index.record_use(now_ms);
            return Ok(true);
        }
        let version = self.read_data_version()?;
        self.catch_up_in_transaction(index, now_ms, version, true)
    }

    /// Looks the newest row of an id up in the runs. The caller has a transaction open in which the index is up to date,
    /// and does not hold the id.
    pub(super) fn find_in_runs(&mut self, index: &Index, key: Key) -> Result<Option<Slot>> {
        self.file_index.lookups += 1;
        let runs = self.runs_below(index.base())?;
        let (connection, hasher) = (self.open_connection(), &self.hasher);
        let found = runs.find(connection, hasher, run_hash(key), |seq| {
            let row = row_at(connection, hasher, seq)?;
            Ok(row.filter(|row| stored(row.key) == stored(key)).map(|row| row.slot))
        });
        match found {
            Ok(Some(slot)) => {
                index.put(key, slot);
                self.file_index.remembered += 1;
                Ok(Some(slot))
            }
            Ok(None) => Ok(None),
            Err(e) => Err(self.runs_failed(e)),
        }
    }

    /// Returns the entries of the runs for one shard of the index. The caller has a transaction open.
    pub(super) fn entries_of_shard(&mut self, index: &Index, shard: u8) -> Result<Vec<Entry>> {
        let runs = self.runs_below(index.base())?;
        let entries = runs.entries_of_shard(self.open_connection(), &self.hasher, shard);
        entries.map_err(|e| self.runs_failed(e))
    }

    /// Returns what is stored of the keys that have this hash, by the runs. The caller has a transaction open.
    pub(super) fn keys_in_runs(&mut self, index: &Index, hash: u64) -> Result<Vec<Key>> {
        let runs = self.runs_below(index.base())?;
        let (connection, hasher) = (self.open_connection(), &self.hasher);
        let mut keys = Vec::new();
        let all = runs.find(connection, hasher, hash, |seq| {
            let row = row_at(connection, hasher, seq)?;
            keys.extend(row.map(|row| stored(row.key)).filter(|key| run_hash(*key) == hash));
            Ok(None::<()>)
        });
        all.map_err(|e| self.runs_failed(e))?;
        Ok(keys)
    }

    /// Returns the runs, if they have what the index in memory may lack: the rows up to `base`.
    fn runs_below(&mut self, base: i64) -> Result<Arc<Runs>> {
        let runs = self.current_runs()?;
        if runs.complete_to() < base {
            // Another store has thrown them away.
            return Err(self.fill_again());
        }
        Ok(runs)
    }

    /// Returns the runs as the present transaction sees them.
    fn current_runs(&mut self) -> Result<Arc<Runs>> {
        if let Some((version, runs)) = &self.file_index.runs
            && *version == self.data_version
        {
            return Ok(Arc::clone(runs));
        }
        self.ensure_open()?;
        let runs = self.sound_runs(self.open_connection());
        let runs = Arc::new(runs.map_err(|e| self.runs_failed(e))?);
        self.file_index.runs = Some((self.data_version, Arc::clone(&runs)));
        self.file_index.complete_to = runs.complete_to();
        Ok(runs)
    }

    /// Returns the error for a call that read runs. If they are damaged, the call is made again, with an index that is
    /// filled from the table alone.
    fn runs_failed(&mut self, error: ReadError) -> Error {
        match error.in_the_index() {
            ReadError::Index(what) => {
                self.runs_are_damaged(what);
                self.fill_again()
            }
            error => error.at(&self.name()),
        }
    }

    /// Lets the next catch-up fill the index anew, and returns the error with which a call tries again.
    fn fill_again(&mut self) -> Error {
        self.discard_position();
        Error::try_again()
    }

    /// Returns the number of the last row that the runs of the file cover, whether or not this store can use them; 0 if
    /// SQLite finds damage in their pages.
    pub(super) fn covered_by_runs(&mut self) -> Result<i64> {
        if let Some((version, covered)) = self.file_index.covered
            && version == self.data_version
        {
            return Ok(covered);
        }
        if self.file_index.is_corrupt() {
            return Ok(0);
        }
        let covered = match counts::covered(self.open_connection()) {
            Err(e) if is_corrupt(&e) => return Err(self.index_is_corrupt()),
            covered => covered.map_err(|e| self.failure("read", e))?,
        };
        self.file_index.covered = Some((self.data_version, covered));
        Ok(covered)
    }

    /// Frees the memory of an index that is asleep, once it holds many rows that are found in the file too.
    pub(crate) fn forget_remembered(&mut self, index: &Index) {
        let known = &self.file_index;
        let may_forget = known.is_usable()
            && known.damage.is_none()
            && known.woken_to.is_none()
            && (!index.is_complete() || self.config.index == IndexMode::Asleep);
        let tail = self.newest_seq() - known.complete_to;
        if may_forget && tail >= max_remembered() && self.current_runs().is_err() {
            return; // How far the runs of other stores have come is unknown.
        }
        let known = &self.file_index;
        let base = known.complete_to.min(self.newest_seq()).max(index.base());
        if may_forget && known.remembered + (base - index.base()) >= max_remembered() {
            let was_complete = index.is_complete();
            index.forget_up_to(base);
            self.file_index.remembered = 0;
            self.file_index.absent.clear();
            if was_complete && self.take_in_what_ended(index, base).is_err() {
                self.discard_position();
            }
        }
    }

    /// Takes in the newest row of each id after `base` whatever became of it: an index that held all had no need of those
    /// that have ended.
    fn take_in_what_ended(&mut self, index: &Index, base: i64) -> Result<()> {
        self.ensure_open()?;
        let read = |connection: &Connection| -> Result<(), ReadError> {
            let mut statement = connection.prepare_cached(concat!(
                "SELECT ",
                key_columns!(),
                " FROM seen WHERE seq > ?1 ORDER BY seq"
            ))?;
            let mut rows = statement.query([base])?;
            let mut keys = RowKeys::new(&self.hasher);
            while let Some(row) = rows.next()? {
                let row = keys.read(row)?;
                index.put(row.key, row.slot);
            }
            Ok(())
        };
        read(self.open_connection()).map_err(|e| e.at(&self.name()))
    }

    /// Returns whether the index is waking. It begins to once it was asked for so much that reading the whole file would
    /// have been cheaper. (The rule of ski rental: what is spent on lookups is at most what waking costs.)
    pub(crate) fn is_waking(&mut self, index: &Index) -> bool {
        if self.config.index != IndexMode::Wakes || index.is_complete() {
            return false;
        }
        let (lookups, base) = (self.file_index.lookups, index.base());
        if lookups >= min_lookups().max(base / ROWS_PER_LOOKUP) {
            self.file_index.woken_to.get_or_insert(0);
        }
        self.file_index.woken_to.is_some()
    }

    /// Reads up to `limit` more rows into an index that is waking. Returns false once it is awake, or has to begin again.
    pub(crate) fn wake_step(&mut self, index: &Index, now_ms: i64, limit: i64) -> Result<bool> {
        self.ensure_open()?;
        let (base, Some(after)) = (index.base(), self.file_index.woken_to) else {
            return Ok(false);
        };
        if index.is_complete() || index.is_ahead_of(now_ms) || self.position.is_none() {
            return Ok(false);
        }
        index.record_use(now_ms); // It will lack what is over by now.
        let (hasher, name) = (self.hasher.clone(), self.name());
        let read = |connection: &Connection| -> Result<Option<i64>, ReadError> {
            let mut statement = connection.prepare_cached(concat!(
                "SELECT ",
                key_columns!(),
                " FROM seen WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
            ))?;
            let mut rows = statement.query((after, base, limit))?;
            let (mut keys, mut count, mut last) = (RowKeys::new(&hasher), 0, None);
            while let Some(row) = rows.next()? {
                let row = keys.read(row)?;
                if row.is_over(now_ms) {
                    // The id has no live row before this one either.
                    index.drop_up_to(row.key, row.slot.seq);
                } else {
                    index.put(row.key, row.slot);
                }
                (last, count) = (Some(row.slot.seq), count + 1);
            }
            Ok(last.filter(|_| count == limit))
        };
        let last = read(self.open_connection()).map_err(|e| e.at(&name))?;
        self.file_index.woken_to = last;
        if last.is_none() {
            index.set_base(0);
            self.file_index.filled();
            log::debug!(file = name.as_str(); "{name}: the index is awake: all of it is in memory");
        }
        Ok(last.is_some())
    }
}
