//! The layer between SQLite and the operating system. It wraps the default unix VFS and takes its place.
//!
//! Which calls fail is decided by the folder of the file, so that tests run side by side.
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
