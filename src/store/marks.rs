//! Marks: asked for, made, counted as duplicates, forgotten.
//!
//! Owns what is decided of one id, or of each id of a batch, under the write lock.

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

/// What [`check_and_mark`](crate::SeenStore::check_and_mark) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a verdict says whether to act; marking without looking at it is `mark_seen`"]
#[non_exhaustive]
pub enum Verdict {
    /// Not seen before, or expired since: it is marked now, and the caller is the one to handle it.
    New,
    /// Seen before, by whomever. Nothing was changed.
    Duplicate,
    /// Claimed by a worker that has neither confirmed nor given it back. Nothing was changed.
    InFlight,
}

impl SeenStore {
    /// Whether the id was marked and has not expired. **False on any error**, which is logged and
    /// counted in [`stats`](Self::stats): a repeated alert is better than a lost one. Use
    /// [`try_is_seen`](Self::try_is_seen) to tell the difference.
    ///
    /// Asking and then marking is a race between workers: [`check_and_mark`](Self::check_and_mark)
    /// decides both at once.
    ///
    /// A hit costs a lookup in memory, 0.15 to 0.4 µs. A miss asks the file whether another process
    /// has marked something since, about 1 µs more, except in [exclusive](Config::exclusive) mode.
    pub fn is_seen(&self, id: impl AsRef<[u8]>) -> bool {
        self.try_is_seen(id).unwrap_or_else(|e| {
            self.engine.failed_open.fetch_add(1, Relaxed);
            log::warn!("{}: answering \"not seen\" because of an error: {e}", self.engine.name);
            false
        })
    }

    /// Like [`is_seen`](Self::is_seen), with errors told apart from "not seen".
    ///
    /// # Errors
    ///
    /// [`InvalidId`](crate::ErrorKind::InvalidId), [`Closed`](crate::ErrorKind::Closed), and what
    /// reading the file can meet.
    pub fn try_is_seen(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        Ok(self.engine.live(id.key)?.is_some())
    }

    /// Marks the id as seen now, or refreshes it: a later expiry is kept, an earlier one never
    /// shortens it.
    ///
    /// Belongs *after* the send: an id that is marked before a send that then fails is lost. Where
    /// several workers may send the same id, use [`check_and_mark`](Self::check_and_mark).
    ///
    /// One commit, about 6 µs; with [`Synchronous::Full`](crate::Synchronous::Full) one fsync.
    ///
    /// # Errors
    ///
    /// On an error nothing was marked. [`InvalidId`](crate::ErrorKind::InvalidId);
    /// [`Busy`](crate::ErrorKind::Busy) and [`StorageFull`](crate::ErrorKind::StorageFull), which may
    /// be retry_while_busy; [`ReadOnly`](crate::ErrorKind::ReadOnly),
    /// [`FileReplaced`](crate::ErrorKind::FileReplaced), [`Io`](crate::ErrorKind::Io),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn mark_seen(&self, id: impl AsRef<[u8]>) -> Result<()> {
        let id = self.scope.id(id.as_ref())?;
        self.write_one(id, |store, transaction, id| store.mark(transaction, id, transaction.now_ms))
    }

    /// Marks the id as seen at `seen_at`, expiring one TTL after that: perhaps at once. On a live id
    /// it moves `first_seen` only back, and `last_seen` and the expiry only forward. The mark of an id that
    /// a worker has claimed lasts until its lease ends at least; one that would expire at once leaves the
    /// claim as it is.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn mark_seen_at(&self, id: impl AsRef<[u8]>, seen_at: SystemTime) -> Result<()> {
        let id = self.scope.id(id.as_ref())?;
        let seen_at_ms = to_ms(seen_at);
        self.write_one(id, move |store, transaction, id| store.mark(transaction, id, seen_at_ms))
    }

    /// When a live id that is seen at `seen_at_ms` too expires, as far as this handle is concerned.
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

    fn mark(&self, transaction: &mut Transaction<'_>, id: Id<'_>, seen_at_ms: i64) -> Result<()> {
        if let Some(old) = transaction.live(id.key)? {
            return self.refresh(transaction, id, old, seen_at_ms);
        }
        let claim = transaction.claim(id)?;
        let Some(mark) = mark::mark(self.lifetime, claim.as_ref(), seen_at_ms, transaction.now_ms)
        else {
            return Ok(());
        };
        if claim.is_some() {
            transaction.delete_claim(id)?;
        }
        transaction.append(id, &mark)
    }

    /// Takes note of a live id's being seen at `seen_at_ms`, within the window's maximum age.
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

    /// Marks the id unless it is seen: of any number of threads and processes that call this at once,
    /// exactly one gets [`Verdict::New`]. A live id is not extended.
    ///
    /// Whoever gets `New` is the only one to handle the id. If that fails the id stays marked, and
    /// nobody will try again.
    ///
    /// A duplicate costs a lookup in memory, a new id one commit, as [`mark_seen`](Self::mark_seen).
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn check_and_mark(&self, id: impl AsRef<[u8]>) -> Result<Verdict> {
        let id = self.scope.id(id.as_ref())?;
        if self.is_duplicate(id)? {
            return Ok(Verdict::Duplicate);
        }
        self.write_one(id, Self::check)
    }

    fn check(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<Verdict> {
        if self.record_sighting(transaction, id)? {
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

    /// Whether a sighting of a live id is to be written down.
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

    /// [`check_and_mark`](Self::check_and_mark) for many ids, with a verdict for each, in their order.
    /// Of equal ids in the batch the first is the new one.
    ///
    /// One commit for each 10,000 ids, at about 1.2 µs an id. All ids are checked for validity before
    /// the first is marked.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen). Up to 10,000 ids are marked all or none. With more, an error
    /// in a later commit leaves the earlier ones marked, and their verdicts are lost; pass at most
    /// 10,000 at a time where that matters.
    pub fn check_and_mark_all<I>(&self, ids: I) -> Result<Vec<Verdict>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let ids: Vec<_> = ids.into_iter().collect();
        self.decide_in_batches(&ids, Self::check)
    }

    /// Marks every id and alerts none: for the first run on a feed whose present items are not news.
    /// Returns how many were not seen before. Those that were claimed are among them: they are marked as
    /// by [`mark_seen`](Self::mark_seen), and a holder's confirm still succeeds.
    ///
    /// # Errors
    ///
    /// As [`check_and_mark_all`](Self::check_and_mark_all); calling it again goes on where it failed.
    pub fn seed<I>(&self, ids: I) -> Result<u64>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let ids: Vec<_> = ids.into_iter().collect();
        let seeded = self.decide_in_batches(&ids, Self::seed_one)?;
        Ok(seeded.into_iter().filter(|is_new| *is_new).count() as u64)
    }

    /// Whether the id was not seen before.
    fn seed_one(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<bool> {
        if self.record_sighting(transaction, id)? {
            return Ok(false);
        }
        self.mark(transaction, id, transaction.now_ms)?;
        Ok(true)
    }

    /// Makes the id unseen and drops any claim on it; whether there was anything to forget. Other
    /// processes notice within 100 ms; a worker that had claimed it gets
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost).
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn forget(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        self.write_one(id, |_, transaction, id| match transaction.live(id.key)? {
            Some(old) => transaction.forget(id, old).map(|()| true),
            None if transaction.claim(id)?.is_some() => transaction.forget_claim(id).map(|()| true),
            None => Ok(false),
        })
    }

    /// Whether the index alone can turn the id away; then it is counted.
    pub(super) fn is_duplicate(&self, id: Id<'_>) -> Result<bool> {
        // Deciding under the write lock includes a look, so a miss need not make one first.
        let now_ms = self.engine.clock.now_ms();
        let Some(slot) = self.engine.live_in_index(id.key, now_ms)? else { return Ok(false) };
        if self.needs_extension(slot, now_ms)? {
            return Ok(false);
        }
        self.engine.count_duplicate(slot.seq)?;
        Ok(true)
    }

    /// Whether the id is live; then the sighting is counted, and extends its mark in a sliding window.
    pub(super) fn record_sighting(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<bool> {
        let Some(slot) = transaction.live(id.key)? else { return Ok(false) };
        self.engine.count_duplicate(slot.seq)?;
        if self.needs_extension(slot, transaction.now_ms)? {
            let expires_at = self.expiry_after(transaction, slot, transaction.now_ms)?;
            if expires_at.is_none_or(|new| slot.expires_at.is_some_and(|old| old < new)) {
                self.refresh(transaction, id, slot, transaction.now_ms)?;
            } else if let Window::Sliding { max_age: Some(age) } = self.lifetime.window {
                // At its maximum age: writing would change nothing.
                self.engine.index.at_max_age.add(slot.seq, age);
            }
        }
        Ok(true)
    }

    fn decide_in_batches<T>(
        &self,
        ids: &[impl AsRef<[u8]>],
        decide: impl Fn(&Self, &mut Transaction<'_>, Id<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let ids: Vec<Id<'_>> =
            ids.iter().map(|id| self.scope.id(id.as_ref())).collect::<Result<_>>()?;
        self.in_batches(&ids, |transaction, batch| {
            batch.iter().map(|id| decide(self, transaction, *id)).collect()
        })
    }
}
