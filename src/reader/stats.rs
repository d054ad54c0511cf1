//! What is in the file, counted in one scan.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::Reader;
use super::access::{FileReader, Snapshot, Read, for_each_claim};
use crate::clock::{duration_ms, from_ms};
use crate::entry::State;
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::index::estimated_bytes;
use crate::journal::load::ReadError;

const HOUR_MS: i64 = 3_600_000;

/// How many ids are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// How many are seen.
    pub seen: u64,
    /// How many are claimed and in flight.
    pub in_flight: u64,
    /// How many failed in their last attempt and may be claimed again.
    pub failed: u64,
    /// How many marks and claims are no longer in force and not purged yet. An id that was marked
    /// again since counts here too.
    pub expired: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, more: &Self) {
        self.seen += more.seen;
        self.in_flight += more.in_flight;
        self.failed += more.failed;
        self.expired += more.expired;
    }
}

/// What a store's file holds, counted at one snapshot by a [`Reader`](crate::Reader).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// The counts of each scope that has any.
    pub scopes: BTreeMap<String, Counts>,
    /// The earliest time that an id now seen was first seen at.
    pub oldest: Option<SystemTime>,
    /// The latest time that an id now seen was last seen at.
    pub newest: Option<SystemTime>,
    /// How many ids stop being seen within an hour.
    pub expiring_within_hour: u64,
    /// How many ids stop being seen within 24 hours, those within the hour among them.
    pub expiring_within_day: u64,
    /// How many of the ids now seen were first seen in each bucket of the time that was asked for, the
    /// earliest first.
    pub marks: Vec<u64>,
    /// When a purge last removed something from the file, by any process.
    pub last_purge_at: Option<SystemTime>,
    /// Size of the database file, in bytes.
    pub file_bytes: u64,
    /// Size of the write-ahead log, in bytes.
    pub wal_bytes: u64,
    /// About how much memory the index of a store on this file takes, in bytes.
    pub index_bytes: u64,
}

impl Census {
    /// The counts of all scopes together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.scopes.values() {
            total.add(counts);
        }
        total
    }
}

impl Reader {
    /// Counts everything in one scan of about 0.2 µs an id. `buckets` buckets of the time from `since`
    /// until now tell when the ids that are seen now were first seen.
    ///
    /// # Errors
    ///
    /// What reading the file can meet, [`Busy`](crate::ErrorKind::Busy) as for
    /// [`is_seen`](Self::is_seen), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for no
    /// buckets.
    pub fn census(&self, since: Duration, buckets: usize) -> Result<Census> {
        let mut access = self.access()?;
        let now_ms = self.now_ms(&mut access)?;
        let Some(count) = i64::try_from(buckets).ok().filter(|&count| count > 0) else {
            return Err(Error::new(ErrorKind::InvalidConfig, "a census needs a bucket or more"));
        };
        let since_ms = duration_ms(since).min(now_ms).max(count);
        // Rounded up, and counted back from now: the present snapshot lies in the last bucket.
        let bucket_ms = (since_ms + count - 1) / count;
        let start_ms = now_ms + 1 - bucket_ms * count;
        access.census(now_ms, start_ms, bucket_ms, buckets)
    }
}

impl FileReader {
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
            let snapshot = Snapshot::begin(connections[0])?;
            let census = Census { marks: vec![0; buckets], ..Census::default() };
            let mut tally = Tally { census, now_ms, since_ms, bucket_ms };
            tally.marks(snapshot.0)?;
            tally.claims(snapshot.0)?;
            let last_purge_ms: i64 = snapshot.0.query_row(
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
        for_each_claim(connection, |place, claim| {
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
