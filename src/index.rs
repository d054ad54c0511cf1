//! The set of live ids, in memory.
//!
//! Owns, for every id that the file holds, its key, the `seq` of its newest row and when it expires. A slot
//! is 24 bytes and a table is between four and six ninths full: 36 to 54 bytes per id. The index is split
//! into shards, so that a reader never waits longer than the change of a few slots takes. Of two facts about
//! one key, the one with the higher `seq` wins, in whatever order they come. The caller decides whether an
//! entry is live: an expired slot may stay until it is swept.
//!
//! `duplicates` holds what only memory knows of rows.
//!
//! The index knows the latest time at which it was used. For an earlier time it is not right: it may lack
//! marks that had expired since, and hold marks that other stores have purged since.
//!
//! Knows nothing of SQL, files or clocks. Lock order: a shard's lock is taken last, and only one at a time.

mod duplicates;
mod table;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use parking_lot::RwLock;

use self::duplicates::{AtMaxAge, DuplicateCounts, Refusals};
pub(crate) use self::duplicates::{BySeq, MAX_COUNTED_IDS, Refused, Repeats};
use self::table::Table;

use crate::error::Result;
use crate::id::Key;

/// So many that a sweep of one shard takes well under a millisecond with ten million ids.
const SHARDS: usize = 256;
const NEVER: u64 = (1 << 48) - 1;
/// The expiry of the slot of an id that has ended.
const TOMBSTONE: Option<i64> = Some(0);
/// The largest `seq` that a slot can hold. A store reaches it after nine years of a million marks a second.
pub(crate) const MAX_SEQ: i64 = (1 << 48) - 1;

/// What the index knows of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The row of the id's newest mark.
    pub(crate) seq: i64,
    /// In unix milliseconds; `None` is never.
    pub(crate) expires_at: Option<i64>,
    /// Whether the row has a digest.
    pub(crate) has_digest: bool,
    /// Whether the row, and so the slot, is kept after it has expired.
    pub(crate) is_retained: bool,
}

impl Slot {
    /// Returns the slot of a row of which nothing else is known.
    pub(crate) fn new(seq: i64, expires_at: Option<i64>) -> Self {
        Self { seq, expires_at, has_digest: false, is_retained: false }
    }

    /// Returns the slot, unless it only tells that the id has ended.
    pub(crate) fn exists(self) -> Option<Self> {
        Some(self).filter(|slot| slot.expires_at != TOMBSTONE)
    }

    pub(crate) fn is_live(self, now_ms: i64) -> bool {
        self.expires_at.is_none_or(|expires_at| now_ms < expires_at)
    }
}

/// The bits of [`Packed::rest`] that are of the key. The others are flags.
const KEY_BITS: u32 = 0x00FF_FFFF;
const HAS_DIGEST: u32 = 1 << 24;
const IS_RETAINED: u32 = 1 << 25;

/// A slot packed to 24 bytes: 88 bits of the key, 8 of flags (2 of them used), 48 of the `seq`, 48 of the expiry.
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
    /// An empty cell: no row has the `seq` 0.
    const EMPTY: Self =
        Self { hash: 0, rest: 0, seq_low: 0, expires_low: 0, seq_high: 0, expires_high: 0 };

    fn new(key: Key, slot: Slot) -> Self {
        let seq = slot.seq.cast_unsigned();
        let expires = slot.expires_at.map_or(NEVER, i64::cast_unsigned);
        let (hash, rest) = within_shard(key);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        Self {
            hash,
            rest: rest | flag(slot.has_digest, HAS_DIGEST) | flag(slot.is_retained, IS_RETAINED),
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
        (self.hash, self.rest & KEY_BITS)
    }

    fn slot(&self) -> Slot {
        let expires = u64::from(self.expires_low) | u64::from(self.expires_high) << 32;
        Slot {
            seq: self.seq(),
            expires_at: (expires != NEVER).then_some(expires.cast_signed()),
            has_digest: self.rest & HAS_DIGEST != 0,
            is_retained: self.rest & IS_RETAINED != 0,
        }
    }

    fn seq(&self) -> i64 {
        (u64::from(self.seq_low) | u64::from(self.seq_high) << 32).cast_signed()
    }
}

/// See the module's header.
pub(crate) struct Index {
    shards: Box<[RwLock<Table>]>,
    /// Whether some slots may be of marks that another store has deleted.
    may_be_stale: AtomicBool,
    /// Up to which `seq` rows of the file may be missing here; 0 if none is.
    base: AtomicI64,
    /// The latest time at which the index was used, in unix milliseconds.
    latest_ms: AtomicI64,
    pub(crate) duplicates: DuplicateCounts,
    pub(crate) refusals: Refusals,
    /// Marks that are not extended any more, because of a sliding window's maximum age.
    pub(crate) at_max_age: AtMaxAge,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self::of((0..SHARDS).map(|_| RwLock::default()).collect())
    }

    fn of(shards: Box<[RwLock<Table>]>) -> Self {
        Self {
            shards,
            may_be_stale: AtomicBool::new(false),
            base: AtomicI64::new(0),
            latest_ms: AtomicI64::new(i64::MIN),
            duplicates: DuplicateCounts::new(),
            refusals: Refusals::default(),
            at_max_age: AtMaxAge::new(),
        }
    }

    /// Records a time at which the index is used. The caller must have read the clock while it held the mutex
    /// under which all such times are recorded. Then an earlier time means that the clock went back.
    pub(crate) fn record_use(&self, now_ms: i64) {
        self.latest_ms.fetch_max(now_ms, Relaxed);
    }

    /// Returns whether the index was used at a later time: the clock went back, and the index must be rebuilt.
    pub(crate) fn is_ahead_of(&self, now_ms: i64) -> bool {
        now_ms < self.latest_ms.load(Relaxed)
    }

    pub(crate) fn set_may_be_stale(&self, may_be_stale: bool) {
        self.may_be_stale.store(may_be_stale, Relaxed);
    }

    pub(crate) fn may_be_stale(&self) -> bool {
        self.may_be_stale.load(Relaxed)
    }

    pub(crate) fn set_base(&self, base: i64) {
        self.base.store(base, Relaxed);
    }

    /// Returns up to which `seq` rows of the file may be missing here. 0 if none is.
    pub(crate) fn base(&self) -> i64 {
        self.base.load(Relaxed)
    }

    /// Returns whether every row of the file is here, so that what is missing here is missing there.
    pub(crate) fn is_complete(&self) -> bool {
        self.base() == 0
    }

    fn shard(&self, key: Key) -> &RwLock<Table> {
        &self.shards[shard_of(key)]
    }

    /// Returns the newest known row of the id, expired or not.
    pub(crate) fn get(&self, key: Key) -> Option<Slot> {
        self.shard(key).read().get(within_shard(key)).map(|packed| packed.slot())
    }

    /// Like [`get`](Self::get). If another thread is changing the shard, calls `before_waiting` first and
    /// returns its error.
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

    /// Sets the id's slot, unless a newer row of the id is known.
    pub(crate) fn put(&self, key: Key, slot: Slot) {
        self.shard(key).write().put(Packed::new(key, slot));
    }

    /// Removes the id's slot, unless a row newer than `seq` is known. While rows may be missing here, a slot tells
    /// instead that the id has ended: the file may have an older row of it.
    pub(crate) fn remove(&self, key: Key, seq: i64) {
        if self.is_complete() {
            self.drop_up_to(key, seq);
        } else {
            self.shard(key).write().put(Packed::new(key, Slot::new(seq, TOMBSTONE)));
        }
    }

    /// Drops the slot of an id, if it is of this row or an earlier one.
    pub(crate) fn drop_up_to(&self, key: Key, seq: i64) {
        self.shard(key).write().remove(within_shard(key), |known| known.seq() <= seq);
    }

    /// Removes the slots of one shard that had expired at `now_ms`, a time that was recorded as one of its use,
    /// except those of rows that are kept, and those that nothing else tells of the end of. Frees the memory of a
    /// table that has become mostly empty. Returns how many slots it visited.
    pub(crate) fn sweep_shard(&self, shard: usize, now_ms: i64) -> usize {
        // The index may have been rebuilt for an earlier time since this one was recorded.
        self.record_use(now_ms);
        let mut shard = self.shards[shard].write();
        let visited = shard.len();
        let base = self.base();
        shard.retain(|packed| {
            let slot = packed.slot();
            slot.is_retained || slot.is_live(now_ms) || base > 0 && slot.seq > base
        });
        visited
    }

    /// Removes all expired slots, one shard after the other.
    pub(crate) fn sweep(&self, now_ms: i64) {
        for shard in 0..self.shards.len() {
            self.sweep_shard(shard, now_ms);
        }
    }

    /// Removes the slots of rows up to `seq`, which are found in the file from now on.
    pub(crate) fn forget_up_to(&self, seq: i64) {
        // First: what a caller does not find any more, it looks for in the file.
        self.set_base(seq);
        for shard in &self.shards {
            shard.write().retain(|packed| packed.seq() > seq);
        }
    }

    /// Replaces the content by that of `fresh`, which was filled for the time `now_ms`. Readers see each shard
    /// either before or after.
    pub(crate) fn replace_with(&self, fresh: Self, now_ms: i64) {
        self.latest_ms.store(now_ms, Relaxed);
        let base = fresh.base();
        if base > 0 {
            self.set_base(base);
        }
        for (shard, fresh) in self.shards.iter().zip(fresh.shards.into_vec()) {
            *shard.write() = fresh.into_inner();
        }
        self.set_base(base);
    }

    /// Returns how many ids are live, and how many expired ones have not been swept yet.
    pub(crate) fn count(&self, now_ms: i64) -> (u64, u64) {
        let (mut live, mut expired) = (0, 0);
        for shard in &self.shards {
            for slot in shard.read().slots().map(Packed::slot) {
                live += u64::from(slot.is_live(now_ms));
                expired += u64::from(!slot.is_live(now_ms) && slot.expires_at != TOMBSTONE);
            }
        }
        (live, expired)
    }

    /// Returns the live ids of one of the [`shard_count`](Self::shard_count) shards, with their rows. A key
    /// never moves to another shard.
    pub(crate) fn live_slots(&self, shard: usize, now_ms: i64) -> Vec<(Key, i64)> {
        let slots = self.shards[shard].read();
        let live = slots.slots().filter(|packed| packed.slot().is_live(now_ms));
        live.map(|packed| (key_of(shard, packed), packed.seq())).collect()
    }

    /// Returns what is stored of the keys with this [`run_hash`].
    pub(crate) fn keys_with_run_hash(&self, hash: u64) -> Vec<Key> {
        let shard = (hash >> (RUN_HASH_BITS - 8)) as usize;
        let table = self.shards[shard].read();
        let from = table
            .slots_from((hash << (64 - (RUN_HASH_BITS - 8)), 0))
            .map(|packed| key_of(shard, packed));
        from.take_while(|key| run_hash(*key) == hash).collect()
    }

    /// Returns all ids of one shard, with their rows.
    pub(crate) fn slots(&self, shard: usize) -> Vec<(Key, i64)> {
        let slots = self.shards[shard].read();
        slots.slots().map(|packed| (key_of(shard, packed), packed.seq())).collect()
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Returns the bytes allocated for slots, including empty ones.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let tables: usize = self.shards.iter().map(|shard| shard.read().bytes()).sum();
        (tables + size_of_val(&*self.shards)) as u64
    }
}

/// Returns about how many bytes an index of this many ids takes after it was filled.
pub(crate) fn estimated_bytes(ids: u64) -> u64 {
    let share = usize::try_from(ids.div_ceil(SHARDS as u64)).unwrap_or(usize::MAX);
    let share = share.saturating_add(share / 4);
    (SHARDS * (Table::bytes_with_room(share) + size_of::<RwLock<Table>>())) as u64
}

/// Returns the part of a key that a slot and its shard keep: 96 bits, so no two different ids have the same
/// part in practice.
pub(crate) fn stored(key: Key) -> Key {
    Key { low: key.low, high: (shard_of(key) as u64) << 56 | key.high & u64::from(KEY_BITS) }
}

/// The bits of a [`run_hash`].
pub(crate) const RUN_HASH_BITS: u32 = 48;

/// Returns the hash of a key by which runs in the file are ordered: first by its shard, then as within the shard. Two
/// of 10,000,000 ids have the same one in a file out of six.
pub(crate) fn run_hash(key: Key) -> u64 {
    (shard_of(key) as u64) << (RUN_HASH_BITS - 8) | key.low >> (64 - (RUN_HASH_BITS - 8))
}

/// Returns the run hashes of the keys of one shard.
pub(crate) fn hashes_of_shard(shard: u8) -> std::ops::Range<u64> {
    let first = |shard: u64| shard << (RUN_HASH_BITS - 8);
    first(shard.into())..first(u64::from(shard) + 1)
}

/// Uses the top bits of the half that a slot does not keep whole, so that all kept bits can differ between the
/// keys of one shard.
fn shard_of(key: Key) -> usize {
    (key.high >> 56) as usize % SHARDS
}

/// Returns the part of a key that distinguishes it within a shard.
#[expect(clippy::cast_possible_truncation, reason = "the rest is cut off")]
fn within_shard(key: Key) -> (u64, u32) {
    (key.low, key.high as u32 & KEY_BITS)
}

/// Returns the part of the key that is [`stored`]. It finds this slot again.
fn key_of(shard: usize, packed: &Packed) -> Key {
    let (low, rest) = packed.key();
    Key { low, high: (shard as u64) << 56 | u64::from(rest) }
}

/// Fills a new index with many rows.
///
/// Rows are gathered by shard and put in many at a time, so that one small table after the other is in the
/// processor's cache. That takes a third of the time of putting each row in at once.
pub(crate) struct BulkLoader {
    index: Index,
    waiting: Vec<Vec<Packed>>,
    count: usize,
}

/// How many rows wait at most: about 6 MB.
const FILL_BATCH: usize = 1 << 18;

impl BulkLoader {
    /// Returns an empty index with room for about this many ids, so that nothing moves while it is filled. Some
    /// shards have little more room than their share, others half as much again, so that they do not all grow
    /// at the same time later. Rows up to `base` will be missing.
    pub(crate) fn new(expected: usize, base: i64) -> Self {
        let share = if expected < FILL_BATCH { 0 } else { expected / SHARDS };
        let room = |shard| share + share / 32 + share / 2 * shard / SHARDS;
        let shards = (0..SHARDS).map(|shard| RwLock::new(Table::with_room(room(shard)))).collect();
        let index = Index::of(shards);
        index.set_base(base);
        Self { index, waiting: vec![Vec::new(); SHARDS], count: 0 }
    }

    /// See [`Index::put`].
    pub(crate) fn put(&mut self, key: Key, slot: Slot) {
        self.push(key, slot);
    }

    /// See [`Index::remove`].
    pub(crate) fn remove(&mut self, key: Key, seq: i64) {
        self.push(key, Slot::new(seq, TOMBSTONE));
    }

    fn push(&mut self, key: Key, slot: Slot) {
        self.waiting[shard_of(key)].push(Packed::new(key, slot));
        self.count += 1;
        if self.count == FILL_BATCH {
            self.fill();
        }
    }

    fn fill(&mut self) {
        let is_complete = self.index.is_complete();
        for (shard, waiting) in self.index.shards.iter_mut().zip(&mut self.waiting) {
            let shard = shard.get_mut();
            for packed in waiting.drain(..) {
                if is_complete && packed.slot().expires_at == TOMBSTONE {
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
            // Frees the room for rows that were expected and did not come.
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
        Slot::new(seq, Some(expires_at))
    }

    #[test]
    fn a_slot_survives_packing_at_its_limits() {
        let key = KeyHasher::random().scoped("").key(b"a");
        for expires_at in [Some(1), Some(crate::clock::MAX_MS), None] {
            for seq in [1, MAX_SEQ] {
                for flags in 0..4 {
                    let (has_digest, is_retained) = (flags & 1 != 0, flags & 2 != 0);
                    let slot = Slot { seq, expires_at, has_digest, is_retained };
                    let packed = Packed::new(key, slot);
                    assert_eq!(packed.slot(), slot);
                    assert_eq!(packed.key(), within_shard(key));
                }
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
    fn a_shard_that_is_being_changed_is_not_waited_for_unless_allowed() {
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
        for bit in (0..24).chain(56..64) {
            assert_eq!(index.get(Key { high: key.high ^ (1 << bit), ..key }), None);
        }
    }

    #[test]
    fn a_sweep_drops_what_expires_now_and_keeps_what_expires_a_millisecond_later() {
        let index = Index::new();
        let hasher = KeyHasher::random().scoped("");
        index.put(hasher.key(b"now"), slot(1, 100));
        index.put(hasher.key(b"later"), slot(2, 101));
        index.put(hasher.key(b"never"), Slot::new(3, None));
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
