//! Durations, times and bytes as text.
//!
//! Owns how a duration is read, wherever one is given as text; `serialized` has the forms for serde.

#[cfg(feature = "serde")]
mod serialized;

#[cfg(feature = "serde")]
pub(crate) use self::serialized::{
    bytes_text, duration, duration_or_never, optional_duration, optional_time, parse_bytes, time,
};

use std::time::Duration;

/// What a duration looks like.
const DURATION: &str =
    "a text of numbers with units (ms, s, m, h, d, w), such as 90s, 36h or 1w 2d";

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Reads a duration: numbers with units, such as `90s`, `1h 30m`, `1.5h` or `7 days`. A day has 24 hours; months and
/// years, which have no fixed length, are not understood.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanos = nanos(text).ok_or_else(|| format!("{text:?} is no duration: give {DURATION}"))?;
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND)
        .map_err(|_| format!("{text:?} is too long for a duration"))?;
    let rest = u32::try_from(nanos % NANOS_PER_SECOND).expect("less than a second");
    Ok(Duration::new(seconds, rest))
}

fn nanos(text: &str) -> Option<u128> {
    let (mut total, mut rest) = (0_u128, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (whole, fraction) = rest[..number].split_once('.').unwrap_or((&rest[..number], "0"));
        rest = rest[number..].trim_start();
        let word = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit = unit_nanos(&rest[..word])?;
        rest = rest[word..].trim_start();
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let fraction = unit.checked_mul(fraction.parse().ok()?)? / scale;
        let part = unit.checked_mul(whole.parse().ok()?)?.checked_add(fraction)?;
        total = total.checked_add(part)?;
    }
    Some(total)
}

fn unit_nanos(word: &str) -> Option<u128> {
    Some(match word {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => NANOS_PER_SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * NANOS_PER_SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * NANOS_PER_SECOND,
        "d" | "day" | "days" => 86_400 * NANOS_PER_SECOND,
        "w" | "wk" | "wks" | "week" | "weeks" => 604_800 * NANOS_PER_SECOND,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_people_write_it() {
        for (text, ms) in [
            ("0s", 0),
            ("250ms", 250),
            ("90s", 90_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("0.25s", 250),
            (" 36h ", 129_600_000),
            ("1w 2d", 777_600_000),
            ("7 days", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in [
            "",
            "7",
            "1mo",
            "1y",
            "-1s",
            "+1s",
            "soon",
            "s",
            "1.2.3s",
            ".s",
            "1 s 2",
            "99999999999999999999999999999999999999999s",
        ] {
            assert!(parse_duration(text).unwrap_err().contains("such as 90s"), "{text:?}");
        }
        assert!(parse_duration("99999999999999999999w").unwrap_err().contains("too long"));
    }
}
