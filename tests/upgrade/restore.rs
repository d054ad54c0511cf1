//! Entries that are taken over from elsewhere meet what is known already.

use std::time::{Duration, SystemTime};

use seen_store::{
    Claim, Clock as _, Config, Entry, ErrorKind, Filter, LegacyFile, RestoreSummary, SeenStore,
    State, Ttl,
};

use crate::common::{Place, clock_and_config};

const HOUR: Duration = Duration::from_secs(3_600);

struct Bench {
    place: Place,
    store: SeenStore,
    now: SystemTime,
    clock: std::sync::Arc<seen_store::ManualClock>,
    config: Config,
}

impl Bench {
    fn new() -> Self {
        let place = Place::in_ram();
        let (clock, config) = clock_and_config();
        let config = config.ttl(HOUR);
        let store = place.open(config.clone());
        Self { store, now: clock.now(), clock, place, config }
    }

    fn restore(&self, entry: Entry) -> RestoreSummary {
        self.store.restore([entry]).unwrap()
    }

    /// The same where it cannot be refused.
    fn bring(&self, entry: Entry) {
        assert_eq!(refusals(&self.restore(entry)), []);
    }

    fn get(&self, id: &str) -> Entry {
        self.store.get(id).unwrap().unwrap()
    }

    fn seen(&self, id: &str, ago: Duration, left: Duration) -> Entry {
        let mut entry = Entry::new("", id, self.now - ago);
        entry.expires_at = Some(self.now + left);
        entry
    }

    fn claimed(&self, id: &str, state: State, left: Duration) -> Entry {
        let mut entry = self.seen(id, Duration::ZERO, 3 * HOUR);
        (entry.state, entry.lease_until, entry.attempts) = (state, Some(self.now + left), 2);
        entry
    }
}

/// How many entries met each fate, if none was refused.
#[track_caller]
fn counts(restored: &RestoreSummary) -> [u64; 4] {
    assert_eq!(refusals(restored), []);
    [restored.added, restored.changed, restored.unchanged, restored.expired]
}

fn refusals(restored: &RestoreSummary) -> Vec<(&[u8], ErrorKind)> {
    restored.refused.iter().map(|refused| (&*refused.id, refused.error.kind())).collect()
}

#[test]
fn an_entry_is_restored_as_it_was_listed_whatever_the_handle() {
    let bench = Bench::new();
    let mut entry = Entry::new("scope", b"\xff\0".as_slice(), bench.now - HOUR);
    entry.last_seen = bench.now;
    (entry.duplicates, entry.attempts) = (7, 3);
    (entry.last_error, entry.receipt) = (Some("once".into()), Some(vec![0, 1]));
    let handle = bench.store.scope("other").ttl(Duration::from_secs(1));
    assert_eq!(counts(&handle.restore([entry.clone()]).unwrap()), [1, 0, 0, 0]);
    let listed: Vec<_> = bench.store.entries(Filter::default()).collect::<Result<_, _>>().unwrap();
    assert_eq!(listed, [entry.clone()]);
    let reopened = bench.place.open(bench.config.clone());
    assert_eq!(reopened.scope("scope").get(b"\xff\0").unwrap(), Some(entry));
}

#[test]
fn the_same_again_changes_nothing_and_counts_nothing_twice() {
    let bench = Bench::new();
    let mut entry = bench.seen("a", HOUR, HOUR);
    entry.duplicates = 5;
    let failed = bench.claimed("f", State::Failed, Duration::ZERO);
    let in_flight = bench.claimed("i", State::InFlight, HOUR);
    let all = [entry, failed, in_flight];
    assert_eq!(counts(&bench.store.restore(all.clone()).unwrap()), [3, 0, 0, 0]);
    let before: Vec<_> = ["a", "f", "i"].map(|id| bench.get(id)).into();
    let rows = || -> i64 {
        bench.place.sql().query_row("SELECT max(seq) FROM seen", [], |row| row.get(0)).unwrap()
    };
    let row = rows();
    assert_eq!(counts(&bench.store.restore(all).unwrap()), [0, 0, 3, 0]);
    assert_eq!(["a", "f", "i"].map(|id| bench.get(id)), before[..]);
    assert_eq!(rows(), row, "nothing is written for what is known");
}

#[test]
fn a_mark_that_meets_a_mark_takes_the_widest_times_and_the_largest_counts() {
    let bench = Bench::new();
    let mut known = bench.seen("a", HOUR, 2 * HOUR);
    (known.duplicates, known.receipt) = (4, Some(b"known".to_vec()));
    bench.bring(known);
    let _ = bench.store.check_and_mark("a").unwrap(); // one more, not written down yet
    let mut brought = bench.seen("a", 2 * HOUR, HOUR);
    (brought.last_seen, brought.duplicates, brought.attempts) = (bench.now, 3, 1);
    (brought.last_error, brought.receipt) = (Some("new".into()), Some(b"brought".to_vec()));
    assert_eq!(counts(&bench.restore(brought.clone())), [0, 1, 0, 0]);
    let merged = bench.get("a");
    assert_eq!(merged.first_seen, bench.now - 2 * HOUR);
    assert_eq!(merged.last_seen, bench.now);
    assert_eq!(merged.expires_at, Some(bench.now + 2 * HOUR));
    assert_eq!((merged.duplicates, merged.attempts), (5, 1));
    assert_eq!(merged.last_error.as_deref(), Some("new"));
    assert_eq!(merged.receipt.as_deref(), Some(&b"known"[..]));
    brought.expires_at = None;
    assert_eq!(counts(&bench.restore(brought)), [0, 1, 0, 0]);
    assert_eq!(bench.get("a").expires_at, None);
    assert_eq!(counts(&bench.restore(bench.seen("a", HOUR, HOUR))), [0, 0, 1, 0]);
    assert_eq!(bench.get("a").expires_at, None);
}

#[test]
fn what_has_expired_is_left_out() {
    let bench = Bench::new();
    assert_eq!(counts(&bench.restore(bench.seen("a", HOUR, Duration::ZERO))), [0, 0, 0, 1]);
    let mut ended = bench.claimed("c", State::Expired, Duration::ZERO);
    ended.expires_at = Some(bench.now);
    assert_eq!(counts(&bench.restore(ended)), [0, 0, 0, 1]);
    assert_eq!(bench.store.get("a").unwrap(), None);
    assert_eq!(bench.store.get("c").unwrap(), None);
    let mut last = bench.seen("b", HOUR, Duration::from_millis(1));
    assert_eq!(counts(&bench.restore(last.clone())), [1, 0, 0, 0]);
    // 0 would be a tombstone in the file.
    last.expires_at = Some(SystemTime::UNIX_EPOCH);
    assert_eq!(counts(&bench.restore(last)), [0, 0, 0, 1]);
}

#[test]
fn a_claim_in_flight_comes_without_its_holder_and_ends_with_its_lease() {
    let bench = Bench::new();
    bench.bring(bench.claimed("a", State::InFlight, HOUR));
    assert_eq!(bench.get("a").state, State::InFlight);
    assert!(matches!(bench.store.claim("a", HOUR).unwrap(), Claim::InFlight { .. }));
    bench.clock.advance(HOUR);
    let Claim::Granted(lease) = bench.store.claim("a", HOUR).unwrap() else {
        panic!("the lease is over");
    };
    assert_eq!(lease.attempt(), 3);
}

#[test]
fn a_failed_claim_keeps_its_attempts_and_its_error() {
    let bench = Bench::new();
    let mut failed = bench.claimed("a", State::Failed, Duration::ZERO);
    failed.last_error = Some("no route".into());
    bench.bring(failed.clone());
    assert_eq!(bench.get("a"), failed);
    let mut bare = bench.claimed("b", State::Failed, Duration::ZERO);
    bare.last_error = None;
    bench.bring(bare);
    assert_eq!(bench.get("b").state, State::Failed);
}

#[test]
fn a_claim_yields_to_whatever_is_known_better() {
    let bench = Bench::new();
    bench.store.mark_seen("seen").unwrap();
    let Claim::Granted(held) = bench.store.claim("held", HOUR).unwrap() else { panic!() };
    let token = held.into_token();
    for id in ["seen", "held"] {
        let mut failed = bench.claimed(id, State::Failed, HOUR);
        failed.last_seen = bench.now + HOUR;
        assert_eq!(counts(&bench.restore(failed)), [0, 0, 1, 0], "{id}");
    }
    bench.store.confirm("held", &token).unwrap();
    // A later failure than the known one is news.
    bench.bring(bench.claimed("failed", State::Failed, Duration::ZERO));
    let mut later = bench.claimed("failed", State::Failed, HOUR);
    (later.last_seen, later.attempts) = (bench.now + HOUR, 1);
    assert_eq!(counts(&bench.restore(later)), [0, 1, 0, 0]);
    assert_eq!(bench.get("failed").attempts, 2);
}

#[test]
fn a_mark_that_meets_a_claim_ends_it_and_its_holder_may_still_confirm() {
    let bench = Bench::new();
    let Claim::Granted(lease) = bench.store.claim("a", HOUR).unwrap() else { panic!() };
    let token = lease.into_token();
    assert_eq!(counts(&bench.restore(bench.seen("a", HOUR, HOUR))), [0, 1, 0, 0]);
    let entry = bench.get("a");
    assert_eq!((entry.state, entry.attempts), (State::Seen, 1));
    bench.store.confirm_with("a", &token, "sent").unwrap();
    assert_eq!(bench.get("a").receipt.as_deref(), Some(&b"sent"[..]));
}

#[test]
fn what_no_store_takes_is_refused_alone() {
    let bench = Bench::new();
    let good = |id| bench.seen(id, HOUR, HOUR);
    let mut receipt = good("receipt");
    receipt.receipt = Some(vec![0; (1 << 20) + 1]);
    let mut error = good("error");
    error.last_error = Some("x".repeat(65_537));
    let mut scope = good("scope");
    scope.scope = "s".repeat(65_537);
    let long = "x".repeat(65_537);
    let entries = [good("a"), good(""), receipt, good("b"), error, scope, good(&long), good("c")];
    let restored = bench.store.restore(entries).unwrap();
    assert_eq!(restored.added, 3);
    assert_eq!(
        refusals(&restored),
        [
            (&b""[..], ErrorKind::InvalidId),
            (b"receipt", ErrorKind::InvalidClaim),
            (b"error", ErrorKind::InvalidClaim),
            (b"scope", ErrorKind::InvalidId),
            (long.as_bytes(), ErrorKind::InvalidId),
        ]
    );
    assert!(["a", "b", "c"].iter().all(|id| bench.store.is_seen(id)));
    assert_eq!(bench.store.stats().unwrap().seen, 3);
    assert_eq!(bench.store.restore([good("")]).unwrap().refused.len(), 1);
}

/// The file holds claims that cannot be read: an entry of such an id is refused by SQLite's side.
#[test]
fn an_entry_that_cannot_be_written_is_refused_alone_wherever_it_stands() {
    let poisons: [&[usize]; 5] = [&[0], &[24], &[11, 12], &[0, 1, 2, 23, 24], &[]];
    for poisoned in poisons.into_iter().map(<[usize]>::to_vec).chain([(0..25).collect()]) {
        let bench = Bench::new();
        let ids: Vec<String> = (0..25).map(|n| format!("id {n}")).collect();
        for at in &poisoned {
            let insert = "INSERT INTO claims VALUES ('', ?1, x'', 2, 0, NULL, 1, 1, 1, 0, NULL, 0, CAST(x'ff' AS TEXT), 9)";
            bench.place.sql().execute(insert, [&ids[*at]]).unwrap();
        }
        let entries = || ids.iter().map(|id| bench.seen(id, HOUR, HOUR));
        let restored = bench.store.restore(entries()).unwrap();
        let right: Vec<_> =
            poisoned.iter().map(|at| (ids[*at].as_bytes(), ErrorKind::Corrupt)).collect();
        assert_eq!(refusals(&restored), right);
        assert_eq!(restored.added, 25 - poisoned.len() as u64);
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(bench.store.is_seen(id), !poisoned.contains(&at), "{id}");
        }
        let again = bench.store.restore(entries()).unwrap();
        assert_eq!((again.unchanged, again.added), (25 - poisoned.len() as u64, 0));
    }
}

#[test]
fn what_comes_from_the_store_and_not_from_an_entry_ends_the_restore() {
    let bench = Bench::new();
    let store = bench.place.open(bench.config.clone().busy_timeout(Duration::ZERO));
    let other = bench.place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let entries = || [Entry::new("", "", bench.now), bench.seen("a", HOUR, HOUR)];
    assert_eq!(store.restore(entries()).unwrap_err().kind(), ErrorKind::Busy);
    other.execute_batch("ROLLBACK").unwrap();
    store.close().unwrap();
    assert_eq!(store.restore(entries()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(bench.store.restore(entries()).unwrap().added, 1);
}

#[test]
fn another_store_sees_what_was_restored() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    bench.bring(bench.seen("a", HOUR, HOUR));
    assert!(other.is_seen("a"));
}

#[test]
fn the_seeds_file_is_read_page_by_page_and_left_as_it_was() {
    let place = Place::new();
    let path = place.folder().join("seed.sqlite");
    let seed = rusqlite::Connection::open(&path).unwrap();
    seed.execute_batch(
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
         INSERT INTO seen SELECT 'id-' || n, 1700000000 + n FROM n;
         INSERT INTO seen VALUES (NULL, 1), ('', 2), (17, 3.9), ('late', 'x');",
    )
    .unwrap();
    drop(seed);
    let before = std::fs::read(&path).unwrap();
    let mut file = LegacyFile::open(&path, Ttl::Never).unwrap();
    assert_eq!(file.count_rows().unwrap(), 2_504);
    let entries: Vec<Entry> = file.by_ref().collect::<Result<_, _>>().unwrap();
    assert_eq!((entries.len(), file.skipped()), (2_502, 2));
    assert_eq!(entries[2_499].id, b"id-2500");
    let at = SystemTime::UNIX_EPOCH + 1_700_002_500 * Duration::from_secs(1);
    assert_eq!((entries[2_499].last_seen, entries[2_499].expires_at), (at, None));
    assert_eq!(entries[2_500].id, b"17");
    assert_eq!(entries[2_500].last_seen, SystemTime::UNIX_EPOCH + Duration::from_secs(3));
    assert!(entries[2_501].last_seen > at, "what has no time counts as seen now");
    drop(file);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let hour = LegacyFile::open(&path, HOUR).unwrap().next().unwrap().unwrap();
    assert_eq!(hour.expires_at, Some(hour.last_seen + HOUR));
}

#[test]
fn what_is_no_seeds_file_is_refused() {
    let bench = Bench::new();
    let kind = |path: &std::path::Path| LegacyFile::open(path, HOUR).err().unwrap().kind();
    assert_eq!(kind(bench.place.path()), ErrorKind::WrongApplication);
    assert_eq!(kind(&bench.place.folder().join("missing")), ErrorKind::NotFound);
    let text = bench.place.folder().join("text");
    std::fs::write(&text, "not a database, and long enough to be sure of that".repeat(40)).unwrap();
    assert_eq!(kind(&text), ErrorKind::NotADatabase);
}
