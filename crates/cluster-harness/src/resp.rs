//! The servers' protocol (RESP 2 and 3): where a request or an answer ends, and what an answer says.
//!
//! Knows nothing of sockets. `None` always means: more bytes are needed.

use std::io::{Error, ErrorKind, Result};

/// An answer of a server, as RESP 2 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: a missing key.
    Nil,
    /// A short text, such as `OK`.
    Simple(String),
    /// An error, with its code in front: `MOVED 5 127.0.0.1:7000`.
    Error(String),
    /// A number.
    Int(i64),
    /// A value.
    Bulk(Vec<u8>),
    /// Several answers.
    Array(Vec<Reply>),
}

impl Reply {
    /// Returns the text of a simple answer, a value or an error; empty for other answers.
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) | Reply::Error(text) => text.clone(),
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Nil | Reply::Int(_) | Reply::Array(_) => String::new(),
        }
    }

    /// Returns the number, if it is one.
    pub fn int(&self) -> Option<i64> {
        if let Reply::Int(number) = self { Some(*number) } else { None }
    }

    /// Returns the parts of an array; empty for other answers.
    pub fn items(&self) -> &[Reply] {
        if let Reply::Array(items) = self { items } else { &[] }
    }

    /// Returns whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }
}

/// Writes a request: an array of bulk strings.
pub(crate) fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A whole request at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// The command, as the client spelled it.
    pub(crate) name: &'a [u8],
    /// How many bytes the request has.
    pub(crate) length: usize,
}

/// # Errors
///
/// If it is not an array of bulk strings.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<Request<'_>>> {
    let Some((kind, count, mut at)) = header(bytes, 0)? else { return Ok(None) };
    if kind != b'*' || count < 1 {
        return Err(Error::new(ErrorKind::InvalidData, "a request that is no array"));
    }
    let mut name = &bytes[..0];
    for index in 0..count {
        let Some((kind, length, begin)) = header(bytes, at)? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|_| kind == b'$');
        let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no bulk string"))?;
        at = begin + length + 2;
        if at > bytes.len() {
            return Ok(None);
        }
        if index == 0 {
            name = &bytes[begin..begin + length];
        }
    }
    Ok(Some(Request { name, length: at }))
}

/// Returns where the answer that begins at the first byte ends.
pub(crate) fn answer_end(bytes: &[u8]) -> Result<Option<usize>> {
    let mut at = 0;
    let mut missing: u64 = 1;
    while missing > 0 {
        let Some((kind, number, next)) = header(bytes, at)? else { return Ok(None) };
        at = next;
        missing -= 1;
        // A null has the length -1: nothing follows.
        let count = u64::try_from(number).unwrap_or(0);
        match kind {
            b'$' | b'!' | b'=' if number >= 0 => {
                at += usize::try_from(count).map_err(invalid)? + 2;
            }
            b'*' | b'~' | b'>' => missing += count,
            b'%' => missing += 2 * count,
            // Attributes stand before the value that they describe.
            b'|' => missing += 2 * count + 1,
            _ => {}
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// Returns the type, the number behind it (0 if it is none) and where the next line begins.
fn header(bytes: &[u8], at: usize) -> Result<Option<(u8, i64, usize)>> {
    let Some(rest) = bytes.get(at..) else { return Ok(None) };
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = rest[..end].strip_suffix(b"\r").filter(|line| !line.is_empty());
    let line = line.ok_or_else(|| Error::new(ErrorKind::InvalidData, "an empty line"))?;
    let number = std::str::from_utf8(&line[1..]).ok().and_then(|text| text.parse().ok());
    let counted = matches!(line[0], b'*' | b'$' | b'!' | b'=' | b'~' | b'>' | b'%' | b'|');
    if counted && number.is_none() {
        return Err(Error::new(ErrorKind::InvalidData, "a length that is no number"));
    }
    Ok(Some((line[0], number.unwrap_or(0), at + end + 1)))
}

/// Reads the RESP 2 answer at the beginning of `bytes`, and returns it with its length.
pub(crate) fn answer(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
    if answer_end(bytes)?.is_none() {
        return Ok(None);
    }
    let mut at = 0;
    let reply = whole_answer(bytes, &mut at)?;
    Ok(Some((reply, at)))
}

/// Reads the answer at `at`, which is known to be there as a whole.
fn whole_answer(bytes: &[u8], at: &mut usize) -> Result<Reply> {
    let begin = *at;
    let header = header(bytes, begin)?;
    let (kind, number, next) = header.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    *at = next;
    let line = || String::from_utf8_lossy(&bytes[begin + 1..next - 2]).into_owned();
    match kind {
        b'+' => Ok(Reply::Simple(line())),
        b'-' => Ok(Reply::Error(line())),
        b':' => Ok(Reply::Int(number)),
        b'$' | b'*' if number < 0 => Ok(Reply::Nil),
        b'$' => {
            let end = next + usize::try_from(number).map_err(invalid)?;
            *at = end + 2;
            Ok(Reply::Bulk(bytes[next..end].to_vec()))
        }
        b'*' => {
            (0..number).map(|_| whole_answer(bytes, at)).collect::<Result<_>>().map(Reply::Array)
        }
        _ => Err(Error::new(ErrorKind::InvalidData, "not RESP 2")),
    }
}

fn invalid(error: std::num::TryFromIntError) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_where_the_next_one_of_the_pipeline_begins() {
        let first = encode(&["set", "a\r\nb", ""]);
        let pipeline = [first.clone(), encode(&["GET", "a"])].concat();
        let found = request(&pipeline).unwrap().unwrap();
        assert_eq!(found, Request { name: b"set", length: first.len() });
        for end in 0..first.len() {
            assert_eq!(request(&first[..end]).unwrap(), None, "{end} bytes");
        }
        assert!(request(b"PING\r\n").is_err());
    }

    #[test]
    fn an_answer_ends_after_its_last_part() {
        for answer in [
            "+OK\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "$4\r\na\r\nb\r\n",
            "*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
            "%1\r\n+a\r\n*1\r\n_\r\n",
            "|1\r\n+ttl\r\n:3\r\n=5\r\ntxt:a\r\n",
            ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
        ] {
            let followed = format!("{answer}+next\r\n");
            assert_eq!(answer_end(followed.as_bytes()).unwrap(), Some(answer.len()), "{answer:?}");
            for end in 0..answer.len() {
                assert_eq!(
                    answer_end(&answer.as_bytes()[..end]).unwrap(),
                    None,
                    "{answer:?} {end}"
                );
            }
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let (reply, length) =
            answer(b"*3\r\n:-7\r\n$2\r\nab\r\n*2\r\n-ERR x\r\n$-1\r\n").unwrap().unwrap();
        assert_eq!(length, 34);
        let inner = Reply::Array(vec![Reply::Error("ERR x".into()), Reply::Nil]);
        assert_eq!(reply, Reply::Array(vec![Reply::Int(-7), Reply::Bulk(b"ab".to_vec()), inner]));
    }
}
