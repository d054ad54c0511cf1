//! Doubt: marks in the index that another store may have deleted without a row that tells of it.
//!
//! Owns the comparison of the index with the table after a cleanup, or a purge of tombstones, by another
//! store. What always holds: while the index is in doubt, a live mark counts only once its row was found in
//! the table (a search by `seq`, about a microsecond); a slot without a row is dropped. So a cleanup of any
//! size, in any number of steps, costs other stores no rebuild and no long wait. The doubt ends when a pass
//! over all shards that began after the last deletion was noticed has looked for every row. The pass is made
//! in small steps beside commits and lookups.

use rusqlite::Connection;

use super::Journal;
use crate::error::{Error, Result};
use crate::id::Key;
use crate::index::{Index, Slot};

/// How far the pass has come. Without doubt there is nothing to do.
#[derive(Default)]
pub(super) struct Doubts {
    /// How many shards are still to be begun.
    shards_left: usize,
    shard: usize,
    /// The rest of the shard that was begun: keys and rows, the lowest `seq` last.
    waiting: Vec<(Key, i64)>,
    /// How many shards were begun since the store was opened.
    begun: usize,
}

impl Doubts {
    /// Begins a pass, or lets the present one go all the way round again.
    pub(super) fn arise(&mut self, index: &Index) {
        index.set_doubted(true);
        self.shards_left = index.shard_count();
    }

    /// Ends the doubt.
    pub(super) fn settle(&mut self, index: &Index) {
        index.set_doubted(false);
        *self = Self { begun: self.begun, ..Self::default() };
    }
}

/// Whether the row stands in the table.
pub(super) fn is_there(connection: &Connection, seq: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM seen WHERE seq = ?1")?.exists([seq])
}

impl Journal {
    /// The id's mark if it is live at `now_ms`, and its row, where that is in doubt, is in the table. `Busy`
    /// where another store has moved or deleted the row since the last catch-up.
    pub(crate) fn live(&mut self, index: &Index, key: Key, now_ms: i64) -> Result<Option<Slot>> {
        let found = index.get(key).filter(|slot| slot.is_live(now_ms));
        let Some(slot) = found.filter(|_| index.is_doubted()) else {
            return Ok(found);
        };
        self.ensure_open()?;
        if self.with("read", |connection| is_there(connection, slot.seq))? {
            return Ok(found);
        }
        if !self.is_current()? {
            return Err(Error::try_again());
        }
        index.remove(key, slot.seq);
        Ok(None)
    }

    /// Looks for the rows of up to `limit` slots that are in doubt. Returns false once there is no doubt
    /// left.
    pub(crate) fn settle_doubts(&mut self, index: &Index, limit: usize) -> Result<bool> {
        if !index.is_doubted() {
            return Ok(false);
        }
        self.ensure_open()?;
        let mut left = limit;
        while left > 0 {
            let Some((key, seq)) = self.doubts.waiting.pop() else {
                if self.doubts.shards_left == 0 {
                    self.doubts.settle(index);
                    return Ok(false);
                }
                self.next_doubted_shard(index);
                continue;
            };
            left -= 1;
            match self.with("read", |connection| is_there(connection, seq)) {
                Ok(true) => {}
                Ok(false) => index.remove(key, seq),
                Err(e) => {
                    self.doubts.waiting.push((key, seq));
                    return Err(e);
                }
            }
        }
        Ok(true)
    }

    /// How many shards were begun since the store was opened.
    pub(crate) fn doubted_shards_begun(&self) -> usize {
        self.doubts.begun
    }

    fn next_doubted_shard(&mut self, index: &Index) {
        let doubts = &mut self.doubts;
        // Also slots that have expired: under a clock that is set back they may be live again.
        doubts.waiting = index.slots(doubts.shard);
        // In the table's order, from the back, where a Vec gives its entries up: neighbours share a page.
        doubts.waiting.sort_unstable_by_key(|(_, seq)| std::cmp::Reverse(*seq));
        doubts.shard = (doubts.shard + 1) % index.shard_count();
        doubts.shards_left -= 1;
        doubts.begun += 1;
    }
}
