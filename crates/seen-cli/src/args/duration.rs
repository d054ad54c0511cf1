//! Durations on the command line, such as `90s` or `1w 2d`.
//!
//! Owns their syntax and the messages about it. What always holds: a message says what is understood, with an
//! example; the parser of the arguments adds the option and the text that was given. Must not know which
//! command asks.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use seen_store::Ttl;

/// What every option understands.
const FORM: &str = "give numbers with units (ms, s, m, h, d, w), such as 90s, 36h or 1w 2d";

/// Parses a time to live: a duration, or `never`. Refuses zero.
pub(crate) fn parse_ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl::Never);
    }
    parse_longer_than_zero(text, "a time to live of zero would remember nothing")
        .map(Ttl::After)
        .map_err(|why| why + ", or never")
}

/// Parses how far to look back. Refuses zero, which finds nothing.
pub(crate) fn parse_since(text: &str) -> Result<Duration, String> {
    parse_longer_than_zero(text, "looking back for no time finds nothing")
}

/// Parses how long a claim lasts. Refuses zero.
pub(crate) fn parse_lease(text: &str) -> Result<Duration, String> {
    parse_longer_than_zero(text, "a lease of zero would end before the work began")
}

fn parse_longer_than_zero(text: &str, why_not_zero: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    // A store counts whole milliseconds.
    if duration.as_millis() == 0 {
        return Err(format!("{why_not_zero}; {FORM}"));
    }
    Ok(duration)
}

/// Parses a duration. A day has 24 hours. Refuses months and years, which have no fixed length.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = |what: &str| format!("{what}; {FORM}");
    let span: Span = text.parse().map_err(|e: jiff::Error| {
        refuse(if e.is_range() { "too long" } else { "not a duration" })
    })?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| refuse("months and years have no fixed length"))?;
    Duration::try_from(duration).map_err(|_| refuse("a duration cannot be negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_it_is_spoken() {
        for (text, seconds) in [
            ("90s", 90),
            ("36h", 36 * 3600),
            ("7d", 7 * 86_400),
            ("1w 2d", 9 * 86_400),
            ("1 hour 30 minutes", 5_400),
            ("P1D", 86_400),
        ] {
            assert_eq!(parse_ttl(text), Ok(Ttl::After(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(parse_ttl("500ms"), Ok(Ttl::After(Duration::from_millis(500))));
        assert_eq!(parse_ttl("never"), Ok(Ttl::Never));
    }

    #[test]
    fn what_has_no_fixed_length_or_none_at_all_is_refused() {
        for text in ["", "7", "soon", "1mo", "1y", "-1d", "1d ago", "Never "] {
            assert!(parse_ttl(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_message_says_what_is_understood_and_nothing_of_the_date_library() {
        for (text, why) in [
            ("banana", "not a duration"),
            ("", "not a duration"),
            ("7", "not a duration"),
            ("7 x", "not a duration"),
            ("99999999999d", "too long"),
            ("1y", "months and years have no fixed length"),
            ("-1d", "a duration cannot be negative"),
        ] {
            assert_eq!(parse_duration(text), Err(format!("{why}; {FORM}")), "{text:?}");
            assert_eq!(parse_ttl(text), Err(format!("{why}; {FORM}, or never")), "{text:?}");
        }
        for none in ["0s", "0d", "-0s", "PT0S", "900us"] {
            assert!(parse_lease(none).unwrap_err().ends_with(FORM));
            assert!(parse_since(none).unwrap_err().ends_with(FORM));
            let why = parse_ttl(none).unwrap_err();
            assert!(why.starts_with("a time to live of zero would remember nothing; "), "{why}");
        }
    }
}
