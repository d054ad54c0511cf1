//! A mark's row: its columns, how it is written, and how callers see it.
//!
//! Owns the one list of columns and the one statement that inserts a row. The row of a claim is in `claims`.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::claim_row::attempts;
use crate::clock::{from_ms, to_ms};
use crate::entry::{Entry, History, State};
use crate::format::{self, IdValue};
use crate::id::Id;
use crate::index::{Repeats, Slot};
use crate::item::Digest;
use crate::token::Token;

/// The columns of a mark's row besides `seq`, in the order in which [`MarkRow::read`] reads them and
/// [`NewMark`] writes them.
macro_rules! columns {
    () => {
        "scope, id, first_seen, last_seen, expires_at, retain_until, digest, duplicates, earlier, token, attempts, \
         last_error, receipt"
    };
}
pub(crate) use columns;

/// SQL for a row's duplicate count plus this parameter. It stops at the largest number that the column can
/// hold: SQLite would refuse the row beyond. A negative count was written by another program and counts as 0.
macro_rules! duplicates_plus {
    ($more:literal) => {
        concat!("min(max(duplicates, 0), 9223372036854775807 - ", $more, ") + ", $more)
    };
}
pub(super) use duplicates_plus;

/// What is known of the windows of an id before the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub(crate) windows: i64,
    pub(crate) duplicates: i64,
    pub(crate) first_seen: i64,
    pub(crate) last_seen: i64,
}

impl Earlier {
    fn text(self) -> String {
        format!("[{},{},{},{}]", self.windows, self.duplicates, self.first_seen, self.last_seen)
    }

    /// Reads what [`text`](Self::text) returned. Anything else was written by another program.
    fn read(text: &str) -> Option<Self> {
        let mut numbers = text.strip_prefix('[')?.strip_suffix(']')?.split(',').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let earlier = Self {
            windows: next().filter(|windows| *windows > 0)?,
            duplicates: next().filter(|duplicates| *duplicates >= 0)?,
            first_seen: next()?,
            last_seen: next()?,
        };
        next().is_none().then_some(earlier)
    }

    pub(crate) fn of(history: History) -> Self {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            windows: number(history.windows),
            duplicates: number(history.duplicates),
            first_seen: to_ms(history.first_seen),
            last_seen: to_ms(history.last_seen),
        }
    }

    fn public(self) -> History {
        History {
            windows: self.windows.cast_unsigned(),
            duplicates: self.duplicates.cast_unsigned(),
            first_seen: from_ms(self.first_seen),
            last_seen: from_ms(self.last_seen),
        }
    }
}

/// A mark to be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NewMark<'a> {
    pub(crate) first_seen: i64,
    pub(crate) last_seen: i64,
    pub(crate) expires_at: Option<i64>,
    /// Until when it is kept, if that is later than its expiry.
    pub(crate) retain_until: Option<i64>,
    pub(crate) digest: Option<Digest>,
    pub(crate) duplicates: i64,
    pub(crate) earlier: Option<Earlier>,
    pub(crate) token: Option<Token>,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<&'a str>,
    pub(crate) receipt: Option<&'a [u8]>,
}

impl NewMark<'_> {
    /// Returns a mark of an id of which nothing else is known.
    pub(crate) fn at(seen_at_ms: i64, expires_at: Option<i64>) -> Self {
        Self {
            first_seen: seen_at_ms,
            last_seen: seen_at_ms,
            expires_at,
            retain_until: None,
            digest: None,
            duplicates: 0,
            earlier: None,
            token: None,
            attempts: 0,
            last_error: None,
            receipt: None,
        }
    }

    /// Returns the index's slot of the mark in this row.
    pub(crate) fn slot(&self, seq: i64) -> Slot {
        let (has_digest, is_retained) = (self.digest.is_some(), self.retain_until.is_some());
        Slot { seq, expires_at: self.expires_at, has_digest, is_retained }
    }

    pub(super) fn insert(
        &self,
        connection: &Connection,
        id: Id<'_>,
        seq: i64,
    ) -> rusqlite::Result<()> {
        if *self == Self::at(self.last_seen, self.expires_at) {
            // As most are: to bind the defaults of the other columns would cost a tenth of a batch.
            let mut insert = connection.prepare_cached(
                "INSERT INTO seen (seq, scope, id, first_seen, last_seen, expires_at) \
                 VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
            )?;
            let id_value = IdValue(id.bytes);
            insert.execute((seq, id.scope, id_value, self.last_seen, self.expires_at))?;
            return Ok(());
        }
        let mut insert = connection.prepare_cached(concat!(
            "INSERT INTO seen (seq, ",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        ))?;
        insert.execute((
            seq,
            id.scope,
            IdValue(id.bytes),
            self.first_seen,
            self.last_seen,
            self.expires_at,
            self.retain_until,
            self.digest.map(Digest::bytes),
            self.duplicates,
            self.earlier.map(Earlier::text),
            self.token.map(Token::bytes),
            self.attempts,
            self.last_error,
            self.receipt,
        ))?;
        Ok(())
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkRow {
    pub(crate) scope: String,
    pub(crate) id: Vec<u8>,
    pub(crate) first_seen: i64,
    pub(crate) last_seen: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) retain_until: Option<i64>,
    pub(crate) digest: Option<Digest>,
    /// Not negative.
    pub(crate) duplicates: i64,
    pub(crate) earlier: Option<Earlier>,
    pub(crate) token: Option<Token>,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
    pub(crate) receipt: Option<Vec<u8>>,
}

impl MarkRow {
    /// Returns the row of a mark, without its id.
    #[cfg(feature = "backend")]
    pub(crate) fn new(mark: &NewMark<'_>) -> Self {
        Self {
            scope: String::new(),
            id: Vec::new(),
            first_seen: mark.first_seen,
            last_seen: mark.last_seen,
            expires_at: mark.expires_at,
            retain_until: mark.retain_until,
            digest: mark.digest,
            duplicates: mark.duplicates,
            earlier: mark.earlier,
            token: mark.token,
            attempts: mark.attempts,
            last_error: mark.last_error.map(str::to_owned),
            receipt: mark.receipt.map(<[u8]>::to_vec),
        }
    }

    /// Reads the columns `scope` to `receipt` of the table, without `seq`.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            scope: row.get(0)?,
            id: format::id_bytes(row.get_ref(1)?)?.to_vec(),
            first_seen: row.get(2)?,
            last_seen: row.get(3)?,
            expires_at: row.get(4)?,
            // Another program may have written any number, as for the attempts.
            retain_until: row.get(5)?,
            digest: digest(row.get_ref(6)?)?,
            duplicates: row.get::<_, i64>(7)?.max(0),
            earlier: row.get_ref(8)?.as_str_or_null()?.and_then(Earlier::read),
            token: row.get_ref(9)?.as_blob_or_null()?.and_then(Token::from_bytes),
            attempts: attempts(row.get::<_, Option<i64>>(10)?.unwrap_or(0)),
            last_error: row.get(11)?,
            receipt: row.get(12)?,
        })
    }

    /// Returns what the next window of the id is told of this one, which is over.
    pub(crate) fn as_earlier(&self) -> Earlier {
        let before = self.earlier.unwrap_or(Earlier {
            windows: 0,
            duplicates: 0,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
        });
        Earlier {
            windows: before.windows.saturating_add(1),
            duplicates: before.duplicates.saturating_add(self.duplicates),
            first_seen: before.first_seen.min(self.first_seen),
            last_seen: self.last_seen,
        }
    }

    /// Returns the row with duplicates that are not in the file yet.
    pub(crate) fn with(self, repeats: Repeats) -> Self {
        Self {
            duplicates: self.duplicates.saturating_add(repeats.count.into()),
            last_seen: self.last_seen.max(repeats.last_ms),
            ..self
        }
    }

    pub(crate) fn is_live(&self, now_ms: i64) -> bool {
        self.expires_at.is_none_or(|expires_at| now_ms < expires_at)
    }

    /// Returns the mark to be written again.
    pub(crate) fn as_new(&self) -> NewMark<'_> {
        NewMark {
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            expires_at: self.expires_at,
            retain_until: self.retain_until,
            digest: self.digest,
            duplicates: self.duplicates,
            earlier: self.earlier,
            token: self.token,
            attempts: self.attempts,
            last_error: self.last_error.as_deref(),
            receipt: self.receipt.as_deref(),
        }
    }

    /// Returns the row as callers see it.
    pub(crate) fn entry(self, now_ms: i64) -> Entry {
        Entry {
            state: if self.is_live(now_ms) { State::Seen } else { State::Expired },
            scope: self.scope,
            id: self.id,
            first_seen: from_ms(self.first_seen),
            last_seen: from_ms(self.last_seen),
            expires_at: self.expires_at.map(from_ms),
            retain_until: self.retain_until.map(from_ms),
            digest: self.digest,
            change: None,
            history: self.earlier.map(Earlier::public),
            lease_until: None,
            holder: None,
            held: false,
            attempts: self.attempts,
            abandoned: 0,
            last_error: self.last_error,
            receipt: self.receipt,
            duplicates: self.duplicates.cast_unsigned(),
        }
    }
}

/// Returns the digest of a row.
pub(crate) fn digest_of(connection: &Connection, seq: i64) -> rusqlite::Result<Option<Digest>> {
    connection
        .prepare_cached("SELECT digest FROM seen WHERE seq = ?1")?
        .query_row([seq], |row| digest(row.get_ref(0)?))
}

/// Reads a digest. Bytes that are none were written by another program.
pub(super) fn digest(value: ValueRef<'_>) -> rusqlite::Result<Option<Digest>> {
    Ok(value.as_blob_or_null()?.and_then(Digest::from_bytes))
}

/// Returns the later of two expiries; `None` is never.
pub(crate) fn later(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        _ => None,
    }
}
