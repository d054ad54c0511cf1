//! What a store on a cluster gives to the program's recorder. `docs/monitoring.md` says what the figures mean.
#![cfg(all(unix, feature = "metrics"))]

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_harness::{Cluster, needs_server};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use seen_cluster::ClusterStore;
use seen_store::{Claim, Store};

const MINUTE: Duration = Duration::from_secs(60);

fn act(store: &dyn Store) {
    for id in ["a", "a", "b"] {
        let _ = store.check_and_mark(id.into()).unwrap();
    }
    for (id, confirms) in [("c", true), ("d", false)] {
        let Claim::Granted(mut lease) = store.claim(id.into(), MINUTE).unwrap() else {
            panic!("{id}")
        };
        if confirms { lease.confirm().unwrap() } else { lease.fail("503").unwrap() }
    }
    assert!(matches!(store.claim("a".into(), MINUTE).unwrap(), Claim::Seen(_)));
    assert!(!store.is_seen("".into()));
}

#[test]
fn the_figures_are_those_of_a_file_without_what_only_a_file_has() {
    needs_server!();
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    recorder.install().unwrap();
    let cluster = Cluster::start();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    act(&store);
    store.close().unwrap();
    let (mut counts, mut histograms) = (BTreeMap::new(), BTreeMap::new());
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
        let name = key.key().name().trim_start_matches("seen_store_");
        let name = [&[name.to_owned()], &*labels].concat().join(" ");
        match value {
            DebugValue::Counter(count) => drop(counts.insert(name, count)),
            DebugValue::Histogram(values) => drop(histograms.insert(name, values)),
            DebugValue::Gauge(_) => panic!("{name}"),
        }
    }
    let commits = counts.remove("commits_total").unwrap();
    // Two marks, two claims and their ends; what is refused asks by a command that would write; and the counts.
    assert!((6..20).contains(&commits), "{commits}");
    assert_eq!(histograms["group_calls"].len() as u64, commits);
    assert!(histograms["commit_seconds"].is_empty() && histograms["wait_seconds"].is_empty());
    counts.retain(|_, count| *count > 0);
    let told: Vec<_> = counts.iter().map(|(name, count)| (&**name, *count)).collect();
    assert_eq!(
        told,
        [
            ("claims_ended_total confirmed", 1),
            ("claims_ended_total failed", 1),
            ("claims_total granted", 2),
            ("claims_total seen", 1),
            ("failed_open_total", 1),
            ("verdicts_total duplicate", 1),
            ("verdicts_total new", 2),
        ]
    );
}
