//! The commands about ids and about what the store holds.

use std::collections::BTreeSet;

use cluster_harness::needs_server;
use serde_json::Value;

use crate::support::{Told, run, wait_until};
use crate::{CLUSTER, Site, told};

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(listing: &str) -> BTreeSet<String> {
    json_lines(listing).iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn an_id_is_marked_checked_and_forgotten_by_the_url_of_an_option_and_of_the_environment() {
    needs_server!();
    let site = Site::new("marks");
    site.told(&["check", "a"]).assert(1, &[]);
    site.printed(&["mark", "a", "b"]);
    site.printed(&["check", "a", "b"]);
    site.told(&["check", "a", "c"]).assert(1, &[]);
    assert_eq!(site.told(&["check", "--print", "unseen", "a", "c"]).stdout, "c\n");
    let url = format!("{}marks", CLUSTER.url());
    Told::from(site.place.seen(&["check", "a", "--db", &url]).output().unwrap()).assert(0, &[]);
    site.told(&["check", "a", "--scope", "other"]).assert(1, &[]);
    // Another namespace.
    Site::new("marks.2").told(&["check", "a"]).assert(1, &[]);
    site.printed(&["forget", "a"]);
    site.told(&["check", "a"]).assert(1, &[]);
    site.told(&["forget", "a"]).assert(1, &["a: not known"]);
    assert!(site.place.names().is_empty(), "no file is made");
}

#[test]
fn ids_of_standard_input_and_versions_are_marked() {
    needs_server!();
    let site = Site::new("versions");
    told(run(&mut site.seen(&["mark", "-", "--version", "1"]), b"a\nb\n")).assert(0, &[]);
    site.printed(&["check", "a", "b", "--version", "1"]);
    site.told(&["check", "a", "--version", "2"]).assert(1, &[]);
}

#[test]
fn an_id_is_shown_with_all_that_is_known_of_it_and_an_unknown_one_with_its_other_scopes() {
    needs_server!();
    let site = Site::new("shown");
    site.printed(&["mark", "a", "--ttl", "1h", "--scope", "x"]);
    let shown = site.printed(&["show", "a", "--scope", "x"]);
    for fact in ["state       seen", "expires", "in 59", "duplicates  0"] {
        assert!(shown.contains(fact), "{fact}: {shown}");
    }
    let other = site.told(&["show", "a"]);
    assert_eq!(other.status, Some(1));
    assert!(other.stdout.contains("--scope x"), "{other:?}");
    let unknown = json_lines(&site.told(&["show", "--json", "b"]).stdout);
    assert_eq!(
        (&unknown[0]["state"], &unknown[0]["other_scopes"]),
        (&"unknown".into(), &Value::Array(vec![]))
    );
}

#[test]
fn entries_are_listed_by_scope_state_prefix_and_age() {
    needs_server!();
    let site = Site::new("listed");
    site.printed(&["mark", "db1/disk", "db2/disk"]);
    site.printed(&["mark", "web", "--scope", "x"]);
    site.printed(&["claim", "db1/load"]);
    let list = |arguments: &[&str]| ids(&site.printed(&[&["list", "--json"], arguments].concat()));
    assert_eq!(list(&[]), set(&["db1/disk", "db2/disk", "web", "db1/load"]));
    assert_eq!(list(&["--scope", "x"]), set(&["web"]));
    assert_eq!(list(&["--state", "in-flight"]), set(&["db1/load"]));
    assert_eq!(list(&["--prefix", "db1/", "--state", "seen"]), set(&["db1/disk"]));
    assert_eq!(list(&["--older-than", "1h"]), set(&[]));
    assert_eq!(list(&["--newest", "1"]), set(&["db1/load"]));
    assert_eq!(list(&["--limit", "2"]).len(), 2);
    let lines = site.printed(&["list", "--scope", "x"]);
    assert!(lines.starts_with("seen ") && lines.ends_with("[x] web\n"), "{lines}");
}

#[test]
fn figures_are_those_of_a_cluster_and_none_of_a_file() {
    needs_server!();
    let site = Site::new("figures");
    site.printed(&["mark", "a", "b", "--ttl", "30m"]);
    site.printed(&["mark", "c", "--scope", "x", "--ttl", "never"]);
    site.printed(&["claim", "d"]);
    site.printed(&["mark", "e", "--ttl", "1ms", "--retention", "30d"]);
    wait_until("the mark to be over", || site.told(&["check", "e"]).status == Some(1));
    let words = site.printed(&["stats"]);
    assert!(words.starts_with("redis://127.0.0.1:") && words.contains("/figures\n"), "{words}");
    assert!(words.contains("2 within an hour") && !words.contains("log"), "{words}");
    let json: Value = serde_json::from_str(&site.printed(&["stats", "--json"])).unwrap();
    assert_eq!((&json["total"]["seen"], &json["total"]["in_flight"]), (&3.into(), &1.into()));
    assert_eq!(json["total"]["expired"], 1);
    assert_eq!((&json["scopes"][1]["scope"], &json["scopes"][1]["seen"]), (&"x".into(), &1.into()));
    assert!(json.get("file_bytes").is_none() && json.get("first_seen").is_some(), "{json}");
    let text = site.printed(&["stats", "--prometheus"]);
    assert!(text.contains("figures\",scope=\"x\",state=\"seen\"} 1"), "{text}");
    assert!(text.contains("seen_ids_expiring_within_hour") && !text.contains("bytes"), "{text}");
}

#[test]
fn an_export_of_a_cluster_is_imported_into_a_file() {
    needs_server!();
    let site = Site::new("exported");
    site.printed(&["mark", "a", "--version", "1"]);
    site.printed(&["mark", "b", "--scope", "x", "--ttl", "never"]);
    let export = site.printed(&["export"]);
    site.place.told_with_input(&["import", "-"], &export).assert(0, &[]);
    assert_eq!(ids(&site.place.printed(&["export"])), set(&["a", "b"]));
    site.place.printed(&["check", "a", "--version", "1"]);
    let csv = site.printed(&["export", "--format", "csv", "--scope", "x"]);
    assert_eq!(csv.lines().count(), 2, "{csv}");
}

#[test]
fn an_export_of_a_file_is_imported_into_a_cluster() {
    needs_server!();
    let site = Site::new("imported");
    site.place.printed(&["mark", "a", "--version", "1"]);
    site.place.printed(&["mark", "b", "--scope", "x", "--ttl", "never"]);
    let claimed = site.place.printed(&["claim", "c"]);
    assert!(!claimed.is_empty());
    let export = site.place.printed(&["export"]);
    let imported = site.told_with_input(&["import", "-", "--stats"], &export);
    imported.assert(0, &["added 3, changed 0, known 0, expired 0"]);
    assert_eq!(ids(&site.printed(&["export"])), set(&["a", "b", "c"]));
    site.printed(&["check", "a", "--version", "1"]);
    let again = site.told_with_input(&["import", "-", "--stats"], &export);
    again.assert(0, &["added 0, changed 0, known 3, expired 0"]);
    let lines = site.told_with_input(&["import", "-", "--stats"], "d\ne\n");
    lines.assert(0, &["added 2, changed 0, known 0, expired 0"]);
    site.printed(&["check", "e"]);
}

#[test]
fn old_entries_and_whole_scopes_are_removed_and_a_purge_finds_nothing_to_do() {
    needs_server!();
    let site = Site::new("removed");
    site.printed(&["mark", "a", "b", "c"]);
    site.printed(&["mark", "d", "--scope", "x"]);
    site.printed(&["claim", "e", "--scope", "x"]);
    assert_eq!(site.printed(&["purge"]), "0 removed\n");
    assert_eq!(site.printed(&["purge", "--dry-run"]), "0 to be removed\n");
    assert_eq!(site.printed(&["purge", "--older-than", "1h"]), "0 removed\n");
    assert_eq!(site.printed(&["forget", "--prefix", "a", "--dry-run"]), "1 to be forgotten\n");
    assert_eq!(site.printed(&["forget", "--prefix", "a"]), "1 forgotten\n");
    assert_eq!(site.printed(&["forget", "--all", "--scope", "x"]), "2 forgotten\n");
    assert_eq!(ids(&site.printed(&["list", "--json"])), set(&["b", "c"]));
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(site.printed(&["purge", "--older-than", "1s"]), "2 removed\n");
}
