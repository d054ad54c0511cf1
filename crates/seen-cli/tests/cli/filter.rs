//! `seen filter` as a user runs it: a process with arguments, pipes and a status.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Place, assert_error, run, seen, start, stderr};

fn bare_filter() -> Command {
    seen(&["filter"])
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.split_inclusive(|&byte| byte == b'\n').count()
}

#[test]
fn new_lines_are_printed_in_order_and_never_again() {
    let place = Place::new();
    assert_eq!(place.passed(&[], "b\na\nb\n c\na \na\n"), b"b\na\n c\na \n");
    assert_eq!(place.passed(&[], "a\nd\nb\n"), b"d\n");
}

#[test]
fn bytes_pass_unchanged() {
    let place = Place::new();
    let input = b"\xfe\x00\r\n\xfe\x00\x01\ntab\there\r\ntab\there\n\xfe\x00\n\xef\xbb\xbfa\r\na\n";
    // A carriage return at the end and a byte order mark are printed, and make no other line.
    let expected = b"\xfe\x00\r\n\xfe\x00\x01\ntab\there\r\n\xef\xbb\xbfa\r\n";
    assert_eq!(place.passed(&[], input), expected);
}

#[test]
fn an_empty_line_is_printed_every_time() {
    let place = Place::new();
    assert_eq!(place.passed(&[], "\n\na\n\n"), b"\n\na\n\n");
    assert_eq!(place.passed(&[], "\na\n\n"), b"\n\n");
    assert_eq!(place.passed(&["--key", "id"], "\n\n"), b"\n\n");
}

#[test]
fn a_missing_final_newline_stays_missing_and_makes_no_other_line() {
    let place = Place::new();
    assert_eq!(place.passed(&[], "a\nb"), b"a\nb");
    assert_eq!(place.passed(&[], "b\nc"), b"c");
    assert_eq!(place.passed(&[], "b"), b"");
}

#[test]
fn several_files_are_read_in_order_and_their_lines_stay_apart() {
    let place = Place::new();
    let (one, two) = (place.file("one", "a\nb"), place.file("two", "b\nc\n"));
    let output = run(place.filter(&[]).arg(one).arg("-").arg(two), b"x\na\n");
    assert_eq!(output.stdout, b"a\nb\nx\nc\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_typed_line_is_answered_before_the_next_is_sent() {
    let place = Place::new();
    let mut child = start(&mut place.filter(&[]));
    let mut stdin = child.stdin.take().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (answer, answers) = mpsc::channel();
    std::thread::spawn(move || stdout.lines().try_for_each(|line| answer.send(line.unwrap())));
    // An answer that never comes is a failure and no reason to hang.
    let next = || answers.recv_timeout(Duration::from_secs(30)).expect("an answer at once");
    for n in 0..20 {
        // The duplicate is not answered; the half line is not taken for a whole one.
        write!(stdin, "line {n}\nline {n}\nhalf ").unwrap();
        assert_eq!(next(), format!("line {n}"));
        writeln!(stdin, "{n}").unwrap();
        assert_eq!(next(), format!("half {n}"));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert!(answers.recv().is_err());
}

#[test]
fn plentiful_input_passes_in_batches() {
    let place = Place::new();
    let input: Vec<u8> =
        (0..60_000).flat_map(|n| format!("{}\n", n % 30_000).into_bytes()).collect();
    let expected: Vec<u8> = (0..30_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    assert!(place.passed(&[], &input) == expected);
    let file = place.file("input", &input);
    assert_eq!(place.passed(&[file.to_str().unwrap()], ""), b"");
}

#[test]
fn a_line_may_be_longer_than_an_id() {
    let place = Place::new();
    let long = "x".repeat(1 << 20);
    let lines =
        [&long, &long[1..], &"y".repeat(65_536), &"y".repeat(65_537)].map(|l| format!("{l}\n"));
    let input = lines.concat();
    assert!(place.passed(&[], &input) == input.as_bytes());
    assert_eq!(place.passed(&[], &input), b"");
    // The text that a long line is remembered by is a line like any other.
    let digest = "f1:sha256:0000000000000000000000000000000000000000000000000000000000000000\n";
    assert_eq!(place.passed(&[], digest), digest.as_bytes());
    assert_eq!(place.passed(&[], digest), b"");
}

#[test]
fn a_key_is_remembered_instead_of_the_line() {
    let place = Place::new();
    let input = "{\"id\":1,\"a\":1}\n{\"id\":\"1\"}\n{\"a\":2, \"id\":2}\r\n{\"id\":2}";
    let expected = b"{\"id\":1,\"a\":1}\n{\"a\":2, \"id\":2}\r\n";
    assert_eq!(place.passed(&["--key", "id"], input), expected);
}

#[test]
fn a_number_is_remembered_as_it_is_written() {
    let place = Place::new();
    let input = "{\"id\":12345678901234567890123}\n{\"id\":12345678901234567890124}\n{\"id\":1.0}\n{\"id\":1}\n";
    assert_eq!(place.passed(&["--key", "id"], input), input.as_bytes());
    assert_eq!(place.passed(&[], "12345678901234567890123\n1\n1.00\n"), b"1.00\n");
}

#[test]
fn several_keys_combine_without_ambiguity() {
    let place = Place::new();
    let input = "{\"x\":\"ab\",\"y\":\"c\"}\n{\"x\":\"a\",\"y\":\"bc\"}\n{\"y\":\"c\",\"x\":\"ab\",\"z\":1}\n";
    let expected = "{\"x\":\"ab\",\"y\":\"c\"}\n{\"x\":\"a\",\"y\":\"bc\"}\n";
    assert_eq!(place.passed(&["--key", "x,y"], input), expected.as_bytes());
    // The same two fields in another order are another key.
    assert_eq!(place.passed(&["--key", "y,x"], "{\"x\":\"ab\",\"y\":\"c\"}\n").len(), 19);
}

#[test]
fn a_dotted_key_leads_inside_unless_a_name_has_these_dots() {
    let place = Place::new();
    let input =
        "{\"u\":{\"ids\":[7]}}\n{\"u\":{\"ids\":[7,8]}}\n{\"u\":{\"ids\":[7]},\"u.ids.0\":\"8\"}\n";
    let expected = "{\"u\":{\"ids\":[7]}}\n{\"u\":{\"ids\":[7]},\"u.ids.0\":\"8\"}\n";
    assert_eq!(place.passed(&["--key", "u.ids.0"], input), expected.as_bytes());
}

#[test]
fn a_line_without_its_key_is_known_by_its_bytes_and_told_of_once() {
    let place = Place::new();
    let input =
        b"{\"id\":1}\nnot json\n{\"id\":null}\n{\"id\":\"\"}\n17\n{}\n\xff\n{}\r\n{\"id\":1}\n";
    let file = place.file("in.jsonl", input);
    let name = file.to_str().unwrap();
    for expected in [&input[..input.len() - 13], b""] {
        let output = run(&mut place.filter(&["--key", "id", name]), b"");
        assert_eq!(output.stdout, expected);
        assert_eq!(output.status.code(), Some(0));
        let told = format!(
            "seen: {name}: line 2: not JSON: expected an object at column 1; this line and 6 others have no id, and \
             are known by their bytes; --strict ends at the first such line\n"
        );
        assert_eq!(stderr(&output), told);
    }
    // A stray line is no id: it silences nothing.
    assert_eq!(place.passed(&["--key", "id"], "{\"id\":17}\n"), b"{\"id\":17}\n");
    assert_eq!(place.passed(&[], "not json\n"), b"not json\n");
    let other = run(&mut place.filter(&["--key", "id", "-q"]), b"other\nother\n");
    assert_eq!((stderr(&other).as_str(), other.stdout.as_slice()), ("", &b"other\n"[..]));
}

#[test]
fn strict_ends_at_the_first_line_without_its_key_and_keeps_what_came_before() {
    let place = Place::new();
    for bad in ["nonsense", "{}", "{\"id\":null}", "{\"id\":\"\"}"] {
        let scope = ["--scope", bad, "--key", "id"];
        let input = format!("{{\"id\":1}}\n\n{bad}\n{{\"id\":2}}\n");
        let output = run(place.filter(&scope).arg("--strict"), input.as_bytes());
        assert_eq!(output.stdout, b"{\"id\":1}\n\n");
        assert_error(&output, &["standard input: line 3: "]);
        assert_eq!(place.passed(&scope, "{\"id\":1}\n{\"id\":2}\n"), b"{\"id\":2}\n");
    }
}

#[test]
fn invert_prints_the_duplicates_and_still_remembers_the_new() {
    let place = Place::new();
    assert_eq!(place.passed(&["--invert"], "a\n\nb\na\nc"), b"a\n");
    assert_eq!(place.passed(&["--invert"], "a\n\nc"), b"a\nc");
}

#[test]
fn a_dry_run_answers_the_same_and_leaves_no_trace() {
    let place = Place::new();
    assert_eq!(place.passed(&["--dry-run"], "a\nb\na\n"), b"a\nb\n");
    assert!(place.names().is_empty());
    let nested = place.path("no/such/folder.db");
    let output = run(bare_filter().arg("--dry-run").arg("--db").arg(nested), b"a\n");
    assert_eq!((output.stdout.as_slice(), stderr(&output).as_str()), (b"a\n".as_slice(), ""));
    assert!(place.names().is_empty());

    place.passed(&[], "a\n");
    let before = fs::read(place.path("seen.db")).unwrap();
    assert_eq!(place.passed(&["--dry-run"], "a\nb\nc\nb\n"), b"b\nc\n");
    assert_eq!(place.passed(&["--dry-run", "--invert"], "a\nb\nc\nb\n"), b"a\nb\n");
    assert_eq!(place.passed(&["--dry-run", "--scope", "other"], "a\nb\nb\n"), b"a\nb\n");
    assert!(fs::read(place.path("seen.db")).unwrap() == before);
    assert_eq!(place.passed(&[], "a\nb\n"), b"b\n");
}

#[test]
fn a_dry_run_of_something_that_is_no_store_is_an_error() {
    let place = Place::new();
    place.file("seen.db", "garbage, and more than nothing of it");
    assert_error(&run(&mut place.filter(&["--dry-run"]), b"a\n"), &["seen.db"]);
}

#[test]
fn scopes_have_nothing_to_do_with_each_other() {
    let place = Place::new();
    for scope in ["one", "two", ""] {
        assert_eq!(place.passed(&["--scope", scope], "a\na\n"), b"a\n");
        assert_eq!(place.passed(&["--scope", scope], "a\n"), b"");
    }
}

#[test]
fn a_time_to_live_is_what_it_says() {
    let place = Place::new();
    let ttls = [
        (vec![], Some(168)),
        (vec!["--ttl", "7d"], Some(168)),
        (vec!["--ttl", "36h"], Some(36)),
        (vec!["--ttl", "1w 2d"], Some(216)),
        (vec!["--ttl", "PT36H"], Some(36)),
        (vec!["--ttl", "never"], None),
    ];
    for (number, (ttl, hours)) in ttls.into_iter().enumerate() {
        let scope = number.to_string();
        let arguments = [vec!["--scope", scope.as_str()], ttl].concat();
        assert_eq!(place.passed(&arguments, "a\na\n"), b"a\n");
        assert_eq!(place.passed(&arguments, "a\n"), b"");
        let store = seen_store::SeenStore::open(place.path("seen.db")).unwrap().scope(scope);
        let entry = store.get("a").unwrap().unwrap();
        let lasts = entry.expires_at.map(|at| at.duration_since(entry.first_seen).unwrap());
        assert_eq!(lasts.map(|lasts| lasts.as_secs()), hours.map(|hours: u64| hours * 3_600));
    }
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    let place = Place::new();
    for ttl in ["soon", "7", "1y", "-1d", ""] {
        let output = run(place.filter(&[]).arg(format!("--ttl={ttl}")), b"a\n");
        assert_error(&output, &["--ttl", &format!("'{ttl}'")]);
    }
    assert_error(&run(&mut place.filter(&["--key", "a,,b"]), b""), &["--key", "a,,b"]);
    assert_error(&run(&mut place.filter(&["--bd", "x"]), b""), &["--bd"]);
    assert!(place.names().is_empty());
}

#[test]
fn stats_tell_what_was_read_and_what_was_new() {
    let place = Place::new();
    let output = run(&mut place.filter(&["--stats"]), b"a\n\nb\na\n");
    assert_eq!(stderr(&output), "seen: read 4, new 3, duplicates 1\n");
    let output = run(&mut place.filter(&["--stats", "--invert", "--dry-run"]), b"a\nc");
    assert_eq!(stderr(&output), "seen: read 2, new 1, duplicates 1\n");
    let output = run(&mut place.filter(&["--stats"]), b"");
    assert_eq!(stderr(&output), "seen: read 0, new 0, duplicates 0\n");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    let (there, gone) = (place.file("there", "a\n"), place.path("gone"));
    let output = run(place.filter(&[]).arg(there).arg(&gone), b"");
    assert_error(&output, &[gone.to_str().unwrap(), "No such file"]);
    assert_eq!(output.stdout, b"a\n");
    let folder = place.folder();
    let output = run(place.filter(&[]).arg(folder), b"");
    assert_error(&output, &[folder.to_str().unwrap(), "directory"]);
}

#[test]
fn a_file_name_with_escape_codes_is_told_harmlessly_in_one_line() {
    let place = Place::new();
    let output = run(place.filter(&[]).arg(place.path("a\n\u{1b}[31mb")), b"");
    assert_error(&output, &["a\\n\\u{1b}[31mb"]);
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let folder = place.folder();
    let output = run(bare_filter().arg("--db").arg(folder), b"a\n");
    assert_error(&output, &[folder.to_str().unwrap(), "folder"]);
    assert_eq!(output.stdout, b"");

    let garbage = "This is the text of some other program, and no database at all.";
    let path = place.file("garbage", garbage);
    let output = run(bare_filter().arg("--db").arg(&path), b"a\n");
    assert_error(&output, &[path.to_str().unwrap(), "database"]);
    assert_eq!(output.stdout, b"");
    assert_eq!(fs::read_to_string(&path).unwrap(), garbage);
}

#[test]
fn the_store_is_found_by_option_then_variable_then_convention() {
    let place = Place::new();
    let path = |name: &str| place.path(name);
    let made = |command: &mut Command, store: &str| {
        assert!(!path(store).exists());
        let output = run(command, b"a\n");
        assert_eq!((stderr(&output).as_str(), output.stdout.as_slice()), ("", b"a\n".as_slice()));
        assert!(path(store).exists(), "{store}");
    };
    let mut command = bare_filter();
    made(command.env("HOME", path("home")), "home/.local/share/seen/seen.db");
    made(command.env("XDG_DATA_HOME", path("xdg")), "xdg/seen/seen.db");
    made(command.env("SEEN_DB_PATH", path("variable.db")), "variable.db");
    made(command.arg("--db").arg(path("option.db")), "option.db");
    // A variable set to nothing, or to a relative path where XDG wants an absolute one, is none.
    let mut command = bare_filter();
    command.env("SEEN_DB_PATH", "").env("XDG_DATA_HOME", "relative").env("HOME", path("second"));
    made(&mut command, "second/.local/share/seen/seen.db");
    assert_error(&run(&mut bare_filter(), b"a\n"), &["--db", "SEEN_DB_PATH"]);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::new();
    let input: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let file = place.file("input", input);
    let mut child = start(place.filter(&[]).arg(file));
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"0\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn an_output_that_fails_is_an_error() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        eprintln!("SKIPPED: an_output_that_fails_is_an_error: there is no /dev/full here");
        return;
    }
    let place = Place::new();
    let mut command = place.filter(&[]);
    let output = command
        .stdin(fs::File::open(place.file("input", "a\n")).unwrap())
        .stdout(fs::OpenOptions::new().write(true).open(full).unwrap())
        .output()
        .unwrap();
    assert_error(&output, &["standard output", "No space left"]);
}

#[test]
fn filters_at_once_on_one_store_never_both_print_a_line() {
    let place = Place::new();
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let file = place.file("input", lines.concat());
    // One reads a file in batches of 10,000; the others a pipe in pieces of odd sizes.
    let mut from_file = start(place.filter(&[]).arg(&file));
    drop(from_file.stdin.take());
    let mut piped: Vec<Child> = (0..2).map(|_| start(&mut place.filter(&[]))).collect();
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        for (child, size) in piped.iter_mut().zip([1_000, 33]) {
            let mut stdin = child.stdin.take().unwrap();
            let lines = &lines;
            scope.spawn(move || {
                for piece in lines.chunks(size) {
                    stdin.write_all(piece.concat().as_bytes()).unwrap();
                }
            });
        }
        let waits: Vec<_> = piped
            .drain(..)
            .chain([from_file])
            .map(|child| scope.spawn(|| child.wait_with_output().unwrap()))
            .collect();
        waits.into_iter().map(|wait| wait.join().unwrap()).collect()
    });
    let mut printed = HashSet::new();
    for output in &outputs {
        assert_eq!((output.status.code(), stderr(output).as_str()), (Some(0), ""));
        for line in output.stdout.split_inclusive(|&byte| byte == b'\n') {
            assert!(printed.insert(line), "printed twice: {}", String::from_utf8_lossy(line));
        }
    }
    assert_eq!(printed.len(), lines.len());
}

#[test]
fn a_real_feed_alerts_each_incident_once() {
    let Some(feed) = std::env::var_os("SEEN_REAL_FEED").filter(|path| !path.is_empty()) else {
        // Past the test harness, which hides what a passing test prints.
        let skipped = "SKIPPED: a_real_feed_alerts_each_incident_once: SEEN_REAL_FEED is not set\n";
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    };
    let mut lines = Vec::new();
    let compressed = fs::File::open(feed).unwrap();
    flate2::read::GzDecoder::new(compressed).read_to_end(&mut lines).unwrap();
    assert_eq!(count_lines(&lines), 28_556);

    let place = Place::new();
    assert_eq!(count_lines(&place.passed(&["--key", "id"], &lines)), 402);
    assert_eq!(count_lines(&place.passed(&["--key", "id"], &lines)), 0);
    let updates = ["--scope", "updates", "--key", "id,updated"];
    assert_eq!(count_lines(&place.passed(&updates, &lines)), 3_456);
    assert_eq!(count_lines(&place.passed(&updates, &lines)), 0);
}
