//! What the tests of the library share: a place for a store, a clock to step, and a view of the file
//! that does not go through the crate.
#![allow(dead_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use rusqlite::types::Value;
use seen_store::{Config, ManualClock, SeenStore};
use tempfile::TempDir;

/// A folder of its own for one test, with the path of a store in it. Gone when the test ends.
pub(crate) struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// A place whose syncs cost nothing, where the system has one: for tests that open thousands of
    /// stores and are not about what reaches the disk.
    pub(crate) fn in_ram() -> Self {
        let shm = Path::new("/dev/shm");
        if shm.is_dir() { Self::within(shm) } else { Self::new() }
    }

    fn within(parent: &Path) -> Self {
        let folder = tempfile::tempdir_in(parent).unwrap();
        let path = folder.path().canonicalize().unwrap().join("seen.db");
        Self { folder, path }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The store's neighbour, such as its `-wal`.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        name.into()
    }

    pub(crate) fn open(&self, config: Config) -> SeenStore {
        SeenStore::open_with(&self.path, config).unwrap()
    }

    /// A plain connection to the file. (Never read an open store's file by other means than SQLite:
    /// closing the descriptor would cancel the locks of every connection of this process.)
    pub(crate) fn sql(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    /// The names of all files in the folder, in order.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A clock and the settings of a store that reads it.
pub(crate) fn clock_and_config() -> (Arc<ManualClock>, Config) {
    let clock = Arc::new(ManualClock::default());
    (clock.clone(), Config::default().clock(clock))
}

/// A store that reads the returned clock, with marks that last `ttl`.
pub(crate) fn manual_store(place: &Place, ttl: Duration) -> (Arc<ManualClock>, SeenStore) {
    let (clock, config) = clock_and_config();
    (clock, place.open(config.ttl(ttl)))
}

/// A store in memory whose marks last a minute.
pub(crate) fn minute_store() -> (Arc<ManualClock>, SeenStore) {
    let (clock, config) = clock_and_config();
    (clock, SeenStore::in_memory_with(config.ttl(secs(60))).unwrap())
}

/// One row of the journal as the file holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JournalRow {
    pub(crate) seq: i64,
    pub(crate) scope: String,
    pub(crate) id: Value,
    pub(crate) first_seen: i64,
    pub(crate) last_seen: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) duplicates: i64,
}

pub(crate) fn rows(connection: &Connection) -> Vec<JournalRow> {
    connection
        .prepare_cached(
            "SELECT seq, scope, id, first_seen, last_seen, expires_at, duplicates FROM seen \
             ORDER BY seq",
        )
        .unwrap()
        .query_map([], |row| {
            Ok(JournalRow {
                seq: row.get(0)?,
                scope: row.get(1)?,
                id: row.get(2)?,
                first_seen: row.get(3)?,
                last_seen: row.get(4)?,
                expires_at: row.get(5)?,
                duplicates: row.get(6)?,
            })
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The rows that are marks, not tombstones.
pub(crate) fn marks(connection: &Connection) -> Vec<JournalRow> {
    rows(connection).into_iter().filter(|row| row.expires_at != Some(0)).collect()
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Unix milliseconds, also before 1970.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap(),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap(),
    }
}
