//! Claims beside marks that expire at once, and beside everything else.

use std::time::Duration;

use rusqlite::Connection;
use seen_store::{Claim, Clock as _, Entry, Lease, Ttl, Verdict, Window};

use crate::common::{Place, clock_and_config, ms, secs};

fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn is_granted(claim: &Claim) -> bool {
    matches!(claim, Claim::Granted(_))
}

#[test]
fn a_mark_of_a_time_long_past_does_not_hand_a_held_id_out_again() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)));
    let mut lease = granted(store.claim("x", secs(600)).unwrap());
    store.mark_seen_at("x", clock.now() - secs(3600)).unwrap();
    let again = store.claim("x", secs(600)).unwrap();
    assert!(!is_granted(&again), "the lease was granted twice");
    lease.confirm().unwrap();
}

#[test]
fn a_mark_of_a_time_long_past_leaves_the_holder_its_confirm() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(60)));
    let mut lease = granted(store.claim("x", secs(600)).unwrap());
    store.mark_seen_at("x", clock.now() - secs(3600)).unwrap();
    lease.confirm().unwrap();
    assert!(store.is_seen("x"));
}

#[test]
fn a_mark_with_a_ttl_of_zero_does_not_hand_a_held_id_out_again() {
    let place = Place::in_ram();
    let (_clock, config) = clock_and_config();
    let store = place.open(config);
    let _lease = granted(store.claim("x", secs(600)).unwrap());
    store.ttl(Duration::ZERO).mark_seen("x").unwrap();
    assert!(!is_granted(&store.claim("x", secs(600)).unwrap()), "the lease was granted twice");
}

#[test]
fn seeding_with_a_ttl_of_zero_does_not_hand_a_held_id_out_again() {
    let place = Place::in_ram();
    let (_clock, config) = clock_and_config();
    let store = place.open(config);
    let _lease = granted(store.claim("x", secs(600)).unwrap());
    store.ttl(Duration::ZERO).seed(["x"]).unwrap();
    assert!(!is_granted(&store.claim("x", secs(600)).unwrap()), "the lease was granted twice");
}

/// A mark that ends while the lease still runs.
#[test]
fn a_short_mark_does_not_hand_a_held_id_out_before_its_lease_ends() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config);
    let mut lease = granted(store.claim("x", secs(600)).unwrap());
    store.ttl(secs(1)).mark_seen("x").unwrap();
    clock.advance(secs(1));
    assert!(!is_granted(&store.claim("x", secs(600)).unwrap()), "the lease was granted twice");
    lease.confirm().unwrap();
}

fn poison(file: &Connection, id: &str) {
    file.execute(
        "INSERT INTO claims VALUES ('', ?1, x'', 2, 0, NULL, 1, 1, 1, 0, NULL, 0, CAST(x'ff' AS TEXT), NULL)",
        [id],
    )
    .unwrap();
}

/// What a batch that was rolled back noted by row number must not stick to the next row of that number.
#[test]
fn a_batch_that_failed_leaves_no_cap_on_the_next_mark() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(secs(100)).purge_interval(None));
    poison(&place.sql(), "bad");
    let capped = store.window(Window::Sliding { max_age: Some(secs(50)) });
    capped.check_and_mark_all(["x", "x", "bad"]).unwrap_err();
    // Of the same number as the row of x that was rolled back.
    store.ttl(secs(10)).mark_seen("y").unwrap();
    let sliding = store.ttl(secs(10)).window(Window::Sliding { max_age: Some(secs(50)) });
    for _ in 0..4 {
        clock.advance(secs(8));
        assert_eq!(sliding.check_and_mark("y").unwrap(), Verdict::Duplicate, "expired early");
    }
}

#[test]
fn a_batch_that_failed_leaves_no_count_on_the_next_mark() {
    let place = Place::in_ram();
    let (_clock, config) = clock_and_config();
    let store = place.open(config.purge_interval(None));
    poison(&place.sql(), "bad");
    store.check_and_mark_all(["x", "x", "x", "bad"]).unwrap_err();
    store.mark_seen("y").unwrap();
    assert_eq!(store.get("y").unwrap().unwrap().duplicates, 0);
}

/// The scope is to be empty afterwards, whatever times its entries have.
#[test]
fn a_scope_is_forgotten_whatever_the_times_of_its_entries() {
    let place = Place::in_ram();
    let (_clock, config) = clock_and_config();
    let store = place.open(config);
    let latest = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(i64::MAX).unwrap());
    let _ = store.restore([Entry::new("", "x", latest)]).unwrap();
    store.ttl(Ttl::Never).mark_seen_at("y", latest).unwrap();
    store.forget_scope().unwrap();
    assert!(!store.is_seen("x") && !store.is_seen("y"), "still seen");
}

/// Listing, stats, statistics and verify of entries with the earliest and latest times there are.
#[test]
fn extreme_times_break_no_verb() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.clone());
    let latest = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(i64::MAX).unwrap());
    let earliest = std::time::UNIX_EPOCH - Duration::from_secs(u64::try_from(i64::MAX).unwrap());
    let times = [earliest, std::time::UNIX_EPOCH, clock.now(), latest];
    let mut entries = Vec::new();
    let states = seen_store::State::ALL;
    for (n, first) in times.into_iter().enumerate() {
        for (m, last) in times.into_iter().enumerate() {
            for (k, until) in times.into_iter().map(Some).chain([None]).enumerate() {
                for (s, &state) in states.iter().enumerate() {
                    let mut entry = Entry::new("s", format!("{n}{m}{k}{s}"), first);
                    entry.last_seen = last;
                    entry.expires_at = until;
                    entry.state = state;
                    entry.lease_until = until;
                    entry.attempts = u32::MAX;
                    entry.duplicates = u64::MAX;
                    entries.push(entry);
                }
            }
        }
    }
    let restored = store.restore(entries.clone()).unwrap();
    assert!(restored.refused.is_empty(), "{:?}", restored.refused);
    let again = store.restore(entries.clone()).unwrap();
    assert_eq!((again.added, again.changed), (0, 0), "{again:?}");
    let scope = store.scope("s");
    for entry in &entries {
        let _ = scope.get(&entry.id).unwrap();
        let _ = scope.check_and_mark(&entry.id).unwrap();
        if let Claim::Granted(mut lease) = scope.claim(&entry.id, Duration::MAX).unwrap() {
            lease.renew(ms(1)).unwrap();
            lease.fail("no").unwrap();
        }
    }
    store.stats().unwrap();
    let listed = store.entries(seen_store::Filter::default().older_than(Duration::MAX)).count();
    let _ = listed;
    assert_eq!(store.verify().unwrap().problems, Vec::<String>::new());
    store.purge_expired().unwrap();
    store.cleanup_old_entries(Duration::MAX).unwrap();
    store.cleanup_old_entries(Duration::ZERO).unwrap();
    let reader = seen_store::Reader::open_with(place.path(), config.clone()).unwrap();
    for since in [Duration::ZERO, secs(3600), Duration::MAX] {
        for buckets in [1, 7, 1000] {
            reader.stats(since, buckets).unwrap();
        }
    }
    reader.entries(seen_store::Filter::default()).for_each(|entry| drop(entry.unwrap()));
    assert_eq!(reader.verify().unwrap().problems, Vec::<String>::new());
    scope.forget_scope().unwrap();
    let left: Vec<_> = scope.entries(seen_store::Filter::default().scope("s")).collect();
    assert!(left.is_empty(), "{} are left of the scope", left.len());
}

/// A store that only asks keeps what has expired in memory for as long as it lives.
#[test]
fn a_store_that_only_asks_does_not_grow_for_ever() {
    for read_only in [true, false] {
        let place = Place::in_ram();
        let (clock, config) = clock_and_config();
        let config = config.ttl(secs(60)).purge_interval(secs(60));
        let writer = place.open(config.clone());
        writer.mark_seen("first").unwrap();
        let asks = place.open(config.read_only(read_only));
        let mut sizes = Vec::new();
        for round in 0..12 {
            writer.seed((0..10_000).map(|n| format!("{round}-{n}"))).unwrap();
            assert!(asks.try_is_seen(format!("{round}-1")).unwrap());
            clock.advance(secs(61));
            writer.purge_expired().unwrap();
            for n in 0..1_000 {
                assert!(!asks.try_is_seen(format!("{round}-{n}")).unwrap());
            }
            sizes.push(asks.stats().unwrap().memory_bytes / 1024);
        }
        let file = asks.stats().unwrap();
        println!("read_only {read_only}: KiB {sizes:?}; {file:?}");
        assert!(
            file.expired < 60_000,
            "read_only {read_only}: {} expired ids in memory",
            file.expired
        );
    }
}
