//! The write-ahead log, used without SQLite: which pages it holds, whether its frames are as SQLite wrote them,
//! and a lock on it that shows that a reader is reading.
//!
//! This is safe with the log, unlike with the database and the `-shm`: SQLite holds its POSIX locks on those
//! two and none on the log, so closing a descriptor of the log loses no lock. What always holds: nothing is
//! written. Knows the format of the log, and nothing of the pages in it.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::Path;

use super::{beside, shown};
use crate::error::Result;
use crate::process::{Registered, Registration};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The number at the start of a log. Its lowest bit gives the byte order of the checksums.
const MAGIC: u32 = 0x377F_0682;

/// The header of a log. SQLite gives it another salt each time that it restarts the log.
pub(crate) type Header = [u8; HEADER_BYTES];

/// Reads the header; `None` if the log is too short to have one.
pub(crate) fn header(mut log: &File) -> io::Result<Option<Header>> {
    let mut header = [0; HEADER_BYTES];
    log.seek(SeekFrom::Start(0))?;
    Ok(read_full(&mut log, &mut header)?.then_some(header))
}

/// Returns the size of the pages in a log with this header.
pub(crate) fn page_bytes(header: &Header) -> u32 {
    read_u32(header, 8)
}

/// Returns whether there is a log beside the database at `path` with frames in it, valid or not.
pub(super) fn holds_frames(path: &Path) -> bool {
    // Metadata first: what is not a file could not be read without waiting.
    let log = beside(path, "-wal");
    let is_long = std::fs::symlink_metadata(&log)
        .is_ok_and(|found| found.is_file() && found.len() > HEADER_BYTES as u64);
    is_long
        && File::open(log)
            .and_then(|log| header(&log))
            .is_ok_and(|header| header.is_some_and(|header| read_u32(&header, 0) & !1 == MAGIC))
}

/// Returns whether these frames of the log, counted from 1, are as SQLite wrote them. Each has the log's salt
/// and a checksum over all frames before it. Zeros have neither: a log that was cut and then written to has a
/// hole of zeros, because SQLite writes each frame at its place.
pub(crate) fn has_frames(
    log: &File,
    header: &Header,
    page_bytes: u32,
    frames: RangeInclusive<u32>,
) -> io::Result<bool> {
    let Some(mut checksum) = Checksum::of_log(header, page_bytes) else { return Ok(false) };
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    let before = u64::from(frames.start().saturating_sub(1));
    let mut log = BufReader::with_capacity(1 << 16, log);
    log.seek(SeekFrom::Start(HEADER_BYTES as u64 + before.saturating_sub(1) * frame.len() as u64))?;
    if before > 0 {
        if !read_full(&mut log, &mut frame)? {
            return Ok(false);
        }
        checksum.continue_after(&frame);
    }
    for _ in frames {
        if !read_full(&mut log, &mut frame)? || !checksum.accepts(header, &frame) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The pages that the committed transactions of a log wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    /// For each page, where the log has its last content.
    pages: HashMap<u32, u64>,
    /// How many pages the database has after the last transaction; 0 if there is none.
    size: u32,
}

impl Committed {
    /// Reads the log beside the database at `path`, as SQLite's recovery does: up to the first frame with
    /// another salt or a wrong checksum, and then back to the last commit. A missing log holds nothing.
    pub(crate) fn read(path: &Path, page_bytes: u32) -> io::Result<Self> {
        match File::open(beside(path, "-wal")) {
            Ok(log) => Self::read_from(BufReader::new(log), page_bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    fn read_from(mut log: impl Read, page_bytes: u32) -> io::Result<Self> {
        let mut committed = Self::default();
        let mut header = [0; HEADER_BYTES];
        if !read_full(&mut log, &mut header)? {
            return Ok(committed);
        }
        let Some(mut checksum) = Checksum::of_log(&header, page_bytes) else {
            return Ok(committed);
        };
        let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
        let mut uncommitted = Vec::new();
        let mut at = HEADER_BYTES as u64;
        while read_full(&mut log, &mut frame)? {
            if !checksum.accepts(&header, &frame) {
                break;
            }
            let (page, size) = (read_u32(&frame, 0), read_u32(&frame, 4));
            uncommitted.push((page, at + FRAME_HEADER_BYTES as u64));
            at += frame.len() as u64;
            if size > 0 {
                committed.pages.extend(uncommitted.drain(..));
                committed.size = size;
            }
        }
        Ok(committed)
    }

    /// Returns whether the log has each page of the database from `first` on; false if it holds nothing.
    pub(crate) fn has_all_from(&self, first: u32) -> bool {
        let mut needed: RangeInclusive<u32> = first..=self.size;
        self.size > 0 && needed.all(|page| self.pages.contains_key(&page))
    }

    /// Returns where the content of the page begins in the log, if it is there.
    pub(crate) fn place(&self, page: u32) -> Option<u64> {
        self.pages.get(&page).copied()
    }

    /// Returns how many pages the database has; `None` if the log holds nothing.
    pub(crate) fn size(&self) -> Option<u32> {
        (self.size > 0).then_some(self.size)
    }
}

/// The running checksum of a log, which is computed over two words at a time.
struct Checksum {
    big_endian: bool,
    sums: (u32, u32),
}

impl Checksum {
    /// Returns the checksum after the header of a log; `None` if the header is not valid.
    fn of_log(header: &Header, page_bytes: u32) -> Option<Self> {
        let magic = read_u32(header, 0);
        let mut checksum = Self { big_endian: magic & 1 == 1, sums: (0, 0) };
        checksum.add(&header[..24]);
        let is_valid = magic & !1 == MAGIC
            && read_u32(header, 8) == page_bytes
            && checksum.matches(header, 24);
        is_valid.then_some(checksum)
    }

    /// Continues after this frame, with the checksum that is in it.
    fn continue_after(&mut self, frame: &[u8]) {
        self.sums = (read_u32(frame, 16), read_u32(frame, 20));
    }

    /// Returns whether the frame is the next one of the log with this header. A frame of the previous log has
    /// another salt: a restarted log overwrites the previous one.
    fn accepts(&mut self, header: &Header, frame: &[u8]) -> bool {
        self.add(&frame[..8]);
        self.add(&frame[24..]);
        frame[8..16] == header[16..24] && read_u32(frame, 0) > 0 && self.matches(frame, 16)
    }

    fn add(&mut self, bytes: &[u8]) {
        let word = |at: &[u8]| {
            let word = at.try_into().expect("four bytes");
            if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        for pair in bytes.chunks_exact(8) {
            let (first, second) = (word(&pair[..4]), word(&pair[4..]));
            self.sums.0 = self.sums.0.wrapping_add(first).wrapping_add(self.sums.1);
            self.sums.1 = self.sums.1.wrapping_add(second).wrapping_add(self.sums.0);
        }
    }

    fn matches(&self, bytes: &[u8], at: usize) -> bool {
        self.sums == (read_u32(bytes, at), read_u32(bytes, at + 4))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Returns false if the log ends before `bytes` is full.
fn read_full(log: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// A lock that a reader holds while it reads alone and blocks others: see `format::open_for_reading`. It shows
/// the others that waiting helps, unlike with a store in exclusive mode.
///
/// A child that is forked meanwhile inherits the lock. It then lasts until it is released, or until both
/// processes have ended. So it is unlocked explicitly: closing the file is not enough while a child has it
/// open too. A child does not release its parent's lock.
pub(crate) struct ExclusiveReadLock {
    locked: Option<Registered<File>>,
}

impl ExclusiveReadLock {
    /// Takes the lock; `None` if another reader has it. If the log cannot be opened or locked, the result holds
    /// no lock, and others do not see that it reads.
    pub(crate) fn acquire(path: &Path) -> Result<Option<Self>> {
        let registration = Registration::new(&shown(path))?;
        let Some(log) = open_for_lock(path) else { return Ok(Some(Self { locked: None })) };
        match log.try_lock() {
            Ok(()) => Ok(Some(Self { locked: Some(Registered::new(registration, log)) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => {
                log::debug!(file = shown(path).as_str(), error:% = e; "cannot lock a log: {e}");
                Ok(Some(Self { locked: None }))
            }
        }
    }

    /// Returns whether a reader holds the lock. Asks with a shared lock, so that processes that ask at the same
    /// time do not take each other for a reader.
    pub(crate) fn is_held(path: &Path) -> bool {
        open_for_lock(path).is_some_and(|log| match log.try_lock_shared() {
            Ok(()) => {
                unlock(&log);
                false
            }
            Err(e) => matches!(e, TryLockError::WouldBlock),
        })
    }
}

impl Drop for ExclusiveReadLock {
    fn drop(&mut self) {
        if let Some(locked) = self.locked.take() {
            locked.close(|log| unlock(&log));
        }
    }
}

fn unlock(log: &File) {
    if let Err(e) = log.unlock() {
        log::debug!(error:% = e; "cannot unlock a log: {e}");
    }
}

/// Returns `None` on other systems than Unix, where such a lock would keep SQLite from reading the log.
fn open_for_lock(path: &Path) -> Option<File> {
    if cfg!(unix) { File::open(beside(path, "-wal")).ok() } else { None }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A second descriptor of the open file behaves as that of a forked child.
    #[test]
    fn a_lock_that_a_child_inherited_ends_with_the_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.db");
        std::fs::write(beside(&path, "-wal"), "frames").unwrap();
        let reading = ExclusiveReadLock::acquire(&path).unwrap().unwrap();
        let inherited = reading.locked.as_ref().unwrap().try_clone().unwrap();
        assert!(ExclusiveReadLock::is_held(&path));
        assert!(ExclusiveReadLock::acquire(&path).unwrap().is_none());
        drop(reading);
        assert!(!ExclusiveReadLock::is_held(&path));
        assert!(ExclusiveReadLock::acquire(&path).unwrap().is_some());
        drop(inherited);
    }
}
