//! Paths that were meant for a shell or for another program.

use std::fs;

use rusqlite::Connection;
use seen_store::{Config, ErrorKind, LegacyFile, Reader, SeenStore, Ttl};

use crate::common::Place;
use crate::support_process::{self, Child, say, variable};

/// In a process of its own, whose working directory and environment are of no other test.
#[test]
fn child() {
    match support_process::role().as_deref() {
        Some("open each") => open_each(),
        Some("from the environment") => match SeenStore::from_env() {
            Ok(store) => say(format!("opened {store:?}")),
            Err(e) => say(format!("{:?} {e}", e.kind())),
        },
        _ => {}
    }
}

const NOT_EXPANDED: [&str; 8] = [
    "~/s.db",
    "~",
    "~nobody/s.db",
    "$HOME/s.db",
    "${HOME}/s.db",
    "x/$USER/s.db",
    "redis://host/",
    "sqlite:s.db",
];

fn open_each() {
    std::env::set_current_dir(variable("FOLDER")).unwrap();
    let store = SeenStore::open("here.db").unwrap();
    for path in NOT_EXPANDED {
        for (way, error) in [
            ("open", SeenStore::open(path).err()),
            ("open_with", SeenStore::open_with(path, Config::default().read_only(true)).err()),
            ("Reader", Reader::open(path).err()),
            ("LegacyFile", LegacyFile::open(path, Ttl::Never).err()),
            ("backup", store.backup(path).err()),
        ] {
            let error = error.unwrap_or_else(|| panic!("{way} of {path}"));
            assert_eq!(error.kind(), ErrorKind::InvalidPath, "{way}: {error}");
            let message = error.to_string();
            assert!(message.starts_with(path) && message.contains("./"), "{way}: {message}");
        }
    }
    let [literal, deeper] = ["./~/s.db", "x/./$USER/s.db"];
    for path in [literal, deeper, "a$b.db", "~s.db"] {
        SeenStore::open(path).unwrap().mark_seen("a").unwrap();
        assert!(Reader::open(path).unwrap().is_seen("a"));
    }
    say("done");
}

#[test]
fn a_path_that_was_not_expanded_is_refused_by_every_call_that_takes_one_and_makes_nothing() {
    let place = Place::new();
    let mut child = Child::spawn("open each", &[("FOLDER", place.folder())]);
    assert_eq!(child.hear().as_deref(), Some("done"));
    child.finish();
    assert_eq!(place.files(), ["a$b.db", "here.db", "x", "~", "~s.db"]);
}

#[test]
fn the_environment_names_a_store_as_docker_and_systemd_deliver_it() {
    let place = Place::new();
    for path in ["~/s.db", "$HOME/s.db", "\"/data/s.db\"", "/data/s.db\r"] {
        let mut child = Child::spawn("from the environment", &[("SEEN_DB_PATH", path)]);
        let told = child.hear().unwrap();
        assert!(told.starts_with("InvalidPath "), "{told}");
        child.finish();
    }
    let path = place.path().to_str().unwrap();
    let variables = [("SEEN_DB_PATH", path), ("SEEN_CREATE", "no")];
    let told = Child::spawn("from the environment", &variables).hear().unwrap();
    assert!(told.starts_with("NotFound "), "{told}");
    let variables = [("SEEN_DB_PATH", path), ("SEEN_TTL", "1w 2d")];
    let told = Child::spawn("from the environment", &variables).hear().unwrap();
    assert!(told.contains("ttl: After(777600s)"), "{told}");
    let variables = [("SEEN_DB_PATH", path), ("SEEN_TTL", "soon")];
    let told = Child::spawn("from the environment", &variables).hear().unwrap();
    assert!(told.starts_with("InvalidConfig ") && told.contains("SEEN_TTL"), "{told}");
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_refused_with_the_path_that_it_points_to() {
    let place = Place::new();
    Connection::open(place.path()).unwrap();
    fs::create_dir(place.folder().join("links")).unwrap();
    let link = place.folder().join("links/link.db");
    std::os::unix::fs::symlink("../seen.db", &link).unwrap();
    fs::write(place.path(), "").unwrap();
    let error = SeenStore::open(&link).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPath);
    assert!(error.to_string().ends_with(&format!(", {}", place.path().display())), "{error}");
}
