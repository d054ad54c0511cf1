//! What the command says of itself: help, completions and the manual page.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{Place, assert_error, printed, run, seen};

fn text(arguments: &[&str]) -> String {
    String::from_utf8(printed(&mut seen(arguments), b"")).unwrap()
}

/// The names of all commands, as the help lists them.
fn commands() -> Vec<String> {
    let help = text(&["help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn the_version_is_told_with_the_name_of_the_command() {
    let built_with = if cfg!(feature = "cluster") { " (with stores on clusters)" } else { "" };
    let version = format!("seen {}{built_with}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&["--version"]), version);
}

#[test]
fn the_help_tells_examples_statuses_and_the_environment() {
    let help = text(&["help"]);
    for told in ["Examples:", "Status:", "Environment:", "SEEN_DB_PATH", "NO_COLOR", "seen filter"]
    {
        assert!(help.contains(told), "{told}");
    }
    assert!(text(&["-h"]).contains("seen help"));
    for command in ["filter", "export", "import", "completions", "man"] {
        assert!(commands().contains(&command.to_owned()), "{command}");
    }
}

#[test]
fn every_command_has_a_help_of_its_own() {
    for command in commands().iter().filter(|command| *command != "help") {
        let help = text(&["help", command]);
        assert!(help.contains(&format!("Usage: seen {command}")), "{command}");
    }
}

/// Whether the shell, where it is installed, can read the script without an error.
fn parses(shell: &str, script: &str) {
    let check = Command::new(shell)
        .arg("-n")
        .arg("/dev/stdin")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut check) = check else {
        println!("{shell} is not installed");
        return;
    };
    check.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_completions_of_each_shell_name_every_command_and_can_be_read() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&["completions", shell]);
        for word in commands().iter().map(String::as_str).chain(["max-age", "dry-run"]) {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        if ["bash", "zsh", "fish"].contains(&shell) {
            parses(shell, &script);
        }
    }
}

#[test]
fn bash_completes_a_word() {
    let script = text(&["completions", "bash"]);
    let probe =
        "COMP_WORDS=(seen imp); COMP_CWORD=1; _seen seen imp seen; echo \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", &format!("{script}\n{probe}")]).output()
    else {
        println!("bash is not installed");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "import");
}

#[test]
fn an_unknown_shell_is_an_error() {
    assert_error(&run(&mut seen(&["completions", "command.com"]), b""), &["command.com", "bash"]);
    assert_error(&run(&mut seen(&["completions"]), b""), &["SHELL"]);
}

#[test]
fn the_manual_page_has_a_section_for_each_command_and_what_all_share() {
    let page = text(&["man"]);
    assert!(page.contains(".TH seen 1"), "{}", &page[..200]);
    for title in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "STATUS", "ENVIRONMENT"]
    {
        assert!(page.contains(&format!("\n.SH {title}\n")), "{title}");
    }
    for command in commands().iter().filter(|command| *command != "help") {
        let title = format!("\n.SH \"SEEN {}\"\n", command.to_uppercase());
        assert!(page.contains(&title), "{command}");
    }
    assert!(page.contains("max\\-age") && page.contains("SEEN_DB_PATH"));
}

#[test]
fn the_manual_page_can_be_read_by_man() {
    let groff = Command::new("groff")
        .args(["-man", "-ww", "-z"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut groff) = groff else {
        println!("groff is not installed");
        return;
    };
    groff.stdin.take().unwrap().write_all(text(&["man"]).as_bytes()).unwrap();
    let output = groff.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_closed_pipe_ends_them_quietly() {
    for arguments in [&["man"][..], &["completions", "zsh"]] {
        let mut child =
            seen(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    }
}

#[test]
fn an_error_of_an_option_names_the_help_of_its_command() {
    let place = Place::new();
    for (arguments, status, help) in [
        (&["run", "--idd", "a"][..], 125, "`seen help run`"),
        (&["list", "--limit", "x"], 2, "`seen help list`"),
        (&["-q", "verify", "--jsn"], 2, "`seen help verify`"),
        (&["backup"], 2, "`seen help backup`"),
        (&["fillter"], 2, "`seen help`"),
        (&["--ttl", "1d"], 2, "`seen help`"),
    ] {
        place.told(arguments).assert(status, &[help]);
    }
}

#[test]
fn each_option_with_a_duration_tells_what_it_understands_in_the_words_of_this_command() {
    const TOKEN: &str = "--token=00000000000000000000000000000000";
    let place = Place::new();
    let form =
        "not a duration; give numbers with units (ms, s, m, h, d, w), such as 90s, 36h or 1w 2d";
    let or_never = format!("{form}, or never");
    for (arguments, option, understood) in [
        (&["filter"][..], "--ttl", &*or_never),
        (&["filter", "--window", "sliding"], "--max-age", form),
        (&["filter"], "--lease", form),
        (&["run", "--id", "a"], "--retry-after", form),
        (&["run", "--id", "a"], "--lease", form),
        (&["claim", "a"], "--ttl", &or_never),
        (&["confirm", "a", TOKEN], "--ttl", &or_never),
        (&["renew", "a", TOKEN], "--lease", form),
        (&["mark", "a"], "--ttl", &or_never),
        (&["list"], "--since", form),
        (&["stats"], "--since", form),
        (&["purge"], "--older-than", form),
        (&["upgrade"], "--ttl", &or_never),
        (&["import", "-"], "--ttl", &or_never),
    ] {
        let status = if arguments[0] == "run" { 125 } else { 2 };
        let told = place.told(&[arguments, &[option, "banana"]].concat());
        let message = format!(
            "seen: invalid value 'banana' for '{option} <DURATION>': {understood}; \
             `seen help {}` tells what is understood\n",
            arguments[0]
        );
        assert_eq!((told.status, &*told.stderr), (Some(status), &*message), "{arguments:?}");
        for negative in ["-5s", "-1h 30m", "5m ago"] {
            let told = place.told(&[arguments, &[option, negative]].concat());
            told.assert(status, &["a duration cannot be negative; give numbers with units"]);
        }
        if option == "--ttl" {
            let told = place.told(&[arguments, &[option, "0s"]].concat());
            told.assert(status, &["a time to live of zero would remember nothing"]);
        }
    }
}
