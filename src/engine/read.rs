//! Reads: answers from the index, and decides when the index catches up with the file first.
//!
//! What always holds: a hit is answered without the mutex, except for one catch-up every 100 ms; a miss is
//! answered only after a catch-up that began after the call did.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::counters::Event;
use super::{Engine, Writer};
use crate::clock::FileTime;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, Key};
use crate::index::{Slot, run_hash, stored};
use crate::journal::{ClaimRow, Journal, MarkRow};
use crate::machine::{COARSE_RESOLUTION_MS, coarse_ms, step_size};
use crate::token::Token;

/// The greatest age of a catch-up for a hit to be answered without another one: what the store promises, less
/// the resolution of the clock that measures it.
const CATCH_UP_INTERVAL_MS: u64 = 100 - COARSE_RESOLUTION_MS;

/// A catch-up that sets this store's time back is repeated once at the earlier time. The limit keeps a clock
/// that falls at each reading from repeating it for ever.
pub(super) const MAX_CATCH_UPS: u32 = 2;

/// How many slots that may be stale are checked beside a lookup or a commit: about 50 µs.
const SLOTS_CHECKED_PER_LOOKUP: usize = step_size!(64, in_a_simulation: 2);

/// How many of them one step of background work checks: about a millisecond.
const SLOTS_CHECKED_PER_STEP: usize = step_size!(1_000, in_a_simulation: 5);

/// How many ids are looked for in the file while the mutex is held: about a millisecond.
const IDS_PER_LOOK: usize = step_size!(64, in_a_simulation: 2);

/// What the index tells of an id.
enum InIndex {
    Live(Slot),
    /// It was live at the last catch-up, more than 100 ms ago.
    LiveLately(Slot),
    /// It has a slot that only a look into the file can judge.
    Stale,
    /// The index does not know that it is live.
    NotLive,
}

/// What a catch-up finds besides rows.
pub(super) struct CaughtUp {
    number: u64,
    file_time: Option<FileTime>,
    rebuilds: u64,
}

impl CaughtUp {
    pub(super) fn by(journal: &mut Journal, number: u64) -> Self {
        let file_time = journal.take_file_time();
        Self { number, file_time, rebuilds: journal.rebuilds() }
    }
}

impl Engine {
    /// Returns the id's newest mark if it is live now, whichever store made it.
    pub(crate) fn live(&self, key: Key) -> Result<Option<Slot>> {
        // Read before the index: a catch-up that begins after this point and finds nothing answers the call.
        let (begun, now_ms) = (self.catch_ups_begun.load(SeqCst), self.clock.now_ms());
        let was_complete = self.index.is_complete();
        let hit = self.live_in_index(key, now_ms)?;
        if hit.is_some() {
            return Ok(hit);
        }
        if self.misses_for_sure(was_complete, now_ms)? {
            return Ok(None);
        }
        self.live_in_file(key, begun)
    }

    /// Like [`live`](Self::live), but a hit too is answered only after a catch-up.
    pub(crate) fn live_now(&self, key: Key) -> Result<Option<Slot>> {
        self.live_in_file(key, self.catch_ups_begun.load(SeqCst))
    }

    /// Like [`live`](Self::live), after a catch-up with a number greater than `begun`.
    pub(super) fn live_in_file(&self, key: Key, begun: u64) -> Result<Option<Slot>> {
        let mut begun = begun;
        self.with_journal(|writer| {
            let has_caught_up = self.last_catch_up.load(Relaxed) > begun;
            if !has_caught_up {
                self.catch_up(writer)?;
            }
            // If the row has moved, only a later catch-up finds it.
            begun = self.catch_ups_begun.load(SeqCst);
            self.live_after_catch_up(writer, key)
        })
    }

    /// Looks for ids in the file before a transaction decides on them, unless all of the file is in memory.
    pub(crate) fn look_ahead(&self, keys: impl Iterator<Item = Key>) -> Result<()> {
        if self.index.is_complete() {
            return Ok(());
        }
        self.check_process()?;
        let mut keys: Vec<Key> = keys.filter(|key| self.index.get(*key).is_none()).collect();
        // Neighbours in this order are in the same blocks.
        keys.sort_unstable_by_key(|key| run_hash(*key));
        for (at, some) in keys.chunks(IDS_PER_LOOK).enumerate() {
            if at > 0 {
                self.yield_to_waiters();
            }
            self.with_journal(|writer| {
                let looked = writer.journal.look_ahead(&self.index, some, self.clock.now_ms());
                self.wake_upkeep(writer);
                looked
            })?;
        }
        Ok(())
    }

    /// Like [`live`](Self::live), from the index alone. A hit is at most 100 ms out of date; a miss may be
    /// older.
    pub(crate) fn live_in_index(&self, key: Key, now_ms: i64) -> Result<Option<Slot>> {
        let slot = match self.in_index(key, now_ms)? {
            InIndex::Live(slot) => return Ok(Some(slot)),
            InIndex::NotLive => return Ok(None),
            InIndex::Stale => {
                return self.live_in_file(key, self.catch_ups_begun.load(SeqCst));
            }
            InIndex::LiveLately(slot) => slot,
        };
        self.check_process()?;
        // Catch up to notice marks that other stores removed, but do not wait for a commit of this store.
        let Some(mut writer) = self.writer.try_lock() else { return Ok(Some(slot)) };
        let writer = writer.as_mut().ok_or_else(|| self.closed_error())?;
        match self.catch_up(writer).and_then(|()| self.live_after_catch_up(writer, key)) {
            Err(e) if e.kind() == ErrorKind::Busy => Ok(Some(slot)),
            found => found.inspect_err(|e| self.counters.add_error(e)),
        }
    }

    /// Returns what the index tells of an id. Waits for nothing but another lookup or commit that uses the same part
    /// of the index.
    fn in_index(&self, key: Key, now_ms: i64) -> Result<InIndex> {
        self.check_open()?;
        let known = self.index.get_if_free(key, || self.check_process())?;
        let Some(slot) = known.filter(|slot| slot.is_live(now_ms)) else {
            return Ok(InIndex::NotLive);
        };
        if self.index.may_be_stale() || self.index.is_ahead_of(now_ms) {
            return Ok(InIndex::Stale);
        }
        if coarse_ms() < self.caught_up_at_ms.load(Relaxed) + CATCH_UP_INTERVAL_MS {
            return Ok(InIndex::Live(slot));
        }
        if !self.private {
            return Ok(InIndex::LiveLately(slot));
        }
        self.check_process()?;
        self.caught_up_at_ms.store(coarse_ms(), Relaxed);
        Ok(InIndex::Live(slot))
    }

    /// Like [`live`](Self::live), for callers that must not wait: `None` where only the file can tell.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_live_at_once(&self, key: Key) -> Result<Option<bool>> {
        let now_ms = self.clock.now_ms();
        let was_complete = self.index.is_complete();
        if self.live_at_once(key, now_ms)?.is_some() {
            return Ok(Some(true));
        }
        self.misses_for_sure(was_complete, now_ms).map(|misses| misses.then_some(false))
    }

    /// Returns whether an id that the index does not know is not seen: no other store can have written. `was_complete`:
    /// whether the index was complete before it was asked.
    fn misses_for_sure(&self, was_complete: bool, now_ms: i64) -> Result<bool> {
        // Both times: an index that is emptied, or filled, meanwhile may lack the id.
        let is_complete = was_complete && self.index.is_complete();
        if !(self.private && is_complete && !self.index.is_ahead_of(now_ms)) {
            return Ok(false);
        }
        // But in a forked child the index no longer changes.
        self.check_process()?;
        Ok(true)
    }

    /// Returns the id's mark if the index knows it and no look into the file is due. For callers that must not wait.
    #[cfg(feature = "tokio")]
    pub(crate) fn live_at_once(&self, key: Key, now_ms: i64) -> Result<Option<Slot>> {
        Ok(match self.in_index(key, now_ms)? {
            InIndex::Live(slot) => Some(slot),
            _ => None,
        })
    }

    /// Returns the id's mark if it is live now and, while slots of the index may be stale, its row is in the
    /// file.
    fn live_after_catch_up(&self, writer: &mut Writer, key: Key) -> Result<Option<Slot>> {
        let live = writer.journal.live(&self.index, key, self.clock.now_ms())?;
        self.wake_upkeep(writer);
        self.drop_some_stale_slots(writer);
        Ok(live)
    }

    /// Checks some of the slots that may be stale, if there are any. A failure is only logged.
    pub(crate) fn drop_some_stale_slots(&self, writer: &mut Writer) {
        if let Err(e) = writer.journal.drop_stale_slots(&self.index, SLOTS_CHECKED_PER_LOOKUP) {
            log::warn!(
                file = self.name.as_str(), error:% = e, error_kind = e.kind().word();
                "{}: the search for deleted marks is put off: {e}", self.name
            );
        }
    }

    /// Catches up, and then drops in small steps all slots whose rows other stores have deleted.
    ///
    /// While another store goes on deleting, slots go stale without end. So this stops once each shard was
    /// started after the call began and the last of them is complete: all deletions from before the call are
    /// then noticed.
    pub(crate) fn drop_stale_slots(&self) -> Result<()> {
        let mut enough = None;
        while self.with_journal(|writer| {
            self.catch_up(writer)?;
            let begun = writer.journal.stale_scan_shards_begun();
            let enough = *enough.get_or_insert(begun + self.index.shard_count() + 1);
            let more = writer.journal.drop_stale_slots(&self.index, SLOTS_CHECKED_PER_STEP)?;
            Ok(more && writer.journal.stale_scan_shards_begun() <= enough)
        })? {
            self.yield_to_waiters();
        }
        Ok(())
    }

    pub(crate) fn catch_up(&self, writer: &mut Writer) -> Result<()> {
        for _ in 0..MAX_CATCH_UPS {
            let number = self.catch_ups_begun.fetch_add(1, SeqCst) + 1;
            writer.journal.catch_up(&self.index, self.clock.now_ms())?;
            let caught_up = CaughtUp::by(&mut writer.journal, number);
            self.apply_catch_up(&caught_up, &mut writer.rebuilds);
            if !self.is_behind_index() {
                break;
            }
        }
        self.sweep_when_due(writer);
        Ok(())
    }

    /// Returns true when a catch-up set this store's time back: the index is valid for a later time only.
    pub(super) fn is_behind_index(&self) -> bool {
        self.index.is_ahead_of(self.clock.now_ms())
    }

    /// Applies what a catch-up found besides rows.
    pub(super) fn apply_catch_up(&self, caught_up: &CaughtUp, rebuilds: &mut u64) {
        if let Some(file_time) = caught_up.file_time {
            self.clock.observe(file_time);
        }
        let rebuilt = caught_up.rebuilds - std::mem::replace(rebuilds, caught_up.rebuilds);
        if rebuilt > 0 {
            self.counters.add(Event::Rebuild, rebuilt);
            // The file may have been restored to an older history, which gives the same row numbers to other
            // ids.
            self.index.duplicates.clear();
            self.index.at_max_age.clear();
        }
        self.last_catch_up.store(caught_up.number, Relaxed);
        self.caught_up_at_ms.store(coarse_ms(), Relaxed);
    }

    /// Returns the row with this number if it belongs to this id. A file that was restored since the catch-up
    /// may have another id's row there.
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

    /// Returns the entry of an id if it is seen, after a catch-up.
    ///
    /// # Errors
    ///
    /// `Busy` if another store has replaced or deleted the row since the catch-up.
    pub(crate) fn seen_entry(&self, writer: &mut Writer, key: Key) -> Result<Option<Entry>> {
        self.catch_up(writer)?;
        let now_ms = self.clock.now_ms();
        let newest = writer.journal.newest(&self.index, key, now_ms)?;
        let Some(slot) = newest.filter(|slot| slot.is_live(now_ms)) else {
            return Ok(None);
        };
        if let Some(row) = self.row_of(writer, key, slot.seq)? {
            return Ok(Some(self.entry(slot.seq, row, now_ms)));
        }
        if !writer.journal.is_current()? {
            // The row was refreshed or forgotten after the catch-up, or the file was restored: try again.
            return Err(Error::try_again());
        }
        // Purged by a process whose clock is ahead: the mark is gone for all stores.
        self.index.remove(key, slot.seq);
        Ok(None)
    }

    /// Returns the entry of an id that was seen and is kept by its retention, after a catch-up.
    pub(crate) fn retained_entry(&self, writer: &mut Writer, key: Key) -> Result<Option<Entry>> {
        let now_ms = self.clock.now_ms();
        let newest = writer.journal.newest(&self.index, key, now_ms)?;
        let Some(slot) = newest.filter(|slot| slot.is_retained) else {
            return Ok(None);
        };
        let row = self.row_of(writer, key, slot.seq)?;
        let row = row.filter(|row| row.retain_until.is_some_and(|until| now_ms < until));
        Ok(row.map(|row| self.entry(slot.seq, row, now_ms)))
    }

    /// Returns the entry of a mark that the index knows, or `None` when its row has moved or is gone.
    pub(crate) fn entry_at(&self, key: Key, slot: Slot) -> Result<Option<Entry>> {
        self.with_journal(|writer| {
            let row = self.row_of(writer, key, slot.seq)?;
            Ok(row.map(|row| self.entry(slot.seq, row, self.clock.now_ms())))
        })
    }

    /// Returns the entry of a mark that the index knew, as it is now.
    pub(crate) fn entry_of(&self, key: Key, slot: Slot) -> Result<Option<Entry>> {
        self.check_open()?;
        if let Some(entry) = self.entry_at(key, slot)? {
            return Ok(Some(entry));
        }
        self.with_journal(|writer| self.seen_entry(writer, key))
    }

    /// Returns a row of the table as callers see it, with the duplicates that are not in the file yet.
    pub(crate) fn entry(&self, seq: i64, row: MarkRow, now_ms: i64) -> Entry {
        let token = row.token;
        self.with_refusals(token, row.with(self.index.duplicates.pending(seq)).entry(now_ms))
    }

    /// Returns a claim as callers see it, with the refusals that are not in the file yet.
    pub(crate) fn claim_entry(&self, id: Id<'_>, claim: ClaimRow, now_ms: i64) -> Entry {
        self.with_refusals(claim.token, claim.entry(id.scope, id.bytes, now_ms))
    }

    /// Returns an entry with the refusals of its claim that are not in the file yet.
    fn with_refusals(&self, token: Option<Token>, entry: Entry) -> Entry {
        let refusals = self.index.refusals.pending(token).into();
        Entry { duplicates: entry.duplicates.saturating_add(refusals), ..entry }
    }
}
