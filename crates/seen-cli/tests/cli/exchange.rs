//! `seen export` and `seen import`: what goes out comes in again, also after an interruption.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Place, assert_error, printed, run, seen, stderr};
use seen_store::{Claim, Config, Entry, Filter, SeenStore, State, Ttl};
use serde_json::Value;

const HOUR: Duration = Duration::from_secs(3_600);

fn granted(store: &SeenStore, id: &[u8]) -> seen_store::Lease {
    match store.claim(id, HOUR).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// An id that a careless format would break.
fn odd_id(n: usize) -> Vec<u8> {
    let oddities: [&[u8]; 10] = [
        b"plain",
        b"line\nbreak\r\n",
        b"quote\"",
        b"comma,",
        b"\x1b[31mred",
        b"\xff\xfe",
        b" spaces ",
        b"{\"id\":1}",
        b"\xc3\xa9\0",
        b"never",
    ];
    [oddities[n % 10], n.to_string().as_bytes()].concat()
}

/// A store with 100,000 entries of all kinds.
fn full_store(path: &Path) {
    let store = SeenStore::open_with(path, Config::default().ttl(24 * HOUR)).unwrap();
    let marked: Vec<_> = (0..98_000).map(odd_id).collect();
    assert_eq!(store.seed(&marked).unwrap(), 98_000);
    let _ = store.check_and_mark_all(&marked[..50]).unwrap(); // turned away, and counted
    let forever = store.scope("for, \"ever\"\n").ttl(Ttl::Never);
    forever.seed((0..1_800).map(odd_id)).unwrap();
    let claims = store.scope("claims");
    for n in 0..80 {
        let mut lease = granted(&claims, &odd_id(n));
        match n % 4 {
            0 => lease.confirm_with(odd_id(n)).unwrap(),
            1 => lease.fail(format!("refused:\n\"{n}\", again")).unwrap(),
            2 => lease.release().unwrap(),
            _ => drop(lease.into_token()),
        }
    }
    // Failed once, then confirmed: attempts and the last error stay with the mark.
    for n in 80..200 {
        let id = odd_id(n);
        granted(&claims, &id).fail("first").unwrap();
        granted(&claims, &id).confirm().unwrap();
    }
    store.close().unwrap();
}

fn entries(path: &Path) -> Vec<Entry> {
    let store = SeenStore::open_with(path, Config::default().read_only(true)).unwrap();
    let mut entries: Vec<_> = store.entries(Filter::default()).collect::<Result<_, _>>().unwrap();
    entries.sort_by(|one, other| (&one.scope, &one.id).cmp(&(&other.scope, &other.id)));
    entries
}

fn assert_same(one: &[Entry], other: &[Entry]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other);
    }
}

fn import_stats(place: &Place, store: &str, file: &Path) -> String {
    let output = run(place.on("import", store).arg("--stats").arg(file), b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn an_import_of_an_export_gives_the_same_entries_back_in_both_formats() {
    let place = Place::new();
    full_store(&place.path("from.db"));
    let before = entries(&place.path("from.db"));
    assert_eq!(before.len(), 100_000);
    for state in [State::Seen, State::InFlight, State::Failed, State::Released] {
        assert!(before.iter().any(|entry| entry.state == state), "{state:?}");
    }
    assert!(before.iter().any(|entry| entry.duplicates > 0));
    for format in ["jsonl", "csv"] {
        let text = printed(place.on("export", "from.db").args(["--format", format]), b"");
        let file = place.file(format, text);
        let store = format!("{format}.db");
        let told = import_stats(&place, &store, &file);
        assert_eq!(told, "seen: added 100000, changed 0, known 0, expired 0\n");
        assert_same(&entries(&place.path(&store)), &before);
        let again = import_stats(&place, &store, &file);
        assert_eq!(again, "seen: added 0, changed 0, known 100000, expired 0\n");
        assert_same(&entries(&place.path(&store)), &before);
    }
    assert_same(&entries(&place.path("from.db")), &before);
}

#[test]
fn an_import_that_was_killed_is_completed_by_another() {
    let place = Place::new();
    let lines: Vec<String> =
        (0..60_000).map(|n| format!("{{\"id\":\"{n}\",\"duplicates\":{}}}\n", n % 3)).collect();
    let mut child = place.on("import", "to.db").arg("-").stdin(Stdio::piped()).spawn().unwrap();
    // Held open: the import waits for the rest when it is killed.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines[..35_000].concat().as_bytes()).unwrap();
    let count =
        || match SeenStore::open_with(place.path("to.db"), Config::default().read_only(true)) {
            Ok(store) => store.stats().unwrap().seen,
            Err(_) => 0, // not created yet
        };
    while count() < 20_000 {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    let imported = count();
    assert!(imported % 1_000 == 0 && imported < 60_000, "{imported}");
    let file = place.file("all.jsonl", lines.concat());
    let told = import_stats(&place, "to.db", &file);
    assert!(told.starts_with(&format!("seen: added {}, changed ", 60_000 - imported)), "{told}");
    let after = entries(&place.path("to.db"));
    assert_eq!(after.len(), 60_000);
    for entry in after {
        let n: u64 = String::from_utf8(entry.id).unwrap().parse().unwrap();
        assert_eq!(entry.duplicates, n % 3, "{n}");
    }
}

#[test]
fn plain_ids_are_imported_as_seen_for_the_time_to_live() {
    let place = Place::new();
    let file = place.file("ids", b"a\n\n b,c\r\nlast\xff");
    let arguments = ["--scope", "s", "--ttl", "never"];
    assert_eq!(printed(place.on("import", "to.db").args(arguments).arg(&file), b""), b"");
    let ids: Vec<_> = entries(&place.path("to.db"));
    let found: Vec<_> = ids.iter().map(|e| (e.scope.as_str(), &*e.id, e.expires_at)).collect();
    assert_eq!(found, [("s", &b" b,c"[..], None), ("s", b"a", None), ("s", b"last\xff", None)]);
    // What was imported is a duplicate to the filter.
    let new = printed(place.on("filter", "to.db").args(["--scope", "s"]), b"a\nnew\n");
    assert_eq!(new, b"new\n");
}

#[test]
fn a_table_needs_only_ids() {
    let place = Place::new();
    let table = "name,id,last_seen,expires_at\r\nx,\"1\n2\",2023-11-14T22:13:20Z,never\ny,3,,\n";
    let file = place.file("table.csv", format!("\u{feff}{table}"));
    printed(place.on("import", "to.db").arg(&file), b"");
    let found = entries(&place.path("to.db"));
    assert_eq!(found[0].id, b"1\n2");
    assert_eq!(found[0].expires_at, None);
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    assert_eq!((found[0].first_seen, found[0].last_seen), (at, at));
    let week = 7 * 24 * HOUR;
    assert_eq!(found[1].expires_at, Some(found[1].last_seen + week));
}

#[test]
fn the_file_of_the_older_bot_is_imported_and_left_as_it_was() {
    let place = Place::new();
    let seed = place.path("seed.sqlite");
    let connection = rusqlite::Connection::open(&seed).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
             INSERT INTO seen VALUES ('recent', unixepoch()), ('old', 5), ('', 1);",
        )
        .unwrap();
    drop(connection);
    let before = std::fs::read(&seed).unwrap();
    let output = run(place.on("import", "to.db").arg("--stats").arg(&seed), b"");
    let told = stderr(&output);
    assert!(told.contains("1 rows have no valid id"), "{told}");
    assert!(told.contains("added 1, changed 0, known 0, expired 1"), "{told}");
    assert_eq!(entries(&place.path("to.db"))[0].id, b"recent");
    assert_eq!(std::fs::read(&seed).unwrap(), before);
}

#[test]
fn an_older_file_that_the_bot_is_writing_to_is_waited_for() {
    let place = Place::new();
    let seed = place.path("seed.sqlite");
    let bot = rusqlite::Connection::open(&seed).unwrap();
    bot.execute_batch(
        "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
         BEGIN EXCLUSIVE; INSERT INTO seen VALUES ('late', unixepoch());",
    )
    .unwrap();
    let mut import = place.on("import", "to.db");
    let mut child = import.arg(&seed).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    bot.execute_batch("COMMIT").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(entries(&place.path("to.db"))[0].id, b"late");
}

#[test]
fn a_failure_of_the_store_tells_how_far_the_import_came() {
    let place = Place::new();
    let lines: String = (0..40_000).map(|n| format!("{n:0100}\n")).collect::<Vec<_>>().concat();
    let file = place.file("ids", lines);
    // Files of at most 2 MiB: room for some commits and no more. The signal that would end the run is ignored.
    let program = assert_cmd::cargo::cargo_bin!("seen").display().to_string();
    let script = format!("trap '' XFSZ; ulimit -f 4096; exec '{program}' \"$@\"");
    let mut import = std::process::Command::new("sh");
    import.args(["-c", &script, "sh", "-q", "import", "--db"]).arg(place.path("to.db")).arg(&file);
    let output = run(&mut import, b"");
    assert_error(&output, &["to.db", "import it again", "so far added "]);
    let error = stderr(&output);
    let (_, rest) = error.split_once("so far added ").unwrap();
    let added: u32 = rest.split(',').next().unwrap().parse().unwrap();
    assert!((1_000..40_000).contains(&added), "{error}");
    let told = import_stats(&place, "to.db", &file);
    // Ids without a time are seen at the import, so the second sees them later.
    let right = format!("seen: added {}, changed {added}, known 0, expired 0\n", 40_000 - added);
    assert_eq!(told, right);
}

#[test]
fn a_line_that_is_not_understood_ends_the_import_and_loses_nothing_before_it() {
    let place = Place::new();
    let good = (0..10_003).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<Vec<_>>().concat();
    for (name, bad, cause) in [
        ("no-json", "{\"id\":\n", "not a JSON object"),
        ("no-id", "{\"ID\": 1}\n", "neither id nor id_hex"),
        ("no-time", "{\"id\":\"x\",\"last_seen\":\"soon\"}\n", "soon"),
    ] {
        let file = place.file(name, format!("{good}{bad}{{\"id\":\"after\"}}\n"));
        let output = run(place.on("import", &format!("{name}.db")).arg(&file), b"");
        let counted = "added 10003, changed 0, known 0, expired 0";
        assert_error(&output, &[name, "line 10004", cause, "import the file again", counted]);
        assert_eq!(entries(&place.path(&format!("{name}.db"))).len(), 10_003);
    }
    let file = place.file("short.csv", "scope,id\n,a\nb\n");
    let output = run(place.on("import", "csv.db").arg(&file), b"");
    assert_error(&output, &["short.csv", "line 3", "1 fields", "added 1,"]);
}

#[test]
fn an_entry_that_no_store_can_take_is_told_by_its_line_and_stops_no_other() {
    let place = Place::new();
    let (long, longest) = ("x".repeat(65_537), "x".repeat((1 << 20) + 1));
    let line = |member: &str, value: &str| format!("{{\"id\":\"a\",\"{member}\":\"{value}\"}}\n");
    let good = (0..10_001).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect::<Vec<_>>().concat();
    let counted = "{\"id\":\"counted\",\"duplicates\":18446744073709551615}\n";
    let bad =
        [line("receipt", &longest), line("last_error", &long), line("id", ""), line("id", &long)];
    let [receipt, error, empty, id] = bad;
    let file = place.file("some.jsonl", [&*receipt, &good, &error, &empty, &id, counted].concat());
    let output = run(place.on("import", "to.db").arg(&file), b"");
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    let told: Vec<_> = told.lines().collect();
    let lines = [
        "some.jsonl: line 1: left out: its receipt has 1048577 bytes",
        "some.jsonl: line 10003: left out: its last_error has 65537 bytes",
        "some.jsonl: line 10004: left out: its id is empty",
        "some.jsonl: line 10005: left out: its id has 65537 bytes",
        "seen: 4 entries were left out; all others are imported: added 10002, ",
    ];
    assert_eq!(told.len(), lines.len(), "{told:#?}");
    for (told, right) in told.iter().zip(lines) {
        assert!(told.contains(right), "{told}");
    }
    assert_eq!(entries(&place.path("to.db")).len(), 10_002);
    // The count that no store can hold fails nothing later either.
    printed(&mut place.on("purge", "to.db"), b"");
    assert_eq!(printed(&mut place.on("filter", "to.db"), b"counted\nnew\n"), b"new\n");
    // Tables likewise, and lines where they are to be ids byte for byte.
    for (name, option, text) in [
        ("ids", "--exact", format!("a\n{long}\nb\n")),
        ("csv", "--stats", format!("id\na\n{long}\nb\n")),
    ] {
        let file = place.file(&format!("{name}.in"), text);
        let output = run(place.on("import", name).arg(option).arg(file), b"");
        let left_out = ["65537 bytes", "1 entry was left out", "added 2,"];
        let told = stderr(&output);
        assert!(left_out.iter().all(|part| told.contains(part)), "{told}");
        assert_eq!((output.status.code(), entries(&place.path(name)).len()), (Some(2), 2));
    }
}

#[test]
fn an_entry_that_the_file_refuses_is_told_by_name_and_stops_no_other() {
    let place = Place::new();
    SeenStore::open(place.path("to.db")).unwrap().close().unwrap();
    // What cannot be read of an id keeps it from being written.
    let poison = "INSERT INTO claims VALUES ('s', 'b' || char(27), x'', 2, 0, NULL, 1, 1, 1, 0, NULL, 0, CAST(x'ff' AS TEXT), 9)";
    let file = rusqlite::Connection::open(place.path("to.db")).unwrap();
    file.execute_batch(poison).unwrap();
    file.close().map_err(|(_, e)| e).unwrap();
    let import = place.file("ids", b"a\nb\x1b\nc\n");
    let output = run(place.on("import", "to.db").args(["--scope", "s"]).arg(&import), b"");
    let told = stderr(&output);
    let told: Vec<_> = told.lines().collect();
    assert_eq!((output.status.code(), told.len()), (Some(2), 2), "{told:#?}");
    assert!(told[0].starts_with("seen: b\\u{1b} in scope s: left out: "), "{}", told[0]);
    let summary = "seen: 1 entry was left out; all others are imported: added 2, ";
    assert!(told[1].starts_with(summary), "{}", told[1]);
    let store = SeenStore::open(place.path("to.db")).unwrap().scope("s");
    assert!(store.is_seen("a") && store.is_seen("c"));
}

#[test]
fn a_quote_that_is_never_closed_does_not_fill_the_memory() {
    let place = Place::new();
    let file = place.file("open.csv", format!("id\na\n\"{}", "b\n".repeat(4 << 20)));
    let output = run(place.on("import", "to.db").arg(&file), b"");
    assert_error(&output, &["open.csv", "line 3", "is a quote not closed?", "added 1,"]);
}

#[test]
fn a_wrong_file_is_refused_and_creates_no_store() {
    let place = Place::new();
    let gzip = place.file("a.gz", b"\x1f\x8b\x08\0\0\0\0\0");
    let array = place.file("array.json", b"[ {\"id\": 1} ]");
    let table = place.file("table", b"a,b\n1,2\n");
    SeenStore::open(place.path("store.db")).unwrap().close().unwrap();
    let foreign = place.path("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let cut = place.file("cut.db", b"SQLite format 3\0 and no more");
    let import =
        |file: &Path, more: &[&str]| run(place.on("import", "to.db").args(more).arg(file), b"");
    assert_error(&import(&gzip, &[]), &["a.gz", "zcat"]);
    assert_error(&import(&array, &[]), &["array.json", "jq"]);
    assert_error(&import(&table, &["--format", "csv"]), &["table", "no column id", "--format ids"]);
    assert_error(
        &import(&place.path("store.db"), &[]),
        &["store.db", "is a store already", "export"],
    );
    assert_error(
        &import(&foreign, &[]),
        &[
            "foreign.db",
            "another application",
            "sqlite3 FILE 'SELECT column FROM table' | seen import -",
        ],
    );
    assert_error(&import(&cut, &[]), &["cut.db"]);
    assert_error(&import(&place.path("missing"), &[]), &["missing", "No such file"]);
    assert_error(&import(&place.path(""), &[]), &["Is a directory"]);
    assert_error(&import(&gzip, &["--format", "xml"]), &["xml", "jsonl"]);
    let output = run(place.on("import", "to.db").args(["--format", "seed", "-"]), b"");
    assert_error(&output, &["standard input", "path"]);
    assert!(!place.names().contains(&"to.db".to_owned()));
}

#[test]
fn an_export_takes_the_scope_and_the_state_that_are_asked_for() {
    let place = Place::new();
    let store = SeenStore::open(place.path("from.db")).unwrap();
    store.mark_seen("plain").unwrap();
    store.scope("s").mark_seen("scoped").unwrap();
    granted(&store.scope("s"), b"failed").fail("why").unwrap();
    store.close().unwrap();
    let ids = |arguments: &[&str]| -> Vec<String> {
        let text = printed(place.on("export", "from.db").args(arguments), b"");
        let mut ids: Vec<_> = String::from_utf8(text)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().into())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&[]), ["failed", "plain", "scoped"]);
    assert_eq!(ids(&["--scope", "s"]), ["failed", "scoped"]);
    assert_eq!(ids(&["--scope", ""]), ["plain"]);
    assert_eq!(ids(&["--state", "failed"]), ["failed"]);
    assert_eq!(ids(&["--state", "seen", "--scope", "s"]), ["scoped"]);
    let output = run(place.on("export", "from.db").args(["--state", "gone"]), b"");
    assert_error(&output, &["gone", "in-flight"]);
}

#[test]
fn an_export_creates_nothing_and_changes_nothing() {
    let place = Place::new();
    let output = run(&mut place.on("export", "missing.db"), b"");
    assert_error(&output, &["missing.db"]);
    let foreign = place.file("foreign", "not a database at all, and some more of it".repeat(30));
    let output = run(&mut place.on("export", "foreign"), b"");
    assert_error(&output, &["foreign", "database"]);
    assert_eq!(place.names(), ["foreign"]);
    SeenStore::open(place.path("from.db")).unwrap().close().unwrap();
    let before = std::fs::read(place.path("from.db")).unwrap();
    printed(&mut place.on("export", "from.db"), b"");
    assert_eq!(std::fs::read(place.path("from.db")).unwrap(), before);
    assert!(foreign.exists());
}

#[test]
fn a_closed_pipe_ends_an_export_quietly() {
    let place = Place::new();
    let store = SeenStore::open(place.path("from.db")).unwrap();
    store.seed((0..20_000).map(|n| format!("{n:0100}"))).unwrap();
    store.close().unwrap();
    for format in ["jsonl", "csv"] {
        let mut export = place.on("export", "from.db");
        export.args(["--format", format]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = export.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
    }
}

#[test]
fn a_bar_shows_how_far_an_import_has_come_on_a_terminal_only() {
    let place = Place::new();
    let lines =
        (0..60_000).map(|n| format!("{{\"id\":\"{n:030}\"}}\n")).collect::<Vec<_>>().concat();
    place.file("many.jsonl", &lines);
    let shown = place.on_terminal("import --db one.db many.jsonl");
    assert!(shown.contains('%') && shown.contains(" of "), "{shown:?}");
    assert!(shown.ends_with("\u{1b}[2K") || shown.ends_with('\r'), "it is taken away: {shown:?}");
    assert_eq!(place.on_terminal("-q import --db two.db many.jsonl"), "");
    place.file("few.jsonl", &lines[..4_000]);
    assert_eq!(place.on_terminal("import --db three.db few.jsonl"), "");
    printed(
        seen(&["import", "--db"]).arg(place.path("four.db")).arg(place.path("many.jsonl")),
        b"",
    );
}
