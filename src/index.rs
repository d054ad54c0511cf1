//! The set of live ids, in memory.
//!
//! Owns, for every id that the file holds, its key, the `seq` of its newest row and when it expires.
//! A slot is 24 bytes and a table is between four and six ninths full: 36 to 54 bytes an id. The index
//! is cut into shards so that a reader never waits for more than the change of
//! a few slots. Of two facts about one key the one with the higher `seq` wins, whichever comes first.
//! Whether an entry is live is the reader's question: an expired slot may stay until it is swept.
//!
//! Beside it stands what memory alone knows of rows: see `duplicates`.
//!
//! The index knows the latest time at which it was used. For an earlier one it is not true: it may lack what
//! had expired since, and hold what others have purged since.
//!
//! Knows nothing of SQL, files or clocks. Lock order: a shard's lock is taken last and alone.

mod duplicates;
mod table;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use parking_lot::RwLock;

pub(crate) use self::duplicates::ROOM;
use self::duplicates::{AtMaxAge, DuplicateCounts};
use self::table::Table;

use crate::error::Result;
use crate::id::Key;

/// Enough that the sweep of one shard of ten million ids takes well under a millisecond.
const SHARDS: usize = 256;
const NEVER: u64 = (1 << 48) - 1;
/// The expiry of a row that ends its id, while it waits in a [`Filler`].
const GONE: Option<i64> = Some(0);
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
    hash: u64,
    rest: u32,
    seq_low: u32,
    expires_low: u32,
    seq_high: u16,
    expires_high: u16,
}

const _: () = assert!(size_of::<Packed>() == 24);

#[expect(clippy::cast_possible_truncation, reason = "this is where numbers are cut to size")]
impl Packed {
    /// A place without a slot: no row has the `seq` 0.
    const EMPTY: Self =
        Self { hash: 0, rest: 0, seq_low: 0, expires_low: 0, seq_high: 0, expires_high: 0 };

    fn new(key: Key, slot: Slot) -> Self {
        let seq = slot.seq.cast_unsigned();
        let expires = slot.expires_at.map_or(NEVER, i64::cast_unsigned);
        let (hash, rest) = within_shard(key);
        Self {
            hash,
            rest,
            seq_low: seq as u32,
            seq_high: (seq >> 32) as u16,
            expires_low: expires as u32,
            expires_high: (expires >> 32) as u16,
        }
    }

    fn is_empty(&self) -> bool {
        self.seq_low == 0 && self.seq_high == 0
    }

    fn key(&self) -> (u64, u32) {
        (self.hash, self.rest)
    }

    fn slot(&self) -> Slot {
        let expires = u64::from(self.expires_low) | u64::from(self.expires_high) << 32;
        Slot { seq: self.seq(), expires_at: (expires != NEVER).then_some(expires.cast_signed()) }
    }

    fn seq(&self) -> i64 {
        (u64::from(self.seq_low) | u64::from(self.seq_high) << 32).cast_signed()
    }
}

/// See the module's header.
pub(crate) struct Index {
    shards: Box<[RwLock<Table>]>,
    /// Whether some slots may be of marks that another store has deleted.
    doubted: AtomicBool,
    /// The latest time at which it was used, in unix milliseconds.
    latest_ms: AtomicI64,
    pub(crate) duplicates: DuplicateCounts,
    /// Marks that a sliding window's maximum age keeps from being extended.
    pub(crate) at_max_age: AtMaxAge,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self::of((0..SHARDS).map(|_| RwLock::default()).collect())
    }

    fn of(shards: Box<[RwLock<Table>]>) -> Self {
        Self {
            shards,
            doubted: AtomicBool::new(false),
            latest_ms: AtomicI64::new(i64::MIN),
            duplicates: DuplicateCounts::new(),
            at_max_age: AtMaxAge::new(),
        }
    }

    /// Takes note of a time at which it is used. The caller has read the clock in the same hold of the mutex
    /// under which all such times are noted, so that an earlier time is one of a clock that went back.
    pub(crate) fn used_at(&self, now_ms: i64) {
        self.latest_ms.fetch_max(now_ms, Relaxed);
    }

    /// Whether it was used at a later time: the clock has gone back, and the index must be filled anew.
    pub(crate) fn is_ahead_of(&self, now_ms: i64) -> bool {
        now_ms < self.latest_ms.load(Relaxed)
    }

    pub(crate) fn set_doubted(&self, doubted: bool) {
        self.doubted.store(doubted, Relaxed);
    }

    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.load(Relaxed)
    }

    fn shard(&self, key: Key) -> &RwLock<Table> {
        &self.shards[shard_of(key)]
    }

    /// The newest known row of the id, expired or not.
    pub(crate) fn get(&self, key: Key) -> Option<Slot> {
        self.shard(key).read().get(within_shard(key)).map(|packed| packed.slot())
    }

    /// The same, where `before_waiting` must allow it if the shard is being changed at this moment.
    pub(crate) fn get_if_free(
        &self,
        key: Key,
        before_waiting: impl FnOnce() -> Result<()>,
    ) -> Result<Option<Slot>> {
        let Some(shard) = self.shard(key).try_read() else {
            before_waiting()?;
            return Ok(self.get(key));
        };
        Ok(shard.get(within_shard(key)).map(|packed| packed.slot()))
    }

    /// Takes in a row, unless a newer one of the same id is known.
    pub(crate) fn put(&self, key: Key, slot: Slot) {
        self.shard(key).write().put(Packed::new(key, slot));
    }

    /// Forgets the id, unless a row newer than `seq` is known.
    pub(crate) fn remove(&self, key: Key, seq: i64) {
        self.shard(key).write().remove(within_shard(key), |known| known.seq() <= seq);
    }

    /// Drops the slots of one shard that had expired at a time that was noted as one of its use, and gives
    /// its memory back where it has become mostly empty. Returns how many slots it went through.
    pub(crate) fn sweep_shard(&self, shard: usize, now_ms: i64) -> usize {
        // The index may have been filled for an earlier time since this one was noted.
        self.used_at(now_ms);
        let mut shard = self.shards[shard].write();
        let visited = shard.len();
        shard.retain(|packed| packed.slot().is_live(now_ms));
        visited
    }

    /// Drops all expired slots, a shard at a time.
    pub(crate) fn sweep(&self, now_ms: i64) {
        for shard in 0..self.shards.len() {
            self.sweep_shard(shard, now_ms);
        }
    }

    /// Takes over everything that `fresh` holds, which was filled for this time, and nothing else. Readers see
    /// each shard either before or after.
    pub(crate) fn replace_with(&self, fresh: Self, now_ms: i64) {
        self.latest_ms.store(now_ms, Relaxed);
        for (shard, fresh) in self.shards.iter().zip(fresh.shards.into_vec()) {
            *shard.write() = fresh.into_inner();
        }
    }

    /// How many ids are live, and how many expired ones have not been swept yet.
    pub(crate) fn count(&self, now_ms: i64) -> (u64, u64) {
        let (mut live, mut expired) = (0, 0);
        for shard in &self.shards {
            let shard = shard.read();
            let alive = shard.slots().filter(|packed| packed.slot().is_live(now_ms)).count();
            live += alive as u64;
            expired += (shard.len() - alive) as u64;
        }
        (live, expired)
    }

    /// The live ids of one of the [`shard_count`](Self::shard_count) shards, with their rows. A key
    /// stays in its shard for ever.
    pub(crate) fn live_slots(&self, shard: usize, now_ms: i64) -> Vec<(Key, i64)> {
        let slots = self.shards[shard].read();
        let live = slots.slots().filter(|packed| packed.slot().is_live(now_ms));
        live.map(|packed| (key_of(shard, packed), packed.seq())).collect()
    }

    /// All ids of one shard, with their rows.
    pub(crate) fn slots(&self, shard: usize) -> Vec<(Key, i64)> {
        let slots = self.shards[shard].read();
        slots.slots().map(|packed| (key_of(shard, packed), packed.seq())).collect()
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The bytes allocated for slots, the empty ones included.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let tables: usize = self.shards.iter().map(|shard| shard.read().bytes()).sum();
        (tables + size_of_val(&*self.shards)) as u64
    }
}

/// What an index of this many ids takes once it was filled, in bytes, about.
pub(crate) fn estimated_bytes(ids: u64) -> u64 {
    let share = usize::try_from(ids.div_ceil(SHARDS as u64)).unwrap_or(usize::MAX);
    let share = share.saturating_add(share / 4);
    (SHARDS * (Table::bytes_with_room(share) + size_of::<RwLock<Table>>())) as u64
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

/// What tells keys apart within a shard.
#[expect(clippy::cast_possible_truncation, reason = "the rest is cut off")]
fn within_shard(key: Key) -> (u64, u32) {
    (key.low, key.high as u32)
}

/// A key as far as it is [`stored`]: what finds this slot again.
fn key_of(shard: usize, packed: &Packed) -> Key {
    Key { low: packed.hash, high: (shard as u64) << 56 | u64::from(packed.rest) }
}

/// Fills a new index with many rows.
///
/// Rows are gathered by shard and put in many at a time, so that one small table after the other is in the
/// processor's cache: a third of the time of putting each in where it belongs at once.
pub(crate) struct Filler {
    index: Index,
    waiting: Vec<Vec<Packed>>,
    count: usize,
}

/// How many rows wait at most: about 6 MB.
const FILLED_AT_ONCE: usize = 1 << 18;

impl Filler {
    /// With room for about so many ids, so that nothing is moved on the way. Some shards have little more
    /// than their share, others half as much again: so they will not all grow at the same time.
    pub(crate) fn new(expected: usize) -> Self {
        let share = if expected < FILLED_AT_ONCE { 0 } else { expected / SHARDS };
        let room = |shard| share + share / 32 + share / 2 * shard / SHARDS;
        let shards = (0..SHARDS).map(|shard| RwLock::new(Table::with_room(room(shard)))).collect();
        Self { index: Index::of(shards), waiting: vec![Vec::new(); SHARDS], count: 0 }
    }

    /// See [`Index::put`].
    pub(crate) fn put(&mut self, key: Key, slot: Slot) {
        self.push(key, slot);
    }

    /// See [`Index::remove`].
    pub(crate) fn remove(&mut self, key: Key, seq: i64) {
        self.push(key, Slot { seq, expires_at: GONE });
    }

    fn push(&mut self, key: Key, slot: Slot) {
        self.waiting[shard_of(key)].push(Packed::new(key, slot));
        self.count += 1;
        if self.count == FILLED_AT_ONCE {
            self.fill();
        }
    }

    fn fill(&mut self) {
        for (shard, waiting) in self.index.shards.iter_mut().zip(&mut self.waiting) {
            let shard = shard.get_mut();
            for packed in waiting.drain(..) {
                if packed.slot().expires_at == GONE {
                    shard.remove(packed.key(), |known| known.seq() <= packed.seq());
                } else {
                    shard.put(packed);
                }
            }
        }
        self.count = 0;
    }

    pub(crate) fn finish(mut self) -> Index {
        self.fill();
        for shard in &mut self.index.shards {
            // Fewer came than were expected.
            shard.get_mut().retain(|_| true);
        }
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
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
                assert_eq!(packed.key(), within_shard(key));
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
    fn a_shard_that_is_being_changed_is_not_waited_for_without_leave() {
        let index = Index::new();
        let key = KeyHasher::random().scoped("").key(b"a");
        index.put(key, slot(1, 10));
        let refuse = || Err(Error::new(ErrorKind::Forked, "refused to wait"));
        let held = index.shard(key).write();
        assert!(index.get_if_free(key, refuse).is_err());
        drop(held);
        assert_eq!(index.get_if_free(key, refuse).unwrap(), Some(slot(1, 10)));
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
