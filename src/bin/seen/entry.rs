//! An entry as a JSON object, one form for all commands.
//!
//! Owns the names of its members. Bytes that are UTF-8 are a string in `id` and `receipt`; others are
//! hexadecimal in `id_hex` and `receipt_hex`. Times are UTC, ISO 8601, to the millisecond. What is not
//! known is left out, but for `expires_at`, which is null for never.

use std::fmt::Write as _;

use seen_store::{Entry, State};
use serde_json::{Map, Value};

use crate::words::utc_time;

/// The word for a state, in JSON and on the command line.
pub(crate) fn state_word(state: State) -> &'static str {
    match state {
        State::Seen => "seen",
        State::InFlight => "in-flight",
        State::Failed => "failed",
        State::Expired => "expired",
        _ => "unknown",
    }
}

pub(crate) fn to_json(entry: &Entry) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("scope", entry.scope.as_str().into());
    let (name, id) = bytes("id", &entry.id);
    put(&name, id);
    put("state", state_word(entry.state).into());
    put("first_seen", utc_time(entry.first_seen).into());
    put("last_seen", utc_time(entry.last_seen).into());
    put("expires_at", entry.expires_at.and_then(utc_time).into());
    if let Some(until) = entry.lease_until {
        put("lease_until", utc_time(until).into());
    }
    put("suppressed", entry.suppressed.into());
    if entry.attempts > 0 {
        put("attempts", entry.attempts.into());
    }
    if let Some(error) = &entry.last_error {
        put("last_error", error.as_str().into());
    }
    if let Some(receipt) = &entry.receipt {
        let (name, receipt) = bytes("receipt", receipt);
        put(&name, receipt);
    }
    Value::Object(object)
}

/// The object for an id that the store knows nothing of.
pub(crate) fn unknown(scope: &str, id: &[u8]) -> Value {
    let (name, id) = bytes("id", id);
    let mut object = Map::new();
    object.insert("scope".to_owned(), scope.into());
    object.insert(name, id);
    object.insert("state".to_owned(), "unknown".into());
    Value::Object(object)
}

/// The member's name and value for bytes that may be no text.
fn bytes(name: &str, bytes: &[u8]) -> (String, Value) {
    if let Ok(text) = str::from_utf8(bytes) {
        return (name.to_owned(), text.into());
    }
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}"); // A String takes everything.
    }
    (format!("{name}_hex"), hex.into())
}
