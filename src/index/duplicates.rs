//! What only memory knows of ids that come back: how often each was refused as a duplicate since the counts
//! were last written to the file, and which marks cannot be extended any more.
//!
//! Owns counts in memory: by the `seq` of the id's row, or by the token of a claim. They are best effort: a crash
//! loses the counts since
//! the last flush, and beyond [`MAX_COUNTED_IDS`] ids, further ones are not counted until then. So duplicates
//! cause only reads, and the memory is bounded.
//!
//! A hit takes these locks without any other lock, also in a forked child. So they are locks of the standard
//! library: one that is free at the fork is taken and released by its own word alone. `parking_lot`'s may look
//! for waiters in a table of the whole process, under a lock that another thread held at the fork.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::error::Result;
use crate::id::Id;
use crate::machine::step_size;
use crate::token::Token;

const SHARDS: usize = 64;

/// By the `seq` of rows. Callers do not choose them, so a multiplication scatters them well enough.
pub(crate) type BySeq<T> = HashMap<i64, T, BuildHasherDefault<SeqHasher>>;

#[derive(Default)]
pub(crate) struct SeqHasher(u64);

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
pub(crate) const MAX_COUNTED_IDS: usize = step_size!(65_536, in_a_simulation: 128);

/// A value for each of some rows, by `seq`.
pub(crate) struct RowValues<T> {
    shards: Box<[Mutex<BySeq<T>>]>,
}

impl<T> RowValues<T> {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, seq: i64) -> &Mutex<BySeq<T>> {
        &self.shards[usize::try_from(seq).unwrap_or(0) % SHARDS]
    }

    /// Forgets rows with a higher `seq`.
    pub(crate) fn forget_after(&self, seq: i64) {
        for shard in &self.shards {
            lock(shard).retain(|known, _| *known <= seq);
        }
    }

    /// Forgets all rows.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            lock(shard).clear();
        }
    }
}

/// Duplicates of one id: how many, and when the last one came, in unix milliseconds. None at all is 0 and the
/// earliest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeats {
    pub(crate) count: u32,
    pub(crate) last_ms: i64,
}

impl Repeats {
    pub(crate) const NONE: Self = Self { count: 0, last_ms: i64::MIN };

    /// Returns one duplicate.
    pub(crate) fn at(now_ms: i64) -> Self {
        Self { count: 1, last_ms: now_ms }
    }

    /// Returns those of both.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            count: self.count.saturating_add(more.count),
            last_ms: self.last_ms.max(more.last_ms),
        }
    }
}

/// The duplicates that were counted and are not in the file yet.
pub(crate) type DuplicateCounts = RowValues<Repeats>;

impl DuplicateCounts {
    /// Counts duplicates of the id whose row is `seq`. If another thread holds the lock, calls
    /// `before_waiting` first and returns its error.
    pub(crate) fn add(
        &self,
        seq: i64,
        more: Repeats,
        before_waiting: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut counts = lock_if_free(self.shard(seq), before_waiting)?;
        let has_room = counts.len() < MAX_COUNTED_IDS / SHARDS;
        match counts.get_mut(&seq) {
            Some(repeats) => *repeats = repeats.and(more),
            None if has_room => {
                counts.insert(seq, more);
            }
            None => {}
        }
        Ok(())
    }

    /// Returns the duplicates of the row that are not in the file yet.
    pub(crate) fn pending(&self, seq: i64) -> Repeats {
        lock(self.shard(seq)).get(&seq).copied().unwrap_or(Repeats::NONE)
    }

    /// Returns a snapshot of up to `limit` counts, for a flush.
    pub(crate) fn snapshot(&self, limit: usize) -> Vec<(i64, Repeats)> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let room = limit - taken.len();
            taken.extend(lock(shard).iter().take(room).map(|(&seq, &repeats)| (seq, repeats)));
            if taken.len() == limit {
                break;
            }
        }
        taken
    }

    /// Subtracts `count` from the row's count, because it is in the file now.
    pub(crate) fn subtract(&self, seq: i64, count: u32) {
        let mut counts = lock(self.shard(seq));
        if let Some(pending) = counts.get_mut(&seq) {
            pending.count = pending.count.saturating_sub(count);
            if pending.count == 0 {
                counts.remove(&seq);
            }
        }
    }
}

/// How many claimed ids are counted between two flushes: about 1 MB with short ids.
const MAX_REFUSED_CLAIMS: usize = step_size!(4_096, in_a_simulation: 128);

/// An id that is claimed, and how often callers were refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) scope: String,
    pub(crate) id: Vec<u8>,
    pub(crate) count: u32,
}

impl Refused {
    pub(crate) fn once(id: Id<'_>) -> Self {
        Self { scope: id.scope.to_owned(), id: id.bytes.to_vec(), count: 1 }
    }
}

/// The refusals of ids in flight that were counted and are not in the file yet.
///
/// By the token of the claim: it goes with the claim to the mark that confirms it, and never to another one.
#[derive(Default)]
pub(crate) struct Refusals {
    claims: Mutex<BTreeMap<Token, Refused>>,
}

impl Refusals {
    /// Counts refusals.
    pub(crate) fn add(&self, token: Token, more: Refused) {
        let mut claims = lock(&self.claims);
        let has_room = claims.len() < MAX_REFUSED_CLAIMS;
        match claims.get_mut(&token) {
            Some(refused) => refused.count = refused.count.saturating_add(more.count),
            None if has_room => {
                claims.insert(token, more);
            }
            None => {}
        }
    }

    /// Returns the refusals of the claim that are not in the file yet.
    pub(crate) fn pending(&self, token: Option<Token>) -> u32 {
        let count = |token| lock(&self.claims).get(&token).map(|refused| refused.count);
        token.and_then(count).unwrap_or(0)
    }

    /// Returns a snapshot of up to `limit` counts, for a flush.
    pub(crate) fn snapshot(&self, limit: usize) -> Vec<(Token, Refused)> {
        let claims = lock(&self.claims);
        claims.iter().take(limit).map(|(token, refused)| (*token, refused.clone())).collect()
    }

    /// Subtracts `count` from the claim's count, because it is in the file now.
    pub(crate) fn subtract(&self, token: Token, count: u32) {
        let mut claims = lock(&self.claims);
        if let Some(refused) = claims.get_mut(&token) {
            refused.count = refused.count.saturating_sub(count);
            if refused.count == 0 {
                claims.remove(&token);
            }
        }
    }
}

/// Marks that are known to be at their maximum age, so that seeing them again need not be written.
///
/// A cache: for what it forgets, a transaction finds it out again.
pub(crate) type AtMaxAge = RowValues<Duration>;

impl AtMaxAge {
    /// Records that the row `seq` cannot be extended within `max_age`.
    pub(crate) fn add(&self, seq: i64, max_age: Duration) {
        let mut known = lock(self.shard(seq));
        if known.len() == MAX_COUNTED_IDS / SHARDS {
            known.clear();
        }
        known.insert(seq, max_age);
    }

    /// Returns whether the row `seq` is known not to be extensible within `max_age`. If another thread holds
    /// the lock, calls `before_waiting` first and returns its error.
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

/// Ignores poison: nothing that runs under these locks can panic half-way.
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
        let at_max_age = AtMaxAge::new();
        let hour = Duration::from_secs(3_600);
        at_max_age.add(7, hour);
        assert!(
            at_max_age.covers(7, hour, refuse).unwrap()
                && at_max_age.covers(7, hour / 2, refuse).unwrap()
        );
        assert!(
            !at_max_age.covers(7, hour * 2, refuse).unwrap()
                && !at_max_age.covers(8, hour, refuse).unwrap()
        );
        for seq in 0..2 * i64::try_from(MAX_COUNTED_IDS).unwrap() {
            at_max_age.add(seq, hour);
        }
        assert!(
            at_max_age.shards.iter().all(|shard| lock(shard).len() <= MAX_COUNTED_IDS / SHARDS)
        );
    }

    #[test]
    fn a_lock_that_is_held_is_not_waited_for_unless_allowed() {
        let (counts, at_max_age) = (DuplicateCounts::new(), AtMaxAge::new());
        let hour = Duration::from_secs(3_600);
        at_max_age.add(7, hour);
        let held = (lock(counts.shard(7)), lock(at_max_age.shard(7)));
        assert!(counts.add(7, Repeats::at(1), refuse).is_err());
        assert!(at_max_age.covers(7, hour, refuse).is_err());
        drop(held);
        assert_eq!(counts.pending(7), Repeats::NONE);
        counts.add(7, Repeats::at(1), refuse).unwrap();
        assert_eq!(counts.pending(7).count, 1);
        assert!(at_max_age.covers(7, hour, refuse).unwrap());
    }

    #[test]
    fn what_is_counted_during_a_flush_is_kept_for_the_next_one() {
        let counts = DuplicateCounts::new();
        counts.add(7, Repeats::at(1), refuse).unwrap();
        counts.add(7, Repeats::at(1), refuse).unwrap();
        let flushed = counts.snapshot(10);
        assert_eq!(flushed, [(7, Repeats { count: 2, last_ms: 1 })]);
        counts.add(7, Repeats::at(1), refuse).unwrap();
        counts.subtract(7, 2);
        assert_eq!(counts.pending(7).count, 1);
    }

    #[test]
    fn memory_is_bounded_and_known_ids_go_on_counting() {
        let counts = DuplicateCounts::new();
        for seq in 0..2 * i64::try_from(MAX_COUNTED_IDS).unwrap() {
            counts.add(seq, Repeats::at(1), refuse).unwrap();
        }
        assert_eq!(counts.snapshot(usize::MAX).len(), MAX_COUNTED_IDS);
        counts.add(0, Repeats::at(1), refuse).unwrap();
        assert_eq!(counts.pending(0).count, 2);
    }
}
