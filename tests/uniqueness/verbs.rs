//! Each verb at its borders, on a clock that the test steps.
#![expect(clippy::disallowed_methods, reason = "one test waits for a thread, up to a deadline")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use seen_store::{Clock, Config, ErrorKind, ManualClock, SeenStore, Ttl, Verdict};

use crate::common::{Place, clock_and_config, manual_store, marks, ms, rows, secs, unix_ms};

/// The latest instant that an entry can expire at.
const LAST_MS: u64 = (1 << 48) - 2;

/// A store in memory whose marks last a minute.
fn minute_store() -> (Arc<ManualClock>, SeenStore) {
    let (clock, config) = clock_and_config();
    (clock, SeenStore::in_memory_with(config.ttl(secs(60))).unwrap())
}

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
    assert_eq!((after.last_seen, after.expires_at), (before.last_seen, before.expires_at));
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
fn odd_ids_are_told_apart_and_survive_a_restart() {
    let long = vec![b'x'; 65_536];
    let mut almost_long = long.clone();
    almost_long[65_535] = b'y';
    let ids: Vec<Vec<u8>> = vec![
        b"a".to_vec(),
        b"A".to_vec(),
        b"a ".to_vec(),
        b" a".to_vec(),
        b"a\0".to_vec(),
        b"a\0b".to_vec(),
        b"\0".to_vec(),
        b"\xff".to_vec(),
        b"\xff\0".to_vec(),
        // One letter, composed and not.
        "\u{e9}".into(),
        "e\u{301}".into(),
        // What a column with number affinity would take for one.
        b"1".to_vec(),
        b"1.0".to_vec(),
        b"01".to_vec(),
        b"1e0".to_vec(),
        b"NULL".to_vec(),
        b"x'61'".to_vec(),
        long,
        almost_long,
        vec![b'x'; 65_535],
    ];
    let place = Place::new();
    let store = place.open(Config::default());
    for (done, id) in ids.iter().enumerate() {
        assert_eq!(store.check_and_mark(id).unwrap(), Verdict::New);
        assert!(ids[done + 1..].iter().all(|other| !store.is_seen(other)));
    }
    drop(store);
    let store = place.open(Config::default());
    for id in &ids {
        assert_eq!(&store.get(id).unwrap().unwrap().id, id);
    }
    assert!(store.verify().unwrap().is_ok());
    for (done, id) in ids.iter().enumerate() {
        assert!(store.forget(id).unwrap());
        assert!(ids[done + 1..].iter().all(|other| store.is_seen(other)));
    }
}

#[test]
fn an_id_is_kept_as_text_where_it_is_utf_8_and_as_bytes_elsewhere() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("text").unwrap();
    store.mark_seen(b"\xff").unwrap();
    let connection = place.sql();
    let kinds: Vec<String> = connection
        .prepare("SELECT typeof(id) FROM seen ORDER BY seq")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(kinds, ["text", "blob"]);
}

#[test]
fn an_empty_id_and_one_of_more_than_64_kib_are_refused_by_every_verb() {
    let (_, store) = minute_store();
    for id in [vec![], vec![b'x'; 65_537]] {
        let kinds = [
            store.try_is_seen(&id).map(drop),
            store.mark_seen(&id),
            store.mark_seen_at(&id, SystemTime::UNIX_EPOCH),
            store.check_and_mark(&id).map(drop),
            store.check_and_mark_all([&id]).map(drop),
            store.seed([&id]).map(drop),
            store.forget(&id).map(drop),
            store.get(&id).map(drop),
        ]
        .map(|outcome| outcome.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::InvalidId; 8]);
        assert!(!store.is_seen(&id));
    }
    assert_eq!(store.stats().unwrap().seen, 0);
}

#[test]
fn ids_of_different_scopes_have_nothing_to_do_with_each_other() {
    let place = Place::new();
    let store = place.open(Config::default());
    let (discord, mail) = (store.scope("discord"), store.scope("mail"));
    assert_eq!(discord.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(mail.check_and_mark("a").unwrap(), Verdict::New);
    assert!(!store.is_seen("a"));
    assert!(!store.scope("Discord").is_seen("a"));
    // The border between scope and id counts.
    assert!(!store.scope("discorda").is_seen("a"));
    assert!(!store.is_seen("discorda"));
    assert!(discord.forget("a").unwrap());
    assert!(mail.is_seen("a"));
    assert_eq!(mail.get("a").unwrap().unwrap().scope, "mail");
    // A scope replaces the one before it.
    assert!(discord.scope("mail").is_seen("a"));
    drop((store, discord, mail));
    let store = place.open(Config::default());
    assert!(store.scope("mail").is_seen("a"));
    assert!(!store.scope("discord").is_seen("a"));
}

#[test]
fn of_equal_ids_in_a_batch_the_first_is_the_new_one() {
    use Verdict::{Duplicate, New};
    let (_, store) = minute_store();
    store.mark_seen("old").unwrap();
    assert_eq!(
        store.check_and_mark_all(["a", "b", "a", "old", "a", "c", "b"]).unwrap(),
        [New, New, Duplicate, Duplicate, Duplicate, New, Duplicate]
    );
    assert!(store.check_and_mark_all(Vec::<String>::new()).unwrap().is_empty());
}

#[test]
fn a_batch_of_more_ids_than_one_commit_takes_has_a_verdict_for_each() {
    let place = Place::new();
    let store = place.open(Config::default());
    // Equal ids lie 20,000 apart, so in different commits.
    let ids: Vec<_> = (0..25_000).map(|number| format!("id-{}", number % 20_000)).collect();
    let verdicts = store.check_and_mark_all(&ids).unwrap();
    assert_eq!(verdicts.len(), 25_000);
    assert!(verdicts[..20_000].iter().all(|verdict| *verdict == Verdict::New));
    assert!(verdicts[20_000..].iter().all(|verdict| *verdict == Verdict::Duplicate));
    assert_eq!(marks(&place.sql()).len(), 20_000);
}

#[test]
fn an_invalid_id_anywhere_in_a_batch_marks_none() {
    let place = Place::new();
    let store = place.open(Config::default());
    let mut ids: Vec<_> = (0..15_000).map(|number| format!("id-{number}")).collect();
    ids.push(String::new());
    assert_eq!(store.check_and_mark_all(&ids).unwrap_err().kind(), ErrorKind::InvalidId);
    assert_eq!(store.seed(&ids).unwrap_err().kind(), ErrorKind::InvalidId);
    assert!(!store.is_seen("id-0"));
    assert_eq!(rows(&place.sql()), []);
}

#[test]
fn seeding_marks_all_alerts_none_and_counts_the_new_ones() {
    let (_, store) = minute_store();
    store.mark_seen("a").unwrap();
    assert_eq!(store.seed(["a", "b", "c", "b"]).unwrap(), 2);
    assert_eq!(store.check_and_mark_all(["a", "b", "c"]).unwrap(), [Verdict::Duplicate; 3]);
    assert_eq!(store.seed(["a", "b", "c"]).unwrap(), 0);
}

#[test]
fn a_forgotten_id_is_unseen_also_after_a_restart_and_may_be_new_again() {
    let place = Place::new();
    let store = place.open(Config::default());
    assert!(!store.forget("a").unwrap());
    store.mark_seen("a").unwrap();
    store.mark_seen("b").unwrap();
    assert!(store.forget("a").unwrap());
    assert!(!store.is_seen("a"));
    assert!(!store.forget("a").unwrap());
    drop(store);
    let store = place.open(Config::default());
    assert!(!store.is_seen("a"));
    assert!(store.is_seen("b"));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
}

#[test]
fn a_forget_is_noticed_by_another_store_at_its_next_look() {
    let place = Place::new();
    let [one, other] = [0, 1].map(|_| place.open(Config::default()));
    one.seed(["a", "b", "c"]).unwrap();
    assert!(other.is_seen("a"));
    assert!(one.forget("a").unwrap());
    // A verb that writes or fetches always looks; a plain check may answer from memory for 100 ms.
    assert_eq!(other.get("a").unwrap(), None);
    assert!(!other.is_seen("a"));
    assert!(other.is_seen("b"));
}

#[test]
fn an_entry_counts_the_duplicates_that_were_turned_away_also_across_a_restart() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.mark_seen("a").unwrap();
    let suppressed = |store: &SeenStore| store.get("a").unwrap().unwrap().suppressed;
    assert_eq!(suppressed(&store), 0);
    for _ in 0..3 {
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    }
    assert_eq!(store.check_and_mark_all(["a", "a"]).unwrap(), [Verdict::Duplicate; 2]);
    assert_eq!(suppressed(&store), 5);
    // Neither a look nor a mark is a duplicate turned away; a refresh keeps the count.
    assert!(store.is_seen("a"));
    store.mark_seen("a").unwrap();
    assert_eq!(suppressed(&store), 5);
    drop(store);
    let config = Config::default().ttl(secs(60)).clock(clock.clone());
    let store = place.open(config.clone());
    assert_eq!(suppressed(&store), 5);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    store.purge_expired().unwrap();
    assert_eq!(suppressed(&store), 6);
    assert_eq!(rows(&place.sql()).last().unwrap().suppressed, 6);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    store.close().unwrap();
    assert_eq!(rows(&place.sql()).last().unwrap().suppressed, 7);
    // What expired and came back begins at nought.
    let store = place.open(config);
    clock.advance(secs(60));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(suppressed(&store), 0);
}

#[test]
fn an_entry_purged_by_a_store_whose_clock_is_ahead_is_answered_at_once_by_the_others() {
    let place = Place::new();
    // Two machines whose clocks are half a minute apart disagree about what has expired.
    let (clock, config) = clock_and_config();
    let (late_clock, late_config) = clock_and_config();
    let with = |config: Config| config.ttl(secs(60)).busy_timeout(ms(200));
    let ahead = place.open(with(config));
    ahead.seed(["a", "b"]).unwrap();
    clock.advance(secs(60));
    late_clock.advance(secs(30));
    let behind = place.open(with(late_config));
    assert!(behind.is_seen("a"));
    assert_eq!(ahead.purge_expired().unwrap(), 2);
    // Either answer is right; that another process holds the file is not.
    behind.get("a").unwrap();
    behind.mark_seen("a").unwrap();
    assert!(behind.is_seen("a"));
}

#[test]
fn a_purge_counts_what_it_removed_and_touches_nothing_that_lives() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    store.seed((0..2_500).map(|number| format!("old-{number}"))).unwrap();
    store.scope("other").mark_seen("old").unwrap();
    clock.advance(secs(30));
    store.seed((0..100).map(|number| format!("young-{number}"))).unwrap();
    store.ttl(Ttl::Never).mark_seen("eternal").unwrap();
    assert_eq!(store.purge_expired().unwrap(), 0);
    clock.advance(ms(29_999));
    assert_eq!(store.purge_expired().unwrap(), 0);
    clock.advance(ms(1));
    assert_eq!(store.purge_expired().unwrap(), 2_501);
    assert_eq!(store.purge_expired().unwrap(), 0);
    assert_eq!(marks(&place.sql()).len(), 101);
    assert!((0..100).all(|number| store.is_seen(format!("young-{number}"))));
    assert!(store.is_seen("eternal"));
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (101, 0));
}

#[test]
fn a_cleanup_goes_by_last_seen_and_by_scope() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(Ttl::Never));
    let other = store.scope("other");
    for store in [&store, &other] {
        store.mark_seen("old").unwrap();
        store.mark_seen("refreshed").unwrap();
    }
    clock.advance(secs(10));
    store.mark_seen("refreshed").unwrap();
    // Exactly as old as asked is not longer ago than asked.
    assert_eq!(store.cleanup_old_entries(secs(10)).unwrap(), 0);
    clock.advance(ms(1));
    assert_eq!(store.cleanup_old_entries(secs(10)).unwrap(), 1);
    assert!(!store.is_seen("old"));
    assert!(store.is_seen("refreshed"));
    assert!(other.is_seen("old"));
    assert_eq!(other.cleanup_old_entries(secs(10)).unwrap(), 2);
    assert_eq!(store.cleanup_old_entries(Duration::MAX).unwrap(), 0);
    assert_eq!(store.stats().unwrap().seen, 1);
}

#[test]
fn a_cleanup_is_noticed_by_another_store_at_its_next_look() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let [one, other] = [0, 1].map(|_| place.open(config.clone()));
    one.seed(["a", "b"]).unwrap();
    clock.advance(secs(10));
    one.mark_seen("c").unwrap();
    assert!(other.is_seen("a") && other.is_seen("c"));
    assert_eq!(one.cleanup_old_entries(secs(5)).unwrap(), 2);
    assert_eq!(other.get("a").unwrap(), None);
    assert!(!other.is_seen("b"));
    assert!(other.is_seen("c"));
    assert_eq!(other.stats().unwrap().rebuilds, 0);
}

#[test]
fn no_number_of_a_row_is_ever_given_twice_whatever_is_removed() {
    let place = Place::new();
    let (clock, store) = manual_store(&place, secs(60));
    let other = place.open(Config::default().clock(clock.clone()));
    let file = place.sql();
    let newest = || rows(&file).last().map_or(0, |row| row.seq);
    let mut last = 0;
    for round in 0..4 {
        store.seed(["a", "b", "c"]).unwrap();
        assert!(newest() > last);
        last = newest();
        assert!(other.is_seen("c"));
        match round {
            0 => {
                clock.advance(ms(1));
                assert_eq!(store.cleanup_old_entries(Duration::ZERO).unwrap(), 3);
            }
            1 => {
                clock.advance(secs(60));
                store.purge_expired().unwrap();
            }
            2 => {
                for id in ["c", "b", "a"] {
                    assert!(store.forget(id).unwrap());
                }
                // Long enough for the tombstones to be purged too.
                clock.advance(secs(7_200));
                store.purge_expired().unwrap();
            }
            _ => {}
        }
        assert!(newest() >= last);
        last = newest();
        assert_eq!(store.stats().unwrap().seen, if round == 3 { 3 } else { 0 });
    }
    // A store that slept through all of it ends with the same answer.
    assert!(other.is_seen("a") && other.is_seen("c"));
    assert!(other.verify().unwrap().is_ok());
}

#[test]
fn a_purge_that_is_due_rides_on_commits_until_what_expired_is_gone_from_the_file() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)).purge_interval(secs(600)));
    store.seed((0..1_000).map(|number| format!("old-{number}"))).unwrap();
    let file = place.sql();
    clock.advance(ms(599_999));
    store.mark_seen("early").unwrap();
    assert_eq!(marks(&file).len(), 1_001);
    clock.advance(ms(1));
    store.mark_seen("first").unwrap();
    let after_one = marks(&file).len();
    assert!((500..1_000).contains(&after_one), "a step took {} rows", 1_002 - after_one);
    for number in 0..20 {
        store.mark_seen(format!("mark-{number}")).unwrap();
    }
    assert_eq!(marks(&file).len(), 22);
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (22, 0));
    assert_eq!(stats.last_purge_at, Some(clock.now()));
}

#[test]
fn without_a_purge_interval_only_a_purge_purges() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(60)).purge_interval(None).purge_on_open(false);
    let store = place.open(config.clone());
    store.seed(["a", "b"]).unwrap();
    clock.advance(secs(1_000_000));
    store.mark_seen("c").unwrap();
    drop(store);
    let store = place.open(config.clone());
    assert_eq!(marks(&place.sql()).len(), 3);
    drop(store);
    drop(place.open(config.purge_on_open(true)));
    assert_eq!(marks(&place.sql()).len(), 1);
}

#[test]
fn a_purge_thread_purges_while_nobody_writes_and_ends_with_the_store() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(60)).purge_interval(ms(5)).purge_thread(true);
    let store = place.open(config);
    store.seed((0..10).map(|number| format!("old-{number}"))).unwrap();
    store.ttl(Ttl::Never).mark_seen("eternal").unwrap();
    clock.advance(secs(60));
    let file = place.sql();
    let deadline = Instant::now() + secs(20);
    while marks(&file).len() > 1 {
        assert!(Instant::now() < deadline, "the thread has not purged");
        thread::yield_now();
    }
    assert!(store.is_seen("eternal"));
    drop(file);
    // The thread holds no handle: the store closes with its last one.
    drop(store);
    assert_eq!(place.files(), ["seen.db"], "the store was not closed");
}

#[test]
fn stats_count_what_is_seen_and_what_has_only_expired() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)).purge_interval(None));
    assert_eq!(store.stats().unwrap().seen, 0);
    assert_eq!(store.stats().unwrap().last_purge_at, None);
    store.seed(["a", "b"]).unwrap();
    clock.advance(secs(60));
    store.scope("other").mark_seen("c").unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (1, 2));
    assert!(stats.wal_bytes > 0);
    assert!(stats.memory_bytes > 0);
    assert_eq!(stats.failed_open, 0);
    store.checkpoint().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(stats.wal_bytes, 0);
    assert!(stats.file_bytes >= 1024);
    store.purge_expired().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.seen, stats.expired), (1, 0));
    assert_eq!(stats.last_purge_at, Some(clock.now()));
}

/// A store of five ids that has looked, and a plain connection to its file.
fn store_to_tamper_with(place: &Place) -> (SeenStore, Connection) {
    let store = place.open(Config::default());
    store.seed(["a", "b", "c", "d", "e"]).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!(report.rows, 5);
    (store, place.sql())
}

#[test]
fn verify_reports_a_row_that_vanished_behind_the_stores_back() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    file.execute("DELETE FROM seen WHERE id = 'b'", []).unwrap();
    let report = store.verify().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("row 2")), "{report:?}");
}

#[test]
fn verify_reports_a_row_that_was_slipped_in_behind_the_stores_back() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    store.forget("b").unwrap();
    file.execute("INSERT INTO seen (seq, id, first_seen, last_seen) VALUES (2, 'bogus', 1, 1)", [])
        .unwrap();
    let report = store.verify().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("row 2")), "{report:?}");
}

#[test]
fn verify_reports_an_expiry_that_was_changed_behind_the_stores_back() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    file.execute("UPDATE seen SET expires_at = expires_at + 1000 WHERE id = 'b'", []).unwrap();
    let report = store.verify().unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("row 2")), "{report:?}");
}

#[test]
fn a_file_whose_history_went_back_is_read_anew() {
    let place = Place::new();
    let (store, file) = store_to_tamper_with(&place);
    // As a restore in place does: the newest row is gone without a trace.
    file.execute("DELETE FROM seen WHERE id IN ('d', 'e')", []).unwrap();
    assert_eq!(store.get("e").unwrap(), None);
    assert!(!store.is_seen("d"));
    assert!(store.is_seen("a"));
    assert_eq!(store.check_and_mark("e").unwrap(), Verdict::New);
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn a_backup_taken_while_threads_write_is_a_store_as_of_one_moment() {
    let place = Place::new();
    let store = place.open(Config::default());
    let copies: Vec<_> =
        (0..5).map(|number| place.folder().join(format!("copy-{number}"))).collect();
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        for writer in 0..4 {
            let (store, done) = (&store, &done);
            threads.spawn(move || {
                for number in 0.. {
                    if done.load(Relaxed) {
                        break;
                    }
                    // Marked in one commit, so a copy holds both or neither.
                    let pair = ["x", "y"].map(|half| format!("{writer}-{number}-{half}"));
                    assert_eq!(store.seed(pair).unwrap(), 2);
                }
            });
        }
        store.mark_seen("before").unwrap();
        for copy in &copies {
            store.mark_seen(format!("{}", copy.display())).unwrap();
            store.backup(copy).unwrap();
        }
        done.store(true, Relaxed);
    });
    let at_the_end = store.stats().unwrap().seen;
    let mut size_before = 0;
    for copy in &copies {
        let opened = SeenStore::open(copy).unwrap();
        assert!(opened.is_seen("before"));
        // What was acknowledged before the backup began is in it.
        assert!(opened.is_seen(format!("{}", copy.display())));
        assert!(opened.verify().unwrap().is_ok());
        let seen = opened.stats().unwrap().seen;
        assert!((size_before..=at_the_end).contains(&seen));
        size_before = seen;
        opened.close().unwrap();
        let rows = marks(&Connection::open(copy).unwrap());
        for writer in 0..4 {
            // Each writer's pairs without a hole: whole commits, in their order.
            let prefix = format!("{writer}-");
            let its: Vec<_> = rows
                .iter()
                .filter_map(|row| match &row.id {
                    rusqlite::types::Value::Text(id) => id.strip_prefix(&prefix),
                    _ => None,
                })
                .collect();
            let expected: Vec<_> = (0..its.len() / 2)
                .flat_map(|number| ["x", "y"].map(|half| format!("{number}-{half}")))
                .collect();
            assert_eq!(its, expected);
        }
    }
}

#[test]
fn a_backup_overwrites_nothing_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let copy = place.folder().join("copy");
    std::fs::write(&copy, "precious").unwrap();
    let error = store.backup(&copy).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("copy"));
    assert_eq!(std::fs::read(&copy).unwrap(), b"precious");
    assert_eq!(store.backup(place.path()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let copy = place.folder().join("another");
    store.backup(&copy).unwrap();
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(place.files().iter().all(|name| !name.starts_with("another-")));
}

#[test]
fn an_exclusive_store_and_one_in_memory_can_be_backed_up_too() {
    let place = Place::new();
    for (name, store) in [
        ("exclusive", place.open(Config::default().exclusive(true))),
        ("memory", SeenStore::in_memory().unwrap()),
    ] {
        store.mark_seen("a").unwrap();
        let copy = place.folder().join(name);
        store.backup(&copy).unwrap();
        assert!(store.verify().unwrap().is_ok());
        assert!(SeenStore::open(&copy).unwrap().is_seen("a"));
    }
}

#[test]
fn a_store_in_memory_has_every_verb_and_shares_nothing_with_another() {
    let (clock, store) = minute_store();
    let other = SeenStore::in_memory().unwrap();
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(store.clone().check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert!(!other.is_seen("a"));
    assert_eq!(store.pragmas().unwrap().journal_mode, "memory");
    assert!(store.verify().unwrap().is_ok());
    store.checkpoint().unwrap();
    clock.advance(secs(60));
    store.mark_seen("b").unwrap();
    assert_eq!(store.purge_expired().unwrap(), 1);
    assert_eq!(store.stats().unwrap().file_bytes, 0);
    clock.advance(ms(1));
    assert_eq!(store.cleanup_old_entries(Duration::ZERO).unwrap(), 1);
    store.close().unwrap();
    assert_eq!(store.mark_seen("a").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn an_exclusive_store_answers_and_keeps_like_any_other() {
    let place = Place::new();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(60)).exclusive(true);
    let store = place.open(config.clone());
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert!(!place.beside("-shm").exists());
    store.mark_seen("b").unwrap();
    assert!(store.forget("b").unwrap());
    drop(store);
    assert_eq!(place.files(), ["seen.db"]);
    let store = place.open(config);
    assert!(store.is_seen("a"));
    assert!(!store.is_seen("b"));
    clock.advance(secs(60));
    assert!(!store.is_seen("a"));
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

#[test]
fn a_file_that_was_moved_or_replaced_is_told_and_not_written_to() {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("a").unwrap();
    let moved = place.folder().join("moved.db");
    std::fs::rename(place.path(), &moved).unwrap();
    let kind = wait_for_an_error(&store);
    assert_eq!(kind, ErrorKind::FileReplaced);
    assert!(!place.path().exists(), "a moved store was created anew");
    std::fs::write(place.path(), "somebody else's").unwrap();
    assert_eq!(store.mark_seen("c").unwrap_err().kind(), ErrorKind::FileReplaced);
    assert_eq!(std::fs::read(place.path()).unwrap(), b"somebody else's");
}

/// Marks until it fails: that the file is gone is noticed within 100 ms.
fn wait_for_an_error(store: &SeenStore) -> ErrorKind {
    let deadline = Instant::now() + secs(5);
    loop {
        if let Err(e) = store.mark_seen("b") {
            return e.kind();
        }
        assert!(Instant::now() < deadline, "marks go on into a file that is not there");
        thread::yield_now();
    }
}
