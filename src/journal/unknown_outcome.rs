//! Commits that failed with an I/O error: whether they are in the file.
//!
//! Owns how the outcome is found out. What always holds: a caller is told of no outcome that is not known. What a failed
//! commit may have left in the log is overwritten, so that no crash brings it back.

use super::claim_row::ClaimRow;
use super::load::id_bytes;
use super::transaction::Transaction;
use super::{Journal, Tip};
use crate::backoff::retry_while_busy;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Scope;

/// The last thing that a transaction wrote and did not delete again. A commit is whole or absent, so this one
/// thing tells whether all of it is in the file.
pub(super) enum LastWrite {
    Row(Tip),
    Claim { scope: String, id: Vec<u8>, claim: ClaimRow },
}

impl Transaction<'_> {
    /// Finds out whether the transaction is in the file although its commit failed. Also brings the index up
    /// to date with the file.
    pub(super) fn find_out_whether_committed(&mut self, error: &Error) -> Result<bool> {
        let file = self.journal.name();
        log::warn!(
            file = file.as_str(), error:% = error, error_kind = error.kind().word();
            "{file}: {error}; opening the file again to find out whether it was committed"
        );
        let Some(last_write) = self.last_write.take() else {
            return Ok(false); // Only deletions: doing them again does no harm.
        };
        // SQLite drops an unfinished commit when the connection closes.
        self.journal.drop_failed_connection();
        // The only wait that holds the mutex: if it were released while the outcome is unknown, the call could
        // be tried again and find its own mark.
        let timeout = self.journal.config.busy_timeout;
        let committed = retry_while_busy(timeout, || self.is_in_file(&last_write));
        if !matches!(committed, Ok(true)) {
            self.journal.overwrite_failed_commit();
        }
        committed.map_err(|e| {
            let name = self.journal.name();
            Error::with_source(
                ErrorKind::Io,
                format!(
                    "{name}: a commit failed, and whether it is in the file cannot be found out; ask again for its ids \
                     when the file can be read"
                ),
                e,
            )
        })
    }

    fn is_in_file(&mut self, last_write: &LastWrite) -> Result<bool> {
        self.journal.ensure_open()?;
        self.journal.catch_up_now(self.index, self.now_ms)?;
        match last_write {
            LastWrite::Row(last) => self.journal.holds_row(*last),
            LastWrite::Claim { scope, id, claim } => {
                let scope = Scope::new(scope, &self.journal.hasher);
                let found = self.journal.stored_claim(scope.id(id)?)?;
                Ok(found.as_ref() == Some(claim))
            }
        }
    }
}

impl Journal {
    /// Overwrites what a failed commit may have left in the log. Frames that were written completely, but not
    /// synced, are not part of the file now; after a crash, recovery would take them in.
    fn overwrite_failed_commit(&mut self) {
        let overwritten = self.ensure_open().and_then(|()| {
            self.with("write to", |connection| {
                // The value changes each time: SQLite does not write a page that stays the same.
                connection.execute_batch(
                    "INSERT INTO meta (key, value) VALUES ('buried', 1) \
                     ON CONFLICT (key) DO UPDATE SET value = value + 1",
                )
            })
        });
        if let Err(e) = overwritten {
            self.rollback();
            let file = self.name();
            log::warn!(
                file = file.as_str(), error:% = e, error_kind = e.kind().word();
                "{file}: {e}; after a crash now, the failed commit may be in the file"
            );
        }
    }

    /// Returns whether the file holds exactly this row. A row of another store with the same `seq` has another
    /// key, or another expiry.
    fn holds_row(&mut self, tip: Tip) -> Result<bool> {
        let hasher = self.hasher.clone();
        self.with("read", |connection| {
            let mut statement =
                connection.prepare("SELECT scope, id, expires_at FROM seen WHERE seq = ?1")?;
            let mut rows = statement.query([tip.seq])?;
            let Some(row) = rows.next()? else { return Ok(false) };
            let scoped = hasher.scoped(&row.get::<_, String>(0)?);
            let same_key = id_bytes(row.get_ref(1)?).is_ok_and(|id| scoped.key(id) == tip.key);
            Ok(same_key && row.get::<_, Option<i64>>(2)? == tip.expires_at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::index::Index;

    #[test]
    fn what_a_failed_commit_left_in_the_log_is_written_over_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let (config, index) = (Config::default(), Index::new());
        let (mut journal, _) = Journal::open(path, &config, &index, 1).unwrap();
        let pages =
            |journal: &mut Journal| journal.log_handle().unwrap().unwrap().state().unwrap().pages;
        for _ in 0..3 {
            let before = pages(&mut journal);
            journal.overwrite_failed_commit();
            assert!(pages(&mut journal) > before, "nothing was written");
        }
        journal.close().unwrap();
    }
}
