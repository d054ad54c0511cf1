//! Backups that would overwrite something, or be overwritten.

use std::fs::{self};
use std::path::Path;

use seen_store::{Config, ErrorKind, Reader, SeenStore};

use crate::common::{Place, ms};

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

#[test]
fn a_backup_takes_the_place_of_an_earlier_one_and_leaves_nothing_else() {
    for exclusive in [false, true] {
        let place = Place::new();
        let store = place.open(Config::default().exclusive(exclusive));
        let backup = place.folder().join("backup.db");
        let open = place.files().len();
        for (number, id) in ["a", "b", "c"].into_iter().enumerate() {
            store.mark_seen(id).unwrap();
            store.replace_backup(&backup).unwrap();
            assert_eq!(
                Reader::open(&backup).unwrap().stats(ms(1), 1).unwrap().total().seen,
                number as u64 + 1
            );
            assert_eq!(place.files().len(), open + 1, "{:?}", place.files());
        }
        fs::write(&backup, "").unwrap();
        store.replace_backup(&backup).unwrap();
        assert!(Reader::open(&backup).unwrap().is_seen("c"));
    }
}

#[test]
fn what_is_no_earlier_backup_is_not_replaced() {
    let place = Place::new();
    let store = place.open(Config::default());
    let at = |name: &str| place.folder().join(name);
    fs::write(at("notes.txt"), "the user's notes").unwrap();
    fs::write(at("long.txt"), "the user's notes ".repeat(100)).unwrap();
    rusqlite::Connection::open(at("other.db"))
        .unwrap()
        .execute_batch("CREATE TABLE other (a)")
        .unwrap();
    fs::create_dir(at("folder")).unwrap();
    let other_store = SeenStore::open(at("open.db")).unwrap();
    store.backup(at("killed.db")).unwrap();
    fs::write(at("killed.db-wal"), "the log").unwrap();
    let names = place.files();
    for (name, kind) in [
        ("notes.txt", ErrorKind::WrongApplication),
        ("long.txt", ErrorKind::WrongApplication),
        ("other.db", ErrorKind::WrongApplication),
        ("folder", ErrorKind::InvalidPath),
        ("seen.db", ErrorKind::AlreadyExists),
        ("open.db", ErrorKind::AlreadyExists),
        ("killed.db", ErrorKind::AlreadyExists),
        ("seen.db-wal", ErrorKind::InvalidPath),
    ] {
        let before = (name != "folder" && !name.ends_with("-wal"))
            .then(|| fs::metadata(at(name)).unwrap().len());
        let error = store.replace_backup(at(name)).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
        let after = before.map(|_| fs::metadata(at(name)).unwrap().len());
        assert_eq!(before, after, "{name}");
        assert_eq!(place.files(), names);
    }
    drop(other_store);
}
