//! The names of a store's file: one for the file itself, plain ones for what stands beside it, and
//! private folders on the way to it.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "a warning is to come within 100 ms")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, Once};
use std::time::Instant;

use rusqlite::Connection;
use seen_store::{Config, Error, ErrorKind, LegacyFile, Reader, SeenStore, Ttl};

use crate::common::{self, Place, secs};
use crate::support_process;

#[test]
fn child() {
    if support_process::role().as_deref() == Some("open in every way") {
        let path = support_process::variable("STORE");
        for error in errors_of_every_way(Path::new(&path)) {
            support_process::say(format!("{:?} {error}", error.kind()));
        }
        let seed = support_process::variable("SEED");
        let error = LegacyFile::open(&seed, Ttl::Never).expect_err("it was opened");
        support_process::say(format!("{:?} {error}", error.kind()));
    }
}

/// Opens in each of the ways there are what each must refuse.
fn errors_of_every_way(path: &Path) -> Vec<Error> {
    let open = |config: Config| SeenStore::open_with(path, config).err();
    vec![
        open(Config::default()).expect("opened for writing"),
        open(Config::default().exclusive(true)).expect("opened in exclusive mode"),
        open(Config::default().read_only(true)).expect("opened for reading"),
        Reader::open(path).expect_err("opened by a reader"),
    ]
}

fn assert_refused(error: &Error, told: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), ErrorKind::InvalidPath, "{message}");
    for part in told {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

fn closed_store(place: &Place) {
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    store.close().unwrap();
}

fn make_seed_file(path: &Path) {
    let seed = Connection::open(path).unwrap();
    seed.execute_batch(
        "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
         INSERT INTO seen VALUES ('old', 1577836800)",
    )
    .unwrap();
}

#[test]
fn a_file_with_a_second_name_is_refused_by_both_names_until_one_is_gone() {
    let place = Place::new();
    closed_store(&place);
    let second = place.folder().join("second.db");
    fs::hard_link(place.path(), &second).unwrap();
    let before = fs::read(place.path()).unwrap();
    for path in [place.path(), &*second] {
        for error in errors_of_every_way(path) {
            let path = path.display().to_string();
            assert_refused(&error, &[&path, "hard link", "marks would be lost", "`cp`"]);
        }
    }
    assert!(fs::read(place.path()).unwrap() == before);
    assert_eq!(place.files(), ["second.db", "seen.db"], "a side file was made");
    fs::remove_file(&second).unwrap();
    assert!(place.open(Config::default()).is_seen("a"));
    assert!(Reader::open(place.path()).unwrap().try_is_seen("a").unwrap());
}

#[test]
fn an_old_file_with_a_second_name_is_refused_and_not_upgraded() {
    let place = Place::new();
    make_seed_file(place.path());
    let second = place.folder().join("second.db");
    fs::hard_link(place.path(), &second).unwrap();
    for error in errors_of_every_way(place.path()) {
        assert_refused(&error, &["hard link"]);
    }
    let error = LegacyFile::open(&second, Ttl::Never).expect_err("it was opened");
    assert_refused(&error, &["second.db", "hard link"]);
    assert_eq!(place.files(), ["second.db", "seen.db"]);
}

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// The warnings so far that name this file. Other tests run beside this one.
fn warnings_about(path: &Path) -> Vec<String> {
    let name = path.display().to_string();
    WARNINGS.lock().unwrap().iter().filter(|warning| warning.contains(&name)).cloned().collect()
}

#[test]
fn a_link_that_is_made_while_a_store_is_open_is_logged_once_and_stops_nothing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("before").unwrap();
    let reader = Reader::open(place.path()).unwrap();
    let snapshot = place.folder().join("snapshot.db");
    fs::hard_link(place.path(), &snapshot).unwrap();
    let linked = Instant::now();
    let mut number = 0;
    // For longer than three looks at the file, which are up to 100 ms apart.
    while linked.elapsed() < common::ms(400) {
        store.mark_seen(format!("id {number}")).unwrap();
        number += 1;
    }
    assert!(reader.try_is_seen("id 0").unwrap());
    let warnings = warnings_about(place.path());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("hard link"), "{warnings:?}");
    store.verify().unwrap();
    store.close().unwrap();
    assert_refused(&SeenStore::open(place.path()).unwrap_err(), &["hard link"]);
    fs::remove_file(&snapshot).unwrap();
    assert!(place.open(Config::default()).is_seen("id 0"));
}

/// A bind mount of the file and of a seed's file, in a namespace of its own.
const BIND: &str = "\
mount --bind \"$REAL\" \"$STORE\" && mount --bind \"$OLD\" \"$SEED\" || exit 77
exec \"$TEST\" --exact \"$CHILD\" --nocapture --test-threads=1";

#[cfg(target_os = "linux")]
#[test]
fn a_bind_mount_of_the_single_file_is_refused_and_the_message_says_to_mount_the_folder() {
    let place = Place::new();
    let at = |name: &str| place.folder().join(name);
    SeenStore::open(at("real.db")).unwrap().mark_seen("a").unwrap();
    make_seed_file(&at("old.db"));
    for name in ["seen.db", "seed.db"] {
        fs::write(at(name), "").unwrap();
    }
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", BIND])
        .env("REAL", at("real.db"))
        .env("STORE", at("seen.db"))
        .env("OLD", at("old.db"))
        .env("SEED", at("seed.db"))
        .env("TEST", std::env::current_exe().unwrap())
        .env("CHILD", support_process::test_of_this_file("child"))
        .env("SEEN_TEST_ROLE", "open in every way")
        .output();
    let output = match output {
        Ok(output) if output.status.success() || output.status.code() == Some(101) => output,
        other => {
            println!("SKIPPED: no file can be mounted here: {other:?}");
            return;
        }
    };
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix('@')).collect();
    assert_eq!(said.len(), 5, "{said:?} {}", String::from_utf8_lossy(&output.stderr));
    for line in said {
        assert!(line.starts_with("InvalidPath"), "{line}");
        assert!(line.contains("mount") && line.contains("mount the folder instead"), "{line}");
    }
    assert!(
        SeenStore::open(at("real.db")).unwrap().is_seen("a"),
        "by its own name it is as before"
    );
}

#[test]
fn side_files_that_are_no_plain_files_are_refused_by_name_before_anything_is_touched() {
    for suffix in ["-journal", "-wal", "-shm"] {
        for dangling in [true, false] {
            let place = Place::new();
            closed_store(&place);
            let before = fs::read(place.path()).unwrap();
            let target = place.folder().join("target");
            if !dangling {
                fs::write(&target, "somebody's text").unwrap();
            }
            symlink(&target, place.beside(suffix)).unwrap();
            let names = place.files();
            for error in errors_of_every_way(place.path()) {
                assert_refused(&error, &[&format!("seen.db{suffix} is a symbolic link")]);
            }
            assert!(fs::read(place.path()).unwrap() == before);
            assert_eq!(place.files(), names, "{suffix} {dangling}");
            if !dangling {
                assert_eq!(fs::read(&target).unwrap(), b"somebody's text");
            }
            fs::remove_file(place.beside(suffix)).unwrap();
            assert!(place.open(Config::default()).is_seen("a"));
        }
    }
}

#[test]
fn a_link_beside_a_store_that_is_not_there_yet_and_beside_an_old_file_is_refused() {
    for suffix in ["-journal", "-wal", "-shm"] {
        let place = Place::new();
        symlink(place.folder().join("target"), place.beside(suffix)).unwrap();
        assert_refused(&SeenStore::open(place.path()).unwrap_err(), &["is a symbolic link"]);
        assert_eq!(place.files(), [format!("seen.db{suffix}")], "a store was made");
        fs::remove_file(place.beside(suffix)).unwrap();
        make_seed_file(place.path());
        symlink(place.folder().join("target"), place.beside(suffix)).unwrap();
        let error = LegacyFile::open(place.path(), Ttl::Never).expect_err("it was opened");
        assert_refused(&error, &[&format!("seen.db{suffix} is a symbolic link")]);
        assert_refused(&SeenStore::open(place.path()).unwrap_err(), &["is a symbolic link"]);
        assert_eq!(place.files().len(), 2, "{:?}", place.files());
    }
}

#[test]
fn a_folder_or_a_pipe_in_the_place_of_a_side_file_is_refused() {
    for suffix in ["-journal", "-wal", "-shm"] {
        let place = Place::new();
        closed_store(&place);
        fs::create_dir(place.beside(suffix)).unwrap();
        for error in errors_of_every_way(place.path()) {
            assert_refused(&error, &[&format!("seen.db{suffix} is not a regular file")]);
        }
        fs::remove_dir(place.beside(suffix)).unwrap();
        assert!(Command::new("mkfifo").arg(place.beside(suffix)).status().unwrap().success());
        for error in errors_of_every_way(place.path()) {
            assert_refused(&error, &[&format!("seen.db{suffix} is not a regular file")]);
        }
    }
}

#[test]
fn folders_made_for_a_store_are_private_and_those_that_were_there_stay_as_they_are() {
    let place = Place::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let shared = place.folder().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    SeenStore::open(shared.join("made/deeper/seen.db")).unwrap().mark_seen("a").unwrap();
    assert_eq!(mode(&shared.join("made")), 0o700);
    assert_eq!(mode(&shared.join("made/deeper")), 0o700);
    assert_eq!(mode(&shared), 0o755);
    // A second store in the same folder.
    SeenStore::open(shared.join("made/other.db")).unwrap().mark_seen("a").unwrap();
    fs::set_permissions(shared.join("made"), fs::Permissions::from_mode(0o750)).unwrap();
    SeenStore::open(shared.join("made/third.db")).unwrap().mark_seen("a").unwrap();
    assert_eq!(mode(&shared.join("made")), 0o750);
}

#[test]
fn the_copy_that_an_upgrade_leaves_has_one_name_and_can_be_opened() {
    let place = Place::new();
    make_seed_file(place.path());
    // Left by an upgrade that ended between making the name and filling it.
    fs::write(place.beside(".v0.bak"), "").unwrap();
    let store = place.open(Config::default().ttl(Ttl::Never));
    let copy = store.upgrade_report().unwrap().expect("it was upgraded").copy;
    assert_eq!(copy, place.beside(".v0.bak"));
    assert_eq!(fs::metadata(&copy).unwrap().nlink(), 1);
    assert_eq!(LegacyFile::open(&copy, secs(1)).unwrap().count_rows().unwrap(), 1);
    drop(store);
    assert_eq!(place.files(), ["seen.db", "seen.db.v0.bak"]);
}
