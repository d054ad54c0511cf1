//! `seen filter` that ends before its input does: at a signal, or because its store cannot be used.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd;
use std::process::Child;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use seen_store::{Claim, Filter, State};

use crate::support::{Place, Told, catches, signal, start, wait_until, with_signals};

/// The signals that ask for an end, and the status after each.
const ASKING: [(libc::c_int, i32); 3] =
    [(libc::SIGTERM, 143), (libc::SIGINT, 130), (libc::SIGHUP, 129)];

/// A filter at work that hears these signals, also where the shell ignores them.
fn filtering(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.filter(arguments);
    start(with_signals(&mut command, &[libc::SIGTERM, libc::SIGINT, libc::SIGHUP], libc::SIG_DFL))
}

fn tell(child: &mut Child, text: &str) {
    child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
}

/// How many bytes of a pipe were not read yet.
fn unread(pipe: impl AsFd) -> u64 {
    ioctl_fionread(pipe).unwrap()
}

fn wait_until_input_is_read(child: &Child) {
    wait_until("the input to be read", || unread(child.stdin.as_ref().unwrap()) == 0);
}

fn in_flight(place: &Place) -> usize {
    place.store().count(Filter::default().state(State::InFlight)).unwrap().try_into().unwrap()
}

/// As many lines as several batches have, more than a pipe holds.
fn numbers() -> String {
    (0..25_000).map(|n| format!("line {n}\n")).collect::<Vec<_>>().concat()
}

/// Waits until the filter can write no more.
fn wait_until_blocked(child: &Child) {
    wait_until("a full pipe", || unread(child.stdout.as_ref().unwrap()) >= 60_000);
    let stat = format!("/proc/{}/stat", child.id());
    wait_until("its sleep", || fs::read_to_string(&stat).unwrap().contains(") S "));
}

#[test]
fn a_signal_ends_a_filter_that_waits_for_input_and_what_it_printed_stays_remembered() {
    for (number, status) in ASKING {
        let place = Place::new();
        let mut child = filtering(&place, &[]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        tell(&mut child, "a\nb\nhalf a li");
        assert_eq!([(); 2].map(|()| lines.next().unwrap().unwrap()), ["a", "b"]);
        signal(&child, number);
        // Its input stays open.
        assert!(lines.next().is_none());
        Told::from(child.wait_with_output().unwrap()).assert(status, &[]);
        assert_eq!(place.passed(&[], "a\nb\nhalf a line\n"), b"half a line\n");
    }
}

/// As under `yes | seen filter | head -1`: after the first line there is nothing to print, so no write fails.
#[test]
fn a_filter_ends_when_its_output_is_closed_also_while_it_has_nothing_to_print() {
    let place = Place::new();
    let mut child = filtering(&place, &[]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"y\n").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "y");
    drop(lines);
    // Its input stays open.
    Told::from(child.wait_with_output().unwrap()).assert(0, &[]);
    let mut child = filtering(&place, &[]);
    drop(child.stdout.take());
    let mut yes = child.stdin.take().unwrap();
    while yes.write_all(b"y\n").is_ok() {}
    Told::from(child.wait_with_output().unwrap()).assert(0, &[]);
    drop(input);
}

/// Before, the next filter was silent about these lines until the lease ended.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_a_filter_whose_output_blocks_and_the_next_one_prints_the_rest_at_once() {
    for (number, status) in ASKING {
        let place = Place::new();
        let text = numbers();
        place.file("input", &text);
        let child = filtering(&place, &["input"]);
        wait_until_blocked(&child);
        signal(&child, number);
        let told = Told::from(child.wait_with_output().unwrap());
        told.assert(status, &[]);
        assert!(told.stdout.ends_with('\n') && text.starts_with(&told.stdout), "a line is broken");
        assert_eq!(in_flight(&place), 0);
        let rest = place.passed(&["input"], "");
        assert!(told.stdout + &String::from_utf8(rest).unwrap() == text);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_line_that_was_written_in_part_is_printed_by_the_next_filter() {
    let place = Place::new();
    let long = format!("{}\n", "x".repeat(500_000));
    place.file("input", format!("first\n{long}last\n"));
    let mut child = filtering(&place, &["input"]);
    wait_until_blocked(&child);
    signal(&child, libc::SIGTERM);
    // Before anything is read: there would be room for the rest of the line.
    wait_until("its end", || child.try_wait().unwrap().is_some());
    let told = Told::from(child.wait_with_output().unwrap());
    told.assert(143, &[]);
    assert!(told.stdout.starts_with("first\nxxx") && told.stdout.len() < 500_000);
    let rest = place.passed(&["input"], "");
    assert!(rest == format!("{long}last\n").as_bytes());
}

#[cfg(target_os = "linux")]
#[test]
fn duplicates_that_are_printed_while_the_output_blocks_cost_no_new_line_its_claim() {
    let place = Place::new();
    let text = numbers();
    place.file("input", &text);
    place.passed(&["input"], "");
    place.file("input", text.replace("0\n", "0 and new\n"));
    let child = filtering(&place, &["--invert", "input"]);
    wait_until_blocked(&child);
    signal(&child, libc::SIGTERM);
    Told::from(child.wait_with_output().unwrap()).assert(143, &[]);
    assert_eq!(in_flight(&place), 0);
}

#[test]
fn a_signal_ends_the_wait_for_a_line_that_another_filter_has() {
    let place = Place::new();
    let store = place.store();
    let Claim::Granted(lease) = store.claim("a", Duration::from_secs(60)).unwrap() else {
        panic!()
    };
    let mut child = filtering(&place, &[]);
    tell(&mut child, "a\nb\n");
    wait_until_input_is_read(&child);
    signal(&child, libc::SIGTERM);
    let output = child.wait_with_output().unwrap();
    Told::from(output).assert(143, &[]);
    drop(lease);
    assert_eq!(place.passed(&[], "a\nb\n"), b"a\nb\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_wait_for_the_writer_of_a_named_pipe() {
    let place = Place::new();
    let made = std::process::Command::new("mkfifo").arg(place.path("pipe")).status().unwrap();
    assert!(made.success());
    let child = filtering(&place, &["pipe"]);
    catches(&child, libc::SIGTERM);
    signal(&child, libc::SIGTERM);
    Told::from(child.wait_with_output().unwrap()).assert(143, &[]);
}

/// A filter that waits for another process cannot end in order.
#[test]
fn a_second_signal_ends_it_at_once() {
    for (number, status) in &ASKING[..2] {
        let place = Place::new();
        drop(place.store());
        let writer = rusqlite::Connection::open(place.db()).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut child = filtering(&place, &[]);
        tell(&mut child, "a\n");
        wait_until_input_is_read(&child);
        signal(&child, *number);
        signal(&child, libc::SIGHUP); // No second request: shells repeat a hangup.
        // Two signals of one number that come at once may be one.
        let mut ended = None;
        wait_until("its end", || {
            signal(&child, *number);
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(*status));
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(told, "");
        writer.execute_batch("ROLLBACK").unwrap();
    }
}

/// `nohup seen filter` goes on.
#[test]
fn a_signal_that_was_ignored_from_the_start_is_ignored() {
    let place = Place::new();
    let mut command = place.filter(&[]);
    let mut child = start(with_signals(&mut command, &[libc::SIGHUP], libc::SIG_IGN));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["a", "b"] {
        tell(&mut child, &format!("{line}\n"));
        assert_eq!(lines.next().unwrap().unwrap(), line);
        signal(&child, libc::SIGHUP);
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn alerts_go_through_although_the_store_cannot_be_used() {
    let place = Place::new();
    place.file("seen.db", "not a database".repeat(100));
    let lines = "a\n\na\n{\"id\": 1}\nno newline";
    for options in [&["--on-error", "pass"][..], &["--on-error=pass", "--key", "id"]] {
        let told = place.told_with_input(&[&["filter"], options].concat(), lines);
        told.assert(1, &["seen.db", "not a SQLite database", "all lines are printed"]);
        assert_eq!(told.stdout, lines);
    }
    let told = place.told_with_input(&["-q", "filter", "--on-error", "pass"], lines);
    told.assert(1, &["not a SQLite database"]);
    let told = place.told_with_input(&["filter"], lines);
    told.assert(2, &["not a SQLite database"]);
    assert_eq!(told.stdout, "");
    // What the user got wrong is no matter of the store.
    let sound = Place::new();
    let missing = ["filter", "--on-error", "pass", "missing"];
    sound.told_with_input(&missing, "").assert(2, &["missing"]);
}

#[test]
fn with_a_store_that_works_nothing_more_goes_through() {
    let place = Place::new();
    assert_eq!(place.passed(&["--on-error", "pass"], "a\na\nb\n"), b"a\nb\n");
    assert_eq!(place.passed(&["--on-error", "pass"], "a\nb\nc\n"), b"c\n");
}

fn remove_store(place: &Place) {
    for file in ["seen.db", "seen.db-wal", "seen.db-shm"] {
        fs::remove_file(place.path(file)).unwrap();
    }
}

#[test]
fn alerts_go_through_from_the_line_at_which_the_store_breaks() {
    let place = Place::new();
    let mut child = filtering(&place, &["--on-error", "pass"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    tell(&mut child, "a\na\nb\n");
    let mut first = String::new();
    for _ in 0..2 {
        stdout.read_line(&mut first).unwrap();
    }
    assert_eq!(first, "a\nb\n");
    remove_store(&place);
    // A store notices this after a moment.
    wait_until("the loss of the store", || {
        tell(&mut child, "a\n");
        unread(stdout.get_ref()) > 0
    });
    tell(&mut child, "c\na\n");
    drop(child.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("a\nc\na\n") && !rest.contains('b'), "{rest}");
    Told::from(child.wait_with_output().unwrap()).assert(1, &["seen.db", "all lines are printed"]);
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_printed_when_the_store_breaks_is_not_printed_again() {
    let place = Place::new();
    let text = numbers();
    place.file("input", &text);
    let mut child = filtering(&place, &["--on-error", "pass", "input"]);
    wait_until_blocked(&child);
    remove_store(&place);
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    Told::from(child.wait_with_output().unwrap()).assert(1, &["seen.db", "all lines are printed"]);
    assert!(printed == text, "each line once, in order");
}

#[test]
fn a_limit_holds_also_for_what_goes_through() {
    let place = Place::new();
    place.file("seen.db", "not a database".repeat(100));
    let options = ["filter", "--on-error", "pass", "--limit", "2"];
    let told = place.told_with_input(&options, "a\nb\nc\n");
    assert_eq!((told.status, &*told.stdout), (Some(1), "a\nb\n"));
}
