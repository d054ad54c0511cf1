//! The commands that change or copy a store: `mark`, `forget`, `claim`, `confirm`, `fail`, `release`, `renew`,
//! `purge`, `backup`, `compact` and `upgrade`.

use std::fs::{self, OpenOptions};
use std::process::Child;
use std::time::{Duration, SystemTime};

use crate::support::{Place, Told, wait_until};
use seen_store::{Config, SeenStore, State};

const TOKEN: &str = "00000000000000000000000000000000";

impl Place {
    /// Claims the id and returns the token.
    fn claimed(&self, id: &str) -> String {
        self.printed(&["claim", id]).trim_end().to_owned()
    }

    fn seed_file(&self, name: &str, rows: &str) {
        let sql = format!(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL); INSERT INTO seen VALUES {rows}"
        );
        rusqlite::Connection::open(self.path(name)).unwrap().execute_batch(&sql).unwrap();
    }
}

fn lines(count: usize) -> String {
    let ids: Vec<String> = (0..count).map(|n| format!("an id of some length {n:08}")).collect();
    ids.join("\n")
}

fn lasts(place: &Place, id: &str) -> Duration {
    let entry = place.entry(id).unwrap();
    entry.expires_at.unwrap().duration_since(entry.last_seen).unwrap()
}

#[test]
fn with_v_each_command_says_what_it_did_to_each_id() {
    let place = Place::new();
    let said = |arguments: &[&str], input: &str, parts: &[&str]| {
        let told = place.told_with_input(&[&["-v"], arguments].concat(), input);
        assert_eq!(told.status, Some(0), "{told:?}");
        for part in parts {
            assert!(told.stderr.lines().any(|line| line.contains(part)), "{part:?}: {told:?}");
        }
        told.stdout
    };
    said(&["mark", "-"], "a\nb\n", &["a: marked", "b: marked", "closed: "]);
    said(&["forget", "a"], "", &["a: forgotten", "closed: "]);
    said(
        &["import", "-"],
        "c\nd\n",
        &["c: imported", "d: imported", "imported: added 2, changed 0, known 0", "closed: "],
    );
    for (verb, done) in [
        (&["renew", "e"][..], "e: renewed"),
        (&["fail", "e", "--error", "x"], "e: failed"),
        (&["release", "e"], "e: released"),
        (&["confirm", "e"], "e: confirmed"),
    ] {
        let token = said(&["claim", "e"], "", &["e: claimed", "closed: claimed 1"]);
        said(&[verb, &["--token", token.trim()]].concat(), "", &[done, "closed: "]);
        if verb[0] == "renew" {
            said(&["release", "e", "--token", token.trim()], "", &["e: released"]);
        }
    }
}

/// A claim that is made in one period may be ended in the next: then it would be another id.
#[test]
fn the_commands_with_a_token_have_no_period() {
    let place = Place::new();
    place.told(&["claim", "a", "--every", "day"]).assert(2, &["--every", "`seen help claim`"]);
    place.told(&["mark", "a", "--every", "day-utc"]).assert(0, &[]);
    place.told(&["check", "a", "--every", "day-utc"]).assert(0, &[]);
}

#[test]
fn marked_ids_are_seen_for_the_time_that_was_asked_for() {
    let place = Place::new();
    assert_eq!(place.printed(&["mark", "a", " b "]), "");
    assert_eq!(place.printed(&["mark", "--ttl", "36h", "--", "-c"]), "");
    assert_eq!(lasts(&place, " b "), Duration::from_secs(7 * 24 * 3_600));
    assert_eq!(lasts(&place, "-c"), Duration::from_secs(36 * 3_600));
    place.printed(&["mark", "a", "--ttl", "never"]);
    place.printed(&["mark", "a", "--ttl", "1s"]);
    assert_eq!(place.entry("a").unwrap().expires_at, None, "a later mark never shortens");
    place.printed(&["mark", "a", "--scope", "other", "--ttl", "1h"]);
    assert!(place.store().scope("other").is_seen("a"));
    assert!(!place.store().scope("other").is_seen("-c"));
}

#[test]
fn ids_come_from_standard_input_one_a_line() {
    let place = Place::new();
    let input = "one\n\n two\t\nthe third\u{1b}[2J";
    place.told_with_input(&["mark", "-", "argument"], input).assert(0, &[]);
    assert_eq!(place.store().stats().unwrap().seen, 4);
    for id in ["one", " two\t", "the third\u{1b}[2J", "argument"] {
        assert!(place.store().is_seen(id), "{id:?}");
    }
    place.told_with_input(&["forget", "-"], input).assert(0, &[]);
    assert_eq!(place.store().stats().unwrap().seen, 1);
}

#[test]
fn an_id_that_no_store_takes_is_an_error_and_those_before_it_are_marked() {
    let place = Place::new();
    place.told(&["mark", "a", "", "b"]).assert(2, &["empty"]);
    let long = "x".repeat(65_537);
    let exact = place.told_with_input(&["mark", "--exact", "-"], format!("c\n{long}\nd"));
    exact.assert(2, &["65537"]);
    let seen = ["a", "b", "c", "d"].map(|id| place.store().is_seen(id));
    assert_eq!(seen, [true, false, true, false]);
}

#[test]
fn forgotten_ids_are_new_and_unknown_ones_are_told() {
    let place = Place::new();
    place.printed(&["mark", "a", "b\n\u{1b}[31m"]);
    assert_eq!(place.printed(&["forget", "a"]), "");
    assert!(!place.store().is_seen("a"));
    let told = place.told(&["forget", "a", "b\n\u{1b}[31m"]);
    told.assert(1, &["a: not known"]);
    assert_eq!(place.store().stats().unwrap().seen, 0);
    place.told(&["forget", "b\n\u{1b}[31m"]).assert(1, &["b\\n\\u{1b}[31m: not known"]);
    place.told(&["-q", "forget", "a"]).assert(1, &[]);
}

#[test]
fn a_whole_scope_is_forgotten_only_when_it_is_named() {
    let place = Place::new();
    place.printed(&["mark", "a", "b"]);
    place.printed(&["mark", "a", "--scope", "feed"]);
    place.printed(&["claim", "c", "--scope", "feed"]);
    place.told(&["forget", "--all"]).assert(2, &["--scope"]);
    place.told(&["forget", "--scope", "feed"]).assert(2, &["--all"]);
    place.told(&["forget", "--all", "--scope", "feed", "a"]).assert(2, &["--all"]);
    assert_eq!(place.printed(&["forget", "--all", "--scope", "feed"]), "2 forgotten\n");
    place.printed(&["claim", "c", "--scope", "feed"]);
    assert_eq!(place.store().stats().unwrap().seen, 2);
    assert_eq!(place.printed(&["forget", "--all", "--scope", ""]), "2 forgotten\n");
    assert_eq!(place.store().stats().unwrap().seen, 0);
}

#[test]
fn a_claim_prints_the_token_that_confirms_it() {
    let place = Place::new();
    let token = place.claimed("a");
    assert_eq!(token.len(), 32);
    let other = place.told(&["claim", "a"]);
    other.assert(1, &["a: another worker ("]);
    assert_eq!(other.stdout, "");
    place.printed(&["confirm", "a", "--token", &token, "--receipt", "message 4711"]);
    place.printed(&["confirm", "a", "--token", &token]);
    let entry = place.entry("a").unwrap();
    assert_eq!((entry.state, entry.attempts), (State::Seen, 1));
    assert_eq!(entry.receipt.as_deref(), Some(&b"message 4711"[..]));
    place.told(&["claim", "a"]).assert(1, &["a: seen before"]);
    place.told(&["-q", "claim", "a"]).assert(1, &[]);
}

#[test]
fn of_many_claims_at_once_one_is_granted() {
    let place = Place::new();
    let claims: Vec<Child> = (0..6).map(|_| place.seen(&["claim", "a"]).spawn().unwrap()).collect();
    let told = claims.into_iter().map(|claim| Told::from(claim.wait_with_output().unwrap()));
    assert_eq!(told.filter(|told| told.status == Some(0)).count(), 1);
}

#[test]
fn a_receipt_comes_from_standard_input_without_its_last_newline() {
    let place = Place::new();
    let token = place.claimed("a");
    let confirm = ["confirm", "a", "--token", &token, "--receipt", "-"];
    place.told_with_input(&confirm, "two\nlines\n\n").assert(0, &[]);
    assert_eq!(place.entry("a").unwrap().receipt.as_deref(), Some(&b"two\nlines\n"[..]));
    let both = ["confirm", "-", "--token", &token, "--receipt", "-"];
    place.told_with_input(&both, "a\n").assert(2, &["standard input"]);
    let token = place.claimed("b");
    let confirm = ["confirm", "b", "--token", &token, "--receipt", "-"];
    place.told_with_input(&confirm, "x".repeat(65_537)).assert(2, &["receipt", "65537"]);
    assert_eq!(place.entry("b").unwrap().state, State::InFlight);
}

#[test]
fn a_failure_is_kept_and_lets_the_id_be_claimed_again() {
    let place = Place::new();
    place.printed(&["fail", "a", "--token", &place.claimed("a"), "--error", "HTTP 500"]);
    let entry = place.entry("a").unwrap();
    assert_eq!((entry.state, entry.last_error.as_deref()), (State::Failed, Some("HTTP 500")));
    let token = place.claimed("a");
    place.printed(&["fail", "a", "--token", &token, "--retry-after", "1h"]);
    place.told(&["claim", "a"]).assert(1, &["a: it failed, and is not tried again before 20"]);
    place.printed(&["forget", "a"]);
    place.printed(&["fail", "a", "--token", &place.claimed("a")]);
    place.told(&["claim", "a", "--retries", "1"]).assert(1, &["a: given up after 1 attempt;"]);
}

#[test]
fn a_released_id_is_free_and_a_renewed_one_is_not() {
    let place = Place::new();
    place.printed(&["release", "a", "--token", &place.claimed("a")]);
    let token = place.claimed("a");
    place.printed(&["renew", "a", "--token", &token, "--lease", "3h"]);
    let until = place.entry("a").unwrap().lease_until.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the command reads the system's clock")]
    let left = until.duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(179 * 60), "{left:?}");
    place.told_with_input(&["confirm", "-", "--token", &token], "a\n").assert(0, &[]);
    assert!(place.store().is_seen("a"));
}

#[test]
fn a_holder_that_has_lost_its_claim_is_told_and_changes_nothing() {
    let place = Place::new();
    let late = place.printed(&["claim", "a\nb", "--lease", "1ms"]).trim_end().to_owned();
    let mut token = String::new();
    wait_until("the take-over", || {
        token = place.told(&["claim", "a\nb"]).stdout.trim_end().to_owned();
        !token.is_empty()
    });
    for command in ["confirm", "fail", "release", "renew"] {
        let told = place.told(&[command, "a\nb", "--token", &late]);
        told.assert(1, &["a\\nb: this token no longer holds it", "nothing was changed"]);
    }
    place.printed(&["confirm", "a\nb", "--token", &token]);
    for command in ["confirm", "fail", "release", "renew"] {
        place.told(&[command, "never claimed", "--token", TOKEN]).assert(1, &["no longer holds"]);
        place.told(&[command, "a", "--token", "12"]).assert(2, &["--token", "32 hexadecimal"]);
        place.told(&[command, "a"]).assert(2, &["--token"]);
    }
    place.told(&["renew", "a", "--token", TOKEN, "--lease", "0s"]).assert(2, &["lease of zero"]);
}

/// No worker has the token then, so no worker could end the claim.
#[cfg(target_os = "linux")]
#[test]
fn a_claim_whose_token_cannot_be_printed_is_given_back() {
    let place = Place::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let told = Told::from(place.seen(&["claim", "a"]).stdout(full).output().unwrap());
    told.assert(2, &["standard output", "No space left"]);
    assert_ne!(place.entry("a").unwrap().state, State::InFlight);
    closed_pipe(&place, &["claim", "a"]).assert(0, &[]);
    assert_ne!(place.entry("a").unwrap().state, State::InFlight);
}

/// Runs a command whose output is not read.
fn closed_pipe(place: &Place, arguments: &[&str]) -> Told {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Told::from(place.seen(arguments).stdout(writer).output().unwrap())
}

#[test]
fn a_purge_removes_what_has_expired_and_tells_how_much() {
    let place = Place::new();
    place.printed(&["mark", "a", "b", "c", "--scope", "other", "--ttl", "1ms"]);
    // Opening a store may purge it; this one does not.
    let store = SeenStore::open_with(place.db(), Config::default().purge_on_open(false)).unwrap();
    store.mark_seen("d").unwrap();
    drop(store);
    let before = fs::read(place.db()).unwrap();
    assert_eq!(place.printed(&["purge", "--dry-run"]), "3 to be removed\n");
    assert!(fs::read(place.db()).unwrap() == before, "a dry run changes nothing");
    assert_eq!(place.printed(&["purge"]), "3 removed\n");
    assert_eq!(place.printed(&["purge"]), "0 removed\n");
    closed_pipe(&place, &["purge"]).assert(0, &[]);
}

#[test]
fn a_purge_by_age_is_for_one_scope_and_makes_ids_new() {
    let place = Place::new();
    place.printed(&["mark", "a", "b"]);
    place.printed(&["mark", "a", "--scope", "feed"]);
    assert_eq!(place.printed(&["purge", "--older-than", "1d"]), "0 removed\n");
    assert_eq!(place.printed(&["purge", "--older-than", "0s", "--dry-run"]), "2 to be removed\n");
    let by_age = ["purge", "--older-than", "0s", "--scope", "feed"];
    assert_eq!(place.printed(&by_age), "1 removed\n");
    assert!(place.store().is_seen("a") && !place.store().scope("feed").is_seen("a"));
    place.told(&["purge", "--scope", "feed"]).assert(2, &["--scope", "--older-than"]);
    place.told(&["purge", "--older-than", "never"]).assert(2, &["not a duration"]);
}

#[test]
fn a_backup_is_a_store_as_it_was_at_one_moment() {
    let place = Place::new();
    let store = place.store();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                store.check_and_mark(format!("{n}")).map(drop).unwrap();
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        wait_until("some marks", || store.stats().unwrap().seen > 1_000);
        for n in 0..3 {
            let copy = place.path(&format!("copy {n}"));
            assert_eq!(place.printed(&["backup", copy.to_str().unwrap()]), "");
            let copy = SeenStore::open_with(copy, Config::default().read_only(true)).unwrap();
            let seen = copy.stats().unwrap().seen;
            // Ids were marked one after the other: of one moment is a beginning without gaps.
            assert!((0..seen).all(|n| copy.is_seen(n.to_string())) && seen > 1_000);
            assert_eq!(copy.verify().unwrap().problems, [""; 0]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_backup_overwrites_nothing() {
    let place = Place::new();
    place.printed(&["mark", "a"]);
    place.file("there", "precious");
    place.told(&["backup", "there"]).assert(2, &["there", "exists already", "--keep"]);
    assert_eq!(place.text("there"), "precious");
    place.told(&["backup", "no/folder"]).assert(2, &["no/folder"]);
    place.told(&["backup"]).assert(2, &["<PATH>"]);
}

#[test]
fn compacting_gives_room_back_and_tells_how_much() {
    let place = Place::new();
    place.told_with_input(&["mark", "-", "--ttl", "1ms"], lines(20_000)).assert(0, &[]);
    place.printed(&["mark", "kept"]);
    let onlooker = place.store();
    let told = place.printed(&["compact"]);
    assert!(told.contains(" MB before, 9.2 kB after"), "{told}");
    assert_eq!(fs::metadata(place.db()).unwrap().len(), 9 * 1_024);
    assert!(onlooker.is_seen("kept"));
    onlooker.mark_seen("more").unwrap();
    assert!(place.store().is_seen("more"));
}

#[test]
fn a_file_of_the_older_format_is_upgraded_with_its_time_to_live() {
    let place = Place::new();
    place.seed_file("seen.db", "('a', 4000000000), ('b', 1), ('', 4000000000)");
    place.told(&["purge", "--dry-run"]).assert(2, &["seen.db", "older format"]);
    let told = place.told(&["upgrade", "--ttl", "30d"]);
    let copy = place.path("seen.db.v0.bak");
    let expected = format!("upgraded 2 ids; the old file is kept as {}\n", copy.display());
    assert_eq!(told.stdout, expected);
    told.assert(0, &["1 rows had no valid id"]);
    assert_eq!(lasts(&place, "a"), Duration::from_secs(30 * 24 * 3_600));
    let again = place.printed(&["upgrade"]);
    assert_eq!(again, "nothing to do: the file has the present format\n");
    assert!(!place.path("seen.db.v0.bak.2").exists());
}

/// All commands of this file, each such that it would do something to a store that is there.
const COMMANDS: [&[&str]; 11] = [
    &["mark", "a"],
    &["claim", "a"],
    &["forget", "a"],
    &["confirm", "a", "--token", TOKEN],
    &["fail", "a", "--token", TOKEN],
    &["release", "a", "--token", TOKEN],
    &["renew", "a", "--token", TOKEN],
    &["purge"],
    &["backup", "copy"],
    &["compact"],
    &["upgrade"],
];

#[test]
fn a_file_that_is_no_store_is_named_and_left_as_it_is() {
    let place = Place::new();
    place.file("text", "not a database".repeat(100));
    rusqlite::Connection::open(place.path("foreign"))
        .unwrap()
        .execute_batch("CREATE TABLE t (c)")
        .unwrap();
    let foreign = fs::read(place.path("foreign")).unwrap();
    let holder =
        SeenStore::open_with(place.path("held"), Config::default().exclusive(true)).unwrap();
    for command in COMMANDS {
        let on = |db| place.told(&[command, &["--db", db]].concat());
        on("text").assert(2, &["text", "not a SQLite database"]);
        on("foreign").assert(2, &["foreign", "another application"]);
        on("held").assert(2, &["held", "exclusive mode"]);
        on(".").assert(2, &["folder"]);
    }
    holder.mark_seen("a").unwrap();
    drop(holder);
    assert_eq!(place.text("text"), "not a database".repeat(100));
    assert!(fs::read(place.path("foreign")).unwrap() == foreign);
    assert_eq!(place.names(), ["foreign", "held", "text"]);
}

#[test]
fn only_commands_that_begin_something_create_a_store() {
    let place = Place::new();
    for command in &COMMANDS[2..] {
        place.told(command).assert(2, &["seen.db: there is no store here", "--db"]);
        assert_eq!(place.names(), [""; 0]);
    }
    for command in &COMMANDS[..2] {
        place.told(command).assert(0, &[]);
        fs::remove_file(place.db()).unwrap();
    }
}

/// On a file system of 400 kB. It is mounted in a namespace of its own, and gone when the script ends.
const FULL_DISK: &str = "\
mount -t tmpfs -o size=400k tmpfs full || exit 77
seen() { $SEEN \"$@\" --db full/seen.db; echo $? >>statuses; }
seen mark first
seen mark - <ids
seen backup full/copy
seen compact
seen mark second
seen claim first
ls full >names";

/// Lets writes to files fail as a used-up quota does, while there is a file `quota` in the folder of the process.
const QUOTA: &str = r#"
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static int is_used_up(int file) {
    struct stat found;
    return access("quota", F_OK) == 0 && fstat(file, &found) == 0 && S_ISREG(found.st_mode);
}
ssize_t write(int file, const void *from, size_t length) {
    if (is_used_up(file)) { errno = EDQUOT; return -1; }
    return syscall(SYS_write, file, from, length);
}
ssize_t pwrite64(int file, const void *from, size_t length, off_t at) {
    if (is_used_up(file)) { errno = EDQUOT; return -1; }
    return syscall(SYS_pwrite64, file, from, length, at);
}
ssize_t pwrite(int file, const void *from, size_t length, off_t at) { return pwrite64(file, from, length, at); }
"#;

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn a_quota_that_is_used_up_is_named() {
    let place = Place::new();
    place.file("quota.c", QUOTA);
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o", "quota.so", "quota.c"]).current_dir(place.folder());
    if !compiler.status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: there is no C compiler");
        return;
    }
    let mark = |id: &str| {
        let mut command = place.seen(&["mark", id]);
        command.current_dir(place.folder());
        command.env("LD_PRELOAD", place.path("quota.so"));
        Told::from(command.output().unwrap())
    };
    mark("a").assert(0, &[]);
    place.file("quota", "");
    mark("b").assert(2, &["seen.db", "the disk quota of user", "make room, or raise the quota"]);
    fs::remove_file(place.path("quota")).unwrap();
    assert!(!place.store().is_seen("b"));
    mark("b").assert(0, &[]);
    assert!(place.store().is_seen("a") && place.store().is_seen("b"));
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_nothing_is_reported_as_done_and_no_half_copy_is_left() {
    let place = Place::new();
    place.file("ids", lines(5_000));
    fs::create_dir(place.path("full")).unwrap();
    let mut script = std::process::Command::new("unshare");
    script.args(["--map-root-user", "--mount", "sh", "-c", FULL_DISK]);
    script.env("SEEN", assert_cmd::cargo::cargo_bin!("seen")).current_dir(place.path("."));
    let output = match script.output() {
        Ok(output) if output.status.code() == Some(0) => output,
        other => {
            println!("SKIPPED: no file system can be mounted here: {other:?}");
            return;
        }
    };
    assert_eq!(place.text("statuses"), "0\n2\n2\n2\n2\n1\n");
    let stderr = crate::support::stderr(&output);
    let told: Vec<&str> = stderr.lines().collect();
    // The last line may be a warning: that a duplicate was turned away cannot be counted.
    assert!((5..=6).contains(&told.len()), "{stderr}");
    assert!(
        told[..4].iter().all(|line| line.contains("no space is left on the file system")),
        "{stderr}"
    );
    assert!(told[1].contains("full/copy") && told[2].contains("cannot compact"), "{stderr}");
    assert!(told[4].ends_with("first: seen before"), "{stderr}");
    assert!(!place.text("names").contains("copy"), "{}", place.text("names"));
}

#[test]
fn forget_removes_what_its_options_select_in_the_scope() {
    let place = Place::new();
    place.printed(&["mark", "db1/disk", "db1/load", "db2/disk"]);
    place.printed(&["mark", "--scope", "other", "db1/disk"]);
    place.claimed("db1/claimed");
    let token = place.claimed("db1/failed");
    place.printed(&["fail", "db1/failed", "--token", &token]);
    let forget = |options: &[&str]| place.printed(&[&["forget"], options].concat());
    assert_eq!(forget(&["--prefix", "db1/", "--dry-run"]), "3 to be forgotten\n");
    assert_eq!(forget(&["--prefix", "db1/", "--state", "failed"]), "1 forgotten\n");
    assert_eq!(forget(&["--prefix", "db1/"]), "2 forgotten\n");
    assert_eq!(forget(&["--older-than", "1h"]), "0 forgotten\n");
    assert_eq!(forget(&["--state", "in-flight"]), "1 forgotten\n");
    assert!(place.store().is_seen("db2/disk"));
    assert_eq!(forget(&["--scope", "other", "--since", "1h"]), "1 forgotten\n");
}

#[test]
fn forget_takes_either_ids_or_a_selection() {
    let place = Place::new();
    place.printed(&["mark", "a"]);
    for options in [
        &["a", "--prefix", "a"][..],
        &["--all", "--scope", "", "--state", "seen"],
        &["--field", "a=b", "--since", "1h"],
        &["a", "--dry-run"],
        &["--dry-run"],
        &["a", "--all", "--scope", ""],
        &[],
    ] {
        assert_eq!(place.told(&[&["forget"], options].concat()).status, Some(2), "{options:?}");
    }
    place.told(&["forget", "--state", "gone"]).assert(2, &["a state is one of seen, in-flight"]);
    assert!(place.store().is_seen("a"));
}

#[test]
fn named_fields_in_any_order_are_one_id_for_every_command() {
    let place = Place::new();
    let (host, check) = (["--field", "host=db=1"], ["--field", "check=disk"]);
    let with = |command: &str, fields: [[&str; 2]; 2], more: &[&str]| {
        let arguments = [&[command], &fields.concat()[..], more].concat();
        place.told(&arguments)
    };
    let token = with("claim", [host, check], &[]).stdout;
    with("confirm", [check, host], &["--token", token.trim_end()]).assert(0, &[]);
    with("check", [check, host], &[]).assert(0, &[]);
    let id = "f1:named:5:check4:disk4:host4:db=1";
    assert_eq!(place.entry(id).unwrap().state, State::Seen);
    assert!(with("show", [host, check], &[]).stdout.starts_with(id));
    with("run", [check, host], &["--seen-status", "7", "--", "false"]).assert(7, &[id]);
    // What `filter` remembers by the names of the fields is the same id.
    let line = r#"{"host": "db=1", "check": "disk"}"#;
    assert_eq!(place.passed(&["--key", "host,check", "--named"], line), b"");
    with("forget", [check, host], &[]).assert(0, &[]);
    with("mark", [check, host], &[]).assert(0, &[]);
    assert!(place.store().is_seen(id));
}

#[test]
fn a_field_without_a_name_or_a_value_and_an_id_beside_fields_are_refused() {
    let place = Place::new();
    for field in ["host", "=db1", ""] {
        place.told(&["mark", "--field", field]).assert(2, &["--field", "such as host=db1"]);
    }
    place.told(&["mark", "--field", "host="]).assert(2, &["the value is empty"]);
    place.told(&["mark", "id", "--field", "host=db1"]).assert(2, &["cannot be used with"]);
    place.told(&["claim", "id", "--field", "host=db1"]).assert(2, &["cannot be used with"]);
    place.told(&["claim"]).assert(2, &["required"]);
}

#[cfg(unix)]
#[test]
fn a_write_beyond_the_limit_of_file_sizes_is_an_error_and_no_silent_end() {
    let place = Place::new();
    place.printed(&["mark", "before"]);
    let program = assert_cmd::cargo::cargo_bin!("seen").display().to_string();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -f 8; exec \"$0\" mark after", &program]);
    let output = shell.env("SEEN_DB_PATH", place.db()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("ulimit -f"), "{told}");
    assert!(place.entry("before").is_some() && place.entry("after").is_none());
}

/// Otherwise the run of the month would be done again a week after it.
#[test]
fn what_is_done_by_hand_in_a_period_is_remembered_for_as_long_as_by_a_run() {
    let place = Place::new();
    let options = ["--every", "month-utc", "report"];
    let lasts = || {
        let told = place.printed(&[&["show", "--json"], &options[..]].concat());
        let entry: serde_json::Value = serde_json::from_str(told.trim()).unwrap();
        let time = |name: &str| {
            entry[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
        };
        (time("expires_at") - time("last_seen") + 1_800) / 3_600
    };
    place.printed(&[&["mark"], &options[..]].concat());
    assert_eq!(lasts(), 2 * 31 * 24);
    for command in ["mark", "resolve"] {
        let told = place.told(&[&[command, "--ttl", "1d"], &options[..]].concat());
        told.assert(2, &["--ttl", "--every", "cannot be used"]);
    }
}
