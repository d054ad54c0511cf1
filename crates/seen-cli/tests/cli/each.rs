//! `seen each`: a command for each line, once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Child;
use std::time::Duration;

use seen_store::{Claim, Filter, State};

use crate::support::{Place, Told, signal, start, wait_until, with_signals};

/// Writes its line to a file.
const KEEP: [&str; 4] = ["--", "sh", "-c", "cat >>kept"];

fn each<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["each"], options, &["--", "sh", "-c", script]].concat()
}

fn state(place: &Place, id: &str) -> Option<State> {
    place.entry(id).map(|entry| entry.state)
}

fn in_flight(place: &Place) -> u64 {
    place.store().count(Filter::default().state(State::InFlight)).unwrap()
}

#[test]
fn each_line_is_run_once_with_itself_on_standard_input_and_unchanged() {
    let place = Place::new();
    let keep = [&["each"], &KEEP[..]].concat();
    let told = place.told_with_input(&keep, "a\n\n b c \r\nno newline");
    told.assert(0, &["read 3, done 3, done before 0, failed 0"]);
    assert_eq!(place.text("kept"), "a\n b c \r\nno newline");
    let told = place.told_with_input(&keep, "no newline\nd\n");
    told.assert(0, &["read 2, done 1, done before 1, failed 0"]);
    let quiet = [&["-q"], &keep[..]].concat();
    place.told_with_input(&quiet, "a\nd\n").assert(0, &[]);
    assert_eq!(place.text("kept"), "a\n b c \r\nno newlined\n");
}

#[test]
fn a_line_whose_end_is_not_written_yet_can_wait() {
    let place = Place::new();
    let keep = [&["-q", "each", "--complete", "log"], &KEEP[..]].concat();
    place.file("log", "a\nb");
    place.told(&keep).assert(0, &[]);
    assert_eq!(place.text("kept"), "a\n");
    place.file("log", "a\nbc\n");
    place.told(&keep).assert(0, &[]);
    assert_eq!(place.text("kept"), "a\nbc\n");
}

#[test]
fn the_line_stands_in_for_each_argument_of_two_braces_and_for_no_part_of_one() {
    let place = Place::new();
    let command = ["each", "--", "sh", "-c", "echo \"$1,$2,$3,$(cat)\"", "{}", "{}", "x{}", "{}"];
    let told = place.told_with_input(&command, "a $(b)\r\nc\n");
    told.assert(0, &["read 2"]);
    assert_eq!(told.stdout, "a $(b),x{},a $(b),\nc,x{},c,\n");
    // A script in which the line would be a part of the text is told of.
    let part = each(&["--scope", "part"], "echo {}; cat");
    let told = place.told_with_input(&part, "a\n");
    assert!(
        told.stderr.starts_with("seen: {} stands for the line only as an argument"),
        "{told:?}"
    );
    assert_eq!(told.stdout, "{}\na\n");
    // File names end with a NUL, and may have newlines in them.
    let names = ["-q", "each", "--scope", "names", "-0", "--", "printf", "<%s>", "{}"];
    assert_eq!(place.told_with_input(&names, "a\nb\0c\0").stdout, "<a\nb><c>");
}

#[test]
fn a_line_that_failed_is_tried_by_the_next_run_and_by_no_other() {
    let place = Place::new();
    let script =
        each(&["--retries", "3"], "read -r line; echo $line >>ran; [ $line = a ] || exit 7");
    let told = place.told_with_input(&script, "bad\na\nbad\n");
    assert_eq!(told.status, Some(1));
    let lines: Vec<_> = told.stderr.lines().collect();
    let summary = "seen: read 3, done 1, done before 0, failed 1, repeated 1";
    assert_eq!(lines, ["seen: bad: sh ended with status 7", summary]);
    assert_eq!(place.text("ran"), "bad\na\n");
    assert_eq!(state(&place, "bad"), Some(State::Failed));
    assert_eq!(place.told_with_input(&script, "bad\na\n").status, Some(1));
    assert_eq!(place.text("ran"), "bad\na\nbad\n");
    // The last attempt is told of, also when quiet.
    let quiet = [&["-q"], &script[..]].concat();
    place.told_with_input(&quiet, "bad\n").assert(1, &["bad: given up after 3 attempts"]);
    let told = place.told_with_input(&script, "bad\n");
    assert_eq!(told.status, Some(1));
    assert!(told.stderr.ends_with("failed 0, given up 1\n"), "{told:?}");
    assert_eq!(place.text("ran"), "bad\na\nbad\nbad\n");
    let success = each(&["--success-status", "7,8", "--scope", "other"], "exit 7");
    place.told_with_input(&success, "bad\n").assert(0, &["done 1"]);
}

#[test]
fn what_is_not_done_is_no_success() {
    let place = Place::new();
    let store = place.store();
    let Claim::Granted(lease) = store.claim("a", Duration::from_secs(60)).unwrap() else {
        panic!()
    };
    let keep = [&["each"], &KEEP[..]].concat();
    let told = place.told_with_input(&keep, "a\nb\n");
    assert_eq!(told.status, Some(1));
    assert!(told.stderr.contains("a: another worker ("), "{told:?}");
    assert!(told.stderr.ends_with("read 2, done 1, done before 0, failed 0, in flight 1\n"));
    drop(lease);
    place.told_with_input(&keep, "a\n").assert(0, &["done 1"]);
    let waits = each(&["--retry-after", "1h"], "exit 1");
    place.told_with_input(&waits, "c\n");
    let told = place.told_with_input(&waits, "c\n");
    assert_eq!(told.status, Some(1));
    assert!(told.stderr.ends_with("not yet tried again 1\n"), "{told:?}");
}

#[test]
fn lines_are_started_in_their_order_as_many_at_once_as_there_are_jobs() {
    let place = Place::new();
    let script =
        "read -r n; echo $n >>began; until [ -e go$n ]; do sleep 0.02; done; echo $n >>ended";
    let mut child = start(&mut place.seen(&each(&["--jobs", "2"], script)));
    child.stdin.take().unwrap().write_all(b"1\n2\n3\n4\n").unwrap();
    let began = |lines: &str| wait_until(lines, || place.text("began").len() == lines.len());
    began("1\n2\n");
    // No claim is held for a line that waits.
    assert_eq!(in_flight(&place), 2);
    assert_eq!(state(&place, "3"), None);
    place.file("go2", "");
    began("1\n2\n3\n");
    for name in ["go1", "go3", "go4"] {
        place.file(name, "");
    }
    Told::from(child.wait_with_output().unwrap()).assert(0, &["read 4, done 4"]);
    let mut began: Vec<_> = place.text("began").lines().map(str::to_owned).collect();
    assert_eq!(began[2..], ["3", "4"]);
    began.sort_unstable();
    assert_eq!(began, ["1", "2", "3", "4"]);
    assert!(place.text("ended").starts_with("2\n"));
}

/// As of `tail -F`.
#[test]
fn lines_are_run_as_they_arrive() {
    let place = Place::new();
    let mut child = start(&mut place.seen(&["-q", "each", "--", "cat"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["a", "b", "c"] {
        writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), line);
    }
    drop(child.stdin.take());
    Told::from(child.wait_with_output().unwrap()).assert(0, &[]);
}

#[test]
fn files_are_read_one_after_the_other_and_one_that_is_missing_is_told_of() {
    let place = Place::new();
    place.file("one", "a\nb\n");
    place.file("two", "b\nc\n");
    let files = [&["each", "one", "missing", "two"], &KEEP[..]].concat();
    let told = place.told(&files);
    assert_eq!(told.status, Some(125));
    assert!(told.stderr.contains("cannot open missing"), "{told:?}");
    assert!(told.stderr.ends_with("read 4, done 3, done before 1, failed 0\n"), "{told:?}");
    assert_eq!(place.text("kept"), "a\nb\nc\n");
}

#[test]
fn the_id_may_be_a_field_and_have_a_period() {
    let place = Place::new();
    let keep = [&["-q", "each", "--key", "id", "--every", "month-utc"], &KEEP[..]].concat();
    let items = "{\"id\":1,\"n\":1}\n{\"id\":1,\"n\":2}\n{\"id\":2}\n";
    place.told_with_input(&keep, items).assert(0, &[]);
    assert_eq!(place.text("kept"), "{\"id\":1,\"n\":1}\n{\"id\":2}\n");
    place.told_with_input(&keep, items).assert(0, &[]);
    assert_eq!(place.text("kept").lines().count(), 2);
    let entries = place.store().entries(Filter::default());
    let ids: Vec<_> = entries.map(|entry| String::from_utf8(entry.unwrap().id).unwrap()).collect();
    assert!(ids.iter().all(|id| id.contains("month-utc 20")), "{ids:?}");
    // `seen run` makes the same id.
    let run = ["run", "--id", "1", "--every", "month-utc", "--seen-status", "9", "true"];
    place.told(&run).assert(9, &["1 (month-utc 20", "seen before"]);
}

#[test]
fn a_command_that_cannot_be_started_ends_the_run_and_costs_no_line() {
    let place = Place::new();
    place.file("plain", "no program");
    for (program, status) in [("./missing", 127), ("./plain", 126)] {
        let told = place.told_with_input(&["each", "--", program], "a\nb\n");
        assert_eq!(told.status, Some(status));
        assert_eq!(told.stderr.matches("cannot run").count(), 1, "{told:?}");
    }
    let keep = [&["each"], &KEEP[..]].concat();
    place.told_with_input(&keep, "a\nb\n").assert(0, &["done 2"]);
}

#[test]
fn a_line_that_no_command_can_take_as_an_argument_has_failed_and_the_others_are_run() {
    let place = Place::new();
    let lines = format!("a\0b\n{}\nc\n", "x".repeat(3_000_000));
    let told = place.told_with_input(&["each", "--", "echo", "{}"], lines);
    assert_eq!((told.status, &*told.stdout), (Some(1), "c\n"));
    assert!(told.stderr.ends_with("read 3, done 1, done before 0, failed 2\n"));
    assert_eq!(in_flight(&place), 0);
}

/// Starts two commands that wait, with two more lines to come.
fn two_at_work(place: &Place, script: &str) -> Child {
    let mut command = place.seen(&each(&["--jobs", "2"], script));
    let signals = &[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
    let mut child = start(with_signals(&mut command, signals, libc::SIG_DFL));
    child.stdin.as_mut().unwrap().write_all(b"1\n2\n3\n4\n").unwrap();
    wait_until("two commands", || place.text("began").lines().count() == 2);
    child
}

#[test]
fn a_signal_reaches_the_commands_and_no_other_one_is_started() {
    for (number, status) in
        [(libc::SIGTERM, 143), (libc::SIGINT, 130), (libc::SIGHUP, 129), (libc::SIGQUIT, 131)]
    {
        let place = Place::new();
        // The first command makes an end of its work, the second fails.
        let script = "read -r n; trap 'echo $n >>ended; exit $((n - 1))' TERM INT HUP QUIT; \
                      echo $n >>began; while :; do sleep 0.02; done";
        let child = two_at_work(&place, script);
        signal(&child, number);
        // Its input stays open.
        let told = Told::from(child.wait_with_output().unwrap());
        assert_eq!(told.status, Some(status), "{told:?}");
        assert!(told.stderr.ends_with("read 2, done 1, done before 0, failed 1\n"), "{told:?}");
        assert_eq!(place.text("ended").lines().count(), 2);
        assert_eq!(state(&place, "1"), Some(State::Seen));
        assert_eq!(state(&place, "2"), Some(State::Failed));
        assert_eq!([state(&place, "3"), state(&place, "4")], [None, None]);
    }
}

#[test]
fn a_second_signal_kills_commands_that_go_on() {
    let place = Place::new();
    let script = "read -r n; trap 'echo $n >>asked' TERM; echo $n >>began; \
                  while :; do sleep 0.02; done";
    let child = two_at_work(&place, script);
    signal(&child, libc::SIGTERM);
    wait_until("both to be asked", || place.text("asked").lines().count() == 2);
    signal(&child, libc::SIGTERM);
    let told = Told::from(child.wait_with_output().unwrap());
    assert_eq!(told.status, Some(143), "{told:?}");
    assert!(told.stderr.contains("1: sh was killed by SIGKILL"), "{told:?}");
    assert_eq!([state(&place, "1"), state(&place, "2")], [Some(State::Failed); 2]);
}

#[test]
fn what_makes_no_sense_is_an_error_of_seen_and_runs_nothing() {
    let place = Place::new();
    for (options, named) in [
        (&["--jobs", "0"][..], "--jobs"),
        (&["--ttl", "0s"], "a time to live of zero"),
        (&["--every", "day", "--ttl", "1d"], "cannot be used"),
        (&["--key", "a,,b"], "empty"),
    ] {
        place.told(&[&["each"], options, &KEEP].concat()).assert(125, &[named]);
    }
    place.told(&["each", "./post"]).assert(125, &["<CMD>"]);
    place.file("seen.db", "not a database".repeat(100));
    let keep = [&["each"], &KEEP[..]].concat();
    place.told_with_input(&keep, "a\n").assert(125, &["not a SQLite database"]);
    assert_eq!(place.text("kept"), "");
}

#[test]
fn a_line_without_its_key_is_known_by_its_bytes_or_ends_the_run() {
    let place = Place::new();
    let keep = [&["each", "--key", "id"], &KEEP[..]].concat();
    for _ in 0..2 {
        let told = place.told_with_input(&keep, "no\n{}\n");
        assert!(
            told.stderr.contains("no: not JSON") && told.stderr.contains("1 other"),
            "{told:?}"
        );
        assert_eq!(place.text("kept"), "no\n{}\n");
    }
    let strict =
        place.told_with_input(&["each", "--key", "id", "--strict", "--", "true"], "other\n");
    assert_eq!(strict.status, Some(125), "{strict:?}");
}
