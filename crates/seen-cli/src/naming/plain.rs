//! The part of a plain line that is its id.
//!
//! Owns the cutting and the matching. What always holds: a line is bytes; one that is not UTF-8 is cut and matched too.

use std::num::NonZeroUsize;
use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};

use crate::naming::NoId;

/// A regular expression.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// For lines in UTF-8: a character is what Unicode says.
    characters: Regex,
    /// For other lines: a character is a byte. Otherwise `.` would match nothing of theirs, and `ERROR.*` would end at
    /// the first odd byte, so that two lines had one id. There is none if the pattern asks for Unicode, by `\pL`.
    bytes: Option<Regex>,
}

impl FromStr for Pattern {
    type Err = regex::Error;

    fn from_str(pattern: &str) -> Result<Self, regex::Error> {
        let characters = Regex::new(pattern)?;
        Ok(Self { characters, bytes: RegexBuilder::new(pattern).unicode(false).build().ok() })
    }
}

/// Returns what is left of a line without its first fields and bytes, as GNU `uniq` defines them: a field is a run of
/// blanks, then bytes other than blanks, so what is left begins with the blanks before it.
pub(crate) fn cut(
    line: &[u8],
    skip_fields: usize,
    skip_chars: usize,
    check_chars: Option<NonZeroUsize>,
) -> &[u8] {
    let mut rest = line;
    for _ in 0..skip_fields {
        if rest.is_empty() {
            break;
        }
        let blanks = count(rest, is_blank);
        let field = count(&rest[blanks..], |byte| !is_blank(byte));
        rest = &rest[blanks + field..];
    }
    rest = rest.get(skip_chars..).unwrap_or_default();
    check_chars.and_then(|most| rest.get(..most.get())).unwrap_or(rest)
}

pub(crate) fn without_blanks_before(text: &[u8]) -> &[u8] {
    &text[count(text, is_blank)..]
}

/// In `uniq`, a newline is a blank too: a line may hold one where lines end with NUL.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

fn count(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !is(*byte)).unwrap_or(bytes.len())
}

/// Returns what the groups of the pattern match or, if it has none, what the whole matches.
pub(crate) fn matched<'l>(line: &'l [u8], pattern: &Pattern) -> Result<Vec<&'l [u8]>, NoId> {
    let pattern = match &pattern.bytes {
        Some(bytes) if str::from_utf8(line).is_err() => bytes,
        _ => &pattern.characters,
    };
    if pattern.captures_len() == 1 {
        return pattern.find(line).map(|found| vec![found.as_bytes()]).ok_or(NoId::NoMatch);
    }
    let groups = pattern.captures(line).ok_or(NoId::NoMatch)?;
    Ok(groups.iter().skip(1).map(|group| group.map_or(&b""[..], |it| it.as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(line: &str, fields: usize, chars: usize, most: usize) -> &str {
        let cut = super::cut(line.as_bytes(), fields, chars, NonZeroUsize::new(most));
        str::from_utf8(cut).unwrap()
    }

    /// By `printf 'LINE\nLEFT\n'` and `uniq -c` of GNU coreutils 9.
    #[test]
    fn fields_and_characters_are_those_of_uniq() {
        assert_eq!(cut("a b c", 1, 0, 0), " b c");
        assert_eq!(cut("  a\t b c", 1, 0, 0), "\t b c");
        assert_eq!(cut("  a\t b c", 2, 0, 0), " c");
        assert_eq!(cut("a b ", 2, 0, 0), " ");
        assert_eq!(cut("a b ", 3, 0, 0), "");
        assert_eq!(cut("a b c", 1, 1, 0), "b c");
        assert_eq!(cut("a b c", 1, 1, 1), "b");
        assert_eq!(cut("abc", 0, 9, 0), "");
        assert_eq!(cut("abc", 0, 1, 9), "bc");
    }

    #[test]
    fn groups_go_before_the_whole_and_one_without_part_is_empty() {
        let groups = |pattern: &str| {
            let pattern = pattern.parse().unwrap();
            matched(b"id=17 \xff", &pattern)
                .map(|all| all.iter().map(|it| it.to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(groups(r"\d+"), Ok(vec![b"17".to_vec()]));
        assert_eq!(groups(r"id=(\d+)"), Ok(vec![b"17".to_vec()]));
        assert_eq!(groups(r"(x)|id=(\d+)"), Ok(vec![vec![], b"17".to_vec()]));
        assert_eq!(groups(r"7.*"), Ok(vec![b"7 \xff".to_vec()]));
        assert_eq!(groups(r"\pL+"), Ok(vec![b"id".to_vec()]));
        assert_eq!(groups("x"), Err(NoId::NoMatch));
    }
}
