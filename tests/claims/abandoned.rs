//! How an attempt ended is told apart everywhere, and a held claim binds all callers until a decision.

use std::sync::Arc;
use std::time::Duration;

use seen_store::{
    Abandoned, Claim, Clock, Config, Entry, ErrorKind, Failure, Filter, Lease, ManualClock,
    Previous, Reader, Resolution, RetryDelay, SeenStore, State, Verdict, Window,
};

use crate::common::{Place, ms, secs};

const LEASE: Duration = Duration::from_secs(60);

struct Bench {
    clock: Arc<ManualClock>,
    config: Config,
    store: SeenStore,
    place: Place,
}

impl Bench {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(settings: impl FnOnce(Config) -> Config) -> Self {
        let (place, clock) = (Place::in_ram(), Arc::new(ManualClock::default()));
        let config = settings(Config::default().clock(Arc::clone(&clock)));
        Self { store: place.open(config.clone()), clock, config, place }
    }

    fn granted(&self, id: &str) -> Lease {
        granted(&self.store, id)
    }

    /// A claim whose worker vanished, and whose lease has run out.
    fn vanish(&self, store: &SeenStore, id: &str) -> seen_store::Token {
        let token = granted(store, id).into_token();
        self.clock.advance(LEASE);
        token
    }

    /// What every way of reading says.
    fn entry(&self, id: &str) -> Entry {
        let reader = Reader::open_with(self.place.path(), self.config.clone()).unwrap();
        // How many were refused, and whether the file tells of them yet, is not the matter here.
        let uncounted = |mut entry: Entry| {
            entry.duplicates = 0;
            entry
        };
        let entry = uncounted(self.store.get(id).unwrap().unwrap());
        assert_eq!(reader.get(id).unwrap().map(uncounted).as_ref(), Some(&entry));
        let of_id = |entry: &Entry| entry.id == id.as_bytes();
        let filter = || Filter::default().state(entry.state);
        let listed = self.store.entries(filter()).map(Result::unwrap);
        let listed: Vec<_> = listed.map(uncounted).collect();
        assert_eq!(listed.iter().find(|entry| of_id(entry)), Some(&entry));
        let listed = reader.entries(filter()).map(Result::unwrap);
        let listed: Vec<_> = listed.map(uncounted).collect();
        assert_eq!(listed.iter().find(|entry| of_id(entry)), Some(&entry));
        assert!(reader.stats(secs(1), 1).unwrap().total().of(entry.state) > 0);
        entry
    }

    fn now(&self) -> std::time::SystemTime {
        Clock::now(&*self.clock)
    }

    fn states(&self, ids: &[&str]) -> Vec<State> {
        ids.iter().map(|id| self.entry(id).state).collect()
    }
}

fn granted(store: &SeenStore, id: &str) -> Lease {
    match store.claim(id, LEASE).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{id}: {other:?}"),
    }
}

#[test]
fn how_an_attempt_ended_is_told_apart_by_every_way_of_reading() {
    let bench = Bench::new();
    bench.granted("released").release().unwrap();
    bench.granted("failed").fail("503").unwrap();
    bench.granted("given up").fail(Failure::new("404").is_final()).unwrap();
    bench.vanish(&bench.store, "abandoned");
    bench.vanish(&bench.store.abandoned(Abandoned::Hold), "unresolved");
    let _held = bench.granted("in flight");
    let ids = ["released", "failed", "given up", "abandoned", "unresolved", "in flight"];
    let expected = [
        State::Released,
        State::Failed,
        State::GivenUp,
        State::Abandoned,
        State::Unresolved,
        State::InFlight,
    ];
    assert_eq!(bench.states(&ids), expected);
    let stats = bench.store.stats().unwrap();
    let counts = [stats.released, stats.failed, stats.given_up, stats.abandoned, stats.unresolved];
    assert_eq!((counts, stats.in_flight), ([1; 5], 1));
    // Once the attempts are forgotten, all have expired but the ones that must not be forgotten.
    bench.clock.advance(secs(8 * 24 * 3_600));
    bench.store.purge_expired().unwrap();
    let left: Vec<_> = bench.store.entries(Filter::default()).map(|e| e.unwrap().id).collect();
    assert_eq!(left, [b"unresolved"]);
}

#[test]
fn a_new_holder_is_told_how_the_attempt_before_ended() {
    let bench = Bench::with(|config| config.holder("worker 1"));
    assert_eq!(bench.granted("a").previous(), &Previous::None);
    // A lease that is dropped is released.
    assert_eq!(bench.granted("a").previous(), &Previous::Released);
    bench.granted("a").fail("503").unwrap();
    let lease = bench.granted("a");
    assert_eq!(lease.previous(), &Previous::Failed { error: "503".to_owned() });
    let ends = lease.expires_at();
    lease.into_token();
    bench.clock.advance(LEASE + secs(5));
    let lease = bench.granted("a");
    let abandoned = Previous::Abandoned { since: ends, holder: Some("worker 1".to_owned()) };
    assert_eq!(lease.previous(), &abandoned);
    // The error of the attempt that failed stays readable.
    let entry = bench.entry("a");
    assert_eq!((entry.last_error.as_deref(), entry.attempts), (Some("503"), 5));
    assert_eq!((entry.abandoned, entry.holder.as_deref()), (1, Some("worker 1")));
}

#[test]
fn a_failed_id_stays_failed_until_it_is_claimed_and_its_error_until_it_is_seen() {
    let bench = Bench::new();
    bench.granted("a").fail("503").unwrap();
    bench.clock.advance(secs(3_600));
    assert_eq!(bench.entry("a").state, State::Failed);
    bench.granted("a").release().unwrap();
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.last_error.as_deref()), (State::Released, Some("503")));
    bench.granted("a").confirm().unwrap();
    assert_eq!(bench.entry("a").last_error.as_deref(), Some("503"));
}

#[test]
fn a_held_claim_binds_every_handle_store_and_verb_until_it_is_resolved() {
    let bench = Bench::new();
    let other = bench.place.open(bench.config.clone());
    for (id, resolution) in [("done", Resolution::Done), ("retry", Resolution::Retry)] {
        bench.vanish(&bench.store.abandoned(Abandoned::Hold), id);
        bench.clock.advance(secs(30 * 24 * 3_600));
        bench.store.purge_expired().unwrap();
        assert_eq!(bench.store.cleanup_old_entries(ms(0)).unwrap(), 0);
        for store in [&bench.store, &other, &other.abandoned(Abandoned::Retry)] {
            assert!(matches!(store.claim(id, LEASE).unwrap(), Claim::Unresolved { .. }));
            let batch = store.claim_all([id], LEASE).unwrap();
            assert!(matches!(batch[..], [Claim::Unresolved { .. }]));
            assert_eq!(store.check_and_mark(id).unwrap(), Verdict::InFlight);
            assert_eq!(store.check_and_mark_all([id]).unwrap(), [Verdict::InFlight]);
            assert!(!store.is_seen(id));
        }
        assert_eq!(bench.entry(id).state, State::Unresolved);
        assert!(other.resolve(id, resolution).unwrap());
        let is_seen = resolution == Resolution::Done;
        assert_eq!((bench.store.is_seen(id), other.is_seen(id)), (is_seen, is_seen));
    }
    let lease = bench.granted("retry");
    assert_eq!((lease.attempt(), lease.previous()), (1, &Previous::Released));
}

#[test]
fn a_vanished_holder_that_comes_back_settles_its_held_claim() {
    let bench = Bench::new();
    let held = bench.store.abandoned(Abandoned::Hold);
    let token = bench.vanish(&held, "confirmed");
    bench.store.confirm("confirmed", &token).unwrap();
    let token = bench.vanish(&held, "failed");
    bench.store.fail("failed", &token, "503").unwrap();
    bench.vanish(&held, "marked");
    bench.store.mark_seen("marked").unwrap();
    let token = bench.vanish(&held, "renewed");
    bench.store.renew("renewed", &token, LEASE).unwrap();
    let states = [State::Seen, State::Failed, State::Seen, State::InFlight];
    assert_eq!(bench.states(&["confirmed", "failed", "marked", "renewed"]), states);
    // After a decision: done keeps its confirm, retry has taken the claim from it.
    let token = bench.vanish(&held, "done");
    assert!(held.resolve("done", Resolution::Done).unwrap());
    bench.store.confirm("done", &token).unwrap();
    let token = bench.vanish(&held, "retry");
    assert!(held.resolve("retry", Resolution::Retry).unwrap());
    let error = bench.store.confirm("retry", &token).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
}

#[test]
fn what_is_over_is_resolved_and_nothing_else() {
    let bench = Bench::new();
    bench.store.mark_seen("seen").unwrap();
    let _held = bench.store.abandoned(Abandoned::Hold).claim("in flight", LEASE).unwrap();
    for id in ["seen", "in flight", "unknown"] {
        for resolution in [Resolution::Done, Resolution::Retry] {
            let before = bench.store.get(id).unwrap();
            assert!(!bench.store.resolve(id, resolution).unwrap(), "{id}");
            assert_eq!(bench.store.get(id).unwrap(), before, "{id}");
        }
    }
    bench.granted("given up").fail(Failure::new("404").is_final()).unwrap();
    bench.granted("failed").fail(Failure::new("429").retry_after(secs(3_600))).unwrap();
    bench.granted("released").release().unwrap();
    for id in ["given up", "failed", "released"] {
        assert!(bench.store.resolve(id, Resolution::Retry).unwrap());
        assert_eq!(bench.granted(id).attempt(), 1, "{id}");
        assert!(bench.store.resolve(id, Resolution::Done).unwrap());
        assert!(bench.store.is_seen(id));
    }
}

#[test]
fn a_final_failure_is_given_up_and_a_delay_of_its_own_is_kept() {
    let bench = Bench::with(|config| config.retry_delay(secs(5)));
    bench.granted("final").fail(Failure::new("404").is_final()).unwrap();
    assert!(matches!(bench.store.claim("final", LEASE).unwrap(), Claim::GivenUp { attempts: 1 }));
    bench.granted("later").fail(Failure::new("429").retry_after(secs(90))).unwrap();
    bench.granted("usual").fail("503").unwrap();
    let blocked = |id| matches!(bench.store.claim(id, LEASE).unwrap(), Claim::InFlight { .. });
    assert_eq!((blocked("later"), blocked("usual")), (true, true));
    bench.clock.advance(secs(5));
    assert_eq!((blocked("later"), blocked("usual")), (true, false));
    bench.clock.advance(secs(85));
    assert!(!blocked("later"));
}

#[test]
fn an_exponential_delay_grows_with_the_attempts_of_the_id() {
    let delay = RetryDelay::Exponential { first: secs(8), max: secs(20) };
    let bench = Bench::with(|config| config.retry_delay(delay));
    for longest in [secs(8), secs(16), secs(20), secs(20)] {
        bench.granted("a").fail("503").unwrap();
        let until = bench.entry("a").lease_until.unwrap();
        let delay = until.duration_since(bench.now()).unwrap();
        assert!((longest / 2..=longest).contains(&delay), "{delay:?} of {longest:?}");
        bench.clock.advance(longest);
    }
}

#[test]
fn an_id_that_kills_its_workers_is_given_up_apart_from_failures() {
    let bench = Bench::with(|config| config.max_abandoned(2));
    for _ in 0..3 {
        bench.granted("a").fail("503").unwrap();
    }
    bench.vanish(&bench.store, "a");
    bench.granted("a").release().unwrap();
    bench.vanish(&bench.store, "a");
    assert!(matches!(bench.store.claim("a", LEASE).unwrap(), Claim::GivenUp { attempts: 6 }));
    assert!(bench.store.resolve("a", Resolution::Retry).unwrap());
    assert_eq!(bench.entry("a").abandoned, 0);
    bench.granted("a").confirm().unwrap();
}

#[test]
fn the_holder_of_a_claim_is_told_to_those_who_ask() {
    let bench = Bench::with(|config| config.holder("worker 1"));
    let other = bench.place.open(bench.config.clone().holder("worker 2"));
    let lease = bench.granted("a");
    let Claim::InFlight { holder, .. } = other.claim("a", LEASE).unwrap() else { panic!() };
    assert_eq!(holder.as_deref(), Some("worker 1"));
    assert_eq!(bench.entry("a").holder.as_deref(), Some("worker 1"));
    drop(lease);
    // Without a label of its own, a store says which process it is.
    let usual = SeenStore::in_memory().unwrap();
    let _lease = granted(&usual, "a");
    let holder = usual.get("a").unwrap().unwrap().holder.unwrap();
    assert!(holder.ends_with(&format!(":{}", std::process::id())), "{holder}");
}

#[test]
fn a_seen_id_is_refused_with_all_that_is_known_of_it() {
    let bench = Bench::new();
    bench.granted("a").confirm_with("4711").unwrap();
    bench.store.mark_seen("b").unwrap();
    let other = bench.place.open(bench.config.clone());
    for store in [&bench.store, &other] {
        let single = ["a", "b"].map(|id| store.claim(id, LEASE).unwrap());
        let batch = store.claim_all(["a", "b"], LEASE).unwrap();
        for claims in [&single[..], &batch] {
            let [Claim::Seen(a), Claim::Seen(b)] = claims else { panic!("{claims:?}") };
            assert_eq!(a.receipt().unwrap(), Some(b"4711".to_vec()));
            assert_eq!(a.entry().unwrap().unwrap().state, State::Seen);
            assert_eq!(b.receipt().unwrap(), None);
            assert!(b.entry().unwrap().is_some());
        }
    }
    let entry = bench.store.get("a").unwrap().unwrap();
    assert!(entry.duplicates > 0, "a refusal counts as a duplicate");
}

#[test]
fn what_is_known_at_a_refusal_is_read_after_a_refresh_and_is_none_once_it_is_forgotten() {
    let bench = Bench::new();
    bench.granted("a").confirm_with("4711").unwrap();
    let other = bench.place.open(bench.config.clone());
    let Claim::Seen(known) = other.claim("a", LEASE).unwrap() else { panic!() };
    bench.clock.advance(secs(1));
    bench.store.mark_seen("a").unwrap();
    let entry = known.entry().unwrap().unwrap();
    assert_eq!((entry.last_seen, entry.receipt), (bench.now(), Some(b"4711".to_vec())));
    bench.store.forget("a").unwrap();
    assert_eq!(known.entry().unwrap(), None);
    // The number of its row is another id's after a sliding window moved it: the store's own, too.
    let sliding = bench.store.window(Window::SLIDING).ttl(secs(16));
    let _ = sliding.check_and_mark("b").unwrap();
    bench.clock.advance(secs(15));
    let Claim::Seen(known) = sliding.claim("b", LEASE).unwrap() else { panic!() };
    assert_eq!(known.entry().unwrap().unwrap().last_seen, bench.now());
    bench.store.close().unwrap();
    assert_eq!(known.entry().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn entries_in_every_state_are_restored_as_they_were() {
    let bench = Bench::with(|config| config.holder("worker 1"));
    bench.granted("released").release().unwrap();
    bench.granted("failed").fail("503").unwrap();
    bench.granted("given up").fail(Failure::new("404").is_final()).unwrap();
    bench.vanish(&bench.store, "abandoned");
    bench.vanish(&bench.store.abandoned(Abandoned::Hold), "unresolved");
    let held = bench.store.abandoned(Abandoned::Hold).claim("in flight", LEASE).unwrap();
    let exported = |store: &SeenStore| {
        let mut all: Vec<Entry> = store.entries(Filter::default()).map(Result::unwrap).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    };
    let entries = exported(&bench.store);
    assert_eq!(entries.len(), 6);
    let copy = SeenStore::in_memory_with(bench.config.clone()).unwrap();
    assert_eq!(copy.restore(entries.clone()).unwrap().added, 6);
    assert_eq!(exported(&copy), entries);
    assert!(matches!(copy.claim("unresolved", LEASE).unwrap(), Claim::Unresolved { .. }));
    assert_eq!(copy.restore(entries).unwrap().unchanged, 6);
    drop(held);
}

#[test]
fn a_mark_that_expires_at_once_does_not_settle_a_held_claim() {
    let bench = Bench::new();
    let at_once = bench.store.ttl(ms(0));
    bench.vanish(&bench.store.abandoned(Abandoned::Hold), "a");
    at_once.mark_seen("a").unwrap();
    bench.store.mark_seen_at("a", bench.now() - secs(30 * 24 * 3_600)).unwrap();
    at_once.seed(["a"]).unwrap();
    assert_eq!(at_once.check_and_mark("a").unwrap(), Verdict::InFlight);
    assert!(!at_once.resolve("a", Resolution::Done).unwrap(), "it would not be seen");
    assert_eq!(bench.entry("a").state, State::Unresolved);
    assert!(matches!(bench.store.claim("a", LEASE).unwrap(), Claim::Unresolved { .. }));
}

#[test]
fn an_older_state_of_a_claim_does_not_come_back_by_an_import() {
    let bench = Bench::new();
    bench.clock.advance(secs(10));
    let token = bench.vanish(&bench.store, "a");
    let export: Vec<Entry> =
        bench.store.entries(Filter::default()).collect::<Result<_, _>>().unwrap();
    // The clock is set back before its holder ends it.
    bench.clock.set(bench.now() - secs(3_600));
    bench.store.fail("a", &token, Failure::new("404").is_final()).unwrap();
    assert_eq!(bench.store.restore(export).unwrap().unchanged, 1);
    assert_eq!(bench.entry("a").state, State::GivenUp);
}

#[test]
fn an_entry_that_is_unresolved_is_restored_as_held() {
    let bench = Bench::new();
    let mut entry = Entry::new("", "a", bench.now() - secs(60));
    (entry.state, entry.lease_until) = (State::Unresolved, Some(bench.now() - secs(1)));
    let mut long = Entry::new("", "b", bench.now());
    (long.state, long.holder) = (State::Failed, Some("h".repeat(256)));
    let restored = bench.store.restore([entry, long]).unwrap();
    assert_eq!((restored.added, restored.refused.len()), (1, 1));
    let entry = bench.entry("a");
    assert_eq!((entry.state, entry.held, entry.expires_at), (State::Unresolved, true, None));
}
