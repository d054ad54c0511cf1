//! What is known of an id outlives its window by the retention, and no longer.

use std::sync::Arc;
use std::time::Duration;

use seen_store::{
    Claim, Clock as _, Config, Entry, ErrorKind, Filter, History, Item, ManualClock, Reader,
    SeenStore, State, Ttl, Verdict, Window,
};

use crate::common::{Place, clock_and_config, secs};

const TTL: Duration = Duration::from_secs(100);
const RETENTION: Duration = Duration::from_secs(1_000);

struct Bench {
    place: Place,
    clock: Arc<ManualClock>,
    config: Config,
    store: SeenStore,
}

impl Bench {
    fn new() -> Self {
        let place = Place::in_ram();
        let (clock, config) = clock_and_config();
        let config = config.ttl(TTL).retention(RETENTION).purge_interval(None).purge_on_open(false);
        let store = place.open(config.clone());
        Self { place, clock, config, store }
    }

    fn entry(&self) -> Entry {
        self.store.get("a").unwrap().unwrap()
    }

    fn verdict(&self) -> Verdict {
        self.store.check_and_mark("a").unwrap()
    }

    fn other(&self) -> SeenStore {
        self.place.open(self.config.clone())
    }

    fn rows(&self) -> i64 {
        let sql = "SELECT count(*) FROM seen WHERE expires_at IS NOT 0";
        self.place.sql().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn an_id_that_is_kept_is_known_and_not_seen_until_its_retention_is_over() {
    let bench = Bench::new();
    assert_eq!(bench.verdict(), Verdict::New);
    let marked = bench.clock.now();
    bench.clock.advance(TTL);
    let (other, reader) =
        (bench.other(), Reader::open_with(bench.place.path(), bench.config.clone()).unwrap());
    for store in [&bench.store, &other] {
        assert!(!store.try_is_seen("a").unwrap());
        let entry = store.get("a").unwrap().unwrap();
        assert_eq!((entry.state, entry.first_seen), (State::Expired, marked));
        assert_eq!(entry.retain_until, Some(marked + RETENTION));
        assert_eq!(reader.get("a").unwrap(), Some(entry.clone()));
        let expired = store.entries(Filter::default().state(State::Expired));
        assert_eq!(expired.map(Result::unwrap).collect::<Vec<_>>(), [entry]);
        assert_eq!(store.entries(Filter::default()).count(), 0);
        // Nothing of it is to be purged yet.
        assert_eq!((store.count_expired().unwrap(), store.purge_expired().unwrap()), (0, 0));
        assert!(store.verify().unwrap().is_ok());
    }
    bench.clock.advance(secs(899) + Duration::from_millis(999));
    assert_eq!(bench.entry().state, State::Expired);
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.store.get("a").unwrap(), None);
    assert_eq!(other.count_expired().unwrap(), 1);
    assert_eq!((bench.store.purge_expired().unwrap(), bench.rows()), (1, 0));
    for store in [&bench.store, &other, &bench.other()] {
        assert_eq!(store.get("a").unwrap(), None);
        assert_eq!(store.check_and_mark("b").unwrap(), Verdict::New);
        assert!(store.verify().unwrap().is_ok());
        store.forget("b").unwrap();
    }
    // Another store dropped it from memory too.
    assert_eq!(other.stats().unwrap().expired, 0);
}

#[test]
fn a_mark_that_is_new_again_knows_the_windows_before_it() {
    let bench = Bench::new();
    let first = bench.clock.now();
    let mut stores = [bench.other(), bench.store.clone()];
    for window in 0..3_u32 {
        // By another store each time, or one that has just read the file.
        let store = match window {
            2 => &bench.other(),
            n => &stores[n as usize],
        };
        let seen = store.observe("a").unwrap();
        assert_eq!(seen.verdict, Verdict::New);
        assert_eq!(seen.before.is_some(), window > 0);
        let entry = store.get("a").unwrap().unwrap();
        let expected = (window > 0).then(|| {
            let ago = bench.clock.now() - secs(300);
            History::new(u64::from(window), 2 * u64::from(window), first, ago + secs(7))
        });
        assert_eq!(entry.history, expected, "{window}");
        assert_eq!((entry.first_seen, entry.duplicates), (bench.clock.now(), 0));
        bench.clock.advance(secs(7));
        for _ in 0..2 {
            assert_eq!(store.check_and_mark("a").unwrap(), Verdict::Duplicate);
        }
        assert_eq!(store.get("a").unwrap().unwrap().last_seen, bench.clock.now());
        // So that the next store knows of the duplicates.
        store.purge_expired().unwrap();
        bench.clock.advance(secs(293));
    }
    stores.reverse();
    let before = bench.store.observe("a").unwrap().before.unwrap();
    assert_eq!((before.state, before.duplicates), (State::Expired, 2));
    assert_eq!(bench.entry().history.unwrap().windows, 3);
    assert_eq!(bench.rows(), 1);
}

#[test]
fn a_claim_and_each_verb_that_marks_keep_what_was_known() {
    type Mark = (&'static str, fn(&Bench));
    let marks: [Mark; 6] = [
        ("mark_seen", |bench| bench.store.mark_seen("a").unwrap()),
        ("check_and_mark", |bench| assert_eq!(bench.verdict(), Verdict::New)),
        ("a batch", |bench| {
            let verdicts = bench.store.check_and_mark_all(["a", "a"]).unwrap();
            assert_eq!(verdicts, [Verdict::New, Verdict::Duplicate]);
        }),
        ("seed", |bench| assert_eq!(bench.store.seed(["a"]).unwrap(), 1)),
        ("mark_seen_at", |bench| bench.store.mark_seen_at("a", bench.clock.now()).unwrap()),
        ("claim", |bench| {
            let claim = bench.store.claim("a", secs(10)).unwrap();
            let Claim::Granted(mut lease) = claim else { panic!("{claim:?}") };
            assert_eq!(bench.entry().state, State::InFlight);
            lease.confirm().unwrap();
        }),
    ];
    for (verb, mark) in marks {
        let bench = Bench::new();
        mark(&bench);
        bench.clock.advance(TTL);
        mark(&bench);
        let entry = bench.entry();
        assert_eq!(entry.history.map(|history| history.windows), Some(1), "{verb}");
        assert_eq!(bench.rows(), 1, "{verb}");
    }
}

#[test]
fn forgetting_and_cleaning_up_take_what_is_kept_too() {
    for clean in [false, true] {
        let bench = Bench::new();
        let other = bench.other();
        assert_eq!(bench.verdict(), Verdict::New);
        bench.clock.advance(TTL + secs(1));
        assert_eq!(other.get("a").unwrap().unwrap().state, State::Expired);
        if clean {
            assert_eq!(bench.store.cleanup_old_entries(TTL).unwrap(), 1);
        } else {
            assert!(bench.store.forget("a").unwrap());
            assert!(!bench.store.forget("a").unwrap());
        }
        for store in [&bench.store, &other] {
            assert_eq!(store.get("a").unwrap(), None);
        }
        assert_eq!(other.check_and_mark("a").unwrap(), Verdict::New);
        assert_eq!(bench.entry().history, None);
    }
}

#[test]
fn a_sighting_in_a_sliding_window_and_a_change_move_the_retention_on() {
    let bench = Bench::new();
    let sliding = bench.store.window(Window::SLIDING);
    assert_eq!(sliding.check_and_mark("a").unwrap(), Verdict::New);
    bench.clock.advance(secs(90));
    assert_eq!(sliding.check_and_mark("a").unwrap(), Verdict::Duplicate);
    assert_eq!(bench.entry().retain_until, Some(bench.clock.now() + RETENTION));
    bench.clock.advance(secs(60));
    let item = || Item::new("b").version("1");
    assert_eq!(bench.store.check_and_mark(item()).unwrap(), Verdict::New);
    bench.clock.advance(secs(60));
    assert_eq!(bench.store.check_and_mark(Item::new("b").version("2")).unwrap(), Verdict::Changed);
    let entry = bench.store.get("b").unwrap().unwrap();
    assert_eq!(entry.retain_until, Some(bench.clock.now() + RETENTION));
    // In a later window the id has the version it is shown, without a comparison with what is kept.
    bench.clock.advance(TTL);
    assert_eq!(bench.store.check_and_mark(item()).unwrap(), Verdict::New);
}

#[test]
fn without_a_retention_nothing_is_kept() {
    let bench = Bench::new();
    let plain = bench.store.retention(None);
    assert_eq!(plain.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(bench.entry().retain_until, None);
    bench.clock.advance(TTL);
    assert_eq!(bench.store.get("a").unwrap(), None);
    let before = bench.store.observe("a").unwrap().before;
    assert_eq!(before, None);
    // As long as the TTL is no longer than it, and never is never.
    let equal = bench.store.retention(TTL);
    equal.mark_seen("b").unwrap();
    bench.store.ttl(Ttl::Never).mark_seen("c").unwrap();
    for id in ["b", "c"] {
        assert_eq!(bench.store.get(id).unwrap().unwrap().retain_until, None, "{id}");
    }
}

#[test]
fn a_retention_that_is_shorter_than_the_ttl_is_refused_and_named() {
    let place = Place::in_ram();
    let config = Config::default().ttl(secs(3_600)).retention(secs(60));
    let error = SeenStore::open_with(place.path(), config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("the retention of 60s is shorter than the TTL of 3600s"));
    let bench = Bench::new();
    let short = bench.store.retention(secs(60));
    for refused in [
        short.mark_seen("a"),
        short.check_and_mark("a").map(drop),
        short.claim("a", secs(1)).map(drop),
        short.try_is_seen("a").map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    short.ttl(secs(60)).mark_seen("a").unwrap();
}

#[test]
fn an_export_carries_what_is_kept() {
    let bench = Bench::new();
    for window in 0..2 {
        assert_eq!(bench.verdict(), Verdict::New, "{window}");
        assert_eq!(bench.verdict(), Verdict::Duplicate);
        bench.clock.advance(TTL);
    }
    let entry = bench.entry();
    assert_eq!((entry.state, entry.history.unwrap().windows), (State::Expired, 1));
    let place = Place::in_ram();
    let to = place.open(bench.config.clone());
    assert_eq!(to.restore([entry.clone()]).unwrap().added, 1);
    assert_eq!(to.restore([entry.clone()]).unwrap().unchanged, 1);
    assert_eq!(to.get("a").unwrap(), Some(entry.clone()));
    assert_eq!(to.check_and_mark("a").unwrap(), Verdict::New);
    assert_eq!(to.get("a").unwrap().unwrap().history.unwrap().windows, 2);
    assert_eq!(to.restore([entry.clone()]).unwrap().unchanged, 1);
    bench.clock.advance(RETENTION);
    assert_eq!(to.restore([entry]).unwrap().expired, 1);
}

#[test]
fn a_clock_that_is_set_back_finds_what_is_kept_as_it_was() {
    let bench = Bench::new();
    assert_eq!(bench.verdict(), Verdict::New);
    let marked = bench.clock.now();
    bench.clock.advance(TTL + secs(200));
    assert_eq!(bench.entry().state, State::Expired);
    bench.clock.set(marked + secs(50));
    assert_eq!(bench.verdict(), Verdict::Duplicate);
    bench.clock.advance(TTL);
    assert_eq!(bench.entry().state, State::Expired);
    assert_eq!(bench.verdict(), Verdict::New);
    assert_eq!(bench.entry().history.unwrap().windows, 1);
}
