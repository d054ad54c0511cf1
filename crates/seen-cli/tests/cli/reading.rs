//! The commands that only read, as a user runs them: `check`, `show`, `list`, `stats`, `verify` and
//! `doctor`. None of them may leave a trace.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::{Place, assert_error, run, seen, stderr};
use crate::support_process::{self, Child};
use seen_store::{Claim, Clock, Config, SeenStore, SystemClock, Ttl};
use serde_json::Value;

/// Every command that only reads, with arguments that suit any store.
const COMMANDS: [&[&str]; 8] = [
    &["check", "a"],
    &["show", "a"],
    &["list"],
    &["list", "--state", "expired"],
    &["stats"],
    &["stats", "--prometheus"],
    &["verify"],
    &["doctor"],
];

/// A store in another process, for the tests that need one.
#[test]
fn child() {
    if support_process::role().as_deref() == Some("puppet") {
        support_process::puppet();
    }
}

impl Place {
    /// A place whose store holds an id in each state, and is closed.
    fn filled() -> Self {
        let place = Self::new();
        fill(&place.store());
        place
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.seen(arguments).output().unwrap()
    }

    /// What the command prints, having ended with this status and without a complaint.
    fn answers(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert_eq!(stderr(&output), "");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, status: i32, arguments: &[&str]) -> Vec<Value> {
        let told = self.answers(status, arguments);
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Everything in the folder: names, contents and times.
    fn picture(&self) -> Vec<(String, Vec<u8>, SystemTime)> {
        let mut files: Vec<_> = fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let modified = entry.metadata().unwrap().modified().unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap(), modified)
            })
            .collect();
        files.sort();
        files
    }
}

fn fill(store: &SeenStore) {
    store.mark_seen("a").unwrap();
    store.mark_seen("line\nbreak").unwrap();
    store.mark_seen("\u{1b}[31mred").unwrap();
    store.mark_seen(b"\xff\xfe").unwrap();
    let _ = store.check_and_mark("a").unwrap();
    store.scope("feed \"x\"\n").ttl(Ttl::Never).mark_seen("forever").unwrap();
    store.ttl(Duration::ZERO).mark_seen("gone").unwrap();
    let claim = |id: &str| match store.claim(id, Duration::from_secs(10 * 60)).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    };
    let _ = claim("working").into_token();
    claim("broken").fail("exit status 7\nof curl").unwrap();
    claim("sent").confirm_with(b"message 42").unwrap();
}

#[test]
fn check_answers_by_its_status_alone() {
    let place = Place::filled();
    assert_eq!(place.answers(0, &["check", "a"]), "");
    assert_eq!(place.answers(0, &["check", "a", "line\nbreak", "sent"]), "");
    for unseen in ["b", "gone", "working", "broken", "forever", "A"] {
        assert_eq!(place.answers(1, &["check", unseen]), "", "{unseen}");
        assert_eq!(place.answers(1, &["check", "a", unseen]), "", "{unseen}");
    }
    assert_eq!(place.answers(0, &["check", "forever", "--scope", "feed \"x\"\n"]), "");
}

#[test]
fn check_prints_which_ids_are_seen_or_not_and_reads_them_from_standard_input() {
    let place = Place::filled();
    let ids = ["check", "b", "a", "\u{1b}[31mred", "a", "c"];
    let told = place.answers(1, &[&ids[..], &["--print", "seen"]].concat());
    assert_eq!(told, "a\n\u{1b}[31mred\na\n");
    assert_eq!(place.answers(1, &[&ids[..], &["--print", "unseen"]].concat()), "b\nc\n");

    // More than SQLite is asked to compare with each row, and one that is no text.
    let many: Vec<u8> = (0..50).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let input = [&b"sent\n\xff\xfe\n\n"[..], &many, b"a"].concat();
    let output = run(&mut place.seen(&["check", "-", "--print", "seen"]), &input);
    assert_eq!(output.stdout, b"sent\n\xff\xfe\na\n");
    assert_eq!(output.status.code(), Some(1));

    let output =
        run(&mut place.seen(&["check", "-", "-0", "--print", "seen"]), b"line\nbreak\0b\0");
    assert_eq!(output.stdout, b"line\nbreak\0");
    let output = run(&mut place.seen(&["check", "-"]), b"");
    assert_eq!(output.status.code(), Some(0));

    let objects = place.json(1, &["check", "a", "working", "b", "--json"]);
    let told: Vec<_> = objects.iter().map(|o| (&o["id"], &o["state"], &o["seen"])).collect();
    assert_eq!(
        serde_json::to_string(&told).unwrap(),
        r#"[["a","seen",true],["working","in-flight",false],["b","unknown",false]]"#
    );
}

#[test]
fn show_tells_what_became_of_an_id_in_words() {
    let place = Place::filled();
    let told = place.answers(0, &["show", "a"]);
    assert!(told.starts_with("a\n  state       seen\n  first seen  20"), "{told}");
    assert!(told.contains("+00:00 (in 6d 23h)\n"), "{told}");
    assert!(told.contains("  duplicates  1\n"), "{told}");

    let told = place.answers(0, &["show", "broken"]);
    assert!(told.contains("  state       failed\n  claimed     20"), "{told}");
    assert!(told.contains("  attempts    1\n  last error  exit status 7\\nof curl\n"), "{told}");

    let told = place.answers(0, &["show", "working"]);
    assert!(told.contains("  state       in-flight\n"), "{told}");
    assert!(told.contains("  lease ends  20") && told.contains("(in 9m "), "{told}");

    let told = place.answers(0, &["show", "sent"]);
    assert!(told.contains("  attempts    1\n  receipt     message 42\n"), "{told}");

    let told = place.answers(0, &["show", "forever", "--scope", "feed \"x\"\n"]);
    assert!(told.contains("  scope       feed \"x\"\\n\n"), "{told}");
    assert!(told.contains("  expires     never\n"), "{told}");

    assert!(place.answers(0, &["show", "\u{1b}[31mred"]).starts_with("\\u{1b}[31mred\n"));
    assert_eq!(place.answers(1, &["show", "b"]), "b\n  not seen: the store knows nothing of it\n");
}

#[test]
fn show_gives_programs_one_object_an_id() {
    let place = Place::filled();
    let objects = place.json(1, &["show", "--json", "sent", "line\nbreak", "b", "gone"]);
    assert_eq!(objects[0]["receipt"], "message 42");
    assert!(objects[0]["first_seen"].as_str().unwrap().ends_with('Z'));
    assert_eq!(objects[1]["id"], "line\nbreak");
    assert_eq!(objects[2]["state"], "unknown");
    // Purged or not: it is never told as seen.
    assert_ne!(objects[3]["state"], "seen");
}

#[test]
fn list_filters_and_keeps_to_the_order_of_writing() {
    let place = Place::filled();
    let ids = |arguments: &[&str]| -> Vec<String> {
        let objects = place.json(0, &[&["list", "--json"], arguments].concat());
        objects
            .iter()
            .map(|o| o["id"].as_str().or(o["id_hex"].as_str()).unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        ids(&[]),
        ["broken", "working", "a", "line\nbreak", "\u{1b}[31mred", "fffe", "forever", "sent"]
    );
    assert_eq!(ids(&["--state", "seen", "--scope", ""])[..2], ["a", "line\nbreak"]);
    assert_eq!(ids(&["--state", "failed"]), ["broken"]);
    assert_eq!(ids(&["--state", "in-flight"]), ["working"]);
    assert_eq!(ids(&["--state", "expired"]), ["gone"]);
    assert_eq!(ids(&["--scope", "feed \"x\"\n"]), ["forever"]);
    assert_eq!(ids(&["--prefix", "lin"]), ["line\nbreak"]);
    assert_eq!(ids(&["--since", "1h"]).len(), 8);
    assert!(ids(&["--older-than", "1h"]).is_empty());
    // The third depends on the milliseconds: "a" was seen again right after the last of the others was marked.
    let (all, newest) = (ids(&["--state", "seen"]), ids(&["--state", "seen", "--newest", "2"]));
    assert_eq!(newest, all.iter().rev().take(2).cloned().collect::<Vec<_>>());
    assert_eq!(ids(&["--newest", "100"]).len(), 8);
    assert_eq!(ids(&["--state", "seen", "--limit", "2"]), all[..2]);
    assert_eq!(ids(&["--newest", "2", "--limit", "1"]), newest[..1]);
    assert!(ids(&["--limit", "0"]).is_empty());
    std::thread::sleep(Duration::from_millis(20));
    assert!(ids(&["--since", "10ms"]).is_empty());

    let told = place.answers(0, &["list"]);
    assert_eq!(told.lines().count(), 8, "{told}");
    assert!(told.contains("  line\\nbreak\n") && told.contains("  \\u{1b}[31mred\n"), "{told}");
    assert!(told.contains("  [feed \"x\"\\n] forever\n"), "{told}");
}

#[test]
fn an_expired_mark_is_not_listed_once_its_id_is_seen_again() {
    let place = Place::new();
    // A store that has not known the id when it was live leaves its expired row to a purge.
    let config = Config::default().purge_on_open(false).purge_interval(None);
    let store = || SeenStore::open_with(place.db(), config.clone()).unwrap();
    for id in ["once", "twice"] {
        store().ttl(Duration::ZERO).mark_seen(id).unwrap();
    }
    store().mark_seen("twice").unwrap();
    let rows = rusqlite::Connection::open(place.db()).unwrap().query_row(
        "SELECT count(*) FROM seen",
        [],
        |row| row.get::<_, i64>(0),
    );
    assert_eq!(rows, Ok(3));
    let listed = place.json(0, &["list", "--json", "--state", "expired"]);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], "once");
}

#[test]
fn stats_count_by_state_and_scope() {
    let place = Place::filled();
    let figures = &place.json(0, &["stats", "--json"])[0];
    assert_eq!(figures["total"]["seen"], 6);
    assert_eq!(figures["total"]["in_flight"], 1);
    assert_eq!(figures["total"]["failed"], 1);
    assert_eq!(figures["total"]["expired"], 1);
    assert_eq!(figures["scopes"][1]["scope"], "feed \"x\"\n");
    assert_eq!(figures["scopes"][1]["seen"], 1);
    let size = fs::metadata(place.db()).unwrap().len();
    assert_eq!(figures["file_bytes"], size);
    let buckets = figures["first_seen"].as_array().unwrap();
    assert_eq!((buckets.len(), &buckets[55]["seen"]), (56, &Value::from(6)));
    for (earlier, later) in buckets.iter().zip(&buckets[1..]) {
        assert!(earlier["from"].as_str() < earlier["to"].as_str(), "{earlier}");
        assert_eq!(earlier["to"], later["from"]);
    }

    let told = place.answers(0, &["stats"]);
    assert!(told.contains("\n(no scope)             5             1             1"), "{told}");
    assert!(told.contains("\nfeed \"x\"\\n             1             0"), "{told}");
    assert!(told.contains("\nall                    6             1             1"), "{told}");
    assert!(told.contains("0 within an hour, 0 within a day"), "{told}");
    assert!(!told.contains('█'), "drawn where there is no terminal: {told}");
    place.store().ttl(Duration::from_secs(60)).mark_seen("soon").unwrap();
    let told = place.answers(0, &["stats"]);
    assert!(told.contains("1 within an hour, 1 within a day"), "{told}");
}

/// Checks the text format: each sample belongs to the metric that was announced before it.
fn assert_prometheus(text: &str) {
    let mut announced = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split_once(' ').unwrap().0.clone_into(&mut announced);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(kind, format!("{announced} gauge"));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = series.split('{').next().unwrap();
            assert_eq!(name, announced);
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            assert!(series.ends_with("\"}"), "{line}");
        }
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn stats_are_what_prometheus_scrapes() {
    let place = Place::filled();
    let told = place.answers(0, &["stats", "--prometheus"]);
    assert_prometheus(&told);
    let path = format!("path=\"{}\"", place.db().display());
    assert!(
        told.contains(&format!("\nseen_ids{{{path},scope=\"\",state=\"seen\"}} 5\n")),
        "{told}"
    );
    let of_feed = format!(r#"{path},scope="feed \"x\"\n",state="seen""#);
    assert!(told.contains(&format!("\nseen_ids{{{of_feed}}} 1\n")), "{told}");
    assert!(told.contains(&format!("\nseen_wal_bytes{{{path}}} 0\n")), "{told}");
}

#[test]
fn verify_finds_what_is_wrong() {
    let place = Place::filled();
    assert_eq!(place.answers(0, &["verify"]), "7 rows, and nothing is wrong\n");
    let sql = rusqlite::Connection::open(place.db()).unwrap();
    sql.execute_batch(
        "INSERT INTO seen (seq, scope, id, first_seen, last_seen, expires_at) \
         SELECT seq + 100, scope, id, first_seen, last_seen, expires_at FROM seen WHERE id = 'a'",
    )
    .unwrap();
    sql.execute("UPDATE claims SET id = 'sent' WHERE id = 'broken'", []).unwrap();
    drop(sql);
    let told = place.answers(1, &["verify"]);
    assert!(told.contains("row 1 is live beside a newer row of the same id\n"), "{told}");
    assert!(told.contains("\"sent\" in scope \"\" is claimed although it is seen\n"), "{told}");
    let remedy = told.lines().last().unwrap();
    assert!(remedy.contains("`seen restore BACKUP`") && remedy.contains("--salvage"), "{told}");
    let report = &place.json(1, &["verify", "--json"])[0];
    assert_eq!(report["rows"], 8);
    assert_eq!(report["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn verify_finds_a_damaged_page() {
    let place = Place::new();
    let store = place.store();
    let _ = store.check_and_mark_all((0..3_000).map(|n| format!("id {n}"))).unwrap();
    store.close().unwrap();
    let mut bytes = fs::read(place.db()).unwrap();
    let middle = bytes.len() / 2 / 1024 * 1024;
    bytes[middle..middle + 1024].fill(0xA5);
    fs::write(place.db(), &bytes).unwrap();
    let output = place.output(&["verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_ne!(output.stdout, b"");

    // Much damage: ten findings are enough for people, and programs get all.
    for page in (bytes.len() / 2048..bytes.len() / 1024).step_by(2) {
        bytes[page * 1024..][..1024].fill(0xA5);
    }
    fs::write(place.db(), &bytes).unwrap();
    let told = place.answers(1, &["verify"]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 12, "{told}");
    assert!(!told.contains("\\n") && !told.contains("***"), "{told}");
    let report = &place.json(1, &["verify", "--json"])[0];
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(lines[0], problems[0]);
    assert_eq!(lines[10], format!("and {} more; --json prints all", problems.len() - 10));
}

/// Lookups do without it, so it is no reason to restore a backup.
#[test]
fn a_damaged_index_in_the_file_is_told_and_mended_by_compact() {
    let place = Place::new();
    let store = place.store();
    store.seed((0..6_000).map(|n| format!("id {n}"))).unwrap();
    store.close().unwrap();
    // It may find something else to be wrong with the place where this test runs.
    let doctor = || String::from_utf8(place.output(&["doctor"]).stdout).unwrap();
    let told = doctor();
    assert!(told.contains("  index       covers 6,000 rows, and nothing is wrong"), "{told}");
    let sql = rusqlite::Connection::open(place.db()).unwrap();
    sql.execute("UPDATE blocks SET entries = zeroblob(length(entries))", []).unwrap();
    drop(sql);

    let told = place.answers(1, &["verify"]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    let problem =
        "the index in the file is damaged: a block of a run has a wrong checksum; no mark is lost";
    assert!(lines[0].starts_with(problem), "{told}");
    assert_eq!(lines[1], "no id is lost: `seen compact` makes the index in the file anew");
    let report = &place.json(1, &["verify", "--json"])[0];
    assert_eq!((&report["rows"], &report["index_problems"]), (&6_000.into(), &1.into()));
    assert_eq!(report["problems"], serde_json::json!([lines[0].to_owned()]));
    let told = doctor();
    assert!(told.contains(&format!("! index       {}; `seen compact`", lines[0])), "{told}");
    assert_eq!(place.output(&["doctor"]).status.code(), Some(1));
    place.answers(0, &["check", "id 5999"]);
    place.answers(1, &["check", "new"]);

    place.output(&["compact"]);
    assert_eq!(place.answers(0, &["verify"]), "6,000 rows, and nothing is wrong\n");
    place.answers(0, &["check", "id 5999"]);
}

#[test]
fn doctor_names_who_has_the_store_open_and_what_to_change() {
    let place = Place::filled();
    let mut user = Child::with_store(&place.db());
    assert_eq!(user.ask("mark b"), "ok");
    let told = place.output(&["doctor"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&format!("({})", user.id())), "{told}");
    assert!(told.contains("SQLite      3.") && told.contains("synchronous NORMAL"), "{told}");
    user.finish();

    let findings = place.output(&["doctor", "--json"]);
    for line in String::from_utf8(findings.stdout).unwrap().lines() {
        let finding: Value = serde_json::from_str(line).unwrap();
        assert!(finding["subject"].is_string() && finding["finding"].is_string(), "{line}");
    }
    fs::set_permissions(place.db(), Permissions::from_mode(0o644)).unwrap();
    let output = place.output(&["doctor"]);
    let told = String::from_utf8(output.stdout).unwrap();
    let remedy = format!(
        "all users may read it; unless that is meant: chmod o-rwx {}",
        place.db().display()
    );
    assert!(told.contains(&remedy), "{told}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn nothing_is_left_behind_and_nothing_changed() {
    let place = Place::filled();
    let before = place.picture();
    assert_eq!(before.len(), 1);
    for arguments in COMMANDS {
        let output = place.output(arguments);
        assert_eq!(stderr(&output), "", "{arguments:?}");
        assert!(place.picture() == before, "{arguments:?} left a trace");
    }
}

/// Where nothing else has the store open, none leaves a log beside it.
#[test]
fn every_command_on_a_closed_store_leaves_the_one_file() {
    const TOKEN: &str = "--token=00000000000000000000000000000000";
    let place = Place::filled();
    let elsewhere = Place::new();
    let lines = elsewhere.file("lines", "x\ny\n").display().to_string();
    let copy = elsewhere.path("copy.db").display().to_string();
    let more: &[&[&str]] = &[
        &["filter", &lines],
        &["filter", "--dry-run", &lines],
        &["run", "--id", "job", "--", "true"],
        &["mark", "m"],
        &["forget", "m"],
        &["claim", "c"],
        &["confirm", "working", TOKEN],
        &["fail", "working", TOKEN],
        &["release", "working", TOKEN],
        &["renew", "working", TOKEN],
        &["export"],
        &["import", &lines],
        &["purge", "--dry-run"],
        &["purge", "--dry-run", "--older-than", "1d"],
        &["backup", &copy],
        &["backup", &copy],
        &["upgrade"],
        &["purge"],
        &["compact"],
    ];
    for arguments in COMMANDS.iter().chain(more) {
        let output = place.output(arguments);
        assert!(!stderr(&output).contains("Usage"), "{arguments:?}: {}", stderr(&output));
        assert_eq!(place.names(), ["seen.db"], "{arguments:?}");
    }
    assert_eq!(elsewhere.names(), ["copy.db", "lines"]);
}

/// The program that the older format comes from used a log.
#[test]
fn a_file_that_must_be_upgraded_first_is_refused_without_a_log_beside_it() {
    let place = Place::new();
    let old = rusqlite::Connection::open(place.db()).unwrap();
    old.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL)",
    )
    .unwrap();
    old.close().unwrap();
    let before = place.picture();
    for arguments in [&["purge", "--dry-run"][..], &["backup", "copy.db"], &["filter", "--dry-run"]]
    {
        assert_error(&place.output(arguments), &["seen.db", "run `seen upgrade`"]);
        assert!(place.picture() == before, "{arguments:?} left {:?}", place.names());
    }
}

#[test]
fn a_missing_store_is_an_error_and_stays_missing() {
    let place = Place::new();
    for arguments in COMMANDS {
        assert_error(&place.output(arguments), &["seen.db", "no store here"]);
    }
    assert!(place.picture().is_empty());
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let place = Place::new();
    let refused = |why: &str| {
        let before = place.picture();
        for arguments in COMMANDS {
            assert_error(&place.output(arguments), &["seen.db", why]);
        }
        assert!(place.picture() == before);
        fs::remove_file(place.db()).unwrap();
    };
    fs::write(place.db(), "no database\n".repeat(100)).unwrap();
    refused("not a SQLite database");
    let make =
        |sql: &str| rusqlite::Connection::open(place.db()).unwrap().execute_batch(sql).unwrap();
    make("CREATE TABLE t (a)");
    refused("another application");
    make("CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL)");
    refused("run `seen upgrade`");
    drop(place.store());
    make("PRAGMA user_version = 99");
    refused("update the program");
    File::create(place.db()).unwrap();
    refused("the file is empty");
}

/// The command run by a user who may do nothing by privilege; `None`, said visibly, where that is
/// impossible.
fn without_privilege(mut command: Command) -> Option<Output> {
    const NOBODY: u32 = 65_534;
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Ok(output) => Some(output),
        Err(e) => {
            eprintln!("SKIPPED: another user cannot run the command here: {e}");
            None
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_file_and_folder_without_write_permission_are_read() {
    let place = Place::filled();
    set_mode(&place.db(), 0o444);
    set_mode(place.folder(), 0o555);
    let before = place.picture();
    for arguments in COMMANDS {
        let Some(output) = without_privilege(place.seen(arguments)) else { return };
        assert_eq!(stderr(&output), "", "{arguments:?}");
        assert_ne!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output = without_privilege(place.seen(&["check", "a", "sent"])).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(place.picture() == before);
    set_mode(place.folder(), 0o755);
}

#[test]
fn a_live_log_is_read_without_write_permission_and_a_lost_one_is_told_of() {
    let place = Place::new();
    let mut user = Child::with_store(&place.db());
    assert_eq!(user.ask("mark in the log"), "ok");
    user.kill();
    for (name, _, _) in place.picture() {
        set_mode(&place.path(&name), 0o444);
    }
    set_mode(place.folder(), 0o555);
    let Some(output) = without_privilege(place.seen(&["check", "in the log"])) else { return };
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));

    set_mode(place.folder(), 0o755);
    fs::remove_file(place.path("seen.db-shm")).unwrap();
    set_mode(place.folder(), 0o555);
    let before = place.picture();
    let output = without_privilege(place.seen(&["check", "in the log"])).unwrap();
    assert_error(&output, &["seen.db-shm is missing", "let its owner open it once"]);
    assert!(place.picture() == before);
    set_mode(place.folder(), 0o755);
}

#[test]
fn a_store_in_use_is_read_as_it_is_at_this_moment() {
    let place = Place::new();
    let mut user = Child::with_store(&place.db());
    for n in 0..20 {
        assert_eq!(user.ask(&format!("mark {n}")), "ok");
        assert!(fs::metadata(place.path("seen.db-wal")).unwrap().len() > 0);
        assert_eq!(place.answers(0, &["check", &n.to_string()]), "");
        let next = (n + 1).to_string();
        assert_eq!(place.answers(1, &["check", &next]), "");
    }
    assert_eq!(place.json(0, &["stats", "--json"])[0]["total"]["seen"], 20);
    assert_eq!(place.answers(0, &["list", "--prefix", "1"]).lines().count(), 11);
    assert_eq!(place.answers(0, &["verify"]), "20 rows, and nothing is wrong\n");
    assert_eq!(user.ask("close"), "ok");
    assert_eq!(place.picture().len(), 1, "the reading kept the log from going");
    assert_eq!(place.answers(0, &["check", "19"]), "");
}

#[test]
fn a_store_held_in_exclusive_mode_is_told_of_and_one_left_so_is_read_without_a_trace() {
    let place = Place::new();
    let mut user = Child::puppet();
    assert_eq!(user.ask(&format!("open-exclusive {}", place.db().display())), "ok");
    assert_eq!(user.ask("mark a"), "ok");
    for arguments in COMMANDS.iter().filter(|arguments| arguments[0] != "doctor") {
        assert_error(&place.output(arguments), &["seen.db", "exclusive mode"]);
    }
    let told = place.answers(1, &["doctor"]);
    assert!(
        told.contains("exclusive mode") && told.contains(&format!("({})", user.id())),
        "{told}"
    );
    user.kill();
    let before = place.picture();
    assert_eq!(before.len(), 2, "the database and its log");
    for arguments in COMMANDS {
        assert_eq!(stderr(&place.output(arguments)), "");
        assert!(place.picture() == before, "{arguments:?} left a trace");
    }
    assert_eq!(place.answers(0, &["check", "a"]), "");
}

#[test]
fn a_closed_pipe_is_quiet() {
    let place = Place::new();
    let _ = place.store().check_and_mark_all((0..20_000).map(|n| format!("id {n}"))).unwrap();
    let mut command = place.seen(&["list"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
    // A status is an answer that no pipe can take away.
    let mut command = place.seen(&["check", "no such id", "--json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(command.stdout(writer).output().unwrap().status.code(), Some(1));
}

#[test]
fn an_output_that_fails_is_an_error() {
    let place = Place::filled();
    for arguments in [&["list"][..], &["show", "a"], &["stats"], &["verify"], &["doctor"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = place.seen(arguments).stdout(full).output().unwrap();
        assert_error(&output, &["standard output", "No space left"]);
    }
}

#[test]
fn bad_arguments_are_told_in_one_line() {
    let place = Place::filled();
    for (arguments, named) in [
        (&["check"][..], "<ID|"),
        (&["show"], "<ID|"),
        (&["check", "a", "--print", "some"], "[possible values: seen, unseen]"),
        (&["check", "a", "--print", "seen", "--json"], "--json"),
        (&["list", "--state", "lost"], "in-flight"),
        (&["list", "--since", "1y"], "no fixed length"),
        (&["stats", "--since", "0s"], "looking back"),
        (&["stats", "--json", "--prometheus"], "--prometheus"),
        (&["verify", "a"], "unexpected argument"),
    ] {
        assert_error(&place.output(arguments), &[named]);
    }
    assert_error(&place.output(&["check", ""]), &["the id is empty"]);
    assert_error(&seen(&["stats"]).output().unwrap(), &["--db", "SEEN_DB_PATH"]);
    let output = seen(&["check", "a"]).env("SEEN_DB_PATH", place.db()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

/// What the command shows on a terminal, as Unix pseudo-terminals imitate it.
fn on_terminal(command: &mut Command) -> String {
    let (mut ours, mut theirs) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: fills the two numbers with descriptors of its own; no name, settings or size are passed.
    let opened = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            none,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert_eq!(opened, 0);
    // SAFETY: both were just opened, and nothing else owns them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let mut child = command.stdout(theirs.try_clone().unwrap()).stderr(theirs).spawn().unwrap();
    // Until the command and this process have closed the other end, which Linux tells as an error.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
    let mut ours = File::from(ours);
    while let Ok(read @ 1..) = ours.read(&mut bytes) {
        shown.extend_from_slice(&bytes[..read]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn a_terminal_shows_when_ids_were_first_seen() {
    let place = Place::new();
    let store = place.store();
    let now = SystemClock.now();
    for (ago, marks) in [(0, 8), (10, 1), (40, 4)] {
        for n in 0..marks {
            // Buckets of three hours.
            let at = now - Duration::from_secs(ago * 3 * 3600);
            store.ttl(Ttl::Never).mark_seen_at(format!("{ago} {n}"), at).unwrap();
        }
    }
    store.close().unwrap();
    let shown = on_terminal(&mut place.seen(&["stats"]));
    let line = shown.lines().last().unwrap().trim_end();
    let drawn: Vec<char> =
        line.strip_prefix("first seen in the last 7d: ").unwrap().chars().collect();
    assert_eq!(drawn.len(), 56, "{line}");
    assert_eq!((drawn[55], drawn[45], drawn[15]), ('█', '▁', '▄'), "{line}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn a_terminal_gets_no_control_characters_from_ids() {
    let place = Place::filled();
    let shown = on_terminal(&mut place.seen(&["check", "\u{1b}[31mred", "--print", "seen"]));
    assert_eq!(shown, "\\u{1b}[31mred\r\n");
    assert!(!on_terminal(&mut place.seen(&["list"])).contains('\u{1b}'));
}

#[test]
fn help_tells_the_statuses() {
    for command in ["check", "show", "list", "stats", "verify", "doctor"] {
        let output = seen(&[command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Statuses: 0"), "{help}");
        assert!(help.contains("left as it is"), "{help}");
    }
}
