//! The commands. Each module has the arguments of one command and runs it.

mod backup;
mod check;
mod claim;
mod compact;
mod completions;
mod confirm;
mod doctor;
mod each;
mod export;
mod fail;
mod filter;
mod forget;
mod import;
mod list;
mod man;
mod mark;
mod purge;
mod release;
mod renew;
mod resolve;
mod restore;
mod run;
mod show;
mod stats;
mod upgrade;
mod verify;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Subcommand;

use crate::Result;
use crate::args::statuses::SEEN_FAILED;

/// In the order of the help: the most used commands come first.
#[derive(Subcommand)]
pub(crate) enum Command {
    Filter(filter::Arguments),
    Run(run::Arguments),
    Each(each::Arguments),
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
    Resolve(resolve::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
    Purge(purge::Arguments),
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    Compact(compact::Arguments),
    Upgrade(upgrade::Arguments),
    Verify(verify::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

impl Command {
    /// Returns the status of an error of the command of this name, be it in its arguments. That of a command which runs
    /// another one must not be taken for the other one's.
    pub(crate) fn status_of_errors(name: &OsStr) -> u8 {
        if ["run", "each"].iter().any(|wrapper| name == *wrapper) { SEEN_FAILED } else { 2 }
    }

    /// Runs the command and returns its status.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Filter(arguments) => filter::run(arguments),
            Self::Run(arguments) => run::run(arguments),
            Self::Each(arguments) => each::run(arguments),
            Self::Check(arguments) => check::run(arguments),
            Self::Show(arguments) => show::run(arguments),
            Self::List(arguments) => list::run(arguments),
            Self::Stats(arguments) => stats::run(arguments),
            Self::Mark(arguments) => mark::run(arguments),
            Self::Forget(arguments) => forget::run(arguments),
            Self::Claim(arguments) => claim::run(arguments),
            Self::Confirm(arguments) => confirm::run(arguments),
            Self::Fail(arguments) => fail::run(arguments),
            Self::Release(arguments) => release::run(arguments),
            Self::Renew(arguments) => renew::run(arguments),
            Self::Resolve(arguments) => resolve::run(arguments),
            Self::Export(arguments) => export::run(arguments),
            Self::Import(arguments) => import::run(arguments),
            Self::Purge(arguments) => purge::run(arguments),
            Self::Backup(arguments) => backup::run(arguments),
            Self::Restore(arguments) => restore::run(arguments),
            Self::Compact(arguments) => compact::run(arguments),
            Self::Upgrade(arguments) => upgrade::run(arguments),
            Self::Verify(arguments) => verify::run(arguments),
            Self::Doctor(arguments) => doctor::run(arguments),
            Self::Completions(arguments) => completions::run(arguments),
            Self::Man(arguments) => man::run(arguments),
        }
    }
}
