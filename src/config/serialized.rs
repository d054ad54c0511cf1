//! The settings for serde, as a program's configuration file has them.
//!
//! Owns the names and forms of the settings. What always holds: a setting that is missing has its default, one that
//! is misspelt is an error that names it. The clock is no setting of a file.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Abandoned, Config, IndexMode, RetryDelay, Synchronous, Ttl, Window};
use crate::clock::{Clock, SystemClock};
use crate::texts;

/// The fields of a [`Config`], with their forms.
#[expect(clippy::struct_excessive_bools, reason = "these are the settings that there are")]
#[derive(Serialize, Deserialize)]
#[serde(remote = "Config", default = "Config::default", deny_unknown_fields)]
struct ConfigForm {
    ttl: Ttl,
    window: Window,
    #[serde(with = "texts::optional_duration", skip_serializing_if = "Option::is_none")]
    retention: Option<Duration>,
    retry_delay: RetryDelay,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_abandoned: Option<u32>,
    max_receipt: usize,
    abandoned: Abandoned,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    synchronous: Synchronous,
    cache_size: i64,
    index: IndexMode,
    #[serde(with = "texts::duration")]
    busy_timeout: Duration,
    async_queue: usize,
    exclusive: bool,
    read_only: bool,
    create: bool,
    wal_autocheckpoint: u32,
    journal_size_limit: u64,
    purge_on_open: bool,
    #[serde(with = "texts::duration_or_never")]
    purge_interval: Option<Duration>,
    purge_thread: bool,
    check_clock: bool,
    #[serde(skip, default = "system_clock")]
    clock: Arc<dyn Clock>,
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        ConfigForm::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        ConfigForm::deserialize(from)
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let duration = match *self {
            Self::After(duration) => Some(duration),
            Self::Never => None,
        };
        texts::duration_or_never::serialize(&duration, to)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let duration = texts::duration_or_never::deserialize(from)?;
        Ok(duration.map_or(Self::Never, Self::After))
    }
}

/// The form of a [`Window`].
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a window is \"fixed\", \"sliding\" or { max_age = DURATION }"
)]
pub(super) enum WindowForm {
    Kind(WindowKind),
    Sliding {
        #[serde(with = "texts::duration")]
        max_age: Duration,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WindowKind {
    Fixed,
    Sliding,
}

impl From<Window> for WindowForm {
    fn from(window: Window) -> Self {
        match window {
            Window::Fixed => Self::Kind(WindowKind::Fixed),
            Window::Sliding { max_age: None } => Self::Kind(WindowKind::Sliding),
            Window::Sliding { max_age: Some(max_age) } => Self::Sliding { max_age },
        }
    }
}

impl From<WindowForm> for Window {
    fn from(form: WindowForm) -> Self {
        match form {
            WindowForm::Kind(WindowKind::Fixed) => Self::Fixed,
            WindowForm::Kind(WindowKind::Sliding) => Self::SLIDING,
            WindowForm::Sliding { max_age } => Self::Sliding { max_age: Some(max_age) },
        }
    }
}

/// The form of a [`RetryDelay`].
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a retry delay is a duration, such as \"30s\", or { first = DURATION, max = DURATION }"
)]
pub(super) enum RetryDelayForm {
    Fixed(#[serde(with = "texts::duration")] Duration),
    Exponential {
        #[serde(with = "texts::duration")]
        first: Duration,
        #[serde(with = "texts::duration")]
        max: Duration,
    },
}

impl From<RetryDelay> for RetryDelayForm {
    fn from(delay: RetryDelay) -> Self {
        match delay {
            RetryDelay::Fixed(delay) => Self::Fixed(delay),
            RetryDelay::Exponential { first, max } => Self::Exponential { first, max },
        }
    }
}

impl From<RetryDelayForm> for RetryDelay {
    fn from(form: RetryDelayForm) -> Self {
        match form {
            RetryDelayForm::Fixed(delay) => Self::Fixed(delay),
            RetryDelayForm::Exponential { first, max } => Self::Exponential { first, max },
        }
    }
}
