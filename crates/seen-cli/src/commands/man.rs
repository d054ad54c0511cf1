//! `seen man`: one manual page with all commands, generated from their help.

use std::io;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::Result;
use crate::commands::completions::print;

/// Print the manual page
///
/// Read it with `seen man | man -l -`, or put it where `man seen` finds it: `seen man >
/// ~/.local/share/man/man1/seen.1`.
#[derive(Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<ExitCode> {
    let mut page = Vec::new();
    render(&mut page)?;
    print(&page)
}

fn render(page: &mut Vec<u8>) -> io::Result<()> {
    let mut command = crate::Arguments::command().name("seen");
    command.build();
    let whole = Man::new(command.clone());
    whole.render_title(page)?;
    whole.render_name_section(page)?;
    whole.render_synopsis_section(page)?;
    whole.render_description_section(page)?;
    whole.render_options_section(page)?;
    // The help of `help` says only where other help is.
    for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
        render_command(page, subcommand)?;
    }
    let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    for section in after.split("\n\n") {
        let mut lines = section.lines();
        let title = lines.next().unwrap_or_default().trim_end_matches(':').to_uppercase();
        let mut roff = Roff::new();
        roff.control("SH", [title.as_str()]).control("nf", []);
        roff.text(lines.flat_map(|line| [roman(line), roman("\n")]).collect::<Vec<_>>());
        roff.control("fi", []).to_writer(page)?;
    }
    whole.render_version_section(page)
}

/// Writes the section of one command. Its parts are one level lower.
fn render_command(page: &mut Vec<u8>, command: &Command) -> io::Result<()> {
    let name = format!("seen {}", command.get_name());
    let mut title = Roff::new();
    title.control("SH", [name.to_uppercase().as_str()]);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    title.text([bold(name), roman(format!(" - {about}"))]);
    title.to_writer(page)?;
    let man = Man::new(command.clone());
    let mut parts = Vec::new();
    man.render_synopsis_section(&mut parts)?;
    man.render_description_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    for line in parts.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_prefix(b".SH") {
            Some(rest) => page.extend([b".SS", rest].concat()),
            None => page.extend(line),
        }
    }
    Ok(())
}
