//! What the tests of the `seen` command share: a folder with a store, and the command as a user runs it.

#![allow(dead_code)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use seen_store::{Entry, SeenStore};
use tempfile::TempDir;

/// How long a process may take to do what it should do by itself before a test gives up on it.
const LONG: Duration = Duration::from_mins(1);

/// A folder of its own for one test, with the path of a store in it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    /// In memory where the system allows it: a busy disk would outlast the short leases.
    pub(crate) fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        Self { folder: tempfile::tempdir_in(parent).unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.path("seen.db")
    }

    pub(crate) fn store(&self) -> SeenStore {
        SeenStore::open(self.db()).unwrap()
    }

    pub(crate) fn entry(&self, id: &str) -> Option<Entry> {
        self.store().get(id).unwrap()
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The text of a file; nothing where there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// `seen COMMAND ARGUMENTS...` on the place's store, untouched by the environment of whoever runs the
    /// tests.
    pub(crate) fn seen(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("seen"));
        for variable in ["XDG_DATA_HOME", "HOME", "RUST_LOG", "RUST_LOG_STYLE", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command.env("SEEN_DB_PATH", self.db()).env("TZ", "UTC").current_dir(self.folder.path());
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn told(&self, arguments: &[&str]) -> Told {
        Told::from(self.seen(arguments).output().unwrap())
    }

    pub(crate) fn told_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Told {
        let mut child = self.seen(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.as_ref());
        let output = std::thread::scope(|scope| {
            // A run that ends early leaves input unread: no concern of the writer's.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        Told::from(output)
    }

    /// What a command that has to succeed without a word prints.
    pub(crate) fn printed(&self, arguments: &[&str]) -> String {
        let told = self.told(arguments);
        told.assert(0, &[]);
        told.stdout
    }
}

/// How a process ended and what it told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Told {
    /// Asserts the status, and one line on standard error that names all of these; no line for none.
    #[track_caller]
    pub(crate) fn assert(&self, status: i32, named: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        if named.is_empty() {
            assert_eq!(self.stderr, "");
            return;
        }
        assert!(self.stderr.starts_with("seen: ") && self.stderr.ends_with('\n'), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        for name in named {
            assert!(self.stderr.contains(name), "{name:?} is not in {self:?}");
        }
    }
}

/// Waits for what another process is to do.
#[expect(clippy::disallowed_methods, reason = "a deadline for a process that hangs")]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + LONG;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
pub(crate) fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: the process is our child and was not waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), signal) }, 0);
}
