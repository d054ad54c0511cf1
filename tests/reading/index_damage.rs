//! Damage to the index in the file: the checks report it, no answer is wrong for it, and compacting mends it.

use seen_store::{Claim, Config, Filter, IndexMode, Reader, SeenStore};

use crate::common::{Place, clock_and_config, secs};

/// More than a store reads whole whatever its settings.
const IDS: usize = 6_000;

/// Damage that a lookup notices, or that does not concern it.
const DAMAGES: [&str; 19] = [
    "DELETE FROM blocks WHERE place = (SELECT max(place) FROM blocks)",
    "DELETE FROM blocks WHERE place = (SELECT min(place) FROM blocks)",
    "DELETE FROM blocks WHERE place = (SELECT place FROM blocks ORDER BY place LIMIT 1 OFFSET 9)",
    "DELETE FROM blocks",
    "UPDATE blocks SET entries = CAST(substr(entries, 1, length(entries) - 12) || substr(entries, -4) AS BLOB)",
    "UPDATE blocks SET entries = zeroblob(length(entries))",
    "UPDATE blocks SET entries = x'' WHERE place = (SELECT max(place) FROM blocks)",
    "UPDATE OR REPLACE blocks SET place = place + 1 \
     WHERE place = (SELECT place FROM blocks ORDER BY place LIMIT 1 OFFSET 9)",
    "UPDATE runs SET last = last + 1 WHERE run = (SELECT max(run) FROM runs)",
    "UPDATE runs SET after = after + 1",
    "UPDATE runs SET entries = entries + 1",
    "UPDATE runs SET state = 2",
    "DELETE FROM runs WHERE after = 0",
    "DELETE FROM runs WHERE run = (SELECT run FROM runs ORDER BY last LIMIT 1 OFFSET 1)",
    "DELETE FROM runs WHERE run = (SELECT max(run) FROM runs)",
    "DELETE FROM runs",
    "UPDATE meta SET value = zeroblob(16) WHERE key = 'hash_key'",
    "DELETE FROM meta WHERE key = 'hash_key'",
    "UPDATE counts SET marks = marks + 1",
];

fn id(n: usize) -> String {
    format!("id {n}")
}

/// A closed store with three runs that cover all rows.
fn with_runs() -> Place {
    let place = Place::in_ram();
    for part in 0..3 {
        let store = place.open(Config::default());
        store.seed((0..IDS).skip(part * IDS / 3).take(IDS / 3).map(id)).unwrap();
        store.close().unwrap();
    }
    let runs: i64 =
        place.sql().query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap();
    assert_eq!((runs, covered(&place)), (3, IDS));
    assert_sound(&place);
    place
}

fn covered(place: &Place) -> usize {
    usize::try_from(Reader::open(place.path()).unwrap().verify_index().unwrap().rows).unwrap()
}

fn assert_sound(place: &Place) {
    let reader = Reader::open(place.path()).unwrap();
    assert_eq!(reader.verify().unwrap().problems, [""; 0]);
    assert_eq!(reader.verify_index().unwrap().problems, [""; 0]);
}

/// How a store uses its index, and whether in exclusive mode.
const SETTINGS: [(IndexMode, bool); 4] = [
    (IndexMode::Asleep, false),
    (IndexMode::Wakes, false),
    (IndexMode::Awake, false),
    (IndexMode::Asleep, true),
];

fn with_settings((index, exclusive): (IndexMode, bool)) -> Config {
    Config::default().index(index).exclusive(exclusive)
}

fn assert_reported(what: &str, report: &seen_store::IntegrityReport) {
    assert!(!report.is_ok(), "{what}");
    assert_eq!(report.index_problems, report.problems.len(), "{what}: {:?}", report.problems);
    let is_told =
        report.problems.iter().all(|it| it.contains("no mark is lost: compact the store"));
    assert!(is_told, "{what}: {:?}", report.problems);
}

#[test]
fn each_kind_of_damage_is_reported_by_a_reader_and_a_store_and_misleads_neither() {
    for damage in DAMAGES {
        let place = with_runs();
        place.sql().execute_batch(damage).expect(damage);
        let reader = Reader::open(place.path()).unwrap();
        assert_reported(damage, &reader.verify().unwrap());
        assert_reported(damage, &reader.verify_index().unwrap());
        assert!(reader.is_seen("id 17") && !reader.is_seen("new"), "{damage}");
        let store = place.open(Config::default().index(IndexMode::Asleep));
        if !damage.contains("hash_key") {
            assert_reported(damage, &store.verify().unwrap());
        }
        assert!((0..IDS).all(|n| store.is_seen(id(n))) && !store.is_seen("new"), "{damage}");
        store.close().unwrap();
    }
}

#[test]
fn compacting_makes_a_damaged_index_anew_whatever_the_settings() {
    for (n, damage) in DAMAGES.iter().enumerate() {
        let place = with_runs();
        place.sql().execute_batch(damage).expect(damage);
        let store = place.open(with_settings(SETTINGS[n % 4]));
        store.compact().unwrap();
        assert_eq!(store.verify().unwrap().problems, [""; 0], "{damage}");
        assert!((0..IDS).all(|n| store.is_seen(id(n))) && !store.is_seen("new"), "{damage}");
        store.close().unwrap();
        assert_sound(&place);
        assert_eq!(covered(&place), IDS, "{damage}");
    }
}

#[test]
fn a_row_beside_a_newer_one_is_found_where_the_index_has_them_and_is_no_problem_of_the_index() {
    let place = with_runs();
    let copy =
        "INSERT INTO seen (id, first_seen, last_seen) SELECT id, 1, 1 FROM seen WHERE seq = 18";
    place.sql().execute(copy, []).unwrap();
    let reader = Reader::open(place.path()).unwrap();
    let told = ["row 18 is live beside a newer row of the same id"];
    let report = reader.verify().unwrap();
    assert_eq!((report.index_problems, report.problems), (0, told.map(str::to_owned).to_vec()));
    // Both have come to be covered.
    let store = place.open(Config::default());
    store.seed((IDS..IDS + 1_500).map(id)).unwrap();
    store.close().unwrap();
    assert_eq!(covered(&place), IDS + 1_501);
    assert_eq!(Reader::open(place.path()).unwrap().verify().unwrap().problems, told);
}

/// As only a bug in a store would bring about.
#[test]
fn a_mark_without_an_entry_is_reported_whatever_the_settings_and_found_after_compacting() {
    for settings in SETTINGS {
        let place = with_runs();
        let change = "UPDATE seen SET id = 'another' WHERE seq = 1111";
        place.sql().execute(change, []).unwrap();
        assert_reported("reader", &Reader::open(place.path()).unwrap().verify().unwrap());
        let store = place.open(with_settings(settings));
        assert_reported("store", &store.verify().unwrap());
        store.compact().unwrap();
        assert!(store.is_seen("another") && store.verify().unwrap().is_ok());
        store.close().unwrap();
        assert_sound(&place);
    }
}

#[test]
fn a_damaged_header_is_mended_by_the_next_store_that_closes() {
    let place = with_runs();
    place.sql().execute("UPDATE runs SET last = last + 1", []).unwrap();
    place.open(Config::default()).close().unwrap();
    assert_sound(&place);
}

#[test]
fn what_was_removed_refreshed_forgotten_or_has_expired_is_no_damage() {
    for (index, exclusive) in SETTINGS {
        let place = with_runs();
        let (clock, config) = clock_and_config();
        let config = config.ttl(secs(60)).index(index).exclusive(exclusive);
        let check = |store: &SeenStore| {
            assert_eq!(store.verify().unwrap().problems, [""; 0]);
            if !exclusive {
                assert_sound(&place);
            }
        };
        for round in 0..4 {
            let store = place.open(config.clone());
            store.seed((0..1_500).map(|n| format!("{round} {n}"))).unwrap();
            let Claim::Granted(lease) = store.claim(format!("at work {round}"), secs(600)).unwrap()
            else {
                panic!("not granted")
            };
            let _ = lease.into_token();
            for n in (0..IDS).step_by(97) {
                store.forget(id(n + round)).unwrap();
                store.mark_seen(id(n + round + 7)).unwrap();
            }
            check(&store);
            store.remove(Filter::default().prefix(format!("id {round}"))).unwrap();
            check(&store);
            clock.advance(secs(40));
            store.purge_expired().unwrap();
            store.cleanup_old_entries(secs(3_600)).unwrap();
            check(&store);
            if round == 2 {
                store.compact().unwrap();
                check(&store);
            }
            store.close().unwrap();
            assert_sound(&place);
        }
        assert!(covered(&place) > 0);
    }
}
