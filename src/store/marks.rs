//! The verbs of marks: look up, mark, check, seed, forget.
//!
//! Owns the order of steps for one id, or for each id of a batch, under the write lock.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::SeenStore;
use crate::clock::to_ms;
use crate::config::Window;
use crate::decide::mark;
use crate::error::Result;
use crate::id::Id;
use crate::index::Slot;
use crate::journal::Transaction;

/// The answer of [`check_and_mark`](crate::SeenStore::check_and_mark).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[must_use = "a verdict says whether to act; marking without looking at it is `mark_seen`"]
#[non_exhaustive]
pub enum Verdict {
    /// Not seen before, or expired since. It is marked now, and this caller is the one that handles it.
    New,
    /// Seen before, by any caller. Nothing was changed.
    Duplicate,
    /// Claimed by a worker that has neither confirmed nor returned it, or waiting to be
    /// [resolved](crate::SeenStore::resolve). Nothing was changed.
    InFlight,
}

impl fmt::Display for Verdict {
    /// Writes `new`, `duplicate` or `in-flight`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::InFlight => "in-flight",
        })
    }
}

impl SeenStore {
    /// Returns true when the id was marked and has not expired. **Returns false on any error**, which is
    /// logged and counted in [`stats`](Self::stats): a repeated alert is better than a lost one. Use
    /// [`try_is_seen`](Self::try_is_seen) to tell an error from "not seen".
    ///
    /// To ask first and mark later is a race between workers: [`check_and_mark`](Self::check_and_mark) does
    /// both in one step.
    ///
    /// A hit costs a lookup in memory, 0.15 to 0.4 µs. A miss also asks the file whether another process has
    /// marked something since, about 1 µs more, except in [exclusive](crate::Config::exclusive) mode.
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// assert!(!store.is_seen("incident-17"));
    /// store.mark_seen("incident-17")?;
    /// assert!(store.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    pub fn is_seen(&self, id: impl AsRef<[u8]>) -> bool {
        self.try_is_seen(id).unwrap_or_else(|e| {
            self.engine.failed_open.fetch_add(1, Relaxed);
            log::warn!("{}: answering \"not seen\" because of an error: {e}", self.engine.name);
            false
        })
    }

    /// Returns true when the id was marked and has not expired, like [`is_seen`](Self::is_seen), but returns
    /// errors.
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// assert!(!store.try_is_seen("incident-17")?);
    /// assert!(store.try_is_seen("").is_err()); // an empty id
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`InvalidId`](crate::ErrorKind::InvalidId) for an id or a scope of a length that is not allowed;
    /// - [`Closed`](crate::ErrorKind::Closed) after [`close`](Self::close);
    /// - [`Busy`](crate::ErrorKind::Busy) when another process held the file for longer than the busy
    ///   timeout;
    /// - [`Io`](crate::ErrorKind::Io) or [`PermissionDenied`](crate::ErrorKind::PermissionDenied) when the
    ///   file cannot be read, [`Corrupt`](crate::ErrorKind::Corrupt) when it is damaged,
    ///   [`FileReplaced`](crate::ErrorKind::FileReplaced) when it is no longer the one that was opened;
    /// - [`Forked`](crate::ErrorKind::Forked) in a child that was forked while a store or a reader was open.
    pub fn try_is_seen(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        Ok(self.engine.live(id.key)?.is_some())
    }

    /// Marks the id as seen now. A mark that exists is refreshed: its expiry moves later, never earlier.
    ///
    /// Call it *after* the send: an id that is marked before a send that then fails is lost. Where several
    /// workers may send the same id, use [`check_and_mark`](Self::check_and_mark) or [`claim`](Self::claim).
    ///
    /// One commit, about 6 µs; with [`Synchronous::Full`](crate::Synchronous::Full) one fsync.
    ///
    /// ```
    /// # fn send() {}
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// if !store.is_seen("incident-17") {
    ///     send();
    ///     store.mark_seen("incident-17")?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When this fails, nothing was marked.
    ///
    /// - [`InvalidId`](crate::ErrorKind::InvalidId) for an id or a scope of a length that is not allowed;
    /// - [`Busy`](crate::ErrorKind::Busy) when another process held the file for longer than the busy
    ///   timeout, and [`StorageFull`](crate::ErrorKind::StorageFull) when the disk is full: both may be tried
    ///   again;
    /// - [`ReadOnly`](crate::ErrorKind::ReadOnly) when the store or its file system is read-only;
    /// - [`FileReplaced`](crate::ErrorKind::FileReplaced) when the file is no longer the one that was opened;
    /// - [`Io`](crate::ErrorKind::Io) when the operating system fails a call,
    ///   [`Corrupt`](crate::ErrorKind::Corrupt) when the file is damaged;
    /// - [`Closed`](crate::ErrorKind::Closed) after [`close`](Self::close);
    /// - [`Forked`](crate::ErrorKind::Forked) in a child that was forked while a store or a reader was open.
    pub fn mark_seen(&self, id: impl AsRef<[u8]>) -> Result<()> {
        let id = self.scope.id(id.as_ref())?;
        self.write_one(id, |store, transaction, id| {
            store.mark(transaction, id, transaction.now_ms).map(drop)
        })
    }

    /// Marks the id as seen at `seen_at`. The mark expires one TTL after that, which may be at once.
    ///
    /// On a mark that lives, it moves `first_seen` only back, and `last_seen` and the expiry only forward.
    /// The mark of an id that a worker has claimed lasts at least until the lease ends. A mark of such an id
    /// that would expire at once is not made, and the claim stays.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen).
    pub fn mark_seen_at(&self, id: impl AsRef<[u8]>, seen_at: SystemTime) -> Result<()> {
        let id = self.scope.id(id.as_ref())?;
        let seen_at_ms = to_ms(seen_at);
        self.write_one(id, move |store, transaction, id| {
            store.mark(transaction, id, seen_at_ms).map(drop)
        })
    }

    /// Returns when the mark of a live id expires if the id is seen at `seen_at_ms`, by this handle's
    /// lifetime.
    fn expiry_after(
        &self,
        transaction: &mut Transaction<'_>,
        old: Slot,
        seen_at_ms: i64,
    ) -> Result<Option<i64>> {
        let first_ms = match self.lifetime.window {
            Window::Sliding { max_age: Some(_) } => {
                transaction.row(old)?.map_or(seen_at_ms, |row| row.first_seen.min(seen_at_ms))
            }
            _ => seen_at_ms,
        };
        Ok(self.lifetime.expires_at(seen_at_ms, first_ms))
    }

    /// Marks the id. Returns false when the mark would expire at once beside a claim that binds.
    pub(super) fn mark(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        seen_at_ms: i64,
    ) -> Result<bool> {
        if let Some(old) = transaction.live(id.key)? {
            return self.refresh(transaction, id, old, seen_at_ms).map(|()| true);
        }
        let claim = transaction.claim(id)?;
        let Some(mark) = mark::mark(self.lifetime, claim.as_ref(), seen_at_ms, transaction.now_ms)
        else {
            return Ok(false);
        };
        if claim.is_some() {
            transaction.delete_claim(id)?;
        }
        transaction.append(id, &mark).map(|()| true)
    }

    /// Records that a live id was seen at `seen_at_ms`, within the window's maximum age.
    fn refresh(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        old: Slot,
        seen_at_ms: i64,
    ) -> Result<()> {
        let expires_at = self.expiry_after(transaction, old, seen_at_ms)?;
        transaction.refresh(id, old, seen_at_ms, expires_at)
    }

    /// Marks the id unless it is seen, and returns which it was. Of any number of threads and processes that
    /// call this at the same time, exactly one gets [`Verdict::New`]. A live mark is not extended, except in
    /// a [sliding window](crate::Window::Sliding).
    ///
    /// An id whose attempts failed, even finally, is new. Only the caller that gets `New` handles the id. If it fails to, the id stays marked and no other
    /// caller tries again; use [`claim`](Self::claim) where that matters.
    ///
    /// A duplicate costs a lookup in memory, a new id one commit, as [`mark_seen`](Self::mark_seen).
    ///
    /// ```
    /// use seen_store::Verdict;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// assert_eq!(store.check_and_mark("incident-17")?, Verdict::New);
    /// assert_eq!(store.check_and_mark("incident-17")?, Verdict::Duplicate);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen).
    pub fn check_and_mark(&self, id: impl AsRef<[u8]>) -> Result<Verdict> {
        let id = self.scope.id(id.as_ref())?;
        if self.duplicate_in_index(id)?.is_some() {
            return Ok(Verdict::Duplicate);
        }
        self.write_one(id, Self::check)
    }

    fn check(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<Verdict> {
        if self.record_sighting(transaction, id)?.is_some() {
            return Ok(Verdict::Duplicate);
        }
        let claim = transaction.claim(id)?;
        let Some(mark) = mark::check(self.lifetime, claim.as_ref(), transaction.now_ms) else {
            return Ok(Verdict::InFlight);
        };
        if claim.is_some() {
            transaction.delete_claim(id)?;
        }
        transaction.append(id, &mark)?;
        Ok(Verdict::New)
    }

    /// Returns true when a sighting of a live id extends its mark.
    fn needs_extension(&self, slot: Slot, now_ms: i64) -> Result<bool> {
        if !self.lifetime.wants_later_expiry(slot.expires_at, now_ms) {
            return Ok(false);
        }
        match self.lifetime.window {
            Window::Sliding { max_age: Some(age) } => {
                Ok(!self.engine.is_at_max_age(slot.seq, age)?)
            }
            _ => Ok(true),
        }
    }

    /// Marks those of the ids that are not seen, and returns a verdict for each id, in their order. Of equal
    /// ids the first is the new one.
    ///
    /// One commit for each 10,000 ids, at about 1.2 µs for each id. All ids are validated before the first is
    /// marked.
    ///
    /// ```
    /// use seen_store::Verdict;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// let verdicts = store.check_and_mark_all(["a", "b", "a"])?;
    /// assert_eq!(verdicts, [Verdict::New, Verdict::New, Verdict::Duplicate]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). Up to 10,000 ids are marked all or none. With more, an error
    /// in a later commit leaves the earlier ones marked, and their verdicts are lost. Pass at most 10,000 at
    /// a time where that matters.
    pub fn check_and_mark_all<I>(&self, ids: I) -> Result<Vec<Verdict>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let ids: Vec<_> = ids.into_iter().collect();
        self.decide_in_batches(&ids, Self::check)
    }

    /// Marks all ids and returns the number of those that were not seen before. For the first run on a feed
    /// whose present items are not news. Ids that were claimed count too: they are marked as by
    /// [`mark_seen`](Self::mark_seen), and a holder's confirm still succeeds.
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// assert_eq!(store.seed(["a", "b"])?, 2);
    /// assert_eq!(store.seed(["b", "c"])?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`check_and_mark_all`](Self::check_and_mark_all). Call it again to continue after an error.
    pub fn seed<I>(&self, ids: I) -> Result<u64>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let ids: Vec<_> = ids.into_iter().collect();
        let seeded = self.decide_in_batches(&ids, Self::seed_one)?;
        Ok(seeded.into_iter().filter(|is_new| *is_new).count() as u64)
    }

    /// Marks one id and returns true when it was not seen before.
    fn seed_one(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<bool> {
        if self.record_sighting(transaction, id)?.is_some() {
            return Ok(false);
        }
        self.mark(transaction, id, transaction.now_ms)?;
        Ok(true)
    }

    /// Removes the mark and any claim of the id. Returns true when there was one. Other processes notice
    /// within 100 ms. A worker that had claimed the id gets [`LeaseLost`](crate::ErrorKind::LeaseLost).
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// store.mark_seen("incident-17")?;
    /// assert!(store.forget("incident-17")?);
    /// assert!(!store.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen).
    pub fn forget(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        self.write_one(id, |_, transaction, id| match transaction.live(id.key)? {
            Some(old) => transaction.forget(id, old).map(|()| true),
            None if transaction.claim(id)?.is_some() => transaction.forget_claim(id).map(|()| true),
            None => Ok(false),
        })
    }

    /// Returns the id's mark if the index alone shows that it is seen. Then the duplicate is counted.
    pub(super) fn duplicate_in_index(&self, id: Id<'_>) -> Result<Option<Slot>> {
        // A decision under the write lock catches up first, so a miss need not do so here.
        let now_ms = self.engine.clock.now_ms();
        let Some(slot) = self.engine.live_in_index(id.key, now_ms)? else { return Ok(None) };
        if self.needs_extension(slot, now_ms)? {
            return Ok(None);
        }
        self.engine.count_duplicate(slot.seq)?;
        Ok(Some(slot))
    }

    /// Returns the id's mark if it is live. Then the duplicate is counted, and in a sliding window the mark is
    /// extended.
    pub(super) fn record_sighting(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
    ) -> Result<Option<Slot>> {
        let Some(slot) = transaction.live(id.key)? else { return Ok(None) };
        self.engine.count_duplicate(slot.seq)?;
        if self.needs_extension(slot, transaction.now_ms)? {
            let expires_at = self.expiry_after(transaction, slot, transaction.now_ms)?;
            if expires_at.is_none_or(|new| slot.expires_at.is_some_and(|old| old < new)) {
                self.refresh(transaction, id, slot, transaction.now_ms)?;
                return transaction.live(id.key);
            } else if let Window::Sliding { max_age: Some(age) } = self.lifetime.window {
                // At its maximum age: a write would change nothing.
                self.engine.index.at_max_age.add(slot.seq, age);
            }
        }
        Ok(Some(slot))
    }

    fn decide_in_batches<T>(
        &self,
        ids: &[impl AsRef<[u8]>],
        decide: impl Fn(&Self, &mut Transaction<'_>, Id<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let ids = self.scope.ids(ids)?;
        self.in_batches(&ids, |transaction, batch| {
            batch.iter().map(|id| decide(self, transaction, *id)).collect()
        })
    }
}
