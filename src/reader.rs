//! Reading a store's file without opening it as a store.
//!
//! Owns the public face of `journal::onlooker`, and the place that a listing has come to. What always
//! holds: nothing is written, no index is built, and each answer is of one moment.

use std::collections::{HashSet, VecDeque};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::answer::{Census, Entry, Inspection, Report, State};
use crate::clock::{Reached, SteadyClock, duration_ms, from_ms};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::id::{Id, KeyHasher, Scope};
use crate::journal::StoredRow;
use crate::journal::claims::Place;
use crate::journal::onlooker::{Onlooker, Page};
use crate::machine::{Mutex, MutexGuard};
use crate::process::{Own, Registration};
use crate::store::Filter;

/// How many rows a listing reads at a time.
const PAGE: i64 = 1_000;

/// How many expired marks are looked for among the later ones at a time.
const EXPIRED_AT_ONCE: usize = 20_000;

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
    onlooker: Own<Mutex<Onlooker>>,
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
            onlooker: Own::new(registration, Mutex::new(Onlooker::open(path.clone(), config)?)),
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
    fn onlooker(&self) -> Result<MutexGuard<'_, Onlooker>> {
        self.onlooker.process().check(&self.name)?;
        Ok(self.onlooker.lock())
    }

    /// The present moment, as stores on the file reckon it: one that stands still after its clock was set
    /// back a little carries this clock along.
    fn now_ms(&self, onlooker: &mut Onlooker) -> Result<i64> {
        let now_ms = self.clock.now_ms();
        let Some(ms) = onlooker.take_reached_ms()? else { return Ok(now_ms) };
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
        let mut onlooker = self.onlooker()?;
        let now_ms = self.now_ms(&mut onlooker)?;
        onlooker.find(&ids, now_ms)
    }

    /// Lists what the file holds: first the claims by scope and id, then the marks in the order in
    /// which they were written. Takes what a [`SeenStore`](crate::SeenStore)'s `entries` takes.
    ///
    /// Reads 1,000 rows at a time, in bounded memory (but for its claims), and is no snapshot of all of
    /// them: an entry that exists throughout is not missed, and one that is refreshed meanwhile may come
    /// a second time, as it is then. When the file is restored in place or compacted meanwhile, the listing
    /// begins anew, and what was listed before may come again. With [`State::Expired`] it costs another scan for each 20,000
    /// expired marks, to leave out those whose id was marked again.
    pub fn entries(&self, filter: Filter) -> Listing<'_> {
        Listing {
            reader: self,
            filter,
            stage: Stage::Claims { after: Place::default() },
            claims: HashSet::new(),
            page: VecDeque::new(),
            history: None,
        }
    }

    /// Counts everything in one scan of about 0.2 µs an id. `buckets` buckets of the time from `since`
    /// until now tell when the ids that are seen now were first seen.
    ///
    /// # Errors
    ///
    /// What reading the file can meet, [`Busy`](crate::ErrorKind::Busy) as for
    /// [`is_seen`](Self::is_seen), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for no
    /// buckets.
    pub fn census(&self, since: Duration, buckets: usize) -> Result<Census> {
        let mut onlooker = self.onlooker()?;
        let now_ms = self.now_ms(&mut onlooker)?;
        let Some(count) = i64::try_from(buckets).ok().filter(|&count| count > 0) else {
            return Err(Error::new(ErrorKind::InvalidConfig, "a census needs a bucket or more"));
        };
        let since_ms = duration_ms(since).min(now_ms).max(count);
        // Rounded up, and counted back from now: the present moment lies in the last bucket.
        let bucket_ms = (since_ms + count - 1) / count;
        let start_ms = now_ms + 1 - bucket_ms * count;
        onlooker.census(now_ms, start_ms, bucket_ms, buckets)
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
        let mut onlooker = self.onlooker()?;
        let now_ms = self.now_ms(&mut onlooker)?;
        onlooker.verify(now_ms)
    }

    /// What SQLite says of itself and of the file.
    ///
    /// # Errors
    ///
    /// What reading the file can meet.
    pub fn inspect(&self) -> Result<Inspection> {
        self.onlooker()?.inspect()
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

/// The entries of a store's file: see [`Reader::entries`]. Ends after the first error.
#[derive(Debug)]
pub struct Listing<'r> {
    reader: &'r Reader,
    filter: Filter,
    stage: Stage,
    /// The claims that were read: one that is confirmed meanwhile must not come again as a mark.
    claims: HashSet<(String, Vec<u8>)>,
    page: VecDeque<Entry>,
    /// Which history of the file the pages so far are of.
    history: Option<i64>,
}

#[derive(Debug)]
enum Stage {
    Claims { after: Place },
    Marks { after: i64 },
    Expired { after: i64, waiting: Vec<(i64, StoredRow)> },
    Done,
}

impl Iterator for Listing<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Some(Ok(entry));
            }
            if matches!(self.stage, Stage::Done) {
                return None;
            }
            if let Err(e) = self.turn_page() {
                self.stage = Stage::Done;
                return Some(Err(e));
            }
        }
    }
}

impl Listing<'_> {
    fn turn_page(&mut self) -> Result<()> {
        let mut onlooker = self.reader.onlooker()?;
        let now_ms = self.reader.now_ms(&mut onlooker)?;
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Claims { after } => {
                let page = onlooker.claims_after(&after, PAGE)?;
                let Some(rows) = self.of_same_history(page) else { return Ok(()) };
                self.stage = match rows.last() {
                    Some((place, _)) => Stage::Claims { after: place.clone() },
                    // Marks and expired marks are one walk each: no filter admits both.
                    None if self.filter.admits_state(State::Seen) => Stage::Marks { after: 0 },
                    None if self.filter.admits_state(State::Expired) => {
                        Stage::Expired { after: 0, waiting: Vec::new() }
                    }
                    None => Stage::Done,
                };
                for (place, claim) in rows {
                    if !claim.is_expired(now_ms) {
                        self.claims.insert((place.scope.clone(), place.id.clone()));
                        self.take(claim.entry(&place.scope, &place.id, now_ms), now_ms);
                    }
                }
            }
            Stage::Marks { after } => {
                let page = onlooker.rows_after(after, PAGE)?;
                let Some(rows) = self.of_same_history(page) else { return Ok(()) };
                if let Some((seq, _)) = rows.last() {
                    self.stage = Stage::Marks { after: *seq };
                }
                for (_, row) in rows {
                    if row.is_live(now_ms) {
                        self.take_mark(row, now_ms);
                    }
                }
            }
            Stage::Expired { after, mut waiting } => {
                let page = onlooker.rows_after(after, PAGE)?;
                let Some(rows) = self.of_same_history(page) else { return Ok(()) };
                let last = rows.last().map(|(seq, _)| *seq);
                let is_expired =
                    |row: &StoredRow| row.expires_at != Some(0) && !row.is_live(now_ms);
                waiting.extend(rows.into_iter().filter(|(_, row)| is_expired(row)));
                if last.is_none() || waiting.len() >= EXPIRED_AT_ONCE {
                    let page = onlooker.keep_newest(std::mem::take(&mut waiting))?;
                    let Some(rows) = self.of_same_history(page) else { return Ok(()) };
                    for row in rows {
                        self.take_mark(row, now_ms);
                    }
                }
                if let Some(after) = last {
                    self.stage = Stage::Expired { after, waiting };
                }
            }
            Stage::Done => {}
        }
        Ok(())
    }

    /// The page's rows; `None` where they are of another history than those before, in which what is still to
    /// be listed may stand among what was passed: then the listing begins anew.
    fn of_same_history<T>(&mut self, page: Page<T>) -> Option<Vec<T>> {
        if self.history.replace(page.history).is_none_or(|known| known == page.history) {
            return Some(page.rows);
        }
        self.stage = Stage::Claims { after: Place::default() };
        self.claims.clear();
        None
    }

    fn take_mark(&mut self, row: StoredRow, now_ms: i64) {
        let is_claim =
            !self.claims.is_empty() && self.claims.contains(&(row.scope.clone(), row.id.clone()));
        if !is_claim {
            self.take(row.entry(now_ms), now_ms);
        }
    }

    fn take(&mut self, entry: Entry, now_ms: i64) {
        if self.filter.admits(&entry, now_ms) {
            self.page.push_back(entry);
        }
    }
}
