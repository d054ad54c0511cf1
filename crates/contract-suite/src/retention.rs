//! What is kept of an id after it is no longer seen.

use seen_store::{Entry, Filter, History, State, Verdict};

use crate::Place;
use crate::bench::{Bench, SHORT, check, check_all, claimed, entry, get, ids};

/// A store whose marks last [`SHORT`], and are kept for longer than a test takes.
fn keeping(place: &dyn Place) -> Bench<'_> {
    let unit = place.unit();
    Bench::with(place, |config| config.ttl(unit * SHORT).retention(unit * crate::bench::LONG))
}

fn history(entry: &Entry) -> History {
    entry.history.expect("no window before this one")
}

pub(crate) fn an_expired_id_is_kept_and_told(place: &dyn Place) {
    let bench = keeping(place);
    let (store, again) = (bench.store(), bench.again());
    assert_eq!(check(store, "a"), Verdict::New);
    assert_eq!(check_all(store, &["a", "a"]), [Verdict::Duplicate; 2]);
    let mut before = entry(store, "a");
    assert_eq!(before.retain_until, Some(before.first_seen + bench.long()));
    assert_eq!((before.history, before.state), (None, State::Seen));
    bench.short_passes();
    assert!(!store.is_seen("a".into()) && !again.is_seen("a".into()));
    let kept = entry(store, "a");
    before.state = State::Expired;
    assert_eq!(kept, before);
    assert_eq!(ids(store, Filter::default().state(State::Expired)), ["a"]);
    assert!(ids(store, Filter::default()).is_empty());
    // A purge does not take it.
    store.purge_expired().unwrap();
    assert_eq!(entry(store, "a"), kept);
    let observed = store.observe("a".into()).unwrap();
    assert_eq!((observed.verdict, observed.before), (Verdict::New, Some(kept)));
}

pub(crate) fn a_window_tells_of_those_before_it(place: &dyn Place) {
    let bench = keeping(place);
    let (store, again) = (bench.store(), bench.again());
    assert_eq!(check_all(store, &["a", "a", "a"])[0], Verdict::New);
    let first = entry(store, "a");
    bench.short_passes();
    assert_eq!(check(store, "a"), Verdict::New);
    let second = entry(store, "a");
    assert!(second.first_seen >= first.first_seen + bench.short());
    assert_eq!(second.duplicates, 0);
    let expected = History::new(1, 2, first.first_seen, first.last_seen);
    assert_eq!(history(&second), expected);
    // It is told at every sighting.
    assert_eq!(check(store, "a"), Verdict::Duplicate);
    let second = entry(store, "a");
    assert_eq!((history(&second), second.duplicates), (expected, 1));
    bench.short_passes();
    assert_eq!(check(store, "a"), Verdict::New);
    let third = entry(store, "a");
    let expected = History::new(2, 3, first.first_seen, second.last_seen);
    assert_eq!((history(&third), third.duplicates), (expected, 0));
    assert_eq!(history(&entry(&*again, "a")).windows, 2);
}

pub(crate) fn every_verb_that_begins_a_window_tells_of_the_one_before(place: &dyn Place) {
    let bench = keeping(place);
    let store = bench.store();
    let all = ["checked", "in a batch", "marked", "seeded", "observed", "confirmed"];
    assert_eq!(check_all(store, &all), [Verdict::New; 6]);
    assert_eq!(check_all(store, &all), [Verdict::Duplicate; 6]);
    bench.short_passes();
    let lease = || claimed(store, "confirmed", bench.long());
    assert_eq!(check(store, "checked"), Verdict::New);
    assert_eq!(check_all(store, &["in a batch"]), [Verdict::New]);
    store.mark_seen("marked".into()).unwrap();
    assert_eq!(store.seed(&["seeded".into()]).unwrap(), 1);
    assert_eq!(store.observe("observed".into()).unwrap().verdict, Verdict::New);
    // The claim is what is known while it lasts, and what was kept stays meanwhile.
    let claim = lease();
    assert_eq!(claim.attempt(), 1);
    assert_eq!(entry(store, "confirmed").state, State::InFlight);
    drop(claim);
    let mut claim = lease();
    claim.confirm().unwrap();
    for id in all {
        let entry = entry(store, id);
        assert_eq!((history(&entry).windows, history(&entry).duplicates), (1, 1), "{id}");
        assert_eq!(entry.state, State::Seen);
    }
}

pub(crate) fn what_is_kept_is_gone_when_its_retention_is_over(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.ttl(place.unit() * 4));
    let store = bench.store();
    let short = store.retention(Some(bench.units(SHORT)));
    let long = store.retention(Some(bench.long()));
    assert_eq!(check(&*short, "short"), Verdict::New);
    assert_eq!(check(&*long, "long"), Verdict::New);
    assert_eq!(check(store, "none"), Verdict::New);
    bench.short_passes();
    assert_eq!((get(store, "short"), get(store, "none")), (None, None));
    assert_eq!(entry(store, "long").state, State::Expired);
    assert_eq!(check_all(&*long, &["short", "long", "none"]), [Verdict::New; 3]);
    let windows = |id| entry(store, id).history.map(|history| history.windows);
    assert_eq!([windows("short"), windows("long"), windows("none")], [None, Some(1), None]);
}

pub(crate) fn a_retention_as_long_as_the_ttl_keeps_nothing_beyond_it(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.ttl(place.unit() * SHORT));
    let store = bench.store().retention(Some(bench.short()));
    assert_eq!(check(&*store, "a"), Verdict::New);
    assert_eq!(entry(&*store, "a").retain_until, None);
    bench.short_passes();
    assert_eq!(get(&*store, "a"), None);
    assert_eq!(check(&*store, "a"), Verdict::New);
    assert_eq!(entry(&*store, "a").history, None);
}
