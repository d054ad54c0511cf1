//! From a line to its id: the one way, for every command and for lines and arguments alike.
//!
//! Owns the options that say what of a line is its id, and how text of any length becomes an id. What always holds:
//! different texts have different ids; a line without an id is known by its bytes, under a prefix that nothing else
//! gets; what stands outside the id does not matter. Stores keep the ids that were made, so no option may ever give
//! another id for the same line: `tests/cli/golden_ids.jsonl` holds them. Knows nothing of batches or stores.

mod json;
pub(crate) mod key;
mod plain;
mod url1;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use seen_store::{Item, fingerprint, fingerprint_fields};

use crate::naming::json::Document;
use crate::naming::key::Key;
use crate::naming::plain::Pattern;
use crate::output::words::counted;

/// The longest id that a store takes, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 65_536;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What ids of lines without an id begin with. No other text gets it: a text that begins with `f1:` is replaced by its
/// fingerprint, and in a fingerprint a digit, `named:` or `sha256:` follows.
const LINE: &[u8] = b"f1:line:";

/// What of a line is its id.
#[derive(Args)]
pub(crate) struct Naming {
    /// Each line is a JSON object: its id is this field of it
    ///
    /// Several fields, with commas between, make one id. A dotted path leads into objects and arrays (`user.id`,
    /// `tags.0`), unless the object has a name with these dots in it; a field that begins with `/` is a JSON Pointer
    /// (`/a/b.c`). Only this field must be well-formed JSON; of a name that comes twice, the last one counts. A line
    /// in which a field is missing, null, an empty text or malformed has no id: it is known by its bytes, and told of
    /// in a message. Use one scope for each choice of fields.
    #[arg(long, value_name = "FIELD[,FIELD...]", conflicts_with_all = PLAIN)]
    key: Option<Key>,

    /// Where a field of --key is missing, null or empty: the id is this field. May be given several times
    ///
    /// The first choice that has all its fields makes the id, which does not depend on the option that named it: with
    /// `--key guid --or-key link`, an item without a guid has the same id as with `--key link`.
    #[arg(long = "or-key", value_name = "FIELD[,FIELD...]", requires = "key")]
    or_keys: Vec<Key>,

    /// Make the id of the names and values of the fields, as --field does
    ///
    /// Then the order of the fields in --key does not matter, and the ids are other ones than without --named.
    #[arg(long, requires = "key")]
    named: bool,

    /// The id is what this regular expression matches or, if it has groups, what its groups match
    ///
    /// The first match in the line counts. Several groups make one id; one that took no part counts as empty. Syntax:
    /// that of the Rust crate regex, nearly that of Perl, without look-around. A line without a match has no id: it is
    /// known by its bytes, and told of in a message.
    #[arg(long = "match", id = "match", value_name = "REGEX", conflicts_with_all = CUT)]
    pattern: Option<Pattern>,

    /// Leave the first N fields out of the id, as `uniq -f` does
    ///
    /// A field is a run of blanks (spaces and tabs), then characters other than blanks. For lines that begin with a
    /// time: `-f 2`. A line of which nothing is left has no id.
    #[arg(short = 'f', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    skip_fields: usize,

    /// Leave the first N bytes out of the id, after the fields, as `uniq -s` does
    #[arg(short = 's', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    skip_chars: usize,

    /// Take at most N bytes into the id, as `uniq -w` does
    #[arg(short = 'w', long, value_name = "N")]
    check_chars: Option<NonZeroUsize>,

    /// Compare texts of this form by what they name; the lines themselves are printed unchanged
    ///
    /// Of a line whose first fields are skipped, the rest is compared without the blanks before it.
    #[arg(long, value_name = "FORM")]
    normalize: Option<Form>,

    /// A line without an id is an error
    ///
    /// The lines before it are handled. It and the lines after it are not.
    #[arg(long)]
    strict: bool,
}

/// The options that cut an id out of a plain line.
const CUT: [&str; 3] = ["skip_fields", "skip_chars", "check_chars"];

/// The options for plain lines.
const PLAIN: [&str; 4] = ["match", CUT[0], CUT[1], CUT[2]];

/// A form of texts in which several spellings name one thing. The number is part of the name: another way to compare
/// them would be another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// URLs of http and https, without what does not change what they name: which of the two schemes, the case of the
    /// host, a default port, a trailing slash, a fragment (but `#/` and `#!`), and tracking parameters (`utm_source`,
    /// `fbclid`, ...). Other texts are left as they are.
    Url1,
}

/// The id of a line, if it has one.
#[derive(Debug, PartialEq)]
pub(crate) enum Name<'a> {
    Item(Item<'a>),
    /// It has no id, for this reason, and is known by its bytes.
    Bytes(Item<'a>, NoId),
    /// Nothing is remembered of an empty line.
    Empty,
}

impl<'a> Name<'a> {
    pub(crate) fn item(&self) -> Option<&Item<'a>> {
        match self {
            Self::Item(item) | Self::Bytes(item, _) => Some(item),
            Self::Empty => None,
        }
    }
}

/// The reason why a line has no id.
#[derive(Debug, PartialEq)]
pub(crate) enum NoId {
    NotJson {
        cause: &'static str,
        column: usize,
    },
    /// JSON, but neither an object nor an array.
    NotAnObject,
    /// Which of them is meant is not known.
    SeveralObjects,
    Lacking {
        field: String,
        found: &'static str,
    },
    /// The value of the field is not well-formed.
    Malformed {
        field: String,
        cause: String,
    },
    NoMatch,
    /// The skipped fields and characters were all there is, or the match is empty.
    NothingLeft,
}

impl Naming {
    /// The options that shape the id, for conflicts with others.
    pub(crate) const SHAPING: [&str; 6] =
        ["key", PLAIN[0], PLAIN[1], PLAIN[2], PLAIN[3], "normalize"];

    /// Returns what a line is known by. `end` is what lines end with, a newline or NUL; the line may lack it.
    ///
    /// Where lines end with a newline, a carriage return before it, and a byte order mark at the beginning, are no part
    /// of the line.
    pub(crate) fn name<'l>(&self, line: &'l [u8], end: u8) -> Name<'l> {
        self.name_with_version(line, end, None)
    }

    /// The same with these fields as the version. A line without them has none; with --strict it is an error.
    pub(crate) fn name_with_version<'l>(
        &self,
        line: &'l [u8],
        end: u8,
        version: Option<&Key>,
    ) -> Name<'l> {
        let text = text_of(line, end);
        if text.is_empty() {
            return Name::Empty;
        }
        match self.item(text, version) {
            Ok(item) => Name::Item(item),
            Err(why) => Name::Bytes(bytes_id(text).into(), why),
        }
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether any option shapes the id.
    pub(crate) fn is_shaped(&self) -> bool {
        let is_cut = self.skip_fields > 0 || self.skip_chars > 0 || self.check_chars.is_some();
        is_cut || self.key.is_some() || self.pattern.is_some() || self.normalize.is_some()
    }

    fn item<'l>(&self, text: &'l [u8], version: Option<&Key>) -> Result<Item<'l>, NoId> {
        let Some(key) = &self.key else { return Ok(self.plain_id(text)?.into()) };
        let document = Document::read(text)?;
        let item = Item::from(self.key_id(key, &document)?);
        match version.map(|version| version.texts(&document)) {
            Some(Ok(version)) => Ok(item.version(id_of_all(version))),
            Some(Err(why)) if self.strict => Err(why),
            _ => Ok(item),
        }
    }

    /// Returns the id of the first choice of fields that are all there.
    fn key_id<'l>(&self, key: &Key, document: &Document<'l>) -> Result<Cow<'l, [u8]>, NoId> {
        let mut lacking = None;
        for key in std::iter::once(key).chain(&self.or_keys) {
            match key.texts(document) {
                Ok(texts) => {
                    let texts = texts.into_iter().map(|text| self.normalized(text)).collect();
                    return Ok(if self.named {
                        fingerprint_fields(key.names().zip::<Vec<_>>(texts)).into()
                    } else {
                        id_of_all(texts)
                    });
                }
                Err(why @ NoId::Lacking { .. }) => lacking = lacking.or(Some(why)),
                Err(why) => return Err(why),
            }
        }
        Err(lacking.expect("there is one choice at least"))
    }

    fn plain_id<'l>(&self, text: &'l [u8]) -> Result<Cow<'l, [u8]>, NoId> {
        let texts = match &self.pattern {
            Some(pattern) => plain::matched(text, pattern)?,
            None => vec![self.cut(text)],
        };
        if texts.iter().all(|text| text.is_empty()) {
            return Err(NoId::NothingLeft);
        }
        Ok(id_of_all(texts.into_iter().map(|text| self.normalized(Cow::Borrowed(text))).collect()))
    }

    /// A form is that of a whole text: the blanks before what the skipped fields have left are no part of it.
    fn cut<'l>(&self, text: &'l [u8]) -> &'l [u8] {
        let cut = plain::cut(text, self.skip_fields, self.skip_chars, self.check_chars);
        let is_after_fields = self.normalize.is_some() && self.skip_fields > 0;
        if is_after_fields { plain::without_blanks_before(cut) } else { cut }
    }

    fn normalized<'l>(&self, text: Cow<'l, [u8]>) -> Cow<'l, [u8]> {
        match self.normalize {
            None => text,
            Some(Form::Url1) => url1::normalized(text),
        }
    }
}

/// Returns the line without what ends it and without a byte order mark.
fn text_of(line: &[u8], end: u8) -> &[u8] {
    let line = line.strip_suffix(&[end]).unwrap_or(line);
    if end != b'\n' {
        return line; // Such as file names, in which every byte counts.
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

/// Returns the one text itself as the id, or the fingerprint of several.
fn id_of_all(mut texts: Vec<Cow<'_, [u8]>>) -> Cow<'_, [u8]> {
    if texts.len() == 1 { id_of(texts.remove(0)) } else { fingerprint(texts).into() }
}

/// Returns the text itself as the id, or its fingerprint if it is too long.
///
/// A text that begins like a fingerprint is replaced by its fingerprint too. Otherwise such a line could have the
/// same id as a choice of several fields.
fn id_of(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if text.len() <= MAX_ID_BYTES && !text.starts_with(b"f1:") {
        return text;
    }
    Cow::Owned(fingerprint([text]))
}

/// Returns the id of a line that has none: its bytes, or their digest if they are too long.
fn bytes_id(text: &[u8]) -> Vec<u8> {
    if LINE.len() + text.len() <= MAX_ID_BYTES {
        return [LINE, text].concat();
    }
    // The fingerprint of so long a text is `f1:sha256:` and a digest. This is `f1:line-sha256:` and the digest.
    let digest = fingerprint([text]);
    [b"f1:line-", &digest[b"f1:".len()..]].concat()
}

impl fmt::Display for NoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { cause, column } => write!(f, "not JSON: {cause} at column {column}"),
            Self::NotAnObject => write!(f, "not a JSON object"),
            Self::SeveralObjects => {
                write!(f, "more than one JSON object; `jq -c .` prints one a line")
            }
            Self::Lacking { field, found } => write!(f, "the key {field:?} {found}"),
            Self::Malformed { field, cause } => {
                write!(f, "the key {field:?} is malformed: {cause}")
            }
            Self::NoMatch => write!(f, "no match for --match"),
            Self::NothingLeft => write!(f, "nothing of it is left for an id"),
        }
    }
}

/// The lines of a run that have no id. One message tells of all.
#[derive(Debug, Default)]
pub(crate) struct Nameless {
    count: u64,
    first: Option<String>,
}

impl Nameless {
    /// Counts a line. The place is that of the line.
    pub(crate) fn note(&mut self, place: impl FnOnce() -> String, why: &NoId) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{}: {why}", place()));
    }

    /// Prints the message, if there was such a line.
    pub(crate) fn warn(&self) {
        let Some(first) = &self.first else { return };
        let others = match self.count {
            1 => "this line has no id, and is known by its bytes".to_owned(),
            count => format!(
                "this line and {} have no id, and are known by their bytes",
                counted(count - 1, "other")
            ),
        };
        log::warn!("{first}; {others}; --strict ends at the first such line");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        naming: Naming,
    }

    pub(crate) fn naming(options: &str) -> Naming {
        Options::try_parse_from(["seen"].into_iter().chain(options.split(' '))).unwrap().naming
    }

    /// What a line is known by, or why it has no id.
    pub(crate) fn id(options: &str, line: &str) -> String {
        match naming(options).name(line.as_bytes(), b'\n') {
            Name::Item(item) => String::from_utf8(item.id().to_vec()).unwrap(),
            Name::Bytes(item, why) => {
                assert_eq!(item.id(), bytes_id(text_of(line.as_bytes(), b'\n')));
                format!("no id: {why}")
            }
            Name::Empty => "empty".to_owned(),
        }
    }

    #[test]
    fn a_text_is_its_own_id_unless_it_is_too_long_or_looks_like_a_fingerprint() {
        let longest = vec![b'x'; MAX_ID_BYTES];
        assert_eq!(id_of((&longest).into()), longest);
        let long = vec![b'x'; MAX_ID_BYTES + 1];
        let digest = id_of((&long).into()).into_owned();
        assert!(digest.starts_with(b"f1:sha256:"));
        assert_ne!(id_of((&digest).into()), digest);
    }

    #[test]
    fn no_text_has_the_id_of_a_line_without_an_id() {
        assert_eq!(bytes_id(b"17"), b"f1:line:17");
        assert_ne!(id_of(b"f1:line:17".into()).as_ref(), b"f1:line:17");
        let longest = vec![b'x'; MAX_ID_BYTES - LINE.len()];
        assert_eq!(bytes_id(&longest).len(), MAX_ID_BYTES);
        let digest = bytes_id(&[&longest[..], b"x"].concat());
        assert!(digest.starts_with(b"f1:line-sha256:") && digest.len() == 15 + 64);
        // Nor has a line that spells the digest of another.
        assert_ne!(bytes_id(&digest[b"f1:line-".len()..]), digest);
    }

    #[test]
    fn what_ends_a_line_and_a_byte_order_mark_are_no_part_of_it() {
        for line in ["x", "x\n", "x\r\n", "x\r", "\u{feff}x\r\n"] {
            assert_eq!(text_of(line.as_bytes(), b'\n'), b"x", "{line:?}");
        }
        assert_eq!(text_of(b"\xef\xbb\xbfx\r\n\0", 0), b"\xef\xbb\xbfx\r\n");
        assert_eq!(naming("-f 0").name(b"\xef\xbb\xbf\r\n", b'\n'), Name::Empty);
    }

    #[test]
    fn the_first_choice_that_is_there_makes_the_id_as_if_it_were_the_only_one() {
        let options = "--key guid --or-key link,n --or-key title";
        assert_eq!(id(options, r#"{"guid": "g", "title": "t"}"#), "g");
        assert_eq!(id(options, r#"{"guid": "", "link": "l", "n": 1}"#), "f1:1:l1:1");
        assert_eq!(id(options, r#"{"guid": null, "link": "l", "title": "t"}"#), "t");
        assert_eq!(id(options, r#"{"link": "l"}"#), "no id: the key \"guid\" is missing");
        let broken = id(options, r#"{"guid": "\ud83d", "title": "t"}"#);
        assert!(broken.starts_with("no id: the key \"guid\" is malformed"), "{broken}");
        let named = id("--key guid --or-key n --named", r#"{"n": 1}"#);
        assert_eq!(named, "f1:named:1:n1:1");
    }

    #[test]
    fn a_plain_line_is_cut_or_matched() {
        assert_eq!(id("-f 2", "10:00 host error a"), " error a");
        assert_eq!(id("-f 9", "10:00 host"), "no id: nothing of it is left for an id");
        assert_eq!(id("--match id=(\\d+)", "x id=17 y"), "17");
        assert_eq!(id("--match (\\w+)@(\\w+)", "a@b"), "f1:1:a1:b");
        assert_eq!(id("--match \\d+", "none"), "no id: no match for --match");
        assert_eq!(id("--match (x*)", "none"), "no id: nothing of it is left for an id");
        assert_eq!(id("--match f1:.*", "-> f1:x"), "f1:4:f1:x");
    }

    #[test]
    fn normalizing_applies_to_each_text_of_the_id() {
        let url = "HTTP://Example.ORG:80/a/?utm_source=x#c";
        assert_eq!(id("--normalize url1", url), "https://example.org/a");
        let line = format!(r#"{{"link": "{url}", "n": 1}}"#);
        assert_eq!(id("--key link,n --normalize url1", &line), "f1:21:https://example.org/a1:1");
        assert_eq!(
            id("--match \\S+:\\S+ --normalize url1", &format!("see {url} x")),
            "https://example.org/a"
        );
    }

    #[test]
    fn a_version_is_made_as_an_id_is_and_may_be_missing() {
        let line = br#"{"id": 1, "at": "10:00", "no": null}"#;
        let name = |version: &str, options: &str| {
            naming(options).name_with_version(line, b'\n', Some(&version.parse().unwrap()))
        };
        let versioned = |version: &str| Name::Item(Item::new("1").version(version));
        assert_eq!(name("at", "--key id --strict"), versioned("10:00"));
        assert_eq!(name("at,id", "--key id"), versioned("f1:5:10:001:1"));
        assert_eq!(name("no", "--key id"), Name::Item(Item::new("1")));
        let Name::Bytes(_, why) = name("no", "--key id --strict") else { panic!() };
        assert_eq!(why.to_string(), "the key \"no\" is null");
    }
}
