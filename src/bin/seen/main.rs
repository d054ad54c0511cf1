//! The `seen` command.
//!
//! Owns the arguments that all commands share and the statuses: 0 done, 1 a negative answer, 2 an error,
//! which is told in one line that starts with `seen: ` and names every cause. What a command does is in
//! its own module.

mod backup;
mod check;
mod child;
mod claim;
mod claiming;
mod compact;
mod completions;
mod confirm;
mod database;
mod doctor;
mod duration;
mod entry;
mod export;
mod fail;
mod filter;
mod forget;
mod holder;
mod ids;
mod import;
mod key;
mod lines;
mod list;
mod man;
mod mark;
mod memory;
mod message;
mod output;
mod progress;
mod purge;
mod release;
mod renew;
mod renewer;
mod run;
mod show;
mod source;
mod stats;
mod upgrade;
mod verify;
mod words;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

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
#[command(version, arg_required_else_help = true, max_term_width = 100)]
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

/// In the order of the help: what is used most comes first.
#[derive(Subcommand)]
enum Command {
    Filter(filter::Arguments),
    Run(run::Arguments),
    Check(check::Arguments),
    Show(show::Arguments),
    List(list::Arguments),
    Stats(stats::Arguments),
    Mark(mark::Arguments),
    Forget(forget::Arguments),
    Claim(claim::Arguments),
    Confirm(confirm::Arguments),
    Fail(fail::Arguments),
    Release(release::Arguments),
    Renew(renew::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
    Purge(purge::Arguments),
    Backup(backup::Arguments),
    Compact(compact::Arguments),
    Upgrade(upgrade::Arguments),
    Verify(verify::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => return answer_without_command(&e),
    };
    message::start_log(arguments.quiet, arguments.verbose);
    let done = match arguments.command {
        Command::Filter(arguments) => filter::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Mark(arguments) => mark::run(&arguments),
        Command::Forget(arguments) => forget::run(&arguments),
        Command::Claim(arguments) => claim::run(&arguments),
        Command::Confirm(arguments) => confirm::run(&arguments),
        Command::Fail(arguments) => fail::run(&arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Renew(arguments) => renew::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Purge(arguments) => purge::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Compact(arguments) => compact::run(&arguments),
        Command::Upgrade(arguments) => upgrade::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    match done {
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
