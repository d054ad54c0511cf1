//! `seen each`: runs a command once for each line.
//!
//! Owns the order of the work: a line is claimed when a job is free for it, its command is started, and the claim is
//! ended when the command has ended. What always holds: commands are started in the order of the lines; no claim is held
//! for a line that waits; an id is confirmed only after its command has succeeded; a line is run once in a run.

mod counts;
mod input;

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use clap::Args;
use seen_store::{Item, Lease, Store};

use crate::Result;
use crate::args::claiming::{Claimed, Claiming, Refusal, RetryAfter};
use crate::args::database::{self, Database};
use crate::args::every::{self, Every};
use crate::args::ids::shown;
use crate::args::line_ends::LineEnds;
use crate::args::statuses::{SEEN_FAILED, Successes};
use crate::commands::each::counts::Counts;
use crate::naming::{Name, Nameless, Naming};
use crate::output::message;
use crate::work::attempt::Attempt;
use crate::work::child::{self, Input, Signals};
use crate::work::crew::{Crew, Running};

const EXAMPLES: &str = "\
Examples:
  Post each item of a feed once; an item that could not be posted is tried again by the next run:
    curl -s $FEED | jq -c '.items[]' | seen -q each --scope feed --key id -- ./post
  Fetch each address of a list, four at a time:
    seen each --scope fetch --ttl never --jobs 4 addresses.txt -- curl -fsSO {}
  Tell of each error of a log once a day:
    tail -n +1 -F app.log | grep --line-buffered ERROR | seen each --scope errors --every day -- ./notify";

/// The argument that stands for the line.
const LINE: &str = "{}";

/// Run a command once for each line
///
/// For each line of the input: claims its id, runs CMD, and remembers the id when CMD succeeds. CMD finds the line on its
/// standard input. If an argument of CMD is `{}`, the line stands in its place instead, without its end, and the standard
/// input is empty; a `{}` within a longer argument stays as it is, because a line that a stranger wrote must not become
/// a part of a script: `sh -c '... "$1"' sh {}`.
///
/// A line whose CMD fails is tried again by the next run: --retries says how often in all. A line that was done before,
/// or that comes again in the input, is not run. A line that another worker has, that failed and is not yet to be tried
/// again, or that was given up, is left alone. At the end one message says how many lines there were of each kind (none
/// with -q). Lines are read as they arrive, and an empty one is skipped.
///
/// CMD finds `SEEN_ATTEMPT` and `SEEN_PREVIOUS` in its environment, as with `seen run`. SIGTERM, SIGINT, SIGHUP and SIGQUIT
/// are passed on to the commands that run, and no other one is started; a second SIGTERM or SIGINT kills them. The other
/// signals that `seen run` passes on are passed on too.
///
/// Statuses: 0, each line is done, now or before; 1, some are not; 127, CMD was not found; 126, CMD could not be started;
/// 125, seen itself failed, or an input could not be read; 128 plus its number after a signal that asked for the end.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Files to read; standard input without any, or for `-`.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    database: Database,

    #[command(flatten)]
    naming: Naming,

    #[command(flatten)]
    ends: LineEnds,

    /// Run up to N commands at the same time
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,

    /// Run CMD once for a line in each hour, day, week or month of the calendar, in local time or, with `-utc`, in UTC
    ///
    /// The period in which CMD is started is a part of the id. A week begins on Monday. The id is remembered for twice the
    /// period.
    #[arg(long, value_name = "PERIOD", conflicts_with = "ttl")]
    every: Option<Every>,

    #[command(flatten)]
    claiming: Claiming,

    #[command(flatten)]
    retry_after: RetryAfter,

    #[command(flatten)]
    successes: Successes,

    /// The command and its arguments. They are not read by a shell; for a pipe, write `-- sh -c '...'`.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let ttl = arguments.every.map(Every::ttl);
    let config = arguments.retry_after.put_into(arguments.claiming.config(ttl));
    let store = arguments.database.open(config)?;
    // CMD may take as long as it takes.
    let renewing = store.renewing(Duration::MAX);
    arguments.database.announce(&store, "each");
    arguments.warn_of_a_part();
    let (events, inbox) = mpsc::channel();
    let crew = Arc::<Crew>::default();
    let told = events.clone();
    crew.pass_on(Signals::catch()?, move |status| drop(told.send(Event::Signal(status))))?;
    let requests = arguments.read_aside(events.clone())?;
    let mut each = Each {
        arguments,
        store: &*renewing,
        crew,
        events,
        inbox,
        requests,
        lines: VecDeque::new(),
        reading: Reading::Paused,
        running: 0,
        tried: HashSet::new(),
        counts: Counts::default(),
        nameless: Nameless::default(),
        end: None,
    };
    each.work();
    let Each { counts, nameless, end, .. } = each;
    database::close(&store);
    nameless.warn();
    log::warn!("{}", counts.told());
    match end {
        Some(End::Error(e)) => Err(e),
        Some(End::Status(status)) => Ok(ExitCode::from(status)),
        None if counts.unreadable > 0 => Ok(ExitCode::from(SEEN_FAILED)),
        None => Ok(ExitCode::from(u8::from(!counts.went_well()))),
    }
}

impl Arguments {
    /// Returns the id of a line; `None` for an empty one. Notes a line that has none.
    fn id(&self, line: &[u8], nameless: &mut Nameless) -> Result<Option<Vec<u8>>> {
        let name = self.naming.name(line, self.ends.separator());
        if let Name::Bytes(_, why) = &name {
            let line = shown(without_end(line, self.ends.separator()));
            if self.naming.is_strict() {
                return Err(format!("{line}: {why}").into());
            }
            nameless.note(|| line, why);
        }
        Ok(name.item().map(|item| item.id().to_vec()))
    }

    fn program(&self) -> String {
        self.command[0].to_string_lossy().into_owned()
    }

    fn has_place(&self) -> bool {
        self.command.iter().skip(1).any(|argument| argument == LINE)
    }

    /// The line would be on standard input, where such a command does not look for it.
    fn warn_of_a_part(&self) {
        let is_part = |argument: &OsString| argument.to_string_lossy().contains(LINE);
        if !self.has_place() && self.command.iter().any(is_part) {
            log::warn!(
                "{LINE} stands for the line only as an argument of its own; here it stays as it is"
            );
        }
    }

    /// Returns the command line and the standard input for a line.
    fn command(&self, line: Vec<u8>) -> (Vec<OsString>, Input) {
        if !self.has_place() {
            return (self.command.clone(), Input::Bytes(line));
        }
        let line = child::argument(without_end(&line, self.ends.separator()));
        let argument =
            |argument: &OsString| if argument == LINE { &line } else { argument }.clone();
        let (program, arguments) = self.command.split_first().expect("the parser asks for one");
        let arguments = arguments.iter().map(argument);
        ([program.clone()].into_iter().chain(arguments).collect(), Input::Nothing)
    }

    /// Starts the thread that reads the input. It reads on at each request.
    fn read_aside(&self, events: Sender<Event>) -> Result<Sender<()>> {
        let (requests, requested) = mpsc::channel();
        let standard_input = vec![PathBuf::from("-")];
        let files = if self.files.is_empty() { standard_input } else { self.files.clone() };
        let ends = self.ends;
        thread::Builder::new()
            .name("seen-input".into())
            .spawn(move || input::read_all(&files, ends, &requested, &events))
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(requests)
    }
}

/// Returns the line without what ends it.
fn without_end(line: &[u8], separator: u8) -> &[u8] {
    let line = line.strip_suffix(&[separator]).unwrap_or(line);
    if separator == b'\n' { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
}

/// What the main thread is told by the others.
enum Event {
    Lines(Vec<Vec<u8>>),
    Unreadable(String),
    EndOfInput,
    /// A command has ended, and its claim with it.
    Ended {
        id: Vec<u8>,
        went: Result<bool>,
    },
    /// One that asks for the end, with the status to end with.
    Signal(u8),
}

/// What the input's thread does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Paused,
    Asked,
    Ended,
}

/// Why the work ended before the input did.
enum End {
    Status(u8),
    Error(Box<dyn Error + Send + Sync>),
}

struct Each<'a> {
    arguments: &'a Arguments,
    store: &'a dyn Store,
    crew: Arc<Crew>,
    events: Sender<Event>,
    inbox: Receiver<Event>,
    requests: Sender<()>,
    /// The lines that were read and not yet handled.
    lines: VecDeque<Vec<u8>>,
    reading: Reading,
    /// How many commands run.
    running: u32,
    /// The ids that were tried in this run and are not done: their commands run, or have failed.
    tried: HashSet<Vec<u8>>,
    counts: Counts,
    nameless: Nameless,
    end: Option<End>,
}

impl Each<'_> {
    fn work(&mut self) {
        loop {
            self.start_what_can_be_started();
            let ends = self.end.is_some();
            if self.running == 0
                && (ends || self.lines.is_empty() && self.reading == Reading::Ended)
            {
                return;
            }
            if self.lines.is_empty() && self.reading == Reading::Paused && !ends {
                // A thread that has ended has told of the end.
                let _ = self.requests.send(());
                self.reading = Reading::Asked;
            }
            match self.inbox.recv().expect("this thread has a sender too") {
                Event::Lines(lines) => {
                    self.lines.extend(lines);
                    self.reading = Reading::Paused;
                }
                Event::Unreadable(why) => {
                    message::tell(&why);
                    self.counts.unreadable += 1;
                    self.reading = Reading::Paused;
                }
                Event::EndOfInput => self.reading = Reading::Ended,
                Event::Ended { id, went } => self.ended(&id, went),
                Event::Signal(status) => {
                    self.end.get_or_insert(End::Status(status));
                }
            }
        }
    }

    fn start_what_can_be_started(&mut self) {
        while self.end.is_none() && self.running < self.arguments.jobs && !self.crew.is_ending() {
            let Some(line) = self.lines.pop_front() else { return };
            if let Err(e) = self.handle(line) {
                self.end = Some(End::Error(e));
            }
        }
    }

    fn ended(&mut self, id: &[u8], went: Result<bool>) {
        self.running -= 1;
        match went {
            Ok(true) => {
                self.counts.done += 1;
                // From now on the store knows it.
                self.tried.remove(id);
            }
            Ok(false) => self.counts.failed += 1,
            Err(e) => {
                self.end.get_or_insert(End::Error(e));
            }
        }
    }

    fn handle(&mut self, line: Vec<u8>) -> Result<()> {
        let arguments = self.arguments;
        let Some(id) = arguments.id(&line, &mut self.nameless)? else { return Ok(()) };
        let (id, name) = every::in_present(arguments.every, id)?;
        self.counts.read += 1;
        if self.tried.contains(&id) {
            self.counts.repeated += 1;
            return Ok(());
        }
        match arguments.claiming.claim(self.store, &Item::new(&id))? {
            Claimed::Ours(lease) => self.start(line, id, *lease, name)?,
            Claimed::Refused(refusal) => {
                if let Refusal::Seen(_) = refusal {
                    log::info!("{}", refusal.told(&name));
                } else {
                    log::warn!("{}", refusal.told(&name));
                }
                self.counts.refuse(&refusal);
            }
        }
        Ok(())
    }

    fn start(&mut self, line: Vec<u8>, id: Vec<u8>, lease: Lease, name: String) -> Result<()> {
        let arguments = self.arguments;
        let mut attempt = Attempt::new(lease, name, arguments.claiming.retries);
        let (command, input) = arguments.command(line);
        let watch = self.watcher(id.clone())?;
        let input = input.prepare()?;
        let environment = attempt.environment();
        match self.crew.start(|| child::start(&command, input, false, environment)) {
            Ok(Some(running)) => {
                self.running += 1;
                self.tried.insert(id);
                watch.send((attempt, running)).expect("it waits for this");
                Ok(())
            }
            // A signal has asked for the end; its event comes.
            Ok(None) => attempt.release(),
            Err(e) if is_about_the_line(&e) => {
                let reason = format!("cannot run {}: {e}", arguments.program());
                log::warn!("{}: {reason}", attempt.name());
                attempt.fail(reason)?;
                attempt.tell_if_given_up();
                self.counts.failed += 1;
                self.tried.insert(id);
                Ok(())
            }
            Err(e) => {
                message::tell(&format!("cannot run {}: {e}", arguments.program()));
                self.end = Some(End::Status(child::status_not_started(&e)));
                attempt.release()?;
                attempt.tell_if_given_up();
                Ok(())
            }
        }
    }

    /// Starts the thread that waits for a command and ends its claim. It is there before the command is: a command that
    /// nothing waits for would keep its claim.
    fn watcher(&self, id: Vec<u8>) -> Result<Sender<(Attempt, Running)>> {
        let (hand, handed) = mpsc::channel();
        let (crew, events) = (Arc::clone(&self.crew), self.events.clone());
        let (program, successes) = (self.arguments.program(), self.arguments.successes.clone());
        thread::Builder::new()
            .name("seen-wait".into())
            .spawn(move || {
                if let Ok((attempt, running)) = handed.recv() {
                    let went = settle(attempt, crew.wait(&running), &program, &successes);
                    let _ = events.send(Event::Ended { id, went });
                }
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(hand)
    }
}

/// Ends the claim of a command that has ended. Returns whether the command succeeded.
fn settle(
    mut attempt: Attempt,
    ended: io::Result<ExitStatus>,
    program: &str,
    successes: &Successes,
) -> Result<bool> {
    match ended {
        Ok(status) if successes.include(status) => attempt.confirm(None).map(|()| true),
        Ok(status) => {
            let reason = format!("{program} {}", child::told(status));
            log::warn!("{}: {reason}", attempt.name());
            attempt.fail(reason)?;
            attempt.tell_if_given_up();
            Ok(false)
        }
        Err(e) => {
            // CMD may still be running: the id is free only when the lease ends.
            attempt.leave();
            Err(format!("cannot wait for {program}: {e}").into())
        }
    }
}

/// The line is too long for an argument, or has a NUL in it: other lines may do.
fn is_about_the_line(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ArgumentListTooLong | io::ErrorKind::InvalidInput)
}
