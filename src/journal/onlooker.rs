//! Reading a store's file without being a store: no index, no looks, no trace.
//!
//! Owns the connections that read, and the choice of a new way to read whenever the file's state has
//! changed. What always holds: each call's answer is of one moment, or it fails with
//! [`Busy`](ErrorKind::Busy); ids are found by a scan of the table, since the file has no index of them.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;

use rusqlite::{Connection, Row, ToSql};

use super::claims::{self, ClaimRow, Place};
use super::look::{Counters, read_schema_version};
use super::rows::{ReadError, RowKeys, checked_seq, id_bytes, load_within};
use super::transaction::StoredRow;
use crate::answer::{Census, Counts, Entry, Inspection, Report, State};
use crate::clock::{ABSORBED_STEP_MS, from_ms};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, shown};
use crate::id::{Id, KeyHasher, Scope};
use crate::index::{Index, estimated_bytes};
use crate::patience::retried;
use crate::schema::onlooker::{Look, Reading, open};
use crate::schema::{self, IdValue, TwinValue, connect};

/// How many threads scan the table for an id. More than two would wait for the disk, or for each other.
const SCANNERS: usize = 2;

/// Up to how many ids SQLite compares each row with, in both storage classes. Beyond, a hash table is faster.
const COMPARED_BY_SQL: usize = 3;

/// How many claims are read at a time.
const CLAIMS_PAGE: i64 = 500;

/// How many problems of one kind a report lists.
const MOST_PROBLEMS: usize = 20;

const HOUR_MS: i64 = 3_600_000;

/// The columns that `StoredRow::read` takes, and where the row is.
const COLUMNS: &str = "scope, id, first_seen, last_seen, expires_at, suppressed, token, attempts, last_error, receipt, seq";

/// See the module's header.
pub(crate) struct Onlooker {
    path: PathBuf,
    config: Config,
    opened: Option<Opened>,
    /// The time that stores had reached when it was read last.
    reached_ms: Option<i64>,
}

struct Opened {
    look: Look,
    readings: Vec<Reading>,
}

type Read<T> = Result<T, ReadError>;

impl Onlooker {
    /// Opens the store at the resolved path.
    pub(crate) fn open(path: PathBuf, config: &Config) -> Result<Self> {
        // Only here: what is given a second name later stops nothing.
        file::refuse_unsafe_names(&path)?;
        let mut onlooker = Self { path, config: config.clone(), opened: None, reached_ms: None };
        onlooker.read(1, |_| Ok(()))?;
        Ok(onlooker)
    }

    /// Reads with up to `wanted` connections, again if the file changed under a read.
    fn read<T>(
        &mut self,
        wanted: usize,
        mut read: impl FnMut(&mut [&mut Connection]) -> Read<T>,
    ) -> Result<T> {
        retried(self.config.busy_timeout, || {
            let look = Look::at(&self.path)?;
            let name = shown(&self.path);
            let result = match self.connections(look, wanted) {
                Ok(Some(mut connections)) => {
                    read(&mut connections).map_err(|e| e.at(&name)).map(Ok)
                }
                Ok(None) => Err(Error::new(
                    ErrorKind::Busy,
                    format!(
                        "{name} is being read by another process, which must be alone; try again"
                    ),
                )),
                // Opening has waited for others already.
                Err(e) => Ok(Err(e)),
            };
            let is_spoilt = look.is_spoilt(&self.path)?;
            if is_spoilt || look.keeps_others_out() {
                self.opened = None;
            }
            if !is_spoilt {
                return result;
            }
            Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{name} was changed each time it was read; try again when less is written to it"
                ),
            ))
        })?
    }

    /// `None` as for [`open`].
    fn connections(&mut self, look: Look, wanted: usize) -> Result<Option<Vec<&mut Connection>>> {
        let is_current = |opened: &Opened| {
            opened.look == look && opened.readings.iter().all(Reading::is_current)
        };
        if !self.opened.as_ref().is_some_and(is_current) {
            self.opened = None;
        }
        let opened = self.opened.get_or_insert_with(|| Opened { look, readings: Vec::new() });
        while opened.readings.len() < wanted.min(look.most_connections()) {
            match open(&self.path, &self.config, look)? {
                Some(reading) => opened.readings.push(reading),
                None => return Ok(None),
            }
        }
        Ok(Some(opened.readings.iter_mut().map(|reading| &mut *reading.connection).collect()))
    }

    /// The time that stores on the file have reached, if it is another one than at the last call.
    pub(crate) fn take_reached_ms(&mut self) -> Result<Option<i64>> {
        let reached_ms = self.read(1, |connections| Counters::load(connections[0]))?.clock_ms;
        let is_news = self.reached_ms.replace(reached_ms) != Some(reached_ms);
        Ok(is_news.then_some(reached_ms))
    }

    /// What is known of each id, expired or not. One scan for all of them.
    pub(crate) fn find(&mut self, ids: &[Id<'_>], now_ms: i64) -> Result<Vec<Option<Entry>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (claims, marks) = self.read(SCANNERS, |connections| {
            // The claims first, and then the ranges in the order of the table: whatever moves meanwhile
            // moves to where it will still be met.
            let mut moments = Vec::new();
            for connection in connections {
                moments.push(Moment::begin(connection)?);
            }
            of_one_history(&moments)?;
            let claims = ids.iter().map(|id| claims::find(moments[0].0, *id));
            let claims: Vec<_> = claims.collect::<Result<_, _>>()?;
            Ok((claims, newest_marks(moments, ids)?))
        })?;
        Ok(claims
            .into_iter()
            .zip(marks)
            .zip(ids)
            .map(|((claim, mark), id)| outcome(*id, mark, claim, now_ms))
            .collect())
    }

    /// The next `limit` rows after `after`, with the tombstones.
    pub(crate) fn rows_after(&mut self, after: i64, limit: i64) -> Result<Page<(i64, StoredRow)>> {
        self.page(|connection| {
            let rows = connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM seen WHERE seq > ?1 ORDER BY seq LIMIT ?2"
                ))?
                .query_map((after, limit), numbered_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// The next `limit` claims after a place, in the order of scope and id.
    pub(crate) fn claims_after(
        &mut self,
        after: &Place,
        limit: i64,
    ) -> Result<Page<(Place, ClaimRow)>> {
        self.page(|connection| Ok(claims::page(connection, after, limit)?))
    }

    /// Some rows, and which history of the file they are of.
    fn page<T>(&mut self, mut read: impl FnMut(&Connection) -> Read<Vec<T>>) -> Result<Page<T>> {
        self.read(1, |connections| {
            let moment = Moment::begin(connections[0])?;
            Ok(Page { history: read_schema_version(moment.0)?, rows: read(moment.0)? })
        })
    }

    /// Which of these rows are the newest of their id: one scan of what comes after the first of them.
    pub(crate) fn keep_newest(&mut self, rows: Vec<(i64, StoredRow)>) -> Result<Page<StoredRow>> {
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

    /// Counts everything in one pass. Marks are counted by when they were first seen, in buckets of
    /// `bucket_ms` from `since_ms` on.
    pub(crate) fn census(
        &mut self,
        now_ms: i64,
        since_ms: i64,
        bucket_ms: i64,
        buckets: usize,
    ) -> Result<Census> {
        let mut census = self.read(1, |connections| {
            let moment = Moment::begin(connections[0])?;
            let census = Census { marks: vec![0; buckets], ..Census::default() };
            let mut tally = Tally { census, now_ms, since_ms, bucket_ms };
            tally.marks(moment.0)?;
            tally.claims(moment.0)?;
            let last_purge_ms: i64 = moment.0.query_row(
                "SELECT value FROM meta WHERE key = 'last_purge_at'",
                [],
                |row| row.get(0),
            )?;
            tally.census.last_purge_at = (last_purge_ms > 0).then(|| from_ms(last_purge_ms));
            Ok(tally.census)
        })?;
        census.file_bytes = file::bytes(&self.path);
        census.wal_bytes = file::wal_bytes(&self.path);
        census.index_bytes = estimated_bytes(census.total().seen);
        Ok(census)
    }

    /// SQLite's own check of the file, and then each row against an index built from all.
    pub(crate) fn verify(&mut self, now_ms: i64) -> Result<Report> {
        let hasher = KeyHasher::random();
        self.read(1, |connections| {
            let moment = Moment::begin(connections[0])?;
            let problems = schema::integrity_problems(moment.0)?;
            let mut report = Report { rows: 0, problems };
            if report.is_ok() {
                let loaded = load_within(moment.0, &hasher, now_ms)?;
                if loaded.tip.is_some_and(|tip| tip.seq < loaded.counters.floor) {
                    report.problems.push("the newest row is older than its floor".into());
                }
                // The stores' clocks may be ahead of this one. What had expired for them may stand
                // beside what came after it.
                let latest_ms = now_ms.saturating_add(ABSORBED_STEP_MS);
                compare_rows(moment.0, &loaded.index, &hasher, latest_ms, &mut report)?;
                compare_claims(moment.0, &loaded.index, &hasher, latest_ms, &mut report)?;
            }
            Ok(report)
        })
    }

    /// What SQLite says of itself and of the file.
    pub(crate) fn inspect(&mut self) -> Result<Inspection> {
        let config = self.config.clone();
        self.read(1, |connections| {
            connect::tune(connections[0], &config)?;
            Ok(schema::inspect(connections[0], &config)?)
        })
    }
}

/// A read transaction whose view of the file is taken as soon as it begins.
struct Moment<'c>(&'c mut Connection);

impl<'c> Moment<'c> {
    fn begin(connection: &'c mut Connection) -> rusqlite::Result<Self> {
        connection.execute_batch("BEGIN")?;
        let moment = Self(connection);
        moment.0.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(moment)
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        // A read transaction has nothing to lose; a connection that cannot end it is not used again.
        if let Err(e) = self.0.execute_batch("ROLLBACK") {
            log::debug!("cannot end a read: {e}");
        }
    }
}

/// Each moment is of the same history of the file, or the read is made again: a restore in place that came
/// between two of them would put an id where neither looks for it.
fn of_one_history(moments: &[Moment<'_>]) -> Read<()> {
    let mut known = None;
    for moment in moments {
        let history = read_schema_version(moment.0)?;
        if *known.get_or_insert(history) != history {
            return Err(ReadError::Changed);
        }
    }
    Ok(())
}

/// Some rows of a walk.
pub(crate) struct Page<T> {
    /// SQLite's `schema_version`: another one where the file was restored in place, or compacted, since the
    /// page before.
    pub(crate) history: i64,
    pub(crate) rows: Vec<T>,
}

fn numbered_row(row: &Row<'_>) -> rusqlite::Result<(i64, StoredRow)> {
    Ok((row.get(10)?, StoredRow::read(row)?))
}

/// What an id comes to: a live mark, else its claim, else what has expired.
fn outcome(
    id: Id<'_>,
    mark: Option<StoredRow>,
    claim: Option<ClaimRow>,
    now_ms: i64,
) -> Option<Entry> {
    match (mark, claim) {
        (Some(mark), _) if mark.is_live(now_ms) => Some(mark.entry(now_ms)),
        (mark, Some(claim)) if mark.is_none() || !claim.is_expired(now_ms) => {
            Some(claim.entry(id.scope, id.bytes, now_ms))
        }
        (mark, _) => mark.map(|mark| mark.entry(now_ms)),
    }
}

/// The newest row of each id, unless it is a tombstone. Each moment scans its part of the table.
fn newest_marks(moments: Vec<Moment<'_>>, ids: &[Id<'_>]) -> Read<Vec<Option<StoredRow>>> {
    let (first, last): (Option<i64>, Option<i64>) = moments[0].0.query_row(
        "SELECT (SELECT min(seq) FROM seen), (SELECT max(seq) FROM seen)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(ids.iter().map(|_| None).collect());
    };
    let ranges = ranges(checked_seq(first)?, checked_seq(last)?, moments.len());
    let found: Vec<Read<Found>> = thread::scope(|threads| {
        let scans: Vec<_> = moments
            .into_iter()
            .zip(ranges)
            .map(|(moment, range)| threads.spawn(move || scan(moment.0, range, ids)))
            .collect();
        scans
            .into_iter()
            .map(|scan| scan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut newest: Found = HashMap::new();
    for found in found {
        newest.extend(found?);
    }
    Ok((0..ids.len()).map(|n| newest.remove(&n).filter(|row| row.expires_at != Some(0))).collect())
}

/// The newest row found of the id with this number.
type Found = HashMap<usize, StoredRow>;

/// Parts of the table of about equal size. The last one has no end: it takes in what is appended between
/// one moment and the next.
fn ranges(first: i64, last: i64, parts: usize) -> Vec<Range<i64>> {
    let parts = i64::try_from(parts).unwrap_or(1);
    let step = (last - first) / parts + 1;
    (0..parts)
        .map(|n| {
            let end = if n + 1 == parts { i64::MAX } else { first + (n + 1) * step };
            first + n * step..end
        })
        .collect()
}

fn scan(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<Found> {
    if ids.len() <= COMPARED_BY_SQL {
        scan_by_sql(connection, range, ids)
    } else {
        scan_by_hash(connection, range, ids)
    }
}

fn scan_by_sql(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<Found> {
    // The plus keeps SQLite from gathering the comparisons into a search tree, which is slower.
    let comparisons: Vec<String> =
        (0..2 * ids.len()).map(|n| format!("+id = ?{}", n + 3)).collect();
    let sql = format!(
        "SELECT {COLUMNS} FROM seen WHERE seq >= ?1 AND seq < ?2 AND ({}) ORDER BY seq",
        comparisons.join(" OR ")
    );
    let values: Vec<_> = ids.iter().map(|id| (IdValue(id.bytes), TwinValue(id.bytes))).collect();
    let mut parameters: Vec<&dyn ToSql> = vec![&range.start, &range.end];
    // A twin is not to be passed over in silence.
    parameters.extend(values.iter().flat_map(|(value, twin)| [value as &dyn ToSql, twin]));
    let mut found = Found::new();
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(&*parameters)?;
    while let Some(row) = rows.next()? {
        let row = StoredRow::read(row)?;
        for (n, id) in ids.iter().enumerate() {
            if id.scope == row.scope && id.bytes == row.id {
                found.insert(n, row.clone());
            }
        }
    }
    Ok(found)
}

fn scan_by_hash(connection: &Connection, range: Range<i64>, ids: &[Id<'_>]) -> Read<Found> {
    let mut wanted: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (n, id) in ids.iter().enumerate() {
        wanted.entry(id.bytes).or_default().push(n);
    }
    let mut found = Found::new();
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM seen WHERE seq >= ?1 AND seq < ?2 ORDER BY seq"
    ))?;
    let mut rows = statement.query((range.start, range.end))?;
    while let Some(row) = rows.next()? {
        let Some(numbers) = wanted.get(id_bytes(row.get_ref(1)?)?) else { continue };
        let row = StoredRow::read(row)?;
        for &n in numbers {
            if ids[n].scope == row.scope {
                found.insert(n, row.clone());
            }
        }
    }
    Ok(found)
}

/// A census while it is taken.
struct Tally {
    census: Census,
    now_ms: i64,
    since_ms: i64,
    bucket_ms: i64,
}

impl Tally {
    fn marks(&mut self, connection: &Connection) -> Read<()> {
        let mut statement =
            connection.prepare("SELECT scope, first_seen, last_seen, expires_at FROM seen")?;
        let mut rows = statement.query([])?;
        // Rows of one scope mostly follow each other.
        let (mut scope, mut counts) = (String::new(), Counts::default());
        while let Some(row) = rows.next()? {
            let read = row.get_ref(0)?.as_str();
            let read = read.map_err(|_| ReadError::Content("a scope is not text"))?;
            if read.len() != scope.len() || !read.is_empty() && read != scope {
                self.add(&scope, std::mem::take(&mut counts));
                read.clone_into(&mut scope);
            }
            self.mark(&mut counts, row.get(1)?, row.get(2)?, row.get(3)?);
        }
        self.add(&scope, counts);
        Ok(())
    }

    fn mark(&mut self, counts: &mut Counts, first: i64, last: i64, expires_at: Option<i64>) {
        match expires_at {
            Some(0) => return, // A tombstone.
            Some(at) if at <= self.now_ms => {
                counts.expired += 1;
                return;
            }
            _ => counts.seen += 1,
        }
        let left_ms = expires_at.map_or(i64::MAX, |at| at.saturating_sub(self.now_ms));
        let census = &mut self.census;
        census.expiring_within_hour += u64::from(left_ms <= HOUR_MS);
        census.expiring_within_day += u64::from(left_ms <= 24 * HOUR_MS);
        let (first_seen, last_seen) = (from_ms(first), from_ms(last));
        census.oldest = Some(census.oldest.map_or(first_seen, |oldest| oldest.min(first_seen)));
        census.newest = Some(census.newest.map_or(last_seen, |newest| newest.max(last_seen)));
        let bucket = first.saturating_sub(self.since_ms).div_euclid(self.bucket_ms);
        if let Some(bucket) = usize::try_from(bucket).ok().and_then(|n| census.marks.get_mut(n)) {
            *bucket += 1;
        }
    }

    fn claims(&mut self, connection: &Connection) -> Read<()> {
        each_claim(connection, |place, claim| {
            let mut counts = Counts::default();
            match claim.state(self.now_ms) {
                State::InFlight => counts.in_flight = 1,
                State::Failed => counts.failed = 1,
                _ => counts.expired = 1,
            }
            self.add(&place.scope, counts);
        })
    }

    fn add(&mut self, scope: &str, counts: Counts) {
        if counts == Counts::default() {
            return;
        }
        match self.census.scopes.get_mut(scope) {
            Some(known) => known.add(&counts),
            None => drop(self.census.scopes.insert(scope.to_owned(), counts)),
        }
    }
}

fn each_claim(connection: &Connection, mut take: impl FnMut(&Place, ClaimRow)) -> Read<()> {
    let mut after = Place::default();
    loop {
        let page = claims::page(connection, &after, CLAIMS_PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = last.clone();
        for (place, claim) in page {
            take(&place, claim);
        }
    }
}

/// A row that is live even at `latest_ms` and that the index does not lead to stands beside a newer one
/// of its id.
fn compare_rows(
    connection: &Connection,
    index: &Index,
    hasher: &KeyHasher,
    latest_ms: i64,
    report: &mut Report,
) -> Read<()> {
    let mut statement =
        connection.prepare("SELECT seq, scope, id, expires_at FROM seen ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut keys = RowKeys::new(hasher);
    let mut wrong = 0;
    while let Some(row) = rows.next()? {
        let (seq, key, expires_at) = keys.read(row)?;
        report.rows += 1;
        let is_live = expires_at.is_none_or(|at| latest_ms < at);
        let leads_here = index.get(key).is_some_and(|slot| slot.seq == seq);
        if is_live && !leads_here {
            wrong += 1;
            if wrong <= MOST_PROBLEMS {
                report
                    .problems
                    .push(format!("row {seq} is live beside a newer row of the same id"));
            }
        }
    }
    Ok(())
}

/// A claim that has not expired even at `latest_ms` stands beside a live mark.
fn compare_claims(
    connection: &Connection,
    index: &Index,
    hasher: &KeyHasher,
    latest_ms: i64,
    report: &mut Report,
) -> Read<()> {
    let mut wrong = 0;
    each_claim(connection, |place, claim| {
        let scope = Scope::new(&place.scope, hasher);
        // A mark that had expired when the id was claimed seems to live again under a clock that was set
        // back far.
        let is_seen = scope.id(&place.id).is_ok_and(|id| {
            index
                .get(id.key)
                .is_some_and(|slot| slot.is_live(latest_ms) && slot.is_live(claim.claimed_at))
        });
        // Earlier versions left expired claims beside the marks that came after them.
        if is_seen && !claim.is_expired(latest_ms) {
            wrong += 1;
            if wrong <= MOST_PROBLEMS {
                report.problems.push(format!(
                    "{:?} in scope {:?} is claimed although it is seen",
                    String::from_utf8_lossy(&place.id),
                    place.scope
                ));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn what_changes_under_a_read_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let config = Config::default();
        let opened = connect::open(&path, &config, 1).unwrap();
        connect::close(opened.connection).unwrap();
        let mut onlooker = Onlooker::open(path.clone(), &config).unwrap();
        let mut reads = 0;
        let rows = onlooker.read(1, |connections| {
            reads += 1;
            if reads == 1 {
                // Whoever closes last brings the log into the file.
                let writer = Connection::open(&path)?;
                writer.execute(
                    "INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)",
                    [],
                )?;
                writer.close().map_err(|(_, e)| e)?;
            }
            let count = connections[0].query_row("SELECT count(*) FROM seen", [], |row| row.get(0));
            Ok(count?)
        });
        assert_eq!((rows.unwrap(), reads), (1_i64, 2));
    }

    /// A store whose log was left by a killed program in exclusive mode, and its path.
    fn left_in_exclusive_mode() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        let opened = connect::open(&path, &Config::default().exclusive(true), 1).unwrap();
        opened
            .connection
            .execute("INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)", [])
            .unwrap();
        connect::spare_log(&opened.connection).unwrap();
        connect::close(opened.connection).unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            2,
            "the database and its log"
        );
        (folder, path)
    }

    fn count(connection: &Connection) -> Read<i64> {
        Ok(connection.query_row("SELECT count(*) FROM seen", [], |row| row.get(0))?)
    }

    /// Lets others come while a reader reads alone, for longer than it takes to tell that a store in
    /// exclusive mode has the file: none of them may have an answer by then.
    fn beside_a_long_read<T: Send + std::fmt::Debug + 'static>(
        others: Vec<Box<dyn FnOnce() -> Result<T> + Send>>,
        path: PathBuf,
    ) -> Vec<Result<T>> {
        let (tell, told) = std::sync::mpsc::channel();
        let mut others = Some(others);
        let mut onlooker =
            Onlooker { path, config: Config::default(), opened: None, reached_ms: None };
        let rows = onlooker.read(1, |connections| {
            for other in others.take().into_iter().flatten() {
                let tell = tell.clone();
                thread::spawn(move || tell.send(other()));
            }
            if let Ok(answer) = told.recv_timeout(std::time::Duration::from_millis(400)) {
                panic!("an answer while another reads alone: {answer:?}");
            }
            count(connections[0])
        });
        assert_eq!(rows.unwrap(), 1);
        drop(tell);
        told.iter().collect()
    }

    #[test]
    fn who_opens_a_store_while_a_reader_reads_alone_waits_for_it() {
        let (_folder, path) = left_in_exclusive_mode();
        let open = |config: Config| -> Box<dyn FnOnce() -> Result<()> + Send> {
            let path = path.clone();
            Box::new(move || connect::open(&path, &config, 1).map(drop))
        };
        let others = vec![
            open(Config::default()),
            open(Config::default()),
            open(Config::default().read_only(true)),
        ];
        let answers = beside_a_long_read(others, path.clone());
        assert!(answers.len() == 3 && answers.iter().all(Result::is_ok), "{answers:?}");
    }

    #[test]
    fn a_second_reader_waits_for_the_one_that_reads_alone() {
        let (_folder, path) = left_in_exclusive_mode();
        let read = || -> Box<dyn FnOnce() -> Result<i64> + Send> {
            let path = path.clone();
            Box::new(move || Onlooker::open(path, &Config::default())?.read(1, |all| count(all[0])))
        };
        let answers = beside_a_long_read(vec![read(), read()], path.clone());
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_reader_that_was_to_read_alone_looks_again_when_a_store_has_come() {
        let (_folder, path) = left_in_exclusive_mode();
        let config = Config::default();
        let look = Look::at(&path).unwrap();
        assert!(look.keeps_others_out());
        let store = connect::open(&path, &config, 1).unwrap();
        assert!(open(&path, &config, look).unwrap().is_none());
        let mut onlooker = Onlooker::open(path, &config).unwrap();
        assert_eq!(onlooker.read(1, |all| count(all[0])).unwrap(), 1);
        drop(store);
    }

    #[test]
    fn a_store_in_exclusive_mode_still_keeps_readers_and_stores_out_at_once() {
        let (_folder, path) = left_in_exclusive_mode();
        let store = connect::open(&path, &Config::default().exclusive(true), 1).unwrap();
        let waited = crate::clock::Stopwatch::start();
        let config = Config::default();
        for error in [
            Onlooker::open(path.clone(), &config).err().unwrap(),
            connect::open(&path, &config, 1).err().unwrap(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Busy);
            assert!(error.to_string().contains("exclusive mode"), "{error}");
        }
        assert!(waited.elapsed() < config.busy_timeout / 3);
        drop(store);
    }

    #[test]
    fn a_restore_between_two_views_of_one_read_makes_it_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let [path, backup] =
            ["seen.db", "b.db"].map(|name| folder.path().canonicalize().unwrap().join(name));
        let config = Config::default();
        let store = connect::open(&path, &config, 1).unwrap();
        store.connection.execute("VACUUM INTO ?1", [backup.to_str()]).unwrap();
        store
            .connection
            .execute("INSERT INTO seen (id, first_seen, last_seen) VALUES ('a', 1, 1)", [])
            .unwrap();
        let mut onlooker = Onlooker::open(path.clone(), &config).unwrap();
        let mut reads = 0;
        let read = onlooker.read(SCANNERS, |connections| {
            reads += 1;
            let [one, two] = connections else { panic!("two connections") };
            let one = Moment::begin(one)?;
            if reads == 1 {
                let mut target = Connection::open(&path)?;
                target.restore("main", &backup, None::<fn(_)>)?;
            }
            of_one_history(&[one, Moment::begin(two)?])
        });
        assert_eq!((read.is_ok(), reads), (true, 2));
    }

    #[test]
    fn ranges_cover_the_table_without_an_overlap() {
        for (first, last, parts) in [(1, 1, 2), (1, 2, 2), (5, 10_000_000, 2), (1, 7, 3)] {
            let ranges = ranges(first, last, parts);
            assert_eq!((ranges[0].start, ranges[parts - 1].end), (first, i64::MAX));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{ranges:?}");
        }
    }
}
