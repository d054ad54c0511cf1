//! Restoring entries from elsewhere: from another store's listing, or from a legacy file.
//!
//! Owns the commits that they are restored in. What always holds: the same entries restored again change nothing, so an
//! interrupted restore is simply repeated; an entry that cannot be written fails alone. How an entry is merged with what is
//! known is decided in `decide::verbs`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;

use super::SeenStore;
use crate::clock::{Clock, SystemClock, from_ms, to_ms};
use crate::config::{Config, Ttl};
use crate::decide::verbs::{Restored, check_notes};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::file;
use crate::format::legacy::{LegacyRow, LegacyRows};
use crate::id::{Id, MAX_ID_BYTES, Scope};
use crate::machine::step_size;
use crate::process::Registration;

/// How many entries are restored in one commit.
const ENTRIES_PER_COMMIT: usize = step_size!(1_000, in_a_simulation: 5);

/// How many rows of a legacy file are read at a time.
const ROWS_PER_PAGE: usize = 1_000;

/// The summary of a [`restore`](crate::SeenStore::restore).
#[derive(Clone, Debug, Default)]
#[must_use = "entries that were refused are not in the store"]
#[non_exhaustive]
pub struct RestoreSummary {
    /// The number of entries whose ids the store did not know.
    pub added: u64,
    /// The number of entries that added to what was known of their id.
    pub changed: u64,
    /// The number of entries that added nothing.
    pub unchanged: u64,
    /// The number of entries that had expired and were left out.
    pub expired: u64,
    /// The entries that the store cannot take, each with the reason.
    pub refused: Vec<Refused>,
}

impl std::ops::AddAssign for RestoreSummary {
    fn add_assign(&mut self, more: Self) {
        self.added += more.added;
        self.changed += more.changed;
        self.unchanged += more.unchanged;
        self.expired += more.expired;
        self.refused.extend(more.refused);
    }
}

impl std::ops::AddAssign<Restored> for RestoreSummary {
    fn add_assign(&mut self, one: Restored) {
        *match one {
            Restored::Added => &mut self.added,
            Restored::Changed => &mut self.changed,
            Restored::Unchanged => &mut self.unchanged,
            Restored::Expired => &mut self.expired,
        } += 1;
    }
}

/// An entry that [`restore`](crate::SeenStore::restore) left out because the store cannot take it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refused {
    /// Its scope.
    pub scope: String,
    /// Its id, as it was given.
    pub id: Vec<u8>,
    /// What is wrong with it, or with what the store holds of its id.
    pub error: Error,
}

impl SeenStore {
    /// Restores entries as [`entries`](Self::entries) listed them, with their scopes and times, and returns
    /// what changed. The scope and the TTL of this handle play no part. Entries are merged with what is
    /// known, and the same entries restored again change nothing:
    ///
    /// - A mark of an id with a live mark: the earlier `first_seen`, the later `last_seen` and expiry, and
    ///   the larger `duplicates` and `attempts` win; the error and the receipt of the store stay if there are
    ///   any. Of two [versions](crate::Item::version) the one that was seen later wins, with its receipt. A mark of a
    ///   claimed id ends the claim, as [`mark_seen`](Self::mark_seen) does, unless the claim is of another version.
    /// - A claim of an id with a mark of the same version, with a claim in flight or with a claim at least as new is
    ///   dropped. A
    ///   claim in flight is restored without its token: no worker can confirm it. When the lease ends, the id can
    ///   be claimed again, or, if the claim is held, waits for [`resolve`](Self::resolve).
    /// - An expired entry is left out, unless its [retention](Self::retention) lasts and nothing is known of the id.
    /// - An entry that the store cannot take is left out and listed in [`RestoreSummary::refused`], with an error
    ///   of the kind [`InvalidId`](crate::ErrorKind::InvalidId),
    ///   [`InvalidClaim`](crate::ErrorKind::InvalidClaim) (a receipt of more than 1 MiB, an error of more than 65,536
    ///   bytes, or a holder of more than 255)
    ///   or [`Corrupt`](crate::ErrorKind::Corrupt) (what the file holds of its id cannot be read). All others
    ///   are restored.
    ///
    /// One commit for each 1,000 entries, at 2 to 3 µs for each entry; an entry that is refused while it is
    /// written ends its commit early. Holds one such batch in memory.
    ///
    /// ```
    /// use seen_store::{Filter, SeenStore};
    /// # fn main() -> seen_store::Result<()> {
    /// let (from, to) = (SeenStore::in_memory()?, SeenStore::in_memory()?);
    /// from.mark_seen("incident-17")?;
    /// let entries: Vec<_> = from.entries(Filter::default()).collect::<Result<_, _>>()?;
    /// let restored = to.restore(entries)?;
    /// assert_eq!((restored.added, restored.refused.len()), (1, 0));
    /// assert!(to.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen), except for errors that come from one entry. What was
    /// committed before the error is kept; restore all entries again to continue.
    pub fn restore<I>(&self, entries: I) -> Result<RestoreSummary>
    where
        I: IntoIterator<Item = Entry>,
    {
        self.engine.check_open()?;
        let (mut entries, mut restored) = (entries.into_iter(), RestoreSummary::default());
        loop {
            let batch: Vec<Entry> = entries.by_ref().take(ENTRIES_PER_COMMIT).collect();
            if batch.is_empty() {
                return Ok(restored);
            }
            restored += self.restore_batch(&batch)?;
        }
    }

    fn restore_batch(&self, batch: &[Entry]) -> Result<RestoreSummary> {
        let mut scopes: HashMap<&str, Scope> = HashMap::new();
        for entry in batch {
            scopes
                .entry(&entry.scope)
                .or_insert_with_key(|name| Scope::new(name, &self.engine.hasher));
        }
        let (mut restored, mut valid) =
            (RestoreSummary::default(), Vec::with_capacity(batch.len()));
        for entry in batch {
            let id = scopes[entry.scope.as_str()].id(&entry.id);
            match check_notes(entry).and(id) {
                Ok(id) => valid.push((id, entry)),
                Err(error) => restored.refused.push(refused(entry, error)),
            }
        }
        self.restore_valid(&valid, &mut restored)?;
        Ok(restored)
    }

    /// Restores valid entries, in more than one commit if the store cannot take some of them.
    fn restore_valid(
        &self,
        mut left: &[(Id<'_>, &Entry)],
        restored: &mut RestoreSummary,
    ) -> Result<()> {
        while let Some((at, error)) = self.restore_all(left, restored)? {
            // Nothing was written. Write the entries before the one that failed without it.
            self.restore_valid(&left[..at], restored)?;
            restored.refused.push(refused(left[at].1, error));
            left = &left[at + 1..];
        }
        Ok(())
    }

    /// Restores entries in one commit. If the store cannot take one of them, writes none and returns its
    /// position and the error.
    fn restore_all(
        &self,
        entries: &[(Id<'_>, &Entry)],
        restored: &mut RestoreSummary,
    ) -> Result<Option<(usize, Error)>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let mut failed_at = None;
        self.engine.look_ahead(entries.iter().map(|(id, _)| id.key))?;
        let written = self.engine.write(|transaction| {
            let mut restored = RestoreSummary::default();
            for (at, (id, entry)) in entries.iter().enumerate() {
                failed_at = Some(at);
                restored += self.verbs().restore(transaction, *id, entry)?;
            }
            failed_at = None;
            Ok(restored)
        });
        match (written, failed_at) {
            (Ok(more), _) => {
                *restored += more;
                Ok(None)
            }
            // All other kinds concern the store as a whole and would meet the next entry too.
            (Err(e), Some(at)) if e.kind() == ErrorKind::Corrupt => Ok(Some((at, e))),
            (Err(e), _) => Err(e),
        }
    }
}

pub(crate) fn refused(entry: &Entry, error: Error) -> Refused {
    Refused { scope: entry.scope.clone(), id: entry.id.clone(), error }
}

/// An iterator over the ids of a legacy file, `seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL)`, to be
/// [restored](SeenStore::restore) to a store elsewhere. The file is only read.
///
/// (To convert such a file in place, open it as a store.)
///
/// ```no_run
/// use seen_store::{LegacyFile, SeenStore};
/// # fn main() -> seen_store::Result<()> {
/// let week = std::time::Duration::from_secs(7 * 24 * 3600);
/// let entries: Vec<_> = LegacyFile::open("seen_ids.sqlite", week)?.collect::<Result<_, _>>()?;
/// SeenStore::open("seen.db")?.restore(entries)?;
/// # Ok(()) }
/// ```
#[must_use = "a file is not read until it is iterated"]
pub struct LegacyFile {
    rows: LegacyRows,
    ttl: Ttl,
    page: VecDeque<LegacyRow>,
    at_end: bool,
    skipped: u64,
}

impl fmt::Debug for LegacyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyFile").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl LegacyFile {
    /// Opens a legacy file whose ids expire one TTL after their `ts`.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](crate::ErrorKind::NotFound) when there is no file;
    /// - [`NotADatabase`](crate::ErrorKind::NotADatabase) when it is not a SQLite database;
    /// - [`WrongApplication`](crate::ErrorKind::WrongApplication) when it does not have that format, also for
    ///   a store;
    /// - [`InvalidPath`](crate::ErrorKind::InvalidPath),
    ///   [`PermissionDenied`](crate::ErrorKind::PermissionDenied), [`Corrupt`](crate::ErrorKind::Corrupt),
    ///   [`Busy`](crate::ErrorKind::Busy) or [`Io`](crate::ErrorKind::Io) when it cannot be read.
    pub fn open(path: impl AsRef<Path>, ttl: impl Into<Ttl>) -> Result<Self> {
        let _opening = Registration::new(&file::shown(path.as_ref()))?;
        let path = file::resolve(path.as_ref(), false)?;
        let rows = LegacyRows::open(&path, &Config::default())?;
        let page = VecDeque::new();
        Ok(Self { rows, ttl: ttl.into(), page, at_end: false, skipped: 0 })
    }

    /// Returns the number of rows in the file.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io), [`Corrupt`](crate::ErrorKind::Corrupt) or
    /// [`Busy`](crate::ErrorKind::Busy) when the file cannot be read.
    pub fn count_rows(&self) -> Result<u64> {
        self.rows.count()
    }

    /// Returns the number of rows so far that were left out because they have no valid id (NULL, empty or
    /// longer than 65,536 bytes).
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn entry(&self, id: Vec<u8>, seconds: Option<i64>) -> Entry {
        // An id without a time is kept for one TTL from now rather than lost.
        let seen_ms = seconds
            .map_or_else(|| to_ms(SystemClock.now()), |seconds| seconds.saturating_mul(1000));
        let mut entry = Entry::new("", id, from_ms(seen_ms));
        entry.expires_at = self.ttl.expires_at(seen_ms).map(from_ms);
        entry
    }
}

impl Iterator for LegacyFile {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.page.pop_front() {
                match row.id {
                    Some(id) if (1..=MAX_ID_BYTES).contains(&id.len()) => {
                        return Some(Ok(self.entry(id, row.seconds)));
                    }
                    _ => self.skipped += 1,
                }
                continue;
            }
            if self.at_end {
                return None;
            }
            match self.rows.next_page(ROWS_PER_PAGE) {
                Ok(page) => (self.at_end, self.page) = (page.len() < ROWS_PER_PAGE, page.into()),
                Err(e) => {
                    self.at_end = true;
                    return Some(Err(e));
                }
            }
        }
    }
}
