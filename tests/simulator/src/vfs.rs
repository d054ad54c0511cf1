//! The file system of the simulated stores: SQLite's own, with a choice before each system call.
//!
//! Owns the calls that a process has made, the faults that it is to meet, and what a killed one leaves
//! behind. What always holds: a call of a process that is dying changes nothing but what the kernel does for
//! it too, which is letting go of its locks; the shared memory of the log's index is afterwards what it was
//! when the process died. Knows nothing of stores.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::size_of;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rusqlite::ffi;
use seen_store::Machine;

use crate::scheduler::Scheduler;

/// What a process meets at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this code of SQLite's, as do all until the fault is lifted if it is `lasting`.
    Fails {
        code: c_int,
        lasting: bool,
    },
    Killed,
}

/// What is to happen to a process.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// After how many more system calls, and what.
    planned: Option<(u32, Fault)>,
    calls: u64,
    /// How many of its calls have failed.
    failed: u64,
}

/// A region of shared memory that connections of this process have mapped.
#[derive(Clone, Copy)]
struct Region {
    number: c_int,
    start: *mut u8,
    bytes: usize,
}

#[derive(Default)]
struct Disk {
    fates: Vec<Fate>,
    regions: Vec<Region>,
    /// How many connections have mapped regions.
    mapped: usize,
    /// The regions as they were when the dying process died.
    snapshot: Vec<(Region, Vec<u8>)>,
}

// SAFETY: regions are touched only by the actor whose turn it is.
unsafe impl Send for Disk {}

static DISK: Mutex<Option<Disk>> = Mutex::new(None);
static mut SCHEDULER: Option<&'static Scheduler> = None;
static STORE: OnceLock<CString> = OnceLock::new();
static mut REAL: *mut ffi::sqlite3_vfs = ptr::null_mut();

pub fn scheduler() -> &'static Scheduler {
    // SAFETY: written once, before the first file is opened.
    unsafe { SCHEDULER.expect("the file system was mounted") }
}

fn with_disk<T>(act: impl FnOnce(&mut Disk) -> T) -> T {
    act(DISK.lock().as_mut().expect("the file system was mounted"))
}

/// Kinds of calls, with what each fails with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Open,
    Delete,
    Read,
    Write,
    Truncate,
    Sync,
    Size,
    Lock,
    Map,
    MapLock,
}

impl Call {
    /// The code with which this call fails when its process is dead, or met a fault of that kind.
    fn error(self, code: c_int) -> c_int {
        match (self, code) {
            (Call::Write, ffi::SQLITE_FULL) => ffi::SQLITE_FULL,
            (Call::Open, _) => ffi::SQLITE_CANTOPEN,
            (Call::Delete, _) => ffi::SQLITE_IOERR_DELETE,
            (Call::Read, _) => ffi::SQLITE_IOERR_READ,
            (Call::Write, _) => ffi::SQLITE_IOERR_WRITE,
            (Call::Truncate, _) => ffi::SQLITE_IOERR_TRUNCATE,
            (Call::Sync, _) => ffi::SQLITE_IOERR_FSYNC,
            (Call::Size, _) => ffi::SQLITE_IOERR_FSTAT,
            (Call::Lock, _) => ffi::SQLITE_IOERR_LOCK,
            (Call::Map, _) => ffi::SQLITE_IOERR_SHMMAP,
            (Call::MapLock, _) => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }

    /// A full disk stops what makes a file longer, a disk that loses writes what syncs, and nothing else.
    fn meets(self, code: c_int) -> bool {
        match code {
            ffi::SQLITE_FULL => self == Call::Write,
            ffi::SQLITE_IOERR_FSYNC => self == Call::Sync,
            _ => true,
        }
    }
}

/// A call that is not made.
struct Stopped {
    /// What it answers instead.
    code: c_int,
    /// Whether this very call met a fault; its process may have been dead before.
    now: bool,
}

/// Comes before each call: other processes may go on, and this one may meet its fate.
fn before(call: Call) -> Result<(), Stopped> {
    let scheduler = scheduler();
    let Some(process) = scheduler.process_of_thread() else { return Ok(()) };
    if scheduler.dying() == Some(process) {
        return Err(Stopped { code: call.error(ffi::SQLITE_IOERR), now: false });
    }
    scheduler.step();
    // Another thread of the process may have met its end meanwhile.
    if scheduler.dying() == Some(process) {
        return Err(Stopped { code: call.error(ffi::SQLITE_IOERR), now: false });
    }
    let met = with_disk(|disk| {
        let fate = &mut disk.fates[process];
        fate.calls += 1;
        let (left, fault) = fate.planned.as_mut()?;
        if let Fault::Fails { code, .. } = fault
            && !call.meets(*code)
        {
            return None;
        }
        if *left > 0 {
            *left -= 1;
            return None;
        }
        let met = *fault;
        if met == Fault::Killed || matches!(met, Fault::Fails { lasting: false, .. }) {
            fate.planned = None;
        }
        fate.failed += 1;
        Some(met)
    });
    match met {
        None => Ok(()),
        Some(Fault::Fails { code, .. }) => {
            scheduler.note(code as u64);
            Err(Stopped { code: call.error(code), now: true })
        }
        Some(Fault::Killed) => {
            kill(process);
            Err(Stopped { code: call.error(ffi::SQLITE_IOERR), now: true })
        }
    }
}

/// Kills the process at this moment. It must be buried before anything else happens.
pub fn kill(process: usize) {
    with_disk(|disk| {
        disk.fates[process].planned = None;
        disk.snapshot = disk
            .regions
            .iter()
            .map(|region| {
                // SAFETY: mapped, see `Disk::regions`.
                let bytes = unsafe { std::slice::from_raw_parts(region.start, region.bytes) };
                (*region, bytes.to_vec())
            })
            .collect();
    });
    scheduler().begin_dying(process);
}

/// The process has ended: what it did to shared memory since it died is undone.
pub fn bury() {
    with_disk(|disk| {
        for (region, bytes) in disk.snapshot.drain(..) {
            let is_mapped = disk.regions.iter().any(|now| now.start == region.start);
            if is_mapped {
                // SAFETY: mapped, and as long.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), region.start, bytes.len()) };
            }
        }
    });
    scheduler().end_dying();
}

pub fn plan(process: usize, after_calls: u32, fault: Fault) {
    with_disk(|disk| disk.fates[process].planned = Some((after_calls, fault)));
}

/// The same for the process of the calling thread, in the midst of an operation.
pub fn plan_here(after_calls: u32, fault: Fault) {
    plan(scheduler().process_of_thread().expect("an actor"), after_calls, fault);
}

/// Nothing more is to happen to the process.
pub fn spare(process: usize) {
    with_disk(|disk| disk.fates[process].planned = None);
}

/// How many calls of the process have failed so far.
pub fn failed(process: usize) -> u64 {
    with_disk(|disk| disk.fates[process].failed)
}

pub fn calls() -> u64 {
    with_disk(|disk| disk.fates.iter().map(|fate| fate.calls).sum())
}

/// A file of this file system; the real one follows it in memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// Whether it is the store's, and not a copy of it.
    is_store: bool,
    mapped: bool,
}

const REAL_AT: usize = size_of::<File>().next_multiple_of(16);

unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    unsafe { file.cast::<u8>().add(REAL_AT).cast() }
}

/// Calls a method of the real file.
macro_rules! on_real {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let real = real($file);
        ((*(*real).pMethods).$method.expect("the unix file system has it"))(real $(, $argument)*)
    }};
}

macro_rules! after {
    ($call:expr) => {
        if let Err(stopped) = before($call) {
            return stopped.code;
        }
    };
}

/// Whether the call is one of a process that is dying.
fn is_dead() -> bool {
    let scheduler = scheduler();
    scheduler.dying().is_some() && scheduler.dying() == scheduler.process_of_thread()
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe { on_real!(file, xClose) }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    after!(Call::Read);
    unsafe { on_real!(file, xRead, to, bytes, at) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    if let Err(stopped) = before(Call::Write) {
        // A part of it may have been written.
        if stopped.now && scheduler().chance(2) {
            unsafe { on_real!(file, xWrite, from, bytes / 2, at) };
        }
        return stopped.code;
    }
    unsafe { on_real!(file, xWrite, from, bytes, at) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: i64) -> c_int {
    after!(Call::Truncate);
    unsafe { on_real!(file, xTruncate, bytes) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    after!(Call::Sync);
    unsafe { on_real!(file, xSync, flags) }
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, bytes: *mut i64) -> c_int {
    after!(Call::Size);
    unsafe { on_real!(file, xFileSize, bytes) }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    after!(Call::Lock);
    unsafe { on_real!(file, xLock, level) }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    unsafe { on_real!(file, xUnlock, level) }
}

unsafe extern "C" fn is_reserved(file: *mut ffi::sqlite3_file, answer: *mut c_int) -> c_int {
    unsafe { on_real!(file, xCheckReservedLock, answer) }
}

unsafe extern "C" fn control(
    file: *mut ffi::sqlite3_file,
    what: c_int,
    argument: *mut c_void,
) -> c_int {
    unsafe { on_real!(file, xFileControl, what, argument) }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe { on_real!(file, xSectorSize) }
}

unsafe extern "C" fn characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe { on_real!(file, xDeviceCharacteristics) }
}

unsafe extern "C" fn map(
    file: *mut ffi::sqlite3_file,
    number: c_int,
    bytes: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    after!(Call::Map);
    unsafe {
        let done = on_real!(file, xShmMap, number, bytes, extend, to);
        let this = file.cast::<File>();
        with_disk(|disk| {
            if done != ffi::SQLITE_OK || !(*this).is_store {
                return;
            }
            if !(*this).mapped {
                (*this).mapped = true;
                disk.mapped += 1;
            }
            let is_new =
                !(*to).is_null() && disk.regions.iter().all(|known| known.number != number);
            if is_new {
                disk.regions.push(Region { number, start: (*to).cast(), bytes: bytes as usize });
            }
        });
        done
    }
}

unsafe extern "C" fn map_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    if flags & ffi::SQLITE_SHM_UNLOCK == 0 {
        after!(Call::MapLock);
    }
    unsafe { on_real!(file, xShmLock, first, count, flags) }
}

unsafe extern "C" fn barrier(file: *mut ffi::sqlite3_file) {
    unsafe { on_real!(file, xShmBarrier) }
}

unsafe extern "C" fn unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    let delete = if is_dead() { 0 } else { delete };
    unsafe {
        let this = file.cast::<File>();
        with_disk(|disk| {
            if std::mem::take(&mut (*this).mapped) {
                disk.mapped -= 1;
                if disk.mapped == 0 {
                    disk.regions.clear();
                }
            }
        });
        on_real!(file, xShmUnmap, delete)
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map),
    xShmLock: Some(map_lock),
    xShmBarrier: Some(barrier),
    xShmUnmap: Some(unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    unsafe {
        (*file).pMethods = ptr::null();
        after!(Call::Open);
        let real_file = real(file);
        (*real_file).pMethods = ptr::null();
        let done = ((*REAL).xOpen.expect("a method"))(REAL, name, real_file, flags, out_flags);
        let this = file.cast::<File>();
        (*this).mapped = false;
        (*this).is_store =
            !name.is_null() && STORE.get().map(AsRef::as_ref) == Some(CStr::from_ptr(name));
        if !(*real_file).pMethods.is_null() {
            (*file).pMethods = &raw const METHODS;
        }
        done
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    after!(Call::Delete);
    unsafe { ((*REAL).xDelete.expect("a method"))(REAL, name, sync) }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    unsafe { ((*REAL).xAccess.expect("a method"))(REAL, name, flags, answer) }
}

unsafe extern "C" fn full_name(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    bytes: c_int,
    to: *mut c_char,
) -> c_int {
    unsafe { ((*REAL).xFullPathname.expect("a method"))(REAL, name, bytes, to) }
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, bytes: c_int, to: *mut c_char) -> c_int {
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), bytes as usize) };
    scheduler().fill_random(to);
    bytes
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    let time = std::time::Duration::from_micros(micros.cast_unsigned().into());
    scheduler().wait(&|| false, Some(scheduler().elapsed() + time));
    micros
}

unsafe extern "C" fn time(_: *mut ffi::sqlite3_vfs, to: *mut f64) -> c_int {
    unsafe { ((*REAL).xCurrentTime.expect("a method"))(REAL, to) }
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, bytes: c_int, to: *mut c_char) -> c_int {
    unsafe { ((*REAL).xGetLastError.expect("a method"))(REAL, bytes, to) }
}

/// Makes this the file system of every connection from now on. `store` is the path of the stores' file.
pub fn mount(scheduler: &'static Scheduler, processes: usize, store: &Path) {
    *DISK.lock() = Some(Disk { fates: vec![Fate::default(); processes + 1], ..Disk::default() });
    const NAME: &CStr = c"simulated";
    // SAFETY: before any connection is opened; what is registered is never freed.
    unsafe {
        SCHEDULER = Some(scheduler);
        let store = CString::new(store.as_os_str().as_encoded_bytes()).expect("no NUL");
        STORE.set(store).expect("mounted once");
        assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
        REAL = ffi::sqlite3_vfs_find(c"unix".as_ptr());
        assert!(!REAL.is_null(), "SQLite has no file system named unix");
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 1,
            szOsFile: c_int::try_from(REAL_AT).unwrap() + (*REAL).szOsFile,
            mxPathname: (*REAL).mxPathname,
            pNext: ptr::null_mut(),
            zName: NAME.as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_name),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: None,
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        assert_eq!(ffi::sqlite3_vfs_register(vfs, 1), ffi::SQLITE_OK);
    }
}
