//! Reading a store's file without opening it as a store.
//!
//! Owns the public face of `reader::access`, and the place that a listing has come to. What always
//! holds: nothing is written, no index is built, and each answer is of one moment.

mod access;
mod listing;
mod lookup;
mod stats;
mod verify;

pub use self::listing::Listing;
pub use self::stats::{Census, Counts};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::access::FileReader;
use crate::clock::{Reached, SteadyClock, from_ms};
use crate::config::Config;
use crate::entry::{Entry, State};
use crate::error::Result;
use crate::file;
use crate::format::pragmas::Inspection;
use crate::id::{Id, KeyHasher, Scope};
use crate::journal::Report;
use crate::machine::{Mutex, MutexGuard};
use crate::process::{Registered, Registration};

/// Reads the file of a store and leaves no trace: for tools that look at a store which others use.
///
/// A [`SeenStore`](crate::SeenStore), even one that is opened read-only, first reads the whole file into
/// its index, and makes side files. A reader builds nothing and changes nothing: it neither creates,
/// upgrades, purges nor checkpoints, and needs no permission to write to the file or its folder.
/// Looking an id up costs a scan of the file instead, about 0.1 µs an id of the store.
///
/// A log without a `-shm`, as a killed store in exclusive mode leaves it, is read in exclusive mode by one
/// reader at a time; stores that are opened meanwhile wait.
///
/// While the write-ahead log is empty, the file is read without any lock, also one that a store holds
/// in exclusive mode; when it has changed by the end of the read, it is read again. While the log holds
/// data it is read as by any other connection, which touches the contents of its `-shm`. Only in the
/// instant in which the last store on a file closes may that leave an empty log behind; so does a store
/// that closes while a reader lives which has read its log. A file system that keeps times to the second, as FAT does, can hide a change. Other systems than Unix have only
/// the second way.
///
/// As with a store, close it before forking, or fork and exec. A child that is forked while a log without a
/// `-shm` is read inherits the lock; if its parent is killed during the read, others wait until the child ends.
///
/// ```
/// use seen_store::{Reader, SeenStore};
/// # fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("seen.db");
/// SeenStore::open(&path)?.mark_seen("incident-17")?;
/// let reader = Reader::open(&path)?;
/// assert!(reader.is_seen("", "incident-17")?);
/// # Ok(()) }
/// ```
pub struct Reader {
    path: PathBuf,
    name: String,
    access: Registered<Mutex<FileReader>>,
    clock: SteadyClock,
    hasher: KeyHasher,
}

/// A panic leaves a reader whole: its lock knows no poison, and what is read is of one call alone.
impl UnwindSafe for Reader {}
/// See [`UnwindSafe`](#impl-UnwindSafe-for-Reader).
impl RefUnwindSafe for Reader {}

impl Reader {
    /// Opens the store at `path`.
    ///
    /// # Errors
    ///
    /// As [`SeenStore::open`](crate::SeenStore::open); [`NotFound`](crate::ErrorKind::NotFound) and
    /// [`NeedsUpgrade`](crate::ErrorKind::NeedsUpgrade) besides.
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) also where the log holds data, its
    /// `-shm` is lost and the file may not be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Config::default())
    }

    /// The same with a clock and a busy timeout of your own; [`inspect`](Self::inspect) tells what
    /// SQLite makes of the other settings.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig).
    pub fn open_with(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let registration = Registration::new(&file::shown(path.as_ref()))?;
        config.validate()?;
        let path = file::resolve(path.as_ref(), false)?;
        Ok(Self {
            name: file::shown(&path),
            access: Registered::new(
                registration,
                Mutex::new(FileReader::open(path.clone(), config)?),
            ),
            path,
            clock: SteadyClock::new(Box::new(config.clock.clone())),
            hasher: KeyHasher::random(),
        })
    }

    /// The file, by its absolute path.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// A forked child lacks the thread that may have held the lock at the fork, and must not use its
    /// parent's connections.
    fn access(&self) -> Result<MutexGuard<'_, FileReader>> {
        self.access.process().check(&self.name)?;
        Ok(self.access.lock())
    }

    /// The present moment, as stores on the file reckon it: one that stands still after its clock was set
    /// back a little carries this clock along.
    fn now_ms(&self, access: &mut FileReader) -> Result<i64> {
        let now_ms = self.clock.now_ms();
        let Some(ms) = access.take_reached_ms()? else { return Ok(now_ms) };
        self.clock.hear(Reached { ms, is_news: true });
        Ok(self.clock.now_ms())
    }

    /// Whether the id is seen in this scope. Scans the file.
    ///
    /// # Errors
    ///
    /// [`InvalidId`](crate::ErrorKind::InvalidId), what reading the file can meet, and
    /// [`Busy`](crate::ErrorKind::Busy) when it was changed each time it was read.
    pub fn is_seen(&self, scope: &str, id: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(scope, id)?.is_some_and(|entry| entry.state == State::Seen))
    }

    /// What the file holds about an id: unlike [`SeenStore::get`](crate::SeenStore::get) also when it
    /// has expired and is not purged yet. Scans the file.
    ///
    /// # Errors
    ///
    /// As [`is_seen`](Self::is_seen).
    pub fn get(&self, scope: &str, id: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        Ok(self.get_all(scope, [id])?.pop().flatten())
    }

    /// What the file holds about each of these ids, in their order, by one scan for all of them.
    ///
    /// # Errors
    ///
    /// As [`is_seen`](Self::is_seen).
    pub fn get_all(
        &self,
        scope: &str,
        ids: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Vec<Option<Entry>>> {
        let ids: Vec<_> = ids.into_iter().collect();
        let scope = Scope::new(scope, &self.hasher);
        let ids: Vec<Id<'_>> =
            ids.iter().map(|id| scope.id(id.as_ref())).collect::<Result<_, _>>()?;
        let mut access = self.access()?;
        let now_ms = self.now_ms(&mut access)?;
        access.find(&ids, now_ms)
    }

    /// Checks everything: SQLite's integrity check of the file, the format, and each row and claim
    /// against an index built for the purpose, as opening a store would: at most 64 bytes of memory and
    /// a few microseconds an id.
    ///
    /// # Errors
    ///
    /// What reading the file can meet, when the check itself could not be done. What it found is in the
    /// report.
    pub fn verify(&self) -> Result<Report> {
        let mut access = self.access()?;
        let now_ms = self.now_ms(&mut access)?;
        access.verify(now_ms)
    }

    /// What SQLite says of itself and of the file.
    ///
    /// # Errors
    ///
    /// What reading the file can meet.
    pub fn inspect(&self) -> Result<Inspection> {
        self.access()?.inspect()
    }

    /// The present moment, by this reader's clock.
    pub fn now(&self) -> SystemTime {
        from_ms(self.clock.now_ms())
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).finish_non_exhaustive()
    }
}
