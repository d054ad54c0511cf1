//! Children that are forked while a store on a cluster is open.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use cluster_harness::{Cluster, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{Claim, Filter};

use super::support_process::{
    Child, assert_forked, in_fork, role, say, test_of_this_file, variable,
};
use super::{MINUTE, now};

/// The parent of the forks, in a process of its own: no other test has threads in it.
#[test]
fn child() {
    if role().as_deref() != Some("parent") {
        return;
    }
    let url = variable("SEEN_TEST_URL");
    let store = ClusterStore::open(&url).unwrap();
    let Claim::Granted(mut lease) = store.claim("held", MINUTE).unwrap() else { panic!() };
    let token = lease.token();
    assert!(in_fork(|| {
        assert_forked("check_and_mark", store.check_and_mark("a"));
        assert_forked("check_and_mark_all", store.check_and_mark_all(["a", "b"]));
        assert_forked("try_is_seen", store.try_is_seen("a"));
        assert_forked("claim", store.claim("a", MINUTE));
        assert_forked("confirm", store.confirm("held", &token));
        assert_forked("count", store.count(Filter::default()));
        assert_forked("close", store.close());
    }));
    let mut inherited = Some((store.clone(), lease.token()));
    assert!(in_fork(|| drop(inherited.take())));
    let mut dropped = Some(ClusterStore::open(&url).unwrap());
    dropped.as_ref().unwrap().mark_seen("b").unwrap();
    assert!(in_fork(|| drop(dropped.take())));
    // The child took nothing from the parent.
    for store in [&store, dropped.as_ref().unwrap()] {
        for n in 0..20 {
            let begun = now();
            store.mark_seen(n.to_string()).unwrap();
            store.try_is_seen(n.to_string()).unwrap();
            assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
        }
    }
    lease.confirm().unwrap();
    assert!(in_fork(|| ClusterStore::open(&url).unwrap().mark_seen("own").unwrap()));
    say("done");
}

#[test]
fn a_forked_child_is_told_so_and_takes_nothing_from_its_parent() {
    needs_server!();
    let cluster = Cluster::start();
    let test = test_of_this_file("child");
    let mut parent = Child::spawn_test(&test, "parent", &[("SEEN_TEST_URL", cluster.url())]);
    assert_eq!(parent.hear().as_deref(), Some("done"));
}

/// Forks while its threads hold the locks of the store, now and then.
#[test]
fn busy_child() {
    if role().as_deref() != Some("busy") {
        return;
    }
    let store = ClusterStore::open(&variable("SEEN_TEST_URL")).unwrap();
    let renewing = store.renewing(MINUTE);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (renewing, is_over) = (&renewing, &is_over);
            threads.spawn(move || {
                for n in (0..).take_while(|_| !is_over.load(SeqCst)) {
                    drop(renewing.claim(format!("{thread} {n}"), Duration::from_millis(50)));
                    _ = renewing.count(Filter::default().scope("none"));
                }
            });
        }
        for n in 0..1_000 {
            let Claim::Granted(lease) = renewing.claim(format!("own {n}"), MINUTE).unwrap() else {
                panic!("{n}")
            };
            let mut inherited = Some(lease);
            assert!(in_fork(|| {
                for _ in 0..20 {
                    assert_forked("count", store.count(Filter::default()));
                    assert_forked("remove", store.remove(Filter::default()));
                    assert_forked("cleanup", store.cleanup_old_entries(MINUTE));
                }
                drop(inherited.take());
            }));
            inherited.unwrap().confirm().unwrap();
        }
        is_over.store(true, SeqCst);
    });
    say("done");
}

#[test]
fn a_forked_child_waits_for_no_lock_that_a_thread_of_its_parent_held() {
    needs_server!();
    let cluster = Cluster::start();
    let url = format!("{}?min_replicas=0", cluster.url());
    let test = test_of_this_file("busy_child");
    let mut parent = Child::spawn_test(&test, "busy", &[("SEEN_TEST_URL", url)]);
    assert_eq!(parent.hear().as_deref(), Some("done"));
}
