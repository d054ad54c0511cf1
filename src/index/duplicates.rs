//! What memory keeps of ids that come back: how often each was turned away as a duplicate since the
//! counts were last written down, and which marks cannot be extended any more.
//!
//! Owns counts in memory, by the `seq` of the id's row. They are best effort: a crash loses what was
//! gathered since the last flush, and beyond [`ROOM`] ids further ones go uncounted until then, so
//! that a stream of duplicates stays a stream of reads in bounded memory.
//!
//! A hit comes here without any other lock, also in a forked child. So the locks are the standard library's:
//! one that is free at the fork is taken and let go of by its own word alone, where `parking_lot`'s may look
//! for waiters in a table of the whole process, under a lock that another thread held at the fork.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::error::Result;
use crate::machine::at_once;

const SHARDS: usize = 64;

/// By the `seq` of rows, which nobody chooses: a multiplication scatters them enough.
type BySeq<T> = HashMap<i64, T, BuildHasherDefault<SeqHasher>>;

#[derive(Default)]
struct SeqHasher(u64);

impl Hasher for SeqHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a seq hashes as one i64");
    }

    fn write_i64(&mut self, seq: i64) {
        // Knuth's multiplicative hashing, by 2^64 divided by the golden ratio.
        self.0 = seq.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
/// For how many ids counts are kept between two flushes: about 2 MB.
pub(crate) const ROOM: usize = at_once!(65_536, in_a_simulation: 128);

pub(crate) struct DuplicateCounts {
    shards: Box<[Mutex<BySeq<u32>>]>,
}

impl DuplicateCounts {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, seq: i64) -> &Mutex<BySeq<u32>> {
        &self.shards[usize::try_from(seq).unwrap_or(0) % SHARDS]
    }

    /// Counts one duplicate of the id whose row is `seq`. Where that has to wait for another thread,
    /// `before_waiting` must allow it.
    pub(crate) fn add(&self, seq: i64, before_waiting: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut counts = lock_if_free(self.shard(seq), before_waiting)?;
        let has_room = counts.len() < ROOM / SHARDS;
        match counts.get_mut(&seq) {
            Some(count) => *count = count.saturating_add(1),
            None if has_room => {
                counts.insert(seq, 1);
            }
            None => {}
        }
        Ok(())
    }

    /// What was counted for the row and is not in the file yet.
    pub(crate) fn pending(&self, seq: i64) -> u32 {
        lock(self.shard(seq)).get(&seq).copied().unwrap_or(0)
    }

    /// Forgets the counts of rows with a higher number.
    pub(crate) fn forget_after(&self, seq: i64) {
        for shard in &self.shards {
            lock(shard).retain(|counted, _| *counted <= seq);
        }
    }

    /// Forgets all counts.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            lock(shard).clear();
        }
    }

    /// A snapshot of up to `limit` counts, for a flush.
    pub(crate) fn some(&self, limit: usize) -> Vec<(i64, u32)> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let room = limit - taken.len();
            taken.extend(lock(shard).iter().take(room).map(|(&seq, &count)| (seq, count)));
            if taken.len() == limit {
                break;
            }
        }
        taken
    }

    /// Takes `count` off the row: it is in the file now.
    pub(crate) fn settle(&self, seq: i64, count: u32) {
        let mut counts = lock(self.shard(seq));
        if let Some(pending) = counts.get_mut(&seq) {
            *pending = pending.saturating_sub(count);
            if *pending == 0 {
                counts.remove(&seq);
            }
        }
    }
}

/// Marks that are known to be at their maximum age, so that their sightings need not be written down.
///
/// A cache: what it forgets costs a transaction that finds it out again.
pub(crate) struct AtMaxAge {
    shards: Box<[Mutex<BySeq<Duration>>]>,
}

impl AtMaxAge {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, seq: i64) -> &Mutex<BySeq<Duration>> {
        &self.shards[usize::try_from(seq).unwrap_or(0) % SHARDS]
    }

    /// Forgets rows with a higher number.
    pub(crate) fn forget_after(&self, seq: i64) {
        for shard in &self.shards {
            lock(shard).retain(|known, _| *known <= seq);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            lock(shard).clear();
        }
    }

    /// The row `seq` cannot be extended within `max_age`.
    pub(crate) fn add(&self, seq: i64, max_age: Duration) {
        let mut known = lock(self.shard(seq));
        if known.len() == ROOM / SHARDS {
            known.clear();
        }
        known.insert(seq, max_age);
    }

    /// Whether the row `seq` is known not to be extensible within `max_age`. Where that has to wait for
    /// another thread, `before_waiting` must allow it.
    pub(crate) fn covers(
        &self,
        seq: i64,
        max_age: Duration,
        before_waiting: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        let known = lock_if_free(self.shard(seq), before_waiting)?;
        Ok(known.get(&seq).is_some_and(|known| max_age <= *known))
    }
}

/// Nothing that runs under these locks can panic half-way, so that poison means nothing.
fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_if_free<T>(
    shard: &Mutex<T>,
    before_waiting: impl FnOnce() -> Result<()>,
) -> Result<MutexGuard<'_, T>> {
    match shard.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            before_waiting()?;
            Ok(lock(shard))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    fn refuse() -> Result<()> {
        Err(Error::new(ErrorKind::Forked, "refused to wait"))
    }

    #[test]
    fn a_cap_covers_shorter_ages_and_forgets_rather_than_grows() {
        let capped = AtMaxAge::new();
        let hour = Duration::from_secs(3_600);
        capped.add(7, hour);
        assert!(
            capped.covers(7, hour, refuse).unwrap() && capped.covers(7, hour / 2, refuse).unwrap()
        );
        assert!(
            !capped.covers(7, hour * 2, refuse).unwrap()
                && !capped.covers(8, hour, refuse).unwrap()
        );
        for seq in 0..2 * i64::try_from(ROOM).unwrap() {
            capped.add(seq, hour);
        }
        assert!(capped.shards.iter().all(|shard| lock(shard).len() <= ROOM / SHARDS));
    }

    #[test]
    fn a_lock_that_is_held_is_not_waited_for_without_leave() {
        let (suppressed, capped) = (DuplicateCounts::new(), AtMaxAge::new());
        let hour = Duration::from_secs(3_600);
        capped.add(7, hour);
        let held = (lock(suppressed.shard(7)), lock(capped.shard(7)));
        assert!(suppressed.add(7, refuse).is_err());
        assert!(capped.covers(7, hour, refuse).is_err());
        drop(held);
        assert_eq!(suppressed.pending(7), 0);
        suppressed.add(7, refuse).unwrap();
        assert_eq!(suppressed.pending(7), 1);
        assert!(capped.covers(7, hour, refuse).unwrap());
    }

    #[test]
    fn what_is_counted_during_a_flush_is_kept_for_the_next_one() {
        let suppressed = DuplicateCounts::new();
        suppressed.add(7, refuse).unwrap();
        suppressed.add(7, refuse).unwrap();
        let flushed = suppressed.some(10);
        assert_eq!(flushed, [(7, 2)]);
        suppressed.add(7, refuse).unwrap();
        suppressed.settle(7, 2);
        assert_eq!(suppressed.pending(7), 1);
    }

    #[test]
    fn memory_is_bounded_and_known_ids_go_on_counting() {
        let suppressed = DuplicateCounts::new();
        for seq in 0..2 * i64::try_from(ROOM).unwrap() {
            suppressed.add(seq, refuse).unwrap();
        }
        assert_eq!(suppressed.some(usize::MAX).len(), ROOM);
        suppressed.add(0, refuse).unwrap();
        assert_eq!(suppressed.pending(0), 2);
    }
}
