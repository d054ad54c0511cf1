//! Servers that stand still for a while.

use std::time::Duration;

use cluster_harness::{Cluster, Fault, Injected, Options, needs_server};
use seen_cluster::{AsyncClusterStore, ClusterStore};
use seen_store::{Claim, Config, ErrorKind, Filter, Verdict};

use super::{MINUTE, behind_proxies, ids_of, inject, now};

/// No server is taken for dead.
fn patient_cluster() -> Cluster {
    Cluster::start_with(&Options::new().node_timeout(MINUTE))
}

fn url(cluster: &Cluster) -> String {
    format!("{}?min_replicas=0", cluster.url())
}

#[test]
fn a_server_that_stood_still_while_a_store_was_opened_gives_no_second_lease() {
    needs_server!();
    let cluster = patient_cluster();
    let holder = ClusterStore::open(&url(&cluster)).unwrap();
    let ids: Vec<String> = ids_of(&cluster, cluster.node(0)).take(2).collect();
    holder.try_is_seen(&ids[0]).unwrap();
    cluster.node(0).pause();
    let url = url(&cluster);
    let opening = std::thread::spawn(move || ClusterStore::open(&url).unwrap());
    std::thread::sleep(Duration::from_millis(1_800));
    cluster.node(0).resume();
    let other = opening.join().unwrap();

    let lease = Duration::from_millis(700);
    let begun = now();
    let Claim::Granted(held) = holder.claim(&ids[0], lease).unwrap() else { panic!() };
    assert_eq!(holder.ttl(lease).check_and_mark(&ids[1]).unwrap(), Verdict::New);
    let (claim, verdict) =
        (other.claim(&ids[0], MINUTE).unwrap(), other.check_and_mark(&ids[1]).unwrap());
    if begun.elapsed() + Duration::from_millis(100) < lease {
        assert!(matches!(claim, Claim::InFlight { .. }), "{claim:?}");
        assert_eq!(verdict, Verdict::Duplicate);
    }
    held.into_token();
}

#[test]
fn a_lease_that_is_over_when_its_answer_comes_is_not_granted() {
    needs_server!();
    let cluster = patient_cluster();
    let store = ClusterStore::open(&url(&cluster)).unwrap();
    let id = ids_of(&cluster, cluster.node(0)).next().unwrap();
    store.try_is_seen(&id).unwrap();
    cluster.node(0).pause();
    let (claiming, claimed) = (store.clone(), id.clone());
    let lease = Duration::from_millis(500);
    let claim = std::thread::spawn(move || claiming.claim(&claimed, lease));
    std::thread::sleep(Duration::from_millis(2_800));
    cluster.node(0).resume();
    if let Claim::Granted(lease) = claim.join().unwrap().unwrap() {
        assert!(lease.is_held().unwrap());
        lease.into_token();
    }
}

#[test]
fn one_master_that_stands_still_keeps_no_store_from_opening() {
    needs_server!();
    let cluster = patient_cluster();
    for node in 0..3 {
        cluster.node(node).pause();
        let config = Config::default().busy_timeout(Duration::from_secs(10));
        let opened = ClusterStore::open_with(&url(&cluster), config);
        cluster.node(node).resume();
        opened.unwrap_or_else(|e| panic!("node {node}: {e}"));
    }
}

#[test]
fn stores_with_short_timeouts_find_the_new_master() {
    needs_server!();
    let cluster = Cluster::start_with(&Options::new().node_timeout(Duration::from_secs(1)));
    let config = Config::default().busy_timeout(Duration::from_secs(1));
    let store = ClusterStore::open_with(&url(&cluster), config).unwrap();
    let id = ids_of(&cluster, cluster.node(0)).next().unwrap();
    store.mark_seen(&id).unwrap();
    cluster.node(0).kill();
    cluster.wait_until_ok(Duration::from_secs(20));
    let answers: Vec<_> = (0..10).map(|_| store.try_is_seen(&id)).collect();
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(failed <= 3, "{answers:?}");
    assert!(store.try_is_seen(&id).unwrap());
}

#[test]
fn every_verb_ends_within_its_timeout_and_a_little() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&url(&cluster)).unwrap();
    let (limit, ids) = (Duration::from_millis(300), ["a", "b", "c", "d", "e"]);
    let short = store.busy_timeout(limit);
    let held = inject(&cluster, &Fault::hold_answer());
    let verbs: [(&str, &dyn Fn() -> Option<ErrorKind>); 10] = [
        ("try_is_seen", &|| short.try_is_seen("a").err().map(|e| e.kind())),
        ("check_and_mark", &|| short.check_and_mark("a").err().map(|e| e.kind())),
        ("check_and_mark_all", &|| short.check_and_mark_all(ids).err().map(|e| e.kind())),
        ("claim", &|| short.claim("a", MINUTE).err().map(|e| e.kind())),
        ("claim_all", &|| short.claim_all(ids, MINUTE).err().map(|e| e.kind())),
        ("seed", &|| short.seed(ids).err().map(|e| e.kind())),
        ("forget", &|| short.forget("a").err().map(|e| e.kind())),
        ("count", &|| short.count(Filter::default()).err().map(|e| e.kind())),
        ("stats", &|| short.stats().err().map(|e| e.kind())),
        ("remove", &|| short.remove(Filter::default()).err().map(|e| e.kind())),
    ];
    for (verb, call) in verbs {
        let begun = now();
        let kind = call();
        let took = begun.elapsed();
        let is_expected = matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::OutcomeUnknown));
        assert!(is_expected, "{verb}: {kind:?}");
        assert!(took < limit * 2, "{verb} took {took:?}");
    }
    held.iter().for_each(Injected::remove);
    assert_eq!(store.check_and_mark("z").unwrap(), Verdict::New);
}

#[test]
fn closing_takes_five_seconds_at_most() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&url(&cluster)).unwrap();
    store.mark_seen("a").unwrap();
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    let held = inject(&cluster, &Fault::hold_answer());
    let claiming = store.clone();
    let claim = std::thread::spawn(move || claiming.claim("b", MINUTE));
    while held.iter().all(|held| held.hits() == 0) {
        std::thread::yield_now();
    }
    let begun = now();
    store.close().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    held.iter().for_each(Injected::remove);
    drop(claim.join().unwrap());
}

#[test]
fn a_call_that_is_not_polled_while_it_asks_for_the_map_holds_up_no_other() {
    needs_server!();
    let cluster = behind_proxies();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("{}?min_replicas=0", cluster.url());
    let store = runtime.block_on(AsyncClusterStore::open(&url)).unwrap();
    let ids: Vec<String> = ids_of(&cluster, cluster.node(0)).take(2).collect();
    let slow = inject(&cluster, &Fault::delay_answer(Duration::from_millis(400)).on(&["CLUSTER"]));
    cluster.proxy(0).refuse_connections(true);
    cluster.proxy(0).cut_connections();
    std::thread::sleep(Duration::from_millis(50));
    let mut left = Box::pin(store.check_and_mark(&ids[0]));
    runtime.block_on(async {
        let polled = tokio::time::timeout(Duration::from_millis(150), &mut left).await;
        assert!(polled.is_err(), "its server cannot be reached");
    });
    let (other, id) = (store.clone(), ids[1].clone());
    let other = runtime.spawn(async move { other.check_and_mark(&id).await });
    std::thread::sleep(Duration::from_millis(300));
    cluster.proxy(0).refuse_connections(false);
    slow.iter().for_each(Injected::remove);
    let answered = async { tokio::time::timeout(Duration::from_secs(3), other).await };
    let verdict = runtime.block_on(answered).expect("it is answered soon").unwrap().unwrap();
    assert_eq!(verdict, Verdict::New);
    assert_eq!(runtime.block_on(left).unwrap(), Verdict::New);
}
