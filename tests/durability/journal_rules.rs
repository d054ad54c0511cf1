//! The rules that make a journal with an index in memory correct, one test or more for each. Two
//! stores in one process stand for two processes: they share nothing but the file.
//!
//! "Publish after commit" is in `faults`, which can make a commit fail.

#![expect(
    clippy::disallowed_methods,
    reason = "that no call waits for another process is measured"
)]

use std::panic::{UnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use rusqlite::backup::Backup;
use seen_store::{Clock, Config, ErrorKind, Item, ManualClock, SeenStore, Ttl, Verdict};

/// One file, and a clock for all stores on it.
struct Setting {
    _folder: tempfile::TempDir,
    path: PathBuf,
    clock: Arc<ManualClock>,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.db");
        Self { _folder: folder, path, clock: Arc::default() }
    }

    fn config(&self) -> Config {
        Config::default().clock(self.clock.clone()).busy_timeout(Duration::from_secs(2))
    }

    fn open(&self) -> SeenStore {
        SeenStore::open_with(&self.path, self.config()).unwrap()
    }

    fn plain(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Makes the store look at the file now: a miss always does.
fn look(store: &SeenStore) {
    assert!(!store.try_is_seen("never marked by anybody").unwrap());
}

fn rebuilds(store: &SeenStore) -> u64 {
    store.stats().unwrap().since_opened.rebuilds
}

fn assert_verified(store: &SeenStore) {
    let report = store.verify().unwrap();
    assert!(report.is_ok(), "{report:?}");
}

#[test]
fn a_write_reads_the_tail_before_it_decides() {
    let setting = Setting::new();
    let (one, two) = (setting.open(), setting.open());
    assert_eq!(one.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(two.check_and_mark("a").unwrap(), Verdict::Duplicate);
    one.mark_seen("b").unwrap();
    assert_eq!(two.check_and_mark_all(["b", "c"]).unwrap(), [Verdict::Duplicate, Verdict::New]);
    assert!(one.forget("c").unwrap(), "the other store's mark is there to be forgotten");
    assert_eq!(number(&setting.plain(), "SELECT count(*) FROM seen WHERE id = 'a'"), 1);
    // Longer than what is read under the write lock at once.
    one.seed((0..2_500).map(|n| n.to_string())).unwrap();
    assert_eq!(two.check_and_mark("2499").unwrap(), Verdict::Duplicate);
    assert_eq!(two.check_and_mark("0").unwrap(), Verdict::Duplicate);
    assert_verified(&two);
}

#[test]
fn a_batch_decides_by_its_own_pending_marks_too() {
    let setting = Setting::new();
    let store = setting.open();
    let verdicts = store.check_and_mark_all(["a", "b", "a"]).unwrap();
    assert_eq!(verdicts, [Verdict::New, Verdict::New, Verdict::Duplicate]);
}

#[test]
fn a_write_transaction_takes_the_write_lock_at_its_beginning() {
    let setting = Setting::new();
    let store = setting.open();
    // Between a deferred BEGIN and its first write another connection could commit, and the write
    // would fail with "locked" in spite of any patience. Here four stores do their best to.
    thread::scope(|scope| {
        for worker in 0..4 {
            let setting = &setting;
            scope.spawn(move || {
                let store = setting.open();
                for round in 0..300 {
                    store.mark_seen(format!("{worker}-{round}")).unwrap();
                }
            });
        }
    });
    assert_eq!(store.stats().unwrap().seen, 1_200);
}

#[test]
fn a_look_sees_the_marks_of_others() {
    let setting = Setting::new();
    let (one, two) = (setting.open(), setting.open());
    for round in 0..100 {
        let id = round.to_string();
        assert!(!two.try_is_seen(&id).unwrap());
        one.mark_seen(&id).unwrap();
        assert!(two.try_is_seen(&id).unwrap());
        assert!(two.get(&id).unwrap().is_some());
    }
    assert_eq!(rebuilds(&two), 0);
}

#[test]
fn a_tip_that_was_refreshed_by_another_store_needs_no_rebuild() {
    let setting = Setting::new();
    let (one, two) = (setting.open(), setting.open());
    one.mark_seen("a").unwrap();
    look(&one);
    // The row that `one` knows as the newest goes; a later one of the same id explains it.
    setting.clock.advance(Duration::from_secs(60));
    two.mark_seen("a").unwrap();
    two.mark_seen("b").unwrap();
    look(&one);
    assert_eq!(rebuilds(&one), 0);
    let refreshed = one.get("a").unwrap().unwrap();
    assert_eq!(refreshed.last_seen, setting.clock.now());
    assert_eq!(refreshed.last_seen.duration_since(refreshed.first_seen).unwrap().as_secs(), 60);

    // Refreshed many times over, with a long tail in between.
    for round in 0..3 {
        two.mark_seen("b").unwrap();
        two.seed((0..1_500).map(|n| format!("{round}-{n}"))).unwrap();
        two.mark_seen("b").unwrap();
    }
    look(&one);
    assert!(one.try_is_seen("2-1499").unwrap());
    // Only where the explanation comes late may the index be built anew; the answers are right anyway.
    assert!(rebuilds(&one) <= 1);
    assert_verified(&one);
}

/// Puts the content of `old` back into the open file, as a restore by another program does.
fn restore_in_place(old: &Path, setting: &Setting) {
    let source = Connection::open(old).unwrap();
    let mut target = setting.plain();
    let backup = Backup::new(&source, &mut target).unwrap();
    backup.run_to_completion(100, Duration::ZERO, None).unwrap();
}

#[test]
fn a_file_restored_in_place_to_an_older_state_is_noticed() {
    let setting = Setting::new();
    let old = setting.path.with_extension("old");
    let store = setting.open();
    store.mark_seen("before").unwrap();
    store.backup(&old).unwrap();
    store.mark_seen("after").unwrap();
    restore_in_place(&old, &setting);
    look(&store);
    assert_eq!(rebuilds(&store), 1);
    assert!(store.try_is_seen("before").unwrap());
    assert_eq!(store.check_and_mark("after").unwrap(), Verdict::New);
    assert_verified(&store);
}

#[test]
fn a_restored_file_that_has_grown_to_the_same_length_again_is_noticed() {
    // The row with the number of the known tip is there, but it is another id's, or the same id's
    // with another expiry.
    for (id, ttl) in [("another", 3_600), ("after", 7_200)] {
        let setting = Setting::new();
        let old = setting.path.with_extension("old");
        let store = setting.open();
        store.mark_seen("before").unwrap();
        store.backup(&old).unwrap();
        store.ttl(Duration::from_secs(3_600)).mark_seen("after").unwrap();
        restore_in_place(&old, &setting);
        let other = setting.open().ttl(Duration::from_secs(ttl));
        other.mark_seen(id).unwrap();
        assert_eq!(store.check_and_mark(id).unwrap(), Verdict::Duplicate);
        assert_eq!(rebuilds(&store), 1, "{id}");
        assert_eq!(store.try_is_seen("after").unwrap(), id == "after");
        assert_verified(&store);
    }
}

#[test]
fn no_seq_is_ever_given_twice_and_the_newest_row_survives_every_deletion() {
    let setting = Setting::new();
    let minute = Duration::from_secs(60);
    let deletions: [fn(&SeenStore) -> u64; 4] = [
        |store| store.purge_expired().unwrap(),
        |store| ["a", "b", "c"].iter().map(|id| u64::from(store.forget(id).unwrap())).sum(),
        |store| store.cleanup_old_entries(Duration::ZERO).unwrap(),
        |store| {
            // A tombstone is old enough to go after an hour.
            ["a", "b", "c"].iter().map(|id| u64::from(store.forget(id).unwrap())).sum::<u64>()
                + store.purge_expired().unwrap()
        },
    ];
    let mut highest = 0;
    for (case, delete) in deletions.iter().enumerate() {
        for reopened in [false, true] {
            let store = setting.open().ttl(if case == 0 { minute } else { 500 * minute });
            store.seed(["a", "b", "c"]).unwrap();
            let newest = number(&setting.plain(), "SELECT max(seq) FROM seen");
            assert!(newest >= highest + 3, "case {case}: {newest} after {highest}");
            setting.clock.advance(Duration::from_millis(1));
            if case == 0 {
                setting.clock.advance(minute);
            }
            assert!(delete(&store) >= 2, "case {case}");
            setting.clock.advance(61 * minute);
            store.purge_expired().unwrap();
            highest = number(&setting.plain(), "SELECT max(seq) FROM seen");
            assert!(highest >= newest, "case {case}: the newest row is gone");
            if reopened {
                store.close().unwrap();
            }
            // The next round's marks must continue, from a store of its own.
        }
    }
    let store = setting.open();
    store.mark_seen("a").unwrap();
    assert!(number(&setting.plain(), "SELECT max(seq) FROM seen") > highest);
    assert_verified(&store);
}

#[test]
fn a_tombstone_takes_the_id_out_of_the_index_of_others() {
    let setting = Setting::new();
    let (one, two) = (setting.open(), setting.open());
    one.mark_seen("a").unwrap();
    one.mark_seen("b").unwrap();
    assert!(two.try_is_seen("a").unwrap());
    assert!(one.forget("a").unwrap());
    assert!(!one.forget("a").unwrap());
    look(&two);
    assert!(!two.try_is_seen("a").unwrap());
    assert!(two.try_is_seen("b").unwrap());
    assert_eq!(rebuilds(&two), 0);
    // Forgotten and marked again before the other looks.
    assert!(one.forget("b").unwrap());
    assert_eq!(one.check_and_mark("b").unwrap(), Verdict::New);
    look(&two);
    assert_eq!(two.check_and_mark("b").unwrap(), Verdict::Duplicate);
    // A forgotten id stays forgotten for whoever opens later.
    assert!(one.forget("a").is_ok());
    assert!(!setting.open().try_is_seen("a").unwrap());
    assert_verified(&two);
}

#[test]
fn a_store_that_missed_a_tombstone_which_is_purged_by_now_looks_for_its_rows() {
    let setting = Setting::new();
    let (one, two) = (setting.open(), setting.open());
    one.mark_seen("forgotten").unwrap();
    // The newest row that `two` knows stays, so that nothing but the floor tells it.
    one.mark_seen("tip").unwrap();
    assert!(two.try_is_seen("forgotten").unwrap());
    assert!(one.forget("forgotten").unwrap());
    one.mark_seen("later").unwrap();
    setting.clock.advance(Duration::from_secs(3_599));
    one.purge_expired().unwrap();
    let tombstones = "SELECT count(*) FROM seen WHERE expires_at = 0";
    assert_eq!(number(&setting.plain(), tombstones), 1, "a tombstone is kept for an hour");
    setting.clock.advance(Duration::from_secs(1));
    one.purge_expired().unwrap();
    assert_eq!(number(&setting.plain(), tombstones), 0);
    look(&two);
    assert!(!two.try_is_seen("forgotten").unwrap());
    assert!(two.try_is_seen("tip").unwrap() && two.try_is_seen("later").unwrap());
    assert_eq!(rebuilds(&two), 0);
    assert_verified(&two);
}

#[test]
fn a_cleanup_by_another_store_is_noticed_without_a_rebuild() {
    let setting = Setting::new();
    let (one, two) = (setting.open(), setting.open());
    one.scope("old").seed(["a", "b"]).unwrap();
    one.mark_seen("tip").unwrap();
    assert!(two.scope("old").try_is_seen("a").unwrap());
    setting.clock.advance(Duration::from_millis(1));
    assert_eq!(one.scope("old").cleanup_old_entries(Duration::ZERO).unwrap(), 2);
    look(&two);
    assert!(!two.scope("old").try_is_seen("a").unwrap());
    assert_eq!(two.scope("old").check_and_mark("b").unwrap(), Verdict::New);
    assert!(two.try_is_seen("tip").unwrap());
    assert_eq!(two.stats().unwrap().seen, 2);
    assert_eq!((rebuilds(&one), rebuilds(&two)), (0, 0));
    assert_verified(&two);
}

#[test]
fn each_store_sweeps_its_own_index_whoever_purged_the_file() {
    let setting = Setting::new();
    let config = || setting.config().purge_interval(Duration::from_secs(60));
    let one = SeenStore::open_with(&setting.path, config()).unwrap();
    let two = SeenStore::open_with(&setting.path, config()).unwrap();
    one.ttl(Duration::from_secs(1)).seed((0..5_000).map(|n| n.to_string())).unwrap();
    one.mark_seen("tip").unwrap();
    look(&two);
    assert_eq!(two.stats().unwrap().seen, 5_001);
    setting.clock.advance(Duration::from_secs(61));
    one.purge_expired().unwrap();
    assert_eq!(number(&setting.plain(), "SELECT count(*) FROM seen"), 1);
    for mark in 0..10 {
        two.mark_seen(format!("mark-{mark}")).unwrap();
    }
    assert_eq!(two.stats().unwrap().expired, 0);
    assert_verified(&two);
}

#[test]
fn while_another_process_holds_the_write_lock_only_writers_wait_and_in_vain_they_mark_nothing() {
    let setting = Setting::new();
    let store = setting.open();
    store.mark_seen("hit").unwrap();
    let plain = setting.plain();
    plain.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (mut worst, mut calls) = (Duration::ZERO, 0);
    let waited = Instant::now();
    let error = thread::scope(|scope| {
        let markers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| store.check_and_mark("waits").unwrap_err())).collect();
        while !markers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let begun = Instant::now();
            assert!(store.try_is_seen("hit").unwrap());
            assert_eq!(store.check_and_mark("hit").unwrap(), Verdict::Duplicate);
            assert!(!store.try_is_seen("miss").unwrap());
            worst = worst.max(begun.elapsed());
            calls += 1;
            thread::yield_now();
        }
        markers.into_iter().map(|marker| marker.join().unwrap()).next_back().unwrap()
    });
    assert!(waited.elapsed() >= Duration::from_secs(2), "the busy timeout was not waited for");
    println!("{calls} rounds of reads, the worst took {worst:?}");
    // A round takes microseconds. Were the mutex held during the writers' pauses, each would wait for
    // some of those and there would be a few hundred.
    assert!(calls > 2_000, "only {calls} rounds of reads in 2 s");
    assert!(worst < Duration::from_millis(500), "a read waited {worst:?}");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.is_retryable());
    plain.execute_batch("ROLLBACK").unwrap();
    assert!(!store.try_is_seen("waits").unwrap());
    assert_eq!(number(&plain, "SELECT count(*) FROM seen WHERE id = 'waits'"), 0);
    assert_eq!(store.check_and_mark("waits").unwrap(), Verdict::New);
}

#[test]
fn a_writer_goes_on_as_soon_as_the_other_process_lets_go() {
    let setting = Setting::new();
    let store = setting.open();
    let plain = setting.plain();
    plain.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let marker = scope.spawn(|| store.check_and_mark("a"));
        // A miss takes the mutex; when it comes back a few times the marker is waiting outside it.
        (0..50).for_each(|_| look(&store));
        assert!(!marker.is_finished());
        plain.execute_batch("COMMIT").unwrap();
        assert_eq!(marker.join().unwrap().unwrap(), Verdict::New);
    });
}

#[test]
fn a_miss_asked_after_a_mark_was_acknowledged_never_shares_an_older_look() {
    let setting = Setting::new();
    let (one, two) = (setting.open(), setting.open());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Misses all the time, so that there is always a look under way to be shared wrongly.
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    look(&two);
                }
            });
        }
        let done = catch_unwind(|| {
            for round in 0..3_000 {
                let id = round.to_string();
                one.mark_seen(&id).unwrap();
                assert!(two.try_is_seen(&id).unwrap(), "{id} was marked before it was asked for");
            }
        });
        stop.store(true, SeqCst);
        done.unwrap();
    });
}

#[test]
fn a_transaction_that_fails_midway_leaves_neither_marks_nor_the_write_lock_behind() {
    let setting = Setting::new();
    let store = setting.open();
    store.mark_seen("first").unwrap();
    // The second to last number that there is: a batch of five gets one row in.
    let plain = setting.plain();
    plain.execute_batch("UPDATE seen SET seq = (1 << 48) - 2").unwrap();
    let error = store.check_and_mark_all(["a", "b", "c", "d", "e"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    plain.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
    assert_eq!(number(&plain, "SELECT count(*) FROM seen"), 1);
    assert!(store.try_is_seen("first").unwrap());
    assert!(!store.try_is_seen("a").unwrap());
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New, "the last number is left");
    assert_verified(&store);
}

/// A clock that panics at one of its readings.
struct PanickingClock {
    clock: ManualClock,
    readings_left: AtomicI64,
}

impl Clock for PanickingClock {
    fn now(&self) -> SystemTime {
        assert!(self.readings_left.fetch_sub(1, SeqCst) != 1, "the clock was told to panic");
        self.clock.now()
    }
}

fn caught<T>(run: impl FnOnce() -> T + UnwindSafe) -> thread::Result<T> {
    catch_unwind(run)
}

#[test]
fn a_panic_in_the_callers_clock_leaves_neither_an_open_transaction_nor_a_stuck_lock() {
    let setting = Setting::new();
    let clock = Arc::new(PanickingClock {
        clock: ManualClock::default(),
        readings_left: AtomicI64::new(i64::MAX),
    });
    let config = Config::default()
        .clock(clock.clone())
        .purge_interval(Duration::from_secs(60))
        .busy_timeout(Duration::from_millis(500));
    let store = SeenStore::open_with(&setting.path, config).unwrap();
    let plain = setting.plain();
    let verbs: [fn(&SeenStore); 6] = [
        |store| store.mark_seen("mark").unwrap(),
        |store| assert!(store.check_and_mark("check").is_ok()),
        |store| assert!(store.try_is_seen("miss").is_ok()),
        |store| assert!(store.forget("old").is_ok()),
        |store| assert!(store.purge_expired().is_ok()),
        |store| assert!(store.cleanup_old_entries(Duration::ZERO).is_ok()),
    ];
    let mut panics = 0;
    for (number, verb) in verbs.iter().enumerate() {
        for reading in 1.. {
            store.ttl(Duration::from_secs(1)).seed(["old", "older"]).unwrap();
            clock.clock.advance(Duration::from_secs(61)); // A purge is due with the next commit.
            clock.readings_left.store(reading, SeqCst);
            let done = caught(|| verb(&store));
            let unread = clock.readings_left.swap(i64::MAX, SeqCst) > 0;
            assert!(done.is_ok() == unread, "verb {number}, reading {reading}: {done:?}");
            panics += usize::from(done.is_err());
            plain.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
            assert_eq!(store.check_and_mark(format!("{number}-{reading}")).unwrap(), Verdict::New);
            if unread {
                break;
            }
        }
    }
    assert!(panics >= 2 * verbs.len(), "the clock panicked only {panics} times");
    assert_verified(&store);
}

/// An id whose bytes cannot be had.
struct PanickingId(bool);

impl From<PanickingId> for Item<'_> {
    fn from(id: PanickingId) -> Self {
        assert!(!id.0, "the id was told to panic");
        Item::new("good")
    }
}

#[test]
fn a_panic_in_the_callers_ids_marks_nothing() {
    let setting = Setting::new();
    let store = setting.open().ttl(Ttl::Never);
    assert!(caught(|| store.mark_seen(PanickingId(true))).is_err());
    assert!(caught(|| store.check_and_mark_all([PanickingId(false), PanickingId(true)])).is_err());
    let panicking = (0..10).map(|n| if n < 9 { "good" } else { panic!("the iterator ends badly") });
    assert!(caught(|| store.seed(panicking)).is_err());
    assert_eq!(number(&setting.plain(), "SELECT count(*) FROM seen"), 0);
    assert_eq!(store.check_and_mark(PanickingId(false)).unwrap(), Verdict::New);
}
