//! `seen completions`: a script with which a shell completes the arguments of `seen`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Result;

/// Print the completions of a shell
///
/// Put them where the shell looks for them:
///
///   bash: seen completions bash > ~/.local/share/bash-completion/completions/seen
///   zsh:  seen completions zsh > ~/.zfunc/_seen     (with ~/.zfunc in $fpath)
///   fish: seen completions fish > ~/.config/fish/completions/seen.fish
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = crate::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "seen", &mut script);
    print(&script)
}

/// Prints a text. A closed pipe is no error: its reader wants no more of the text.
pub(crate) fn print(text: &[u8]) -> Result<ExitCode> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {e}").into())
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
