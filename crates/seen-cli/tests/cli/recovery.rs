//! Backups, what can be read of a damaged store, and what `doctor` says where a store cannot be used.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Output;
use std::time::Duration;

use seen_store::{Clock as _, SeenStore, SystemClock};
use serde_json::Value;

use crate::support::{Place, Told, run, seen};
use crate::support_process::{self, Child};

/// A store in another process, for the tests that need one.
#[test]
fn child() {
    if support_process::role().as_deref() == Some("puppet") {
        support_process::puppet();
    }
}

fn ids(place: &Place, name: &str) -> Vec<String> {
    let told =
        Told::from(seen(&["list", "--json", "--db"]).arg(place.path(name)).output().unwrap());
    told.assert(0, &[]);
    let objects = told.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    objects.map(|object| object["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_backup_replaces_the_one_of_last_night_only_on_request() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    place.told(&["backup", "copy.db"]).assert(0, &[]);
    place.store().mark_seen("b").unwrap();
    let told = place.told(&["backup", "copy.db"]);
    told.assert(2, &["copy.db", "exists"]);
    assert_eq!(ids(&place, "copy.db"), ["a"]);
    place.told(&["backup", "--replace", "copy.db"]).assert(0, &[]);
    assert_eq!(ids(&place, "copy.db"), ["a", "b"]);
    assert_eq!(place.names(), ["copy.db", "seen.db"]);
    place.told(&["backup", "--replace", "new.db"]).assert(0, &[]);
    assert_eq!(ids(&place, "new.db"), ["a", "b"]);
}

#[test]
fn a_backup_keeps_as_many_as_asked() {
    let place = Place::new();
    let copies: &[&[&str]] = &[
        &["copy.db"],
        &["copy.db", "copy.db.1"],
        &["copy.db", "copy.db.1", "copy.db.2"],
        &["copy.db", "copy.db.1", "copy.db.2"],
    ];
    for (n, names) in copies.iter().enumerate() {
        place.store().mark_seen(n.to_string()).unwrap();
        place.told(&["backup", "--keep", "3", "copy.db"]).assert(0, &[]);
        assert_eq!(place.names(), [names, &["seen.db"][..]].concat());
        for (age, name) in names.iter().enumerate() {
            assert_eq!(ids(&place, name).len(), n + 1 - age, "{name} of run {n}");
        }
    }
    place.told(&["backup", "--keep", "1", "copy.db"]).assert(0, &[]);
    assert_eq!(place.names(), ["copy.db", "seen.db"]);
    place.told(&["backup", "--keep", "0", "copy.db"]).assert(2, &["--keep", "`seen help backup`"]);
}

#[test]
fn only_a_copy_of_a_store_is_replaced() {
    let place = Place::new();
    let store = place.store();
    store.mark_seen("a").unwrap();
    let other = SeenStore::open(place.path("other.db")).unwrap();
    other.mark_seen("b").unwrap();
    for option in ["--replace", "--keep=2"] {
        place.told(&["backup", option, "seen.db"]).assert(2, &["seen.db", "not replaced"]);
        place.told(&["backup", option, "other.db"]).assert(2, &["other.db", "programs use"]);
    }
    store.close().unwrap();
    other.close().unwrap();
    place.file("letter.txt", "Dear all,\n".repeat(100));
    place.file("short.txt", "");
    for name in ["seen.db", "other.db", "letter.txt", "short.txt"] {
        let before = fs::read(place.path(name)).unwrap();
        place.told(&["backup", "--replace", name]).assert(2, &[name, "not replaced"]);
        assert!(fs::read(place.path(name)).unwrap() == before, "{name}");
    }
    assert_eq!(place.names(), ["letter.txt", "other.db", "seen.db", "short.txt"]);
}

#[test]
fn a_backup_that_fails_leaves_those_of_before() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    place.told(&["backup", "--keep", "2", "copy.db"]).assert(0, &[]);
    place.told(&["backup", "--keep", "2", "copy.db"]).assert(0, &[]);
    let told = place.told(&["backup", "--keep", "2", "copy.db", "--db", "missing.db"]);
    told.assert(2, &["missing.db"]);
    let told = place.told(&["backup", "--keep", "2", "no folder/copy.db"]);
    told.assert(2, &["no folder"]);
    assert_eq!(place.names(), ["copy.db", "copy.db.1", "seen.db"]);
}

#[test]
fn a_backup_is_restored_with_the_old_files_mode_and_without_its_log() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    place.told(&["backup", "copy.db"]).assert(0, &[]);
    let mut user = Child::with_store(&place.db());
    assert_eq!(user.ask("mark b"), "ok");
    let told = place.told(&["restore", "copy.db"]);
    told.assert(2, &["seen.db", "open", "`seen doctor` names them"]);
    user.kill();
    assert!(place.names().contains(&"seen.db-wal".to_owned()));
    set_mode(&place.db(), 0o640);
    let told = place.told(&["restore", "copy.db"]);
    told.assert(0, &[]);
    assert!(told.stdout.contains("seen.db: restored; the old store is kept as "), "{told:?}");
    assert!(told.stdout.ends_with("seen.db.replaced\n"), "{told:?}");
    assert_eq!(ids(&place, "seen.db"), ["a"]);
    assert_eq!(ids(&place, "seen.db.replaced"), ["a", "b"]);
    assert_eq!(fs::metadata(place.db()).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(!place.names().contains(&"seen.db-wal".to_owned()));
    // What was written since is in the way of nothing.
    place.store().mark_seen("c").unwrap();
    place.told(&["verify"]).assert(0, &[]);
}

#[test]
fn a_restore_where_there_is_no_store_makes_one_and_of_what_is_no_backup_does_nothing() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    place.told(&["backup", "copy.db"]).assert(0, &[]);
    let told = place.told(&["restore", "copy.db", "--db", "new.db"]);
    assert_eq!(told.stdout, "new.db: restored; there was no store here before\n");
    assert_eq!(ids(&place, "new.db"), ["a"]);
    place.file("letter.txt", "Dear all,\n".repeat(100));
    let before = fs::read(place.db()).unwrap();
    place.told(&["restore", "letter.txt"]).assert(2, &["letter.txt"]);
    place.told(&["restore", "missing.db"]).assert(2, &["missing.db"]);
    assert!(fs::read(place.db()).unwrap() == before);
    assert_eq!(place.names(), ["copy.db", "letter.txt", "new.db", "seen.db"]);
}

#[test]
fn a_backup_that_was_copied_over_a_store_is_refused_until_it_is_restored() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    place.told(&["backup", "copy.db"]).assert(0, &[]);
    let mut user = Child::with_store(&place.db());
    for n in 0..300 {
        assert_eq!(user.ask(&format!("mark {n}")), "ok");
    }
    user.kill();
    fs::copy(place.path("copy.db"), place.db()).unwrap();
    for arguments in [&["list"][..], &["mark", "b"], &["check", "a"]] {
        place.told(arguments).assert(2, &["seen.db-wal", "seen restore"]);
    }
    let told = place.told(&["doctor"]);
    assert!(told.stdout.contains("seen restore"), "{told:?}");
    place.told(&["restore", "copy.db"]).assert(0, &[]);
    assert_eq!(ids(&place, "seen.db"), ["a"]);
}

/// Overwrites some pages of the store.
fn damage(place: &Place, pages: impl IntoIterator<Item = usize>) {
    let mut bytes = fs::read(place.db()).unwrap();
    for page in pages {
        bytes[page * 1024..][..1024].fill(0xA5);
    }
    fs::write(place.db(), bytes).unwrap();
}

#[test]
fn what_can_be_read_of_a_damaged_store_is_exported_and_the_loss_is_told() {
    let place = Place::new();
    place.store().seed((0..3_000).map(|n| format!("id {n}"))).unwrap();
    let told = place.told(&["export", "--salvage"]);
    told.assert(0, &["seen.db", "3000 entries read", "nothing is lost"]);
    assert_eq!(told.stdout, place.printed(&["export"]));

    damage(&place, [60, 61, 100]);
    place.told(&["export"]).assert(2, &["seen.db", "seen export --salvage"]);
    let told = place.told(&["export", "--salvage"]);
    told.assert(1, &["seen.db", "at most ", " marks in 2 damaged places", "import"]);
    let read = told.stdout.lines().count();
    assert!((2_900..3_000).contains(&read), "{read}");
    let lost: usize =
        told.stderr.split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(read + lost, 3_000);

    let imported =
        run(&mut place.seen(&["import", "-", "--db", "fresh.db"]), told.stdout.as_bytes());
    assert_eq!(imported.status.code(), Some(0));
    assert_eq!(ids(&place, "fresh.db").len(), read);
    let csv = place.told(&["export", "--salvage", "--format", "csv", "--scope", "none"]);
    assert_eq!((csv.status, csv.stdout.lines().count()), (Some(1), 1));
}

#[test]
fn a_salvage_finds_ids_to_which_nothing_leads_and_says_so() {
    let place = Place::new();
    let store = place.store();
    store.seed((0..3_000).map(|n| format!("id {n}"))).unwrap();
    let gone = store.scope("gone");
    gone.seed((0..300).map(|n| format!("gone {n}"))).unwrap();
    gone.forget_scope().unwrap();
    drop((store, gone));
    let printed = place.printed(&["export"]);
    let whole = fs::read(place.db()).unwrap();
    let sql = rusqlite::Connection::open(place.db()).unwrap();
    let root: usize = sql
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'seen'", [], |row| {
            row.get::<_, u32>(0)
        })
        .unwrap() as usize;
    drop(sql);

    damage(&place, [root - 1]);
    let told = place.told(&["export", "--salvage"]);
    told.assert(1, &["3000 entries read, 3000 of them by a scan of all pages; lost: an unknown"]);
    assert_eq!(told.stdout, printed);

    fs::write(place.db(), whole).unwrap();
    damage(&place, [0]);
    place.told(&["export"]).assert(2, &["seen.db", "not a SQLite database"]);
    let told = place.told(&["export", "--salvage"]);
    told.assert(1, &["of them by a scan of all pages; forgotten ids may be among these", "claims"]);
    assert!(told.stdout.starts_with(&printed), "{}", told.stderr);
    let forgotten = told.stdout.lines().skip(3_000).collect::<Vec<_>>();
    assert!(forgotten.iter().all(|line| line.contains("gone ")), "{forgotten:?}");
}

#[test]
fn a_salvage_of_what_is_no_store_is_refused() {
    let place = Place::new();
    place.told(&["export", "--salvage"]).assert(2, &["seen.db", "no store"]);
    place.file("seen.db", "no database\n".repeat(100));
    place.told(&["export", "--salvage"]).assert(2, &["seen.db", "not a SQLite database"]);
}

/// The command run by a user who may do nothing by privilege; `None`, said visibly, where that is impossible.
fn as_nobody(place: &Place, arguments: &[&str]) -> Option<Output> {
    let mut command = place.seen(arguments);
    command.current_dir("/");
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65_534).gid(65_534);
    }
    match command.output() {
        Ok(output) => Some(output),
        Err(e) => {
            eprintln!("SKIPPED: another user cannot run the command here: {e}");
            None
        }
    }
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn doctor_tells_whose_file_it_may_not_open_and_who_asks() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    set_mode(place.folder(), 0o755);
    set_mode(&place.db(), 0o600);
    let Some(output) = as_nobody(&place, &["doctor"]) else { return };
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return; // The file is this user's own.
    }
    let told = Told::from(output);
    assert_eq!((told.status, &*told.stderr), (Some(1), ""), "{told:?}");
    for part in [
        "! store",
        "asked by    user 65534",
        "mode 0600, user 0 (root), group 0 (root): this user may not read it",
        "chmod g+rw",
        "file system",
        "free",
        "open in",
    ] {
        assert!(told.stdout.contains(part), "{part:?} is not in {}", told.stdout);
    }
    // A folder on the way is shut: nothing behind it can be seen.
    set_mode(place.folder(), 0o700);
    let told = Told::from(as_nobody(&place, &["doctor"]).unwrap());
    assert_eq!((told.status, &*told.stderr), (Some(1), ""), "{told:?}");
    assert!(
        told.stdout
            .contains("mode 0700, user 0 (root), group 0 (root): this user may not go through it"),
        "{told:?}"
    );
}

#[test]
fn doctor_has_no_complaint_about_a_store_that_a_group_shares() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    let complaints = || {
        let told = place.told(&["doctor"]).stdout;
        let of_modes = |line: &&str| line.starts_with("! file  ") || line.starts_with("! folder");
        told.lines().filter(of_modes).map(str::to_owned).collect::<Vec<_>>()
    };
    for (file, folder) in [(0o660, 0o2770), (0o640, 0o750), (0o600, 0o700)] {
        set_mode(&place.db(), file);
        set_mode(place.folder(), folder);
        assert!(complaints().is_empty(), "{file:o} in {folder:o}: {:?}", complaints());
    }
    set_mode(&place.db(), 0o660);
    set_mode(place.folder(), 0o750);
    assert!(complaints()[0].contains("may not create its log"), "{:?}", complaints());
    set_mode(&place.db(), 0o604);
    assert!(complaints()[0].contains("chmod o-rwx"), "{:?}", complaints());
}

#[test]
fn doctor_examines_the_surroundings_of_a_damaged_store() {
    let place = Place::new();
    place.store().seed((0..3_000).map(|n| format!("id {n}"))).unwrap();
    let bytes = fs::read(place.db()).unwrap();
    fs::write(place.db(), &bytes[..bytes.len() - 100]).unwrap();
    let told = place.told(&["doctor"]);
    assert_eq!(told.status, Some(1), "{told:?}");
    assert!(
        told.stdout.contains("! store") && told.stdout.contains("seen export --salvage"),
        "{told:?}"
    );
    assert!(told.stdout.contains("file system"), "{told:?}");
}

#[test]
fn doctor_tells_of_entries_and_leases_in_the_future() {
    let place = Place::new();
    let store = place.store();
    store.mark_seen("now").unwrap();
    store.mark_seen_at("later", SystemClock.now() + Duration::from_secs(86_400)).unwrap();
    store.close().unwrap();
    let told = place.told(&["doctor"]);
    assert_eq!(told.status, Some(1));
    assert!(told.stdout.contains("! times       1 id seen in the future"), "{told:?}");
    assert!(told.stdout.contains("seen forget --scope NAME --since 1s"), "{told:?}");
    place.told(&["forget", "--since", "1s", "--state", "seen"]).assert(0, &[]);

    let sql = rusqlite::Connection::open(place.db()).unwrap();
    sql.execute_batch("DELETE FROM seen").unwrap();
    drop(sql);
    let ahead = seen_store::ManualClock::new(SystemClock.now() + Duration::from_secs(86_400));
    let config = seen_store::Config::default().clock(std::sync::Arc::new(ahead));
    let store = SeenStore::open_with(place.db(), config).unwrap();
    match store.claim("c", Duration::from_secs(60)).unwrap() {
        seen_store::Claim::Granted(lease) => drop(lease.into_token()),
        other => panic!("{other:?}"),
    }
    store.close().unwrap();
    let told = place.told(&["doctor"]);
    assert!(told.stdout.contains("! leases      1 id claimed in the future"), "{told:?}");
    let remedy = place.told(&["forget", "--scope", "", "--state", "in-flight", "--since", "1s"]);
    assert_eq!(remedy.stdout, "1 forgotten\n");
    let told = place.told(&["doctor"]);
    assert!(told.stdout.contains("  times       none lies in the future"), "{told:?}");
}

#[test]
fn doctor_without_a_store_is_an_error_and_examines_the_place_of_it() {
    let place = Place::new();
    let told = place.told(&["doctor"]);
    told.assert(2, &["seen.db", "SEEN_DB_PATH"]);
    for part in ["asked by", "  folder", "file system", "space"] {
        assert!(told.stdout.contains(part), "{part:?} is not in {}", told.stdout);
    }
    // As a full disk leaves it.
    place.file("seen.db", "");
    let told = place.told(&["doctor"]);
    told.assert(2, &["seen.db", "empty"]);
    assert!(told.stdout.contains(" file        mode"), "{told:?}");
    assert!(told.stdout.contains("space"), "{told:?}");
    place.file("seen.db", "no database\n".repeat(100));
    let told = place.told(&["doctor"]);
    told.assert(2, &["not a SQLite database"]);
    assert_eq!(told.stdout, "");
}

#[test]
fn doctor_tells_who_may_not_make_a_store_and_who_may_not_use_its_log() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return; // Files of two users need the privilege to make them.
    }
    let place = Place::new();
    set_mode(place.folder(), 0o755);
    let Some(output) = as_nobody(&place, &["doctor"]) else { return };
    let told = Told::from(output);
    assert_eq!(told.status, Some(2), "{told:?}");
    assert!(told.stdout.contains("! folder"), "{told:?}");
    assert!(told.stdout.contains("this user may not make a store in it; run this as user 0"));

    place.store().mark_seen("a").unwrap();
    set_mode(place.folder(), 0o777);
    chown(place.db(), Some(65_534), Some(65_534)).unwrap();
    set_mode(&place.file("seen.db-wal", "x".repeat(100)), 0o600);
    let told = Told::from(as_nobody(&place, &["doctor"]).unwrap());
    let finding = told.stdout.lines().find(|line| line.starts_with("! log")).unwrap();
    for part in ["seen.db-wal", "user 0 (root)", "may not use it", "chown 65534:65534 "] {
        assert!(finding.contains(part), "{part:?} is not in {told:?}");
    }
}

#[test]
fn a_salvage_that_reads_nothing_does_not_advise_a_salvage() {
    let place = Place::new();
    place.store().mark_seen("a").unwrap();
    let bytes = fs::read(place.db()).unwrap();
    fs::write(place.db(), &bytes[..512]).unwrap();
    let told = place.told(&["export", "--salvage"]);
    assert_ne!(told.status, Some(0));
    assert!(!told.stderr.contains("--salvage"), "{told:?}");
}

/// Where a file system can be mounted: what `doctor` prints of a store in it, after these commands.
fn doctor_in_a_file_system(options: &str, commands: &str) -> Option<Told> {
    let place = Place::new();
    fs::create_dir(place.path("disk")).unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} tmpfs disk || exit 77; \"$SEEN\" -q mark a; {commands}; exec \"$SEEN\" doctor"
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]).current_dir(place.folder());
    command.env("SEEN", seen(&[]).get_program()).env("SEEN_DB_PATH", "disk/seen.db");
    match command.output() {
        Ok(output) if output.status.code() == Some(1) && !output.stdout.is_empty() => {
            Some(Told::from(output))
        }
        other => {
            eprintln!("SKIPPED: nothing can be mounted here: {other:?}");
            None
        }
    }
}

#[test]
fn doctor_tells_of_a_file_system_that_is_read_only_or_out_of_inodes() {
    let read_only = "mount -o remount,ro disk";
    let Some(told) = doctor_in_a_file_system("size=1m", read_only) else { return };
    assert!(told.stdout.contains("! file system it is mounted read-only"), "{told:?}");
    assert!(!told.stdout.contains("! inodes"), "{told:?}");
    // Those of the folder and the store, and two.
    let told = doctor_in_a_file_system("size=1m,nr_inodes=4", "touch disk/a disk/b").unwrap();
    assert!(told.stdout.contains("! inodes      none is left"), "{told:?}");
    assert!(!told.stdout.contains("read-only"), "{told:?}");
}
