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
mod confirm;
mod database;
mod doctor;
mod duration;
mod entry;
mod fail;
mod filter;
mod forget;
mod holder;
mod ids;
mod key;
mod lines;
mod list;
mod mark;
mod memory;
mod message;
mod output;
mod purge;
mod release;
mod renew;
mod renewer;
mod run;
mod show;
mod stats;
mod upgrade;
mod verify;
mod words;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

/// Any failure, with its causes in `source()`.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Has this been handled before? A durable answer for bots, cron jobs and pipelines.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
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
    Purge(purge::Arguments),
    Backup(backup::Arguments),
    Compact(compact::Arguments),
    Upgrade(upgrade::Arguments),
    Verify(verify::Arguments),
    Doctor(doctor::Arguments),
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
        Command::Purge(arguments) => purge::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Compact(arguments) => compact::run(&arguments),
        Command::Upgrade(arguments) => upgrade::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
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
