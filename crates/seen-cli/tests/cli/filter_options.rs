//! `seen filter`: sliding windows, NUL-separated records, limits and the progress bar.

use std::io::Write as _;
use std::time::Duration;

use crate::support::{Place, assert_error, printed, run, stderr};
use seen_store::{Clock as _, Config, Filter, ManualClock, SeenStore, State, SystemClock, Window};

fn open(place: &Place) -> SeenStore {
    SeenStore::open(place.path("seen.db")).unwrap()
}

/// Marks `a` as a filter of a while ago would have, with a time to live of an hour.
fn seen_before(place: &Place, ago: Duration) {
    let clock = ManualClock::new(SystemClock.now() - ago);
    let config = Config::default().ttl(Duration::from_secs(3_600)).clock(clock);
    let store = SeenStore::open_with(place.path("seen.db"), config).unwrap();
    store.window(Window::SLIDING).seed(["a"]).unwrap();
    store.close().unwrap();
}

fn left(place: &Place) -> Duration {
    let entry = open(place).get("a").unwrap().unwrap();
    entry.expires_at.unwrap().duration_since(SystemClock.now()).unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_duplicate_extends_what_is_remembered_in_a_sliding_window_only() {
    let place = Place::new();
    seen_before(&place, 50 * MINUTE);
    assert_eq!(place.passed(&["--ttl", "1h"], "a\n"), b"");
    assert!(left(&place) < 15 * MINUTE);
    assert_eq!(place.passed(&["--ttl", "1h", "--window", "sliding"], "a\n"), b"");
    assert!(left(&place) > 59 * MINUTE);
}

#[test]
fn a_maximum_age_ends_a_sliding_window() {
    let place = Place::new();
    seen_before(&place, 50 * MINUTE);
    let sliding = ["--ttl", "1h", "--window", "sliding", "--max-age", "90m"];
    assert_eq!(place.passed(&sliding, "a\n"), b"");
    let left = left(&place);
    assert!(left > 39 * MINUTE && left <= 40 * MINUTE, "{left:?}");
}

#[test]
fn a_maximum_age_needs_a_sliding_window() {
    let place = Place::new();
    let output = run(place.on("filter", "seen.db").args(["--max-age", "1d"]), b"a\n");
    assert_error(&output, &["--max-age", "--window sliding"]);
    let output = run(place.on("filter", "seen.db").args(["--window", "wide"]), b"a\n");
    assert_error(&output, &["wide", "fixed", "sliding"]);
    assert!(place.names().is_empty(), "nothing was created");
}

#[test]
fn records_may_end_with_nul_and_hold_newlines() {
    let place = Place::new();
    assert_eq!(place.passed(&["-0"], b"a\nb\0\0c\0a\nb\0d"), b"a\nb\0\0c\0d");
    assert_eq!(place.passed(&["--null"], b"a\nb\0e\0"), b"e\0");
    // The id is the record without its end: the same line is the same id.
    assert_eq!(place.passed(&[], "c\nd\nf\n"), b"f\n");
    let (one, two) = (place.file("one", b"x"), place.file("two", b"y"));
    let mut filter = place.on("filter", "seen.db");
    assert_eq!(printed(filter.arg("-0").args([one, two]), b""), b"x\0y");
}

fn remembered(place: &Place) -> Vec<String> {
    let store = open(place);
    let mut ids: Vec<_> = store
        .entries(Filter::default())
        .map(|entry| {
            let entry = entry.unwrap();
            assert_eq!(entry.state, State::Seen, "nothing else was claimed");
            String::from_utf8(entry.id).unwrap()
        })
        .collect();
    ids.sort();
    ids
}

#[test]
fn a_limit_prints_and_remembers_so_many_and_leaves_the_rest_to_later_runs() {
    let place = Place::new();
    let input = "a\na\nb\nc\na\nd\ne\n";
    assert_eq!(place.passed(&["--limit", "2"], input), b"a\nb\n");
    assert_eq!(remembered(&place), ["a", "b"]);
    assert_eq!(place.passed(&["--limit", "2"], input), b"c\nd\n");
    assert_eq!(remembered(&place), ["a", "b", "c", "d"]);
    assert_eq!(place.passed(&["--limit", "2"], input), b"e\n");
    assert_eq!(place.passed(&["--limit", "2"], input), b"");
}

#[test]
fn a_limit_reaches_over_batches_and_files() {
    let place = Place::new();
    let lines = (0..30_000).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
    let file = place.file("many", &lines);
    place.passed(&[], &lines[..=lines.find("\n15000\n").unwrap()]);
    let mut filter = place.on("filter", "seen.db");
    let more = printed(filter.args(["--limit", "12000"]).args([&file, &file]), b"");
    let expected = (15_000..27_000).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
    assert_eq!(String::from_utf8(more).unwrap(), expected);
    assert_eq!(remembered(&place).len(), 27_000);
}

#[test]
fn a_limit_counts_what_is_printed_also_empty_lines_and_duplicates_when_inverted() {
    let place = Place::new();
    assert_eq!(place.passed(&["--limit", "2"], "\na\nb\n"), b"\na\n");
    assert_eq!(place.passed(&["--limit", "2", "--invert"], "a\nx\na\ny\na\n"), b"a\na\n");
    assert_eq!(remembered(&place), ["a", "x"]);
    assert_eq!(place.passed(&["--limit", "1", "--dry-run"], "a\np\nq\n"), b"p\n");
    assert_eq!(remembered(&place), ["a", "x"]);
}

#[test]
fn what_lies_behind_the_limit_is_neither_warned_of_nor_an_error() {
    let place = Place::new();
    let input = "{\"id\":1}\nno json\n";
    assert_eq!(place.passed(&["--key", "id", "--limit", "1"], input), b"{\"id\":1}\n");
    let strict = ["--key", "id", "--strict", "--limit", "1"];
    assert_eq!(place.passed(&strict, "{\"id\":2}\nno json\n"), b"{\"id\":2}\n");
    let output = run(place.on("filter", "seen.db").args(["--limit", "0"]), b"a\n");
    assert_error(&output, &["--limit", "0"]);
}

#[test]
fn a_limit_ends_an_input_that_never_does() {
    let place = Place::new();
    let mut filter = place.on("filter", "seen.db");
    let (input, mut ours) = std::io::pipe().unwrap();
    ours.write_all(b"1\n2\n3\n4\n").unwrap();
    // Our end of the pipe stays open: only the limit can end the run.
    let output = filter.args(["--limit", "3"]).stdin(input).output().unwrap();
    assert_eq!((output.stdout.as_slice(), stderr(&output).as_str()), (&b"1\n2\n3\n"[..], ""));
    drop(ours);
}

#[test]
fn a_bar_shows_how_far_a_large_file_has_come_on_a_terminal_only() {
    let place = Place::new();
    let lines = (0..60_000).map(|n| format!("{n:030}\n")).collect::<Vec<_>>().concat();
    place.file("many", &lines);
    let shown = place.on_terminal("filter --db one.db many");
    assert!(shown.contains('%') && shown.contains(" of "), "{shown:?}");
    assert_eq!(std::fs::read(place.path("printed")).unwrap(), lines.as_bytes());
    let shown = place.on_terminal("filter --db two.db < many");
    assert!(shown.contains('%'), "standard input that is a file has a size too: {shown:?}");
    // A message has a line of its own.
    let shown = place.on_terminal("filter --db three.db --key id many");
    assert!(
        shown.contains("\rseen: many: line 1: ")
            || shown.contains("\u{1b}[2Kseen: many: line 1: ")
            || shown.starts_with("seen: many: line 1: "),
        "{shown:?}"
    );
    assert_eq!(place.on_terminal("-q filter --db four.db many"), "");
    assert_eq!(place.on_terminal("filter --db five.db many > /dev/tty").matches('%').count(), 0);
}
