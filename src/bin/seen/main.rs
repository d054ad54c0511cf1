//! The `seen` command.
//!
//! Owns the arguments, the statuses (0 done, 2 an error) and how a message looks: one line that starts
//! with `seen: ` and names every cause. What a command does is in its own module.

mod database;
mod duration;
mod filter;
mod key;
mod lines;
mod memory;
mod message;
mod renewer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Any failure, with its causes in `source()`.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Has this been handled before? A durable answer for bots, cron jobs and pipelines.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Filter(filter::Arguments),
}

fn main() -> ExitCode {
    message::start_log();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => return answer_without_command(&e),
    };
    let done = match arguments.command {
        Command::Filter(arguments) => filter::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
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
