//! RocksDB, a log-structured merge tree, through its C interface.
//!
//! Declared here by hand: these few functions have been the same for many years, so that whichever
//! version is installed will do, without a generator or a build of hundreds of C++ files.
//!
//! Durability: a write is in the write-ahead log, written to the operating system, before it returns:
//! that survives a killed process. With `sync` it is synced too, once for all that wait together.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};

use harness::{Contender, Durability, Locks, Plan, Report, Result, Worker};

type Handle = *mut c_void;

unsafe extern "C" {
    fn rocksdb_options_create() -> Handle;
    fn rocksdb_options_destroy(options: Handle);
    fn rocksdb_options_set_create_if_missing(options: Handle, on: c_uchar);
    fn rocksdb_options_increase_parallelism(options: Handle, threads: c_int);
    fn rocksdb_options_optimize_for_point_lookup(options: Handle, cache_mib: u64);
    fn rocksdb_options_set_compression(options: Handle, compression: c_int);
    fn rocksdb_options_set_enable_pipelined_write(options: Handle, on: c_uchar);
    fn rocksdb_open(options: Handle, path: *const c_char, error: *mut *mut c_char) -> Handle;
    fn rocksdb_close(db: Handle);
    fn rocksdb_writeoptions_create() -> Handle;
    fn rocksdb_writeoptions_destroy(options: Handle);
    fn rocksdb_writeoptions_set_sync(options: Handle, on: c_uchar);
    fn rocksdb_readoptions_create() -> Handle;
    fn rocksdb_readoptions_destroy(options: Handle);
    fn rocksdb_get_pinned(
        db: Handle,
        options: Handle,
        key: *const c_char,
        key_bytes: usize,
        error: *mut *mut c_char,
    ) -> Handle;
    fn rocksdb_pinnableslice_value(slice: Handle, bytes: *mut usize) -> *const c_char;
    fn rocksdb_pinnableslice_destroy(slice: Handle);
    fn rocksdb_put(
        db: Handle,
        options: Handle,
        key: *const c_char,
        key_bytes: usize,
        value: *const c_char,
        value_bytes: usize,
        error: *mut *mut c_char,
    );
    fn rocksdb_writebatch_create() -> Handle;
    fn rocksdb_writebatch_destroy(batch: Handle);
    fn rocksdb_writebatch_put(
        batch: Handle,
        key: *const c_char,
        key_bytes: usize,
        value: *const c_char,
        value_bytes: usize,
    );
    fn rocksdb_write(db: Handle, options: Handle, batch: Handle, error: *mut *mut c_char);
    fn rocksdb_compact_range(
        db: Handle,
        first: *const c_char,
        first_bytes: usize,
        last: *const c_char,
        last_bytes: usize,
    );
    fn rocksdb_free(memory: *mut c_void);
}

/// `kNoCompression`: the ids do not repeat themselves enough to be worth the time.
const NO_COMPRESSION: c_int = 0;

pub(crate) struct Rocks {
    db: Handle,
    reading: Handle,
    writing: Handle,
    locks: Locks,
    durability: Durability,
}

// SAFETY: RocksDB's handles of a database and of options that no longer change are for any thread.
unsafe impl Sync for Rocks {}

/// What a call left in its error argument.
fn check(error: *mut c_char) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: RocksDB gives a terminated string, which is the caller's to free.
    let message = unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        rocksdb_free(error.cast());
        message
    };
    Err(message.into())
}

impl Contender for Rocks {
    fn open(plan: &Plan) -> Result<Self> {
        let folder = CString::new(plan.dir.join("rocksdb").as_os_str().as_bytes())?;
        let threads = std::thread::available_parallelism()?.get();
        let sync = plan.durability == Durability::Power;
        let mut error = null_mut();
        // SAFETY: every handle is used as its kind and freed once; the path outlives the call.
        let rocks = unsafe {
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            rocksdb_options_increase_parallelism(options, c_int::try_from(threads)?);
            // Bloom filters, a hash index in the blocks, and this much cache.
            rocksdb_options_optimize_for_point_lookup(options, u64::from(crate::CACHE_BYTES >> 20));
            rocksdb_options_set_compression(options, NO_COMPRESSION);
            rocksdb_options_set_enable_pipelined_write(options, 1);
            let db = rocksdb_open(options, folder.as_ptr(), &raw mut error);
            rocksdb_options_destroy(options);
            check(error)?;
            let writing = rocksdb_writeoptions_create();
            rocksdb_writeoptions_set_sync(writing, sync.into());
            let reading = rocksdb_readoptions_create();
            Self { db, reading, writing, locks: Locks::default(), durability: plan.durability }
        };
        Ok(rocks)
    }

    fn report(&self) -> Report {
        Report {
            version: format!("RocksDB {}", env!("ROCKSDB_VERSION")),
            settings: format!(
                "write-ahead log, sync {}, optimised for point lookups (Bloom filters, 512 MiB cache), \
                 no compression, pipelined writes; get and put under a lock a group of ids",
                if self.durability == Durability::Power { "on" } else { "off" }
            ),
        }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(self))
    }

    fn settle(&self) -> Result<()> {
        // SAFETY: the handle is open; no bounds means everything.
        unsafe { rocksdb_compact_range(self.db, null(), 0, null(), 0) };
        Ok(())
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        // SAFETY: the handles are not used after this.
        unsafe {
            rocksdb_readoptions_destroy(self.reading);
            rocksdb_writeoptions_destroy(self.writing);
            rocksdb_close(self.db);
        }
    }
}

impl Rocks {
    fn holds(&self, id: &str) -> Result<bool> {
        let mut error = null_mut();
        // SAFETY: the key outlives the call; the value lives as long as its slice.
        unsafe {
            let key = id.as_ptr().cast();
            let slice = rocksdb_get_pinned(self.db, self.reading, key, id.len(), &raw mut error);
            check(error)?;
            if slice.is_null() {
                return Ok(false);
            }
            let mut bytes = 0;
            let value: *const u8 = rocksdb_pinnableslice_value(slice, &raw mut bytes).cast();
            let live = crate::is_live(std::slice::from_raw_parts(value, bytes));
            rocksdb_pinnableslice_destroy(slice);
            Ok(live)
        }
    }
}

impl Worker for &Rocks {
    fn test_and_set(&mut self, id: &str, likely_new: bool) -> Result<bool> {
        if !likely_new && self.holds(id)? {
            return Ok(false);
        }
        let _lock = self.locks.one(id);
        if self.holds(id)? {
            return Ok(false);
        }
        let (key, value) = (id.as_ptr().cast(), crate::expiry());
        let mut error = null_mut();
        // SAFETY: key and value outlive the call.
        unsafe {
            let value = (value.as_ptr().cast(), value.len());
            rocksdb_put(self.db, self.writing, key, id.len(), value.0, value.1, &raw mut error);
        }
        check(error)?;
        Ok(true)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        let _lock = self.locks.all();
        let mut error = null_mut();
        let mut new = 0;
        // SAFETY: the batch copies what is put into it and is freed once.
        unsafe {
            let batch = rocksdb_writebatch_create();
            for id in ids {
                if !self.holds(id)? {
                    let value = crate::expiry();
                    let (key, bytes) = (id.as_ptr().cast(), value.as_ptr().cast());
                    rocksdb_writebatch_put(batch, key, id.len(), bytes, value.len());
                    new += 1;
                }
            }
            rocksdb_write(self.db, self.writing, batch, &raw mut error);
            rocksdb_writebatch_destroy(batch);
        }
        check(error)?;
        Ok(new)
    }
}
