//! `--every`: once an hour, a day, a week or a month by the calendar.
//!
//! Owns the text of a period and the id that an id has in it. What always holds: such an id is data for ever, so a text
//! never changes; two periods have two texts, also the hour that comes twice when the clocks are set back. A time to
//! live would not do: it begins when the work ends, so work that began a little earlier today than yesterday would not
//! be done today.

use std::env;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use seen_store::{Clock as _, SystemClock, fingerprint};

use crate::Result;
use crate::args::ids::shown;

const HOUR: Duration = Duration::from_secs(3_600);

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Every {
    Hour,
    Day,
    /// From Monday to Sunday.
    Week,
    Month,
    HourUtc,
    DayUtc,
    WeekUtc,
    MonthUtc,
}

/// Returns the id that an id has in the present period, and its name for messages.
pub(crate) fn in_present(every: Option<Every>, id: Vec<u8>) -> Result<(Vec<u8>, String)> {
    let name = shown(&id);
    let Some(every) = every else { return Ok((id, name)) };
    let period = every.present()?;
    Ok((id_in(&period, &id), format!("{name} ({period})")))
}

/// Returns the id of an id in a period.
fn id_in(period: &str, id: &[u8]) -> Vec<u8> {
    fingerprint([id, period.as_bytes()])
}

impl Every {
    /// Returns the text of the present period. A clock that was never set tells none: after each boot it would be the
    /// same one, in which the work was done.
    pub(crate) fn present(self) -> Result<String> {
        let now = SystemClock.now();
        self.refuse_unset(now)?;
        self.at(now)
    }

    fn refuse_unset(self, now: SystemTime) -> Result<()> {
        if now >= SystemClock::released() {
            return Ok(());
        }
        let shown = Timestamp::try_from(now).map(|time| time.to_string());
        Err(format!(
            "--every {}: the clock was never set, it shows {}; set it first, or give the id without --every",
            self.word(),
            shown.unwrap_or_else(|_| "no date".into())
        )
        .into())
    }

    /// Returns how long an id is remembered: for its period, and for a run that began at the end of it.
    pub(crate) fn ttl(self) -> Duration {
        2 * match self {
            Self::Hour | Self::HourUtc => HOUR,
            Self::Day | Self::DayUtc => 24 * HOUR,
            Self::Week | Self::WeekUtc => 7 * 24 * HOUR,
            Self::Month | Self::MonthUtc => 31 * 24 * HOUR,
        }
    }

    fn at(self, time: SystemTime) -> Result<String> {
        let time = Timestamp::try_from(time).map_err(|e| format!("the clock is wrong: {e}"))?;
        let zone = match self {
            Self::Hour | Self::Day | Self::Week | Self::Month => self.local_zone()?,
            _ => TimeZone::UTC,
        };
        Ok(self.text(&time.to_zoned(zone)))
    }

    /// Without any setting the local time is UTC, as for the C library. A setting that is not understood is an error: the
    /// work would be done at another time of the day.
    fn local_zone(self) -> Result<TimeZone> {
        let set = env::var_os("TZ").filter(|zone| !zone.is_empty());
        match (TimeZone::try_system(), set) {
            (Ok(zone), _) => Ok(zone),
            (Err(_), None) => Ok(TimeZone::UTC),
            (Err(e), Some(set)) => Err(format!(
                "TZ={}: not a time zone of this machine: {e}; set another one, or give --every {}-utc",
                set.display(),
                self.word()
            )
            .into()),
        }
    }

    fn text(self, time: &Zoned) -> String {
        let format = match self {
            // With the offset from UTC.
            Self::Hour => "%Y-%m-%dT%H%:z",
            Self::HourUtc => "%Y-%m-%dT%HZ",
            Self::Day | Self::DayUtc => "%Y-%m-%d",
            Self::Week | Self::WeekUtc => "%G-W%V",
            Self::Month | Self::MonthUtc => "%Y-%m",
        };
        format!("{} {}", self.word(), time.strftime(format))
    }

    fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::HourUtc => "hour-utc",
            Self::DayUtc => "day-utc",
            Self::WeekUtc => "week-utc",
            Self::MonthUtc => "month-utc",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_has_no_periods() {
        let minute = Duration::from_secs(60);
        let error = Every::Day.refuse_unset(SystemTime::UNIX_EPOCH + minute).unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("--every day: ") && told.contains("1970-01-01T00:01:00Z"),
            "{told}"
        );
        assert!(Every::Day.refuse_unset(SystemClock::released() - minute).is_err());
        assert!(Every::Day.refuse_unset(SystemClock::released()).is_ok());
    }

    fn text(every: Every, time: &str) -> String {
        let time: Timestamp = time.parse().unwrap();
        // The rules of central Europe.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        every.text(&time.to_zoned(if every.word().ends_with("utc") { TimeZone::UTC } else { zone }))
    }

    #[test]
    fn a_period_has_one_text_for_ever() {
        for (every, time, expected) in [
            (Every::Day, "2026-11-26T22:59:59Z", "day 2026-11-26"),
            (Every::Day, "2026-11-26T23:00:00Z", "day 2026-11-27"),
            (Every::DayUtc, "2026-11-26T23:00:00Z", "day-utc 2026-11-26"),
            (Every::Month, "2026-11-30T23:00:00Z", "month 2026-12"),
            (Every::MonthUtc, "2026-11-30T23:00:00Z", "month-utc 2026-11"),
            // The first days of a year may belong to a week of the year before, and its last to the year after.
            (Every::Week, "2027-01-03T22:59:59Z", "week 2026-W53"),
            (Every::Week, "2027-01-03T23:00:00Z", "week 2027-W01"),
            (Every::WeekUtc, "2024-12-30T00:00:00Z", "week-utc 2025-W01"),
            (Every::Hour, "2026-11-26T09:30:00Z", "hour 2026-11-26T10+01:00"),
            (Every::HourUtc, "2026-11-26T09:30:00Z", "hour-utc 2026-11-26T09Z"),
        ] {
            assert_eq!(text(every, time), expected, "{time}");
        }
        assert_eq!(id_in("day 2026-11-26", b"report"), b"f1:6:report14:day 2026-11-26");
    }

    #[test]
    fn the_hour_that_comes_twice_is_two() {
        assert_eq!(text(Every::Hour, "2026-10-25T00:30:00Z"), "hour 2026-10-25T02+02:00");
        assert_eq!(text(Every::Hour, "2026-10-25T01:30:00Z"), "hour 2026-10-25T02+01:00");
    }
}
