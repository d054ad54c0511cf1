//! Ends the servers when this process dies without dropping them.
//!
//! A shell reads from a pipe that only this process can write to. Each line lists the servers' process ids. At the
//! end of the pipe (this process has died, or dropped the watcher) the shell kills what the last line listed and
//! removes the folder. It has a process group of its own, so that Ctrl-C and a test runner's kill do not reach it.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use parking_lot::Mutex;

const SCRIPT: &str = r#"
while read -r line; do pids=$line; done
[ -z "$pids" ] || kill -9 $pids
rm -rf -- "$1"
"#;

#[derive(Debug)]
pub(crate) struct Watcher {
    shell: Child,
    list: Mutex<List>,
}

#[derive(Debug)]
struct List {
    pids: BTreeSet<u32>,
    // `None` once the watcher is dropped.
    pipe: Option<ChildStdin>,
}

impl Watcher {
    pub(crate) fn start(folder: &Path) -> Watcher {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "cluster-watcher"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start /bin/sh: {error}"));
        let pipe = shell.stdin.take();
        Watcher { shell, list: Mutex::new(List { pids: BTreeSet::new(), pipe }) }
    }

    pub(crate) fn add(&self, pid: u32) {
        let mut list = self.list.lock();
        list.pids.insert(pid);
        list.tell();
    }

    pub(crate) fn remove(&self, pid: u32) {
        let mut list = self.list.lock();
        list.pids.remove(&pid);
        list.tell();
    }
}

impl List {
    fn tell(&mut self) {
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        if let Some(pipe) = &mut self.pipe {
            // Fails only if the shell was killed. The servers are then still ended by `Drop`.
            let _ = pipe.write_all(format!("{}\n", pids.join(" ")).as_bytes());
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.list.get_mut().pipe = None;
        let _ = self.shell.wait();
    }
}
