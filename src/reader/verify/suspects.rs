//! Finds rows that have a newer row of the same id beside them, and the newest rows of ids that are asked for, without an
//! index of all ids.
//!
//! Owns the two scans' memory. In the first scan, which goes from the newest row back, each id sets one of many bits. A live
//! row whose bit is set already is a *suspect*: there is a newer row of its id, or of another id that has the same bit by
//! chance, as a thirtieth of the rows may. (A Bloom filter with one hash function; Bloom, 1970.) The second scan finds the
//! newest row of each suspect's id.
//!
//! What always holds: the memory is bounded by the number of rows that was told beforehand, about 4 bytes for each and 1
//! for the suspects. To go through a large table with less, one [`Part`] of the ids is looked at after the other. Knows
//! nothing of SQL.

use crate::id::Key;
use crate::index::Slot;
use crate::journal::load::KeyRow;

/// The fewest bits for each row.
const BITS_PER_ROW: usize = 16;
/// One suspect among so many rows is more than chance makes. What is beyond is not looked at: then there are more real
/// problems than a report lists.
const ROWS_PER_SUSPECT: usize = 16;
/// So many suspects are looked at in any case.
const MIN_SUSPECTS: usize = 1_024;

/// A part of all ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) of: u64,
}

impl Part {
    pub(super) fn has(self, key: Key) -> bool {
        self.of == 1 || key.high % self.of == self.number
    }
}

/// An id whose newest row is wanted.
#[derive(Clone, Copy)]
struct Suspect {
    key: Key,
    /// The row that should be the newest; 0 for a claim's id.
    seq: i64,
    /// The newest row that the second scan has met so far; 0 is none. Its expiry is `i64::MAX` if it has none.
    newest: i64,
    expires_at: i64,
}

pub(super) struct Suspects {
    part: Part,
    bits: Vec<u64>,
    shift: u32,
    wanted: Vec<Suspect>,
    most_wanted: usize,
}

impl Suspects {
    /// Begins the first scan. `rows` is how many rows the part has at most, about.
    pub(super) fn new(part: Part, rows: usize) -> Self {
        let bits = rows.saturating_mul(BITS_PER_ROW).next_power_of_two().max(64);
        Self {
            part,
            bits: vec![0; bits / 64],
            shift: u64::BITS - bits.ilog2(),
            wanted: Vec::new(),
            most_wanted: MIN_SUSPECTS.max(rows / ROWS_PER_SUSPECT),
        }
    }

    fn bit(&self, key: Key) -> (usize, u64) {
        let at = key.low >> self.shift;
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Sets the bit of an id, and returns whether it was set before.
    fn set(&mut self, key: Key) -> bool {
        let (word, bit) = self.bit(key);
        let was_set = self.bits[word] & bit != 0;
        self.bits[word] |= bit;
        was_set
    }

    /// Takes the next row of the first scan, which goes from the newest row back.
    pub(super) fn add(&mut self, row: &KeyRow, latest_ms: i64) {
        if !self.part.has(row.key) {
            return;
        }
        let may_be_older = self.set(row.key);
        if may_be_older && row.slot.is_live(latest_ms) && self.wanted.len() < self.most_wanted {
            self.want(row.key, row.slot.seq);
        }
    }

    /// Lets the newest row of an id of this part be found, because it is claimed.
    pub(super) fn add_claimed(&mut self, key: Key) {
        self.want(key, 0);
    }

    fn want(&mut self, key: Key, seq: i64) {
        self.wanted.push(Suspect { key, seq, newest: 0, expires_at: 0 });
    }

    /// Begins the second scan, in any order.
    pub(super) fn begin_second_scan(&mut self) {
        self.wanted.sort_unstable_by_key(|it| (it.key.low, it.key.high, it.seq));
        self.bits.fill(0);
        for at in 0..self.wanted.len() {
            self.set(self.wanted[at].key);
        }
    }

    /// Takes the next row of the second scan. It may come more than once.
    pub(super) fn meet(&mut self, row: &KeyRow) {
        let (word, bit) = self.bit(row.key);
        if self.bits[word] & bit == 0 {
            return;
        }
        let (seq, expires_at) = (row.slot.seq, row.slot.expires_at.unwrap_or(i64::MAX));
        let first = self.first_of(row.key);
        for suspect in self.wanted[first..].iter_mut().take_while(|it| it.key == row.key) {
            if suspect.newest < seq {
                (suspect.newest, suspect.expires_at) = (seq, expires_at);
            }
        }
    }

    fn first_of(&self, key: Key) -> usize {
        self.wanted.partition_point(|it| (it.key.low, it.key.high) < (key.low, key.high))
    }

    /// Returns the rows that are not the newest of their ids, in no order.
    pub(super) fn rows_beside_newer_ones(&self) -> impl Iterator<Item = i64> + '_ {
        self.wanted.iter().filter(|it| it.seq != 0 && it.seq < it.newest).map(|it| it.seq)
    }

    /// Returns the newest row of an id that was added.
    pub(super) fn newest(&self, key: Key) -> Option<Slot> {
        let found = self.wanted.get(self.first_of(key))?;
        let expires_at = Some(found.expires_at).filter(|at| *at != i64::MAX);
        (found.key == key && found.newest != 0).then(|| Slot::new(found.newest, expires_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::KeyHasher;

    const ALL: Part = Part { number: 0, of: 1 };

    fn row(hasher: &KeyHasher, id: u64, seq: i64, expires_at: Option<i64>) -> KeyRow {
        let key = hasher.scoped("").key(&id.to_be_bytes());
        KeyRow { key, slot: Slot::new(seq, expires_at), retain_until: None }
    }

    #[test]
    fn of_many_rows_those_beside_newer_ones_are_found_and_no_others() {
        let hasher = KeyHasher::random();
        // Every hundredth row is of the same id as the one before; of these, some have expired.
        let rows: Vec<KeyRow> = (1..=20_000_i64)
            .map(|seq| {
                let id = if seq % 100 == 0 { seq - 1 } else { seq };
                row(&hasher, id.cast_unsigned(), seq, (seq % 200 == 99).then_some(50))
            })
            .collect();
        let mut found = Vec::new();
        for number in 0..3 {
            let part = Part { number, of: 3 };
            let mut ids = Suspects::new(part, rows.len() / 3);
            rows.iter().rev().for_each(|row| ids.add(row, 100));
            ids.begin_second_scan();
            for row in rows.iter().chain(&rows[..500]) {
                ids.meet(row);
            }
            found.extend(ids.rows_beside_newer_ones());
        }
        found.sort_unstable();
        let expected: Vec<i64> = (1..=20_000).filter(|seq| seq % 200 == 199).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_newest_row_of_a_claimed_id_is_found() {
        let hasher = KeyHasher::random();
        let mut ids = Suspects::new(ALL, 10);
        let rows =
            [row(&hasher, 1, 1, None), row(&hasher, 1, 2, Some(7)), row(&hasher, 2, 3, None)];
        ids.add_claimed(rows[0].key);
        ids.add_claimed(row(&hasher, 9, 0, None).key);
        ids.begin_second_scan();
        for row in &rows {
            ids.meet(row);
        }
        assert_eq!(ids.newest(rows[0].key), Some(Slot::new(2, Some(7))));
        assert_eq!(ids.newest(row(&hasher, 9, 0, None).key), None);
        assert_eq!(ids.newest(rows[2].key), None);
        assert_eq!(ids.rows_beside_newer_ones().count(), 0);
    }

    #[test]
    fn the_memory_is_bounded_even_if_each_row_is_wrong() {
        let hasher = KeyHasher::random();
        let rows = 50_000;
        let mut ids = Suspects::new(ALL, rows);
        for seq in (1..=50_000).rev() {
            ids.add(&row(&hasher, 1, seq, None), 100);
        }
        let bytes = ids.bits.len() * 8 + ids.wanted.capacity() * size_of::<Suspect>();
        assert!(bytes < rows * 10, "{bytes} bytes for {rows} rows");
        ids.begin_second_scan();
        ids.meet(&row(&hasher, 1, 50_000, None));
        assert!(ids.rows_beside_newer_ones().count() >= MIN_SUSPECTS);
    }

    #[test]
    fn of_sound_rows_few_are_suspects() {
        let hasher = KeyHasher::random();
        let mut ids = Suspects::new(ALL, 100_000);
        (1..=100_000).rev().for_each(|seq| {
            ids.add(&row(&hasher, seq, seq.cast_signed(), None), 100);
        });
        let (found, most) = (ids.wanted.len(), ids.most_wanted);
        assert!(found < most * 3 / 4, "{found} suspects of at most {most}");
    }
}
