//! Marks: the verdicts, what a mark tells, duplicates.

use seen_store::{Failure, State, Store, Ttl, Verdict};

use crate::Place;
use crate::bench::{Bench, check, check_all, claimed, entry, get, items, known};

pub(crate) fn a_new_id_is_new_once_and_then_a_duplicate(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    assert!(!store.is_seen("a".into()) && !store.try_is_seen("a".into()).unwrap());
    assert_eq!(get(store, "a"), None);
    assert_eq!(check(store, "a"), Verdict::New);
    for store in [store, &*again, store] {
        assert_eq!(check(store, "a"), Verdict::Duplicate);
        assert!(store.is_seen("a".into()) && store.try_is_seen("a".into()).unwrap());
        assert!(!store.is_seen("b".into()));
    }
    store.mark_seen("b".into()).unwrap();
    assert_eq!(check(&*again, "b"), Verdict::Duplicate);
    assert_eq!(check(&*again, "c"), Verdict::New);
    assert_eq!(check(store, "c"), Verdict::Duplicate);
}

/// A verb that marks an id.
type Mark = fn(&dyn Store, &str);

pub(crate) fn a_mark_tells_when_it_was_made_and_until_when_it_lasts(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let now = bench.now();
    let verbs: [(&str, Mark); 5] = [
        ("check", |store, id| assert_eq!(check(store, id), Verdict::New)),
        ("check all", |store, id| assert_eq!(check_all(store, &[id]), [Verdict::New])),
        ("mark", |store, id| store.mark_seen(id.into()).unwrap()),
        ("seed", |store, id| assert_eq!(store.seed(&items(&[id])).unwrap(), 1)),
        ("observe", |store, id| {
            assert_eq!(store.observe(id.into()).unwrap().verdict, Verdict::New);
        }),
    ];
    for (id, mark) in verbs {
        mark(&*store.scope("of verbs"), id);
        let entry = entry(&*store.scope("of verbs"), id);
        assert_eq!(
            (&*entry.scope, &*entry.id, entry.state),
            ("of verbs", id.as_bytes(), State::Seen)
        );
        bench.assert_near(entry.first_seen, now);
        assert_eq!(entry.last_seen, entry.first_seen);
        assert_eq!(entry.expires_at, Some(entry.first_seen + bench.long()));
        assert_eq!((entry.attempts, entry.abandoned, entry.duplicates), (0, 0, 0));
        assert_eq!((entry.digest, entry.change, entry.history), (None, None, None));
        assert_eq!((entry.receipt, entry.last_error, entry.holder), (None, None, None));
        assert_eq!((entry.lease_until, entry.retain_until, entry.held), (None, None, false));
    }
}

pub(crate) fn a_refresh_keeps_the_earliest_and_the_latest_time_and_never_shortens(
    place: &dyn Place,
) {
    let bench = Bench::new(place);
    let store = bench.store();
    let (now, units) = (bench.now(), |units| bench.units(units));
    // Each time, and what the mark then tells: first, last and from when the TTL counts.
    let steps = [
        (now - units(20), now - units(20), now - units(20)),
        (now - units(40), now - units(40), now - units(20)),
        (now + units(30), now - units(40), now + units(30)),
        (now, now - units(40), now + units(30)),
        (now - units(30), now - units(40), now + units(30)),
        (now + units(60), now - units(40), now + units(60)),
    ];
    for (seen_at, first, last) in steps {
        store.mark_seen_at("a".into(), seen_at).unwrap();
        let entry = entry(store, "a");
        assert_eq!((entry.first_seen, entry.last_seen), (first, last));
        assert_eq!(entry.expires_at, Some(last + bench.long()));
    }
    // The TTL of the handle counts, and a shorter one takes nothing away.
    let before = entry(store, "a");
    store.ttl(bench.units(1).into()).mark_seen("a".into()).unwrap();
    assert_eq!(entry(store, "a"), before);
    store.ttl((bench.long() * 3).into()).mark_seen("a".into()).unwrap();
    assert!(entry(store, "a").expires_at > before.expires_at);
    store.ttl(Ttl::Never).mark_seen("a".into()).unwrap();
    assert_eq!(entry(store, "a").expires_at, None);
    store.mark_seen("a".into()).unwrap();
    assert_eq!(entry(store, "a").expires_at, None);
    // A check prolongs nothing, with whatever TTL.
    store.mark_seen("b".into()).unwrap();
    let before = entry(store, "b").expires_at;
    assert_eq!(check(&*store.ttl(Ttl::Never), "b"), Verdict::Duplicate);
    assert_eq!(store.ttl(Ttl::Never).seed(&items(&["b"])).unwrap(), 0);
    assert_eq!(entry(store, "b").expires_at, before);
}

pub(crate) fn duplicates_are_counted_and_told_at_once(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    assert_eq!(check(store, "a"), Verdict::New);
    let first = entry(store, "a");
    bench.passes(2);
    for duplicates in 1..4 {
        assert_eq!(check(store, "a"), Verdict::Duplicate);
        assert_eq!(entry(store, "a").duplicates, duplicates);
    }
    let seen = store.observe("a".into()).unwrap();
    assert_eq!((seen.verdict, seen.before.unwrap().duplicates), (Verdict::Duplicate, 3));
    assert_eq!(entry(store, "a").duplicates, 4);
    assert_eq!(
        check_all(store, &["a", "b", "a", "b"])[..],
        [Verdict::Duplicate, Verdict::New, Verdict::Duplicate, Verdict::Duplicate]
    );
    assert_eq!((entry(store, "a").duplicates, entry(store, "b").duplicates), (6, 1));
    let before = known(store.claim("a".into(), bench.long()).unwrap()).entry().unwrap().unwrap();
    assert!(before.duplicates >= 6);
    assert_eq!(entry(store, "a").duplicates, 7);
    // What does not turn a duplicate away counts none, and loses none.
    assert!(store.is_seen("a".into()) && store.try_is_seen("a".into()).unwrap());
    store.mark_seen("a".into()).unwrap();
    let last = entry(store, "a");
    assert_eq!((last.duplicates, last.first_seen), (7, first.first_seen));
    assert!(last.last_seen >= first.last_seen + bench.units(2));
    assert!(last.expires_at > first.expires_at, "a refresh prolongs");
}

pub(crate) fn duplicates_of_a_mark_move_its_last_time_and_not_its_end(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    assert_eq!(check(store, "a"), Verdict::New);
    let first = entry(store, "a");
    bench.passes(2);
    assert_eq!(check(store, "a"), Verdict::Duplicate);
    let last = entry(store, "a");
    assert_eq!((last.first_seen, last.expires_at), (first.first_seen, first.expires_at));
    assert!(last.last_seen >= first.last_seen + bench.units(2));
}

pub(crate) fn a_seed_marks_all_and_counts_the_new(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let seed = |ids: &[&str]| store.seed(&items(ids)).unwrap();
    assert_eq!(seed(&[]), 0);
    assert_eq!(seed(&["a", "b"]), 2);
    assert_eq!(seed(&["a", "b"]), 0);
    assert_eq!(seed(&["b", "c", "c", "d"]), 2);
    assert_eq!(
        check_all(&*again, &["a", "b", "c", "d", "e"])[..],
        [
            Verdict::Duplicate,
            Verdict::Duplicate,
            Verdict::Duplicate,
            Verdict::Duplicate,
            Verdict::New
        ]
    );
    // An id that is claimed, or whose attempts failed, is marked and counts.
    let mut lease = claimed(store, "held", bench.long());
    claimed(store, "failed", bench.long()).fail(Failure::new("404").is_final()).unwrap();
    assert_eq!(seed(&["held", "failed", "a"]), 2);
    assert!(store.is_seen("held".into()) && store.is_seen("failed".into()));
    lease.confirm().unwrap();
    let many: Vec<String> = (0..300).map(|n| format!("many {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(seed(&many), 300);
    assert_eq!(seed(&many), 0);
}

pub(crate) fn to_observe_tells_what_was_known_before(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let observe = |id: &str| store.observe(id.into()).unwrap();
    let first = observe("a");
    assert_eq!((first.verdict, first.before), (Verdict::New, None));
    let marked = entry(store, "a");
    let second = observe("a");
    assert_eq!((second.verdict, second.before), (Verdict::Duplicate, Some(marked)));

    let lease = claimed(store, "held", bench.long());
    let held = observe("held");
    let before = held.before.unwrap();
    assert_eq!(
        (held.verdict, before.state, before.attempts),
        (Verdict::InFlight, State::InFlight, 1)
    );
    assert_eq!(before.holder.as_deref(), Some("worker 1"));
    drop(lease);
    let released = observe("held");
    let before = released.before.unwrap();
    assert_eq!((released.verdict, before.state), (Verdict::New, State::Released));

    claimed(store, "failed", bench.long()).fail("503").unwrap();
    let failed = observe("failed");
    let before = failed.before.unwrap();
    assert_eq!((failed.verdict, before.state), (Verdict::New, State::Failed));
    assert_eq!(before.last_error.as_deref(), Some("503"));

    claimed(store, "done", bench.long()).confirm_with("4711").unwrap();
    let done = observe("done");
    assert_eq!(done.verdict, Verdict::Duplicate);
    assert_eq!(done.before.unwrap().receipt.as_deref(), Some(&b"4711"[..]));
}
