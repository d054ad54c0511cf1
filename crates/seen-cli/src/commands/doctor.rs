//! `seen doctor`: whether a store's surroundings are as they should be.
//!
//! Owns the order of the findings, those about the log and the processes on the file, and what becomes of a store that
//! cannot be opened, or not made: then the others are told all the same. What the rows hold is `verify`'s. Reads metadata,
//! `/proc` where there is one, and the store as any reader.

mod file_system;
mod permissions;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use seen_store::{ErrorKind, FileInfo, Reader};
use serde_json::json;

use crate::Result;
use crate::args::place::{Place, ReadFileLocation};
use crate::output::Output;
use crate::output::message::with_causes;
use crate::output::words::{count, counted, harmless, local_time, size};

/// Checkpoints keep a log shorter than this.
const LONG_LOG_BYTES: u64 = 64 << 20;

/// Check how a store is set up, and say what should be changed
///
/// SQLite's version and options, the settings that programs work with, the owner and the permissions of the file and
/// its folder and what this user may do, the file system and its free space, the size of the log, the index in the file,
/// entries whose times lie in the future, and which processes have the store open (on Linux). Where the store cannot be
/// opened, that is a finding, and the others are told all the same; where there is none, the place is examined in which it
/// would be made. A finding that needs a change says which. Reads the whole file, about a second for each million ids.
/// Changes nothing, and works without permission to write. Statuses: 0 all is well, 1 something should be changed, 2 an
/// error: there is no store.
/// `seen verify` checks what is in the file.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: ReadFileLocation,

    /// Print a line with a JSON object for each finding.
    #[arg(long)]
    json: bool,
}

type Failure = Box<dyn Error + Send + Sync>;

/// A fact about the store. If it should be changed, there is a remedy.
struct Finding {
    subject: &'static str,
    what: String,
    remedy: Option<String>,
}

impl Finding {
    fn fine(subject: &'static str, what: impl Into<String>) -> Self {
        Self { subject, what: what.into(), remedy: None }
    }

    fn wrong(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, what: what.into(), remedy: Some(remedy.into()) }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (findings, no_store) = examine(&arguments.database.place("doctor")?)?;
    let mut output = Output::new();
    for finding in &findings {
        output.line(if arguments.json {
            json!({
                "subject": finding.subject,
                "finding": finding.what,
                "remedy": finding.remedy,
            })
            .to_string()
        } else {
            in_words(finding)
        })?;
    }
    output.finish()?;
    if let Some(e) = no_store {
        return Err(e);
    }
    let all_well = findings.iter().all(|finding| finding.remedy.is_none());
    Ok(ExitCode::from(u8::from(!all_well)))
}

fn in_words(finding: &Finding) -> String {
    let mark = if finding.remedy.is_some() { "!" } else { " " };
    let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    harmless(&format!("{mark} {:<12}{}{remedy}", finding.subject, finding.what))
}

/// Returns the findings and, if there is no store, the error that says so.
fn examine(place: &Place) -> Result<(Vec<Finding>, Option<Failure>)> {
    let mut findings = Vec::new();
    let mut no_store = None;
    let path = match Reader::open(place.path()) {
        Ok(reader) => {
            findings.push(Finding::fine("store", reader.path().to_string_lossy()));
            match contents(&reader) {
                Ok(more) => findings.extend(more),
                Err(e) => findings.push(unusable(&e)),
            }
            reader.path()
        }
        Err(e) => {
            let path = canonicalize(place.path())
                .or_else(|_| std::path::absolute(place.path()))
                .unwrap_or_else(|_| place.path().to_owned());
            // Why none could be made is a question for a doctor. A full disk leaves an empty file.
            let may_be_made = fs::metadata(&path).map_or(true, |file| file.len() == 0);
            match e.kind() {
                ErrorKind::NotFound | ErrorKind::NotADatabase if may_be_made => {
                    no_store = Some(place.explain(e));
                }
                kind if is_other_file(kind) => return Err(place.explain(e)),
                _ => findings.push(unusable(&e)),
            }
            path
        }
    };
    findings.extend(permissions::findings(&path));
    findings.extend(log(&path));
    findings.extend(file_system::findings(&path));
    findings.extend(holders(&path));
    Ok((findings, no_store))
}

/// Returns whether the path does not lead to a store, so that there is nothing to examine.
fn is_other_file(kind: ErrorKind) -> bool {
    use ErrorKind::{
        InvalidPath, NeedsUpgrade, NewerVersion, NotADatabase, NotFound, WrongApplication,
    };
    [InvalidPath, NeedsUpgrade, NewerVersion, NotADatabase, NotFound, WrongApplication]
        .contains(&kind)
}

/// Returns the finding about a store that cannot be read.
fn unusable(error: &seen_store::Error) -> Finding {
    let remedy = match error.kind() {
        ErrorKind::Busy => "end the program that has it open, or wait for it",
        ErrorKind::PermissionDenied => "see below whose file it is, and who asks",
        ErrorKind::Corrupt => {
            "`seen restore BACKUP`, or get what can be read with `seen export --salvage`"
        }
        _ => "see below",
    };
    Finding::wrong("store", with_causes(error), remedy)
}

/// Returns the findings about what only a reader of the file can tell.
fn contents(reader: &Reader) -> seen_store::Result<Vec<Finding>> {
    let info = reader.info()?;
    let mut findings = sqlite(&info);
    findings.push(pages(&info));
    findings.extend(index(reader)?);
    findings.extend(times(reader)?);
    Ok(findings)
}

/// Returns the findings about the index in the file, without which the store is only slower.
fn index(reader: &Reader) -> seen_store::Result<Vec<Finding>> {
    let report = reader.verify_index()?;
    if report.is_ok() {
        let found = match report.rows {
            0 => "none in this file: it is small, or made by an earlier program; the next one that writes much makes it".to_owned(),
            rows => format!("covers {}, and nothing is wrong", counted(rows, "row")),
        };
        return Ok(vec![Finding::fine("index", found)]);
    }
    let wrong = |problem| Finding::wrong("index", problem, "`seen compact` does that");
    Ok(report.problems.into_iter().map(wrong).collect())
}

/// Returns the findings about entries whose times lie in the future.
fn times(reader: &Reader) -> seen_store::Result<Vec<Finding>> {
    let stats = reader.stats(Duration::from_secs(1), 1)?;
    let mut findings = Vec::new();
    let until = |latest: Option<std::time::SystemTime>| latest.map_or_else(String::new, local_time);
    if stats.marks_in_future > 0 {
        findings.push(Finding::wrong(
            "times",
            format!(
                "{} seen in the future, up to {}: this clock is behind, or another one was ahead",
                counted(stats.marks_in_future, "id"),
                until(stats.latest)
            ),
            "set this clock if it is wrong; otherwise they stay seen for too long: `seen list --since 1s` lists them, \
             `seen forget --scope NAME --since 1s` makes them new",
        ));
    }
    if stats.leases_in_future > 0 {
        findings.push(Finding::wrong(
            "leases",
            format!(
                "{} claimed in the future, so they are in flight for longer than their leases",
                counted(stats.leases_in_future, "id")
            ),
            "set this clock if it is wrong; otherwise, if no worker has them: `seen forget --scope NAME --state \
             in-flight --since 1s` makes them new",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::fine("times", "none lies in the future"));
    }
    Ok(findings)
}

/// Resolves the links of a path as the store does. On Windows the result is as people write it, without the
/// prefix `\\?\`.
fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    #[cfg(windows)]
    return dunce::canonicalize(path);
    #[cfg(not(windows))]
    path.canonicalize()
}

fn sqlite(info: &FileInfo) -> Vec<Finding> {
    let pragmas = &info.pragmas;
    let synchronous = match pragmas.synchronous {
        1 => "NORMAL: a power cut may undo the newest marks",
        2 => "FULL: a power cut undoes nothing",
        _ => "neither NORMAL nor FULL",
    };
    vec![
        Finding::fine("SQLite", info.sqlite_version.clone()),
        Finding::fine("options", info.sqlite_options.join(" ")),
        Finding::fine("format", format!("version {}", pragmas.user_version)),
        Finding::fine("synchronous", format!("{synchronous} (the default of programs)")),
        Finding::fine(
            "pragmas",
            format!(
                "cache_size {}, temp_store {}, mmap_size {}, wal_autocheckpoint {}, \
                 journal_size_limit {}, busy timeout {} s",
                pragmas.cache_size,
                pragmas.temp_store,
                pragmas.mmap_size,
                pragmas.wal_autocheckpoint,
                pragmas.journal_size_limit,
                pragmas.busy_timeout.as_secs()
            ),
        ),
    ]
}

fn pages(info: &FileInfo) -> Finding {
    let page_bytes = info.pragmas.page_size.cast_unsigned();
    let free_bytes = info.free_pages * page_bytes;
    let finding = format!(
        "{} of {page_bytes} bytes, {} of them free ({})",
        count(info.pages),
        count(info.free_pages),
        size(free_bytes)
    );
    let is_wasteful = free_bytes > 64 << 20 && info.free_pages * 2 > info.pages;
    if is_wasteful {
        Finding::wrong("pages", finding, "`seen compact` gives them back to the disk")
    } else {
        Finding::fine("pages", finding)
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn log(path: &Path) -> Vec<Finding> {
    let log_path = beside(path, "-wal");
    let bytes = fs::metadata(&log_path).map_or(0, |metadata| metadata.len());
    let mut findings = vec![if bytes > LONG_LOG_BYTES {
        Finding::wrong(
            "log",
            format!("{}: a checkpoint is overdue", size(bytes)),
            "end programs that keep reading the store, then let one that writes go on or close it",
        )
    } else {
        Finding::fine("log", size(bytes))
    }];
    if bytes > 0 && !beside(path, "-shm").exists() {
        findings.push(Finding::wrong(
            "log",
            "it has no -shm: a program holds the store in exclusive mode, or was killed doing so",
            "if none runs, open the store once for writing",
        ));
    }
    findings
}

/// Returns the processes that have the store open, as far as this user may see them.
fn holders(path: &Path) -> Option<Finding> {
    let mut hidden = false;
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let id = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(id) = id.filter(|id| *id != std::process::id()) else { continue };
        match fs::read_dir(process.path().join("fd")) {
            Ok(files) => {
                let files = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
                if files.into_iter().any(|file| file == path) {
                    holders.push(holder(id));
                }
            }
            Err(e) => hidden |= e.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    holders.sort();
    let mut finding =
        if holders.is_empty() { "no other process".to_owned() } else { holders.join(", ") };
    if hidden {
        finding.push_str(" (processes of other users cannot be seen)");
    }
    Some(Finding::fine("open in", finding))
}

fn holder(id: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    format!("{} ({id})", name.trim_end())
}
