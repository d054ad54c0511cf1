//! Decisions on marks: mark, check, seed, observe, look up.
//!
//! Owns the answers to a check.

use std::collections::HashSet;
use std::fmt;

use super::{Look, Verbs};
use crate::decide::mark;
use crate::decide::rows::Rows;
use crate::entry::Entry;
use crate::error::Result;
use crate::id::Id;
use crate::index::Slot;
use crate::item::{is_change, is_same};
use crate::journal::{MarkRow, NewMark};

/// The answer of [`check_and_mark`](crate::SeenStore::check_and_mark).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[must_use = "a verdict says whether to act; marking without looking at it is `mark_seen`"]
#[non_exhaustive]
pub enum Verdict {
    /// Not seen before, or expired since. It is marked now, and this caller is the one that handles it.
    New,
    /// Seen before in another [version](crate::Item::version), by any caller. The new version is recorded now, and
    /// this caller is the one that handles it.
    Changed,
    /// Seen before in this version, by any caller. The mark stays, but for a version that it lacked and, in a sliding
    /// window, its expiry.
    Duplicate,
    /// Claimed by a worker that has neither confirmed nor returned it, or waiting to be
    /// [resolved](crate::SeenStore::resolve). Nothing was changed.
    InFlight,
}

/// The answer of [`observe`](crate::SeenStore::observe).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a verdict says whether to act; marking without looking at it is `mark_seen`"]
#[non_exhaustive]
pub struct Observation {
    /// The verdict, as that of [`check_and_mark`](crate::SeenStore::check_and_mark).
    pub verdict: Verdict,
    /// What was known of the id before. `None` for one that was never seen, or of which nothing is kept.
    pub before: Option<Entry>,
}

impl fmt::Display for Verdict {
    /// Writes `new`, `changed`, `duplicate` or `in-flight`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Duplicate => "duplicate",
            Self::InFlight => "in-flight",
        })
    }
}

/// Prepares the ids of a batch that is made again: of equal ids the first alone may have been marked by the batch before.
pub(crate) fn first_of_equals(mut ids: Vec<Id<'_>>) -> Vec<Id<'_>> {
    let mut known = HashSet::new();
    for id in ids.iter_mut().filter(|id| id.retry_of.is_some()) {
        if !known.insert((id.key, id.retry_of)) {
            id.retry_of = None;
        }
    }
    ids
}

impl Verbs<'_> {
    /// Marks the id. Returns false when the mark would expire at once beside a claim that binds.
    pub(crate) fn mark(&self, rows: &mut impl Rows, id: Id<'_>, seen_at_ms: i64) -> Result<bool> {
        let old = match self.look(rows, id)? {
            Look::Same(slot) => {
                let mark = self.mark_of_live(rows, slot, seen_at_ms)?;
                let mark = NewMark { digest: id.digest, ..mark };
                return rows.refresh(id, slot, &mark).map(|()| true);
            }
            Look::Changed(old) => Some(old),
            Look::Unseen => None,
        };
        // A claim handles one version. The mark of another one does not end it.
        let claim = self.claim_of(rows, id)?;
        let claim = claim.filter(|claim| !is_change(claim.digest, id.digest));
        let now_ms = rows.now_ms();
        let (claimed, old) = (claim.as_ref(), old.as_deref());
        let mark = mark::mark(self.lifetime, claimed, id.digest, old, seen_at_ms, now_ms);
        let Some(mark) = mark else { return Ok(false) };
        if claim.is_some() {
            rows.delete_claim(id)?;
        }
        rows.append(id, &mark).map(|()| true)
    }

    /// Checks and marks the id.
    pub(crate) fn check(&self, rows: &mut impl Rows, id: Id<'_>) -> Result<Verdict> {
        if let Some(verdict) = repeated(rows, id)? {
            return Ok(verdict);
        }
        let old = match self.sight(rows, id)? {
            Look::Same(_) => return Ok(Verdict::Duplicate),
            Look::Changed(old) => Some(old),
            Look::Unseen => None,
        };
        let (claim, now_ms) = (self.claim_of(rows, id)?, rows.now_ms());
        let claim = claim.map(|claim| rows.last_claim(claim));
        let mark = mark::check(self.lifetime, claim.as_ref(), id.digest, old.as_deref(), now_ms);
        let Some(mark) = mark else {
            rows.count_refusal(id, claim.and_then(|claim| claim.token));
            return Ok(Verdict::InFlight);
        };
        if claim.is_some() {
            rows.delete_claim(id)?;
        }
        rows.append(id, &NewMark { token: id.retry_of, ..mark })?;
        Ok(if old.is_some() { Verdict::Changed } else { Verdict::New })
    }

    /// Checks and marks the id, and returns what was known of it before.
    pub(crate) fn observe(&self, rows: &mut impl Rows, id: Id<'_>) -> Result<Observation> {
        if let Some(verdict) = repeated(rows, id)? {
            return Ok(Observation { verdict, before: None });
        }
        let before = Self::known_of(rows, id)?;
        let verdict = self.check(rows, id)?;
        Ok(Observation { verdict, before })
    }

    /// Marks the id if it is not seen in this version. Returns whether it was not seen at all.
    pub(crate) fn seed(&self, rows: &mut impl Rows, id: Id<'_>) -> Result<bool> {
        let look = self.sight(rows, id)?;
        if matches!(look, Look::Same(_)) {
            return Ok(false);
        }
        self.mark(rows, id, rows.now_ms())?;
        Ok(matches!(look, Look::Unseen))
    }
}

/// Returns the verdict of a call that is made again, if the call before has marked the id.
fn repeated(rows: &mut impl Rows, id: Id<'_>) -> Result<Option<Verdict>> {
    let Some(slot) = marked_by_retried(rows, id)? else { return Ok(None) };
    let is_change = rows.replaced_another_version(slot);
    Ok(Some(if is_change { Verdict::Changed } else { Verdict::New }))
}

fn marked_by_retried(rows: &mut impl Rows, id: Id<'_>) -> Result<Option<Slot>> {
    let Some(token) = id.retry_of else { return Ok(None) };
    let Some(slot) = rows.live(id)? else { return Ok(None) };
    let row = rows.row(slot)?;
    // Another version is not what the call before was asked for.
    let is_own = |row: MarkRow| row.token == Some(token) && is_same(row.digest, id.digest);
    Ok(row.is_some_and(is_own).then_some(slot))
}
