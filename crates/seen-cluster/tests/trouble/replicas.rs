//! Writes that too few replicas have.

use std::time::Duration;

use cluster_harness::{Cluster, Fault, Options, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{Claim, ErrorKind, Item, Resolution, Result, Verdict};

use super::{MINUTE, behind_proxies, calls, ids_of, master_of};

/// For how long a server waits for its replicas.
const WAITED: &str = "?wait_timeout_ms=100";

const UNKNOWN: Option<ErrorKind> = Some(ErrorKind::OutcomeUnknown);

fn failure<T>(call: Result<T>) -> Option<ErrorKind> {
    call.err().map(|e| e.kind())
}

#[test]
fn no_verb_is_acknowledged_without_a_replica_however_often_it_is_called() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().node_timeout(Duration::from_secs(60)));
    let store = ClusterStore::open(&format!("{}{WAITED}", cluster.url())).unwrap();
    let master = master_of(&cluster, "incident-0");
    let ids: Vec<String> = ids_of(&cluster, master).take(7).collect();
    let [forgotten, seeded, marked, checked, confirmed, released, resolved] = &ids[..] else {
        panic!("there are seven")
    };
    store.mark_seen(forgotten).unwrap();
    let claim = |id: &str| match store.claim(id, MINUTE).unwrap() {
        Claim::Granted(lease) => lease.into_token(),
        other => panic!("{other:?}"),
    };
    let (confirming, releasing) = (claim(confirmed), claim(released));
    let Claim::Granted(mut lease) = store.claim(resolved, MINUTE).unwrap() else { panic!() };
    lease.fail("503").unwrap();

    let replica = cluster.replica_of(master);
    replica.pause();
    let e = store.check_and_mark(checked).unwrap_err();
    assert!(e.to_string().contains("1 fewer replicas than min_replicas"), "{e}");
    let made = e.token().unwrap();
    assert_eq!(failure(store.release(released, &releasing)), UNKNOWN);
    // It is known to this store's master, and that is not told as done.
    assert_eq!(failure(store.release(released, &releasing)), Some(ErrorKind::LeaseLost));
    for time in 1..=2 {
        let verbs: [(&str, Option<ErrorKind>); 6] = [
            ("forget", failure(store.forget(forgotten))),
            ("seed", failure(store.seed([seeded]))),
            ("mark_seen", failure(store.mark_seen(marked))),
            ("check_and_mark", failure(store.check_and_mark(Item::new(checked).retry_of(made)))),
            ("confirm", failure(store.confirm(confirmed, &confirming))),
            ("resolve", failure(store.resolve(resolved, Resolution::Retry))),
        ];
        for (verb, failure) in verbs {
            assert_eq!(failure, UNKNOWN, "{verb}, the {time}. time");
        }
    }
    replica.resume();
    assert!(!store.forget(forgotten).unwrap());
    assert_eq!(store.seed([seeded]).unwrap(), 0);
    store.mark_seen(marked).unwrap();
    assert_eq!(store.check_and_mark(Item::new(checked).retry_of(made)).unwrap(), Verdict::New);
    store.confirm(confirmed, &confirming).unwrap();
}

#[test]
fn a_forget_whose_answer_is_lost_waits_for_a_replica_too() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&format!("{}{WAITED}", cluster.url())).unwrap();
    let master = master_of(&cluster, "incident-17");
    for id in ids_of(&cluster, master).take(2) {
        // From now on the server knows the script.
        store.mark_seen(&id).unwrap();
        assert!(store.forget(&id).unwrap());
    }
    store.mark_seen("incident-17").unwrap();
    let replica = cluster.replica_of(master);
    replica.pause();
    let lost = cluster.proxy_of(master).inject(Fault::lose_answer().on(&["EVALSHA"]).nth(1));
    let forgotten = store.forget("incident-17");
    assert_eq!(lost.hits(), 1);
    replica.resume();
    assert_eq!(failure(forgotten), UNKNOWN);
    assert!(!store.forget("incident-17").unwrap());
    assert_eq!(store.check_and_mark("incident-17").unwrap(), Verdict::New);
}

#[test]
fn a_forget_of_an_unknown_id_changes_something_that_can_be_waited_for() {
    needs_server!();
    let cluster = Cluster::start();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let sets = || calls(master_of(&cluster, "incident-17"), "set");
    let before = sets();
    assert!(!store.forget("incident-17").unwrap());
    assert_eq!(sets(), before + 1);
    assert!(!store.try_is_seen("incident-17").unwrap());
    // Where no replica is waited for, nothing is written.
    let alone = ClusterStore::open(&format!("{}?min_replicas=0", cluster.url())).unwrap();
    assert!(!alone.forget("incident-17").unwrap());
    assert_eq!(sets(), before + 1);
}
