//! Removals and counts by a filter.

use std::time::Duration;

use seen_store::{Abandoned, Claim, Config, ErrorKind, Filter, Lease, SeenStore, State, Ttl};

use crate::common::{Place, clock_and_config, secs};

fn claimed(store: &SeenStore, id: &str) -> Lease {
    match store.claim(id, secs(60)).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{id}: {other:?}"),
    }
}

/// A store with an entry in each state, and its clock's present time after all of them.
fn with_all_states(place: &Place) -> SeenStore {
    let (clock, config) = clock_and_config();
    let store = place.open(config.purge_interval(None));
    store.ttl(secs(1)).mark_seen("expired").unwrap();
    store.mark_seen("seen").unwrap();
    claimed(&store, "abandoned").into_token();
    claimed(&store.abandoned(Abandoned::Hold), "unresolved").into_token();
    clock.advance(secs(100));
    claimed(&store, "in-flight").into_token();
    claimed(&store, "released").release().unwrap();
    claimed(&store, "failed").fail("no").unwrap();
    claimed(&store, "given-up").fail(seen_store::Failure::from("never").is_final()).unwrap();
    for state in State::ALL {
        let listed = ids(&store, Filter::default().state(*state));
        assert_eq!(listed, [state.as_str()]);
    }
    store
}

fn ids(store: &SeenStore, filter: Filter) -> Vec<String> {
    let mut ids: Vec<String> =
        store.entries(filter).map(|entry| String::from_utf8(entry.unwrap().id).unwrap()).collect();
    ids.sort();
    ids
}

#[test]
fn what_is_at_work_is_removed_only_where_its_state_is_named() {
    let place = Place::in_ram();
    let store = with_all_states(&place);
    assert_eq!(store.count(Filter::default()).unwrap(), 5);
    assert_eq!(store.remove(Filter::default()).unwrap(), 5);
    assert_eq!(ids(&store, Filter::default()), ["in-flight", "unresolved"]);
    assert_eq!(ids(&store, Filter::default().state(State::Expired)), ["expired"]);
    assert_eq!(store.remove(Filter::default()).unwrap(), 0);
    for state in [State::InFlight, State::Unresolved, State::Expired] {
        let filter = Filter::default().state(state);
        assert_eq!(store.count(filter.clone()).unwrap(), 1, "{state}");
        assert_eq!(store.remove(filter.clone()).unwrap(), 1, "{state}");
        assert_eq!(ids(&store, filter), [""; 0], "{state}");
    }
    assert_eq!(store.verify().unwrap().problems, [""; 0]);
}

#[test]
fn each_state_is_removed_by_its_name_and_no_other_is() {
    for removed in State::ALL {
        let place = Place::in_ram();
        let store = with_all_states(&place);
        let filter = Filter::default().state(*removed);
        assert_eq!(store.remove(filter).unwrap(), 1, "{removed}");
        for state in State::ALL {
            let left = ids(&store, Filter::default().state(*state)).len();
            assert_eq!(left, usize::from(state != removed), "{removed} was removed, {state} left");
        }
        assert!(removed.is_claim() || store.check_and_mark(removed.as_str()).is_ok());
    }
}

#[test]
fn the_worker_of_a_removed_claim_is_told_and_its_id_is_new() {
    let store = SeenStore::in_memory().unwrap();
    let mut lease = claimed(&store, "a");
    assert_eq!(store.remove(Filter::default().state(State::InFlight)).unwrap(), 1);
    assert_eq!(lease.confirm().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(matches!(store.claim("a", secs(1)).unwrap(), Claim::Granted(_)));
}

#[test]
fn a_waiter_for_a_removed_claim_gets_it() {
    let store = SeenStore::in_memory().unwrap();
    let _token = claimed(&store, "a").into_token();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| store.waiting(Duration::from_secs(60)).claim("a", secs(1)));
        while store.remove(Filter::default().state(State::InFlight)).unwrap() == 0 {}
        assert!(matches!(waiter.join().unwrap().unwrap(), Claim::Granted(_)));
    });
}

#[test]
fn a_removal_is_of_the_handles_scope_unless_the_filter_names_one() {
    let place = Place::in_ram();
    let (_, config) = clock_and_config();
    let store = place.open(config);
    let scopes = ["", "a", "b"].map(|name| store.scope(name));
    for scope in &scopes {
        scope.seed(["x/1", "x/2", "y"]).unwrap();
        claimed(scope, "x/3").release().unwrap();
    }
    let [unnamed, a, b] = &scopes;
    assert_eq!(a.count(Filter::default().prefix("x/")).unwrap(), 3);
    assert_eq!(a.remove(Filter::default().prefix("x/")).unwrap(), 3);
    assert_eq!(unnamed.remove(Filter::default().scope("b")).unwrap(), 4);
    assert!(a.is_seen("y") && !a.is_seen("x/1") && !b.is_seen("y") && unnamed.is_seen("x/1"));
    assert_eq!(unnamed.count(Filter::default()).unwrap(), 4);
    assert_eq!(store.entries(Filter::default()).count(), 5);
}

#[test]
fn ages_select_what_a_listing_with_these_ages_has() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(Ttl::Never));
    for id in ["a", "b", "c", "d"] {
        store.mark_seen(id).unwrap();
        claimed(&store, &format!("claim {id}")).release().unwrap();
        clock.advance(secs(10));
    }
    // Seen 40, 30, 20 and 10 seconds ago.
    let middle = Filter::default().older_than(secs(15)).newer_than(secs(30));
    assert_eq!(ids(&store, middle.clone()), ["b", "c", "claim b", "claim c"]);
    assert_eq!(store.count(middle.clone()).unwrap(), 4);
    assert_eq!(store.remove(middle).unwrap(), 4);
    assert_eq!(ids(&store, Filter::default()), ["a", "claim a", "claim d", "d"]);
}

#[test]
fn a_removal_of_many_steps_is_seen_by_other_stores_and_spares_the_rest() {
    let place = Place::in_ram();
    let (_, config) = clock_and_config();
    let [one, other] = [0, 1].map(|_| place.open(config.clone()));
    let named = |kind: &str| (0..3_000).map(|n| format!("{kind} {n}")).collect::<Vec<_>>();
    // In turn, so that each step finds some of both.
    for (gone, kept) in named("gone").chunks(7).zip(named("kept").chunks(7)) {
        one.seed(gone).unwrap();
        one.seed(kept).unwrap();
    }
    one.mark_seen("gone last").unwrap();
    for id in ["gone c", "kept c"] {
        claimed(&one, id).release().unwrap();
    }
    assert!(other.try_is_seen("gone 1").unwrap());
    let filter = Filter::default().prefix("gone");
    assert_eq!(one.count(filter.clone()).unwrap(), 3_002);
    assert_eq!(one.remove(filter.clone()).unwrap(), 3_002);
    assert_eq!(one.count(filter).unwrap(), 0);
    other.mark_seen("a look").unwrap();
    assert!(named("gone").iter().all(|id| !other.try_is_seen(id).unwrap()));
    assert!(named("kept").iter().all(|id| other.try_is_seen(id).unwrap()));
    assert_eq!(
        (other.stats().unwrap().seen, other.stats().unwrap().since_opened.rebuilds),
        (3_001, 0)
    );
    assert_eq!(other.stats().unwrap().released, 1);
    for store in [one, other] {
        assert_eq!(store.verify().unwrap().problems, [""; 0]);
    }
}

#[test]
fn a_store_that_only_reads_counts_and_does_not_remove() {
    let place = Place::in_ram();
    place.open(Config::default()).seed(["a", "b"]).unwrap();
    let store = place.open(Config::default().read_only(true));
    assert_eq!(store.count(Filter::default()).unwrap(), 2);
    assert_eq!(store.remove(Filter::default()).unwrap_err().kind(), ErrorKind::ReadOnly);
    store.close().unwrap();
    assert_eq!(store.count(Filter::default()).unwrap_err().kind(), ErrorKind::Closed);
}
