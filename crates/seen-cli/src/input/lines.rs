//! Input as batches of lines: small when lines are typed, large when there is much input.
//!
//! Owns the one buffer that input is read into. What always holds: a batch holds the complete lines that have been
//! read, and no more input is waited for while there is such a line. A line ends with the separator, a newline or
//! NUL. Input that is no text is an error before its first line. Knows nothing of what a line means.

use std::io::{self, Read};

use memchr::memchr;

use crate::input::foreign::{self, TELLING_BYTES};

/// How many bytes a read asks for. A pipe gives at most 64 KiB at once, a terminal one line.
const READ_BYTES: usize = 1 << 20;

/// The most lines of a batch: what the store marks in one commit.
pub(crate) const LINES_A_BATCH: usize = 10_000;

/// Reads batches of lines.
pub(crate) struct Lines<R> {
    input: R,
    separator: u8,
    /// Whether a last line without a separator is left out: its end may not have been written yet.
    complete: bool,
    /// Whether it is known that the input is text.
    is_text: bool,
    buffer: Vec<u8>,
    /// Where the first line begins that was not returned yet.
    start: usize,
    /// Up to where separators were searched for, so that a long line is searched only once.
    searched: usize,
    /// Where the input that was read ends.
    filled: usize,
    /// Where each line of the batch ends, its separator included.
    ends: Vec<usize>,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(input: R, separator: u8) -> Self {
        Self {
            input,
            separator,
            complete: false,
            is_text: false,
            buffer: vec![0; READ_BYTES],
            start: 0,
            searched: 0,
            filled: 0,
            ends: Vec::new(),
        }
    }

    /// Leaves out a last line without a separator, if so asked.
    pub(crate) fn complete(self, complete: bool) -> Self {
        Self { complete, ..self }
    }

    /// Returns the next lines, each with its separator. Only the last line of the input may lack it. `None` at the
    /// end of the input.
    pub(crate) fn next_batch(&mut self) -> io::Result<Option<Vec<&[u8]>>> {
        loop {
            self.find_lines();
            if !self.ends.is_empty() {
                break;
            }
            let more = self.read_more()?;
            self.check_text(more == 0)?;
            if more == 0 {
                if self.start == self.filled || self.complete {
                    return Ok(None);
                }
                self.ends.push(self.filled);
                break;
            }
        }
        let mut lines = Vec::with_capacity(self.ends.len());
        for &end in &self.ends {
            lines.push(&self.buffer[self.start..end]);
            self.start = end;
        }
        Ok(Some(lines))
    }

    /// Looks at the beginning of the input, once there is enough of it.
    fn check_text(&mut self, at_end: bool) -> io::Result<()> {
        let beginning = &self.buffer[..self.filled];
        let has_line = memchr(self.separator, beginning).is_some();
        let is_enough = at_end || has_line || self.filled >= TELLING_BYTES;
        if self.is_text || !is_enough {
            return Ok(());
        }
        self.is_text = true;
        foreign::refusal(beginning).map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    fn find_lines(&mut self) {
        self.ends.clear();
        while self.ends.len() < LINES_A_BATCH {
            let unsearched = &self.buffer[self.searched..self.filled];
            let Some(end) = memchr(self.separator, unsearched) else {
                self.searched = self.filled;
                return;
            };
            self.searched += end + 1;
            self.ends.push(self.searched);
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.searched -= self.start;
        self.filled -= self.start;
        self.start = 0;
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(bytes) => {
                    self.filled += bytes;
                    return Ok(bytes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one prepared piece a read, as a terminal or a pipe does.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let mut piece = self.0.remove(0);
            let bytes = piece.len().min(buffer.len());
            buffer[..bytes].copy_from_slice(&piece[..bytes]);
            if bytes < piece.len() {
                self.0.insert(0, piece.split_off(bytes));
            }
            Ok(bytes)
        }
    }

    fn batches(pieces: &[&[u8]]) -> Vec<Vec<Vec<u8>>> {
        batches_of(pieces, false)
    }

    fn batches_of(pieces: &[&[u8]], complete: bool) -> Vec<Vec<Vec<u8>>> {
        let pieces = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
        let mut lines = Lines::new(pieces, b'\n').complete(complete);
        let mut batches = Vec::new();
        while let Some(batch) = lines.next_batch().unwrap() {
            batches.push(batch.iter().map(|line| line.to_vec()).collect());
        }
        batches
    }

    #[test]
    fn what_one_read_gives_is_one_batch_and_a_broken_line_waits_for_its_end() {
        let expected: [&[&[u8]]; 3] = [&[b"a\n", b"\n", b"b\n"], &[b"cd\n"], &[b"e"]];
        assert_eq!(batches(&[b"a\n\nb\nc", b"d\ne"]), expected);
    }

    #[test]
    fn a_line_whose_end_was_not_written_yet_can_be_left_out() {
        assert_eq!(batches_of(&[b"a\nb", b"c"], true), [[b"a\n"]]);
        assert!(batches_of(&[b"a"], true).is_empty());
    }

    #[test]
    fn input_that_is_no_text_is_an_error_however_it_arrives() {
        for pieces in [&[&b"\x1f"[..], b"\x8b", b"\x08\n\n\n"][..], &[b"\x1f\x8b"]] {
            let pieces = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
            let e = Lines::new(pieces, b'\n').next_batch().unwrap_err();
            assert!(e.to_string().contains("zcat"), "{e}");
        }
    }

    #[test]
    fn no_input_is_no_batch() {
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn a_batch_has_at_most_10_000_lines() {
        let sizes: Vec<_> = batches(&[&b"\n".repeat(25_000)]).iter().map(Vec::len).collect();
        assert_eq!(sizes, [10_000, 10_000, 5_000]);
    }

    #[test]
    fn a_line_may_be_longer_than_a_read() {
        let long = [vec![b'x'; 3 * READ_BYTES], vec![b'\n']].concat();
        assert_eq!(batches(&[&long, b"y\n"]), [vec![long.clone()], vec![b"y\n".to_vec()]]);
    }
}
