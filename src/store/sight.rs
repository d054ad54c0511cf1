//! What a verb finds of an id: seen or not, in the same version or another one, claimed or not.
//!
//! Owns the comparison of versions and payloads, and what a sighting leaves: the duplicate is counted, and in a
//! sliding window the mark is extended. What always holds: an id that was used with another payload is an error
//! before anything is changed.

use super::SeenStore;
use crate::config::Window;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Id;
use crate::index::Slot;
use crate::item::{Comparison, compare};
use crate::journal::{ClaimRow, MarkRow, NewMark, Transaction};

/// What a transaction finds of an id.
pub(super) enum Look {
    /// It is not seen.
    Unseen,
    /// It is seen, in the version that is asked for.
    Same(Slot),
    /// It is seen, in another version.
    Changed(Box<MarkRow>),
}

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
        if self.needs_extension(slot, now_ms)? {
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

    /// Looks for the id's mark and compares its version.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when the id was stored with another payload.
    pub(super) fn look(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<Look> {
        let Some(slot) = transaction.live(id.key)? else { return Ok(Look::Unseen) };
        if id.digest.is_none() || !slot.has_digest {
            return Ok(Look::Same(slot));
        }
        let Some(row) = transaction.last_row(slot)? else { return Ok(Look::Same(slot)) };
        Ok(match compare(row.digest, id.digest) {
            Comparison::Same | Comparison::First => Look::Same(slot),
            Comparison::Changed => Look::Changed(Box::new(row)),
            Comparison::Conflict => return Err(self.conflict(id)),
        })
    }

    /// Like [`look`](Self::look), and records the sighting of a mark of the same version: the duplicate is counted, the
    /// mark gets the digest that it lacks, and in a sliding window it is extended.
    pub(super) fn sight(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<Look> {
        let slot = match self.look(transaction, id)? {
            Look::Same(slot) => slot,
            look => return Ok(look),
        };
        transaction.count_duplicate(slot.seq);
        if id.digest.is_some() && !slot.has_digest {
            transaction.add_digest(id, slot)?;
        }
        let slot = transaction.live(id.key)?.unwrap_or(slot);
        if self.needs_extension(slot, transaction.now_ms)? {
            let mark = self.mark_of_live(transaction, slot, transaction.now_ms)?;
            if mark.expires_at.is_none_or(|new| slot.expires_at.is_some_and(|old| old < new)) {
                transaction.refresh(id, slot, &mark)?;
                return Ok(Look::Same(transaction.live(id.key)?.unwrap_or(slot)));
            } else if let Window::Sliding { max_age: Some(age) } = self.lifetime.window {
                // At its maximum age: a write would change nothing.
                self.engine.index.at_max_age.add(slot.seq, age);
            }
        }
        Ok(Look::Same(slot))
    }

    /// Returns true when a sighting of a live id extends its mark.
    fn needs_extension(&self, slot: Slot, now_ms: i64) -> Result<bool> {
        if !self.lifetime.wants_later_expiry(slot.expires_at, now_ms) {
            return Ok(false);
        }
        match self.lifetime.window {
            Window::Sliding { max_age: Some(age) } => {
                Ok(!self.engine.is_at_max_age(slot.seq, age)?)
            }
            _ => Ok(true),
        }
    }

    /// Returns the mark of a live id that is seen at `seen_at_ms`, by this handle's lifetime.
    pub(super) fn mark_of_live(
        &self,
        transaction: &mut Transaction<'_>,
        old: Slot,
        seen_at_ms: i64,
    ) -> Result<NewMark<'static>> {
        let first_ms = match self.lifetime.window {
            Window::Sliding { max_age: Some(_) } => {
                transaction.row(old)?.map_or(seen_at_ms, |row| row.first_seen.min(seen_at_ms))
            }
            _ => seen_at_ms,
        };
        Ok(NewMark { first_seen: seen_at_ms, ..self.lifetime.mark(seen_at_ms, first_ms) })
    }

    /// Returns the claim of an id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when it is claimed with another payload.
    pub(super) fn claim_of(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
    ) -> Result<Option<ClaimRow>> {
        let claim = transaction.claim(id)?;
        match &claim {
            Some(claim) if compare(claim.digest, id.digest) == Comparison::Conflict => {
                Err(self.conflict(id))
            }
            _ => Ok(claim),
        }
    }

    pub(super) fn conflict(&self, id: Id<'_>) -> Error {
        let [name, id] = [&self.engine.name, &id.shown()];
        Error::new(
            ErrorKind::Conflict,
            format!(
                "{name}: the id {id} was used with another payload before; use a new id for a new request, or \
                 forget this one"
            ),
        )
    }

    /// Returns what is known of an id: of its mark, its claim, or a mark that is kept after its expiry.
    pub(super) fn known_of(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
    ) -> Result<Option<Entry>> {
        let now_ms = transaction.now_ms;
        if let Some(slot) = transaction.live(id.key)? {
            let row = transaction.last_row(slot)?;
            return Ok(row.map(|row| row.entry(now_ms)));
        }
        if let Some(claim) = transaction.claim(id)? {
            return Ok(Some(self.engine.claim_entry(id, claim, now_ms)));
        }
        let row = transaction.retained(id)?;
        Ok(row.map(|row| row.entry(now_ms)))
    }
}
