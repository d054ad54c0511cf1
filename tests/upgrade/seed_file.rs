//! The file of the program that this crate grew from, `seen(id, ts)` with `ts` in unix seconds, opens
//! here and is upgraded in place with nothing lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Barrier, Mutex, Once};
use std::thread;
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, params};
use seen_store::{Clock, Config, ErrorKind, SeenStore, Ttl, Verdict};

use crate::common::{Place, clock_and_config, marks, rows, secs, unix_ms};
use crate::support_process::test_of_this_file;

const SEED_TABLE: &str = "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)";

/// A file of the seed with these rows, each an SQL `id, ts`.
fn seed_file(place: &Place, rows: &[&str]) {
    let connection = place.sql();
    connection.execute_batch(SEED_TABLE).unwrap();
    for row in rows {
        connection.execute_batch(&format!("INSERT INTO seen (id, ts) VALUES ({row})")).unwrap();
    }
}

/// The same with `count` plain rows, marked at `ts`.
fn seed_file_of(place: &Place, count: usize, ts: u64) {
    let mut connection = place.sql();
    let transaction = connection.transaction().unwrap();
    transaction.execute_batch(SEED_TABLE).unwrap();
    {
        let mut insert = transaction.prepare("INSERT INTO seen VALUES (?1, ?2)").unwrap();
        for number in 0..count {
            insert.execute(params![format!("id-{number}"), ts.cast_signed()]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// The seed's rows as they stand in a file, types and all.
fn seed_rows(path: &Path) -> Vec<(Value, Value)> {
    Connection::open(path)
        .unwrap()
        .prepare("SELECT id, ts FROM seen ORDER BY rowid")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// Settings under which everything from after 1970 is still seen.
fn for_ever() -> Config {
    clock_and_config().1.ttl(Ttl::Never)
}

fn at(unix_s: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + secs(unix_s)
}

#[test]
fn every_row_of_a_seed_file_is_seen_and_expires_one_ttl_after_its_timestamp() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let now = u64::try_from(unix_ms(clock.now())).unwrap() / 1000;
    seed_file_of(&place, 5_000, now - 86_400);
    let store = place.open(config.ttl(Duration::from_secs(7 * 24 * 3_600)));
    assert_eq!(store.stats().unwrap().seen, 5_000);
    assert!((0..5_000).all(|number| store.is_seen(format!("id-{number}"))));
    let entry = store.get("id-17").unwrap().unwrap();
    assert_eq!((entry.first_seen, entry.last_seen), (at(now - 86_400), at(now - 86_400)));
    assert_eq!(entry.expires_at, Some(at(now + 6 * 86_400)));
    assert_eq!(store.pragmas().unwrap().user_version, 1);
    assert!(store.verify().unwrap().is_ok());
    assert_eq!(store.check_and_mark("id-0").unwrap(), Verdict::Duplicate);
    assert_eq!(store.check_and_mark("news").unwrap(), Verdict::New);
    clock.advance(Duration::from_secs(6 * 24 * 3_600));
    assert!(!store.is_seen("id-17"));
    drop(store);
    // A second opening finds a store.
    assert!(place.open(Config::default().clock(clock)).is_seen("news"));
    assert_eq!(place.files(), ["seen.db", "seen.db.v0.bak"]);
}

#[test]
fn a_copy_of_the_old_file_is_kept_with_the_same_content_for_its_owner_alone() {
    let place = Place::new();
    seed_file(&place, &["'a', 1", "x'ff', 2.5", "NULL, 3", "'', 4", "'b', 'when'"]);
    let before = seed_rows(place.path());
    assert_eq!(before.len(), 5);
    drop(place.open(for_ever()));
    let copy = place.beside(".v0.bak");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(seed_rows(&copy), before);
    let sql: String = Connection::open(&copy)
        .unwrap()
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'seen'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sql, SEED_TABLE);
}

#[test]
fn odd_ids_and_timestamps_are_taken_over() {
    let place = Place::new();
    seed_file(
        &place,
        &[
            "42, 1000",
            "1.5, 1000",
            "'with space ', 1000",
            "'real', 1577836799.9",
            "x'fffe', 1000",
            // One id to us, two rows to SQLite.
            "'both', 1000",
            "CAST('both' AS BLOB), 2000",
            "'negative', -5",
            "'huge', 9223372036854775807",
            "'beyond', 1e300",
            "'undated', 'yesterday'",
        ],
    );
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(Ttl::Never));
    for id in ["42", "1.5", "with space ", "real", "both", "negative", "huge", "beyond", "undated"]
    {
        assert!(store.is_seen(id), "{id}");
    }
    assert!(store.is_seen(b"\xff\xfe"));
    assert!(!store.is_seen("with space"));
    let seen = |id: &str| {
        let entry = store.get(id).unwrap().unwrap();
        (entry.first_seen, entry.last_seen)
    };
    assert_eq!(seen("real"), (at(1_577_836_799), at(1_577_836_799)));
    assert_eq!(seen("both"), (at(1000), at(2000)));
    assert_eq!(seen("negative").0, SystemTime::UNIX_EPOCH - secs(5));
    // Kept for one more TTL rather than lost.
    assert_eq!(seen("undated"), (clock.now(), clock.now()));
    assert_eq!(marks(&place.sql()).len(), 10);
    assert!(store.verify().unwrap().is_ok());
    drop(store);
    assert_eq!(place.open(for_ever()).stats().unwrap().seen, 10);
}

#[test]
fn timestamps_beyond_all_time_saturate_under_a_ttl_too() {
    let place = Place::new();
    seed_file(
        &place,
        &[
            "'huge', 9223372036854775807",
            "'milliseconds by mistake', 1700000000000",
            "'tiny', -9223372036854775808",
        ],
    );
    let (_, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)));
    assert!(store.is_seen("huge"));
    assert!(store.is_seen("milliseconds by mistake"));
    assert!(!store.is_seen("tiny"));
    assert!(store.verify().unwrap().is_ok());
}

/// Keeps what is logged, for a warning is the only trace of a row that was left out.
struct Log;

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn {
            LOGGED.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// The warnings about the file at `path`, since this was first called.
fn warnings(path: &Path) -> Vec<String> {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    let name = path.to_string_lossy();
    LOGGED.lock().unwrap().iter().filter(|line| line.contains(&*name)).cloned().collect()
}

#[test]
fn rows_without_a_valid_id_are_left_out_and_counted_in_a_warning() {
    let place = Place::new();
    let long = format!("'{}', 7", "x".repeat(65_537));
    seed_file(&place, &["NULL, 1", "NULL, 2", "'', 3", "x'', 4", "'a', 5", "'b', 6", &long]);
    warnings(place.path());
    let store = place.open(for_ever());
    assert_eq!(store.stats().unwrap().seen, 2);
    assert!(store.is_seen("a") && store.is_seen("b"));
    assert_eq!(rows(&place.sql()).len(), 2);
    let warnings = warnings(place.path());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(": 5 rows had no valid id"), "{warnings:?}");
    assert!(warnings[0].contains(".v0.bak"), "{warnings:?}");
    // Nothing is lost: they are in the copy.
    assert_eq!(seed_rows(&place.beside(".v0.bak")).len(), 7);
}

#[test]
fn an_empty_seed_file_becomes_an_empty_store() {
    let place = Place::new();
    seed_file(&place, &[]);
    let store = place.open(for_ever());
    assert_eq!(store.stats().unwrap().seen, 0);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn a_seed_file_with_rows_in_its_write_ahead_log_loses_none() {
    let place = Place::new();
    {
        let connection = place.sql();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA journal_mode = WAL; {SEED_TABLE}; INSERT INTO seen VALUES ('a', 1); \
                 PRAGMA wal_checkpoint; INSERT INTO seen VALUES ('b', 2), ('c', 3)"
            ))
            .unwrap();
    }
    assert!(fs::metadata(place.beside("-wal")).unwrap().len() > 0);
    let store = place.open(for_ever());
    assert!(["a", "b", "c"].iter().all(|id| store.is_seen(id)));
    assert_eq!(seed_rows(&place.beside(".v0.bak")).len(), 3);
    drop(store);
    assert_eq!(place.files(), ["seen.db", "seen.db.v0.bak"]);
}

#[test]
fn an_existing_copy_is_never_overwritten() {
    let place = Place::new();
    seed_file(&place, &["'a', 1"]);
    fs::write(place.beside(".v0.bak"), "the only good copy").unwrap();
    drop(place.open(for_ever()));
    assert_eq!(fs::read(place.beside(".v0.bak")).unwrap(), b"the only good copy");
    assert_eq!(seed_rows(&place.beside(".v0.bak.2")).len(), 1);
}

#[test]
fn a_read_only_store_says_that_an_upgrade_is_needed_and_makes_none() {
    let place = Place::new();
    seed_file(&place, &["'a', 1"]);
    let before = fs::read(place.path()).unwrap();
    let error = SeenStore::open_with(place.path(), for_ever().read_only(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsUpgrade);
    let message = error.to_string();
    assert!(message.contains(&*place.path().to_string_lossy()), "{message}");
    assert!(message.contains("open it once for writing"), "{message}");
    assert_eq!(fs::read(place.path()).unwrap(), before);
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn a_store_in_exclusive_mode_upgrades_too() {
    let place = Place::new();
    seed_file(&place, &["'a', 1", "'b', 2"]);
    let store = place.open(for_ever().exclusive(true));
    assert!(store.is_seen("a") && store.is_seen("b"));
    assert_eq!(seed_rows(&place.beside(".v0.bak")).len(), 2);
}

/// After a race: every row is there, and exactly one copy, a whole one.
fn check_upgraded(place: &Place, count: usize) {
    // Processes that close at the same instant may each leave the log to the other: the next takes it in.
    place.open(for_ever()).close().unwrap();
    assert_eq!(place.files(), ["seen.db", "seen.db.v0.bak"]);
    assert_eq!(seed_rows(&place.beside(".v0.bak")).len(), count);
    let store = place.open(for_ever());
    assert_eq!(store.stats().unwrap().seen, count as u64);
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn threads_that_upgrade_one_file_at_once_all_get_the_whole_store() {
    const COUNT: usize = 3_000;
    for _ in 0..20 {
        let place = Place::in_ram();
        seed_file_of(&place, COUNT, 1_000);
        let start = Barrier::new(4);
        thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    start.wait();
                    let store = place.open(for_ever());
                    assert_eq!(store.stats().unwrap().seen, COUNT as u64);
                });
            }
        });
        check_upgraded(&place, COUNT);
    }
}

const RACED_FILE: &str = "SEEN_TEST_UPGRADE_FILE";

/// Not a claim by itself: what the processes of the next test run.
#[test]
fn a_process_of_the_upgrade_race() {
    let Some(path) = std::env::var_os(RACED_FILE) else { return };
    let store = SeenStore::open_with(path, for_ever()).unwrap();
    assert_eq!(store.stats().unwrap().seen, 3_000);
}

#[test]
fn processes_that_upgrade_one_file_at_once_all_get_the_whole_store() {
    let race = test_of_this_file("a_process_of_the_upgrade_race");
    for _ in 0..10 {
        let place = Place::in_ram();
        seed_file_of(&place, 3_000, 1_000);
        let children: Vec<_> = (0..4)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", &race, "--nocapture"])
                    .env(RACED_FILE, place.path())
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        check_upgraded(&place, 3_000);
    }
}
