//! Times, sizes, counts and ids as text for people.
//!
//! Owns these formats. What always holds: no control character of an id reaches a terminal.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Returns the text with its control characters escaped.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Returns an id as text, whatever its bytes are.
pub(crate) fn id(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&harmless(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}"); // A String takes everything.
        }
    }
    shown
}

/// Returns a text as a word of a shell: as it is, or in quotes. Control characters are escaped as bash and zsh
/// understand it.
pub(crate) fn for_shell(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        let mut quoted = "$'".to_owned();
        for c in text.chars() {
            if c.is_control() {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(quoted, "\\x{byte:02x}"); // A String takes everything.
                }
            } else {
                quoted.extend(['\'', '\\'].contains(&c).then_some('\\'));
                quoted.push(c);
            }
        }
        quoted + "'"
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Returns a number of things: `1 id`, `2 ids`.
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{} {one}{}", self::count(count), if count == 1 { "" } else { "s" })
}

pub(crate) fn entries(count: u64) -> String {
    format!("{count} {}", if count == 1 { "entry" } else { "entries" })
}

/// Returns a size in a suitable unit: `512 bytes`, `3.4 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut unit = None;
    let mut amount = bytes as f64;
    for larger in ["kB", "MB", "GB", "TB"] {
        if amount < 999.5 {
            break;
        }
        (amount, unit) = (amount / 1000.0, Some(larger));
    }
    match unit {
        None => format!("{bytes} bytes"),
        Some(unit) if amount < 9.95 => format!("{amount:.1} {unit}"),
        Some(unit) => format!("{amount:.0} {unit}"),
    }
}

/// Returns a time in the local time zone, to the second: `2026-11-23 16:05:08 +01:00`.
pub(crate) fn local_time(time: SystemTime) -> String {
    let Ok(time) = Timestamp::try_from(time) else { return "beyond the calendar".into() };
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// Returns a time in UTC for programs, to the millisecond: `2026-11-23T15:05:08.250Z`.
pub(crate) fn utc_time(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?;
    Some(format!("{time:.3}"))
}

/// Returns a duration in its two largest units, in the form that options understand: `6d 21h`, `42s`.
pub(crate) fn rough_duration(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut shown: Vec<String> = Vec::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if left >= seconds || !shown.is_empty() {
            shown.push(format!("{}{unit}", left / seconds));
            left %= seconds;
        }
        if shown.len() == 2 {
            break;
        }
    }
    shown.retain(|part| !part.starts_with('0'));
    if shown.is_empty() { "0s".into() } else { shown.join(" ") }
}

/// Returns a number with its thousands separated: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_id_is_shown_harmlessly_whatever_its_bytes_are() {
        assert_eq!(id(b"a\x1b[31m\xff \xc3\xa9"), "a\\u{1b}[31m\\xff \u{e9}");
    }

    #[test]
    fn a_word_of_a_shell_is_quoted_where_it_must_be() {
        for (text, word) in [
            ("feed/a.b", "feed/a.b"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$HOME", "'$HOME'"),
            ("a\n'\u{1b}", "$'a\\x0a\\'\\x1b'"),
        ] {
            assert_eq!(for_shell(text), word);
        }
    }

    #[test]
    fn lengths_of_time_and_numbers_are_told_briefly() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_725, "1h 2m"),
            (86_400, "1d"),
            (90_061, "1d 1h"),
        ] {
            assert_eq!(rough_duration(Duration::from_secs(seconds)), expected);
        }
        for (number, expected) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn a_size_has_two_or_three_digits_that_count() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_951, "10 kB"),
            (999_600, "1.0 MB"),
            (65_000_000, "65 MB"),
            (3_000_000_000_000_000, "3000 TB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn programs_get_utc_to_the_millisecond() {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(utc_time(time).unwrap(), "2023-11-14T22:13:20.250Z");
    }
}
