//! A store whose marks last a day, on a clock that the test steps, and what looks at its file from outside.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use rusqlite::types::Value;
use seen_store::{
    Claim, Clock as _, Config, Entry, Error, ErrorKind, Lease, ManualClock, Result, SeenStore,
    Token,
};

use crate::common::{Place, clock_and_config};

pub(crate) const LEASE: Duration = Duration::from_secs(60);
pub(crate) const TTL: Duration = Duration::from_secs(24 * 3_600);

/// A store on a file, with marks that last a day, and what looks at it from outside.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) config: Config,
    pub(crate) store: SeenStore,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|config| config)
    }

    pub(crate) fn with(set: impl FnOnce(Config) -> Config) -> Self {
        let place = Place::in_ram();
        let (clock, config) = clock_and_config();
        let config = set(config.ttl(TTL));
        let store = place.open(config.clone());
        Self { place, clock, config, store }
    }

    pub(crate) fn claim(&self, id: &str) -> Claim {
        self.store.claim(id, LEASE).unwrap()
    }

    pub(crate) fn granted(&self, id: &str) -> Lease {
        granted(self.claim(id))
    }

    /// A claim whose lease has run out, and the lease of whoever took the id over.
    pub(crate) fn taken_over(&self, id: &str) -> (Lease, Lease) {
        let stale = self.granted(id);
        self.clock.advance(LEASE);
        (stale, self.granted(id))
    }

    pub(crate) fn entry(&self, id: &str) -> Entry {
        self.store.get(id).unwrap().unwrap()
    }

    pub(crate) fn after(&self, time: Duration) -> SystemTime {
        self.clock.now() + time
    }

    /// All that the file holds, by a connection of its own.
    pub(crate) fn file(&self) -> Vec<Vec<Value>> {
        tables(&self.place.sql())
    }

    /// How many commits the log holds: its frames that end one. Right until a checkpoint. (The locks
    /// are on other files: this one may be opened beside SQLite.)
    pub(crate) fn commits(&self) -> usize {
        let wal = fs::read(self.place.beside("-wal")).unwrap();
        let frames = wal[32..].chunks_exact(24 + 1_024);
        frames
            .filter(|frame| frame[8..16] == wal[16..24])
            .filter(|frame| frame[4..8] != [0; 4])
            .count()
    }
}

pub(crate) fn tables(connection: &Connection) -> Vec<Vec<Value>> {
    ["SELECT * FROM seen ORDER BY seq", "SELECT * FROM claims ORDER BY scope, id"]
        .into_iter()
        .flat_map(|sql| {
            let mut statement = connection.prepare(sql).unwrap();
            let columns = 0..statement.column_count();
            let rows = statement
                .query_map([], |row| columns.clone().map(|column| row.get(column)).collect())
                .unwrap();
            rows.collect::<Result<Vec<_>, _>>().unwrap()
        })
        .collect()
}

pub(crate) fn claim_rows(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap()
}

#[track_caller]
pub(crate) fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Granted(lease) => lease,
        other => panic!("not granted but {other:?}"),
    }
}

#[track_caller]
pub(crate) fn until(claim: &Claim) -> SystemTime {
    match claim {
        Claim::InFlight { until, .. } => *until,
        other => panic!("not in flight but {other:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_seen(claim: &Claim) {
    assert!(matches!(claim, Claim::Seen(_)), "{claim:?}");
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}

#[track_caller]
pub(crate) fn assert_lost(result: Result<()>) {
    assert_kind(result, ErrorKind::LeaseLost);
}

/// Each verb of a holder, through its lease and through its token.
pub(crate) type Verb =
    (&'static str, fn(&mut Lease) -> Result<()>, fn(&SeenStore, &str, &Token) -> Result<()>);
pub(crate) const VERBS: [Verb; 5] = [
    ("confirm", Lease::confirm, |store, id, token| store.confirm(id, token)),
    (
        "confirm_with",
        |lease| lease.confirm_with("r"),
        |store, id, t| store.confirm_with(id, t, "r"),
    ),
    ("renew", |lease| lease.renew(LEASE), |store, id, token| store.renew(id, token, LEASE)),
    ("release", Lease::release, |store, id, token| store.release(id, token)),
    ("fail", |lease| lease.fail("why"), |store, id, token| store.fail(id, token, "why")),
];

const _: () = {
    const fn can_be_sent<T: Send>() {}
    can_be_sent::<Claim>();
    can_be_sent::<Lease>();
};
