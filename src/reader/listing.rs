//! Listings of the file, page by page.

use std::collections::{HashMap, HashSet, VecDeque};

use rusqlite::{Connection, Row};

use super::Reader;
use super::access::{FileReader, Moment, Read};
use crate::entry::{Entry, Filter, State};
use crate::error::Result;
use crate::journal::MarkRow;
use crate::journal::catch_up::read_schema_version;
use crate::journal::claims::{self, ClaimPosition, ClaimRow};
use crate::journal::load::id_bytes;
use crate::journal::row::columns;
use crate::machine::step_size;

/// How many rows a listing reads at a time.
const PAGE: i64 = step_size!(1_000, in_a_simulation: 5);

/// How many expired marks are looked for among the later ones at a time.
const EXPIRED_AT_ONCE: usize = step_size!(20_000, in_a_simulation: 3);

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
    Claims { after: ClaimPosition },
    Marks { after: i64 },
    Expired { after: i64, waiting: Vec<(i64, MarkRow)> },
    Done,
}

impl Reader {
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
            stage: Stage::Claims { after: ClaimPosition::default() },
            claims: HashSet::new(),
            page: VecDeque::new(),
            history: None,
        }
    }
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
        let mut access = self.reader.access()?;
        let now_ms = self.reader.now_ms(&mut access)?;
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Claims { after } => {
                let page = access.claims_after(&after, PAGE)?;
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
                let page = access.rows_after(after, PAGE)?;
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
                let page = access.rows_after(after, PAGE)?;
                let Some(rows) = self.of_same_history(page) else { return Ok(()) };
                let last = rows.last().map(|(seq, _)| *seq);
                let is_expired = |row: &MarkRow| row.expires_at != Some(0) && !row.is_live(now_ms);
                waiting.extend(rows.into_iter().filter(|(_, row)| is_expired(row)));
                if last.is_none() || waiting.len() >= EXPIRED_AT_ONCE {
                    let page = access.keep_newest(std::mem::take(&mut waiting))?;
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
        self.stage = Stage::Claims { after: ClaimPosition::default() };
        self.claims.clear();
        None
    }

    fn take_mark(&mut self, row: MarkRow, now_ms: i64) {
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

impl FileReader {
    /// The next `limit` rows after `after`, with the tombstones.
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

    /// The next `limit` claims after a place, in the order of scope and id.
    pub(crate) fn claims_after(
        &mut self,
        after: &ClaimPosition,
        limit: i64,
    ) -> Result<Page<(ClaimPosition, ClaimRow)>> {
        self.page(|connection| Ok(claims::page(connection, after, limit)?))
    }

    /// Some rows, and which history of the file they are of.
    pub(super) fn page<T>(
        &mut self,
        mut read: impl FnMut(&Connection) -> Read<Vec<T>>,
    ) -> Result<Page<T>> {
        self.read(1, |connections| {
            let moment = Moment::begin(connections[0])?;
            Ok(Page { history: read_schema_version(moment.0)?, rows: read(moment.0)? })
        })
    }

    /// Which of these rows are the newest of their id: one scan of what comes after the first of them.
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

/// Some rows of a walk.
pub(crate) struct Page<T> {
    /// SQLite's `schema_version`: another one where the file was restored in place, or compacted, since the
    /// page before.
    pub(crate) history: i64,
    pub(crate) rows: Vec<T>,
}

pub(super) fn numbered_row(row: &Row<'_>) -> rusqlite::Result<(i64, MarkRow)> {
    Ok((row.get(10)?, MarkRow::read(row)?))
}
