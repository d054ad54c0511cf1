//! What can still be read of a damaged store.
//!
//! Owns the decision which rows are given: of each id the newest one that can be read, first those to which the inner
//! pages of the file lead, and then those that only a scan of its leaf pages finds. What always holds: the file is only
//! read; each row that is returned was read whole and has what a store writes; what could not be read is counted. Must
//! not know what is done with the entries.

mod pages;
mod scan;
mod walk;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

use rusqlite::Connection;

use self::scan::{Decoder, Scanned, scan};
use self::walk::Walk;
use crate::clock::{Clock, SystemClock, to_ms};
use crate::config::Config;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::format;
use crate::format::open_for_reading::open_damaged;
use crate::format::sqlite_errors::failure;
use crate::id::{Key, KeyHasher, MAX_ID_BYTES};
use crate::index::MAX_SEQ;
use crate::journal::claims::{self, ClaimPosition};
use crate::journal::load::check_version;
use crate::journal::{ClaimRow, MarkRow};
use crate::process::{Registered, Registration};

/// What a salvage could read, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The number of entries that were read.
    pub entries: u64,
    /// The number of places in the table of marks to which nothing in the file leads any more, or that could not be
    /// read.
    pub damaged_places: u64,
    /// At most so many marks are lost in these places: the numbers of their rows were given once, though some of those
    /// rows may have been removed since. `None` if not even the number of the last row can be read.
    pub marks_lost_at_most: Option<u64>,
    /// The number of marks in these places that a scan of all pages of the file found. Of the entries that were read,
    /// they come last.
    pub marks_from_scan: u64,
    /// Whether removed ids may be among the marks from the scan, because the list of free pages cannot be read.
    pub removed_may_return: bool,
    /// Whether claims are lost: ids that are in flight, failed or given up. Their number is not known.
    pub claims_are_lost: bool,
}

impl SalvageReport {
    /// Returns whether everything could be read.
    pub fn is_complete(&self) -> bool {
        self.marks_lost_at_most == Some(0) && !self.claims_are_lost
    }
}

/// An iterator over the entries that can be read of a damaged store, to be [restored](crate::SeenStore::restore) to
/// another one. Reads around what is damaged, and never changes the file.
///
/// Claims come first, then marks in the order in which they were written, expired ones too, and last the marks that only
/// a scan of the file found. An id comes once as a mark, with what the newest of its rows that can be read says. An id
/// whose newest row is lost may come with an older one, also if it was removed.
///
/// The file is read twice. About 50 bytes of memory are used for each id, and the rows that only a scan finds are held in
/// memory.
///
/// ```
/// use seen_store::{Salvage, SeenStore};
/// # fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let [damaged, fresh] = ["seen.db", "fresh.db"].map(|name| folder.path().join(name));
/// # SeenStore::open(&damaged)?.mark_seen("incident-17")?;
/// let mut salvage = Salvage::open(&damaged)?;
/// SeenStore::open(&fresh)?.restore(salvage.by_ref())?;
/// assert!(salvage.report().is_complete());
/// # Ok(()) }
/// ```
pub struct Salvage {
    now_ms: i64,
    hasher: KeyHasher,
    /// Of each id that was found, the newest row.
    newest: HashMap<Key, i64>,
    /// The rows to which the inner pages lead. `None` at their end, or if there is no way to them.
    reached: Option<(Registered<Connection>, Walk)>,
    scanned: Scanned,
    decoder: Decoder,
    page: VecDeque<Entry>,
    report: SalvageReport,
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salvage").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Salvage {
    /// Opens the file of a store that may be damaged.
    ///
    /// # Errors
    ///
    /// - [`NotADatabase`](ErrorKind::NotADatabase) or [`Corrupt`](ErrorKind::Corrupt) when no row of a store is found;
    /// - [`WrongApplication`](ErrorKind::WrongApplication) when the file is that of another program;
    /// - [`NewerVersion`](ErrorKind::NewerVersion) for a file of a later version;
    /// - [`NotFound`](ErrorKind::NotFound), [`InvalidPath`](ErrorKind::InvalidPath),
    ///   [`PermissionDenied`](ErrorKind::PermissionDenied), [`Busy`](ErrorKind::Busy) or [`Io`](ErrorKind::Io) when the
    ///   file cannot be opened; `Busy` also when it is damaged and this process has it open;
    /// - [`Forked`](ErrorKind::Forked) in a child that was forked while a store or a reader was open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let _opening = Registration::new(&file::shown(path.as_ref()))?;
        let path = file::resolve(path.as_ref(), false)?;
        file::refuse_unsafe_names(&path)?;
        // The log of another file must not be read as that of this one.
        file::open_database(&path, || ())?;
        let mut salvage = Self {
            now_ms: to_ms(SystemClock.now()),
            hasher: KeyHasher::random(),
            newest: HashMap::new(),
            reached: None,
            scanned: Scanned::default(),
            decoder: Decoder::new().map_err(|e| failure("read", &file::shown(&path), e))?,
            page: VecDeque::new(),
            report: SalvageReport::default(),
        };
        match connect(&path) {
            Ok(connection) => {
                let walk = salvage.survey(&connection);
                // Nothing of this process may have the file open during a scan.
                drop(connection);
                salvage.find_the_rest(&path, &walk.reached, &walk.gaps)?;
                let connection = connect(&path)?;
                salvage.read_claims(&connection);
                let walk = Walk::new(&connection);
                salvage.reached = Some((connection, walk));
            }
            Err(e) if may_have_rows(&e) => {
                salvage.find_the_rest(&path, &[], &[1..=MAX_SEQ])?;
                if salvage.scanned.records.is_empty() {
                    return Err(e);
                }
                salvage.report.claims_are_lost = true;
            }
            Err(e) => return Err(e),
        }
        Ok(salvage)
    }

    /// Returns what was read so far, and what could not be.
    pub fn report(&self) -> &SalvageReport {
        &self.report
    }

    /// Walks along the table to learn which row of each id is the newest, and what cannot be reached.
    fn survey(&mut self, connection: &Connection) -> Walk {
        let mut walk = Walk::new(connection);
        while let Some(rows) = walk.next(connection) {
            for (seq, mark) in rows {
                self.newest.insert(self.key(&mark), seq);
            }
        }
        walk
    }

    /// Looks for rows that a walk cannot reach, and for those that it took for whole.
    fn find_the_rest(
        &mut self,
        path: &Path,
        reached: &[RangeInclusive<i64>],
        gaps: &[RangeInclusive<i64>],
    ) -> Result<()> {
        match scan(path, reached, gaps) {
            Ok(scanned) => self.scanned = scanned,
            // It is in use, and there is nothing to look for.
            Err(e) if e.kind() == ErrorKind::Busy && gaps.is_empty() => {}
            Err(e) => return Err(e),
        }
        for (seq, record) in &self.scanned.records {
            let Some(mark) = self.decoder.mark(record) else { continue };
            let newest = self.newest.entry(self.key(&mark)).or_insert(*seq);
            *newest = (*newest).max(*seq);
        }
        let found = gaps.iter().map(|gap| self.scanned.records.range(gap.clone()).count() as u64);
        let found = found.sum::<u64>();
        let broken = self.scanned.broken.len() as u64;
        let has_end = gaps.last().is_none_or(|gap| *gap.end() < MAX_SEQ);
        let missing = gaps.iter().map(|gap| (gap.end() - gap.start() + 1).cast_unsigned());
        self.report = SalvageReport {
            damaged_places: gaps.len() as u64 + broken,
            marks_lost_at_most: has_end.then(|| missing.sum::<u64>() - found + broken),
            ..SalvageReport::default()
        };
        Ok(())
    }

    fn read_claims(&mut self, connection: &Connection) {
        let (mut found, is_whole) = readable_claims(connection);
        found.retain(|(position, _)| position.id.len() <= MAX_ID_BYTES);
        let entries = found
            .into_iter()
            .map(|(place, claim)| claim.entry(&place.scope, &place.id, self.now_ms));
        self.page.extend(entries);
        self.report.claims_are_lost = !is_whole;
    }

    /// Reads the next rows to which the inner pages lead. Returns false at their end.
    fn read_reached(&mut self) -> bool {
        let Some((connection, walk)) = &mut self.reached else { return false };
        let Some(rows) = walk.next(connection) else {
            self.reached = None;
            return false;
        };
        for (seq, mark) in rows {
            if !self.scanned.broken.contains(&seq) {
                self.page.extend(self.entry(seq, mark));
            }
        }
        true
    }

    /// Reads the next row that only the scan found. Returns false at their end.
    fn read_scanned(&mut self) -> bool {
        let Some((seq, record)) = self.scanned.records.pop_first() else { return false };
        let mark = self.decoder.mark(&record);
        if let Some(entry) = mark.and_then(|mark| self.entry(seq, mark)) {
            self.report.marks_from_scan += 1;
            self.report.removed_may_return = !self.scanned.free_pages_are_known;
            self.page.push_back(entry);
        }
        true
    }

    /// Returns the entry of a row, unless a newer row of its id takes its place, or says that the id was removed.
    fn entry(&self, seq: i64, mark: MarkRow) -> Option<Entry> {
        let is_newest = self.newest.get(&self.key(&mark)) == Some(&seq);
        let is_tombstone = mark.expires_at == Some(0);
        (is_newest && !is_tombstone).then(|| mark.entry(self.now_ms))
    }

    fn key(&self, mark: &MarkRow) -> Key {
        self.hasher.scoped(&mark.scope).key(&mark.id)
    }
}

impl Iterator for Salvage {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        while self.page.is_empty() && (self.read_reached() || self.read_scanned()) {}
        let entry = self.page.pop_front()?;
        self.report.entries += 1;
        Some(entry)
    }
}

/// Opens the file with SQLite, in one snapshot: what others write meanwhile is not mistaken for damage.
fn connect(path: &Path) -> Result<Registered<Connection>> {
    let name = file::shown(path);
    let connection = open_damaged(path, &Config::default())?;
    let fail = |e| failure("read", &name, e);
    connection.execute_batch("BEGIN").map_err(fail)?;
    if !format::has_tables(&connection).map_err(fail)? {
        return Err(no_store(path));
    }
    check_version(&connection).map_err(|e| e.at(&name))?;
    Ok(connection)
}

fn no_store(path: &Path) -> Error {
    Error::new(
        ErrorKind::WrongApplication,
        format!(
            "{}: it does not have the tables of a store, so nothing can be salvaged; give another path, or restore a \
             backup",
            file::shown(path)
        ),
    )
}

/// Returns whether a file with which SQLite can do nothing may still have rows of a store.
fn may_have_rows(error: &Error) -> bool {
    use ErrorKind::{Corrupt, NotADatabase, WrongApplication};
    matches!(error.kind(), Corrupt | NotADatabase | WrongApplication)
}

/// Returns whether a store can have written this mark.
fn is_what_a_store_writes(mark: &MarkRow) -> bool {
    (1..=MAX_ID_BYTES).contains(&mark.id.len())
}

/// Returns the claims that can be read, and whether these are all. Those between the first damage and the last are
/// lost: claims have no numbers by which to search for others.
fn readable_claims(connection: &Connection) -> (Vec<(ClaimPosition, ClaimRow)>, bool) {
    let mut found = Vec::new();
    let mut after = ClaimPosition::default();
    // One at a time, so that damage costs as few as possible. There are few claims.
    while let Ok(page) = claims::page(connection, &after, 1) {
        let Some((place, claim)) = page.into_iter().next() else { return (found, true) };
        after = place.clone();
        found.push((place, claim));
    }
    let mut from_end = Vec::new();
    let mut before = None;
    while let Ok(Some((place, claim))) = claims::last_between(connection, &after, before.as_ref()) {
        before = Some(place.clone());
        from_end.push((place, claim));
    }
    found.extend(from_end.into_iter().rev());
    (found, false)
}

#[cfg(test)]
mod tests;
