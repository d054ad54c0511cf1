//! What serde writes, and what a program's own files may hold.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use seen_store::{
    Abandoned, Claim, Config, Counts, Entry, FileStats, Filter, Reader, Resolution, RetryDelay,
    SeenStore, State, Stats, Synchronous, Ttl, Verdict, Window,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::common::{Place, secs};

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(second * 1_000 + 250)
}

/// Writes a value as JSON and as TOML and reads it again.
#[track_caller]
fn assert_kept<T: serde::Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value, "{text}");
}

#[test]
fn an_entry_is_written_as_the_command_exports_it() {
    let mut entry = Entry::new("feed", "item 17", at(1_700_000_000));
    assert_eq!(
        serde_json::to_value(&entry).unwrap(),
        json!({
            "scope": "feed",
            "id": "item 17",
            "state": "seen",
            "first_seen": "2023-11-14T22:13:20.250Z",
            "last_seen": "2023-11-14T22:13:20.250Z",
            "expires_at": null,
            "duplicates": 0,
        })
    );
    (entry.id, entry.receipt) = (vec![0xff, 0], Some(vec![0xfe]));
    (entry.state, entry.lease_until) = (State::GivenUp, Some(at(1_700_000_060)));
    (entry.held, entry.attempts, entry.abandoned) = (true, 3, 1);
    (entry.holder, entry.last_error) = (Some("host:1".into()), Some("timed out".into()));
    (entry.duplicates, entry.expires_at) = (5, Some(at(1_700_001_000)));
    assert_eq!(
        serde_json::to_value(&entry).unwrap(),
        json!({
            "scope": "feed",
            "id_hex": "ff00",
            "state": "given-up",
            "first_seen": "2023-11-14T22:13:20.250Z",
            "last_seen": "2023-11-14T22:13:20.250Z",
            "expires_at": "2023-11-14T22:30:00.250Z",
            "lease_until": "2023-11-14T22:14:20.250Z",
            "holder": "host:1",
            "held": true,
            "duplicates": 5,
            "attempts": 3,
            "abandoned": 1,
            "last_error": "timed out",
            "receipt_hex": "fe",
        })
    );
}

#[test]
fn entries_of_a_store_are_read_as_they_were_written() {
    let place = Place::in_ram();
    let store = place.open(Config::default());
    store.mark_seen("text").unwrap();
    store.ttl(Ttl::Never).mark_seen([0xff, b'\n']).unwrap();
    let Claim::Granted(lease) = store.claim("claimed", secs(60)).unwrap() else { panic!() };
    lease.into_token();
    let entries: Vec<Entry> = store.entries(Filter::default()).map(Result::unwrap).collect();
    assert_eq!(entries.len(), 3);
    entries.iter().for_each(assert_kept);
    let written = serde_json::to_string(&entries).unwrap();
    let copy = SeenStore::in_memory().unwrap();
    let summary = copy.restore(serde_json::from_str::<Vec<Entry>>(&written).unwrap()).unwrap();
    assert_eq!(summary.added, 3, "{summary:?}");
}

#[test]
fn an_entry_needs_an_id_and_a_time() {
    let read = |text: &str| serde_json::from_str::<Entry>(text);
    let entry =
        read(r#"{"id": "a", "last_seen": "2023-11-14T22:13:20.250Z", "other": 1}"#).unwrap();
    assert_eq!(entry, Entry::new("", "a", at(1_700_000_000)));
    for (text, named) in [
        (r#"{"last_seen": "2023-11-14T22:13:20Z"}"#, "id_hex"),
        (r#"{"id": "a"}"#, "last_seen"),
        (r#"{"id": "a", "last_seen": "yesterday"}"#, "yesterday"),
        (r#"{"id": "a", "state": "gone", "last_seen": "2023-11-14T22:13:20Z"}"#, "gone"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn filters_figures_and_words_are_read_as_they_were_written() {
    assert_kept(&Filter::default());
    assert_eq!(serde_json::to_string(&Filter::default()).unwrap(), "{}");
    let filter = Filter::default().scope("s").state(State::InFlight).older_than(secs(90));
    assert_kept(&filter.clone().prefix("db1/").newer_than(Duration::from_millis(1_500)));
    assert_kept(&filter.prefix([0xff]));
    let misspelt = serde_json::from_str::<Filter>(r#"{"prefx": "a"}"#).unwrap_err();
    assert!(misspelt.to_string().contains("prefx"), "{misspelt}");

    let place = Place::in_ram();
    let store = place.open(Config::default());
    store.scope("s").seed(["a", "b"]).unwrap();
    assert_kept::<Stats>(&store.stats().unwrap());
    let stats = Reader::open(place.path()).unwrap().stats(secs(3_600), 3).unwrap();
    assert_kept::<FileStats>(&stats);
    assert_kept::<Counts>(&stats.total());
    // Figures of an earlier version lack some.
    assert_eq!(serde_json::from_str::<Stats>("{}").unwrap(), Stats::default());

    State::ALL.iter().for_each(assert_kept);
    assert_eq!(serde_json::to_string(&State::InFlight).unwrap(), "\"in-flight\"");
    [Verdict::New, Verdict::Duplicate, Verdict::InFlight].iter().for_each(assert_kept);
    [Resolution::Done, Resolution::Retry].iter().for_each(assert_kept);
    [Abandoned::Retry, Abandoned::Hold].iter().for_each(assert_kept);
    [Synchronous::Normal, Synchronous::Full].iter().for_each(assert_kept);
    [Ttl::Never, Ttl::After(Duration::ZERO), Ttl::After(secs(90))].iter().for_each(assert_kept);
    let limited = Window::Sliding { max_age: Some(secs(5)) };
    [Window::Fixed, Window::SLIDING, limited].iter().for_each(assert_kept);
    let exponential = RetryDelay::Exponential { first: secs(1), max: secs(60) };
    [RetryDelay::Fixed(secs(30)), exponential].iter().for_each(assert_kept);
}

/// A program's own configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bot {
    channel: String,
    #[serde(default)]
    store: Config,
}

/// The settings as text, since they cannot be compared.
fn shown(config: &Config) -> String {
    format!("{config:?}")
}

#[test]
fn a_bot_reads_the_settings_of_its_store_from_its_own_file() {
    let text = r#"
        channel = "alerts"
        [store]
        ttl = "30d"
        window = { max_age = "90d" }
        retry_delay = { first = "10s", max = "1h" }
        max_attempts = 5
        max_abandoned = 2
        max_receipt = 1000
        abandoned = "hold"
        holder = "bot 1"
        synchronous = "full"
        cache_size = -2000
        busy_timeout = "5s"
        exclusive = true
        read_only = false
        create = false
        wal_autocheckpoint = 2000
        journal_size_limit = 1000000
        purge_on_open = false
        purge_interval = "10m"
        purge_thread = true
        check_clock = false
    "#;
    let bot: Bot = toml::from_str(text).unwrap();
    let day = secs(86_400);
    let expected = Config::default()
        .ttl(30 * day)
        .window(Window::Sliding { max_age: Some(90 * day) })
        .retry_delay(RetryDelay::Exponential { first: secs(10), max: secs(3_600) })
        .max_attempts(5)
        .max_abandoned(2)
        .max_receipt(1_000)
        .abandoned(Abandoned::Hold)
        .holder("bot 1")
        .synchronous(Synchronous::Full)
        .cache_size(-2_000)
        .busy_timeout(secs(5))
        .exclusive(true)
        .create(false)
        .wal_autocheckpoint(2_000)
        .journal_size_limit(1_000_000)
        .purge_on_open(false)
        .purge_interval(secs(600))
        .purge_thread(true)
        .check_clock(false);
    assert_eq!((bot.channel.as_str(), shown(&bot.store)), ("alerts", shown(&expected)));
    let again: Config = toml::from_str(&toml::to_string(&expected).unwrap()).unwrap();
    assert_eq!(shown(&again), shown(&expected));
    let json = serde_json::to_string(&expected).unwrap();
    assert_eq!(shown(&serde_json::from_str(&json).unwrap()), shown(&expected));
}

#[test]
fn settings_that_are_missing_have_their_defaults() {
    let bot: Bot = toml::from_str("channel = 'alerts'").unwrap();
    assert_eq!(shown(&bot.store), shown(&Config::default()));
    let config: Config = toml::from_str("ttl = 'never'\npurge_interval = 'never'").unwrap();
    let expected = Config::default().ttl(Ttl::Never).purge_interval(None);
    assert_eq!(shown(&config), shown(&expected));
    let again: Config = toml::from_str(&toml::to_string(&expected).unwrap()).unwrap();
    assert_eq!(shown(&again), shown(&expected));
}

#[test]
fn a_setting_that_is_misspelt_or_makes_no_sense_is_named() {
    for (text, named) in [
        ("tll = '7d'", "tll"),
        ("clock = 'sundial'", "clock"),
        ("ttl = 'a week'", "a week"),
        ("ttl = '1mo'", "or never"),
        ("busy_timeout = 'soon'", "such as 90s"),
        ("window = 'slidin'", "\"sliding\""),
        ("window = { max_aeg = '1d' }", "max_age"),
        ("retry_delay = { first = '1s' }", "first = DURATION"),
        ("synchronous = 'off'", "off"),
    ] {
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}
