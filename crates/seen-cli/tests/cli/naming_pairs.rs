//! What one command remembered, every other knows: all pairs of commands, with generated lines and options.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Output;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::{Place, run};

/// Options and lines, each with an id of its own by these options.
type Case = (Vec<&'static str>, Vec<Vec<u8>>);

const OPTIONS: [&str; 9] = [
    "",
    "--key id",
    "--key id,a --named",
    "--key /a/b --or-key id",
    "--match [0-9]+",
    "--match ([a-z]*)(.)",
    "-f 1 -s 1",
    "-w 5",
    "--key id --normalize url1",
];

/// Pieces of lines that make trouble.
const PIECES: [&str; 24] = [
    "f1:",
    "f1:line:",
    "1:a",
    "a",
    "b c",
    " ",
    "\t",
    "17",
    "\u{feff}",
    "\r",
    "é",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    ":",
    ",",
    "-",
    "{\"id\":",
    "\"id\":1",
    "\"a\":{\"b\":2}",
    "http://A/",
    "?utm_source=x#c",
];

fn line() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(select(&PIECES[..]), 1..6).prop_map(|it| it.concat().into());
    let bytes = prop::collection::vec(
        any::<u8>().prop_filter("not in an argument's line", |byte| !matches!(byte, 0 | b'\n')),
        1..20,
    );
    let id = prop_oneof!["[a-z]{1,3}", "f1:[a-z0-9:]{0,5}", "https?://[A-Z]\\.org/[a-z]?/?"];
    let object = (id, any::<bool>(), 0..3_u8).prop_map(|(id, deep, end)| {
        let a = if deep { format!("{{\"b\": {id:?}}}") } else { "NaN".to_owned() };
        let end = ["}", "} \r", ", \"text\": \"\\ud83d"][usize::from(end)];
        format!("{{\"a\": {a}, \"id\": {id:?}{end}").into_bytes()
    });
    let long = Just([b"f1:".repeat(9), vec![b'l'; 70_000]].concat());
    prop_oneof![6 => pieces, 2 => bytes, 6 => object, 1 => long]
}

fn case() -> impl Strategy<Value = Case> {
    let options = select(&OPTIONS[..]).prop_map(|it| it.split_ascii_whitespace().collect());
    (options, prop::collection::vec(line(), 12..16))
}

/// One command on one scope of a store.
struct Commands<'a> {
    place: &'a Place,
    options: &'a [&'static str],
    scope: String,
}

impl Commands<'_> {
    fn run(&self, command: &[&str], lines: &[&[u8]], input: &[u8]) -> Output {
        let mut seen = self.place.seen(command);
        seen.args(["-q", "--scope", &self.scope]).args(self.options);
        seen.args(lines.iter().map(|line| OsStr::from_bytes(line)));
        run(&mut seen, input)
    }

    /// `seen run` has the id before the command.
    fn run_once(&self, line: &[u8]) -> Output {
        let mut seen = self.place.seen(&["run", "-q", "--scope", &self.scope]);
        seen.args(self.options).arg([b"--id=", line].concat().as_os()).args(["--", "echo", "ran"]);
        run(&mut seen, b"")
    }

    fn remember(&self, how: &str, lines: &[&[u8]]) {
        let input = lines.join(&b'\n');
        let outputs: Vec<_> = match how {
            "filter" => vec![self.run(&["filter"], &[], &input)],
            "mark -" => vec![self.run(&["mark"], &[b"-"], &input)],
            "mark" => vec![self.run(&["mark"], &[&[&b"--"[..]], lines].concat(), b"")],
            "import" => vec![self.run(&["import", "--format", "ids"], &[b"-"], &input)],
            "claim" => lines.iter().flat_map(|line| self.claim_and_confirm(line)).collect(),
            _ => lines.iter().map(|line| self.run_once(line)).collect(),
        };
        for output in outputs {
            assert!(output.status.success(), "{how}: {output:?}");
        }
    }

    fn claim_and_confirm(&self, line: &[u8]) -> [Output; 2] {
        let claimed = self.run(&["claim"], &[b"--", line], b"");
        let token = String::from_utf8(claimed.stdout.clone()).unwrap();
        let confirmed = self.run(&["confirm", "--token", token.trim_end()], &[b"--", line], b"");
        [claimed, confirmed]
    }

    /// Panics if a command does not know one of the lines.
    fn all_know(&self, how: &str, lines: &[&[u8]]) {
        let input = lines.join(&b'\n');
        let told = |command: &str, output: Output, status: i32| {
            assert!(
                output.status.code() == Some(status),
                "what {how} remembered, {command} does not know, with {:?}: {output:?}",
                self.options
            );
            output
        };
        let filtered = told("filter", self.run(&["filter"], &[], &input), 0);
        assert_eq!(filtered.stdout.escape_ascii().to_string(), "", "{how}: {:?}", self.options);
        told("check -", self.run(&["check"], &[b"-"], &input), 0);
        let arguments = [&[&b"--"[..]], lines].concat();
        told("check", self.run(&["check"], &arguments, b""), 0);
        told("show", self.run(&["show"], &arguments, b""), 0);
        let line = lines[0];
        told("claim", self.run(&["claim"], &[b"--", line], b""), 1);
        assert_eq!(told("run", self.run_once(line), 0).stdout, b"");
        told("forget -", self.run(&["forget"], &[b"-"], &input), 0);
    }
}

trait AsOs {
    fn as_os(&self) -> &OsStr;
}

impl AsOs for Vec<u8> {
    fn as_os(&self) -> &OsStr {
        OsStr::from_bytes(self)
    }
}

/// The lines, without those whose id another one has: a command that is given an id twice may say so.
fn distinct<'l>(place: &Place, options: &[&'static str], lines: &'l [Vec<u8>]) -> Vec<&'l [u8]> {
    let mut ids = std::collections::HashSet::new();
    let scope = "none".to_owned();
    let commands = Commands { place, options, scope };
    // An empty line has no id, `-` is no line as an argument.
    let is_line = |line: &&[u8]| {
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        !text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).is_empty() && *line != b"-"
    };
    let lines: Vec<_> = lines.iter().map(Vec::as_slice).filter(is_line).collect();
    let output = commands.run(&["check", "--json"], &[b"-"], &lines.join(&b'\n'));
    let told: Vec<_> = output.stdout.trim_ascii().split(|byte| *byte == b'\n').collect();
    assert_eq!(told.len(), lines.len(), "{output:?}");
    lines.into_iter().zip(told).filter(|(_, id)| ids.insert(id.to_vec())).map(|it| it.0).collect()
}

#[test]
fn what_one_command_remembered_every_other_knows() {
    let place = Place::new();
    place.printed(&["mark", "--scope", "other", "x"]);
    let scopes = Cell::new(0);
    let config = Config { cases: 9, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&case(), |(options, lines)| {
            let lines = distinct(&place, &options, &lines);
            if lines.is_empty() {
                return Ok(());
            }
            for how in ["filter", "mark -", "mark", "import", "claim", "run"] {
                scopes.set(scopes.get() + 1);
                let scope = format!("{how} {}", scopes.get());
                let commands = Commands { place: &place, options: &options, scope };
                // A process for each line takes a while.
                let most = if matches!(how, "claim" | "run") { 4 } else { lines.len() };
                let lines = &lines[..lines.len().min(most)];
                commands.remember(how, lines);
                commands.all_know(how, lines);
            }
            Ok(())
        })
        .unwrap();
}
