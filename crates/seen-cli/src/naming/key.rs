//! Fields of a JSON object as texts.
//!
//! Owns which value a field names, and how a value becomes text.

use std::borrow::Cow;
use std::str::FromStr;

use serde_json::Value;

use crate::naming::NoId;
use crate::naming::json::{Document, Found};

/// The fields that the id is made of, at least one.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    /// As it was written.
    name: String,
    path: Path,
}

#[derive(Clone, Debug)]
enum Path {
    /// A name of the outermost object that contains the dots goes before the path.
    Dotted(Vec<String>),
    /// A JSON Pointer (RFC 6901).
    Pointer(Vec<String>),
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self { fields: text.split(',').map(str::parse).collect::<Result<_, _>>()? })
    }
}

impl FromStr for Field {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("a field's name is empty; write FIELD or FIELD,FIELD".into());
        }
        let path = match name.strip_prefix('/') {
            Some(pointer) => Path::Pointer(pointer.split('/').map(unescaped).collect()),
            None => Path::Dotted(name.split('.').map(str::to_owned).collect()),
        };
        Ok(Self { name: name.to_owned(), path })
    }
}

/// Returns a step of a JSON Pointer as the name that it stands for.
fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

impl Key {
    /// Returns the names of the fields, as they were given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// Returns the texts of the fields.
    pub(crate) fn texts<'l>(&self, document: &Document<'l>) -> Result<Vec<Cow<'l, [u8]>>, NoId> {
        self.fields.iter().map(|field| field.text(document)).collect()
    }
}

impl Field {
    fn text<'l>(&self, document: &Document<'l>) -> Result<Cow<'l, [u8]>, NoId> {
        let lacking = |found| Err(NoId::Lacking { field: self.name.clone(), found });
        match self.find(document) {
            Found::Nothing => lacking("is missing"),
            Found::Unreadable(why) => Err(why),
            Found::Value(b"null") => lacking("is null"),
            Found::Value(b"\"\"") => lacking("is empty"),
            Found::Value(value) => text(value).map_err(|e| {
                // The parser counts lines within the value, which is one line.
                let cause = e.to_string();
                let cause = cause.split(" at line ").next().unwrap_or_default().to_owned();
                NoId::Malformed { field: self.name.clone(), cause }
            }),
        }
    }

    fn find<'l>(&self, document: &Document<'l>) -> Found<'l> {
        match &self.path {
            Path::Pointer(steps) => document.find(steps),
            Path::Dotted(steps) if steps.len() == 1 => document.find(steps),
            Path::Dotted(steps) => match document.find(std::slice::from_ref(&self.name)) {
                Found::Value(value) => Found::Value(value),
                _ => document.find(steps),
            },
        }
    }
}

/// Returns a value as text: a string as what it says, a number as it is written. Objects are compact JSON with sorted
/// names, so that objects that differ only in the order of their names are equal.
fn text(value: &[u8]) -> serde_json::Result<Cow<'_, [u8]>> {
    if let [b'"', inside @ .., b'"'] = value {
        // What needs no parser: most strings.
        let is_plain = inside.iter().all(|byte| *byte >= 0x20 && *byte != b'\\');
        if is_plain && str::from_utf8(inside).is_ok() {
            return Ok(Cow::Borrowed(inside));
        }
        return Ok(Cow::Owned(serde_json::from_slice::<String>(value)?.into_bytes()));
    }
    let parsed: Value = serde_json::from_slice(value)?;
    Ok(match parsed {
        Value::Number(_) => Cow::Borrowed(value),
        other => Cow::Owned(other.to_string().into_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::tests::id as id_of;

    fn id(key: &str, line: &str) -> String {
        id_of(&format!("--key {key}"), line)
    }

    #[test]
    fn the_id_of_one_field_is_its_value_as_text() {
        for (value, expected) in [
            (r#""a\u00e9\n""#, "aé\n"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            ("17", "17"),
            ("-0", "-0"),
            ("1.50", "1.50"),
            ("1E5", "1E5"),
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
        for astray in
            ["a.b.2", "a.b.x", "a.b.-1", "a.b.+1", "a.b.01", "a.b.0.c.d", "b", "a.x", "a.b."]
        {
            assert_eq!(id(astray, line), format!("no id: the key {astray:?} is missing"));
        }
    }

    #[test]
    fn a_name_at_the_top_with_these_very_dots_goes_first() {
        assert_eq!(id("a.b", r#"{"a": {"b": "path"}, "a.b": "name"}"#), "name");
    }

    #[test]
    fn a_pointer_reaches_what_dots_cannot() {
        let line = r#"{"a": {"b.c": 1, "d/e": 2, "~": 3, "": [4]}, "": 5, "a.b": 6}"#;
        for (pointer, value) in
            [("/a/b.c", "1"), ("/a/d~1e", "2"), ("/a/~0", "3"), ("/a//0", "4"), ("/", "5")]
        {
            assert_eq!(id(pointer, line), value);
        }
        assert_eq!(id("/a/b", line), "no id: the key \"/a/b\" is missing");
        assert_eq!(id("/1/x", r#"[0, {"x": "in an array"}]"#), "in an array");
        assert_eq!(id("/~01", r#"{"~1": "once"}"#), "once");
    }

    #[test]
    fn several_fields_combine_without_ambiguity() {
        assert_eq!(id("x,y", r#"{"x": "ab", "y": "c"}"#), "f1:2:ab1:c");
        assert_eq!(id("x,y", r#"{"x": "a", "y": "bc"}"#), "f1:1:a2:bc");
        assert_eq!(id("y,x", r#"{"x": "a", "y": "bc"}"#), "f1:2:bc1:a");
    }

    #[test]
    fn with_their_names_fields_make_one_id_in_any_order() {
        let named = |key: &str, line: &str| id_of(&format!("--named --key {key}"), line);
        let line = r#"{"x": "ab", "y": 17}"#;
        assert_eq!(named("x,y", line), "f1:named:1:x2:ab1:y2:17");
        assert_eq!(named("y,x", line), named("x,y", line));
        assert_eq!(named("x", line), "f1:named:1:x2:ab");
        assert_eq!(named("z", line), r#"no id: the key "z" is missing"#);
    }

    #[test]
    fn a_line_without_the_key_says_why() {
        assert_eq!(id("k", r#"{"k": null}"#), r#"no id: the key "k" is null"#);
        assert_eq!(id("k", r#"{"k": ""}"#), r#"no id: the key "k" is empty"#);
        assert_eq!(id("k,l", r#"{"k": 1}"#), r#"no id: the key "l" is missing"#);
        assert_eq!(id("0", "17"), "no id: not a JSON object");
    }

    #[test]
    fn a_value_that_is_not_well_formed_makes_no_id() {
        for value in ["NaN", "-Infinity", "01", "1.", "tru", r#""\ud83d""#, "\"\t\"", r#""\x""#] {
            let told = id("k", &format!(r#"{{"k": {value}, "l": 1}}"#));
            assert!(told.starts_with("no id: the key \"k\" is malformed: "), "{value}: {told}");
        }
        let line = format!("{{\"k\": {}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(id("k", &line).contains("malformed: recursion limit exceeded"));
    }

    #[test]
    fn a_field_needs_a_name() {
        for key in ["", ",", "a,", "a,,b"] {
            assert!(key.parse::<Key>().is_err(), "{key:?}");
        }
    }
}
