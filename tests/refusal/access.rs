//! Files that may not be read or written, and files that another store has for itself.
#![expect(clippy::disallowed_methods, reason = "\"at once\" is measured against the busy timeout")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use seen_store::{Config, ErrorKind, SeenStore, Verdict};

use crate::attempts::{bytes_of_an_open_file, closed_store, contents};
use crate::common::{Place, ms, secs};

/// Runs `work` as a user who may do nothing by privilege: the caller, or the user 65534 where the
/// caller is root. False, said visibly, where root cannot become that user.
fn without_privilege(work: impl FnOnce() + Send) -> bool {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        work();
        return true;
    }
    std::thread::scope(|threads| {
        let thread = threads.spawn(|| {
            // On Linux this changes what this thread alone may do to files.
            // SAFETY: changes credentials, no memory; the second call only reads them back.
            let changed = unsafe {
                libc::setfsuid(NOBODY);
                libc::setfsuid(libc::uid_t::MAX)
            };
            if libc::uid_t::try_from(changed) != Ok(NOBODY) {
                eprintln!("SKIPPED: root cannot become another user here");
                return false;
            }
            work();
            true
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Opens, without privilege, what there is no permission for.
fn refused_without_privilege(place: &Place, config: &Config) {
    let bytes_before = contents(place.path());
    let mut error = None;
    if !without_privilege(|| error = SeenStore::open_with(place.path(), config.clone()).err()) {
        return;
    }
    set_mode(place.folder(), 0o755);
    let error = error.expect("opened without permission");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&*place.folder().to_string_lossy()), "no path: {message}");
    assert!(message.contains("permission"), "no remedy: {message}");
    assert!(contents(place.path()) == bytes_before);
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let place = Place::new();
    closed_store(&place);
    set_mode(place.folder(), 0o755);
    set_mode(place.path(), 0o000);
    refused_without_privilege(&place, &Config::default());
    set_mode(place.path(), 0o000);
    refused_without_privilege(&place, &Config::default().read_only(true));
}

#[test]
fn a_file_that_may_only_be_read_is_refused_for_writing() {
    let place = Place::new();
    closed_store(&place);
    set_mode(place.folder(), 0o755);
    set_mode(place.path(), 0o444);
    refused_without_privilege(&place, &Config::default());
}

#[test]
fn a_folder_that_may_not_be_written_to_is_refused_for_a_new_store() {
    let place = Place::new();
    set_mode(place.folder(), 0o555);
    refused_without_privilege(&place, &Config::default());
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn a_folder_that_may_not_be_entered_is_refused() {
    let place = Place::new();
    closed_store(&place);
    set_mode(place.folder(), 0o000);
    refused_without_privilege(&place, &Config::default());
}

#[test]
fn a_folder_that_may_not_be_created_is_refused() {
    let place = Place::new();
    set_mode(place.folder(), 0o555);
    let path = place.folder().join("deeper/still/seen.db");
    let mut error = None;
    if !without_privilege(|| error = SeenStore::open(&path).err()) {
        return;
    }
    let error = error.expect("created a folder without permission");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let message = error.to_string();
    assert!(message.contains("deeper/still"), "no path: {message}");
    assert!(message.contains("permission"), "no remedy: {message}");
    set_mode(place.folder(), 0o755);
}

#[test]
fn a_file_held_in_exclusive_mode_is_busy_at_once_and_the_mode_is_named() {
    let place = Place::new();
    let holder = place.open(Config::default().exclusive(true));
    holder.mark_seen("a").unwrap();
    let before = bytes_of_an_open_file(place.path());
    let log_before = bytes_of_an_open_file(&place.beside("-wal"));
    for config in
        [Config::default(), Config::default().read_only(true), Config::default().exclusive(true)]
    {
        let began = Instant::now();
        let error = SeenStore::open_with(place.path(), config).unwrap_err();
        assert!(began.elapsed() < secs(10), "waited for a holder that will not let go");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.is_retryable());
        let message = error.to_string();
        assert!(message.contains(&*place.path().to_string_lossy()), "{message}");
        assert!(message.contains("exclusive mode; close that one first"), "{message}");
    }
    assert_eq!(bytes_of_an_open_file(place.path()), before);
    assert_eq!(bytes_of_an_open_file(&place.beside("-wal")), log_before);
    assert_eq!(holder.check_and_mark("b").unwrap(), Verdict::New);
    drop(holder);
    assert!(place.open(Config::default()).is_seen("b"));
}

#[test]
fn a_file_that_others_have_open_is_not_given_to_an_exclusive_store() {
    let place = Place::new();
    let sharer = place.open(Config::default());
    sharer.mark_seen("a").unwrap();
    let config = Config::default().exclusive(true).busy_timeout(ms(50));
    let error = SeenStore::open_with(place.path(), config.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&*place.path().to_string_lossy()));
    assert_eq!(sharer.check_and_mark("a").unwrap(), Verdict::Duplicate);
    drop(sharer);
    assert!(SeenStore::open_with(place.path(), config).unwrap().is_seen("a"));
}
