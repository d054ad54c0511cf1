//! Claims whose holder has vanished: taken over, confirmed late, counted, or held until a decision.

use seen_store::{
    Abandoned, Claim, ErrorKind, Filter, Previous, Resolution, State, Store, Verdict,
};

use crate::Place;
use crate::bench::{
    Bench, assert_kind, check, check_all, claimed, entry, granted, ids, state, word,
};

pub(crate) fn an_abandoned_id_is_granted_and_its_new_holder_is_told(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let lease = claimed(store, "a", bench.short());
    let until = lease.expires_at();
    lease.into_token();
    assert_eq!(word(&*again, "a", bench.long()), "in flight");
    bench.short_passes();
    let left = entry(store, "a");
    assert_eq!((left.state, left.attempts, left.abandoned), (State::Abandoned, 1, 0));
    assert_eq!(left.lease_until, Some(until));
    assert_eq!(ids(store, Filter::default().state(State::Abandoned)), ["a"]);
    let lease = claimed(&*again, "a", bench.short());
    match lease.previous() {
        Previous::Abandoned { since, holder } => {
            assert_eq!((*since, holder.as_deref()), (until, Some("worker 1")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((lease.attempt(), entry(store, "a").abandoned), (2, 1));
    lease.into_token();
    bench.short_passes();
    // To a check it is new.
    assert_eq!(check(store, "a"), Verdict::New);
    assert_eq!(entry(store, "a").attempts, 2);
}

pub(crate) fn a_claim_may_be_confirmed_late_unless_it_was_taken_over(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let mut late = claimed(store, "late", bench.short());
    let mut released = claimed(store, "released", bench.short());
    let mut failed = claimed(store, "failed", bench.short());
    let mut renewed = claimed(store, "renewed", bench.short());
    let dropped = claimed(store, "dropped", bench.short());
    bench.short_passes();
    assert!(!late.is_held().unwrap());
    late.confirm_with("4711").unwrap();
    assert!(late.was_late());
    late.confirm().unwrap();
    assert!(late.was_late(), "it stays late");
    assert_eq!(entry(store, "late").receipt.as_deref(), Some(&b"4711"[..]));
    released.release().unwrap();
    failed.fail("503").unwrap();
    renewed.renew(bench.long()).unwrap();
    drop(dropped);
    let states = ["released", "failed", "renewed", "dropped"].map(|id| state(store, id));
    assert_eq!(states, [State::Released, State::Failed, State::InFlight, State::Released]);
    assert!(renewed.is_held().unwrap());
    renewed.confirm().unwrap();
    assert!(!renewed.was_late());
}

/// Takes an id whose lease has run out.
type TakeOver = fn(&dyn Store, &Bench<'_>);

pub(crate) fn a_holder_whose_claim_was_taken_over_has_lost_it_and_changes_nothing(
    place: &dyn Place,
) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let take_over: [(&str, TakeOver); 3] = [
        ("another worker", |store, bench| {
            claimed(store, "a", bench.long()).into_token();
        }),
        ("a check", |store, _| assert_eq!(check(store, "a"), Verdict::New)),
        ("a batch", |store, _| assert_eq!(check_all(store, &["b", "a"])[1], Verdict::New)),
    ];
    for (by, take_over) in take_over {
        let mut stale = claimed(store, "a", bench.short());
        let token = stale.token();
        bench.short_passes();
        take_over(&*again, &bench);
        let before = entry(store, "a");
        let lost = ErrorKind::LeaseLost;
        assert!(!stale.is_held().unwrap(), "{by}");
        assert_kind(stale.renew(bench.long()), lost);
        assert_kind(stale.confirm(), lost);
        assert_kind(stale.confirm_with("4711"), lost);
        assert_kind(stale.fail("503"), lost);
        assert_kind(stale.release(), lost);
        for store in [store, &*again] {
            assert_kind(store.confirm("a".into(), &token), lost);
            assert_kind(store.confirm_with("a".into(), &token, b"4711"), lost);
            assert_kind(store.release("a".into(), &token), lost);
            assert_kind(store.fail("a".into(), &token, "503".into()), lost);
            assert_kind(store.renew("a".into(), &token, bench.long()), lost);
        }
        assert!(!stale.was_late(), "{by}");
        drop(stale);
        assert_eq!(entry(store, "a"), before, "{by}");
        assert!(store.forget("a".into()).unwrap());
        bench.others_notice();
    }
    // A lease that is dropped without a word takes nothing from the new holder either.
    let stale = claimed(store, "a", bench.short());
    bench.short_passes();
    let mut lease = claimed(&*again, "a", bench.long());
    drop(stale);
    assert!(lease.is_held().unwrap());
    lease.confirm().unwrap();
}

pub(crate) fn an_id_that_was_abandoned_too_often_is_given_up(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.max_abandoned(2));
    let store = bench.store();
    bench.abandoned(store, "a");
    // Attempts that end otherwise do not count.
    drop(claimed(store, "a", bench.long()));
    claimed(store, "a", bench.long()).fail("503").unwrap();
    bench.abandoned(store, "a");
    match store.claim("a".into(), bench.long()).unwrap() {
        Claim::GivenUp { attempts } => assert_eq!(attempts, 4),
        other => panic!("{other:?}"),
    }
    assert_eq!(state(store, "a"), State::Abandoned);
    assert!(store.resolve("a".into(), Resolution::Retry).unwrap());
    assert_eq!(entry(store, "a").abandoned, 0);
    assert_eq!(claimed(store, "a", bench.long()).attempt(), 1);
}

pub(crate) fn a_held_claim_binds_everybody_until_a_decision(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.abandoned(Abandoned::Hold));
    let (store, again) = (bench.store(), bench.again());
    let lease = claimed(store, "a", bench.short());
    let until = lease.expires_at();
    assert!(entry(store, "a").held);
    lease.into_token();
    bench.short_passes();
    let retrying = again.abandoned(Abandoned::Retry);
    for store in [store, &*again, &*retrying] {
        match store.claim("a".into(), bench.long()).unwrap() {
            Claim::Unresolved { since, holder } => {
                assert_eq!((since, holder.as_deref()), (until, Some("worker 1")));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(check(store, "a"), Verdict::InFlight);
        assert_eq!(check_all(store, &["a"]), [Verdict::InFlight]);
        assert_eq!(store.observe("a".into()).unwrap().verdict, Verdict::InFlight);
        assert!(!store.is_seen("a".into()));
        let left = entry(store, "a");
        assert_eq!((left.state, left.held, left.expires_at), (State::Unresolved, true, None));
    }
    assert_eq!(ids(store, Filter::default().state(State::Unresolved)), ["a"]);
    // One that was granted otherwise does not bind, whoever asks.
    let token = claimed(&*retrying, "b", bench.short()).into_token();
    bench.short_passes();
    assert_eq!((state(store, "a"), state(store, "b")), (State::Unresolved, State::Abandoned));
    drop(claimed(store, "b", bench.long()));
    assert_kind(store.confirm("b".into(), &token), ErrorKind::LeaseLost);
    // A held claim that ended is not held.
    claimed(store, "failed", bench.short()).fail("503").unwrap();
    drop(claimed(store, "released", bench.short()));
    bench.short_passes();
    assert_eq!(
        (word(store, "failed", bench.long()), word(store, "released", bench.long())),
        ("granted", "granted")
    );
}

pub(crate) fn a_held_claim_is_decided_or_confirmed_late(place: &dyn Place) {
    let bench = Bench::with(place, |config| config.abandoned(Abandoned::Hold));
    let (store, again) = (bench.store(), bench.again());
    let ids = ["done", "again", "late", "released", "marked"];
    let mut leases = ids.map(|id| claimed(store, id, bench.short()));
    let tokens = [leases[0].token(), leases[1].token()];
    bench.short_passes();
    assert!(again.resolve("done".into(), Resolution::Done).unwrap());
    assert!(store.is_seen("done".into()) && again.is_seen("done".into()));
    assert!(!again.resolve("done".into(), Resolution::Done).unwrap());
    assert!(again.resolve("again".into(), Resolution::Retry).unwrap());
    let next = granted(again.claim("again".into(), bench.long()).unwrap());
    assert_eq!((next.attempt(), next.previous()), (1, &Previous::Released));
    // Its holder comes back.
    store.confirm_with("done".into(), &tokens[0], b"4711").unwrap();
    assert_eq!(entry(store, "done").receipt.as_deref(), Some(&b"4711"[..]));
    assert_kind(store.confirm("again".into(), &tokens[1]), ErrorKind::LeaseLost);
    leases[2].confirm().unwrap();
    assert!(leases[2].was_late() && store.is_seen("late".into()));
    leases[3].release().unwrap();
    assert_eq!(word(&*again, "released", bench.long()), "granted");
    // A mark is a decision too; a mark that would expire at once is none.
    store.ttl(std::time::Duration::ZERO.into()).mark_seen("marked".into()).unwrap();
    let at_once = store.ttl(std::time::Duration::ZERO.into());
    assert!(!at_once.resolve("marked".into(), Resolution::Done).unwrap());
    assert_eq!(state(store, "marked"), State::Unresolved);
    store.mark_seen("marked".into()).unwrap();
    assert_eq!(word(&*again, "marked", bench.long()), "seen");
    drop(leases);
    assert!(next.is_held().unwrap());
}

pub(crate) fn a_held_claim_does_not_expire(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let short = store.ttl(bench.units(2).into());
    bench.abandoned(&*short.abandoned(Abandoned::Hold), "held");
    bench.abandoned(&*short, "not held");
    bench.passes(4);
    assert_eq!(word(store, "held", bench.long()), "unresolved");
    store.purge_expired().unwrap();
    assert_eq!(state(store, "held"), State::Unresolved);
    assert_eq!(claimed(store, "not held", bench.long()).attempt(), 1);
}
