//! A look at the time in the file, beside the stores and without the simulated file system.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

/// Reads the time in the file beside the stores, while one is open and none is closing: it must not be the
/// last that closes.
#[derive(Default)]
pub struct Observer {
    connection: Mutex<Option<Connection>>,
    may_look: AtomicBool,
}

impl Observer {
    pub fn look_at(&self, path: &Path) -> Option<i64> {
        if !self.may_look.load(SeqCst) {
            return None;
        }
        let mut connection = self.connection.lock();
        if connection.is_none() {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let opened = Connection::open_with_flags_and_vfs(path, flags, "unix").ok()?;
            // One store has the file for itself: this waits in real time.
            opened.busy_timeout(Duration::ZERO).ok()?;
            *connection = Some(opened);
        }
        let connection = connection.as_ref()?;
        let select = "SELECT value FROM meta WHERE key = 'clock'";
        connection.prepare_cached(select).ok()?.query_row([], |row| row.get(0)).optional().ok()?
    }

    pub fn leave(&self) {
        self.may_look.store(false, SeqCst);
        *self.connection.lock() = None;
    }

    pub fn come_back(&self) {
        self.may_look.store(true, SeqCst);
    }
}
