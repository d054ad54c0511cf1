//! Keys of other programs in the namespace, and URLs that are none.

use std::time::Duration;

use cluster_harness::{Cluster, needs_server};
use seen_cluster::{ClusterStore, open_url_with};
use seen_store::{Config, Entry, ErrorKind, Filter, Item, SeenStore, State, Verdict};

use super::{MINUTE, master_of};

fn put(cluster: &Cluster, key: &str, command: &[&str]) {
    let node = cluster.master_of_slot(cluster.slot_of(key));
    let reply = node.command(&[&command[..1], &[key], &command[1..]].concat());
    assert!(!reply.is_error(), "{}", reply.text());
}

#[test]
fn keys_of_other_programs_spoil_no_listing_and_are_left_alone() {
    needs_server!();
    let cluster = Cluster::start();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    store.mark_seen("incident-17").unwrap();
    put(&cluster, "seen{}:no-id", &["RPUSH", "1"]);
    put(&cluster, "seen{}::a-list", &["RPUSH", "1"]);
    put(&cluster, "seen{}::a-text", &["SET", "hello"]);
    put(&cluster, "seen{}::newer", &["SET", "\u{2}hello"]);
    put(&cluster, "seen2{}::other", &["SET", "hello"]);
    assert_eq!(store.count(Filter::default()).unwrap(), 1);
    assert_eq!(store.stats().unwrap().seen, 1);
    let listed: Vec<_> = store.entries(Filter::default()).map(Result::unwrap).collect();
    assert_eq!(listed.len(), 1);
    assert_eq!(store.cleanup_old_entries(MINUTE).unwrap(), 0);
    for id in ["a-list", "a-text", "newer"] {
        let e = store.check_and_mark(id).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NewerVersion), "{id}: {e}");
        assert!(store.forget(id).is_err(), "{id}");
    }
    let keys: i64 = (0..3).map(|n| cluster.node(n).command(&["DBSIZE"]).int().unwrap()).sum();
    assert_eq!(keys, 6);
}

#[test]
fn an_entry_whose_key_cannot_be_read_is_left_out_of_a_restore_alone() {
    needs_server!();
    let cluster = Cluster::start();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    put(&cluster, "seen{}::newer", &["SET", "\u{7f}hello"]);
    let from = SeenStore::in_memory().unwrap();
    assert_eq!(from.seed(["a", "newer", "b"]).unwrap(), 3);
    let entries: Vec<_> = from.entries(Filter::default()).map(Result::unwrap).collect();
    let restored = store.restore(entries).unwrap();
    let refused: Vec<_> = restored.refused.iter().map(|refused| &*refused.id).collect();
    assert_eq!(refused, [b"newer"]);
    assert!(store.try_is_seen("a").unwrap() && store.try_is_seen("b").unwrap());
}

#[test]
fn a_url_that_is_spelled_otherwise_makes_no_file_and_shows_no_password() {
    for url in [
        "Redis://bot:hunter2@127.0.0.1:1/x",
        "REDISS://bot:hunter2@127.0.0.1:1/x",
        " redis://bot:hunter2@127.0.0.1:1/x",
        "redis+cluster://bot:hunter2@127.0.0.1:1/x",
        "redis-cluster://bot:hunter2@127.0.0.1:1/x",
        "redis:/bot:hunter2@127.0.0.1:1/x",
        "redis://bot:hunter2@127.0.0.1:1/ns?min_replicas=x",
        "redis://bot:hunter2@127.0.0.1:1/ns?password=hunter2",
        "redis://127.0.0.1:1/?auth=hunter2",
        "redis://127.0.0.1:1/?hunter2",
        "rediss://bot:hunter2@127.0.0.1:1/x",
    ] {
        let config = Config::default().busy_timeout(Duration::from_millis(100));
        let e = open_url_with(url, config).map(drop).expect_err(url);
        let text = format!("{e} {e:?}");
        assert!(!text.contains("hunter2"), "{url}: {text}");
    }
}

#[test]
fn a_key_of_another_type_is_told_by_its_own_error_and_stops_no_other() {
    needs_server!();
    let cluster = Cluster::start();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let pushed = master_of(&cluster, "b").command(&["RPUSH", "seen{}::b", "1"]);
    assert!(!pushed.is_error(), "{pushed:?}");
    let e = store.check_and_mark_all(["a", "b", "c"]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    let again = ["a", "c"].map(|id| Item::new(id).retry_of(e.token()));
    assert_eq!(store.check_and_mark_all(again).unwrap(), [Verdict::New; 2]);
    let entries = ["d", "b", "e"].map(|id| {
        let mut entry = Entry::new("", id, std::time::UNIX_EPOCH);
        entry.state = State::Seen;
        entry
    });
    let restored = store.restore(entries).unwrap();
    // One that was written before the bad one was met is unchanged when it is restored alone.
    let [refused] = &restored.refused[..] else { panic!("{restored:?}") };
    assert_eq!((&*refused.id, restored.added + restored.unchanged), (&b"b"[..], 2));
    assert!(store.is_seen("d") && store.is_seen("e"));
}
