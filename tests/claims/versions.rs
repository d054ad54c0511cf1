//! A changed version of a seen id is handled as a claim beside the mark; another payload is refused.

use std::time::Duration;

use seen_store::{
    Abandoned, Claim, Digest, ErrorKind, Filter, Item, Once, Previous, Reader, Resolution,
    SeenStore, State, Verdict, Window,
};

use crate::bench::{Bench, LEASE, TTL, assert_kind, assert_seen, granted};
use crate::common::secs;

fn version(version: &str) -> Item<'static> {
    Item::new("a").version(version)
}

fn payload(payload: &str) -> Item<'static> {
    Item::new("a").payload(payload)
}

/// A store in which version 1 was confirmed with a receipt.
fn confirmed() -> Bench {
    let bench = Bench::new();
    let mut lease = granted(bench.store.claim(version("1"), LEASE).unwrap());
    assert_eq!(*lease.previous(), Previous::None);
    lease.confirm_with("first").unwrap();
    bench
}

fn digest(store: &SeenStore) -> Option<Digest> {
    store.get("a").unwrap().unwrap().digest
}

fn states(store: &SeenStore) -> Vec<State> {
    let states = store.entries(Filter::default()).map(|entry| entry.unwrap().state);
    let mut states: Vec<_> = states.collect();
    states.sort_by_key(|state| *state as u8);
    states
}

#[test]
fn a_changed_version_is_granted_and_the_id_stays_seen_until_it_is_confirmed() {
    let bench = confirmed();
    let store = &bench.store;
    let first = bench.entry("a");
    assert_seen(&store.claim(version("1"), LEASE).unwrap());
    bench.clock.advance(secs(5));
    let mut lease = granted(store.claim(version("2"), LEASE).unwrap());
    let Previous::Superseded(old) = lease.previous() else { panic!("{:?}", lease.previous()) };
    assert_eq!((old.digest, old.receipt.as_deref()), (first.digest, Some(&b"first"[..])));
    assert_eq!(lease.attempt(), 1);
    // The id is seen, in its old version and without one. The new one is in flight.
    assert!(store.is_seen("a") && store.is_seen(version("1")) && !store.is_seen(version("2")));
    assert_seen(&store.claim("a", LEASE).unwrap());
    assert_seen(&store.claim(version("1"), LEASE).unwrap());
    for other in ["2", "3"] {
        let claim = store.claim(version(other), LEASE).unwrap();
        assert!(matches!(claim, Claim::InFlight { .. }), "{claim:?}");
        assert_eq!(store.check_and_mark(version(other)).unwrap(), Verdict::InFlight);
    }
    assert_eq!(digest(store), first.digest);
    assert_eq!(states(store), [State::Seen, State::InFlight]);
    let reader = Reader::open_with(bench.place.path(), bench.config.clone()).unwrap();
    for entry in [store.get("a"), reader.get("a")] {
        let change = entry.unwrap().unwrap().change.unwrap();
        assert_eq!((change.state, change.digest), (State::InFlight, version("2").digest()));
    }
    assert_eq!(reader.entries(Filter::default()).count(), 2);
    assert!(reader.verify().unwrap().is_ok() && store.verify().unwrap().is_ok());
    lease.confirm().unwrap();
    lease.confirm().unwrap();
    let second = bench.entry("a");
    assert_eq!(second.digest, version("2").digest());
    assert_eq!((second.first_seen, second.receipt), (first.first_seen, None));
    assert!(second.duplicates >= first.duplicates + 6, "{}", second.duplicates);
    assert_eq!(second.expires_at, Some(bench.after(TTL)));
    assert!(store.is_seen(version("2")) && !store.is_seen(version("1")));
    assert_eq!(states(store), [State::Seen]);
}

#[test]
fn a_worker_that_fails_loses_neither_the_old_mark_nor_the_change() {
    type End = (&'static str, fn(&Bench, seen_store::Lease), fn(&Previous) -> bool);
    let ends: [End; 4] = [
        ("released", |_, lease| drop(lease), |it| *it == Previous::Released),
        (
            "failed",
            |_, mut lease| lease.fail("503").unwrap(),
            |it| *it == Previous::Failed { error: "503".to_owned() },
        ),
        (
            "abandoned",
            |bench, lease| {
                lease.into_token();
                bench.clock.advance(LEASE);
            },
            |it| matches!(it, Previous::Abandoned { .. }),
        ),
        (
            "renewed and released",
            |_, mut lease| {
                lease.renew(2 * LEASE).unwrap();
                assert!(lease.is_held().unwrap());
                lease.release().unwrap();
            },
            |it| *it == Previous::Released,
        ),
    ];
    for (end, ends, previous) in ends {
        let bench = confirmed();
        ends(&bench, granted(bench.store.claim(version("2"), LEASE).unwrap()));
        let reopened = bench.place.open(bench.config.clone());
        for store in [&bench.store, &reopened] {
            assert!(store.is_seen(version("1")) && !store.is_seen(version("2")), "{end}");
            assert_eq!(store.get("a").unwrap().unwrap().receipt.as_deref(), Some(&b"first"[..]));
        }
        let lease = granted(reopened.claim(version("2"), LEASE).unwrap());
        assert!(previous(lease.previous()) && lease.attempt() == 2, "{end}: {lease:?}");
        drop(lease);
        // What failed at one version says nothing of the next.
        let lease = granted(reopened.claim(version("3"), LEASE).unwrap());
        assert_eq!(lease.attempt(), 1, "{end}");
    }
}

#[test]
fn a_version_that_was_given_up_does_not_block_the_next_one() {
    let bench = Bench::with(|config| config.max_attempts(1));
    bench.store.mark_seen(version("1")).unwrap();
    granted(bench.store.claim(version("2"), LEASE).unwrap())
        .fail(seen_store::Failure::new("404").is_final())
        .unwrap();
    let claim = bench.store.claim(version("2"), LEASE).unwrap();
    assert!(matches!(claim, Claim::GivenUp { attempts: 1 }), "{claim:?}");
    let mut lease = granted(bench.store.claim(version("3"), LEASE).unwrap());
    lease.confirm().unwrap();
    assert!(bench.store.is_seen(version("3")));
}

#[test]
fn a_held_claim_of_a_change_binds_until_it_is_resolved() {
    for resolution in [Resolution::Done, Resolution::Retry] {
        let bench = confirmed();
        let held = bench.store.abandoned(Abandoned::Hold);
        granted(held.claim(version("2"), LEASE).unwrap()).into_token();
        bench.clock.advance(LEASE);
        let other = bench.place.open(bench.config.clone());
        for item in [version("2"), version("3")] {
            let claim = other.claim(&item, LEASE).unwrap();
            assert!(matches!(claim, Claim::Unresolved { .. }), "{claim:?}");
            assert_eq!(other.check_and_mark(&item).unwrap(), Verdict::InFlight);
        }
        assert_seen(&other.claim(version("1"), LEASE).unwrap());
        assert_eq!(other.stats().unwrap().unresolved, 1);
        assert!(other.resolve("a", resolution).unwrap());
        assert_eq!(other.is_seen(version("2")), resolution == Resolution::Done);
        let claim = other.claim(version("2"), LEASE).unwrap();
        assert_eq!(matches!(claim, Claim::Seen(_)), resolution == Resolution::Done, "{claim:?}");
    }
}

#[test]
fn marks_end_the_claim_of_their_own_version_and_of_no_other() {
    let bench = confirmed();
    let mut lease = granted(bench.store.claim(version("2"), LEASE).unwrap());
    bench.store.mark_seen("a").unwrap();
    bench.store.mark_seen(version("3")).unwrap();
    assert!(lease.is_held().unwrap(), "a mark of another version ended the claim");
    assert!(bench.store.is_seen(version("3")));
    bench.store.mark_seen(version("2")).unwrap();
    assert!(!lease.is_held().unwrap());
    assert_eq!(states(&bench.store), [State::Seen]);
    lease.confirm_with("second").unwrap();
    assert_eq!(bench.entry("a").receipt.as_deref(), Some(&b"second"[..]));
}

#[test]
fn forgetting_ends_the_mark_and_the_claim_of_its_change() {
    let bench = confirmed();
    let mut lease = granted(bench.store.claim(version("2"), LEASE).unwrap());
    assert!(bench.store.forget("a").unwrap());
    assert_eq!(states(&bench.store), []);
    assert_kind(lease.confirm(), ErrorKind::LeaseLost);
    assert_eq!(bench.store.check_and_mark(version("2")).unwrap(), Verdict::New);
}

#[test]
fn a_mark_that_expires_leaves_the_claim_of_its_change() {
    let bench = confirmed();
    bench.clock.advance(secs(24 * 3_600 - 1));
    let mut lease = granted(bench.store.claim(version("2"), LEASE).unwrap());
    bench.clock.advance(secs(1));
    assert!(!bench.store.is_seen("a"));
    assert_eq!(states(&bench.store), [State::InFlight]);
    assert_eq!(bench.store.purge_expired().unwrap(), 1);
    lease.confirm().unwrap();
    assert!(bench.store.is_seen(version("2")));
}

#[test]
fn another_payload_is_a_conflict_and_changes_nothing() {
    let bench = Bench::new();
    let store = &bench.store;
    let mut lease = granted(store.claim(payload("100 EUR"), LEASE).unwrap());
    let conflicts = |when: &str| {
        let before = bench.file();
        for item in [payload("200 EUR"), version("100 EUR")] {
            for refused in [
                store.claim(&item, LEASE).map(drop),
                store.claim_all([Item::new("b"), item.clone()], LEASE).map(drop),
                store.check_and_mark(&item).map(drop),
                store.check_and_mark_all([Item::new("b"), item.clone()]).map(drop),
                store.observe(&item).map(drop),
                store.mark_seen(&item),
                store.seed([&item]).map(drop),
            ] {
                let error = assert_kind(refused, ErrorKind::Conflict);
                assert!(error.to_string().contains("\"a\""), "{when}: {error}");
            }
            let once = store.once(&item, LEASE, || Ok::<_, String>("no"));
            assert!(once.unwrap_err().to_string().contains("another payload"), "{when}");
        }
        assert_eq!(bench.file(), before, "{when}");
    };
    conflicts("in flight");
    assert!(matches!(store.claim(payload("100 EUR"), LEASE).unwrap(), Claim::InFlight { .. }));
    lease.fail("503").unwrap();
    conflicts("failed");
    granted(store.claim(payload("100 EUR"), LEASE).unwrap()).confirm_with("ok").unwrap();
    conflicts("seen");
    // The key without a payload, and the id of the key, are known.
    let Claim::Seen(known) = store.claim("a", LEASE).unwrap() else { panic!() };
    assert_eq!(known.receipt().unwrap(), Some(b"ok".to_vec()));
    assert!(store.is_seen(payload("200 EUR")), "a lookup does not compare payloads");
}

#[test]
fn equal_ids_with_two_payloads_in_one_batch_are_a_conflict() {
    let bench = Bench::new();
    let both = [payload("1"), payload("2")];
    assert_kind(bench.store.claim_all(&both, LEASE), ErrorKind::Conflict);
    assert_kind(bench.store.check_and_mark_all(&both), ErrorKind::Conflict);
    assert_eq!(states(&bench.store), []);
    let versions = [version("1"), version("2"), version("2"), version("1")];
    let verdicts = bench.store.check_and_mark_all(&versions).unwrap();
    let [new, changed] = [Verdict::New, Verdict::Changed];
    assert_eq!(verdicts, [new, changed, Verdict::Duplicate, changed]);
}

#[test]
fn once_runs_for_each_version_and_replays_the_answer_of_the_one_that_is_asked_for() {
    let bench = Bench::new();
    let once = |item: Item<'_>, answer: &'static str| {
        bench.store.once(item, LEASE, || Ok::<_, String>(answer)).unwrap()
    };
    assert_eq!(once(version("1"), "one"), Once::Ran("one"));
    assert_eq!(once(version("2"), "two"), Once::Ran("two"));
    assert_eq!(once(version("2"), "no"), Once::Replayed(Some(b"two".to_vec())));
    // Another verb records the change, without an answer.
    assert_eq!(bench.store.check_and_mark(version("3")).unwrap(), Verdict::Changed);
    assert_eq!(once(version("3"), "no"), Once::Replayed(None));
    assert_eq!(once(version("1"), "again"), Once::Ran("again"));
}

#[test]
fn an_id_stored_without_a_version_takes_the_first_one_as_its_own() {
    type Shown = (&'static str, fn(&SeenStore));
    let shown: [Shown; 5] = [
        ("check_and_mark", |store| {
            assert_eq!(store.check_and_mark(version("1")).unwrap(), Verdict::Duplicate);
        }),
        ("a batch", |store| {
            let verdicts = store.check_and_mark_all([version("1")]).unwrap();
            assert_eq!(verdicts, [Verdict::Duplicate]);
        }),
        ("claim", |store| assert_seen(&store.claim(version("1"), LEASE).unwrap())),
        ("seed", |store| assert_eq!(store.seed([version("1")]).unwrap(), 0)),
        ("mark_seen", |store| store.mark_seen(version("1")).unwrap()),
    ];
    for (verb, show) in shown {
        let bench = Bench::new();
        bench.store.mark_seen("a").unwrap();
        let marked = bench.entry("a");
        assert!(bench.store.is_seen(version("1")) && digest(&bench.store).is_none());
        let other = bench.place.open(bench.config.clone());
        show(&bench.store);
        for store in [&bench.store, &other, &bench.place.open(bench.config.clone())] {
            assert_eq!(digest(store), version("1").digest(), "{verb}");
            assert!(store.is_seen(version("1")) && !store.is_seen(version("2")), "{verb}");
        }
        let entry = bench.entry("a");
        assert_eq!((entry.first_seen, entry.expires_at), (marked.first_seen, marked.expires_at));
        // A mark without a version leaves the one that is stored.
        other.mark_seen("a").unwrap();
        assert_eq!(other.check_and_mark("a").unwrap(), Verdict::Duplicate);
        assert_eq!(digest(&bench.store), version("1").digest(), "{verb}");
        assert_eq!(bench.store.check_and_mark(version("2")).unwrap(), Verdict::Changed);
    }
}

#[test]
fn of_many_threads_that_bring_one_change_exactly_one_handles_it() {
    let bench = confirmed();
    let stores = [bench.store.clone(), bench.place.open(bench.config.clone())];
    for round in 2..30 {
        let item = version(&round.to_string());
        let ask = |store: &SeenStore| {
            if round % 2 == 1 {
                return store.check_and_mark(&item).unwrap() == Verdict::Changed;
            }
            let Claim::Granted(mut lease) = store.claim(&item, LEASE).unwrap() else {
                return false;
            };
            lease.confirm().unwrap();
            true
        };
        let handled = std::thread::scope(|threads| {
            let (ask, stores) = (&ask, &stores);
            let asked: Vec<_> =
                (0..8).map(|n| threads.spawn(move || ask(&stores[n % 2]))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).filter(|handled| *handled).count()
        });
        assert_eq!(handled, 1, "round {round}");
    }
}

#[test]
fn a_changed_version_lasts_as_a_new_mark_and_keeps_its_first_time_and_its_counts() {
    let bench = Bench::new();
    let store = &bench.store;
    assert_eq!(store.check_and_mark(version("1")).unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark(version("1")).unwrap(), Verdict::Duplicate);
    let first = bench.entry("a");
    bench.clock.advance(secs(24 * 3_600 - 1));
    let seen = store.observe(version("2")).unwrap();
    assert_eq!(seen.verdict, Verdict::Changed);
    assert_eq!(seen.before, Some(first.clone()));
    let second = bench.entry("a");
    assert_eq!((second.first_seen, second.duplicates), (first.first_seen, 1));
    assert_eq!(second.expires_at, Some(bench.after(TTL)));
    bench.clock.advance(secs(2));
    assert_eq!(store.check_and_mark(version("2")).unwrap(), Verdict::Duplicate, "expired early");
    // A shorter TTL does not shorten it.
    let short = store.ttl(secs(1));
    assert_eq!(short.check_and_mark(version("3")).unwrap(), Verdict::Changed);
    assert_eq!(bench.entry("a").expires_at, second.expires_at);
}

#[test]
fn refusals_while_in_flight_are_counted_and_stay_with_the_id() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    for _ in 0..2 {
        drop(bench.claim("a"));
    }
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::InFlight);
    drop(bench.store.claim_all(["a"], LEASE).unwrap());
    assert_eq!(bench.store.observe("a").unwrap().verdict, Verdict::InFlight);
    let waiting = bench.store.waiting(Duration::from_millis(120));
    assert!(matches!(waiting.claim("a", LEASE).unwrap(), Claim::InFlight { .. }), "waited");
    assert_eq!(bench.entry("a").duplicates, 6, "a waiter is counted once");
    lease.confirm().unwrap();
    assert_eq!(bench.entry("a").duplicates, 6);
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    bench.store.close().unwrap();
    let reopened = bench.place.open(bench.config.clone());
    assert_eq!(reopened.get("a").unwrap().unwrap().duplicates, 7);
}

#[test]
fn refusals_of_a_claim_that_is_still_in_flight_are_in_the_file_after_a_close() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    drop(bench.claim("a"));
    bench.store.close().unwrap();
    let reopened = bench.place.open(bench.config.clone());
    assert_eq!(reopened.get("a").unwrap().unwrap().duplicates, 1);
    reopened.fail("a", &token, "503").unwrap();
    assert_eq!(reopened.get("a").unwrap().unwrap().duplicates, 1);
    granted(reopened.claim("a", LEASE).unwrap()).confirm().unwrap();
    assert_eq!(reopened.get("a").unwrap().unwrap().duplicates, 1);
}

#[test]
fn an_export_carries_a_mark_and_the_claim_of_its_change() {
    let bench = confirmed();
    let store = &bench.store;
    drop(store.claim(version("1"), LEASE).unwrap());
    granted(store.claim(version("2"), LEASE).unwrap()).into_token();
    granted(store.claim(Item::new("b").payload("1"), LEASE).unwrap()).into_token();
    let exported = || -> Vec<_> {
        let mut entries: Vec<_> = store.entries(Filter::default()).map(Result::unwrap).collect();
        entries.sort_by_key(|entry| (entry.id.clone(), entry.state as u8));
        entries
    };
    let entries = exported();
    for reversed in [false, true] {
        let other = Bench::with(|_| bench.config.clone());
        let mut given = entries.clone();
        if reversed {
            given.reverse();
        }
        let restored = other.store.restore(given.clone()).unwrap();
        assert_eq!((restored.added + restored.changed, restored.refused.len()), (3, 0));
        let mut back: Vec<_> = other.store.entries(Filter::default()).map(Result::unwrap).collect();
        back.sort_by_key(|entry| (entry.id.clone(), entry.state as u8));
        assert_eq!(back, entries, "reversed: {reversed}");
        let again = other.store.restore(given).unwrap();
        assert_eq!((again.unchanged, again.added, again.changed), (3, 0, 0));
        assert_kind(other.store.claim(Item::new("b").payload("2"), LEASE), ErrorKind::Conflict);
    }
}

#[test]
fn an_item_with_a_version_and_a_payload_is_refused_by_each_verb() {
    let bench = Bench::new();
    let both = || Item::new("a").version("1").payload("2");
    let token = bench.granted("b").into_token();
    let store = &bench.store;
    for refused in [
        store.check_and_mark(both()).map(drop),
        store.observe(both()).map(drop),
        store.mark_seen(both()),
        store.claim(both(), LEASE).map(drop),
        store.try_is_seen(both()).map(drop),
        store.seed([both()]).map(drop),
        store.forget(both()).map(drop),
        store.get(both()).map(drop),
        store.confirm(both(), &token),
        store.resolve(both(), Resolution::Done).map(drop),
    ] {
        let error = assert_kind(refused, ErrorKind::InvalidId);
        assert!(error.to_string().contains("a version or a payload"), "{error}");
    }
}

#[test]
fn verbs_without_a_use_for_a_version_do_not_look_at_it() {
    let bench = confirmed();
    let other = || version("other");
    assert_eq!(bench.store.get(other()).unwrap(), Some(bench.entry("a")));
    let lease = granted(bench.store.claim(version("2"), LEASE).unwrap());
    let token = lease.into_token();
    bench.store.renew(other(), &token, LEASE).unwrap();
    bench.store.confirm(other(), &token).unwrap();
    assert!(bench.store.is_seen(version("2")));
    assert!(bench.store.forget(other()).unwrap());
}

#[test]
fn what_was_known_at_a_refusal_is_never_that_of_another_version() {
    let bench = confirmed();
    let Claim::Seen(known) = bench.store.claim(version("1"), LEASE).unwrap() else { panic!() };
    assert_eq!(known.receipt().unwrap(), Some(b"first".to_vec()));
    granted(bench.store.claim(version("2"), LEASE).unwrap()).confirm_with("second").unwrap();
    assert_eq!((known.receipt().unwrap(), known.entry().unwrap()), (None, None));
    // A caller that did not say which version asks for whichever there is.
    let Claim::Seen(known) = bench.store.claim("a", LEASE).unwrap() else { panic!() };
    granted(bench.store.claim(version("3"), LEASE).unwrap()).confirm_with("third").unwrap();
    assert_eq!(known.receipt().unwrap(), Some(b"third".to_vec()));
}

#[test]
fn once_gives_many_threads_the_answer_of_the_version_that_each_asked_for() {
    let bench = Bench::new();
    let stores = [bench.store.clone(), bench.place.open(bench.config.clone())];
    std::thread::scope(|threads| {
        for thread in 0..4_usize {
            let store = &stores[thread % 2];
            threads.spawn(move || {
                for round in 0..500 {
                    let asked = if (round / 2 + thread) % 2 == 0 { "0" } else { "1" };
                    let work = || Ok::<_, String>(asked);
                    if let Once::Replayed(answer) = store.once(version(asked), LEASE, work).unwrap()
                    {
                        assert_eq!(answer.as_deref(), Some(asked.as_bytes()));
                    }
                }
            });
        }
    });
}

#[test]
fn an_import_gives_no_version_the_receipt_of_another() {
    let of = |bench: &Bench| bench.store.get("a").unwrap().unwrap();
    let replay = |bench: &Bench, number: &str| {
        bench.store.once(version(number), LEASE, || Ok::<_, String>("ran")).unwrap()
    };
    let unversioned = Bench::new();
    granted(unversioned.store.claim("a", LEASE).unwrap()).confirm_with("old").unwrap();
    let changed = Bench::with(|_| unversioned.config.clone());
    for number in ["1", "2"] {
        let _ = changed.store.check_and_mark(version(number)).unwrap();
    }
    let (old, new) = (of(&unversioned), of(&changed));
    assert_eq!(changed.store.restore([old]).unwrap().refused.len(), 0);
    assert_eq!(unversioned.store.restore([new]).unwrap().changed, 1);
    for bench in [&changed, &unversioned] {
        assert_eq!(of(bench).digest, version("2").digest());
        assert_eq!(replay(bench, "2"), Once::Replayed(None));
    }
}

#[test]
fn the_mark_of_another_version_leaves_a_claim_of_an_unseen_id() {
    for seeds in [false, true] {
        let bench = Bench::new();
        let mut lease = granted(bench.store.claim(version("1"), LEASE).unwrap());
        if seeds {
            assert_eq!(bench.store.seed([version("2")]).unwrap(), 1);
        } else {
            bench.store.mark_seen(version("2")).unwrap();
        }
        assert!(bench.store.is_seen(version("2")) && lease.is_held().unwrap());
        lease.confirm_with("first").unwrap();
        assert!(bench.store.is_seen(version("1")) && !bench.store.is_seen(version("2")));
        assert_eq!(bench.entry("a").receipt.as_deref(), Some(&b"first"[..]));
        // A hold is not ended either.
        let held = bench.store.abandoned(Abandoned::Hold);
        granted(held.claim(Item::new("b").version("1"), LEASE).unwrap()).into_token();
        bench.clock.advance(LEASE);
        bench.store.mark_seen(Item::new("b").version("2")).unwrap();
        let claim = bench.store.claim(Item::new("b").version("1"), LEASE).unwrap();
        assert!(matches!(claim, Claim::Unresolved { .. }), "{claim:?}");
    }
}

#[test]
fn refusals_stay_with_the_claim_that_refused() {
    let bench = Bench::new();
    let store = &bench.store;
    let refuse = |item: &Item<'_>| {
        for _ in 0..5 {
            assert_eq!(store.check_and_mark(item).unwrap(), Verdict::InFlight);
        }
    };
    // A claim that is forgotten, and the next one.
    granted(store.claim("d", LEASE).unwrap()).into_token();
    refuse(&"d".into());
    assert!(store.forget("d").unwrap());
    granted(store.claim("d", LEASE).unwrap()).into_token();
    assert_eq!(bench.entry("d").duplicates, 0);
    // A mark, and the claim of its change.
    let mut lease = granted(store.claim(version("1"), LEASE).unwrap());
    refuse(&version("1"));
    lease.confirm().unwrap();
    granted(store.claim(version("2"), LEASE).unwrap()).into_token();
    store.close().unwrap();
    let entry = bench.place.open(bench.config.clone()).get("a").unwrap().unwrap();
    assert_eq!((entry.duplicates, entry.change.unwrap().duplicates), (5, 0));
}

#[test]
fn refusals_go_to_the_history_of_their_window() {
    for reopens in [false, true] {
        let bench = Bench::with(|config| config.retention(100 * TTL).purge_interval(None));
        let mut lease = bench.granted("a");
        for _ in 0..5 {
            drop(bench.claim("a"));
        }
        lease.confirm().unwrap();
        bench.clock.advance(TTL);
        if reopens {
            bench.store.close().unwrap();
        }
        let store = if reopens { bench.place.open(bench.config.clone()) } else { bench.store };
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New);
        let entry = store.get("a").unwrap().unwrap();
        assert_eq!((entry.duplicates, entry.history.unwrap().duplicates), (0, 5));
    }
}

#[test]
fn what_is_kept_of_a_claimed_id_is_listed_and_exported() {
    let bench = Bench::with(|config| config.retention(100 * TTL).purge_interval(None));
    for _ in 0..2 {
        let _ = bench.store.check_and_mark("a").unwrap();
    }
    bench.clock.advance(TTL);
    bench.granted("a").fail("503").unwrap();
    let expired = || Filter::default().state(State::Expired);
    let reader = Reader::open_with(bench.place.path(), bench.config.clone()).unwrap();
    bench.store.purge_expired().unwrap();
    assert_eq!(reader.entries(expired()).count(), 1);
    let kept: Vec<_> = bench.store.entries(expired()).map(Result::unwrap).collect();
    let claims: Vec<_> = bench.store.entries(Filter::default()).map(Result::unwrap).collect();
    assert_eq!((kept.len(), claims.len()), (1, 1));
    let other = Bench::with(|_| bench.config.clone());
    assert_eq!(other.store.restore(claims.into_iter().chain(kept)).unwrap().added, 2);
    for store in [&bench.store, &other.store] {
        granted(store.claim("a", LEASE).unwrap()).confirm().unwrap();
        let history = store.get("a").unwrap().unwrap().history.unwrap();
        assert_eq!((history.windows, history.duplicates), (1, 1));
    }
}

#[test]
fn a_change_lasts_as_long_by_each_verb_in_a_window_with_a_maximum_age() {
    let ends: [fn(&SeenStore); 4] = [
        |store| assert_eq!(store.check_and_mark(version("2")).unwrap(), Verdict::Changed),
        |store| store.mark_seen(version("2")).unwrap(),
        |store| assert_eq!(store.seed([version("2")]).unwrap(), 0),
        |store| granted(store.claim(version("2"), LEASE).unwrap()).confirm().unwrap(),
    ];
    for end in ends {
        let bench = Bench::with(|config| {
            config.ttl(secs(60)).window(Window::Sliding { max_age: Some(secs(100)) })
        });
        bench.store.mark_seen(version("1")).unwrap();
        let begun = bench.after(secs(0));
        bench.clock.advance(secs(40));
        bench.store.mark_seen("a").unwrap();
        bench.clock.advance(secs(40));
        end(&bench.store);
        assert_eq!(bench.entry("a").expires_at, Some(begun + secs(100)));
    }
}

#[test]
fn another_version_is_a_miss_and_so_is_answered_only_after_a_look() {
    let bench = Bench::new();
    let ahead = std::sync::Arc::new(seen_store::ManualClock::default());
    ahead.set(bench.after(secs(50)));
    bench.store.ttl(secs(40)).mark_seen(version("1")).unwrap();
    assert!(!bench.store.is_seen(version("2")));
    // For the other store it has expired; the row stays in the file.
    let config = bench.config.clone().purge_on_open(false).clock(ahead);
    let other = bench.place.open(config);
    assert_eq!(other.check_and_mark("a").unwrap(), Verdict::New);
    assert!(bench.store.is_seen(version("2")), "the other store's mark is of any version");
}
