//! A file whose history goes back while stores are open on it: restored in place from a backup, after which
//! other stores may have written to it. Asking first and writing first must come to the same, right answers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use rusqlite::backup::Backup;
use seen_store::{
    Claim, Clock, Config, Filter, ManualClock, Reader, SeenStore, Ttl, Verdict, Window,
};

use crate::common::{Place, clock_and_config, ms};

/// A place, a clock, and a backup that can be put back.
struct Setting {
    place: Place,
    clock: Arc<ManualClock>,
    config: Config,
}

impl Setting {
    fn new() -> Self {
        let (clock, config) = clock_and_config();
        Self { place: Place::in_ram(), clock, config }
    }

    fn open(&self) -> SeenStore {
        self.place.open(self.config.clone())
    }

    fn backup(&self, store: &SeenStore) -> PathBuf {
        let backup = self.place.folder().join("backup.db");
        store.backup(&backup).unwrap();
        backup
    }

    /// As `.restore` of the sqlite3 shell does.
    fn restore(&self, backup: &Path) {
        restore_to(&self.place, backup);
    }
}

fn restore_to(place: &Place, backup: &Path) {
    let source = Connection::open(backup).unwrap();
    let mut target = place.sql();
    let backup = Backup::new(&source, &mut target).unwrap();
    backup.run_to_completion(100, Duration::ZERO, None).unwrap();
}

fn rebuilds(store: &SeenStore) -> u64 {
    store.stats().unwrap().since_opened.rebuilds
}

/// How the store under test first meets the restored file.
#[derive(Clone, Copy, Debug)]
enum First {
    Asks,
    Checks,
    ChecksBatch,
    Claims,
    Marks,
}

const FIRSTS: [First; 5] =
    [First::Asks, First::Checks, First::ChecksBatch, First::Claims, First::Marks];

/// Whether the store takes the id for new, by the verb; marks it in any case.
fn is_new(store: &SeenStore, id: &str, first: First) -> bool {
    match first {
        First::Asks => {
            let is_new = !store.try_is_seen(id).unwrap();
            store.mark_seen(id).unwrap();
            is_new
        }
        First::Checks => store.check_and_mark(id).unwrap() == Verdict::New,
        First::ChecksBatch => store.check_and_mark_all([id]).unwrap() == [Verdict::New],
        First::Claims => match store.claim(id, Duration::from_secs(60)).unwrap() {
            Claim::Granted(mut lease) => {
                lease.confirm().unwrap();
                true
            }
            _ => false,
        },
        First::Marks => {
            store.mark_seen("a mark before the question").unwrap();
            store.check_and_mark(id).unwrap() == Verdict::New
        }
    }
}

/// What other stores do to the file after it was restored, and which ids are seen then. Ids `1` to `4` were
/// marked by the store under test; the backup was made after `1`.
type Later = (&'static str, fn(&Setting, &SeenStore), &'static [&'static str]);

const LATER: [Later; 7] = [
    ("nothing", |_, _| {}, &["1"]),
    ("shorter than before", |_, other| other.mark_seen("x").unwrap(), &["1", "x"]),
    (
        "as long as before",
        |_, other| assert_eq!(other.seed(["x", "y", "z"]).unwrap(), 3),
        &["1", "x", "y", "z"],
    ),
    // The row with the tip's number is absent, later ones exist.
    (
        "the tip's row is absent",
        |_, other| {
            other.seed(["x", "y", "z"]).unwrap();
            other.forget("z").unwrap();
            other.mark_seen("w").unwrap();
        },
        &["1", "x", "y", "w"],
    ),
    // The id of the tip was marked again, later than its number: it looks refreshed.
    (
        "the tip is explained",
        |_, other| {
            other.seed(["x", "y", "z"]).unwrap();
            other.forget("z").unwrap();
            other.mark_seen("4").unwrap();
        },
        &["1", "x", "y", "4"],
    ),
    // The row with the tip's number is the tip's id again, with the same expiry.
    (
        "the tip is the same",
        |_, other| assert_eq!(other.seed(["x", "y", "4"]).unwrap(), 3),
        &["1", "x", "y", "4"],
    ),
    (
        "forgotten and longer",
        |setting, other| {
            other.seed(["x", "2", "y"]).unwrap();
            setting.clock.advance(ms(1));
            other.cleanup_old_entries(Duration::ZERO).unwrap();
            other.seed(["3", "z"]).unwrap();
        },
        &["3", "z"],
    ),
];

#[test]
fn whatever_happened_to_a_restored_file_each_verb_answers_as_the_file_says() {
    for ttl in [Ttl::Never, Ttl::After(Duration::from_secs(3_600))] {
        for (what, later, seen) in LATER {
            for first in FIRSTS {
                for id in ["1", "2", "3", "4", "x", "y", "z", "w"] {
                    let mut setting = Setting::new();
                    setting.config = setting.config.ttl(ttl);
                    let store = setting.open();
                    store.mark_seen("1").unwrap();
                    let backup = setting.backup(&store);
                    for id in ["2", "3", "4"] {
                        store.mark_seen(id).unwrap();
                    }
                    setting.restore(&backup);
                    later(&setting, &setting.open());
                    // A look: a hit within 100 ms of the last one may be answered from memory.
                    if !matches!(first, First::Marks) {
                        let _ = store.get("look").unwrap();
                    }
                    assert_eq!(
                        is_new(&store, id, first),
                        !seen.contains(&id),
                        "{ttl:?}, {what}, {first:?}, {id}"
                    );
                    assert_eq!(store.verify().unwrap().problems, [""; 0], "{what}, {first:?}");
                }
            }
        }
    }
}

#[test]
fn a_mark_is_decided_on_the_restored_file_when_it_is_the_first_call() {
    let setting = Setting::new();
    let store = setting.open();
    store.mark_seen("1").unwrap();
    let backup = setting.backup(&store);
    store.seed(["2", "3"]).unwrap();
    setting.restore(&backup);
    let other = setting.open();
    other.seed(["x", "y", "z"]).unwrap();
    other.forget("y").unwrap();
    store.mark_seen("by the first call").unwrap();
    assert_eq!(store.check_and_mark("2").unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark("x").unwrap(), Verdict::Duplicate);
    assert_eq!(rebuilds(&store), 1);
}

#[test]
fn a_rebuild_that_failed_is_made_up_for() {
    let mut setting = Setting::new();
    setting.config = setting.config.busy_timeout(Duration::ZERO);
    let store = setting.open();
    store.mark_seen("1").unwrap();
    let backup = setting.backup(&store);
    store.seed(["2", "3"]).unwrap();
    setting.restore(&backup);
    {
        let file = setting.place.sql();
        // A row that no store writes, below the tip: the tail can be read, the whole table cannot.
        let row = "INSERT INTO seen (seq, id, first_seen, last_seen, expires_at) VALUES (?1, ?2, 1, 1, ?3)";
        file.execute(row, (2, "bad", -7)).unwrap();
        file.execute(row, (5, "good", None::<i64>)).unwrap();
        assert!(store.mark_seen("4").is_err());
        assert!(store.get("2").is_err());
        file.execute("DELETE FROM seen WHERE seq = 2", []).unwrap();
    }
    store.mark_seen("4").unwrap();
    assert_eq!(store.check_and_mark("2").unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark("1").unwrap(), Verdict::Duplicate);
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn what_memory_kept_by_row_is_forgotten_with_the_rows() {
    let mut setting = Setting::new();
    let hour = Duration::from_secs(3_600);
    setting.config =
        setting.config.ttl(hour).window(Window::Sliding { max_age: Some(hour + hour / 32) });
    let store = setting.open();
    store.mark_seen("1").unwrap();
    let backup = setting.backup(&store);
    store.mark_seen("capped").unwrap(); // Row 2.
    setting.clock.advance(hour / 2);
    for _ in 0..5 {
        // Counted for row 2, which cannot be extended.
        assert_eq!(store.check_and_mark("capped").unwrap(), Verdict::Duplicate);
    }
    setting.restore(&backup);
    let other = setting.open();
    other.mark_seen("fresh").unwrap(); // Row 2 again.
    setting.clock.advance(ms(30));
    assert!(store.get("capped").unwrap().is_none());
    assert_eq!(store.get("fresh").unwrap().unwrap().duplicates, 0);
    let unlimited = store.window(Window::SLIDING);
    setting.clock.advance(hour / 2);
    assert_eq!(unlimited.check_and_mark("fresh").unwrap(), Verdict::Duplicate);
    store.purge_expired().unwrap();
    assert!(store.get("fresh").unwrap().unwrap().duplicates <= 1);
    // A sighting within its maximum age is written down: row 2 was capped, but for another id.
    let newest = || -> i64 {
        setting.place.sql().query_row("SELECT max(seq) FROM seen", [], |row| row.get(0)).unwrap()
    };
    let before = newest();
    let longer = store.window(Window::Sliding { max_age: Some(hour) });
    let _ = longer.check_and_mark("1").unwrap();
    assert!(newest() >= before);
}

#[test]
fn a_compaction_by_a_store_or_by_another_program_changes_no_answer() {
    let setting = Setting::new();
    let (store, other) = (setting.open(), setting.open());
    store.seed(["1", "2"]).unwrap();
    other.compact().unwrap();
    other.mark_seen("3").unwrap();
    assert_eq!(store.check_and_mark("3").unwrap(), Verdict::Duplicate);
    assert_eq!((rebuilds(&store), rebuilds(&other)), (1, 0));
    setting.place.sql().execute_batch("VACUUM").unwrap();
    assert_eq!(store.check_and_mark("3").unwrap(), Verdict::Duplicate);
    assert_eq!(rebuilds(&store), 2);
    // A restore right after a compaction is none.
    other.compact().unwrap();
    let backup = setting.backup(&other);
    other.seed(["4", "5"]).unwrap();
    assert_eq!(store.check_and_mark("5").unwrap(), Verdict::Duplicate);
    setting.restore(&backup);
    assert_eq!(other.check_and_mark_all(["5"]).unwrap(), [Verdict::New]);
    assert_eq!(store.check_and_mark_all(["4"]).unwrap(), [Verdict::New]);
}

/// A clock at one of whose readings the file is restored: amid a call, between two reads of the file.
struct Restoring {
    place: Arc<Place>,
    backup: Mutex<PathBuf>,
    /// How many readings are left until then.
    left: AtomicI64,
}

impl Clock for Restoring {
    fn now(&self) -> SystemTime {
        if self.left.fetch_sub(1, SeqCst) == 0 {
            restore_to(&self.place, &self.backup.lock().unwrap());
        }
        SystemTime::UNIX_EPOCH + Duration::from_secs(24 * 365 * 50 * 3_600)
    }
}

/// Two histories that both hold the ids `common 0` to `common 2999`: in the first from row 1 on, in the
/// second after 3,000 others.
struct Histories {
    clock: Arc<Restoring>,
    config: Config,
    files: [PathBuf; 2],
}

const COMMON: usize = 3_000;

impl Histories {
    fn new() -> Self {
        let place = Arc::new(Place::in_ram());
        let files = ["one.db", "two.db"].map(|name| place.folder().join(name));
        let backup = Mutex::new(files[0].clone());
        let clock = Arc::new(Restoring { place, backup, left: AtomicI64::new(-1) });
        let config = Config::default().clock(clock.clone());
        for (file, others) in files.iter().zip([0, COMMON]) {
            let store = SeenStore::open_with(file, config.clone()).unwrap();
            store.seed((0..others).map(|n| format!("other {n}"))).unwrap();
            store.seed((0..COMMON).map(|n| format!("common {n}"))).unwrap();
            store.close().unwrap();
        }
        Self { clock, config, files }
    }

    /// Restores the one now and the other at this reading of the clock.
    fn begin_with(&self, first: usize, readings: i64) {
        restore_to(&self.clock.place, &self.files[first]);
        self.files[1 - first].clone_into(&mut self.clock.backup.lock().unwrap());
        self.clock.left.store(readings, SeqCst);
    }

    fn missing(entries: impl Iterator<Item = seen_store::Result<seen_store::Entry>>) -> usize {
        let mut ids: Vec<_> = entries.map(|entry| entry.unwrap().id).collect();
        ids.retain(|id| id.starts_with(b"common "));
        ids.sort_unstable();
        ids.dedup();
        COMMON - ids.len()
    }
}

#[test]
fn an_id_of_both_histories_is_found_as_itself_when_the_file_is_restored_amid_the_question() {
    let histories = Histories::new();
    let store = histories.clock.place.open(histories.config.clone());
    for first in [0, 1] {
        for readings in 0..6 {
            histories.begin_with(first, readings);
            let entry = store.get("common 1").unwrap().expect("both histories hold it");
            assert_eq!(entry.id, b"common 1", "history {first} first, restored at {readings}");
            histories.begin_with(first, readings);
            assert!(store.try_is_seen("common 2").unwrap());
            histories.begin_with(first, readings);
            assert_eq!(store.check_and_mark("common 3").unwrap(), Verdict::Duplicate);
        }
    }
}

#[test]
fn a_listing_beside_a_restore_has_each_id_of_both_histories_once() {
    let histories = Histories::new();
    let store = histories.clock.place.open(histories.config.clone());
    for first in [0, 1] {
        for readings in [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22, 300, 301, 302] {
            histories.begin_with(first, readings);
            let mut ids: Vec<_> =
                store.entries(Filter::default()).map(|entry| entry.unwrap().id).collect();
            ids.retain(|id| id.starts_with(b"common "));
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            let what = format!("history {first} first, restored at reading {readings}");
            assert_eq!((count, ids.len()), (COMMON, COMMON), "{what}");
        }
    }
}

#[test]
fn a_listing_from_outside_beside_a_restore_misses_no_id_of_both_histories() {
    let histories = Histories::new();
    for with_a_store in [false, true] {
        let store = with_a_store.then(|| histories.clock.place.open(histories.config.clone()));
        for first in [0, 1] {
            for readings in 0..9 {
                histories.begin_with(first, -1);
                let reader =
                    Reader::open_with(histories.clock.place.path(), histories.config.clone())
                        .unwrap();
                histories.begin_with(first, readings);
                let missing = Histories::missing(reader.entries(Filter::default()));
                let what = format!("history {first} first, restored at reading {readings}");
                assert_eq!(missing, 0, "{what}, with a store: {with_a_store}");
            }
        }
        drop(store);
    }
}
