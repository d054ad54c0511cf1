//! What goes to standard error.
//!
//! Owns the one-line form of messages. What always holds: a message is one line without control characters and
//! without the password of a cluster, and the command continues if a message cannot be written.

use std::error::Error;
use std::io::Write;

use env_logger::{Env, Target};

use crate::cluster::without_secrets;
use crate::output::progress::Aside;
use crate::output::words::harmless;

/// Sends the log to standard error. `RUST_LOG` sets the level; without it, warnings and errors are printed, fewer
/// with `-q` and more with `-v`.
pub(crate) fn start_log(quiet: bool, verbose: u8) {
    let level = match verbose {
        0 if quiet => "error",
        // What becomes of a connection is told by the error of the command, once.
        0 => "warn,seen_cluster::nodes=error",
        1 => "info",
        _ => "trace",
    };
    env_logger::Builder::from_env(Env::default().default_filter_or(level))
        .target(Target::Pipe(Box::new(Aside)))
        .format(|out, record| writeln!(out, "{}", line(&record.args().to_string())))
        .init();
}

pub(crate) fn tell(message: &str) {
    let _ = Aside.write_all(format!("{}\n", line(message)).as_bytes());
}

fn line(message: &str) -> String {
    format!("seen: {}", harmless(&without_secrets(message)))
}

/// Returns the error and all its causes, outermost first. A cause that only repeats what was told is left out: some
/// libraries wrap their own message.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut told = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        let repeats = |before: &String| before.contains(&text) || text.contains(before);
        if !told.last().is_some_and(repeats) {
            told.push(text);
        }
        cause = error.source();
    }
    told.join(": ")
}

/// Returns the message of the argument parser in one line, without its usage text. `help` is the command that tells
/// what is understood.
pub(crate) fn usage_error(rendered: &str, help: &str) -> String {
    let rendered = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let told: Vec<String> = rendered
        .split("\n\n")
        .filter(|paragraph| !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more"))
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    // Rust's words for numbers.
    let told = told.join("; ").replace("..=", " to ");
    let told = told.replace("invalid digit found in string", "not a whole number");
    format!("{told}; `{help}` tells what is understood")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line_and_off_the_terminals_controls() {
        assert_eq!(line("a\nb\u{1b}[31m é"), "seen: a\\nb\\u{1b}[31m é");
    }

    #[derive(Debug)]
    struct Chain(&'static str, Option<Box<Chain>>);

    impl std::fmt::Display for Chain {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Chain {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn every_cause_is_told_once() {
        let deepest = Chain("code 28: disk full", None);
        let repeated = Chain("disk full", Some(Box::new(deepest)));
        let error = Chain("cannot mark", Some(Box::new(repeated)));
        assert_eq!(with_causes(&error), "cannot mark: disk full");
        let quoted = Chain("no answer", Some(Box::new(Chain("answer", None))));
        assert_eq!(with_causes(&quoted), "no answer");
        let other = Chain("cannot mark", Some(Box::new(Chain("no room", None))));
        assert_eq!(with_causes(&other), "cannot mark: no room");
    }

    #[test]
    fn a_usage_error_speaks_of_numbers_in_words() {
        let told = usage_error("error: 0 is not in 1..=10000", "seen help backup");
        assert_eq!(told, "0 is not in 1 to 10000; `seen help backup` tells what is understood");
        let told = usage_error("error: invalid digit found in string", "seen help filter");
        assert_eq!(told, "not a whole number; `seen help filter` tells what is understood");
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let rendered = "error: unexpected argument '--bd' found\n\n  tip: a similar argument exists: \
                        '--db'\n\nUsage: seen filter\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_error(rendered, "seen help filter"),
            "unexpected argument '--bd' found; tip: a similar argument exists: '--db'; \
             `seen help filter` tells what is understood"
        );
    }
}
