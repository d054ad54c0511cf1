//! Backups, and restores in place: the file goes back to an earlier history under the open stores.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use crate::run::Run;

impl Run {
    fn backup_path(&self) -> PathBuf {
        self.place.folder().join("backup.db")
    }

    pub(crate) fn backup(&mut self, store: usize) {
        let path = self.backup_path();
        if self.backup.is_some() {
            std::fs::remove_file(&path).unwrap();
        }
        self.store(store).backup(path).unwrap();
        self.backup = Some(self.model.names.clone());
    }

    /// Puts the last backup back in place, as `.restore` of the sqlite3 shell does. No store is told.
    pub(crate) fn restore(&mut self) {
        let Some(names) = self.backup.clone() else { return };
        self.end_listing(); // What was a claim and is one again has its place behind the listing's.
        let source = Connection::open(self.backup_path()).unwrap();
        let mut target = self.place.sql();
        let restore = Backup::new(&source, &mut target).unwrap();
        restore.run_to_completion(1_000, Duration::ZERO, None).unwrap();
        self.model.restored(names);
        self.clocks.forget_what_was_heard();
    }
}
