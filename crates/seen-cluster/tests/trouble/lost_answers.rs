//! Answers that are lost on the way: between each client and each server stands a proxy that cuts connections after a
//! command was executed and before its answer is passed on.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_harness::{Fault, Injected, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{Claim, Config, ErrorKind, Item, Verdict};

use super::{MINUTE, behind_proxies, inject, now};

fn hits(injected: &[Injected]) -> u64 {
    injected.iter().map(Injected::hits).sum()
}

#[test]
fn a_new_id_whose_answer_is_lost_is_new_and_once() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let injected = inject(
        &cluster,
        &Fault::lose_answer().on(&["SET", "EVALSHA", "EVAL", "WAIT"]).one_in(7, 17),
    );
    let mut verdicts = BTreeMap::<_, u32>::new();
    for n in 0..400 {
        let id = format!("incident-{n}");
        let verdict = store.check_and_mark(&id).unwrap();
        assert_eq!(verdict, Verdict::New, "{id}");
        *verdicts.entry(verdict.to_string()).or_default() += 1;
        assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::Duplicate, "{id}");
    }
    let lost = hits(&injected);
    eprintln!("{lost} answers were lost; {verdicts:?}");
    assert!(lost > 50, "{lost}");
}

#[test]
fn a_batch_whose_answers_are_lost_gives_each_id_its_verdict() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let injected = inject(&cluster, &Fault::lose_answer().on(&["SET"]).one_in(900, 5));
    for round in 0..10 {
        let ids: Vec<_> = (0..1_000).map(|n| format!("{round}-{}", n / 2)).collect();
        let verdicts = store.check_and_mark_all(&ids).unwrap();
        for (n, verdict) in verdicts.iter().enumerate() {
            let expected = if n % 2 == 0 { Verdict::New } else { Verdict::Duplicate };
            assert_eq!(*verdict, expected, "{round} {n}");
        }
    }
    assert!(hits(&injected) > 3, "{}", hits(&injected));
}

#[test]
fn claims_and_their_ends_survive_lost_answers() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let other = ClusterStore::open(&cluster.url()).unwrap();
    let injected =
        inject(&cluster, &Fault::lose_answer().on(&["SET", "EVALSHA", "EVAL"]).one_in(5, 3));
    for n in 0..100 {
        let id = format!("incident-{n}");
        let Claim::Granted(mut lease) = store.claim(&id, MINUTE).unwrap() else { panic!("{id}") };
        assert!(matches!(other.claim(&id, MINUTE).unwrap(), Claim::InFlight { .. }));
        if n % 3 == 0 {
            lease.fail("503").unwrap();
            let Claim::Granted(again) = other.claim(&id, MINUTE).unwrap() else { panic!("{id}") };
            assert_eq!(again.attempt(), 2);
            again.into_token();
            continue;
        }
        lease.renew(MINUTE * 2).unwrap();
        lease.confirm_with(b"4711").unwrap();
        let Claim::Seen(known) = other.claim(&id, MINUTE).unwrap() else { panic!("{id}") };
        assert_eq!(known.receipt().unwrap().as_deref(), Some(&b"4711"[..]));
    }
    assert!(hits(&injected) > 30, "{}", hits(&injected));
}

#[test]
fn when_the_retries_run_out_the_error_has_the_token_for_the_true_answer() {
    needs_server!();
    let cluster = behind_proxies();
    let config = Config::default().busy_timeout(Duration::from_millis(500));
    let store = ClusterStore::open_with(&cluster.url(), config).unwrap();
    let injected = inject(&cluster, &Fault::lose_answer().on(&["SET"]));
    let error = store.check_and_mark("incident-17").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(!error.is_retryable());
    let token = error.token().expect("the token of the call");
    injected.iter().for_each(Injected::remove);
    // Another process asks.
    let other = ClusterStore::open(&cluster.url()).unwrap();
    let ask = |item: Item<'_>| other.check_and_mark(item).unwrap();
    assert_eq!(ask(Item::new("incident-17")), Verdict::Duplicate);
    assert_eq!(ask(Item::new("incident-17").retry_of(token)), Verdict::New);
    assert_eq!(ask(Item::new("incident-17").retry_of(token)), Verdict::New);
}

#[test]
fn an_answer_that_never_comes_is_an_error_within_the_timeout() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap().busy_timeout(Duration::from_secs(1));
    let _held = inject(&cluster, &Fault::hold_answer().on(&["SET", "GET"]));
    let begun = now();
    let error = store.check_and_mark("incident-17").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(store.try_is_seen("incident-17").unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!store.is_seen("incident-17"));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
