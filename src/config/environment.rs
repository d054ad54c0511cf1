//! The settings that environment variables describe.
//!
//! Owns the names and forms of the variables. What always holds: each setting of a [`Config`] but the clock has a
//! variable, `SEEN_` and the setting's name in capitals; a value that is not understood is an error that names the
//! variable, and a name that is not understood is logged. The names of the program that this crate grew from are
//! understood too.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Abandoned, Config, IndexMode, RetryDelay, Synchronous, Ttl, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::texts::parse_duration;

/// The store of a program that names none: the one of the program that this crate grew from.
const DEFAULT_PATH: &str = "data/seen_ids.sqlite";

const DURATION: &str = "a duration such as 90s, 36h or 7d";
const DURATION_OR_NEVER: &str = "a duration such as 90s, 36h or 7d, or never";
const POSITIVE: &str = "a whole number from 1 on";
const SWITCH: &str = "true or false";
const PAGES: &str = "a number of pages (KiB when negative) other than 0";
const SYNCHRONOUS: &str = "NORMAL or FULL";

/// Variables that belong to this crate and are no settings: the last two are set by `seen run` for its command.
const NO_SETTINGS: [&str; 3] = ["SEEN_DB_PATH", "SEEN_ATTEMPT", "SEEN_PREVIOUS"];

/// Returns the path and the settings that the environment describes; `var` looks up a variable.
pub(crate) fn read_environment(
    var: impl Fn(&str) -> Option<OsString>,
    names: impl Iterator<Item = String>,
) -> Result<(PathBuf, Config)> {
    let path = var("SEEN_DB_PATH").filter(|path| !path.is_empty());
    let path = path.map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from);
    Ok((path, read_settings(var, names)?))
}

/// Returns the settings that the environment describes. Logs variables that have no effect: they may be misspelt.
pub(crate) fn read_settings(
    var: impl Fn(&str) -> Option<OsString>,
    names: impl Iterator<Item = String>,
) -> Result<Config> {
    let mut read = Variables { var, asked: Vec::new() };
    let mut config = Config::default();
    let ttl_of_days = read.get("SEEN_TTL_DAYS", "a whole number of days, such as 7", |text| {
        let days: u64 = text.parse().ok()?;
        Some(Ttl::After(Duration::from_secs(days.saturating_mul(24 * 3600))))
    })?;
    let ttl = read.get("SEEN_TTL", DURATION_OR_NEVER, |text| {
        duration_or_never(text).map(|ttl| ttl.map_or(Ttl::Never, Ttl::After))
    })?;
    set(&mut config.ttl, ttl.or(ttl_of_days));
    set(&mut config.window, window(&mut read)?);
    set(&mut config.retention, read.get("SEEN_RETENTION", DURATION, duration)?.map(Some));
    set(&mut config.retry_delay, retry_delay(&mut read)?);
    set(&mut config.max_attempts, read.get("SEEN_MAX_ATTEMPTS", POSITIVE, positive)?.map(Some));
    set(&mut config.max_abandoned, read.get("SEEN_MAX_ABANDONED", POSITIVE, positive)?.map(Some));
    let receipt = read.get("SEEN_MAX_RECEIPT", "a number of bytes", |text| text.parse().ok())?;
    set(&mut config.max_receipt, receipt);
    let abandoned = read.get("SEEN_ABANDONED", "retry or hold", |text| match text {
        "retry" => Some(Abandoned::Retry),
        "hold" => Some(Abandoned::Hold),
        _ => None,
    })?;
    set(&mut config.abandoned, abandoned);
    let holder = read.get("SEEN_HOLDER", "UTF-8 text", |text| Some(text.to_owned()))?;
    set(&mut config.holder, holder.map(Some));
    let synchronous_of_sqlite = read.get("SQLITE_SYNCHRONOUS", SYNCHRONOUS, synchronous)?;
    let synchronous = read.get("SEEN_SYNCHRONOUS", SYNCHRONOUS, synchronous)?;
    set(&mut config.synchronous, synchronous.or(synchronous_of_sqlite));
    let cache_size_of_sqlite = read.get("SQLITE_CACHE_SIZE", PAGES, cache_size)?;
    let cache_size = read.get("SEEN_CACHE_SIZE", PAGES, cache_size)?;
    set(&mut config.cache_size, cache_size.or(cache_size_of_sqlite));
    let index = read.get("SEEN_INDEX", "asleep, wakes or awake", |text| match text {
        "asleep" => Some(IndexMode::Asleep),
        "wakes" => Some(IndexMode::Wakes),
        "awake" => Some(IndexMode::Awake),
        _ => None,
    })?;
    set(&mut config.index, index);
    set(&mut config.busy_timeout, read.get("SEEN_BUSY_TIMEOUT", DURATION, duration)?);
    let calls = read.get("SEEN_ASYNC_QUEUE", POSITIVE, positive)?;
    set(&mut config.async_queue, calls);
    set(&mut config.exclusive, read.get("SEEN_EXCLUSIVE", SWITCH, switch)?);
    set(&mut config.read_only, read.get("SEEN_READ_ONLY", SWITCH, switch)?);
    set(&mut config.create, read.get("SEEN_CREATE", SWITCH, switch)?);
    let pages = read.get("SEEN_WAL_AUTOCHECKPOINT", "a number of pages", |t| t.parse().ok())?;
    set(&mut config.wal_autocheckpoint, pages);
    let bytes = read.get("SEEN_JOURNAL_SIZE_LIMIT", "a number of bytes", |t| t.parse().ok())?;
    set(&mut config.journal_size_limit, bytes);
    set(&mut config.purge_on_open, read.get("SEEN_PURGE_ON_OPEN", SWITCH, switch)?);
    let interval = read.get("SEEN_PURGE_INTERVAL", DURATION_OR_NEVER, |text| {
        duration_or_never(text).filter(|interval| *interval != Some(Duration::ZERO))
    })?;
    set(&mut config.purge_interval, interval);
    set(&mut config.purge_thread, read.get("SEEN_PURGE_THREAD", SWITCH, switch)?);
    set(&mut config.check_clock, read.get("SEEN_CHECK_CLOCK", SWITCH, switch)?);
    names.for_each(|name| tell_of_no_effect(&name, &read.asked));
    Ok(config)
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

/// The variables, and which were asked for.
struct Variables<V> {
    var: V,
    asked: Vec<&'static str>,
}

impl<V: Fn(&str) -> Option<OsString>> Variables<V> {
    /// Returns the variable's value; `None` if it is not set or empty.
    fn get<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        self.asked.push(name);
        let Some(value) = (self.var)(name) else { return Ok(None) };
        let Some(text) = value.to_str() else {
            return Err(bad_variable(name, &value.to_string_lossy(), expected));
        };
        if text.is_empty() {
            return Ok(None);
        }
        parse(text.trim()).map(Some).ok_or_else(|| bad_variable(name, text, expected))
    }
}

fn bad_variable(name: &str, value: &str, expected: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the environment variable {name} is {value:?}; it must be {expected}"),
    )
}

fn window<V: Fn(&str) -> Option<OsString>>(read: &mut Variables<V>) -> Result<Option<Window>> {
    let window = read.get("SEEN_WINDOW", "fixed or sliding", |text| match text {
        "fixed" => Some(Window::Fixed),
        "sliding" => Some(Window::SLIDING),
        _ => None,
    })?;
    match (window, read.get("SEEN_MAX_AGE", DURATION, duration)?) {
        (Some(Window::Sliding { .. }), max_age) => Ok(Some(Window::Sliding { max_age })),
        (window, None) => Ok(window),
        (_, Some(_)) => Err(Error::new(
            ErrorKind::InvalidConfig,
            "the environment variable SEEN_MAX_AGE needs SEEN_WINDOW=sliding",
        )),
    }
}

fn retry_delay<V: Fn(&str) -> Option<OsString>>(
    read: &mut Variables<V>,
) -> Result<Option<RetryDelay>> {
    let first = read.get("SEEN_RETRY_DELAY", DURATION, duration)?;
    match (first, read.get("SEEN_RETRY_MAX", DURATION, duration)?) {
        (Some(first), Some(max)) => Ok(Some(RetryDelay::Exponential { first, max })),
        (first, None) => Ok(first.map(RetryDelay::Fixed)),
        (None, Some(_)) => Err(Error::new(
            ErrorKind::InvalidConfig,
            "the environment variable SEEN_RETRY_MAX needs SEEN_RETRY_DELAY, the delay after the first attempt",
        )),
    }
}

fn duration(text: &str) -> Option<Duration> {
    parse_duration(text).ok()
}

#[expect(clippy::option_option, reason = "not understood, never, or a duration")]
fn duration_or_never(text: &str) -> Option<Option<Duration>> {
    if text == "never" { Some(None) } else { duration(text).map(Some) }
}

fn positive<T: FromStr + PartialOrd + Default>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number| *number > T::default())
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Also understands SQLite's numbers.
fn synchronous(text: &str) -> Option<Synchronous> {
    match text.to_ascii_uppercase().as_str() {
        "NORMAL" | "1" => Some(Synchronous::Normal),
        // SQLite's EXTRA differs from FULL only without a write-ahead log.
        "FULL" | "2" | "EXTRA" | "3" => Some(Synchronous::Full),
        _ => None,
    }
}

fn cache_size(text: &str) -> Option<i64> {
    text.parse().ok().filter(|&size: &i64| size != 0 && i32::try_from(size).is_ok())
}

fn tell_of_no_effect(name: &str, settings: &[&str]) {
    if name == "SQLITE_MMAP_SIZE" || name.starts_with("SEEN_STORE_CACHE_") {
        log::info!(
            variable = name;
            "{name} is set and has no effect: lookups are answered from the store's index"
        );
    } else if name.starts_with("SEEN_") && !settings.contains(&name) && !NO_SETTINGS.contains(&name)
    {
        log::warn!(variable = name; "{name} is set and has no effect: there is no such setting");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(variables: &[(&str, &str)]) -> Result<(PathBuf, Config)> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        read_environment(
            |name| variables.get(name).map(OsString::from),
            variables.keys().map(ToString::to_string),
        )
    }

    #[test]
    fn the_environment_of_the_original_bot_is_understood() {
        let (path, config) = read(&[
            ("SEEN_DB_PATH", "/x/seen.db"),
            ("SEEN_TTL_DAYS", "3"),
            ("SQLITE_SYNCHRONOUS", "full"),
            ("SQLITE_CACHE_SIZE", "-2000"),
            ("SQLITE_MMAP_SIZE", "whatever"),
            ("SEEN_STORE_CACHE_SIZE", "whatever"),
        ])
        .unwrap();
        assert_eq!(path, PathBuf::from("/x/seen.db"));
        assert_eq!(config.ttl, Ttl::After(Duration::from_secs(72 * 3_600)));
        assert_eq!(config.synchronous, Synchronous::Full);
        assert_eq!(config.cache_size, -2000);
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let (path, config) = read(&[("SEEN_TTL", ""), ("SEEN_TTL_DAYS", "")]).unwrap();
        assert_eq!(path, PathBuf::from("data/seen_ids.sqlite"));
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    /// Every setting of a file, with its variables.
    const ALL: [(&str, &[(&str, &str)]); 23] = [
        ("ttl", &[("SEEN_TTL", "36h"), ("SEEN_TTL_DAYS", "3")]),
        ("window", &[("SEEN_WINDOW", "sliding"), ("SEEN_MAX_AGE", "90d")]),
        ("retention", &[("SEEN_RETENTION", "1w 2d")]),
        ("retry_delay", &[("SEEN_RETRY_DELAY", "10s"), ("SEEN_RETRY_MAX", "1h")]),
        ("max_attempts", &[("SEEN_MAX_ATTEMPTS", "5")]),
        ("max_abandoned", &[("SEEN_MAX_ABANDONED", "2")]),
        ("max_receipt", &[("SEEN_MAX_RECEIPT", "1000")]),
        ("abandoned", &[("SEEN_ABANDONED", "hold")]),
        ("holder", &[("SEEN_HOLDER", "bot 1")]),
        ("synchronous", &[("SEEN_SYNCHRONOUS", "full"), ("SQLITE_SYNCHRONOUS", "normal")]),
        ("cache_size", &[("SEEN_CACHE_SIZE", "-2000"), ("SQLITE_CACHE_SIZE", "5")]),
        ("index", &[("SEEN_INDEX", "asleep")]),
        ("busy_timeout", &[("SEEN_BUSY_TIMEOUT", "500ms")]),
        ("async_queue", &[("SEEN_ASYNC_QUEUE", "64")]),
        ("exclusive", &[("SEEN_EXCLUSIVE", "Yes")]),
        ("read_only", &[("SEEN_READ_ONLY", "1")]),
        ("create", &[("SEEN_CREATE", "false")]),
        ("wal_autocheckpoint", &[("SEEN_WAL_AUTOCHECKPOINT", "2000")]),
        ("journal_size_limit", &[("SEEN_JOURNAL_SIZE_LIMIT", "1000000")]),
        ("purge_on_open", &[("SEEN_PURGE_ON_OPEN", "off")]),
        ("purge_interval", &[("SEEN_PURGE_INTERVAL", "never")]),
        ("purge_thread", &[("SEEN_PURGE_THREAD", "on")]),
        ("check_clock", &[("SEEN_CHECK_CLOCK", "no")]),
    ];

    #[test]
    fn each_setting_has_its_variable_which_counts_more_than_the_name_of_the_original_bot() {
        let secs = Duration::from_secs;
        let all: Vec<_> = ALL.iter().flat_map(|(_, variables)| variables.iter().copied()).collect();
        let expected = Config::default()
            .ttl(secs(36 * 3_600))
            .window(Window::Sliding { max_age: Some(secs(90 * 86_400)) })
            .retention(secs(9 * 86_400))
            .retry_delay(RetryDelay::Exponential { first: secs(10), max: secs(3_600) })
            .max_attempts(5)
            .max_abandoned(2)
            .max_receipt(1_000)
            .abandoned(Abandoned::Hold)
            .holder("bot 1")
            .synchronous(Synchronous::Full)
            .cache_size(-2_000)
            .index(IndexMode::Asleep)
            .busy_timeout(Duration::from_millis(500))
            .async_queue(64)
            .exclusive(true)
            .read_only(true)
            .create(false)
            .wal_autocheckpoint(2_000)
            .journal_size_limit(1_000_000)
            .purge_on_open(false)
            .purge_interval(None)
            .purge_thread(true)
            .check_clock(false);
        assert_eq!(format!("{:?}", read(&all).unwrap().1), format!("{expected:?}"));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn the_variables_are_the_settings_of_a_configuration_file_in_capitals() {
        let full = Config::default().max_attempts(1).max_abandoned(1).holder("x");
        let full = serde_json::to_value(full.retention(Duration::MAX)).unwrap();
        let mut settings: Vec<_> = full.as_object().unwrap().keys().map(String::as_str).collect();
        let mut known: Vec<_> = ALL.iter().map(|(setting, _)| *setting).collect();
        settings.sort_unstable();
        known.sort_unstable();
        assert_eq!(settings, known);
        for (setting, variables) in ALL {
            assert_eq!(variables[0].0, format!("SEEN_{}", setting.to_uppercase()));
        }
    }

    #[test]
    fn a_value_that_does_not_parse_is_named_with_its_variable() {
        for (name, value) in [
            ("SEEN_TTL", "a week"),
            ("SEEN_TTL", "7"),
            ("SEEN_TTL", "-7d"),
            ("SEEN_TTL_DAYS", "a week"),
            ("SEEN_TTL_DAYS", "-1"),
            ("SEEN_WINDOW", "open"),
            ("SEEN_MAX_AGE", "never"),
            ("SEEN_MAX_ATTEMPTS", "0"),
            ("SEEN_ASYNC_QUEUE", "0"),
            ("SEEN_ABANDONED", "drop"),
            ("SQLITE_SYNCHRONOUS", "OFF"),
            ("SEEN_SYNCHRONOUS", "0"),
            ("SQLITE_CACHE_SIZE", "0"),
            ("SEEN_CACHE_SIZE", "10MB"),
            ("SEEN_CREATE", "maybe"),
            ("SEEN_INDEX", "memory"),
            ("SEEN_PURGE_INTERVAL", "0s"),
            ("SEEN_JOURNAL_SIZE_LIMIT", "-1"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let message = error.to_string();
            assert!(message.contains(name) && message.contains(value), "{message}");
        }
    }

    #[test]
    fn a_setting_that_needs_another_one_says_so() {
        for (name, value, needed) in [
            ("SEEN_MAX_AGE", "90d", "SEEN_WINDOW=sliding"),
            ("SEEN_RETRY_MAX", "1h", "SEEN_RETRY_DELAY"),
        ] {
            let message = read(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(needed), "{message}");
        }
    }
}
