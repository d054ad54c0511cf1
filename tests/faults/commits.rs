//! Commits that meet an error: only the file can tell what became of them.
#![expect(
    clippy::disallowed_methods,
    reason = "a store is used for longer than its looks are apart"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use seen_store::{Claim, Config, ErrorKind, Result, SeenStore, Synchronous, Verdict};

use crate::shim::{Action, Faults, Op};
use crate::support_group::{Call, Watch, as_one_group};
use crate::{copy, has_row, new_file};

#[test]
fn after_a_commit_met_an_io_error_the_answer_is_what_the_file_says() {
    for (synchronous, op) in [
        (Synchronous::Normal, Op::Write),
        (Synchronous::Full, Op::Write),
        (Synchronous::Full, Op::Sync),
    ] {
        for (action, beside) in [
            (Action::FailOnce, false),
            (Action::FailOnce, true),
            (Action::FailFromThenOn, false),
            (Action::FailFromThenOn, true),
        ] {
            let case = format!("{synchronous:?} {op:?} {action:?}, another store: {beside}");
            let (folder, path) = new_file();
            let config = || Config::default().synchronous(synchronous);
            let store = SeenStore::open_with(&path, config()).unwrap();
            // Another store keeps the log alive while this one reopens.
            let other = beside.then(|| SeenStore::open_with(&path, config()).unwrap());
            store.mark_seen("before").unwrap();
            let faults = Faults::on(folder.path(), op, "-wal", action, 1);
            let answer = store.check_and_mark("a");
            assert!(faults.hits() > 0, "{case}: the commit met no fault");
            // Had the index been told before COMMIT, the id would be a hit here.
            let seen = store.try_is_seen("a");
            drop(faults);
            match &answer {
                Ok(verdict) => assert_eq!(*verdict, Verdict::New, "{case}"),
                Err(e) => assert_eq!(e.kind(), ErrorKind::Io, "{case}: {e:?}"),
            }
            assert_eq!(has_row(&path, "a"), answer.is_ok(), "{case}: {answer:?}");
            if let Ok(seen) = seen {
                assert_eq!(seen, answer.is_ok(), "{case}");
            }
            // It goes on without being opened by the caller again.
            let expected = if answer.is_ok() { Verdict::Duplicate } else { Verdict::New };
            assert_eq!(store.check_and_mark("a").unwrap(), expected, "{case}");
            assert_eq!(store.check_and_mark("before").unwrap(), Verdict::Duplicate, "{case}");
            if let Some(other) = other {
                assert_eq!(other.check_and_mark("a").unwrap(), Verdict::Duplicate, "{case}");
            }
            let report = store.verify().unwrap();
            assert!(report.is_ok() && report.rows == 2, "{case}: {report:?}");
        }
    }
}

#[test]
fn a_crash_does_not_bring_back_a_commit_that_failed() {
    let (folder, path) = new_file();
    let config = || Config::default().synchronous(Synchronous::Full);
    let store = SeenStore::open_with(&path, config()).unwrap();
    // The other store keeps the log as it is while this one reopens: the failed frames stay in it.
    let _other = SeenStore::open_with(&path, config()).unwrap();
    store.mark_seen("before").unwrap();
    let faults = Faults::on(folder.path(), Op::Sync, "-wal", Action::FailOnce, 1);
    let error = store.check_and_mark("a").unwrap_err();
    assert_eq!((error.kind(), faults.hits()), (ErrorKind::Io, 1), "{error:?}");
    drop(faults);
    // What a crash leaves: the file and its log, without the index in shared memory.
    let (_crashed, image) = new_file();
    copy(&path, &image);
    let store = SeenStore::open_with(&image, config()).unwrap();
    assert!(store.try_is_seen("before").unwrap());
    assert!(!store.try_is_seen("a").unwrap(), "a mark that was told as failed is back");
}

/// The log that the failed connection had open is the only place where its commits are.
#[test]
fn a_commit_that_meets_an_io_error_with_its_log_deleted_does_not_go_on_in_another_log() {
    for deleted in [&["-wal"][..], &["-wal", "-shm"]] {
        let (folder, path) = new_file();
        let store = SeenStore::open(&path).unwrap();
        store.mark_seen("before").unwrap();
        for suffix in deleted {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            std::fs::remove_file(name).unwrap();
        }
        let faults = Faults::on(folder.path(), Op::Write, "-wal", Action::FailOnce, 1);
        // Unless the deletion was noticed before.
        let error = store.mark_seen("a").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::FileReplaced), "{error:?}");
        for _ in 0..3 {
            let error = store.check_and_mark("before").err();
            assert!(error.is_none_or(|e| e.kind() == ErrorKind::FileReplaced));
            assert_eq!(store.mark_seen("b").unwrap_err().kind(), ErrorKind::FileReplaced);
        }
        drop(faults);
        drop(store);
        let store = SeenStore::open(&path).unwrap();
        assert!(store.try_is_seen("before").unwrap() && !store.try_is_seen("b").unwrap());
        assert!(store.verify().unwrap().is_ok());
    }
}

#[test]
fn a_store_opened_again_after_an_io_error_is_content_with_the_side_files_that_made() {
    let (folder, path) = new_file();
    let store = SeenStore::open(&path).unwrap();
    let since = Instant::now();
    for number in 0.. {
        let faults = Faults::on(folder.path(), Op::Write, "-wal", Action::FailOnce, 1);
        let error = store.mark_seen(format!("failed {number}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        drop(faults);
        store.mark_seen(format!("id {number}")).unwrap();
        if since.elapsed() > Duration::from_millis(250) {
            break;
        }
    }
    while since.elapsed() < Duration::from_millis(500) {
        store.mark_seen("after").unwrap();
    }
    store.close().unwrap();
}

#[test]
fn a_commit_that_is_in_the_log_in_spite_of_its_error_is_answered_as_done() {
    // The sync fails after the whole commit was written, and closing cannot remove the log either:
    // whoever opens the file next recovers the commit, so the answer must be New.
    let (folder, path) = new_file();
    let config = Config::default().synchronous(Synchronous::Full);
    let store = SeenStore::open_with(&path, config).unwrap();
    store.mark_seen("before").unwrap();
    let faults = Faults::on(folder.path(), Op::Sync, "", Action::FailFromThenOn, 1);
    let answer = store.check_and_mark("a");
    let hits = faults.hits();
    drop(faults);
    assert!(hits >= 2, "neither the close nor the commit met the fault");
    assert_eq!(answer.is_ok(), has_row(&path, "a"), "{answer:?}");
    let seen = store.try_is_seen("a").unwrap();
    assert_eq!(seen, answer.is_ok(), "{answer:?}");
}

/// The sync of a commit fails after all of it was written, so that only the file can tell what became
/// of a group whose last member took back what the one before had written.
#[test]
fn a_group_that_takes_back_its_own_claim_is_answered_as_the_file_says() {
    type Verbs = [fn(&SeenStore) -> Result<()>; 3];
    let cases: [(&str, Verbs); 2] = [
        (
            "forgotten",
            [
                |store| store.mark_seen("a"),
                |store| store.claim("x", Duration::from_secs(60)).map(keep),
                |store| store.forget("x").map(|known| assert!(known)),
            ],
        ),
        (
            "released with a TTL of zero, and so expired at once",
            [
                |store| store.mark_seen("a"),
                |store| store.ttl(Duration::ZERO).release("held", &HELD.parse().unwrap()),
                |store| store.forget("held").map(|known| assert!(!known)),
            ],
        ),
    ];
    for (case, verbs) in cases {
        let (folder, path) = new_file();
        let watch = Arc::new(Watch::default());
        let config = Config::default().clock(watch.clone()).purge_interval(None);
        let store = SeenStore::open_with(&path, config.synchronous(Synchronous::Full)).unwrap();
        let file = Connection::open(&path).unwrap();
        file.execute_batch(&format!(
            "INSERT INTO claims VALUES ('', 'held', x'{HELD}', NULL, 0, NULL, 1, {}, 1, 0, NULL, 0, NULL, NULL)",
            1_i64 << 48
        ))
        .unwrap();
        let faults = std::cell::Cell::new(None);
        let calls = verbs
            .into_iter()
            .map(|verb| -> Call<'_, _> {
                let store = &store;
                Box::new(move || verb(store))
            })
            .collect();
        let answers = as_one_group(file, &watch, calls, || {
            let fail = Action::FailFromThenOn;
            faults.set(Some(Faults::on(folder.path(), Op::Sync, "", fail, 1)));
        });
        assert!(faults.take().unwrap().hits() > 0, "{case}: the commit met no fault");
        let done = has_row(&path, "a");
        for answer in &answers {
            assert_eq!(answer.is_ok(), done, "{case}: {answers:?}");
        }
        assert_eq!(store.try_is_seen("a").unwrap(), done, "{case}");
    }
}

/// A token, as the file holds it and as it is shown.
const HELD: &str = "000102030405060708090a0b0c0d0e0f";

/// Keeps a claim from being released when it is dropped.
fn keep(claim: Claim) {
    match claim {
        Claim::Granted(lease) => drop(lease.into_token()),
        other => panic!("{other:?}"),
    }
}
