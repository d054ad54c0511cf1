//! `seen filter`: a `uniq` that lasts.
//!
//! Owns the way of a batch: identify its lines, claim those that are new, write and flush them, confirm.
//! What always holds: a line is confirmed only after it was flushed, so a crash at any point leaves it to
//! whoever runs next; lines are written in their order; no claim is held while another filter's line is
//! waited for, so two filters never wait for each other.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Read, StdoutLock, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use seen_store::Ttl;

use crate::Result;
use crate::database::Database;
use crate::duration::{parse_lease, parse_ttl};
use crate::key::{Key, NoKey, id_of};
use crate::lines::Lines;
use crate::memory::{Decision, Held, Memory};
use crate::message;
use crate::renewer::Renewer;

/// How many lines without an id are told of one by one.
const WARNINGS: u64 = 10;

/// How often another filter's line is looked at while it is waited for.
const WAIT: Duration = Duration::from_millis(10);

/// Print each line not seen before, and remember it
///
/// A persistent `uniq`: prints, unchanged and in order, each input line that no earlier run printed,
/// and remembers it for the time to live. A line typed is answered at once; plentiful input is worked
/// on in large batches. An empty line is printed and not remembered. Statuses: 0 done, 2 an error.
///
/// Several filters may run at once on one store: each line is printed by one of them, as long as none
/// dies or outlives its lease. A line is claimed, printed, and then remembered: after a crash at any
/// point, whoever runs next prints what was claimed and not remembered, some of which may have been
/// printed already. A line that another filter has claimed is waited for until that one remembers it
/// or its lease ends.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Arguments {
    /// Files to read; standard input without any, or for `-`.
    ///
    /// Each file is read when its turn comes. A last line without a newline is printed without one,
    /// unless another line follows it from the next file.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    database: Database,

    /// How long a line is remembered: 90s, 36h, 7d, never. A day has 24 hours.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_ttl)]
    ttl: Ttl,

    /// How long a batch of lines is this filter's to print. Renewed while the output blocks; when the
    /// filter dies, others print its lines after this time.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_lease)]
    lease: Duration,

    /// Remember this field of each line, which is a JSON object, instead of the line.
    ///
    /// Several fields, with commas between, are remembered together. A dotted path leads into objects
    /// and arrays (`user.id`, `tags.0`), unless the object has a name with these very dots. A line
    /// that is not a JSON object, or in which a field is missing, null or an empty string, is taken as
    /// new every time, with a warning. Use one scope for each choice of fields.
    #[arg(long, value_name = "FIELD[,FIELD...]")]
    key: Option<Key>,

    /// Print the duplicates instead: what would not be printed otherwise. What is new is remembered.
    #[arg(long)]
    invert: bool,

    /// Remember nothing: neither create nor change the store.
    #[arg(long)]
    dry_run: bool,

    /// End with status 2 at the first line that --key finds no id in.
    ///
    /// The lines before it are remembered and printed, itself and those after it are not.
    #[arg(long)]
    strict: bool,

    /// Tell on standard error how many lines were read, new and duplicates, when done.
    ///
    /// Empty lines and lines without an id count as new.
    #[arg(long)]
    stats: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let memory = if arguments.dry_run {
        Memory::dry(&arguments.database, arguments.ttl)?
    } else {
        Memory::lasting(&arguments.database, arguments.ttl, arguments.lease)?
    };
    let mut filter = Filter {
        arguments,
        renewer: Renewer::start(&memory)?,
        memory,
        output: Output::new(),
        counts: Counts::default(),
    };
    let done = filter.all_files();
    let counts = filter.counts;
    drop(filter.renewer);
    filter.memory.close();
    if counts.lost > 0 {
        log::warn!(
            "{} lines were printed after their lease had run out, and perhaps by another filter too; \
             a longer --lease avoids this",
            counts.lost
        );
    }
    if counts.without_id > WARNINGS {
        log::warn!("{} more lines without an id, taken as new", counts.without_id - WARNINGS);
    }
    done?;
    if arguments.stats {
        let (new, duplicates) = (counts.read - counts.duplicates, counts.duplicates);
        message::tell(&format!("read {}, new {new}, duplicates {duplicates}", counts.read));
    }
    Ok(ExitCode::SUCCESS)
}

struct Filter<'a> {
    arguments: &'a Arguments,
    memory: Memory,
    renewer: Renewer,
    output: Output,
    counts: Counts,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    read: u64,
    duplicates: u64,
    without_id: u64,
    lost: u64,
}

/// The id of each line of a batch, up to one that ends the run. `None` is a line that is always new.
struct Identified<'a> {
    ids: Vec<Option<Cow<'a, [u8]>>>,
    failure: Option<String>,
}

impl Filter<'_> {
    /// Ends early, and quietly, when nobody reads the output any more.
    fn all_files(&mut self) -> Result<()> {
        let standard_input = [PathBuf::from("-")];
        let files = match self.arguments.files.as_slice() {
            [] => &standard_input,
            files => files,
        };
        for path in files {
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
        let mut lines = Lines::new(input);
        let mut lines_before = 0;
        while let Some(batch) =
            lines.next_batch().map_err(|e| format!("cannot read {name}: {e}"))?
        {
            if self.batch(name, lines_before, &batch)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            lines_before += batch.len() as u64;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn batch(&mut self, name: &str, lines_before: u64, lines: &[&[u8]]) -> Result<ControlFlow<()>> {
        let identified = self.identify(name, lines_before, lines);
        let mut done = 0;
        while done < identified.ids.len() {
            let decided = self.decide(&identified.ids[done..])?;
            let end = done + decided.prints.len();
            self.renewer.hold(decided.held);
            let written = self.output.write(&lines[done..end], &decided.prints);
            let held = self.renewer.give_back();
            if let Err(e) = written {
                return self.give_up(held, &e);
            }
            self.counts.lost += self.memory.confirm(held)? as u64;
            done = end;
            if let Some(Some(id)) = identified.ids.get(done).filter(|_| decided.waits) {
                while self.memory.is_in_flight(id)? {
                    thread::sleep(WAIT);
                }
            }
        }
        match identified.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// The output is closed or broken: nobody knows which lines arrived, so all are left to a later run.
    fn give_up(&self, held: Vec<Held>, why: &io::Error) -> Result<ControlFlow<()>> {
        self.memory.release(held)?;
        if why.kind() == io::ErrorKind::BrokenPipe {
            return Ok(ControlFlow::Break(()));
        }
        Err(format!("cannot write to standard output: {why}; the next run prints the batch again")
            .into())
    }

    fn identify<'l>(
        &mut self,
        name: &str,
        lines_before: u64,
        lines: &[&'l [u8]],
    ) -> Identified<'l> {
        let mut ids = Vec::with_capacity(lines.len());
        for (line, number) in lines.iter().zip(lines_before + 1..) {
            match self.id(line) {
                Ok(id) => ids.push(id),
                Err(why) if self.arguments.strict => {
                    let failure = format!("{name}: line {number}: {why}");
                    return Identified { ids, failure: Some(failure) };
                }
                Err(why) => {
                    self.counts.without_id += 1;
                    if self.counts.without_id <= WARNINGS {
                        log::warn!("{name}: line {number}: {why}; taken as new");
                    }
                    ids.push(None);
                }
            }
        }
        Identified { ids, failure: None }
    }

    fn id<'l>(&self, line: &'l [u8]) -> Result<Option<Cow<'l, [u8]>>, NoKey> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(match &self.arguments.key {
            None => id_of(line),
            Some(key) => Cow::Owned(key.id(line)?),
        }))
    }

    /// Decides on lines up to the first that another filter is printing at this moment.
    fn decide(&mut self, ids: &[Option<Cow<'_, [u8]>>]) -> Result<Decided> {
        let known: Vec<&Cow<'_, [u8]>> = ids.iter().flatten().collect();
        let mut decisions = self.memory.decide(&known)?.into_iter();
        let mut decided =
            Decided { prints: Vec::with_capacity(ids.len()), held: Vec::new(), waits: false };
        for id in ids {
            let decision = match id {
                None => Decision::New(None),
                Some(_) => decisions.next().expect("a decision for each id"),
            };
            match decision {
                Decision::New(held) => {
                    decided.held.extend(held);
                    decided.prints.push(!self.arguments.invert);
                }
                Decision::Duplicate => {
                    self.counts.duplicates += 1;
                    decided.prints.push(self.arguments.invert);
                }
                Decision::InFlight => {
                    decided.waits = true;
                    break;
                }
            }
        }
        self.counts.read += decided.prints.len() as u64;
        // The claims of later lines must not be held during the wait: the other filter may be waiting
        // for one of them.
        let later = decisions.filter_map(|decision| match decision {
            Decision::New(held) => held,
            _ => None,
        });
        self.memory.release(later.collect())?;
        Ok(decided)
    }
}

/// What was decided on some lines.
struct Decided {
    /// For each line whether it is printed.
    prints: Vec<bool>,
    /// The claims of the lines that are new.
    held: Vec<Held>,
    /// The next line is another filter's at the moment.
    waits: bool,
}

/// Standard output.
struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
    /// The last line written came from the end of a file and had no newline.
    newline_due: bool,
}

impl Output {
    fn new() -> Self {
        let stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        Self { stdout, newline_due: false }
    }

    fn write(&mut self, lines: &[&[u8]], prints: &[bool]) -> io::Result<()> {
        for (line, _) in lines.iter().zip(prints).filter(|(_, print)| **print) {
            // Without this, two lines from two files would become one.
            if std::mem::replace(&mut self.newline_due, !line.ends_with(b"\n")) {
                self.stdout.write_all(b"\n")?;
            }
            self.stdout.write_all(line)?;
        }
        self.stdout.flush()
    }
}
