//! The pages of a database file, read without SQLite.
//!
//! Owns the header of a database and its list of free pages (<https://sqlite.org/fileformat2.html>). What always holds:
//! a page that the log has is read from the log. A part of a page that cannot be read is not there: it is never taken for
//! zeros. Knows nothing of what is in a page that is in use.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};
use crate::file::wal::{self, Committed};
use crate::file::{beside, shown};
use crate::format;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;

/// What the header of a database says.
pub(super) struct Header {
    page_bytes: u32,
    /// How many bytes at the end of each page are not SQLite's.
    reserved: u8,
    /// 0 if the header does not know it.
    count: u32,
    first_free: u32,
    free_count: u32,
    pub(super) user_version: i64,
    pub(super) application_id: i64,
}

impl Header {
    /// Returns `None` for what is not the header of a database.
    fn read(page: &[u8]) -> Option<Self> {
        let header = page.get(..HEADER_BYTES)?;
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            bytes => u32::from(bytes),
        };
        let is_valid = header.starts_with(MAGIC)
            && page_bytes.is_power_of_two()
            && page_bytes >= 512
            && u32::from(header[20]) <= page_bytes - 480;
        let number = |at| read_u32(header, at).expect("a header has 100 bytes");
        is_valid.then(|| Self {
            page_bytes,
            reserved: header[20],
            // A program that does not write the count leaves the two counters different.
            count: if number(24) == number(92) { number(28) } else { 0 },
            first_free: number(32),
            free_count: number(36),
            user_version: number(60).into(),
            application_id: number(68).into(),
        })
    }
}

/// A database file and its log.
pub(super) struct Pages<'a> {
    file: &'a File,
    log: Option<File>,
    log_header: Option<wal::Header>,
    committed: Committed,
    /// `None` if page 1 does not begin with one.
    pub(super) header: Option<Header>,
    page_bytes: usize,
}

impl<'a> Pages<'a> {
    pub(super) fn new(file: &'a File, path: &Path) -> Result<Self> {
        let fail = |e| Error::io(format!("cannot read {}", shown(path)), e);
        let log = File::open(beside(path, "-wal")).ok();
        let log_header = log.as_ref().map(wal::header).transpose().map_err(fail)?.flatten();
        let header = Header::read(&read_at(file, 0, HEADER_BYTES));
        let of_log = log_header.as_ref().map(wal::page_bytes);
        let page_bytes = header
            .as_ref()
            .map(|header| header.page_bytes)
            .or(of_log.filter(|bytes| bytes.is_power_of_two() && (512..=65_536).contains(bytes)))
            .unwrap_or(format::PAGE_SIZE);
        let committed = Committed::read(path, page_bytes).map_err(fail)?;
        let page_bytes = page_bytes as usize;
        let mut pages = Self { file, log, log_header, committed, header, page_bytes };
        pages.header = Header::read(&pages.page(1));
        Ok(pages)
    }

    /// Returns how many bytes of a page are SQLite's.
    pub(super) fn usable(&self) -> usize {
        self.page_bytes - self.header.as_ref().map_or(0, |header| header.reserved.into())
    }

    /// Returns the number of the last page.
    pub(super) fn last(&self) -> u32 {
        let bytes = self.file.metadata().map_or(0, |metadata| metadata.len());
        let in_file = u32::try_from(bytes.div_ceil(self.page_bytes as u64)).unwrap_or(u32::MAX);
        let said = self.header.as_ref().map(|header| header.count).filter(|count| *count > 0);
        self.committed.size().unwrap_or(said.map_or(in_file, |said| said.min(in_file)))
    }

    /// Returns what can be read of a page, up to its usable bytes.
    pub(super) fn page(&self, number: u32) -> Vec<u8> {
        let Some(before) = number.checked_sub(1) else { return Vec::new() };
        let usable = self.usable();
        match (&self.log, self.committed.place(number)) {
            (Some(log), Some(place)) => read_at(log, place, usable),
            _ => read_at(self.file, u64::from(before) * self.page_bytes as u64, usable),
        }
    }

    /// Returns the pages that are free, and whether these are all.
    pub(super) fn free(&self) -> (HashSet<u32>, bool) {
        let mut free = HashSet::new();
        let Some(header) = &self.header else { return (free, false) };
        let last = self.last();
        let mut trunk = header.first_free;
        while trunk != 0 && trunk <= last && free.insert(trunk) {
            let page = self.page(trunk);
            let numbers = || page.chunks_exact(4).filter_map(|bytes| read_u32(bytes, 0));
            let count = numbers().nth(1).unwrap_or(0) as usize;
            free.extend(numbers().skip(2).take(count).filter(|page| (1..=last).contains(page)));
            trunk = numbers().next().unwrap_or(0);
        }
        let is_whole = trunk == 0 && free.len() == header.free_count as usize;
        (free, is_whole)
    }

    /// Returns whether the log is still the one that was read.
    pub(super) fn has_same_log(&self, path: &Path) -> bool {
        let now = File::open(beside(path, "-wal")).ok();
        let now = now.as_ref().and_then(|log| wal::header(log).ok().flatten());
        now == self.log_header
    }
}

/// Reads up to so many bytes. What cannot be read, and all behind it, is left out.
fn read_at(mut file: &File, at: u64, bytes: usize) -> Vec<u8> {
    let mut read = Vec::with_capacity(bytes);
    if file.seek(SeekFrom::Start(at)).is_ok() {
        // What was read before an error stays.
        let _ = file.take(bytes as u64).read_to_end(&mut read);
    }
    read
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
