//! Sliding windows: an id that comes back stays seen.

use seen_store::{Verdict, Window};

use crate::Place;
use crate::bench::{Bench, check, check_all, claimed, entry, known};

/// The TTL of these tests, in units. A mark lasts up to a sixteenth longer.
const TTL: u32 = 16;

/// An interval in which an id comes back in time.
const SOON: u32 = 10;

pub(crate) fn an_id_stays_seen_as_long_as_it_comes_back(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.ttl(place.unit() * TTL).window(Window::SLIDING));
    let (store, again) = (bench.store(), bench.again());
    let fixed = store.window(Window::Fixed);
    let ids = ["checked", "in a batch", "observed", "claimed"];
    assert_eq!(check_all(store, &ids), [Verdict::New; 4]);
    assert_eq!(check(&*fixed, "fixed"), Verdict::New);
    for round in 0..2 {
        bench.passes(SOON);
        let store = if round == 0 { store } else { &*again };
        assert_eq!(check(store, "checked"), Verdict::Duplicate);
        assert_eq!(check_all(store, &["in a batch"]), [Verdict::Duplicate]);
        assert_eq!(store.observe("observed".into()).unwrap().verdict, Verdict::Duplicate);
        known(store.claim("claimed".into(), bench.short()).unwrap());
        let expected = if round == 0 { Verdict::Duplicate } else { Verdict::New };
        assert_eq!(check(&*fixed, "fixed"), expected, "a fixed window is not prolonged");
    }
    for id in ids {
        let entry = entry(store, id);
        let lasts = entry.expires_at.unwrap().duration_since(entry.last_seen).unwrap();
        assert!(lasts >= bench.units(TTL - 1) && lasts <= bench.units(TTL + 1), "{lasts:?}");
    }
    bench.passes(TTL + 2);
    assert_eq!(check_all(store, &ids), [Verdict::New; 4]);
}

pub(crate) fn a_sighting_by_another_verb_prolongs_nothing(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.ttl(place.unit() * TTL).window(Window::SLIDING));
    let store = bench.store();
    assert_eq!(check(store, "a"), Verdict::New);
    let before = entry(store, "a");
    bench.passes(SOON);
    assert!(store.is_seen("a".into()));
    assert_eq!(check(&*store.window(Window::Fixed), "a"), Verdict::Duplicate);
    assert_eq!(entry(store, "a").expires_at, before.expires_at);
    bench.passes(TTL + 2 - SOON);
    assert_eq!(check(store, "a"), Verdict::New);
}

pub(crate) fn a_sliding_window_ends_at_its_maximum_age(place: &dyn Place) {
    const MAX_AGE: u32 = 30;
    let max_age = Some(place.unit() * MAX_AGE);
    let window = Window::Sliding { max_age };
    let bench = Bench::with(place, |config| config.ttl(place.unit() * TTL).window(window));
    let store = bench.store();
    assert_eq!(check(store, "a"), Verdict::New);
    claimed(store, "b", bench.short()).confirm().unwrap();
    store.mark_seen("refreshed".into()).unwrap();
    let ids = ["a", "b", "refreshed"];
    let first = ids.map(|id| entry(store, id).first_seen);
    for _ in 0..2 {
        bench.passes(SOON);
        assert_eq!(check(store, "a"), Verdict::Duplicate);
        assert_eq!(check(store, "b"), Verdict::Duplicate);
        store.mark_seen("refreshed".into()).unwrap();
    }
    for (id, first) in ids.iter().zip(first) {
        let entry = entry(store, *id);
        assert_eq!(entry.first_seen, first, "{id}");
        assert_eq!(entry.expires_at, Some(first + bench.units(MAX_AGE)), "{id}");
    }
    bench.passes(MAX_AGE - 2 * SOON);
    for id in ids {
        assert_eq!(check(store, id), Verdict::New, "{id}");
    }
}

pub(crate) fn the_age_of_a_confirmed_id_counts_from_its_claim(place: &dyn Place) {
    let window = |units| Window::Sliding { max_age: Some(place.unit() * units) };
    let bench = Bench::with(place, |config| config.ttl(place.unit() * 100).window(window(60)));
    let store = bench.store();
    let mut lease = claimed(store, "a", bench.long());
    let mut late = claimed(&*store.window(window(4)), "late", bench.long());
    let claimed_at = entry(store, "a").first_seen;
    bench.passes(5);
    lease.confirm().unwrap();
    late.confirm().unwrap();
    let confirmed = entry(store, "a");
    assert_eq!(confirmed.first_seen, claimed_at);
    assert_eq!(confirmed.expires_at, Some(claimed_at + bench.units(60)));
    // The maximum age was over when it was confirmed: then it counts from there.
    let late = entry(store, "late");
    assert!(late.first_seen >= claimed_at + bench.units(5));
    assert_eq!(late.expires_at, Some(late.first_seen + bench.units(4)));
}
