//! The command that `seen run` runs.
//!
//! Owns its process: its standard input, the signals that are passed on to it, and its result. What always holds: a
//! signal is sent only before the process is reaped, so never to another process with the same number.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::Result;

/// The standard input of the command.
pub(crate) enum Input {
    /// The standard input of this process.
    Inherited,
    Nothing,
    Bytes(Vec<u8>),
}

/// What the command gets as its standard input: any number of starts can be tried with it.
pub(crate) enum Prepared {
    Inherited,
    Nothing,
    Pipe(PipeReader),
}

impl Input {
    /// Everything that can fail is done here, before an id is claimed.
    pub(crate) fn prepare(self) -> Result<Prepared> {
        let bytes = match self {
            Self::Inherited => return Ok(Prepared::Inherited),
            Self::Nothing => return Ok(Prepared::Nothing),
            Self::Bytes(bytes) => bytes,
        };
        let (reader, mut writer) = io::pipe().map_err(|e| format!("cannot make a pipe: {e}"))?;
        // The command may leave input unread. Then the write fails, or ends with this process.
        thread::Builder::new()
            .name("seen-input".into())
            .spawn(move || drop(writer.write_all(&bytes)))
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Prepared::Pipe(reader))
    }
}

impl Prepared {
    fn stdio(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Inherited => Stdio::inherit(),
            Self::Nothing => Stdio::null(),
            Self::Pipe(reader) => reader.try_clone()?.into(),
        })
    }
}

/// Starts the command. With `records`, its output goes to pipes that this process reads.
///
/// A script without `#!` is run by `sh`, as shells, `env` and `xargs` do.
pub(crate) fn start(
    command: &[OsString],
    input: Prepared,
    records: bool,
    environment: impl IntoIterator<Item = (&'static str, String)>,
) -> io::Result<Child> {
    let (program, arguments) = command.split_first().expect("the parser asks for one at least");
    let facts: Vec<_> = environment.into_iter().collect();
    let output = || if records { Stdio::piped() } else { Stdio::inherit() };
    let spawn = |mut command: Command| {
        command.args(arguments).stdin(input.stdio()?).stdout(output()).stderr(output());
        command.envs(facts.iter().map(|(name, value)| (name, value))).spawn()
    };
    let started = match spawn(Command::new(program)) {
        Err(e) if is_no_format_of_a_program(&e) => match script(program) {
            Some(path) => {
                let mut shell = Command::new("sh");
                shell.arg(path);
                spawn(shell)
            }
            None => Err(io::Error::new(
                e.kind(),
                "it is neither a script nor a program for this machine",
            )),
        },
        started => started,
    };
    // From now on the command alone reads it: when the command ends, nothing waits to be read any more.
    drop(input);
    started
}

/// The program is a file that may be run, and the system knows no way to run it.
fn is_no_format_of_a_program(e: &io::Error) -> bool {
    cfg!(unix) && e.raw_os_error() == Some(ENOEXEC)
}

const ENOEXEC: i32 = 8;

/// Returns the path of the script that this name of a program means. `None` if it is no text, as a program for another
/// machine is none.
fn script(program: &OsStr) -> Option<PathBuf> {
    let path = if program.as_encoded_bytes().contains(&b'/') {
        PathBuf::from(program)
    } else {
        let folders = env::var_os("PATH")?;
        env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())?
    };
    let mut beginning = Vec::new();
    File::open(&path).ok()?.take(512).read_to_end(&mut beginning).ok()?;
    // `sh` would take a name that begins with a hyphen for an option.
    let path = if path.is_absolute() { path } else { Path::new(".").join(path) };
    (!beginning.contains(&0)).then_some(path)
}

/// Returns the status that a shell gives for a command that could not be started.
pub(crate) fn status_not_started(e: &io::Error) -> u8 {
    if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Returns the status as shells give it: the command's own, or 128 plus the number of the signal that killed it.
pub(crate) fn shell_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + killed_by(status)?));
    // On other systems than Unix a status may have more than eight bits.
    code.map_or(1, |code| u8::try_from(code).unwrap_or(u8::MAX))
}

/// Returns the result of the command in words.
pub(crate) fn told(status: ExitStatus) -> String {
    match (status.code(), killed_by(status)) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
        (None, None) => "ended".into(),
    }
}

#[cfg(unix)]
pub(crate) use unix::{Caught, Signals, argument, not_ignored, wait_until_ended};
#[cfg(unix)]
use unix::{killed_by, signal_name};

#[cfg(unix)]
mod unix {
    use std::ffi::{OsStr, OsString};
    use std::fs;
    use std::io;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, ExitStatus};
    use std::thread;

    use rustix::io::retry_on_intr;
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
    use signal_hook::consts::{
        SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
    };
    use signal_hook::iterator::SignalsInfo;
    use signal_hook::iterator::exfiltrator::WithRawSiginfo;
    use signal_hook::low_level::emulate_default_handler;

    use crate::Result;

    const PASSED_ON: [i32; 8] =
        [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT];

    /// The signals that this process catches for its command.
    pub(crate) struct Signals(SignalsInfo<WithRawSiginfo>);

    impl Signals {
        /// Catches the signals that are to be passed on, from now on.
        ///
        /// An ignored signal stays ignored, here and in the command: `nohup` and background jobs of a shell rely on
        /// it. (A caught signal would be reset to its default in the command.)
        pub(crate) fn catch() -> Result<Self> {
            let caught = not_ignored(PASSED_ON);
            // SIGCHLD is caught only because the status would be lost if it were ignored.
            SignalsInfo::new(caught.chain([SIGCHLD]))
                .map(Self)
                .map_err(|e| format!("cannot catch signals: {e}").into())
        }

        /// Returns the status of a signal that came before the command was started and would have ended it; `None`
        /// if no such signal came.
        pub(crate) fn asked_to_end(&mut self) -> Option<u8> {
            let came: Vec<i32> = self.0.pending().map(|signal| signal.si_signo).collect();
            let signal =
                came.into_iter().find(|signal| ![SIGCHLD, SIGTSTP, SIGCONT].contains(signal))?;
            u8::try_from(128 + signal).ok()
        }

        /// Waits until the command has ended, and passes signals on until then.
        pub(crate) fn pass_on_until_ended(mut self, child: &mut Child) -> io::Result<ExitStatus> {
            self.close_at_end_of(child)?;
            while !self.0.is_closed() {
                for info in self.0.wait() {
                    let caught = Caught::new(info.si_signo, info.si_code);
                    caught.pass_on(child);
                    caught.stop_too();
                }
            }
            child.wait()
        }

        /// Calls the function with each signal, for ever.
        pub(crate) fn for_each(mut self, mut act: impl FnMut(Caught)) {
            for info in self.0.forever() {
                let caught = Caught::new(info.si_signo, info.si_code);
                act(caught);
                caught.stop_too();
            }
        }

        /// Ends the stream of signals when the command has ended. The number of the process stays in use until it is
        /// reaped, and the thread that sends the signals reaps it. SIGCHLD would also tell the end, but the parent of
        /// this process may have blocked it.
        fn close_at_end_of(&self, child: &Child) -> io::Result<()> {
            let (process, handle) = (child.id(), self.0.handle());
            thread::Builder::new().name("seen-wait".into()).spawn(move || {
                wait_until_ended(process);
                handle.close();
            })?;
            Ok(())
        }
    }

    /// A signal that came.
    #[derive(Clone, Copy)]
    pub(crate) struct Caught {
        signal: i32,
        by_kernel: bool,
    }

    impl Caught {
        fn new(signal: i32, code: i32) -> Self {
            Self { signal, by_kernel: cfg!(target_os = "linux") && code > 0 }
        }

        /// Returns the status to end with, if the signal asks for an end in order.
        pub(crate) fn asks_to_end(self) -> Option<u8> {
            let asks = [SIGTERM, SIGINT, SIGHUP, SIGQUIT].contains(&self.signal);
            asks.then(|| u8::try_from(128 + self.signal).ok()).flatten()
        }

        /// Whether the signal, after another one, asks for the end at once. A shell sends the hangup of a terminal once
        /// more: two of them are one request.
        pub(crate) fn insists(self) -> bool {
            [SIGTERM, SIGINT].contains(&self.signal)
        }

        /// A terminal sends its signals to the whole foreground group, which includes the command.
        pub(crate) fn pass_on(self, child: &Child) {
            if self.signal != SIGCHLD && !self.by_kernel {
                send(child, self.signal);
            }
        }

        /// Stops this process until SIGCONT if its command is stopped, so that the shell sees a stopped job.
        fn stop_too(self) {
            if self.signal == SIGTSTP {
                let _ = emulate_default_handler(SIGTSTP);
            }
        }
    }

    /// Waits until the child has ended. It is not reaped.
    pub(crate) fn wait_until_ended(process: u32) {
        let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return };
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), ended));
    }

    /// Returns the bytes as an argument of a command.
    pub(crate) fn argument(bytes: &[u8]) -> OsString {
        OsStr::from_bytes(bytes).to_owned()
    }

    fn send(child: &Child, signal: i32) {
        let Some(named) = Signal::from_named_raw(signal) else { return };
        if let Err(e) = kill_process(Pid::from_child(child), named) {
            log::warn!("cannot pass {} on: {e}", signal_name(signal));
        }
    }

    /// Returns those of the signals that were not ignored when this process began.
    pub(crate) fn not_ignored<const N: usize>(signals: [i32; N]) -> impl Iterator<Item = i32> {
        let ignored = ignored();
        signals.into_iter().filter(move |signal| ignored & (1 << (signal - 1)) == 0)
    }

    /// Returns the mask of the signals that were ignored when this process began. Only Linux offers this without an
    /// unsafe call.
    fn ignored() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }

    pub(super) fn killed_by(status: ExitStatus) -> Option<i32> {
        status.signal()
    }

    pub(super) fn signal_name(signal: i32) -> String {
        let name = signal_hook::low_level::signal_name(signal);
        name.map_or_else(|| format!("signal {signal}"), str::to_owned)
    }
}

/// On other systems than Unix, no signals are passed on.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
#[derive(Clone, Copy)]
pub(crate) enum Caught {}

#[cfg(not(unix))]
impl Caught {
    pub(crate) fn asks_to_end(self) -> Option<u8> {
        match self {}
    }

    pub(crate) fn insists(self) -> bool {
        match self {}
    }

    pub(crate) fn pass_on(self, _: &Child) {
        match self {}
    }
}

#[cfg(not(unix))]
pub(crate) fn wait_until_ended(_: u32) {}

#[cfg(not(unix))]
pub(crate) fn argument(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn catch() -> Result<Self> {
        Ok(Self)
    }

    pub(crate) fn asked_to_end(&mut self) -> Option<u8> {
        None
    }

    pub(crate) fn pass_on_until_ended(self, child: &mut Child) -> io::Result<ExitStatus> {
        child.wait()
    }

    pub(crate) fn for_each(self, _: impl FnMut(Caught)) {}
}

#[cfg(not(unix))]
fn killed_by(_: ExitStatus) -> Option<i32> {
    None
}

#[cfg(not(unix))]
fn signal_name(signal: i32) -> String {
    format!("signal {signal}")
}
