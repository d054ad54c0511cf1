//! Errors: what makes no sense is refused, what is closed says so, and nothing is shown that is a secret.

use std::time::{Duration, UNIX_EPOCH};

use seen_store::{ErrorKind, Filter, Item, Resolution, Store, Token, Ttl};

use crate::Place;
use crate::bench::{Bench, LONG, assert_kind, check, claimed, entry, get, known, listed};

/// Asks a store by each verb that takes an id.
#[track_caller]
fn assert_each_verb_fails(store: &dyn Store, kind: ErrorKind) {
    let (second, item) = (Duration::from_secs(1), || Item::new("a"));
    let token: Token = "0123456789abcdef0123456789abcdef".parse().unwrap();
    assert!(!store.is_seen(item()));
    assert_kind(store.try_is_seen(item()), kind);
    assert_kind(store.mark_seen(item()), kind);
    assert_kind(store.mark_seen_at(item(), UNIX_EPOCH), kind);
    assert_kind(store.check_and_mark(item()), kind);
    assert_kind(store.check_and_mark_all(&[item()]), kind);
    assert_kind(store.observe(item()), kind);
    assert_kind(store.seed(&[item()]), kind);
    assert_kind(store.forget(item()), kind);
    assert_kind(store.get(item()), kind);
    assert_kind(store.claim(item(), second), kind);
    assert_kind(store.waiting(Duration::from_millis(1)).claim(item(), second), kind);
    assert_kind(store.claim_all(&[item()], second), kind);
    assert_kind(store.confirm(item(), &token), kind);
    assert_kind(store.confirm_with(item(), &token, b"4711"), kind);
    assert_kind(store.confirm_all(&[(item(), token)]), kind);
    assert_kind(store.release(item(), &token), kind);
    assert_kind(store.release_all(&[(item(), token)]), kind);
    assert_kind(store.fail(item(), &token, "503".into()), kind);
    assert_kind(store.renew(item(), &token, second), kind);
    assert_kind(store.renew_all(&[(item(), token)], second), kind);
    assert_kind(store.resolve(item(), Resolution::Done), kind);
}

pub(crate) fn a_closed_store_answers_nothing(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let handle = store.scope("x");
    assert_eq!(check(store, "a"), seen_store::Verdict::New);
    assert_eq!(check(&*handle, "a"), seen_store::Verdict::New);
    let mut lease = claimed(store, "claimed", bench.long());
    let other = bench.again();
    store.close().unwrap();
    for store in [store, &*handle, &*handle.scope("").ttl(Ttl::Never)] {
        let closed = ErrorKind::Closed;
        assert_each_verb_fails(store, closed);
        assert_kind(store.count(Filter::default()), closed);
        assert_kind(store.remove(Filter::default()), closed);
        assert_kind(store.purge_expired(), closed);
        assert_kind(store.cleanup_old_entries(Duration::from_secs(1)), closed);
        assert_kind(store.stats(), closed);
        assert_kind(store.close(), closed);
        let listed: Vec<_> = store.entries(Filter::default()).collect();
        assert_eq!(listed.len(), 1);
        assert_kind(listed.into_iter().next().unwrap(), closed);
        // Nothing is asked for, and still it is closed.
        assert_kind(store.check_and_mark_all(&[]), closed);
    }
    assert_kind(lease.confirm(), ErrorKind::Closed);
    assert_kind(lease.is_held(), ErrorKind::Closed);
    drop(lease);
    if place.is_shared() {
        assert!(other.is_seen("a".into()) && other.scope("x").is_seen("a".into()));
        assert_eq!(entry(&*other, "claimed").state, seen_store::State::InFlight);
        assert!(bench.again().is_seen("a".into()));
    }
}

pub(crate) fn a_retention_that_ends_before_the_ttl_is_refused(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let less = store.retention(Some(bench.units(LONG - 1)));
    assert_each_verb_fails(&*less, ErrorKind::InvalidConfig);
    assert_eq!(get(store, "a"), None);
    // The same handle with a shorter TTL makes sense.
    assert_eq!(check(&*less.ttl(bench.units(1).into()), "a"), seen_store::Verdict::New);
    assert_eq!(check(&*less.retention(None), "b"), seen_store::Verdict::New);
}

pub(crate) fn an_error_says_what_was_wrong(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    assert_eq!(check(store, Item::new("order 17").payload("1")), seen_store::Verdict::New);
    let conflict = store.check_and_mark(Item::new("order 17").payload("2")).unwrap_err();
    assert!(conflict.to_string().contains("order 17"), "{conflict}");
    let token = claimed(store, "order 18", bench.long()).into_token();
    store.release("order 18".into(), &token).unwrap();
    let lost = store.confirm("order 18".into(), &token).unwrap_err();
    assert!(lost.to_string().contains("order 18"), "{lost}");
    for error in [&conflict, &lost] {
        assert!(!error.is_retryable() && error.token().is_none());
        assert!(!error.to_string().contains(&token.to_string()), "{error}");
        // An id is shown in part, and escaped.
        assert!(!error.to_string().contains('\u{1b}'));
    }
    let escape = Item::new("\u{1b}[31m").payload("1");
    assert_eq!(check(store, escape), seen_store::Verdict::New);
    let conflict = store.check_and_mark(Item::new("\u{1b}[31m").payload("2")).unwrap_err();
    assert!(!conflict.to_string().contains('\u{1b}'), "{conflict:?}");
}

pub(crate) fn what_is_shown_for_debugging_has_no_ids_tokens_or_receipts(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store().scope("the scope");
    claimed(&*store, "a secret id", bench.long()).confirm_with("a secret receipt").unwrap();
    let shown = format!("{store:?} {:?}", bench.store());
    assert!(shown.contains("the scope"), "{shown}");
    let seen = store.claim("a secret id".into(), bench.long()).unwrap();
    let shown = format!("{shown} {seen:?}");
    let shown = format!("{shown} {:?}", known(seen));
    for secret in ["a secret id", "a secret receipt"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let lease = claimed(&*store, "b", bench.long());
    let shown = format!("{lease:?} {store:?} {:#?}", bench.store());
    assert!(!shown.contains(&lease.token().to_string()), "{shown}");
    assert!(shown.len() < 2_000, "{shown}");
    assert_eq!(listed(bench.store(), Filter::default()).len(), 2);
}
