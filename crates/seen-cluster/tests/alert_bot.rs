//! The example bot on a file and on a cluster, run as a user runs it: restarted, in company, killed.
#![cfg(unix)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cluster_harness::{Cluster, Options, needs_server};

const SAMPLE_FEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/feed.jsonl");

/// The example's program, which cargo builds into the folder beside this test's own.
fn bot(store: &str, feed: &Path) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap().join("examples");
    let program = folder.join("alert_bot_by_url");
    assert!(program.exists(), "{} is not built: run all of `cargo test`", program.display());
    let mut command = Command::new(program);
    for variable in ["SEEN_TTL", "FEATURE_PERSIST_SEEN", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.env("SEEN_DB_PATH", store).arg(feed).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn alerts(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A feed of so many incidents that the pipe is full long before the last: a bot is always in the middle.
fn long_feed(folder: &Path, incidents: usize) -> std::path::PathBuf {
    let feed = folder.join("feed.jsonl");
    let padding = "x".repeat(60);
    let mut lines = String::new();
    for n in 0..incidents {
        writeln!(
            lines,
            "{{\"id\":\"incident-{n}\",\"name\":\"Fire {n} {padding}\",\"acres\":{n}}}"
        )
        .unwrap();
    }
    fs::write(&feed, lines).unwrap();
    feed
}

fn is_restarted(store: &str) {
    let feed = Path::new(SAMPLE_FEED);
    let first = alerts(bot(store, feed).args(["2", "0"]));
    let mut distinct = first.clone();
    distinct.sort();
    distinct.dedup();
    assert!(!first.is_empty() && distinct.len() == first.len(), "{first:?}");
    assert!(alerts(bot(store, feed).args(["2", "0"])).is_empty());
}

fn is_in_company(store: &str, feed: &Path, incidents: usize) {
    let bots = [(); 3].map(|()| bot(store, feed).arg("1").spawn().unwrap());
    let outputs = bots.map(|bot| bot.wait_with_output().unwrap());
    let mut all = Vec::new();
    for output in outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        all.extend(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned));
    }
    let sent = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), sent), (incidents, incidents));
}

fn is_killed(store: &str, feed: &Path, incidents: usize) {
    let mut times: HashMap<String, usize> = HashMap::new();
    let kills = 3;
    for kill in 1..=kills {
        let mut child = bot(store, feed).arg("1").stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (mut line, mut alerts) = (String::new(), 0);
        while stdout.read_line(&mut line).unwrap() > 0 {
            // The kill may have cut the last line off: that one was not sent.
            if let Some(alert) = line.strip_suffix('\n') {
                *times.entry(alert.to_owned()).or_default() += 1;
            }
            line.clear();
            alerts += 1;
            if alerts == 50 * kill {
                // What was sent until now is still in the pipe, and read before this loop ends.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(times.len() < incidents, "the bot was to die in the middle");
    }
    // Until the lease of the last one that was killed has ended.
    for alert in alerts(bot(store, feed).args(["8", "1"])) {
        *times.entry(alert).or_default() += 1;
    }
    assert_eq!(times.len(), incidents, "an alert was lost");
    let repeated = times.values().map(|times| times - 1).sum::<usize>();
    assert!(repeated <= kills, "{repeated} alerts were repeated by {kills} kills");
}

/// The whole life of a bot.
fn lives(store: impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let incidents = 3_000;
    let feed = long_feed(folder.path(), incidents);
    is_restarted(&store("restarted"));
    is_in_company(&store("company"), &feed, incidents);
    is_killed(&store("killed"), &feed, incidents);
}

#[test]
fn on_a_file_the_bot_alerts_each_incident_once_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    lives(|name| folder.path().join(name).join("seen.db").to_str().unwrap().to_owned());
}

#[test]
fn on_a_cluster_the_same_bot_alerts_each_incident_once_and_loses_none() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().replicas_per_master(0));
    lives(|name| format!("{}{name}?min_replicas=0", cluster.url()));
}
