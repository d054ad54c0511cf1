//! Checking the runs: whether they are intact, and have an entry for each mark that they are about.
//!
//! Owns the comparison with the table, in pieces of it, from the newest covered row back to the first. For a piece, a hash
//! of each mark's entry is added up; then the run of these rows is read from its first block to its last, and the same is
//! subtracted for each entry whose mark was there. If 0 is left, each mark has its entry.
//!
//! What always holds: the memory is bounded, whatever the size of the file, and a step is small. The file may change between
//! two steps. Marks that are removed change nothing: a run never changes, so it still has their entries. If the run of the
//! piece is merged meanwhile, the piece is begun again. A run that is being built is checked once it is active. Repairs
//! nothing.

use std::hash::Hasher;

use rusqlite::Connection;

use super::block::{END, Entry, row_number};
use super::{Run, Runs};
use crate::id::KeyHasher;
use crate::journal::load::{KeyRow, ReadError, RowKeys, key_columns};
use crate::machine::step_size;

/// How many rows one step reads: about a millisecond.
const ROWS_PER_STEP: i64 = step_size!(2_000, in_a_simulation: 5);
/// How many blocks one step reads: about half a millisecond.
const BLOCKS_PER_STEP: i64 = step_size!(128, in_a_simulation: 2);
/// How many numbers of rows a piece has at most. Each takes a bit of memory: 8 MB.
const LONGEST_PIECE: i64 = step_size!(1 << 26, in_a_simulation: 16);

/// A check of the runs that is under way.
pub(crate) struct Check {
    hasher: KeyHasher,
    longest_piece: i64,
    /// The rows up to this one are not checked yet; `None` at the beginning.
    below: Option<i64>,
    piece: Option<Piece>,
}

impl Check {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Self { hasher, longest_piece: LONGEST_PIECE, below: None, piece: None }
    }

    /// Does one step, and calls `on_row` with the rows that it reads. Returns false once all is checked. Then each row
    /// that the runs cover has been read, mostly once.
    ///
    /// # Errors
    ///
    /// [`ReadError::Index`] if the runs are damaged. Then the check has ended.
    pub(crate) fn step(
        &mut self,
        connection: &Connection,
        on_row: impl FnMut(&KeyRow),
    ) -> Result<bool, ReadError> {
        let runs = Runs::read(connection, &self.hasher)?;
        let complete_to = runs.complete_to();
        let below = match self.below {
            // Runs that were thrown away meanwhile do not reach so far.
            Some(below) => below.min(complete_to),
            None => complete_to,
        };
        self.below = Some(below);
        let is_active = |piece: &Piece| runs.active.contains(&piece.run);
        let mut piece = if let Some(piece) = self.piece.take().filter(is_active) {
            piece
        } else {
            let Some(run) = runs.active.iter().find(|run| run.after < below) else {
                runs.check_owners(connection)?;
                return Ok(false);
            };
            // There may be large gaps between the numbers of rows, and no row at all.
            let last = newest_row(connection, below)?.map_or(run.after, |seq| seq.max(run.after));
            Piece::new(*run, run.after.max(last - self.longest_piece), last)
        };
        if !piece.has_marks {
            piece.add_marks(connection, &self.hasher, on_row)?;
        } else if !piece.subtract_entries(connection, &self.hasher)? {
            self.below = Some(piece.after);
            return Ok(true);
        }
        self.piece = Some(piece);
        Ok(true)
    }
}

/// Returns the number of the newest row up to this one.
fn newest_row(connection: &Connection, up_to: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT max(seq) FROM seen WHERE seq <= ?1")?
        .query_row([up_to], |row| row.get(0))
}

/// Some rows, and the run that has their entries.
struct Piece {
    run: Run,
    /// The rows from the first after `after` to `last`.
    after: i64,
    last: i64,
    /// Up to which row the marks are added up.
    added_to: i64,
    /// Whether all are.
    has_marks: bool,
    /// A bit for each row that is a mark.
    marks: Vec<u64>,
    sum: u64,
    blocks: BlocksRead,
}

/// How far the blocks of a run were read.
#[derive(Default)]
struct BlocksRead {
    /// The first place behind the beginning of the last block.
    next_row: u64,
    /// Where the next block begins, by what the last one says.
    next: u64,
    newest: Option<Entry>,
    entries: i64,
}

impl Piece {
    fn new(run: Run, after: i64, last: i64) -> Self {
        let words = usize::try_from((last - after) / 64 + 1).unwrap_or(0);
        Self {
            run,
            after,
            last,
            added_to: after,
            has_marks: false,
            marks: vec![0; words],
            sum: 0,
            blocks: BlocksRead::default(),
        }
    }

    /// Returns where the bit of a row of this piece is.
    fn bit(&self, seq: i64) -> Option<(usize, u64)> {
        let at = usize::try_from(seq - self.after - 1).ok()?;
        (seq <= self.last).then_some((at / 64, 1 << (at % 64)))
    }

    fn add_marks(
        &mut self,
        connection: &Connection,
        hasher: &KeyHasher,
        mut on_row: impl FnMut(&KeyRow),
    ) -> Result<(), ReadError> {
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            key_columns!(),
            " FROM seen WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
        ))?;
        let mut rows = statement.query((self.added_to, self.last, ROWS_PER_STEP))?;
        let (mut keys, mut count) = (RowKeys::new(hasher), 0);
        while let Some(row) = rows.next()? {
            let row = keys.read(row)?;
            let seq = row.slot.seq;
            (self.added_to, count) = (seq, count + 1);
            on_row(&row);
            let is_tombstone = row.slot.expires_at == Some(0);
            if let Some((word, bit)) = self.bit(seq).filter(|_| !is_tombstone) {
                self.marks[word] |= bit;
                self.sum = self.sum.wrapping_add(hash_of(Entry::new(row.key, seq), hasher));
            }
        }
        self.has_marks = count < ROWS_PER_STEP;
        Ok(())
    }

    /// Reads some blocks. Returns false once all are read, and nothing was wrong.
    fn subtract_entries(
        &mut self,
        connection: &Connection,
        hasher: &KeyHasher,
    ) -> Result<bool, ReadError> {
        let run = self.run;
        let mut statement = connection.prepare_cached(
            "SELECT place, entries FROM blocks WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT ?3",
        )?;
        let first = row_number(run.number, self.blocks.next_row);
        let last = row_number(run.number, END - 1);
        let mut rows = statement.query((first, last, BLOCKS_PER_STEP))?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let (place, block) = run.block(row, hasher)?;
            if place != self.blocks.next {
                return Err(ReadError::Index("a run has lost a block"));
            }
            for entry in block.entries() {
                let is_in_order = (place..block.next).contains(&entry.hash)
                    && self.blocks.newest.is_none_or(|before| before < entry);
                if !is_in_order {
                    return Err(ReadError::Index("the entries of a run are not in order"));
                }
                if entry.seq <= run.after || entry.seq > run.last {
                    return Err(ReadError::Index("a run has an entry that belongs to another run"));
                }
                if self.bit(entry.seq).is_some_and(|(word, bit)| self.marks[word] & bit != 0) {
                    self.sum = self.sum.wrapping_sub(hash_of(entry, hasher));
                }
                self.blocks.newest = Some(entry);
                self.blocks.entries += 1;
            }
            (self.blocks.next_row, self.blocks.next) = (place + 1, block.next);
            count += 1;
        }
        if count == BLOCKS_PER_STEP {
            return Ok(true);
        }
        if self.blocks.next != END {
            return Err(ReadError::Index("a run has lost a block"));
        }
        if self.blocks.entries != run.entries {
            return Err(ReadError::Index(
                "a run has another number of entries than its header says",
            ));
        }
        if self.sum != 0 {
            return Err(ReadError::Index("a mark has no entry in the runs"));
        }
        Ok(false)
    }
}

impl Runs {
    /// Fails if there are blocks of no run: they would be taken for those of a run that gets its number later.
    fn check_owners(&self, connection: &Connection) -> Result<(), ReadError> {
        let with_header = self.active.iter().chain(&self.building).map(|run| run.number);
        let mut numbers: Vec<u16> = with_header.chain(self.dropped.iter().copied()).collect();
        numbers.sort_unstable();
        let mut next_row =
            connection.prepare_cached("SELECT min(place) FROM blocks WHERE place >= ?1")?;
        let mut next_row =
            |from: i64| next_row.query_row([from], |row| row.get::<_, Option<i64>>(0));
        let mut from = i64::MIN;
        for number in numbers {
            let found = next_row(from)?;
            let is_owned = |row: i64| row >= row_number(number, 0);
            if !found.is_none_or(is_owned) {
                return Err(ReadError::Index("there are blocks that belong to no run"));
            }
            from = row_number(number, END - 1) + 1;
        }
        match next_row(from)? {
            Some(_) => Err(ReadError::Index("there are blocks that belong to no run")),
            None => Ok(()),
        }
    }
}

fn hash_of(entry: Entry, hasher: &KeyHasher) -> u64 {
    let mut state = hasher.checksum();
    state.write_u64(entry.hash);
    state.write_i64(entry.seq);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::super::block::encode;
    use super::*;
    use crate::config::Config;
    use crate::format::create::create_in_memory;

    const MANY: i64 = i64::MAX / 4;

    /// A table of marks, and the runs about it.
    struct Bench {
        connection: Connection,
        hasher: KeyHasher,
        runs: Runs,
    }

    impl Bench {
        fn new() -> Self {
            let connection = create_in_memory(&Config::default()).unwrap();
            Self { connection, hasher: KeyHasher::random(), runs: Runs::default() }
        }

        /// Three runs, of several blocks each.
        fn with_runs() -> Self {
            let mut bench = Self::new();
            for count in [2_000, 500, 700] {
                bench.append(count);
            }
            bench
        }

        /// Appends marks, and some tombstones, and writes a run of them.
        fn append(&mut self, count: i64) {
            let after = self.runs.complete_to();
            let mut entries = Vec::new();
            for seq in after + 1..=after + count {
                let id = format!("id {seq}");
                let expires_at = (seq % 10 == 0).then_some(0);
                self.connection
                    .execute(
                        "INSERT INTO seen (seq, id, first_seen, last_seen, expires_at) VALUES (?1, ?2, 1, 1, ?3)",
                        (seq, &id, expires_at),
                    )
                    .unwrap();
                if expires_at.is_none() {
                    let key = self.hasher.scoped("").key(id.as_bytes());
                    entries.push(Entry::new(key, seq));
                }
            }
            entries.sort_unstable();
            let last = after + count;
            assert!(self.runs.append(&self.connection, &self.hasher, last, &entries).unwrap());
        }

        /// Does a step of the merging that there is; returns false if there is none.
        fn merge(&mut self, marks: i64) -> bool {
            self.runs.do_step(&self.connection, &self.hasher, marks)
        }

        fn run_sql(&self, sql: &str) {
            self.connection.execute_batch(sql).expect(sql);
        }

        fn begin(&self, longest_piece: i64) -> Check {
            Check { longest_piece, ..Check::new(self.hasher.clone()) }
        }

        fn check_by(&self, longest_piece: i64) -> Result<i64, &'static str> {
            let (mut check, mut rows) = (self.begin(longest_piece), 0);
            loop {
                match check.step(&self.connection, |_| rows += 1) {
                    Ok(true) => {}
                    Ok(false) => return Ok(rows),
                    Err(ReadError::Index(what)) => return Err(what),
                    Err(e) => panic!("{e:?}"),
                }
            }
        }

        fn check(&self) -> Result<i64, &'static str> {
            self.check_by(LONGEST_PIECE)
        }

        /// Writes an intact block, with these entries, in the place of the one at `offset`.
        fn rewrite_block(&self, offset: u32, change: impl FnOnce(&mut Vec<Entry>)) {
            let (row, bytes): (i64, Vec<u8>) = self
                .connection
                .query_row(
                    "SELECT place, entries FROM blocks ORDER BY place LIMIT 1 OFFSET ?1",
                    [offset],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .unwrap();
            let block = super::super::Block::decode(&bytes, row, &self.hasher).unwrap();
            let (mut entries, next) = (block.entries().collect(), block.next);
            change(&mut entries);
            let bytes = encode(&entries, next, row, &self.hasher);
            self.connection
                .execute("UPDATE blocks SET entries = ?2 WHERE place = ?1", (row, bytes))
                .unwrap();
        }

        /// Writes a header with a right checksum.
        fn rewrite_header(&self, change: impl FnOnce(&mut Run)) {
            let mut run = self.runs.active[0];
            change(&mut run);
            run.save(&self.connection, &self.hasher).unwrap();
        }
    }

    #[test]
    fn intact_runs_of_any_shape_have_an_entry_for_each_mark() {
        let mut bench = Bench::new();
        assert_eq!(bench.check(), Ok(0));
        for count in [1, 69, 700, 3_000, 64, 64, 64, 1_024, 1_024] {
            bench.append(count);
            let covered = bench.runs.complete_to();
            for longest_piece in [63, 1_000, LONGEST_PIECE] {
                assert_eq!(bench.check_by(longest_piece), Ok(covered));
            }
            bench.run_sql(
                "DELETE FROM seen WHERE seq % 7 = 3 AND seq < (SELECT max(seq) FROM seen)",
            );
            assert!(bench.check().is_ok());
            bench.run_sql("DELETE FROM seen WHERE seq < 500 AND seq < (SELECT max(seq) FROM seen)");
            assert!(bench.check().is_ok());
            while bench.merge(MANY) {
                assert!(bench.check().is_ok());
            }
            bench.run_sql("DELETE FROM seen; DELETE FROM runs; DELETE FROM blocks");
            bench.runs = Runs::default();
        }
        bench.append(5_000);
        bench.run_sql("INSERT INTO seen (id, first_seen, last_seen) VALUES ('the tail', 1, 1)");
        assert_eq!(bench.check(), Ok(5_000));
    }

    #[test]
    fn each_kind_of_damage_to_the_tables_is_reported() {
        for damage in [
            "DELETE FROM blocks WHERE place = (SELECT max(place) FROM blocks)",
            "DELETE FROM blocks WHERE place = (SELECT min(place) FROM blocks)",
            "DELETE FROM blocks WHERE place = (SELECT place FROM blocks ORDER BY place LIMIT 1 OFFSET 9)",
            "DELETE FROM blocks",
            "UPDATE blocks SET entries = \
             CAST(substr(entries, 1, length(entries) - 18) || substr(entries, -4) AS BLOB)",
            "UPDATE blocks SET entries = zeroblob(length(entries))",
            "UPDATE blocks SET entries = x'' WHERE place = (SELECT max(place) FROM blocks)",
            "UPDATE OR REPLACE blocks SET place = place + 1 \
             WHERE place = (SELECT place FROM blocks ORDER BY place LIMIT 1 OFFSET 9)",
            "INSERT INTO blocks SELECT place + 1, entries FROM blocks \
             WHERE place = (SELECT place FROM blocks ORDER BY place LIMIT 1 OFFSET 9)",
            "UPDATE runs SET last = last + 1",
            "UPDATE runs SET last = last + 1 WHERE run = (SELECT max(run) FROM runs)",
            "UPDATE runs SET after = after + 1",
            "UPDATE runs SET entries = entries + 1",
            "UPDATE runs SET state = 2",
            "UPDATE runs SET state = 9",
            "UPDATE runs SET run = run + 10",
            "DELETE FROM runs WHERE after = 0",
            "DELETE FROM runs WHERE run = (SELECT run FROM runs ORDER BY last LIMIT 1 OFFSET 1)",
            "DELETE FROM runs WHERE run = (SELECT max(run) FROM runs)",
            "DELETE FROM runs",
            "INSERT INTO blocks VALUES (9 << 48, x'00')",
            "INSERT INTO blocks VALUES (-1, x'00')",
            // What the runs do not know.
            "UPDATE seen SET id = 'another' WHERE seq = 1111",
            "UPDATE seen SET expires_at = 1 WHERE seq = 1110",
            "DELETE FROM seen WHERE seq > 3100",
        ] {
            let bench = Bench::with_runs();
            assert_eq!(bench.check(), Ok(3_200));
            bench.run_sql(damage);
            assert!(bench.check().is_err(), "{damage}");
        }
    }

    #[test]
    fn what_a_store_would_not_write_is_reported_though_its_checksum_is_right() {
        type Damage = fn(&Bench);
        let damages: [(&str, Damage); 8] = [
            ("no entry", |bench| bench.rewrite_block(9, |entries| entries.truncate(5))),
            ("no entry", |bench| {
                bench.rewrite_block(9, |entries| entries.retain(|entry| entry.seq % 64 != 0));
                let after = |run: &Run| run.after == 0;
                let mut run = *bench.runs.active.iter().find(|run| after(run)).unwrap();
                run.entries -= 1;
                run.save(&bench.connection, &bench.hasher).unwrap();
            }),
            ("another row's entry", |bench| {
                bench.rewrite_block(9, |entries| {
                    entries[3].seq = if entries[3].seq == 1_001 { 1_002 } else { 1_001 };
                });
            }),
            ("another hash", |bench| {
                bench.rewrite_block(9, |entries| entries[3].hash = entries[2].hash);
            }),
            ("not in order", |bench| bench.rewrite_block(9, |entries| entries.swap(3, 4))),
            ("beside its place", |bench| {
                bench.rewrite_block(9, |entries| entries.last_mut().unwrap().hash = END - 1);
            }),
            ("a row of another run", |bench| {
                bench.rewrite_block(9, |entries| entries[3].seq = 3_000);
            }),
            ("beyond the last row", |bench| bench.rewrite_header(|run| run.last += 1)),
        ];
        for (what, damage) in damages {
            let bench = Bench::with_runs();
            damage(&bench);
            assert!(bench.check().is_err(), "{what}");
        }
    }

    #[test]
    fn runs_under_another_key_are_reported() {
        let bench = Bench { hasher: KeyHasher::random(), ..Bench::with_runs() };
        assert!(bench.check().is_err());
    }

    /// As in exclusive mode, where one connection checks and writes.
    #[test]
    fn removals_and_merges_between_the_steps_are_no_damage() {
        for pause in 1..20 {
            let mut bench = Bench::with_runs();
            let (mut check, mut steps, mut merges) = (bench.begin(300), 0, 0);
            while check.step(&bench.connection, |_| ()).unwrap() {
                steps += 1;
                let gone = steps * 37 % 2_000;
                bench.run_sql(&format!("DELETE FROM seen WHERE seq BETWEEN {gone} AND {gone} + 5"));
                if steps % pause == 0 && merges < 40 {
                    merges += 1;
                    let before = bench.runs.complete_to();
                    bench.append(if before < 6_000 { 600 } else { 1 });
                    bench.merge(1);
                }
            }
            assert!(steps > 20 && merges > 0, "{steps} {merges}");
            assert!(bench.check().is_ok());
        }
    }

    #[test]
    fn a_large_gap_between_the_numbers_of_rows_takes_no_time() {
        let mut bench = Bench::with_runs();
        let far = 1 << 47;
        bench.run_sql(&format!(
            "INSERT INTO seen (seq, id, first_seen, last_seen) VALUES ({far}, 'far', 1, 1)"
        ));
        let entry = Entry::new(bench.hasher.scoped("").key(b"far"), far);
        assert!(bench.runs.append(&bench.connection, &bench.hasher, far, &[entry]).unwrap());
        assert_eq!(bench.check_by(64), Ok(3_201));
        bench.run_sql("DELETE FROM seen WHERE seq > 2000 AND seq < 2600");
        assert_eq!(bench.check_by(64), Ok(2_602));
    }
}
