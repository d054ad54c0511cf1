//! Listings of the file, a page at a time.
//!
//! Owns the position of a listing and the order: claims by scope and id, then marks by `seq`. What always holds:
//! no lock and no snapshot is kept between two pages. An entry that exists throughout is returned at least once. A
//! page of another history of the file (a restore in place, a compaction) starts the listing again. Memory is
//! bounded, except for the keys of the claims. Must not know how the file was opened.

use std::collections::{HashMap, VecDeque};

use rusqlite::{Connection, Row};

use super::Reader;
use super::access::{FileReader, Read, Snapshot};
use crate::entry::{Entry, Filter, State, newest};
use crate::error::Result;
use crate::item::{Digest, is_change};
use crate::journal::ClaimRow;
use crate::journal::MarkRow;
use crate::journal::catch_up::read_schema_version;
use crate::journal::claims::{self, ClaimPosition};
use crate::journal::load::id_bytes;
use crate::journal::row::columns;
use crate::machine::step_size;

/// How many rows a listing reads at a time.
const PAGE: i64 = step_size!(1_000, in_a_simulation: 5);

/// How many expired marks one scan of the later rows checks.
const EXPIRED_PER_SCAN: usize = step_size!(20_000, in_a_simulation: 3);

/// An iterator over the entries of a store's file: see [`Reader::entries`]. Ends after the first error.
#[derive(Debug)]
#[must_use = "a listing reads nothing until it is iterated"]
pub struct Listing<'r> {
    reader: &'r Reader,
    filter: Filter,
    phase: Phase,
    /// The claims that were read, with their digests: a claim that is confirmed meanwhile must not be returned again
    /// as a mark. A mark of another version is another entry.
    claims: HashMap<(String, Vec<u8>), Option<Digest>>,
    page: VecDeque<Entry>,
    /// The history of the file that the pages so far were read from.
    history: Option<i64>,
}

#[derive(Debug)]
enum Phase {
    Claims { after: ClaimPosition },
    Marks { after: i64 },
    Expired { after: i64, waiting: Vec<(i64, MarkRow)> },
    Done,
}

impl Reader {
    /// Returns an iterator over the entries that the filter selects: first the claims by scope and id, then
    /// the marks in the order in which they were written. Takes the same filters as
    /// [`SeenStore::entries`](crate::SeenStore::entries).
    ///
    /// Reads 1,000 rows at a time, in bounded memory except for the claims. It is not one snapshot of the
    /// file: an entry that exists throughout is not missed, and an entry that is refreshed meanwhile may be
    /// returned a second time in its new form. When the file is restored in place or compacted meanwhile, the
    /// listing starts again, and entries may be returned again. With [`State::Expired`] it costs another scan
    /// for each 20,000 expired marks, to leave out those whose id was marked again.
    ///
    /// ```
    /// use seen_store::{Filter, Reader, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// SeenStore::open(&path)?.seed(["a", "b"])?;
    /// let reader = Reader::open(&path)?;
    /// let entries: Vec<_> = reader.entries(Filter::default()).collect::<Result<_, _>>()?;
    /// assert_eq!(entries.len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn entries(&self, filter: Filter) -> Listing<'_> {
        Listing {
            reader: self,
            filter,
            phase: Phase::Claims { after: ClaimPosition::default() },
            claims: HashMap::new(),
            page: VecDeque::new(),
            history: None,
        }
    }
}

impl Listing<'_> {
    /// Returns the `count` entries that were last seen, the newest first; of marks of the same millisecond, the one
    /// that was written last comes first. Goes through all entries that the filter selects, with memory for twice
    /// the count or 1,000 entries.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::get`].
    pub fn newest(self, count: usize) -> Result<Vec<Entry>> {
        newest(self, count)
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Some(Ok(entry));
            }
            if matches!(self.phase, Phase::Done) {
                return None;
            }
            if let Err(e) = self.read_page() {
                self.phase = Phase::Done;
                return Some(Err(e));
            }
        }
    }
}

impl Listing<'_> {
    fn read_page(&mut self) -> Result<()> {
        let mut access = self.reader.access()?;
        let now_ms = self.reader.now_ms(&mut access)?;
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Claims { after } => {
                let page = access.claims_after(&after, PAGE)?;
                let Some(rows) = self.rows_of_same_history(page) else { return Ok(()) };
                self.phase = match rows.last() {
                    Some((place, _)) => Phase::Claims { after: place.clone() },
                    // Marks and expired marks are two separate walks: no filter selects both.
                    None if self.filter.admits_state(State::Seen) => Phase::Marks { after: 0 },
                    None if self.filter.admits_state(State::Expired) => {
                        Phase::Expired { after: 0, waiting: Vec::new() }
                    }
                    None => Phase::Done,
                };
                for (place, claim) in rows {
                    if !claim.is_expired(now_ms) {
                        let key = (place.scope.clone(), place.id.clone());
                        self.claims.insert(key, claim.digest);
                        self.add(claim.entry(&place.scope, &place.id, now_ms), now_ms);
                    }
                }
            }
            Phase::Marks { after } => {
                let page = access.rows_after(after, PAGE)?;
                let Some(rows) = self.rows_of_same_history(page) else { return Ok(()) };
                if let Some((seq, _)) = rows.last() {
                    self.phase = Phase::Marks { after: *seq };
                }
                for (_, row) in rows {
                    if row.is_live(now_ms) {
                        self.add_mark(row, now_ms);
                    }
                }
            }
            Phase::Expired { after, mut waiting } => {
                let page = access.rows_after(after, PAGE)?;
                let Some(rows) = self.rows_of_same_history(page) else { return Ok(()) };
                let last = rows.last().map(|(seq, _)| *seq);
                let is_expired = |row: &MarkRow| row.expires_at != Some(0) && !row.is_live(now_ms);
                waiting.extend(rows.into_iter().filter(|(_, row)| is_expired(row)));
                if last.is_none() || waiting.len() >= EXPIRED_PER_SCAN {
                    let page = access.keep_newest(std::mem::take(&mut waiting))?;
                    let Some(rows) = self.rows_of_same_history(page) else { return Ok(()) };
                    for row in rows {
                        self.add_mark(row, now_ms);
                    }
                }
                if let Some(after) = last {
                    self.phase = Phase::Expired { after, waiting };
                }
            }
            Phase::Done => {}
        }
        Ok(())
    }

    /// Returns the page's rows, or `None` when they are of another history than the pages before: an entry
    /// that is still to be listed may be among rows that were passed. The listing then starts again.
    fn rows_of_same_history<T>(&mut self, page: Page<T>) -> Option<Vec<T>> {
        if self.history.replace(page.history).is_none_or(|known| known == page.history) {
            return Some(page.rows);
        }
        self.phase = Phase::Claims { after: ClaimPosition::default() };
        self.claims.clear();
        None
    }

    fn add_mark(&mut self, row: MarkRow, now_ms: i64) {
        // What is kept of a claimed id is an entry of its own.
        let is_kept = !row.is_live(now_ms) && row.retain_until.is_some_and(|until| now_ms < until);
        let was_claim = !is_kept
            && !self.claims.is_empty()
            && self
                .claims
                .get(&(row.scope.clone(), row.id.clone()))
                .is_some_and(|claim| !is_change(*claim, row.digest));
        if !was_claim {
            self.add(row.entry(now_ms), now_ms);
        }
    }

    fn add(&mut self, entry: Entry, now_ms: i64) {
        if self.filter.admits(&entry, now_ms) {
            self.page.push_back(entry);
        }
    }
}

impl FileReader {
    /// Returns the next `limit` rows after `after`, including tombstones.
    pub(crate) fn rows_after(&mut self, after: i64, limit: i64) -> Result<Page<(i64, MarkRow)>> {
        self.page(|connection| {
            let rows = connection
                .prepare_cached(concat!(
                    "SELECT ",
                    columns!(),
                    ", seq FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2"
                ))?
                .query_map((after, limit), numbered_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Returns the next `limit` claims after a claim's key, in the order of scope and id.
    pub(crate) fn claims_after(
        &mut self,
        after: &ClaimPosition,
        limit: i64,
    ) -> Result<Page<(ClaimPosition, ClaimRow)>> {
        self.page(|connection| Ok(claims::page(connection, after, limit)?))
    }

    /// Reads some rows and the history of the file that they are from.
    pub(super) fn page<T>(
        &mut self,
        mut read: impl FnMut(&Connection) -> Read<Vec<T>>,
    ) -> Result<Page<T>> {
        self.read(1, |connections| {
            let snapshot = Snapshot::begin(connections[0])?;
            Ok(Page { history: read_schema_version(snapshot.0)?, rows: read(snapshot.0)? })
        })
    }

    /// Returns those of the rows that are the newest of their id. Scans once what comes after the first of
    /// them.
    pub(crate) fn keep_newest(&mut self, rows: Vec<(i64, MarkRow)>) -> Result<Page<MarkRow>> {
        let first = rows.first().map_or(i64::MAX, |(seq, _)| *seq);
        let mut newest: HashMap<_, _> =
            rows.iter().map(|(seq, row)| ((row.scope.clone(), row.id.clone()), *seq)).collect();
        let Page { history, .. } = self.page::<()>(|connection| {
            let mut statement =
                connection.prepare("SELECT scope, id, seq FROM seen WHERE seq > ?1")?;
            let mut later = statement.query([first])?;
            while let Some(row) = later.next()? {
                let key = (row.get::<_, String>(0)?, id_bytes(row.get_ref(1)?)?.to_vec());
                if let Some(known) = newest.get_mut(&key) {
                    *known = row.get::<_, i64>(2)?.max(*known);
                }
            }
            Ok(Vec::new())
        })?;
        let rows = rows
            .into_iter()
            .filter(|(seq, row)| newest.get(&(row.scope.clone(), row.id.clone())) == Some(seq))
            .map(|(_, row)| row)
            .collect();
        Ok(Page { history, rows })
    }
}

/// One page of rows.
pub(crate) struct Page<T> {
    /// SQLite's `schema_version`. It changes when the file is restored in place or compacted.
    pub(crate) history: i64,
    pub(crate) rows: Vec<T>,
}

pub(super) fn numbered_row(row: &Row<'_>) -> rusqlite::Result<(i64, MarkRow)> {
    Ok((row.get(13)?, MarkRow::read(row)?))
}
