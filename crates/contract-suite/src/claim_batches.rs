//! Batches of claims, and of what ends them.

use seen_store::{Item, Ownership, Previous, State, Verdict};

use crate::Place;
use crate::bench::{Bench, check, claimed, entry, granted, items, state, word_of};

pub(crate) fn a_batch_of_claims_answers_for_each_id_in_its_order(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    assert!(store.claim_all(&[], bench.long()).unwrap().is_empty());
    assert_eq!(check(store, "seen"), Verdict::New);
    let _held = claimed(&*again, "held", bench.long());
    claimed(store, "failed", bench.long()).fail("503").unwrap();
    claimed(store, "given up", bench.long())
        .fail(seen_store::Failure::new("404").is_final())
        .unwrap();
    let ids = ["a", "seen", "a", "held", "b", "failed", "given up", "b"];
    let claims = store.claim_all(&items(&ids), bench.long()).unwrap();
    let words: Vec<_> = claims.iter().map(word_of).collect();
    let expected = [
        "granted",
        "seen",
        "in flight",
        "in flight",
        "granted",
        "granted",
        "given up",
        "in flight",
    ];
    assert_eq!(words, expected);
    let mut leases: Vec<_> =
        claims.into_iter().filter(|claim| word_of(claim) == "granted").map(granted).collect();
    assert_eq!([leases[0].id(), leases[1].id(), leases[2].id()], [&b"a"[..], b"b", b"failed"]);
    assert_eq!((leases[0].attempt(), leases[2].attempt()), (1, 2));
    assert_eq!(*leases[2].previous(), Previous::Failed { error: "503".to_owned() });
    assert_ne!(leases[0].token(), leases[1].token());
    leases[0].confirm_with("4711").unwrap();
    leases[1].release().unwrap();
    drop(leases);
    let states = ["a", "b", "failed"].map(|id| state(&*again, id));
    assert_eq!(states, [State::Seen, State::Released, State::Released]);
    // Dropped answers are released.
    drop(store.claim_all(&items(&["x", "y"]), bench.long()).unwrap());
    assert_eq!((state(store, "x"), state(store, "y")), (State::Released, State::Released));
}

pub(crate) fn a_batch_of_claims_may_have_several_versions_of_an_id(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let version = |version: &str| Item::new("a").version(version);
    claimed(store, version("1"), bench.long()).confirm_with("first").unwrap();
    let batch =
        [version("1"), version("2"), version("1"), Item::new("a"), version("2"), version("3")];
    let claims = store.claim_all(&batch, bench.long()).unwrap();
    let words: Vec<_> = claims.iter().map(word_of).collect();
    assert_eq!(words, ["seen", "granted", "seen", "seen", "in flight", "in flight"]);
    let mut lease = granted(claims.into_iter().nth(1).unwrap());
    assert!(lease.is_change() && matches!(lease.previous(), Previous::Superseded(_)));
    lease.confirm().unwrap();
    assert_eq!(entry(store, "a").digest, version("2").digest());
}

pub(crate) fn batches_of_ends_tell_what_was_held(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let ids = [
        "held",
        "released",
        "taken over",
        "run out",
        "marked",
        "confirmed",
        "forgotten",
        "other token",
    ];
    let unknown: seen_store::Token = "0123456789abcdef0123456789abcdef".parse().unwrap();
    // What is over or another's is lost, what has only run out is not. A confirm of what is seen by the holder's work is no
    // loss.
    let confirmed = [true, false, false, true, true, true, false, false];
    let others = [true, false, false, true, false, false, false, false];
    for (verb, expected) in [("confirm", confirmed), ("release", others), ("renew", others)] {
        let name = |id: &str| format!("{verb} {id}");
        let claims: Vec<(String, seen_store::Token)> = ids
            .iter()
            .map(|id| {
                let runs_out = ["taken over", "run out"].contains(id);
                let lease = if runs_out { bench.short() } else { bench.long() };
                (name(id), claimed(store, name(id), lease).into_token())
            })
            .collect();
        bench.short_passes();
        let token = |id: &str| claims[ids.iter().position(|one| *one == id).unwrap()].1;
        store.release((&name("released")).into(), &token("released")).unwrap();
        let thief = claimed(store, name("taken over"), bench.long()).into_token();
        store.mark_seen((&name("marked")).into()).unwrap();
        store.confirm((&name("confirmed")).into(), &token("confirmed")).unwrap();
        assert!(store.forget((&name("forgotten")).into()).unwrap());
        bench.others_notice();
        let batch: Vec<_> = claims
            .iter()
            .map(|(id, token)| {
                (id.into(), if id.ends_with("other token") { unknown } else { *token })
            })
            .collect();
        let expected = expected.map(|held| if held { Ownership::Held } else { Ownership::Lost });
        let owned = match verb {
            "confirm" => again.confirm_all(&batch),
            "release" => again.release_all(&batch),
            _ => again.renew_all(&batch, bench.long()),
        };
        assert_eq!(owned.unwrap(), expected, "{verb}");
        // The others are as they were.
        store.confirm((&name("taken over")).into(), &thief).unwrap();
        assert_eq!(state(store, name("other token")), State::InFlight);
        let held = match verb {
            "confirm" => State::Seen,
            "release" => State::Released,
            _ => State::InFlight,
        };
        assert_eq!(
            (state(store, name("held")), state(store, name("run out"))),
            (held, held),
            "{verb}"
        );
    }
    assert!(store.confirm_all(&[]).unwrap().is_empty());
    assert!(store.release_all(&[]).unwrap().is_empty());
    assert!(store.renew_all(&[], bench.long()).unwrap().is_empty());
}

pub(crate) fn a_claim_that_is_twice_in_a_batch_is_ended_once(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let claim = |id: &'static str| (Item::new(id), claimed(store, id, bench.long()).into_token());
    let (a, b, c) = (claim("a"), claim("b"), claim("c"));
    let twice = |claim: &(Item<'static>, seen_store::Token)| [claim.clone(), claim.clone()];
    assert_eq!(
        store.confirm_all(&twice(&a)).unwrap(),
        [Ownership::Held; 2],
        "it is confirmed already"
    );
    assert_eq!(store.release_all(&twice(&b)).unwrap(), [Ownership::Held, Ownership::Lost]);
    assert_eq!(store.renew_all(&twice(&c), bench.long()).unwrap(), [Ownership::Held; 2]);
    let states = ["a", "b", "c"].map(|id| state(store, id));
    assert_eq!(states, [State::Seen, State::Released, State::InFlight]);
}

pub(crate) fn thousands_of_claims_are_granted_and_confirmed_at_once(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let ids: Vec<String> = (0..1_500).map(|n| format!("job {n}")).collect();
    let batch: Vec<Item<'_>> = ids.iter().map(Item::from).collect();
    let claims = store.claim_all(&batch, bench.long()).unwrap();
    let claims: Vec<_> = ids
        .iter()
        .zip(claims)
        .map(|(id, claim)| (Item::from(id), granted(claim).into_token()))
        .collect();
    let refused = again.claim_all(&batch, bench.long()).unwrap();
    assert!(refused.iter().all(|claim| word_of(claim) == "in flight"));
    let (first, last) = claims.split_at(1_000);
    assert!(again.confirm_all(first).unwrap().iter().all(|owned| *owned == Ownership::Held));
    assert!(store.release_all(last).unwrap().iter().all(|owned| *owned == Ownership::Held));
    let claims = again.claim_all(&batch, bench.long()).unwrap();
    let seen = claims.iter().filter(|claim| word_of(claim) == "seen").count();
    let granted = claims.iter().filter(|claim| word_of(claim) == "granted").count();
    assert_eq!((seen, granted), (1_000, 500));
}
