//! Versions of an id, and what is kept of it after its time to live.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use seen_store::{Claim, Item, State};

use crate::support::{Place, wait_until};

fn line(id: &str, updated: &str) -> String {
    format!("{{\"id\":\"{id}\",\"at\":\"{updated}\"}}\n")
}

const BY_VERSION: [&str; 4] = ["--key", "id", "--version", "at"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&BY_VERSION[..], more].concat()
}

#[test]
fn a_line_passes_when_its_id_is_new_or_its_version_has_changed() {
    let place = Place::new();
    let lines = [
        line("a", "1"),
        line("b", "1"),
        line("a", "1"),
        line("a", "2"),
        line("b", "1"),
        line("a", "3"),
        line("a", "2"),
    ];
    let told: Vec<_> = [(0, "new"), (1, "new"), (3, "changed"), (5, "changed"), (6, "changed")]
        .map(|(n, why)| lines[n].replace("}\n", &format!(",\"why\":\"{why}\"}}\n")))
        .into();
    let passed = place.passed(&with(&["--tell", "why"]), lines.concat());
    assert_eq!(String::from_utf8(passed).unwrap(), told.concat());
    assert_eq!(place.passed(&BY_VERSION, line("a", "2")), b"");
    // The id alone is known, in whatever version.
    assert_eq!(place.passed(&["--key", "id"], lines.concat()), b"");
    let stats = place.filter(&with(&["--stats"])).output().unwrap();
    assert_eq!(stats.stderr, b"seen: read 0, new 0, changed 0, duplicates 0\n");
}

#[test]
fn a_filter_that_has_run_without_versions_sends_nothing_again_when_they_are_added() {
    let place = Place::new();
    let lines = [line("a", "1"), line("b", "2")].concat();
    assert_eq!(place.passed(&["--key", "id"], &lines), lines.as_bytes());
    for _ in 0..2 {
        assert_eq!(place.passed(&BY_VERSION, &lines), b"");
    }
    assert_eq!(place.passed(&BY_VERSION, line("a", "2")), line("a", "2").as_bytes());
}

#[test]
fn a_line_without_the_version_is_known_by_its_id() {
    let place = Place::new();
    let bare = "{\"id\":\"a\"}\n";
    assert_eq!(place.passed(&BY_VERSION, bare), bare.as_bytes());
    assert_eq!(place.passed(&BY_VERSION, bare), b"");
    assert_eq!(place.passed(&BY_VERSION, line("a", "1")), b"");
    assert_eq!(place.passed(&BY_VERSION, bare), b"");
    assert_eq!(place.passed(&BY_VERSION, line("a", "2")), line("a", "2").as_bytes());
    let strict = [line("b", "1"), bare.to_owned()].concat();
    let output = place.told_with_input(&with(&["--strict"]), "");
    assert_eq!(output.status, Some(2), "a filter is meant");
    let told = place.told_with_input(&[&["filter"][..], &with(&["--strict"])].concat(), strict);
    told.assert(2, &["line 2: the key \"at\" is missing"]);
}

#[test]
fn a_change_after_a_line_without_a_version_is_not_lost_in_a_batch() {
    let place = Place::new();
    let (bare, one, two) = ("{\"id\":\"a\"}\n".to_owned(), line("a", "1"), line("a", "2"));
    let lines = [&*bare, &one, &two, &bare, &two].concat();
    let expected = [&*bare, &two].concat();
    for more in [&["--dry-run"][..], &[]] {
        assert_eq!(place.passed(&with(more), &lines), expected.as_bytes(), "{more:?}");
    }
}

#[test]
fn a_dry_run_tells_what_would_pass() {
    let place = Place::new();
    let lines = [line("a", "1"), line("b", "1")].concat();
    assert_eq!(place.passed(&BY_VERSION, &lines), lines.as_bytes());
    let next = [line("a", "2"), line("b", "1"), line("a", "1"), line("c", "1")];
    for more in [&["--dry-run"][..], &[]] {
        let expected = [line("a", "2"), line("a", "1"), line("c", "1")].concat();
        assert_eq!(place.passed(&with(more), next.concat()), expected.as_bytes(), "{more:?}");
    }
}

#[test]
fn an_option_of_versions_without_a_key_is_refused() {
    let place = Place::new();
    for option in ["--version", "--tell"] {
        let told = place.told(&["filter", option, "at"]);
        told.assert(2, &["--key"]);
    }
}

#[test]
fn another_filters_claim_of_a_change_is_waited_for() {
    let place = Place::new();
    assert_eq!(place.passed(&BY_VERSION, line("a", "1")), line("a", "1").as_bytes());
    let store = place.store();
    let minute = Duration::from_secs(60);
    let Claim::Granted(lease) = store.claim(Item::new("a").version("2"), minute).unwrap() else {
        panic!("not granted")
    };
    let filter = place.filter(&BY_VERSION).stdin(std::process::Stdio::piped()).spawn();
    let mut filter = filter.unwrap();
    filter.stdin.take().unwrap().write_all(line("a", "2").as_bytes()).unwrap();
    wait_until("it is refused", || {
        let reader = seen_store::Reader::open(place.db()).unwrap();
        let change = reader.get("a").unwrap().unwrap().change;
        change.is_some_and(|change| change.state == State::InFlight)
    });
    drop(lease); // The other one fails.
    let output = filter.wait_with_output().unwrap();
    assert_eq!(output.stdout, line("a", "2").as_bytes());
}

#[test]
fn an_id_is_marked_checked_claimed_and_shown_by_its_version() {
    let place = Place::new();
    place.printed(&["mark", "--version", "1", "a"]);
    place.told(&["check", "--version", "1", "a"]).assert(0, &[]);
    place.told(&["check", "--version", "2", "a"]).assert(1, &[]);
    place.told(&["check", "a"]).assert(0, &[]);
    place.told(&["claim", "--version", "1", "a"]).assert(1, &["seen before"]);
    let token = place.printed(&["claim", "--version", "2", "a"]);
    let shown = place.printed(&["show", "a"]);
    assert!(shown.contains("\n  digest      version:"), "{shown}");
    assert!(shown.contains("\n  a change of it:\n    state       in-flight\n"), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&place.printed(&["show", "--json", "a"])).unwrap();
    assert_eq!(json["change"]["state"], "in-flight");
    place.printed(&["confirm", "a", "--token", token.trim()]);
    place.told(&["check", "--version", "2", "a"]).assert(0, &[]);
    place.printed(&["run", "--id", "a", "--version", "3", "--", "sh", "-c", "echo >>trace"]);
    place.told(&["run", "--id", "a", "--version", "3", "--", "sh", "-c", "echo >>trace"]);
    assert_eq!(place.text("trace"), "\n");
}

#[test]
fn an_export_carries_versions_changes_and_what_is_kept() {
    let place = Place::new();
    place.printed(&["mark", "--version", "1", "--ttl", "1ms", "--retention", "1h", "kept"]);
    wait_until("it expires", || place.entry("kept").unwrap().state == State::Expired);
    place.printed(&["mark", "--version", "1", "a"]);
    place.printed(&["claim", "--version", "2", "a"]);
    place.printed(&["mark", "--ttl", "1ms", "--retention", "1h", "again"]);
    wait_until("it expires", || place.entry("again").unwrap().state == State::Expired);
    place.printed(&["mark", "--ttl", "1h", "again"]);
    let shown = place.printed(&["show", "again"]);
    assert!(shown.contains("\n  before      1 earlier window, 0 duplicates; since 20"), "{shown}");
    let sorted = |text: String| -> Vec<String> {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for format in ["jsonl", "csv"] {
        let exported = place.printed(&["export", "--format", format]);
        let other = Place::new();
        let file = other.file(&format!("export.{format}"), &exported);
        other.printed(&["import", file.to_str().unwrap()]);
        let again = other.printed(&["export", "--format", format]);
        assert_eq!(sorted(again), sorted(exported), "{format}");
        let back: BTreeMap<_, _> = ["kept", "a", "again"].map(|id| (id, other.entry(id))).into();
        for (id, entry) in back {
            let known = place.entry(id).unwrap();
            let entry = entry.unwrap();
            assert_eq!((entry.digest, entry.history), (known.digest, known.history), "{id}");
            assert_eq!((entry.state, entry.change.is_some()), (known.state, id == "a"), "{id}");
        }
    }
}

#[test]
fn a_retention_that_is_too_short_is_refused_with_a_remedy() {
    let place = Place::new();
    let told = place.told(&["mark", "--ttl", "1h", "--retention", "1m", "a"]);
    told.assert(2, &["the retention of 60s is shorter than the TTL of 3600s", "give a longer"]);
}

#[test]
fn a_real_feed_passes_each_change_once() {
    let Some(feed) = std::env::var_os("SEEN_REAL_FEED").filter(|path| !path.is_empty()) else {
        // Past the test harness, which hides what a passing test prints.
        let skipped = "SKIPPED: a_real_feed_passes_each_change_once: SEEN_REAL_FEED is not set\n";
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    };
    let mut lines = String::new();
    let compressed = fs::File::open(feed).unwrap();
    flate2::read::GzDecoder::new(compressed).read_to_string(&mut lines).unwrap();
    let place = Place::new();
    let options = ["--key", "id", "--version", "updated"];
    let told = [&options[..], &["--tell", "why"]].concat();
    let passed = String::from_utf8(place.passed(&told, &lines)).unwrap();
    let count = |why: &str| passed.matches(&format!(",\"why\":\"{why}\"}}\n")).count();
    assert_eq!((count("new"), count("changed")), (402, 3_102));
    let mut latest = BTreeMap::new();
    for line in lines.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        latest.insert(object["id"].to_string(), line);
    }
    let latest: Vec<_> = latest.into_values().collect();
    let latest = latest.join("\n") + "\n";
    assert_eq!(place.passed(&options, latest), b"");
}
