//! One write transaction: its changes so far, and its commit.
//!
//! Owns the changes between `BEGIN IMMEDIATE` and `COMMIT`. What always holds: decisions use the index and
//! this transaction's own changes. The index gets these changes only after COMMIT returned Ok: if a crash lost
//! an id that is in the index already, a later alert that was never sent would be taken for a duplicate. A
//! transaction that is dropped, also by a panic, is rolled back.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;

use rusqlite::{Connection, OptionalExtension};

use super::catch_up::Counters;
use super::claim_row::ClaimRow;
use super::row::{MarkRow, NewMark, columns, duplicates_plus, later};
use super::runs::Runs;
use super::unknown_outcome::LastWrite;
use super::{Journal, Tip, counts, run};
use crate::clock::{CLOCK_WRITE_INTERVAL_MS, MIN_MS};
use crate::error::{Error, ErrorKind, Result};
use crate::format::sqlite_errors::{is_corrupt, is_damage};
use crate::id::{Id, Key, KeyHasher};
use crate::index::{BySeq, Index, MAX_SEQ, Refused, Repeats, Slot};
use crate::item::Digest;
use crate::token::Token;

/// A transaction's changes by key: the row that is now the newest, or its tombstone.
pub(super) type Pending = HashMap<Key, Change, BuildHasherDefault<KeyIsHash>>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Put(Slot),
    Remove { seq: i64 },
}

/// Uses a key, which is a hash already, as its own hash.
#[derive(Default)]
pub(super) struct KeyIsHash(u64);

impl Hasher for KeyIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a Key hashes as one u64");
    }

    fn write_u64(&mut self, low: u64) {
        self.0 = low;
    }
}

/// Of which ids claims were changed.
pub(crate) enum ChangedClaims {
    Of(Vec<Key>),
    /// Of any ids: they were removed by what they have in common.
    Any,
}

impl Default for ChangedClaims {
    fn default() -> Self {
        Self::Of(Vec::new())
    }
}

impl ChangedClaims {
    pub(super) fn add(&mut self, keys: impl Iterator<Item = Key>) {
        if let Self::Of(changed) = self {
            changed.extend(keys);
        }
    }
}

/// See the module's header.
pub(crate) struct Transaction<'j> {
    pub(super) journal: &'j mut Journal,
    pub(crate) index: &'j Index,
    /// The time for all decisions of the transaction. The caller sets it first.
    pub(crate) now_ms: i64,
    pending: Pending,
    /// Ids that were looked for in the file and have no row there, with the changes of this transaction.
    absent: HashSet<Key, BuildHasherDefault<KeyIsHash>>,
    /// How many marks of those that the runs are about it has deleted, by scope, as negative numbers.
    uncounted: counts::ByScope,
    /// Whether it has deleted marks.
    pub(super) has_deleted: bool,
    /// The duplicates that this transaction has turned away, by the `seq` of rows. They are counted once it is
    /// committed: a decision may run again.
    pub(super) repeats: BySeq<Repeats>,
    /// The claims of which it has refused an id, likewise.
    pub(super) refusals: Vec<(Token, Refused)>,
    pub(super) tip: Option<Tip>,
    /// `generation` and `floor` as this transaction leaves them.
    pub(super) counters: (i64, i64),
    /// The time that stores on this file have reached, from `meta`.
    clock_ms: i64,
    /// How many rows the connection had changed before this transaction.
    changes_before: u64,
    /// The claims that this transaction has written or deleted.
    pub(crate) changed_claims: ChangedClaims,
    /// What is in the file if and only if this transaction was committed.
    pub(super) last_write: Option<LastWrite>,
    open: bool,
}

impl<'j> Transaction<'j> {
    pub(super) fn new(journal: &'j mut Journal, index: &'j Index) -> Self {
        let pending = mem::take(&mut journal.pending);
        let position = journal.position.expect("begin sets the position");
        let Counters { generation, floor, clock_ms } = position.counters;
        let changes_before = journal.total_changes();
        Self {
            journal,
            index,
            now_ms: MIN_MS,
            pending,
            absent: HashSet::default(),
            uncounted: counts::ByScope::new(),
            has_deleted: false,
            repeats: BySeq::default(),
            refusals: Vec::new(),
            tip: position.tip,
            counters: (generation, floor),
            clock_ms,
            changes_before,
            changed_claims: ChangedClaims::default(),
            last_write: None,
            open: true,
        }
    }

    pub(super) fn with<T>(
        &mut self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.journal.with("write to", run)
    }

    /// Returns the id's row if it is live now, with this transaction's changes.
    pub(crate) fn live(&mut self, key: Key) -> Result<Option<Slot>> {
        let is_in_memory = || self.index.get(key).is_some();
        if self.index.may_be_stale() && !self.pending.contains_key(&key) && is_in_memory() {
            return self.journal.live(self.index, key, self.now_ms);
        }
        Ok(self.newest_slot(key)?.filter(|slot| slot.is_live(self.now_ms)))
    }

    pub(super) fn newest_slot(&mut self, key: Key) -> Result<Option<Slot>> {
        if !self.pending.is_empty()
            && let Some(change) = self.pending.get(&key)
        {
            return Ok(match *change {
                Change::Put(slot) => Some(slot),
                Change::Remove { .. } => None,
            });
        }
        if let Some(slot) = self.index.get(key) {
            return Ok(slot.exists());
        }
        let is_absent = self.absent.contains(&key) || self.journal.is_absent(key);
        if self.index.is_complete() || is_absent {
            return Ok(None);
        }
        let found = self.journal.find_in_runs(self.index, key)?;
        if found.is_none() {
            self.absent.insert(key);
        }
        Ok(found.and_then(Slot::exists))
    }

    /// Returns the row of an id whose mark has expired, if its retention keeps it.
    pub(crate) fn retained(&mut self, id: Id<'_>) -> Result<Option<MarkRow>> {
        let slot = self.newest_slot(id.key)?;
        self.retained_row(slot)
    }

    fn retained_row(&mut self, slot: Option<Slot>) -> Result<Option<MarkRow>> {
        let is_retained = |slot: &Slot| slot.is_retained && !slot.is_live(self.now_ms);
        let Some(slot) = slot.filter(is_retained) else { return Ok(None) };
        let row = self.last_row(slot)?;
        Ok(row.filter(|row| row.retain_until.is_some_and(|until| self.now_ms < until)))
    }

    /// Appends a mark and deletes the row that the id may have, also an expired one. If that one was retained, the
    /// mark tells of it.
    pub(crate) fn append(&mut self, id: Id<'_>, mark: &NewMark<'_>) -> Result<()> {
        let old = self.newest_slot(id.key)?;
        match self.retained_row(old)? {
            Some(before) => {
                self.append_row(id, &NewMark { earlier: Some(before.as_earlier()), ..*mark })?;
            }
            None => self.append_row(id, mark)?,
        }
        old.map_or(Ok(()), |old| self.delete(id.scope, old.seq))
    }

    fn append_row(&mut self, id: Id<'_>, mark: &NewMark<'_>) -> Result<()> {
        let seq = self.next_seq()?;
        self.with(|connection| mark.insert(connection, id, seq))?;
        self.record_append(id.key, mark.slot(seq));
        Ok(())
    }

    /// Appends a newer row of a live id and deletes `old`. The newer row is seen at the time of `mark` too, and
    /// expires and is kept as `old` or as `mark`, whichever is later. It has the digest of `mark`, if there is one.
    pub(crate) fn refresh(&mut self, id: Id<'_>, old: Slot, mark: &NewMark<'_>) -> Result<()> {
        let mark = NewMark { expires_at: later(old.expires_at, mark.expires_at), ..*mark };
        if self.replace(id, old, &mark, Some(mark.last_seen))? {
            return Ok(());
        }
        // Another process, whose clock is ahead, purged the row: for all others the id is not seen.
        self.append_row(id, &mark)
    }

    /// Appends a newer row of a live id with this receipt. Keeps the receipt that the id may have.
    pub(crate) fn add_receipt(&mut self, id: Id<'_>, old: Slot, receipt: &[u8]) -> Result<()> {
        let mark = NewMark { receipt: Some(receipt), ..NewMark::at(0, old.expires_at) };
        self.replace(id, old, &mark, None).map(drop)
    }

    /// Appends a newer row of a live id with this digest.
    pub(crate) fn add_digest(&mut self, id: Id<'_>, old: Slot) -> Result<()> {
        let mark = NewMark { digest: id.digest, ..NewMark::at(0, old.expires_at) };
        self.replace(id, old, &mark, None).map(drop)
    }

    /// Appends a row that leaves the id as it is: a copy of its mark, or a tombstone if it has none.
    pub(super) fn append_same(&mut self, id: Id<'_>) -> Result<()> {
        let (old, now_ms) = (self.newest_slot(id.key)?, self.now_ms);
        let old = old.filter(|slot| slot.is_retained || slot.is_live(now_ms));
        let copied = old.map(|old| self.replace(id, old, &NewMark::at(0, old.expires_at), None));
        if copied.transpose()? == Some(true) { Ok(()) } else { self.append_tombstone(id) }
    }

    /// Appends a copy of the row `old`, including the duplicates that were counted since, and deletes that row. The
    /// copy has the expiry of `mark`, the later retention, the digest of `mark` if there is one, and a receipt if
    /// there is one. Returns false if the row is gone.
    fn replace(
        &mut self,
        id: Id<'_>,
        old: Slot,
        mark: &NewMark<'_>,
        seen_at_ms: Option<i64>,
    ) -> Result<bool> {
        let seq = self.next_seq()?;
        let Repeats { count, last_ms } = self.repeats_of(old.seq);
        let copied = self.with(|connection| {
            connection
                .prepare_cached(concat!(
                    "INSERT INTO seen (seq, ",
                    columns!(),
                    ") SELECT ?2, scope, id, min(first_seen, ifnull(?3, first_seen)), \
                       max(last_seen, ifnull(?3, last_seen), ?6), ?4, \
                       max(ifnull(retain_until, ?7), ifnull(?7, retain_until)), ifnull(?8, digest), ",
                    duplicates_plus!("?5"),
                    ", earlier, token, attempts, last_error, ifnull(receipt, ?9) FROM seen WHERE seq = ?1",
                ))?
                .execute((
                    old.seq,
                    seq,
                    seen_at_ms,
                    mark.expires_at,
                    count,
                    last_ms,
                    mark.retain_until,
                    mark.digest.map(Digest::bytes),
                    mark.receipt,
                ))
        })?;
        if copied == 0 {
            return Ok(false);
        }
        let new = mark.slot(seq);
        let slot = Slot {
            has_digest: old.has_digest || new.has_digest,
            is_retained: old.is_retained || new.is_retained,
            ..new
        };
        self.record_append(id.key, slot);
        self.repeats.remove(&old.seq);
        self.delete(id.scope, old.seq)?;
        Ok(true)
    }

    /// Ends an id: appends its tombstone, then deletes its row and its claim. Returns false when nothing is known of
    /// it. The tombstone is written first, as what tells whether the transaction was committed: it may have written
    /// the claim itself.
    pub(crate) fn forget(&mut self, id: Id<'_>) -> Result<bool> {
        let (live, claim) = (self.live(id.key)?, self.claim(id)?);
        let is_known = live.is_some() || claim.is_some() || self.retained(id)?.is_some();
        if is_known {
            let old = self.newest_slot(id.key)?;
            self.append_tombstone(id)?;
            if claim.is_some() {
                self.delete_claim(id)?;
            }
            if let Some(old) = old {
                self.delete(id.scope, old.seq)?;
            }
        }
        Ok(is_known)
    }

    fn next_seq(&self) -> Result<i64> {
        match self.tip.map_or(1, |tip| tip.seq + 1) {
            seq @ 1..=MAX_SEQ => Ok(seq),
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{} has used up its sequence numbers; export and import it",
                    self.journal.name()
                ),
            )),
        }
    }

    fn record_append(&mut self, key: Key, slot: Slot) {
        let Slot { seq, expires_at, .. } = slot;
        let tip = Tip { seq, key, expires_at };
        (self.tip, self.last_write) = (Some(tip), Some(LastWrite::Row(tip)));
        let change = match expires_at {
            Some(0) => Change::Remove { seq },
            _ => Change::Put(slot),
        };
        self.pending.insert(key, change);
    }

    pub(super) fn record_claim_write(&mut self, id: Id<'_>, claim: ClaimRow) {
        let (scope, id) = (id.scope.to_owned(), id.bytes.to_vec());
        self.last_write = Some(LastWrite::Claim { scope, id, claim });
    }

    /// Returns whether the transaction's last write is the id's claim.
    pub(super) fn last_wrote_claim_of(&self, id: Id<'_>) -> bool {
        matches!(
            &self.last_write,
            Some(LastWrite::Claim { scope, id: bytes, .. }) if scope == id.scope && bytes == id.bytes
        )
    }

    /// Deletes the row of a mark of this scope, if it is there.
    pub(super) fn delete(&mut self, scope: &str, seq: i64) -> Result<()> {
        let deleted = self.with(|connection| {
            connection.prepare_cached("DELETE FROM seen WHERE seq = ?1")?.execute([seq])
        })?;
        if deleted > 0 {
            self.has_deleted = true;
            if seq <= self.journal.covered_by_runs()? {
                self.uncount(scope, 1);
            }
        }
        Ok(())
    }

    /// Records that marks that the runs are about were deleted.
    pub(super) fn uncount(&mut self, scope: &str, count: i64) {
        match self.uncounted.get_mut(scope) {
            Some(known) => *known += count,
            None => drop(self.uncounted.insert(scope.to_owned(), count)),
        }
    }

    /// Records that a cleanup deleted a row, so that the index drops it too.
    pub(super) fn record_removal(&mut self, key: Key, seq: i64) {
        let newest = match self.pending.get(&key) {
            Some(Change::Put(slot)) => Some(slot.seq),
            Some(Change::Remove { .. }) => None,
            // What the index does not hold, it need not drop.
            None => self.index.get(key).map(|slot| slot.seq),
        };
        if newest == Some(seq) {
            self.pending.insert(key, Change::Remove { seq });
        }
    }

    pub(super) fn append_tombstone(&mut self, id: Id<'_>) -> Result<()> {
        self.append_row(id, &NewMark::at(self.now_ms, Some(0)))
    }

    /// Writes the time that this store has reached into `meta`, unless the time there is about the same. A
    /// store that opens after its clock was set back a little goes on from there.
    pub(crate) fn write_clock(&mut self) -> Result<()> {
        let now_ms = self.now_ms;
        if now_ms.abs_diff(self.clock_ms) >= CLOCK_WRITE_INTERVAL_MS.unsigned_abs() {
            self.with(|connection| {
                connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO meta (key, value) VALUES ('clock', ?1)",
                    )?
                    .execute([now_ms])
            })?;
            self.clock_ms = now_ms;
        }
        Ok(())
    }

    pub(crate) fn set_counter(&mut self, name: &str, value: i64) -> Result<()> {
        self.with(|connection| {
            connection
                .prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?
                .execute((name, value))
        })?;
        Ok(())
    }

    /// Returns whether this transaction has changed the file.
    pub(crate) fn has_changes(&self) -> bool {
        self.journal.total_changes() != self.changes_before
    }

    /// Commits, then applies the changes to the index.
    ///
    /// If an I/O error leaves the outcome unknown, this opens the file again and looks for what the transaction
    /// wrote last. An error means that nothing was committed, or that this could not be found out.
    pub(crate) fn commit(mut self) -> Result<()> {
        if self.has_changes() {
            self.write_clock()?;
        }
        if self.has_deleted {
            let uncounted = mem::take(&mut self.uncounted);
            self.subtract(&uncounted)?;
            self.journal.note_deletions(uncounted.values().sum());
        }
        let committed = self.with(|connection| run(connection, "COMMIT"));
        self.open = false;
        match committed {
            Ok(()) => {
                self.publish();
                self.count_turned_away()
            }
            Err(error) => {
                self.journal.rollback();
                let committed =
                    error.kind() == ErrorKind::Io && self.find_out_whether_committed(&error)?;
                if committed { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Counts these marks no longer. Where SQLite finds damage in the pages of the counts, they stay wrong until the store
    /// is compacted.
    fn subtract(&mut self, uncounted: &counts::ByScope) -> Result<()> {
        if self.journal.file_index.is_corrupt() {
            return Ok(());
        }
        let hasher = self.journal.hasher.clone();
        match subtract(self.journal.open_connection(), &hasher, uncounted) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.journal.runs_are_gone();
                Ok(())
            }
            Err(e) if is_corrupt(&e) => Err(self.journal.index_is_corrupt()),
            Err(e) => Err(self.journal.failure("write to", e)),
        }
    }

    fn publish(&mut self) {
        for (key, change) in self.pending.drain() {
            match change {
                Change::Put(slot) => self.index.put(key, slot),
                Change::Remove { seq } => self.index.remove(key, seq),
            }
        }
        if let Some(position) = &mut self.journal.position {
            let (generation, floor) = self.counters;
            position.tip = self.tip;
            position.counters = Counters { generation, floor, clock_ms: self.clock_ms };
        }
    }
}

/// Counts marks no longer. Counts that cannot be right are thrown away, with the runs, rather than that the caller fails:
/// then it returns false.
fn subtract(
    connection: &Connection,
    hasher: &KeyHasher,
    uncounted: &counts::ByScope,
) -> rusqlite::Result<bool> {
    match counts::subtract(connection, uncounted) {
        Err(e) if is_damage(&e) => {
            counts::clear(connection)?;
            Runs::drop_all(connection, hasher).map(|_| false)
        }
        subtracted => subtracted.map(|()| true),
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.journal.rollback();
        }
        self.pending.clear();
        self.journal.pending = mem::take(&mut self.pending);
    }
}

impl Journal {
    /// Reads the row of a live id. `None` if another connection refreshed or forgot the id since the index was
    /// read.
    pub(crate) fn row(&mut self, seq: i64) -> Result<Option<MarkRow>> {
        self.read(|connection| {
            connection
                .prepare_cached(concat!("SELECT ", columns!(), " FROM seen WHERE seq = ?1"))?
                .query_row([seq], MarkRow::read)
                .optional()
        })
    }
}
