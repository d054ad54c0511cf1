//! What the verbs answer.
//!
//! Owns the public result types and their words. Plain values: nothing here refers to a store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::error::Error;

/// What [`check_and_mark`](crate::SeenStore::check_and_mark) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a verdict says whether to act; marking without looking at it is `mark_seen`"]
#[non_exhaustive]
pub enum Verdict {
    /// Not seen before, or expired since: it is marked now, and the caller is the one to handle it.
    New,
    /// Seen before, by whomever. Nothing was changed.
    Duplicate,
    /// Claimed by a worker that has neither confirmed nor given it back. Nothing was changed.
    InFlight,
}

/// What has become of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Marked or confirmed, and not expired.
    Seen,
    /// Claimed, and the lease runs.
    InFlight,
    /// An attempt failed and none has succeeded since; it may be claimed again.
    Failed,
    /// No longer in force and not purged yet: a mark past its expiry, or a claim that was released or
    /// whose lease ran out.
    Expired,
}

/// What a store knows of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The scope that the id lives in.
    pub scope: String,
    /// The id, byte for byte.
    pub id: Vec<u8>,
    /// What has become of it.
    pub state: State,
    /// The earliest time it was marked with; of a claim, when it was claimed.
    pub first_seen: SystemTime,
    /// The latest time it was marked with or, in a sliding window, seen at: up to a sixteenth of the
    /// TTL behind. Of a claim, when it was claimed.
    pub last_seen: SystemTime,
    /// When it stops being seen, or the claim's attempts are forgotten; `None` is never.
    pub expires_at: Option<SystemTime>,
    /// While it is in flight, when the lease ends; after a failure, when it may be claimed again.
    pub lease_until: Option<SystemTime>,
    /// How often it was claimed; 0 for one that was only marked.
    pub attempts: u32,
    /// Why the last failed attempt failed.
    pub last_error: Option<String>,
    /// What was stored when it was confirmed.
    pub receipt: Option<Vec<u8>>,
    /// How many duplicates were turned away by `check_and_mark` and `claim`. Best effort: a crash loses what was
    /// counted since the last flush, and counts of other processes show once they have flushed.
    pub suppressed: u64,
}

impl Entry {
    /// An id that was seen once, at `seen_at`, and is never to expire. Set the fields that are to be
    /// otherwise, and [`restore`](crate::SeenStore::restore) it.
    pub fn new(scope: impl Into<String>, id: impl Into<Vec<u8>>, seen_at: SystemTime) -> Self {
        Self {
            scope: scope.into(),
            id: id.into(),
            state: State::Seen,
            first_seen: seen_at,
            last_seen: seen_at,
            expires_at: None,
            lease_until: None,
            attempts: 0,
            last_error: None,
            receipt: None,
            suppressed: 0,
        }
    }
}

/// What [`restore`](crate::SeenStore::restore) did.
#[derive(Clone, Debug, Default)]
#[must_use = "entries that were refused are not in the store"]
#[non_exhaustive]
pub struct Restored {
    /// How many entries were of ids that the store did not know.
    pub added: u64,
    /// How many told more of an id than was known.
    pub changed: u64,
    /// How many told nothing new.
    pub unchanged: u64,
    /// How many had expired and were left out.
    pub expired: u64,
    /// Those that the store cannot take, each with the reason.
    pub refused: Vec<Refused>,
}

/// An entry that [`restore`](crate::SeenStore::restore) left out because the store cannot take it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refused {
    /// Its scope.
    pub scope: String,
    /// Its id, as it was given.
    pub id: Vec<u8>,
    /// What is wrong with it, or with what the store holds of the id.
    pub error: Error,
}

impl std::ops::AddAssign for Restored {
    fn add_assign(&mut self, more: Self) {
        self.added += more.added;
        self.changed += more.changed;
        self.unchanged += more.unchanged;
        self.expired += more.expired;
        self.refused.extend(more.refused);
    }
}

/// Figures of a store at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many ids are seen, in all scopes.
    pub seen: u64,
    /// How many ids are claimed and in flight.
    pub in_flight: u64,
    /// How many ids failed in their last attempt and may be claimed again.
    pub failed: u64,
    /// How many expired ids still take up memory, to be swept by the next purge.
    pub expired: u64,
    /// Memory of the index, in bytes.
    pub memory_bytes: u64,
    /// Size of the database file, in bytes; 0 in memory.
    pub file_bytes: u64,
    /// Size of the write-ahead log, in bytes.
    pub wal_bytes: u64,
    /// When a purge last removed something from the file, by any process.
    pub last_purge_at: Option<SystemTime>,
    /// How often `is_seen` answered false because of an error, through this store's handles.
    pub failed_open: u64,
    /// How often this store had to rebuild its index: the file was restored in place, or another program
    /// compacted it or deleted rows.
    pub rebuilds: u64,
}

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

/// What a store's file holds, counted at one moment by a [`Reader`](crate::Reader).
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

/// What SQLite says of itself and of a store's file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Such as `3.51.3`.
    pub sqlite_version: String,
    /// The options that SQLite was compiled with.
    pub sqlite_options: Vec<String>,
    /// How many pages the file has.
    pub pages: u64,
    /// How many of them are free, to be used by later marks.
    pub free_pages: u64,
    /// The settings that a store with this configuration works with. `journal_mode` is `off` where the
    /// file was read without its empty log.
    pub pragmas: Pragmas,
}

/// The settings that SQLite says are in force, read back from it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pragmas {
    /// `wal`, or `memory` for a store in memory.
    pub journal_mode: String,
    /// 1 is NORMAL, 2 is FULL.
    pub synchronous: i64,
    /// Pages when positive, KiB when negative.
    pub cache_size: i64,
    /// 2 is MEMORY.
    pub temp_store: i64,
    /// How long a call waits for other processes. The store does the waiting, not SQLite, so that it
    /// can let its own threads go on meanwhile.
    pub busy_timeout: Duration,
    /// Pages of log after which a commit checkpoints.
    pub wal_autocheckpoint: i64,
    /// Bytes that a log is cut to after a checkpoint.
    pub journal_size_limit: i64,
    /// 0: memory mapping is off.
    pub mmap_size: i64,
    /// `normal` or `exclusive`.
    pub locking_mode: String,
    /// Bytes a page.
    pub page_size: i64,
    /// `0x5345454E`, "SEEN".
    pub application_id: i64,
    /// The version of the file format.
    pub user_version: i64,
}

/// What opening a store made of a file in the older format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upgrade {
    /// How many ids were taken over, those included that have expired.
    pub kept: u64,
    /// How many rows had no valid id (NULL, empty or longer than 65,536 bytes) and were left out.
    pub skipped: u64,
    /// How many of the ids had no valid timestamp and count as seen at the upgrade.
    pub undated: u64,
    /// Where the file is kept as it was.
    pub copy: PathBuf,
}

/// What [`verify`](crate::SeenStore::verify) found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many rows were compared with the index.
    pub rows: u64,
    /// One sentence for each thing that is wrong.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}
