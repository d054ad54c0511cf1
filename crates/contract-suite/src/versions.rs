//! Versions and payloads of marks.

use seen_store::{Digest, ErrorKind, Item, Store, Verdict};

use crate::Place;
use crate::bench::{Bench, assert_kind, check, claimed, entry, get};

fn version(version: &str) -> Item<'_> {
    Item::new("a").version(version)
}

fn payload(payload: &str) -> Item<'_> {
    Item::new("a").payload(payload)
}

pub(crate) fn an_id_in_another_version_has_changed_once(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    // The version, and the verdict.
    let steps = [
        ("1", Verdict::New),
        ("1", Verdict::Duplicate),
        ("2", Verdict::Changed),
        ("2", Verdict::Duplicate),
        ("1", Verdict::Changed),
        ("", Verdict::Changed),
        ("", Verdict::Duplicate),
        ("\0", Verdict::Changed),
        ("1 ", Verdict::Changed),
        ("1", Verdict::Changed),
    ];
    for (n, (of, verdict)) in steps.into_iter().enumerate() {
        let (one, other) = if n % 2 == 0 { (store, &*again) } else { (&*again, store) };
        assert_eq!(check(one, version(of)), verdict, "{n}: {of:?}");
        for store in [one, other] {
            assert!(store.is_seen(version(of)), "{n}: {of:?}");
            assert!(store.is_seen("a".into()) && !store.is_seen(version("another")), "{n}: {of:?}");
            assert_eq!(entry(store, "a").digest, version(of).digest(), "{n}: {of:?}");
        }
        assert_eq!(check(one, "a"), Verdict::Duplicate, "{n}: without a version it is the same");
    }
    let long = "x".repeat(100_000);
    assert_eq!(check(store, version(&long)), Verdict::Changed);
    assert_eq!(check(store, version(&long)), Verdict::Duplicate);
    assert_eq!(check(store, version(&long[1..])), Verdict::Changed);
}

pub(crate) fn a_changed_version_keeps_the_first_time_and_the_duplicates_and_lasts_anew(
    place: &dyn Place,
) {
    let bench = Bench::new(place);
    let store = bench.store();
    let mut lease = claimed(store, version("1"), bench.long());
    lease.confirm_with("first").unwrap();
    assert_eq!(check(store, version("1")), Verdict::Duplicate);
    let first = entry(store, "a");
    bench.passes(2);
    let observed = store.observe(version("2")).unwrap();
    let before = observed.before.unwrap();
    assert_eq!(observed.verdict, Verdict::Changed);
    assert_eq!((before.digest, before.receipt), (first.digest, first.receipt));
    let second = entry(store, "a");
    assert_eq!((second.first_seen, second.duplicates), (first.first_seen, 1));
    assert!(second.last_seen >= first.last_seen + bench.units(2));
    assert!(second.expires_at >= first.expires_at.map(|at| at + bench.units(2)));
    assert_eq!(second.receipt, None, "the receipt was of the other version");
    // A shorter TTL does not shorten it.
    assert_eq!(check(&*store.ttl(bench.units(1).into()), version("3")), Verdict::Changed);
    assert_eq!(entry(store, "a").expires_at, second.expires_at);
    // The holder of the first version is answered as one who has lost its claim.
    assert_kind(lease.confirm(), ErrorKind::LeaseLost);
}

/// Shows a store the id in a version.
type Show = fn(&dyn Store);

pub(crate) fn an_id_without_a_version_takes_the_first_that_it_is_shown(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let shows: [(&str, Show); 5] = [
        ("check", |store| assert_eq!(check(store, version("1")), Verdict::Duplicate)),
        ("observe", |store| {
            assert_eq!(store.observe(version("1")).unwrap().verdict, Verdict::Duplicate);
        }),
        ("mark", |store| store.mark_seen(version("1")).unwrap()),
        ("seed", |store| assert_eq!(store.seed(&[version("1")]).unwrap(), 0)),
        ("claim", |store| {
            let claim = store.claim(version("1"), std::time::Duration::from_secs(1)).unwrap();
            assert_eq!(crate::bench::word_of(&claim), "seen");
        }),
    ];
    for (verb, show) in shows {
        assert_eq!(check(store, "a"), Verdict::New);
        assert!(
            store.is_seen(version("9")) && again.is_seen(version("1")),
            "{verb}: of any version"
        );
        assert_eq!(entry(store, "a").digest, None);
        show(store);
        assert_eq!(entry(store, "a").digest, version("1").digest(), "{verb}");
        for store in [&*again, store] {
            assert!(store.is_seen(version("1")) && !store.is_seen(version("9")), "{verb}");
            assert_eq!(check(store, version("1")), Verdict::Duplicate, "{verb}");
        }
        assert_eq!(check(&*again, version("2")), Verdict::Changed, "{verb}");
        assert!(store.forget("a".into()).unwrap());
        bench.others_notice();
    }
    // A payload likewise.
    assert_eq!(check(store, "a"), Verdict::New);
    assert_eq!(check(store, payload("1")), Verdict::Duplicate);
    assert_kind(again.check_and_mark(payload("2")), ErrorKind::Conflict);
}

pub(crate) fn every_verb_that_marks_records_the_version(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    store.mark_seen(version("1")).unwrap();
    store.mark_seen(version("2")).unwrap();
    assert_eq!(entry(store, "a").digest, Some(Digest::of_version("2")));
    store.mark_seen("a".into()).unwrap();
    assert_eq!(entry(store, "a").digest, Some(Digest::of_version("2")), "none is no version");
    store.mark_seen_at(version("3"), bench.now()).unwrap();
    assert!(store.is_seen(version("3")) && !store.is_seen(version("2")));
    assert_eq!(store.seed(&[version("4")]).unwrap(), 0);
    assert!(store.is_seen(version("4")));
    let observed = store.observe(version("5")).unwrap();
    assert_eq!(observed.verdict, Verdict::Changed);
    assert_eq!(observed.before.unwrap().digest, Some(Digest::of_version("4")));
    // What only reads looks at none.
    for item in [version("1"), payload("1")] {
        assert_eq!(get(store, item).unwrap().digest, Some(Digest::of_version("5")));
    }
    assert!(store.forget(version("1")).unwrap());
    assert_eq!(check(store, version("1")), Verdict::New);
}

pub(crate) fn another_payload_is_a_conflict_and_changes_nothing(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    assert_eq!(check(store, payload("1")), Verdict::New);
    assert_eq!(check(&*again, payload("1")), Verdict::Duplicate);
    let before = entry(store, "a");
    assert_eq!(before.digest, Some(Digest::of_payload("1")));
    for other in [payload("2"), version("1"), payload("")] {
        for store in [store, &*again] {
            assert_kind(store.check_and_mark(other.clone()), ErrorKind::Conflict);
            assert_kind(
                store.check_and_mark_all(std::slice::from_ref(&other)),
                ErrorKind::Conflict,
            );
            assert_kind(store.observe(other.clone()), ErrorKind::Conflict);
            assert_kind(store.mark_seen(other.clone()), ErrorKind::Conflict);
            assert_kind(store.mark_seen_at(other.clone(), before.first_seen), ErrorKind::Conflict);
            assert_kind(store.seed(std::slice::from_ref(&other)), ErrorKind::Conflict);
            assert_kind(store.claim(other.clone(), bench.long()), ErrorKind::Conflict);
            assert_kind(
                store.claim_all(std::slice::from_ref(&other), bench.long()),
                ErrorKind::Conflict,
            );
            assert!(store.is_seen(other.clone()), "a payload is not compared");
        }
        assert_eq!(entry(store, "a").digest, before.digest);
        assert_eq!(entry(store, "a").first_seen, before.first_seen);
    }
    assert_eq!(check(store, "a"), Verdict::Duplicate);
    assert_eq!(check(store, payload("1")), Verdict::Duplicate);
    assert_eq!(entry(store, "a").expires_at, before.expires_at);
    // Nor does a payload follow a version.
    let b = || Item::new("b").version("1");
    assert_eq!(check(store, b()), Verdict::New);
    assert_kind(store.check_and_mark(Item::new("b").payload("1")), ErrorKind::Conflict);
    assert_eq!(check(store, b()), Verdict::Duplicate);
    // A forgotten id is free, and so is an expired one.
    assert!(store.forget("a".into()).unwrap());
    bench.others_notice();
    let short = again.ttl(bench.short().into());
    assert_eq!(check(&*short, payload("2")), Verdict::New);
    bench.short_passes();
    assert_eq!(check(store, payload("3")), Verdict::New);
}

pub(crate) fn an_item_with_a_version_and_a_payload_is_refused(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let both = || Item::new("a").payload("1").version("1");
    assert_kind(store.check_and_mark(both()), ErrorKind::InvalidId);
    assert_kind(store.mark_seen(both()), ErrorKind::InvalidId);
    assert_kind(store.claim(both(), bench.long()), ErrorKind::InvalidId);
    assert_kind(store.try_is_seen(both()), ErrorKind::InvalidId);
    assert_kind(store.get(both()), ErrorKind::InvalidId);
    assert_eq!(get(store, "a"), None);
}

pub(crate) fn a_payload_binds_while_the_id_is_claimed(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let mut lease = claimed(store, payload("1"), bench.long());
    assert_eq!(entry(store, "a").digest, Some(Digest::of_payload("1")));
    for other in [payload("2"), version("1")] {
        assert_kind(again.claim(other.clone(), bench.long()), ErrorKind::Conflict);
        assert_kind(again.check_and_mark(other.clone()), ErrorKind::Conflict);
        assert_kind(again.mark_seen(other), ErrorKind::Conflict);
    }
    assert_eq!(check(&*again, payload("1")), Verdict::InFlight);
    assert_eq!(check(&*again, "a"), Verdict::InFlight);
    lease.confirm_with("4711").unwrap();
    assert_kind(again.claim(payload("2"), bench.long()), ErrorKind::Conflict);
    let known = crate::bench::known(again.claim(payload("1"), bench.long()).unwrap());
    assert_eq!(known.receipt().unwrap().as_deref(), Some(&b"4711"[..]));
    // It binds after an attempt that failed too.
    claimed(store, Item::new("b").payload("1"), bench.long()).fail("503").unwrap();
    assert_kind(again.claim(Item::new("b").payload("2"), bench.long()), ErrorKind::Conflict);
    assert_eq!(claimed(&*again, Item::new("b").payload("1"), bench.long()).attempt(), 2);
}
