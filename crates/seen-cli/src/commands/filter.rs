//! `seen filter`: a `uniq` that remembers across runs.
//!
//! Owns the steps of a batch: find the ids of its lines, claim those that are new, write and flush them, confirm.
//! What always holds: a line is confirmed only after it was flushed, so after a crash at any point the next run
//! prints it; lines are written in their order; no claim is held during a wait for another filter's line, so two
//! filters never wait for each other. After a signal, what was written is confirmed, and what was not is given back. No
//! line is printed twice because the store cannot be used.

mod decided;

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, ValueEnum};
use seen_store::{Config, Item, Ttl, Window};

use self::decided::{Counts, Kind, before_a_change};
use crate::Result;
use crate::args::database::Database;
use crate::args::duration::{parse_duration, parse_lease, parse_ttl};
use crate::args::line_ends::LineEnds;
use crate::args::place::kind;
use crate::args::retention::Retention;
use crate::naming::key::Key;
use crate::naming::{Name, Nameless, Naming};
use crate::output::lines::LineOutput;
use crate::output::message::{self, with_causes};
use crate::output::progress::{self, Progress};
use crate::output::words::counted;
use crate::work::memory::{Held, Memory};
use crate::work::renewer::Renewer;
use crate::work::stop::{self, Interruptible, Source, StandardOutput, Stop, Waited};

/// The pause between two checks of a line that another filter has claimed.
const WAIT: Duration = Duration::from_millis(10);

/// Print each line not seen before, and remember it
///
/// A persistent `uniq`: prints, unchanged and in order, each input line that no earlier run printed,
/// and remembers it for the time to live. A typed line is answered at once; large input is processed in
/// large batches. An empty line is printed and not remembered.
///
/// A line is remembered as soon as it was written to the pipe, whatever the program that reads the pipe makes of it: if
/// that program fails, the line is not printed again. `seen each` runs a command for each line, and remembers the line
/// when the command has succeeded.
///
/// Several filters may use one store at the same time: one of them prints a line, as long as none of
/// them dies or outlives its lease. A line is claimed, printed, and then remembered. After a crash at any
/// point, the next run prints the lines that were claimed and not remembered; some of them may have been
/// printed already. If another filter has claimed a line, this one waits until the other remembers it
/// or its lease ends. (With --version, each prints what changed since the line that came before, whichever of them
/// printed that.)
///
/// SIGTERM, SIGINT and SIGHUP end it in order: what was written is remembered, the rest is given back, and another filter
/// can print it at once. A second SIGTERM or SIGINT ends it without that.
///
/// Statuses: 0 done; 1 the store could not be used, and lines were printed without it (see --on-error); 2 an error; 128
/// plus its number after a signal. When the reader of its output closes it, the filter ends, and the status is 0.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Files to read; standard input without any, or for `-`.
    ///
    /// The files are read one after the other. One that cannot be read is told of, the others are read, and the
    /// status is 2. Compressed files are refused: give what `zcat`, `zstdcat` or `xzcat` prints. A last line without a
    /// newline is printed without one, unless another line follows it from the next file.
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

    #[command(flatten)]
    naming: Naming,

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

    #[command(flatten)]
    ends: LineEnds,

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

    /// What to do when the store cannot be used: fail, or pass, which prints all lines
    ///
    /// `fail` prints nothing more and ends with status 2. `pass` is for a pipe that guards alerts: the lines are printed
    /// unchanged, as many as --limit allows, from the first one that the store could not decide on. One message says why,
    /// also with -q, and the status is 1. They are not remembered. While the filter runs, it goes on to ask the store.
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    on_error: OnError,

    /// When done, print to standard error how many lines were read, were new and were duplicates.
    ///
    /// Empty lines count as new.
    #[arg(long)]
    stats: bool,
}

/// What to do when the store cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    Fail,
    Pass,
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

    /// Whether lines are printed in spite of this error.
    fn passes(&self, e: &(dyn Error + Send + Sync + 'static)) -> bool {
        self.on_error == OnError::Pass && kind(e).is_some()
    }

    fn inputs(&self) -> &[PathBuf] {
        static STANDARD_INPUT: LazyLock<[PathBuf; 1]> = LazyLock::new(|| [PathBuf::from("-")]);
        if self.files.is_empty() { &*STANDARD_INPUT } else { &self.files }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let window = arguments.window()?;
    let stop = Stop::catch()?;
    let opened = if arguments.dry_run {
        Memory::dry(&arguments.database, arguments.ttl)
    } else {
        let config = Config::default().ttl(arguments.ttl).window(window);
        let config = arguments.retention.put_into(config);
        Memory::lasting(&arguments.database, config, arguments.lease)
    };
    let (memory, broken) = match opened {
        Ok(memory) => (memory, None),
        Err(e) if arguments.passes(&*e) => (Memory::unusable()?, Some(e)),
        Err(e) => return Err(e),
    };
    let output = LineOutput::new(arguments.ends.separator(), arguments.tell.clone())
        .map_err(|e| format!("cannot use standard output: {e}"))?;
    let mut filter = Filter {
        arguments,
        stop: &stop,
        renewer: Renewer::start(&memory)?,
        memory,
        is_open: broken.is_none(),
        output,
        counts: Counts::default(),
        nameless: Nameless::default(),
        progress: if io::stdout().is_terminal() {
            Progress::hidden() // Its lines would run into the bar.
        } else {
            progress::of_files(arguments.inputs())
        },
    };
    if let Some(e) = broken {
        filter.tell_of_failure(&*e);
    }
    let done = filter.all_files();
    let counts = filter.counts;
    filter.progress.finish();
    drop(filter.renewer);
    if counts.store_failures == 0 {
        filter.memory.close();
    } // Otherwise its failure was told of, and closing would fail for the same reason.
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
    filter.nameless.warn();
    let end = done?;
    if arguments.stats {
        let Counts { read, changed, duplicates, withheld, .. } = counts;
        let new = read - changed - duplicates - withheld;
        let changed = match arguments.version {
            Some(_) => format!(", changed {changed}"),
            None => String::new(),
        };
        message::tell(&format!("read {read}, new {new}{changed}, duplicates {duplicates}"));
    }
    Ok(match end {
        End::Signal(status) => ExitCode::from(status),
        End::Done if counts.skipped_inputs > 0 => ExitCode::from(2),
        End::Done if counts.store_failures > 0 => ExitCode::FAILURE,
        End::Done => ExitCode::SUCCESS,
    })
}

/// Why a filter that made no error has ended.
enum End {
    /// Its work is done, or the reader of its output has closed it.
    Done,
    /// A signal came. With the status to end with.
    Signal(u8),
}

struct Filter<'a> {
    arguments: &'a Arguments,
    stop: &'a Stop,
    memory: Memory,
    /// Whether the store could be opened.
    is_open: bool,
    renewer: Renewer,
    output: LineOutput,
    counts: Counts,
    nameless: Nameless,
    progress: Progress,
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
    fn all_files(&mut self) -> Result<End> {
        for path in self.arguments.inputs() {
            let flow = if path == Path::new("-") {
                let input = stop::standard_input().map_err(|e| format!("standard input: {e}"))?;
                self.file("standard input", input)?
            } else {
                let name = path.to_string_lossy();
                // A named pipe without a writer keeps this process waiting.
                match self.stop.at_once_during(|| File::open(path)) {
                    Some(Ok(file)) => self.file(&name, file)?,
                    Some(Err(e)) => {
                        self.skip(&format!("cannot open {name}: {e}"));
                        continue;
                    }
                    None => ControlFlow::Break(()),
                }
            };
            if flow.is_break() {
                return Ok(self.stop.status().map_or(End::Done, End::Signal));
            }
        }
        Ok(End::Done)
    }

    /// Tells of an input that cannot be read, or not to its end. The others are read.
    fn skip(&mut self, why: &str) {
        message::tell(why);
        self.counts.skipped_inputs += 1;
    }

    fn file(&mut self, name: &str, input: impl Source) -> Result<ControlFlow<()>> {
        // Lines that are not printed would not show that the reader of the output has gone.
        let output =
            StandardOutput::new().map_err(|e| format!("cannot use standard output: {e}"))?;
        let input = Interruptible::new(input, self.stop, &output);
        let mut lines = self.arguments.ends.lines(input);
        let mut lines_before = 0;
        loop {
            let lines = match lines.next_batch() {
                Ok(Some(lines)) => lines,
                Ok(None) => return Ok(ControlFlow::Continue(())),
                Err(e) if stop::is_end(&e) => return Ok(ControlFlow::Break(())),
                Err(e) => {
                    self.skip(&format!("cannot read {name}: {e}"));
                    return Ok(ControlFlow::Continue(()));
                }
            };
            let batch = Batch { input: name, lines_before, lines: &lines };
            if self.batch(&batch)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            lines_before += lines.len() as u64;
            self.progress.add(lines.iter().map(|line| line.len() as u64).sum());
        }
    }

    /// Ends early and without an error when the reader of the output has closed it, and after a signal.
    fn batch(&mut self, batch: &Batch<'_>) -> Result<ControlFlow<()>> {
        let mut done = 0;
        if self.is_open {
            match self.filtered(batch, &mut done) {
                Err(e) if self.arguments.passes(&*e) => self.tell_of_failure(&*e),
                filtered => return filtered,
            }
        }
        self.passed(&batch.lines[done..])
    }

    /// Handles the lines of the batch. `done` is how many of them are done with, also after an error.
    fn filtered(&mut self, batch: &Batch<'_>, done: &mut usize) -> Result<ControlFlow<()>> {
        let Arguments { naming, version, .. } = self.arguments;
        let (end, version) = (self.arguments.ends.separator(), version.as_ref());
        let name = |line| naming.name_with_version(line, end, version);
        let names: Vec<Name<'_>> = batch.lines.iter().copied().map(name).collect();
        // With --strict, the lines before such a line are handled first.
        let end = names
            .iter()
            .position(|name| naming.is_strict() && matches!(name, Name::Bytes(..)))
            .unwrap_or(names.len());
        while *done < end {
            let reach = end.min(*done + before_a_change(&names[*done..end]));
            let reach = *done + self.within_limit(&names[*done..reach])?;
            let decided = self.decide(&names[*done..reach])?;
            self.note(batch, &names, *done..*done + decided.prints.len());
            self.renewer.hold(decided.held);
            let written = self.output.write(&batch.lines[*done..], &decided.prints, self.stop);
            let mut held = self.renewer.give_back();
            let written = match written {
                Ok(written) => written,
                Err(e) => return self.give_up(&held, &e),
            };
            *done += written.lines;
            self.counts.add(&decided.kinds[..written.lines], written.printed);
            let unwritten =
                held.split_off(decided.claimed.partition_point(|it| *it < written.lines));
            self.counts.lost += self.memory.confirm(&held)? as u64;
            self.memory.release(&unwritten)?;
            if written.lines < decided.prints.len() || self.left() == Some(0) {
                return Ok(ControlFlow::Break(()));
            }
            let waits_for = names.get(*done).filter(|_| decided.waits).and_then(Name::item);
            if let Some(item) = waits_for
                && self.wait_for(item)? == Waited::Stopped
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        match names.get(end) {
            Some(Name::Bytes(_, why)) => Err(format!("{}: {why}", batch.place(end)).into()),
            _ => Ok(ControlFlow::Continue(())),
        }
    }

    /// Waits until no other filter has the item.
    fn wait_for(&self, item: &Item<'_>) -> Result<Waited> {
        loop {
            let waited = self.stop.pause(WAIT).map_err(|e| format!("cannot wait: {e}"))?;
            if waited == Waited::Stopped || !self.memory.is_in_flight(item.id())? {
                return Ok(waited);
            }
        }
    }

    /// Prints lines that the store could not decide on.
    fn passed(&mut self, lines: &[&[u8]]) -> Result<ControlFlow<()>> {
        let left = self.left().map_or(lines.len(), |left| lines.len().min(to_usize(left)));
        let prints = vec![Some(""); left];
        match self.output.write(lines, &prints, self.stop) {
            Ok(written) => {
                self.counts.add(&vec![Kind::New; written.lines], written.printed);
                let goes_on = written.lines == left && self.left() != Some(0);
                Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            }
            Err(e) => self.give_up(&[], &e),
        }
    }

    /// Tells of the first failure of the store, also with -q.
    fn tell_of_failure(&mut self, why: &(dyn Error + Send + Sync + 'static)) {
        if self.counts.store_failures == 0 {
            log::error!("{}; all lines are printed as long as it lasts", with_causes(why));
        }
        self.counts.store_failures += 1;
    }

    /// Returns how many lines may still be printed.
    fn left(&self) -> Option<u64> {
        self.arguments.limit.map(|limit| limit.saturating_sub(self.counts.printed))
    }

    /// Returns how many of these lines can be decided on before more of them are new than may be printed. A line
    /// that will not be printed must not be claimed.
    fn within_limit(&self, names: &[Name<'_>]) -> Result<usize> {
        let Some(left) = self.left().map(to_usize) else { return Ok(names.len()) };
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
    fn give_up(&self, held: &[Held], why: &io::Error) -> Result<ControlFlow<()>> {
        self.memory.release(held)?;
        if why.kind() == io::ErrorKind::BrokenPipe {
            return Ok(ControlFlow::Break(()));
        }
        Err(format!("cannot write to standard output: {why}; the next run prints the batch again")
            .into())
    }

    /// Counts the lines without an id.
    fn note(&mut self, batch: &Batch<'_>, names: &[Name<'_>], lines: Range<usize>) {
        for line in lines {
            if let Name::Bytes(_, why) = &names[line] {
                self.nameless.note(|| batch.place(line), why);
            }
        }
    }
}

/// More lines than memory has room for are as good as that.
fn to_usize(lines: u64) -> usize {
    usize::try_from(lines).unwrap_or(usize::MAX)
}
