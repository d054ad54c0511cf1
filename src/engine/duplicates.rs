//! Duplicate counts: kept in memory and flushed to the file from time to time.
//!
//! Owns when counts are written, and how many in one commit. The counts themselves are in `index::duplicates`.
//! What always holds: a count is subtracted from memory only after its commit, and the mutex is held from reading
//! the counts until then, so no count is written twice. A crash loses the counts since the last flush; a close
//! beside a busy file drops them rather than wait. Must not decide what is a duplicate: the verbs do.

use std::time::Duration;

use super::{Engine, Writer};
use crate::error::{ErrorKind, Result};
use crate::index::{MAX_COUNTED_IDS, Repeats};
use crate::machine::step_size;

/// How many duplicate counts one transaction writes: each touches a page of its own.
const COUNTS_PER_COMMIT: usize = step_size!(100, in_a_simulation: 2);

/// How long a closing store waits for another connection in order to write its duplicate counts: as long as a
/// connection that limits the log may hold the write lock. That includes the store's own checkpoint thread.
const CLOSING_FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

impl Engine {
    /// Adds one to the duplicate count of the mark with this row number.
    pub(crate) fn count_duplicate(&self, seq: i64, now_ms: i64) -> Result<()> {
        self.index.duplicates.add(seq, Repeats::at(now_ms), || self.check_process())
    }

    /// Returns true when the mark is known to have reached the maximum age of its sliding window.
    pub(crate) fn is_at_max_age(&self, seq: i64, max_age: Duration) -> Result<bool> {
        self.index.at_max_age.covers(seq, max_age, || self.check_process())
    }

    /// Writes the duplicate counts that were pending when the call began, and calls `pause` after each step.
    pub(crate) fn flush_duplicates(&self, pause: &mut dyn FnMut()) -> Result<()> {
        let flushed = self.flush_duplicates_within(self.busy_timeout, pause);
        flushed.inspect_err(|e| self.counters.add_error(e))
    }

    /// Like [`flush_duplicates`](Self::flush_duplicates), with this timeout for other processes at each step.
    pub(super) fn flush_duplicates_within(
        &self,
        timeout: Duration,
        pause: &mut dyn FnMut(),
    ) -> Result<()> {
        let mut remaining = MAX_COUNTED_IDS;
        while remaining > 0 {
            let limit = remaining.min(COUNTS_PER_COMMIT);
            let written =
                self.with_journal_within(timeout, |writer| self.write_duplicates(writer, limit))?;
            self.yield_to_waiters();
            if written == 0 {
                return Ok(());
            }
            remaining -= written;
            pause();
        }
        Ok(())
    }

    /// Writes up to `limit` counts and returns how many. The mutex is held from reading the counts until they
    /// are subtracted: otherwise another thread would write the same counts again.
    pub(crate) fn write_duplicates(&self, writer: &mut Writer, limit: usize) -> Result<usize> {
        let mut counts = self.index.duplicates.snapshot(1);
        let mut refusals = self.index.refusals.snapshot(1);
        if counts.is_empty() && refusals.is_empty() {
            return Ok(0);
        }
        self.try_write(writer, &mut |transaction| {
            // Read the counts here: the catch-up under the write lock drops the counts of rows of a replaced
            // history.
            counts = self.index.duplicates.snapshot(limit);
            transaction.add_duplicates(&counts)?;
            refusals = self.index.refusals.snapshot(limit - counts.len());
            refusals.iter().try_for_each(|(token, it)| transaction.add_refusals(*token, it))
        })?;
        for &(seq, repeats) in &counts {
            self.index.duplicates.subtract(seq, repeats.count);
        }
        for (token, refused) in &refusals {
            self.index.refusals.subtract(*token, refused.count);
        }
        Ok(counts.len() + refusals.len())
    }

    /// Flushes the counts when the store closes. Counts are not worth a long wait: while another process
    /// writes, they are dropped.
    pub(super) fn flush_before_closing(&self) -> Result<()> {
        let timeout = CLOSING_FLUSH_TIMEOUT.min(self.busy_timeout);
        match self.flush_duplicates_within(timeout, &mut || {}) {
            Err(e) if e.kind() == ErrorKind::Busy => {
                log::debug!(
                    file = self.name.as_str(), error:% = e, error_kind = e.kind().word();
                    "{}: some counts of duplicates are not written down: {e}", self.name
                );
                Ok(())
            }
            flushed => flushed,
        }
    }
}
