//! What a command wrote, and how it ended, kept for later runs of the same id.
//!
//! Owns the form in which that is stored as a receipt: a line of JSON, then the bytes of standard output, then those of
//! standard error. What always holds: a receipt of another form, such as one that a library stored, is not taken for
//! one. Does not know when a command runs.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ChildStderr;
use std::process::ChildStdout;
use std::thread::{self, JoinHandle};

use seen_store::fingerprint;
use serde_json::{Value, json};

/// The most bytes that are stored of a command, with its line of JSON.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// The room for the line of JSON.
const MAX_HEAD_BYTES: usize = 1_024;

const FORM: &str = "seen-replay-1";

/// What a command wrote, and how it ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Replay {
    pub(crate) status: u8,
    /// Tells command lines apart.
    pub(crate) command: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Replay {
    /// Returns the receipt, or `None` when it is too long to be stored.
    pub(crate) fn to_receipt(&self) -> Option<Vec<u8>> {
        let head = json!({
            "form": FORM,
            "status": self.status,
            "command": self.command,
            "stdout": self.stdout.len(),
            "stderr": self.stderr.len(),
        });
        let receipt = [head.to_string().as_bytes(), b"\n", &self.stdout, &self.stderr].concat();
        (receipt.len() <= MAX_BYTES).then_some(receipt)
    }

    pub(crate) fn from_receipt(receipt: &[u8]) -> Option<Self> {
        let end = receipt.iter().position(|byte| *byte == b'\n')?;
        let head: Value = serde_json::from_slice(&receipt[..end]).ok()?;
        if head["form"] != FORM {
            return None;
        }
        let length = |name: &str| usize::try_from(head[name].as_u64()?).ok();
        let written = &receipt[end + 1..];
        let (stdout, stderr) = written.split_at_checked(length("stdout")?)?;
        (stderr.len() == length("stderr")?).then_some(())?;
        Some(Self {
            status: u8::try_from(head["status"].as_u64()?).ok()?,
            command: head["command"].as_str()?.to_owned(),
            stdout: stdout.to_vec(),
            stderr: stderr.to_vec(),
        })
    }

    /// Writes what the command wrote.
    pub(crate) fn print(&self) -> io::Result<()> {
        io::stdout().write_all(&self.stdout)?;
        io::stdout().flush()?;
        io::stderr().write_all(&self.stderr)
    }
}

/// Returns a name for a command line: other arguments have another one.
pub(crate) fn command_name(command: &[OsString]) -> String {
    let id = fingerprint(command.iter().map(|part| part.as_encoded_bytes()));
    let digest = fingerprint([&id[..], &vec![0; 65_536]]);
    String::from_utf8_lossy(&digest).into_owned()
}

/// Passes on what a command writes, and keeps it.
pub(crate) struct Recorder {
    stdout: JoinHandle<Option<Vec<u8>>>,
    stderr: JoinHandle<Option<Vec<u8>>>,
}

impl Recorder {
    pub(crate) fn start(stdout: ChildStdout, stderr: ChildStderr) -> io::Result<Self> {
        let named = |name: &str| thread::Builder::new().name(name.into());
        Ok(Self {
            stdout: named("seen-stdout").spawn(move || pass_on(stdout, io::stdout()))?,
            stderr: named("seen-stderr").spawn(move || pass_on(stderr, io::stderr()))?,
        })
    }

    /// Waits until the command has closed its output. Returns `None` when it wrote more than is stored.
    pub(crate) fn written(self) -> Option<(Vec<u8>, Vec<u8>)> {
        let [stdout, stderr] = [self.stdout, self.stderr]
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let (stdout, stderr) = (stdout?, stderr?);
        (stdout.len() + stderr.len() <= MAX_BYTES - MAX_HEAD_BYTES).then_some((stdout, stderr))
    }
}

/// Copies to the end. Returns what was copied, or `None` when it is more than is stored.
fn pass_on(mut from: impl Read, mut to: impl Write) -> Option<Vec<u8>> {
    let (mut kept, mut buffer) = (Some(Vec::new()), [0; 8_192]);
    let mut open = true;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return kept,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        // When no one reads this process's output any more, the command goes on, and is kept.
        open = open && to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_ok();
        if let Some(bytes) = &mut kept {
            bytes.extend_from_slice(&buffer[..count]);
        }
        kept = kept.filter(|bytes| bytes.len() <= MAX_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay() -> Replay {
        Replay {
            status: 3,
            command: "f1:sha256:00".to_owned(),
            stdout: b"line\n\xff".to_vec(),
            stderr: b"\n".to_vec(),
        }
    }

    #[test]
    fn what_is_stored_is_read_as_it_was_and_nothing_else_is_taken_for_it() {
        let receipt = replay().to_receipt().unwrap();
        assert_eq!(Replay::from_receipt(&receipt), Some(replay()));
        for cut in 0..receipt.len() {
            assert_eq!(Replay::from_receipt(&receipt[..cut]), None, "{cut}");
        }
        for other in [&b"4711"[..], b"{}\n", b"\n", b"[1]\nx", &[&receipt[..], b"x"].concat()] {
            assert_eq!(Replay::from_receipt(other), None);
        }
        let long = Replay { stdout: vec![0; MAX_BYTES], ..replay() };
        assert_eq!(long.to_receipt(), None);
    }

    #[test]
    fn a_command_line_has_a_name_of_its_own() {
        let name =
            |parts: &[&str]| command_name(&parts.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(name(&["sh", "-c", "true"]), name(&["sh", "-c", "true"]));
        assert_ne!(name(&["sh", "-c true"]), name(&["sh", "-c", "true"]));
        assert!(name(&["sh"]).len() < 100);
    }
}
