//! `seen run`: runs a command once for an id.
//!
//! Owns the steps of a run: claim, run, then confirm or fail. What always holds: the id is confirmed only after
//! the command has succeeded, so after a crash at any point a later run tries again; the claim is renewed while the
//! command runs.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::{ArgGroup, Args};
use seen_store::Lease;

use crate::Result;
use crate::args::claiming::{Claimed, Claiming, Refusal, RetryAfter, Version};
use crate::args::database::{self, Database};
use crate::args::every::{self, Every};
use crate::args::ids::{self, Fields, Spelling};
use crate::args::statuses::{Statuses, Successes};
use crate::output::message::{self, with_causes};
use crate::work::attempt::Attempt;
use crate::work::child::{self, Input, Prepared, Signals};
use crate::work::replay::{self, Recorder, Replay, command_name};

const EXAMPLES: &str = "\
Examples:
  Send a report once a day, however often cron asks, and try again until it is sent:
    seen -q run --scope report --id report --every day -- ./send-report
  The same by a date of one's own, in a crontab, where a % that is meant must be written \\%:
    seen -q run --scope report --id \"report-$(date +\\%F)\" -- ./send-report
  Post an item of a feed once; the script reads it as JSON on its standard input:
    echo '{\"id\": 17, \"title\": \"...\"}' | seen run --scope feed --key id --retries 5 -- ./post
  Take the id from another program:
    git rev-parse HEAD | seen run --scope deploy --id - -- ./deploy";

/// Run a command once for an id
///
/// Claims the id, runs CMD, and remembers the id when CMD succeeds. When CMD fails, the next `seen run` for the id,
/// of a cron job for example, tries again: --retries says how often in all, --retry-after how soon. If the id was
/// seen before or another worker has claimed it, CMD is not run: one line on standard error says so (none with -q).
///
/// Of any number of runs for one id at the same time, one runs CMD. The claim is renewed while CMD runs. If
/// `seen run` itself is killed or the machine goes down, the id can be claimed again after the --lease, and CMD is
/// run again, even if it had done its work or still runs. If a run was stopped for longer than its lease, another
/// worker may have claimed the id; the run says so when CMD has ended.
///
/// SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP and SIGCONT are passed on to CMD, unless they
/// were ignored from the start. CMD keeps the terminal, so Ctrl-C and Ctrl-Z reach it as usual.
///
/// CMD finds in its environment `SEEN_ATTEMPT`, the number of this attempt, and `SEEN_PREVIOUS`, how the attempt
/// before it ended: `none`, `released`, `failed` or `abandoned`; or `superseded`, if another --version of the id was
/// done. After `abandoned` the work may have been done: CMD should ask the receiver before it does it again. With
/// --hold such an id is not handed on.
///
/// Statuses: CMD's own; 128 plus the number of the signal that killed CMD; 127, CMD was not found; 126, CMD could
/// not be started (for 126 and 127 the id is released at once, and the attempt counts for --retries); 125, seen itself
/// failed. If CMD is not run: 0, the id was seen before; 75, another worker has it, or it failed and is not yet tried
/// again; 69, it was given up, or is held and to be resolved.
///
/// Done before is success, so that cron, make and `&&` go on after work that was done by an earlier run. In flight is
/// not, so that `seen run ... && deploy` does not deploy while the first run still works: 75 says to try again later. A
/// CMD that has a status for "done, with warnings" is told by --success-status; the status of the run stays that of CMD.
#[derive(Args)]
#[command(
    group = ArgGroup::new("subject").required(true).multiple(true).args(["id", "key", "fields"]),
    group = ArgGroup::new("direct").args(["id", "fields"]),
    after_long_help = EXAMPLES
)]
pub(crate) struct Arguments {
    /// The id. `-` reads it from standard input, which must be one line; CMD then reads nothing.
    ///
    /// Without it, --key takes the id from a JSON object on standard input, which CMD receives unchanged.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    id: Option<OsString>,

    #[command(flatten)]
    fields: Fields,

    #[command(flatten)]
    spelling: Spelling,

    #[command(flatten)]
    database: Database,

    /// Run CMD once in each hour, day, week or month of the calendar, in local time or, with `-utc`, in UTC
    ///
    /// The period in which the run begins is a part of the id, so a run that is still at work at midnight neither keeps
    /// the next day's from starting nor counts as it. A week begins on Monday. The id is remembered for twice the period.
    /// `seen show ID --every day` tells of today's.
    #[arg(long, value_name = "PERIOD", conflicts_with = "ttl")]
    every: Option<Every>,

    #[command(flatten)]
    claiming: Claiming,

    #[command(flatten)]
    version: Version,

    #[command(flatten)]
    retry_after: RetryAfter,

    /// Store what CMD prints and its status, and print them and end alike when the id is asked for again
    ///
    /// Standard output, standard error and the status of a CMD that succeeded are stored, up to 1 MiB together. A
    /// later run with --replay prints them instead of running CMD. More is printed and not stored; a later run then
    /// says so, as for an id that was seen without --replay, with the status of --seen-status. The two outputs
    /// are replayed one after the other. The same id with another command line is an error: see --any-command.
    #[arg(long)]
    replay: bool,

    /// With --replay, print what is stored for the id whatever command line it came from.
    #[arg(long, requires = "replay")]
    any_command: bool,

    #[command(flatten)]
    statuses: Statuses,

    #[command(flatten)]
    successes: Successes,

    /// The command and its arguments, all that follow it. They are not read by a shell; for a pipe, write
    /// `sh -c '...'`
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (id, input) = arguments.id_and_input()?;
    let (id, name) = every::in_present(arguments.every, id)?;
    let input = input.prepare()?;
    let ttl = arguments.every.map(Every::ttl);
    let mut config = arguments.retry_after.put_into(arguments.claiming.config(ttl));
    if arguments.replay {
        config = config.max_receipt(replay::MAX_BYTES);
    }
    let store = arguments.database.open(config)?;
    arguments.database.announce(&store, "run");
    // Before the claim: from now on, a signal that would end this process ends the command instead, and the claim
    // is then confirmed or failed.
    let signals = Signals::catch()?;
    // CMD may take as long as it takes.
    let status = match arguments
        .claiming
        .claim(&*store.renewing(Duration::MAX), &arguments.version.of(&id))?
    {
        Claimed::Refused(Refusal::Seen(known)) if arguments.replay => {
            arguments.replay(&name, known.receipt()?.as_deref())?
        }
        Claimed::Refused(refusal) => {
            log::warn!("{}", refusal.told(&name));
            arguments.statuses.of(&refusal)
        }
        Claimed::Ours(lease) => arguments.attempt(*lease, name).carry_out(input, signals)?,
    };
    database::close(&store);
    Ok(ExitCode::from(status))
}

impl Arguments {
    fn id_and_input(&self) -> Result<(Vec<u8>, Input)> {
        if let Some(id) = self.fields.id() {
            return Ok((id, Input::Inherited));
        }
        let Some(id) = self.id.as_deref() else {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|e| ids::unreadable(&e))?;
            return Ok((self.spelling.document(&bytes)?, Input::Bytes(bytes)));
        };
        let input = if id == "-" { Input::Nothing } else { Input::Inherited };
        Ok((self.spelling.one(id)?, input))
    }

    /// Prints what is stored for an id that is seen, and returns the status to end with.
    fn replay(&self, id: &str, receipt: Option<&[u8]>) -> Result<u8> {
        let Some(stored) = receipt.and_then(Replay::from_receipt) else {
            log::warn!("{id}: seen before, and nothing is stored that could be printed again");
            return Ok(self.statuses.seen());
        };
        if stored.command != command_name(&self.command) && !self.any_command {
            return Err(format!(
                "{id}: what is stored for it came from another command line; give the command another id, or \
                 --any-command to print it all the same"
            )
            .into());
        }
        stored.print().map_err(|e| format!("cannot write to standard output: {e}"))?;
        Ok(stored.status)
    }

    fn attempt(&self, lease: Lease, name: String) -> Run<'_> {
        Run { arguments: self, attempt: Attempt::new(lease, name, self.claiming.retries) }
    }

    fn program(&self) -> String {
        self.command[0].to_string_lossy().into_owned()
    }
}

/// Makes one attempt at the claimed id.
struct Run<'a> {
    arguments: &'a Arguments,
    attempt: Attempt,
}

impl Run<'_> {
    fn carry_out(mut self, input: Prepared, mut signals: Signals) -> Result<u8> {
        if let Some(signal) = signals.asked_to_end() {
            self.attempt.release()?;
            return Ok(signal);
        }
        let facts = self.attempt.environment();
        let records = self.arguments.replay;
        let mut child = match child::start(&self.arguments.command, input, records, facts) {
            Ok(child) => child,
            Err(e) => {
                message::tell(&format!("cannot run {}: {e}", self.arguments.program()));
                self.attempt.release()?;
                self.attempt.tell_if_given_up();
                return Ok(child::status_not_started(&e));
            }
        };
        let recorder = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => Some(Recorder::start(stdout, stderr)),
            _ => None,
        };
        let status = match signals.pass_on_until_ended(&mut child) {
            Ok(status) => status,
            Err(e) => {
                // CMD may still be running: the id is free only when the lease ends.
                self.attempt.leave();
                let program = self.arguments.program();
                return Err(format!("cannot wait for {program}: {e}").into());
            }
        };
        // The command has run: that its output was not recorded is no reason to run it again.
        let written = recorder.map(|recorder| recorder.ok().and_then(Recorder::written));
        if self.arguments.successes.include(status) {
            let receipt = written.and_then(|written| self.receipt(written, status));
            self.attempt.confirm(receipt)?;
        } else {
            self.fail(status);
        }
        Ok(child::shell_status(status))
    }

    /// Returns what is stored of the command.
    fn receipt(&self, written: Option<(Vec<u8>, Vec<u8>)>, status: ExitStatus) -> Option<Vec<u8>> {
        let receipt = written.and_then(|(stdout, stderr)| {
            let command = command_name(&self.arguments.command);
            Replay { status: child::shell_status(status), command, stdout, stderr }.to_receipt()
        });
        if receipt.is_none() {
            let name = self.attempt.name();
            log::warn!(
                "{name}: what the command printed is not stored: more than 1 MiB, or unreadable"
            );
        }
        receipt
    }

    /// Records that the command failed. If that fails, it is only logged: the status of the run is the command's.
    fn fail(&mut self, status: ExitStatus) {
        let reason = format!("{} {}", self.arguments.program(), child::told(status));
        if let Err(e) = self.attempt.fail(reason) {
            log::error!("{}", with_causes(&*e));
        }
        self.attempt.tell_if_given_up();
    }
}
