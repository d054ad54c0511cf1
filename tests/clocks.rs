//! Several stores on one file whose clocks differ: after a clock was set back a little, by machines that are
//! not quite in step, or because one of them is wrong.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Place, secs};
use seen_store::{Claim, Clock, Config, ManualClock, Reader, SeenStore, State, Ttl, Verdict};

const DAY: Duration = Duration::from_hours(24);

fn back(clock: &ManualClock, by: Duration) {
    clock.set(clock.now().checked_sub(by).unwrap());
}

fn store(place: &Place, clock: &Arc<ManualClock>) -> SeenStore {
    place.open(Config::default().ttl(DAY).clock(Arc::clone(clock)))
}

fn is_granted(claim: Claim) -> bool {
    match claim {
        Claim::Granted(lease) => {
            let _ = lease.into_token(); // A worker that goes on.
            true
        }
        Claim::InFlight { .. } => false,
        other => panic!("{other:?}"),
    }
}

/// What the store that was opened before the step has done by then.
const BEFORE: [fn(&SeenStore); 4] = [
    |_| {},
    |store| store.mark_seen("something").unwrap(),
    |store| drop(store.claim("something", secs(5)).unwrap()),
    |store| assert!(!store.is_seen("something")),
];

#[test]
fn a_lease_is_granted_once_on_both_sides_of_a_small_backward_step() {
    for before in BEFORE {
        for step in [1, 45, 60] {
            for lease in [1, 30, 600] {
                for later_first in [true, false] {
                    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
                    let old = store(&place, &clock);
                    before(&old);
                    back(&clock, secs(step));
                    let new = store(&place, &clock);
                    let order = if later_first { [&new, &old] } else { [&old, &new] };
                    let claims = order.map(|store| store.claim("a", secs(lease)).unwrap());
                    let granted: Vec<bool> = claims.into_iter().map(is_granted).collect();
                    assert_eq!(granted, [true, false], "a step of {step} s, a lease of {lease} s");
                }
            }
        }
    }
}

#[test]
fn what_has_expired_for_one_store_has_expired_for_one_that_opens_after_a_small_step() {
    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
    let old = store(&place, &clock);
    old.ttl(secs(10)).mark_seen("short").unwrap();
    clock.advance(secs(11));
    assert_eq!(old.ttl(secs(10)).check_and_mark("another").unwrap(), Verdict::New);
    assert!(!old.is_seen("short"));
    back(&clock, secs(45));
    let new = store(&place, &clock);
    assert!(!new.is_seen("short"));
    assert!(new.is_seen("another"));
    // Both stand still until the clock has caught up, and go on together.
    clock.advance(secs(45));
    assert!(old.is_seen("another") && new.is_seen("another"));
    clock.advance(secs(10));
    assert!(!old.is_seen("another") && !new.is_seen("another"));
}

#[test]
fn a_reader_reckons_with_the_time_that_the_stores_have_reached() {
    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
    let read = |clock: &Arc<ManualClock>| {
        Reader::open_with(place.path(), &Config::default().clock(Arc::clone(clock))).unwrap()
    };
    let store = store(&place, &clock);
    store.ttl(secs(10)).mark_seen("short").unwrap();
    let early = read(&clock);
    assert!(early.is_seen("", "short").unwrap());
    clock.advance(secs(20));
    store.mark_seen("later").unwrap();
    back(&clock, secs(45));
    for reader in [&early, &read(&clock)] {
        let entry = reader.get("", "short").unwrap();
        assert_eq!(entry.map(|entry| entry.state), Some(State::Expired));
        assert!(reader.is_seen("", "later").unwrap());
    }
    // A large step is followed.
    back(&clock, secs(60));
    assert!(read(&clock).is_seen("", "short").unwrap());
}

#[test]
fn a_store_that_lags_learns_the_time_at_its_next_look() {
    let place = Place::in_ram();
    let (ahead, behind) = (Arc::<ManualClock>::default(), Arc::<ManualClock>::default());
    ahead.advance(secs(50));
    let slow = store(&place, &behind);
    let fast = store(&place, &ahead);
    assert!(is_granted(fast.claim("a", secs(30)).unwrap()));
    assert!(is_granted(slow.claim("b", secs(30)).unwrap()));
    // Not until 30 s after the time that the slow one has learned.
    assert!(!is_granted(fast.claim("b", secs(30)).unwrap()));
    ahead.advance(secs(29));
    assert!(!is_granted(fast.claim("b", secs(30)).unwrap()));
    ahead.advance(secs(1));
    assert!(is_granted(fast.claim("b", secs(30)).unwrap()));
}

#[test]
fn one_wrong_clock_carries_no_other_store_along() {
    for wrong in [secs(61), secs(3_600), 10_000 * DAY] {
        let place = Place::in_ram();
        let (right, fast) = (Arc::<ManualClock>::default(), Arc::<ManualClock>::default());
        fast.advance(wrong);
        let store_in_time = store(&place, &right);
        store_in_time.ttl(secs(10)).mark_seen("short").unwrap();
        // A purge by its clock would remove what lives by theirs.
        let config = Config::default().ttl(DAY).clock(Arc::clone(&fast)).purge_on_open(false);
        let wrong_store = place.open(config);
        wrong_store.mark_seen("from the future").unwrap();
        let opened_later = store(&place, &right);
        for store in [&store_in_time, &opened_later] {
            store.mark_seen("a look").unwrap();
            assert!(store.is_seen("short"));
            assert_eq!(store.get("a look").unwrap().unwrap().last_seen, right.now());
        }
        // It follows its own clock, and so do they.
        wrong_store.mark_seen("later").unwrap();
        assert_eq!(wrong_store.get("later").unwrap().unwrap().last_seen, fast.now());
        right.advance(secs(10));
        assert!(!store_in_time.is_seen("short") && !opened_later.is_seen("short"));
    }
}

#[test]
fn times_that_callers_give_carry_no_store_along() {
    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
    let one = store(&place, &clock);
    let now = clock.now();
    one.mark_seen_at("a", now + secs(50)).unwrap();
    let mut entry = one.get("a").unwrap().unwrap();
    (entry.id, entry.first_seen) = (b"b".to_vec(), now + secs(55));
    entry.expires_at = Some(now + secs(58));
    assert_eq!(one.restore([entry]).unwrap().refused.len(), 0);
    drop(one.claim("c", secs(59)).unwrap());
    for store in [&one, &store(&place, &clock)] {
        store.ttl(Ttl::Never).mark_seen("d").unwrap();
        assert_eq!(store.get("d").unwrap().unwrap().last_seen, now);
    }
}

#[test]
fn a_large_backward_step_is_followed_by_all_stores() {
    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
    let old = store(&place, &clock);
    old.mark_seen("before").unwrap();
    back(&clock, secs(61));
    let new = store(&place, &clock);
    for (store, id) in [(&new, "new"), (&old, "old")] {
        store.mark_seen(id).unwrap();
        assert_eq!(store.get(id).unwrap().unwrap().last_seen, clock.now());
    }
}

#[test]
fn a_store_that_only_asks_writes_no_time_down() {
    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
    let store = store(&place, &clock);
    store.mark_seen("a").unwrap();
    let watcher = place.sql();
    let version =
        || -> i64 { watcher.pragma_query_value(None, "data_version", |row| row.get(0)).unwrap() };
    let before = version();
    clock.advance(secs(3_600));
    assert!(store.is_seen("a"));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert!(!store.is_seen("b"));
    assert_eq!(version(), before);
}
