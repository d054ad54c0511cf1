//! A store that has its file to itself, and one that is opened in an unusual way.

use std::collections::HashMap;

use seen_store::{Filter, IndexMode, Reader, SeenStore, Ttl, Verdict};

use crate::common::{clock_and_config, ms, secs};
use crate::{asleep, fill, id, missed, place};

#[test]
fn an_exclusive_store_answers_asleep_as_a_plain_map_does() {
    for mode in [IndexMode::Asleep, IndexMode::Wakes] {
        for seed in 1..6_u64 {
            let place = place();
            let (clock, config) = clock_and_config();
            let config = config.ttl(secs(100)).exclusive(true).index(mode);
            let mut known: HashMap<usize, u64> = HashMap::new();
            let (mut random, mut now) = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), 0_u64);
            let mut below = |n: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 13) as usize % n
            };
            let mut store = place.open(config.clone());
            for step in 0..1_500 {
                let n = below(60);
                let is_seen = known.get(&n).is_some_and(|until| now < *until);
                match below(20) {
                    0..6 => {
                        store.mark_seen(id(n)).unwrap();
                        let until = known.get(&n).copied().filter(|_| is_seen).unwrap_or(0);
                        known.insert(n, until.max(now + 100));
                    }
                    6..10 => {
                        let new = store.check_and_mark(id(n)).unwrap() == Verdict::New;
                        assert_eq!(new, !is_seen, "{mode:?} seed {seed} step {step}");
                        if new {
                            known.insert(n, now + 100);
                        }
                    }
                    10..13 => {
                        assert_eq!(store.forget(id(n)).unwrap(), is_seen, "step {step}");
                        known.remove(&n);
                    }
                    13 => {
                        clock.advance(secs(7));
                        now += 7;
                    }
                    14 => {
                        store.purge_expired().unwrap();
                    }
                    15 if step % 5 == 0 => {
                        store.close().unwrap();
                        store = place.open(config.clone());
                    }
                    16 if step % 5 == 0 => store.compact().unwrap(),
                    17 if step % 5 == 0 => {
                        let listed = store.entries(Filter::default()).map(Result::unwrap).count();
                        let live = known.values().filter(|until| now < **until).count();
                        assert_eq!(listed, live, "step {step}");
                    }
                    _ => assert_eq!(store.try_is_seen(id(n)).unwrap(), is_seen, "step {step}"),
                }
            }
            assert!(store.verify().unwrap().is_ok());
        }
    }
}

#[test]
fn stores_about_as_large_as_the_limits_answer_right() {
    for count in [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 18, 27, 28] {
        for mode in [IndexMode::Asleep, IndexMode::Wakes, IndexMode::Awake] {
            let place = place();
            let (_, config) = clock_and_config();
            let config = config.index(mode);
            place.open(config.clone()).seed((0..count).map(id)).unwrap();
            for _ in 0..3 {
                let store = place.open(config.clone());
                assert_eq!(missed(&store, 0..count), [0_usize; 0], "{count} {mode:?}");
                assert!(!store.is_seen(id(count)), "{count} {mode:?}");
                assert_eq!(store.stats().unwrap().seen, count as u64, "{count} {mode:?}");
                assert_eq!(store.entries(Filter::default()).count(), count, "{count} {mode:?}");
                assert!(store.verify().unwrap().is_ok(), "{count} {mode:?}");
            }
        }
    }
}

#[test]
fn an_id_that_is_only_in_a_run_is_claimed_confirmed_refreshed_forgotten_and_cleaned_up() {
    let place = place();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(100));
    fill(&place, &config, 0..100);
    let open = || place.open(asleep(config.clone()));
    assert!(matches!(open().claim(id(1), secs(5)).unwrap(), seen_store::Claim::Seen(_)));
    assert!(open().forget(id(2)).unwrap());
    assert!(!open().try_is_seen(id(2)).unwrap());
    clock.advance(secs(60));
    open().mark_seen(id(3)).unwrap();
    assert_eq!(open().check_and_mark(id(4)).unwrap(), Verdict::Duplicate);
    clock.advance(secs(60));
    assert!(open().try_is_seen(id(3)).unwrap());
    assert!(!open().try_is_seen(id(4)).unwrap());
    let seen_store::Claim::Granted(mut lease) = open().claim(id(4), secs(5)).unwrap() else {
        panic!("not granted")
    };
    lease.confirm_with(b"receipt").unwrap();
    drop(lease);
    let entry = open().get(id(4)).unwrap().unwrap();
    assert_eq!(entry.receipt.as_deref(), Some(&b"receipt"[..]));
    // The id that was forgotten is new, and its mark is found in the tail and in a run.
    assert_eq!(open().check_and_mark(id(2)).unwrap(), Verdict::New);
    fill(&place, &config, 200..300);
    assert!(open().try_is_seen(id(2)).unwrap() && open().try_is_seen(id(4)).unwrap());
    // The others have expired, and were purged when the store was opened.
    assert_eq!(open().cleanup_old_entries(secs(50)).unwrap(), 1);
    assert!(open().try_is_seen(id(3)).is_ok_and(|seen| !seen));
    assert!(open().try_is_seen(id(2)).unwrap());
    let store = open();
    assert!(store.verify().unwrap().is_ok());
    let seen = store.stats().unwrap().seen;
    assert_eq!(seen, 102);
}

#[test]
fn retained_entries_asleep_are_found_and_purged() {
    let place = place();
    let (clock, config) = clock_and_config();
    let config = config.ttl(secs(10)).retention(secs(1_000));
    fill(&place, &config, 0..100);
    clock.advance(secs(20));
    let store = place.open(asleep(config.clone()));
    for n in 0..100 {
        assert!(!store.try_is_seen(id(n)).unwrap(), "{n}");
        assert!(store.get(id(n)).unwrap().is_some(), "{n}");
    }
    assert_eq!(store.check_and_mark(id(7)).unwrap(), Verdict::New);
    assert_eq!(store.get(id(7)).unwrap().unwrap().history.unwrap().windows, 1);
    assert!(store.forget(id(8)).unwrap());
    assert!(store.get(id(8)).unwrap().is_none());
    clock.advance(secs(1_000));
    store.purge_expired().unwrap();
    for n in 0..100 {
        assert!(store.get(id(n)).unwrap().is_none() || n == 7, "{n}");
    }
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn a_backup_and_a_copy_beside_the_store_have_all_that_was_in_it() {
    let place = place();
    let (_, config) = clock_and_config();
    let config = config.ttl(Ttl::Never);
    fill(&place, &config, 0..100);
    let store = place.open(asleep(config.clone()));
    store.seed((100..150).map(id)).unwrap();
    let copy = place.folder().join("copy.db");
    store.backup(&copy).unwrap();
    store.seed((150..200).map(id)).unwrap();
    let copied = SeenStore::open_with(&copy, asleep(config.clone())).unwrap();
    assert_eq!(missed(&copied, 0..200), (150..200).collect::<Vec<_>>());
    copied.seed((300..400).map(id)).unwrap();
    copied.close().unwrap();
    let copied = SeenStore::open_with(&copy, asleep(config.clone())).unwrap();
    assert_eq!(missed(&copied, 300..400), [0_usize; 0]);
    let reader = Reader::open_with(&copy, config).unwrap();
    assert!((0..150).all(|n| reader.try_is_seen(id(n)).unwrap()));
    assert!(reader.verify().unwrap().is_ok());
}

#[test]
fn a_store_that_only_reads_asleep_follows_others() {
    let place = place();
    let (_, config) = clock_and_config();
    fill(&place, &config, 0..60);
    for mode in [IndexMode::Asleep, IndexMode::Wakes] {
        let reading = place.open(config.clone().read_only(true).index(mode));
        let writing = place.open(config.clone());
        for n in 60..400 {
            writing.mark_seen(id(n)).unwrap();
            assert!(reading.try_is_seen(id(n)).unwrap(), "{n}");
            if n % 10 == 0 {
                assert!(writing.forget(id(n)).unwrap());
                std::thread::sleep(ms(101));
                assert!(!reading.try_is_seen(id(n)).unwrap(), "{n}");
                assert!(reading.try_is_seen(id(n - 50)).unwrap() || n % 10 == 0);
            }
        }
        writing.seed((0..400).map(id)).unwrap();
    }
}

#[test]
fn the_marks_of_many_scopes_are_counted_together_only() {
    let place = place();
    let (_, config) = clock_and_config();
    for (scopes, counted) in [(3, 3), (60, 0)] {
        for some in (0..scopes).collect::<Vec<_>>().chunks(7) {
            let store = place.open(config.clone());
            for n in some {
                store.scope(format!("scope-{n}")).seed((0..5).map(id)).unwrap();
            }
            store.close().unwrap();
        }
        let store = place.open(asleep(config.clone()));
        assert!(store.scope("scope-1").forget(id(3)).unwrap());
        let stats = store.stats().unwrap();
        assert_eq!((stats.seen, stats.scopes.len()), (5 * scopes - 1, counted));
        assert!(store.verify().unwrap().is_ok());
        store.scope("scope-1").mark_seen(id(3)).unwrap();
    }
}
