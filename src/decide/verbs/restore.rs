//! Decisions on entries that were listed elsewhere: they are merged with what is known.
//!
//! What always holds: newer knowledge is neither shortened nor overwritten, and the same entry restored again changes
//! nothing.

use std::sync::Arc;
use std::time::SystemTime;

use super::Verbs;
use crate::clock::{MAX_MS, MIN_MS, to_ms};
use crate::config::{MAX_HOLDER_BYTES, MAX_RECEIPT_BYTES};
use crate::decide::rows::Rows;
use crate::decide::{mark, merge};
use crate::entry::{Entry, State};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, MAX_NOTE_BYTES};
use crate::item::is_change;
use crate::journal::row::Earlier;
use crate::journal::{ClaimRow, MarkRow, Outcome};

/// What a restored entry has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Nothing was known of its id.
    Added,
    /// It added to what was known.
    Changed,
    /// It told nothing new.
    Unchanged,
    /// It had expired, and was left out.
    Expired,
}

impl Verbs<'_> {
    /// Merges an entry that was listed elsewhere with what is known of its id.
    pub(crate) fn restore(
        &self,
        rows: &mut impl Rows,
        id: Id<'_>,
        entry: &Entry,
    ) -> Result<Restored> {
        let is_claim =
            entry.state.is_claim() || entry.state == State::Expired && entry.lease_until.is_some();
        if is_claim { self.restore_claim(rows, id, entry) } else { restore_mark(rows, id, entry) }
    }

    fn restore_claim(&self, rows: &mut impl Rows, id: Id<'_>, entry: &Entry) -> Result<Restored> {
        let now_ms = rows.now_ms();
        let incoming = self.claim_row(entry);
        if incoming.is_expired(now_ms) {
            return Ok(Restored::Expired);
        }
        if let Some(slot) = rows.live(id)? {
            let mark = rows.row(slot)?;
            if !mark.is_some_and(|mark| is_change(incoming.digest, mark.digest)) {
                return Ok(Restored::Unchanged);
            }
        }
        let known = rows.claim(id)?;
        let Some(claim) = merge::claims(known.as_ref(), incoming, now_ms) else {
            return Ok(Restored::Unchanged);
        };
        rows.put_claim(id, claim)?;
        Ok(if known.is_some() { Restored::Changed } else { Restored::Added })
    }

    fn claim_row(&self, entry: &Entry) -> ClaimRow {
        let claimed_at = to_ms(entry.last_seen);
        let lease_until = entry.lease_until.map_or(claimed_at, to_ms).min(MAX_MS);
        let outcome = match entry.state {
            State::Released => Some(Outcome::Released),
            State::Failed => Some(Outcome::Failed),
            State::GivenUp => Some(Outcome::FailedFinally),
            // A claim that ended without a delay has no time left: see `journal::claims`.
            State::Expired if lease_until <= claimed_at => Some(Outcome::Released),
            _ => None,
        };
        ClaimRow {
            // For a claim whose lease runs or ran out, a token that no worker has.
            token: outcome.is_none().then(|| self.tokens.make()),
            outcome,
            held: entry.held || entry.state == State::Unresolved,
            holder: entry.holder.as_deref().map(Arc::from),
            claimed_at,
            lease_until,
            attempts: entry.attempts,
            abandoned: entry.abandoned,
            digest: entry.digest,
            duplicates: duplicates(entry.duplicates),
            last_error: entry.last_error.clone(),
            expires_at: entry.expires_at.map(expiry_ms),
        }
    }
}

/// Refuses an entry with a receipt, an error or a holder that is too long.
pub(crate) fn check_notes(entry: &Entry) -> Result<()> {
    let receipt = entry.receipt.as_ref().map_or(0, Vec::len);
    let error = entry.last_error.as_ref().map_or(0, String::len);
    let holder = entry.holder.as_ref().map_or(0, String::len);
    let notes = [
        ("receipt", receipt, MAX_RECEIPT_BYTES),
        ("error", error, MAX_NOTE_BYTES),
        ("holder", holder, MAX_HOLDER_BYTES),
    ];
    for (what, length, most) in notes {
        if length > most {
            return Err(Error::new(
                ErrorKind::InvalidClaim,
                format!(
                    "the {what} of {:?} has {length} bytes; at most {most} are stored: shorten it",
                    String::from_utf8_lossy(&entry.id[..entry.id.len().min(200)])
                ),
            ));
        }
    }
    Ok(())
}

/// Clamps an expiry to the valid range: 0 would be a tombstone.
fn expiry_ms(expires_at: SystemTime) -> i64 {
    to_ms(expires_at).clamp(MIN_MS, MAX_MS)
}

fn mark_row(entry: &Entry) -> MarkRow {
    MarkRow {
        scope: entry.scope.clone(),
        id: entry.id.clone(),
        first_seen: to_ms(entry.first_seen),
        last_seen: to_ms(entry.last_seen),
        expires_at: entry.expires_at.map(expiry_ms),
        retain_until: entry.retain_until.map(expiry_ms),
        digest: entry.digest,
        duplicates: duplicates(entry.duplicates),
        earlier: entry.history.filter(|history| history.windows > 0).map(Earlier::of),
        token: None,
        attempts: entry.attempts,
        last_error: entry.last_error.clone(),
        receipt: entry.receipt.clone(),
    }
}

fn duplicates(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn restore_mark(rows: &mut impl Rows, id: Id<'_>, entry: &Entry) -> Result<Restored> {
    let (incoming, now_ms) = (mark_row(entry), rows.now_ms());
    if entry.state == State::Expired && entry.expires_at.is_none() {
        return Ok(Restored::Expired); // When is not said.
    }
    let known = rows.live(id)?.map(|slot| rows.row(slot)).transpose()?.flatten();
    if !incoming.is_live(now_ms) {
        if incoming.retain_until.is_none_or(|until| until <= now_ms) {
            return Ok(Restored::Expired);
        }
        // What is kept of an earlier window tells nothing new of an id of which something is known.
        if known.is_some() || rows.retained(id)?.is_some() {
            return Ok(Restored::Unchanged);
        }
        rows.append(id, &incoming.as_new())?;
        return Ok(Restored::Added);
    }
    let is_known = known.is_some();
    let row = match known {
        Some(known) => match merge::marks(&known, &incoming) {
            Some(merged) => merged,
            None => return Ok(Restored::Unchanged),
        },
        None => incoming,
    };
    // A claim of another version goes on beside the mark.
    let claim = rows.claim(id)?.filter(|claim| !is_change(claim.digest, row.digest));
    let mark = match &claim {
        Some(claim) => {
            rows.delete_claim(id)?;
            mark::after_claim(row.as_new(), claim, now_ms)
        }
        None => row.as_new(),
    };
    rows.append(id, &mark)?;
    Ok(if is_known || claim.is_some() { Restored::Changed } else { Restored::Added })
}
