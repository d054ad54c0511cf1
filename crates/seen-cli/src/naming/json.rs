//! Finds values in a line of JSON, and reads no more of it than that takes.
//!
//! Owns where a value begins and ends. What always holds: what a value is made of does not matter, as long as it is
//! known where it ends: strings end at their quote, objects and arrays at their bracket, all else at a comma or
//! bracket. So a lone surrogate, NaN, bytes that are not UTF-8, raw control characters and nesting of any depth disturb
//! nothing but the value that they are in. Nothing here recurses.
//!
//! It is our own because the readers of others check what they skip: `serde_json`, also with `IgnoredAny` and `RawValue`,
//! refuses NaN and raw control characters anywhere in the line, and a line that was cut off. `sonic-rs` skips without a
//! check only where the caller vouches, by `unsafe`, that the whole text is well-formed.

use memchr::{memchr, memchr2};

use crate::naming::NoId;

/// The outermost object or array of a line.
pub(crate) struct Document<'a> {
    root: Container<'a>,
}

/// An object or array, as far as it could be read.
struct Container<'a> {
    /// The name, as it is written between its quotes, and the value. In an array there are no names.
    members: Vec<(&'a [u8], &'a [u8])>,
    is_array: bool,
    /// Why the rest of it could not be read.
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    cause: &'static str,
    at: usize,
}

/// What a path leads to.
pub(crate) enum Found<'a> {
    Value(&'a [u8]),
    Nothing,
    /// It may stand in a part that cannot be read.
    Unreadable(NoId),
}

impl<'a> Document<'a> {
    pub(crate) fn read(line: &'a [u8]) -> Result<Self, NoId> {
        let line = line.strip_prefix(super::BYTE_ORDER_MARK).unwrap_or(line);
        let mut scanner = Scanner { text: line, at: 0 };
        scanner.skip_space();
        match scanner.peek() {
            Some(b'{' | b'[') => {}
            Some(b'"' | b'0'..=b'9' | b'-') => return Err(NoId::NotAnObject),
            _ => {
                return Err(NoId::NotJson { cause: "expected an object", column: scanner.at + 1 });
            }
        }
        let root = scanner.container();
        // Of two objects, which one is meant is not known. Other remains, such as a comma, do not matter.
        if root.fault.is_none() && memchr(b'{', scanner.rest()).is_some() {
            return Err(NoId::SeveralObjects);
        }
        Ok(Self { root })
    }

    /// Follows a path of names and indexes.
    pub(crate) fn find(&self, path: &[String]) -> Found<'a> {
        let Some((first, path)) = path.split_first() else { return Found::Nothing };
        let mut found = self.root.get(first);
        for step in path {
            found = match found {
                Found::Value(value @ [b'{' | b'[', ..]) => {
                    Scanner { text: value, at: 0 }.container().get(step)
                }
                Found::Value(_) => Found::Nothing,
                other => other,
            };
        }
        found
    }
}

impl<'a> Container<'a> {
    /// Returns the member of this name, the last one where there are several, or the element of this index.
    fn get(&self, step: &str) -> Found<'a> {
        let value = if self.is_array {
            index(step).and_then(|index| self.members.get(index))
        } else {
            self.members.iter().rev().find(|(name, _)| is_name(name, step))
        };
        match (value, self.fault) {
            (Some((_, value)), _) => Found::Value(value),
            (None, None) => Found::Nothing,
            (None, Some(Fault { cause, at })) => {
                Found::Unreadable(NoId::NotJson { cause, column: at + 1 })
            }
        }
    }
}

/// Returns an index as RFC 6901 writes it: digits without leading zeros.
fn index(step: &str) -> Option<usize> {
    let is_index = step.bytes().all(|byte| byte.is_ascii_digit());
    if !is_index || (step.len() > 1 && step.starts_with('0')) {
        return None;
    }
    step.parse().ok()
}

fn is_name(raw: &[u8], name: &str) -> bool {
    if raw == name.as_bytes() {
        return memchr(b'\\', raw).is_none();
    }
    if memchr(b'\\', raw).is_none() {
        return false;
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).is_ok_and(|spelled| spelled == name)
}

/// Walks over a text.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn fault(&self, cause: &'static str) -> Fault {
        Fault { cause, at: self.at }
    }

    /// Control characters between values count as space.
    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte <= b' ') {
            self.at += 1;
        }
    }

    /// Reads the object or array that begins here.
    fn container(&mut self) -> Container<'a> {
        let is_array = self.peek() == Some(b'[');
        self.at += 1;
        let mut container = Container { members: Vec::new(), is_array, fault: None };
        container.fault = self.members(&mut container).err();
        container
    }

    fn members(&mut self, container: &mut Container<'a>) -> Result<(), Fault> {
        let close = if container.is_array { b']' } else { b'}' };
        loop {
            self.skip_space();
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(());
            }
            let name = if container.is_array { b"" } else { self.name()? };
            let begin = self.at;
            self.skip_value()?;
            let value = &self.text[begin..self.at];
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {}
                // The line was cut off behind this value, which is whole.
                None if value.ends_with(b"\"")
                    || value.ends_with(b"}")
                    || value.ends_with(b"]") => {}
                None => return Err(self.fault("it ends within a value")),
                Some(_) => return Err(self.fault("expected a comma or the end")),
            }
            container.members.push((name, value));
        }
    }

    /// Reads a name and its colon. Returns what is between the quotes.
    fn name(&mut self) -> Result<&'a [u8], Fault> {
        match self.peek() {
            Some(b'"') => {}
            None => return Err(self.fault("it ends too early")),
            Some(_) => return Err(self.fault("expected a name in double quotes")),
        }
        let begin = self.at + 1;
        self.skip_string()?;
        let name = &self.text[begin..self.at - 1];
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.fault("expected a colon"));
        }
        self.at += 1;
        self.skip_space();
        Ok(name)
    }

    fn skip_value(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(b'{' | b'[') => self.skip_nested(),
            _ => self.skip_bare(),
        }
    }

    fn skip_string(&mut self) -> Result<(), Fault> {
        let begin = self.fault("a string without an end");
        self.at += 1;
        loop {
            let Some(found) = memchr2(b'"', b'\\', self.rest()) else { return Err(begin) };
            self.at += found;
            if self.peek() == Some(b'"') {
                self.at += 1;
                return Ok(());
            }
            // What is escaped may be a quote.
            self.at = self.text.len().min(self.at + 2);
        }
    }

    fn skip_nested(&mut self) -> Result<(), Fault> {
        let begin = self.fault("a bracket without its end");
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                None => return Err(begin),
                Some(b'"') => {
                    self.skip_string()?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Skips a number or a word.
    fn skip_bare(&mut self) -> Result<(), Fault> {
        let begin = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b',' | b'}' | b']' | 0..=b' ' => break,
                b'"' | b'{' | b'[' | b':' => return Err(self.fault("expected a comma")),
                _ => self.at += 1,
            }
        }
        if self.at == begin { Err(self.fault("expected a value")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &[u8]) -> Result<String, NoId> {
        match Document::read(line)?.find(&["id".to_owned()]) {
            Found::Value(value) => Ok(String::from_utf8_lossy(value).into_owned()),
            Found::Nothing => Ok("nothing".to_owned()),
            Found::Unreadable(why) => Err(why),
        }
    }

    #[test]
    fn what_stands_outside_does_not_matter() {
        for outside in [
            &br#""\ud83d""#[..],
            br#""\x \" \\""#,
            b"NaN",
            b"-Infinity",
            b"undefined",
            b"0x1F",
            b"\"\xff\xfe\"",
            b"\"\0\t\x1b\r\"",
            b"[NaN, {\"id\": 2}, \"]}\"]",
            b"{\"\xff\": {\"id\": [1}}}",
        ] {
            for line in [
                [b"{\"id\": 1, \"text\": ", outside, b"}"].concat(),
                [b"{\"text\": ", outside, b", \"id\": 1}"].concat(),
                [b"\xef\xbb\xbf \x1e{\"text\": ", outside, b"\t, \"id\": 1 ,},\r\n"].concat(),
            ] {
                assert_eq!(found(&line).as_deref(), Ok("1"), "{}", line.escape_ascii());
            }
        }
    }

    #[test]
    fn nesting_of_any_depth_is_skipped() {
        let deep = 1_000_000;
        let line = format!("{{\"d\": {}{}, \"id\": 1}}", "[".repeat(deep), "]".repeat(deep));
        assert_eq!(found(line.as_bytes()).as_deref(), Ok("1"));
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts() {
        assert_eq!(found(br#"{"id": 1, "id": 2}"#).as_deref(), Ok("2"));
        assert_eq!(found(br#"{"id": 1, "\u0069d": 3}"#).as_deref(), Ok("3"));
        assert_eq!(found(br#"{"i\u0064": {"id": 4}}"#).as_deref(), Ok(r#"{"id": 4}"#));
        assert_eq!(found(br#"{"a": {"id": 1}, "x\"id": 2}"#).as_deref(), Ok("nothing"));
    }

    #[test]
    fn a_line_that_was_cut_off_has_the_values_that_are_whole() {
        let line = br#"{"id": "1", "text": "abc"}"#;
        for cut in 1..line.len() {
            match found(&line[..cut]) {
                Ok(value) => assert!(value == "\"1\"" && cut >= 10, "{cut}: {value}"),
                Err(_) => assert!(cut < 10, "{cut}"),
            }
        }
        // Whether more digits were to follow is not known.
        assert!(found(br#"{"id": 1"#).is_err());
        assert_eq!(found(br#"{"id": 1,"#).as_deref(), Ok("1"));
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_guessed() {
        for (line, why) in [
            (&br#"{"id": 1}{"id": 2}"#[..], "more than one JSON object"),
            (br#"{"id": 1}, {"id": 2}"#, "more than one JSON object"),
            (br#"{"text": "he said "hi"", "id": 1}"#, "expected a comma or the end at column 20"),
            (br#"{"id": "he said "hi""}"#, "expected a comma or the end at column 18"),
            (br#"{"id": 1 2}"#, "expected a comma or the end at column 10"),
            (br#"{"id" 1}"#, "expected a colon at column 7"),
            (br#"{"id": }"#, "expected a value at column 8"),
            (br"{'id': 1}", "expected a name in double quotes at column 2"),
            (b"{", "it ends too early at column 2"),
            (b"{\"a\": \"b", "a string without an end at column 7"),
            (b"{\"a\": [1", "a bracket without its end at column 7"),
            (b"{\"a\": \"\\", "a string without an end at column 7"),
            (b"no", "expected an object at column 1"),
            (b"", "expected an object at column 1"),
            (b"\"id\"", "not a JSON object"),
        ] {
            let told = found(line).unwrap_err().to_string();
            assert!(told.contains(why), "{}: {told}", line.escape_ascii());
        }
    }
}
