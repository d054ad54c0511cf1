//! What can still be read of a damaged store.
//!
//! Owns the walk around damage: marks by ranges of `seq`, claims from both ends of their order. What always holds: the
//! file is only read; each row that is returned was read whole and has what a store writes; what could not be read is
//! counted. Must not know what is done with the entries.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;

use rusqlite::Connection;

use super::access::Read;
use crate::clock::{Clock, SystemClock, to_ms};
use crate::config::Config;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::format;
use crate::format::open_for_reading::open_damaged;
use crate::format::sqlite_errors::failure;
use crate::id::MAX_ID_BYTES;
use crate::index::MAX_SEQ;
use crate::journal::claims::{self, ClaimPosition};
use crate::journal::load::{ReadError, check_version};
use crate::journal::row::columns;
use crate::journal::{ClaimRow, MarkRow};
use crate::process::{Registered, Registration};

/// How many rows are read at a time where there is no damage.
const PAGE: i64 = 1_000;

/// Of a damaged range that is this long, each `seq` is tried. A longer one is gone through in steps of this part of
/// its length.
const TRIED_ONE_BY_ONE: i64 = 1_024;

/// What a salvage could read, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The number of entries that were read.
    pub entries: u64,
    /// The number of places in the table of marks that could not be read.
    pub damaged_places: u64,
    /// At most so many marks are lost in these places: the numbers of their rows were given once, though some of those
    /// rows may have been removed since. `None` if not even the number of the last row can be read.
    pub marks_lost_at_most: Option<u64>,
    /// Whether claims are lost: ids that are in flight, failed or given up. Their number is not known.
    pub claims_are_lost: bool,
}

impl SalvageReport {
    /// Returns whether everything could be read.
    pub fn is_complete(&self) -> bool {
        self.damaged_places == 0 && !self.claims_are_lost
    }
}

/// An iterator over the entries that can be read of a damaged store, to be [restored](crate::SeenStore::restore) to
/// another one. Reads around what is damaged, and never changes the file.
///
/// Claims come first, then marks in the order in which they were written; expired ones too. An id may come twice,
/// since the damage may hide that its earlier mark was replaced; a restore merges the two.
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
    connection: Registered<Connection>,
    now_ms: i64,
    /// The last `seq` that was read or given up.
    after: i64,
    /// The last `seq` that a row may have. `None` if it cannot be read.
    last: Option<i64>,
    page: VecDeque<Entry>,
    at_end: bool,
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
    /// - [`NotADatabase`](ErrorKind::NotADatabase) or [`Corrupt`](ErrorKind::Corrupt) when the first page, with the
    ///   names of the tables, cannot be read: then nothing can;
    /// - [`WrongApplication`](ErrorKind::WrongApplication) when the file does not have the tables of a store;
    /// - [`NewerVersion`](ErrorKind::NewerVersion) for a file of a later version;
    /// - [`NotFound`](ErrorKind::NotFound), [`InvalidPath`](ErrorKind::InvalidPath),
    ///   [`PermissionDenied`](ErrorKind::PermissionDenied), [`Busy`](ErrorKind::Busy) or [`Io`](ErrorKind::Io) when the
    ///   file cannot be opened;
    /// - [`Forked`](ErrorKind::Forked) in a child that was forked while a store or a reader was open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let _opening = Registration::new(&file::shown(path.as_ref()))?;
        let path = file::resolve(path.as_ref(), false)?;
        file::refuse_unsafe_names(&path)?;
        let name = file::shown(&path);
        let connection = open_damaged(&path, &Config::default())?;
        let fail = |e| failure("read", &name, e);
        // One snapshot: what others write meanwhile is not mistaken for damage.
        connection.execute_batch("BEGIN").map_err(fail)?;
        if !format::has_tables(&connection).map_err(fail)? {
            return Err(Error::new(
                ErrorKind::WrongApplication,
                format!("{name}: it does not have the tables of a store; nothing can be salvaged"),
            ));
        }
        check_version(&connection).map_err(|e| e.at(&name))?;
        let last = connection.query_row("SELECT max(seq) FROM seen", [], |row| row.get(0));
        let last = last.map(|last: Option<i64>| last.unwrap_or(0)).ok();
        let now_ms = to_ms(SystemClock.now());
        let report =
            SalvageReport { marks_lost_at_most: last.map(|_| 0), ..SalvageReport::default() };
        let page = VecDeque::new();
        let mut salvage = Self { connection, now_ms, after: 0, last, page, at_end: false, report };
        salvage.read_claims();
        Ok(salvage)
    }

    /// Returns what was read so far, and what could not be.
    pub fn report(&self) -> &SalvageReport {
        &self.report
    }

    fn read_claims(&mut self) {
        let (mut found, is_whole) = readable_claims(&self.connection);
        found.retain(|(position, _)| position.id.len() <= MAX_ID_BYTES);
        let entries = found
            .into_iter()
            .map(|(place, claim)| claim.entry(&place.scope, &place.id, self.now_ms));
        self.page.extend(entries);
        self.report.claims_are_lost = !is_whole;
    }

    /// Reads the next rows, or goes around the damage that begins there.
    fn read_marks(&mut self) {
        if let Ok(rows) = marks_from(&self.connection, self.after + 1, PAGE) {
            self.at_end = rows.is_empty();
            self.take(rows);
            return;
        }
        // Row by row up to the damage, of which only a part of the page may have been the cause.
        while let Ok(rows) = marks_from(&self.connection, self.after + 1, 1) {
            if rows.is_empty() {
                self.at_end = true;
                return;
            }
            self.take(rows);
        }
        self.pass_damage();
    }

    fn take(&mut self, rows: Vec<(i64, MarkRow)>) {
        for (seq, row) in rows {
            self.after = seq;
            // A tombstone says that there is nothing.
            if row.expires_at != Some(0) {
                self.page.push_back(row.entry(self.now_ms));
            }
        }
    }

    /// Looks for the next row that can be read after the damage that begins after `self.after`.
    fn pass_damage(&mut self) {
        self.report.damaged_places += 1;
        let begin = self.after + 1;
        let limit = self.last.unwrap_or(MAX_SEQ);
        let (mut bad, mut next) = (begin, begin + 1);
        let found = loop {
            if next > limit {
                break None;
            }
            match marks_from(&self.connection, next, 1) {
                Ok(rows) => break rows.first().map(|(seq, _)| *seq),
                Err(_) => bad = next,
            }
            next = next.saturating_add(((bad - begin) / TRIED_ONE_BY_ONE).max(1));
        };
        let Some(mut found) = found else {
            self.lose(self.last.map(|last| last - begin + 1));
            self.at_end = true;
            return;
        };
        // The last step may have passed rows that can be read.
        let (mut low, mut high) = (bad, next);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match marks_from(&self.connection, middle, 1) {
                Ok(rows) => {
                    high = middle;
                    found = rows.first().map_or(found, |(seq, _)| *seq);
                }
                Err(_) => low = middle,
            }
        }
        self.lose(Some(found - begin));
        self.after = found - 1;
    }

    /// Counts marks that may be lost.
    fn lose(&mut self, at_most: Option<i64>) {
        let lost = self.report.marks_lost_at_most;
        self.report.marks_lost_at_most =
            lost.zip(at_most).map(|(lost, more)| lost.saturating_add(more.max(0).cast_unsigned()));
    }
}

impl Iterator for Salvage {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                self.report.entries += 1;
                return Some(entry);
            }
            if self.at_end {
                return None;
            }
            self.read_marks();
        }
    }
}

/// Reads up to `limit` rows from `first` on. All of them, or the error of one.
fn marks_from(connection: &Connection, first: i64, limit: i64) -> Read<Vec<(i64, MarkRow)>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        ", seq FROM seen WHERE seq >= ?1 ORDER BY seq LIMIT ?2"
    ))?;
    let mut rows = statement.query((first, limit))?;
    let (mut read, mut least) = (Vec::new(), first);
    while let Some(row) = rows.next()? {
        let (seq, mark): (i64, _) = (row.get(13)?, MarkRow::read(row)?);
        // In a damaged table rows may also be out of order.
        if seq < least || !(1..=MAX_ID_BYTES).contains(&mark.id.len()) {
            return Err(ReadError::Content("a row is not what a store writes"));
        }
        least = seq + 1;
        read.push((seq, mark));
    }
    Ok(read)
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
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::store::{Claim, SeenStore};

    const PAGE_BYTES: usize = 1024;

    fn filled(marks: usize, claims: usize) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.db");
        let store = SeenStore::open(&path).unwrap();
        for n in 0..claims {
            match store.claim(format!("claim {n}"), Duration::from_secs(600)).unwrap() {
                Claim::Granted(lease) => drop(lease.into_token()),
                other => panic!("{other:?}"),
            }
        }
        store.seed((0..marks).map(|n| format!("id {n}"))).unwrap();
        store.close().unwrap();
        (folder, path)
    }

    #[test]
    fn a_sound_file_is_read_whole_and_left_as_it_is() {
        let (_folder, path) = filled(2_500, 30);
        let before = fs::read(&path).unwrap();
        let mut salvage = Salvage::open(&path).unwrap();
        assert_eq!(salvage.by_ref().count(), 2_530);
        assert_eq!(salvage.report().marks_lost_at_most, Some(0));
        assert!(salvage.report().is_complete());
        assert!(fs::read(&path).unwrap() == before);
    }

    #[test]
    fn what_lies_around_damaged_pages_is_read_and_the_rest_is_counted() {
        let (_folder, path) = filled(5_000, 200);
        let whole = fs::read(&path).unwrap();
        let pages = whole.len() / PAGE_BYTES;
        for (damaged, at_least) in [
            (vec![pages / 2], 4_000),
            (vec![pages / 3, pages / 2, pages - 1], 4_000),
            ((pages / 4..pages / 2).collect(), 2_000),
            ((8..pages).step_by(5).collect(), 2_000),
        ] {
            let mut bytes = whole.clone();
            for page in &damaged {
                bytes[page * PAGE_BYTES..][..PAGE_BYTES].fill(0xA5);
            }
            fs::write(&path, bytes).unwrap();
            let mut salvage = Salvage::open(&path).unwrap();
            let read: Vec<_> = salvage.by_ref().collect();
            let report = salvage.report().clone();
            let marks = read.iter().filter(|entry| entry.id.starts_with(b"id ")).count();
            assert!(marks >= at_least, "{marks} with {damaged:?}: {report:?}");
            assert!(!report.is_complete(), "{damaged:?}");
            if let Some(lost) = report.marks_lost_at_most {
                assert_eq!(marks as u64 + lost, 5_000, "{damaged:?}: {report:?}");
            }
            let fresh = SeenStore::in_memory().unwrap();
            assert!(fresh.restore(read).unwrap().refused.is_empty());
        }
    }

    #[test]
    fn a_file_that_was_cut_gives_its_beginning() {
        let (_folder, path) = filled(1_500, 0);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2 + 100]).unwrap();
        let mut salvage = Salvage::open(&path).unwrap();
        let count = salvage.by_ref().count();
        assert!(count > 500, "{count}: {:?}", salvage.report());
        assert!(!salvage.report().is_complete());
    }

    #[test]
    fn nothing_is_salvaged_from_what_is_no_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.db");
        let kind = || Salvage::open(&path).unwrap_err().kind();
        assert_eq!(kind(), ErrorKind::NotFound);
        fs::write(&path, [b'x'; 4096]).unwrap();
        assert_eq!(kind(), ErrorKind::NotADatabase);
        fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert_eq!(kind(), ErrorKind::WrongApplication);
    }
}
