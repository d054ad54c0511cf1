//! File systems without room, and such that can only be read: the error says which it is.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;

use seen_store::{Config, Reader, Result, SeenStore};

use crate::common::Place;
use crate::support_process::{self, say, variable};

#[test]
fn child() {
    match support_process::role().as_deref() {
        Some("without room") => open_without_room(),
        Some("read-only") => open_where_nothing_can_be_written(),
        _ => {}
    }
}

/// Runs this program's child in a namespace of its own, where it may mount. `None` where that is impossible.
fn said_in_a_namespace(role: &str) -> Option<Vec<String>> {
    const RUN: &str = "\
mount -t tmpfs tmpfs \"$FOLDER\" && umount \"$FOLDER\" || exit 77
exec \"$TEST\" --exact \"$CHILD\" --nocapture --test-threads=1";
    let place = Place::new();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", RUN])
        .env("FOLDER", place.folder())
        .env("TEST", std::env::current_exe().unwrap())
        .env("CHILD", support_process::test_of_this_file("child"))
        .env("SEEN_TEST_ROLE", role)
        .output();
    match output {
        Ok(output) if output.status.success() || output.status.code() == Some(101) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said = String::from_utf8(output.stdout).unwrap();
            Some(
                said.lines().filter_map(|line| line.strip_prefix('@')).map(str::to_owned).collect(),
            )
        }
        other => {
            println!("SKIPPED: nothing can be mounted here: {other:?}");
            None
        }
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    assert!(Command::new(program).args(arguments).arg(folder).status().unwrap().success());
}

fn tell<T>(what: &str, done: Result<T>) {
    match done {
        Ok(_) => say(format!("{what}: ok")),
        Err(e) => say(format!("{what}: {:?} {e}", e.kind())),
    }
}

fn open_without_room() {
    let folder = PathBuf::from(variable("FOLDER"));
    for kib in (4..=64).step_by(4) {
        run("mount", &["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"], &folder);
        for exclusive in [false, true] {
            let config = Config::default().exclusive(exclusive);
            let opened = SeenStore::open_with(folder.join("seen.db"), config);
            tell(&format!("{kib} KiB"), opened.and_then(|store| store.mark_seen("a")));
        }
        run("umount", &[], &folder);
    }
}

#[test]
fn a_file_system_without_room_for_a_store_is_told_as_full() {
    let Some(said) = said_in_a_namespace("without room") else { return };
    println!("{said:#?}");
    assert_eq!(said.len(), 32);
    assert!(said[0].contains("StorageFull") && said[31].ends_with("ok"));
    let other = said.iter().find(|line| !line.ends_with("ok") && !line.contains("StorageFull"));
    assert_eq!(other, None);
}

fn open_where_nothing_can_be_written() {
    let folder = PathBuf::from(variable("FOLDER"));
    run("mount", &["-t", "tmpfs", "tmpfs"], &folder);
    let path = folder.join("seen.db");
    let store = SeenStore::open(&path).unwrap();
    store.mark_seen("a").unwrap();
    store.close().unwrap();
    run("mount", &["-o", "remount,ro"], &folder);
    tell("writing", SeenStore::open(&path));
    tell("reading", SeenStore::open_with(&path, Config::default().read_only(true)));
    tell("new", SeenStore::open(folder.join("new.db")));
    tell("folder", SeenStore::open(folder.join("new/new.db")));
    assert!(Reader::open(&path).unwrap().try_is_seen("a").unwrap());
    run("umount", &[], &folder);
}

#[test]
fn a_file_system_that_can_only_be_read_is_told_as_such() {
    let Some(said) = said_in_a_namespace("read-only") else { return };
    println!("{said:#?}");
    assert_eq!(said.len(), 4);
    for line in said {
        assert!(line.contains(": ReadOnly "), "{line}");
        assert!(line.contains("the file system is read-only"), "{line}");
    }
}
