//! The file is another one than the index in it, or than a store believes: an earlier program's, restored in place, cut short
//! by a foreign program, or read at an earlier time.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use seen_store::{Clock as _, Filter, IndexMode, Reader, Salvage, SeenStore, Ttl};

use crate::common::{clock_and_config, ms, secs};
use crate::{asleep, fill, id, missed, place, wakes};

const WITHOUT_INDEX: &str = "DROP TABLE runs; DROP TABLE blocks; DROP TABLE counts; \
                             DELETE FROM meta WHERE key = 'hash_key'";

/// What an open store has to do: all kinds of writes, also those that delete.
fn use_all(store: &SeenStore) {
    for n in 0..20 {
        store.mark_seen(id(n)).unwrap();
    }
    assert!(store.forget(id(3)).unwrap());
    assert!(!store.try_is_seen(id(3)).unwrap());
    store.mark_seen(id(3)).unwrap();
    assert_eq!(missed(store, 0..20), [0_usize; 0]);
    store.purge_expired().unwrap();
    store.stats().unwrap();
    assert!(store.verify().unwrap().is_ok());
    assert!(store.entries(Filter::default()).all(|entry| entry.is_ok()));
}

#[test]
fn a_store_goes_on_when_a_file_of_an_earlier_program_is_restored_in_place() {
    for mode in [IndexMode::Asleep, IndexMode::Wakes, IndexMode::Awake] {
        let (place, other) = (place(), place());
        let (_, config) = clock_and_config();
        fill(&other, &config, 0..40);
        other.sql().execute_batch(WITHOUT_INDEX).unwrap();
        fill(&place, &config, 0..60);
        let store = place.open(config.clone().index(mode));
        assert_eq!(missed(&store, 0..60), [0_usize; 0]);
        place.sql().restore("main", other.path(), None::<fn(rusqlite::backup::Progress)>).unwrap();
        // Until then a hit may come from memory.
        thread::sleep(ms(130));
        assert_eq!(missed(&store, 0..60), (40..60).collect::<Vec<_>>());
        use_all(&store);
        store.close().unwrap();
        let store = place.open(asleep(config));
        assert_eq!(missed(&store, 0..40), [0_usize; 0]);
        use_all(&store);
    }
}

#[test]
fn a_store_goes_on_when_a_foreign_program_drops_a_table_of_the_index() {
    for table in ["runs", "blocks", "counts", "runs; DROP TABLE blocks; DROP TABLE counts"] {
        let place = place();
        let (_, config) = clock_and_config();
        fill(&place, &config, 0..60);
        let store = place.open(asleep(config));
        assert_eq!(missed(&store, 0..30), [0_usize; 0], "{table}");
        place.sql().execute_batch(&format!("DROP TABLE {table}")).unwrap();
        for n in 0..60 {
            assert!(store.try_is_seen(id(n)).unwrap(), "{table}");
        }
        use_all(&store);
    }
}

#[test]
fn what_is_marked_after_a_foreign_program_deleted_the_newest_rows_is_kept() {
    for mode in [IndexMode::Asleep, IndexMode::Wakes] {
        for is_open in [false, true] {
            let place = place();
            let (_, config) = clock_and_config();
            let config = config.index(mode);
            fill(&place, &config, 0..60);
            let store = is_open.then(|| place.open(config.clone()));
            place.sql().execute("DELETE FROM seen WHERE seq > 30", []).unwrap();
            let store = store.unwrap_or_else(|| place.open(config.clone()));
            for n in 100..110 {
                store.mark_seen(id(n)).unwrap();
            }
            store.close().unwrap();
            let reader = Reader::open_with(place.path(), config.clone()).unwrap();
            let lost: Vec<_> =
                (100..110).filter(|n| !reader.try_is_seen(id(*n)).unwrap()).collect();
            drop(reader);
            let store = place.open(config.clone());
            let what = format!("{mode:?}, open {is_open}; a Reader lacks {lost:?}");
            assert_eq!(missed(&store, 100..110), [0_usize; 0], "{what}");
            assert!(lost.is_empty(), "{what}");
        }
    }
}

#[test]
fn a_forgotten_id_stays_forgotten_when_the_clock_goes_back_before_the_end_of_an_earlier_mark() {
    let mut answers = Vec::new();
    let modes = [IndexMode::Awake, IndexMode::Asleep, IndexMode::Wakes];
    for (mode, other) in
        modes.iter().flat_map(|mode| modes[..2].iter().map(move |other| (*mode, *other)))
    {
        let place = place();
        let (clock, config) = clock_and_config();
        let config = config.ttl(Ttl::Never).purge_interval(None).purge_on_open(false).index(mode);
        place.open(config.clone()).seed((100..5_000).map(id)).unwrap();
        fill(&place, &config, 0..40);
        let store = place.open(config.clone());
        store.ttl(secs(3_600)).mark_seen("x").unwrap();
        store.close().unwrap();
        clock.advance(secs(7_200));
        // The expired row is in no run yet, and an index that is awake never learns of it.
        let store = place.open(config.clone().index(other));
        store.mark_seen("x").unwrap();
        assert!(store.forget("x").unwrap());
        store.close().unwrap();
        fill(&place, &config, 40..80);
        clock.set(clock.now() - secs(5_400));
        let store = place.open(config.clone());
        if mode == IndexMode::Wakes {
            assert_eq!(missed(&store, 100..1_000), []);
            assert!(wakes(&store));
        }
        let reader = Reader::open_with(place.path(), config.clone()).unwrap();
        answers.push((
            (mode, other),
            store.try_is_seen("x").unwrap(),
            store.get("x").unwrap().is_some(),
            reader.get("x").unwrap().is_some(),
        ));
    }
    assert!(answers.iter().all(|(_, seen, got, read)| !seen && !got && !read), "{answers:?}");
}

/// Runs a call that may never return.
fn within(limit: Duration, call: impl FnOnce() + Send + 'static) -> bool {
    let (done, is_done) = channel();
    let _detached = thread::spawn(move || {
        call();
        let _ = done.send(());
    });
    is_done.recv_timeout(limit).is_ok()
}

#[test]
fn a_compaction_ends_when_marks_were_counted_wrong() {
    let place = place();
    let (_, config) = clock_and_config();
    fill(&place, &config, 0..60);
    place.sql().execute_batch("UPDATE counts SET marks = 7").unwrap();
    let store = place.open(config);
    let ended = within(secs(10), move || store.compact().unwrap());
    if !ended {
        std::mem::forget(place);
    }
    assert!(ended, "it merges the same run again and again");
}

#[test]
fn a_salvage_finds_marks_only() {
    let (place, fresh) = (place(), place());
    let (_, config) = clock_and_config();
    let config = config.ttl(Ttl::Never);
    fill(&place, &config, 0..300);
    // Damage an inner part of the file.
    let mut bytes = std::fs::read(place.path()).unwrap();
    let from = bytes.len() / 2 / 1024 * 1024;
    bytes[from..from + 1024].fill(0xA5);
    std::fs::write(place.path(), bytes).unwrap();
    let salvage = Salvage::open(place.path()).unwrap();
    let mut found = 0;
    for entry in salvage {
        let text = String::from_utf8(entry.id).unwrap();
        assert!(text.starts_with("id-"), "{text}");
        found += 1;
    }
    assert!(found > 200, "{found}");
    drop(fresh);
}

#[test]
fn dropping_a_store_whose_index_is_waking_ends_at_once() {
    let place = place();
    let (_, config) = clock_and_config();
    fill(&place, &config, 0..300);
    let path = place.path().to_owned();
    let ended = within(secs(30), move || {
        for _ in 0..100 {
            let store = SeenStore::open_with(&path, config.clone()).unwrap();
            for n in 0..20 {
                assert!(store.try_is_seen(id(n)).unwrap());
            }
            drop(store);
        }
    });
    assert!(ended);
}

#[test]
fn opening_waits_no_longer_for_a_lock_than_it_needs_it() {
    let place = place();
    let (_, config) = clock_and_config();
    place.open(config.clone()).seed((0..200).map(id)).unwrap();
    let sql = place.sql();
    let without_runs = "DELETE FROM runs; DELETE FROM blocks; DELETE FROM counts; BEGIN IMMEDIATE";
    sql.execute_batch(without_runs).unwrap();
    let path = place.path().to_owned();
    let opened = within(secs(20), move || {
        let config = config.busy_timeout(secs(60)).purge_on_open(false);
        let store = SeenStore::open_with(path, config).unwrap();
        assert_eq!(missed(&store, 0..200), []);
    });
    assert!(opened);
    sql.execute_batch("ROLLBACK").unwrap();
}
