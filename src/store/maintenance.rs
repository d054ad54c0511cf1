//! The verbs that keep a store in order and tell how it is.
//!
//! Owns nothing: each is the public face of a work in `maintenance` or `journal`.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use super::SeenStore;
use crate::clock::{duration_ms, from_ms};
use crate::engine::{Engine, Writer};
use crate::error::Result;
use crate::file;
use crate::format::pragmas::Pragmas;
use crate::format::upgrade::Upgrade;
use crate::journal::{Report, check_file, copy_file};
use crate::machine::step_size;

/// How many rows `verify` compares with the index at a time.
const ROWS_COMPARED_AT_ONCE: i64 = step_size!(1_000, in_a_simulation: 5);

/// How many rows are counted while the mutex is held.
const ROWS_COUNTED_AT_ONCE: i64 = step_size!(2_000, in_a_simulation: 5);

/// Figures of a store at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many ids are seen, in all scopes.
    pub seen: u64,
    /// How many ids are claimed and in flight.
    pub in_flight: u64,
    /// How many ids failed in their last attempt and may be claimed again.
    pub failed: u64,
    /// How many expired ids still take up memory, to be swept by the next purge.
    pub expired: u64,
    /// Memory of the index, in bytes.
    pub memory_bytes: u64,
    /// Size of the database file, in bytes; 0 in memory.
    pub file_bytes: u64,
    /// Size of the write-ahead log, in bytes.
    pub wal_bytes: u64,
    /// When a purge last removed something from the file, by any process.
    pub last_purge_at: Option<SystemTime>,
    /// How often `is_seen` answered false because of an error, through this store's handles.
    pub failed_open: u64,
    /// How often this store had to rebuild its index: the file was restored in place, or another program
    /// compacted it or deleted rows.
    pub rebuilds: u64,
}

impl Engine {
    /// Counts rows step by step: each tells how many there are among the next ones, and where to go on.
    fn count_in_steps(
        &self,
        mut step: impl FnMut(&mut Writer, i64) -> Result<(u64, Option<i64>)>,
    ) -> Result<u64> {
        let (mut count, mut after) = (0, Some(0));
        while let Some(from) = after {
            let (found, next) = self.with_journal(|writer| {
                // Another store may know of a later time, by which a purge would go.
                self.catch_up(writer)?;
                step(writer, from)
            })?;
            count += found;
            after = next;
            self.yield_to_waiters();
        }
        Ok(count)
    }
}

impl SeenStore {
    /// Removes everything that has expired, in all scopes. Returns the number of marks removed. They were
    /// unseen already: this gives their room back. A purge that finds nothing writes nothing.
    ///
    /// Goes through the file in steps of about a millisecond; other callers come in between.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen). Steps that were done stay done.
    pub fn purge_expired(&self) -> Result<u64> {
        self.engine.purge_expired()
    }

    /// Removes the marks of this handle's scope that were last seen longer ago than `older_than`,
    /// expired or not, and its claims that are not in flight and last changed longer ago: those that
    /// failed, were released, or whose holder vanished. Returns the number of both. Their attempts are
    /// forgotten. A claim last changed when it was made, or when its lease or its retry delay ended.
    ///
    /// Other processes notice within 100 ms that marks were removed.
    ///
    /// Goes through the file in small steps, as [`purge_expired`](Self::purge_expired).
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen). Steps that were done stay done.
    pub fn cleanup_old_entries(&self, older_than: Duration) -> Result<u64> {
        self.engine.cleanup(self.scope.name(), older_than)
    }

    /// How many marks [`purge_expired`](Self::purge_expired) would remove. Changes nothing. Reads the whole
    /// file, some 0.1 µs a mark, in small steps; other callers come in between.
    ///
    /// # Errors
    ///
    /// As [`try_is_seen`](Self::try_is_seen).
    pub fn count_expired(&self) -> Result<u64> {
        let engine = &self.engine;
        engine.check_open()?;
        engine.count_in_steps(|writer, after| {
            writer.journal.count_expired(after, ROWS_COUNTED_AT_ONCE, engine.clock.now_ms())
        })
    }

    /// How many entries [`cleanup_old_entries`](Self::cleanup_old_entries) would remove. Costs what
    /// [`count_expired`](Self::count_expired) does.
    ///
    /// # Errors
    ///
    /// As [`try_is_seen`](Self::try_is_seen).
    pub fn count_old_entries(&self, older_than: Duration) -> Result<u64> {
        let engine = &self.engine;
        engine.check_open()?;
        let before_ms = || engine.clock.now_ms().saturating_sub(duration_ms(older_than));
        let scope = self.scope.name();
        let marks = engine.count_in_steps(|writer, after| {
            writer.journal.count_older(scope, before_ms(), after, ROWS_COUNTED_AT_ONCE)
        })?;
        let claims =
            engine.with_journal(|writer| writer.journal.count_older_claims(scope, before_ms()))?;
        Ok(marks + claims)
    }

    /// [Forgets](Self::forget) every id of this handle's scope, marks and claims, whatever their age; how
    /// many entries were removed, those included that had expired. Ids that are marked while it runs may
    /// be forgotten too.
    ///
    /// Other processes notice within 100 ms; a worker that had claimed an id gets
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost). Goes through the file in small steps, as
    /// [`purge_expired`](Self::purge_expired).
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen). Steps that were done stay done.
    pub fn forget_scope(&self) -> Result<u64> {
        self.engine.forget_scope(self.scope.name())
    }

    /// Gives the file's free pages back to the file system, which a purge keeps for later marks. Other
    /// stores on the file stay open and correct; each reads the file anew once, about 0.3 µs an id.
    ///
    /// Writes the whole file anew, within one transaction that other writers wait for, and this store's
    /// misses too: about a second for each 100 MB. Needs up to twice the room of what is left: once in the
    /// folder for temporary files and once beside the store. A crash leaves the store as it was.
    ///
    /// # Errors
    ///
    /// [`StorageFull`](crate::ErrorKind::StorageFull), with nothing changed, where there is no such room;
    /// [`Busy`](crate::ErrorKind::Busy) when another process writes, or reads what would have to move, for
    /// longer than the busy timeout (in the latter case a later
    /// [`checkpoint`](Self::checkpoint) gives the room back); [`Io`](crate::ErrorKind::Io),
    /// [`ReadOnly`](crate::ErrorKind::ReadOnly), [`Closed`](crate::ErrorKind::Closed).
    pub fn compact(&self) -> Result<()> {
        self.engine.check_open()?;
        self.engine.with_journal(|writer| writer.journal.compact())?;
        self.checkpoint()
    }

    /// What opening this store made of a file in the older format; `None` when there was nothing to
    /// upgrade, or another store did it.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn upgrade(&self) -> Result<Option<Upgrade>> {
        self.engine.with_journal(|writer| Ok(writer.journal.upgrade().cloned()))
    }

    /// Figures of the store at this moment. Goes through the index: about 10 ms for a million ids.
    ///
    /// # Errors
    ///
    /// As [`try_is_seen`](Self::try_is_seen).
    pub fn stats(&self) -> Result<Stats> {
        let engine = &self.engine;
        engine.check_open()?;
        engine.settle_doubts()?;
        let (last_purge_ms, rebuilds, path, claims) = engine.with_journal(|writer| {
            engine.catch_up(writer)?;
            let journal = &mut writer.journal;
            let claims = journal.count_claims(engine.clock.now_ms())?;
            Ok((journal.last_purge_ms()?, journal.rebuilds(), journal.path(), claims))
        })?;
        let (seen, expired) = engine.index.count(engine.clock.now_ms());
        Ok(Stats {
            seen,
            in_flight: claims.in_flight,
            failed: claims.failed,
            expired,
            memory_bytes: engine.index.memory_bytes(),
            file_bytes: path.as_deref().map_or(0, file::bytes),
            wal_bytes: path.as_deref().map_or(0, file::wal_bytes),
            last_purge_at: (last_purge_ms > 0).then(|| from_ms(last_purge_ms)),
            failed_open: engine.failed_open.load(Relaxed),
            rebuilds,
        })
    }

    /// The settings in force, read back from SQLite.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed), and what reading the file can meet.
    pub fn pragmas(&self) -> Result<Pragmas> {
        self.engine.check_open()?;
        self.engine.with_journal(|writer| writer.journal.pragmas())
    }

    /// Checks everything: SQLite's integrity check of the file, and the index against the table, row
    /// by row. Changes nothing. Takes seconds for a million ids; marks go on meanwhile. SQLite's check holds
    /// a snapshot of the file: while it lasts, the log grows by what is written.
    ///
    /// # Errors
    ///
    /// As [`try_is_seen`](Self::try_is_seen), when the check itself could not be done. What it found
    /// is in the report.
    pub fn verify(&self) -> Result<Report> {
        let engine = &self.engine;
        engine.check_open()?;
        let problems = match self.readable_path()? {
            Some(path) => check_file(&path, &engine.config)?,
            None => engine.with_journal(|writer| writer.journal.integrity_problems())?,
        };
        let mut report = Report { rows: 0, problems };
        engine.settle_doubts()?;
        let mut after = 0;
        loop {
            let compared = engine.with_journal(|writer| {
                engine.catch_up(writer)?;
                let now_ms = engine.clock.now_ms();
                writer.journal.compare_rows(&engine.index, now_ms, after, ROWS_COMPARED_AT_ONCE)
            })?;
            if compared.rows == 0 {
                break;
            }
            after = compared.next;
            report.rows += compared.rows;
            report.problems.extend(compared.problems);
            engine.yield_to_waiters();
        }
        for shard in 0..engine.index.shard_count() {
            let missing = engine.with_journal(|writer| {
                engine.catch_up(writer)?;
                writer.journal.missing_rows(&engine.index, engine.clock.now_ms(), shard)
            })?;
            report.problems.extend(missing);
            engine.yield_to_waiters();
        }
        Ok(report)
    }

    /// Copies the store to a new file, as it stands at one moment, while others go on writing. The
    /// copy is a store itself, one file of mode 0600. While it is made, the log grows by what is written.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) where something stands at `path`, or at the name
    /// of a side file of it (such as `-wal`); [`InvalidPath`](crate::ErrorKind::InvalidPath) where `path` is
    /// the name of a side file of a database, which SQLite would delete; and what reading and writing files
    /// can meet. No half copy stays behind.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.engine.check_open()?;
        let target = file::resolve(path.as_ref(), false)?;
        match self.readable_path()? {
            Some(source) => copy_file(&source, &target, &self.engine.config),
            None => self.engine.with_journal(|writer| writer.journal.copy_to(&target)),
        }
    }

    /// Copies the write-ahead log into the file and cuts it to nothing. Commits do this now and then
    /// by themselves; call it before copying the file by other means.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) when a reader in another process is in the way for longer than
    /// the busy timeout; [`StorageFull`](crate::ErrorKind::StorageFull),
    /// [`Io`](crate::ErrorKind::Io), [`ReadOnly`](crate::ErrorKind::ReadOnly),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.check_open()?;
        self.engine.with_journal(|writer| writer.journal.checkpoint())
    }

    /// Closes the store for all of its handles; the last store on a file to close leaves no log or
    /// other side file behind. (When the last two *processes* close at the same instant, each may leave
    /// the log to the other; nothing is lost, and the next open takes it in.) Any later call answers [`Closed`](crate::ErrorKind::Closed), and `is_seen`
    /// false. Dropping the last handle does the same and logs what went wrong.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed) when it was closed before; what writing the last counts of
    /// suppressed duplicates met, but for another process that writes at the moment: then they are let go;
    /// [`FileReplaced`](crate::ErrorKind::FileReplaced) when the file was moved
    /// or a side file taken away. The store is closed even then, and what was marked is in the file unless
    /// another store has begun a log in the place of this one's, the log was cut, or a reader holds a snapshot
    /// from before: then the error says that marks may be lost.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }

    fn readable_path(&self) -> Result<Option<std::path::PathBuf>> {
        self.engine.with_journal(|writer| writer.journal.readable_path())
    }
}
