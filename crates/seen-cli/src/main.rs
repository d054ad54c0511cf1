//! The `seen` command.
//!
//! Owns the arguments that all commands share and the statuses: 0 done, 1 a negative answer, 2 an error,
//! which is told in one line that starts with `seen: ` and names every cause. What a command does is in
//! its own module of [`commands`].

mod args;
mod commands;
mod input;
mod output;
mod work;

use std::process::ExitCode;

use clap::{ArgAction, Parser};

use crate::commands::Command;
use crate::output::message;

/// Any failure, with its causes in `source()`.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What the help ends with. Paragraphs with a title; the manual page takes them over.
const AFTER_HELP: &str = "\
Examples:
  journalctl -f -p err -o cat | seen filter        each error once a week
  curl -s $FEED | jq -c '.items[]' | seen filter --key id,updated --scope feed --ttl 30d
  find . -name '*.pdf' -print0 | seen filter -0 --ttl never | xargs -0 -r process
  seen run --id report-$(date +%F) -- ./send       once a day, again until it succeeds
  seen show incident-17                            why was this sent, or not?
  seen export > backup.jsonl                       all that is remembered
  seen import backup.jsonl                         the same again, here or elsewhere
  seen help filter                                 all about one command

Durations:
  90s, 36h, 7d, '1w 2d'; for a time to live also never. A day has 24 hours.

Status:
  0  done
  1  the answer is no
  2  an error, told in one line on standard error: file, cause and remedy

Environment:
  SEEN_DB_PATH   the store, where --db does not name one
  XDG_DATA_HOME  its folder is $XDG_DATA_HOME/seen otherwise; ~/.local/share/seen without it
  RUST_LOG       which messages are told: error, warn, info, debug, trace
  NO_COLOR       no colours in this help";

/// Has this been handled before? A durable answer for bots, cron jobs and pipelines
///
/// A store is one file that remembers ids for a time to live, each in a scope of its own. It is safe to
/// use from any number of processes at once: of all that ask for an id, exactly one is told that it is
/// new, and what a killed process had begun comes back. An id is any 1 to 65536 bytes.
#[derive(Parser)]
#[command(name = "seen", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "`seen help` tells more, with examples; `seen help COMMAND` all of a command."
)]
#[command(after_long_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Tell errors only, no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Tell more of what is done; -vv tells all
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => return answer_without_command(&e),
    };
    message::start_log(arguments.quiet, arguments.verbose);
    match arguments.command.run() {
        Ok(status) => status,
        Err(e) => {
            message::tell(&message::with_causes(&*e));
            ExitCode::from(2)
        }
    }
}

/// Help that was asked for goes to standard output; what is wrong with the arguments is an error as
/// any other, in one line.
fn answer_without_command(answer: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !answer.use_stderr() || answer.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        // Whoever closed the pipe has read enough of the help.
        let _ = answer.print();
    } else {
        message::tell(&message::usage_error(&answer.render().to_string()));
    }
    ExitCode::from(u8::from(answer.use_stderr()) * 2)
}
