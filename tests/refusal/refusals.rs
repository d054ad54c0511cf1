//! What cannot be a store is refused, left as it was, and the message says which file and what to do.
//! Then what opening creates, what closing leaves behind, and what reading must not do.
#![expect(clippy::disallowed_methods, reason = "\"at once\" is measured against the busy timeout")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use seen_store::{Claim, Config, Error, ErrorKind, Filter, Reader, Result, SeenStore, Verdict};

use crate::common::{Place, clock_and_config, manual_store, marks, ms, rows, secs};

/// What a refusal must leave as it was: the bytes of the database and of its log. An empty log is
/// none: SQLite makes one for whoever reads a database in WAL mode, and a reader cannot remove it.
fn contents(path: &Path) -> [Option<Vec<u8>>; 2] {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    [fs::read(path).ok(), fs::read(log).ok().filter(|bytes| !bytes.is_empty())]
}

/// Opens what must be refused, and checks what every refusal has in common.
fn refused_with(path: &Path, config: Config, kind: ErrorKind, remedy: &str) -> Error {
    let before = contents(path);
    let error = SeenStore::open_with(path, config).expect_err("opened what is no store");
    assert_eq!(error.kind(), kind, "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&*path.to_string_lossy()), "no path: {message}");
    assert!(message.contains(remedy), "no remedy: {message}");
    let after = contents(path);
    assert!(after[0] == before[0], "the file was changed: {message}");
    assert!(after[1] == before[1], "the log was changed: {message}");
    error
}

/// The same for writing and for reading.
fn refused(path: &Path, kind: ErrorKind, remedy: &str) {
    refused_with(path, Config::default(), kind, remedy);
    refused_with(path, Config::default().read_only(true), kind, remedy);
}

/// A closed store of 500 ids: some 30 pages.
fn closed_store(place: &Place) {
    let store = place.open(Config::default());
    store.seed((0..500).map(|number| format!("id-{number}"))).unwrap();
    store.close().unwrap();
}

/// Runs some SQL on the file, as another program would.
fn tamper(place: &Place, sql: &str) {
    place.sql().execute_batch(sql).unwrap();
}

/// Runs some SQL on a database in WAL mode and leaves what it wrote in the log, as a crash does.
fn tamper_and_crash(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let long = "not a database\n".repeat(500);
    for content in ["xy", "a line\n", &long, &"\0".repeat(4096)] {
        let place = Place::new();
        fs::write(place.path(), content).unwrap();
        refused(place.path(), ErrorKind::NotADatabase, "give another path");
    }
}

/// SQLite takes a file of one byte for an empty one, and would write a database over it.
#[test]
fn a_file_of_one_byte_is_refused() {
    let place = Place::new();
    fs::write(place.path(), "x").unwrap();
    refused(place.path(), ErrorKind::NotADatabase, "give another path");
}

#[test]
fn a_truncated_database_is_refused_wherever_it_was_cut() {
    let place = Place::new();
    closed_store(&place);
    let whole = fs::read(place.path()).unwrap();
    let pages = whole.len() / 1024;
    assert!(pages > 20);
    let mut wrong = Vec::new();
    for length in (1..pages).map(|page| page * 1024).chain([512, 1500, whole.len() - 1000]) {
        fs::write(place.path(), &whole[..length]).unwrap();
        let before = contents(place.path());
        match SeenStore::open(place.path()) {
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                let message = e.to_string();
                assert!(message.contains("seen.db") && message.contains("restore a backup"));
            }
            other => wrong.push((length, other.map(|store| store.stats()))),
        }
        assert!(contents(place.path()) == before, "cut to {length} and then changed");
    }
    assert!(wrong.is_empty(), "{} bytes, cut to: {wrong:?}", whole.len());
}

/// SQLite fills a last page that is cut short with zeros, so an id could silently change.
#[test]
fn a_database_that_lost_the_last_byte_is_refused() {
    let place = Place::new();
    closed_store(&place);
    let whole = fs::read(place.path()).unwrap();
    fs::write(place.path(), &whole[..whole.len() - 1]).unwrap();
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

/// Cuts the database inside its last page.
fn cut_last_page(path: &Path) {
    let bytes = fs::metadata(path).unwrap().len();
    assert!(bytes.is_multiple_of(1024));
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes - 700).unwrap();
}

/// Rows on the last pages of the file, so that the page that is cut matters.
const CHANGE_ALL: &str = "UPDATE seen SET suppressed = suppressed + 1";

/// As a checkpoint leaves it that a power cut or a full disk ended.
#[test]
fn a_database_cut_inside_a_page_that_its_log_holds_is_whole() {
    for read_only in [false, true] {
        let place = Place::new();
        closed_store(&place);
        tamper_and_crash(place.path(), CHANGE_ALL);
        cut_last_page(place.path());
        let reader = Reader::open(place.path()).unwrap();
        assert!((0..500).all(|n| reader.try_is_seen(format!("id-{n}")).unwrap() || n % 50 > 0));
        assert!(reader.verify().unwrap().is_ok());
        drop(reader);
        let store = place.open(Config::default().read_only(read_only));
        assert!((0..500).all(|n| store.is_seen(format!("id-{n}"))));
        assert!(store.verify().unwrap().is_ok());
        drop(store);
        let store = place.open(Config::default());
        store.close().unwrap();
        assert_eq!(fs::metadata(place.path()).unwrap().len() % 1024, 0);
        let suppressed = marks(&place.sql()).iter().all(|row| row.suppressed == 1);
        assert!(suppressed, "what the log held is not in the file");
    }
}

#[test]
fn a_database_cut_inside_a_page_that_its_log_lacks_is_refused() {
    let place = Place::new();
    closed_store(&place);
    tamper_and_crash(place.path(), "UPDATE meta SET value = 1 WHERE key = 'last_purge_at'");
    let _ = fs::remove_file(place.beside("-shm"));
    cut_last_page(place.path());
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

#[test]
fn a_database_that_lost_pages_of_which_the_log_holds_only_some_is_refused() {
    let place = Place::new();
    closed_store(&place);
    // The last row, which is on the last page.
    tamper_and_crash(
        place.path(),
        "UPDATE seen SET suppressed = 1 WHERE seq = (SELECT max(seq) FROM seen)",
    );
    let _ = fs::remove_file(place.beside("-shm"));
    let bytes = fs::metadata(place.path()).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    file.set_len(bytes - 3 * 1024 - 700).unwrap();
    drop(file);
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

#[test]
fn a_page_that_only_uncommitted_frames_hold_counts_as_lost() {
    let place = Place::new();
    closed_store(&place);
    let connection = place.sql();
    connection.pragma_update(None, "cache_size", 1).unwrap();
    connection
        .execute_batch("UPDATE meta SET value = 1 WHERE key = 'last_purge_at'; BEGIN")
        .unwrap();
    connection.execute_batch(CHANGE_ALL).unwrap();
    let log = bytes_of_an_open_file(&place.beside("-wal"));
    let database = bytes_of_an_open_file(place.path());
    assert!(log.len() > 20 * 1048, "nothing was spilled into the log");
    drop(connection);
    fs::write(place.path(), database).unwrap();
    fs::write(place.beside("-wal"), log).unwrap();
    cut_last_page(place.path());
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

#[test]
fn a_page_that_only_frames_of_an_earlier_log_hold_counts_as_lost() {
    let place = Place::new();
    closed_store(&place);
    {
        let connection = place.sql();
        connection.execute_batch(CHANGE_ALL).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        // Begins the log anew, over the first frames.
        connection.execute_batch("UPDATE meta SET value = 1 WHERE key = 'last_purge_at'").unwrap();
    }
    assert!(fs::metadata(place.beside("-wal")).unwrap().len() > 20 * 1048);
    let _ = fs::remove_file(place.beside("-shm"));
    cut_last_page(place.path());
    refused(place.path(), ErrorKind::Corrupt, "restore a backup");
}

#[test]
fn a_database_of_another_application_is_refused() {
    for sql in [
        "PRAGMA application_id = 7",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",
        "PRAGMA user_version = 3",
        // Almost the seed's table.
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER)",
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL, note TEXT)",
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL); CREATE TABLE other (x)",
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL); PRAGMA user_version = 1",
    ] {
        let place = Place::new();
        tamper(&place, sql);
        refused(place.path(), ErrorKind::WrongApplication, "give another path");
    }
}

#[test]
fn a_database_of_another_application_keeps_its_log_with_all_that_is_in_it() {
    let place = Place::new();
    tamper_and_crash(
        place.path(),
        "PRAGMA journal_mode = WAL; CREATE TABLE notes (text); INSERT INTO notes VALUES ('dear')",
    );
    assert!(fs::metadata(place.beside("-wal")).unwrap().len() > 0);
    refused(place.path(), ErrorKind::WrongApplication, "give another path");
    let note: String =
        place.sql().query_row("SELECT text FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(note, "dear");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let place = Place::new();
    closed_store(&place);
    tamper(&place, "PRAGMA user_version = 2");
    refused(place.path(), ErrorKind::NewerVersion, "update the program");
}

#[test]
fn a_store_that_somebody_added_code_or_tables_to_is_refused() {
    for sql in [
        "CREATE TRIGGER t AFTER INSERT ON seen BEGIN DELETE FROM seen; END",
        "CREATE TABLE extra (x)",
        "CREATE VIEW v AS SELECT * FROM seen",
        "CREATE INDEX i ON seen (id)",
        "ALTER TABLE seen ADD COLUMN extra INTEGER",
        "DROP TABLE claims",
        "PRAGMA application_id = 0",
    ] {
        let place = Place::new();
        closed_store(&place);
        tamper(&place, sql);
        refused(place.path(), ErrorKind::WrongApplication, "give another path");
    }
}

#[test]
fn a_folder_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    refused(place.path(), ErrorKind::InvalidPath, "give the path of a file");
    let with_slash = PathBuf::from(format!("{}/", place.path().display()));
    let error = SeenStore::open(with_slash).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPath);
    assert_eq!(SeenStore::open("/").unwrap_err().kind(), ErrorKind::InvalidPath);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn what_is_neither_file_nor_folder_is_refused() {
    let place = Place::new();
    let made = Command::new("mkfifo").arg(place.path()).status().unwrap();
    assert!(made.success());
    let error = SeenStore::open(place.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPath);
    assert!(error.to_string().contains("seen.db is not a regular file"));
}

#[test]
fn names_that_sqlite_would_take_for_something_else_are_refused() {
    let place = Place::new();
    let inside = |name: &str| name.replace("FOLDER", &place.folder().to_string_lossy());
    for (name, remedy) in [
        (":memory:", "SeenStore::in_memory"),
        ("file:FOLDER/seen.db", "plain path"),
        ("file::memory:?cache=shared", "plain path"),
        ("file:FOLDER/seen.db?mode=memory", "plain path"),
        ("", "give the path of a file"),
        ("FOLDER/a\0b", "NUL"),
    ] {
        let name = inside(name);
        let error = SeenStore::open(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPath);
        let message = error.to_string();
        assert!(message.contains(remedy), "{message}");
        assert!(name.contains('\0') || message.contains(&name), "{message}");
    }
    assert_eq!(place.files(), [""; 0]);
    for stray in [":memory:", "file::memory:?cache=shared"] {
        assert!(!Path::new(stray).exists(), "{stray} was created");
    }
}

#[test]
fn a_symbolic_link_is_refused_wherever_it_points() {
    let place = Place::new();
    let real = place.folder().join("real.db");
    symlink(&real, place.path()).unwrap();
    refused(place.path(), ErrorKind::InvalidPath, "give the path that it points to");
    assert!(!real.exists(), "the link was followed");
    SeenStore::open(&real).unwrap().mark_seen("a").unwrap();
    refused(place.path(), ErrorKind::InvalidPath, "give the path that it points to");
}

#[test]
fn a_folder_may_be_reached_by_a_link() {
    let place = Place::new();
    let link = place.folder().join("link");
    fs::create_dir(place.folder().join("real")).unwrap();
    symlink(place.folder().join("real"), &link).unwrap();
    SeenStore::open(link.join("seen.db")).unwrap().mark_seen("a").unwrap();
    assert!(SeenStore::open(place.folder().join("real/seen.db")).unwrap().is_seen("a"));
}

#[test]
fn an_empty_or_missing_database_beside_a_log_that_holds_data_is_refused() {
    let place = Place::new();
    closed_store(&place);
    tamper_and_crash(
        place.path(),
        "INSERT INTO seen (id, first_seen, last_seen) VALUES ('in the log', 1, 1)",
    );
    let _ = fs::remove_file(place.beside("-shm"));
    let whole = fs::read(place.path()).unwrap();
    let log = fs::read(place.beside("-wal")).unwrap();
    assert!(!log.is_empty());

    fs::write(place.path(), "").unwrap();
    refused(place.path(), ErrorKind::Corrupt, "put the database back");
    fs::remove_file(place.path()).unwrap();
    refused_with(place.path(), Config::default(), ErrorKind::Corrupt, "put the database back");
    assert_eq!(place.files(), ["seen.db-wal"]);

    // And what it says helps.
    fs::write(place.path(), whole).unwrap();
    let store = place.open(Config::default());
    assert!(store.is_seen("in the log") && store.is_seen("id-499"));
}

/// Runs `work` as a user who may do nothing by privilege: the caller, or the user 65534 where the
/// caller is root. False, said visibly, where root cannot become that user.
fn without_privilege(work: impl FnOnce() + Send) -> bool {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        work();
        return true;
    }
    std::thread::scope(|threads| {
        let thread = threads.spawn(|| {
            // On Linux this changes what this thread alone may do to files.
            // SAFETY: changes credentials, no memory; the second call only reads them back.
            let changed = unsafe {
                libc::setfsuid(NOBODY);
                libc::setfsuid(libc::uid_t::MAX)
            };
            if libc::uid_t::try_from(changed) != Ok(NOBODY) {
                eprintln!("SKIPPED: root cannot become another user here");
                return false;
            }
            work();
            true
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Opens, without privilege, what there is no permission for.
fn refused_without_privilege(place: &Place, config: &Config) {
    let bytes_before = contents(place.path());
    let mut error = None;
    if !without_privilege(|| error = SeenStore::open_with(place.path(), config.clone()).err()) {
        return;
    }
    set_mode(place.folder(), 0o755);
    let error = error.expect("opened without permission");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&*place.folder().to_string_lossy()), "no path: {message}");
    assert!(message.contains("permission"), "no remedy: {message}");
    assert!(contents(place.path()) == bytes_before);
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let place = Place::new();
    closed_store(&place);
    set_mode(place.folder(), 0o755);
    set_mode(place.path(), 0o000);
    refused_without_privilege(&place, &Config::default());
    set_mode(place.path(), 0o000);
    refused_without_privilege(&place, &Config::default().read_only(true));
}

#[test]
fn a_file_that_may_only_be_read_is_refused_for_writing() {
    let place = Place::new();
    closed_store(&place);
    set_mode(place.folder(), 0o755);
    set_mode(place.path(), 0o444);
    refused_without_privilege(&place, &Config::default());
}

#[test]
fn a_folder_that_may_not_be_written_to_is_refused_for_a_new_store() {
    let place = Place::new();
    set_mode(place.folder(), 0o555);
    refused_without_privilege(&place, &Config::default());
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn a_folder_that_may_not_be_entered_is_refused() {
    let place = Place::new();
    closed_store(&place);
    set_mode(place.folder(), 0o000);
    refused_without_privilege(&place, &Config::default());
}

#[test]
fn a_folder_that_may_not_be_created_is_refused() {
    let place = Place::new();
    set_mode(place.folder(), 0o555);
    let path = place.folder().join("deeper/still/seen.db");
    let mut error = None;
    if !without_privilege(|| error = SeenStore::open(&path).err()) {
        return;
    }
    let error = error.expect("created a folder without permission");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let message = error.to_string();
    assert!(message.contains("deeper/still"), "no path: {message}");
    assert!(message.contains("permission"), "no remedy: {message}");
    set_mode(place.folder(), 0o755);
}

/// The file's bytes while a store of this process has it open: read by another process, for closing a
/// descriptor of it here would cancel the store's locks.
fn bytes_of_an_open_file(path: &Path) -> Vec<u8> {
    Command::new("cat").arg(path).output().unwrap().stdout
}

#[test]
fn a_file_held_in_exclusive_mode_is_busy_at_once_and_the_mode_is_named() {
    let place = Place::new();
    let holder = place.open(Config::default().exclusive(true));
    holder.mark_seen("a").unwrap();
    let before = bytes_of_an_open_file(place.path());
    let log_before = bytes_of_an_open_file(&place.beside("-wal"));
    for config in
        [Config::default(), Config::default().read_only(true), Config::default().exclusive(true)]
    {
        let began = Instant::now();
        let error = SeenStore::open_with(place.path(), config).unwrap_err();
        assert!(began.elapsed() < secs(10), "waited for a holder that will not let go");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.is_retryable());
        let message = error.to_string();
        assert!(message.contains(&*place.path().to_string_lossy()), "{message}");
        assert!(message.contains("exclusive mode; close that one first"), "{message}");
    }
    assert_eq!(bytes_of_an_open_file(place.path()), before);
    assert_eq!(bytes_of_an_open_file(&place.beside("-wal")), log_before);
    assert_eq!(holder.check_and_mark("b").unwrap(), Verdict::New);
    drop(holder);
    assert!(place.open(Config::default()).is_seen("b"));
}

#[test]
fn a_file_that_others_have_open_is_not_given_to_an_exclusive_store() {
    let place = Place::new();
    let sharer = place.open(Config::default());
    sharer.mark_seen("a").unwrap();
    let config = Config::default().exclusive(true).busy_timeout(ms(50));
    let error = SeenStore::open_with(place.path(), config.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&*place.path().to_string_lossy()));
    assert_eq!(sharer.check_and_mark("a").unwrap(), Verdict::Duplicate);
    drop(sharer);
    assert!(SeenStore::open_with(place.path(), config).unwrap().is_seen("a"));
}

#[test]
fn settings_that_make_no_sense_are_refused_before_a_file_is_made() {
    let place = Place::new();
    for config in [
        Config::default().cache_size(0),
        Config::default().purge_interval(Duration::ZERO),
        Config::default().exclusive(true).read_only(true),
    ] {
        let error = SeenStore::open_with(place.path(), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn parent_folders_are_created() {
    let place = Place::new();
    let path = place.folder().join("some/folders/deeper/seen.db");
    SeenStore::open(&path).unwrap().mark_seen("a").unwrap();
    assert!(SeenStore::open(&path).unwrap().is_seen("a"));
}

#[test]
fn an_empty_file_becomes_a_store() {
    let place = Place::new();
    fs::write(place.path(), "").unwrap();
    assert_eq!(place.open(Config::default()).check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn the_file_and_its_side_files_are_private_whatever_the_umask() {
    let place = Place::new();
    // The umask is the whole process's. Other tests may create files in these moments, which ask for
    // a mode of their own or do not care.
    // SAFETY: changes a number of the process, no memory.
    let umask = unsafe { libc::umask(0) };
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    // SAFETY: as above.
    unsafe { libc::umask(umask) };
    for suffix in ["", "-wal", "-shm"] {
        let mode = fs::metadata(place.beside(suffix)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "seen.db{suffix}");
    }
}

#[test]
fn the_log_and_the_shared_memory_are_gone_when_the_last_handle_closes() {
    let place = Place::new();
    let [one, other] = [0, 1].map(|_| place.open(Config::default()));
    one.mark_seen("a").unwrap();
    other.mark_seen("b").unwrap();
    one.close().unwrap();
    assert!(place.beside("-wal").exists(), "the other store still needs it");
    assert!(other.is_seen("a"));
    other.close().unwrap();
    assert_eq!(place.files(), ["seen.db"]);
    assert_eq!(marks(&place.sql()).len(), 2);
}

#[test]
fn dropping_the_last_handle_closes_and_dropping_another_does_not() {
    let place = Place::new();
    let store = place.open(Config::default());
    let (clone, scoped) = (store.clone(), store.scope("other"));
    store.mark_seen("a").unwrap();
    drop(store);
    drop(clone);
    assert_eq!(scoped.check_and_mark("a").unwrap(), Verdict::New);
    assert!(place.beside("-wal").exists());
    drop(scoped);
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn any_call_after_close_on_any_handle_is_told_that_it_is_closed() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let handles = [store.clone(), store.scope("other"), store.ttl(secs(1)), store.clone()];
    store.close().unwrap();
    for handle in handles {
        let outcomes = [
            handle.try_is_seen("a").map(drop),
            handle.mark_seen("a"),
            handle.mark_seen_at("a", SystemTime::UNIX_EPOCH),
            handle.check_and_mark("a").map(drop),
            handle.check_and_mark_all(["a"]).map(drop),
            handle.check_and_mark_all([""; 0]).map(drop),
            handle.seed(["a"]).map(drop),
            handle.forget("a").map(drop),
            handle.get("a").map(drop),
            handle.purge_expired().map(drop),
            handle.cleanup_old_entries(secs(1)).map(drop),
            handle.stats().map(drop),
            handle.pragmas().map(drop),
            handle.verify().map(drop),
            handle.backup(place.folder().join("copy")),
            handle.checkpoint(),
            handle.close(),
        ];
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.expect_err("a verb of a closed store");
            assert_eq!(error.kind(), ErrorKind::Closed, "verb {number}");
            assert!(error.to_string().contains("seen.db"));
        }
        assert!(!handle.is_seen("a"));
    }
    assert_eq!(place.files(), ["seen.db"]);
}

#[test]
fn a_read_only_store_creates_nothing() {
    let place = Place::new();
    let read_only = Config::default().read_only(true);
    let missing = place.folder().join("folder/seen.db");
    for path in [place.path(), &missing] {
        let error = SeenStore::open_with(path, read_only.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let message = error.to_string();
        assert!(message.contains(&*path.to_string_lossy()), "{message}");
    }
    assert_eq!(place.files(), [""; 0]);
    fs::write(place.path(), "").unwrap();
    refused_with(place.path(), read_only, ErrorKind::NotADatabase, "empty");
}

#[test]
fn a_read_only_store_answers_and_neither_purges_nor_writes() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.seed(["a", "b", "c"]).unwrap();
    clock.advance(secs(30));
    store.mark_seen("young").unwrap();
    drop(store);
    clock.advance(secs(30));
    let before = contents(place.path());
    let (_, config) = clock_and_config();
    let config = config.read_only(true).purge_on_open(true).purge_interval(ms(1)).clock(clock);
    let store = place.open(config);
    assert!(store.is_seen("young"));
    assert!(!store.is_seen("a"));
    assert_eq!(store.get("a").unwrap(), None);
    let writes = [
        store.mark_seen("d"),
        store.mark_seen_at("d", SystemTime::UNIX_EPOCH),
        store.check_and_mark("d").map(drop),
        store.check_and_mark_all(["d"]).map(drop),
        store.seed(["d"]).map(drop),
        store.forget("young").map(drop),
        store.purge_expired().map(drop),
        store.cleanup_old_entries(secs(1)).map(drop),
        store.checkpoint(),
    ];
    for (number, outcome) in writes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ReadOnly, "write {number}");
    }
    // Known from memory, so nothing is written.
    assert_eq!(store.check_and_mark("young").unwrap(), Verdict::Duplicate);
    assert!(store.verify().unwrap().is_ok());
    assert_eq!(rows(&place.sql()).len(), 4);
    store.close().unwrap();
    assert!(contents(place.path())[0] == before[0], "reading changed the file");
}

#[test]
fn a_read_only_store_sees_what_others_mark() {
    let place = Place::new();
    let writer = place.open(Config::default());
    let reader = place.open(Config::default().read_only(true));
    assert!(!reader.is_seen("a"));
    writer.mark_seen("a").unwrap();
    assert!(reader.is_seen("a"));
}

/// SQLite takes text and the same bytes as a BLOB for two values, so a lookup by the one misses the other, and
/// a listing that goes on after the one comes to the other again. A store writes text where an id is UTF-8.
#[test]
fn an_id_in_the_storage_class_that_is_not_its_own_is_told_by_all_that_meet_it() {
    let is_told = |what: &str, error: Option<Error>| {
        let error = error.unwrap_or_else(|| panic!("{what}: nothing was told"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    };
    for (id, class) in [(&b"an id"[..], "BLOB"), (&b"\xff"[..], "TEXT")] {
        for table in ["claims", "seen"] {
            let place = Place::in_ram();
            let store = place.open(Config::default());
            if table == "seen" {
                store.mark_seen(id).unwrap();
            } else {
                let Claim::Granted(lease) = store.claim(id, secs(60)).unwrap() else { panic!() };
                let _ = lease.into_token();
            }
            store.mark_seen("newer").unwrap();
            let changed = format!("UPDATE {table} SET id = CAST(id AS {class}) WHERE id = ?1");
            let value = match str::from_utf8(id) {
                Ok(text) => rusqlite::types::Value::Text(text.into()),
                Err(_) => rusqlite::types::Value::Blob(id.into()),
            };
            assert_eq!(place.sql().execute(&changed, [value]).unwrap(), 1);
            let what = format!("{class} in {table}");
            let is_listed = |listing: &mut dyn Iterator<Item = Result<seen_store::Entry>>| {
                listing.take(1_000).find_map(Result::err)
            };
            is_told(&what, is_listed(&mut store.entries(Filter::default())));
            is_told(&what, store.get(id).err());
            let reader = Reader::open(place.path()).unwrap();
            is_told(&what, is_listed(&mut reader.entries(Filter::default())));
            is_told(&what, reader.try_is_seen(id).err());
            let many = (0..20).map(|n| format!("{n}").into_bytes()).chain([id.to_vec()]);
            is_told(&what, reader.get_all(many).err());
            is_told(&what, reader.verify().err());
            if table == "claims" {
                is_told(&what, reader.stats(secs(1), 1).err());
                is_told(&what, store.claim(id, secs(60)).err());
                is_told(&what, store.claim_all([id, b"b", b"c"], secs(60)).err());
            } else {
                is_told(&what, SeenStore::open(place.path()).err());
            }
        }
    }
}

/// Calls what counts, compares and adds. What it answers is another matter: the numbers are wrong.
fn use_all(store: &SeenStore, place: &Place) {
    let copy = place.folder().join("copy.db");
    let _ = store.check_and_mark("id 1");
    let _ = store.check_and_mark_all(["id 2", "new"]);
    let _ = store.get("id 3");
    let _ = store.get("claimed");
    let _ = store.claim("claimed", secs(1));
    let _ = store.claim_all(["failed", "x"], secs(1));
    let _ = store.forget("id 4");
    let _ = (store.stats(), store.count_expired(), store.count_old_entries(secs(1)));
    let _ = (store.entries(Filter::default()).count(), store.verify().map(drop));
    let _ = (store.purge_expired(), store.scope("other").cleanup_old_entries(secs(0)));
    let _ = (store.backup(&copy), store.compact(), store.cleanup_old_entries(secs(0)));
    let _ = (store.forget_scope(), store.mark_seen("after"), store.close());
}

fn read_all(place: &Place) {
    let Ok(reader) = Reader::open(place.path()) else { return };
    let _ = (reader.get("id 1"), reader.get("claimed"));
    let _ = reader.get_all((0..20).map(|n| format!("id {n}")));
    let _ = (reader.entries(Filter::default()).count(), reader.verify(), reader.info());
    let _ = reader.stats(secs(100), 3);
}

#[test]
fn no_number_in_the_file_makes_a_verb_panic() {
    let original = Place::in_ram();
    let store = original.open(Config::default().retry_delay(secs(3)));
    store.seed((0..20).map(|n| format!("id {n}"))).unwrap();
    store.scope("other").mark_seen("a").unwrap();
    for id in ["claimed", "failed"] {
        let Claim::Granted(mut lease) = store.claim(id, secs(60)).unwrap() else { panic!() };
        if id == "failed" {
            lease.fail("why").unwrap();
        } else {
            let _ = lease.into_token();
        }
    }
    store.close().unwrap();
    let mut changes = Vec::new();
    for value in [i64::MIN, -1, i64::MAX - 1, i64::MAX] {
        for key in ["generation", "floor", "last_purge_at", "clock", "buried"] {
            changes.push(format!("INSERT OR REPLACE INTO meta VALUES ('{key}', {value})"));
        }
        for column in ["first_seen", "last_seen", "suppressed", "attempts", "expires_at"] {
            changes.push(format!("UPDATE seen SET {column} = {value} WHERE seq % 2 = 0"));
        }
        changes.push(format!("UPDATE seen SET seq = {value} WHERE id = 'id 19'"));
        for column in ["claimed_at", "lease_until", "attempts", "expires_at"] {
            changes.push(format!("UPDATE claims SET {column} = {value}"));
        }
    }
    for change in changes {
        for open_before in [true, false] {
            println!("{change}, open before: {open_before}");
            let place = Place::in_ram();
            fs::copy(original.path(), place.path()).unwrap();
            let before = open_before.then(|| place.open(Config::default()));
            place.sql().execute_batch(&change).unwrap();
            read_all(&place);
            if let Some(store) = before.or_else(|| SeenStore::open(place.path()).ok()) {
                use_all(&store, &place);
            }
        }
    }
}

#[test]
fn a_counter_that_no_store_has_reached_is_refused() {
    for key in ["generation", "floor"] {
        for value in [-1, i64::MAX - 1, i64::MAX] {
            let place = Place::in_ram();
            closed_store(&place);
            tamper(&place, &format!("UPDATE meta SET value = {value} WHERE key = '{key}'"));
            refused(place.path(), ErrorKind::Corrupt, "restore a backup");
        }
    }
}

/// SQLite takes what stands there for its own, and deletes it.
#[test]
fn nothing_is_written_where_sqlite_keeps_a_side_file_of_a_database() {
    for suffix in ["-journal", "-wal", "-shm"] {
        for exclusive in [false, true] {
            let place = Place::in_ram();
            let store = place.open(Config::default().exclusive(exclusive));
            store.mark_seen("a").unwrap();
            let other = place.folder().join("other.db");
            fs::write(&other, "").unwrap();
            for base in [place.path(), &other] {
                let mut target = base.as_os_str().to_owned();
                target.push(suffix);
                let is_free = !Path::new(&target).exists();
                let error = store.backup(&target).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidPath, "{error}");
                assert!(error.to_string().contains("another name"), "{error}");
                assert_eq!(is_free, !Path::new(&target).exists());
                if is_free {
                    let error = SeenStore::open(&target).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::InvalidPath, "{error}");
                    assert!(!Path::new(&target).exists());
                }
            }
            // Without a database of that name it is a name like others.
            store.backup(place.folder().join(format!("free{suffix}"))).unwrap();
        }
    }
}

#[test]
fn a_backup_is_not_made_beside_what_a_deleted_database_left() {
    for suffix in ["-journal", "-wal", "-shm"] {
        let place = Place::in_ram();
        let store = place.open(Config::default());
        let left = place.folder().join(format!("copy.db{suffix}"));
        fs::write(&left, "left").unwrap();
        let error = store.backup(place.folder().join("copy.db")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.to_string().contains(&format!("copy.db{suffix}")), "{error}");
        assert_eq!(fs::read(&left).unwrap(), b"left");
        assert!(!place.folder().join("copy.db").exists());
    }
}

#[test]
fn a_backup_onto_a_store_advises_nothing_that_loses_marks() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let other = place.folder().join("other.db");
    let open = SeenStore::open(&other).unwrap();
    open.mark_seen("b").unwrap();
    for path in [place.path().to_owned(), other] {
        let error = store.backup(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let text = error.to_string();
        assert!(text.contains("exists already") && !text.contains("move it away"), "{text}");
    }
}
