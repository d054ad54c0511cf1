//! A mark's row: its columns, how it is written, and how callers see it.
//!
//! Owns the one list of columns and the one statement that inserts a row. The row of a claim is in `claims`.

use rusqlite::{Connection, Row};

use super::claims::attempts;
use crate::clock::from_ms;
use crate::entry::{Entry, State};
use crate::format::{self, IdValue};
use crate::id::Id;
use crate::token::Token;

/// The columns of a mark's row besides `seq`, in the order in which [`MarkRow::read`] reads them and
/// [`NewMark`] writes them.
macro_rules! columns {
    () => {
        "scope, id, first_seen, last_seen, expires_at, duplicates, token, attempts, last_error, receipt"
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

/// A mark to be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NewMark<'a> {
    pub(crate) first_seen: i64,
    pub(crate) last_seen: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) duplicates: i64,
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
            duplicates: 0,
            token: None,
            attempts: 0,
            last_error: None,
            receipt: None,
        }
    }

    pub(super) fn insert(
        &self,
        connection: &Connection,
        id: Id<'_>,
        seq: i64,
    ) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(concat!(
            "INSERT INTO seen (seq, ",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        ))?;
        insert.execute((
            seq,
            id.scope,
            IdValue(id.bytes),
            self.first_seen,
            self.last_seen,
            self.expires_at,
            self.duplicates,
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
    /// Not negative.
    pub(crate) duplicates: i64,
    pub(crate) token: Option<Token>,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
    pub(crate) receipt: Option<Vec<u8>>,
}

impl MarkRow {
    /// Reads the columns `scope` to `receipt` of the table, without `seq`.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            scope: row.get(0)?,
            id: format::id_bytes(row.get_ref(1)?)?.to_vec(),
            first_seen: row.get(2)?,
            last_seen: row.get(3)?,
            expires_at: row.get(4)?,
            // Another program may have written any number, as for the attempts.
            duplicates: row.get::<_, i64>(5)?.max(0),
            token: row.get_ref(6)?.as_blob_or_null()?.and_then(Token::from_bytes),
            attempts: attempts(row.get::<_, Option<i64>>(7)?.unwrap_or(0)),
            last_error: row.get(8)?,
            receipt: row.get(9)?,
        })
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
            duplicates: self.duplicates,
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

/// Returns the later of two expiries; `None` is never.
pub(crate) fn later(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        _ => None,
    }
}
