//! The verbs of maintenance: purge, remove, count, compact, figures, verify, backup, checkpoint, close.
//!
//! Owns the figures, which entries a removal is about, and the steps of a verify; the work itself is done in
//! `engine` and `journal`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::SeenStore;
use crate::clock::{duration_ms, from_ms};
use crate::config::Config;
use crate::engine::counters::Activity;
use crate::entry::Filter;
use crate::error::Result;
use crate::file;
use crate::format::pragmas::Pragmas;
use crate::format::upgrade::UpgradeReport;
use crate::journal::index_check::IndexCheck;
use crate::journal::selection::Selection;
use crate::journal::{IntegrityReport, check_file, check_index, copy_file};
use crate::machine::step_size;

/// How many rows `verify` compares with the index while the mutex is held.
const ROWS_COMPARED_PER_STEP: i64 = step_size!(1_000, in_a_simulation: 5);

/// The figures of a store at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Stats {
    /// The number of ids that are seen, in all scopes. While the index is [asleep](crate::IndexMode), also those that have
    /// expired and are not purged yet.
    pub seen: u64,
    /// The number of ids that are seen, by scope, with those that have expired and are not purged yet. Costs no count: the
    /// file has it. Empty where there are more than 1,024 scopes, or one has a name of more than 256 bytes:
    /// [`Reader::stats`](crate::Reader::stats) counts them.
    pub scopes: BTreeMap<String, u64>,
    /// The number of ids that are claimed and in flight.
    pub in_flight: u64,
    /// The number of ids whose last attempt was released.
    pub released: u64,
    /// The number of ids that failed in their last attempt and may be claimed again.
    pub failed: u64,
    /// The number of ids whose last attempt failed finally.
    pub given_up: u64,
    /// The number of ids whose last attempt ended with its lease, and that may be claimed again.
    pub abandoned: u64,
    /// The number of ids whose last attempt ended with its lease, and that wait for
    /// [`resolve`](SeenStore::resolve).
    pub unresolved: u64,
    /// The number of expired ids that still take up memory, until the next purge; 0 while the index is asleep.
    pub expired: u64,
    /// Whether the whole index is in memory: it is [awake](crate::IndexMode).
    pub index_is_awake: bool,
    /// The memory of the index, in bytes.
    pub memory_bytes: u64,
    /// The size of the database file, in bytes; 0 in memory.
    pub file_bytes: u64,
    /// The size of the write-ahead log, in bytes.
    pub wal_bytes: u64,
    /// When a purge by any process last removed something from the file.
    #[cfg_attr(feature = "serde", serde(with = "crate::texts::optional_time"))]
    pub last_purge_at: Option<SystemTime>,
    /// What this store has done since it was opened.
    pub since_opened: Activity,
}

impl SeenStore {
    /// Removes everything that has expired, in all scopes, and returns the number of marks removed. They were
    /// not seen any more; a purge frees the space that they take in the file and in memory. A purge that
    /// finds nothing writes nothing.
    ///
    /// Goes through the file in steps of about a millisecond; other callers come in between.
    ///
    /// ```
    /// use seen_store::{Config, ManualClock, SeenStore};
    /// use std::{sync::Arc, time::Duration};
    /// # fn main() -> seen_store::Result<()> {
    /// let clock = Arc::new(ManualClock::default());
    /// let store = SeenStore::in_memory_with(Config::default().clock(clock.clone()))?;
    /// store.mark_seen("incident-17")?;
    /// clock.advance(Duration::from_secs(8 * 24 * 3600));
    /// assert_eq!(store.purge_expired()?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). The steps before the error are kept.
    pub fn purge_expired(&self) -> Result<u64> {
        self.engine.purge_expired()
    }

    /// Removes old entries of this handle's scope and returns their number: the marks that were last seen
    /// longer ago than `older_than`, expired or not, and the claims that are not in flight and last changed
    /// longer ago. Those are claims that failed, were released, or ran out; their attempts are forgotten. A
    /// [held](crate::Abandoned::Hold) claim that ran out stays. A
    /// claim last changed when it was made, or when its lease or its retry delay ended.
    ///
    /// Other processes notice within 100 ms that marks were removed.
    ///
    /// Goes through the file in small steps, as [`purge_expired`](Self::purge_expired).
    ///
    /// ```
    /// use seen_store::{Config, ManualClock, SeenStore, Ttl};
    /// use std::{sync::Arc, time::Duration};
    /// # fn main() -> seen_store::Result<()> {
    /// let clock = Arc::new(ManualClock::default());
    /// let config = Config::default().ttl(Ttl::Never).clock(clock.clone());
    /// let store = SeenStore::in_memory_with(config)?;
    /// store.mark_seen("old")?;
    /// clock.advance(Duration::from_secs(3600));
    /// store.mark_seen("new")?;
    /// assert_eq!(store.cleanup_old_entries(Duration::from_secs(60))?, 1);
    /// assert!(store.is_seen("new") && !store.is_seen("old"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). The steps before the error are kept.
    pub fn cleanup_old_entries(&self, older_than: Duration) -> Result<u64> {
        self.engine.remove(&self.older(older_than))
    }

    /// Returns the number of marks that [`purge_expired`](Self::purge_expired) would remove. Changes nothing.
    /// Reads the whole file, about 0.1 µs for each mark, in small steps; other callers come in between.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn count_expired(&self) -> Result<u64> {
        self.engine.count_expired()
    }

    /// Returns the number of entries that [`cleanup_old_entries`](Self::cleanup_old_entries) would remove.
    /// Changes nothing and costs as much as [`count_expired`](Self::count_expired).
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn count_old_entries(&self, older_than: Duration) -> Result<u64> {
        self.engine.count(&self.older(older_than))
    }

    fn older(&self, than: Duration) -> Selection {
        let before_ms = self.engine.clock.now_ms().saturating_sub(duration_ms(than));
        Selection::older(self.scope.name(), before_ms)
    }

    /// [Forgets](Self::forget) all ids of this handle's scope and returns the number of entries removed:
    /// marks and claims of any age, also expired ones. Ids that are marked while it runs may be forgotten
    /// too.
    ///
    /// Other processes notice within 100 ms. A worker that had claimed an id gets
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost). Goes through the file in small steps, as
    /// [`purge_expired`](Self::purge_expired).
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). The steps before the error are kept.
    pub fn forget_scope(&self) -> Result<u64> {
        self.engine.remove(&Selection::all(self.scope.name()))
    }

    /// Removes the entries that the filter selects, in the scope that it names or else in this handle's scope, and
    /// returns their number. Removed ids are new again. A default filter removes all entries of the handle's scope,
    /// but for those at work.
    ///
    /// Claims that are in flight, and [held](crate::Abandoned::Hold) claims that wait for a decision, are removed
    /// only by a filter that names [`State::InFlight`](crate::State::InFlight) or
    /// [`State::Unresolved`](crate::State::Unresolved). A worker whose claim was removed gets
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost).
    ///
    /// Goes through the whole file in steps of about a millisecond; other callers come in between. Ages are counted
    /// from the time of the call, states are those at the time of the step. Ids that are marked while it runs may be
    /// removed too. Other processes notice within 100 ms.
    ///
    /// ```
    /// use seen_store::{Filter, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// store.seed(["db1/disk", "db1/load", "db2/disk"])?;
    /// assert_eq!(store.remove(Filter::default().prefix("db1/"))?, 2);
    /// assert!(store.is_seen("db2/disk") && !store.is_seen("db1/disk"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). The steps before the error are kept.
    pub fn remove(&self, filter: Filter) -> Result<u64> {
        self.engine.remove(&self.selected(filter))
    }

    /// Returns the number of entries that [`remove`](Self::remove) would remove. Changes nothing. Reads the whole
    /// file, about 0.3 µs for each mark, in small steps; other callers come in between.
    ///
    /// ```
    /// use seen_store::{Filter, SeenStore, State};
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// store.seed(["db1/disk", "db2/disk"])?;
    /// assert_eq!(store.count(Filter::default().state(State::Seen).prefix("db1/"))?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn count(&self, filter: Filter) -> Result<u64> {
        self.engine.count(&self.selected(filter))
    }

    fn selected(&self, filter: Filter) -> Selection {
        Selection::filtered(self.scope.name(), filter, self.engine.clock.now_ms())
    }

    /// Shrinks the file: the free pages, which a purge keeps for later marks, go back to the file system.
    /// Other stores on the file stay open and correct; each whose index is awake reads the file once more, at about 0.3 µs
    /// for each id.
    ///
    /// First checks the index in the file as [`verify`](Self::verify) does, beside other callers, and makes it anew if it is
    /// damaged. Then writes the whole file again in one transaction: about a second for each 100 MB. Other writers wait
    /// for it, and this store's misses too. Needs up to twice the space of the remaining content: once in the folder for
    /// temporary files and once beside the store. A crash leaves the store as it was.
    ///
    /// # Errors
    ///
    /// - [`StorageFull`](crate::ErrorKind::StorageFull), with nothing changed, when there is not enough
    ///   space;
    /// - [`Busy`](crate::ErrorKind::Busy) when another process writes for longer than the busy timeout, or
    ///   reads what has to move; in the latter case a later [`checkpoint`](Self::checkpoint) frees the space;
    /// - otherwise those of [`mark_seen`](Self::mark_seen).
    pub fn compact(&self) -> Result<()> {
        self.engine.check_open()?;
        let problems = match self.readable_path()? {
            Some(path) => check_index(&path, &self.reading_config())?,
            None => self.index_problems()?,
        };
        let mut index_is_sound = problems.is_empty();
        self.engine.with_journal(|writer| writer.journal.compact(&mut index_is_sound))?;
        self.checkpoint()
    }

    /// Returns whether this open made the store: there was no file, or an empty one. Of several stores that are opened
    /// at the same time, in any number of processes, one gets true. A store in memory is always new.
    ///
    /// To a new store each id is new. A bot that finds one marks what is in its feed already, with
    /// [`seed`](Self::seed), instead of sending all of it. Where a missing file means that a volume is not mounted,
    /// [`Config::create`](crate::Config::create) refuses to make one.
    ///
    /// ```
    /// use seen_store::SeenStore;
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// # let in_the_feed = ["incident-16", "incident-17"];
    /// let store = SeenStore::open(&path)?;
    /// if store.was_created() {
    ///     store.seed(in_the_feed)?;
    /// }
    /// # store.close()?;
    /// # assert!(!SeenStore::open(&path)?.was_created());
    /// # Ok(()) }
    /// ```
    pub fn was_created(&self) -> bool {
        self.engine.created
    }

    /// Returns what the upgrade at opening did with a file of the older format; `None` when nothing was to be
    /// upgraded, or another store did it.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed) after [`close`](Self::close).
    pub fn upgrade_report(&self) -> Result<Option<UpgradeReport>> {
        self.engine.with_journal(|writer| Ok(writer.journal.upgrade_report().cloned()))
    }

    /// Returns the figures of the store at this moment. While the index is [asleep](crate::IndexMode), in a time that does
    /// not depend on how many ids there are; else it goes through the index in memory, about 10 ms for a million ids.
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// store.mark_seen("incident-17")?;
    /// let stats = store.stats()?;
    /// assert_eq!((stats.seen, stats.in_flight), (1, 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn stats(&self) -> Result<Stats> {
        let engine = &self.engine;
        engine.check_open()?;
        engine.drop_stale_slots()?;
        let (last_purge_ms, path, claims, marks) = engine.with_journal(|writer| {
            engine.catch_up(writer)?;
            let journal = &mut writer.journal;
            let claims = journal.count_claims(engine.clock.now_ms())?;
            Ok((journal.last_purge_ms()?, journal.path(), claims, journal.marks()?))
        })?;
        let count = |marks: i64| u64::try_from(marks).unwrap_or(0);
        let (seen, expired) = if engine.index.is_complete() {
            engine.index.count(engine.clock.now_ms())
        } else {
            (count(marks.all), 0)
        };
        let by_scope = marks.by_scope.unwrap_or_default().into_iter();
        let scopes: BTreeMap<_, _> = by_scope.map(|(scope, marks)| (scope, count(marks))).collect();
        Ok(Stats {
            seen,
            scopes,
            in_flight: claims.in_flight,
            released: claims.released,
            failed: claims.failed,
            given_up: claims.given_up,
            abandoned: claims.abandoned,
            unresolved: claims.unresolved,
            expired,
            index_is_awake: engine.index.is_complete(),
            memory_bytes: engine.index.memory_bytes(),
            file_bytes: path.as_deref().map_or(0, file::bytes),
            wal_bytes: path.as_deref().map_or(0, file::wal_bytes),
            last_purge_at: (last_purge_ms > 0).then(|| from_ms(last_purge_ms)),
            since_opened: engine.counters.activity(),
        })
    }

    /// Returns the SQLite settings in use, read back from SQLite.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn pragmas(&self) -> Result<Pragmas> {
        self.engine.check_open()?;
        self.engine.with_journal(|writer| writer.journal.pragmas())
    }

    /// Checks the file and the index and returns a report: SQLite's integrity check of the file, and the
    /// index, in memory and in the file, against the table, row by row. Changes nothing. Takes seconds for a million ids,
    /// and little memory; marks go on meanwhile. The check of the file holds a snapshot of it: while it lasts, the log
    /// grows by what is written.
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// let report = store.verify()?;
    /// assert!(report.is_ok(), "{:?}", report.problems);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen), when the check itself could not be done. Problems that it
    /// found are in the report.
    pub fn verify(&self) -> Result<IntegrityReport> {
        let engine = &self.engine;
        engine.check_open()?;
        let of_file = if let Some(path) = self.readable_path()? {
            check_file(&path, &self.reading_config())?
        } else {
            let found = engine.with_journal(|writer| writer.journal.integrity_problems())?;
            let (mut report, is_sound) = IntegrityReport::of(found);
            if is_sound {
                report.add_index_problems(self.index_problems()?);
            }
            report
        };
        let (mut problems, index_problems) = (of_file.problems, of_file.index_problems);
        let of_index = problems.split_off(problems.len() - index_problems);
        let mut report = IntegrityReport { problems, ..IntegrityReport::default() };
        engine.drop_stale_slots()?;
        let mut after = 0;
        loop {
            let compared = engine.with_journal(|writer| {
                engine.catch_up(writer)?;
                let now_ms = engine.clock.now_ms();
                writer.journal.compare_rows(&engine.index, now_ms, after, ROWS_COMPARED_PER_STEP)
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
        report.add_index_problems(of_index);
        Ok(report)
    }

    /// Checks the index in the file in steps, for a store whose file only its own connection can read.
    fn index_problems(&self) -> Result<Vec<String>> {
        let engine = &self.engine;
        let mut check = IndexCheck::NotBegun;
        loop {
            let step = engine.with_journal(|writer| writer.journal.index_check_step(&mut check))?;
            if let Some(problems) = step {
                return Ok(problems);
            }
            engine.yield_to_waiters();
        }
    }

    /// Copies the store to a new file, as it is at one moment, while other callers go on writing. The copy is
    /// a store itself, a single file of mode 0600. While it is made, the log grows by what is written.
    ///
    /// ```
    /// # use seen_store::SeenStore;
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// # let copy = folder.path().join("copy.db");
    /// let store = SeenStore::open(path)?;
    /// store.mark_seen("incident-17")?;
    /// store.backup(&copy)?;
    /// assert!(SeenStore::open(copy)?.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// No partial copy is left behind.
    ///
    /// - [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when something exists at `path`, or at the name
    ///   of one of its side files (such as `-wal`);
    /// - [`InvalidPath`](crate::ErrorKind::InvalidPath) when `path` is the name of a side file of a database,
    ///   which SQLite would delete;
    /// - [`NotFound`](crate::ErrorKind::NotFound), [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    ///   [`StorageFull`](crate::ErrorKind::StorageFull) or [`Io`](crate::ErrorKind::Io) when the copy cannot
    ///   be written;
    /// - otherwise those of [`try_is_seen`](Self::try_is_seen).
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.engine.check_open()?;
        self.copy_to(&file::resolve(path.as_ref(), false)?)
    }

    /// Copies the store to a new file at the resolved path.
    pub(super) fn copy_to(&self, target: &Path) -> Result<()> {
        match self.readable_path()? {
            Some(source) => copy_file(&source, target, &self.reading_config()),
            None => self.engine.with_journal(|writer| writer.journal.copy_to(target)),
        }
    }

    /// Copies the write-ahead log into the file and cuts the log to nothing. Commits and the checkpoint
    /// thread copy it by themselves; call this before you copy the file by other means.
    ///
    /// # Errors
    ///
    /// [`Busy`](crate::ErrorKind::Busy) when a reader in another process prevents it for longer than the busy
    /// timeout; otherwise those of [`mark_seen`](Self::mark_seen).
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.check_open()?;
        self.engine.with_journal(|writer| writer.journal.checkpoint())
    }

    /// Closes the store for all of its handles. The last store on a file to close leaves no log or other side
    /// file behind. (When the last two *processes* close at the same instant, each may leave the log to the
    /// other. Nothing is lost, and the next open reads it.) Each later call fails with
    /// [`Closed`](crate::ErrorKind::Closed), and `is_seen` returns false. Dropping the last handle does the
    /// same and logs errors.
    ///
    /// Takes the time for a sync of the disk. If there is much to write or to merge in the index in the file, it works
    /// on that
    /// for up to 10 ms, or a 20th of the time that the store was open, at most 2 s, and copies what it wrote from the log.
    ///
    /// # Errors
    ///
    /// The store is closed even when this fails.
    ///
    /// - [`Closed`](crate::ErrorKind::Closed) when it was closed before;
    /// - [`FileReplaced`](crate::ErrorKind::FileReplaced) when the file was moved or a side file was deleted.
    ///   What was marked is in the file, unless another store has started a log in the place of this one's,
    ///   the log was cut, or a reader holds an older snapshot: then the message says that marks may be lost;
    /// - [`StorageFull`](crate::ErrorKind::StorageFull), [`Io`](crate::ErrorKind::Io) and the other errors of
    ///   [`mark_seen`](Self::mark_seen) when the last duplicate counts cannot be written. While another
    ///   process writes they are dropped instead.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }

    /// Returns the settings of a connection for this handle.
    fn reading_config(&self) -> Config {
        self.engine.config.clone().busy_timeout(self.engine.busy_timeout())
    }

    fn readable_path(&self) -> Result<Option<std::path::PathBuf>> {
        self.engine.with_journal(|writer| writer.journal.readable_path())
    }
}
