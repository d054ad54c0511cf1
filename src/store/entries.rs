//! Looking entries up, and listing them a page at a time.
//!
//! Owns the filter and the position of a listing. What always holds: the mutex is free between pages, and no
//! statement or snapshot is kept open. An entry that exists throughout is returned exactly once, whatever is
//! written meanwhile: claims are walked in the order of their primary key and remembered; marks are walked by
//! the shards of the index, which an id never leaves, and looked up again by key when their row has moved.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use super::SeenStore;
use crate::engine::Writer;
use crate::entry::{Entry, Filter, State, newest};
use crate::error::{Error, Result};
use crate::id::{Id, Key, Scope};
use crate::index::stored;
use crate::item::{Digest, Item, is_change};
use crate::journal::claims::ClaimPosition;
use crate::journal::{ExpiredRows, Listed};
use crate::machine::step_size;

/// How many rows are read while the mutex is held.
const PAGE: u16 = step_size!(500, in_a_simulation: 3);

/// An iterator over the entries of a store, in no particular order: see [`SeenStore::entries`]. Ends after
/// the first error.
#[must_use = "a listing reads nothing until it is iterated"]
pub struct Entries {
    store: SeenStore,
    filter: Filter,
    phase: Phase,
    /// The claims that were returned, with their digests: a claim that is confirmed meanwhile must not be returned
    /// again as a mark. A mark of another version is another entry.
    claims: HashMap<Key, Option<Digest>>,
    page: VecDeque<Entry>,
}

/// The part of the listing that is being walked.
enum Phase {
    Claims { after: ClaimPosition },
    Marks { shard: usize, waiting: Vec<(Listed, i64)> },
    Expired { after: i64, returned: HashSet<Key> },
    Done,
}

impl SeenStore {
    /// Returns what is known about the id, if it is seen, was claimed, or is kept by its
    /// [retention](Self::retention): its times, its duplicate count, its attempts and their last error, its receipt.
    /// Of an id that is seen while another version of it is claimed, that is the entry of the seen version, with the
    /// claim as its [`change`](crate::Entry::change).
    ///
    /// ```
    /// use seen_store::State;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// store.mark_seen("incident-17")?;
    /// let entry = store.get("incident-17")?.unwrap();
    /// assert_eq!((entry.state, entry.attempts), (State::Seen, 0));
    /// assert!(store.get("incident-18")?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub fn get<'a>(&self, id: impl Into<Item<'a>>) -> Result<Option<Entry>> {
        let item = id.into();
        self.known(self.id(&item)?)
    }

    pub(crate) fn known(&self, id: Id<'_>) -> Result<Option<Entry>> {
        self.engine.check_open()?;
        self.engine.with_journal(|writer| {
            let seen = self.engine.seen_entry(writer, id.key)?;
            if seen.as_ref().is_some_and(|entry| entry.digest.is_none()) {
                return Ok(seen);
            }
            let now_ms = self.engine.clock.now_ms();
            let claim = writer.journal.claim(id, now_ms)?;
            if let Some(mut entry) = seen {
                let change = claim.filter(|claim| is_change(claim.digest, entry.digest));
                let change = change.map(|claim| self.engine.claim_entry(id, claim, now_ms));
                entry.change = change.map(Box::new);
                return Ok(Some(entry));
            }
            if claim.is_none() && !writer.journal.is_current()? {
                // The claim may have been confirmed after the catch-up.
                return Err(Error::try_again());
            }
            match claim {
                Some(claim) => Ok(Some(self.engine.claim_entry(id, claim, now_ms))),
                None => self.engine.retained_entry(writer, id.key),
            }
        })
    }

    /// Returns an iterator over the marks and claims of all scopes that the filter selects.
    ///
    /// Reads 500 rows at a time; other callers come in between. An entry that exists throughout is returned
    /// exactly once. When the file is restored in place meanwhile, that holds for ids that are seen before
    /// and after; an entry that is a claim or expired in one of the two histories may be missed. Costs a few
    /// microseconds for each entry of the store, and memory for a 256th of its marks and for all its claims.
    ///
    /// ```
    /// use seen_store::{Filter, SeenStore, State};
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// for entry in store.entries(Filter::default().state(State::Failed)) {
    ///     let entry = entry?;
    ///     println!("{:?} failed {} times", String::from_utf8_lossy(&entry.id), entry.attempts);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn entries(&self, filter: Filter) -> Entries {
        Entries {
            store: self.clone(),
            filter,
            phase: Phase::Claims { after: ClaimPosition::default() },
            claims: HashMap::new(),
            page: VecDeque::new(),
        }
    }
}

impl Entries {
    /// Returns the `count` entries that were last seen, the newest first; entries of the same millisecond in any
    /// order. Goes through all entries that the filter selects, with memory for twice the count or 1,000 entries.
    ///
    /// ```
    /// use seen_store::{Filter, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// store.seed(["a", "b", "c"])?;
    /// let newest = store.entries(Filter::default()).newest(2)?;
    /// assert_eq!(newest.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](SeenStore::try_is_seen).
    pub fn newest(self, count: usize) -> Result<Vec<Entry>> {
        newest(self, count)
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.fill() {
            Ok(()) => self.next_of_page().map(Ok),
            Err(e) => Some(Err(e)),
        }
    }
}

impl Entries {
    /// Returns the next entry of those that were read.
    pub(crate) fn next_of_page(&mut self) -> Option<Entry> {
        self.page.pop_front()
    }

    /// Reads until there is an entry or the listing has ended.
    pub(crate) fn fill(&mut self) -> Result<()> {
        while self.page.is_empty() && !matches!(self.phase, Phase::Done) {
            self.read_page().inspect_err(|_| self.phase = Phase::Done)?;
        }
        Ok(())
    }

    fn read_page(&mut self) -> Result<()> {
        let store = self.store.clone();
        store.engine.check_open()?;
        store.engine.with_journal(|writer| {
            store.engine.catch_up(writer)?;
            let now_ms = store.engine.clock.now_ms();
            match &self.phase {
                Phase::Claims { .. } => self.claims_page(writer, now_ms),
                Phase::Marks { .. } => self.marks_page(writer, now_ms),
                Phase::Expired { .. } => self.expired_page(writer, now_ms),
                Phase::Done => Ok(()),
            }
        })?;
        store.engine.yield_to_waiters();
        Ok(())
    }

    fn take(&mut self, entry: Entry, now_ms: i64) {
        if self.filter.admits(&entry, now_ms) {
            self.page.push_back(entry);
        }
    }

    /// Returns whether the mark of this digest was returned as a claim already.
    fn was_claim(&self, key: Key, digest: Option<Digest>) -> bool {
        self.claims.get(&key).is_some_and(|claim| !is_change(*claim, digest))
    }

    fn claims_page(&mut self, writer: &mut Writer, now_ms: i64) -> Result<()> {
        let Phase::Claims { after } = &self.phase else { return Ok(()) };
        let rows = writer.journal.claims_after(after, PAGE.into())?;
        self.phase = match rows.last() {
            Some((place, _)) => Phase::Claims { after: place.clone() },
            None => Phase::Marks { shard: 0, waiting: Vec::new() },
        };
        for (place, claim) in rows {
            if !claim.is_expired(now_ms) {
                let scope = Scope::new(&place.scope, &self.store.engine.hasher);
                let id = scope.id(&place.id)?;
                self.claims.insert(stored(id.key), claim.digest);
                self.take(self.store.engine.claim_entry(id, claim, now_ms), now_ms);
            }
        }
        Ok(())
    }

    fn marks_page(&mut self, writer: &mut Writer, now_ms: i64) -> Result<()> {
        let Phase::Marks { shard, waiting } = &mut self.phase else { return Ok(()) };
        let index = &self.store.engine.index;
        while waiting.is_empty() {
            if *shard == index.shard_count() {
                self.phase = if self.filter.state == Some(State::Expired) {
                    Phase::Expired { after: 0, returned: HashSet::new() }
                } else {
                    Phase::Done
                };
                return Ok(());
            }
            // In reverse order of the table: a `Vec` is cheapest to take from at its end.
            *waiting = writer.journal.listed_of_shard(index, *shard, now_ms)?;
            waiting.sort_unstable_by_key(|(_, seq)| std::cmp::Reverse(*seq));
            *shard += 1;
        }
        let rest = waiting.len().saturating_sub(PAGE.into());
        let listed: Vec<_> = waiting[rest..].iter().rev().copied().collect();
        let mut entries = Vec::new();
        let engine = self.store.engine.clone();
        let keys = writer.journal.ids_listed(&engine.index, &listed, now_ms)?;
        for key in keys {
            // Look up by key: the row may have moved since the shard was listed, and another process may move
            // it at this moment.
            while let Some(slot) = writer.journal.live(&engine.index, key, now_ms)? {
                if let Some(row) = engine.row_of(writer, key, slot.seq)? {
                    if !self.was_claim(key, row.digest) {
                        entries.push(engine.entry(slot.seq, row, now_ms));
                    }
                    break;
                }
                if writer.journal.is_current()? {
                    break; // Purged by a process whose clock is ahead.
                }
                engine.catch_up(writer)?;
            }
        }
        engine.wake_upkeep(writer);
        // Only now: when another process has interrupted the page, it is read again.
        if let Phase::Marks { waiting, .. } = &mut self.phase {
            waiting.truncate(rest);
        }
        for entry in entries {
            self.take(entry, now_ms);
        }
        Ok(())
    }

    /// Reads a page of expired marks, which are in the table only and not in the index.
    fn expired_page(&mut self, writer: &mut Writer, now_ms: i64) -> Result<()> {
        let Phase::Expired { after, returned } = &mut self.phase else { return Ok(()) };
        let engine = self.store.engine.clone();
        let ExpiredRows { rows, next } =
            writer.journal.expired_after(*after, PAGE.into(), now_ms)?;
        let mut fresh = Vec::new();
        for (seq, row) in rows {
            let key = stored(Scope::new(&row.scope, &engine.hasher).id(&row.id)?.key);
            let lives = writer.journal.live(&engine.index, key, now_ms)?.is_some();
            // What is kept of a claimed id is an entry of its own.
            let is_kept = row.retain_until.is_some_and(|until| now_ms < until);
            let is_claimed = self.claims.contains_key(&key) && !is_kept;
            if !lives && !is_claimed && returned.insert(key) {
                fresh.push(engine.entry(seq, row, now_ms));
            }
        }
        match next {
            Some(next) => *after = next,
            None => self.phase = Phase::Done,
        }
        for entry in fresh {
            self.take(entry, now_ms);
        }
        Ok(())
    }
}
