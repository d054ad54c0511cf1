//! How long marks last: TTLs, and marks of other times than now.

use std::time::{Duration, SystemTime};

use seen_store::{Ttl, Verdict};

use crate::Place;
use crate::bench::{Bench, check, check_all, claimed, entry, get, items};

pub(crate) fn an_expired_mark_is_new_again_to_every_verb(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.ttl(place.unit() * crate::bench::SHORT));
    let (store, again) = (bench.store(), bench.again());
    let ids = ["checked", "in a batch", "marked", "seeded", "observed", "claimed"];
    for (n, id) in ids.iter().enumerate() {
        if n % 2 == 0 {
            assert_eq!(check(store, *id), Verdict::New);
        } else {
            store.mark_seen((*id).into()).unwrap();
        }
    }
    assert_eq!(check(store, "checked"), Verdict::Duplicate);
    assert!(again.is_seen("seeded".into()));
    bench.short_passes();
    for id in ids {
        for store in [store, &*again] {
            assert!(!store.is_seen(id.into()) && !store.try_is_seen(id.into()).unwrap(), "{id}");
            assert_eq!(get(store, id), None, "{id}");
        }
    }
    assert_eq!(check(&*again, "checked"), Verdict::New);
    assert_eq!(check_all(store, &["in a batch", "in a batch"]), [Verdict::New, Verdict::Duplicate]);
    store.mark_seen("marked".into()).unwrap();
    assert_eq!(store.seed(&items(&["seeded"])).unwrap(), 1);
    let observed = store.observe("observed".into()).unwrap();
    assert_eq!((observed.verdict, observed.before), (Verdict::New, None));
    let mut lease = claimed(store, "claimed", bench.long());
    assert_eq!(lease.attempt(), 1);
    lease.confirm().unwrap();
    for id in ids {
        assert!(store.is_seen(id.into()), "{id}");
        let entry = entry(store, id);
        // Nothing of the window before is left, and the new one began after it.
        assert_eq!(
            (entry.history, entry.expires_at),
            (None, Some(entry.last_seen + bench.short()))
        );
    }
}

pub(crate) fn a_mark_with_a_ttl_of_zero_is_never_seen(place: &dyn Place) {
    let bench = Bench::new(place);
    let (kept, store) = (bench.store(), bench.store().ttl(Duration::ZERO.into()));
    for _ in 0..2 {
        assert_eq!(check(&*store, "a"), Verdict::New);
        assert!(!store.is_seen("a".into()) && !kept.is_seen("a".into()));
    }
    assert_eq!(check_all(&*store, &["a", "a", "b"]), [Verdict::New, Verdict::New, Verdict::New]);
    assert_eq!(store.seed(&items(&["a", "b", "b"])).unwrap(), 3);
    store.mark_seen("a".into()).unwrap();
    assert_eq!(store.observe("a".into()).unwrap().verdict, Verdict::New);
    assert!(!store.is_seen("a".into()));
    assert_eq!(get(kept, "a"), None);
    let mut lease = claimed(&*store, "c", bench.long());
    lease.confirm().unwrap();
    assert!(!store.is_seen("c".into()));
    // To a mark that lives it does nothing.
    assert_eq!(check(kept, "d"), Verdict::New);
    store.mark_seen("d".into()).unwrap();
    assert_eq!(check(&*store, "d"), Verdict::Duplicate);
}

pub(crate) fn a_mark_that_never_expires_stays(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.ttl(Ttl::Never));
    let store = bench.store();
    assert_eq!(check(store, "a"), Verdict::New);
    store.mark_seen_at("b".into(), SystemTime::UNIX_EPOCH).unwrap();
    claimed(store, "c", bench.short()).confirm().unwrap();
    assert_eq!(check(&*store.ttl(bench.short().into()), "d"), Verdict::New);
    bench.short_passes();
    for id in ["a", "b", "c"] {
        assert_eq!(check(store, id), Verdict::Duplicate);
        assert_eq!(entry(store, id).expires_at, None);
    }
    assert_eq!(check(store, "d"), Verdict::New, "it had the TTL of its handle");
    store.purge_expired().unwrap();
    assert!(["a", "b", "c", "d"].iter().all(|id| store.is_seen((*id).into())));
}

pub(crate) fn a_mark_of_the_past_expires_one_ttl_after_its_time(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let now = bench.now();
    // Since when it is over, or for how long it lives yet.
    for units in [1, 50, 100_000] {
        store.mark_seen_at("over".into(), now - bench.long() - bench.units(units)).unwrap();
        assert!(!store.is_seen("over".into()));
        assert_eq!(get(store, "over"), None);
    }
    assert_eq!(check(store, "over"), Verdict::New);
    store.mark_seen_at("alive".into(), now - bench.long() + bench.units(100)).unwrap();
    let alive = entry(store, "alive");
    assert_eq!(alive.expires_at, Some(now + bench.units(100)));
    assert_eq!(check(store, "alive"), Verdict::Duplicate);
    // What would have been over is no mark, and takes nothing from one that lives.
    store.mark_seen_at("alive".into(), now - bench.long() * 2).unwrap();
    let older = entry(store, "alive");
    assert_eq!(older.first_seen, now - bench.long() * 2);
    assert_eq!(older.expires_at, alive.expires_at);
    store.mark_seen_at("short".into(), now - bench.long() + bench.short()).unwrap();
    bench.short_passes();
    assert_eq!(check(store, "short"), Verdict::New);
}

pub(crate) fn marks_of_any_time_are_taken(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let (now, epoch) = (bench.now(), SystemTime::UNIX_EPOCH);
    let century = Duration::from_secs(100 * 365 * 24 * 3_600);
    for (id, seen_at) in [
        ("tomorrow", now + bench.units(100)),
        ("in a century", now + century),
        ("in ten thousand years", now + century * 100),
    ] {
        store.mark_seen_at(id.into(), seen_at).unwrap();
        assert!(store.is_seen(id.into()), "{id}");
        assert_eq!(check(store, id), Verdict::Duplicate, "{id}");
        assert!(entry(store, id).expires_at.unwrap() > now + bench.long());
    }
    for (id, seen_at) in [
        ("1970", epoch),
        ("before 1970", epoch - Duration::from_micros(1)),
        ("a century before", epoch - century),
        ("long before", epoch - century * 100),
    ] {
        store.mark_seen_at(id.into(), seen_at).unwrap();
        assert!(!store.is_seen(id.into()), "{id}");
        store.ttl(Ttl::Never).mark_seen_at(id.into(), seen_at).unwrap();
        assert!(store.is_seen(id.into()), "{id}");
        assert!(entry(store, id).first_seen <= epoch + Duration::from_millis(1), "{id}");
    }
    // A TTL and a lease that no clock can reach.
    let ages = store.ttl(Duration::MAX.into());
    assert_eq!(check(&*ages, "for ages"), Verdict::New);
    assert_eq!(check(&*ages, "for ages"), Verdict::Duplicate);
    assert!(entry(store, "for ages").expires_at > Some(now + century));
    let lease = claimed(store, "leased for ages", Duration::MAX);
    assert!(lease.expires_at() > now + century && lease.is_held().unwrap());
}

pub(crate) fn a_mark_expires_at_the_very_moment_its_ttl_is_over(place: &dyn Place) {
    if place.keeps_its_own_clock() {
        return;
    }
    let bench = Bench::new(place);
    let store = bench.store();
    let ms = Duration::from_millis;
    for (ttl, last) in [(ms(1_000), ms(999)), (Duration::from_micros(1_001), ms(1))] {
        let store = store.ttl(ttl.into());
        assert_eq!(check(&*store, "a"), Verdict::New);
        let mut lease = claimed(&*store, "b", ttl);
        place.time_passes(last);
        assert_eq!(check(&*store, "a"), Verdict::Duplicate);
        assert!(lease.is_held().unwrap());
        place.time_passes(ms(1));
        assert!(!store.is_seen("a".into()) && !lease.is_held().unwrap());
        assert_eq!(check(&*store, "a"), Verdict::New);
        lease.confirm().unwrap();
        assert!(lease.was_late());
        assert!(store.forget("a".into()).unwrap() && store.forget("b".into()).unwrap());
    }
    // A mark that was made one TTL ago is over, one of a millisecond later is not.
    let now = bench.now();
    store.mark_seen_at("a".into(), now - bench.long()).unwrap();
    store.mark_seen_at("b".into(), now - bench.long() + ms(1)).unwrap();
    assert!(!store.is_seen("a".into()) && store.is_seen("b".into()));
}

pub(crate) fn a_clock_that_is_set_back_a_little_revives_nothing(place: &dyn Place) {
    if place.keeps_its_own_clock() {
        return;
    }
    let bench = Bench::new(place);
    let store = bench.store().ttl(Duration::from_secs(100).into());
    assert_eq!(check(&*store, "a"), Verdict::New);
    let lease = claimed(&*store, "b", Duration::from_secs(100));
    place.time_passes(Duration::from_secs(100));
    assert!(!store.is_seen("a".into()) && !lease.is_held().unwrap());
    place.clock_is_set_back(Duration::from_secs(59));
    assert!(!store.is_seen("a".into()) && !lease.is_held().unwrap());
    assert_eq!(check(&*store, "a"), Verdict::New);
    // Time stands still until the clock has caught up.
    place.time_passes(Duration::from_secs(59 + 99));
    assert_eq!(check(&*store, "a"), Verdict::Duplicate);
    place.time_passes(Duration::from_secs(1));
    assert_eq!(check(&*store, "a"), Verdict::New);
}
