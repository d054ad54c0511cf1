//! Duplicates that were turned away: counted in memory, and written down now and then.

use std::time::Duration;

use super::{Engine, Writer};
use crate::error::{ErrorKind, Result};
use crate::index::MAX_COUNTED_IDS;
use crate::machine::step_size;

/// How many counts of duplicates are written down in one transaction: each is a page of its own.
const FLUSHED_AT_ONCE: usize = step_size!(100, in_a_simulation: 2);

/// For how long a store that closes waits for another connection, to write down the counts of duplicates: as
/// long as one that keeps the log short may hold the write lock, which includes the store's own.
const LONGEST_FLUSH: Duration = Duration::from_millis(250);

impl Engine {
    /// Counts a duplicate that was turned away.
    pub(crate) fn count_duplicate(&self, seq: i64) -> Result<()> {
        self.index.duplicates.add(seq, || self.check_process())
    }

    /// Whether the mark is known to be at the maximum age of its sliding window.
    pub(crate) fn is_at_max_age(&self, seq: i64, max_age: Duration) -> Result<bool> {
        self.index.at_max_age.covers(seq, max_age, || self.check_process())
    }

    /// Writes the counts of suppressed duplicates down, those of the beginning at least, with `pause`
    /// between two steps.
    pub(crate) fn flush_duplicates(&self, pause: &mut dyn FnMut()) -> Result<()> {
        self.flush_duplicates_within(self.config.busy_timeout, pause)
    }

    /// The same, waiting for other processes for so long at each step.
    pub(super) fn flush_duplicates_within(
        &self,
        timeout: Duration,
        pause: &mut dyn FnMut(),
    ) -> Result<()> {
        let mut left = MAX_COUNTED_IDS;
        while left > 0 {
            let some = left.min(FLUSHED_AT_ONCE);
            let written =
                self.with_journal_within(timeout, |writer| self.write_duplicates(writer, some))?;
            self.yield_to_waiters();
            if written == 0 {
                return Ok(());
            }
            left -= written;
            pause();
        }
        Ok(())
    }

    /// Writes up to `limit` counts down; how many. The mutex is held from reading the counts until they
    /// are taken off, or another thread would write the same ones.
    pub(crate) fn write_duplicates(&self, writer: &mut Writer, limit: usize) -> Result<usize> {
        let mut counts = self.index.duplicates.snapshot(1);
        if counts.is_empty() {
            return Ok(0);
        }
        self.try_write(writer, &mut |transaction| {
            // Only now: the look under the write lock forgets the counts of rows of another history.
            counts = self.index.duplicates.snapshot(limit);
            transaction.add_duplicates(&counts)
        })?;
        for &(seq, count) in &counts {
            self.index.duplicates.subtract(seq, count);
        }
        Ok(counts.len())
    }

    /// The counts are not worth a wait: while another process writes, they are let go.
    pub(super) fn flush_before_closing(&self) -> Result<()> {
        let timeout = LONGEST_FLUSH.min(self.config.busy_timeout);
        match self.flush_duplicates_within(timeout, &mut || {}) {
            Err(e) if e.kind() == ErrorKind::Busy => {
                log::debug!("{}: some counts of duplicates are not written down: {e}", self.name);
                Ok(())
            }
            flushed => flushed,
        }
    }
}
