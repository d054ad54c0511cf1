//! The set of live ids, in memory.
//!
//! Owns, for every id that the file holds, its key, the `seq` of its newest row and when it expires.
//! A slot is 24 bytes and a table is between 7/16 and 7/8 full, at one control byte a place: 29 to 57
//! bytes an id. The index is cut into shards so that a reader never waits for more than the change of
//! a few slots. Of two facts about one key the one with the higher `seq` wins, whichever comes first.
//! Whether an entry is live is the reader's question: an expired slot may stay until it is swept.
//!
//! Knows nothing of SQL, files or clocks. Lock order: a shard's lock is taken last and alone.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;

use crate::id::Key;

/// Enough that the sweep of one shard of ten million ids takes well under a millisecond.
const SHARDS: usize = 256;
const NEVER: u64 = (1 << 48) - 1;
/// The largest `seq` a slot can hold; a store reaches it after nine years of a million marks a second.
pub(crate) const MAX_SEQ: i64 = (1 << 48) - 1;

/// What the index knows of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The row that holds the id's newest mark.
    pub(crate) seq: i64,
    /// In unix milliseconds; `None` is never.
    pub(crate) expires_at: Option<i64>,
}

impl Slot {
    pub(crate) fn is_live(self, now_ms: i64) -> bool {
        self.expires_at.is_none_or(|expires_at| now_ms < expires_at)
    }
}

/// A slot packed to 24 bytes: 96 bits of the key, 48 of the `seq`, 48 of the expiry.
#[derive(Clone, Copy)]
struct Packed {
    key: [u32; 3],
    seq_low: u32,
    expires_low: u32,
    seq_high: u16,
    expires_high: u16,
}

const _: () = assert!(size_of::<Packed>() == 24);

#[expect(clippy::cast_possible_truncation, reason = "this is where numbers are cut to size")]
impl Packed {
    fn new(key: Key, slot: Slot) -> Self {
        let seq = slot.seq.cast_unsigned();
        let expires = slot.expires_at.map_or(NEVER, i64::cast_unsigned);
        Self {
            key: [key.low as u32, (key.low >> 32) as u32, key.high as u32],
            seq_low: seq as u32,
            seq_high: (seq >> 32) as u16,
            expires_low: expires as u32,
            expires_high: (expires >> 32) as u16,
        }
    }

    fn has(&self, key: Key) -> bool {
        // Word by word: comparing the arrays would call memcmp.
        self.hash() == key.low && self.key[2] == key.high as u32
    }

    fn hash(&self) -> u64 {
        u64::from(self.key[0]) | u64::from(self.key[1]) << 32
    }

    /// The key as far as it is [`stored`]: what finds this slot again.
    fn key(&self, shard: usize) -> Key {
        Key { low: self.hash(), high: (shard as u64) << 56 | u64::from(self.key[2]) }
    }

    fn slot(&self) -> Slot {
        let expires = u64::from(self.expires_low) | u64::from(self.expires_high) << 32;
        Slot { seq: self.seq(), expires_at: (expires != NEVER).then_some(expires.cast_signed()) }
    }

    fn seq(&self) -> i64 {
        (u64::from(self.seq_low) | u64::from(self.seq_high) << 32).cast_signed()
    }
}

type Shard = HashTable<Packed>;

/// See the module's header.
pub(crate) struct Index {
    shards: Box<[RwLock<Shard>]>,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::new(Shard::new())).collect() }
    }

    fn shard(&self, key: Key) -> &RwLock<Shard> {
        &self.shards[shard_of(key)]
    }

    /// The newest known row of the id, expired or not.
    pub(crate) fn get(&self, key: Key) -> Option<Slot> {
        self.shard(key).read().find(key.low, |packed| packed.has(key)).map(Packed::slot)
    }

    /// Takes in a row, unless a newer one of the same id is known.
    pub(crate) fn put(&self, key: Key, slot: Slot) {
        put(&mut self.shard(key).write(), key, slot);
    }

    /// Forgets the id, unless a row newer than `seq` is known.
    pub(crate) fn remove(&self, key: Key, seq: i64) {
        remove(&mut self.shard(key).write(), key, seq);
    }

    /// Drops the expired slots of one shard, and gives its memory back where it has become mostly
    /// empty. Returns how many slots it went through.
    pub(crate) fn sweep_shard(&self, shard: usize, now_ms: i64) -> usize {
        let mut shard = self.shards[shard].write();
        let visited = shard.len();
        shard.retain(|packed| packed.slot().is_live(now_ms));
        if shard.len() < shard.capacity() / 4 {
            let room = shard.len() * 2;
            shard.shrink_to(room, Packed::hash);
        }
        visited
    }

    /// Drops all expired slots, a shard at a time.
    pub(crate) fn sweep(&self, now_ms: i64) {
        for shard in 0..self.shards.len() {
            self.sweep_shard(shard, now_ms);
        }
    }

    /// Takes over everything that `fresh` holds and nothing else. Readers see each shard either
    /// before or after.
    pub(crate) fn replace_with(&self, fresh: Self) {
        for (shard, fresh) in self.shards.iter().zip(fresh.shards.into_vec()) {
            *shard.write() = fresh.into_inner();
        }
    }

    /// How many ids are live, and how many expired ones have not been swept yet.
    pub(crate) fn count(&self, now_ms: i64) -> (u64, u64) {
        let (mut live, mut expired) = (0, 0);
        for shard in &self.shards {
            let shard = shard.read();
            let alive = shard.iter().filter(|packed| packed.slot().is_live(now_ms)).count();
            live += alive as u64;
            expired += (shard.len() - alive) as u64;
        }
        (live, expired)
    }

    /// The live ids of one of the [`shard_count`](Self::shard_count) shards, with their rows. A key
    /// stays in its shard for ever.
    pub(crate) fn live_slots(&self, shard: usize, now_ms: i64) -> Vec<(Key, i64)> {
        let slots = self.shards[shard].read();
        let live = slots.iter().filter(|packed| packed.slot().is_live(now_ms));
        live.map(|packed| (packed.key(shard), packed.seq())).collect()
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The bytes allocated for slots, the empty ones included.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let tables: usize = self.shards.iter().map(|shard| shard.read().allocation_size()).sum();
        (tables + size_of_val(&*self.shards)) as u64
    }
}

/// As much of a key as a slot and its shard tell: equal for equal keys, and for no others that matter.
pub(crate) fn stored(key: Key) -> Key {
    Key { low: key.low, high: (shard_of(key) as u64) << 56 | key.high & u64::from(u32::MAX) }
}

/// The top bits of the half that is cut off, so that keys which share a shard do not share any bits
/// that tell them apart within it.
fn shard_of(key: Key) -> usize {
    (key.high >> 56) as usize % SHARDS
}

fn put(shard: &mut Shard, key: Key, slot: Slot) {
    let packed = Packed::new(key, slot);
    match shard.entry(key.low, |packed| packed.has(key), Packed::hash) {
        Entry::Occupied(mut known) => {
            if known.get().seq() <= slot.seq {
                *known.get_mut() = packed;
            }
        }
        Entry::Vacant(place) => {
            place.insert(packed);
        }
    }
}

fn remove(shard: &mut Shard, key: Key, seq: i64) {
    if let Ok(known) = shard.find_entry(key.low, |packed| packed.has(key))
        && known.get().seq() <= seq
    {
        known.remove();
    }
}

/// Fills a new index with many rows.
///
/// Rows are gathered by shard and put in a batch at a time, so that one small table after the other
/// is in the processor's cache: a third of the time of putting each in where it belongs at once.
pub(crate) struct Filler {
    index: Index,
    waiting: Vec<Vec<(Key, Row)>>,
    count: usize,
}

#[derive(Clone, Copy)]
enum Row {
    Live(Slot),
    Gone { seq: i64 },
}

/// About 12 MB of rows waiting.
const FILLED_AT_ONCE: usize = 1 << 18;

impl Filler {
    pub(crate) fn new() -> Self {
        Self { index: Index::new(), waiting: vec![Vec::new(); SHARDS], count: 0 }
    }

    /// See [`Index::put`].
    pub(crate) fn put(&mut self, key: Key, slot: Slot) {
        self.push(key, Row::Live(slot));
    }

    /// See [`Index::remove`].
    pub(crate) fn remove(&mut self, key: Key, seq: i64) {
        self.push(key, Row::Gone { seq });
    }

    fn push(&mut self, key: Key, row: Row) {
        self.waiting[shard_of(key)].push((key, row));
        self.count += 1;
        if self.count == FILLED_AT_ONCE {
            self.fill();
        }
    }

    fn fill(&mut self) {
        for (shard, waiting) in self.index.shards.iter_mut().zip(&mut self.waiting) {
            let shard = shard.get_mut();
            for (key, row) in waiting.drain(..) {
                match row {
                    Row::Live(slot) => put(shard, key, slot),
                    Row::Gone { seq } => remove(shard, key, seq),
                }
            }
        }
        self.count = 0;
    }

    pub(crate) fn finish(mut self) -> Index {
        self.fill();
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::KeyHasher;

    fn slot(seq: i64, expires_at: i64) -> Slot {
        Slot { seq, expires_at: Some(expires_at) }
    }

    #[test]
    fn a_slot_survives_packing_at_its_limits() {
        let key = KeyHasher::random().scoped("").key(b"a");
        for expires_at in [Some(1), Some(crate::clock::MAX_MS), None] {
            for seq in [1, MAX_SEQ] {
                let slot = Slot { seq, expires_at };
                let packed = Packed::new(key, slot);
                assert_eq!(packed.slot(), slot);
                assert_eq!(packed.hash(), key.low);
            }
        }
    }

    #[test]
    fn a_slot_gives_back_what_is_stored_of_its_key() {
        let index = Index::new();
        let key = KeyHasher::random().scoped("").key(b"a");
        index.put(key, slot(1, 10));
        let found: Vec<_> = (0..SHARDS).flat_map(|shard| index.live_slots(shard, 0)).collect();
        assert_eq!(found, [(stored(key), 1)]);
        assert_eq!(index.get(stored(key)), index.get(key));
    }

    #[test]
    fn the_higher_seq_wins_whichever_comes_first() {
        let index = Index::new();
        let key = KeyHasher::random().scoped("").key(b"a");
        index.put(key, slot(5, 50));
        index.put(key, slot(4, 99));
        assert_eq!(index.get(key), Some(slot(5, 50)));
        index.remove(key, 4);
        assert_eq!(index.get(key), Some(slot(5, 50)));
        index.remove(key, 6);
        assert_eq!(index.get(key), None);
    }

    #[test]
    fn keys_that_differ_in_one_stored_bit_are_told_apart() {
        let index = Index::new();
        let key = Key { low: 7, high: 9 };
        index.put(key, slot(1, 10));
        for bit in 0..64 {
            assert_eq!(index.get(Key { low: key.low ^ (1 << bit), ..key }), None);
        }
        for bit in (0..32).chain(56..64) {
            assert_eq!(index.get(Key { high: key.high ^ (1 << bit), ..key }), None);
        }
    }

    #[test]
    fn a_sweep_drops_what_expires_now_and_keeps_what_expires_a_millisecond_later() {
        let index = Index::new();
        let hasher = KeyHasher::random().scoped("");
        index.put(hasher.key(b"now"), slot(1, 100));
        index.put(hasher.key(b"later"), slot(2, 101));
        index.put(hasher.key(b"never"), Slot { seq: 3, expires_at: None });
        assert_eq!(index.count(100), (2, 1));
        index.sweep(100);
        assert_eq!(index.count(100), (2, 0));
        assert!(index.get(hasher.key(b"now")).is_none());
    }

    #[test]
    fn an_id_costs_at_most_64_bytes_whatever_the_number_of_ids() {
        let index = Index::new();
        let hasher = KeyHasher::random().scoped("");
        let fixed = index.memory_bytes();
        let mut id = 0_u64;
        for target in [20_000, 50_000, 58_000, 100_000, 115_000, 200_000, 230_000] {
            while id < target {
                id += 1;
                index.put(hasher.key(&id.to_be_bytes()), slot(id.cast_signed(), 100));
            }
            let each = (index.memory_bytes() - fixed) as f64 / target as f64;
            assert!(each <= 64.0, "{each} bytes an id with {target} ids");
        }
        index.sweep(100);
        assert_eq!(index.count(100), (0, 0));
        assert!(index.memory_bytes() - fixed < 230_000, "the memory of swept ids was kept");
    }
}
