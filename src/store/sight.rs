//! A duplicate that is answered from the index, without the write lock.
//!
//! What always holds: it is answered so only where a decision under the write lock would change nothing but the count of
//! duplicates. All else is left to that decision.

use super::SeenStore;
use crate::error::Result;
use crate::id::Id;
use crate::index::Slot;

impl SeenStore {
    /// Returns the id's mark if the index shows that it is seen, and, for an item with a version or a payload, its row
    /// that it is the same. Then the duplicate is counted.
    pub(crate) fn duplicate_in_index(&self, id: Id<'_>) -> Result<Option<Slot>> {
        self.engine.look_ahead([id.key].into_iter())?;
        // A decision under the write lock catches up first, so a miss need not do so here.
        let now_ms = self.engine.clock.now_ms();
        let Some(slot) = self.engine.live_in_index(id.key, now_ms)? else { return Ok(None) };
        self.repeat(id, slot, now_ms)
    }

    /// Like [`duplicate_in_index`](Self::duplicate_in_index), for callers that must not wait: `None` also where only the
    /// file can tell.
    #[cfg(feature = "tokio")]
    pub(crate) fn duplicate_at_once(&self, id: Id<'_>) -> Result<Option<Slot>> {
        let now_ms = self.engine.clock.now_ms();
        match self.engine.live_at_once(id.key, now_ms)? {
            Some(slot) if id.digest.is_none() => self.repeat(id, slot, now_ms),
            _ => Ok(None),
        }
    }

    /// Counts the sighting of a mark as a duplicate. `None` where it is of another digest, or extends the mark.
    fn repeat(&self, id: Id<'_>, slot: Slot, now_ms: i64) -> Result<Option<Slot>> {
        // Of a call that is made again, the row tells whether it is a duplicate.
        if id.retry_of.is_some() || self.needs_extension(slot, now_ms)? {
            return Ok(None);
        }
        if id.digest.is_some() {
            let known = slot.has_digest.then(|| self.engine.entry_at(id.key, slot)).transpose()?;
            if known.flatten().is_none_or(|entry| entry.digest != id.digest) {
                return Ok(None);
            }
        }
        self.engine.count_duplicate(slot.seq, now_ms)?;
        Ok(Some(slot))
    }

    fn needs_extension(&self, slot: Slot, now_ms: i64) -> Result<bool> {
        self.lifetime.needs_extension(slot.expires_at, now_ms, |age| {
            self.engine.is_at_max_age(slot.seq, age)
        })
    }
}
