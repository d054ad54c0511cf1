//! What the tests of the `seen` command share: a folder with a store, and the command as a user runs it,
//! untouched by the environment of the one who tests.

#![allow(dead_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use seen_store::{Entry, SeenStore};
use tempfile::TempDir;

/// What a user's surroundings may set.
const VARIABLES: [&str; 6] =
    ["SEEN_DB_PATH", "XDG_DATA_HOME", "HOME", "RUST_LOG", "RUST_LOG_STYLE", "NO_COLOR"];

/// How long a process may take to do what it should do by itself before a test gives up on it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

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

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
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

    /// `seen ARGUMENTS...` on the place's store.
    pub(crate) fn seen(&self, arguments: &[&str]) -> Command {
        let mut command = seen(arguments);
        command.env("SEEN_DB_PATH", self.db()).env("TZ", "UTC").current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `seen filter ARGUMENTS...` on the place's store.
    pub(crate) fn filter(&self, arguments: &[&str]) -> Command {
        let mut command = self.seen(&["filter"]);
        command.args(arguments);
        command
    }

    /// What the filter makes of this input, having succeeded without a word.
    pub(crate) fn passed(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Vec<u8> {
        printed(&mut self.filter(arguments), input.as_ref())
    }

    /// `seen COMMAND` on the store `name`.
    pub(crate) fn on(&self, command: &str, name: &str) -> Command {
        let mut seen = seen(&[command]);
        seen.arg("--db").arg(self.path(name));
        seen
    }

    /// What a terminal shows of a run whose standard output goes to a file.
    pub(crate) fn on_terminal(&self, arguments: &str) -> String {
        let size = PtySize { rows: 24, cols: 100, pixel_width: 0, pixel_height: 0 };
        let terminal = native_pty_system().openpty(size).unwrap();
        let mut shell = CommandBuilder::new("sh");
        let program = assert_cmd::cargo::cargo_bin!("seen").display().to_string();
        shell.args(["-c", &format!("'{program}' > printed {arguments}")]);
        shell.cwd(self.folder.path());
        for variable in VARIABLES {
            shell.env_remove(variable);
        }
        shell.env("TERM", "xterm");
        let mut child = terminal.slave.spawn_command(shell).unwrap();
        drop(terminal.slave);
        let mut shown = Vec::new();
        // Linux tells the end of a terminal by an error.
        let _ = terminal.master.try_clone_reader().unwrap().read_to_end(&mut shown);
        assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&shown));
        without_notices(&String::from_utf8_lossy(&shown))
    }

    pub(crate) fn told(&self, arguments: &[&str]) -> Told {
        Told::from(self.seen(arguments).output().unwrap())
    }

    pub(crate) fn told_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Told {
        Told::from(run(&mut self.seen(arguments), input.as_ref()))
    }

    /// What a command that has to succeed without a word prints.
    pub(crate) fn printed(&self, arguments: &[&str]) -> String {
        let told = self.told(arguments);
        told.assert(0, &[]);
        told.stdout
    }
}

pub(crate) fn seen(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("seen"));
    command.args(arguments);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// The command at work, with pipes to it and from it.
pub(crate) fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = start(command);
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A run that ends early leaves input unread: no concern of the writer's.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

/// What a run prints that succeeds without a word.
pub(crate) fn printed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let output = run(command, input);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
    output.stdout
}

/// What the command says on standard error, without the lines about a store that was made anew, and about a scope that
/// several kinds of commands use: most tests do both, and `stores.rs` is about these lines.
pub(crate) fn stderr(output: &Output) -> String {
    without_notices(&String::from_utf8(output.stderr.clone()).unwrap())
}

fn without_notices(said: &str) -> String {
    let is_notice = |line: &&str| {
        line.contains(": there was no store here, so a new one was made")
            || line.contains(" also leaves ids in the default scope of this store")
    };
    said.split_inclusive('\n').filter(|line| !is_notice(line)).collect()
}

/// Asserts status 2 and one line of standard error that names all of these.
pub(crate) fn assert_error(output: &Output, named: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.starts_with("seen: ") && told.ends_with('\n'), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    for name in named {
        assert!(told.contains(name), "{name:?} is not in {told}");
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
            stderr: stderr(&output),
            stdout: String::from_utf8(output.stdout).unwrap(),
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

/// Sets how the process handles these signals: in a test run in the background, some are ignored.
#[cfg(unix)]
pub(crate) fn with_signals<'c>(
    command: &'c mut Command,
    signals: &'static [libc::c_int],
    how: libc::sighandler_t,
) -> &'c mut Command {
    use std::os::unix::process::CommandExt as _;

    // SAFETY: between fork and exec only signal(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for signal in signals {
                libc::signal(*signal, how);
            }
            Ok(())
        })
    }
}

/// Waits until the process catches this signal.
#[cfg(target_os = "linux")]
pub(crate) fn catches(child: &Child, signal: libc::c_int) {
    let status = format!("/proc/{}/status", child.id());
    wait_until("the signals to be caught", || {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let mask = u64::from_str_radix(caught.trim(), 16).unwrap();
        mask & (1 << (signal - 1)) != 0
    });
}
