//! The life of a claim: granted, then confirmed, given back or taken over. On a clock that the test
//! steps; real processes are in `processes.rs`.
#![expect(clippy::unchecked_time_subtraction, reason = "below zero it panics, as a test should")]

use std::fs;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use rusqlite::types::Value;
use seen_store::{
    Claim, Clock as _, Config, Entry, Error, ErrorKind, Filter, Lease, ManualClock, Ownership,
    Reader, Result, SeenStore, State, Token, Ttl, Verdict,
};

use crate::common::{self, Place, clock_and_config, ms, secs};

const LEASE: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(24 * 3_600);

/// A store on a file, with marks that last a day, and what looks at it from outside.
struct Bench {
    place: Place,
    clock: Arc<ManualClock>,
    config: Config,
    store: SeenStore,
}

impl Bench {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(set: impl FnOnce(Config) -> Config) -> Self {
        let place = Place::in_ram();
        let (clock, config) = clock_and_config();
        let config = set(config.ttl(TTL));
        let store = place.open(config.clone());
        Self { place, clock, config, store }
    }

    fn claim(&self, id: &str) -> Claim {
        self.store.claim(id, LEASE).unwrap()
    }

    fn granted(&self, id: &str) -> Lease {
        granted(self.claim(id))
    }

    /// A claim whose lease has run out, and the lease of whoever took the id over.
    fn taken_over(&self, id: &str) -> (Lease, Lease) {
        let stale = self.granted(id);
        self.clock.advance(LEASE);
        (stale, self.granted(id))
    }

    fn entry(&self, id: &str) -> Entry {
        self.store.get(id).unwrap().unwrap()
    }

    fn after(&self, time: Duration) -> SystemTime {
        self.clock.now() + time
    }

    /// All that the file holds, by a connection of its own.
    fn file(&self) -> Vec<Vec<Value>> {
        tables(&self.place.sql())
    }

    /// How many commits the log holds: its frames that end one. Right until a checkpoint. (The locks
    /// are on other files: this one may be opened beside SQLite.)
    fn commits(&self) -> usize {
        let wal = fs::read(self.place.beside("-wal")).unwrap();
        let frames = wal[32..].chunks_exact(24 + 1_024);
        frames
            .filter(|frame| frame[8..16] == wal[16..24])
            .filter(|frame| frame[4..8] != [0; 4])
            .count()
    }
}

fn tables(connection: &Connection) -> Vec<Vec<Value>> {
    ["SELECT * FROM seen ORDER BY seq", "SELECT * FROM claims ORDER BY scope, id"]
        .into_iter()
        .flat_map(|sql| {
            let mut statement = connection.prepare(sql).unwrap();
            let columns = 0..statement.column_count();
            let rows = statement
                .query_map([], |row| columns.clone().map(|column| row.get(column)).collect())
                .unwrap();
            rows.collect::<Result<Vec<_>, _>>().unwrap()
        })
        .collect()
}

fn claim_rows(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap()
}

#[track_caller]
fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Granted(lease) => lease,
        other => panic!("not granted but {other:?}"),
    }
}

#[track_caller]
fn until(claim: &Claim) -> SystemTime {
    match claim {
        Claim::InFlight { until } => *until,
        other => panic!("not in flight but {other:?}"),
    }
}

#[track_caller]
fn assert_seen(claim: &Claim) {
    assert!(matches!(claim, Claim::Seen), "{claim:?}");
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}

#[track_caller]
fn assert_lost(result: Result<()>) {
    assert_kind(result, ErrorKind::LeaseLost);
}

/// Each verb of a holder, through its lease and through its token.
type Verb =
    (&'static str, fn(&mut Lease) -> Result<()>, fn(&SeenStore, &str, &Token) -> Result<()>);
const VERBS: [Verb; 5] = [
    ("confirm", Lease::confirm, |store, id, token| store.confirm(id, token)),
    (
        "confirm_with",
        |lease| lease.confirm_with("r"),
        |store, id, t| store.confirm_with(id, t, "r"),
    ),
    ("renew", |lease| lease.renew(LEASE), |store, id, token| store.renew(id, token, LEASE)),
    ("release", Lease::release, |store, id, token| store.release(id, token)),
    ("fail", |lease| lease.fail("why"), |store, id, token| store.fail(id, token, "why")),
];

const _: () = {
    const fn can_be_sent<T: Send>() {}
    can_be_sent::<Claim>();
    can_be_sent::<Lease>();
};

#[test]
fn an_id_is_granted_once_in_flight_for_others_and_seen_after_its_confirm() {
    let bench = Bench::new();
    let ends = bench.after(LEASE);
    let mut lease = bench.granted("a");
    assert_eq!((lease.id(), lease.attempt(), lease.expires_at()), (&b"a"[..], 1, ends));
    bench.clock.advance(secs(20));
    for _ in 0..2 {
        assert_eq!(until(&bench.claim("a")), ends);
    }
    assert!(!bench.store.is_seen("a"));
    lease.confirm().unwrap();
    assert_seen(&bench.claim("a"));
    assert!(bench.store.is_seen("a"));
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.attempts), (State::Seen, 1));
    assert_eq!(entry.expires_at, Some(bench.after(TTL)), "a confirm is when the mark begins");
    assert_eq!((entry.first_seen, entry.last_seen), (ends - LEASE, bench.clock.now()));
    assert_eq!(claim_rows(&bench.place.sql()), 0);
}

#[test]
fn of_many_threads_one_is_granted_the_id() {
    let bench = Bench::new();
    let barrier = Barrier::new(8);
    for id in 0..50_u32 {
        let claims: Vec<Claim> = thread::scope(|scope| {
            let claim = || {
                barrier.wait();
                bench.store.claim(id.to_be_bytes(), LEASE).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let granted = claims.iter().filter(|claim| matches!(claim, Claim::Granted(_))).count();
        let waiting = claims.iter().filter(|claim| matches!(claim, Claim::InFlight { .. })).count();
        assert_eq!((granted, waiting), (1, 7), "{claims:?}");
    }
}

#[test]
fn attempts_count_on_over_a_release_a_failure_a_drop_and_a_lease_that_ran_out() {
    let bench = Bench::new();
    let mut tokens = Vec::new();
    for attempt in 1..=5 {
        let mut lease = bench.granted("a");
        assert_eq!(lease.attempt(), attempt);
        assert!(!tokens.contains(&lease.token()), "a token came twice");
        tokens.push(lease.token());
        match attempt {
            1 => lease.release().unwrap(),
            2 => lease.fail("no answer").unwrap(),
            3 => drop(lease),
            4 => {
                lease.into_token();
                bench.clock.advance(LEASE);
            }
            _ => lease.confirm().unwrap(),
        }
    }
    let entry = bench.entry("a");
    assert_eq!((entry.attempts, entry.last_error.as_deref()), (5, Some("no answer")));
}

#[test]
fn a_lease_of_zero_is_an_error_and_changes_nothing() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    let token = lease.token();
    let before = bench.file();
    let zero = Duration::ZERO;
    assert_kind(bench.store.claim("b", zero), ErrorKind::InvalidClaim);
    assert_kind(bench.store.claim_all(["b", "c"], zero), ErrorKind::InvalidClaim);
    assert_kind(lease.renew(zero), ErrorKind::InvalidClaim);
    assert_kind(bench.store.renew("a", &token, zero), ErrorKind::InvalidClaim);
    assert_kind(bench.store.renew_all([("a", token)], zero), ErrorKind::InvalidClaim);
    assert_eq!(bench.file(), before);
    // The shortest lease lasts a millisecond.
    let shortest = bench.store.claim("b", Duration::from_nanos(1)).unwrap();
    assert_eq!(granted(shortest).expires_at(), bench.after(ms(1)));
}

#[test]
fn a_dead_holders_id_is_taken_over_when_its_lease_ends_and_not_a_millisecond_before() {
    let bench = Bench::new();
    let dead = bench.granted("a");
    let ends = dead.expires_at();
    let dead = dead.into_token();
    bench.clock.advance(LEASE - ms(1));
    assert_eq!(until(&bench.claim("a")), ends);
    bench.clock.advance(ms(1));
    let taker = bench.granted("a");
    assert_eq!(taker.attempt(), 2);
    assert_ne!(taker.token(), dead);
    assert_eq!(until(&bench.claim("a")), bench.after(LEASE));
}

#[test]
fn a_lease_can_be_renewed_before_and_after_it_ran_out() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    let token = lease.token();
    for (wait, renewal) in [(secs(30), LEASE), (LEASE - ms(1), LEASE), (secs(500), secs(5))] {
        bench.clock.advance(wait);
        lease.renew(renewal).unwrap();
        assert_eq!(lease.expires_at(), bench.after(renewal));
        assert_eq!(until(&bench.claim("a")), bench.after(renewal));
    }
    bench.store.renew("a", &token, secs(7)).unwrap();
    assert_eq!(bench.entry("a").lease_until, Some(bench.after(secs(7))));
    assert_eq!(bench.entry("a").attempts, 1);
    bench.clock.advance(secs(7));
    assert_eq!(bench.granted("a").attempt(), 2);
}

#[test]
fn a_lease_that_ran_out_and_was_not_taken_over_is_still_its_holders() {
    let bench = Bench::new();
    for (verb, by_lease, by_token) in VERBS {
        let (one, other) = (format!("{verb} by lease"), format!("{verb} by token"));
        let (mut lease, token) = (bench.granted(&one), bench.granted(&other).into_token());
        bench.clock.advance(LEASE * 100);
        assert_eq!(bench.entry(&one).state, State::Expired);
        by_lease(&mut lease).unwrap();
        by_token(&bench.store, &other, &token).unwrap();
        let state = match verb {
            "confirm" | "confirm_with" => State::Seen,
            "renew" => State::InFlight,
            "release" => State::Expired,
            _ => State::Failed,
        };
        assert_eq!([&one, &other].map(|id| bench.entry(id).state), [state; 2], "{verb}");
    }
}

#[test]
fn a_holder_that_was_taken_over_is_told_by_every_verb_and_changes_nothing() {
    type Step = fn(&mut Lease) -> Result<()>;
    let takers: [(&str, Step); 5] = [
        ("holds", |_| Ok(())),
        ("has renewed", |lease| lease.renew(LEASE * 2)),
        ("has confirmed", |lease| lease.confirm_with("the taker's")),
        ("has failed", |lease| lease.fail("the taker's")),
        ("has released", Lease::release),
    ];
    for (taker, step) in takers {
        for (verb, by_lease, by_token) in VERBS {
            let bench = Bench::new();
            let (mut stale, mut lease) = bench.taken_over("a");
            step(&mut lease).unwrap();
            let before = bench.file();
            let said = format!("{verb} of a stale holder while the taker {taker}");
            assert_lost(by_lease(&mut stale));
            assert_eq!(bench.file(), before, "{said}, by lease");
            assert_lost(by_token(&bench.store, "a", &stale.token()));
            assert_eq!(bench.file(), before, "{said}, by token");
            drop(stale);
            assert_eq!(bench.file(), before, "{said}, dropped");
            // The taker notices nothing of it.
            if taker != "has failed" && taker != "has released" {
                lease.confirm().unwrap();
            }
        }
    }
}

#[test]
fn a_holder_that_was_taken_over_is_told_in_a_batch_while_the_others_are_served() {
    let bench = Bench::new();
    let stale = bench.granted("stale").into_token();
    bench.clock.advance(LEASE);
    let _taker = bench.granted("stale");
    let claims =
        || [("held", bench.granted("held").into_token()), ("stale", stale)].map(|c| (c.0, c.1));
    let (held, lost) = (Ownership::Held, Ownership::Lost);
    assert_eq!(bench.store.release_all(claims()).unwrap(), [held, lost]);
    let again = claims();
    assert_eq!(bench.store.renew_all(again, LEASE * 3).unwrap(), [held, lost]);
    assert_eq!(bench.entry("held").lease_until, Some(bench.after(LEASE * 3)));
    assert_eq!(bench.entry("stale").lease_until, Some(bench.after(LEASE)));
    assert_eq!(bench.store.confirm_all(again).unwrap(), [held, lost]);
    assert!(bench.store.is_seen("held") && !bench.store.is_seen("stale"));
    assert_eq!(bench.store.confirm_all(again).unwrap(), [held, lost]);
}

#[test]
fn confirming_again_with_the_same_token_is_ok_and_changes_nothing() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    lease.confirm_with("receipt").unwrap();
    let before = bench.file();
    lease.confirm().unwrap();
    lease.confirm_with("another receipt").unwrap();
    let token: Token = lease.token().to_string().parse().unwrap();
    drop(lease);
    bench.store.confirm("a", &token).unwrap();
    let other = bench.place.open(bench.config.clone());
    other.confirm("a", &token).unwrap();
    other.confirm_with("a", &token, "a third").unwrap();
    assert_eq!(bench.file(), before);
    assert_eq!(other.get("a").unwrap().unwrap().receipt.as_deref(), Some(&b"receipt"[..]));
    // What is done cannot be undone with the token either.
    for result in [
        other.renew("a", &token, LEASE),
        other.release("a", &token),
        other.fail("a", &token, "too late"),
    ] {
        assert_lost(result);
    }
    assert_eq!(bench.file(), before);
}

#[test]
fn a_token_confirms_from_another_store_and_only_its_own_id() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    let _b = bench.granted("b");
    let other = bench.place.open(bench.config.clone());
    let text = token.to_string();
    assert_lost(other.confirm("b", &text.parse().unwrap()));
    assert_lost(other.scope("s").confirm("a", &text.parse().unwrap()));
    assert_lost(other.confirm("never claimed", &token));
    other.confirm("a", &text.to_uppercase().parse().unwrap()).unwrap();
    assert_seen(&bench.claim("a"));
}

#[test]
fn a_dropped_lease_releases_its_id_also_during_a_panic() {
    let bench = Bench::new();
    drop(bench.granted("a"));
    assert_eq!(bench.entry("a").state, State::Expired);
    let store = &bench.store;
    let panicked = catch_unwind(|| {
        let _lease = granted(store.claim("a", LEASE).unwrap());
        resume_unwind(Box::new("the send panicked"));
    });
    assert!(panicked.is_err());
    assert_eq!(bench.granted("a").attempt(), 3);
    drop(bench.store.claim_all(["a", "b"], LEASE).unwrap());
    assert_eq!(bench.store.stats().unwrap().in_flight, 0);
    // A renewal ends nothing, so that the lease is still released.
    let mut lease = bench.granted("a");
    lease.renew(LEASE).unwrap();
    drop(lease);
    assert_eq!(bench.granted("a").attempt(), 6);
}

#[test]
fn a_lease_whose_confirm_was_attempted_in_vain_is_not_released_when_dropped() {
    let bench = Bench::with(|config| config.busy_timeout(ms(1)));
    let attempts: [fn(&mut Lease) -> Result<()>; 2] = [Lease::confirm, |l| l.confirm_with("r")];
    for (id, attempt) in ["a", "b"].into_iter().zip(attempts) {
        let mut lease = bench.granted(id);
        let token = lease.token();
        let blocker = bench.place.sql();
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(assert_kind(attempt(&mut lease), ErrorKind::Busy).is_retryable());
        blocker.execute_batch("ROLLBACK").unwrap();
        // The way is free again: it is not the drop that fails.
        drop(lease);
        assert_eq!(until(&bench.claim(id)), bench.after(LEASE));
        bench.store.confirm(id, &token).unwrap();
    }
    let mut lease = bench.granted("c");
    assert_kind(lease.confirm_with(vec![0; 65_537]), ErrorKind::InvalidClaim);
    drop(lease);
    assert_eq!(until(&bench.claim("c")), bench.after(LEASE));
}

#[test]
fn a_confirm_that_failed_can_be_tried_again() {
    let bench = Bench::with(|config| config.busy_timeout(ms(1)));
    let mut lease = bench.granted("a");
    let blocker = bench.place.sql();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_kind(lease.confirm_with("r"), ErrorKind::Busy);
    assert!(!bench.store.is_seen("a"));
    blocker.execute_batch("ROLLBACK").unwrap();
    lease.confirm_with("r").unwrap();
    assert_eq!(bench.entry("a").receipt.as_deref(), Some(&b"r"[..]));
}

#[test]
fn a_token_taken_from_its_lease_keeps_the_claim() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    assert_eq!(until(&bench.claim("a")), bench.after(LEASE));
    bench.store.confirm("a", &token).unwrap();
    assert_seen(&bench.claim("a"));
}

#[test]
fn marking_a_claimed_id_makes_it_seen_and_the_holders_confirm_succeeds() {
    let bench = Bench::new();
    let (mut one, mut other, mut late) =
        (bench.granted("one"), bench.granted("other"), bench.granted("late"));
    bench.store.mark_seen("one").unwrap();
    bench.store.mark_seen("other").unwrap();
    assert!(bench.store.is_seen("one"));
    assert_seen(&bench.claim("one"));
    assert_eq!(claim_rows(&bench.place.sql()), 1);
    // Marked once more, which moves the row.
    bench.clock.advance(LEASE);
    bench.store.mark_seen("other").unwrap();
    bench.store.mark_seen("late").unwrap();

    one.confirm().unwrap();
    other.confirm_with("receipt").unwrap();
    late.confirm().unwrap();
    let entry = bench.entry("other");
    assert_eq!((entry.attempts, entry.receipt.as_deref()), (1, Some(&b"receipt"[..])));
    assert_eq!(entry.last_seen, bench.clock.now());
    let before = bench.file();
    other.confirm_with("receipt").unwrap();
    assert_eq!(bench.file(), before);
    // Somebody else marked it: there is nothing left to give back.
    let mut fourth = bench.granted("fourth");
    bench.store.mark_seen("fourth").unwrap();
    assert_lost(fourth.renew(LEASE));
    drop(fourth);
    assert!(bench.store.is_seen("fourth"));
}

#[test]
fn a_receipt_that_comes_after_the_mark_keeps_the_count_of_duplicates() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    bench.store.mark_seen("a").unwrap();
    assert_seen(&bench.claim("a"));
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    lease.confirm_with("receipt").unwrap();
    assert_eq!(bench.entry("a").suppressed, 2);
}

#[test]
fn a_mark_does_not_bring_back_a_holder_that_had_given_up() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    lease.fail("no answer").unwrap();
    bench.store.mark_seen("a").unwrap();
    assert_lost(bench.store.confirm("a", &lease.token()));
    let entry = bench.entry("a");
    assert_eq!((entry.attempts, entry.last_error.as_deref()), (1, Some("no answer")));
}

#[test]
fn checking_an_id_in_flight_changes_nothing_and_after_its_lease_takes_it_over() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    bench.clock.advance(LEASE - ms(1));
    let before = bench.file();
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::InFlight);
    let batch = bench.store.check_and_mark_all(["a", "a"]).unwrap();
    assert_eq!(batch, [Verdict::InFlight; 2]);
    assert!(!bench.store.is_seen("a"));
    assert_eq!(bench.file(), before);
    bench.clock.advance(ms(1));
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::Duplicate);
    let before = bench.file();
    assert_lost(lease.confirm());
    assert_lost(lease.confirm_with("r"));
    drop(lease);
    assert_eq!(bench.file(), before);
    assert_eq!(claim_rows(&bench.place.sql()), 0);
}

#[test]
fn an_id_that_was_given_back_is_new_to_a_check() {
    let bench = Bench::new();
    bench.granted("released").release().unwrap();
    bench.granted("failed").fail("why").unwrap();
    for (id, error) in [("released", None), ("failed", Some("why"))] {
        assert_eq!(bench.store.check_and_mark(id).unwrap(), Verdict::New);
        assert_eq!(bench.store.check_and_mark(id).unwrap(), Verdict::Duplicate);
        let entry = bench.entry(id);
        assert_eq!((entry.attempts, entry.last_error.as_deref()), (1, error));
    }
}

#[test]
fn forgetting_a_claimed_id_drops_its_claim_and_its_attempts() {
    let bench = Bench::new();
    let mut lease = bench.granted("a");
    assert!(bench.store.forget("a").unwrap());
    assert!(!bench.store.forget("a").unwrap());
    assert_eq!(bench.store.get("a").unwrap(), None);
    assert_lost(lease.confirm());
    let mut next = bench.granted("a");
    assert_eq!(next.attempt(), 1);
    // Forgetting what was confirmed leaves nothing to confirm either.
    next.confirm().unwrap();
    assert!(bench.store.forget("a").unwrap());
    assert_lost(next.confirm());
    assert_lost(lease.confirm());
    assert_eq!(bench.granted("a").attempt(), 1);
}

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
    assert_eq!((entry.last_error, entry.receipt, entry.suppressed), (None, None, 0));
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
    assert_eq!((entry.lease_until, entry.suppressed), (None, 3));
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
    bench.granted("a").fail(&"y".repeat(65_536)).unwrap();
    assert_eq!(bench.entry("a").last_error.unwrap().len(), 65_536);
    bench.granted("a").fail("").unwrap();
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.last_error.as_deref()), (State::Failed, Some("")));
}

/// Claims three ids and ends them in each way that leaves them unconfirmed, at the present time.
fn leave_unconfirmed(bench: &Bench) -> [&'static str; 3] {
    bench.granted("ran out").into_token();
    bench.clock.advance(LEASE);
    bench.granted("released").release().unwrap();
    bench.granted("failed").fail("why").unwrap();
    ["ran out", "released", "failed"]
}

#[test]
fn a_claim_that_was_not_confirmed_expires_one_ttl_after_its_last_change() {
    for advance in [TTL - ms(1), TTL] {
        let bench = Bench::new();
        let ids = leave_unconfirmed(&bench);
        bench.clock.advance(advance);
        for id in ids {
            let entry = bench.store.get(id).unwrap();
            if advance < TTL {
                assert_eq!(entry.unwrap().expires_at, Some(bench.after(ms(1))));
                assert_eq!(bench.granted(id).attempt(), 2, "{id}");
            } else {
                assert_eq!(entry, None, "{id}");
                assert_eq!(bench.store.entries(Filter::default()).count(), 0);
                assert_eq!(bench.store.stats().unwrap().failed, 0);
                assert!(!bench.store.forget(id).unwrap(), "there is nothing to forget");
                drop(bench.granted(id));
                assert_eq!(bench.granted(id).attempt(), 2, "the count began again at 1");
                assert!(bench.store.forget(id).unwrap());
            }
        }
    }
}

#[test]
fn a_claim_in_flight_does_not_expire_though_its_lease_is_longer_than_the_ttl() {
    let bench = Bench::new();
    let mut lease = granted(bench.store.claim("a", TTL * 3).unwrap());
    bench.clock.advance(TTL * 3 - ms(1));
    bench.store.purge_expired().unwrap();
    assert_eq!(until(&bench.claim("a")), bench.after(ms(1)));
    lease.confirm().unwrap();
    // The attempts of a store whose marks never expire do not either.
    let never = bench.store.ttl(Ttl::Never);
    drop(never.claim("b", LEASE).unwrap());
    bench.clock.advance(TTL * 1_000);
    bench.store.purge_expired().unwrap();
    assert_eq!(bench.entry("b").expires_at, None);
    assert_eq!(granted(never.claim("b", LEASE).unwrap()).attempt(), 2);
}

#[test]
fn a_purge_removes_expired_claims_and_no_others() {
    let bench = Bench::with(|config| config.purge_interval(None));
    // More than a step of the purge goes through.
    let ids: Vec<String> = (0..2_500).map(|n| n.to_string()).collect();
    drop(bench.store.claim_all(&ids, LEASE).unwrap());
    let sql = bench.place.sql();
    bench.clock.advance(TTL - LEASE);
    leave_unconfirmed(&bench);
    assert_eq!(claim_rows(&sql), 2_503);
    assert_eq!(bench.store.purge_expired().unwrap(), 0, "claims are no marks");
    assert_eq!(claim_rows(&sql), 3);
    bench.clock.advance(TTL - ms(1));
    bench.store.purge_expired().unwrap();
    assert_eq!(claim_rows(&sql), 3);
    bench.clock.advance(ms(1));
    bench.store.purge_expired().unwrap();
    assert_eq!(claim_rows(&sql), 0);
}

#[test]
fn commits_purge_expired_claims_by_and_by() {
    let bench = Bench::with(|config| config.purge_interval(Duration::from_secs(3_600)));
    let ids: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    drop(bench.store.claim_all(&ids, LEASE).unwrap());
    let _in_flight = granted(bench.store.claim("in flight", TTL * 2).unwrap());
    let sql = bench.place.sql();
    bench.clock.advance(TTL - ms(1));
    for n in 0..50 {
        bench.store.mark_seen(format!("one {n}")).unwrap();
    }
    assert_eq!(claim_rows(&sql), 1_001);
    bench.clock.advance(Duration::from_secs(3_600));
    for n in 0..50 {
        bench.store.mark_seen(format!("other {n}")).unwrap();
    }
    assert_eq!(claim_rows(&sql), 1);
}

#[test]
fn a_batch_of_claims_is_one_commit_with_an_answer_for_each_in_order() {
    let bench = Bench::new();
    bench.store.mark_seen("seen").unwrap();
    let theirs = bench.granted("theirs");
    bench.clock.advance(secs(1));
    let before = bench.commits();
    let claims = bench.store.claim_all(["a", "seen", "a", "theirs", "b", "b"], LEASE).unwrap();
    assert_eq!(bench.commits(), before + 1);
    let ours = bench.after(LEASE);
    let [Claim::Granted(a), Claim::Seen, rest @ ..] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!((a.id(), until(&rest[0])), (&b"a"[..], ours));
    assert_eq!(until(&rest[1]), theirs.expires_at());
    let Claim::Granted(b) = &rest[2] else { panic!("{claims:?}") };
    assert_eq!((b.id(), b.attempt(), until(&rest[3])), (&b"b"[..], 1, ours));
    assert_ne!(a.token(), b.token());
    assert!(bench.store.claim_all([""; 0], LEASE).unwrap().is_empty());
    // An invalid id spoils the batch before anything is claimed.
    let before = bench.file();
    assert_kind(bench.store.claim_all(["c", ""], LEASE), ErrorKind::InvalidId);
    assert_eq!(bench.file(), before);
}

#[test]
fn batches_confirm_renew_and_release_in_one_commit_each() {
    let bench = Bench::new();
    let held = |ids: [&'static str; 3]| -> Vec<(&'static str, Token)> {
        let claims = bench.store.claim_all(ids, LEASE).unwrap();
        ids.into_iter().zip(claims.into_iter().map(|claim| granted(claim).into_token())).collect()
    };
    let all = [Ownership::Held; 3];
    let claims = held(["a", "b", "c"]);
    let before = bench.commits();
    bench.clock.advance(secs(1));
    assert_eq!(bench.store.renew_all(claims.clone(), LEASE).unwrap(), all);
    assert_eq!(bench.commits(), before + 1);
    assert_eq!(until(&bench.claim("c")), bench.after(LEASE));
    let before = bench.commits();
    assert_eq!(bench.store.release_all(claims.clone()).unwrap(), all);
    assert_eq!(bench.commits(), before + 1);
    assert_eq!(bench.store.release_all(claims).unwrap(), [Ownership::Lost; 3]);
    let claims = held(["a", "b", "c"]);
    let before = bench.commits();
    assert_eq!(bench.store.confirm_all(claims.clone()).unwrap(), all);
    assert_eq!(bench.commits(), before + 1);
    assert!(["a", "b", "c"].iter().all(|id| bench.store.is_seen(id)));
    // Equal claims in a batch: the second finds what the first has done.
    let twice = bench.granted("d").into_token();
    let (held, lost) = (Ownership::Held, Ownership::Lost);
    assert_eq!(bench.store.confirm_all([("d", twice), ("d", twice)]).unwrap(), [held, held]);
    let twice = bench.granted("e").into_token();
    assert_eq!(bench.store.release_all([("e", twice), ("e", twice)]).unwrap(), [held, lost]);
}

#[test]
fn scopes_keep_their_claims_apart() {
    let bench = Bench::new();
    let stores = ["", "one", "two"].map(|scope| bench.store.scope(scope));
    let mut leases = stores.each_ref().map(|store| granted(store.claim("a", LEASE).unwrap()));
    assert_eq!(leases.each_ref().map(Lease::attempt), [1; 3]);
    assert_lost(stores[1].confirm("a", &leases[2].token()));
    leases[1].confirm().unwrap();
    leases[2].fail("why").unwrap();
    assert_eq!(stores.each_ref().map(|store| store.is_seen("a")), [false, true, false]);
    let states = stores.each_ref().map(|store| store.get("a").unwrap().unwrap().state);
    assert_eq!(states, [State::InFlight, State::Seen, State::Failed]);
    assert!(stores[2].forget("a").unwrap());
    assert_eq!(stores[2].get("a").unwrap(), None);
    assert_eq!(until(&stores[0].claim("a", LEASE).unwrap()), bench.after(LEASE));
}

#[test]
fn odd_ids_are_claimed_like_any_other_and_none_for_another() {
    let bench = Bench::new();
    let long = "x".repeat(65_536);
    let ids: [&[u8]; 10] = [
        b"a",
        b"A",
        b"a ",
        b" a",
        b"a\0",
        b"\0",
        b"\xff\xfe",
        "\u{e9}".as_bytes(),
        b"e\xcc\x81",
        long.as_bytes(),
    ];
    let mut leases: Vec<Lease> =
        bench.store.claim_all(ids, LEASE).unwrap().into_iter().map(granted).collect();
    for (id, lease) in ids.iter().zip(&mut leases) {
        assert_eq!(lease.id(), *id);
        assert_eq!(until(&bench.store.claim(id, LEASE).unwrap()), bench.after(LEASE));
        lease.confirm().unwrap();
        assert_seen(&bench.store.claim(id, LEASE).unwrap());
        assert_eq!(bench.store.get(id).unwrap().unwrap().id, *id);
    }
    for id in ["", &format!("{long}x")] {
        assert_kind(bench.store.claim(id, LEASE), ErrorKind::InvalidId);
        assert_kind(bench.store.confirm(id, &leases[0].token()), ErrorKind::InvalidId);
    }
}

#[test]
fn stats_count_ids_by_state() {
    let bench = Bench::new();
    let stats = |bench: &Bench| {
        let stats = bench.store.stats().unwrap();
        (stats.seen, stats.in_flight, stats.failed)
    };
    bench.store.mark_seen("marked").unwrap();
    let mut confirmed = bench.granted("confirmed");
    let _held = granted(bench.store.scope("s").claim("held", LEASE * 2).unwrap());
    bench.granted("failed").fail("why").unwrap();
    bench.granted("released").release().unwrap();
    assert_eq!(stats(&bench), (1, 2, 1));
    confirmed.confirm().unwrap();
    assert_eq!(stats(&bench), (2, 1, 1));
    let _retry = bench.granted("failed");
    assert_eq!(stats(&bench), (2, 2, 0));
    bench.clock.advance(LEASE);
    assert_eq!(stats(&bench), (2, 1, 0));
    bench.clock.advance(TTL);
    assert_eq!(stats(&bench), (0, 0, 0));
}

#[test]
fn claims_survive_closing_and_opening() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    bench.granted("failed").fail("why").unwrap();
    let open = bench.granted("b");
    let ends = open.expires_at();
    bench.store.close().unwrap();
    // Nothing can be released any more; the lease sees to it.
    drop(open);
    let store = bench.place.open(bench.config.clone());
    assert_eq!(until(&store.claim("a", LEASE).unwrap()), ends);
    assert_eq!(until(&store.claim("b", LEASE).unwrap()), ends);
    assert_eq!(granted(store.claim("failed", LEASE).unwrap()).attempt(), 2);
    store.confirm("a", &token.to_string().parse().unwrap()).unwrap();
    bench.clock.advance(LEASE);
    assert_eq!(granted(store.claim("b", LEASE).unwrap()).attempt(), 2);
}

#[test]
fn claims_work_in_memory_and_in_exclusive_mode() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let config = config.ttl(TTL);
    let stores =
        [SeenStore::in_memory_with(config.clone()).unwrap(), place.open(config.exclusive(true))];
    for store in stores {
        let mut stale = granted(store.claim("a", LEASE).unwrap());
        assert_eq!(store.check_and_mark("a").unwrap(), Verdict::InFlight);
        clock.advance(LEASE);
        let mut taker = granted(store.claim("a", LEASE).unwrap());
        assert_lost(stale.confirm());
        taker.fail("why").unwrap();
        let mut third = granted(store.claim("a", LEASE).unwrap());
        third.confirm_with("receipt").unwrap();
        assert_seen(&store.claim("a", LEASE).unwrap());
        let entry = store.get("a").unwrap().unwrap();
        assert_eq!((entry.attempts, entry.receipt), (3, Some(b"receipt".to_vec())));
        drop(store.claim("b", LEASE).unwrap());
        clock.advance(TTL);
        store.purge_expired().unwrap();
        assert_eq!(granted(store.claim("b", LEASE).unwrap()).attempt(), 1);
    }
}

#[test]
fn a_read_only_store_shows_claims_and_refuses_to_change_them() {
    let bench = Bench::new();
    let token = bench.granted("a").into_token();
    bench.store.mark_seen("seen").unwrap();
    let reader = bench.place.open(bench.config.clone().read_only(true));
    let before = bench.file();
    assert_eq!(reader.get("a").unwrap().unwrap().state, State::InFlight);
    assert_eq!(reader.stats().unwrap().in_flight, 1);
    assert_seen(&reader.claim("seen", LEASE).unwrap());
    assert_kind(reader.claim("a", LEASE), ErrorKind::ReadOnly);
    assert_kind(reader.claim("b", LEASE), ErrorKind::ReadOnly);
    assert_kind(reader.claim_all(["b"], LEASE), ErrorKind::ReadOnly);
    for (_, _, by_token) in VERBS {
        assert_kind(by_token(&reader, "a", &token), ErrorKind::ReadOnly);
    }
    assert_eq!(bench.file(), before);
}

#[test]
fn what_one_store_does_with_a_claim_another_on_the_file_sees_at_once() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    for round in 0..20 {
        let id = format!("round {round}");
        let mut lease = bench.granted(&id);
        assert_eq!(until(&other.claim(&id, LEASE).unwrap()), lease.expires_at());
        assert_eq!(other.check_and_mark(&id).unwrap(), Verdict::InFlight);
        assert_eq!(other.get(&id).unwrap().unwrap().state, State::InFlight);
        lease.release().unwrap();
        let theirs = granted(other.claim(&id, LEASE).unwrap());
        assert_eq!(theirs.attempt(), 2);
        assert_eq!(until(&bench.claim(&id)), theirs.expires_at());
        bench.store.confirm(&id, &theirs.token()).unwrap();
        assert_seen(&other.claim(&id, LEASE).unwrap());
        assert!(other.is_seen(&id));
    }
}

/// A store remembers that there are no claims, which must not outlast another's first one.
#[test]
fn a_store_that_knew_of_no_claims_learns_of_anothers_first() {
    for looks in [false, true] {
        let bench = Bench::new();
        let other = bench.place.open(bench.config.clone());
        assert_eq!(other.check_and_mark("unclaimed").unwrap(), Verdict::New);
        let mut lease = bench.granted("a");
        if looks {
            assert!(!other.is_seen("whatever"), "a miss asks the file");
        }
        assert_eq!(other.check_and_mark("a").unwrap(), Verdict::InFlight);
        other.mark_seen("a").unwrap();
        lease.confirm().unwrap();
        assert_eq!(claim_rows(&bench.place.sql()), 0);
        // And the other way round, after the last claim has gone.
        let theirs = granted(other.claim("b", LEASE).unwrap());
        assert_eq!(bench.store.check_and_mark("b").unwrap(), Verdict::InFlight);
        drop(theirs);
        assert_eq!(bench.store.check_and_mark("b").unwrap(), Verdict::New);
    }
}

/// Also at the moment of the change: whoever asks in between is told the one or the other.
#[test]
fn an_id_that_another_store_confirms_is_never_unknown() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    let (claimed, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=10_000_u64 {
                let mut lease = granted(other.claim(n.to_be_bytes(), LEASE).unwrap());
                claimed.store(n, SeqCst);
                lease.confirm().unwrap();
            }
            done.store(true, SeqCst);
        });
        while !done.load(SeqCst) {
            let n = claimed.load(SeqCst);
            let found = bench.store.get(n.to_be_bytes()).unwrap();
            assert!(n == 0 || found.is_some(), "nothing is known of {n}, which was claimed");
        }
    });
}

/// A store remembers the claims that it knows to be the only ones, and then deletes them all at once.
#[test]
fn a_batch_that_is_confirmed_leaves_the_claims_of_other_stores_alone() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    let tokens = |claims: Vec<Claim>| claims.into_iter().map(|claim| granted(claim).into_token());
    let ours: Vec<Token> = tokens(bench.store.claim_all(["a", "b"], LEASE).unwrap()).collect();
    let theirs = granted(other.claim("theirs", LEASE).unwrap()).into_token();
    let confirmed = bench.store.confirm_all(["a", "b"].into_iter().zip(ours)).unwrap();
    assert_eq!(confirmed, [Ownership::Held; 2]);
    assert!(matches!(bench.claim("theirs"), Claim::InFlight { .. }));
    other.confirm("theirs", &theirs).unwrap();
    assert!(bench.store.is_seen("theirs") && bench.store.is_seen("a"));
}

#[test]
fn a_batch_that_is_confirmed_in_part_leaves_the_rest_claimed() {
    let bench = Bench::new();
    let claims = bench.store.claim_all(["a", "b", "c"], LEASE).unwrap();
    let tokens: Vec<Token> = claims.into_iter().map(|claim| granted(claim).into_token()).collect();
    let confirmed = bench.store.confirm_all([("b", tokens[1])]).unwrap();
    assert_eq!(confirmed, [Ownership::Held]);
    assert!(matches!(bench.claim("a"), Claim::InFlight { .. }));
    // What the file holds, not what the store remembers.
    let count: i64 =
        bench.place.sql().query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2);
    bench.store.confirm("a", &tokens[0]).unwrap();
    bench.store.confirm("c", &tokens[2]).unwrap();
    assert!(bench.store.is_seen("a") && bench.store.is_seen("c"));
}

/// What a transaction that came to nothing had noted of claims must be forgotten with it.
#[test]
fn a_batch_that_was_refused_leaves_no_claim_behind() {
    let bench = Bench::new();
    drop(granted(bench.claim("before")));
    let a = granted(bench.claim("a")).into_token();
    let locker = bench.place.sql();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let impatient = bench.place.open(bench.config.clone().busy_timeout(Duration::from_millis(1)));
    assert_kind(impatient.claim_all(["b"], LEASE), ErrorKind::Busy);
    locker.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(impatient.claim("b", LEASE).unwrap(), Claim::Granted(_)));
    bench.store.confirm("a", &a).unwrap();
}

/// Each way in which a holder gives its id back without a delay.
type GiveBack = (&'static str, fn(&SeenStore, Lease));
const GIVE_BACKS: [GiveBack; 5] = [
    ("release", |_, mut lease| lease.release().unwrap()),
    ("drop", |_, lease| drop(lease)),
    ("fail", |_, mut lease| lease.fail("why").unwrap()),
    ("release by token", |store, lease| {
        let id = lease.id().to_vec();
        store.release(&id, &lease.into_token()).unwrap();
    }),
    ("release_all", |store, lease| {
        let (id, token) = (lease.id().to_vec(), lease.into_token());
        assert_eq!(store.release_all([(id, token)]).unwrap(), [Ownership::Held]);
    }),
];

#[test]
fn an_id_that_was_given_back_can_be_claimed_at_once_though_the_clock_is_set_back_by_days() {
    for (case, give_back) in GIVE_BACKS {
        for back in [ms(60_001), TTL * 5] {
            let bench = Bench::new();
            let lease = bench.granted("a");
            bench.clock.advance(secs(30));
            give_back(&bench.store, lease);
            let (ended, expires) = (bench.clock.now(), bench.entry("a").expires_at);
            assert_eq!(expires, Some(ended + TTL), "{case}: one TTL after the moment it ended");
            bench.clock.set(ended - back);
            let now = bench.clock.now();
            let reader = Reader::open_with(bench.place.path(), bench.config.clone()).unwrap();
            for entry in [bench.entry("a"), reader.get("a").unwrap().unwrap()] {
                assert!(entry.lease_until.unwrap() <= now, "{case}: {entry:?}");
                assert_eq!(entry.expires_at, expires, "{case}");
                assert_ne!(entry.state, State::InFlight, "{case}");
            }
            assert_eq!(bench.store.stats().unwrap().in_flight, 0, "{case}");
            // What another store takes over is free there too.
            let elsewhere = Place::in_ram();
            let copy = elsewhere.open(bench.config.clone());
            let entries: Vec<_> =
                bench.store.entries(Filter::default()).map(Result::unwrap).collect();
            assert_eq!(copy.restore(entries).unwrap().added, 1);
            for store in [&bench.store, &copy] {
                assert_eq!(granted(store.claim("a", LEASE).unwrap()).attempt(), 2, "{case}");
            }
        }
    }
}

#[test]
fn what_was_exported_after_a_release_is_free_wherever_it_is_imported_under_an_earlier_clock() {
    let bench = Bench::new();
    let lease = bench.granted("a");
    bench.clock.advance(secs(30));
    drop(lease);
    let entries: Vec<_> = bench.store.entries(Filter::default()).map(Result::unwrap).collect();
    let elsewhere = Place::in_ram();
    let copy = elsewhere.open(bench.config.clone());
    assert_eq!(copy.restore(entries).unwrap().added, 1);
    bench.clock.set(bench.clock.now() - TTL * 5);
    assert_eq!(granted(copy.claim("a", LEASE).unwrap()).attempt(), 2);
}

#[test]
fn a_retry_delay_is_void_once_the_clock_stands_more_than_a_minute_before_the_claim() {
    let delay = secs(10);
    for (back, is_void) in [(ms(60_000), false), (ms(60_001), true), (TTL * 5, true)] {
        let bench = Bench::with(|config| config.retry_delay(delay));
        let claimed = bench.clock.now();
        let mut lease = bench.granted("a");
        bench.clock.advance(secs(5));
        lease.fail("why").unwrap();
        let again = bench.after(delay);
        bench.clock.set(claimed - back);
        // A store that is opened now has not seen the later time.
        let store = bench.place.open(bench.config.clone());
        let reader = Reader::open_with(bench.place.path(), bench.config.clone()).unwrap();
        let now = bench.clock.now();
        for entry in [store.get("a").unwrap(), reader.get("a").unwrap()] {
            let entry = entry.unwrap();
            assert_eq!(entry.state, State::Failed);
            assert_eq!(entry.lease_until, Some(if is_void { now } else { again }), "{back:?}");
        }
        assert_eq!(store.stats().unwrap().failed, 1);
        match store.claim("a", LEASE).unwrap() {
            Claim::Granted(lease) => assert_eq!((lease.attempt(), is_void), (2, true), "{back:?}"),
            Claim::InFlight { until } => assert_eq!((until, is_void), (again, false), "{back:?}"),
            other => panic!("{back:?}: {other:?}"),
        }
    }
}

#[test]
fn a_failure_after_the_clock_was_set_back_has_its_delay() {
    let bench = Bench::with(|config| config.retry_delay(secs(10)));
    let mut lease = bench.granted("a");
    bench.clock.set(bench.clock.now() - TTL);
    lease.fail("why").unwrap();
    let again = bench.after(secs(10));
    assert_eq!(until(&bench.claim("a")), again);
    assert_eq!(bench.entry("a").lease_until, Some(again));
    bench.clock.advance(secs(10));
    assert_eq!(bench.granted("a").attempt(), 2);
}

#[test]
fn a_lease_that_is_held_keeps_its_end_when_the_clock_is_set_back() {
    let bench = Bench::new();
    let _held = bench.granted("a");
    let end = bench.after(LEASE);
    bench.clock.set(bench.clock.now() - TTL);
    assert_eq!(until(&bench.claim("a")), end);
    assert_eq!(bench.store.check_and_mark("a").unwrap(), Verdict::InFlight);
}

#[test]
fn seeding_marks_ids_in_flight_and_their_holders_confirm_succeeds() {
    let bench = Bench::new();
    let mut held = bench.granted("held");
    let mut late = bench.granted("late");
    drop(bench.granted("released"));
    bench.store.mark_seen("seen").unwrap();
    bench.clock.advance(LEASE / 2);
    held.renew(LEASE).unwrap();
    bench.clock.advance(LEASE / 2);
    let ids = ["held", "late", "released", "seen", "new", "held"];
    assert_eq!(bench.store.seed(ids).unwrap(), 4);
    for id in ids {
        assert_seen(&bench.claim(id));
    }
    assert_eq!(bench.store.stats().unwrap().in_flight, 0);
    assert_eq!(claim_rows(&bench.place.sql()), 0);
    held.confirm_with("receipt").unwrap();
    late.confirm().unwrap();
    assert_eq!(bench.entry("held").receipt.as_deref(), Some(&b"receipt"[..]));
    assert_eq!(bench.store.seed(ids).unwrap(), 0);
}

/// Each verb that may leave the mark of an id.
type Mark = (&'static str, fn(&SeenStore));
const MARKS: [Mark; 6] = [
    ("mark_seen", |store| store.mark_seen("a").unwrap()),
    ("check_and_mark", |store| assert_eq!(store.check_and_mark("a").unwrap(), Verdict::New)),
    ("check_and_mark_all", |store| {
        assert_eq!(store.check_and_mark_all(["a"]).unwrap(), [Verdict::New]);
    }),
    ("seed", |store| assert_eq!(store.seed(["a"]).unwrap(), 1)),
    ("restore", |store| {
        let entry = Entry::new("", "a", SystemTime::UNIX_EPOCH);
        assert_eq!(store.restore([entry]).unwrap().added, 1);
    }),
    ("claim and confirm", |store| granted(store.claim("a", LEASE).unwrap()).confirm().unwrap()),
];

#[test]
fn no_mark_stands_beside_a_claim_that_has_expired() {
    for (verb, mark) in MARKS {
        // Remembered or looked up, alone or among others.
        for (others, fresh) in [(0, false), (0, true), (3, false), (3, true)] {
            let bench = Bench::with(|config| config.purge_interval(None).purge_on_open(false));
            for n in 0..others {
                drop(bench.store.ttl(Ttl::Never).claim(format!("other {n}"), LEASE).unwrap());
            }
            drop(bench.granted("a"));
            bench.clock.advance(TTL);
            let store = if fresh { bench.place.open(bench.config.clone()) } else { bench.store };
            mark(&store);
            let file = bench.place.sql();
            assert_eq!(claim_rows(&file), others, "{verb}");
            for report in [
                store.verify().unwrap(),
                Reader::open_with(bench.place.path(), bench.config.clone())
                    .unwrap()
                    .verify()
                    .unwrap(),
            ] {
                assert!(report.is_ok(), "{verb}: {:?}", report.problems);
            }
        }
    }
}

#[test]
fn a_batch_that_meets_expired_claims_leaves_only_its_own() {
    let bench = Bench::with(|config| config.purge_interval(None));
    drop(bench.store.claim_all(["a", "b", "c"], LEASE).unwrap());
    bench.clock.advance(TTL);
    let leases: Vec<_> =
        bench.store.claim_all(["b", "c"], LEASE).unwrap().into_iter().map(granted).collect();
    assert!(leases.iter().all(|lease| lease.attempt() == 1));
    let held = leases.into_iter().map(|lease| (lease.id().to_vec(), lease.into_token()));
    assert_eq!(bench.store.confirm_all(held).unwrap(), [Ownership::Held; 2]);
    assert_eq!(claim_rows(&bench.place.sql()), 1);
    assert!(!bench.store.forget("a").unwrap());
    assert_eq!(claim_rows(&bench.place.sql()), 0);
}

#[test]
fn a_check_of_the_file_overlooks_expired_claims_that_stand_beside_a_mark_and_no_others() {
    let bench = Bench::with(|config| config.purge_interval(None));
    bench.store.seed(["a", "b"]).unwrap();
    let file = bench.place.sql();
    let insert = "INSERT INTO claims VALUES ('', ?1, x'', ?2, ?2, 1, NULL, ?2)";
    let now = common::unix_ms(bench.clock.now());
    file.execute(insert, ("a", now)).unwrap();
    let reader = Reader::open_with(bench.place.path(), bench.config.clone()).unwrap();
    assert_eq!(reader.verify().unwrap().problems, [""; 0]);
    file.execute(insert, ("b", now + 60_001)).unwrap();
    let problems = reader.verify().unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("\"b\"") && problems[0].contains("is claimed although it is seen")
    );
}

/// A clock that is a millisecond later at each reading, so that each commit has a time of its own.
struct Ticking(ManualClock);

impl seen_store::Clock for Ticking {
    fn now(&self) -> SystemTime {
        self.0.advance(ms(1));
        self.0.now()
    }
}

#[test]
fn batches_of_claims_are_committed_10_000_at_a_time() {
    let place = Place::in_ram();
    let clock = Arc::new(Ticking(ManualClock::default()));
    let store = place.open(Config::default().clock(clock).purge_interval(None));
    let sql = place.sql();
    let times = |sql_text: &str| -> i64 {
        sql.query_row(&format!("SELECT count(DISTINCT {sql_text}"), [], |row| row.get(0)).unwrap()
    };
    let ids: Vec<_> = (0..25_000).map(|n| format!("id {n}")).chain(["id 1".to_owned()]).collect();
    let mut claims = store.claim_all(&ids, secs(600)).unwrap();
    assert!(matches!(claims.pop(), Some(Claim::InFlight { .. })), "the second of two equal ids");
    assert_eq!(times("claimed_at) FROM claims"), 3);
    let claims: Vec<_> = ids
        .iter()
        .zip(claims)
        .map(|(id, claim)| match claim {
            Claim::Granted(lease) => (id, lease.into_token()),
            other => panic!("{other:?}"),
        })
        .collect();
    let held = |owned: Vec<Ownership>| {
        owned.len() == 25_000 && owned.iter().all(|owned| *owned == Ownership::Held)
    };
    assert!(held(store.renew_all(claims.iter().copied(), secs(6_000)).unwrap()));
    assert_eq!(times("lease_until) FROM claims"), 3);
    assert!(held(store.confirm_all(claims.iter().copied()).unwrap()));
    assert_eq!(times("last_seen) FROM seen"), 3);
    let others = store.scope("other");
    let claims = others.claim_all(&ids[..25_000], secs(600)).unwrap();
    let tokens = claims.into_iter().map(|claim| match claim {
        Claim::Granted(lease) => lease.into_token(),
        other => panic!("{other:?}"),
    });
    assert!(held(others.release_all(ids.iter().zip(tokens)).unwrap()));
    assert_eq!(times("lease_until) FROM claims"), 3);
}
