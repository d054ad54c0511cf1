//! From a line to its id: the line itself or, with `--key`, fields of the JSON object that it is.
//!
//! Owns which value a field names, how a value becomes text, and how text of any length becomes an id.
//! What always holds: different texts have different ids. Knows nothing of batches or stores.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use seen_store::{Item, fingerprint, fingerprint_fields};

/// The longest id that a store takes, in bytes.
const MAX_ID_BYTES: usize = 65_536;

/// The fields that the id is made of, at least one.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    fields: Vec<String>,
}

/// How a line gets its id and its version.
#[derive(Clone, Copy)]
pub(crate) struct Naming<'a> {
    pub(crate) key: &'a Key,
    /// Whether the names of the fields are part of the id.
    pub(crate) named: bool,
    /// The fields that make the version.
    pub(crate) version: Option<&'a Key>,
    /// Whether a line without the fields of the version has no item. Otherwise it has no version.
    pub(crate) strict: bool,
}

impl Naming<'_> {
    pub(crate) fn item(self, line: &[u8]) -> Result<Item<'static>, NoKey> {
        let value = serde_json::from_slice(line).map_err(NoKey::NotJson)?;
        let Value::Object(object) = value else { return Err(NoKey::NotAnObject) };
        let item = Item::from(self.key.text(&object, self.named)?);
        match self.version.map(|version| version.text(&object, false)) {
            Some(Ok(version)) => Ok(item.version(version)),
            Some(Err(why)) if self.strict => Err(why),
            _ => Ok(item),
        }
    }
}

/// The reason why a line has no id.
#[derive(Debug)]
pub(crate) enum NoKey {
    NotJson(serde_json::Error),
    NotAnObject,
    Lacking { field: String, found: &'static str },
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
        if fields.iter().any(String::is_empty) {
            return Err("a field's name is empty; write FIELD or FIELD,FIELD".into());
        }
        Ok(Self { fields })
    }
}

impl Key {
    /// Returns the text of the one field, or the fingerprint of several, or the fingerprint of the fields with their
    /// names.
    fn text(&self, object: &Map<String, Value>, named: bool) -> Result<Vec<u8>, NoKey> {
        let texts =
            self.fields.iter().map(|field| text(object, field)).collect::<Result<Vec<_>, _>>()?;
        if named {
            return Ok(fingerprint_fields(self.fields.iter().zip(texts)));
        }
        Ok(match texts.as_slice() {
            [text] => id_of(text.as_bytes()).into_owned(),
            texts => fingerprint(texts),
        })
    }
}

/// Returns the text itself as the id, or its fingerprint if it is too long.
///
/// A text that begins like a fingerprint is replaced by its fingerprint too. Otherwise such a line could have the
/// same id as a choice of several fields.
pub(crate) fn id_of(text: &[u8]) -> Cow<'_, [u8]> {
    if text.len() <= MAX_ID_BYTES && !text.starts_with(b"f1:") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(fingerprint([text]))
}

/// Returns a field's value as text. Objects are compact JSON with sorted names, so that objects that differ only
/// in the order of their names are equal.
fn text(object: &Map<String, Value>, field: &str) -> Result<String, NoKey> {
    let lacking = |found| Err(NoKey::Lacking { field: field.to_owned(), found });
    match find(object, field) {
        None => lacking("is missing"),
        Some(Value::Null) => lacking("is null"),
        Some(Value::String(text)) if text.is_empty() => lacking("is empty"),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value) => Ok(value.to_string()),
    }
}

/// Returns the value at a dotted path. A name of the outermost object that contains these dots wins.
fn find<'a>(object: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(field) {
        return Some(value);
    }
    let (first, rest) = field.split_once('.')?;
    rest.split('.').try_fold(object.get(first)?, |value, step| match value {
        Value::Object(object) => object.get(step),
        Value::Array(array) => array.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(e) => {
                // The parser counts lines within the text it was given, which is one line.
                let text = e.to_string();
                let cause = text.split(" at line ").next().unwrap_or_default();
                write!(f, "not JSON: {cause} at column {}", e.column())
            }
            Self::NotAnObject => write!(f, "not a JSON object"),
            Self::Lacking { field, found } => write!(f, "the key {field:?} {found}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &str, line: &str) -> String {
        told(item(key, line, false))
    }

    fn item(key: &str, line: &str, named: bool) -> Result<Item<'static>, NoKey> {
        let key = &key.parse().unwrap();
        Naming { key, named, version: None, strict: false }.item(line.as_bytes())
    }

    fn told(item: Result<Item<'_>, NoKey>) -> String {
        match item {
            Ok(item) => String::from_utf8(item.id().to_vec()).unwrap(),
            Err(why) => format!("no key: {why}"),
        }
    }

    #[test]
    fn a_text_is_its_own_id_unless_it_is_too_long_or_looks_like_a_fingerprint() {
        let longest = vec![b'x'; MAX_ID_BYTES];
        assert_eq!(id_of(&longest), longest);
        let long = vec![b'x'; MAX_ID_BYTES + 1];
        let digest = id_of(&long).into_owned();
        assert!(digest.starts_with(b"f1:sha256:"));
        assert_ne!(id_of(&digest), digest);
    }

    #[test]
    fn the_id_of_one_field_is_its_value_as_text() {
        for (value, expected) in [
            (r#""a\u00e9\n""#, "aé\n"),
            ("17", "17"),
            ("-0", "-0"),
            ("1.50", "1.50"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("true", "true"),
            (r"[ 1, 2.0 ]", "[1,2.0]"),
            (r#"{ "b": 1, "a": "x" }"#, r#"{"a":"x","b":1}"#),
        ] {
            assert_eq!(id("k", &format!(r#"{{"k": {value}}}"#)), expected);
        }
    }

    #[test]
    fn a_dotted_path_leads_into_objects_and_arrays() {
        let line = r#"{"a": {"b": [{"c": "deep"}, "second"], "": "empty"}}"#;
        assert_eq!(id("a.b.0.c", line), "deep");
        assert_eq!(id("a.b.1", line), "second");
        assert_eq!(id("a.", line), "empty");
        for astray in ["a.b.2", "a.b.x", "a.b.-1", "a.b.0.c.d", "b", "a.x"] {
            assert_eq!(id(astray, line), format!("no key: the key {astray:?} is missing"));
        }
    }

    #[test]
    fn a_name_at_the_top_with_these_very_dots_goes_first() {
        assert_eq!(id("a.b", r#"{"a": {"b": "path"}, "a.b": "name"}"#), "name");
    }

    #[test]
    fn several_fields_combine_without_ambiguity() {
        assert_eq!(id("x,y", r#"{"x": "ab", "y": "c"}"#), "f1:2:ab1:c");
        assert_eq!(id("x,y", r#"{"x": "a", "y": "bc"}"#), "f1:1:a2:bc");
        assert_eq!(id("y,x", r#"{"x": "a", "y": "bc"}"#), "f1:2:bc1:a");
    }

    #[test]
    fn with_their_names_fields_make_one_id_in_any_order() {
        let named = |key: &str, line: &str| told(item(key, line, true));
        let line = r#"{"x": "ab", "y": 17}"#;
        assert_eq!(named("x,y", line), "f1:named:1:x2:ab1:y2:17");
        assert_eq!(named("y,x", line), named("x,y", line));
        assert_eq!(named("x", line), "f1:named:1:x2:ab");
        assert_eq!(named("z", line), r#"no key: the key "z" is missing"#);
    }

    #[test]
    fn a_line_without_the_key_says_why() {
        assert_eq!(id("k", r#"{"k": null}"#), r#"no key: the key "k" is null"#);
        assert_eq!(id("k", r#"{"k": ""}"#), r#"no key: the key "k" is empty"#);
        assert_eq!(id("k,l", r#"{"k": 1}"#), r#"no key: the key "l" is missing"#);
        assert_eq!(id("0", r#"["k"]"#), "no key: not a JSON object");
        assert_eq!(id("k", r#"{"k": 1} x"#), "no key: not JSON: trailing characters at column 10");
        let deep = "[".repeat(1_000);
        assert!(id("k", &deep).starts_with("no key: not JSON: recursion limit"));
    }

    #[test]
    fn a_version_is_made_as_an_id_is_and_may_be_missing() {
        let line = br#"{"id": 1, "at": "10:00", "no": null}"#;
        let item = |version: &str, strict| {
            let [key, version] = &["id", version].map(|key| key.parse().unwrap());
            Naming { key, named: false, version: Some(version), strict }.item(line)
        };
        assert_eq!(item("at", true).unwrap(), Item::new("1").version("10:00"));
        assert_eq!(item("at,id", true).unwrap(), Item::new("1").version("f1:5:10:001:1"));
        assert_eq!(item("no", false).unwrap(), Item::new("1"));
        assert_eq!(item("no", true).unwrap_err().to_string(), "the key \"no\" is null");
    }

    #[test]
    fn a_field_needs_a_name() {
        for key in ["", ",", "a,", "a,,b"] {
            assert!(key.parse::<Key>().is_err(), "{key:?}");
        }
    }
}
