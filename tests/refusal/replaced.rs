//! A store whose file is replaced by a backup: what is refused, and what is taken over.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "real processes work for some time")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use seen_store::{Config, ErrorKind, Filter, Reader, SeenStore, Verdict};

use crate::common::Place;
use crate::support_process::{self, Child, say, variable};

#[test]
fn child() {
    match support_process::role().as_deref() {
        Some("mark") => mark_again_and_again(),
        Some("replace") => replace_again_and_again(),
        Some(_) => support_process::puppet(),
        None => {}
    }
}

/// How long a child does its work.
const WORK: Duration = Duration::from_secs(2);

/// Opens a store, marks some ids and closes it, again and again, and says what it has marked.
fn mark_again_and_again() {
    let (begun, process) = (Instant::now(), std::process::id());
    for number in 0.. {
        if begun.elapsed() > WORK {
            break;
        }
        let store = SeenStore::open(variable("STORE")).unwrap();
        for part in 0..number % 5 {
            let id = format!("{process}-{number}-{part}");
            assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New);
            say(id);
        }
        store.close().unwrap();
    }
}

fn replace_again_and_again() {
    let begun = Instant::now();
    while begun.elapsed() < WORK {
        match SeenStore::replace_with_backup(variable("STORE"), variable("BACKUP")) {
            Err(e) => assert_eq!(e.kind(), ErrorKind::Busy, "{e}"),
            Ok(_) => say("replaced"),
        }
    }
}

/// A closed store with the id `new`, and a backup with the id `old`.
fn store_and_backup(place: &Place) -> std::path::PathBuf {
    let backup = place.folder().join("backup.db");
    let store = place.open(Config::default());
    store.mark_seen("old").unwrap();
    store.backup(&backup).unwrap();
    store.forget("old").unwrap();
    store.mark_seen("new").unwrap();
    store.close().unwrap();
    backup
}

fn assert_untouched(place: &Place, names: &[String]) {
    assert_eq!(place.files(), names);
    let reader = Reader::open(place.path()).unwrap();
    assert!(reader.is_seen("new") && !reader.is_seen("old"));
}

#[test]
fn a_store_that_is_open_here_or_elsewhere_is_not_replaced() {
    let place = Place::new();
    let backup = store_and_backup(&place);
    let closed = place.files();
    let refused = || {
        let error = SeenStore::replace_with_backup(place.path(), &backup).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("seen.db"), "{error}");
    };
    for config in
        [Config::default(), Config::default().exclusive(true), Config::default().read_only(true)]
    {
        let store = place.open(config);
        let open = place.files();
        refused();
        assert_eq!(place.files(), open);
        store.close().unwrap();
        assert_untouched(&place, &closed);
    }
    let mut child = Child::with_store(place.path());
    refused();
    child.kill();
    SeenStore::replace_with_backup(place.path(), &backup).unwrap();
    assert!(place.open(Config::default()).is_seen("old"));
}

#[test]
fn a_mark_beside_two_that_replace_the_file_is_in_the_store_or_in_what_is_kept() {
    let place = Place::in_ram();
    let backup = store_and_backup(&place);
    let variables = [("STORE", place.path()), ("BACKUP", &backup)];
    let children =
        ["mark", "replace", "mark", "replace"].map(|role| Child::spawn(role, &variables));
    let told = children.map(|mut child| {
        let told: Vec<_> = std::iter::from_fn(|| child.hear()).collect();
        child.finish();
        told
    });
    assert!(told.iter().all(|told| !told.is_empty()));
    let [marked, _, others, _] = told;
    let mut missing: BTreeSet<_> = marked.into_iter().chain(others).collect();
    for name in place.files() {
        if name == "seen.db" || name.contains(".replaced") && !name.ends_with("-wal") {
            let reader = Reader::open(place.folder().join(name)).unwrap();
            for entry in reader.entries(Filter::default()) {
                missing.remove(&*String::from_utf8(entry.unwrap().id).unwrap());
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn what_is_no_backup_is_refused_and_the_store_stays_as_it_is() {
    let place = Place::new();
    let backup = store_and_backup(&place);
    let at = |name: &str| place.folder().join(name);
    fs::write(at("text"), "some text, long enough to be a database of one page ".repeat(20))
        .unwrap();
    fs::write(at("empty"), "").unwrap();
    let other = Connection::open(at("other.db")).unwrap();
    other.execute_batch("CREATE TABLE other (a)").unwrap();
    let mut cut = fs::read(&backup).unwrap();
    cut.truncate(cut.len() - 1_024);
    fs::write(at("cut.db"), &cut).unwrap();
    let mut overwritten = fs::read(&backup).unwrap();
    overwritten[1_024..1_040].fill(0xaa);
    fs::write(at("overwritten.db"), &overwritten).unwrap();
    let names = place.files();
    for (name, kind) in [
        ("missing", ErrorKind::NotFound),
        ("text", ErrorKind::NotADatabase),
        ("empty", ErrorKind::NotADatabase),
        ("other.db", ErrorKind::WrongApplication),
        ("cut.db", ErrorKind::Corrupt),
        ("overwritten.db", ErrorKind::Corrupt),
        ("seen.db", ErrorKind::InvalidPath),
    ] {
        let error = SeenStore::replace_with_backup(place.path(), at(name)).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert_untouched(&place, &names);
    }
    // Nor is a database of another application replaced.
    let error = SeenStore::replace_with_backup(at("other.db"), &backup).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongApplication, "{error}");
    assert_eq!(place.files(), names);
}

#[test]
fn the_new_file_has_the_owner_and_the_mode_of_the_old_one() {
    let place = Place::new();
    let backup = store_and_backup(&place);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o660)).unwrap();
    // Only root may.
    let owned = chown(place.path(), Some(12_345), Some(12_346)).is_ok();
    let kept = SeenStore::replace_with_backup(place.path(), &backup).unwrap().unwrap();
    assert_eq!(kept, place.beside(".replaced"));
    for file in [place.path(), &kept] {
        let found = fs::metadata(file).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o660);
        if owned {
            assert_eq!((found.uid(), found.gid()), (12_345, 12_346));
        }
    }
    assert_eq!(fs::metadata(&backup).unwrap().mode() & 0o777, 0o600);
    let again = SeenStore::replace_with_backup(place.path(), &backup).unwrap().unwrap();
    assert_eq!(again, place.beside(".replaced.2"), "what was kept first is kept");
}

#[test]
fn a_backup_may_have_links_an_older_format_or_a_place_where_no_store_was() {
    let place = Place::new();
    let backup = store_and_backup(&place);
    let at = |name: &str| place.folder().join(name);
    fs::hard_link(&backup, at("linked.db")).unwrap();
    symlink(at("linked.db"), at("latest")).unwrap();
    let kept = SeenStore::replace_with_backup(at("fresh.db"), at("latest")).unwrap();
    assert_eq!(kept, None);
    assert!(SeenStore::open(at("fresh.db")).unwrap().is_seen("old"));
    let seed = Connection::open(at("seed.db")).unwrap();
    seed.execute_batch(
        "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
         INSERT INTO seen VALUES ('of the seed', unixepoch())",
    )
    .unwrap();
    drop(seed);
    SeenStore::replace_with_backup(place.path(), at("seed.db")).unwrap();
    assert!(place.open(Config::default()).is_seen("of the seed"));
}
