//! What is kept after it has expired, and what is not removed before.

use seen_store::{SeenStore, Ttl};

use crate::common::{minute_store, secs, unix_ms};

#[test]
fn a_mark_that_was_refreshed_beyond_its_retention_is_not_purged_while_it_is_seen() {
    for longer in [Ttl::Never, secs(3_600).into()] {
        let (clock, store) = minute_store();
        store.retention(secs(120)).mark_seen("a").unwrap();
        store.ttl(longer).mark_seen("a").unwrap();
        clock.advance(secs(121));
        assert_eq!(store.count_expired().unwrap(), 0);
        assert_eq!(store.purge_expired().unwrap(), 0);
        assert!(store.is_seen("a"), "{longer:?}");
    }
}

#[test]
fn a_cleanup_leaves_what_was_turned_away_since() {
    let (clock, store) = minute_store();
    let store = store.ttl(Ttl::Never);
    store.mark_seen("a").unwrap();
    store.mark_seen("b").unwrap();
    clock.advance(secs(3_600));
    let _ = store.check_and_mark("a").unwrap();
    assert_eq!(store.cleanup_old_entries(secs(60)).unwrap(), 1);
    assert!(store.is_seen("a") && !store.is_seen("b"));
}

#[test]
fn a_time_before_1970_stays_when_nothing_was_turned_away() {
    let store = SeenStore::in_memory().unwrap().ttl(Ttl::Never);
    store.mark_seen_at("a", std::time::UNIX_EPOCH - secs(5)).unwrap();
    let last_seen = || unix_ms(store.get("a").unwrap().unwrap().last_seen);
    assert_eq!(last_seen(), -5_000);
    store.mark_seen_at("a", std::time::UNIX_EPOCH - secs(4)).unwrap();
    assert_eq!(last_seen(), -4_000);
}
