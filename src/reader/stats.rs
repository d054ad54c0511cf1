//! File statistics, counted in one scan.
//!
//! Owns the counts by scope and state, and the buckets by time. What always holds: all counts are of one snapshot;
//! the sizes of the files are read after it. What has expired counts as expired, whether or not a purge has run; a
//! tombstone counts as nothing. Must not know how the figures are shown, and builds no index: it estimates its
//! size.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::Reader;
use super::access::{FileReader, Read, Snapshot, for_each_claim};
use crate::clock::{ABSORBED_STEP_MS, duration_ms, from_ms};
use crate::entry::Counts;
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::index::estimated_bytes;
use crate::journal::load::ReadError;

const HOUR_MS: i64 = 3_600_000;

/// What a store's file holds at one moment, counted by [`Reader::stats`](crate::Reader::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct FileStats {
    /// The counts of each scope that has entries.
    pub scopes: BTreeMap<String, Counts>,
    /// The earliest time at which an id that is now seen was first seen.
    #[cfg_attr(feature = "serde", serde(with = "crate::texts::optional_time"))]
    pub oldest: Option<SystemTime>,
    /// The latest time at which an id that is now seen was last seen.
    #[cfg_attr(feature = "serde", serde(with = "crate::texts::optional_time"))]
    pub newest: Option<SystemTime>,
    /// The latest time at which anything that the file holds was seen or claimed, expired or not.
    #[cfg_attr(feature = "serde", serde(with = "crate::texts::optional_time"))]
    pub latest: Option<SystemTime>,
    /// The number of ids that are now seen whose times lie more than a minute in the future: the clock was ahead then,
    /// or is behind now. They stay seen for longer than their time to live.
    pub marks_in_future: u64,
    /// The number of claims in flight that were made more than a minute in the future. They stay in flight for longer
    /// than their lease.
    pub leases_in_future: u64,
    /// The number of ids that stop being seen within an hour.
    pub expiring_within_hour: u64,
    /// The number of ids that stop being seen within 24 hours, including those within an hour.
    pub expiring_within_day: u64,
    /// The number of ids that are now seen by the time when they were first seen: one number for each bucket
    /// that was asked for, the earliest bucket first.
    pub marks: Vec<u64>,
    /// When a purge by any process last removed something from the file.
    #[cfg_attr(feature = "serde", serde(with = "crate::texts::optional_time"))]
    pub last_purge_at: Option<SystemTime>,
    /// The size of the database file, in bytes.
    pub file_bytes: u64,
    /// The size of the write-ahead log, in bytes.
    pub wal_bytes: u64,
    /// The approximate memory of the index of a store on this file, in bytes, once it is [awake](crate::IndexMode).
    pub index_bytes: u64,
}

impl FileStats {
    /// Returns the counts of all scopes together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.scopes.values() {
            total.add(counts);
        }
        total
    }
}

impl Reader {
    /// Counts what the file holds, in one scan of about 0.2 µs for each id. The time from `since` ago until
    /// now is divided into `buckets` buckets of equal length; [`FileStats::marks`] tells how many of the ids
    /// that are now seen were first seen in each.
    ///
    /// ```
    /// use seen_store::{Reader, SeenStore};
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// SeenStore::open(&path)?.seed(["a", "b"])?;
    /// let stats = Reader::open(&path)?.stats(Duration::from_secs(3600), 60)?;
    /// assert_eq!(stats.total().seen, 2);
    /// assert_eq!(stats.marks.iter().sum::<u64>(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) when
    /// `buckets` is 0.
    pub fn stats(&self, since: Duration, buckets: usize) -> Result<FileStats> {
        let mut access = self.access()?;
        let now_ms = self.now_ms(&mut access)?;
        let Some(count) = i64::try_from(buckets).ok().filter(|&count| count > 0) else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the marks need at least one bucket; give 1 or more",
            ));
        };
        let since_ms = duration_ms(since).min(now_ms).max(count);
        // Rounded up, and counted back from now, so that the present moment is in the last bucket.
        let bucket_ms = (since_ms + count - 1) / count;
        let start_ms = now_ms + 1 - bucket_ms * count;
        access.stats(now_ms, start_ms, bucket_ms, buckets)
    }
}

impl FileReader {
    /// Counts what the file holds in one scan. Marks are counted by when they were first seen, in buckets of
    /// `bucket_ms` from `since_ms` on.
    pub(crate) fn stats(
        &mut self,
        now_ms: i64,
        since_ms: i64,
        bucket_ms: i64,
        buckets: usize,
    ) -> Result<FileStats> {
        let mut stats = self.read(1, |connections| {
            let snapshot = Snapshot::begin(connections[0])?;
            let stats = FileStats { marks: vec![0; buckets], ..FileStats::default() };
            let mut tally = Tally { stats, now_ms, since_ms, bucket_ms };
            tally.marks(snapshot.0)?;
            tally.claims(snapshot.0)?;
            let last_purge_ms: i64 = snapshot.0.query_row(
                "SELECT value FROM meta WHERE key = 'last_purge_at'",
                [],
                |row| row.get(0),
            )?;
            tally.stats.last_purge_at = (last_purge_ms > 0).then(|| from_ms(last_purge_ms));
            Ok(tally.stats)
        })?;
        stats.file_bytes = file::bytes(&self.path);
        stats.wal_bytes = file::wal_bytes(&self.path);
        stats.index_bytes = estimated_bytes(stats.total().seen);
        Ok(stats)
    }
}

/// Statistics that are being counted.
struct Tally {
    stats: FileStats,
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

    fn is_in_future(&self, ms: i64) -> bool {
        ms > self.now_ms.saturating_add(ABSORBED_STEP_MS)
    }

    fn note(&mut self, ms: i64) {
        let latest = self.stats.latest;
        self.stats.latest = Some(latest.map_or(from_ms(ms), |latest| latest.max(from_ms(ms))));
    }

    fn mark(&mut self, counts: &mut Counts, first: i64, last: i64, expires_at: Option<i64>) {
        self.note(last);
        match expires_at {
            Some(0) => return, // A tombstone.
            Some(at) if at <= self.now_ms => {
                counts.expired += 1;
                return;
            }
            _ => counts.seen += 1,
        }
        self.stats.marks_in_future += u64::from(self.is_in_future(last));
        let left_ms = expires_at.map_or(i64::MAX, |at| at.saturating_sub(self.now_ms));
        let stats = &mut self.stats;
        stats.expiring_within_hour += u64::from(left_ms <= HOUR_MS);
        stats.expiring_within_day += u64::from(left_ms <= 24 * HOUR_MS);
        let (first_seen, last_seen) = (from_ms(first), from_ms(last));
        stats.oldest = Some(stats.oldest.map_or(first_seen, |oldest| oldest.min(first_seen)));
        stats.newest = Some(stats.newest.map_or(last_seen, |newest| newest.max(last_seen)));
        let bucket = first.saturating_sub(self.since_ms).div_euclid(self.bucket_ms);
        if let Some(bucket) = usize::try_from(bucket).ok().and_then(|n| stats.marks.get_mut(n)) {
            *bucket += 1;
        }
    }

    fn claims(&mut self, connection: &Connection) -> Read<()> {
        for_each_claim(connection, |place, claim| {
            let mut counts = Counts::default();
            counts.add_one(claim.state(self.now_ms));
            self.note(claim.claimed_at);
            self.stats.leases_in_future +=
                u64::from(claim.is_in_flight(self.now_ms) && self.is_in_future(claim.claimed_at));
            self.add(&place.scope, counts);
            Ok(())
        })
    }

    fn add(&mut self, scope: &str, counts: Counts) {
        if counts == Counts::default() {
            return;
        }
        match self.stats.scopes.get_mut(scope) {
            Some(known) => known.add(&counts),
            None => drop(self.stats.scopes.insert(scope.to_owned(), counts)),
        }
    }
}
