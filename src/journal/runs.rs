//! Sorted runs: an index of the table `seen` that lies in the file.
//!
//! A run holds an entry for each row of a range of `seq`: the hash of its id, and the `seq`. Its entries are in the order
//! of the hashes, in blocks, so that one descent of a B-tree finds those of an id. The runs of a file follow each other
//! without a gap, from the first row to the row up to which they are *complete*; what came after it is the *tail*, which
//! a store reads when it opens. (The ideas: Bitcask's hint files, Sheehy and Smith, 2010, from which it fills its key
//! directory; and the sorted tables of `LevelDB` and of the LSM tree, O'Neil et al., 1996, which are merged in the
//! background.)
//!
//! Owns the tables `runs` and `blocks`. What always holds:
//!
//! - For each row in the table whose `seq` is at most [`Runs::complete_to`], also a tombstone, an active run has an entry.
//!   Rows are only appended, so what was complete once stays so, whatever is written, forgotten, purged or removed later.
//! - An entry proves nothing. Its row may be gone, or be of another id with the same hash. So a row counts only once it
//!   was found in the table, in the same snapshot. No removal has to change a run.
//! - Runs are derived from the table. What does not fit (a checksum, a gap, another hash key) makes all of them
//!   unusable; they are thrown away, and made anew.
//! - A run is active or not at all: it is written in one transaction, or, when it is merged from others in several, becomes
//!   active in the transaction in which these stop being so.
//!
//! Knows nothing of the index in memory, and begins no transaction.

mod block;
mod check;
mod merge;
mod write;

use std::collections::BTreeSet;
use std::hash::Hasher;

use rusqlite::{Connection, OptionalExtension};

pub(crate) use self::block::Entry;
use self::block::{Block, END, place_of, row_number};
pub(crate) use self::check::Check;
pub(crate) use self::merge::{Step, StepLimits, gone_left};
use super::catch_up::read_newest;
use super::load::ReadError;
use crate::id::KeyHasher;
use crate::index::hashes_of_shard;

/// How many blocks are read in one statement.
const BLOCKS_AT_ONCE: u32 = 128;
/// The highest number of a run. So many because a burst of writes may leave many to be merged.
const MAX_NUMBER: u16 = i16::MAX.unsigned_abs() - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active = 1,
    /// Being merged from the active runs of its range.
    Building = 2,
    /// Not used any more; its blocks are being deleted.
    Dropped = 3,
}

/// The header of a run: its row in the table `runs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    number: u16,
    state: State,
    /// The range of `seq`, from the first after `after` to `last`.
    after: i64,
    last: i64,
    entries: i64,
    /// The place up to which a run that is being built is written.
    written_to: u64,
    /// How many marks all runs were about when a merge looked for each row of this one; [`NEVER`] if none did.
    marks: i64,
}

/// See [`Run::marks`].
const NEVER: i64 = i64::MAX;

impl Run {
    fn checksum(&self, hasher: &KeyHasher) -> i64 {
        let mut state = hasher.checksum();
        state.write_u16(self.number);
        state.write_u8(self.state as u8);
        let written_to = self.written_to.cast_signed();
        for number in [self.after, self.last, self.entries, written_to, self.marks] {
            state.write_i64(number);
        }
        state.finish().cast_signed()
    }

    fn read(row: &rusqlite::Row<'_>, hasher: &KeyHasher) -> Result<Self, ReadError> {
        let number = row.get::<_, i64>(0)?.try_into();
        let number = number.map_err(|_| ReadError::Index("a run has a number out of range"))?;
        let state = match row.get(1)? {
            1 => State::Active,
            2 => State::Building,
            3 => State::Dropped,
            _ => return Err(ReadError::Index("a run has a state that no store writes")),
        };
        let written_to = row.get::<_, i64>(5)?.cast_unsigned();
        let run = Self {
            number,
            state,
            after: row.get(2)?,
            last: row.get(3)?,
            entries: row.get(4)?,
            written_to,
            marks: row.get(6)?,
        };
        if run.checksum(hasher) != row.get::<_, i64>(7)? {
            return Err(ReadError::Index("the header of a run has a wrong checksum"));
        }
        Ok(run)
    }

    /// Writes the header, also over the one that there is.
    fn save(&self, connection: &Connection, hasher: &KeyHasher) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO runs (run, state, after, last, entries, written_to, marks, checksum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                self.number,
                self.state as u8,
                self.after,
                self.last,
                self.entries,
                self.written_to.cast_signed(),
                self.marks,
                self.checksum(hasher),
            ))
            .map(drop)
    }

    /// Reads the block in which entries of this place are.
    fn with_block<T>(
        &self,
        connection: &Connection,
        hasher: &KeyHasher,
        place: u64,
        read: impl FnOnce(&Block<'_>) -> T,
    ) -> Result<T, ReadError> {
        let mut statement = connection.prepare_cached(
            "SELECT place, entries FROM blocks WHERE place <= ?1 ORDER BY place DESC LIMIT 1",
        )?;
        let mut rows = statement.query([row_number(self.number, place)])?;
        let row = rows.next()?.ok_or(ReadError::Index("a run has lost its first block"))?;
        let block = self.block(row, hasher)?.1;
        if block.next <= place {
            return Err(ReadError::Index("a run has lost a block"));
        }
        Ok(read(&block))
    }

    /// Returns the block in a row of `place` and `entries`, and its place.
    fn block<'a>(
        &self,
        row: &'a rusqlite::Row<'_>,
        hasher: &KeyHasher,
    ) -> Result<(u64, Block<'a>), ReadError> {
        let number = row.get(0)?;
        let place = place_of(self.number, number)
            .ok_or(ReadError::Index("a run has lost its first block"))?;
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let block = Block::decode(bytes, number, hasher)
            .ok_or(ReadError::Index("a block of a run has a wrong checksum"))?;
        Ok((place, block))
    }

    /// Appends the entries of up to `limit` blocks to `entries`, from the block of this place on. Returns the place
    /// where the first block begins that was not read.
    fn read_blocks(
        &self,
        connection: &Connection,
        hasher: &KeyHasher,
        from: u64,
        limit: u32,
        entries: &mut Vec<Entry>,
    ) -> Result<u64, ReadError> {
        let mut statement = connection.prepare_cached(
            "SELECT place, entries FROM blocks WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT ?3",
        )?;
        let first = self.first_place(connection, from)?;
        let (first, last) = (row_number(self.number, first), row_number(self.number, END - 1));
        let mut rows = statement.query((first, last, limit))?;
        let mut expected = None;
        while let Some(row) = rows.next()? {
            let (place, block) = self.block(row, hasher)?;
            if expected.is_some_and(|expected| expected != place) {
                return Err(ReadError::Index("a run has lost a block"));
            }
            entries.extend(block.entries().filter(|entry| entry.hash >= from));
            expected = Some(block.next);
        }
        match expected {
            Some(next) if next > from => Ok(next),
            _ => Err(ReadError::Index("a run has lost a block")),
        }
    }

    /// Returns where the block of this place begins.
    fn first_place(&self, connection: &Connection, place: u64) -> Result<u64, ReadError> {
        let found: Option<i64> = connection
            .prepare_cached("SELECT max(place) FROM blocks WHERE place <= ?1")?
            .query_row([row_number(self.number, place)], |row| row.get(0))?;
        found
            .and_then(|number| place_of(self.number, number))
            .ok_or(ReadError::Index("a run has lost its first block"))
    }
}

/// The headers of all runs, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// The newest first.
    active: Vec<Run>,
    building: Option<Run>,
    dropped: Vec<u16>,
}

impl Runs {
    /// Reads the headers.
    pub(crate) fn read(connection: &Connection, hasher: &KeyHasher) -> Result<Self, ReadError> {
        let mut statement = connection.prepare_cached(
            "SELECT run, state, after, last, entries, written_to, marks, checksum FROM runs \
             ORDER BY last DESC, run",
        )?;
        let mut rows = statement.query([])?;
        let mut runs = Self::default();
        while let Some(row) = rows.next()? {
            let run = Run::read(row, hasher)?;
            match run.state {
                State::Active => runs.active.push(run),
                State::Building if runs.building.is_none() => runs.building = Some(run),
                State::Building => return Err(ReadError::Index("two runs are being merged")),
                State::Dropped => runs.dropped.push(run.number),
            }
        }
        let mut newer = None;
        for run in &runs.active {
            let fits = newer.is_none_or(|newer| newer == run.last) && run.after < run.last;
            if !fits {
                return Err(ReadError::Index("there is a gap between two runs"));
            }
            newer = Some(run.after);
        }
        if newer.is_some_and(|first| first != 0) {
            return Err(ReadError::Index("the first run is missing"));
        }
        // The newest row is never deleted, so a store has not written this. The rows that come next would have no entry.
        if runs.complete_to() > read_newest(connection)?.unwrap_or(0) {
            return Err(ReadError::Index("the runs go on after the last row"));
        }
        Ok(runs)
    }

    /// Returns the `seq` up to which each row of the table has an entry; 0 without runs.
    pub(crate) fn complete_to(&self) -> i64 {
        self.active.first().map_or(0, |newest| newest.last)
    }

    /// Returns the number of entries, also of those whose rows are gone.
    pub(crate) fn entries(&self) -> i64 {
        self.active.iter().map(|run| run.entries).sum()
    }

    /// Calls `found` with the rows that ids with this hash may have, the newest first, until it returns something.
    pub(crate) fn find<T>(
        &self,
        connection: &Connection,
        hasher: &KeyHasher,
        hash: u64,
        mut found: impl FnMut(i64) -> Result<Option<T>, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        for run in &self.active {
            let answer = run.with_block(connection, hasher, hash, |block| {
                block.rows_of(hash).find_map(|seq| found(seq).transpose()).transpose()
            })??;
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    /// Returns the entries of the ids of one shard of the index, of all runs, in no order.
    pub(crate) fn entries_of_shard(
        &self,
        connection: &Connection,
        hasher: &KeyHasher,
        shard: u8,
    ) -> Result<Vec<Entry>, ReadError> {
        let range = hashes_of_shard(shard);
        let mut entries = Vec::new();
        for run in &self.active {
            let mut from = range.start;
            while from < range.end {
                from = run.read_blocks(connection, hasher, from, BLOCKS_AT_ONCE, &mut entries)?;
            }
        }
        entries.retain(|entry| range.contains(&entry.hash));
        Ok(entries)
    }

    /// Returns a number that no run has; `None` if there is none left.
    ///
    /// # Errors
    ///
    /// [`ReadError::Index`] if there are blocks under that number: they would be taken for those of the new run.
    fn free_number(&self, connection: &Connection) -> Result<Option<u16>, ReadError> {
        let used = self.active.iter().chain(&self.building).map(|run| run.number);
        let used: BTreeSet<u16> = used.chain(self.dropped.iter().copied()).collect();
        let Some(number) = (1..=MAX_NUMBER).find(|number| !used.contains(number)) else {
            return Ok(None);
        };
        let has_blocks = connection
            .prepare_cached("SELECT 1 FROM blocks WHERE place BETWEEN ?1 AND ?2")?
            .exists((row_number(number, 0), row_number(number, END - 1)))?;
        if has_blocks {
            return Err(ReadError::Index("there are blocks that belong to no run"));
        }
        Ok(Some(number))
    }
}

/// Returns whether the file has the tables of runs: one that an earlier program made has not.
pub(crate) fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT count(*) = 3 FROM sqlite_schema WHERE name IN ('blocks', 'counts', 'runs')",
        )?
        .query_row([], |row| row.get(0))
}

/// Returns the key under which the ids of the file are hashed, if it has one.
pub(crate) fn hash_key(connection: &Connection) -> rusqlite::Result<Option<[u8; 16]>> {
    let key: Option<Option<[u8; 16]>> = connection
        .prepare_cached("SELECT value FROM meta WHERE key = 'hash_key'")?
        .query_row([], |row| Ok(row.get_ref(0)?.as_blob().ok().and_then(|key| key.try_into().ok())))
        .optional()?;
    Ok(key.flatten())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;
    use crate::format::create::create_in_memory;

    const MANY: i64 = i64::MAX / 4;

    /// A table in which each row is only its number, and the runs about it.
    struct Bench {
        connection: Connection,
        hasher: KeyHasher,
        runs: Runs,
        hashes: BTreeMap<i64, u64>,
        random: u64,
    }

    impl Bench {
        fn new() -> Self {
            let connection = create_in_memory(&Config::default()).unwrap();
            let hasher = KeyHasher::random();
            let runs = Runs::default();
            Self { connection, hasher, runs, hashes: BTreeMap::new(), random: 1 }
        }

        fn next_random(&mut self) -> u64 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.random ^ self.random >> 29
        }

        /// Appends rows and writes a run of them. Some have the same hash, or one that differs in its last bits.
        fn append(&mut self, count: usize) {
            let mut entries = Vec::new();
            for _ in 0..count {
                let seq = self.hashes.keys().next_back().map_or(1, |last| last + 1);
                let hash = match self.next_random() % 8 {
                    0 => self.hashes.values().next_back().copied().unwrap_or(7),
                    1 => self.hashes.values().next_back().map_or(7, |hash| hash ^ 5),
                    2 => END - 1 - self.next_random() % 3,
                    3 => self.next_random() % 3,
                    _ => self.next_random() % END,
                };
                self.connection
                    .execute(
                        "INSERT INTO seen (seq, id, first_seen, last_seen) VALUES (?1, 'x', 1, 1)",
                        [seq],
                    )
                    .unwrap();
                self.hashes.insert(seq, hash);
                entries.push(Entry { hash, seq });
            }
            let last = *self.hashes.keys().next_back().unwrap();
            entries.sort_unstable();
            assert!(self.runs.append(&self.connection, &self.hasher, last, &entries).unwrap());
        }

        fn delete(&mut self, seq: i64) {
            self.connection.execute("DELETE FROM seen WHERE seq = ?1", [seq]).unwrap();
            self.hashes.remove(&seq);
        }

        fn find(&self, hash: u64) -> Result<Vec<i64>, ReadError> {
            let mut found = Vec::new();
            self.runs.find(&self.connection, &self.hasher, hash, |seq| {
                found.push(seq);
                Ok(None::<()>)
            })?;
            Ok(found)
        }

        /// Each row is found by its hash, the newest first, and by its shard.
        fn check(&self) {
            let read = Runs::read(&self.connection, &self.hasher).unwrap();
            let headers = |runs: &Runs| format!("{:?} {:?}", runs.active, runs.building);
            assert_eq!(headers(&read), headers(&self.runs));
            for (seq, hash) in &self.hashes {
                let found = self.find(*hash).unwrap();
                assert!(found.contains(seq), "row {seq} of {hash:x} is missing: {found:?}");
                assert!(found.is_sorted_by(|one, other| one > other), "{found:?}");
            }
            let mut all = Vec::new();
            for shard in 0..=255 {
                let entries = self.runs.entries_of_shard(&self.connection, &self.hasher, shard);
                all.extend(entries.unwrap());
            }
            let kept = self.hashes.iter().all(|(&seq, &hash)| all.contains(&Entry { hash, seq }));
            assert!(kept, "an entry is in no shard");
        }

        /// Does a step of the work that there is; returns false if there is none.
        fn step(&mut self, marks: i64) -> bool {
            self.runs.do_step(&self.connection, &self.hasher, marks)
        }

        /// Does all the work that there is, and checks after each step.
        fn work(&mut self, marks: i64) {
            while self.step(marks) {
                self.check();
            }
        }
    }

    #[test]
    fn every_row_is_found_in_runs_that_are_written_merged_and_thrown_away() {
        let mut bench = Bench::new();
        for count in [1, 69, 70, 500, 3_000, 1, 1, 1, 1, 1, 1, 1, 1, 20_000, 5_000, 5_000, 5_000] {
            bench.append(count);
            bench.check();
            bench.work(MANY);
        }
        assert!(bench.runs.active.len() < 8, "{:?}", bench.runs);
        let blocks = |bench: &Bench| -> i64 {
            bench.connection.query_row("SELECT count(*) FROM blocks", [], |row| row.get(0)).unwrap()
        };
        let before = blocks(&bench);
        let newest = *bench.hashes.keys().next_back().unwrap();
        let is_gone = |seq: &i64| seq % 16 != 0 && *seq != newest;
        let gone: Vec<i64> = bench.hashes.keys().copied().filter(is_gone).collect();
        for seq in gone {
            bench.delete(seq);
        }
        bench.work(i64::try_from(bench.hashes.len()).unwrap());
        assert!(blocks(&bench) < before / 8, "entries of rows that are gone were kept");
        bench.runs = Runs::drop_all(&bench.connection, &bench.hasher).unwrap();
        assert_eq!((bench.runs.complete_to(), bench.find(7).unwrap().len()), (0, 0));
        while bench.step(MANY) {}
        assert_eq!(blocks(&bench), 0);
    }

    #[test]
    fn a_merge_goes_on_where_another_store_left_it() {
        let mut bench = Bench::new();
        for _ in 0..4 {
            bench.append(5_000);
        }
        let mut steps = 0;
        while bench.step(MANY) {
            steps += 1;
            bench.runs = Runs::read(&bench.connection, &bench.hasher).unwrap();
            bench.check();
        }
        assert!(steps > 4 && bench.runs.active.len() == 1, "{steps} steps: {:?}", bench.runs);
    }

    #[test]
    fn the_less_time_callers_leave_the_more_runs_are_merged_at_once() {
        let mut bench = Bench::new();
        let merged = |bench: &Bench, limits| match bench
            .runs
            .read_step(&bench.connection, &bench.hasher, MANY, limits)
            .unwrap()
        {
            Some(Step::Begin(output)) => bench.runs.inputs(&output).count(),
            _ => 0,
        };
        for runs in 1..=40 {
            bench.append(5);
            let at_once = |fan_in| if runs < fan_in { 0 } else { runs.min(32) };
            assert_eq!(merged(&bench, StepLimits::small()), at_once(4));
            assert_eq!(merged(&bench, StepLimits::beside_long_calls()), at_once(16));
            assert_eq!(bench.runs.has_work(MANY), runs >= 4, "{runs} runs");
        }
    }

    /// Whatever is done to the tables, a lookup fails rather than miss a row.
    #[test]
    fn damage_is_noticed_by_the_lookups_that_it_would_mislead() {
        for damage in [
            "DELETE FROM blocks WHERE place = (SELECT max(place) FROM blocks)",
            "DELETE FROM blocks WHERE place = (SELECT min(place) FROM blocks)",
            "DELETE FROM blocks WHERE place = (SELECT place FROM blocks ORDER BY place LIMIT 1 OFFSET 9)",
            "DELETE FROM blocks",
            "UPDATE blocks SET entries = \
             CAST(substr(entries, 1, length(entries) - 12) || substr(entries, -4) AS BLOB)",
            "UPDATE blocks SET entries = zeroblob(length(entries))",
            "UPDATE blocks SET entries = x''",
            "UPDATE OR REPLACE blocks SET place = place + 1 \
             WHERE place = (SELECT place FROM blocks ORDER BY place LIMIT 1 OFFSET 9)",
            "UPDATE runs SET last = last + 1",
            "UPDATE runs SET last = last + 1 WHERE run = (SELECT max(run) FROM runs)",
            "UPDATE runs SET after = after + 1",
            "UPDATE runs SET state = 2",
            "UPDATE runs SET state = 9",
            "UPDATE runs SET run = run + 10",
            "DELETE FROM runs WHERE after = 0",
            "DELETE FROM runs WHERE run = (SELECT run FROM runs ORDER BY last LIMIT 1 OFFSET 1)",
        ] {
            let mut bench = Bench::new();
            for _ in 0..3 {
                bench.append(2_000);
            }
            bench.connection.execute_batch(damage).expect(damage);
            let runs = Runs::read(&bench.connection, &bench.hasher);
            let Ok(runs) = runs else { continue };
            bench.runs = runs;
            let covered = |seq: i64| seq <= bench.runs.complete_to();
            let missed = bench.hashes.iter().filter(|(seq, _)| covered(**seq));
            let mut failed = 0;
            for (seq, hash) in missed {
                match bench.find(*hash) {
                    Err(ReadError::Index(_)) => failed += 1,
                    found => assert!(found.unwrap().contains(seq), "{damage}: row {seq} is missed"),
                }
            }
            assert!(failed > 0, "{damage}: nothing noticed");
        }
    }

    #[test]
    fn runs_under_another_key_are_refused() {
        let mut bench = Bench::new();
        bench.append(10);
        let other = Runs::read(&bench.connection, &KeyHasher::random());
        assert!(matches!(other, Err(ReadError::Index(_))));
    }
}
