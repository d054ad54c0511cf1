//! What the decisions read and write: the mark and the claim of an id.
//!
//! Owns the trait, and its implementation for a transaction on the file. What always holds: a decision sees what it has
//! written itself, and a read and the writes that follow from it are one step for all others. The file
//! keeps that by its write lock, a [`Record`](super::record::Record) by being written only if it is unchanged.

use std::time::Duration;

use crate::error::Result;
use crate::id::Id;
use crate::index::Slot;
use crate::journal::{ClaimRow, MarkRow, NewMark, Transaction};
use crate::token::Token;

pub(crate) trait Rows {
    /// The time of all decisions, in unix milliseconds.
    fn now_ms(&self) -> i64;

    /// Returns the id's mark, if it is live.
    fn live(&mut self, id: Id<'_>) -> Result<Option<Slot>>;

    /// Returns the mark of an id that has expired, if its retention keeps it.
    fn retained(&mut self, id: Id<'_>) -> Result<Option<MarkRow>>;

    /// Returns the whole mark, with the duplicates that were counted.
    fn row(&mut self, slot: Slot) -> Result<Option<MarkRow>>;

    /// Returns the whole mark, of which another one takes the place, with all that was turned away of it.
    fn last_row(&mut self, slot: Slot) -> Result<Option<MarkRow>>;

    /// Puts a mark in the place of the one that the id may have, also an expired one. If that one was retained, the new
    /// one tells of it.
    fn append(&mut self, id: Id<'_>, mark: &NewMark<'_>) -> Result<()>;

    /// Prolongs a live mark to what `mark` asks for, and counts it as seen at the time of `mark` too.
    fn refresh(&mut self, id: Id<'_>, old: Slot, mark: &NewMark<'_>) -> Result<()>;

    /// Adds a receipt to a live mark that has none.
    fn add_receipt(&mut self, id: Id<'_>, old: Slot, receipt: &[u8]) -> Result<()>;

    /// Adds the id's digest to a live mark.
    fn add_digest(&mut self, id: Id<'_>, old: Slot) -> Result<()>;

    /// Returns the id's claim, unless it has expired.
    fn claim(&mut self, id: Id<'_>) -> Result<Option<ClaimRow>>;

    /// Returns a claim of which another one, or a mark, takes the place, with all that was refused of it.
    fn last_claim(&self, claim: ClaimRow) -> ClaimRow;

    fn put_claim(&mut self, id: Id<'_>, claim: ClaimRow) -> Result<()>;

    fn delete_claim(&mut self, id: Id<'_>) -> Result<()>;

    /// Counts a duplicate of a live mark.
    fn count_duplicate(&mut self, slot: Slot);

    /// Counts a refusal of an id that is claimed with this token.
    fn count_refusal(&mut self, id: Id<'_>, token: Option<Token>);

    /// Returns whether the check that made this mark found the id seen in another version.
    fn replaced_another_version(&self, _slot: Slot) -> bool {
        false
    }

    /// Returns whether the mark is known to have reached this maximum age.
    fn is_at_max_age(&self, _slot: Slot, _age: Duration) -> Result<bool> {
        Ok(false)
    }

    /// Remembers that the mark has reached this maximum age, so that no sighting tries to prolong it.
    fn note_max_age(&self, _slot: Slot, _age: Duration) {}
}

impl Rows for Transaction<'_> {
    fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn live(&mut self, id: Id<'_>) -> Result<Option<Slot>> {
        Transaction::live(self, id.key)
    }

    fn retained(&mut self, id: Id<'_>) -> Result<Option<MarkRow>> {
        Transaction::retained(self, id)
    }

    fn row(&mut self, slot: Slot) -> Result<Option<MarkRow>> {
        Transaction::row(self, slot)
    }

    fn last_row(&mut self, slot: Slot) -> Result<Option<MarkRow>> {
        Transaction::last_row(self, slot)
    }

    fn append(&mut self, id: Id<'_>, mark: &NewMark<'_>) -> Result<()> {
        Transaction::append(self, id, mark)
    }

    fn refresh(&mut self, id: Id<'_>, old: Slot, mark: &NewMark<'_>) -> Result<()> {
        Transaction::refresh(self, id, old, mark)
    }

    fn add_receipt(&mut self, id: Id<'_>, old: Slot, receipt: &[u8]) -> Result<()> {
        Transaction::add_receipt(self, id, old, receipt)
    }

    fn add_digest(&mut self, id: Id<'_>, old: Slot) -> Result<()> {
        Transaction::add_digest(self, id, old)
    }

    fn claim(&mut self, id: Id<'_>) -> Result<Option<ClaimRow>> {
        Transaction::claim(self, id)
    }

    fn last_claim(&self, claim: ClaimRow) -> ClaimRow {
        Transaction::last_claim(self, claim)
    }

    fn put_claim(&mut self, id: Id<'_>, claim: ClaimRow) -> Result<()> {
        Transaction::put_claim(self, id, claim)
    }

    fn delete_claim(&mut self, id: Id<'_>) -> Result<()> {
        Transaction::delete_claim(self, id).map(drop)
    }

    fn count_duplicate(&mut self, slot: Slot) {
        Transaction::count_duplicate(self, slot.seq);
    }

    fn count_refusal(&mut self, id: Id<'_>, token: Option<Token>) {
        Transaction::count_refusal(self, id, token);
    }

    fn is_at_max_age(&self, slot: Slot, age: Duration) -> Result<bool> {
        Transaction::is_at_max_age(self, slot.seq, age)
    }

    fn note_max_age(&self, slot: Slot, age: Duration) {
        self.index.at_max_age.add(slot.seq, age);
    }
}
