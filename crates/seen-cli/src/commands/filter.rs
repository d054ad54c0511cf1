//! `seen filter`: a `uniq` that remembers across runs.
//!
//! Owns the steps of a batch: find the ids of its lines, claim those that are new, write and flush them, confirm.
//! What always holds: a line is confirmed only after it was flushed, so after a crash at any point the next run
//! prints it; lines are written in their order; no claim is held during a wait for another filter's line, so two
//! filters never wait for each other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, StdoutLock, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use seen_store::{Config, Item, Ttl, Window};
use serde_json::json;

use crate::Result;
use crate::args::database::Database;
use crate::args::duration::{parse_duration, parse_lease, parse_ttl};
use crate::args::key::{Key, Naming, NoKey, id_of};
use crate::args::retention::Retention;
use crate::input::lines::Lines;
use crate::output::message;
use crate::output::progress::{self, Progress};
use crate::output::words::counted;
use crate::work::memory::{Decision, Held, Memory};
use crate::work::renewer::Renewer;

/// How many lines without an id get a warning of their own.
const WARNINGS: u64 = 10;

/// The pause between two checks of a line that another filter has claimed.
const WAIT: Duration = Duration::from_millis(10);

/// Print each line not seen before, and remember it
///
/// A persistent `uniq`: prints, unchanged and in order, each input line that no earlier run printed,
/// and remembers it for the time to live. A typed line is answered at once; large input is processed in
/// large batches. An empty line is printed and not remembered. Statuses: 0 done, 2 an error.
///
/// Several filters may use one store at the same time: one of them prints a line, as long as none of
/// them dies or outlives its lease. A line is claimed, printed, and then remembered. After a crash at any
/// point, the next run prints the lines that were claimed and not remembered; some of them may have been
/// printed already. If another filter has claimed a line, this one waits until the other remembers it
/// or its lease ends. (With --version, each prints what changed since the line that came before, whichever of them
/// printed that.)
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Arguments {
    /// Files to read; standard input without any, or for `-`.
    ///
    /// The files are read one after the other. A last line without a newline is printed without one,
    /// unless another line follows it from the next file.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    database: Database,

    /// How long a line is remembered: 90s, 36h, 7d, never. A day has 24 hours.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,

    /// When the time to live of a line begins: when it is first printed (fixed), or each time that it
    /// comes (sliding). With sliding, a line that keeps coming is not printed again.
    #[arg(long, value_name = "KIND", default_value = "fixed")]
    window: Span,

    /// In a sliding window, print a line again this long after it was printed, however often it comes: 90s, 36h,
    /// 7d. Default: never.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,

    /// How long this filter's claim of a batch of lines lasts. It is renewed while the output blocks. If the
    /// filter dies, others print its lines after this time.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_lease)]
    lease: Duration,

    /// Each line is a JSON object: remember this field of it instead of the line.
    ///
    /// Several fields, with commas between, are remembered together. A dotted path leads into objects
    /// and arrays (`user.id`, `tags.0`), unless the object has a name with these dots in it. A line
    /// that is not a JSON object, or in which a field is missing, null or an empty string, is taken as
    /// new every time, with a warning. Use one scope for each choice of fields.
    #[arg(long, value_name = "FIELD[,FIELD...]")]
    key: Option<Key>,

    /// With --key: print a line also when its id was printed before and this field of it has changed.
    ///
    /// Only the latest version of an id is remembered, so a line that goes back to an earlier one has changed again.
    /// An id that was remembered without a version takes the first one that comes as its own, and is not printed for
    /// it. A line without the field has no version: it is printed when its id is new. Several fields, and paths, as
    /// for --key.
    #[arg(long, value_name = "FIELD[,FIELD...]", requires = "key")]
    version: Option<Key>,

    /// With --key: add a member of this name to each printed object, last, that says why it is printed: "new" or
    /// "changed".
    #[arg(long, value_name = "NAME", requires = "key")]
    tell: Option<String>,

    #[command(flatten)]
    retention: Retention,
    /// Make the id of the names and values of the fields, as `--field` of the other commands does
    ///
    /// Then the order of the fields in --key does not matter, and the ids are other ones than without --named.
    #[arg(long, requires = "key")]
    named: bool,

    /// Lines end with a NUL character instead of a newline, in the input and in the output.
    ///
    /// For file names, as `find -print0` prints and `xargs -0` reads them.
    #[arg(short = '0', long)]
    null: bool,

    /// End when N lines have been printed.
    ///
    /// The rest of the input is neither printed nor remembered: a later run finds it new. Keeps a bot
    /// from flooding a channel.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Print the duplicates instead of the new lines. New lines are remembered.
    #[arg(long)]
    invert: bool,

    /// Remember nothing, and neither create nor change the store.
    #[arg(long)]
    dry_run: bool,

    /// End with status 2 at the first line in which --key finds no id, or --version no version.
    ///
    /// The lines before it are printed and remembered. It and the lines after it are not.
    #[arg(long)]
    strict: bool,

    /// When done, print to standard error how many lines were read, were new and were duplicates.
    ///
    /// Empty lines and lines without an id count as new.
    #[arg(long)]
    stats: bool,
}

/// When the time to live of a line begins.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Span {
    /// When the line is first printed.
    Fixed,
    /// Each time that the line comes.
    Sliding,
}

impl Arguments {
    fn window(&self) -> Result<Window> {
        match (self.window, self.max_age) {
            (Span::Sliding, max_age) => Ok(Window::Sliding { max_age }),
            (Span::Fixed, None) => Ok(Window::Fixed),
            (Span::Fixed, Some(_)) => {
                Err("--max-age is for a sliding window; add --window sliding, or use --ttl".into())
            }
        }
    }

    fn separator(&self) -> u8 {
        if self.null { 0 } else { b'\n' }
    }

    fn inputs(&self) -> &[PathBuf] {
        static STANDARD_INPUT: LazyLock<[PathBuf; 1]> = LazyLock::new(|| [PathBuf::from("-")]);
        if self.files.is_empty() { &*STANDARD_INPUT } else { &self.files }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let window = arguments.window()?;
    let memory = if arguments.dry_run {
        Memory::dry(&arguments.database, arguments.ttl)?
    } else {
        let config = Config::default().ttl(arguments.ttl).window(window);
        let config = arguments.retention.put_into(config);
        Memory::lasting(&arguments.database, config, arguments.lease)?
    };
    let mut filter = Filter {
        arguments,
        renewer: Renewer::start(&memory)?,
        memory,
        output: Output::new(arguments.separator(), arguments.tell.clone()),
        counts: Counts::default(),
        progress: if io::stdout().is_terminal() {
            Progress::hidden() // Its lines would run into the bar.
        } else {
            progress::of_files(arguments.inputs())
        },
    };
    let done = filter.all_files();
    let counts = filter.counts;
    filter.progress.finish();
    drop(filter.renewer);
    filter.memory.close();
    if counts.lost > 0 {
        log::warn!(
            "{} lines were printed after their lease had run out, and perhaps by another filter too; \
             a longer --lease avoids this",
            counts.lost
        );
    }
    if counts.withheld > 0 {
        log::warn!(
            "{} not printed: their ids were given up, or are held for a worker that vanished; `seen resolve` decides",
            counted(counts.withheld, "line")
        );
    }
    if counts.without_id > WARNINGS {
        log::warn!("{} more lines without an id, taken as new", counts.without_id - WARNINGS);
    }
    done?;
    if arguments.stats {
        let Counts { read, changed, duplicates, withheld, .. } = counts;
        let new = read - changed - duplicates - withheld;
        let changed = match arguments.version {
            Some(_) => format!(", changed {changed}"),
            None => String::new(),
        };
        message::tell(&format!("read {read}, new {new}{changed}, duplicates {duplicates}"));
    }
    Ok(ExitCode::SUCCESS)
}

struct Filter<'a> {
    arguments: &'a Arguments,
    memory: Memory,
    renewer: Renewer,
    output: Output,
    counts: Counts,
    progress: Progress,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    read: u64,
    printed: u64,
    changed: u64,
    duplicates: u64,
    without_id: u64,
    lost: u64,
    withheld: u64,
}

/// The id and the version of a line, if it has them.
enum Name<'a> {
    Item(Item<'a>),
    /// An empty line is always new.
    Empty,
    /// A line without an id is always new.
    None(NoKey),
}

impl<'a> Name<'a> {
    fn item(&self) -> Option<&Item<'a>> {
        if let Self::Item(item) = self { Some(item) } else { None }
    }
}

/// Some lines of an input, and the name of the input for messages.
struct Batch<'a> {
    input: &'a str,
    lines_before: u64,
    lines: &'a [&'a [u8]],
}

impl Batch<'_> {
    fn place(&self, line: usize) -> String {
        format!("{}: line {}", self.input, self.lines_before + line as u64 + 1)
    }
}

impl Filter<'_> {
    /// Ends early and without an error when the reader of the output has closed it.
    fn all_files(&mut self) -> Result<()> {
        for path in self.arguments.inputs() {
            let flow = if path == Path::new("-") {
                self.file("standard input", io::stdin().lock())?
            } else {
                let name = path.to_string_lossy();
                let file = File::open(path).map_err(|e| format!("cannot open {name}: {e}"))?;
                self.file(&name, file)?
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &str, input: impl Read) -> Result<ControlFlow<()>> {
        let mut lines = Lines::new(input, self.arguments.separator());
        let mut lines_before = 0;
        while let Some(lines) =
            lines.next_batch().map_err(|e| format!("cannot read {name}: {e}"))?
        {
            let batch = Batch { input: name, lines_before, lines: &lines };
            if self.batch(&batch)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            lines_before += lines.len() as u64;
            self.progress.add(lines.iter().map(|line| line.len() as u64).sum());
        }
        Ok(ControlFlow::Continue(()))
    }

    fn batch(&mut self, batch: &Batch<'_>) -> Result<ControlFlow<()>> {
        let names: Vec<Name<'_>> = batch.lines.iter().map(|line| self.name(line)).collect();
        // With --strict, the lines before such a line are handled first.
        let end = names
            .iter()
            .position(|name| self.arguments.strict && matches!(name, Name::None(_)))
            .unwrap_or(names.len());
        let mut done = 0;
        while done < end {
            let reach = end.min(done + before_a_change(&names[done..end]));
            let reach = done + self.within_limit(&names[done..reach])?;
            let decided = self.decide(&names[done..reach])?;
            self.warn(batch, &names, done..done + decided.prints.len());
            self.renewer.hold(decided.held);
            let written = self.output.write(&batch.lines[done..], &decided.prints);
            let held = self.renewer.give_back();
            let printed = match written {
                Ok(printed) => printed,
                Err(e) => return self.give_up(held, &e),
            };
            self.counts.lost += self.memory.confirm(held)? as u64;
            self.counts.printed += printed;
            if self.left() == Some(0) {
                return Ok(ControlFlow::Break(()));
            }
            done += decided.prints.len();
            if let Some(item) = names.get(done).filter(|_| decided.waits).and_then(Name::item) {
                thread::sleep(WAIT);
                while self.memory.is_in_flight(item.id())? {
                    thread::sleep(WAIT);
                }
            }
        }
        match names.get(end) {
            Some(Name::None(why)) => Err(format!("{}: {why}", batch.place(end)).into()),
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    /// Returns how many lines may still be printed.
    fn left(&self) -> Option<u64> {
        self.arguments.limit.map(|limit| limit.saturating_sub(self.counts.printed))
    }

    /// Returns how many of these lines can be decided on before more of them are new than may be printed. A line
    /// that will not be printed must not be claimed.
    fn within_limit(&self, names: &[Name<'_>]) -> Result<usize> {
        let Some(left) = self.left().and_then(|left| usize::try_from(left).ok()) else {
            return Ok(names.len());
        };
        if self.arguments.invert {
            return Ok(left.min(names.len()));
        }
        let mut new = 0;
        for (reach, name) in names.iter().enumerate() {
            if new == left {
                return Ok(reach);
            }
            let seen = name.item().map(|item| self.memory.is_seen(item)).transpose()?;
            new += usize::from(seen != Some(true));
        }
        Ok(names.len())
    }

    /// The output is closed or broken. Which lines arrived is unknown, so all are released for a later run.
    fn give_up(&self, held: Vec<Held>, why: &io::Error) -> Result<ControlFlow<()>> {
        self.memory.release(held)?;
        if why.kind() == io::ErrorKind::BrokenPipe {
            return Ok(ControlFlow::Break(()));
        }
        Err(format!("cannot write to standard output: {why}; the next run prints the batch again")
            .into())
    }

    fn name<'l>(&self, line: &'l [u8]) -> Name<'l> {
        let line = line.strip_suffix(&[self.arguments.separator()]).unwrap_or(line);
        if line.is_empty() {
            return Name::Empty;
        }
        let Arguments { key: Some(key), named, version, strict, .. } = self.arguments else {
            return Name::Item(id_of(line).into());
        };
        let naming = Naming { key, named: *named, version: version.as_ref(), strict: *strict };
        naming.item(line).map_or_else(Name::None, Name::Item)
    }

    fn warn(&mut self, batch: &Batch<'_>, names: &[Name<'_>], lines: Range<usize>) {
        for line in lines {
            let Name::None(why) = &names[line] else { continue };
            self.counts.without_id += 1;
            if self.counts.without_id <= WARNINGS {
                log::warn!("{}: {why}; taken as new", batch.place(line));
            }
        }
    }

    /// Decides on lines up to the first one that another filter has claimed.
    fn decide(&mut self, names: &[Name<'_>]) -> Result<Decided> {
        let known: Vec<&Item<'_>> = names.iter().filter_map(Name::item).collect();
        let mut decisions = self.memory.decide(&known)?.into_iter();
        let mut decided =
            Decided { prints: Vec::with_capacity(names.len()), held: Vec::new(), waits: false };
        let mut left = self.left();
        for name in names {
            if left == Some(0) {
                break; // A line expired since `within_limit` looked.
            }
            let decision = match name.item() {
                None => Decision::New(None),
                Some(_) => decisions.next().expect("a decision for each id"),
            };
            match decision {
                Decision::New(held) => {
                    decided.held.extend(held);
                    decided.prints.push((!self.arguments.invert).then_some("new"));
                }
                Decision::Changed(held) => {
                    self.counts.changed += 1;
                    decided.held.extend(held);
                    decided.prints.push((!self.arguments.invert).then_some("changed"));
                }
                Decision::Duplicate => {
                    self.counts.duplicates += 1;
                    decided.prints.push(self.arguments.invert.then_some("duplicate"));
                }
                Decision::Withheld => {
                    self.counts.withheld += 1;
                    decided.prints.push(None);
                }
                Decision::InFlight => {
                    decided.waits = true;
                    break;
                }
            }
            if name.item().is_none() {
                // It may be no object: it is printed as it is.
                decided.prints.last_mut().into_iter().flatten().for_each(|why| *why = "");
            }
            let printed = decided.prints.last().is_some_and(Option::is_some);
            left = left.map(|left| left - u64::from(printed));
        }
        self.counts.read += decided.prints.len() as u64;
        // Claims of later lines must not be held during a wait: the other filter may be waiting for one of
        // them.
        let later = decisions.filter_map(|decision| match decision {
            Decision::New(held) | Decision::Changed(held) => held,
            _ => None,
        });
        self.memory.release(later.collect())?;
        Ok(decided)
    }
}

/// The decisions on some lines.
struct Decided {
    /// For each line, whether it is printed, and why.
    prints: Vec<Option<&'static str>>,
    /// The claims of the lines that are new or changed.
    held: Vec<Held>,
    /// Whether another filter has claimed the next line.
    waits: bool,
}

/// Returns how many of these lines come before the first one that brings a version of an id of an earlier one, which had
/// another or none: the earlier one must be printed and confirmed first.
fn before_a_change(names: &[Name<'_>]) -> usize {
    let mut versions = HashMap::new();
    let changes = |name: &Name<'_>| {
        let Some(item) = name.item() else { return false };
        let known = *versions.entry(item.id().to_vec()).or_insert(item.digest());
        item.digest().is_some() && known != item.digest()
    };
    names.iter().position(changes).unwrap_or(names.len())
}

/// Standard output.
struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
    separator: u8,
    /// Whether the last line written came from the end of a file and had no separator.
    separator_due: bool,
    /// The name of the member that says why a line is printed.
    tell: Option<String>,
}

impl Output {
    fn new(separator: u8, tell: Option<String>) -> Self {
        let stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        Self { stdout, separator, separator_due: false, tell }
    }

    /// Writes the lines that are to be printed and flushes them. Returns their number.
    fn write(&mut self, lines: &[&[u8]], prints: &[Option<&'static str>]) -> io::Result<u64> {
        let mut printed = 0;
        for (line, print) in lines.iter().zip(prints) {
            let Some(why) = print else { continue };
            // Without this, two lines from two files would become one.
            let complete = line.ends_with(&[self.separator]);
            if std::mem::replace(&mut self.separator_due, !complete) {
                self.stdout.write_all(&[self.separator])?;
            }
            match &self.tell {
                Some(name) if !why.is_empty() => {
                    self.stdout.write_all(&with_member(line, name, why))?;
                }
                _ => self.stdout.write_all(line)?,
            }
            printed += 1;
        }
        self.stdout.flush()?;
        Ok(printed)
    }
}

/// Returns the line of a JSON object with one more member, as its last: of two members of one name, readers take the
/// last.
fn with_member(line: &[u8], name: &str, value: &str) -> Vec<u8> {
    let end = line.iter().rposition(|byte| *byte == b'}').unwrap_or(line.len());
    let (members, end) = line.split_at(end);
    let is_empty = members.trim_ascii_end().ends_with(b"{") && members.trim_ascii().len() == 1;
    let comma = if is_empty { "" } else { "," };
    let member = format!("{comma}{}:{}", json!(name), json!(value));
    [members, member.as_bytes(), end].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_added_to_any_object_and_the_rest_of_the_line_stays() {
        for (line, told) in [
            ("{}", r#"{"w\"y":"new"}"#),
            (" { } \n", " { \"w\\\"y\":\"new\"} \n"),
            (r#"{"a":"}"}"#, r#"{"a":"}","w\"y":"new"}"#),
            ("{\"a\": {} }\r\n", "{\"a\": {} ,\"w\\\"y\":\"new\"}\r\n"),
            (r#"{"a":"{"}"#, r#"{"a":"{","w\"y":"new"}"#),
        ] {
            let with = String::from_utf8(with_member(line.as_bytes(), "w\"y", "new")).unwrap();
            assert_eq!(with, told);
            serde_json::from_str::<serde_json::Value>(&with).unwrap();
        }
    }
}
