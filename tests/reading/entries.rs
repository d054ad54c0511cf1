//! Listings: what a filter admits, and that nothing is missed or returned twice, whatever is written
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use seen_store::{Claim, Config, Entry, ErrorKind, Filter, Lease, SeenStore, State, Ttl};

use crate::common::{Place, clock_and_config, ms, secs};
use crate::support_process::Random;

const LEASE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn granted(store: &SeenStore, id: &str) -> Lease {
    match store.claim(id, LEASE).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("not granted but {other:?}"),
    }
}

/// The ids that are listed, in order; each once.
fn listed(store: &SeenStore, filter: Filter) -> Vec<String> {
    let mut ids: Vec<String> =
        store.entries(filter).map(|entry| String::from_utf8(entry.unwrap().id).unwrap()).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id came twice");
    ids
}

#[test]
fn every_filter_admits_its_own_and_no_other() {
    let (clock, config) = clock_and_config();
    let store = SeenStore::in_memory_with(config.ttl(HOUR).purge_interval(None)).unwrap();
    let other = store.scope("other");
    store.mark_seen("expired").unwrap();
    granted(&store, "forgotten by now").release().unwrap();
    clock.advance(HOUR);
    store.mark_seen("seen").unwrap();
    other.mark_seen("other seen").unwrap();
    granted(&store, "confirmed").confirm_with("receipt").unwrap();
    granted(&store, "failed").fail("why").unwrap();
    granted(&store, "released").release().unwrap();
    granted(&other, "other ran out").into_token();
    clock.advance(LEASE);
    let _lease = granted(&store, "in flight");

    let by = Filter::default;
    let all = listed(&store, by());
    let (live, gone) = (["confirmed", "failed", "in flight", "other seen", "seen"], ["expired"]);
    let mut expected: Vec<&str> = [&live[..], &["other ran out", "released"]].concat();
    expected.sort_unstable();
    assert_eq!(all, expected, "all but expired marks");
    assert_eq!(listed(&other, by()), all, "whatever handle is asked");

    let cases: [(&str, Filter, &[&str]); 15] = [
        ("seen", by().state(State::Seen), &["confirmed", "other seen", "seen"]),
        ("in flight", by().state(State::InFlight), &["in flight"]),
        ("failed", by().state(State::Failed), &["failed"]),
        ("expired", by().state(State::Expired), &gone),
        ("released", by().state(State::Released), &["released"]),
        ("abandoned", by().state(State::Abandoned), &["other ran out"]),
        ("a scope", by().scope("other"), &["other ran out", "other seen"]),
        ("the empty scope", by().scope("").state(State::Seen), &["confirmed", "seen"]),
        ("no such scope", by().scope("othe"), &[]),
        ("a prefix", by().prefix("other "), &["other ran out", "other seen"]),
        ("a whole id", by().prefix("seen"), &["seen"]),
        ("a longer one", by().prefix("seen "), &[]),
        ("old", by().older_than(secs(59)).state(State::Seen), &["confirmed", "other seen", "seen"]),
        ("young", by().newer_than(secs(59)), &["in flight"]),
        (
            "all at once",
            by().scope("other").state(State::Seen).prefix("o").newer_than(LEASE),
            &["other seen"],
        ),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(listed(&store, filter), expected, "{name}");
    }
}

#[test]
fn age_is_counted_to_the_millisecond_from_when_an_id_was_last_seen() {
    let (clock, config) = clock_and_config();
    let store = SeenStore::in_memory_with(config).unwrap();
    for id in ["refreshed", "old"] {
        store.mark_seen(id).unwrap();
        clock.advance(ms(1));
    }
    clock.advance(secs(10));
    store.mark_seen("refreshed").unwrap();
    clock.advance(ms(5));
    let (old, younger) = (secs(10) + ms(6), secs(10) + ms(5));
    assert_eq!(listed(&store, Filter::default().older_than(old)), [""; 0]);
    assert_eq!(listed(&store, Filter::default().older_than(younger)), ["old"]);
    assert_eq!(listed(&store, Filter::default().newer_than(old)), ["old", "refreshed"]);
    assert_eq!(listed(&store, Filter::default().newer_than(younger)), ["refreshed"]);
    assert_eq!(listed(&store, Filter::default().newer_than(ms(4))), [""; 0]);
    // An age beyond the epoch.
    assert_eq!(listed(&store, Filter::default().newer_than(Duration::MAX)), ["old", "refreshed"]);
    assert_eq!(listed(&store, Filter::default().older_than(Duration::MAX)), [""; 0]);
}

#[test]
fn an_entry_says_what_get_says() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(HOUR));
    for scope in ["", "s"].map(|scope| store.scope(scope)) {
        granted(&scope, "confirmed").confirm_with([0, 0xff]).unwrap();
        granted(&scope, "failed").fail("why").unwrap();
        scope.ttl(Ttl::Never).mark_seen("never").unwrap();
        scope.mark_seen([0xff, 0xfe]).unwrap();
        granted(&scope, "in flight").into_token();
        clock.advance(secs(1));
        let _ = scope.check_and_mark("confirmed").unwrap();
    }
    let entries: Vec<Entry> = store.entries(Filter::default()).map(Result::unwrap).collect();
    assert_eq!(entries.len(), 10);
    for entry in entries {
        assert_eq!(store.scope(&entry.scope).get(&entry.id).unwrap(), Some(entry));
    }
}

/// Whether or not its old mark has been purged, an id that is claimed anew is one entry.
#[test]
fn an_id_with_an_expired_mark_and_a_claim_is_listed_once() {
    let (clock, config) = clock_and_config();
    let store = SeenStore::in_memory_with(config.ttl(HOUR).purge_interval(None)).unwrap();
    for id in ["released", "in flight", "failed"] {
        store.mark_seen(id).unwrap();
    }
    clock.advance(HOUR);
    granted(&store, "released").release().unwrap();
    granted(&store, "failed").fail("why").unwrap();
    let _lease = granted(&store, "in flight");
    let all = ["failed", "in flight", "released"];
    assert_eq!(listed(&store, Filter::default()), all);
    let expired = listed(&store, Filter::default().state(State::Expired));
    assert_eq!(expired, [""; 0], "all are claims, whatever they were before");
}

#[test]
fn a_listing_of_many_pages_is_complete() {
    let place = Place::in_ram();
    let (clock, config) = clock_and_config();
    let store = place.open(config.ttl(HOUR).purge_interval(None).purge_on_open(false));
    let ids = |kind: &str, count: usize| -> Vec<String> {
        (0..count).map(|n| format!("{kind} {n:04}")).collect()
    };
    let expired = ids("expired", 1_700);
    store.seed(&expired).unwrap();
    clock.advance(HOUR);
    // Enough for several pages in some shard of the index, in the claims and in the whole table.
    let (marks, claims) = (ids("mark", 5_000), ids("claim", 2_000));
    store.seed(&marks).unwrap();
    let claimed = store.claim_all(&claims, LEASE).unwrap();
    let all = [&claims[..], &marks].concat();
    assert_eq!(listed(&store, Filter::default()), all);
    assert_eq!(listed(&store, Filter::default().state(State::InFlight)), claims);
    assert_eq!(listed(&store, Filter::default().state(State::Seen)), marks);
    assert_eq!(listed(&store, Filter::default().state(State::Expired)), expired);
    drop(claimed);
    assert_eq!(listed(&store, Filter::default().state(State::Released)), claims);
    clock.advance(HOUR);
    let forgotten = [&expired[..], &marks].concat();
    assert_eq!(listed(&store, Filter::default().state(State::Expired)), forgotten);
    // A whole number of pages ends like any other.
    let store = SeenStore::in_memory().unwrap();
    let claims = ids("claim", 1_000);
    let claimed = store.claim_all(&claims, LEASE).unwrap();
    assert_eq!(listed(&store, Filter::default()), claims);
    drop(claimed);
}

#[test]
fn an_empty_store_lists_nothing() {
    let store = SeenStore::in_memory().unwrap();
    for filter in [Filter::default(), Filter::default().state(State::Expired)] {
        assert!(store.entries(filter).next().is_none());
    }
}

#[test]
fn between_pages_a_listing_holds_neither_the_mutex_nor_the_file() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let claims: Vec<String> = (0..1_200).map(|n| format!("claim {n}")).collect();
    let held = store.claim_all(&claims, LEASE).unwrap();
    store.seed((0..5_000).map(|n| format!("mark {n}"))).unwrap();
    let mut entries = store.entries(Filter::default());
    // Once in the midst of the claims, once in the midst of the marks.
    for taken in [600, 3_000] {
        assert_eq!(entries.by_ref().take(taken).count(), taken);
        let (done, finished) = mpsc::channel();
        let (other, path) = (store.clone(), place.path().to_owned());
        thread::spawn(move || {
            other.mark_seen("another thread's").unwrap();
            // Fails while any statement of this process still reads the file.
            let second = SeenStore::open(path).unwrap();
            second.mark_seen("another store's").unwrap();
            second.checkpoint().unwrap();
            done.send(()).unwrap();
        });
        let waited = finished.recv_timeout(Duration::from_secs(20));
        waited.expect("marks, while a listing is half consumed");
    }
    assert!(entries.all(|entry| entry.is_ok()));
    drop(held);
}

#[test]
fn after_a_close_a_listing_tells_of_it_once_and_ends() {
    let store = SeenStore::in_memory().unwrap();
    store.seed((0..2_000).map(|n: u32| n.to_be_bytes())).unwrap();
    let mut begun = store.entries(Filter::default());
    let mut unbegun = store.entries(Filter::default());
    assert!(begun.next().unwrap().is_ok());
    store.close().unwrap();
    // What had been read before may still come.
    let mut rest = begun.by_ref().skip_while(Result::is_ok);
    assert_eq!(rest.next().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(rest.next().is_none());
    assert!(begun.next().is_none() && begun.next().is_none());
    assert_eq!(unbegun.next().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(unbegun.next().is_none());
}

#[test]
fn what_was_listed_in_flight_is_not_listed_again_once_it_is_confirmed() {
    let store = SeenStore::in_memory().unwrap();
    store.mark_seen("mark").unwrap();
    let mut leases = ["a", "b", "c"].map(|id| granted(&store, id));
    let mut entries = store.entries(Filter::default());
    let first = entries.next().unwrap().unwrap();
    assert_eq!((first.id, first.state), (b"a".to_vec(), State::InFlight));
    for lease in &mut leases {
        lease.confirm().unwrap();
    }
    let rest: Vec<Vec<u8>> = entries.map(|entry| entry.unwrap().id).collect();
    assert_eq!(rest, [&b"b"[..], b"c", b"mark"]);
}

/// So many marks that some page ends within a shard of the index, and all of them move to the end of
/// the table in between.
#[test]
fn marks_that_are_refreshed_between_two_pages_come_once() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    let ids: Vec<String> = (0..150_000).map(|n| n.to_string()).collect();
    store.seed(&ids).unwrap();
    let mut entries = store.entries(Filter::default());
    let mut came = BTreeSet::from([entries.next().unwrap().unwrap().id]);
    for id in &ids {
        store.mark_seen(id).unwrap();
    }
    for entry in entries {
        assert!(came.insert(entry.unwrap().id), "an id came twice");
    }
    assert_eq!(came.len(), ids.len());
}

/// How many ids of each kind the next tests list, for how many listings and writes at least.
const LASTING: u64 = 1_500;
const LISTINGS: usize = 12;
const WRITES: u64 = 5_000;

/// Lists again and again while `writers` disturb, and checks that all ids whose name begins with
/// `stays` come exactly once in each listing.
fn list_while(store: &SeenStore, writers: &[&(dyn Fn(&mut Random) + Sync)]) {
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let mut seeds = Random::new("a listing under concurrent writes");
    thread::scope(|scope| {
        for write in writers {
            let mut random = Random(seeds.below(u64::MAX));
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    write(&mut random);
                    written.fetch_add(1, SeqCst);
                }
            });
        }
        // Set also by a panic: the writers must end for the scope to.
        let _stop = StopAtEnd(&stop);
        let mut listings = 0;
        while listings < LISTINGS || written.load(SeqCst) < WRITES {
            listings += 1;
            let mut came = BTreeMap::new();
            for entry in store.entries(Filter::default()) {
                let entry = entry.unwrap();
                if entry.id.starts_with(b"stays") {
                    came.entry(entry.id).or_insert_with(Vec::new).push(entry.state);
                }
            }
            let twice: Vec<_> = came.iter().filter(|(_, states)| states.len() > 1).collect();
            assert!(twice.is_empty(), "came more than once: {twice:?}");
            assert_eq!(came.len() as u64, LASTING, "an id that exists throughout did not come");
        }
    });
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn fill(store: &SeenStore) {
    store.seed((0..LASTING).map(|n| format!("stays {n}"))).unwrap();
    store.seed((0..LASTING).map(|n| format!("other {n}"))).unwrap();
}

/// Marks, claims and forgets ids that come and go.
fn disturb(store: &SeenStore, random: &mut Random) {
    let id = format!("other {}", random.below(2 * LASTING));
    match random.below(4) {
        0 => store.mark_seen(&id).unwrap(),
        1 => drop(store.forget(&id).unwrap()),
        2 => drop(store.claim(&id, LEASE).unwrap()),
        _ => {
            if let Claim::Granted(mut lease) = store.claim(&id, LEASE).unwrap() {
                lease.confirm().unwrap();
            }
        }
    }
}

/// Marks an id that is in the listing, which moves its row to the end of the table.
fn refresh(store: &SeenStore, random: &mut Random) {
    store.mark_seen(format!("stays {}", random.below(LASTING))).unwrap();
}

#[test]
fn ids_that_exist_throughout_come_once_while_threads_of_the_store_write() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    fill(&store);
    list_while(&store, &[&|r| disturb(&store, r), &|r| refresh(&store, r)]);
}

#[test]
fn ids_that_exist_throughout_come_once_while_another_store_on_the_file_writes() {
    let place = Place::in_ram();
    let (store, other) = (place.open(Config::default()), place.open(Config::default()));
    fill(&store);
    list_while(&store, &[&|r| disturb(&other, r), &|r| refresh(&other, r)]);
}

#[test]
fn an_id_that_goes_from_in_flight_to_seen_during_a_listing_comes_once() {
    for two_stores in [false, true] {
        let place = Place::in_ram();
        let store = place.open(Config::default());
        let other = if two_stores { place.open(Config::default()) } else { store.clone() };
        store.seed((0..1_000).map(|n| format!("other {n}"))).unwrap();
        let mut random = Random::new("an_id_that_goes_from_in_flight_to_seen");
        for round in 0..LISTINGS {
            let ids: Vec<String> = (0..1_500).map(|n| format!("stays {round} {n}")).collect();
            let mut claims = Vec::new();
            for (id, claim) in ids.iter().zip(other.claim_all(&ids, LEASE).unwrap()) {
                let Claim::Granted(lease) = claim else { panic!("{claim:?}") };
                claims.push((id, lease.into_token()));
            }
            // Confirmed in an order that has nothing to do with the listing's.
            for n in (1..claims.len()).rev() {
                claims.swap(n, usize::try_from(random.below(n as u64 + 1)).unwrap());
            }
            let mut came = BTreeSet::new();
            thread::scope(|scope| {
                let (listing, begun) = mpsc::channel();
                let (other, claims) = (&other, &claims);
                scope.spawn(move || {
                    begun.recv().unwrap();
                    for (id, token) in claims {
                        other.confirm(id, token).unwrap();
                    }
                });
                let filter = Filter::default().prefix(format!("stays {round} "));
                for (n, entry) in store.entries(filter).enumerate() {
                    if n == 0 {
                        listing.send(()).unwrap();
                    }
                    let entry = entry.unwrap();
                    let id = String::from_utf8(entry.id).unwrap();
                    assert!(came.insert(id), "came twice, at last as {:?}", entry.state);
                }
            });
            assert_eq!(came.len(), ids.len());
        }
    }
}
