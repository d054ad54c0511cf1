//! Stale marks: marks in the index that another store may have deleted without a row that says so.
//!
//! Owns the comparison of the index with the table after another store has run a cleanup or purged
//! tombstones. What always holds: while the index may be stale, a live mark counts only after its row was
//! found in the table (a search by `seq`, about a microsecond), and a slot without a row is dropped. So a
//! cleanup of any size, in any number of steps, costs other stores no rebuild and no long wait. The index
//! stops being stale when a scan of all shards is complete that began after the last deletion was noticed.
//! The scan runs in small steps beside commits and lookups.

use rusqlite::Connection;

use super::Journal;
use crate::error::{Error, Result};
use crate::id::Key;
use crate::index::{Index, Slot};

/// The state of the scan. If the index is not stale, there is nothing to do.
#[derive(Default)]
pub(super) struct StaleScan {
    /// How many shards the scan has not begun yet.
    shards_left: usize,
    shard: usize,
    /// The slots of the current shard that are not checked yet: keys and rows, the lowest `seq` last.
    waiting: Vec<(Key, i64)>,
    /// How many shards were begun since the store was opened.
    begun: usize,
}

impl StaleScan {
    /// Begins a scan, or lets the running one go through all shards again.
    pub(super) fn start(&mut self, index: &Index) {
        index.set_may_be_stale(true);
        self.shards_left = index.shard_count();
    }

    /// Ends the scan: the index is not stale any more.
    pub(super) fn finish(&mut self, index: &Index) {
        index.set_may_be_stale(false);
        *self = Self { begun: self.begun, ..Self::default() };
    }
}

/// Returns whether the table has the row.
pub(super) fn row_exists(connection: &Connection, seq: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM seen WHERE seq = ?1")?.exists([seq])
}

impl Journal {
    /// Returns the id's mark if it is live at `now_ms`, from the index or the file. While the index may be stale, its
    /// row must be in the
    /// table too.
    ///
    /// # Errors
    ///
    /// `Busy` if another store has replaced or deleted the row since the last catch-up.
    pub(crate) fn live(&mut self, index: &Index, key: Key, now_ms: i64) -> Result<Option<Slot>> {
        let is_live = |slot: &Slot| slot.is_live(now_ms);
        let Some(known) = index.get(key) else {
            return Ok(self.newest_in_file(index, key, now_ms)?.filter(is_live));
        };
        let found = Some(known).filter(is_live);
        let Some(slot) = found.filter(|_| index.may_be_stale()) else {
            return Ok(found);
        };
        if self.read(|connection| row_exists(connection, slot.seq))? {
            return Ok(found);
        }
        if !self.is_current()? {
            return Err(Error::try_again());
        }
        index.remove(key, slot.seq);
        Ok(self.newest_in_file(index, key, now_ms)?.filter(is_live))
    }

    /// Looks for the rows of up to `limit` slots that may be stale, and drops slots without a row. Returns
    /// false once the scan is complete.
    pub(crate) fn drop_stale_slots(&mut self, index: &Index, limit: usize) -> Result<bool> {
        if !index.may_be_stale() {
            return Ok(false);
        }
        self.ensure_open()?;
        let mut left = limit;
        while left > 0 {
            let Some((key, seq)) = self.stale_scan.waiting.pop() else {
                if self.stale_scan.shards_left == 0 {
                    self.stale_scan.finish(index);
                    return Ok(false);
                }
                self.begin_next_shard(index);
                continue;
            };
            left -= 1;
            match self.with("read", |connection| row_exists(connection, seq)) {
                Ok(true) => {}
                Ok(false) => index.remove(key, seq),
                Err(e) => {
                    self.stale_scan.waiting.push((key, seq));
                    return Err(e);
                }
            }
        }
        Ok(true)
    }

    /// Returns how many shards were begun since the store was opened.
    pub(crate) fn stale_scan_shards_begun(&self) -> usize {
        self.stale_scan.begun
    }

    fn begin_next_shard(&mut self, index: &Index) {
        let stale_scan = &mut self.stale_scan;
        // Slots that have expired are included: when the clock is set back they may be live again.
        stale_scan.waiting = index.slots(stale_scan.shard);
        // In the table's order, because neighbours share a page. In reverse, because `pop` takes the last.
        stale_scan.waiting.sort_unstable_by_key(|(_, seq)| std::cmp::Reverse(*seq));
        stale_scan.shard = (stale_scan.shard + 1) % index.shard_count();
        stale_scan.shards_left -= 1;
        stale_scan.begun += 1;
    }
}
