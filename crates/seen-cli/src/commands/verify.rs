//! `seen verify`: whether the file is intact.

use std::process::ExitCode;

use clap::Args;
use seen_store::{ErrorKind, IntegrityReport};
use serde_json::json;

use crate::Result;
use crate::args::place::ReadFileLocation;
use crate::output::Output;
use crate::output::message;
use crate::output::words;

/// What is printed after the problems.
const REMEDY: &str =
    "`seen restore BACKUP` goes back to a backup; `seen export --salvage` prints what can be read";

/// What is printed instead if only the index in the file is damaged.
const INDEX_REMEDY: &str = "no id is lost: `seen compact` makes the index in the file anew";

/// How many problems are printed for people.
const TOLD: usize = 10;

/// Check the whole store: status 0 if it is sound, 1 if not
///
/// Runs SQLite's integrity check, checks the file's format, and compares each row and claim with the others of its id,
/// and the index in the file with the rows. Prints one line for each problem, or the number of rows. Changes nothing, and
/// works without permission to write. Takes some seconds for each million ids, and up to 100 MB of memory.
/// Statuses: 0 sound, 1 something is wrong, 2 an error: the check could not be done, or the file is no store.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: ReadFileLocation,

    /// Print one JSON object: the number of rows, the problems, and how many of them, the last ones, are only about the
    /// index in the file.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (rows, problems, index_problems) = match check(arguments) {
        Ok(IntegrityReport { rows, problems, index_problems, .. }) => {
            (rows, problems, index_problems)
        }
        // A file that is too damaged to be read to its end is also wrong.
        Err(e) if is_damage(&*e) => (0, vec![message::with_causes(&*e)], 0),
        Err(e) => return Err(e),
    };
    let mut output = Output::new();
    if arguments.json {
        let report =
            json!({ "rows": rows, "problems": problems, "index_problems": index_problems });
        output.line(report.to_string())?;
    } else if problems.is_empty() {
        output.line(format!("{}, and nothing is wrong", words::counted(rows, "row")))?;
    } else {
        for problem in problems.iter().take(TOLD) {
            output.line(words::harmless(problem))?;
        }
        if problems.len() > TOLD {
            let more = words::count((problems.len() - TOLD) as u64);
            output.line(format!("and {more} more; --json prints all"))?;
        }
        let is_only_index = index_problems == problems.len();
        output.line(if is_only_index { INDEX_REMEDY } else { REMEDY })?;
    }
    output.finish()?;
    Ok(ExitCode::from(u8::from(!problems.is_empty())))
}

fn check(arguments: &Arguments) -> Result<IntegrityReport> {
    Ok(arguments.database.place("verify")?.read()?.verify()?)
}

fn is_damage(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<seen_store::Error>().is_some_and(|e| e.kind() == ErrorKind::Corrupt)
}
