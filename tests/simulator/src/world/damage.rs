//! What another program may do to the index in the file, which stores derive from the marks.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

/// How the index in the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Whole,
    /// Any store that opens the file finds the damage, and makes the index anew before it closes.
    FoundWhenOpened,
    /// A store finds the damage when it reads that part.
    FoundWhenRead,
}

#[derive(Clone, Copy, Debug)]
pub enum Damage {
    BlockDeleted,
    ByteFlipped,
    HeaderChanged,
    HeaderDeleted,
    HeadersDeleted,
    AllEmptied,
    KeyReplaced,
    KeyReplacedAndAllEmptied,
}

impl Damage {
    pub const ALL: [Self; 8] = [
        Self::BlockDeleted,
        Self::ByteFlipped,
        Self::HeaderChanged,
        Self::HeaderDeleted,
        Self::HeadersDeleted,
        Self::AllEmptied,
        Self::KeyReplaced,
        Self::KeyReplacedAndAllEmptied,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BlockDeleted => "a block deleted",
            Self::ByteFlipped => "a byte flipped",
            Self::HeaderChanged => "a header changed",
            Self::HeaderDeleted => "a header deleted",
            Self::HeadersDeleted => "all headers deleted",
            Self::AllEmptied => "the index emptied",
            Self::KeyReplaced => "the key replaced",
            Self::KeyReplacedAndAllEmptied => "the key replaced, the index emptied",
        }
    }

    pub fn leaves(self) -> Health {
        match self {
            Self::AllEmptied | Self::KeyReplacedAndAllEmptied => Health::Whole,
            // Without all headers the counts are not used.
            Self::HeaderChanged | Self::HeadersDeleted | Self::KeyReplaced => {
                Health::FoundWhenOpened
            }
            // The newest header may be deleted without a gap. Then only the counts are wrong.
            Self::BlockDeleted | Self::ByteFlipped | Self::HeaderDeleted => Health::FoundWhenRead,
        }
    }

    /// Does it in one transaction; nothing if stores keep the file busy. `at` chooses the place.
    pub fn inflict(self, path: &Path, at: i64) {
        let mut connection = Connection::open(path).expect("a connection");
        connection.busy_timeout(Duration::from_secs(1)).expect("a timeout");
        let Ok(transaction) = connection.transaction_with_behavior(TransactionBehavior::Immediate)
        else {
            return;
        };
        self.change(&transaction, at).expect("a change");
        let _ = transaction.commit();
    }

    fn change(self, connection: &Connection, at: i64) -> rusqlite::Result<()> {
        const EMPTY: &str = "DELETE FROM runs; DELETE FROM blocks; DELETE FROM counts;";
        let row_of = |table: &str, key: &str| -> rusqlite::Result<Option<i64>> {
            let all = format!("SELECT {key} FROM {table} ORDER BY {key}");
            let keys: Vec<i64> = connection
                .prepare(&all)?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let count = i64::try_from(keys.len()).expect("few rows");
            Ok((count > 0).then(|| keys[usize::try_from(at % count).expect("a place")]))
        };
        match self {
            Self::BlockDeleted => {
                let place = row_of("blocks", "place")?;
                connection.execute("DELETE FROM blocks WHERE place = ?1", [place])?;
            }
            Self::ByteFlipped => {
                let Some(place) = row_of("blocks", "place")? else { return Ok(()) };
                let select = "SELECT entries FROM blocks WHERE place = ?1";
                let mut entries: Vec<u8> =
                    connection.query_row(select, [place], |row| row.get(0))?;
                let byte = usize::try_from(at).expect("a place") % entries.len();
                entries[byte] ^= 1 << (at % 8);
                connection
                    .execute("UPDATE blocks SET entries = ?2 WHERE place = ?1", (place, entries))?;
            }
            Self::HeaderChanged => {
                const COLUMNS: [&str; 6] =
                    ["state", "after", "last", "entries", "written_to", "checksum"];
                let column = COLUMNS[usize::try_from(at / 64 % 6).expect("a column")];
                let run = row_of("runs", "run")?;
                let change = format!("UPDATE runs SET {column} = {column} + 1 WHERE run = ?1");
                connection.execute(&change, [run])?;
            }
            Self::HeaderDeleted => {
                let run = row_of("runs", "run")?;
                connection.execute("DELETE FROM runs WHERE run = ?1", [run])?;
            }
            Self::HeadersDeleted => connection.execute_batch("DELETE FROM runs")?,
            Self::AllEmptied => connection.execute_batch(EMPTY)?,
            Self::KeyReplaced | Self::KeyReplacedAndAllEmptied => {
                let key = [at.to_be_bytes(), at.to_le_bytes()].concat();
                connection.execute("UPDATE meta SET value = ?1 WHERE key = 'hash_key'", [key])?;
                if matches!(self, Self::KeyReplacedAndAllEmptied) {
                    connection.execute_batch(EMPTY)?;
                }
            }
        }
        Ok(())
    }
}
