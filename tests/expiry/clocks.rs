//! Several stores on one file whose clocks differ: after a clock was set back a little, by machines that are
//! not quite in step, or because one of them is wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;
use seen_store::{Claim, Clock, Config, ManualClock, Reader, SeenStore, State, Ttl, Verdict};

use crate::common::{Place, secs};

const DAY: Duration = Duration::from_secs(24 * 3_600);

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
        Reader::open_with(place.path(), Config::default().clock(Arc::clone(clock))).unwrap()
    };
    let store = store(&place, &clock);
    store.ttl(secs(10)).mark_seen("short").unwrap();
    let early = read(&clock);
    assert!(early.try_is_seen("short").unwrap());
    clock.advance(secs(20));
    store.mark_seen("later").unwrap();
    back(&clock, secs(45));
    for reader in [&early, &read(&clock)] {
        let entry = reader.get("short").unwrap();
        assert_eq!(entry.map(|entry| entry.state), Some(State::Expired));
        assert!(reader.try_is_seen("later").unwrap());
    }
    // A large step is followed.
    back(&clock, secs(60));
    assert!(read(&clock).try_is_seen("short").unwrap());
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
fn a_store_that_lags_counts_by_the_time_that_a_purge_would_go_by() {
    let place = Place::in_ram();
    let late = Arc::new(ManualClock::default());
    let clock = Arc::new(ManualClock::new(late.now() + secs(30)));
    let config = Config::default().purge_interval(None).purge_on_open(false);
    let lagging = place.open(config.clone().clock(late));
    lagging.ttl(secs(20)).mark_seen("a").unwrap();
    place.open(config.clock(clock)).mark_seen("b").unwrap();
    assert_eq!(lagging.count_expired().unwrap(), 1);
    assert_eq!(lagging.count_old_entries(secs(25)).unwrap(), 1);
    assert_eq!(lagging.purge_expired().unwrap(), 1);
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

/// As `.restore` of the sqlite3 shell does.
fn restore(place: &Place, backup: &Path) {
    let (source, mut target) = (Connection::open(backup).unwrap(), place.sql());
    let restore = Backup::new(&source, &mut target).unwrap();
    restore.run_to_completion(100, Duration::ZERO, None).unwrap();
}

/// A store's last use before a step.
#[derive(Clone, Copy, Debug)]
enum Use {
    Idle,
    Asks,
    Marks,
}

fn make_use(store: &SeenStore, what: Use) {
    match what {
        Use::Idle => {}
        Use::Asks => assert!(!store.is_seen("anything")),
        Use::Marks => store.mark_seen("something").unwrap(),
    }
}

/// Each of two stores claims the same id, `first` before the other one.
fn granted_to(stores: [&SeenStore; 2], first: usize, lease: Duration) -> [bool; 2] {
    let mut granted = [false; 2];
    for n in [first, 1 - first] {
        granted[n] = is_granted(stores[n].claim("a", lease).unwrap());
    }
    granted
}

#[test]
fn a_lease_is_granted_once_whichever_store_has_read_the_clock_before_a_step() {
    let kinds = [Use::Idle, Use::Asks, Use::Marks];
    // How long before the step each store is used for the last time, and how far the step goes.
    let moments = [(5, 0), (0, 5), (60, 2), (100, 2)];
    for (since_a, since_b) in moments {
        for step in [1, 57, 60, 61, 62, 110] {
            for lease in [1, 30] {
                for (before_a, before_b) in kinds.iter().flat_map(|a| kinds.map(|b| (*a, b))) {
                    for first in [0, 1] {
                        let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
                        let (a, b) = (store(&place, &clock), store(&place, &clock));
                        let mut used = [(since_a, &a, before_a), (since_b, &b, before_b)];
                        used.sort_by_key(|(before_the_step, ..)| {
                            std::cmp::Reverse(*before_the_step)
                        });
                        let (longest, shortest) = (used[0].0, used[1].0);
                        make_use(used[0].1, used[0].2);
                        clock.advance(secs(longest - shortest));
                        make_use(used[1].1, used[1].2);
                        clock.advance(secs(shortest));
                        back(&clock, secs(step));
                        let granted = granted_to([&a, &b], first, secs(lease));
                        assert!(
                            granted[first] && !granted[1 - first],
                            "{granted:?}: {before_a:?} {since_a} s and {before_b:?} {since_b} s before \
                             a step of {step} s, a lease of {lease} s, store {first} first"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_lease_is_granted_once_by_a_store_opened_between_two_steps_and_one_opened_before() {
    for (one, two) in [(40, 21), (60, 50), (45, 45), (60, 60), (1, 60), (60, 1), (30, 20), (0, 59)]
    {
        for lease in [1, 10, 600] {
            for after in [Use::Idle, Use::Asks, Use::Marks] {
                for first in [0, 1] {
                    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
                    let old = store(&place, &clock);
                    old.mark_seen("before").unwrap();
                    back(&clock, secs(one));
                    let new = store(&place, &clock);
                    make_use(&new, after);
                    back(&clock, secs(two));
                    let granted = granted_to([&old, &new], first, secs(lease));
                    assert!(
                        granted[first] && !granted[1 - first],
                        "{granted:?}: steps of {one} and {two} s, {after:?} between them, a lease of \
                         {lease} s, store {first} first"
                    );
                }
            }
        }
    }
}

#[test]
fn steps_of_up_to_a_minute_together_are_absorbed_by_every_store() {
    for (one, two) in [(30, 20), (60, 0), (0, 59), (30, 30)] {
        for between in [Use::Idle, Use::Asks, Use::Marks] {
            for first in [0, 1] {
                let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
                let old = store(&place, &clock);
                old.mark_seen("before").unwrap();
                let reached = clock.now();
                back(&clock, secs(one));
                let new = store(&place, &clock);
                make_use(&new, between);
                back(&clock, secs(two));
                let stores = [&old, &new];
                for store in [stores[first], stores[1 - first], stores[first]] {
                    store.mark_seen("a").unwrap();
                    let seen = store.get("a").unwrap().unwrap().last_seen;
                    assert_eq!(seen, reached, "{one} and {two} s, {between:?}, {first} first");
                }
            }
        }
    }
}

#[test]
fn a_store_that_goes_back_finds_what_the_one_that_went_before_has_marked() {
    for rebuilt in [false, true] {
        let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
        let (a, b) = (store(&place, &clock), store(&place, &clock));
        clock.advance(secs(5));
        a.mark_seen("later").unwrap();
        back(&clock, secs(62));
        a.ttl(secs(1)).mark_seen("short").unwrap();
        if rebuilt {
            a.compact().unwrap();
        }
        let short = b.ttl(secs(1));
        assert_eq!(short.check_and_mark("short").unwrap(), Verdict::Duplicate, "{rebuilt}");
        clock.advance(secs(1));
        assert_eq!(short.check_and_mark("short").unwrap(), Verdict::New, "{rebuilt}");
    }
}

#[test]
fn a_store_whose_own_clock_was_not_set_back_keeps_its_time() {
    let place = Place::in_ram();
    let (stepped, steady) = (Arc::<ManualClock>::default(), Arc::<ManualClock>::default());
    let (a, b) = (store(&place, &stepped), store(&place, &steady));
    a.mark_seen("a").unwrap();
    back(&stepped, secs(61));
    a.mark_seen("a").unwrap();
    b.mark_seen("b").unwrap();
    assert_eq!(b.get("b").unwrap().unwrap().last_seen, steady.now());
}

#[test]
fn a_restored_file_with_an_older_time_is_no_step() {
    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
    let (a, b) = (store(&place, &clock), store(&place, &clock));
    a.mark_seen("before").unwrap();
    let copy = place.folder().join("copy.db");
    a.backup(&copy).unwrap();
    clock.advance(secs(3_600));
    a.mark_seen("lost").unwrap();
    assert!(b.is_seen("lost"));
    let reached = clock.now();
    back(&clock, secs(45));
    restore(&place, &copy);
    for store in [&b, &a, &b] {
        store.mark_seen("after").unwrap();
        assert_eq!(store.get("after").unwrap().unwrap().last_seen, reached);
    }
}

#[test]
fn a_reader_follows_the_stores_back() {
    for step in [45, 57, 62] {
        let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
        let store = store(&place, &clock);
        clock.advance(secs(59));
        let config = Config::default().clock(Arc::clone(&clock));
        let reader = Reader::open_with(place.path(), config.clone()).unwrap();
        assert!(!reader.try_is_seen("short").unwrap());
        back(&clock, secs(step));
        store.ttl(secs(1)).mark_seen("short").unwrap();
        assert!(store.is_seen("short"));
        assert!(reader.try_is_seen("short").unwrap(), "a step of {step} s");
    }
}

/// What a store has done before all clocks are set back, since marks of a minute have expired that will live
/// again then.
type Meanwhile = (&'static str, fn(&SeenStore, &SeenStore));

const MEANWHILE: [Meanwhile; 5] = [
    ("nothing", |_, _| {}),
    ("another mark", |store, _| store.mark_seen("late").unwrap()),
    // Sweeps the index of what has expired and stays in the file.
    ("a cleanup of another scope", |store, _| {
        store.scope("other").mark_seen("x").unwrap();
        assert_eq!(store.scope("other").forget_scope().unwrap(), 1);
    }),
    ("a purge", |store, _| assert!(store.purge_expired().unwrap() >= 99)),
    ("a purge by another store", |store, other| {
        store.mark_seen("late").unwrap();
        assert!(other.purge_expired().unwrap() >= 99);
        assert!(store.is_seen("late"));
    }),
];

#[test]
fn stores_agree_on_what_lives_again_after_a_clock_was_set_back_far() {
    for (what, meanwhile) in MEANWHILE {
        for opened_late in [true, false] {
            for asks_first in [true, false] {
                let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
                let config = Config::default()
                    .ttl(secs(60))
                    .purge_on_open(false)
                    .purge_interval(None)
                    .clock(Arc::clone(&clock));
                let early = place.open(config.clone());
                early.seed((0..100).map(|n| format!("id {n}"))).unwrap();
                let store = (!opened_late).then(|| place.open(config.clone()));
                clock.advance(secs(7_200));
                let store = store.unwrap_or_else(|| place.open(config.clone()));
                assert!(!early.is_seen("id 1") && !store.is_seen("id 1"));
                meanwhile(&store, &early);
                back(&clock, secs(7_199));
                let reader = Reader::open_with(place.path(), config.clone()).unwrap();
                let lives = reader.try_is_seen("id 1").unwrap();
                let what = format!("{what}, opened late: {opened_late}, asks first: {asks_first}");
                for store in [&store, &early] {
                    if asks_first {
                        assert_eq!(store.try_is_seen("id 1").unwrap(), lives, "{what}");
                    }
                    assert_eq!(store.get("id 1").unwrap().is_some(), lives, "{what}");
                    let report = store.verify().unwrap();
                    assert!(report.is_ok(), "{what}: {report:?}");
                }
                let verdict = if lives { Verdict::Duplicate } else { Verdict::New };
                assert_eq!(store.check_and_mark("id 2").unwrap(), verdict, "{what}");
                assert_eq!(early.check_and_mark("id 3").unwrap(), verdict, "{what}");
            }
        }
    }
}

#[test]
fn a_store_that_is_alone_knows_what_lives_again_after_its_clock_was_set_back_far() {
    for in_memory in [true, false] {
        for first in 0..4 {
            let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
            let config = Config::default()
                .ttl(secs(60))
                .purge_on_open(false)
                .purge_interval(None)
                .clock(Arc::clone(&clock));
            let exclusive = config.clone().exclusive(true);
            let mut store = if in_memory {
                SeenStore::in_memory_with(config).unwrap()
            } else {
                place.open(exclusive.clone())
            };
            store.seed(["a", "b", "c"]).unwrap();
            clock.advance(secs(7_200));
            if in_memory {
                store.scope("other").mark_seen("x").unwrap();
                assert_eq!(store.scope("other").forget_scope().unwrap(), 1);
            } else {
                drop(store);
                store = place.open(exclusive);
            }
            assert!(!store.is_seen("a"));
            back(&clock, secs(7_199));
            match first {
                0 => assert!(store.is_seen("a")),
                1 => assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate),
                2 => assert!(store.get("a").unwrap().is_some()),
                _ => assert_eq!(store.check_and_mark_all(["a"]).unwrap(), [Verdict::Duplicate]),
            }
            assert!(store.verify().unwrap().is_ok());
            assert_eq!(store.stats().unwrap().seen, 3);
        }
    }
}

#[test]
fn counts_of_duplicates_outlive_a_clock_that_is_set_back_far() {
    let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
    let (store, _other) = (store(&place, &clock), store(&place, &clock));
    store.mark_seen("a").unwrap();
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    back(&clock, secs(7_200));
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert_eq!(store.get("a").unwrap().unwrap().duplicates, 2);
    assert_eq!(store.stats().unwrap().since_opened.rebuilds, 0, "the history is the same");
}

/// A verb by its name, and whether it takes the id "a" for seen.
type Verb = (&'static str, fn(&SeenStore) -> bool);

#[test]
fn a_store_that_goes_back_with_another_one_knows_in_the_same_call_what_it_had_swept() {
    let verbs: [Verb; 5] = [
        ("try_is_seen", |store| store.try_is_seen("a").unwrap()),
        ("get", |store| store.get("a").unwrap().is_some()),
        ("check_and_mark", |store| store.check_and_mark("a").unwrap() == Verdict::Duplicate),
        ("claim", |store| matches!(store.claim("a", secs(9)).unwrap(), Claim::Seen(_))),
        ("check_and_mark_all", |store| {
            store.check_and_mark_all(["a"]).unwrap() == [Verdict::Duplicate]
        }),
    ];
    for (name, verb) in verbs {
        let (place, clock) = (Place::in_ram(), Arc::<ManualClock>::default());
        let config = Config::default().ttl(secs(60)).purge_interval(secs(1));
        let open = || place.open(config.clone().clock(Arc::clone(&clock)));
        let (asks, marks) = (open(), open());
        // Not the newest row, which is read at each look.
        marks.seed(["a", "later"]).unwrap();
        clock.advance(secs(61));
        for n in 0..1_000 {
            // Looks sweep the index now and then, and write nothing.
            assert!(!asks.try_is_seen(format!("anything {n}")).unwrap());
        }
        assert_eq!(asks.stats().unwrap().expired, 0, "the index was not swept");
        back(&clock, secs(51));
        marks.mark_seen("b").unwrap();
        assert!(verb(&asks), "{name}");
        assert!(verb(&marks), "{name}");
    }
}
