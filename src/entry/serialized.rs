//! Entries and filters for serde.
//!
//! Owns the names of the fields. An entry is written as the command writes it: bytes that are UTF-8 as a text in `id`
//! and `receipt`, others as hexadecimal digits in `id_hex` and `receipt_hex`; times in UTC. What has its default value
//! is left out.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Entry, Filter, History, State};
use crate::item::Digest;
use crate::texts;

/// The form of an [`Entry`].
#[derive(Serialize, Deserialize)]
pub(super) struct EntryForm {
    #[serde(default)]
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_hex: Option<String>,
    #[serde(default = "seen")]
    state: State,
    #[serde(default, with = "texts::optional_time")]
    first_seen: Option<SystemTime>,
    #[serde(with = "texts::time")]
    last_seen: SystemTime,
    #[serde(default, with = "texts::optional_time")]
    expires_at: Option<SystemTime>,
    #[serde(default, with = "texts::optional_time", skip_serializing_if = "Option::is_none")]
    retain_until: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<Box<EntryForm>>,
    #[serde(default, with = "texts::optional_time", skip_serializing_if = "Option::is_none")]
    lease_until: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    held: bool,
    #[serde(default)]
    duplicates: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    earlier_windows: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    earlier_duplicates: u64,
    #[serde(default, with = "texts::optional_time", skip_serializing_if = "Option::is_none")]
    earlier_first_seen: Option<SystemTime>,
    #[serde(default, with = "texts::optional_time", skip_serializing_if = "Option::is_none")]
    earlier_last_seen: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "is_default")]
    attempts: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    abandoned: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt_hex: Option<String>,
}

fn seen() -> State {
    State::Seen
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<Entry> for EntryForm {
    fn from(entry: Entry) -> Self {
        let (id, id_hex) = texts::bytes_text(&entry.id);
        let (receipt, receipt_hex) =
            entry.receipt.as_deref().map(texts::bytes_text).unwrap_or_default();
        let history = entry.history;
        Self {
            scope: entry.scope,
            id,
            id_hex,
            state: entry.state,
            first_seen: Some(entry.first_seen),
            last_seen: entry.last_seen,
            expires_at: entry.expires_at,
            retain_until: entry.retain_until,
            digest: entry.digest.map(|digest| digest.to_string()),
            change: entry.change.map(|change| Box::new((*change).into())),
            earlier_windows: history.map_or(0, |history| history.windows),
            earlier_duplicates: history.map_or(0, |history| history.duplicates),
            earlier_first_seen: history.map(|history| history.first_seen),
            earlier_last_seen: history.map(|history| history.last_seen),
            lease_until: entry.lease_until,
            holder: entry.holder,
            held: entry.held,
            duplicates: entry.duplicates,
            attempts: entry.attempts,
            abandoned: entry.abandoned,
            last_error: entry.last_error,
            receipt,
            receipt_hex,
        }
    }
}

impl TryFrom<EntryForm> for Entry {
    type Error = String;

    fn try_from(form: EntryForm) -> Result<Self, String> {
        let id = texts::parse_bytes("id", form.id, form.id_hex)?;
        let digest = form.digest.map(|text| text.parse::<Digest>()).transpose();
        let change = form.change.map(|change| Self::try_from(*change)).transpose()?;
        let times = (form.earlier_first_seen, form.earlier_last_seen);
        let history = match (form.earlier_windows, times) {
            (0, _) => None,
            (windows, (Some(first), Some(last))) => {
                Some(History::new(windows, form.earlier_duplicates, first, last))
            }
            _ => {
                return Err("earlier_windows needs earlier_first_seen and earlier_last_seen".into());
            }
        };
        Ok(Self {
            scope: form.scope,
            id: id.ok_or("an entry needs id or id_hex")?,
            state: form.state,
            first_seen: form.first_seen.unwrap_or(form.last_seen),
            last_seen: form.last_seen,
            expires_at: form.expires_at,
            retain_until: form.retain_until,
            digest: digest.map_err(|e| e.to_string())?,
            change: change.map(Box::new),
            history,
            lease_until: form.lease_until,
            holder: form.holder,
            held: form.held,
            attempts: form.attempts,
            abandoned: form.abandoned,
            last_error: form.last_error,
            receipt: texts::parse_bytes("receipt", form.receipt, form.receipt_hex)?,
            duplicates: form.duplicates,
        })
    }
}

/// The form of a [`Filter`].
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FilterForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_hex: Option<String>,
    #[serde(with = "texts::optional_duration", skip_serializing_if = "Option::is_none")]
    older_than: Option<Duration>,
    #[serde(with = "texts::optional_duration", skip_serializing_if = "Option::is_none")]
    newer_than: Option<Duration>,
}

impl From<Filter> for FilterForm {
    fn from(filter: Filter) -> Self {
        let Filter { scope, state, prefix, older_than, newer_than } = filter;
        let (prefix, prefix_hex) = texts::bytes_text(&prefix);
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        Self { scope, state, prefix, prefix_hex, older_than, newer_than }
    }
}

impl TryFrom<FilterForm> for Filter {
    type Error = String;

    fn try_from(form: FilterForm) -> Result<Self, String> {
        let FilterForm { scope, state, prefix, prefix_hex, older_than, newer_than } = form;
        let prefix = texts::parse_bytes("prefix", prefix, prefix_hex)?.unwrap_or_default();
        Ok(Self { scope, state, prefix, older_than, newer_than })
    }
}
