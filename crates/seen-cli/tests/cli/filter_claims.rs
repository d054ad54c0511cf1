//! `seen filter` killed, stopped, blocked and in company: no line is lost, and none is printed twice by
//! filters that live.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{ChildStdout, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use seen_store::{SeenStore, State};

use crate::support::{LONG, Place, signal, stderr, wait_until};
use crate::support_process::Random;

/// What a filter prints of the file, having succeeded without a word.
fn passed(place: &Place, arguments: &[&str], input: &Path) -> Vec<u8> {
    quiet(&place.filter(arguments).arg(input).output().unwrap()).to_vec()
}

fn quiet(output: &Output) -> &[u8] {
    assert_eq!((output.status.code(), stderr(output).as_str()), (Some(0), ""));
    &output.stdout
}

/// Lines that are long enough for a few hundred of them to fill a pipe.
fn long_lines(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:0200}\n")).collect()
}

/// The lines that are complete. One that a kill cut off was not printed.
fn complete(printed: &[u8]) -> impl Iterator<Item = &[u8]> {
    printed.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"))
}

fn shuffled(lines: &[String], random: &mut Random) -> Vec<String> {
    let mut lines = lines.to_vec();
    for n in (1..lines.len()).rev() {
        lines.swap(n, usize::try_from(random.below(n as u64 + 1)).unwrap());
    }
    lines
}

/// When the lease on a line ends; `None` while no filter has claimed it.
fn lease_of(store: &SeenStore, line: &str) -> Option<SystemTime> {
    let entry = store.get(line.trim_end()).unwrap()?;
    entry.lease_until.filter(|_| entry.state == State::InFlight)
}

/// Reads all that comes, and sends it when its writer has closed the pipe.
fn collect(mut pipe: ChildStdout) -> mpsc::Receiver<Vec<u8>> {
    let (all, collected) = mpsc::channel();
    thread::spawn(move || {
        let mut printed = Vec::new();
        pipe.read_to_end(&mut printed).unwrap();
        all.send(printed)
    });
    collected
}

/// Twenty filters are killed, each with more to do than the one before: some after a part of their
/// input was sent to them, the others after a part of their output was read. Whatever they were at,
/// the one that is not killed prints what none of them did.
#[test]
fn after_kills_at_random_moments_every_line_has_been_printed() {
    let place = Place::new();
    let mut random = Random::new("after_kills_at_random_moments");
    let lines: Vec<String> = (0..30_000).map(|n| format!("line {n:095}\n")).collect();
    let mut printed: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut count = |output: &[u8]| {
        for line in complete(output) {
            *printed.entry(line.to_vec()).or_default() += 1;
        }
    };
    for round in 0..20 {
        let lines = &lines[..1_500 * (round + 1)];
        let mut command = place.filter(&["--lease", "50ms"]);
        if round % 2 == 0 {
            let output = place.path("output");
            command.stdin(Stdio::piped()).stdout(File::create(&output).unwrap());
            let mut filter = command.spawn().unwrap();
            let part = usize::try_from(random.below(lines.len() as u64)).unwrap();
            let input = filter.stdin.as_mut().unwrap();
            input.write_all(lines[..part].concat().as_bytes()).unwrap();
            filter.kill().unwrap();
            filter.wait().unwrap();
            count(&fs::read(&output).unwrap());
        } else {
            // There is more to print than a pipe holds: it is killed while it writes.
            let mut filter = command.arg(place.file("input", lines.concat())).spawn().unwrap();
            let mut pipe = filter.stdout.take().unwrap();
            let mut output = vec![0; usize::try_from(1 + random.below(80_000)).unwrap()];
            pipe.read_exact(&mut output).unwrap();
            filter.kill().unwrap();
            filter.wait().unwrap();
            pipe.read_to_end(&mut output).unwrap();
            count(&output);
        }
    }
    let input = place.file("input", lines.concat());
    let last = passed(&place, &[], &input);
    count(&last);
    let distinct: HashSet<&[u8]> = complete(&last).collect();
    assert_eq!(distinct.len(), complete(&last).count(), "the last one printed a line twice");
    let missing = lines.iter().filter(|line| !printed.contains_key(line.as_bytes())).count();
    assert_eq!(missing, 0, "lines are lost");
    assert_eq!(printed.len(), lines.len(), "something else was printed too");
    let again = printed.values().filter(|count| **count > 1).count();
    println!("{} lines printed by the last, {again} again after a kill", distinct.len());
    assert_eq!(passed(&place, &[], &input), b"", "all is remembered");
}

#[test]
fn without_kills_no_line_is_printed_twice() {
    let place = Place::new();
    let lines = long_lines(12_000);
    let twice = place.file("input", [&lines[..], &lines[..]].concat().concat());
    assert!(passed(&place, &["--lease", "1s"], &twice) == lines.concat().as_bytes());
    assert_eq!(passed(&place, &[], &twice), b"");
}

#[test]
fn a_filter_whose_output_blocks_keeps_its_lines_until_it_is_killed() {
    // Short, and long enough for a thread to get its turn on a busy machine.
    const LEASE: Duration = Duration::from_secs(1);
    let place = Place::new();
    let lines = long_lines(2_000);
    let input = place.file("input", lines.concat());
    let lease = ["--lease", "1s"];
    let mut blocked = place.filter(&lease).arg(&input).spawn().unwrap();
    let _nobody_reads = blocked.stdout.take().unwrap();
    let store = place.store();
    wait_until("a claim", || lease_of(&store, &lines[0]).is_some());
    let first = lease_of(&store, &lines[0]).unwrap();

    let mut waiting = place.filter(&lease).arg(&input).spawn().unwrap();
    let printed = collect(waiting.stdout.take().unwrap());
    // The first lease has run out by then.
    wait_until("renewals", || {
        let ends = lease_of(&store, &lines[0]).expect("the claim is kept");
        ends >= first + LEASE * 3 / 2
    });
    // The blocked filter still holds its claims of all lines: no other filter has taken one over.
    for line in lines.iter().step_by(100) {
        assert_eq!(store.get(line.trim_end()).unwrap().unwrap().attempts, 1);
    }
    assert_eq!(printed.try_recv(), Err(mpsc::TryRecvError::Empty));
    assert!(waiting.try_wait().unwrap().is_none());

    blocked.kill().unwrap();
    blocked.wait().unwrap();
    let printed = printed.recv_timeout(LONG).expect("the other filter goes on");
    assert!(printed == lines.concat().as_bytes());
    assert_eq!(quiet(&waiting.wait_with_output().unwrap()), b"");
}

#[test]
fn a_filter_that_was_stopped_past_its_lease_says_what_another_may_have_printed_too() {
    let place = Place::new();
    let lines = long_lines(1_000);
    let input = place.file("input", lines.concat());
    let lease = ["--lease", "200ms"];
    let mut stopped = place.filter(&lease).arg(&input).spawn().unwrap();
    let pipe = stopped.stdout.take().unwrap();
    let store = place.store();
    wait_until("a claim", || lease_of(&store, &lines[0]).is_some());
    signal(&stopped, libc::SIGSTOP);
    // The other takes over what the stopped one can no longer renew.
    assert!(passed(&place, &lease, &input) == lines.concat().as_bytes());
    let printed = collect(pipe);
    signal(&stopped, libc::SIGCONT);
    assert!(printed.recv_timeout(LONG).unwrap() == lines.concat().as_bytes());
    let output = stopped.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let told = stderr(&output);
    assert!(told.contains("1000 lines") && told.contains("--lease"), "{told}");
    // The one that took over has confirmed; the late one has changed nothing.
    for line in lines.iter().step_by(100) {
        let entry = store.get(line.trim_end()).unwrap().unwrap();
        assert_eq!((entry.state, entry.attempts), (State::Seen, 2));
    }
}

/// Each has its own order, so that each meets lines of the other's at any moment and waits for them.
#[test]
fn filters_with_the_same_lines_in_other_orders_print_each_line_once_and_do_not_wait_for_ever() {
    let place = Place::new();
    let mut random = Random::new("filters_with_the_same_lines_in_other_orders");
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let inputs =
        [0, 1].map(|n| place.file(&format!("{n}"), shuffled(&lines, &mut random).concat()));
    let mut filters = inputs.each_ref().map(|input| place.filter(&[]).arg(input).spawn().unwrap());
    let printed = filters.each_mut().map(|filter| collect(filter.stdout.take().unwrap()));
    let printed = printed.map(|printed| printed.recv_timeout(LONG));
    // Those that wait for each other would outlive the test.
    if printed.iter().any(Result::is_err) {
        for filter in &mut filters {
            filter.kill().unwrap();
        }
        panic!("the filters wait for each other");
    }
    for filter in filters {
        quiet(&filter.wait_with_output().unwrap());
    }
    let printed = printed.map(Result::unwrap).concat();
    let distinct: HashSet<&[u8]> = complete(&printed).collect();
    assert_eq!((complete(&printed).count(), distinct.len()), (lines.len(), lines.len()));
}

#[test]
fn a_closed_pipe_gives_the_lines_that_were_not_written_back_to_the_next_run() {
    let place = Place::new();
    let lines = long_lines(5_000);
    let input = place.file("input", lines.concat());
    let mut filter = place.filter(&["--lease", "1d"]).arg(&input).spawn().unwrap();
    let mut pipe = filter.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 1_000]).unwrap();
    let store = place.store();
    assert!(lease_of(&store, &lines[4_999]).is_some(), "the batch is claimed when it is written");
    drop(pipe);
    assert_eq!(quiet(&filter.wait_with_output().unwrap()), b"");
    // Otherwise the next run would wait for a day.
    let stats = store.stats().unwrap();
    assert_eq!((stats.in_flight, stats.seen), (0, 0));
    assert!(passed(&place, &[], &input) == lines.concat().as_bytes());
}

#[test]
fn a_full_disk_gives_the_lines_back_to_the_next_run() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        eprintln!("SKIPPED: a_full_disk_gives_the_lines_back: there is no /dev/full here");
        return;
    }
    let place = Place::new();
    let input = place.file("input", long_lines(500).concat());
    let full = fs::OpenOptions::new().write(true).open(full).unwrap();
    let output = place.filter(&["--lease", "1d"]).arg(&input).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("next run"), "{}", stderr(&output));
    assert_eq!(place.store().stats().unwrap().in_flight, 0);
    assert!(passed(&place, &[], &input) == fs::read(&input).unwrap());
}

#[test]
fn a_lease_of_zero_is_an_error_that_creates_nothing() {
    let place = Place::new();
    let input = place.file("input", "a\n");
    for lease in ["0s", "0ms", "never", "soon"] {
        let output = place.filter(&["--lease", lease]).arg(&input).output().unwrap();
        let told = stderr(&output);
        assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{lease:?}: {told}");
        assert!(told.contains("--lease"), "{told}");
        assert_eq!(output.stdout, b"");
    }
    assert!(!place.path("seen.db").exists());
}
