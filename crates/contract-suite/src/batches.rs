//! Batches of checks: each id in its order, and nothing is done for one that is refused.

use seen_store::{ErrorKind, Item, Verdict};

use crate::Place;
use crate::bench::{Bench, assert_kind, check, check_all, claimed, entry, get, items, state};

pub(crate) fn a_batch_answers_for_each_id_in_its_order(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    assert_eq!(check_all(store, &[]), []);
    assert_eq!(check(store, "known"), Verdict::New);
    let _held = claimed(store, "held", bench.long());
    claimed(store, "failed", bench.long()).fail("503").unwrap();
    let ids = ["a", "known", "held", "b", "a", "failed", "a", "known", "held", "b", "failed"];
    let expected = [
        Verdict::New,
        Verdict::Duplicate,
        Verdict::InFlight,
        Verdict::New,
        Verdict::Duplicate,
        Verdict::New,
        Verdict::Duplicate,
        Verdict::Duplicate,
        Verdict::InFlight,
        Verdict::Duplicate,
        Verdict::Duplicate,
    ];
    assert_eq!(check_all(store, &ids), expected);
    let again_expected =
        ids.map(|id| if id == "held" { Verdict::InFlight } else { Verdict::Duplicate });
    assert_eq!(check_all(&*again, &ids), again_expected);
    assert_eq!(state(store, "held"), seen_store::State::InFlight);
    assert_eq!(check_all(store, &["x"; 20])[..2], [Verdict::New, Verdict::Duplicate]);
    assert_eq!(entry(store, "x").duplicates, 19);
}

pub(crate) fn a_batch_of_thousands_of_ids_is_decided_like_a_small_one(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let ids: Vec<String> = (0..2_500).map(|n| format!("https://example.org/{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let every_third: Vec<&str> = ids.iter().copied().step_by(3).collect();
    assert!(check_all(store, &every_third).iter().all(|verdict| *verdict == Verdict::New));
    for (n, verdict) in check_all(&*again, &ids).into_iter().enumerate() {
        let expected = if n % 3 == 0 { Verdict::Duplicate } else { Verdict::New };
        assert_eq!(verdict, expected, "{n}");
    }
    assert!(check_all(store, &ids).iter().all(|verdict| *verdict == Verdict::Duplicate));
    // Each id twice, the second time in reverse order.
    let scope = store.scope("twice");
    let twice: Vec<&str> = ids.iter().chain(ids.iter().rev()).copied().collect();
    let verdicts = check_all(&*scope, &twice);
    assert!(verdicts[..2_500].iter().all(|verdict| *verdict == Verdict::New));
    assert!(verdicts[2_500..].iter().all(|verdict| *verdict == Verdict::Duplicate));
    assert_eq!(store.seed(&items(&ids)).unwrap(), 0);
    assert_eq!(store.scope("seeded").seed(&items(&ids)).unwrap(), 2_500);
}

pub(crate) fn an_invalid_id_among_them_refuses_a_batch_and_nothing_is_changed(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let too_long = vec![0; 65_537];
    let token = claimed(store, "held", bench.long()).into_token();
    let both = || Item::new("both").version("1").payload("1");
    for invalid in [|| Item::from(""), both] {
        let invalid = || invalid();
        for place in 0..3 {
            let mut batch = items(&["a", "b"]);
            batch.insert(place, invalid());
            assert_kind(store.check_and_mark_all(&batch), ErrorKind::InvalidId);
            assert_kind(store.seed(&batch), ErrorKind::InvalidId);
            assert_kind(store.claim_all(&batch, bench.long()), ErrorKind::InvalidId);
        }
        let claims = [("held".into(), token), (invalid(), token)];
        assert_kind(store.confirm_all(&claims), ErrorKind::InvalidId);
        assert_kind(store.release_all(&claims), ErrorKind::InvalidId);
        assert_kind(store.renew_all(&claims, bench.long()), ErrorKind::InvalidId);
    }
    assert_kind(
        store.check_and_mark_all(&["a".into(), Item::from(&too_long)]),
        ErrorKind::InvalidId,
    );
    assert!(get(store, "a").is_none() && get(store, "b").is_none() && get(store, "both").is_none());
    assert_eq!(state(store, "held"), seen_store::State::InFlight);
    store.confirm("held".into(), &token).unwrap();
    assert_eq!(check_all(store, &["a", "b"]), [Verdict::New, Verdict::New]);
}

pub(crate) fn a_batch_may_have_several_versions_of_an_id(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let version = |version: &str| Item::new("a").version(version);
    let batch = [
        version("1"),
        version("1"),
        version("2"),
        Item::new("b"),
        Item::new("a"),
        version("2"),
        version("1"),
        Item::new("b").version("1"),
        Item::new("b").version("2"),
    ];
    let expected = [
        Verdict::New,
        Verdict::Duplicate,
        Verdict::Changed,
        Verdict::New,
        Verdict::Duplicate,
        Verdict::Duplicate,
        Verdict::Changed,
        Verdict::Duplicate,
        Verdict::Changed,
    ];
    assert_eq!(store.check_and_mark_all(&batch).unwrap(), expected);
    assert_eq!(entry(store, "a").digest, version("1").digest());
    assert_eq!(entry(store, "a").duplicates, 3);
    let expected = [Verdict::Duplicate, Verdict::Duplicate, Verdict::Changed];
    assert_eq!(store.check_and_mark_all(&batch[..3]).unwrap(), expected);
    // A seed counts the ids that were not seen at all, and marks the versions.
    assert_eq!(
        store
            .seed(&[version("3"), Item::new("c").version("1"), Item::new("c").version("2")])
            .unwrap(),
        1
    );
    assert_eq!(entry(store, "a").digest, version("3").digest());
    assert_eq!(check(store, Item::new("c").version("2")), Verdict::Duplicate);
}
