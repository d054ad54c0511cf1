//! How durations, times and bytes are written as text, for serde: the forms that the command reads and writes.
//!
//! Owns the forms. What always holds: what was written is read as it was, times to the millisecond. Compiled with
//! the feature `serde` alone. Knows nothing of the types that have such fields.
#![expect(clippy::ref_option, reason = "serde passes a reference to the field")]

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};

use super::parse_duration;
use crate::clock::{from_ms, to_ms};

/// Returns a duration as text: `36h`, `1m 30s`, `250ms`. Cuts what is longer than 292 billion years.
pub(crate) fn duration_text(duration: Duration) -> String {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    format!("{duration:#}")
}

/// Returns a time in UTC, ISO 8601, to the millisecond, or in unix milliseconds where the calendar ends.
pub(crate) fn time_text(time: SystemTime) -> String {
    // The store's times are whole milliseconds.
    let time = from_ms(to_ms(time));
    Timestamp::try_from(time).map_or_else(|_| to_ms(time).to_string(), |time| format!("{time:.3}"))
}

pub(crate) fn parse_time(text: &str) -> Result<SystemTime, String> {
    let time = match text.parse::<i64>() {
        Ok(ms) => Some(from_ms(ms)),
        Err(_) => text.parse::<Timestamp>().ok().map(SystemTime::from),
    };
    time.ok_or_else(|| format!("{text:?} is no time such as 2026-11-23T15:05:08Z"))
}

/// Returns bytes as text and nothing, or, if they are not UTF-8, nothing and their hexadecimal digits.
pub(crate) fn bytes_text(bytes: &[u8]) -> (Option<String>, Option<String>) {
    if let Ok(text) = str::from_utf8(bytes) {
        return (Some(text.to_owned()), None);
    }
    let digit = |half: u8| char::from_digit(half.into(), 16).expect("half a byte");
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    (None, Some(digits.collect()))
}

/// Reads what [`bytes_text`] has returned. `name` is the name of the field.
pub(crate) fn parse_bytes(
    name: &str,
    text: Option<String>,
    hexadecimal: Option<String>,
) -> Result<Option<Vec<u8>>, String> {
    let Some(digits) = hexadecimal else { return Ok(text.map(String::into_bytes)) };
    if text.is_some() {
        return Err(format!("{name} and {name}_hex are given; one is enough"));
    }
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let valid = rest.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).filter(|_| valid).collect();
    bytes
        .filter(|_| valid)
        .map(Some)
        .ok_or_else(|| format!("{name}_hex is not hexadecimal: two digits a byte"))
}

/// A duration, for `#[serde(with)]`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(it: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::duration_text(*it))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A duration or nothing.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::{Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        it: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        it.map(super::duration_text).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::parse_duration(&text)).transpose().map_err(D::Error::custom)
    }
}

/// A duration, or `never` for nothing.
pub(crate) mod duration_or_never {
    use std::time::Duration;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(
        it: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&it.map_or_else(|| "never".to_owned(), super::duration_text))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(from)?;
        if text == "never" {
            return Ok(None);
        }
        let duration = super::parse_duration(&text).map_err(|why| why + ", or never");
        duration.map(Some).map_err(D::Error::custom)
    }
}

/// A time or nothing.
pub(crate) mod optional_time {
    use std::time::SystemTime;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::{Serialize as _, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        it: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        it.map(super::time_text).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::parse_time(&text)).transpose().map_err(D::Error::custom)
    }
}

/// A time.
pub(crate) mod time {
    use std::time::SystemTime;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(it: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::time_text(*it))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        super::parse_time(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_it_was_written_and_as_people_write_it() {
        for duration in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_millis(1_500),
            Duration::from_secs(7 * 86_400),
            Duration::from_secs(1 << 60),
        ] {
            let text = duration_text(duration);
            assert_eq!(parse_duration(&text), Ok(duration), "{text}");
        }
        for (text, seconds) in
            [("90s", 90), ("36h", 129_600), ("1w 2d", 777_600), ("7 days", 604_800)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "7", "1mo", "-1s", "soon"] {
            assert!(parse_duration(text).unwrap_err().contains("such as 90s"), "{text:?}");
        }
        assert!(parse_duration(&duration_text(Duration::MAX)).is_ok());
    }

    #[test]
    fn a_time_is_read_as_it_was_written() {
        for ms in [0, 1, -1, 1_700_000_000_250, (1 << 48) - 2] {
            let text = time_text(from_ms(ms));
            assert_eq!(parse_time(&text), Ok(from_ms(ms)), "{text}");
        }
        assert_eq!(time_text(from_ms(1_700_000_000_250)), "2023-11-14T22:13:20.250Z");
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn bytes_are_read_as_they_were_written() {
        for bytes in [&b"text"[..], b"", b"\xff\x00", "é\n".as_bytes()] {
            let (text, digits) = bytes_text(bytes);
            assert_eq!(parse_bytes("id", text, digits), Ok(Some(bytes.to_vec())));
        }
        assert_eq!(parse_bytes("id", None, None), Ok(None));
        for digits in ["f", "+1", "zz"] {
            assert!(parse_bytes("id", None, Some(digits.into())).is_err(), "{digits}");
        }
        assert!(parse_bytes("id", Some("a".into()), Some("61".into())).is_err());
    }
}
