//! Reading rows of the table into the index.
//!
//! Owns the checks of what is in the file, which any program may have written: content that no store writes is
//! an error, never a panic.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::Tip;
use super::catch_up::{Counters, read_newest, read_schema_version};
use crate::error::{Error, ErrorKind};
use crate::format;
use crate::format::sqlite_errors::{failure, is_damage};
use crate::id::{Key, KeyHasher, ScopedHasher};
use crate::index::{BulkLoader, Index, MAX_SEQ, Slot};

/// The columns that [`RowKeys::read`] reads.
macro_rules! key_columns {
    () => {
        "seq, scope, id, expires_at, retain_until, digest IS NOT NULL"
    };
}
pub(crate) use key_columns;

/// The size of the shortest row, with two times and an id of one byte.
const SMALLEST_ROW: i64 = 24;

/// Applies a row to the index.
pub(crate) fn apply_row(index: &Index, row: &KeyRow) {
    if row.slot.expires_at == Some(0) {
        index.remove(row.key, row.slot.seq);
    } else {
        index.put(row.key, row.slot);
    }
}

/// An index of the table, or of its end.
pub(crate) struct Loaded {
    pub(crate) index: Index,
    pub(crate) counters: Counters,
    pub(crate) schema_version: i64,
    pub(crate) tip: Option<Tip>,
    /// The number of rows that a purge would delete, among those that were read.
    pub(crate) expired: u64,
}

/// Fails when another program has upgraded the file since it was opened.
pub(crate) fn check_version(connection: &Connection) -> Result<(), ReadError> {
    format::newer_version(connection)?.map_or(Ok(()), |version| Err(ReadError::Newer(version)))
}

/// Reads the rows after `after`, and the newest row in any case, within the caller's transaction.
pub(crate) fn load_after(
    connection: &Connection,
    hasher: &KeyHasher,
    now_ms: i64,
    after: i64,
) -> Result<Loaded, ReadError> {
    check_version(connection)?;
    let (counters, schema_version) =
        (Counters::load(connection)?, read_schema_version(connection)?);
    let newest = read_newest(connection)?.unwrap_or(0);
    let first = after.saturating_add(1).min(newest);
    let rows = max_rows(connection, first)?;
    let (mut index, mut tip, mut expired) = (BulkLoader::new(rows, after), None, 0);
    let mut statement = connection.prepare(concat!(
        "SELECT ",
        key_columns!(),
        " FROM seen WHERE seq >= ?1 ORDER BY seq"
    ))?;
    let mut rows = statement.query([first])?;
    let mut keys = RowKeys::new(hasher);
    while let Some(row) = rows.next()? {
        let row = keys.read(row)?;
        if after == 0 && row.is_over(now_ms) {
            // Also a tombstone. The id has no live row before this one either.
            index.remove(row.key, row.slot.seq);
            expired += u64::from(row.slot.expires_at != Some(0));
        } else {
            index.put(row.key, row.slot);
        }
        tip = Some(row.tip());
    }
    Ok(Loaded { index: index.finish(), counters, schema_version, tip, expired })
}

/// Returns an upper bound for the number of rows from `first` on: the range of `seq`, and how many rows the file has room
/// for.
pub(crate) fn max_rows(connection: &Connection, first: i64) -> Result<usize, ReadError> {
    let numbers: i64 = connection.query_row(
        "SELECT ifnull(max(seq) - max(?1, (SELECT min(seq) FROM seen)) + 1, 0) FROM seen",
        [first],
        |row| row.get(0),
    )?;
    let pages = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let bytes = pages("page_count")?.saturating_mul(pages("page_size")?);
    Ok(usize::try_from(numbers.min(bytes / SMALLEST_ROW)).unwrap_or(0))
}

/// What the index keeps of a row.
pub(crate) struct KeyRow {
    pub(crate) key: Key,
    pub(crate) slot: Slot,
    pub(crate) retain_until: Option<i64>,
}

impl KeyRow {
    /// Returns whether the row has expired and is not kept either.
    pub(crate) fn is_over(&self, now_ms: i64) -> bool {
        !self.slot.is_live(now_ms) && self.retain_until.is_none_or(|until| until <= now_ms)
    }

    pub(crate) fn tip(&self) -> Tip {
        Tip { seq: self.slot.seq, key: self.key, expires_at: self.slot.expires_at }
    }
}

/// Reads the [`key_columns!`] of rows. Successive rows are mostly of one scope, so it computes the scope's half of
/// the hash once for them.
pub(crate) struct RowKeys<'a> {
    hasher: &'a KeyHasher,
    scope: String,
    scoped: ScopedHasher,
}

impl<'a> RowKeys<'a> {
    pub(crate) fn new(hasher: &'a KeyHasher) -> Self {
        Self { hasher, scope: String::new(), scoped: hasher.scoped("") }
    }

    /// Returns the scope of the row that was read last.
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    pub(crate) fn read(&mut self, row: &Row<'_>) -> Result<KeyRow, ReadError> {
        let seq = checked_seq(row.get(0)?)?;
        let ValueRef::Text(scope) = row.get_ref(1)? else {
            return Err(ReadError::Content("a scope is not text"));
        };
        // Lengths first: memcmp of two empty slices takes 200 ns on processors where its masked load
        // from a dangling pointer causes a fault to be suppressed.
        let same =
            scope.len() == self.scope.len() && (scope.is_empty() || scope == self.scope.as_bytes());
        if !same {
            let scope =
                str::from_utf8(scope).map_err(|_| ReadError::Content("a scope is not UTF-8"))?;
            self.scoped = self.hasher.scoped(scope);
            scope.clone_into(&mut self.scope);
        }
        let key = self.scoped.key(id_bytes(row.get_ref(2)?)?);
        let expires_at = row.get::<_, Option<i64>>(3)?;
        if expires_at.is_some_and(|at| !(0..=crate::clock::MAX_MS).contains(&at)) {
            return Err(ReadError::Content("an expiry is out of range"));
        }
        let retain_until: Option<i64> = row.get(4)?;
        let (has_digest, is_retained) = (row.get(5)?, retain_until.is_some());
        Ok(KeyRow { key, slot: Slot { seq, expires_at, has_digest, is_retained }, retain_until })
    }
}

/// Returns what the index keeps of the row with this number, if it is there.
pub(super) fn row_at(
    connection: &Connection,
    hasher: &KeyHasher,
    seq: i64,
) -> Result<Option<KeyRow>, ReadError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        key_columns!(),
        " FROM seen WHERE seq = ?1"
    ))?;
    let mut rows = statement.query([seq])?;
    rows.next()?.map(|row| RowKeys::new(hasher).read(row)).transpose()
}

pub(crate) fn id_bytes(value: ValueRef<'_>) -> Result<&[u8], ReadError> {
    format::id_bytes(value)
        .map_err(|_| ReadError::Content("an id has a storage class that no store writes"))
}

pub(crate) fn checked_seq(seq: i64) -> Result<i64, ReadError> {
    if (1..=MAX_SEQ).contains(&seq) {
        Ok(seq)
    } else {
        Err(ReadError::Content("a seq is out of range"))
    }
}

/// Why rows could not be read: SQLite failed, or a store does not write such rows.
#[derive(Debug)]
pub(crate) enum ReadError {
    Sqlite(rusqlite::Error),
    Content(&'static str),
    /// The sorted runs are not what a store writes.
    Index(&'static str),
    /// Another program has upgraded the file to this version of the format.
    Newer(i64),
    /// There was a commit, or the file was restored in place, during the read: read again.
    Changed,
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl ReadError {
    /// Takes damage that SQLite found, in a read of the runs, for damage of the runs: what is derived from the table can be
    /// read from there.
    pub(crate) fn in_the_index(self) -> Self {
        match self {
            Self::Sqlite(e) if is_damage(&e) => Self::Index("SQLite finds it damaged"),
            error => error,
        }
    }

    pub(crate) fn at(self, name: &str) -> Error {
        match self {
            Self::Sqlite(e) => failure("read", name, e),
            Self::Newer(version) => format::newer_version_error(name, version),
            Self::Changed => Error::new(
                ErrorKind::Busy,
                format!("{name} was changed while it was read; try again"),
            ),
            Self::Index(what) => {
                Error::new(ErrorKind::Corrupt, format!("{name}: {}", damaged_index(what)))
            }
            Self::Content(what) => Error::new(
                ErrorKind::Corrupt,
                format!("{name} has content that no store writes: {what}; restore a backup of it"),
            ),
        }
    }
}

/// Returns the sentence about runs that are not what a store writes.
pub(super) fn damaged_index(what: &str) -> String {
    format!(
        "the index in the file is damaged: {what}; no mark is lost: compact the store, which makes the index anew"
    )
}
