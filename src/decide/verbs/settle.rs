//! Decisions on what becomes of a claim: confirmed, released, failed, renewed, resolved.
//!
//! What always holds: only the token of the present claim can change it, except that a claim that is over is resolved
//! without.

use super::Verbs;
use crate::config::Ttl;
use crate::decide::claim::{self, Change};
use crate::decide::rows::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Id;
use crate::index::Slot;
use crate::journal::{ClaimRow, MarkRow};
use crate::token::Token;

/// What is decided of an id whose last attempt is over: see [`resolve`](crate::SeenStore::resolve).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Resolution {
    /// The work was done: the id is seen.
    Done,
    /// The work was not done: the id can be claimed again at once, and its attempts are counted from 0.
    Retry,
}

/// Whether a claim in a batch was still held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a lost claim means that another worker may have handled the id too"]
#[non_exhaustive]
pub enum Ownership {
    /// It was held, and the change is made.
    Held,
    /// It was not held: its lease ran out and another worker took the id over, or the claim was ended before.
    /// Nothing was changed.
    Lost,
}

/// The result of a confirm that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmed {
    InTime,
    /// After the lease had run out.
    Late,
    /// It was confirmed before.
    Before,
}

/// The present state of a token's claim.
enum ClaimStatus {
    /// The claim is held with this token.
    Claimed(ClaimRow),
    /// It was confirmed, or the id was marked while the claim was held.
    Marked(Slot, MarkRow),
    /// Neither.
    Lost,
}

impl Verbs<'_> {
    /// Confirms a claim. `None`: it is no longer held.
    pub(crate) fn confirm(
        &self,
        rows: &mut impl Rows,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<Option<Confirmed>> {
        let confirmed = self.mark_confirmed(rows, id, token, receipt)?;
        if matches!(confirmed, Some(Confirmed::InTime | Confirmed::Late)) {
            rows.delete_claim(id)?;
        }
        Ok(confirmed)
    }

    /// As [`confirm`](Self::confirm), and leaves the claim to be deleted.
    pub(crate) fn mark_confirmed(
        &self,
        rows: &mut impl Rows,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<Option<Confirmed>> {
        match claim_status(rows, id, token)? {
            ClaimStatus::Lost => Ok(None),
            ClaimStatus::Claimed(claim) => {
                let (now_ms, old) = (rows.now_ms(), rows.live(id)?);
                let old = old.map(|old| rows.last_row(old)).transpose()?.flatten();
                let mark = claim::confirm(self.lifetime, &claim, receipt, old.as_ref(), now_ms);
                rows.append(id, &mark)?;
                let in_time = claim.is_in_flight(now_ms);
                Ok(Some(if in_time { Confirmed::InTime } else { Confirmed::Late }))
            }
            ClaimStatus::Marked(slot, row) => {
                if let (Some(receipt), None) = (receipt, row.receipt) {
                    rows.add_receipt(id, slot, receipt)?;
                }
                Ok(Some(Confirmed::Before))
            }
        }
    }

    /// Changes a claim, and returns when its lease ends. `None`: it is no longer held.
    pub(crate) fn change(
        &self,
        rows: &mut impl Rows,
        id: Id<'_>,
        token: Token,
        change: &Change,
    ) -> Result<Option<i64>> {
        let ClaimStatus::Claimed(mut claim) = claim_status(rows, id, token)? else {
            return Ok(None);
        };
        if !matches!(change, Change::Renew { .. }) {
            claim = rows.last_claim(claim);
        }
        change.apply(&mut claim, self.lifetime.ttl, rows.now_ms());
        let until_ms = claim.lease_until;
        rows.put_claim(id, claim)?;
        Ok(Some(until_ms))
    }

    /// Resolves a claim that is over. Returns false if there is none.
    pub(crate) fn resolve(
        &self,
        rows: &mut impl Rows,
        id: Id<'_>,
        resolution: Resolution,
    ) -> Result<bool> {
        let now_ms = rows.now_ms();
        let is_over = |claim: &ClaimRow| !claim.is_in_flight(now_ms);
        let Some(mut claim) = rows.claim(id)?.filter(is_over) else { return Ok(false) };
        match resolution {
            Resolution::Done => {
                return self.mark(rows, Id { digest: claim.digest, ..id }, now_ms);
            }
            Resolution::Retry => {
                claim = rows.last_claim(claim);
                Change::Retry.apply(&mut claim, self.lifetime.ttl, now_ms);
                rows.put_claim(id, claim)?;
            }
        }
        Ok(true)
    }

    pub(crate) fn lease_lost(&self, id: Id<'_>) -> Error {
        Error::new(
            ErrorKind::LeaseLost,
            format!(
                "{}: the claim of {} is no longer held: it was ended, or its lease ran out and another \
                 worker took it over (or it was made in another scope than {:?})",
                self.store,
                id.shown(),
                id.scope
            ),
        )
    }
}

/// Renews a lease on behalf of its holder, who may have renewed it for longer. Returns when it ends; `None`: the claim is no
/// longer held.
pub(crate) fn prolong(
    rows: &mut impl Rows,
    id: Id<'_>,
    token: Token,
    lease: Ttl,
    ttl: Ttl,
) -> Result<Option<i64>> {
    let Some(mut claim) = rows.claim(id)?.filter(|claim| claim.token == Some(token)) else {
        return Ok(None);
    };
    let longest_ms = claim.lease_until;
    Change::Renew { lease }.apply(&mut claim, ttl, rows.now_ms());
    let until_ms = claim.lease_until.max(longest_ms);
    if claim.lease_until > longest_ms {
        rows.put_claim(id, claim)?;
    }
    Ok(Some(until_ms))
}

fn claim_status(rows: &mut impl Rows, id: Id<'_>, token: Token) -> Result<ClaimStatus> {
    if let Some(slot) = rows.live(id)?
        && let Some(row) = rows.row(slot)?
        && row.token == Some(token)
    {
        return Ok(ClaimStatus::Marked(slot, row));
    }
    let claim = rows.claim(id)?.filter(|claim| claim.token == Some(token));
    Ok(claim.map_or(ClaimStatus::Lost, ClaimStatus::Claimed))
}
