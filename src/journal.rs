//! The journal: the table `seen`, and how far the index of this process has followed it.
//!
//! Owns the connection and this store's position in the file's history. The table is append-only in commit
//! order, and the index in memory follows it, as in Bitcask. What always holds:
//!
//! - A committed row changes only in its `duplicates` count, and with it in `last_seen`. Any other change is a new
//!   row with a higher `seq`. The rows that it replaces are deleted in the same transaction, after the new row was
//!   appended. So
//!   the newest row is never deleted without a newer one after it, and no `seq` is used twice.
//! - A **catch-up** reads what other connections appended since the last catch-up: see `catch_up`.
//! - A deletion leaves a trace: a refresh leaves its newer row; a forget appends a *tombstone*
//!   (`expires_at` 0); a cleanup, and a purge of marks that were retained, raises `generation` in `meta`; any
//!   other purge deletes only what has expired for every store, and raises `floor` when it deletes tombstones. A store
//!   that finds `generation`
//!   raised, or its tip below `floor`, may have missed a deletion: see `stale`.
//! - Nothing here waits for another process. A call that gets `Busy` releases the mutex, then sleeps.
//!
//! A crash at any point leaves SQLite's last commit. Knows nothing of verbs, scopes' handles or TTLs.

mod announced;
mod asleep;
mod by_hash;
pub(crate) mod catch_up;
mod checkpoint;
mod claim_row;
pub(crate) mod claims;
pub(crate) mod counts;
pub(crate) mod index_check;
pub(crate) mod load;
mod purge;
mod reports;
pub(crate) mod row;
pub(crate) mod runs;
mod second_connection;
pub(crate) mod selection;
mod stale;
mod transaction;
mod turned_away;
mod unknown_outcome;
mod upkeep;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rusqlite::Connection;

pub(crate) use self::by_hash::Listed;
use self::catch_up::Position;
use self::checkpoint::{ALL_FRAMES, FRAMES_PER_CHECK, copy_log_before_close, log_is_damaged};
pub(crate) use self::checkpoint::{CheckpointResult, LogHandle, LogState};
pub(crate) use self::claim_row::{ClaimRow, Outcome};
pub(crate) use self::purge::{ExpiredRows, ExpiredSearch, Step};
pub use self::reports::IntegrityReport;
pub(crate) use self::reports::{MAX_PROBLEMS, check_file, check_index, copy_file};
pub(crate) use self::row::{MarkRow, NewMark};
pub(crate) use self::second_connection::{ConnectionSource, SecondConnection};
pub(crate) use self::transaction::{ChangedClaims, Transaction};
pub(crate) use self::upkeep::{Callers, Deletions, Prepared, PreparedPiece};
use crate::backoff::retry_while_busy;
use crate::clock::{FileTime, MIN_MS, Stopwatch};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, OpenedFiles, shown};
use crate::format;
use crate::format::sqlite_errors::{failure, is_busy};
use crate::format::upgrade::UpgradeReport;
use crate::format::{close, open};
use crate::id::{Key, KeyHasher};
use crate::index::Index;
use crate::process::{Registered, Registration};

/// How long a check of the files stays valid. Less than the 100 ms within which a store must notice a change,
/// because a check that runs while a file changes may not see the change yet.
const FILE_CHECK_MS: u128 = 90;

/// How long opening waits for other writers before it reads a long tail that it might have written to runs.
const LONGEST_WAIT_FOR_A_TAIL: Duration = Duration::from_secs(1);

/// The newest row that the index has applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    pub(crate) seq: i64,
    key: Key,
    expires_at: Option<i64>,
}

/// Where the database is.
enum Location {
    Memory,
    File { path: PathBuf, files: OpenedFiles, checked: Stopwatch },
}

/// See the module's header.
pub(crate) struct Journal {
    /// `None` after an I/O error. The next call opens the file again.
    connection: Option<Registered<Connection>>,
    location: Location,
    config: Config,
    hasher: KeyHasher,
    /// Up to where the index has followed the table. `None` after that was lost: only a rebuild helps.
    position: Option<Position>,
    /// SQLite's `data_version` at the last catch-up. The same value now means that no other connection has
    /// committed since.
    data_version: Option<i64>,
    /// A time that another store has reached. The caller takes it.
    reached: Option<FileTime>,
    /// What is known of the index in the file.
    file_index: asleep::FileIndex,
    /// The scan for marks in the index that another store has deleted.
    stale_scan: stale::StaleScan,
    /// What is known of the table of claims. Valid until another connection commits.
    claims: claims::ClaimsCache,
    /// The buffer in which transactions gather their changes. Empty between transactions.
    pending: transaction::Pending,
    /// The length of the log, in pages, after the last commit; 0 once it was taken.
    log_pages: Arc<AtomicU32>,
    /// When `begin` last released the write lock to read many rows without it. `None` once a transaction
    /// has begun since.
    lock_released: Option<Stopwatch>,
    /// When a transaction here last found that another connection had committed.
    other_commit_found: Option<Stopwatch>,
    rebuilds: u64,
    created: bool,
    upgrade: Option<UpgradeReport>,
}

impl Journal {
    /// Opens the file and fills the index. Also returns the number of expired rows in the table, if all of it was read.
    pub(crate) fn open(
        path: PathBuf,
        config: &Config,
        index: &Index,
        now_ms: i64,
    ) -> Result<(Self, Option<u64>)> {
        let connected = open::open(&path, config, now_ms)?;
        // Each read waits: another process may be recovering the log now, or closing the file. No other thread has this
        // journal yet, so waiting here blocks nothing.
        let key = retry_while_busy(config.busy_timeout, || {
            runs::hash_key(&connected.connection).map_err(|e| failure("read", &shown(&path), e))
        })?;
        let hasher = key.map_or_else(KeyHasher::random, KeyHasher::with_key);
        let location = Location::File { path, files: connected.files, checked: Stopwatch::start() };
        let mut journal = Self::new(location, config, &hasher);
        (journal.connection, journal.upgrade) = (Some(connected.connection), connected.upgrade);
        journal.created = connected.created;
        journal.watch_log()?;
        let patience = config.busy_timeout.min(LONGEST_WAIT_FOR_A_TAIL);
        if let Err(e) = retry_while_busy(patience, || journal.write_long_tail_first()) {
            let file = journal.name();
            log::debug!(
                file = file.as_str(), error:% = e, error_kind = e.kind().word();
                "{file}: the index is filled from the table, because it cannot be written to the file: {e}"
            );
        }
        let expired = retry_while_busy(config.busy_timeout, || {
            journal.ensure_open()?;
            journal.rebuild(index, now_ms)
        })?;
        Ok((journal, expired))
    }

    pub(crate) fn in_memory(config: &Config, hasher: &KeyHasher, index: &Index) -> Result<Self> {
        let mut journal = Self::new(Location::Memory, config, hasher);
        let registration = Registration::new(&journal.name())?;
        let connection = format::create::create_in_memory(config);
        let connection = connection.map_err(|e| journal.failure("create", e))?;
        journal.connection = Some(Registered::new(registration, connection));
        journal.created = true;
        journal.rebuild(index, MIN_MS)?;
        Ok(journal)
    }

    fn new(location: Location, config: &Config, hasher: &KeyHasher) -> Self {
        Self {
            connection: None,
            location,
            config: config.clone(),
            hasher: hasher.clone(),
            position: None,
            data_version: None,
            reached: None,
            file_index: asleep::FileIndex::default(),
            stale_scan: stale::StaleScan::default(),
            claims: claims::ClaimsCache::Unknown,
            pending: transaction::Pending::default(),
            log_pages: Arc::default(),
            lock_released: None,
            other_commit_found: None,
            rebuilds: 0,
            created: false,
            upgrade: None,
        }
    }

    /// Returns what hashes the ids of this store.
    pub(crate) fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Returns the file's name for messages.
    pub(crate) fn name(&self) -> String {
        match &self.location {
            Location::Memory => "the store in memory".into(),
            Location::File { path, .. } => shown(path),
        }
    }

    fn failure(&self, doing: &str, error: rusqlite::Error) -> Error {
        failure(doing, &self.name(), error)
    }

    /// Returns whether no other connection can change the data, so that there is never anything to catch up.
    pub(crate) fn is_private(&self) -> bool {
        self.config.exclusive || matches!(self.location, Location::Memory)
    }

    pub(crate) fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// Returns whether opening made an empty database a store.
    pub(crate) fn was_created(&self) -> bool {
        self.created
    }

    /// Returns what opening did to a file in the legacy format.
    pub(crate) fn upgrade_report(&self) -> Option<&UpgradeReport> {
        self.upgrade.as_ref()
    }

    /// Returns the connection. Opens the file again if an I/O error closed the last connection.
    fn connection(&mut self) -> Result<&Connection> {
        self.ensure_open()?;
        Ok(self.open_connection())
    }

    fn open_connection(&self) -> &Connection {
        self.connection.as_ref().expect("the caller has called ensure_open")
    }

    fn with<T>(
        &mut self,
        doing: &str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        run(self.open_connection()).map_err(|e| self.failure(doing, e))
    }

    /// Like [`with`](Self::with), for a call outside a transaction: opens the file again if necessary.
    fn read<T>(&mut self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.ensure_open()?;
        self.with("read", run)
    }

    pub(crate) fn ensure_open(&mut self) -> Result<()> {
        let Location::File { checked, .. } = &self.location else { return Ok(()) };
        if checked.elapsed().as_millis() >= FILE_CHECK_MS {
            self.check_files(FRAMES_PER_CHECK)?;
        }
        if self.connection.is_none() {
            self.reopen()?;
        }
        Ok(())
    }

    /// Checks that the files are still the opened ones, and that up to `frames` more frames of the log are
    /// intact.
    fn check_files(&mut self, frames: u32) -> Result<()> {
        let Location::File { path, files, checked } = &mut self.location else { return Ok(()) };
        files.check()?;
        if self.connection.as_ref().is_some_and(|open| log_is_damaged(open, files, frames)) {
            return Err(file::damaged_log(path));
        }
        files.warn_about_second_name();
        *checked = Stopwatch::start();
        Ok(())
    }

    /// Returns whether closing the connection may copy its log into the file.
    fn may_copy_log(&mut self) -> bool {
        let (Location::File { files, .. }, Some(connection)) =
            (&mut self.location, &self.connection)
        else {
            return true;
        };
        files.may_copy_log() && !log_is_damaged(connection, files, ALL_FRAMES)
    }

    fn reopen(&mut self) -> Result<()> {
        let Location::File { path, files, .. } = &mut self.location else { return Ok(()) };
        files.check()?;
        // No waiting: a caller that gets `Busy` releases the mutex before it waits.
        let no_wait = self.config.clone().busy_timeout(Duration::ZERO);
        let (connection, reopened) = open::reopen(path, &no_wait, files.database())?;
        *files = reopened.replacing(files);
        self.data_version = None;
        self.file_index.reopened();
        self.connection = Some(connection);
        self.watch_log()?;
        let file = self.name();
        log::info!(file = file.as_str(); "{file}: the file was opened again after a failure");
        Ok(())
    }

    /// Closes a connection that has failed. The next call opens the file again, unless its files were moved,
    /// deleted or replaced.
    fn drop_failed_connection(&mut self) {
        let (checked, may_copy_log) = (self.check_files(ALL_FRAMES), self.may_copy_log());
        let name = self.name();
        let Some(connection) = self.connection.take() else { return };
        let Location::File { files, .. } = &mut self.location else { return };
        if files.check_side_files().is_err()
            && let Err(e) = copy_log_before_close(&connection, &name, may_copy_log)
        {
            log::error!(file = name.as_str(), error:% = e, error_kind = e.kind().word(); "{e}");
        }
        if !may_copy_log && let Err(e) = close::skip_checkpoint_on_close(&connection) {
            log::warn!(
                file = name.as_str(), error:% = e;
                "closing may copy a log that does not belong to the file: {e}"
            );
        }
        files.release_side_files(checked);
    }

    /// Takes the write lock without waiting, and brings the index up to date under it.
    ///
    /// Afterwards a transaction is open; [`transaction`](Self::transaction) returns it.
    ///
    /// If many rows were appended since the last catch-up, this releases the lock and reads them without it,
    /// but at most once a second: beside a connection that writes without a pause, the lock is rarely free and
    /// there are always many rows to read. What is missing the next time is read under the lock. That is
    /// little, because each try that finds the lock taken also catches up.
    ///
    /// # Errors
    ///
    /// `Busy` if another connection holds the write lock.
    pub(crate) fn begin(&mut self, index: &Index, now_ms: i64) -> Result<()> {
        self.refuse_read_only()?;
        self.ensure_open()?;
        loop {
            match run(self.open_connection(), "BEGIN IMMEDIATE") {
                Ok(()) => {}
                Err(e) if is_busy(&e) => {
                    self.catch_up(index, now_ms)?;
                    return Err(Error::try_again());
                }
                Err(e) => return Err(self.failure("write to", e)),
            }
            if self.is_private() && self.data_version.is_some() && !index.is_ahead_of(now_ms) {
                index.record_use(now_ms);
                return Ok(());
            }
            let caught_up = self.catch_up_locked(index, now_ms);
            match caught_up {
                Ok(true) => {
                    self.lock_released = None;
                    return Ok(());
                }
                Ok(false) => {
                    self.rollback();
                    self.lock_released = Some(Stopwatch::start());
                    self.catch_up(index, now_ms)?;
                }
                Err(e) => {
                    self.rollback();
                    return Err(e);
                }
            }
        }
    }

    /// Returns the transaction that [`begin`](Self::begin) opened.
    pub(crate) fn transaction<'j>(&'j mut self, index: &'j Index) -> Transaction<'j> {
        Transaction::new(self, index)
    }

    /// Rolls an open transaction back. If that fails, closes the connection: SQLite then undoes the
    /// transaction.
    fn rollback(&mut self) {
        self.claims = claims::ClaimsCache::Unknown;
        let Some(connection) = &self.connection else { return };
        if connection.is_autocommit() {
            return; // SQLite has rolled back by itself, as it does when the disk is full.
        }
        if let Err(e) = connection.execute_batch("ROLLBACK") {
            let file = self.name();
            log::warn!(
                file = file.as_str(), error:% = e;
                "{file}: cannot roll back; the file will be opened again: {e}"
            );
            self.drop_failed_connection();
        }
    }

    /// Closes the file. The last connection to the file copies its log into it and deletes the log.
    ///
    /// SQLite leaves the log of a connection that is not the last one to the others. But if the log or its
    /// index is no longer at its name, no later connection finds it, and a reader copies nothing. So each store
    /// copies its log when it closes. What it cannot copy then is lost.
    pub(crate) fn close(mut self) -> Result<()> {
        let name = self.name();
        let (checked, may_copy_log) = (self.check_files(ALL_FRAMES), self.may_copy_log());
        let Some(connection) = self.connection.take() else { return Ok(()) };
        let fail = |e| failure("close", &name, e);
        let Location::File { path, files, .. } = self.location else {
            return close::close(connection).map_err(fail);
        };
        let (kept, closed) = file::close_serialized(|| {
            let mut kept = if self.config.read_only {
                Ok(())
            } else {
                copy_log_before_close(&connection, &name, may_copy_log)
            };
            if let Err(e) = &kept
                && may_copy_log
                && files.check_side_files().is_ok()
            {
                log::debug!(
                    file = name.as_str(), error:% = e, error_kind = e.kind().word();
                    "{e}; the log stays for the other connections"
                );
                kept = Ok(());
            }
            let closed = close::close_store(connection, files, may_copy_log);
            if self.config.read_only && checked.is_ok() {
                close::remove_empty_log(&path);
            }
            (kept, closed)
        });
        if let Err(e) = &kept {
            log::error!(file = name.as_str(), error:% = e, error_kind = e.kind().word(); "{e}");
        }
        match (checked, kept) {
            (Err(e), Err(lost)) => Err(Error::with_source(e.kind(), format!("{e}; {lost}"), lost)),
            (checked, kept) => checked.and(kept).and(closed.map_err(fail)),
        }
    }

    fn refuse_read_only(&self) -> Result<()> {
        if self.config.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!("{} was opened read-only; open it for writing", self.name()),
            ));
        }
        Ok(())
    }

    /// Writes the file anew without its free pages. Rows keep their `seq`, so this store's index stays right.
    /// Other stores rebuild theirs. Makes the index in the file anew if a check found that it is not sound; once it is
    /// thrown away, `index_is_sound` is true, so that a call that tries again goes on from there.
    pub(crate) fn compact(&mut self, index_is_sound: &mut bool) -> Result<()> {
        self.refuse_read_only()?;
        self.check_files(ALL_FRAMES)?;
        self.compact_runs(index_is_sound)?;
        match vacuum(self.connection()?) {
            Ok(()) => {
                // Exactly one more than before: if a restore has changed it too, the next catch-up finds
                // another version and rebuilds.
                if let Some(position) = &mut self.position {
                    position.schema_version = position.schema_version.wrapping_add(1);
                }
                Ok(())
            }
            Err(e) => Err(self.failure("compact", e)),
        }
    }
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// The new copy is built in a temporary file, because it might not fit in memory.
fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "FILE")?;
    let done = connection.execute_batch("VACUUM");
    connection.pragma_update(None, "temp_store", "MEMORY").and(done)
}
