//! Failing disks: a layer between SQLite and the operating system makes chosen calls fail, or kills
//! the process at them.
//!
//! The layer ("shim") wraps the default unix VFS and becomes the default of this test binary. Which
//! calls fail is decided by the folder of the file, so that tests run side by side.

#![cfg(unix)]
#![allow(clippy::needless_for_each, reason = "a line for a line")]
#![expect(clippy::disallowed_methods, reason = "that nothing hangs is measured")]

#[path = "../support_group/mod.rs"]
mod support_group;
#[path = "../support_process/mod.rs"]
mod support_process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use seen_store::{
    Claim, Config, Error, ErrorKind, ManualClock, Ownership, Result, SeenStore, Synchronous,
    Verdict,
};
use shim::{Action, Faults, Op};
use support_group::{Call, Watch, as_one_group};
use support_process::{Child, role, say, variable};

mod shim {
    #![allow(non_snake_case, reason = "SQLite's names")]

    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::path::Path;
    use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};
    use std::sync::{Mutex, Once};

    use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Op {
        Open,
        Delete,
        Access,
        Read,
        Write,
        Truncate,
        Sync,
        FileSize,
        Lock,
        ShmMap,
        ShmLock,
    }

    impl Op {
        fn error(self) -> c_int {
            match self {
                Self::Open => ffi::SQLITE_CANTOPEN,
                Self::Delete => ffi::SQLITE_IOERR_DELETE,
                Self::Access => ffi::SQLITE_IOERR_ACCESS,
                Self::Read => ffi::SQLITE_IOERR_READ,
                Self::Write => ffi::SQLITE_IOERR_WRITE,
                Self::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
                Self::Sync => ffi::SQLITE_IOERR_FSYNC,
                Self::FileSize => ffi::SQLITE_IOERR_FSTAT,
                Self::Lock => ffi::SQLITE_IOERR_LOCK,
                Self::ShmMap => ffi::SQLITE_IOERR_SHMMAP,
                Self::ShmLock => ffi::SQLITE_IOERR_SHMLOCK,
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Action {
        /// The nth call fails.
        FailOnce,
        /// The nth call and all after it fail.
        FailFromThenOn,
        /// Writes that would make a file longer find the disk full.
        DiskFull,
        /// The nth call kills the process.
        Kill,
    }

    struct Plan {
        folder: String,
        op: Option<Op>,
        suffix: String,
        action: Action,
        nth: u32,
        calls: u32,
        hits: u32,
    }

    static PLANS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());

    /// The faults of one folder, until it is dropped.
    pub(crate) struct Faults {
        folder: String,
    }

    impl Faults {
        /// Lets the `nth` call of kind `op` (of any kind without it) on files whose names end in
        /// `suffix` meet `action`.
        pub(crate) fn on(
            folder: &Path,
            op: impl Into<Option<Op>>,
            suffix: &str,
            action: Action,
            nth: u32,
        ) -> Self {
            register();
            let folder = folder.canonicalize().unwrap().to_str().unwrap().to_owned() + "/";
            PLANS.lock().unwrap().push(Plan {
                folder: folder.clone(),
                op: op.into(),
                suffix: suffix.into(),
                action,
                nth,
                calls: 0,
                hits: 0,
            });
            Self { folder }
        }

        /// How many calls met the fault.
        pub(crate) fn hits(&self) -> u32 {
            let plans = PLANS.lock().unwrap();
            plans.iter().find(|plan| plan.folder == self.folder).unwrap().hits
        }
    }

    impl Drop for Faults {
        fn drop(&mut self) {
            PLANS.lock().unwrap().retain(|plan| plan.folder != self.folder);
        }
    }

    /// The error that a call is to meet; `growth` tells whether it would make the file longer.
    fn fault(op: Op, name: *const c_char, growth: impl FnOnce() -> bool) -> Option<c_int> {
        if name.is_null() {
            return None;
        }
        // SAFETY: SQLite keeps the names of files it has open, and ends them with a NUL.
        let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
        let mut plans = PLANS.lock().unwrap();
        let plan = plans.iter_mut().find(|plan| name.starts_with(&plan.folder))?;
        if plan.op.is_some_and(|only| only != op) || !name.ends_with(&plan.suffix) {
            return None;
        }
        plan.calls += 1;
        let met = match plan.action {
            Action::FailOnce | Action::Kill => plan.calls == plan.nth,
            Action::FailFromThenOn => plan.calls >= plan.nth,
            Action::DiskFull => op == Op::Write && growth(),
        };
        if !met {
            return None;
        }
        plan.hits += 1;
        match plan.action {
            Action::DiskFull => Some(ffi::SQLITE_FULL),
            Action::Kill => {
                // SAFETY: ends this very process, which is a child made for it.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                unreachable!("killed");
            }
            _ => Some(op.error()),
        }
    }

    /// A file of the shim; the real VFS's file follows it in the same allocation.
    #[repr(C)]
    struct Shimmed {
        base: sqlite3_file,
        name: *const c_char,
    }

    static REAL: AtomicPtr<sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

    /// SAFETY: `file` must have been opened by [`xOpen`].
    unsafe fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
        // SAFETY: `szOsFile` makes SQLite allocate room for both; a real file needs the alignment of
        // a pointer, which `Shimmed` has.
        unsafe { file.byte_add(size_of::<Shimmed>()) }
    }

    macro_rules! forward {
        ($name:ident ( $($arg:ident: $kind:ty),* ) $(, $op:expr)?) => {
            unsafe extern "C" fn $name(file: *mut sqlite3_file, $($arg: $kind),*) -> c_int {
                // SAFETY: SQLite calls this with a file that `xOpen` has opened, and with the
                // arguments that the real method expects.
                unsafe {
                    $(
                        let name = (*file.cast::<Shimmed>()).name;
                        if let Some(code) = fault($op, name, || false) {
                            return code;
                        }
                    )?
                    let file = real(file);
                    (*(*file).pMethods).$name.unwrap()(file, $($arg),*)
                }
            }
        };
    }

    forward!(xClose());
    forward!(xRead(to: *mut c_void, amount: c_int, offset: sqlite3_int64), Op::Read);
    forward!(xTruncate(size: sqlite3_int64), Op::Truncate);
    forward!(xSync(flags: c_int), Op::Sync);
    forward!(xFileSize(size: *mut sqlite3_int64), Op::FileSize);
    forward!(xLock(level: c_int), Op::Lock);
    forward!(xUnlock(level: c_int));
    forward!(xCheckReservedLock(result: *mut c_int), Op::Lock);
    forward!(xFileControl(op: c_int, argument: *mut c_void));
    forward!(xSectorSize());
    forward!(xDeviceCharacteristics());
    forward!(xShmMap(
        page: c_int,
        size: c_int,
        extend: c_int,
        at: *mut *mut c_void
    ), Op::ShmMap);
    forward!(xShmUnmap(delete: c_int));

    unsafe extern "C" fn xShmLock(
        file: *mut sqlite3_file,
        offset: c_int,
        count: c_int,
        flags: c_int,
    ) -> c_int {
        // SAFETY: as in `forward`. Giving a lock back does not fail, as it does not in the kernel.
        unsafe {
            if flags & ffi::SQLITE_SHM_LOCK != 0
                && let Some(code) = fault(Op::ShmLock, (*file.cast::<Shimmed>()).name, || false)
            {
                return code;
            }
            let file = real(file);
            (*(*file).pMethods).xShmLock.unwrap()(file, offset, count, flags)
        }
    }

    unsafe extern "C" fn xShmBarrier(file: *mut sqlite3_file) {
        // SAFETY: as in `forward`.
        unsafe {
            let file = real(file);
            (*(*file).pMethods).xShmBarrier.unwrap()(file);
        }
    }

    unsafe extern "C" fn xWrite(
        file: *mut sqlite3_file,
        from: *const c_void,
        amount: c_int,
        offset: sqlite3_int64,
    ) -> c_int {
        // SAFETY: as in `forward`.
        unsafe {
            let (name, file) = ((*file.cast::<Shimmed>()).name, real(file));
            let methods = &*(*file).pMethods;
            let grows = || {
                let mut size = 0;
                methods.xFileSize.unwrap()(file, &raw mut size);
                offset + sqlite3_int64::from(amount) > size
            };
            fault(Op::Write, name, grows)
                .unwrap_or_else(|| methods.xWrite.unwrap()(file, from, amount, offset))
        }
    }

    /// Version 2: with shared memory, without memory mapping, which the store switches off.
    static METHODS: sqlite3_io_methods = sqlite3_io_methods {
        iVersion: 2,
        xClose: Some(xClose),
        xRead: Some(xRead),
        xWrite: Some(xWrite),
        xTruncate: Some(xTruncate),
        xSync: Some(xSync),
        xFileSize: Some(xFileSize),
        xLock: Some(xLock),
        xUnlock: Some(xUnlock),
        xCheckReservedLock: Some(xCheckReservedLock),
        xFileControl: Some(xFileControl),
        xSectorSize: Some(xSectorSize),
        xDeviceCharacteristics: Some(xDeviceCharacteristics),
        xShmMap: Some(xShmMap),
        xShmLock: Some(xShmLock),
        xShmBarrier: Some(xShmBarrier),
        xShmUnmap: Some(xShmUnmap),
        xFetch: None,
        xUnfetch: None,
    };

    unsafe extern "C" fn xOpen(
        _: *mut sqlite3_vfs,
        name: *const c_char,
        file: *mut sqlite3_file,
        flags: c_int,
        out_flags: *mut c_int,
    ) -> c_int {
        // SAFETY: SQLite passes `szOsFile` bytes for the file. Without methods it will not close it.
        unsafe {
            (*file).pMethods = std::ptr::null();
            if let Some(code) = fault(Op::Open, name, || false) {
                return code;
            }
            let vfs = REAL.load(SeqCst);
            let code = (*vfs).xOpen.unwrap()(vfs, name, real(file), flags, out_flags);
            if !(*real(file)).pMethods.is_null() {
                (*file.cast::<Shimmed>()).name = name;
                (*file).pMethods = &raw const METHODS;
            }
            code
        }
    }

    unsafe extern "C" fn xDelete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
        // SAFETY: forwards SQLite's own arguments.
        unsafe {
            let vfs = REAL.load(SeqCst);
            fault(Op::Delete, name, || false)
                .unwrap_or_else(|| (*vfs).xDelete.unwrap()(vfs, name, sync))
        }
    }

    unsafe extern "C" fn xAccess(
        _: *mut sqlite3_vfs,
        name: *const c_char,
        flags: c_int,
        result: *mut c_int,
    ) -> c_int {
        // SAFETY: forwards SQLite's own arguments.
        unsafe {
            let vfs = REAL.load(SeqCst);
            fault(Op::Access, name, || false)
                .unwrap_or_else(|| (*vfs).xAccess.unwrap()(vfs, name, flags, result))
        }
    }

    fn register() {
        static ONCE: Once = Once::new();
        // SAFETY: the shim is a copy of the real VFS, whose other methods do not care which of the two
        // they are called with; it is leaked and so lives as long as SQLite.
        ONCE.call_once(|| unsafe {
            let real = ffi::sqlite3_vfs_find(std::ptr::null());
            REAL.store(real, SeqCst);
            let mut shim = std::ptr::read(real);
            shim.szOsFile += c_int::try_from(size_of::<Shimmed>()).unwrap();
            shim.zName = c"shim".as_ptr();
            shim.pNext = std::ptr::null_mut();
            shim.xOpen = Some(xOpen);
            shim.xDelete = Some(xDelete);
            shim.xAccess = Some(xAccess);
            let shim = Box::leak(Box::new(shim));
            assert_eq!(ffi::sqlite3_vfs_register(shim, 1), ffi::SQLITE_OK);
        });
    }
}

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("die") => die(),
        Some(role) => panic!("unknown role {role:?}"),
    }
}

fn new_file() -> (tempfile::TempDir, PathBuf) {
    // In memory where that is possible: what is at stake is which calls fail, not how long they take.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.unwrap();
    // The shim must be in place before the first file is opened.
    drop(Faults::on(folder.path(), None, "", Action::FailOnce, 0));
    let path = folder.path().join("seen.db");
    (folder, path)
}

/// Whether the file holds a row of the id, according to a connection of its own.
fn has_row(path: &Path, id: &str) -> bool {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT count(*) FROM seen WHERE id = ?1 AND expires_at IS NOT 0";
    connection.query_row(sql, [id], |row| row.get::<_, i64>(0)).unwrap() > 0
}

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
            "INSERT INTO claims VALUES ('', 'held', x'{HELD}', 1, {}, 1, NULL, NULL)",
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
    let store = SeenStore::open_with(&path, Config::default().cache_size(1)).unwrap();
    store.seed((0..20_000).map(|n| format!("id-{n}"))).unwrap();
    store.checkpoint().unwrap();
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

/// What the answers so far oblige the store to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    Seen,
    Unseen,
    /// A write failed, and so did the second look that would have told its outcome.
    Unknown,
}

/// A user that believes every answer, and checks each against the ones before.
struct Believer {
    beliefs: BTreeMap<String, Belief>,
    /// Whether a failed write may have happened: only where reopening may fail too.
    doubts: bool,
    failures: Vec<String>,
    tell: fn(String),
}

impl Believer {
    fn new(doubts: bool) -> Self {
        let beliefs =
            [("old", Belief::Seen), ("refreshed", Belief::Seen), ("gone", Belief::Unseen)];
        let beliefs = beliefs.into_iter().map(|(id, belief)| (id.to_owned(), belief)).collect();
        Self { beliefs, doubts, failures: Vec::new(), tell: |_| {} }
    }

    fn belief(&self, id: &str) -> Belief {
        self.beliefs.get(id).copied().unwrap_or(Belief::Unseen)
    }

    fn believe(&mut self, id: &str, belief: Belief) {
        (self.tell)(format!("{belief:?} {id}"));
        self.beliefs.insert(id.to_owned(), belief);
    }

    fn doubt(&mut self, id: &str, wanted: Belief, error: &Error) {
        self.failed(error);
        if self.doubts && self.belief(id) != wanted {
            self.believe(id, Belief::Unknown);
        }
    }

    fn failed(&mut self, error: &Error) {
        self.failures.push(format!("{error:?}"));
    }

    fn check(&mut self, store: &SeenStore, id: &str) {
        match store.check_and_mark(id) {
            Ok(verdict) => {
                let wrong = if verdict == Verdict::New { Belief::Seen } else { Belief::Unseen };
                assert_ne!(self.belief(id), wrong, "check_and_mark of {id} answered {verdict:?}");
                self.believe(id, Belief::Seen);
            }
            Err(e) => self.doubt(id, Belief::Seen, &e),
        }
    }

    fn mark(&mut self, store: &SeenStore, id: &str) {
        match store.mark_seen(id) {
            Ok(()) => self.believe(id, Belief::Seen),
            Err(e) => self.doubt(id, Belief::Seen, &e),
        }
    }

    fn ask(&mut self, store: &SeenStore, id: &str) {
        match store.try_is_seen(id) {
            Ok(seen) => {
                let wrong = if seen { Belief::Unseen } else { Belief::Seen };
                assert_ne!(self.belief(id), wrong, "try_is_seen of {id} answered {seen}");
            }
            Err(e) => self.failed(&e),
        }
    }

    fn forget(&mut self, store: &SeenStore, id: &str) {
        match store.forget(id) {
            Ok(was_seen) => {
                let wrong = if was_seen { Belief::Unseen } else { Belief::Seen };
                assert_ne!(self.belief(id), wrong, "forget of {id} answered {was_seen}");
                self.believe(id, Belief::Unseen);
            }
            Err(e) => self.doubt(id, Belief::Unseen, &e),
        }
    }

    /// Opens, marks, checks, forgets, purges and closes.
    fn live(&mut self, path: &Path, config: Config) -> Result<()> {
        let store = SeenStore::open_with(path, config)?;
        (self.tell)("opened".into());
        // Without one it would wait for readers, and make them wait.
        let log = path.with_extension("db-wal");
        assert!(log.exists(), "the store is open and has no write-ahead log");
        self.check(&store, "old");
        self.check(&store, "new");
        self.ask(&store, "new");
        self.mark(&store, "refreshed");
        self.ask(&store, "gone");
        let batch: Vec<_> = (0..40).map(|n| format!("batch-{n}")).collect();
        match store.check_and_mark_all(&batch) {
            Ok(_) => batch.iter().for_each(|id| self.believe(id, Belief::Seen)),
            Err(e) => {
                self.failed(&e);
                if self.doubts {
                    batch.iter().for_each(|id| self.believe(id, Belief::Unknown));
                }
            }
        }
        self.forget(&store, "new");
        self.ask(&store, "new");
        let _ = store.purge_expired().inspect_err(|e| self.failed(e));
        let _ = store.checkpoint().inspect_err(|e| self.failed(e));
        self.check(&store, "last");
        self.forget(&store, "batch-7");
        self.check(&store, "last");
        store.close()
    }

    /// With the fault gone, the file must open and be as was believed.
    fn confirm(&self, path: &Path, config: Config) {
        let store = SeenStore::open_with(path, config).unwrap_or_else(|e| panic!("{e:?}"));
        for (id, belief) in &self.beliefs {
            let seen = store.try_is_seen(id).unwrap();
            let right = match belief {
                Belief::Seen => seen,
                Belief::Unseen => !seen,
                Belief::Unknown => true,
            };
            assert!(right, "{id} is believed {belief:?} and answered {seen}");
        }
        let report = store.verify().unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(store.check_and_mark("afterwards").unwrap(), Verdict::New);
        store.close().unwrap();
    }
}

/// A file with live, refreshed and expired rows; part of it only in a log that a killed process left.
fn make_template(folder: &Path) -> PathBuf {
    let path = folder.join("template.db");
    let clock = Arc::new(ManualClock::default());
    let store = SeenStore::open_with(&path, Config::default().clock(clock.clone())).unwrap();
    store.mark_seen("refreshed").unwrap();
    store.ttl(Duration::from_secs(1)).seed((0..50).map(|n| format!("expired-{n}"))).unwrap();
    store.ttl(Duration::from_secs(1)).mark_seen("gone").unwrap();
    store.checkpoint().unwrap();
    store.mark_seen("old").unwrap();
    // Opening the files cancels this process's locks on them, which nobody needs any more.
    copy(&path, &folder.join("killed.db"));
    folder.join("killed.db")
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    let log = from.with_extension("db-wal");
    if log.exists() {
        std::fs::copy(log, to.with_extension("db-wal")).unwrap();
    }
}

/// The settings of the script's runs: everything has to happen in them, checkpoints too.
fn settings() -> [Config; 2] {
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(60));
    let config = Config::default().clock(clock).busy_timeout(Duration::from_millis(100));
    [
        config.clone().wal_autocheckpoint(1),
        config.synchronous(Synchronous::Full).exclusive(true).purge_interval(None),
    ]
}

/// Runs the script with the nth call failing, for every n; how many runs there were.
fn fail_each_call(template: Option<&Path>, config: &Config, action: Action) -> u32 {
    for nth in 1.. {
        assert!(nth < 3_000, "the script never passes without a fault");
        let (folder, path) = new_file();
        let mut believer = Believer::new(action == Action::FailFromThenOn);
        match template {
            Some(template) => copy(template, &path),
            None => believer.beliefs.clear(),
        }
        let faults = Faults::on(folder.path(), None, "", action, nth);
        let begun = Instant::now();
        let run = || {
            let done = believer.live(&path, config.clone());
            let hits = faults.hits();
            drop(faults);
            // One failure costs one call; the store mends itself for the next.
            let most = if action == Action::FailOnce { 1 } else { usize::MAX };
            assert!(believer.failures.len() <= most, "{:#?}", believer.failures);
            believer.confirm(&path, config.clone());
            (done, hits)
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let (done, hits) = outcome.unwrap_or_else(|_| {
            panic!("{action:?} at call {nth}, new file: {}, {config:?}", template.is_none())
        });
        assert!(begun.elapsed() < Duration::from_secs(20), "call {nth} hung for a while");
        if hits == 0 {
            done.unwrap();
            return nth;
        }
    }
    unreachable!()
}

#[test]
fn whichever_call_fails_once_no_answer_is_wrong_and_nothing_acknowledged_is_lost() {
    every_call_with_every_setting(Action::FailOnce);
}

#[test]
fn whichever_call_all_begin_to_fail_at_no_answer_is_wrong_and_nothing_acknowledged_is_lost() {
    every_call_with_every_setting(Action::FailFromThenOn);
}

fn every_call_with_every_setting(action: Action) {
    let (folder, _) = new_file();
    let template = make_template(folder.path());
    for config in settings() {
        let new = fail_each_call(None, &config, action);
        let old = fail_each_call(Some(&template), &config, action);
        println!("{action:?}: {new} runs with a new file, {old} with an old one");
        assert!(new > 50 && old > 50, "the shim does not see the calls");
    }
}

/// Runs the script, saying what was believed, until the shim kills this process.
fn die() {
    let path = PathBuf::from(variable("SEEN_PATH"));
    let nth = variable("SEEN_NTH").parse().unwrap();
    let [config, _] = settings();
    let mut believer = Believer::new(false);
    if !path.exists() {
        believer.beliefs.clear();
    }
    believer.tell = |line| say(line);
    let _faults = Faults::on(path.parent().unwrap(), None, "", Action::Kill, nth);
    believer.live(&path, config).unwrap();
    say("survived");
}

/// Kills a child at its nth call, for every n; how many children there were.
fn kill_at_each_call(prepare: impl Fn(&Path), check: impl Fn(&Path, &SeenStore)) -> u32 {
    let [config, _] = settings();
    for nth in 1.. {
        assert!(nth < 3_000, "the script never survives");
        let (_folder, path) = new_file();
        prepare(&path);
        let variables = [("SEEN_PATH", path.to_str().unwrap()), ("SEEN_NTH", &nth.to_string())];
        let mut child = Child::spawn("die", &variables);
        let said: Vec<_> = std::iter::from_fn(|| child.hear()).collect();
        let store = SeenStore::open_with(&path, config.clone())
            .unwrap_or_else(|e| panic!("killed at call {nth}: {e:?}"));
        let beliefs: BTreeMap<_, _> = said
            .iter()
            .filter_map(|line| line.split_once(' '))
            .map(|(belief, id)| (id, belief == "Seen"))
            .collect();
        for (at, (id, believed)) in beliefs.iter().enumerate() {
            // The call under way when the kill came may have been done: only forgets matter here.
            let pending_forget = matches!(*id, "new" | "batch-7") && *believed;
            let seen = store.try_is_seen(id).unwrap();
            assert!(
                seen == *believed || pending_forget,
                "killed at call {nth}: {id} ({at}) is {seen}, believed {believed}"
            );
        }
        let report = store.verify().unwrap();
        assert!(report.is_ok(), "killed at call {nth}: {report:?}");
        check(&path, &store);
        if said.last().is_some_and(|line| line == "survived") {
            return nth;
        }
    }
    unreachable!()
}

#[test]
fn whichever_call_of_a_first_run_a_kill_comes_at_the_file_opens_with_all_that_was_acknowledged() {
    let children = kill_at_each_call(|_| {}, |_, _| {});
    println!("{children} children");
}

#[test]
fn whichever_call_of_an_upgrade_a_kill_comes_at_the_file_opens_with_all_rows() {
    let prepare = |path: &Path| {
        let seed = Connection::open(path).unwrap();
        let rows = "CREATE TABLE seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL);
             INSERT INTO seen VALUES ('old', 1577836800), ('refreshed', 1577836801)";
        seed.execute_batch(rows).unwrap();
    };
    let children = kill_at_each_call(prepare, |path, store| {
        assert!(store.try_is_seen("old").unwrap() && store.try_is_seen("refreshed").unwrap());
        let path_of_copy = path.with_extension("db.v0.bak");
        let copy = Connection::open(&path_of_copy).unwrap();
        let rows = copy.query_row("SELECT count(*) FROM seen", [], |row| row.get(0));
        assert_eq!(rows, Ok(2_i64), "the copy that was made first");
        let names = std::os::unix::fs::MetadataExt::nlink(&path_of_copy.metadata().unwrap());
        assert_eq!(names, 1, "a file with two names would be refused");
    });
    println!("{children} children");
}
