//! How long an entry is alive: TTLs, refreshes and times that the caller gives, at their borders.

use std::time::{Duration, SystemTime};

use seen_store::{Clock, Config, SeenStore, Ttl, Verdict};

use crate::common::{Place, manual_store, minute_store, ms, rows, secs, unix_ms};

/// The latest instant that an entry can expire at.
const LAST_MS: u64 = (1 << 48) - 2;

fn expiry(store: &SeenStore, id: &str) -> Option<SystemTime> {
    store.get(id).unwrap().unwrap().expires_at
}

#[test]
fn an_entry_is_alive_one_millisecond_before_its_expiry_and_gone_at_it() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    let other = place.open(Config::default().clock(clock.clone()));
    store.mark_seen("a").unwrap();
    clock.advance(ms(59_999));
    for store in [&store, &other] {
        assert!(store.is_seen("a"));
        assert!(store.get("a").unwrap().is_some());
    }
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    clock.advance(ms(1));
    for store in [&store, &other] {
        assert!(!store.is_seen("a"));
        assert_eq!(store.get("a").unwrap(), None);
    }
    assert!(!store.forget("a").unwrap());
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn an_entry_that_expired_while_the_store_was_closed_is_gone_when_it_opens() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.mark_seen("a").unwrap();
    drop(store);
    clock.advance(ms(59_999));
    let config = Config::default().clock(clock.clone());
    assert!(place.open(config.clone()).is_seen("a"));
    clock.advance(ms(1));
    for purge in [false, true] {
        assert!(!place.open(config.clone().purge_on_open(purge)).is_seen("a"));
    }
}

#[test]
fn a_refresh_moves_the_expiry_forward() {
    let (clock, store) = minute_store();
    let start = clock.now();
    store.mark_seen("a").unwrap();
    clock.advance(secs(30));
    store.mark_seen("a").unwrap();
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!(entry.first_seen, start);
    assert_eq!(entry.last_seen, start + secs(30));
    assert_eq!(entry.expires_at, Some(start + secs(90)));
    clock.set(start + ms(89_999));
    assert!(store.is_seen("a"));
    clock.advance(ms(1));
    assert!(!store.is_seen("a"));
}

#[test]
fn a_refresh_with_a_shorter_ttl_never_shortens() {
    let (clock, store) = minute_store();
    store.mark_seen("a").unwrap();
    let expires_at = expiry(&store, "a");
    clock.advance(secs(1));
    store.ttl(secs(5)).mark_seen("a").unwrap();
    assert_eq!(expiry(&store, "a"), expires_at);
    assert_eq!(store.get("a").unwrap().unwrap().last_seen, clock.now());
    store.ttl(Ttl::Never).mark_seen("a").unwrap();
    assert_eq!(expiry(&store, "a"), None);
    store.mark_seen("a").unwrap();
    assert_eq!(expiry(&store, "a"), None);
}

#[test]
fn a_duplicate_is_not_extended() {
    let (clock, store) = minute_store();
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    let before = store.get("a").unwrap().unwrap();
    clock.advance(secs(30));
    assert_eq!(store.ttl(secs(3600)).check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert_eq!(store.check_and_mark_all(["a"]).unwrap(), [Verdict::Duplicate]);
    assert_eq!(store.seed(["a"]).unwrap(), 0);
    let after = store.get("a").unwrap().unwrap();
    assert_eq!((after.last_seen, after.expires_at), (clock.now(), before.expires_at));
    clock.advance(secs(30));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn a_mark_at_a_time_expires_one_ttl_after_that_time() {
    let (clock, store) = minute_store();
    let now = clock.now();
    store.mark_seen_at("past", now - ms(59_999)).unwrap();
    store.mark_seen_at("long past", now - secs(60)).unwrap();
    store.mark_seen_at("future", now + secs(60)).unwrap();
    assert!(store.is_seen("past"));
    assert!(!store.is_seen("long past"));
    // Marked by a feed whose clock is ahead: seen from now on, not only from then.
    assert!(store.is_seen("future"));
    clock.advance(ms(119_999));
    assert!(!store.is_seen("past"));
    assert!(store.is_seen("future"));
    clock.advance(ms(1));
    assert!(!store.is_seen("future"));
}

#[test]
fn a_mark_at_a_time_moves_first_seen_back_only_and_the_rest_forward_only() {
    let (clock, store) = minute_store();
    let now = clock.now();
    store.mark_seen("a").unwrap();
    store.mark_seen_at("a", now - secs(600)).unwrap();
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!(entry.first_seen, now - secs(600));
    assert_eq!(entry.last_seen, now);
    assert_eq!(entry.expires_at, Some(now + secs(60)));
    store.mark_seen_at("a", now + secs(10)).unwrap();
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!(entry.first_seen, now - secs(600));
    assert_eq!(entry.last_seen, now + secs(10));
    assert_eq!(entry.expires_at, Some(now + secs(70)));
}

#[test]
fn a_mark_before_1970_is_kept_for_ever_or_not_at_all_as_its_ttl_says() {
    let place = Place::new();
    let (_, store) = manual_store(&place, secs(60));
    let moon = SystemTime::UNIX_EPOCH - secs(14_182_940);
    store.mark_seen_at("a", moon).unwrap();
    assert!(!store.is_seen("a"));
    store.ttl(Ttl::Never).mark_seen_at("b", moon).unwrap();
    drop(store);
    let store = place.open(Config::default());
    assert!(!store.is_seen("a"));
    assert_eq!(store.get("b").unwrap().unwrap().first_seen, moon);
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn a_ttl_of_zero_is_expired_at_once() {
    let (_, store) = minute_store();
    let store = store.ttl(Duration::ZERO);
    store.mark_seen("a").unwrap();
    assert!(!store.is_seen("a"));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    // On a live id it is a refresh, which never shortens.
    store.ttl(secs(60)).mark_seen("b").unwrap();
    store.mark_seen("b").unwrap();
    assert!(store.is_seen("b"));
}

#[test]
fn a_ttl_of_never_outlives_every_clock() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.ttl(Ttl::Never).mark_seen("a").unwrap();
    clock.set(SystemTime::UNIX_EPOCH + ms(LAST_MS + 10));
    assert!(store.is_seen("a"));
    assert_eq!(expiry(&store, "a"), None);
    store.purge_expired().unwrap();
    drop(store);
    assert!(place.open(Config::default().clock(clock)).is_seen("a"));
}

#[test]
fn a_ttl_that_overflows_saturates() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, Duration::MAX);
    store.mark_seen("a").unwrap();
    let far = clock.now() + Duration::from_secs(24 * 365 * 8_000 * 3_600);
    store.mark_seen_at("b", far).unwrap();
    let last = SystemTime::UNIX_EPOCH + ms(LAST_MS);
    assert_eq!(expiry(&store, "a"), Some(last));
    assert_eq!(expiry(&store, "b"), Some(last));
    drop(store);
    let store = place.open(Config::default().clock(clock.clone()));
    clock.set(last - ms(1));
    assert!(store.is_seen("a"));
    clock.set(last);
    assert!(!store.is_seen("a"));
}

#[test]
fn a_ttl_of_less_than_a_millisecond_is_not_zero() {
    let (clock, store) = minute_store();
    store.ttl(Duration::from_nanos(1)).mark_seen("a").unwrap();
    assert!(store.is_seen("a"));
    clock.advance(ms(1));
    assert!(!store.is_seen("a"));
}

#[test]
fn a_clock_set_back_a_minute_revives_nothing_and_stands_still() {
    let (clock, store) = minute_store();
    let start = clock.now();
    store.mark_seen("a").unwrap();
    clock.advance(secs(60));
    assert!(!store.is_seen("a"));
    clock.set(start);
    assert!(!store.is_seen("a"));
    store.mark_seen("b").unwrap();
    assert_eq!(store.get("b").unwrap().unwrap().first_seen, start + secs(60));
}

#[test]
fn a_clock_set_back_more_than_a_minute_is_followed() {
    let (clock, store) = minute_store();
    let start = clock.now();
    clock.advance(ms(60_001));
    store.mark_seen("a").unwrap();
    clock.set(start);
    store.mark_seen("b").unwrap();
    assert_eq!(store.get("b").unwrap().unwrap().first_seen, start);
    assert!(store.is_seen("a"));
}

#[test]
fn times_in_the_file_are_unix_milliseconds() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.mark_seen("a").unwrap();
    let now = unix_ms(clock.now());
    let row = rows(&place.sql()).pop().unwrap();
    assert_eq!((row.first_seen, row.last_seen, row.expires_at), (now, now, Some(now + 60_000)));
}
