//! What a store counts since it was opened, and what it gives to the program's recorder.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use seen_store::{
    Abandoned, Activity, Claim, Config, ErrorKind, Failure, Item, Lease, SeenStore, Verdict,
};

use crate::common::{Place, clock_and_config, ms, secs};
use crate::support_group::{Call, Watch, as_one_group};

fn granted(store: &SeenStore, id: &str) -> Lease {
    match store.claim(id, secs(10)).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// Lets a store do each thing that is counted, other than by groups, and returns what it has counted.
fn everything() -> Activity {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)).purge_interval(None).busy_timeout(ms(5)));

    // Verdicts: 4 new, 1 changed, 5 duplicates, 3 in flight.
    let _ = store.check_and_mark("a").unwrap();
    let _ = store.check_and_mark("a").unwrap();
    let _ = store.check_and_mark_all(["a", "b", "c", "d", "b", "c"]).unwrap();
    let _ = store.check_and_mark(Item::new("d").version("1")).unwrap();
    let _ = store.check_and_mark(Item::new("d").version("2")).unwrap();
    let held = granted(&store, "held");
    let _ = store.check_and_mark("held").unwrap();
    let _ = store.check_and_mark_all(["held", "held"]).unwrap();

    // Refused claims: 3 seen, 2 in flight.
    assert!(matches!(store.claim("a", secs(1)).unwrap(), Claim::Seen(_)));
    for claim in store.claim_all(["a", "b", "held"], secs(1)).unwrap() {
        assert!(!matches!(claim, Claim::Granted(_)));
    }
    let waited = store.waiting(ms(1)).claim("held", secs(1)).unwrap();
    assert!(matches!(waited, Claim::InFlight { .. }));

    // Ends: 3 confirmed, 2 failed, 3 released. A renewal is no end.
    let mut lease = granted(&store, "confirmed");
    lease.renew(secs(20)).unwrap();
    lease.confirm().unwrap();
    let pair = [("x", granted(&store, "x").into_token()), ("y", granted(&store, "y").into_token())];
    let _ = store.confirm_all(pair).unwrap();
    granted(&store, "failed").fail("503").unwrap();
    granted(&store, "given up").fail(Failure::new("404").is_final()).unwrap();
    drop(granted(&store, "dropped"));
    granted(&store, "released").release().unwrap();
    let _ = store.release_all([("z", granted(&store, "z").into_token())]).unwrap();
    assert!(matches!(store.claim("given up", secs(1)).unwrap(), Claim::GivenUp { .. }));

    // Two vanished holders: one id is granted anew, and one is held and asked for twice. 2 calls are lost.
    let late = held.into_token();
    let holding = store.abandoned(Abandoned::Hold);
    let _ = granted(&holding, "unresolved").into_token();
    clock.advance(secs(10));
    let _ = granted(&store, "held").into_token();
    assert_eq!(store.release("held", &late).unwrap_err().kind(), ErrorKind::LeaseLost);
    let _ = store.renew_all([("held", late)], secs(1)).unwrap();
    for _ in 0..2 {
        let claim = store.claim("unresolved", secs(1)).unwrap();
        assert!(matches!(claim, Claim::Unresolved { .. }));
    }

    // An error that is answered "not seen", and a wait in vain.
    assert!(!store.is_seen(""));
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.mark_seen("e").unwrap_err().kind(), ErrorKind::Busy);
    other.execute_batch("ROLLBACK").unwrap();

    // A rebuild: the newest row goes without a trace. It is the mark of "y".
    other.execute("DELETE FROM seen WHERE seq = (SELECT max(seq) FROM seen)", []).unwrap();
    assert!(!store.is_seen("never"));

    // Six marks expire. So do the attempts that are remembered for a TTL, each but the held one.
    clock.advance(secs(200));
    assert_eq!(store.purge_expired().unwrap(), 6);
    store.stats().unwrap().since_opened
}

/// Lets three calls of one store share a commit.
fn a_group() -> Activity {
    let place = Place::in_ram();
    let watch = Arc::new(Watch::default());
    let store = place.open(Config::default().clock(watch.clone()).purge_interval(None));
    let call = |id| -> Call<'_, Verdict> {
        let store = &store;
        Box::new(move || store.check_and_mark(id).unwrap())
    };
    let answers = as_one_group(place.sql(), &watch, ["a", "b", "c"].map(call).into(), || {});
    assert_eq!(answers, [Verdict::New; 3]);
    store.stats().unwrap().since_opened
}

#[test]
fn a_store_counts_what_it_answered_and_what_it_met_since_it_was_opened() {
    let told = everything();
    assert_eq!((told.new, told.changed), (4, 1), "{told:?}");
    assert_eq!((told.duplicates, told.in_flight), (5, 3), "{told:?}");
    assert_eq!((told.claims_granted, told.claims_abandoned), (11, 1), "{told:?}");
    assert_eq!((told.claims_seen, told.claims_in_flight), (3, 2), "{told:?}");
    assert_eq!((told.claims_unresolved, told.claims_given_up), (2, 1), "{told:?}");
    let ends = (told.claims_confirmed, told.claims_failed, told.claims_released);
    assert_eq!((ends, told.claims_lost), ((3, 2, 3), 2), "{told:?}");
    assert_eq!(told.failed_open, 1);
    let errors: Vec<_> = told.errors.iter().map(|(kind, count)| (*kind, *count)).collect();
    assert_eq!(errors, [(ErrorKind::Busy, 1), (ErrorKind::LeaseLost, 1)]);
    assert_eq!(told.waits, 1);
    assert!(told.waited > Duration::ZERO && told.waited < secs(60), "{told:?}");
    assert_eq!(told.rebuilds, 1);
    assert_eq!((told.groups, told.grouped_calls, told.largest_group), (0, 0, 0));
    assert!(told.purged >= 6, "{told:?}");
}

#[test]
fn what_changes_nothing_is_no_commit() {
    let store = SeenStore::in_memory().unwrap();
    let commits = || store.stats().unwrap().since_opened.commits;
    let begun = commits();
    let _ = store.check_and_mark("a").unwrap();
    let _ = store.check_and_mark_all(["b", "c"]).unwrap();
    assert_eq!(commits() - begun, 2);
    let _ = store.check_and_mark("a").unwrap();
    let _ = store.check_and_mark_all(["b", "c"]).unwrap();
    let _ = store.forget("d").unwrap();
    let _ = store.purge_expired().unwrap();
    // The counts of duplicates, which a purge writes.
    assert_eq!(commits() - begun, 3);
}

#[test]
fn calls_that_share_a_commit_are_counted_as_a_group() {
    let told = a_group();
    assert_eq!((told.groups, told.grouped_calls, told.largest_group), (1, 3, 3), "{told:?}");
    assert_eq!(told.new, 3);
    // Each call may have tried to lead the group.
    assert!((1..=3).contains(&told.waits) && told.waited > Duration::ZERO, "{told:?}");
}

#[test]
fn what_many_threads_ask_at_once_is_counted_completely() {
    let store = SeenStore::in_memory().unwrap();
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for n in 0..500 {
                    let _ = store.check_and_mark((n % 50).to_string()).unwrap();
                }
            });
        }
    });
    let told = store.stats().unwrap().since_opened;
    assert_eq!((told.new, told.duplicates), (50, 4 * 500 - 50));
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::collections::{BTreeMap, BTreeSet};

    use metrics::Unit;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::{a_group, everything};

    /// What is known of one name: its kind, its unit, and its labels.
    #[derive(Debug, Default, PartialEq)]
    struct Metric {
        kind: &'static str,
        is_seconds: bool,
        labels: BTreeMap<String, BTreeSet<String>>,
    }

    /// The table of `docs/monitoring.md`. A label whose values it does not list has none here.
    fn documented() -> BTreeMap<String, Metric> {
        let page = include_str!("../../docs/monitoring.md");
        let rows = page.lines().filter(|line| line.starts_with("| `seen_store_"));
        let rows = rows.map(|row| row.trim_matches('|').split('|').map(str::trim));
        let table = rows.filter_map(|mut cells| {
            let name = cells.next()?.trim_matches('`').to_owned();
            let kind = match cells.next()? {
                "counter" => "counter",
                "histogram" => "histogram",
                _ => return None, // The table of what to watch.
            };
            let is_seconds = cells.next()? == "seconds";
            let mut labels = BTreeMap::new();
            if let Some((label, values)) = cells.next()?.split_once(':') {
                let words = values.split('`').skip(1).step_by(2).map(str::to_owned);
                labels.insert(label.trim_matches('`').to_owned(), words.collect());
            }
            Some((name, Metric { kind, is_seconds, labels }))
        });
        table.collect()
    }

    #[test]
    fn the_recorder_is_given_what_the_table_says_and_nothing_else() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let told = metrics::with_local_recorder(&recorder, || {
            let _ = a_group();
            everything()
        });
        let mut given: BTreeMap<String, Metric> = BTreeMap::new();
        let (mut counts, mut seconds) = (BTreeMap::new(), BTreeMap::new());
        for (key, unit, text, value) in snapshotter.snapshot().into_vec() {
            let name = key.key().name().to_owned();
            let metric = given.entry(name.clone()).or_default();
            metric.is_seconds = unit == Some(Unit::Seconds);
            assert!(unit.is_some() && text.is_some(), "{name} is not described");
            let mut series = name.clone();
            for label in key.key().labels() {
                let values = metric.labels.entry(label.key().to_owned()).or_default();
                values.insert(label.value().to_owned());
                series.push(' ');
                series.push_str(label.value());
            }
            let happened;
            (metric.kind, happened) = match value {
                DebugValue::Counter(count) => {
                    counts.insert(series.clone(), count);
                    ("counter", count > 0)
                }
                DebugValue::Histogram(all) => {
                    seconds.insert(series.clone(), all.iter().map(|v| v.0).sum::<f64>());
                    ("histogram", !all.is_empty())
                }
                DebugValue::Gauge(_) => panic!("{name}"),
            };
            // Of the kinds of errors only some happened.
            assert!(happened || name == "seen_store_errors_total", "{series} stays at 0");
        }
        let mut documented = documented();
        // Of the kinds of errors, the table has an example.
        let errors = "seen_store_errors_total";
        let example = documented.get_mut(errors).unwrap().labels.remove("kind").unwrap();
        let kinds = given.get_mut(errors).unwrap().labels.remove("kind").unwrap();
        assert!(example.contains("storage_full") && kinds.contains("storage_full"));
        assert_eq!(given, documented);

        // The same as the store itself tells.
        assert_eq!(counts["seen_store_errors_total busy"], 1);
        assert_eq!(counts["seen_store_verdicts_total duplicate"], told.duplicates);
        assert_eq!(counts["seen_store_claims_ended_total lost"], told.claims_lost);
        assert_eq!(counts["seen_store_purged_total"], told.purged);
        assert!(seconds["seen_store_wait_seconds"] >= told.waited.as_secs_f64());
        assert!(seconds["seen_store_commit_seconds"] > 0.0);
    }
}
