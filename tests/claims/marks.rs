//! Marks, checks and forgets of an id that is claimed, and what becomes of its holder.
#![expect(clippy::unchecked_time_subtraction, reason = "below zero it panics, as a test should")]

use std::time::SystemTime;

use seen_store::{Clock as _, Entry, Reader, SeenStore, Ttl, Verdict};

use crate::bench::{Bench, LEASE, TTL, assert_lost, assert_seen, claim_rows, granted};
use crate::common::{self, ms};

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
    assert_eq!(bench.entry("a").duplicates, 2);
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
fn a_check_of_the_file_overlooks_expired_claims_that_stand_beside_a_mark_and_no_others() {
    let bench = Bench::with(|config| config.purge_interval(None));
    bench.store.seed(["a", "b"]).unwrap();
    let file = bench.place.sql();
    let insert =
        "INSERT INTO claims VALUES ('', ?1, x'', 1, 0, NULL, ?2, ?2, 1, 0, NULL, 0, NULL, ?2)";
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
