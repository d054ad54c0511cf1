//! Decisions on claims: is the id granted?

use std::sync::Arc;

use super::{Look, Verbs};
use crate::config::{Config, Ttl};
use crate::decide::claim::{self, Decision, Terms};
use crate::decide::rows::Rows;
use crate::error::Result;
use crate::id::Id;
use crate::index::Slot;

/// What was decided on a claim.
pub(crate) enum Decided {
    /// The id is seen: it was in this row.
    Seen(Slot),
    Unseen(Decision),
}

impl Verbs<'_> {
    /// Decides on a claim of the id, and writes the claim if it is granted.
    pub(crate) fn claim(
        &self,
        rows: &mut impl Rows,
        id: Id<'_>,
        lease: Ttl,
        is_counted: bool,
    ) -> Result<Decided> {
        let decided = self.decide_claim(rows, id, lease, is_counted)?;
        if let Decided::Unseen(Decision::Granted(claim, ..)) = &decided {
            rows.put_claim(id, claim.clone())?;
        }
        Ok(decided)
    }

    /// Decides on a claim of the id. `is_counted`: a refusal is counted.
    pub(crate) fn decide_claim(
        &self,
        rows: &mut impl Rows,
        id: Id<'_>,
        lease: Ttl,
        is_counted: bool,
    ) -> Result<Decided> {
        let superseded = match self.sight(rows, id)? {
            Look::Same(slot) => return Ok(Decided::Seen(slot)),
            Look::Changed(old) => Some(old.entry(rows.now_ms())),
            Look::Unseen => None,
        };
        let before = self.claim_of(rows, id)?.map(|claim| rows.last_claim(claim));
        let held = before.as_ref().and_then(|claim| claim.token);
        let Config { max_attempts, max_abandoned, .. } = *self.config;
        let terms = Terms {
            lease,
            ttl: self.lifetime.ttl,
            max_attempts,
            max_abandoned,
            abandoned: self.abandoned,
            holder: Arc::clone(self.holder),
            digest: id.digest,
        };
        let token = || self.tokens.make();
        let decision = claim::claim(before, superseded, terms, token, rows.now_ms());
        let refuses = matches!(decision, Decision::InFlight { .. } | Decision::Unresolved { .. });
        if refuses && is_counted {
            rows.count_refusal(id, held);
        }
        Ok(Decided::Unseen(decision))
    }
}
