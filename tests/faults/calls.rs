//! A full disk and failed reads: the call fails, and nothing is left behind by it.

use std::time::Duration;

use rusqlite::Connection;
use seen_store::{Claim, Config, ErrorKind, IndexMode, Ownership, SeenStore, Verdict};

use crate::new_file;
use crate::shim::{Action, Faults, Op};

#[test]
fn a_full_disk_fails_marks_falsely_marks_nothing_and_is_left_behind_without_reopening() {
    let (folder, path) = new_file();
    let store = SeenStore::open_with(&path, Config::default().wal_autocheckpoint(50)).unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        for number in 0..40 {
            let id = format!("room-{round}-{number}");
            assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New);
            acknowledged.push(id);
        }
        let faults = Faults::on(folder.path(), None, "", Action::DiskFull, 0);
        let mut refused = Vec::new();
        for number in 0..200 {
            let id = format!("full-{round}-{number}");
            match store.check_and_mark(&id) {
                // There may be some room left within the log.
                Ok(verdict) => {
                    assert_eq!(verdict, Verdict::New);
                    acknowledged.push(id);
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::StorageFull, "{e:?}");
                    assert!(e.is_retryable());
                    assert!(!store.try_is_seen(&id).unwrap(), "{id} is falsely marked");
                    refused.push(id);
                }
            }
        }
        assert!(!refused.is_empty() && faults.hits() > 0, "the disk was never full");
        let batch: Vec<_> = (0..1_000).map(|n| format!("batch-{round}-{n}")).collect();
        let error = store.check_and_mark_all(&batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error:?}");
        for id in &acknowledged {
            assert!(store.is_seen(id), "{id} cannot be asked for on a full disk");
        }
        drop(faults);
        for id in refused.iter().chain(&batch) {
            assert!(!store.try_is_seen(id).unwrap(), "{id} is falsely marked");
        }
        for id in refused {
            assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New);
            acknowledged.push(id);
        }
    }
    store.close().unwrap();
    let store = SeenStore::open(&path).unwrap();
    let report = store.verify().unwrap();
    assert!(report.is_ok() && report.rows == acknowledged.len() as u64, "{report:?}");
    assert!(acknowledged.iter().all(|id| store.try_is_seen(id).unwrap()));
}

/// In exclusive mode there is nobody else who could have changed the file, whatever SQLite says after a failure.
#[test]
fn a_store_that_could_not_be_compacted_can_be_verified() {
    for exclusive in [true, false] {
        for action in [Action::DiskFull, Action::FailOnce] {
            let (folder, path) = new_file();
            let config =
                Config::default().exclusive(exclusive).busy_timeout(Duration::from_millis(300));
            let store = SeenStore::open_with(&path, config).unwrap();
            store.seed((0..500).map(|n| format!("id {n}"))).unwrap();
            let faults = Faults::on(folder.path(), Op::Write, "", action, 3);
            let compacted = store.compact();
            assert!(compacted.is_err() && faults.hits() > 0, "{compacted:?}");
            drop(faults);
            for round in 0..2 {
                let report = store.verify().unwrap();
                assert!(report.is_ok() && report.rows == 500 + round, "{report:?}");
                store.mark_seen(format!("later {round}")).unwrap();
            }
            store.compact().unwrap();
            assert!(store.verify().unwrap().is_ok());
        }
    }
}

/// The store remembers which claims there are; a transaction that came to nothing must take what it noted
/// along.
#[test]
fn claims_that_a_full_disk_refused_are_neither_held_nor_in_anybodys_way() {
    let (folder, path) = new_file();
    let store = SeenStore::open(&path).unwrap();
    let ids: Vec<_> = (0..3_000).map(|n| format!("id-{n}")).collect();
    let lease = Duration::from_secs(60);
    let faults = Faults::on(folder.path(), None, "", Action::DiskFull, 0);
    assert_eq!(store.claim_all(&ids, lease).unwrap_err().kind(), ErrorKind::StorageFull);
    drop(faults);
    let claims = store.claim_all(&ids, lease).unwrap();
    let tokens: Vec<_> = claims
        .into_iter()
        .map(|claim| match claim {
            Claim::Granted(lease) => lease.into_token(),
            other => panic!("a claim that failed is in the way: {other:?}"),
        })
        .collect();
    let held: Vec<_> = ids.iter().zip(tokens).collect();
    let faults = Faults::on(folder.path(), None, "", Action::DiskFull, 0);
    assert_eq!(store.confirm_all(held.clone()).unwrap_err().kind(), ErrorKind::StorageFull);
    drop(faults);
    let kept = store.confirm_all(held).unwrap();
    assert!(kept.iter().all(|kept| *kept == Ownership::Held), "claims were lost");
    assert!(ids.iter().all(|id| store.try_is_seen(id).unwrap()));
    assert_eq!(store.stats().unwrap().in_flight, 0);
}

#[test]
fn a_read_error_in_the_midst_of_a_transaction_fails_that_call_and_leaves_no_transaction_open() {
    let (folder, path) = new_file();
    let config = Config::default().cache_size(1).index(IndexMode::Awake);
    let store = SeenStore::open_with(&path, config.clone()).unwrap();
    store.seed((0..20_000).map(|n| format!("id-{n}"))).unwrap();
    store.close().unwrap();
    // Now no thread reads the file too.
    let store = SeenStore::open_with(&path, config).unwrap();
    for nth in 1..=3 {
        // A refresh reads the old row's page, which has long left so small a cache.
        let id = format!("id-{}", nth * 5_000);
        let faults = Faults::on(folder.path(), Op::Read, "", Action::FailOnce, nth);
        let answer = store.mark_seen(&id);
        let hits = faults.hits();
        drop(faults);
        assert_eq!(answer.is_err(), hits == 1, "read {nth}: {answer:?}");
        assert!(hits == 1 || nth > 1, "a refresh read nothing");
        Connection::open(&path).unwrap().execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
        assert!(store.try_is_seen(&id).unwrap());
        assert_eq!(store.check_and_mark(format!("new-{nth}")).unwrap(), Verdict::New);
    }
    let report = store.verify().unwrap();
    assert!(report.is_ok() && report.rows == 20_003, "{report:?}");
}
