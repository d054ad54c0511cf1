//! An entry as a JSON object, one form for all commands.
//!
//! Owns the names of its members. Bytes that are UTF-8 are a string in `id` and `receipt`; others are
//! hexadecimal in `id_hex` and `receipt_hex`. Times are UTC, ISO 8601, to the millisecond; beyond the
//! year 9999, unix milliseconds. What is not known is left out, except `expires_at`, which is null for
//! never. What always holds: reading what was written gives the same entry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use seen_store::{Entry, Error, History, Ttl};
use serde_json::{Map, Value};

use crate::output::words::utc_time;

/// The names of all members, in the order in which people read them.
pub(crate) const MEMBERS: [&str; 22] = [
    "scope",
    "id",
    "id_hex",
    "state",
    "first_seen",
    "last_seen",
    "expires_at",
    "retain_until",
    "digest",
    "lease_until",
    "holder",
    "held",
    "duplicates",
    "earlier_windows",
    "earlier_duplicates",
    "earlier_first_seen",
    "earlier_last_seen",
    "attempts",
    "abandoned",
    "last_error",
    "receipt",
    "receipt_hex",
];

pub(crate) fn to_json(entry: &Entry) -> Value {
    Value::Object(to_object(entry))
}

pub(crate) fn to_object(entry: &Entry) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("scope", entry.scope.as_str().into());
    let (name, id) = bytes("id", &entry.id);
    put(&name, id);
    put("state", entry.state.as_str().into());
    put("first_seen", time(entry.first_seen));
    put("last_seen", time(entry.last_seen));
    put("expires_at", entry.expires_at.map_or(Value::Null, time));
    if let Some(until) = entry.retain_until {
        put("retain_until", time(until));
    }
    if let Some(digest) = entry.digest {
        put("digest", digest.to_string().into());
    }
    if let Some(change) = &entry.change {
        put("change", to_json(change));
    }
    if let Some(until) = entry.lease_until {
        put("lease_until", time(until));
    }
    if let Some(holder) = &entry.holder {
        put("holder", holder.as_str().into());
    }
    if entry.held {
        put("held", true.into());
    }
    put("duplicates", entry.duplicates.into());
    if let Some(history) = &entry.history {
        put("earlier_windows", history.windows.into());
        put("earlier_duplicates", history.duplicates.into());
        put("earlier_first_seen", time(history.first_seen));
        put("earlier_last_seen", time(history.last_seen));
    }
    if entry.attempts > 0 {
        put("attempts", entry.attempts.into());
    }
    if entry.abandoned > 0 {
        put("abandoned", entry.abandoned.into());
    }
    if let Some(error) = &entry.last_error {
        put("last_error", error.as_str().into());
    }
    if let Some(receipt) = &entry.receipt {
        let (name, receipt) = bytes("receipt", receipt);
        put(&name, receipt);
    }
    object
}

/// Returns the object for an id that the store does not know.
pub(crate) fn unknown(scope: &str, id: &[u8]) -> Value {
    let (name, id) = bytes("id", id);
    let mut object = Map::new();
    object.insert("scope".to_owned(), scope.into());
    object.insert(name, id);
    object.insert("state".to_owned(), "unknown".into());
    Value::Object(object)
}

fn time(time: SystemTime) -> Value {
    utc_time(time).map_or_else(|| unix_ms(time).into(), Value::from)
}

fn unix_ms(time: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -ms(before.duration()), ms)
}

/// Returns the member's name and value for bytes that may not be text.
fn bytes(name: &str, bytes: &[u8]) -> (String, Value) {
    if let Ok(text) = str::from_utf8(bytes) {
        return (name.to_owned(), text.into());
    }
    let digit = |half: u8| char::from_digit(half.into(), 16).expect("half a byte");
    let hex: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    (format!("{name}_hex"), hex.into())
}

/// The values that an entry gets for members that it lacks.
pub(crate) struct Defaults {
    pub(crate) scope: String,
    /// How long after it was last seen it expires.
    pub(crate) ttl: Ttl,
    pub(crate) now: SystemTime,
}

impl Defaults {
    /// Returns the entry of an id of which nothing else is known.
    pub(crate) fn entry(&self, id: impl Into<Vec<u8>>) -> Entry {
        let mut entry = Entry::new(self.scope.as_str(), id, self.now);
        entry.expires_at = self.expiry(self.now);
        entry
    }

    fn expiry(&self, last_seen: SystemTime) -> Option<SystemTime> {
        match self.ttl {
            // A time that is too late to be represented means never.
            Ttl::After(duration) => last_seen.checked_add(duration),
            _ => None,
        }
    }
}

/// Returns the entry that an object describes, or what is wrong with it. Ignores other members.
///
/// Numbers may be texts, as they are in CSV, and `expires_at` may be `never`.
pub(crate) fn from_json(object: &Map<String, Value>, defaults: &Defaults) -> Result<Entry, String> {
    let Some(id) = read_bytes(object, "id")? else {
        return Err("it has neither id nor id_hex (--key names another field)".into());
    };
    let mut entry = defaults.entry(id);
    if let Some(scope) = read_text(object, "scope")? {
        entry.scope = scope;
    }
    if let Some(state) = read_text(object, "state")? {
        entry.state = state.parse().map_err(|e: Error| e.to_string())?;
    }
    let (first, last) = (read_time(object, "first_seen")?, read_time(object, "last_seen")?);
    entry.last_seen = last.or(first).unwrap_or(defaults.now);
    entry.first_seen = first.unwrap_or(entry.last_seen);
    entry.expires_at = match object.get("expires_at") {
        None => defaults.expiry(entry.last_seen),
        Some(Value::Null) => None,
        Some(Value::String(text)) if text == "never" => None,
        Some(_) => read_time(object, "expires_at")?,
    };
    entry.retain_until = read_time(object, "retain_until")?;
    entry.digest = read_text(object, "digest")?
        .map(|text| text.parse().map_err(|e| format!("digest: {e}")))
        .transpose()?;
    entry.history = read_history(object)?;
    entry.lease_until = read_time(object, "lease_until")?;
    entry.duplicates = read_number(object, "duplicates")?.unwrap_or(0);
    entry.holder = read_text(object, "holder")?;
    entry.held = read_flag(object, "held")?;
    entry.attempts = read_number(object, "attempts")?.unwrap_or(0);
    entry.abandoned = read_number(object, "abandoned")?.unwrap_or(0);
    entry.last_error = read_text(object, "last_error")?;
    entry.receipt = read_bytes(object, "receipt")?;
    Ok(entry)
}

fn read_history(object: &Map<String, Value>) -> Result<Option<History>, String> {
    let Some(windows) = read_number(object, "earlier_windows")?.filter(|windows| *windows > 0)
    else {
        return Ok(None);
    };
    let moment = |name| read_time(object, name)?.ok_or_else(|| format!("{name} is missing"));
    Ok(Some(History::new(
        windows,
        read_number(object, "earlier_duplicates")?.unwrap_or(0),
        moment("earlier_first_seen")?,
        moment("earlier_last_seen")?,
    )))
}

/// Returns a member that exists and is not null.
fn known<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn read_text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match known(object, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("{name} is not a text")),
    }
}

fn read_flag(object: &Map<String, Value>, name: &str) -> Result<bool, String> {
    match known(object, name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" => Ok(false),
        Some(value) => Err(format!("{name} is {value}, which is neither true nor false")),
    }
}

fn read_bytes(object: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    if let Some(text) = read_text(object, name)? {
        return Ok(Some(text.into_bytes()));
    }
    let name = format!("{name}_hex");
    let Some(text) = read_text(object, &name)? else { return Ok(None) };
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let digits = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|pair| byte(pair)).collect::<Option<Vec<u8>>>();
    match bytes.filter(|_| digits && rest.is_empty()) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(format!("{name} is not hexadecimal: two digits a byte")),
    }
}

fn read_number<T: TryFrom<u64>>(
    object: &Map<String, Value>,
    name: &str,
) -> Result<Option<T>, String> {
    let Some(text) = read_text(object, name)? else { return Ok(None) };
    let number = text.parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("{name} is {text:?}, which is not a count"))
}

fn read_time(object: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, String> {
    let Some(text) = read_text(object, name)? else { return Ok(None) };
    let time = match text.parse::<i64>() {
        Ok(ms) => from_unix_ms(ms),
        Err(_) => text.parse::<Timestamp>().ok().map(SystemTime::from),
    };
    time.map(Some).ok_or_else(|| {
        format!("{name} is {text:?}, which is not a time such as 2026-11-23T15:05:08Z")
    })
}

fn from_unix_ms(ms: i64) -> Option<SystemTime> {
    let magnitude = Duration::from_millis(ms.unsigned_abs());
    if ms < 0 { UNIX_EPOCH.checked_sub(magnitude) } else { UNIX_EPOCH.checked_add(magnitude) }
}

#[cfg(test)]
mod tests {
    use seen_store::{Digest, State};

    use super::*;

    fn defaults() -> Defaults {
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        Defaults { scope: "given".into(), ttl: Ttl::After(Duration::from_secs(60)), now }
    }

    fn read(text: &str) -> Result<Entry, String> {
        from_json(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap(), &defaults())
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let far = UNIX_EPOCH + Duration::from_millis((1 << 48) - 2);
        let mut entry = Entry::new("s", b"\xff\n\"".as_slice(), defaults().now);
        entry.expires_at = Some(far);
        entry.first_seen = UNIX_EPOCH - Duration::from_secs(5);
        (entry.duplicates, entry.attempts) = (3, 2);
        (entry.retain_until, entry.digest) = (Some(far), Some(Digest::of_version("1")));
        entry.history = Some(History::new(2, 7, entry.first_seen, entry.last_seen));
        (entry.last_error, entry.receipt) = (Some(String::new()), Some(b"\x00\xfe".to_vec()));
        assert_eq!(from_json(&to_object(&entry), &defaults()).unwrap(), entry);
        (entry.id, entry.expires_at) = ("é\u{1b}".into(), None);
        (entry.state, entry.lease_until) = (State::Failed, Some(far));
        assert_eq!(from_json(&to_object(&entry), &defaults()).unwrap(), entry);
    }

    #[test]
    fn every_member_that_is_written_has_its_place_in_the_list() {
        let mut entry = Entry::new("", b"\xff".as_slice(), defaults().now);
        entry.lease_until = Some(entry.last_seen);
        (entry.last_error, entry.receipt) = (Some(String::new()), Some(vec![0xff]));
        (entry.attempts, entry.retain_until) = (1, Some(entry.last_seen));
        entry.digest = Some(Digest::of_payload("1"));
        entry.history = Some(History::new(1, 0, entry.first_seen, entry.last_seen));
        assert!(to_object(&entry).keys().all(|name| MEMBERS.contains(&&**name)));
    }

    #[test]
    fn what_an_object_does_not_say_is_taken_from_the_defaults() {
        let entry = read(r#"{"id": 17, "other": []}"#).unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!((entry.id.as_slice(), entry.scope.as_str()), (&b"17"[..], "given"));
        assert_eq!(entry.expires_at, Some(defaults().now + minute));
        let entry = read(r#"{"id": "a", "first_seen": "2023-11-14T22:13:20Z"}"#).unwrap();
        assert_eq!((entry.last_seen, entry.first_seen), (entry.first_seen, entry.last_seen));
        assert_eq!(entry.expires_at, Some(entry.last_seen + minute));
        assert_eq!(read(r#"{"id": "a", "expires_at": null}"#).unwrap().expires_at, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("{}", "neither id nor id_hex"),
            (r#"{"id": []}"#, "id is not a text"),
            (r#"{"id_hex": "a"}"#, "id_hex is not hexadecimal"),
            (r#"{"id_hex": "+1"}"#, "id_hex is not hexadecimal"),
            (r#"{"id": "a", "state": "gone"}"#, "gone"),
            (r#"{"id": "a", "last_seen": "yesterday"}"#, "yesterday"),
            (r#"{"id": "a", "attempts": 4294967296}"#, "4294967296"),
            (r#"{"id": "a", "duplicates": -1}"#, "-1"),
            (r#"{"id": "a", "digest": "1"}"#, "version:"),
            (r#"{"id": "a", "earlier_windows": 1}"#, "earlier_first_seen is missing"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(named), "{text}: {why}");
        }
    }
}
