//! Reading a store's file without opening it as a store.
//!
//! Owns the public reader, its clock, and the position of a listing. What always holds: nothing is written,
//! no index is built, and each answer describes one moment.

mod access;
mod listing;
mod lookup;
mod salvage;
mod stats;
mod verify;

pub use self::listing::Listing;
pub use self::salvage::{Salvage, SalvageReport};
pub use self::stats::FileStats;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use self::access::FileReader;
use crate::clock::{FileTime, SteadyClock, from_ms};
use crate::config::Config;
use crate::entry::{Entry, State};
use crate::error::Result;
use crate::file;
use crate::format::pragmas::FileInfo;
use crate::id::{KeyHasher, Scope};
use crate::item::Item;
use crate::journal::IntegrityReport;
use crate::machine::{Mutex, MutexGuard};
use crate::process::{Registered, Registration};

/// Reads the file of a store and leaves no trace: for tools that inspect a store which others use.
///
/// A [`SeenStore`](crate::SeenStore), even a read-only one, creates side files. A reader changes nothing: it does not
/// create, upgrade, purge or checkpoint, and needs no permission to write to the file or its folder. Looking up an id
/// takes some 10 µs, and a scan of the rows that the index in the file does not have yet, mostly fewer than 16,384. In
/// a file without an index it costs a scan of the file, about 0.1 µs for each id of the store, and so does looking up more
/// ids than a hundredth of the store's.
///
/// A killed store in exclusive mode leaves a log without a `-shm`. Such a log is read in exclusive mode, by
/// one reader at a time; stores that are opened meanwhile wait.
///
/// While the write-ahead log is empty, the file is read without any lock, even while a store holds it in
/// exclusive mode. When it has changed by the end of the read, it is read again. A file system with a time
/// resolution of a second, such as FAT, can hide a change.
///
/// While the log holds data, the file is read as by any other connection, which touches the contents of its
/// `-shm`. This leaves an empty log behind in two cases: when the last store on the file closes at that
/// instant, and when a store closes while a reader lives that has read its log. On systems other than Unix
/// this is the only way to read.
///
/// As with a store, close a reader before forking, or fork and exec. A child that is forked while a log
/// without a `-shm` is read inherits the lock. If its parent is killed during the read, others wait until the
/// child ends.
///
/// ```
/// use seen_store::{Reader, SeenStore};
/// # fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("seen.db");
/// SeenStore::open(&path)?.mark_seen("incident-17")?;
/// let reader = Reader::open(&path)?;
/// assert!(reader.is_seen("incident-17"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Reader {
    file: Arc<Shared>,
    scope: Scope,
}

/// What the handles of a reader share.
struct Shared {
    path: PathBuf,
    name: String,
    access: Registered<Mutex<FileReader>>,
    clock: SteadyClock,
    hasher: KeyHasher,
}

/// A panic leaves a reader usable: its lock is not poisoned, and what is read belongs to one call alone.
impl UnwindSafe for Reader {}
/// See [`UnwindSafe`](#impl-UnwindSafe-for-Reader).
impl RefUnwindSafe for Reader {}

impl Reader {
    /// Opens a reader on the store at `path`.
    ///
    /// ```
    /// use seen_store::{ErrorKind, Reader, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// assert_eq!(Reader::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
    /// SeenStore::open(&path)?.mark_seen("incident-17")?;
    /// assert!(Reader::open(&path)?.try_is_seen("incident-17")?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::open`](crate::SeenStore::open); [`NotFound`](crate::ErrorKind::NotFound) where
    /// there is no file; [`NeedsUpgrade`](crate::ErrorKind::NeedsUpgrade) for a file of an older format;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) also when the log holds data, its `-shm` is
    /// missing and the file may not be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Config::default())
    }

    /// Opens a reader with the clock and the busy timeout of `config`. [`info`](Self::info) reports
    /// what SQLite makes of the other settings.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for settings
    /// that make no sense.
    pub fn open_with(path: impl AsRef<Path>, config: Config) -> Result<Self> {
        let registration = Registration::new(&file::shown(path.as_ref()))?;
        config.validate()?;
        let path = file::resolve(path.as_ref(), false)?;
        let (hasher, clock) =
            (KeyHasher::random(), SteadyClock::new(config.clock.clone(), config.check_clock));
        let scope = Scope::new("", &hasher);
        let access = Mutex::new(FileReader::open(path.clone(), config)?);
        let access = Registered::new(registration, access);
        let name = file::shown(&path);
        let file = Shared { path, name, access, clock, hasher };
        Ok(Self { file: Arc::new(file), scope })
    }

    /// Returns a reader of the same file for the ids of another scope, as
    /// [`SeenStore::scope`](crate::SeenStore::scope) does.
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        Self { scope: Scope::new(name.as_ref(), &self.file.hasher), ..self.clone() }
    }

    /// Returns the absolute path of the file.
    pub fn path(&self) -> PathBuf {
        self.file.path.clone()
    }

    /// Locks the connections. Fails in a forked child: the thread that held the lock at the fork may not
    /// exist there, and its parent's connections must not be used.
    fn access(&self) -> Result<MutexGuard<'_, FileReader>> {
        self.file.access.process().check(&self.file.name)?;
        Ok(self.file.access.lock())
    }

    /// Returns the present time as stores on the file see it. A store may stand still after its clock was set
    /// back a little; this clock then follows the store's time.
    fn now_ms(&self, access: &mut FileReader) -> Result<i64> {
        let clock = &self.file.clock;
        let now_ms = clock.now_ms();
        let Some(ms) = access.take_file_time_ms()? else { return Ok(now_ms) };
        clock.observe(FileTime { ms, is_new: true });
        Ok(clock.now_ms())
    }

    /// Returns true when the id is seen. **Returns false on any error**, which is logged, as
    /// [`SeenStore::is_seen`](crate::SeenStore::is_seen) does. Scans the file.
    pub fn is_seen<'a>(&self, id: impl Into<Item<'a>>) -> bool {
        self.try_is_seen(id).unwrap_or_else(|e| {
            log::warn!(
                file = self.file.name.as_str(), error:% = e, error_kind = e.kind().word();
                "{}: answering \"not seen\" because of an error: {e}", self.file.name
            );
            false
        })
    }

    /// Returns true when the id is seen, like [`is_seen`](Self::is_seen), but returns errors.
    ///
    /// # Errors
    ///
    /// - [`InvalidId`](crate::ErrorKind::InvalidId) for an id or a scope of a length that is not allowed;
    /// - [`Busy`](crate::ErrorKind::Busy) when the file was changed during each read, or another process kept
    ///   readers out, for longer than the busy timeout;
    /// - [`Io`](crate::ErrorKind::Io), [`NotFound`](crate::ErrorKind::NotFound) or
    ///   [`PermissionDenied`](crate::ErrorKind::PermissionDenied) when the file cannot be read,
    ///   [`Corrupt`](crate::ErrorKind::Corrupt) when it is damaged;
    /// - [`Forked`](crate::ErrorKind::Forked) in a child that was forked while a store or a reader was open.
    pub fn try_is_seen<'a>(&self, id: impl Into<Item<'a>>) -> Result<bool> {
        let item = id.into();
        let entry = self.get(&item)?;
        Ok(entry.is_some_and(|entry| entry.state == State::Seen && entry.is_of(item.digest())))
    }

    /// Returns what the file holds about an id. Unlike [`SeenStore::get`](crate::SeenStore::get), also an
    /// entry that has expired and is not purged yet. Scans the file.
    ///
    /// ```
    /// use seen_store::{Reader, SeenStore, State};
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// SeenStore::open(&path)?.scope("alerts").mark_seen("incident-17")?;
    /// let reader = Reader::open(&path)?;
    /// assert_eq!(reader.scope("alerts").get("incident-17")?.unwrap().state, State::Seen);
    /// assert!(reader.get("incident-17")?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn get<'a>(&self, id: impl Into<Item<'a>>) -> Result<Option<Entry>> {
        Ok(self.get_all([id])?.pop().flatten())
    }

    /// Returns what the file holds about each of these ids, in their order. One scan of the file finds all of
    /// them.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn get_all<'a>(
        &self,
        ids: impl IntoIterator<Item: Into<Item<'a>>>,
    ) -> Result<Vec<Option<Entry>>> {
        let items: Vec<_> = ids.into_iter().map(Into::into).collect();
        let ids = self.scope.items(&items)?;
        let mut access = self.access()?;
        let now_ms = self.now_ms(&mut access)?;
        access.find(&ids, now_ms)
    }

    /// Returns what the file holds about these ids in any scope, whatever the scope of this handle, in the order of
    /// scopes and ids. Scans the file twice.
    ///
    /// ```
    /// use seen_store::{Reader, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// SeenStore::open(&path)?.scope("alerts").mark_seen("incident-17")?;
    /// let found = Reader::open(&path)?.get_in_all_scopes(["incident-17"])?;
    /// assert_eq!(found[0].scope, "alerts");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn get_in_all_scopes<'a>(
        &self,
        ids: impl IntoIterator<Item: Into<Item<'a>>>,
    ) -> Result<Vec<Entry>> {
        let items: Vec<_> = ids.into_iter().map(Into::into).collect();
        self.scope.items(&items)?;
        let mut access = self.access()?;
        let now_ms = self.now_ms(&mut access)?;
        let places = access.places_of(&items.iter().map(Item::id).collect())?;
        let scope = |name: &str| Scope::new(name, &self.file.hasher);
        let places: Vec<_> = places.iter().map(|(name, id)| (scope(name), id)).collect();
        let ids = places.iter().map(|(scope, id)| scope.id(id)).collect::<Result<Vec<_>>>()?;
        Ok(access.find(&ids, now_ms)?.into_iter().flatten().collect())
    }

    /// Checks the file and returns a report: SQLite's integrity check, the format, each row and claim against the others
    /// of its id, and the index in the file against the rows. Takes a few microseconds for each id, and about 6 bytes of
    /// memory, up to 100 MB: a larger file is read several times.
    ///
    /// ```
    /// use seen_store::{Reader, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// SeenStore::open(&path)?.mark_seen("incident-17")?;
    /// let report = Reader::open(&path)?.verify()?;
    /// assert!(report.is_ok() && report.rows == 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen), when the check itself could not be done. Problems that it found
    /// are in the report.
    pub fn verify(&self) -> Result<IntegrityReport> {
        let mut access = self.access()?;
        let now_ms = self.now_ms(&mut access)?;
        access.verify(now_ms)
    }

    /// Checks only the index in the file, as a part of [`verify`](Self::verify) does: a few tenths of a microsecond for
    /// each id. The report has the number of rows that the index covers; 0 for a file that an earlier program made.
    ///
    /// # Errors
    ///
    /// Those of [`verify`](Self::verify).
    pub fn verify_index(&self) -> Result<IntegrityReport> {
        self.access()?.verify_index()
    }

    /// Returns what SQLite reports about itself and the file.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn info(&self) -> Result<FileInfo> {
        self.access()?.info()
    }

    /// Returns the present time by this reader's clock.
    pub fn now(&self) -> SystemTime {
        from_ms(self.file.clock.now_ms())
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.file.path)
            .field("scope", &self.scope.name())
            .finish_non_exhaustive()
    }
}
