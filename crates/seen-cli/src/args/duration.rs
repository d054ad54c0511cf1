//! Durations as people write them.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use seen_store::Ttl;

/// A time to live: `90s`, `36h`, `7d`, `1w 2d`, an ISO 8601 duration, or `never`.
pub(crate) fn parse_ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" { Ok(Ttl::Never) } else { parse_duration(text).map(Ttl::After) }
}

/// A length of time to look back: zero shows nothing.
pub(crate) fn parse_since(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("looking back for no time finds nothing".into()),
        since => Ok(since),
    }
}

/// How long a claim lasts.
pub(crate) fn parse_lease(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a lease of zero would end before the work began".into()),
        lease => Ok(lease),
    }
}

/// A length of time. A day has 24 hours; months and years have no fixed length and are refused.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = "such as 90s, 36h or 7d";
    let span: Span = text.parse().map_err(|e| format!("not a duration {wanted}: {e}"))?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("months and years have no fixed length; use one {wanted}"))?;
    Duration::try_from(duration)
        .map_err(|_| format!("a duration cannot be negative; use one {wanted}"))
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
            ("0s", 0),
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
}
