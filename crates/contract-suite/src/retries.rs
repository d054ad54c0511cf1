//! A check that is made again because its outcome is unknown: it gets the answer that it would have got.

use seen_store::{Item, State, Token, Verdict};

use crate::Place;
use crate::bench::{Bench, check, claimed, entry};

fn tokens() -> [Token; 2] {
    ["0123456789abcdef0123456789abcdef", "ffffffffffffffff0000000000000000"]
        .map(|text| text.parse().unwrap())
}

pub(crate) fn a_check_made_again_with_its_token_is_new_again(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let [token, other] = tokens();
    let retried = || Item::new("a").retry_of(token);
    for _ in 0..3 {
        assert_eq!(check(store, retried()), Verdict::New);
    }
    assert_eq!(check(&*again, retried()), Verdict::New);
    assert_eq!(entry(store, "a").duplicates, 0, "they are one call");
    for store in [store, &*again] {
        assert_eq!(check(store, "a"), Verdict::Duplicate);
        assert_eq!(check(store, Item::new("a").retry_of(other)), Verdict::Duplicate);
        assert_eq!(check(store, retried()), Verdict::New);
    }
    assert!(store.is_seen(retried()) && store.is_seen("a".into()));
    // What another call has marked is a duplicate, also by a check without a token.
    assert_eq!(check(store, "b"), Verdict::New);
    assert_eq!(check(store, Item::new("b").retry_of(token)), Verdict::Duplicate);
    store.mark_seen("c".into()).unwrap();
    assert_eq!(check(store, Item::new("c").retry_of(token)), Verdict::Duplicate);
    // The token is of one id in one scope.
    assert_eq!(check(&*store.scope("x"), retried()), Verdict::New);
    assert_eq!(check(&*store.scope("x"), "a"), Verdict::Duplicate);
}

pub(crate) fn an_observation_made_again_gives_its_verdict_again(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let [token, other] = tokens();
    for store in [store, store, &*again] {
        assert_eq!(store.observe(Item::new("a").retry_of(token)).unwrap().verdict, Verdict::New);
    }
    assert_eq!(check(store, Item::new("a").retry_of(token)), Verdict::New, "also by a check");
    let duplicate = store.observe(Item::new("a").retry_of(other)).unwrap();
    assert_eq!(duplicate.verdict, Verdict::Duplicate);
    assert_eq!(duplicate.before.unwrap().state, State::Seen);
}

pub(crate) fn a_batch_made_again_gives_its_verdicts_again(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let [token, other] = tokens();
    assert_eq!(check(store, "known"), Verdict::New);
    let batch = |token| ["a", "known", "b", "a", "c"].map(|id| Item::new(id).retry_of(token));
    let expected =
        [Verdict::New, Verdict::Duplicate, Verdict::New, Verdict::Duplicate, Verdict::New];
    for store in [store, store, &*again] {
        assert_eq!(store.check_and_mark_all(&batch(token)).unwrap(), expected);
    }
    assert_eq!(store.check_and_mark_all(&batch(other)).unwrap(), [Verdict::Duplicate; 5]);
    // A batch of which a part was marked is completed.
    let longer: Vec<Item<'_>> =
        batch(token).into_iter().chain([Item::new("d").retry_of(token)]).collect();
    let verdicts = again.check_and_mark_all(&longer).unwrap();
    assert_eq!((&verdicts[..5], verdicts[5]), (&expected[..], Verdict::New));
}

pub(crate) fn a_changed_version_checked_again_is_to_be_handled_again(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let [token, other] = tokens();
    let version = |version: &str| Item::new("a").version(version);
    assert_eq!(check(store, version("1")), Verdict::New);
    // A store that does not keep whether it had changed says new.
    let is_to_be_handled = |verdict| matches!(verdict, Verdict::Changed | Verdict::New);
    assert_eq!(check(store, version("2").retry_of(token)), Verdict::Changed);
    for store in [store, &*again] {
        assert!(is_to_be_handled(check(store, version("2").retry_of(token))));
    }
    assert!(is_to_be_handled(store.observe(version("2").retry_of(token)).unwrap().verdict));
    let batch = [version("2").retry_of(token), version("2").retry_of(token)];
    let verdicts = again.check_and_mark_all(&batch).unwrap();
    assert!(is_to_be_handled(verdicts[0]) && verdicts[1] == Verdict::Duplicate);
    assert_eq!(check(store, version("2").retry_of(other)), Verdict::Duplicate);
    assert_eq!(check(store, version("2")), Verdict::Duplicate);
    assert_eq!(check(store, version("3").retry_of(other)), Verdict::Changed);
    // A first version is new, and new again.
    let b = || Item::new("b").version("1").retry_of(token);
    assert_eq!((check(store, b()), check(&*again, b())), (Verdict::New, Verdict::New));
}

pub(crate) fn a_check_that_did_not_mark_is_decided_anew(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let [token, _] = tokens();
    let retried = || Item::new("a").retry_of(token);
    let lease = claimed(store, "a", bench.long());
    assert_eq!(
        (check(store, retried()), check(store, retried())),
        (Verdict::InFlight, Verdict::InFlight)
    );
    drop(lease);
    assert_eq!(check(store, retried()), Verdict::New);
    assert!(store.forget("a".into()).unwrap());
    assert_eq!((check(store, retried()), check(store, retried())), (Verdict::New, Verdict::New));
    assert_eq!(check(store, "a"), Verdict::Duplicate);
    // In the next window it is a call like any other.
    let short = store.ttl(bench.short().into());
    let short_lived = || Item::new("b").retry_of(token);
    assert_eq!(check(&*short, short_lived()), Verdict::New);
    bench.short_passes();
    assert_eq!(check(&*short, "b"), Verdict::New);
    assert_eq!(check(&*short, short_lived()), Verdict::Duplicate);
}
