//! `seen filter`: a `uniq` that lasts.
//!
//! Owns the way of a batch: identify its lines, decide which are new, write those. What always holds:
//! the decision is durable before a line is written, and what was decided on is written and flushed
//! before more is read.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Read, StdoutLock, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use seen_store::{Ttl, Verdict};

use crate::Result;
use crate::database::Database;
use crate::digest::id_of;
use crate::duration::parse_ttl;
use crate::key::{Key, NoKey};
use crate::lines::Lines;
use crate::memory::Memory;
use crate::message;

/// How many lines without an id are told of one by one.
const WARNINGS: u64 = 10;

/// Print each line not seen before, and remember it
///
/// A persistent `uniq`: prints, unchanged and in order, each input line that no earlier run printed,
/// and remembers it for the time to live. A line typed is answered at once; plentiful input is worked
/// on in large batches. An empty line is printed and not remembered. Statuses: 0 done, 2 an error.
///
/// Several filters may run at once on one store: no two of them print the same line. For that, a line
/// is remembered before it is printed. What was remembered and not yet printed when the run is killed,
/// or its output is closed or full, is not printed by a later run either: at most one batch, which is
/// what one read gave and no more than 10,000 lines.
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

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let open = if arguments.dry_run { Memory::dry } else { Memory::lasting };
    let memory = open(&arguments.database, arguments.ttl)?;
    let mut filter = Filter {
        arguments,
        memory,
        output: Output::new(arguments.invert),
        counts: Counts::default(),
    };
    let done = filter.all_files();
    let counts = filter.counts;
    filter.memory.close();
    if counts.without_id > WARNINGS {
        log::warn!("{} more lines without an id, taken as new", counts.without_id - WARNINGS);
    }
    done?;
    if arguments.stats {
        let (new, duplicates) = (counts.read - counts.duplicates, counts.duplicates);
        message::tell(&format!("read {}, new {new}, duplicates {duplicates}", counts.read));
    }
    Ok(())
}

struct Filter<'a> {
    arguments: &'a Arguments,
    memory: Memory,
    output: Output,
    counts: Counts,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    read: u64,
    duplicates: u64,
    without_id: u64,
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
        let verdicts = self.decide(&identified.ids)?;
        // A crash between here and the end of the writing loses what was not written yet.
        match self.output.write(lines, &verdicts) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(ControlFlow::Break(())),
            Err(e) => {
                return Err(format!(
                    "cannot write to standard output: {e}; lines that were not written are \
                     remembered all the same"
                )
                .into());
            }
        }
        match identified.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(ControlFlow::Continue(())),
        }
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
        let text = match &self.arguments.key {
            None => Cow::Borrowed(line),
            Some(key) => Cow::Owned(key.id(line)?),
        };
        Ok(Some(id_of(text)))
    }

    /// Which lines are new. Whoever is told so is the only one to print the line.
    fn decide(&mut self, ids: &[Option<Cow<'_, [u8]>>]) -> Result<Vec<Verdict>> {
        let mut decided = self.memory.check(ids.iter().flatten())?.into_iter();
        let verdicts: Vec<Verdict> = ids
            .iter()
            .map(|id| id.as_ref().and_then(|_| decided.next()).unwrap_or(Verdict::New))
            .collect();
        let duplicates = verdicts.iter().filter(|&&v| v == Verdict::Duplicate).count();
        self.counts.read += ids.len() as u64;
        self.counts.duplicates += duplicates as u64;
        Ok(verdicts)
    }
}

/// Standard output, and which lines go there.
struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
    invert: bool,
    /// The last line written came from the end of a file and had no newline.
    newline_due: bool,
}

impl Output {
    fn new(invert: bool) -> Self {
        let stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        Self { stdout, invert, newline_due: false }
    }

    fn write(&mut self, lines: &[&[u8]], verdicts: &[Verdict]) -> io::Result<()> {
        for (line, verdict) in lines.iter().zip(verdicts) {
            if (*verdict == Verdict::Duplicate) != self.invert {
                continue;
            }
            // Without this, two lines from two files would become one.
            if std::mem::replace(&mut self.newline_due, !line.ends_with(b"\n")) {
                self.stdout.write_all(b"\n")?;
            }
            self.stdout.write_all(line)?;
        }
        self.stdout.flush()
    }
}
