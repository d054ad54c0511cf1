//! Calls whose outcome is unknown, and what their tokens tell.

use std::time::Duration;

use cluster_harness::{Fault, Injected, needs_server};
use seen_cluster::ClusterStore;
use seen_store::{Claim, ErrorKind, Item, SeenStore, Store, Token, Verdict};

use super::{MINUTE, behind_proxies, ids_of, inject, master_of};

const SHORT: Duration = Duration::from_millis(500);

fn token(number: u8) -> Token {
    format!("{number:032x}").parse().unwrap()
}

#[test]
fn a_batch_with_several_tokens_answers_as_the_file_does() {
    needs_server!();
    let cluster = behind_proxies();
    let check = |store: &dyn Store| {
        let [a, b] = [Item::new("a"), Item::new("b")];
        let verdict = |item| store.check_and_mark(item).unwrap();
        assert_eq!(verdict(a.clone().retry_of(token(1))), Verdict::New);
        assert_eq!(verdict(b.clone().retry_of(token(2))), Verdict::New);
        let all = |items: [Item<'_>; 2]| store.check_and_mark_all(&items).unwrap();
        [
            all([a.clone().retry_of(token(1)), b.clone().retry_of(token(2))]),
            all([a.clone(), b.clone().retry_of(token(2))]),
            all([a.retry_of(token(1)), b]),
        ]
    };
    let of_file = check(&SeenStore::in_memory().unwrap());
    assert_eq!(of_file[0], [Verdict::New, Verdict::New]);
    assert_eq!(check(&ClusterStore::open(&cluster.url()).unwrap()), of_file);
}

#[test]
fn a_conflict_in_a_batch_hides_no_mark_of_the_batch() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    assert_eq!(store.check_and_mark(Item::new("b").payload("1")).unwrap(), Verdict::New);
    let conflicting = || Item::new("b").payload("2");
    let e = store.check_and_mark_all([Item::new("a"), conflicting()]).unwrap_err();
    // It says what is in the way, and keeps the token by which the others are asked for.
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
    let made = e.token().expect("the token of the call");
    let again = [Item::new("a").retry_of(made), conflicting().retry_of(made)];
    assert_eq!(store.check_and_mark_all(again).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.check_and_mark(Item::new("a").retry_of(made)).unwrap(), Verdict::New);
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
}

#[test]
fn a_conflict_beside_a_lost_answer_hides_no_mark() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    assert_eq!(store.check_and_mark(Item::new("b").payload("1")).unwrap(), Verdict::New);
    let other =
        cluster.masters().into_iter().find(|node| node.index() != master_of(&cluster, "b").index());
    let a = ids_of(&cluster, other.expect("there are three")).next().unwrap();
    let lost = cluster.proxy_of(master_of(&cluster, &a));
    let lost = lost.inject(Fault::lose_answer().on(&["SET"]).nth(1));
    let e = store.check_and_mark_all([Item::new(&a), Item::new("b").payload("2")]).unwrap_err();
    assert_eq!(lost.hits(), 1);
    let made = e.token().expect("the token of the call");
    assert_eq!(store.check_and_mark(Item::new(&a).retry_of(made)).unwrap(), Verdict::New);
}

#[test]
fn the_token_of_a_claim_whose_outcome_is_unknown_ends_the_claim() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let injected = inject(&cluster, &Fault::lose_answer().on(&["SET"]));
    let e = store.busy_timeout(SHORT).claim("incident-17", MINUTE).unwrap_err();
    injected.iter().for_each(Injected::remove);
    assert_eq!(e.kind(), ErrorKind::OutcomeUnknown, "{e}");
    assert!(matches!(store.claim("incident-17", MINUTE).unwrap(), Claim::InFlight { .. }));
    store.release("incident-17", &e.token().unwrap()).unwrap();
    let Claim::Granted(mut lease) = store.claim("incident-17", MINUTE).unwrap() else { panic!() };
    lease.confirm().unwrap();
}

#[test]
fn the_token_of_an_end_whose_outcome_is_unknown_ends_the_claim() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let Claim::Granted(lease) = store.claim("incident-17", MINUTE).unwrap() else { panic!() };
    let held = lease.into_token();
    let injected = inject(&cluster, &Fault::lose_answer().on(&["EVALSHA", "EVAL"]));
    let e = store.busy_timeout(SHORT).release("incident-17", &held).unwrap_err();
    injected.iter().for_each(Injected::remove);
    assert_eq!((e.kind(), e.token()), (ErrorKind::OutcomeUnknown, Some(held)), "{e}");
    store.release("incident-17", &held).unwrap();
}

#[test]
fn an_end_that_was_made_is_never_told_as_lost() {
    needs_server!();
    let cluster = behind_proxies();
    let store = ClusterStore::open(&cluster.url()).unwrap();
    let other = ClusterStore::open(&cluster.url()).unwrap();
    // From now on the servers know the script.
    for n in 0..20 {
        let Claim::Granted(mut lease) = store.claim(n.to_string(), MINUTE).unwrap() else {
            panic!("{n}")
        };
        lease.release().unwrap();
    }
    let Claim::Granted(mut lease) = store.claim("incident-17", MINUTE).unwrap() else { panic!() };
    let proxy = cluster.proxy_of(master_of(&cluster, "incident-17"));
    let held = proxy.inject(Fault::hold_answer().on(&["EVALSHA", "EVAL"]).nth(1));
    let ending = std::thread::spawn(move || lease.fail("503"));
    held.wait_for_hits(1);
    // Before the answer is lost, another worker has taken the id over.
    let Claim::Granted(second) = other.claim("incident-17", MINUTE).unwrap() else { panic!() };
    assert_eq!(second.attempt(), 2);
    second.into_token();
    proxy.cut_connections();
    held.remove();
    if let Err(e) = ending.join().unwrap() {
        assert_eq!(e.kind(), ErrorKind::OutcomeUnknown, "{e}");
    }
}
