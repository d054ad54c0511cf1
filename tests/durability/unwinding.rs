//! A panic in a caller's code leaves a store, a lease, a listing and a reader whole: they say so by being
//! `UnwindSafe`, so no test here needs `AssertUnwindSafe` for them.

use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::SystemTime;

use seen_store::{
    Claim, Clock, Config, Entries, Entry, Filter, Item, Lease, Listing, ManualClock, Reader,
    SeenStore, Ttl, Verdict, Window,
};

use crate::common::{Place, ms, secs};

const fn whole_after_a_panic<T: UnwindSafe + RefUnwindSafe>() {}
const _: () = {
    whole_after_a_panic::<SeenStore>();
    whole_after_a_panic::<Lease>();
    whole_after_a_panic::<Claim>();
    whole_after_a_panic::<Entries>();
    whole_after_a_panic::<Reader>();
    whole_after_a_panic::<Listing<'_>>();
};

/// A clock that panics at one of its readings, in the thread of the test.
struct PanickingClock {
    clock: ManualClock,
    readings_left: AtomicI64,
}

impl PanickingClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { clock: ManualClock::default(), readings_left: AtomicI64::new(i64::MAX) })
    }
}

impl Clock for PanickingClock {
    fn now(&self) -> SystemTime {
        let panics = self.readings_left.fetch_sub(1, SeqCst) == 1;
        if panics {
            // Without the hook: hundreds of messages would say nothing.
            std::panic::resume_unwind(Box::new("the clock was told to panic"));
        }
        self.clock.now()
    }
}

type Verb = fn(&SeenStore);

/// The verbs, each with what must hold once it has returned.
const VERBS: [(&str, Verb); 17] = [
    ("mark_seen", |store| {
        store.mark_seen("mark").unwrap();
        assert!(store.try_is_seen("mark").unwrap());
    }),
    ("check_and_mark", |store| {
        let _ = store.check_and_mark("check").unwrap();
        assert_eq!(store.check_and_mark("check").unwrap(), Verdict::Duplicate);
    }),
    ("check_and_mark in a sliding window", |store| {
        let sliding = store.ttl(secs(50)).window(Window::Sliding { max_age: Some(secs(55)) });
        let _ = sliding.check_and_mark("slides").unwrap();
        assert_eq!(sliding.check_and_mark("slides").unwrap(), Verdict::Duplicate);
    }),
    ("try_is_seen", |store| assert!(!store.try_is_seen("never marked").unwrap())),
    ("check_and_mark_all", |store| {
        assert_eq!(store.check_and_mark_all(["all", "all"]).unwrap()[1], Verdict::Duplicate);
    }),
    ("seed", |store| assert!(store.seed(["a seed", "another seed"]).unwrap() <= 2)),
    ("get", |store| assert!(store.get("kept").unwrap().is_some())),
    ("forget", |store| {
        store.mark_seen("forgotten").unwrap();
        store.forget("forgotten").unwrap();
        assert!(!store.try_is_seen("forgotten").unwrap());
    }),
    ("claim and confirm", |store| {
        if let Claim::Granted(mut lease) = store.claim("confirmed", secs(1)).unwrap() {
            lease.renew(secs(2)).unwrap();
            lease.confirm_with("receipt").unwrap();
            assert!(store.try_is_seen("confirmed").unwrap());
        }
    }),
    ("claim and fail", |store| {
        if let Claim::Granted(mut lease) = store.claim("failed", secs(1)).unwrap() {
            lease.fail("for a reason").unwrap();
        }
    }),
    ("claim_all, confirm_all and release_all", |store| {
        let claims = store.claim_all(["one", "two"], secs(1)).unwrap();
        let held: Vec<_> = claims
            .into_iter()
            .filter_map(|claim| match claim {
                Claim::Granted(lease) => Some((lease.id().to_vec(), lease.into_token())),
                _ => None,
            })
            .collect();
        let _ = store.renew_all(held.clone(), secs(2)).unwrap();
        let _ = store.confirm_all(held.iter().take(1).cloned()).unwrap();
        let _ = store.release_all(held.into_iter().skip(1)).unwrap();
    }),
    ("purge_expired", |store| assert!(store.purge_expired().is_ok())),
    ("cleanup_old_entries", |store| {
        assert!(store.scope("old").cleanup_old_entries(secs(0)).is_ok());
    }),
    ("forget_scope", |store| {
        store.scope("old").mark_seen("a").unwrap();
        assert!(store.scope("old").forget_scope().unwrap() > 0);
    }),
    ("entries", |store| {
        let kept = |entry: &Entry| entry.id == b"kept";
        let entries = store.entries(Filter::default()).map(Result::unwrap);
        assert_eq!(entries.filter(kept).count(), 1);
        assert!(
            store.entries(Filter::default().state(seen_store::State::Expired)).all(|e| e.is_ok())
        );
    }),
    ("restore", |store| {
        let entries: Vec<Entry> = store.entries(Filter::default()).map(Result::unwrap).collect();
        assert_eq!(store.restore(entries).unwrap().added, 0);
    }),
    ("stats, verify and counts", |store| {
        assert!(store.stats().unwrap().seen > 0);
        assert!(store.verify().unwrap().is_ok());
        assert!(store.count_expired().is_ok() && store.count_old_entries(secs(1)).is_ok());
    }),
];

/// What holds after a panic: another store can write at once, this one answers and forgets nothing.
fn assert_whole(place: &Place, store: &SeenStore, other: &SeenStore, n: &str) {
    let plain = place.sql();
    plain.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap_or_else(|e| panic!("{n}: {e}"));
    drop(plain);
    assert!(store.try_is_seen("kept").unwrap(), "{n}");
    assert_eq!(store.check_and_mark(format!("after {n}")).unwrap(), Verdict::New);
    assert_eq!(other.check_and_mark(format!("after {n}")).unwrap(), Verdict::Duplicate);
    let problems = store.verify().unwrap().problems;
    assert!(problems.is_empty(), "{n}: {problems:?}");
}

#[test]
fn a_clock_that_panics_at_any_of_its_readings_leaves_the_store_whole_in_every_verb() {
    let place = Place::in_ram();
    let clock = PanickingClock::new();
    let config = Config::default()
        .clock(clock.clone())
        .ttl(Ttl::Never)
        .purge_interval(secs(60))
        .busy_timeout(ms(500));
    let store = place.open(config.clone());
    let other = place.open(config.purge_interval(None));
    store.mark_seen("kept").unwrap();
    for (name, verb) in VERBS {
        let mut panics = 0;
        for reading in (1..40).chain((40..).step_by(7)) {
            // With duplicates counted and marks and claims expired, and a purge due.
            store.ttl(secs(1)).seed(["x", "y"]).unwrap();
            store.scope("old").mark_seen("a").unwrap();
            assert_eq!(store.check_and_mark("kept").unwrap(), Verdict::Duplicate);
            clock.clock.advance(secs(61));
            clock.readings_left.store(reading, SeqCst);
            let done = catch_unwind(|| verb(&store));
            let unread = clock.readings_left.swap(i64::MAX, SeqCst) > 0;
            assert!(done.is_ok() == unread, "{name}, reading {reading}: {done:?}");
            if unread {
                break;
            }
            panics += 1;
            // A listing and a check read the clock for each of 256 shards: one is as good as the next.
            if panics > 20 && panics % 32 != 0 {
                continue;
            }
            assert_whole(&place, &store, &other, &format!("{name} {reading}"));
        }
        assert!(panics > 0, "{name} never read the clock");
    }
    store.close().unwrap();
}

#[test]
fn a_store_whose_clock_panics_while_the_last_handle_is_dropped_is_closed_all_the_same() {
    for reading in 1.. {
        let place = Place::in_ram();
        let clock = PanickingClock::new();
        let store = place.open(Config::default().clock(clock.clone()));
        store.mark_seen("a").unwrap();
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
        clock.readings_left.store(reading, SeqCst);
        let done = catch_unwind(|| drop(store));
        let unread = clock.readings_left.swap(i64::MAX, SeqCst) > 0;
        assert_eq!(done.is_ok(), unread);
        assert_eq!(place.files(), ["seen.db"], "reading {reading}");
        assert!(place.open(Config::default().clock(clock)).try_is_seen("a").unwrap());
        if unread {
            return;
        }
    }
}

#[test]
fn a_clock_that_panics_while_a_lease_is_dropped_leaves_the_store_whole() {
    let place = Place::in_ram();
    let clock = PanickingClock::new();
    let config = Config::default().clock(clock.clone()).ttl(Ttl::Never);
    let (store, other) = (place.open(config.clone()), place.open(config));
    store.mark_seen("kept").unwrap();
    for reading in 1.. {
        let Claim::Granted(lease) = store.claim("claimed", secs(1)).unwrap() else { panic!() };
        clock.readings_left.store(reading, SeqCst);
        let done = catch_unwind(|| drop(lease));
        let unread = clock.readings_left.swap(i64::MAX, SeqCst) > 0;
        assert_eq!(done.is_ok(), unread);
        assert_whole(&place, &store, &other, &reading.to_string());
        if unread {
            return;
        }
        clock.clock.advance(secs(1));
    }
}

#[test]
fn a_clock_that_panics_in_one_thread_leaves_no_thread_of_its_group_waiting() {
    let place = Place::in_ram();
    let clock = PanickingClock::new();
    let store = place.open(Config::default().clock(clock.clone()));
    for round in 0..200 {
        let (begin, panicked) = (Barrier::new(4), AtomicBool::new(false));
        clock.readings_left.store(1 + round % 9, SeqCst);
        let marked = thread::scope(|scope| {
            let markers: Vec<_> = (0..4)
                .map(|thread| {
                    let (store, begin, panicked) = (&store, &begin, &panicked);
                    scope.spawn(move || {
                        begin.wait();
                        let id = format!("{round}-{thread}");
                        let answer = catch_unwind(|| store.mark_seen(&id));
                        panicked.fetch_or(answer.is_err(), SeqCst);
                        // Its leader may have panicked with this mark in its hands.
                        answer.is_ok_and(|marked| marked.is_ok()).then_some(id)
                    })
                })
                .collect();
            markers.into_iter().filter_map(|marker| marker.join().unwrap()).collect::<Vec<_>>()
        });
        clock.readings_left.store(i64::MAX, SeqCst);
        assert!(marked.len() == 4 || panicked.load(SeqCst));
        for id in marked {
            assert!(store.try_is_seen(&id).unwrap(), "{id} was acknowledged and is lost");
        }
    }
    assert!(store.verify().unwrap().is_ok());
}

/// An id whose bytes cannot be had at one of the times that they are asked for.
struct PanickingId(AtomicI64);

impl AsRef<[u8]> for PanickingId {
    fn as_ref(&self) -> &[u8] {
        if self.0.fetch_sub(1, SeqCst) == 1 {
            std::panic::resume_unwind(Box::new("the id was told to panic"));
        }
        b"an id"
    }
}

impl From<PanickingId> for Item<'_> {
    fn from(id: PanickingId) -> Self {
        Item::from(id.as_ref().to_vec())
    }
}

fn panicking_at(asked: i64) -> PanickingId {
    PanickingId(AtomicI64::new(asked))
}

#[test]
fn ids_and_iterators_that_panic_mark_nothing_and_leave_the_store_whole() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let other = place.open(Config::default());
    store.mark_seen("kept").unwrap();
    let Claim::Granted(lease) = store.claim("held", secs(60)).unwrap() else { panic!() };
    let token = lease.token();
    let good = || panicking_at(i64::MAX);
    let bad_iterator =
        || (0..10).map(|n| if n < 9 { panicking_at(i64::MAX) } else { ends_badly() });
    let calls: [(&str, &(dyn Fn() + RefUnwindSafe)); 12] = [
        ("mark_seen", &|| store.mark_seen(panicking_at(1)).unwrap()),
        ("claim", &|| drop(store.claim(panicking_at(1), secs(1)))),
        ("confirm", &|| store.confirm(panicking_at(1), &token).unwrap()),
        ("confirm_with", &|| store.confirm_with("held", &token, panicking_at(1)).unwrap()),
        ("forget", &|| drop(store.forget(panicking_at(1)))),
        ("get", &|| drop(store.get(panicking_at(1)))),
        ("a batch", &|| drop(store.check_and_mark_all([good(), panicking_at(1)]))),
        ("a batch of claims", &|| drop(store.claim_all([good(), panicking_at(1)], secs(1)))),
        ("a batch of tokens", &|| drop(store.confirm_all([(panicking_at(1), token)]))),
        ("seed", &|| drop(store.seed(bad_iterator()))),
        ("claim_all", &|| drop(store.claim_all(bad_iterator(), secs(1)))),
        ("restore", &|| {
            let entries = (0..10).map(|n| if n < 9 { entry(n) } else { ends_badly() });
            drop(store.restore(entries));
        }),
    ];
    for (name, call) in calls {
        assert!(catch_unwind(call).is_err(), "{name} did not panic");
        assert!(!store.try_is_seen("an id").unwrap(), "{name} marked something");
        assert_whole(&place, &store, &other, name);
    }
    assert!(store.get("an id").unwrap().is_none() && !store.try_is_seen("entry 0").unwrap());
    drop(lease);
}

fn ends_badly<T>() -> T {
    std::panic::resume_unwind(Box::new("the iterator ends badly"))
}

fn entry(n: i32) -> Entry {
    Entry::new("", format!("entry {n}"), SystemTime::UNIX_EPOCH)
}

#[test]
fn a_reader_whose_clock_panics_at_any_of_its_readings_goes_on_reading() {
    let place = Place::in_ram();
    let clock = PanickingClock::new();
    let config = Config::default().clock(clock.clone()).ttl(Ttl::Never);
    let store = place.open(config.clone());
    store.mark_seen("kept").unwrap();
    let reader = Reader::open_with(place.path(), config.clone()).unwrap();
    let calls: [fn(&Reader); 4] = [
        |reader| assert!(reader.try_is_seen("kept").unwrap()),
        |reader| assert!(reader.verify().unwrap().is_ok()),
        |reader| assert_eq!(reader.entries(Filter::default()).count(), 1),
        |reader| assert_eq!(reader.stats(secs(1), 1).unwrap().total().seen, 1),
    ];
    for (number, call) in calls.iter().enumerate() {
        for reading in 1.. {
            clock.readings_left.store(reading, SeqCst);
            let done = catch_unwind(|| call(&reader));
            let unread = clock.readings_left.swap(i64::MAX, SeqCst) > 0;
            assert!(done.is_ok() == unread, "call {number}, reading {reading}: {done:?}");
            call(&reader);
            if unread {
                break;
            }
        }
    }
    store.mark_seen("another").unwrap();
    assert!(reader.try_is_seen("another").unwrap());
}

#[test]
fn a_listing_goes_on_where_it_was_after_a_panic() {
    let place = Place::in_ram();
    let clock = PanickingClock::new();
    let config = Config::default().clock(clock.clone()).ttl(Ttl::Never);
    let store = place.open(config.clone());
    store.seed((0..1_200).map(|n| format!("id-{n}"))).unwrap();
    let reader = Reader::open_with(place.path(), config.clone()).unwrap();
    for reading in 1..40 {
        // Behind a lock, as something that a worker shares with its panicking part.
        let listing = std::sync::Mutex::new(store.entries(Filter::default()));
        let walk = std::sync::Mutex::new(reader.entries(Filter::default()));
        clock.readings_left.store(reading, SeqCst);
        let listed = count_in_two_goes(&listing);
        let walked = count_in_two_goes(&walk);
        clock.readings_left.store(i64::MAX, SeqCst);
        assert_eq!((listed, walked), (1_200, 1_200), "reading {reading}");
    }
}

/// Counts what an iterator gives, going on after a panic.
fn count_in_two_goes<T>(
    entries: &std::sync::Mutex<impl Iterator<Item = seen_store::Result<T>>>,
) -> usize {
    let mut count = 0;
    loop {
        let next = catch_unwind(|| {
            entries
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .next()
                .map(Result::unwrap)
        });
        match next {
            Ok(Some(_)) => count += 1,
            Ok(None) => return count,
            Err(_) => {}
        }
    }
}
