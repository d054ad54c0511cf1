//! A new store for one test, the time in which the test reckons, and short names for what tests often ask.

use std::time::{Duration, SystemTime};

use seen_store::{
    Claim, Config, Entry, ErrorKind, Filter, Item, Known, Lease, Result, State, Store, Token,
    Verdict,
};

use crate::{Opened, Place};

/// How many units last what runs out in a test.
pub(crate) const SHORT: u32 = 8;

/// How many units last what outlives each test.
pub(crate) const LONG: u32 = 400;

/// A new store, whose marks last [`LONG`] and which purges nothing by itself.
pub(crate) struct Bench<'p> {
    pub(crate) place: &'p dyn Place,
    /// The settings of the store, without its clock.
    pub(crate) config: Config,
    opened: Opened,
}

impl<'p> Bench<'p> {
    pub(crate) fn new(place: &'p dyn Place) -> Self {
        Self::with(place, |config| config)
    }

    pub(crate) fn with(place: &'p dyn Place, set: impl FnOnce(Config) -> Config) -> Self {
        let config = Config::default().ttl(place.unit() * LONG).purge_interval(None);
        let config = set(config.holder("worker 1"));
        Self { opened: place.open(config.clone()), config, place }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.opened.store
    }

    /// Another store on the same ids, where there is such a thing.
    pub(crate) fn again(&self) -> Box<dyn Store> {
        self.opened.again()
    }

    pub(crate) fn units(&self, units: u32) -> Duration {
        self.place.unit() * units
    }

    pub(crate) fn short(&self) -> Duration {
        self.units(SHORT)
    }

    pub(crate) fn long(&self) -> Duration {
        self.units(LONG)
    }

    /// Lets this many units pass. What was to run out after them has done so.
    pub(crate) fn passes(&self, units: u32) {
        let more = u32::from(self.place.keeps_its_own_clock());
        self.place.time_passes(self.units(units + more));
    }

    /// Lets pass what lasts [`SHORT`].
    pub(crate) fn short_passes(&self) {
        self.passes(SHORT);
    }

    /// The time of the store, in whole milliseconds: that of a mark which is made and forgotten.
    pub(crate) fn now(&self) -> SystemTime {
        let clock = self.store().scope("the time").ttl(self.long().into());
        clock.mark_seen("now".into()).unwrap();
        let now = entry(&*clock, "now").last_seen;
        assert!(clock.forget("now".into()).unwrap());
        now
    }

    /// Compares a time that the store has read from its clock with another one.
    #[track_caller]
    pub(crate) fn assert_near(&self, time: SystemTime, other: SystemTime) {
        let apart = time.duration_since(other).unwrap_or_else(|e| e.duration());
        let most = self.units(if self.place.keeps_its_own_clock() { 20 } else { 0 });
        assert!(apart <= most, "{time:?} {other:?}");
    }

    /// Waits until another store has noticed that an id was forgotten.
    pub(crate) fn others_notice(&self) {
        if self.place.is_shared() {
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// A claim whose lease has run out, without a word of its holder.
    pub(crate) fn abandoned(&self, store: &dyn Store, id: &str) -> Token {
        let token = claimed(store, id, self.short()).into_token();
        self.short_passes();
        token
    }
}

pub(crate) fn check<'i>(store: &dyn Store, item: impl Into<Item<'i>>) -> Verdict {
    store.check_and_mark(item.into()).unwrap()
}

pub(crate) fn check_all(store: &dyn Store, ids: &[&str]) -> Vec<Verdict> {
    store.check_and_mark_all(&items(ids)).unwrap()
}

pub(crate) fn items<'i>(ids: &[&'i str]) -> Vec<Item<'i>> {
    ids.iter().map(|id| Item::new(*id)).collect()
}

#[track_caller]
pub(crate) fn claimed<'i>(store: &dyn Store, item: impl Into<Item<'i>>, lease: Duration) -> Lease {
    granted(store.claim(item.into(), lease).unwrap())
}

#[track_caller]
pub(crate) fn granted(claim: Claim) -> Lease {
    match claim {
        Claim::Granted(lease) => lease,
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn known(claim: Claim) -> Known {
    match claim {
        Claim::Seen(known) => known,
        other => panic!("not seen: {other:?}"),
    }
}

/// The answer to a claim as a word, for comparison. A lease that is granted is dropped.
pub(crate) fn word<'i>(
    store: &dyn Store,
    item: impl Into<Item<'i>>,
    lease: Duration,
) -> &'static str {
    word_of(&store.claim(item.into(), lease).unwrap())
}

pub(crate) fn word_of(claim: &Claim) -> &'static str {
    match claim {
        Claim::Granted(_) => "granted",
        Claim::InFlight { .. } => "in flight",
        Claim::Seen(_) => "seen",
        Claim::Unresolved { .. } => "unresolved",
        Claim::GivenUp { .. } => "given up",
        _ => "another answer",
    }
}

pub(crate) fn get<'i>(store: &dyn Store, item: impl Into<Item<'i>>) -> Option<Entry> {
    store.get(item.into()).unwrap()
}

#[track_caller]
pub(crate) fn entry<'i>(store: &dyn Store, item: impl Into<Item<'i>>) -> Entry {
    get(store, item).expect("nothing is known of the id")
}

#[track_caller]
pub(crate) fn state<'i>(store: &dyn Store, item: impl Into<Item<'i>>) -> State {
    entry(store, item).state
}

#[track_caller]
pub(crate) fn assert_kind<T>(result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("no error, but {kind:?} was expected"),
        Err(e) => assert_eq!(e.kind(), kind, "{e}"),
    }
}

/// The scopes and ids that a filter selects, in order.
pub(crate) fn listed(store: &dyn Store, filter: Filter) -> Vec<(String, Vec<u8>)> {
    let entries = store.entries(filter).map(Result::unwrap);
    let mut ids: Vec<_> = entries.map(|entry| (entry.scope, entry.id)).collect();
    ids.sort();
    ids
}

/// The ids that a filter selects, as texts in order.
pub(crate) fn ids(store: &dyn Store, filter: Filter) -> Vec<String> {
    let listed = listed(store, filter).into_iter();
    let mut ids: Vec<_> = listed.map(|(_, id)| String::from_utf8(id).unwrap()).collect();
    ids.sort();
    ids
}
