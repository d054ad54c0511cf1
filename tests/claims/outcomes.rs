//! What came of an attempt: failures and their delays, attempts that are used up, receipts and reasons.
#![expect(clippy::unchecked_time_subtraction, reason = "below zero it panics, as a test should")]

use seen_store::{Claim, Clock as _, Config, ErrorKind, Filter, SeenStore, State, Verdict};

use crate::bench::{Bench, LEASE, TTL, assert_kind, assert_seen, granted, until};
use crate::common::{Place, ms, secs};

#[test]
fn a_failed_id_is_claimed_again_after_the_retry_delay_and_not_before() {
    let bench = Bench::with(|config| config.retry_delay(secs(10)));
    let mut lease = bench.granted("a");
    bench.clock.advance(secs(1));
    lease.fail("no answer").unwrap();
    let again = bench.after(secs(10));
    assert_eq!(until(&bench.claim("a")), again);
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.lease_until), (State::Failed, Some(again)));
    bench.clock.advance(secs(10) - ms(1));
    assert_eq!(until(&bench.claim("a")), again);
    bench.clock.advance(ms(1));
    let mut lease = bench.granted("a");
    assert_eq!((lease.attempt(), bench.entry("a").state), (2, State::InFlight));
    // A release is no failure: nobody waits after one. Nor after a lease that ran out.
    lease.release().unwrap();
    let lease = bench.granted("a");
    lease.into_token();
    bench.clock.advance(LEASE);
    assert_eq!(bench.granted("a").attempt(), 4);
}

#[test]
fn an_id_is_given_up_after_its_last_attempt_and_not_while_that_is_in_flight() {
    let bench = Bench::with(|config| config.max_attempts(3).retry_delay(secs(10)));
    bench.granted("a").release().unwrap();
    bench.granted("a").into_token();
    bench.clock.advance(LEASE);
    let mut last = bench.granted("a");
    assert_eq!(until(&bench.claim("a")), bench.after(LEASE));
    last.fail("no answer").unwrap();
    assert_eq!(until(&bench.claim("a")), bench.after(secs(10)));
    bench.clock.advance(secs(10));
    let before = bench.file();
    for _ in 0..2 {
        let claim = bench.claim("a");
        assert!(matches!(claim, Claim::GivenUp { attempts: 3 }), "{claim:?}");
    }
    assert_eq!(bench.file(), before);
    assert!(!bench.store.is_seen("a"));
    assert_eq!(bench.entry("a").last_error.as_deref(), Some("no answer"));
    // One TTL later nobody knows of it any more.
    bench.clock.advance(TTL);
    assert_eq!(bench.granted("a").attempt(), 1);
}

#[test]
fn a_last_attempt_whose_lease_ran_out_is_given_up_and_may_still_be_confirmed() {
    let bench = Bench::with(|config| config.max_attempts(1));
    let mut lease = bench.granted("a");
    bench.clock.advance(LEASE);
    assert!(matches!(bench.claim("a"), Claim::GivenUp { attempts: 1 }));
    lease.confirm().unwrap();
    assert_seen(&bench.claim("a"));
}

#[test]
fn what_came_of_an_id_is_told_at_every_stage() {
    let bench = Bench::new();
    assert_eq!(bench.store.get("a").unwrap(), None);
    let start = bench.clock.now();
    let mut lease = bench.granted("a");
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.attempts), (State::InFlight, 1));
    assert_eq!(entry.lease_until, Some(start + LEASE));
    assert_eq!((entry.first_seen, entry.last_seen), (start, start));
    assert_eq!((entry.last_error, entry.receipt, entry.duplicates), (None, None, 0));
    lease.fail("first").unwrap();
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.last_error.as_deref()), (State::Failed, Some("first")));
    assert_eq!(entry.expires_at, Some(start + TTL));

    bench.clock.advance(secs(5));
    let mut lease = bench.granted("a");
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.attempts), (State::InFlight, 2));
    assert_eq!(
        entry.last_error.as_deref(),
        Some("first"),
        "it is what the next attempt is to know"
    );
    lease.fail("second").unwrap();
    assert_eq!(bench.entry("a").last_error.as_deref(), Some("second"));
    let mut lease = bench.granted("a");
    lease.confirm_with([0xff, 0x00]).unwrap();
    let _ = [bench.claim("a"), bench.claim("a")];
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.attempts), (State::Seen, 3));
    assert_eq!(entry.last_error.as_deref(), Some("second"));
    assert_eq!(entry.receipt.as_deref(), Some(&[0xff, 0x00][..]));
    assert_eq!((entry.lease_until, entry.duplicates), (None, 3));
    // A refresh keeps all of it.
    bench.clock.advance(secs(5));
    bench.store.mark_seen("a").unwrap();
    let mut expected = entry;
    (expected.last_seen, expected.expires_at) = (bench.clock.now(), Some(bench.after(TTL)));
    assert_eq!(bench.entry("a"), expected);
}

#[test]
fn a_receipt_has_at_most_64_kib_and_an_empty_one_is_one() {
    let bench = Bench::new();
    bench.granted("none").confirm().unwrap();
    assert_eq!(bench.entry("none").receipt, None);
    for length in [0, 1, 65_536] {
        let (id, receipt) = (length.to_string(), vec![7; length]);
        bench.granted(&id).confirm_with(&receipt).unwrap();
        assert_eq!(bench.entry(&id).receipt, Some(receipt));
    }
    let mut lease = bench.granted("long");
    let before = bench.file();
    let error = assert_kind(lease.confirm_with(vec![7; 65_537]), ErrorKind::InvalidClaim);
    assert!(error.to_string().contains("65537"), "{error}");
    assert_kind(
        bench.store.confirm_with("long", &lease.token(), vec![7; 65_537]),
        ErrorKind::InvalidClaim,
    );
    assert_eq!(bench.file(), before);
    lease.confirm_with("shorter").unwrap();
}

#[test]
fn a_long_reason_is_cut_between_two_characters() {
    let bench = Bench::new();
    let reason = format!("x{}", "é".repeat(40_000));
    bench.granted("a").fail(&reason).unwrap();
    let kept = bench.entry("a").last_error.unwrap();
    // 65,536 would be the middle of a character.
    assert_eq!(kept.len(), 65_535);
    assert!(reason.starts_with(&kept));
    bench.granted("a").fail("y".repeat(65_536)).unwrap();
    assert_eq!(bench.entry("a").last_error.unwrap().len(), 65_536);
    bench.granted("a").fail("").unwrap();
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.last_error.as_deref()), (State::Failed, Some("")));
}

#[test]
fn a_receipt_may_be_as_long_as_the_store_is_set_to_take() {
    let most = 1 << 20;
    let place = Place::in_ram();
    for config in
        [Config::default().max_receipt(most + 1), Config::default().max_receipt(usize::MAX)]
    {
        let error = SeenStore::open_with(place.path(), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    let store = place.open(Config::default().max_receipt(most));
    let id = vec![b'i'; 65_536];
    let scoped = store.scope("s".repeat(65_536));
    let mut lease = granted(scoped.claim(&id, LEASE).unwrap());
    lease.fail("e".repeat(65_536)).unwrap();
    let mut lease = granted(scoped.claim(&id, LEASE).unwrap());
    assert_kind(lease.confirm_with(vec![7; most + 1]), ErrorKind::InvalidClaim);
    lease.confirm_with(vec![7; most]).unwrap();
    // The setting is for what comes: what is stored is read by every store.
    store.close().unwrap();
    let other = place.open(Config::default()).scope("s".repeat(65_536));
    let Claim::Seen(known) = other.claim(&id, LEASE).unwrap() else { panic!() };
    assert_eq!(known.receipt().unwrap().unwrap().len(), most);
    assert_eq!(other.get(&id).unwrap().unwrap().receipt.unwrap().len(), most);
    other.mark_seen(&id).unwrap();
    let copy = SeenStore::in_memory().unwrap();
    let entries: Vec<_> = other.entries(Filter::default()).map(Result::unwrap).collect();
    assert_eq!(copy.restore(entries).unwrap().added, 1);
}

#[test]
fn a_receipt_of_none_is_taken_and_a_setting_of_zero_takes_no_other() {
    let store = SeenStore::in_memory_with(Config::default().max_receipt(0)).unwrap();
    let mut lease = granted(store.claim("a", LEASE).unwrap());
    assert_kind(lease.confirm_with("x"), ErrorKind::InvalidClaim);
    lease.confirm_with("").unwrap();
    let Claim::Seen(known) = store.claim("a", LEASE).unwrap() else { panic!() };
    assert_eq!(known.receipt().unwrap(), Some(Vec::new()));
}
