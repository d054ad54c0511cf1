//! `seen doctor`: whether a store's surroundings are as they should be.
//!
//! Owns the findings about the file, its folder, the file system and the processes on it. What the rows
//! hold is `verify`'s. Reads metadata, `/proc` where there is one, and the store as any reader.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use seen_store::{ErrorKind, FileInfo, Reader};
use serde_json::json;

use crate::Result;
use crate::args::database::ReadLocation;
use crate::output::Output;
use crate::output::message::with_causes;
use crate::output::words::{count, harmless, size};

/// Checkpoints keep a log shorter than this.
const LONG_LOG_BYTES: u64 = 64 << 20;

/// Check how a store is set up, and say what should be changed
///
/// SQLite's version and options, the settings that programs work with, the permissions of the file and
/// its folder, the file system, the size of the log, and which processes have the store open (on Linux).
/// A finding that needs a change says which. Changes nothing, and works without permission to write.
/// Statuses: 0 all is well, 1 something should be changed, 2 an error. `seen verify` checks what is in
/// the file.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    database: ReadLocation,

    /// Print a line with a JSON object for each finding.
    #[arg(long)]
    json: bool,
}

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
    let findings = examine(&arguments.database.path()?)?;
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
    let all_well = findings.iter().all(|finding| finding.remedy.is_none());
    Ok(ExitCode::from(u8::from(!all_well)))
}

fn in_words(finding: &Finding) -> String {
    let mark = if finding.remedy.is_some() { "!" } else { " " };
    let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    harmless(&format!("{mark} {:<12}{}{remedy}", finding.subject, finding.what))
}

fn examine(path: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let path = match Reader::open(path) {
        Ok(reader) => {
            findings.push(Finding::fine("store", reader.path().to_string_lossy()));
            let info = reader.info()?;
            findings.extend(sqlite(&info));
            findings.push(pages(&info));
            reader.path()
        }
        // The findings include the processes that have the store open.
        Err(e) if e.kind() == ErrorKind::Busy => {
            let whole = canonicalize(path).unwrap_or_else(|_| path.to_owned());
            let remedy = "end the program that has it open, or wait for it";
            findings.push(Finding::wrong("store", with_causes(&e), remedy));
            whole
        }
        Err(e) => return Err(e.into()),
    };
    findings.extend(permissions(&path));
    findings.extend(log(&path));
    findings.extend(file_system(&path));
    findings.extend(holders(&path));
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

#[cfg(unix)]
fn permissions(path: &Path) -> Vec<Finding> {
    use std::os::unix::fs::MetadataExt;
    let mut findings = Vec::new();
    let Ok(file) = fs::metadata(path) else { return findings };
    let mode = file.mode() & 0o777;
    let finding = format!("mode {mode:04o}, user {}, group {}", file.uid(), file.gid());
    let others = mode & 0o077;
    findings.push(if others == 0 {
        Finding::fine("file", finding)
    } else {
        let who = if mode & 0o022 == 0 { "read" } else { "read or change" };
        Finding::wrong(
            "file",
            format!("{finding}: others may {who} it"),
            format!("unless that is meant: chmod 600 {}", path.display()),
        )
    });
    let Some(folder) = path.parent() else { return findings };
    let Ok(about_folder) = fs::metadata(folder) else { return findings };
    let mode = about_folder.mode() & 0o7777;
    let finding =
        format!("mode {mode:04o}, user {}, group {}", about_folder.uid(), about_folder.gid());
    findings.push(if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        Finding::wrong(
            "folder",
            format!("{finding}: all users may replace the store"),
            format!("chmod o-w {}", folder.display()),
        )
    } else if file.uid() != about_folder.uid() && mode & 0o022 == 0 && file.uid() != 0 {
        Finding::wrong(
            "folder",
            format!("{finding}: the file's owner may not create the log in it"),
            format!("chown {} {}", file.uid(), folder.display()),
        )
    } else {
        Finding::fine("folder", finding)
    });
    findings
}

#[cfg(not(unix))]
fn permissions(path: &Path) -> Vec<Finding> {
    let read_only = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().readonly());
    vec![Finding::fine("file", if read_only { "read-only" } else { "writable" })]
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

/// Returns the type of the file system, from the list of mounts of Linux.
fn file_system(path: &Path) -> Option<Finding> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kind = mounts
        .lines()
        .filter_map(mount)
        .filter(|(point, _)| path.starts_with(point))
        // Of two file systems at one point, the later one hides the earlier.
        .max_by_key(|(point, _)| point.as_os_str().len())?
        .1;
    let is_network =
        ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "fuse.sshfs", "glusterfs"]
            .contains(&kind);
    Some(if is_network {
        Finding::wrong(
            "file system",
            format!("{kind}, over a network, where locks cannot be trusted"),
            "move the store to a local disk",
        )
    } else if ["tmpfs", "ramfs"].contains(&kind) {
        Finding::wrong(
            "file system",
            format!("{kind}, in memory: a restart of the machine forgets it"),
            "unless that is meant: move the store to a disk",
        )
    } else {
        Finding::fine("file system", kind)
    })
}

/// Returns the mount point and the type of the file system of a line of mountinfo(5).
fn mount(line: &str) -> Option<(PathBuf, &str)> {
    let (mount, rest) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    Some((point.into(), rest.split(' ').next()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_spaces() {
        let line = "36 35 98:0 /a /my\\040disk rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(mount(line), Some((PathBuf::from("/my disk"), "ext4")));
        assert_eq!(mount("36 35"), None);
    }
}
