//! Clocks within 60 s of each other, corrected now and then, and what stores on one file promise then.

use std::sync::Arc;
use std::time::Duration;

use seen_store::{Claim, Clock as _, Config, ManualClock, SeenStore, Verdict};

use crate::common::{Place, ms, secs};

fn store(place: &Place, clock: &Arc<ManualClock>) -> SeenStore {
    place.open(Config::default().clock(clock.clone()).purge_interval(None))
}

fn back(clock: &ManualClock, by: Duration) {
    clock.set(clock.now() - by);
}

fn is_granted(claim: Claim) -> bool {
    match claim {
        Claim::Granted(lease) => {
            let _ = lease.into_token();
            true
        }
        _ => false,
    }
}

/// One clock is 59 s fast. It is corrected by 61 s, so that the two differ by 2 s from then on. At every
/// moment they were within 60 s of each other.
fn after_a_correction(place: &Place) -> (SeenStore, SeenStore, Arc<ManualClock>, Arc<ManualClock>) {
    let slow = Arc::new(ManualClock::default());
    let fast = Arc::new(ManualClock::default());
    fast.advance(secs(59));
    let (a, b) = (store(place, &fast), store(place, &slow));
    a.mark_seen("by the fast one").unwrap();
    assert!(b.is_seen("by the fast one"));
    b.mark_seen("by the slow one").unwrap();
    assert!(a.is_seen("by the slow one"));
    back(&fast, secs(61));
    (a, b, fast, slow)
}

#[test]
fn a_lease_is_granted_once_after_a_fast_clock_was_corrected() {
    let place = Place::in_ram();
    let (a, b, ..) = after_a_correction(&place);
    assert!(is_granted(a.claim("x", secs(50)).unwrap()));
    assert!(!is_granted(b.claim("x", secs(50)).unwrap()), "granted twice at the same moment");
}

#[test]
fn an_id_is_new_once_after_a_fast_clock_was_corrected() {
    let place = Place::in_ram();
    let (a, b, ..) = after_a_correction(&place);
    let (a, b) = (a.ttl(secs(50)), b.ttl(secs(50)));
    assert_eq!(a.check_and_mark("x").unwrap(), Verdict::New);
    assert_eq!(b.check_and_mark("x").unwrap(), Verdict::Duplicate);
}

#[test]
fn a_purge_elsewhere_keeps_what_lives_after_a_fast_clock_was_corrected() {
    let place = Place::in_ram();
    let (a, b, ..) = after_a_correction(&place);
    let a = a.ttl(secs(50));
    a.mark_seen("x").unwrap();
    b.purge_expired().unwrap();
    assert!(a.try_is_seen("x").unwrap(), "purged 50 s early");
}

#[test]
fn a_small_step_is_absorbed_by_a_store_that_was_carried_along() {
    let place = Place::in_ram();
    let slow = Arc::new(ManualClock::default());
    let fast = Arc::new(ManualClock::default());
    fast.advance(secs(50));
    let a = store(&place, &fast);
    a.mark_seen("x").unwrap();
    a.close().unwrap();
    let b = store(&place, &slow).ttl(secs(5));
    b.mark_seen("short").unwrap();
    back(&slow, secs(11)); // A small step, of the only clock there is.
    b.mark_seen("later").unwrap();
    let entries = [b.get("short").unwrap().unwrap(), b.get("later").unwrap().unwrap()];
    assert!(entries[0].first_seen <= entries[1].first_seen, "time went back: {entries:?}");
}

#[test]
fn random_small_steps_of_one_clock_grant_no_lease_twice() {
    let seed = std::env::var("SEEN_TEST_SEED").map_or(1, |s| s.parse::<u64>().unwrap());
    for seed in seed..seed + 60 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut below = |limit: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % limit
        };
        let place = Place::in_ram();
        let clock = Arc::new(ManualClock::default());
        let mut stores: Vec<SeenStore> = (0..3).map(|_| store(&place, &clock)).collect();
        // The highest reading so far, and until when a lease surely runs: nobody may be granted it before
        // the highest time that a store can stand at.
        let (mut high, mut until) = (clock.now(), None);
        let mut debt = Duration::ZERO;
        for step in 0..300 {
            let n = usize::try_from(below(3)).unwrap();
            match below(6) {
                0 => clock.advance(ms(below(8_000))),
                1 => {
                    // Never more than 60 s below the highest.
                    let by = ms(below(20_000));
                    if high.duration_since(clock.now() - by).unwrap() <= secs(60) {
                        back(&clock, by);
                        debt += by;
                    }
                }
                2 => stores[n] = store(&place, &clock),
                3 => stores[n].mark_seen(format!("{step}")).unwrap(),
                _ => {
                    if let Claim::Granted(lease) = stores[n].claim("x", secs(10)).unwrap() {
                        if let Some(until) = until {
                            assert!(
                                high >= until,
                                "seed {seed}, step {step}: {until:?} > {high:?}"
                            );
                        }
                        until = Some(lease.expires_at());
                        let _ = lease.into_token();
                    }
                }
            }
            high = high.max(clock.now());
        }
    }
}
