//! The verbs of maintenance for tasks. All but a few are long calls.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;

use super::AsyncSeenStore;
use super::blocking::blocking;
use crate::entry::{Entry, Filter};
use crate::error::Result;
use crate::format::pragmas::Pragmas;
use crate::format::upgrade::UpgradeReport;
use crate::journal::IntegrityReport;
use crate::store::{RestoreSummary, SeenStore, Stats};

impl AsyncSeenStore {
    /// Removes everything that has expired: see [`SeenStore::purge_expired`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn purge_expired(&self) -> Result<u64> {
        self.long(SeenStore::purge_expired).await
    }

    /// Removes old entries of this handle's scope: see [`SeenStore::cleanup_old_entries`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn cleanup_old_entries(&self, older_than: Duration) -> Result<u64> {
        self.long(move |store| store.cleanup_old_entries(older_than)).await
    }

    /// Returns the number of marks that [`purge_expired`](Self::purge_expired) would remove: see
    /// [`SeenStore::count_expired`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn count_expired(&self) -> Result<u64> {
        self.long(SeenStore::count_expired).await
    }

    /// Returns the number of entries that [`cleanup_old_entries`](Self::cleanup_old_entries) would remove: see
    /// [`SeenStore::count_old_entries`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn count_old_entries(&self, older_than: Duration) -> Result<u64> {
        self.long(move |store| store.count_old_entries(older_than)).await
    }

    /// Forgets all ids of this handle's scope: see [`SeenStore::forget_scope`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn forget_scope(&self) -> Result<u64> {
        self.long(SeenStore::forget_scope).await
    }

    /// Removes the entries that the filter selects: see [`SeenStore::remove`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn remove(&self, filter: Filter) -> Result<u64> {
        self.long(|store| store.remove(filter)).await
    }

    /// Returns the number of entries that [`remove`](Self::remove) would remove: see [`SeenStore::count`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn count(&self, filter: Filter) -> Result<u64> {
        self.long(|store| store.count(filter)).await
    }

    /// Shrinks the file: see [`SeenStore::compact`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::compact`].
    pub async fn compact(&self) -> Result<()> {
        self.long(SeenStore::compact).await
    }

    /// Returns whether this open made the store: see [`SeenStore::was_created`].
    pub fn was_created(&self) -> bool {
        self.store.was_created()
    }

    /// Returns what the upgrade at opening did with a file of the older format: see [`SeenStore::upgrade_report`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::upgrade_report`].
    pub async fn upgrade_report(&self) -> Result<Option<UpgradeReport>> {
        self.look(SeenStore::upgrade_report).await
    }

    /// Returns the figures of the store at this moment: see [`SeenStore::stats`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn stats(&self) -> Result<Stats> {
        self.long(SeenStore::stats).await
    }

    /// Returns the SQLite settings in use: see [`SeenStore::pragmas`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn pragmas(&self) -> Result<Pragmas> {
        self.look(SeenStore::pragmas).await
    }

    /// Checks the file and the index: see [`SeenStore::verify`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn verify(&self) -> Result<IntegrityReport> {
        self.long(SeenStore::verify).await
    }

    /// Copies the store to a new file: see [`SeenStore::backup`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::backup`].
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref().to_owned();
        self.long(|store| store.backup(path)).await
    }

    /// Copies the store, and puts the copy in the place of an earlier backup: see [`SeenStore::replace_backup`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::replace_backup`].
    pub async fn replace_backup(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref().to_owned();
        self.long(|store| store.replace_backup(path)).await
    }

    /// Replaces the store at `path`, which must be closed, by a backup: see [`SeenStore::replace_with_backup`]. Needs a
    /// Tokio runtime.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::replace_with_backup`].
    pub async fn replace_with_backup(
        path: impl AsRef<Path>,
        backup: impl AsRef<Path>,
    ) -> Result<Option<PathBuf>> {
        let (path, backup) = (path.as_ref().to_owned(), backup.as_ref().to_owned());
        blocking(|| SeenStore::replace_with_backup(path, backup))?.await
    }

    /// Restores entries as [`entries`](Self::entries) listed them: see [`SeenStore::restore`]. The iterator runs on a
    /// thread for blocking work.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::restore`].
    pub async fn restore<I>(&self, entries: I) -> Result<RestoreSummary>
    where
        I: IntoIterator<Item = Entry> + Send + 'static,
    {
        self.long(|store| store.restore(entries)).await
    }

    /// Announces that a program uses this handle's scope: see [`SeenStore::announce`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::announce`].
    pub async fn announce(&self, name: &str) -> Result<Vec<String>> {
        let name = name.to_owned();
        self.long(move |store| store.announce(&name)).await
    }

    /// Returns the names that programs have announced for this handle's scope: see [`SeenStore::announced`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn announced(&self) -> Result<Vec<String>> {
        self.look(SeenStore::announced).await
    }

    /// Copies the write-ahead log into the file: see [`SeenStore::checkpoint`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::checkpoint`].
    pub async fn checkpoint(&self) -> Result<()> {
        self.long(SeenStore::checkpoint).await
    }

    /// Does the small calls that are in the queue, and then closes the store for all of its handles: see
    /// [`SeenStore::close`]. Calls that wait for a place in the queue, and calls that come later, fail with
    /// [`Closed`](crate::ErrorKind::Closed), except that claims can be ended until the queue is empty, also by dropping
    /// their leases. Long calls that run find the store closed at their next step. Carried on when its future is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::close`].
    pub async fn close(&self) -> Result<()> {
        let (told, closed) = oneshot::channel();
        self.tasks.close(|outcome| drop(told.send(outcome)));
        self.answer(closed).await
    }
}
