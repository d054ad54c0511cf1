//! One server process: it can be killed, paused and started again on the same port and folder.
//!
//! Commands go through a socket file in the server's folder, as the harness's own user: neither TLS, nor ACL rules,
//! nor a proxy's faults stand between the harness and a server.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::connection::Connection;
use crate::options::{ADMIN, ADMIN_PASSWORD};
use crate::ports::Port;
use crate::resp::Reply;
use crate::waiting::until;
use crate::watcher::Watcher;

const START: Duration = Duration::from_secs(10);

/// What a server takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes for its slots, if it has any.
    Master,
    /// It follows a master.
    Replica,
}

/// One server of a [`Cluster`](crate::Cluster).
#[derive(Debug)]
pub struct Node {
    index: usize,
    port: Port,
    client_port: u16,
    folder: PathBuf,
    program: PathBuf,
    process: Mutex<Process>,
    id: OnceLock<String>,
    watcher: Arc<Watcher>,
}

#[derive(Debug)]
enum Process {
    Running(Child),
    Paused(Child),
    Down,
}

impl Node {
    pub(crate) fn new(
        index: usize,
        port: Port,
        client_port: u16,
        folder: &Path,
        program: &Path,
        watcher: &Arc<Watcher>,
    ) -> Node {
        Node {
            index,
            port,
            client_port,
            folder: folder.to_owned(),
            program: program.to_owned(),
            process: Mutex::new(Process::Down),
            id: OnceLock::new(),
            watcher: Arc::clone(watcher),
        }
    }

    /// Its place in [`Cluster::nodes`](crate::Cluster::nodes).
    pub fn index(&self) -> usize {
        self.index
    }

    /// The port that clients reach it at: its proxy's, if it has one.
    pub fn port(&self) -> u16 {
        self.client_port
    }

    /// The server's own port. [`port`](Self::port), unless there is a proxy.
    pub fn server_port(&self) -> u16 {
        self.port.number()
    }

    /// The id that the cluster knows it by. It outlasts restarts.
    pub fn id(&self) -> &str {
        self.id.get_or_init(|| self.command(&["CLUSTER", "MYID"]).text())
    }

    /// The process id, unless it was killed.
    pub fn pid(&self) -> Option<u32> {
        match &*self.process.lock() {
            Process::Running(child) | Process::Paused(child) => Some(child.id()),
            Process::Down => None,
        }
    }

    /// The folder with its configuration, its log and what it keeps.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it was neither killed nor paused by the harness.
    pub fn is_running(&self) -> bool {
        matches!(*self.process.lock(), Process::Running(_))
    }

    /// What it takes itself for. After a failover the others may know better for a moment.
    ///
    /// # Panics
    ///
    /// As [`command`](Self::command).
    pub fn role(&self) -> Role {
        let answer = self.command(&["ROLE"]);
        if answer.items()[0].text() == "master" { Role::Master } else { Role::Replica }
    }

    /// Kills the process (`SIGKILL`), and returns when it is gone. Nothing happens if it is gone already.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    pub fn kill(&self) {
        let mut process = self.process.lock();
        if let Process::Running(mut child) | Process::Paused(mut child) =
            std::mem::replace(&mut *process, Process::Down)
        {
            end(&mut child, &self.watcher)
                .unwrap_or_else(|error| panic!("kill {}: {error}", child.id()));
        }
    }

    /// Stops the process (`SIGSTOP`), and returns when it stands still. Its connections stay open, and new ones
    /// are taken by the system.
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn pause(&self) {
        self.change(|process| match process {
            Process::Running(child) => {
                let pid = Pid::from_child(&child);
                signal(pid, Signal::STOP);
                until(START, "the server stands still", || {
                    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
                    let status =
                        waitid(WaitId::Pid(pid), options).map_err(|error| error.to_string())?;
                    status.ok_or_else(|| "it runs".to_owned())
                });
                Process::Paused(child)
            }
            other => other,
        });
    }

    /// Lets a paused process continue (`SIGCONT`).
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn resume(&self) {
        self.change(|process| match process {
            Process::Paused(child) => {
                signal(Pid::from_child(&child), Signal::CONT);
                Process::Running(child)
            }
            other => other,
        });
    }

    fn change(&self, change: impl FnOnce(Process) -> Process) {
        let mut process = self.process.lock();
        assert!(!matches!(*process, Process::Down), "node {} was killed", self.index);
        // A panic in between leaves `Down` behind, and a process for the watcher.
        *process = change(std::mem::replace(&mut *process, Process::Down));
    }

    /// Kills the process if it lives, starts it again on the same port and folder, and returns when it answers.
    /// Without [`appendonly`](crate::Options::appendonly) its keys are gone, unless a master sends them.
    ///
    /// # Panics
    ///
    /// If it does not answer within 10 seconds.
    pub fn restart(&self) {
        self.kill();
        self.spawn();
        self.wait_until_it_answers();
    }

    pub(crate) fn spawn(&self) {
        // What a killed server left, so that no connection meets it.
        let _ = fs::remove_file(self.socket());
        let child = Command::new(&self.program)
            .arg("redis.conf")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        self.watcher.add(child.id());
        *self.process.lock() = Process::Running(child);
    }

    pub(crate) fn wait_until_it_answers(&self) {
        until(START, &format!("node {} answers", self.index), || {
            let answer = self.try_command(&["PING"]).map_err(|error| self.with_log(&error))?;
            // It says LOADING while it reads its file.
            if answer.is_error() { Err(answer.text()) } else { Ok(()) }
        });
        // Later it may be asked for while the server is down.
        self.id();
    }

    fn with_log(&self, error: &io::Error) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "{error}; its log ends with:\n{}",
            lines[lines.len().saturating_sub(10)..].join("\n")
        )
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Opens a connection that no fault of a proxy reaches, as a user who may do everything. Redirections
    /// (`MOVED`, `ASK`) are answers like others.
    ///
    /// # Errors
    ///
    /// If the server is down, or paused for longer than 5 seconds.
    pub fn connect(&self) -> io::Result<Connection> {
        let mut connection = Connection::unix(&self.socket())?;
        let answer = connection.command(&["AUTH", ADMIN, ADMIN_PASSWORD])?;
        if answer.is_error() { Err(io::Error::other(answer.text())) } else { Ok(connection) }
    }

    /// Sends one command over a connection of its own; see [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect). An error that the server answers is a [`Reply::Error`].
    pub fn try_command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> io::Result<Reply> {
        self.connect()?.command(arguments)
    }

    /// Sends one command over a connection of its own; see [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// Where [`try_command`](Self::try_command) returns an error.
    #[track_caller]
    pub fn command<A: AsRef<[u8]>>(&self, arguments: &[A]) -> Reply {
        match self.try_command(arguments) {
            Ok(reply) => reply,
            Err(error) => {
                let name = String::from_utf8_lossy(arguments[0].as_ref());
                panic!("node {} does not answer {name}: {error}", self.index)
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Process::Running(child) | Process::Paused(child) = self.process.get_mut() {
            // The watcher tries again.
            let _ = end(child, &self.watcher);
        }
    }
}

fn end(child: &mut Child, watcher: &Watcher) -> io::Result<()> {
    child.kill()?;
    child.wait()?;
    watcher.remove(child.id());
    Ok(())
}

fn signal(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {pid:?}: {error}"));
}
