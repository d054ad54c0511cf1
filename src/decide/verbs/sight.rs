//! What a verb finds of an id: seen or not, in the same version or another one, claimed or not.
//!
//! Owns the comparison of versions and payloads, and what a sighting leaves: the duplicate is counted, and in a
//! sliding window the mark is extended. What always holds: an id that was used with another payload is an error
//! before anything is changed.

use super::Verbs;
use crate::config::Window;
use crate::decide::rows::Rows;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Id;
use crate::index::Slot;
use crate::item::{Comparison, compare};
use crate::journal::{ClaimRow, MarkRow, NewMark};

/// What is known of an id in its version.
pub(crate) enum Look {
    Unseen,
    /// Seen in this version, or in a version or with a payload that is not known.
    Same(Slot),
    /// Seen in another version.
    Changed(Box<MarkRow>),
}

impl Verbs<'_> {
    /// Looks for the id's mark and compares its version.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when the id was stored with another payload.
    pub(crate) fn look(&self, rows: &mut impl Rows, id: Id<'_>) -> Result<Look> {
        let Some(slot) = rows.live(id)? else { return Ok(Look::Unseen) };
        if id.digest.is_none() || !slot.has_digest {
            return Ok(Look::Same(slot));
        }
        let Some(row) = rows.last_row(slot)? else { return Ok(Look::Same(slot)) };
        Ok(match compare(row.digest, id.digest) {
            Comparison::Same | Comparison::First => Look::Same(slot),
            Comparison::Changed => Look::Changed(Box::new(row)),
            Comparison::Conflict => return Err(self.conflict(id)),
        })
    }

    /// Like [`look`](Self::look), and records the sighting of a mark of the same version: the duplicate is counted, the
    /// mark gets the digest that it lacks, and in a sliding window it is extended.
    pub(crate) fn sight(&self, rows: &mut impl Rows, id: Id<'_>) -> Result<Look> {
        let slot = match self.look(rows, id)? {
            Look::Same(slot) => slot,
            look => return Ok(look),
        };
        rows.count_duplicate(slot);
        if id.digest.is_some() && !slot.has_digest {
            rows.add_digest(id, slot)?;
        }
        let slot = rows.live(id)?.unwrap_or(slot);
        if self.needs_extension(rows, slot)? {
            let mark = self.mark_of_live(rows, slot, rows.now_ms())?;
            if mark.expires_at.is_none_or(|new| slot.expires_at.is_some_and(|old| old < new)) {
                rows.refresh(id, slot, &mark)?;
                return Ok(Look::Same(rows.live(id)?.unwrap_or(slot)));
            } else if let Window::Sliding { max_age: Some(age) } = self.lifetime.window {
                // At its maximum age: a write would change nothing.
                rows.note_max_age(slot, age);
            }
        }
        Ok(Look::Same(slot))
    }

    fn needs_extension(&self, rows: &impl Rows, slot: Slot) -> Result<bool> {
        self.lifetime
            .needs_extension(slot.expires_at, rows.now_ms(), |age| rows.is_at_max_age(slot, age))
    }

    /// Returns the mark of a live id that is seen at `seen_at_ms`, by this handle's lifetime.
    pub(super) fn mark_of_live(
        &self,
        rows: &mut impl Rows,
        old: Slot,
        seen_at_ms: i64,
    ) -> Result<NewMark<'static>> {
        let first_ms = match self.lifetime.window {
            Window::Sliding { max_age: Some(_) } => {
                rows.row(old)?.map_or(seen_at_ms, |row| row.first_seen.min(seen_at_ms))
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
    pub(super) fn claim_of(&self, rows: &mut impl Rows, id: Id<'_>) -> Result<Option<ClaimRow>> {
        let claim = rows.claim(id)?;
        match &claim {
            Some(claim) if compare(claim.digest, id.digest) == Comparison::Conflict => {
                Err(self.conflict(id))
            }
            _ => Ok(claim),
        }
    }

    pub(crate) fn conflict(&self, id: Id<'_>) -> Error {
        let [name, id] = [self.store, &id.shown()];
        Error::new(
            ErrorKind::Conflict,
            format!(
                "{name}: the id {id} was used with another payload before; use a new id for a new request, or \
                 forget this one"
            ),
        )
    }

    /// Returns what is known of the id: its mark, else its claim, else what its retention keeps.
    pub(super) fn known_of(rows: &mut impl Rows, id: Id<'_>) -> Result<Option<Entry>> {
        let now_ms = rows.now_ms();
        if let Some(slot) = rows.live(id)? {
            let row = rows.last_row(slot)?;
            return Ok(row.map(|row| row.entry(now_ms)));
        }
        if let Some(claim) = rows.claim(id)? {
            let claim = rows.last_claim(claim);
            return Ok(Some(claim.entry(id.scope, id.bytes, now_ms)));
        }
        let row = rows.retained(id)?;
        Ok(row.map(|row| row.entry(now_ms)))
    }
}
