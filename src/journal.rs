//! The journal: the table `seen` and what this process knows of it.
//!
//! Owns the connection and its place in the file's history. The table is append-only in commit order;
//! memory (the index) follows it, as in Bitcask. What always holds:
//!
//! - A row, once committed, changes only in its `suppressed` count. News is a new row with a higher
//!   `seq`; the rows that it replaces are deleted in the same transaction, after it was appended. So
//!   the newest row is never deleted without a newer one after it, and no `seq` is ever given twice.
//! - A **look** reads what other connections appended since the last one: see `look`.
//! - A deletion leaves a trace: a refresh has its newer row; a forget appends a *tombstone*
//!   (`expires_at` 0); a cleanup raises `generation` in `meta`; a purge deletes only what has expired
//!   for every store, and when it deletes tombstones it raises `floor`. A store that finds `generation`
//!   raised, or its tip below `floor`, may have missed a deletion: see `doubt`.
//! - Nothing here waits for another process. Whoever is told "busy" lets go of the mutex and sleeps.
//!
//! A crash at any point leaves SQLite's last commit. Knows nothing of verbs, scopes' handles or TTLs.

pub(crate) mod catch_up;
mod checkpoint;
pub(crate) mod claims;
mod doubt;
pub(crate) mod load;
mod purge;
mod reports;
pub(crate) mod row;
mod transaction;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rusqlite::Connection;

use self::catch_up::Position;
use self::checkpoint::{ALL, SOME, keep_log, log_is_spoilt};
pub(crate) use self::checkpoint::{Log, LogCopier, OnLog, Pass, Source};
pub(crate) use self::purge::Found;
pub use self::reports::Report;
pub(crate) use self::reports::{MOST_PROBLEMS, check_file, copy_file};
pub(crate) use self::row::{MarkRow, NewMark};
pub(crate) use self::transaction::{ExpiredRows, Transaction};
use crate::backoff::retry_while_busy;
use crate::clock::{MIN_MS, FileTime, Stopwatch};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, OpenedFiles, shown};
use crate::format;
use crate::format::open;
use crate::format::sqlite_errors::{failure, is_busy};
use crate::format::upgrade::Upgrade;
use crate::id::{Key, KeyHasher};
use crate::index::Index;
use crate::process::{Own, Registration};

/// How old the answer to "is this still our file?" may be.
const FILE_CHECK_MS: u128 = 100;

/// The newest row that the index has taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    pub(crate) seq: i64,
    key: Key,
    expires_at: Option<i64>,
}

/// Where the journal lives.
enum Home {
    Memory,
    File { path: PathBuf, files: OpenedFiles, checked: Stopwatch },
}

/// See the module's header.
pub(crate) struct Journal {
    /// `None` after an I/O error, until the next call opens the file again.
    connection: Option<Own<Connection>>,
    home: Home,
    config: Config,
    hasher: KeyHasher,
    /// What the index has taken in; `None` where only a rebuild can tell.
    position: Option<Position>,
    /// SQLite's `data_version` at the last look: unchanged means that no other connection has committed.
    data_version: Option<i64>,
    /// A time that another store has reached, to be taken by the caller.
    reached: Option<FileTime>,
    /// How much of the index may hold marks that another store has deleted.
    doubts: doubt::Doubts,
    /// What is known of the table of claims, until somebody else commits.
    claims: claims::Known,
    /// Where transactions gather their changes; empty between them.
    pending: transaction::Pending,
    /// The length of the log in pages after the last commit; 0 once it was read.
    log_pages: Arc<AtomicU32>,
    /// When the write lock was given back because there was much to read, if no transaction has begun since.
    gave_back: Option<Stopwatch>,
    /// When a transaction here last found that another connection had committed.
    met_others: Option<Stopwatch>,
    rebuilds: u64,
    upgrade: Option<Upgrade>,
}

impl Journal {
    /// Opens the file and fills the index. Returns how many expired rows it saw.
    pub(crate) fn open(
        path: PathBuf,
        config: &Config,
        hasher: &KeyHasher,
        index: &Index,
        now_ms: i64,
    ) -> Result<(Self, u64)> {
        let connected = open::open(&path, config, now_ms)?;
        let home = Home::File { path, files: connected.files, checked: Stopwatch::start() };
        let mut journal = Self::new(home, config, hasher);
        (journal.connection, journal.upgrade) = (Some(connected.connection), connected.upgrade);
        journal.watch_log()?;
        // Another process may be recovering the log at this moment. Nobody shares this journal yet, so
        // it may wait.
        let expired = retry_while_busy(config.busy_timeout, || journal.rebuild(index, now_ms))?;
        Ok((journal, expired))
    }

    pub(crate) fn in_memory(config: &Config, hasher: &KeyHasher, index: &Index) -> Result<Self> {
        let mut journal = Self::new(Home::Memory, config, hasher);
        let registration = Registration::new(&journal.name())?;
        let connection = format::create::create_in_memory(config);
        let connection = connection.map_err(|e| journal.failure("create", e))?;
        journal.connection = Some(Own::new(registration, connection));
        journal.rebuild(index, MIN_MS)?;
        Ok(journal)
    }

    fn new(home: Home, config: &Config, hasher: &KeyHasher) -> Self {
        Self {
            connection: None,
            home,
            config: config.clone(),
            hasher: hasher.clone(),
            position: None,
            data_version: None,
            reached: None,
            doubts: doubt::Doubts::default(),
            claims: claims::Known::Nothing,
            pending: transaction::Pending::default(),
            log_pages: Arc::default(),
            gave_back: None,
            met_others: None,
            rebuilds: 0,
            upgrade: None,
        }
    }

    /// The file's name, as messages show it.
    pub(crate) fn name(&self) -> String {
        match &self.home {
            Home::Memory => "the store in memory".into(),
            Home::File { path, .. } => shown(path),
        }
    }

    fn failure(&self, doing: &str, error: rusqlite::Error) -> Error {
        failure(doing, &self.name(), error)
    }

    /// Whether no other connection can change the data, so that there is never anything to look for.
    pub(crate) fn is_private(&self) -> bool {
        self.config.exclusive || matches!(self.home, Home::Memory)
    }

    pub(crate) fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// What opening made of an older file.
    pub(crate) fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.as_ref()
    }

    /// The connection, opened again if an I/O error cost the last one.
    fn connection(&mut self) -> Result<&Connection> {
        self.ensure_open()?;
        Ok(self.open_connection())
    }

    fn open_connection(&self) -> &Connection {
        self.connection.as_ref().expect("callers have called ensure_open")
    }

    fn with<T>(
        &mut self,
        doing: &str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        run(self.open_connection()).map_err(|e| self.failure(doing, e))
    }

    pub(crate) fn ensure_open(&mut self) -> Result<()> {
        let Home::File { checked, .. } = &self.home else { return Ok(()) };
        if checked.elapsed().as_millis() >= FILE_CHECK_MS {
            self.check_files(SOME)?;
        }
        if self.connection.is_none() {
            self.reopen()?;
        }
        Ok(())
    }

    /// Whether the files are still ours, at this moment, and so many more frames of the log whole.
    fn check_files(&mut self, frames: u32) -> Result<()> {
        let Home::File { path, files, checked } = &mut self.home else { return Ok(()) };
        files.check()?;
        if self.connection.as_ref().is_some_and(|open| log_is_spoilt(open, files, frames)) {
            return Err(file::cut_log(path));
        }
        files.tell_of_second_name();
        *checked = Stopwatch::start();
        Ok(())
    }

    /// Whether closing the connection may copy its log into the file.
    fn may_copy_log(&mut self) -> bool {
        let (Home::File { files, .. }, Some(connection)) = (&mut self.home, &self.connection)
        else {
            return true;
        };
        files.may_copy_log() && !log_is_spoilt(connection, files, ALL)
    }

    fn reopen(&mut self) -> Result<()> {
        let Home::File { path, files, .. } = &mut self.home else { return Ok(()) };
        files.check()?;
        // Without a wait: the caller that is told "busy" lets go of the mutex first.
        let impatient = self.config.clone().busy_timeout(Duration::ZERO);
        let (connection, reopened) = open::reopen(path, &impatient, files.database())?;
        *files = reopened.follows(files);
        self.data_version = None;
        self.connection = Some(connection);
        self.watch_log()?;
        log::info!("{}: opened again after a failure", self.name());
        Ok(())
    }

    /// Closes a connection that has failed. The next call opens the file again, unless its files were
    /// taken away.
    fn give_up(&mut self) {
        let (checked, may_copy_log) = (self.check_files(ALL), self.may_copy_log());
        let name = self.name();
        let Some(connection) = self.connection.take() else { return };
        let Home::File { files, .. } = &mut self.home else { return };
        if files.check_side_files().is_err()
            && let Err(e) = keep_log(&connection, &name, may_copy_log)
        {
            log::error!("{e}");
        }
        if !may_copy_log && let Err(e) = open::spare_log(&connection) {
            log::warn!("a log may be copied that is not the file's own: {e}");
        }
        files.let_go(checked);
    }

    /// Takes the write lock without waiting, and brings the index up to date under it.
    ///
    /// Then a transaction is open; [`transaction`](Self::transaction) hands it out.
    ///
    /// Where much was appended since the last look, the lock is given back and the rows are read without it,
    /// but not twice in a second: beside a connection that writes without a pause, the lock is rarely free,
    /// and there is always much to read. What is still missing the next time is read under the lock; it is
    /// little, because each try that finds the lock taken looks too.
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
                index.used_at(now_ms);
                return Ok(());
            }
            let caught_up = self.catch_up_locked(index, now_ms);
            match caught_up {
                Ok(true) => {
                    self.gave_back = None;
                    return Ok(());
                }
                Ok(false) => {
                    self.rollback();
                    self.gave_back = Some(Stopwatch::start());
                    self.catch_up(index, now_ms)?;
                }
                Err(e) => {
                    self.rollback();
                    return Err(e);
                }
            }
        }
    }

    /// The transaction that [`begin`](Self::begin) opened.
    pub(crate) fn transaction<'j>(&'j mut self, index: &'j Index) -> Transaction<'j> {
        Transaction::new(self, index)
    }

    /// Ends an open transaction without a trace. Where not even that works, the connection is given
    /// up: SQLite undoes its transaction when it closes.
    fn rollback(&mut self) {
        self.claims = claims::Known::Nothing;
        let Some(connection) = &self.connection else { return };
        if connection.is_autocommit() {
            return; // SQLite has rolled back by itself, as it does when the disk is full.
        }
        if let Err(e) = connection.execute_batch("ROLLBACK") {
            log::warn!("{}: cannot roll back, opening it again: {e}", self.name());
            self.give_up();
        }
    }

    /// Lets go of the file; the last connection to do so empties the log and removes it.
    ///
    /// The log of a connection that is not SQLite's last would be left to the others. Where the log or its
    /// index no longer stands at its name, no later connection finds it, and a reader copies nothing. So
    /// each store copies it as it closes, and what cannot be copied then is lost.
    pub(crate) fn close(mut self) -> Result<()> {
        let name = self.name();
        let (checked, may_copy_log) = (self.check_files(ALL), self.may_copy_log());
        let Some(connection) = self.connection.take() else { return Ok(()) };
        let fail = |e| failure("close", &name, e);
        let Home::File { files, .. } = self.home else {
            return open::close(connection).map_err(fail);
        };
        let (kept, closed) = file::close_alone(|| {
            let mut kept = if self.config.read_only {
                Ok(())
            } else {
                keep_log(&connection, &name, may_copy_log)
            };
            if let Err(e) = &kept
                && may_copy_log
                && files.check_side_files().is_ok()
            {
                log::debug!("{e}; it stays for others");
                kept = Ok(());
            }
            (kept, open::close_store(connection, files, may_copy_log))
        });
        if let Err(e) = &kept {
            log::error!("{e}");
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
                format!("{} was opened read-only", self.name()),
            ));
        }
        Ok(())
    }

    /// Writes the file anew without its free pages. Rows keep their `seq`, so this index stays true; others
    /// are rebuilt.
    pub(crate) fn compact(&mut self) -> Result<()> {
        self.refuse_read_only()?;
        self.check_files(ALL)?;
        match vacuum(self.connection()?) {
            Ok(()) => {
                // By one, whatever came before: should it have been a restore, this is not its version.
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

/// The new copy is built in a temporary file: in memory it might not fit.
fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "FILE")?;
    let done = connection.execute_batch("VACUUM");
    connection.pragma_update(None, "temp_store", "MEMORY").and(done)
}
