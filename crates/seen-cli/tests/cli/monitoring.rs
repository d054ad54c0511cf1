//! What Prometheus makes of `seen stats --prometheus`, and of the rules in `docs/`.
//!
//! Prometheus' own `promtool` is the judge. Where it is missing, the tests say so; with `SEEN_REQUIRE_PROMTOOL` in
//! the environment they fail.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use seen_store::{
    Abandoned, Claim, Clock as _, Config, Failure, ManualClock, SeenStore, State, SystemClock,
};

use crate::support::{Place, run};

const MONITORING: &str = include_str!("monitoring.md");
const ALERTS: &str = include_str!("alerts.yml");
const ALERTS_TEST: &str = include_str!("alerts.test.yml");

/// Asserts that `promtool ARGUMENTS...` has no complaint about this input. Returns false where it is missing.
fn promtool_accepts(place: &Place, arguments: &[&str], input: &str) -> bool {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).current_dir(place.folder());
    if let Err(e) = Command::new("promtool").arg("--version").output() {
        assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
        assert!(
            std::env::var_os("SEEN_REQUIRE_PROMTOOL").is_none(),
            "promtool is not installed (Debian's package prometheus has it), but required"
        );
        // Not by a macro, whose output a test that passes keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: promtool {arguments:?}: promtool is not installed (Debian: prometheus)"
        );
        return false;
    }
    let told = run(&mut promtool, input.as_bytes());
    let complaints = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{complaints}{}{input}", String::from_utf8_lossy(&told.stdout));
    // It warns of some things and succeeds all the same.
    assert_eq!(complaints, "", "{input}");
    true
}

/// Fills a store with ids in each state, in scopes with odd names.
fn fill(place: &Place) {
    let an_hour = Duration::from_secs(3_600);
    let clock = Arc::new(ManualClock::new(SystemClock.now() - an_hour));
    let store = SeenStore::open_with(place.db(), Config::default().clock(clock)).unwrap();
    let minute = Duration::from_secs(60);
    for scope in ["", "mail", "a \"quoted\" \\ one\r\nof two lines", "{}=,#", "\u{1f525} \u{7f}\0"]
    {
        let store = store.scope(scope);
        store.mark_seen("seen").unwrap();
        store.ttl(minute).mark_seen("expired").unwrap();
        let claim = |store: &SeenStore, id: &str, lease| match store.claim(id, lease).unwrap() {
            Claim::Granted(lease) => lease,
            other => panic!("{other:?}"),
        };
        let _ = claim(&store, "in flight", 24 * an_hour).into_token();
        claim(&store, "released", minute).release().unwrap();
        claim(&store, "failed", minute).fail("503").unwrap();
        claim(&store, "given up", minute).fail(Failure::new("404").is_final()).unwrap();
        let _ = claim(&store, "abandoned", minute).into_token();
        let _ = claim(&store.abandoned(Abandoned::Hold), "unresolved", minute).into_token();
    }
}

/// The names that begin so in the first column of the tables of `docs/monitoring.md` with a column of labels.
fn documented(prefix: &str) -> BTreeSet<&str> {
    let tables = MONITORING.split("\n\n").filter(|part| part.starts_with("| name |"));
    let names = tables.flat_map(str::lines).filter_map(|row| row.split('`').nth(1));
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn promtool_has_no_complaint_about_a_store_with_ids_in_each_state() {
    let place = Place::new();
    fill(&place);
    let told = place.printed(&["stats", "--prometheus"]);
    for state in State::ALL {
        let state = format!("{state:?}");
        let mut word = String::new();
        for c in state.chars() {
            if c.is_uppercase() && !word.is_empty() {
                word.push('-');
            }
            word.push(c.to_ascii_lowercase());
        }
        let of_state = |line: &&str| line.contains(&format!("state=\"{word}\"}}"));
        let counts: Vec<_> = told.lines().filter(of_state).collect();
        assert_eq!(counts.len(), 5, "{word}: {told}");
        assert!(counts.iter().all(|line| line.ends_with(" 1")), "{counts:?}");
    }
    promtool_accepts(&place, &["check", "metrics"], &told);
}

#[test]
fn promtool_has_no_complaint_about_an_empty_store() {
    let place = Place::new();
    place.store().close().unwrap();
    promtool_accepts(&place, &["check", "metrics"], &place.printed(&["stats", "--prometheus"]));
}

#[test]
fn the_figures_of_a_file_are_those_of_the_table() {
    let place = Place::new();
    fill(&place);
    place.store().purge_expired().unwrap();
    let told = place.printed(&["stats", "--prometheus"]);
    let names = told.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<_> = names.filter_map(|line| line.strip_suffix(" gauge")).collect();
    let mut documented = documented("seen_");
    documented.retain(|name| !name.starts_with("seen_store_"));
    assert_eq!(names, documented);
}

#[test]
fn the_alert_rules_fire_when_they_should_and_name_no_unknown_figure() {
    let place = Place::new();
    place.file("alerts.yml", ALERTS);
    place.file("alerts.test.yml", ALERTS_TEST);
    promtool_accepts(&place, &["check", "rules", "alerts.yml"], "");
    promtool_accepts(&place, &["test", "rules", "alerts.test.yml"], "");

    let documented = documented("seen_");
    let rules: Vec<&str> = ALERTS.lines().filter(|line| !line.trim().starts_with('#')).collect();
    let rules = rules.join("\n");
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let figures: BTreeSet<_> = words.filter(|word| word.starts_with("seen_")).collect();
    assert!(figures.len() >= 5, "{figures:?}");
    assert!(figures.is_subset(&documented), "{figures:?}");
    // Each rule is tested to fire.
    for rule in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = ALERTS_TEST
            .split("alertname: ")
            .any(|case| case.starts_with(&format!("{rule}\n")) && case.contains("exp_alerts:"));
        assert!(fires, "{rule}");
    }
}
