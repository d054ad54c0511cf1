//! The example bot, run as a user runs it: restarted, switched off, killed.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SAMPLE_FEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/feed.jsonl");

/// The example's program, which cargo builds into the folder beside this test's own.
fn bot(store: &Path) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap().join("examples");
    let program = folder.join(format!("alert_bot{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "run `cargo build --example alert_bot` first; `cargo test` does");
    let mut command = Command::new(program);
    for variable in ["SEEN_TTL_DAYS", "SQLITE_SYNCHRONOUS", "SQLITE_CACHE_SIZE", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.env_remove("FEATURE_PERSIST_SEEN").env("SEEN_DB_PATH", store);
    command
}

fn alerts(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn distinct_incidents() -> usize {
    let feed = fs::read_to_string(SAMPLE_FEED).unwrap();
    let mut ids: Vec<String> = feed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string())
        .collect();
    let lines = ids.len();
    ids.sort();
    ids.dedup();
    assert!(ids.len() < lines, "the sample feed must repeat incidents");
    ids.len()
}

#[test]
fn the_first_run_alerts_each_incident_once_and_the_next_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("data/seen.db");
    let first = alerts(bot(&store).args([SAMPLE_FEED, "2", "0"]));
    assert_eq!(first.len(), distinct_incidents());
    assert!(first.iter().all(|alert| alert.starts_with("ALERT ")), "{first:?}");
    assert!(alerts(bot(&store).args([SAMPLE_FEED, "2", "0"])).is_empty());
}

#[test]
fn the_switch_makes_the_bot_filter_nothing_and_store_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("data/seen.db");
    let lines = fs::read_to_string(SAMPLE_FEED).unwrap().lines().count();
    let mut off = bot(&store);
    off.env("FEATURE_PERSIST_SEEN", "false").args([SAMPLE_FEED, "2", "0"]);
    assert_eq!(alerts(&mut off).len(), 2 * lines);
    assert!(!store.exists());
    let output =
        bot(&store).env("FEATURE_PERSIST_SEEN", "maybe").arg(SAMPLE_FEED).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn a_feed_that_cannot_be_read_is_tried_again_at_the_next_poll() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("seen.db");
    let gone = folder.path().join("gone.jsonl");
    let output = bot(&store).arg(&gone).args(["3", "0"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("cannot read").count(), 3);
}

#[test]
fn a_bot_killed_in_the_middle_loses_no_alert_and_repeats_at_most_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("seen.db");
    let feed: PathBuf = folder.path().join("feed.jsonl");
    // So many that the pipe is full long before the last: the bot is always in the middle.
    let incidents = 20_000;
    let lines: Vec<String> = (0..incidents)
        .map(|n| format!("{{\"id\":\"incident-{n}\",\"name\":\"Fire {n}\",\"acres\":{n}}}"))
        .collect();
    fs::write(&feed, lines.join("\n")).unwrap();

    let mut times: HashMap<String, usize> = HashMap::new();
    let kills = 5;
    for kill in 1..=kills {
        let mut child = bot(&store)
            .arg(&feed)
            .arg("1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut alerts = 0;
        while stdout.read_line(&mut line).unwrap() > 0 {
            // The kill may have cut the last line off: that one was not sent.
            if let Some(alert) = line.strip_suffix('\n') {
                *times.entry(alert.to_owned()).or_default() += 1;
            }
            line.clear();
            alerts += 1;
            if alerts == 100 * kill {
                // What was sent until now is still in the pipe, and read before this loop ends.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(times.len() < incidents, "the bot was to die in the middle");
    }
    // Until the lease of the last one that was killed has ended.
    for alert in alerts(bot(&store).arg(&feed).args(["8", "1"])) {
        *times.entry(alert).or_default() += 1;
    }
    assert_eq!(times.len(), incidents, "an alert was lost");
    let repeated = times.values().map(|times| times - 1).sum::<usize>();
    assert!(repeated <= kills, "{repeated} alerts were repeated by {kills} kills");
}
