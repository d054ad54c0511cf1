//! A block of a sorted run: some entries in the order of their hashes, in one row of the table `blocks`.
//!
//! Owns the bytes of a block, and the number of its row: the number of the run, and the *place* where the block begins, the
//! lowest hash that it may have. What always holds: a block tells where the next one of its run begins, so a block that is
//! missing is noticed, and it has a checksum under the store's own key, so a block that is damaged, or was written under
//! another key, is noticed too. Knows nothing of SQL.
//!
//! An entry is two differences: of its hash to the place, and of its `seq` to the lowest one of the block. Both have as few
//! bytes as the largest of the block needs, so that a search can go to any entry: 7 or 8 for an entry in all.

use std::hash::Hasher;

use crate::id::{Key, KeyHasher};
use crate::index::{RUN_HASH_BITS, run_hash};
use crate::machine::index_size;

/// The most bytes that the entries of a block take: as many as fill a page of 1 KiB, with what SQLite adds.
const ROOM: usize = 985 - HEAD_BYTES - CHECKSUM_BYTES;

/// The most entries of a block.
fn max_entries() -> usize {
    index_size!(usize::MAX, in_tests: 3)
}

/// What a block names as the place of the next one if it is the last of its run.
pub(super) const END: u64 = 1 << RUN_HASH_BITS;

/// The widths of the differences, 4 bits each; the place of the next block, 7 bytes; the lowest `seq`, 6 bytes.
const HEAD_BYTES: usize = 14;
const CHECKSUM_BYTES: usize = 4;

/// That an id with this hash may have this row.
///
/// A hint: the row tells whether it is still there, and whether it is of the id that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// See [`run_hash`].
    pub(crate) hash: u64,
    pub(crate) seq: i64,
}

impl Entry {
    pub(crate) fn new(key: Key, seq: i64) -> Self {
        Self { hash: run_hash(key), seq }
    }
}

/// Returns the number of the row for a block of this run that begins at this place.
pub(super) fn row_number(run: u16, place: u64) -> i64 {
    (u64::from(run) << RUN_HASH_BITS | place).cast_signed()
}

/// Returns the run in whose range this row is. No store gives a run some of these numbers.
pub(super) fn run_of(row_number: i64) -> i64 {
    row_number >> RUN_HASH_BITS
}

/// Returns the place of the block in this row, if it is one of this run.
pub(super) fn place_of(run: u16, row_number: i64) -> Option<u64> {
    (run_of(row_number) == i64::from(run)).then_some(row_number.cast_unsigned() & (END - 1))
}

/// How many bytes the differences of a block have.
#[derive(Clone, Copy, Debug)]
struct Widths {
    hash: usize,
    seq: usize,
}

impl Widths {
    /// Returns those for differences up to these. An entry has at least one byte.
    fn for_differences(hash: u64, seq: u64) -> Self {
        let bytes = |number: u64| (u64::BITS - number.leading_zeros()).div_ceil(8) as usize;
        Self { hash: bytes(hash), seq: bytes(seq).max(1) }
    }

    fn entry(self) -> usize {
        self.hash + self.seq
    }
}

/// A block that was read, and found intact.
pub(super) struct Block<'a> {
    place: u64,
    /// Where the next block of the run begins.
    pub(super) next: u64,
    lowest_seq: u64,
    widths: Widths,
    entries: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads what [`encode`] wrote into this row; `None` if it is something else.
    pub(super) fn decode(bytes: &'a [u8], row_number: i64, hasher: &KeyHasher) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        let (head, entries) = content.split_first_chunk::<HEAD_BYTES>()?;
        let widths = Widths { hash: usize::from(head[0] >> 4), seq: usize::from(head[0] & 15) };
        let is_intact = u32::from_be_bytes(*checksum) == checksum_of(content, row_number, hasher)
            && widths.seq > 0
            && entries.len().is_multiple_of(widths.entry());
        is_intact.then_some(Self {
            place: row_number.cast_unsigned() & (END - 1),
            next: number(&head[1..8]),
            lowest_seq: number(&head[8..]),
            widths,
            entries,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() / self.widths.entry()
    }

    pub(super) fn entry(&self, at: usize) -> Entry {
        let width = self.widths.entry();
        let (hash, seq) = self.entries[at * width..(at + 1) * width].split_at(self.widths.hash);
        let hash = self.place.wrapping_add(number(hash));
        let seq = self.lowest_seq.wrapping_add(number(seq));
        Entry { hash, seq: seq.cast_signed() }
    }

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> + '_ {
        (0..self.len()).map(|at| self.entry(at))
    }

    /// Returns the rows of ids with this hash, the newest first.
    pub(super) fn rows_of(&self, hash: u64) -> impl Iterator<Item = i64> + '_ {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.entry(middle).hash <= hash { low = middle + 1 } else { high = middle }
        }
        let entries = (0..low).rev().map(|at| self.entry(at));
        entries.take_while(move |entry| entry.hash == hash).map(|entry| entry.seq)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Returns how many entries come into a block that begins at this place. They are in order, and at it or behind it.
/// Entries with one hash stay together, also if they are more than fit: a lookup searches one block.
pub(super) fn fitting(entries: &[Entry], place: u64) -> usize {
    let (mut lowest, mut highest) = (i64::MAX, i64::MIN);
    let mut count = 0;
    for of_one_hash in entries.chunk_by(|one, other| one.hash == other.hash) {
        for entry in of_one_hash {
            (lowest, highest) = (lowest.min(entry.seq), highest.max(entry.seq));
        }
        let widths = Widths::for_differences(of_one_hash[0].hash - place, highest.abs_diff(lowest));
        let with_these = count + of_one_hash.len();
        if count > 0 && (with_these * widths.entry() > ROOM || with_these > max_entries()) {
            break;
        }
        count = with_these;
    }
    count
}

/// Returns the bytes of a block in this row. The entries are in order, and at its place or behind it.
pub(super) fn encode(entries: &[Entry], next: u64, row_number: i64, hasher: &KeyHasher) -> Vec<u8> {
    let place = row_number.cast_unsigned() & (END - 1);
    let lowest = entries.iter().map(|entry| entry.seq).min().unwrap_or(0);
    let highest = entries.iter().map(|entry| entry.seq).max().unwrap_or(0);
    let last = entries.last().map_or(place, |entry| entry.hash);
    let widths = Widths::for_differences(last - place, highest.abs_diff(lowest));
    let length = HEAD_BYTES + entries.len() * widths.entry() + CHECKSUM_BYTES;
    let mut bytes = Vec::with_capacity(length);
    let mut push = |number: u64, width: usize| bytes.extend(&number.to_be_bytes()[8 - width..]);
    push((widths.hash << 4 | widths.seq) as u64, 1);
    push(next, 7);
    push(lowest.cast_unsigned(), 6);
    for entry in entries {
        push(entry.hash - place, widths.hash);
        push(entry.seq.abs_diff(lowest), widths.seq);
    }
    let checksum = checksum_of(&bytes, row_number, hasher);
    bytes.extend(checksum.to_be_bytes());
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "a checksum of 32 bits")]
fn checksum_of(content: &[u8], row_number: i64, hasher: &KeyHasher) -> u32 {
    let mut state = hasher.checksum();
    state.write_i64(row_number);
    state.write(content);
    state.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST_SEQ: i64 = (1 << 48) - 2;

    fn entry(hash: u64, seq: i64) -> Entry {
        Entry { hash, seq }
    }

    #[test]
    fn a_block_finds_the_rows_of_a_hash_the_newest_first() {
        let hasher = KeyHasher::random();
        let entries = [entry(4, 9), entry(7, 3), entry(7, 5), entry(END - 1, LAST_SEQ)];
        let bytes = encode(&entries, END, 4, &hasher);
        let block = Block::decode(&bytes, 4, &hasher).unwrap();
        assert_eq!(block.next, END);
        assert_eq!(block.entries().collect::<Vec<_>>(), entries);
        assert_eq!(block.rows_of(7).collect::<Vec<_>>(), [5, 3]);
        assert_eq!(block.rows_of(END - 1).collect::<Vec<_>>(), [LAST_SEQ]);
        assert_eq!([0, 5, 8].map(|hash| block.rows_of(hash).count()), [0; 3]);
    }

    #[test]
    fn a_block_that_is_damaged_misplaced_or_of_another_key_is_noticed() {
        let hasher = KeyHasher::random();
        let bytes = encode(&[entry(4, 9), entry(7, 3)], END, 4, &hasher);
        for byte in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            assert!(Block::decode(&damaged, 4, &hasher).is_none(), "byte {byte}");
            assert!(Block::decode(&bytes[..byte], 4, &hasher).is_none(), "cut to {byte}");
        }
        assert!(Block::decode(&bytes, 5, &hasher).is_none());
        assert!(Block::decode(&bytes, 4, &KeyHasher::random()).is_none());
    }

    /// SQLite keeps a row of up to the page less 35 bytes in its page; the row's header has 4 bytes.
    #[test]
    fn blocks_of_any_entries_fill_a_page_and_hold_them_all() {
        let hasher = KeyHasher::random();
        for hash_step in [0, 1, 200, 1 << 20, 1 << 33, 1 << 40] {
            for seq_step in [1, 300, 1 << 22, 1 << 38] {
                let all: Vec<Entry> = (0..1_000_u64)
                    .map(|n| {
                        entry(n * hash_step % END, 1 + (n * 389 % 1_000 * seq_step).cast_signed())
                    })
                    .collect();
                let mut all: Vec<Entry> = all.into_iter().filter(|it| it.seq <= LAST_SEQ).collect();
                all.sort_unstable();
                let (mut place, mut left, mut read) = (0, &all[..], Vec::new());
                while !left.is_empty() {
                    let (these, rest) = left.split_at(fitting(left, place));
                    let next = rest.first().map_or(END, |entry| entry.hash);
                    let row = row_number(7, place);
                    let bytes = encode(these, next, row, &hasher);
                    let block = Block::decode(&bytes, row, &hasher).unwrap();
                    assert_eq!((block.next, block.len()), (next, these.len()));
                    let has_one_hash =
                        these.first().map(|it| it.hash) == these.last().map(|it| it.hash);
                    let room = 1024 - 35 - 4;
                    assert!(bytes.len() <= room || has_one_hash, "{} bytes", bytes.len());
                    let is_full = bytes.len() * 3 / 2 > room;
                    assert!(is_full || rest.is_empty(), "{} bytes", bytes.len());
                    read.extend(block.entries());
                    (place, left) = (next, rest);
                }
                assert_eq!(read, all);
            }
        }
    }
}
