//! The ledger: an append-only file in which all children of a phase write down what was acknowledged to them.
//!
//! Owns the form of its lines. What always holds: a line is written by one call of `write(2)` in append mode,
//! after the store has answered, so the lines of all processes have one order. A line tells where the ledger
//! ended when its call began: what lies between there and the line was acknowledged while the call waited. A
//! line that a kill has cut off does not count, and spoils no other: each begins on a line of its own and
//! ends with a mark. Knows nothing of stores.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

/// The last word of a line that is whole.
const WHOLE: &str = " .";

/// What was acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// A single mark of an id that never expires.
    Mark { id: String, answer: Answer },
    /// A commit of many ids that never expire: `count` new ones, from `prefix/0` on, and with them ids that
    /// other children mark too, as far as these were new.
    Batch { prefix: String, count: u64, won: Vec<String> },
    /// The same number of ids by an import, in the scope `imported`.
    Import { prefix: String, count: u64 },
    /// A claim was granted.
    Granted { id: String, token: String },
    /// A claim was confirmed by its token.
    Confirmed { id: String, token: String },
    /// A copy of the file holds at least what was acknowledged before its call began.
    Backup { path: String },
    /// Something else was done of which only the time matters.
    Done { what: String },
    /// How often the store has built its index anew since it was opened.
    Rebuilds { count: u64 },
    /// A call failed.
    Failed { call: String, kind: String },
    /// An answer that breaks the contract, in words.
    Wrong { text: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    New,
    Duplicate,
    /// Nothing was marked: the file was busy for as long as the store waits.
    Busy,
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) child: String,
    /// Where the ledger ended when the call began.
    pub(crate) begun: u64,
    /// Where the line itself begins.
    pub(crate) at: u64,
    pub(crate) waited: Duration,
    pub(crate) event: Event,
}

/// See the module's header.
pub(crate) struct Ledger {
    file: File,
    child: String,
}

/// When a call began.
pub(crate) struct Begun {
    at: u64,
    clock: std::time::Instant,
}

impl Ledger {
    pub(crate) fn open(path: &Path, child: &str) -> Self {
        let file = OpenOptions::new().create(true).append(true).read(true).open(path).unwrap();
        Self { file, child: child.to_owned() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }

    /// Comes right before a call.
    pub(crate) fn begin(&self) -> Begun {
        Begun { at: self.bytes(), clock: std::time::Instant::now() }
    }

    /// Comes right after it.
    pub(crate) fn write(&self, begun: &Begun, event: &Event) {
        let waited = begun.clock.elapsed().as_micros();
        let words = words(event);
        let line = format!("\n{} {} {waited} {words}{WHOLE}\n", self.child, begun.at);
        assert_eq!((&self.file).write(line.as_bytes()).unwrap(), line.len());
    }

    /// The lines from `from` on, and where to read on.
    pub(crate) fn read(&self, from: u64) -> (Vec<Line>, u64) {
        let mut bytes = vec![0; usize::try_from(self.bytes().saturating_sub(from)).unwrap()];
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read_at(&mut bytes[read..], from + read as u64).unwrap() {
                0 => break,
                more => read += more,
            }
        }
        // What follows the last line break may be half a line.
        let end = bytes[..read].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let (mut lines, mut at) = (Vec::new(), from);
        for text in bytes[..end].split_inclusive(|byte| *byte == b'\n') {
            let text_at = at;
            at += text.len() as u64;
            lines.extend(parsed(&String::from_utf8_lossy(text), text_at));
        }
        (lines, at)
    }

    /// The lines of the last `bytes`.
    pub(crate) fn newest(&self, bytes: u64) -> Vec<Line> {
        self.read(self.bytes().saturating_sub(bytes)).0
    }
}

/// The event in words. No id, prefix or path of the tests has a space in it; a text is the rest of its line.
fn words(event: &Event) -> String {
    match event {
        Event::Mark { id, answer } => format!("mark {answer:?} {id}"),
        Event::Batch { prefix, count, won } => format!("batch {prefix} {count} {}", won.join(" ")),
        Event::Import { prefix, count } => format!("import {prefix} {count}"),
        Event::Granted { id, token } => format!("granted {id} {token}"),
        Event::Confirmed { id, token } => format!("confirmed {id} {token}"),
        Event::Backup { path } => format!("backup {path}"),
        Event::Done { what } => format!("done {what}"),
        Event::Rebuilds { count } => format!("rebuilds {count}"),
        Event::Failed { call, kind } => format!("failed {call} {kind}"),
        Event::Wrong { text } => format!("wrong {}", text.replace('\n', " ")),
    }
}

fn parsed(text: &str, at: u64) -> Option<Line> {
    let text = text.trim_end_matches('\n').strip_suffix(WHOLE)?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [child, begun, waited, event @ ..] = &words[..] else { return None };
    let own = |word: &&str| (*word).to_owned();
    let event = match event {
        ["mark", answer, id] => {
            let answers = [Answer::New, Answer::Duplicate, Answer::Busy];
            let answer = answers.into_iter().find(|known| format!("{known:?}") == *answer)?;
            Event::Mark { id: own(id), answer }
        }
        ["batch", prefix, count, won @ ..] => Event::Batch {
            prefix: own(prefix),
            count: count.parse().ok()?,
            won: won.iter().map(own).collect(),
        },
        ["import", prefix, count] => {
            Event::Import { prefix: own(prefix), count: count.parse().ok()? }
        }
        ["granted", id, token] => Event::Granted { id: own(id), token: own(token) },
        ["confirmed", id, token] => Event::Confirmed { id: own(id), token: own(token) },
        ["backup", path] => Event::Backup { path: own(path) },
        ["done", what] => Event::Done { what: own(what) },
        ["rebuilds", count] => Event::Rebuilds { count: count.parse().ok()? },
        ["failed", call, kind] => Event::Failed { call: own(call), kind: own(kind) },
        ["wrong", text @ ..] => Event::Wrong { text: text.join(" ") },
        _ => return None,
    };
    let waited = Duration::from_micros(waited.parse().ok()?);
    Some(Line { child: own(child), begun: begun.parse().ok()?, at, waited, event })
}

#[test]
fn a_line_is_read_as_it_was_written_and_one_that_was_cut_off_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger"), "a-1");
    let text = |text: &str| text.to_owned();
    let events = [
        Event::Mark { id: text("a"), answer: Answer::New },
        Event::Batch { prefix: text("b"), count: 7, won: vec![text("c"), text("d")] },
        Event::Batch { prefix: text("b"), count: 7, won: Vec::new() },
        Event::Import { prefix: text("e"), count: 8 },
        Event::Granted { id: text("f"), token: text("00ff") },
        Event::Confirmed { id: text("f"), token: text("00ff") },
        Event::Backup { path: text("/copy.db") },
        Event::Done { what: text("purge") },
        Event::Rebuilds { count: 3 },
        Event::Failed { call: text("mark"), kind: text("Busy") },
        Event::Wrong { text: text("it says so") },
    ];
    for event in &events {
        ledger.write(&ledger.begin(), event);
        (&ledger.file).write_all(b"\na-2 0 0 mark New cut-of").unwrap();
    }
    let (lines, end) = ledger.read(0);
    assert_eq!(lines.iter().map(|line| line.event.clone()).collect::<Vec<_>>(), events);
    assert!(lines.iter().all(|line| line.child == "a-1" && line.begun <= line.at));
    ledger.write(&ledger.begin(), &events[0]);
    let (more, _) = ledger.read(end);
    assert_eq!(more.len(), 1, "{more:?}");
}
