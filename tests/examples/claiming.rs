//! The examples that claim, killed in the middle and run again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// `cargo test` builds the examples beside the tests.
pub(crate) fn example(name: &str) -> Command {
    let deps = std::env::current_exe().unwrap();
    let path = deps.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: run all of `cargo test`", path.display());
    Command::new(path)
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the child once `progress` has moved by `steps`, or lets it end.
fn kill_after(child: &mut Child, steps: usize, progress: impl Fn() -> usize) -> bool {
    let start = progress();
    while progress() < start + steps {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

fn last_line(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "img")).collect()
}

#[test]
fn a_killed_download_cache_is_completed_by_the_next_run_and_then_downloads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let mut command = example("download_cache");
        command.arg(folder.path()).arg("200");
        command
    };
    for _ in 0..3 {
        let mut child = spawn(&mut run());
        assert!(kill_after(&mut child, 40, || images(folder.path()).len()), "it ended too early");
    }
    let left = 200 - images(folder.path()).len();
    let line = last_line(&mut run());
    assert!(line.ends_with(" downloaded, 200 present"), "{line}");
    // What was in flight at a kill may be downloaded once more: at most one image a worker and kill.
    let downloaded: usize = line.split(' ').next().unwrap().parse().unwrap();
    assert!((left..=left + 3 * 4).contains(&downloaded), "{downloaded} of {left} missing");
    assert_eq!(images(folder.path()).len(), 200);
    assert_eq!(last_line(&mut run()), "0 downloaded, 200 present");
}

#[test]
fn a_campaign_killed_twenty_times_mails_each_of_479_recipients_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let recipients = folder.path().join("recipients.csv");
    let mut csv = String::from("email,name\n");
    for n in 0..479 {
        writeln!(csv, "reader{n}@example.org,Reader {n}").unwrap();
    }
    fs::write(&recipients, csv).unwrap();
    let outbox = folder.path().join("outbox.txt");
    let mails = || fs::read_to_string(&outbox).unwrap_or_default();
    let run = || {
        let mut command = example("email_campaign");
        command.arg(&recipients).arg(folder.path());
        command
    };
    for kill in 0..20 {
        let mut child = spawn(&mut run());
        let killed = kill_after(&mut child, 5 + kill % 7, || mails().lines().count());
        assert!(killed, "the campaign ended before kill {kill}");
    }
    let line = last_line(&mut run());
    assert_eq!(line, "479 recipients: 479 sent, 0 failed, 0 in flight");
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for mail in mails().lines() {
        *times.entry(mail.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(times.len(), 479);
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "mailed more than once: {twice:?}");
}
