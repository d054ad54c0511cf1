//! `seen run`: runs a command once for an id.
//!
//! Owns the steps of a run: claim, run, then confirm or fail. What always holds: the id is confirmed only after
//! the command has succeeded, so after a crash at any point a later run tries again; the claim is renewed while the
//! command runs.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{ExitCode, ExitStatus, Stdio};

use clap::{ArgGroup, Args};
use seen_store::{ErrorKind, SeenStore, Token};

use crate::Result;
use crate::args::claiming::{Claimed, Claiming, Refusal, RetryAfter};
use crate::args::database::{self, Database};
use crate::args::ids;
use crate::args::key::Key;
use crate::output::message::{self, with_causes};
use crate::work::child::{self, Input, Signals};
use crate::work::renewer::Renewer;

const EXAMPLES: &str = "\
Examples:
  Send a report once a day, however often cron asks, and try again until it is sent:
    seen -q run --id \"report-$(date +%F)\" -- ./send-report
  Post an item of a feed once; the script reads it as JSON on its standard input:
    echo '{\"id\": 17, \"title\": \"...\"}' | seen run --scope feed --key id --retries 5 -- ./post
  Take the id from another program:
    git rev-parse HEAD | seen run --scope deploy --id - -- ./deploy";

/// Run a command once for an id
///
/// Claims the id, runs CMD, and remembers the id when CMD succeeds. When CMD fails, the next `seen run` for the id,
/// of a cron job for example, tries again: --retries says how often in all, --retry-after how soon. If the id was
/// seen before or another worker has claimed it, CMD is not run: one line on standard error says so (none with -q),
/// and the status is that of --duplicate-status.
///
/// Of any number of runs for one id at the same time, one runs CMD. The claim is renewed while CMD runs. If
/// `seen run` itself is killed or the machine goes down, the id can be claimed again after the --lease, and CMD is
/// run again, even if it had done its work or still runs. If a run was stopped for longer than its lease, another
/// worker may have claimed the id; the run says so when CMD has ended.
///
/// SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP and SIGCONT are passed on to CMD, unless they
/// were ignored from the start. CMD keeps the terminal, so Ctrl-C and Ctrl-Z reach it as usual.
///
/// Statuses: CMD's own; 128 plus the number of the signal that killed CMD; 127, CMD was not found; 126, CMD could
/// not be started (for 126 and 127 the id is released at once, and the attempt counts for --retries); 0, or that of
/// --duplicate-status, the id is seen or in flight; 1, the id was given up; 2, an error.
#[derive(Args)]
#[command(
    group = ArgGroup::new("subject").required(true).args(["id", "key"]),
    after_long_help = EXAMPLES
)]
pub(crate) struct Arguments {
    /// The id. `-` reads it from standard input, which must be one line; CMD then reads nothing.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    id: Option<OsString>,

    /// Use this field of the JSON object on standard input as the id. CMD receives the object unchanged.
    ///
    /// Several fields, with commas between, make one id. A dotted path leads into objects and arrays
    /// (`user.id`, `tags.0`), unless the object has a name with these dots in it. The ids are those of
    /// `seen filter --key`. A missing field is an error. Use one scope for each choice of fields.
    #[arg(long, value_name = "FIELD[,FIELD...]")]
    key: Option<Key>,

    #[command(flatten)]
    database: Database,

    #[command(flatten)]
    claiming: Claiming,

    #[command(flatten)]
    retry_after: RetryAfter,

    /// The status if the id was seen before or another worker has claimed it
    #[arg(long, value_name = "N", default_value_t = 0)]
    duplicate_status: u8,

    /// The command and its arguments. They are not read by a shell; for a pipe, write `-- sh -c '...'`.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (id, input) = arguments.id_and_input()?;
    let input = input.prepare()?;
    let config = arguments.retry_after.put_into(arguments.claiming.config());
    let store = arguments.database.open(config)?;
    let renewer = Renewer::of(&store, arguments.claiming.lease)?;
    // Before the claim: from now on, a signal that would end this process ends the command instead, and the claim
    // is then confirmed or failed.
    let signals = Signals::catch()?;
    let status = match arguments.claiming.claim(&store, &id)? {
        Claimed::Refused(refusal) => {
            log::warn!("{}", refusal.told(&id));
            match refusal {
                Refusal::GivenUp { .. } => 1,
                _ => arguments.duplicate_status,
            }
        }
        Claimed::Ours { token, attempt } => {
            renewer.hold(vec![(id.clone(), token)]);
            let run = Run { arguments, store: &store, id: &id, token, attempt };
            run.to_its_end(input, signals, &renewer)?
        }
    };
    drop(renewer);
    database::close(&store);
    Ok(ExitCode::from(status))
}

impl Arguments {
    fn id_and_input(&self) -> Result<(Vec<u8>, Input)> {
        if let Some(key) = &self.key {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|e| ids::unreadable(&e))?;
            let id = key.id(&bytes).map_err(|why| format!("standard input: {why}"))?;
            return Ok((id, Input::Bytes(bytes)));
        }
        let id = self.id.as_deref().expect("the parser asks for --id or --key");
        let input = if id == "-" { Input::Nothing } else { Input::Inherited };
        Ok((ids::one(id)?.into_owned(), input))
    }

    fn program(&self) -> String {
        self.command[0].to_string_lossy().into_owned()
    }
}

/// Makes one attempt at the claimed id.
struct Run<'a> {
    arguments: &'a Arguments,
    store: &'a SeenStore,
    id: &'a [u8],
    token: Token,
    attempt: u32,
}

impl Run<'_> {
    fn to_its_end(&self, input: Stdio, mut signals: Signals, renewer: &Renewer) -> Result<u8> {
        if let Some(signal) = signals.asked_to_end() {
            let _ = renewer.give_back();
            self.settle("released", self.store.release(self.id, &self.token))?;
            return Ok(signal);
        }
        let mut child = match child::start(&self.arguments.command, input) {
            Ok(child) => child,
            Err(e) => {
                let _ = renewer.give_back();
                message::tell(&format!("cannot run {}: {e}", self.arguments.program()));
                self.settle("released", self.store.release(self.id, &self.token))?;
                return Ok(child::status_not_started(&e));
            }
        };
        let ended = signals.pass_on_until_ended(&mut child);
        let _ = renewer.give_back();
        let status =
            ended.map_err(|e| format!("cannot wait for {}: {e}", self.arguments.program()))?;
        if status.success() {
            self.settle("confirmed", self.store.confirm(self.id, &self.token))?;
        } else {
            self.fail(status);
        }
        Ok(child::shell_status(status))
    }

    /// Records that the command failed. If that fails, it is only logged: the status of the run is the command's.
    fn fail(&self, status: ExitStatus) {
        let reason = format!("{} {}", self.arguments.program(), child::told(status));
        if let Err(e) = self.settle("failed", self.store.fail(self.id, &self.token, &reason)) {
            log::error!("{}", with_causes(&*e));
        }
        if self.arguments.claiming.retries.is_some_and(|most| self.attempt >= most) {
            let attempts = self.attempt;
            log::warn!("{}", Refusal::GivenUp { attempts }.told(self.id));
        }
    }

    fn settle(&self, how: &str, settled: seen_store::Result<()>) -> Result<()> {
        let id = ids::shown(self.id);
        match settled {
            Ok(()) => log::info!("{id}: {how}"),
            Err(e) if e.kind() == ErrorKind::LeaseLost => log::warn!(
                "{id}: the claim was lost while the command ran: its lease had ended and another worker \
                 took it over, or it was forgotten or marked; the command may run twice"
            ),
            Err(e) => {
                let error = with_causes(&e);
                return Err(format!(
                    "{id}: could not be written down as {how}, and is free again when its lease ends: \
                     {error}"
                )
                .into());
            }
        }
        Ok(())
    }
}
