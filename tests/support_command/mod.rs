//! What tests of the `seen` command share: a folder with a store, and runs that the environment of whoever
//! tests does not touch.
#![allow(dead_code)]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use tempfile::TempDir;

const VARIABLES: [&str; 6] =
    ["SEEN_DB_PATH", "XDG_DATA_HOME", "HOME", "RUST_LOG", "RUST_LOG_STYLE", "NO_COLOR"];

pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    /// In memory where the system allows it: these tests write a lot and are not about the disk.
    pub(crate) fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        Self { folder: tempfile::tempdir_in(parent).unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `seen COMMAND` on the store `name`.
    pub(crate) fn seen(&self, command: &str, name: &str) -> Command {
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
        String::from_utf8_lossy(&shown).into_owned()
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

pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
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

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
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
