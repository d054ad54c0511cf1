//! The lines that the filter prints.
//!
//! Owns standard output as a place for lines. What always holds: it is known how many lines were written when the writing
//! ends early, also because the output blocks and a stop is asked for; then the last line is whole, unless it is longer
//! than what the system writes at once.

use std::io::{self, Write as _};

use serde_json::json;

use crate::work::stop::{StandardOutput, Stop, Waited};

/// How much is written at once.
const BUFFER_BYTES: usize = 1 << 16;

/// How much is written at once where a write may block. A pipe that has room has room for so much: POSIX calls it
/// `PIPE_BUF`.
const PIECE_BYTES: usize = if cfg!(target_os = "linux") { 4_096 } else { 512 };

/// Standard output.
pub(crate) struct LineOutput {
    out: StandardOutput,
    piece_bytes: usize,
    separator: u8,
    /// Whether the last line written came from the end of a file and had no separator.
    separator_due: bool,
    /// The name of the member that says why a line is printed.
    tell: Option<String>,
    buffer: Vec<u8>,
    /// Where each line of the buffer ends, and its number among those that are to be written.
    ends: Vec<(usize, usize)>,
}

/// What became of some lines.
#[derive(Default)]
pub(crate) struct Written {
    /// How many lines are done with, from the first one on: they were printed, or were not to be printed.
    pub(crate) lines: usize,
    /// How many of them were printed.
    pub(crate) printed: u64,
}

impl LineOutput {
    pub(crate) fn new(separator: u8, tell: Option<String>) -> io::Result<Self> {
        let out = StandardOutput::new()?;
        Ok(Self {
            piece_bytes: if out.may_block() { PIECE_BYTES } else { BUFFER_BYTES },
            out,
            separator,
            separator_due: false,
            tell,
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
            ends: Vec::new(),
        })
    }

    /// Writes those of the lines that are to be printed, each with the reason why it is printed, or an empty one. Ends
    /// early when a stop is asked for.
    pub(crate) fn write(
        &mut self,
        lines: &[&[u8]],
        prints: &[Option<&'static str>],
        stop: &Stop,
    ) -> io::Result<Written> {
        let mut written = Written::default();
        for (number, (line, print)) in lines.iter().zip(prints).enumerate() {
            let Some(why) = print else { continue };
            self.append(line, why);
            self.ends.push((self.buffer.len(), number));
            if self.buffer.len() >= BUFFER_BYTES && !self.send(&mut written, stop)? {
                return Ok(written);
            }
        }
        if self.send(&mut written, stop)? {
            written.lines = prints.len();
        }
        Ok(written)
    }

    fn append(&mut self, line: &[u8], why: &str) {
        // Without this, two lines from two files would become one.
        let complete = line.ends_with(&[self.separator]);
        if std::mem::replace(&mut self.separator_due, !complete) {
            self.buffer.push(self.separator);
        }
        match &self.tell {
            Some(name) if !why.is_empty() => self.buffer.extend(with_member(line, name, why)),
            _ => self.buffer.extend_from_slice(line),
        }
    }

    /// Writes what is in the buffer. Returns whether all of it was written; otherwise a stop is asked for.
    fn send(&mut self, written: &mut Written, stop: &Stop) -> io::Result<bool> {
        let (mut sent, mut whole) = (0, 0);
        while let Some(&(end, number)) = self.ends.get(whole) {
            let begins_line =
                whole == 0 && sent == 0 || whole > 0 && sent == self.ends[whole - 1].0;
            if stop.wait_for_output(&self.out)? == Waited::Stopped
                && (begins_line || !self.out.is_ready()?)
            {
                // What comes before this line is done with.
                written.lines = number;
                return Ok(false);
            }
            let reach = sent + self.piece_bytes;
            let whole_lines = self.ends[whole..].iter().take_while(|(end, _)| *end <= reach);
            let piece = whole_lines.last().map_or(reach.min(end), |(end, _)| *end);
            match self.out.write(&self.buffer[sent..piece]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => sent += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            let done = self.ends[whole..].iter().take_while(|(end, _)| *end <= sent).count();
            whole += done;
            written.printed += done as u64;
        }
        self.buffer.clear();
        self.ends.clear();
        Ok(true)
    }
}

/// Returns the line of a JSON object with one more member, as its last: of two members of one name, readers take the
/// last.
fn with_member(line: &[u8], name: &str, value: &str) -> Vec<u8> {
    let end = line.iter().rposition(|byte| *byte == b'}').unwrap_or(line.len());
    let (members, end) = line.split_at(end);
    let is_empty = members.trim_ascii_end().ends_with(b"{") && members.trim_ascii().len() == 1;
    let comma = if is_empty { "" } else { "," };
    let member = format!("{comma}{}:{}", json!(name), json!(value));
    [members, member.as_bytes(), end].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_added_to_any_object_and_the_rest_of_the_line_stays() {
        for (line, told) in [
            ("{}", r#"{"w\"y":"new"}"#),
            (" { } \n", " { \"w\\\"y\":\"new\"} \n"),
            (r#"{"a":"}"}"#, r#"{"a":"}","w\"y":"new"}"#),
            ("{\"a\": {} }\r\n", "{\"a\": {} ,\"w\\\"y\":\"new\"}\r\n"),
            (r#"{"a":"{"}"#, r#"{"a":"{","w\"y":"new"}"#),
        ] {
            let with = String::from_utf8(with_member(line.as_bytes(), "w\"y", "new")).unwrap();
            assert_eq!(with, told);
            serde_json::from_str::<serde_json::Value>(&with).unwrap();
        }
    }
}
