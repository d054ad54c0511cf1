//! Reads: what is answered from the index, and when the index first catches up with the file.
//!
//! What always holds: a hit is answered without the mutex, except for one catch-up every 100 ms; a miss is
//! answered only after a catch-up that began after the call did.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::{Engine, Writer};
use crate::clock::Reached;
use crate::entry::Entry;
use crate::error::{ErrorKind, Result};
use crate::id::Key;
use crate::index::{Slot, stored};
use crate::journal::{Journal, MarkRow};
use crate::machine::step_size;

/// How old a look may be for a hit to be answered without another.
const CATCH_UP_EVERY_MS: u64 = 100;

/// A look that takes this store's time back is made once more at the earlier time. A clock that falls at each
/// reading cannot make it go on for ever.
pub(super) const CATCH_UPS_AT_MOST: u32 = 2;

/// How many rows that are in doubt are looked for beside a lookup or a commit: some 50 µs.
const DOUBTS_A_LOOKUP: usize = step_size!(64, in_a_simulation: 2);

/// The same for a step of a work of its own: about a millisecond.
const DOUBTS_A_STEP: usize = step_size!(1_000, in_a_simulation: 5);

/// What a look brings besides rows.
pub(super) struct CaughtUp {
    number: u64,
    reached: Option<Reached>,
    rebuilds: u64,
}

impl CaughtUp {
    pub(super) fn by(journal: &mut Journal, number: u64) -> Self {
        let reached = journal.take_reached();
        Self { number, reached, rebuilds: journal.rebuilds() }
    }
}

impl Engine {
    /// The id's newest mark if it is live now, whichever store made it.
    pub(crate) fn live(&self, key: Key) -> Result<Option<Slot>> {
        // Read before the index: a look that begins after this and finds nothing answers the call.
        let (begun, now_ms) = (self.catch_ups_begun.load(SeqCst), self.clock.now_ms());
        let hit = self.recently_live(key, now_ms)?;
        if hit.is_some() {
            return Ok(hit);
        }
        if self.private && !self.index.is_ahead_of(now_ms) {
            // Nothing to look for; but in a forked child the index stands still.
            self.check_process()?;
            return Ok(None);
        }
        self.live_in_file(key, begun)
    }

    /// The same after a look with a number above `begun`.
    pub(super) fn live_in_file(&self, key: Key, begun: u64) -> Result<Option<Slot>> {
        let mut begun = begun;
        self.with_journal(|writer| {
            let has_caught_up = self.last_catch_up.load(Relaxed) > begun;
            if !has_caught_up {
                self.catch_up(writer)?;
            }
            // Should the row have moved, only a later look will do.
            begun = self.catch_ups_begun.load(SeqCst);
            self.live_after_catch_up(writer, key)
        })
    }

    /// The same as far as the index knows. A hit is at most 100 ms out of date, a miss may be more.
    pub(crate) fn recently_live(&self, key: Key, now_ms: i64) -> Result<Option<Slot>> {
        self.check_open()?;
        let known = self.index.get_if_free(key, || self.check_process())?;
        let hit = known.filter(|slot| slot.is_live(now_ms));
        if hit.is_none() {
            return Ok(None);
        }
        if self.index.may_be_stale() || self.index.is_ahead_of(now_ms) {
            return self.live_in_file(key, self.catch_ups_begun.load(SeqCst));
        }
        if self.since_opened_ms() < self.caught_up_at_ms.load(Relaxed) + CATCH_UP_EVERY_MS {
            return Ok(hit);
        }
        self.check_process()?;
        if self.private {
            self.caught_up_at_ms.store(self.since_opened_ms(), Relaxed);
            return Ok(hit);
        }
        // A forget elsewhere is to be noticed, but not by waiting for a commit here.
        let Some(mut writer) = self.writer.try_lock() else { return Ok(hit) };
        let writer = writer.as_mut().ok_or_else(|| self.closed_error())?;
        match self.catch_up(writer).and_then(|()| self.live_after_catch_up(writer, key)) {
            Err(e) if e.kind() == ErrorKind::Busy => Ok(hit),
            found => found,
        }
    }

    /// The id's mark if it is live now and, while the index is in doubt, its row is in the file.
    fn live_after_catch_up(&self, writer: &mut Writer, key: Key) -> Result<Option<Slot>> {
        let live = writer.journal.live(&self.index, key, self.clock.now_ms())?;
        self.settle_some_doubts(writer);
        Ok(live)
    }

    /// Looks for some of the rows that are in doubt, if there are any. Never fails the caller.
    pub(crate) fn settle_some_doubts(&self, writer: &mut Writer) {
        if let Err(e) = writer.journal.drop_stale_slots(&self.index, DOUBTS_A_LOOKUP) {
            log::warn!("{}: looking for deleted marks is put off: {e}", self.name);
        }
    }

    /// Looks, and ends the doubt about marks that other stores have deleted, if there is any, in small
    /// steps.
    ///
    /// Beside a store that goes on deleting the doubt would not end: once all shards were begun and the last
    /// of them was done, what was deleted before the call is settled.
    pub(crate) fn settle_doubts(&self) -> Result<()> {
        let mut enough = None;
        while self.with_journal(|writer| {
            self.catch_up(writer)?;
            let begun = writer.journal.stale_scan_shards_begun();
            let enough = *enough.get_or_insert(begun + self.index.shard_count() + 1);
            let more = writer.journal.drop_stale_slots(&self.index, DOUBTS_A_STEP)?;
            Ok(more && writer.journal.stale_scan_shards_begun() <= enough)
        })? {
            self.yield_to_waiters();
        }
        Ok(())
    }

    pub(super) fn since_opened_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn catch_up(&self, writer: &mut Writer) -> Result<()> {
        for _ in 0..CATCH_UPS_AT_MOST {
            let number = self.catch_ups_begun.fetch_add(1, SeqCst) + 1;
            writer.journal.catch_up(&self.index, self.clock.now_ms())?;
            let seen = CaughtUp::by(&mut writer.journal, number);
            self.caught_up(&seen, &mut writer.rebuilds);
            if !self.is_behind_index() {
                break;
            }
        }
        self.sweep_when_due(writer);
        Ok(())
    }

    /// Whether what a look has heard took this store's time back: the index is true for a later time only.
    pub(super) fn is_behind_index(&self) -> bool {
        self.index.is_ahead_of(self.clock.now_ms())
    }

    /// Takes in what a look brings besides rows.
    pub(super) fn caught_up(&self, seen: &CaughtUp, rebuilds: &mut u64) {
        if let Some(reached) = seen.reached {
            self.clock.hear(reached);
        }
        if std::mem::replace(rebuilds, seen.rebuilds) != seen.rebuilds {
            // The file's history may have gone back: then its numbers are given again, to other ids.
            self.index.duplicates.clear();
            self.index.at_max_age.clear();
        }
        self.last_catch_up.store(seen.number, Relaxed);
        self.caught_up_at_ms.store(self.since_opened_ms(), Relaxed);
    }

    /// The row with this number, if it is of this id. A file that was restored since the look may have
    /// another id's row there.
    pub(crate) fn row_of(
        &self,
        writer: &mut Writer,
        key: Key,
        seq: i64,
    ) -> Result<Option<MarkRow>> {
        let Some(row) = writer.journal.row(seq)? else { return Ok(None) };
        let found = self.hasher.scoped(&row.scope).key(&row.id);
        Ok((stored(found) == stored(key)).then_some(row))
    }

    /// A row of the table as callers see it.
    pub(crate) fn entry(&self, seq: i64, row: MarkRow, now_ms: i64) -> Entry {
        let mut entry = row.entry(now_ms);
        entry.suppressed =
            entry.suppressed.saturating_add(self.index.duplicates.pending(seq).into());
        entry
    }
}
