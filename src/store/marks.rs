//! The verbs of marks: look up, mark, check, seed, forget.
//!
//! Owns the order of steps for one id, or for each id of a batch, under the write lock.

use std::time::SystemTime;

use super::SeenStore;
use crate::clock::to_ms;
use crate::decide::verbs::{Observation, Verdict, first_of_equals};
use crate::engine::counters::Event;
use crate::error::Result;
use crate::id::Id;
use crate::item::Item;
use crate::journal::Transaction;

impl SeenStore {
    /// Returns true when the id was marked and has not expired. **Returns false on any error**, which is
    /// logged and counted in [`stats`](Self::stats): a repeated alert is better than a lost one. Use
    /// [`try_is_seen`](Self::try_is_seen) to tell an error from "not seen".
    ///
    /// To ask first and mark later is a race between workers: [`check_and_mark`](Self::check_and_mark) does
    /// both in one step.
    ///
    /// With a version it is true when the id is seen in that version, or was stored without one. A payload is not
    /// compared.
    ///
    /// A hit costs a lookup in memory, 0.15 to 0.4 µs. A miss also asks the file whether another process has
    /// marked something since, about 1 µs more, except in [exclusive](crate::Config::exclusive) mode. While the index is
    /// [asleep](crate::IndexMode), what memory does not hold is looked up in the file: the call *blocks* for some tens of
    /// µs, and for as long as the disk takes if the file is not in the system's cache. That holds for all verbs that ask
    /// for ids.
    ///
    /// ```
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// assert!(!store.is_seen("incident-17"));
    /// store.mark_seen("incident-17")?;
    /// assert!(store.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    pub fn is_seen<'a>(&self, id: impl Into<Item<'a>>) -> bool {
        self.or_not_seen(self.try_is_seen(id))
    }

    /// Returns false for an error, which is logged and counted.
    pub(crate) fn or_not_seen(&self, is_seen: Result<bool>) -> bool {
        is_seen.unwrap_or_else(|e| {
            self.engine.counters.add(Event::FailedOpen, 1);
            log::warn!(
                file = self.engine.name.as_str(), scope = self.scope.name(),
                error:% = e, error_kind = e.kind().word();
                "{}: answering \"not seen\" because of an error: {e}", self.engine.name
            );
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
    pub fn try_is_seen<'a>(&self, id: impl Into<Item<'a>>) -> Result<bool> {
        let item = id.into();
        self.has_seen(self.id(&item)?)
    }

    /// Returns whether the id is seen, for callers that must not wait; `None` where only the file can tell.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_seen_at_once(&self, id: Id<'_>) -> Result<Option<bool>> {
        if id.digest.is_some() {
            return Ok(None);
        }
        self.engine.is_live_at_once(id.key)
    }

    pub(crate) fn has_seen(&self, id: Id<'_>) -> Result<bool> {
        let Some(slot) = self.engine.live(id.key)? else { return Ok(false) };
        let is_of = |slot| {
            let entry = self.engine.entry_of(id.key, slot)?;
            Ok(entry.is_some_and(|entry| entry.is_of(id.digest)))
        };
        if id.digest.is_none() || slot.has_digest && is_of(slot)? {
            return Ok(true);
        }
        // Like a miss, this is answered only after a look: another store may have given the id a version.
        match self.engine.live_now(id.key)? {
            Some(slot) if slot.has_digest => is_of(slot),
            slot => Ok(slot.is_some()),
        }
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
    /// - [`Conflict`](crate::ErrorKind::Conflict) for an id that was used with another
    ///   [payload](crate::Item::payload), which refuses a whole batch;
    /// - [`Busy`](crate::ErrorKind::Busy) when another process held the file for longer than the busy
    ///   timeout, and [`StorageFull`](crate::ErrorKind::StorageFull) when the disk is full: both may be tried
    ///   again;
    /// - [`ReadOnly`](crate::ErrorKind::ReadOnly) when the store or its file system is read-only;
    /// - [`FileReplaced`](crate::ErrorKind::FileReplaced) when the file is no longer the one that was opened;
    /// - [`Io`](crate::ErrorKind::Io) when the operating system fails a call,
    ///   [`Corrupt`](crate::ErrorKind::Corrupt) when the file is damaged;
    /// - [`Closed`](crate::ErrorKind::Closed) after [`close`](Self::close);
    /// - [`Forked`](crate::ErrorKind::Forked) in a child that was forked while a store or a reader was open.
    pub fn mark_seen<'a>(&self, id: impl Into<Item<'a>>) -> Result<()> {
        let item = id.into();
        let id = self.id(&item)?;
        self.write_one(id, |store, transaction, id| store.mark(transaction, id, transaction.now_ms))
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
    pub fn mark_seen_at<'a>(&self, id: impl Into<Item<'a>>, seen_at: SystemTime) -> Result<()> {
        let item = id.into();
        let id = self.id(&item)?;
        let seen_at_ms = to_ms(seen_at);
        self.write_one(id, move |store, transaction, id| store.mark(transaction, id, seen_at_ms))
    }

    pub(crate) fn mark(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        seen_at_ms: i64,
    ) -> Result<()> {
        self.verbs().mark(transaction, id, seen_at_ms).map(drop)
    }

    /// Marks the id unless it is seen, and returns which it was. Of any number of threads and processes that
    /// call this at the same time, exactly one gets [`Verdict::New`]. A live mark is not extended, except in
    /// a [sliding window](crate::Window::Sliding).
    ///
    /// An id whose attempts failed, even finally, is new. Only the caller that gets `New` handles the id. If it fails
    /// to, the id stays marked and no other
    /// caller tries again; use [`claim`](Self::claim) where that matters.
    ///
    /// A duplicate costs a lookup in memory, or in the file while the index is [asleep](crate::IndexMode); a new id
    /// one commit,
    /// as [`mark_seen`](Self::mark_seen).
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
    pub fn check_and_mark<'a>(&self, id: impl Into<Item<'a>>) -> Result<Verdict> {
        self.check_and_mark_item(&id.into())
    }

    /// Apart from the conversion, so that this is compiled once and not by each caller.
    fn check_and_mark_item(&self, item: &Item<'_>) -> Result<Verdict> {
        let id = self.id(item)?;
        if self.duplicate_in_index(id)?.is_some() {
            self.count_verdict(Verdict::Duplicate);
            return Ok(Verdict::Duplicate);
        }
        let verdict = self.write_one(id, Self::check)?;
        self.count_verdict(verdict);
        Ok(verdict)
    }

    pub(crate) fn check(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<Verdict> {
        self.verbs().check(transaction, id)
    }

    /// Decides as [`check_and_mark`](Self::check_and_mark), and tells what was known of the id before.
    ///
    /// Decided under the write lock, also for a duplicate: a few microseconds.
    ///
    /// ```
    /// use seen_store::Verdict;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// for _ in 0..3 {
    ///     store.check_and_mark("disk full")?;
    /// }
    /// let seen = store.observe("disk full")?;
    /// let before = seen.before.unwrap();
    /// assert_eq!((seen.verdict, before.duplicates), (Verdict::Duplicate, 2));
    /// println!("again, after {} repeats since {:?}", before.duplicates, before.first_seen);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`check_and_mark`](Self::check_and_mark).
    pub fn observe<'a>(&self, id: impl Into<Item<'a>>) -> Result<Observation> {
        let item = id.into();
        let id = self.id(&item)?;
        let observation = self.write_one(id, Self::observe_one)?;
        self.count_verdict(observation.verdict);
        Ok(observation)
    }

    pub(crate) fn observe_one(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
    ) -> Result<Observation> {
        self.verbs().observe(transaction, id)
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
    pub fn check_and_mark_all<'a, I>(&self, ids: I) -> Result<Vec<Verdict>>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let items: Vec<_> = ids.into_iter().map(Into::into).collect();
        let ids = self.ids(&items)?;
        let ids = first_of_equals(ids);
        let verdicts = self.decide_in_batches(&ids, Self::check)?;
        self.count_verdicts(&verdicts);
        Ok(verdicts)
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
    pub fn seed<'a, I>(&self, ids: I) -> Result<u64>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let items: Vec<_> = ids.into_iter().map(Into::into).collect();
        let seeded = self.decide_in_batches(&self.ids(&items)?, Self::seed_one)?;
        Ok(seeded.into_iter().filter(|is_new| *is_new).count() as u64)
    }

    fn seed_one(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<bool> {
        self.verbs().seed(transaction, id)
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
    pub fn forget<'a>(&self, id: impl Into<Item<'a>>) -> Result<bool> {
        let item = id.into();
        let id = self.id(&item)?;
        self.write_one(id, |_, transaction, id| transaction.forget(id))
    }

    fn decide_in_batches<T>(
        &self,
        ids: &[Id<'_>],
        decide: impl Fn(&Self, &mut Transaction<'_>, Id<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.in_batches(
            ids,
            |id| id.key,
            |transaction, batch| batch.iter().map(|id| decide(self, transaction, *id)).collect(),
        )
    }
}
