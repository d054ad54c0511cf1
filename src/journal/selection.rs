//! Which entries of a scope a removal or a count takes.
//!
//! Owns the choice, for rows of both tables. What always holds: a removal and a count with the same selection take
//! the same rows. A claim in flight, and one that waits for a decision, is taken only where the selection
//! asks for just that. Knows nothing of steps or transactions.

use super::claim_row::ClaimRow;
use super::claims::ClaimPosition;
use crate::clock::from_ms;
use crate::entry::{Filter, State};

/// Some entries of one scope.
pub(crate) struct Selection {
    pub(crate) scope: String,
    which: Which,
}

enum Which {
    /// All entries, whatever their state.
    All,
    /// The marks last seen, and the claims last changed, before this time, expired or not.
    Older { before_ms: i64 },
    /// The entries that a filter selects. Ages are counted from `asked_ms`.
    Filtered { filter: Filter, asked_ms: i64 },
}

/// What a selection is to know of a mark.
pub(crate) struct SelectedMark<'r> {
    pub(crate) id: &'r [u8],
    pub(crate) last_seen: i64,
    pub(crate) expires_at: Option<i64>,
}

impl Selection {
    pub(crate) fn all(scope: &str) -> Self {
        Self { scope: scope.to_owned(), which: Which::All }
    }

    pub(crate) fn older(scope: &str, before_ms: i64) -> Self {
        Self { scope: scope.to_owned(), which: Which::Older { before_ms } }
    }

    /// The entries that the filter selects, in the scope that it names, or else in this one.
    pub(crate) fn filtered(scope: &str, filter: Filter, asked_ms: i64) -> Self {
        let scope = filter.scope.as_deref().unwrap_or(scope).to_owned();
        Self { scope, which: Which::Filtered { filter, asked_ms } }
    }

    /// Returns the position before the scope's first claim.
    pub(crate) fn first_claim(&self) -> ClaimPosition {
        ClaimPosition { scope: self.scope.clone(), ..ClaimPosition::default() }
    }

    /// Returns whether a mark of the scope, which is no tombstone, is selected.
    pub(crate) fn takes_mark(&self, mark: &SelectedMark<'_>, now_ms: i64) -> bool {
        match &self.which {
            Which::All => true,
            Which::Older { before_ms } => mark.last_seen < *before_ms,
            Which::Filtered { filter, asked_ms } => {
                let is_live = mark.expires_at.is_none_or(|at| now_ms < at);
                let state = if is_live { State::Seen } else { State::Expired };
                filter.admits_state(state)
                    && filter.admits_id(mark.id, from_ms(mark.last_seen), *asked_ms)
            }
        }
    }

    /// Returns whether a claim of the scope is selected.
    pub(crate) fn takes_claim(&self, id: &[u8], claim: &ClaimRow, now_ms: i64) -> bool {
        match &self.which {
            Which::All => true,
            Which::Older { before_ms } => claim.is_older_than(*before_ms),
            Which::Filtered { filter, asked_ms } => {
                let admitted = match claim.state(now_ms) {
                    // As in a listing, an expired claim is no entry.
                    State::Expired => false,
                    at_work @ (State::InFlight | State::Unresolved) => {
                        filter.state == Some(at_work)
                    }
                    state => filter.admits_state(state),
                };
                admitted && filter.admits_id(id, from_ms(claim.claimed_at), *asked_ms)
            }
        }
    }
}
