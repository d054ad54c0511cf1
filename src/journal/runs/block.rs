//! A block of a sorted run: some entries in the order of their hashes, in one row of the table `blocks`.
//!
//! Owns the bytes of a block, and the number of its row. What always holds: a block tells where the next one of its run
//! begins, so a block that is missing is noticed, and it has a checksum under the store's own key, so a block that
//! is damaged, or was written under another key, is noticed too. Knows nothing of SQL.

use std::hash::Hasher;

use crate::id::{Key, KeyHasher};
use crate::index::run_hash;
use crate::machine::index_size;

/// The most entries of a block: as many as fill a page of 1 KiB, with what SQLite adds.
pub(super) fn max_entries() -> usize {
    index_size!(69, in_tests: 3)
}

/// The bits of a hash that the number of a block's row has. The others tell the run.
pub(super) const PLACE_BITS: u32 = 48;
/// What a block names as the place of the next one if it is the last of its run.
pub(super) const END: u64 = 1 << PLACE_BITS;

/// The bytes of an entry: 8 of its hash, 6 of its `seq`.
const ENTRY_BYTES: usize = 14;
const HEAD_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;

/// That an id with this hash may have this row.
///
/// A hint: the row tells whether it is still there, and whether it is of the id that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) hash: u64,
    pub(crate) seq: i64,
}

impl Entry {
    pub(crate) fn new(key: Key, seq: i64) -> Self {
        Self { hash: run_hash(key), seq }
    }

    pub(super) fn place(self) -> u64 {
        place(self.hash)
    }
}

/// Returns where among the blocks of its run an entry with this hash is.
pub(super) fn place(hash: u64) -> u64 {
    hash >> (u64::BITS - PLACE_BITS)
}

/// Returns the number of the row for a block of this run that begins at this place.
pub(super) fn row_number(run: u16, place: u64) -> i64 {
    (u64::from(run) << PLACE_BITS | place).cast_signed()
}

/// Returns the place of the block in this row, if it is one of this run.
pub(super) fn place_of(run: u16, row_number: i64) -> Option<u64> {
    let number = row_number.cast_unsigned();
    (number >> PLACE_BITS == u64::from(run)).then_some(number & (END - 1))
}

/// A block that was read, and found intact.
pub(super) struct Block<'a> {
    /// Where the next block of the run begins.
    pub(super) next: u64,
    entries: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads what [`encode`] wrote into this row; `None` if it is something else.
    pub(super) fn decode(bytes: &'a [u8], row_number: i64, hasher: &KeyHasher) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        let (next, entries) = content.split_first_chunk::<HEAD_BYTES>()?;
        let is_intact = entries.len().is_multiple_of(ENTRY_BYTES)
            && u32::from_be_bytes(*checksum) == checksum_of(content, row_number, hasher);
        is_intact.then_some(Self { next: u64::from_be_bytes(*next), entries })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    pub(super) fn entry(&self, at: usize) -> Entry {
        let bytes = &self.entries[at * ENTRY_BYTES..(at + 1) * ENTRY_BYTES];
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        Entry { hash: number(&bytes[..8]), seq: number(&bytes[8..]).cast_signed() }
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

/// Returns the bytes of a block. The entries are in order.
pub(super) fn encode(entries: &[Entry], next: u64, row_number: i64, hasher: &KeyHasher) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + entries.len() * ENTRY_BYTES + CHECKSUM_BYTES);
    bytes.extend(next.to_be_bytes());
    for entry in entries {
        bytes.extend(entry.hash.to_be_bytes());
        bytes.extend(&entry.seq.to_be_bytes()[2..]);
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

    fn entry(hash: u64, seq: i64) -> Entry {
        Entry { hash, seq }
    }

    #[test]
    fn a_block_finds_the_rows_of_a_hash_the_newest_first() {
        let hasher = KeyHasher::random();
        let entries = [entry(1, 9), entry(7, 3), entry(7, 5), entry(u64::MAX, (1 << 48) - 1)];
        let bytes = encode(&entries, END, 4, &hasher);
        let block = Block::decode(&bytes, 4, &hasher).unwrap();
        assert_eq!(block.next, END);
        assert_eq!(block.entries().collect::<Vec<_>>(), entries);
        assert_eq!(block.rows_of(7).collect::<Vec<_>>(), [5, 3]);
        assert_eq!(block.rows_of(u64::MAX).collect::<Vec<_>>(), [(1 << 48) - 1]);
        assert_eq!([0, 2, 8].map(|hash| block.rows_of(hash).count()), [0; 3]);
    }

    #[test]
    fn a_block_that_is_damaged_misplaced_or_of_another_key_is_noticed() {
        let hasher = KeyHasher::random();
        let bytes = encode(&[entry(1, 9), entry(7, 3)], END, 4, &hasher);
        for byte in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            assert!(Block::decode(&damaged, 4, &hasher).is_none(), "byte {byte}");
            assert!(Block::decode(&bytes[..byte], 4, &hasher).is_none(), "cut to {byte}");
        }
        assert!(Block::decode(&bytes, 5, &hasher).is_none());
        assert!(Block::decode(&bytes, 4, &KeyHasher::random()).is_none());
    }

    #[test]
    fn a_full_block_fits_a_page() {
        let entries = vec![entry(1, 1); 69];
        // SQLite keeps a row of up to the page less 35 bytes in its page; the row's header has 4 bytes.
        assert!(encode(&entries, END, 1, &KeyHasher::random()).len() + 4 <= 1024 - 35);
    }
}
