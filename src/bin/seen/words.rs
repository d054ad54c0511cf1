//! How things are told to people.
//!
//! Owns the words for times, sizes and ids on a terminal. What always holds: nothing that came from an id
//! reaches a terminal as a control character.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The text with its control characters escaped.
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

/// An id, whatever its bytes are.
pub(crate) fn id(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&harmless(chunk.valid()));
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// A time in the local time zone, to the second: `2026-11-23 16:05:08 +01:00`.
pub(crate) fn local_time(time: SystemTime) -> String {
    let Ok(time) = Timestamp::try_from(time) else { return "beyond the calendar".into() };
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// A time in UTC for programs, to the millisecond: `2026-11-23T15:05:08.250Z`.
pub(crate) fn utc_time(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?;
    Some(format!("{time:.3}"))
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
    fn programs_get_utc_to_the_millisecond() {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(utc_time(time).unwrap(), "2023-11-14T22:13:20.250Z");
    }
}
