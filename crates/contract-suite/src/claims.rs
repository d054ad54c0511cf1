//! Claims: who is granted an id, and what the others are told.

use seen_store::{ErrorKind, Filter, Previous, State, Verdict};

use crate::Place;
use crate::bench::{Bench, assert_kind, check, claimed, entry, ids, known, word};

pub(crate) fn an_id_is_granted_to_one_worker_and_the_others_are_told_who_has_it(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let now = bench.now();
    let mut lease = claimed(store, "a", bench.long());
    assert_eq!((lease.id(), lease.attempt(), lease.is_change()), (&b"a"[..], 1, false));
    assert_eq!((lease.previous(), lease.was_late()), (&Previous::None, false));
    bench.assert_near(lease.expires_at(), now + bench.long());
    assert!(lease.is_held().unwrap());
    for store in [store, &*again, store] {
        match store.claim("a".into(), bench.long()).unwrap() {
            seen_store::Claim::InFlight { until, holder } => {
                assert_eq!((until, holder.as_deref()), (lease.expires_at(), Some("worker 1")));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(check(store, "a"), Verdict::InFlight);
        assert!(!store.is_seen("a".into()), "it is not done yet");
        assert_eq!(word(store, "b", bench.long()), "granted");
    }
    let entry = entry(store, "a");
    assert_eq!((entry.state, entry.attempts, entry.abandoned), (State::InFlight, 1, 0));
    assert_eq!((entry.holder.as_deref(), entry.held), (Some("worker 1"), false));
    assert_eq!(entry.lease_until, Some(lease.expires_at()));
    assert_eq!(entry.expires_at, Some(lease.expires_at() + bench.long()));
    bench.assert_near(entry.first_seen, now);
    assert_eq!(entry.last_seen, entry.first_seen);
    assert_eq!(ids(store, Filter::default().state(State::InFlight)), ["a"]);
    lease.confirm().unwrap();
    assert!(!lease.was_late() && !lease.is_held().unwrap());
    for store in [store, &*again] {
        assert!(store.is_seen("a".into()));
        assert_eq!(check(store, "a"), Verdict::Duplicate);
        let seen = known(store.claim("a".into(), bench.long()).unwrap());
        assert_eq!(seen.entry().unwrap().unwrap().attempts, 1);
        assert_eq!(seen.receipt().unwrap(), None);
    }
}

pub(crate) fn refusals_are_counted_and_stay_with_the_id(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let mut lease = claimed(store, "a", bench.long());
    assert_eq!(word(store, "a", bench.long()), "in flight");
    assert_eq!(check(store, "a"), Verdict::InFlight);
    assert_eq!(entry(store, "a").duplicates, 2);
    lease.confirm().unwrap();
    assert_eq!(word(store, "a", bench.long()), "seen");
    assert_eq!(entry(store, "a").duplicates, 3);
}

pub(crate) fn a_confirmed_id_is_marked_as_by_a_mark(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let mut lease = claimed(store, "a", bench.long());
    let claimed_at = entry(store, "a").first_seen;
    bench.passes(2);
    lease.confirm().unwrap();
    let marked = entry(store, "a");
    assert_eq!((marked.state, marked.attempts), (State::Seen, 1));
    assert!(marked.last_seen >= claimed_at + bench.units(2));
    assert_eq!(
        marked.expires_at,
        Some(marked.last_seen + bench.long()),
        "it counts from the confirm"
    );
    assert_eq!((marked.lease_until, marked.holder, marked.held), (None, None, false));
    // By the TTL of the handle that claimed.
    let short = store.ttl(bench.short().into());
    claimed(&*short, "b", bench.long()).confirm().unwrap();
    assert_eq!(check(store, "b"), Verdict::Duplicate);
    bench.short_passes();
    assert_eq!(check(store, "b"), Verdict::New);
}

pub(crate) fn to_confirm_twice_is_to_confirm_once(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let mut lease = claimed(store, "a", bench.long());
    let token = lease.token();
    lease.confirm_with("4711").unwrap();
    let confirmed = entry(store, "a");
    lease.confirm().unwrap();
    lease.confirm_with("4712").unwrap();
    store.confirm("a".into(), &token).unwrap();
    again.confirm_with("a".into(), &token, b"4713").unwrap();
    assert!(!lease.was_late());
    assert_eq!(entry(&*again, "a"), confirmed, "the first receipt stays");
    drop(lease);
    assert!(store.is_seen("a".into()), "a lease that was confirmed releases nothing");
    // Other ends of the claim come too late.
    assert_kind(store.release("a".into(), &token), ErrorKind::LeaseLost);
    assert_kind(store.fail("a".into(), &token, "503".into()), ErrorKind::LeaseLost);
    assert_kind(store.renew("a".into(), &token, bench.long()), ErrorKind::LeaseLost);
    assert_eq!(entry(store, "a"), confirmed);
    // A receipt can be added to an id that was confirmed without.
    let mut lease = claimed(store, "b", bench.long());
    lease.confirm().unwrap();
    assert_eq!(entry(store, "b").receipt, None);
    lease.confirm_with("later").unwrap();
    assert_eq!(entry(store, "b").receipt.as_deref(), Some(&b"later"[..]));
}

pub(crate) fn a_receipt_is_kept_byte_for_byte(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let every_byte: Vec<u8> = (0..=255).collect();
    let longest = vec![b'x'; 65_536];
    let receipts = [
        &b""[..],
        b"4711",
        b"\0",
        b"\xff\xfe",
        &every_byte,
        &longest[..4_096],
        &longest[..4_097],
        &longest,
    ];
    for (n, receipt) in receipts.into_iter().enumerate() {
        let id = format!("receipt {n}");
        claimed(store, &id, bench.long()).confirm_with(receipt).unwrap();
        for store in [store, &*again] {
            assert_eq!(entry(store, &id).receipt.as_deref(), Some(receipt), "{n}");
            let seen = known(store.claim((&id).into(), bench.long()).unwrap());
            assert_eq!(seen.receipt().unwrap().as_deref(), Some(receipt), "{n}");
        }
        assert_eq!(
            store.observe((&id).into()).unwrap().before.unwrap().receipt.as_deref(),
            Some(receipt)
        );
    }
}

pub(crate) fn a_receipt_that_is_too_long_is_refused_and_the_claim_stays(place: &dyn Place) {
    let bench = Bench::new(place);
    let store = bench.store();
    let mut lease = claimed(store, "a", bench.long());
    let token = lease.token();
    let too_long = vec![b'x'; 65_537];
    assert_kind(lease.confirm_with(&too_long), ErrorKind::InvalidClaim);
    assert_kind(store.confirm_with("a".into(), &token, &too_long), ErrorKind::InvalidClaim);
    assert!(lease.is_held().unwrap() && !store.is_seen("a".into()));
    lease.confirm_with(&too_long[1..]).unwrap();
    assert_eq!(entry(store, "a").receipt.map(|receipt| receipt.len()), Some(65_536));
    // After the first try the lease is not released any more: the work was done.
    let mut lease = claimed(store, "b", bench.long());
    assert_kind(lease.confirm_with(&too_long), ErrorKind::InvalidClaim);
    drop(lease);
    assert_eq!(word(store, "b", bench.long()), "in flight");
    for (limit, length) in [(3, 3), (0, 0), (1 << 20, 1 << 20)] {
        let bench = Bench::with(place, |config| config.max_receipt(limit));
        let mut lease = claimed(bench.store(), "a", bench.long());
        let receipt = vec![b'x'; length + 1];
        assert_kind(lease.confirm_with(&receipt), ErrorKind::InvalidClaim);
        lease.confirm_with(&receipt[1..]).unwrap();
        assert_eq!(entry(bench.store(), "a").receipt.map(|receipt| receipt.len()), Some(length));
    }
}

pub(crate) fn a_token_works_through_its_text_and_through_another_store(place: &dyn Place) {
    let bench = Bench::new(place);
    let (store, again) = (bench.store(), bench.again());
    let token = |id: &str| -> seen_store::Token {
        claimed(store, id, bench.short()).into_token().to_string().parse().unwrap()
    };
    again.confirm("confirmed".into(), &token("confirmed")).unwrap();
    again.confirm_with("receipt".into(), &token("receipt"), b"4711").unwrap();
    again.release("released".into(), &token("released")).unwrap();
    again.fail("failed".into(), &token("failed"), "503".into()).unwrap();
    let renewed = token("renewed");
    again.renew("renewed".into(), &renewed, bench.long()).unwrap();
    let expected = [
        ("confirmed", State::Seen),
        ("receipt", State::Seen),
        ("released", State::Released),
        ("failed", State::Failed),
        ("renewed", State::InFlight),
    ];
    bench.short_passes();
    for (id, state) in expected {
        assert_eq!(entry(store, id).state, state, "{id}");
    }
    assert_eq!(entry(store, "receipt").receipt.as_deref(), Some(&b"4711"[..]));
    assert_eq!(entry(store, "failed").last_error.as_deref(), Some("503"));
    store.confirm("renewed".into(), &renewed).unwrap();
    // A token that no claim has.
    let other: seen_store::Token = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let _held = claimed(store, "held", bench.long());
    for id in ["held", "confirmed", "released", "unknown"] {
        assert_kind(again.confirm(id.into(), &other), ErrorKind::LeaseLost);
        assert_kind(again.renew(id.into(), &other, bench.long()), ErrorKind::LeaseLost);
    }
    assert_eq!(word(store, "held", bench.long()), "in flight");
}
