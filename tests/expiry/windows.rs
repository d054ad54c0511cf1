//! Fixed and sliding windows: how long sightings keep an id seen, and what they write.
#![expect(clippy::unchecked_time_subtraction, reason = "below zero it panics, as a test should")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use seen_store::{
    Claim, Clock as _, Config, ManualClock, Ownership, SeenStore, State, Token, Ttl, Verdict,
    Window,
};

use crate::common::{Place, clock_and_config, ms, secs};
use crate::support_process::Random;

const TTL: Duration = Duration::from_secs(16_000);
const LEASE: Duration = Duration::from_secs(60);

fn capped(max_age: Duration) -> Window {
    Window::Sliding { max_age: Some(max_age) }
}

/// A store on a file and the newest row that a plain connection sees in it.
struct Bench {
    place: Place,
    clock: Arc<ManualClock>,
    config: Config,
    store: SeenStore,
    sql: Connection,
}

impl Bench {
    fn new(ttl: impl Into<Ttl>, window: Window) -> Self {
        let place = Place::in_ram();
        let (clock, config) = clock_and_config();
        // Purges write too, and are none of this file's business.
        let config = config.ttl(ttl).window(window).purge_interval(None);
        let store = place.open(config.clone());
        let sql = place.sql();
        Self { place, clock, config, store, sql }
    }

    fn is_new(&self, id: &str) -> bool {
        self.store.check_and_mark(id).unwrap() == Verdict::New
    }

    fn expiry(&self, id: &str) -> Option<SystemTime> {
        self.store.get(id).unwrap().unwrap().expires_at
    }

    fn after(&self, time: Duration) -> SystemTime {
        self.clock.now() + time
    }

    /// Grows with everything that is written of any id.
    fn newest_row(&self) -> i64 {
        let sql = "SELECT coalesce(max(seq), 0) FROM seen";
        self.sql.prepare_cached(sql).unwrap().query_row([], |row| row.get(0)).unwrap()
    }

    /// How often a feed that brings the id every tenth of the TTL, for three TTLs, raises an alert.
    fn alerts_of_a_feed(&self) -> usize {
        let mut alerts = 0;
        for _ in 0..30 {
            alerts += usize::from(self.is_new("incident"));
            self.clock.advance(TTL / 10);
        }
        alerts
    }
}

#[test]
fn a_feed_that_repeats_an_id_for_three_ttls_raises_one_alert_in_a_sliding_window() {
    assert_eq!(Bench::new(TTL, Window::SLIDING).alerts_of_a_feed(), 1);
    assert_eq!(Bench::new(TTL, capped(TTL + TTL / 2)).alerts_of_a_feed(), 2);
    assert_eq!(Bench::new(TTL, Window::Fixed).alerts_of_a_feed(), 3);
    assert_eq!(Bench::new(TTL, capped(TTL / 2)).alerts_of_a_feed(), 6);
}

#[test]
fn a_fixed_window_is_not_extended_by_sightings() {
    let bench = Bench::new(TTL, Window::Fixed);
    assert!(bench.is_new("a"));
    let (expiry, row) = (bench.expiry("a"), bench.newest_row());
    for _ in 0..15 {
        bench.clock.advance(TTL / 16);
        assert!(!bench.is_new("a"));
        assert!(matches!(bench.store.claim("a", LEASE).unwrap(), Claim::Seen(_)));
    }
    assert_eq!((bench.expiry("a"), bench.newest_row()), (expiry, row));
    bench.clock.advance(TTL / 16 - ms(1));
    assert!(!bench.is_new("a"));
    bench.clock.advance(ms(1));
    assert!(bench.is_new("a"));
}

#[test]
fn looking_without_checking_extends_nothing() {
    let bench = Bench::new(TTL, Window::SLIDING);
    assert!(bench.is_new("a"));
    let row = bench.newest_row();
    bench.clock.advance(TTL);
    assert!(bench.store.is_seen("a") && bench.store.get("a").unwrap().is_some());
    assert_eq!(bench.newest_row(), row);
    bench.clock.advance(TTL / 16);
    assert!(bench.is_new("a"));
}

/// Random intervals between sightings, for TTLs down to a millisecond: within one TTL of the last
/// sighting an id is never new, beyond that and the slack it always is, and it is written at most once
/// a sixteenth of the TTL.
#[test]
fn nothing_expires_earlier_than_one_ttl_after_its_last_sighting() {
    let mut random = Random::new("nothing_expires_earlier");
    for ttl_ms in [1, 7, 15, 16, 17, 1_000, 86_400_001] {
        let (ttl, slack) = (ms(ttl_ms), Duration::from_micros(1_000 * ttl_ms / 16));
        // Expiries are rounded up to whole milliseconds.
        let latest = ttl + slack + ms(1);
        let bench = Bench::new(ttl, Window::SLIDING);
        assert!(bench.is_new("a"));
        let (mut row, mut written_at) = (bench.newest_row(), bench.clock.now());
        let first = bench.clock.now();
        let (mut in_time, mut late) = (0, 0);
        for _ in 0..400 {
            let wait = match random.below(20) {
                0 => latest + ms(random.below(2 * ttl_ms)),
                1 => ttl - ms(1),
                2 => ttl,
                3..=8 => ms(random.below(1 + ttl_ms / 16)),
                _ => ms(random.below(ttl_ms)),
            };
            bench.clock.advance(wait);
            let is_new = bench.is_new("a");
            if wait < ttl {
                assert!(!is_new, "TTL {ttl:?}: new {wait:?} after the last sighting");
                in_time += 1;
            } else if wait >= latest {
                assert!(is_new, "TTL {ttl:?}: not new {wait:?} after the last sighting");
                late += 1;
            }
            let expiry = bench.expiry("a").unwrap();
            assert!((bench.after(ttl)..=bench.after(latest)).contains(&expiry), "TTL {ttl:?}");
            let newest = bench.newest_row();
            if newest != row && !is_new {
                let since = bench.clock.now().duration_since(written_at).unwrap();
                assert!(since >= slack, "TTL {ttl:?}: written again after {since:?}");
                assert_eq!(newest, row + 1);
            }
            if newest != row {
                (row, written_at) = (newest, bench.clock.now());
            }
        }
        assert!(in_time > 200 && late > 0 && bench.clock.now() > first);
    }
}

#[test]
fn a_stream_of_sightings_writes_once_a_sixteenth_of_the_ttl() {
    let bench = Bench::new(TTL, Window::SLIDING);
    let sightings = |id: &str, see: &dyn Fn()| {
        assert!(bench.is_new(id));
        let row = bench.newest_row();
        for _ in 0..3_200 {
            bench.clock.advance(TTL / 1_600);
            see();
        }
        bench.newest_row() - row
    };
    // Two TTLs have 32 sixteenths, of which each sighting finds one used up a little late.
    let checks = sightings("a", &|| assert!(!bench.is_new("a")));
    let claims = sightings("b", &|| {
        assert!(matches!(bench.store.claim("b", LEASE).unwrap(), Claim::Seen(_)));
    });
    let batches = sightings("c", &|| {
        let verdicts = bench.store.check_and_mark_all(["c", "c"]).unwrap();
        assert_eq!(verdicts, [Verdict::Duplicate; 2]);
    });
    for written in [checks, claims, batches] {
        assert!((30..=32).contains(&written), "{written} writes");
    }
}

#[test]
fn an_extension_keeps_what_is_known_of_the_id() {
    let bench = Bench::new(TTL, Window::SLIDING);
    let first = bench.clock.now();
    let Claim::Granted(mut lease) = bench.store.claim("a", LEASE).unwrap() else { panic!() };
    lease.confirm_with("receipt").unwrap();
    for _ in 0..20 {
        bench.clock.advance(TTL / 2);
        assert!(!bench.is_new("a"));
    }
    lease.confirm().unwrap();
    let entry = bench.store.get("a").unwrap().unwrap();
    assert_eq!((entry.state, entry.first_seen), (State::Seen, first));
    assert_eq!((entry.last_seen, entry.duplicates), (bench.clock.now(), 20));
    assert_eq!((entry.attempts, entry.receipt), (1, Some(b"receipt".to_vec())));
}

#[test]
fn at_its_maximum_age_an_id_expires_to_the_millisecond_and_its_sightings_write_nothing() {
    let max_age = TTL + TTL / 2;
    let bench = Bench::new(TTL, capped(max_age));
    assert!(bench.is_new("a"));
    let end = bench.after(max_age);
    for _ in 0..6 {
        bench.clock.advance(TTL / 10);
        assert!(!bench.is_new("a"));
    }
    // Whatever would expire later is capped from here on; the next sighting finds that out.
    assert_eq!(bench.expiry("a"), Some(end));
    let row = bench.newest_row();
    for _ in 0..800 {
        bench.clock.advance(TTL / 1_000);
        assert!(!bench.is_new("a"));
        assert!(matches!(bench.store.claim("a", LEASE).unwrap(), Claim::Seen(_)));
    }
    assert!(bench.newest_row() <= row + 1, "{} rows written", bench.newest_row() - row);
    assert_eq!(bench.expiry("a"), Some(end));
    bench.clock.set(end - ms(1));
    assert!(!bench.is_new("a"));
    bench.clock.set(end);
    assert!(bench.is_new("a"));
    assert_eq!(bench.expiry("a"), Some(bench.after(TTL + TTL / 16)), "its age begins again");
}

/// Each store knows of the cap by itself: one must not undo the other's knowledge by writing.
#[test]
fn at_its_maximum_age_the_sightings_of_two_stores_write_nothing() {
    let bench = Bench::new(TTL, capped(TTL));
    let other = bench.place.open(bench.config.clone());
    assert!(bench.is_new("a"));
    bench.clock.advance(TTL / 2);
    let see = || {
        for store in [&bench.store, &other] {
            // Takes in what the other has written: by itself a hit looks every 100 ms.
            assert!(store.get("a").unwrap().is_some());
            assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
        }
    };
    see();
    let row = bench.newest_row();
    for _ in 0..20 {
        bench.clock.advance(TTL / 100);
        see();
    }
    assert!(bench.newest_row() <= row + 2, "{} rows written", bench.newest_row() - row);
}

#[test]
fn marking_in_a_capped_window_keeps_to_its_maximum_age_and_shortens_nothing() {
    let bench = Bench::new(TTL, capped(2 * TTL));
    bench.store.mark_seen("a").unwrap();
    let end = bench.after(2 * TTL);
    for _ in 0..19 {
        bench.clock.advance(TTL / 10);
        bench.store.mark_seen("a").unwrap();
        assert_eq!(bench.expiry("a").unwrap(), end.min(bench.after(TTL + TTL / 16)));
    }
    assert_eq!(bench.store.get("a").unwrap().unwrap().last_seen, bench.clock.now());
    bench.clock.set(end);
    assert!(!bench.store.is_seen("a"));
    // Less than the TTL from the beginning.
    let short = bench.store.window(capped(TTL / 4));
    short.mark_seen("b").unwrap();
    assert_eq!(bench.expiry("b"), Some(bench.after(TTL / 4)));
    // A mark of another window that lasts longer stays as it is.
    bench.store.ttl(Ttl::Never).window(Window::Fixed).mark_seen("c").unwrap();
    short.mark_seen("c").unwrap();
    assert_eq!(short.check_and_mark("c").unwrap(), Verdict::Duplicate);
    assert_eq!(bench.expiry("c"), None);
}

#[test]
fn a_confirm_begins_a_window_that_is_capped_from_the_claim() {
    let bench = Bench::new(TTL, capped(TTL));
    let end = bench.after(TTL);
    let Claim::Granted(mut lease) = bench.store.claim("a", LEASE).unwrap() else { panic!() };
    bench.clock.advance(secs(50));
    lease.confirm().unwrap();
    assert_eq!(bench.expiry("a"), Some(end));
}

/// Each way of confirming a claim.
const CONFIRMS: [fn(&SeenStore, &str, &Token); 3] = [
    |store, id, token| store.confirm(id, token).unwrap(),
    |store, id, token| store.confirm_with(id, token, "receipt").unwrap(),
    |store, id, token| {
        assert_eq!(store.confirm_all([(id, *token)]).unwrap(), [Ownership::Held]);
    },
];

#[test]
fn a_confirm_past_the_maximum_age_begins_a_window_of_its_own() {
    const AGE: Duration = Duration::from_secs(100);
    for ttl in [Ttl::After(TTL), Ttl::Never] {
        for (number, confirm) in CONFIRMS.into_iter().enumerate() {
            for late in [Duration::ZERO, ms(1), 5 * AGE] {
                let bench = Bench::new(ttl, capped(AGE));
                let claimed = bench.store.claim("a", LEASE).unwrap();
                let Claim::Granted(lease) = claimed else { panic!() };
                let token = lease.into_token();
                bench.clock.advance(AGE + late);
                let case = format!("confirm {number}, {late:?} too late");
                confirm(&bench.store, "a", &token);
                let claim = bench.store.claim("a", LEASE).unwrap();
                assert!(matches!(claim, Claim::Seen(_)), "{case}: {claim:?}");
                assert!(!bench.is_new("a"), "{case}");
                let entry = bench.store.get("a").unwrap().unwrap();
                assert_eq!(entry.first_seen, bench.clock.now(), "{case}");
                assert_eq!(entry.expires_at, Some(bench.after(AGE)), "{case}");
                // Confirming again is still Ok, and changes nothing.
                confirm(&bench.store, "a", &token);
                assert_eq!(bench.expiry("a"), Some(bench.after(AGE)), "{case}");
            }
        }
    }
}

#[test]
fn the_last_millisecond_of_the_maximum_age_is_still_counted_from_the_claim() {
    let bench = Bench::new(TTL, capped(TTL));
    let Claim::Granted(mut lease) = bench.store.claim("a", LEASE).unwrap() else { panic!() };
    let claimed = bench.clock.now();
    bench.clock.advance(TTL - ms(1));
    lease.confirm().unwrap();
    assert_eq!(bench.expiry("a"), Some(bench.after(ms(1))));
    assert_eq!(bench.store.get("a").unwrap().unwrap().first_seen, claimed);
}

#[test]
fn a_claim_from_before_the_clock_was_set_back_is_confirmed_with_the_whole_age() {
    let bench = Bench::new(TTL, capped(TTL));
    let Claim::Granted(mut lease) = bench.store.claim("a", LEASE).unwrap() else { panic!() };
    bench.clock.set(bench.clock.now() - 1_000 * TTL);
    lease.confirm().unwrap();
    assert_eq!(bench.expiry("a"), Some(bench.after(TTL)));
}

#[test]
fn a_mark_of_a_claimed_id_lives_whatever_the_age_of_its_claim() {
    let bench = Bench::new(TTL, capped(TTL / 16));
    for (id, mark) in [
        ("marked", (|store: &SeenStore, id| store.mark_seen(id).unwrap()) as fn(&SeenStore, &str)),
        ("seeded", |store, id| assert_eq!(store.seed([id]).unwrap(), 1)),
        ("checked", |store, id| assert_eq!(store.check_and_mark(id).unwrap(), Verdict::New)),
    ] {
        let Claim::Granted(lease) = bench.store.claim(id, LEASE).unwrap() else { panic!() };
        let _ = lease.into_token();
        bench.clock.advance(TTL);
        mark(&bench.store, id);
        assert!(bench.store.is_seen(id), "{id}");
        assert_eq!(bench.expiry(id), Some(bench.after(TTL / 16)), "{id}");
    }
}

#[test]
fn a_confirm_with_a_ttl_of_zero_marks_nothing_whatever_the_window() {
    for window in [Window::Fixed, Window::SLIDING, capped(TTL), capped(Duration::ZERO)] {
        let bench = Bench::new(Duration::ZERO, window);
        let Claim::Granted(mut lease) = bench.store.claim("a", LEASE).unwrap() else { panic!() };
        bench.clock.advance(secs(5));
        lease.confirm().unwrap();
        assert!(!bench.store.is_seen("a"), "{window:?}");
        assert!(bench.is_new("a"), "{window:?}");
    }
}

#[test]
fn a_mark_that_never_expires_is_not_written_again() {
    let bench = Bench::new(Ttl::Never, Window::SLIDING);
    assert!(bench.is_new("a"));
    let row = bench.newest_row();
    for _ in 0..50 {
        bench.clock.advance(1_000 * TTL);
        assert!(!bench.is_new("a"));
        assert!(matches!(bench.store.claim("a", LEASE).unwrap(), Claim::Seen(_)));
    }
    assert_eq!((bench.newest_row(), bench.expiry("a")), (row, None));
}

#[test]
fn a_maximum_age_ends_even_a_ttl_that_never_does() {
    let bench = Bench::new(Ttl::Never, capped(TTL));
    assert!(bench.is_new("a"));
    let (row, end) = (bench.newest_row(), bench.after(TTL));
    for _ in 0..15 {
        bench.clock.advance(TTL / 16);
        assert!(!bench.is_new("a"));
        assert_eq!(bench.expiry("a"), Some(end));
    }
    assert!(bench.newest_row() <= row + 1, "{} rows written", bench.newest_row() - row);
    bench.clock.set(end);
    assert!(bench.is_new("a"));
}

#[test]
fn a_handle_has_a_window_of_its_own() {
    let bench = Bench::new(TTL, Window::Fixed);
    let sliding = bench.store.window(Window::SLIDING);
    assert!(bench.is_new("a"));
    let expiry = bench.expiry("a").unwrap();
    bench.clock.advance(TTL / 2);
    assert!(!bench.is_new("a"));
    assert_eq!(bench.expiry("a"), Some(expiry));
    // The window stays with what is derived from the handle, and the store's own is as it was.
    for (handle, id) in [(sliding.clone(), "a"), (sliding.scope("s").scope(""), "b")] {
        let _ = handle.check_and_mark(id).unwrap();
        assert_eq!(bench.expiry(id), Some(bench.after(TTL + TTL / 16)), "{id}");
    }
    let _ = sliding.ttl(2 * TTL).check_and_mark("a").unwrap();
    assert_eq!(bench.expiry("a"), Some(bench.after(2 * TTL + TTL / 8)));
    assert!(bench.is_new("c"));
    assert_eq!(bench.expiry("c"), Some(bench.after(TTL)));
    // A sighting never shortens what another handle has granted.
    let _ = sliding.window(capped(secs(1))).check_and_mark("a").unwrap();
    assert_eq!(bench.expiry("a"), Some(bench.after(2 * TTL + TTL / 8)));
}

#[test]
fn sightings_by_one_store_keep_the_id_seen_for_another_and_after_a_restart() {
    let bench = Bench::new(TTL, Window::SLIDING);
    let other = bench.place.open(bench.config.clone());
    assert!(bench.is_new("a"));
    for _ in 0..20 {
        bench.clock.advance(TTL - ms(1));
        assert_eq!(other.check_and_mark("a").unwrap(), Verdict::Duplicate);
    }
    // This store has not looked since: what it remembers has expired long ago.
    bench.clock.advance(TTL - ms(1));
    assert!(bench.store.is_seen("a") && !bench.is_new("a"));
    bench.store.close().unwrap();
    other.close().unwrap();
    bench.clock.advance(TTL - ms(1));
    let store = bench.place.open(bench.config.clone());
    assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
}
