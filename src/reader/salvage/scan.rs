//! Rows of the table of marks, found without the inner pages that lead to them.
//!
//! Owns the reading of leaf pages and records (<https://sqlite.org/fileformat2.html>, 1.6 and 2.1). What always holds: a
//! row is returned only if all its bytes were read and they are what a store writes. Other tables and the schema have leaf
//! pages of this kind too, but no row of theirs has as many columns, nor parts on other pages. The content of an id is
//! not mistaken for such a page: an
//! overflow page begins with the number of the next. A page that holds only zeros was lost: no row has a part there.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::is_what_a_store_writes;
use super::pages::{Header, Pages, read_u32};
use crate::clock::MAX_MS;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{self, Stamp, shown};
use crate::format;
use crate::format::sqlite_errors::failure;
use crate::index::MAX_SEQ;
use crate::journal::MarkRow;

const TABLE_LEAF: u8 = 0x0D;
const PAGE_HEADER_BYTES: usize = 8;

/// How many columns a mark's row has. The first, `seq`, is NULL in the record: it is the number of the row.
const COLUMNS: usize = 14;

/// Longer than the longest row: a scope, an id, an error and a receipt at their limits.
const LONGEST_RECORD: u64 = 2 << 20;

/// What a scan found.
#[derive(Default)]
pub(super) struct Scanned {
    /// The records of the rows that were asked for, by `seq`.
    pub(super) records: BTreeMap<i64, Vec<u8>>,
    /// Rows that were not asked for, and that are not whole.
    pub(super) broken: HashSet<i64>,
    /// Whether it is known which pages are free. Such pages may hold rows that were removed.
    pub(super) free_pages_are_known: bool,
}

/// Looks at each page of the database. Returns the rows that a walk did not reach: also outside the gaps that it knows
/// of, because a wrong number in an inner page leads past rows without a word. Where it is not known which pages are
/// free, those in the gaps. Both must be in order.
///
/// # Errors
///
/// `Busy` if this process has the database open, or if the file changes meanwhile.
pub(super) fn scan(
    path: &Path,
    reached: &[RangeInclusive<i64>],
    gaps: &[RangeInclusive<i64>],
) -> Result<Scanned> {
    file::read_unopened(path, |file| {
        let stamp = Stamp::settled(path)?;
        let pages = Pages::new(file, path)?;
        if let Some(header) = &pages.header {
            check(header, path)?;
        }
        let decoder = Decoder::new().map_err(|e| failure("read", &shown(path), e))?;
        let (free, free_pages_are_known) = pages.free();
        let others = between(reached);
        let wanted = if free_pages_are_known { &others } else { gaps };
        let mut scanned = Scanned { free_pages_are_known, ..Scanned::default() };
        for page in (2..=pages.last()).filter(|page| !free.contains(page)) {
            scanned.read_page(&pages, page, wanted, &decoder);
        }
        if Stamp::of(path)? != stamp || !pages.has_same_log(path) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{} was changed while it was read; try again", shown(path)),
            ));
        }
        Ok(scanned)
    })
}

/// Returns the ranges between these.
fn between(reached: &[RangeInclusive<i64>]) -> Vec<RangeInclusive<i64>> {
    let begins = [1].into_iter().chain(reached.iter().map(|run| run.end() + 1));
    let ends = reached.iter().map(|run| run.start() - 1).chain([MAX_SEQ]);
    begins.zip(ends).map(|(begin, end)| begin..=end).filter(|range| !range.is_empty()).collect()
}

/// Refuses the database of another program and that of a later version.
fn check(header: &Header, path: &Path) -> Result<()> {
    if header.application_id != format::APPLICATION_ID {
        return Err(super::no_store(path));
    }
    if header.user_version > format::FORMAT_VERSION {
        return Err(format::newer_version_error(&shown(path), header.user_version));
    }
    Ok(())
}

impl Scanned {
    fn read_page(
        &mut self,
        pages: &Pages<'_>,
        number: u32,
        wanted: &[RangeInclusive<i64>],
        decoder: &Decoder,
    ) {
        let page = pages.page(number);
        if page.first() != Some(&TABLE_LEAF) || page.len() < PAGE_HEADER_BYTES {
            return;
        }
        let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
        let pointers = page[PAGE_HEADER_BYTES..].chunks_exact(2).take(cells);
        for pointer in pointers {
            let at = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
            let Some(cell) = page.get(at..).and_then(Cell::read) else { continue };
            let after = wanted.partition_point(|range| *range.end() < cell.seq);
            let is_wanted = wanted.get(after).is_some_and(|range| range.contains(&cell.seq));
            match cell.record(pages) {
                Some(record) if is_wanted && decoder.mark(&record).is_some() => {
                    self.records.insert(cell.seq, record);
                }
                None if !is_wanted && self.free_pages_are_known => {
                    self.broken.insert(cell.seq);
                }
                _ => {}
            }
        }
    }
}

/// A row on a leaf page.
struct Cell<'a> {
    seq: i64,
    /// The length of the record.
    bytes: usize,
    /// What comes after the two numbers, up to the end of the page.
    rest: &'a [u8],
}

impl<'a> Cell<'a> {
    fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let length = varint(&mut bytes)?;
        let seq = varint(&mut bytes)?.cast_signed();
        let is_possible = (1..=MAX_SEQ).contains(&seq) && length <= LONGEST_RECORD;
        is_possible.then_some(Self { seq, bytes: usize::try_from(length).ok()?, rest: bytes })
    }

    /// Returns the record; `None` if a part of it cannot be read.
    fn record(&self, pages: &Pages<'_>) -> Option<Vec<u8>> {
        let usable = pages.usable();
        let most = usable - 35;
        if self.bytes <= most {
            return self.rest.get(..self.bytes).map(<[u8]>::to_vec);
        }
        let least = (usable - 12) * 32 / 255 - 23;
        let local = least + (self.bytes - least) % (usable - 4);
        let local = if local <= most { local } else { least };
        let mut record = self.rest.get(..local)?.to_vec();
        let mut next = read_u32(self.rest, local)?;
        while record.len() < self.bytes {
            let page = pages.page(next);
            if page.iter().all(|byte| *byte == 0) {
                return None;
            }
            let content = page.get(4..)?;
            let part = (self.bytes - record.len()).min(usable - 4);
            record.extend_from_slice(content.get(..part)?);
            next = read_u32(&page, 0)?;
        }
        (next == 0).then_some(record)
    }
}

/// Reads records as marks.
pub(super) struct Decoder {
    /// Has no tables. SQLite gives the values of a record back as a row.
    connection: Connection,
}

impl Decoder {
    pub(super) fn new() -> rusqlite::Result<Self> {
        Ok(Self { connection: Connection::open_in_memory()? })
    }

    /// Returns the mark in a record; `None` if a store does not write such a record.
    pub(super) fn mark(&self, record: &[u8]) -> Option<MarkRow> {
        let values = values(record)?;
        let [ValueRef::Null, values @ ..] = &values[..] else { return None };
        let values = values.iter().map(|value| ToSqlOutput::Borrowed(*value));
        let mut select = self
            .connection
            .prepare_cached("SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13")
            .ok()?;
        let mark = select.query_row(params_from_iter(values), MarkRow::read).ok()?;
        let is_time = |at: i64| (0..=MAX_MS).contains(&at);
        (is_what_a_store_writes(&mark) && mark.expires_at.is_none_or(is_time)).then_some(mark)
    }
}

/// Returns the values of a record; `None` unless it is whole and has as many as a mark's row.
fn values(record: &[u8]) -> Option<Vec<ValueRef<'_>>> {
    let mut rest = record;
    let header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut kinds = record.get(record.len() - rest.len()..header)?;
    let mut body = &record[header..];
    let mut values = Vec::with_capacity(COLUMNS);
    while !kinds.is_empty() {
        values.push(value(varint(&mut kinds)?, &mut body)?);
    }
    (values.len() == COLUMNS && body.is_empty()).then_some(values)
}

/// Takes a value of this kind from the body of a record.
fn value<'a>(kind: u64, body: &mut &'a [u8]) -> Option<ValueRef<'a>> {
    let mut take = |bytes: u64| {
        let (taken, rest) = body.split_at_checked(usize::try_from(bytes).ok()?)?;
        *body = rest;
        Some(taken)
    };
    Some(match kind {
        0 => ValueRef::Null,
        1..=4 => ValueRef::Integer(integer(take(kind)?)),
        5 => ValueRef::Integer(integer(take(6)?)),
        6 => ValueRef::Integer(integer(take(8)?)),
        8 => ValueRef::Integer(0),
        9 => ValueRef::Integer(1),
        12.. if kind.is_multiple_of(2) => ValueRef::Blob(take((kind - 12) / 2)?),
        12.. => ValueRef::Text(take((kind - 13) / 2)?),
        // A number with a fraction, or a kind that SQLite does not write.
        _ => return None,
    })
}

/// Reads a number with a sign from its bytes, the highest first.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte))
}

/// Takes a number of one to nine bytes: seven bits a byte, and eight of the ninth.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for n in 0.. {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if n == 8 {
            return Some(number << 8 | u64::from(byte));
        }
        number = number << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}
