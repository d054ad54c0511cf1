//! What a store that is not in a file knows of one id: its mark and its claim.
//!
//! Owns the rows of one id, as values. What always holds: they change as the rows of the file do, so that a decision is the
//! same on both. The store that keeps a record writes it only if what it was read from is unchanged, and decides again
//! otherwise. Knows no server.

mod encoding;

use super::rows::Rows;
use crate::entry::Entry;
use crate::error::Result;
use crate::id::Id;
use crate::index::Slot;
use crate::item::is_change;
use crate::journal::row::later;
use crate::journal::selection::{SelectedMark, Selection};
use crate::journal::{ClaimRow, MarkRow, NewMark};
use crate::token::Token;

/// The number of the only row.
const ROW: i64 = 1;

/// See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    mark: Option<MarkRow>,
    /// Whether the mark was made by a check that found the id seen in another version.
    is_change: bool,
    claim: Option<ClaimRow>,
}

/// A record in the hands of a decision, and what the decision did.
pub(crate) struct Decision<'r> {
    record: &'r mut Record,
    id: Id<'r>,
    now_ms: i64,
    /// Whether the record has to be written.
    pub(crate) is_changed: bool,
    /// What was turned away.
    pub(crate) turned_away: TurnedAway,
}

/// What was turned away of an id, and is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnedAway {
    /// Duplicates of its mark.
    pub duplicates: u32,
    /// Refusals while it was in flight or waited for a decision.
    pub refusals: u32,
    /// When the last duplicate was turned away, in unix milliseconds.
    pub last_ms: i64,
}

impl Record {
    pub(crate) fn decide<'r>(&'r mut self, id: Id<'r>, now_ms: i64) -> Decision<'r> {
        let turned_away = TurnedAway::default();
        Decision { record: self, id, now_ms, is_changed: false, turned_away }
    }

    /// Returns until when the record is of use: the time until which a server keeps it. `None` is for ever.
    pub fn ends_at(&self) -> Option<i64> {
        let of_mark = self.mark.as_ref().map(|mark| match (mark.expires_at, mark.retain_until) {
            (Some(expires_at), Some(until)) => Some(expires_at.max(until)),
            (expires_at, _) => expires_at,
        });
        let of_claim = self.claim.as_ref().map(|claim| {
            // A held claim waits for a decision, however long that takes.
            let waits = claim.held && claim.token.is_some();
            claim.expires_at.filter(|_| !waits).map(|at| at.max(claim.lease_until))
        });
        match (of_mark, of_claim) {
            (Some(mark), Some(claim)) => later(mark, claim),
            (mark, claim) => mark.or(claim).unwrap_or(Some(0)),
        }
    }

    /// Returns whether nothing is known of the id.
    pub fn is_empty(&self) -> bool {
        self.mark.is_none() && self.claim.is_none()
    }

    /// Returns the token of the claim.
    pub fn claim_token(&self) -> Option<Token> {
        self.claim.as_ref().and_then(|claim| claim.token)
    }

    /// Returns how many of the mark and the claim are selected.
    pub(crate) fn count(&self, id: Id<'_>, selection: &Selection, now_ms: i64) -> u64 {
        self.clone().remove(id, selection, now_ms)
    }

    /// Removes what of the mark and the claim is selected, and returns how many that were.
    pub(crate) fn remove(&mut self, id: Id<'_>, selection: &Selection, now_ms: i64) -> u64 {
        let mark = self.mark.take_if(|mark| {
            let (id, last_seen, expires_at) = (id.bytes, mark.last_seen, mark.expires_at);
            selection.takes_mark(&SelectedMark { id, last_seen, expires_at }, now_ms)
        });
        let claim = self.claim.take_if(|claim| selection.takes_claim(id.bytes, claim, now_ms));
        u64::from(mark.is_some()) + u64::from(claim.is_some())
    }

    /// Returns whether the claim is this token's and its lease has not run out.
    pub fn holds_claim(&self, token: Token, now_ms: i64) -> bool {
        let claim = self.claim.as_ref().filter(|claim| claim.is_in_flight(now_ms));
        claim.is_some_and(|claim| claim.token == Some(token))
    }

    /// Returns what is known of the id: its mark, with the claim of another version as its change; else its claim; else a
    /// mark that its retention keeps.
    pub(crate) fn entry(&self, id: Id<'_>, now_ms: i64) -> Option<Entry> {
        let claim = self.claim_entry(id, now_ms);
        let Some(mark) = &self.mark else { return claim };
        let entry = mark_entry(mark, id, now_ms);
        if mark.is_live(now_ms) {
            let change = claim.filter(|claim| is_change(claim.digest, mark.digest));
            return Some(Entry { change: change.map(Box::new), ..entry });
        }
        claim.or(Some(entry).filter(|_| is_retained(mark, now_ms)))
    }

    /// Returns the entries of a listing: the claim and the mark, each for itself. A mark that is over and not retained is
    /// purged: the server keeps it for a moment.
    pub(crate) fn entries(&self, id: Id<'_>, now_ms: i64) -> impl Iterator<Item = Entry> {
        let is_kept = |mark: &&MarkRow| mark.is_live(now_ms) || is_retained(mark, now_ms);
        let mark = self.mark.as_ref().filter(is_kept).map(|mark| mark_entry(mark, id, now_ms));
        self.claim_entry(id, now_ms).into_iter().chain(mark)
    }

    fn claim_entry(&self, id: Id<'_>, now_ms: i64) -> Option<Entry> {
        let claim = self.claim.as_ref().filter(|claim| !claim.is_expired(now_ms))?;
        Some(claim.clone().entry(id.scope, id.bytes, now_ms))
    }

    /// Adds what was turned away since the record was written.
    pub fn add(&mut self, turned_away: TurnedAway) {
        let TurnedAway { duplicates, mut refusals, last_ms } = turned_away;
        if let Some(claim) = &mut self.claim {
            claim.duplicates = claim.duplicates.saturating_add(refusals.into());
            refusals = 0;
        }
        if let Some(mark) = &mut self.mark {
            let count = i64::from(duplicates) + i64::from(refusals);
            mark.duplicates = mark.duplicates.saturating_add(count);
            if count > 0 {
                mark.last_seen = mark.last_seen.max(last_ms);
            }
        }
    }

    /// Returns whether the id is seen, in the version of the item if that is known.
    pub(crate) fn is_seen(&self, id: Id<'_>, now_ms: i64) -> bool {
        let live = self.mark.as_ref().filter(|mark| mark.is_live(now_ms));
        live.is_some_and(|mark| !is_change(id.digest, mark.digest))
    }
}

fn is_retained(mark: &MarkRow, now_ms: i64) -> bool {
    mark.retain_until.is_some_and(|until| now_ms < until)
}

fn mark_entry(mark: &MarkRow, id: Id<'_>, now_ms: i64) -> Entry {
    named(mark, id).entry(now_ms)
}

/// Returns a mark with its id, which a record has not.
fn named(mark: &MarkRow, id: Id<'_>) -> MarkRow {
    MarkRow { scope: id.scope.to_owned(), id: id.bytes.to_vec(), ..mark.clone() }
}

impl Decision<'_> {
    fn put_mark(&mut self, mark: MarkRow) {
        self.record.mark = Some(mark);
        self.record.is_change = false;
        self.is_changed = true;
    }

    /// Prolongs the mark to what `mark` asks for: see `Transaction::replace` in `journal`, which does the same in SQL.
    fn replace(&mut self, mark: &NewMark<'_>, seen_at_ms: Option<i64>) {
        let Some(old) = self.record.mark.take() else { return };
        let is_change = self.record.is_change;
        self.put_mark(MarkRow {
            first_seen: seen_at_ms.map_or(old.first_seen, |at| at.min(old.first_seen)),
            last_seen: seen_at_ms.map_or(old.last_seen, |at| at.max(old.last_seen)),
            expires_at: mark.expires_at,
            retain_until: old.retain_until.max(mark.retain_until),
            digest: mark.digest.or(old.digest),
            receipt: old.receipt.or_else(|| mark.receipt.map(<[u8]>::to_vec)),
            ..old
        });
        self.record.is_change = is_change;
    }
}

impl Rows for Decision<'_> {
    fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn live(&mut self, _: Id<'_>) -> Result<Option<Slot>> {
        let live = self.record.mark.as_ref().filter(|mark| mark.is_live(self.now_ms));
        Ok(live.map(|mark| mark.as_new().slot(ROW)))
    }

    fn retained(&mut self, _: Id<'_>) -> Result<Option<MarkRow>> {
        let is_ended =
            |mark: &&MarkRow| !mark.is_live(self.now_ms) && is_retained(mark, self.now_ms);
        Ok(self.record.mark.as_ref().filter(is_ended).map(|mark| named(mark, self.id)))
    }

    fn row(&mut self, _: Slot) -> Result<Option<MarkRow>> {
        Ok(self.record.mark.as_ref().map(|mark| named(mark, self.id)))
    }

    fn last_row(&mut self, slot: Slot) -> Result<Option<MarkRow>> {
        self.row(slot)
    }

    fn append(&mut self, id: Id<'_>, mark: &NewMark<'_>) -> Result<()> {
        let earlier = self.retained(id)?.map(|before| before.as_earlier());
        let was_live = self.live(id)?.is_some();
        self.put_mark(MarkRow::new(&NewMark { earlier: earlier.or(mark.earlier), ..*mark }));
        self.record.is_change = was_live;
        Ok(())
    }

    fn refresh(&mut self, _: Id<'_>, old: Slot, mark: &NewMark<'_>) -> Result<()> {
        let mark = NewMark { expires_at: later(old.expires_at, mark.expires_at), ..*mark };
        self.replace(&mark, Some(mark.last_seen));
        Ok(())
    }

    fn add_receipt(&mut self, _: Id<'_>, old: Slot, receipt: &[u8]) -> Result<()> {
        self.replace(&NewMark { receipt: Some(receipt), ..NewMark::at(0, old.expires_at) }, None);
        Ok(())
    }

    fn add_digest(&mut self, id: Id<'_>, old: Slot) -> Result<()> {
        self.replace(&NewMark { digest: id.digest, ..NewMark::at(0, old.expires_at) }, None);
        Ok(())
    }

    fn claim(&mut self, _: Id<'_>) -> Result<Option<ClaimRow>> {
        if self.record.claim.as_ref().is_some_and(|claim| claim.is_expired(self.now_ms)) {
            // Not written for that alone: it counts as absent everywhere.
            self.record.claim = None;
        }
        Ok(self.record.claim.clone())
    }

    fn last_claim(&self, claim: ClaimRow) -> ClaimRow {
        claim
    }

    fn put_claim(&mut self, _: Id<'_>, claim: ClaimRow) -> Result<()> {
        self.record.claim = Some(claim);
        self.is_changed = true;
        Ok(())
    }

    fn delete_claim(&mut self, _: Id<'_>) -> Result<()> {
        self.record.claim = None;
        self.is_changed = true;
        Ok(())
    }

    fn count_duplicate(&mut self, _: Slot) {
        self.turned_away.duplicates += 1;
        self.turned_away.last_ms = self.now_ms;
    }

    fn count_refusal(&mut self, _: Id<'_>, token: Option<Token>) {
        self.turned_away.refusals += u32::from(token.is_some());
    }

    fn replaced_another_version(&self, _: Slot) -> bool {
        self.record.is_change
    }
}
