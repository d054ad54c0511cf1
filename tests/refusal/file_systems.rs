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
        Some("without inodes") => open_without_inodes(),
        Some("read-only") => open_where_nothing_can_be_written(),
        Some("somebody else") => open_a_file_of_somebody_else(),
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
        assert!(!line.contains("belongs to user"), "{line}");
    }
}

fn open_without_inodes() {
    let folder = PathBuf::from(variable("FOLDER"));
    // The folder itself, the database, and then neither the log nor its index.
    for inodes in 1..=3 {
        run("mount", &["-t", "tmpfs", "-o", &format!("nr_inodes={inodes}"), "tmpfs"], &folder);
        tell(&format!("{inodes} inodes"), SeenStore::open(folder.join("seen.db")));
        run("umount", &[], &folder);
    }
}

#[test]
fn a_file_system_without_inodes_is_told_as_such() {
    let Some(said) = said_in_a_namespace("without inodes") else { return };
    println!("{said:#?}");
    assert_eq!(said.len(), 3);
    for line in said {
        assert!(line.contains(": StorageFull ") && line.contains("inodes"), "{line}");
    }
}

/// Opens as a user who may not, in a process of its own.
#[test]
fn somebody_elses_file_is_told_with_its_owner_and_mode_and_who_asks() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    place.open(Config::default()).mark_seen("a").unwrap();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(place.folder(), 0o755);
    set(place.path(), 0o640);
    if chown(place.path(), Some(4_711), Some(4_712)).is_err() {
        println!("SKIPPED: only root can give a file away");
        return;
    }
    // Where that user can read it.
    let program = Place::new();
    set(program.folder(), 0o755);
    let copy = program.folder().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    set(&copy, 0o755);
    let ask = |mode| {
        set(place.path(), mode);
        let output = Command::new(&copy)
            .args(["--exact", &support_process::test_of_this_file("child"), "--nocapture"])
            .env("SEEN_TEST_ROLE", "somebody else")
            .env("STORE", place.path())
            .current_dir("/")
            .uid(65_534)
            .gid(65_533)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (mode, told) in [(0o640, "mode 0640"), (0o644, "mode 0644")] {
        let said = ask(mode);
        for part in ["PermissionDenied", "seen.db belongs to user 4711 and group 4712", told] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains("runs as user 65534 and group 65533"), "{said}");
    }
    // The folder, in which the log cannot be made.
    let said = ask(0o666);
    assert!(said.contains("PermissionDenied") && said.contains("belongs to user 0"), "{said}");
}

fn open_a_file_of_somebody_else() {
    tell("writing", SeenStore::open(variable("STORE")));
}
