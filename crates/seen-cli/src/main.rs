//! The `seen` command.
//!
//! Owns the arguments that all commands share and the statuses: 0 done, 1 a negative answer, 2 an error (125 for the
//! commands that run another one), which is told in one line that starts with `seen: ` and names every cause. What a
//! command does is in its own module of [`commands`].

mod args;
mod cluster;
mod commands;
mod input;
mod naming;
mod output;
mod reading;
mod work;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _, Parser};

use seen_store::ErrorKind;

use crate::args::place::kind;
use crate::commands::Command;
use crate::output::message;

/// Any failure, with its causes in `source()`.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The end of the help: paragraphs with a title. They are also in the manual page.
const AFTER_HELP: &str = "\
Examples:
  journalctl -f -p err -o cat | seen filter --scope errors          each error once a week
  curl -s $FEED | jq -c '.items[]' | seen filter --key id,updated --scope feed --ttl 30d
  find . -name '*.pdf' -print0 | seen filter -0 --scope pdf --ttl never | xargs -0 -r process
  seen run --scope jobs --id report --every day -- ./send           once a day, again until it succeeds
  curl -s $FEED | jq -c '.items[]' | seen each --key id --scope posts -- ./post
  seen show incident-17                            why was this sent, or not?
  seen export > backup.jsonl                       all that is remembered
  seen import backup.jsonl                         merge it into this or another store
  seen help filter                                 all about one command

Durations:
  90s, 36h, 7d, '1w 2d'; for a time to live also never. A day has 24 hours.

Status:
  0  done
  1  the answer is no
  2  an error; one line on standard error says the file, the cause and the remedy
  Those of `seen run` and `seen each` are in their help: 125 is an error there.

Environment:
  SEEN_DB_PATH   the store, unless --db names one
  XDG_DATA_HOME  the default store is in $XDG_DATA_HOME/seen; without it, in ~/.local/share/seen
  RUST_LOG       which messages are printed: error, warn, info, debug, trace
  NO_COLOR       no colours in this help
  Other variables that begin with SEEN_ are settings of programs with the library. This command has options.";

#[cfg(not(feature = "cluster"))]
const VERSION: &str = env!("CARGO_PKG_VERSION");
#[cfg(feature = "cluster")]
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (with stores on clusters)");

/// Has this been handled before? A durable answer for bots, cron jobs and pipelines
///
/// A store is one file, or on a Redis or Valkey Cluster, and remembers ids for a time to live. Ids of different scopes
/// are different. Any number of processes may use a store at the same time: exactly one of them is told that an id is
/// new. If that process is killed before it is done, the id is new again. An id is any 1 to 65536 bytes;
/// a longer one is known by its hash.
#[derive(Parser)]
#[command(name = "seen", version = VERSION, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "`seen help` tells more, with examples; `seen help COMMAND` all of a command."
)]
#[command(after_long_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Print errors only, no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Print more of what is done; -vv prints everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

fn main() -> ExitCode {
    #[cfg(unix)]
    outlive_the_limit_of_file_sizes();
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(e) => return answer_without_command(&e),
    };
    message::start_log(arguments.quiet, arguments.verbose);
    match arguments.command.run() {
        Ok(status) => status,
        Err(e) => {
            message::tell(&told(&*e));
            status_of_errors()
        }
    }
}

/// A write beyond `ulimit -f` then fails, and the error says so. Otherwise a signal ends the process without a word. (The
/// signal is caught and not ignored: the commands of `seen run` would inherit that.)
#[cfg(unix)]
fn outlive_the_limit_of_file_sizes() {
    let signal = rustix::process::Signal::XFSZ.as_raw();
    // If it cannot be caught, it ends the process as before.
    let _ = signal_hook::flag::register(signal, std::sync::Arc::default());
}

fn parse() -> Result<Arguments, clap::Error> {
    // So that a negative duration is refused by the parser of durations, in its words.
    let durations_may_be_negative = |argument: Arg| {
        let names = argument.get_value_names().unwrap_or_default();
        let is_duration = names.iter().any(|name| name == "DURATION");
        if is_duration { argument.allow_hyphen_values(true) } else { argument }
    };
    let mut parser =
        Arguments::command().mut_subcommands(|command| command.mut_args(durations_may_be_negative));
    let matches = parser.try_get_matches_from_mut(env::args_os())?;
    Arguments::from_arg_matches(&matches).map_err(|e| e.format(&mut parser))
}

/// Returns an error and its causes, and what to do after some of them.
fn told(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let told = message::with_causes(error);
    match kind(error) {
        Some(ErrorKind::Corrupt) => {
            format!("{told}; `seen export --salvage` prints what can be read")
        }
        Some(ErrorKind::OutcomeUnknown) => {
            // This command keeps no tokens.
            let told =
                told.replace("ask again with the token of this error", "run the command again");
            format!("{told} (what it may have claimed is free when the lease ends)")
        }
        _ => told,
    }
}

/// Returns the name of the command that was called, if there is one before all that is not an option.
fn name_of_command() -> OsString {
    // The options before the name of the command take no values.
    let is_name = |argument: &OsString| !argument.as_encoded_bytes().starts_with(b"-");
    env::args_os().skip(1).find(is_name).unwrap_or_default()
}

/// Prints the help to standard output if it was asked for. Otherwise the arguments are wrong: that is an error in
/// one line, as any other error.
fn answer_without_command(answer: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !answer.use_stderr() || answer.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        // If the pipe is closed, its reader wants no more of the help.
        let _ = answer.print();
    } else {
        let help = match Arguments::command().find_subcommand(name_of_command()) {
            Some(command) => format!("seen help {}", command.get_name()),
            None => "seen help".to_owned(),
        };
        message::tell(&message::usage_error(&answer.render().to_string(), &help));
    }
    if answer.use_stderr() { status_of_errors() } else { ExitCode::SUCCESS }
}

fn status_of_errors() -> ExitCode {
    ExitCode::from(Command::status_of_errors(&name_of_command()))
}
