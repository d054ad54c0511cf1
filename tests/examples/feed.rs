//! The feed of a real bot through the library: 2,575 polls of one public feed, which repeat each
//! incident for as long as it lasts.

use std::fs::File;
use std::io::{BufRead, BufReader};

use flate2::read::GzDecoder;
use seen_store::{Config, SeenStore, Verdict};
use serde_json::Value;

use crate::common::Place;

/// The lines of the feed, or `None`, said visibly, where this machine has none.
fn feed() -> Option<Vec<Value>> {
    let Some(path) = std::env::var_os("SEEN_REAL_FEED") else {
        eprintln!("SKIPPED: set SEEN_REAL_FEED to the path of fires.jsonl.gz");
        return None;
    };
    let lines = BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines();
    Some(lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect())
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap()
}

/// How many ids of a run were new, one call an id, as a bot makes them.
fn run(store: &SeenStore, ids: &[String]) -> usize {
    ids.iter().filter(|id| store.check_and_mark(id).unwrap() == Verdict::New).count()
}

#[test]
fn the_real_feed_alerts_402_incidents_once_and_none_after_a_restart() {
    let Some(feed) = feed() else { return };
    let ids: Vec<_> = feed.iter().map(|line| text(line, "id").to_owned()).collect();
    assert_eq!(ids.len(), 28_556);
    let place = Place::new();
    assert_eq!(run(&place.open(Config::default()), &ids), 402);
    assert_eq!(run(&place.open(Config::default()), &ids), 0);
}

#[test]
fn the_real_feed_in_one_batch_a_poll_alerts_402_incidents() {
    let Some(feed) = feed() else { return };
    let place = Place::new();
    let store = place.open(Config::default());
    let mut new = 0;
    for poll in feed.chunk_by(|one, next| one["polled_at"] == next["polled_at"]) {
        let verdicts = store.check_and_mark_all(poll.iter().map(|line| text(line, "id"))).unwrap();
        assert_eq!(verdicts.len(), poll.len());
        new += verdicts.iter().filter(|verdict| **verdict == Verdict::New).count();
    }
    assert_eq!(new, 402);
}

#[test]
fn the_real_feed_has_3456_updates_of_incidents() {
    let Some(feed) = feed() else { return };
    // A NUL occurs in neither field, so different pairs make different ids.
    let ids: Vec<_> =
        feed.iter().map(|line| [text(line, "id"), text(line, "updated")].join("\0")).collect();
    let place = Place::new();
    assert_eq!(run(&place.open(Config::default()), &ids), 3_456);
    assert_eq!(run(&place.open(Config::default()), &ids), 0);
}
