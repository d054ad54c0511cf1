//! Ids as arguments: byte for byte, `-` for the lines of standard input, or `--field` for each named field of one
//! id.
//!
//! Owns the reading of them. What always holds: an empty line is no id and is skipped; one argument or line
//! is one id, never trimmed. A command that takes ids asks for exactly one of the arguments `ids` (or `id`) and
//! `fields`, by a group.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use seen_store::{Item, fingerprint_fields};

use crate::Result;
use crate::output::words;

/// The most bytes of an id that a message shows.
const SHOWN_BYTES: usize = 200;

/// The ids of a command that takes several.
#[derive(Args)]
pub(crate) struct Ids {
    /// The ids. `-` reads ids from standard input, one a line.
    #[arg(value_name = "ID")]
    ids: Vec<OsString>,

    #[command(flatten)]
    fields: Fields,
}

/// The id of a command that takes one.
#[derive(Args)]
pub(crate) struct OneId {
    /// The id. `-` reads it from standard input, which must be one line.
    #[arg(value_name = "ID")]
    id: Option<OsString>,

    #[command(flatten)]
    fields: Fields,
}

/// The named fields of one id.
#[derive(Args)]
pub(crate) struct Fields {
    /// A field of the id, instead of ID. Several, in any order, make one id
    ///
    /// `--field host=db1 --field check=disk` is the same id as `--field check=disk --field host=db1`, and another
    /// one than any that --key makes. The values of a name that is given twice stay in their order.
    #[arg(long = "field", value_name = "NAME=VALUE",
          value_parser = OsStringValueParser::new().try_map(Field::parse))]
    fields: Vec<Field>,
}

#[derive(Clone)]
struct Field {
    text: OsString,
    name_bytes: usize,
}

impl Ids {
    /// Calls a function with each id. Reads standard input as it arrives.
    pub(crate) fn for_each(&self, mut act: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.for_each_until(b'\n', &mut act)
    }

    /// Returns all ids. Lines of standard input end in a newline, or in a NUL if `null` is set.
    pub(crate) fn read(&self, null: bool) -> Result<Vec<Vec<u8>>> {
        let mut ids = Vec::new();
        self.for_each_until(if null { 0 } else { b'\n' }, &mut |id| {
            ids.push(id.to_vec());
            Ok(())
        })?;
        Ok(ids)
    }

    fn for_each_until(&self, end: u8, act: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if let Some(id) = self.fields.id() {
            act(&id)?;
        }
        for id in &self.ids {
            if id == "-" {
                for_each_line(end, act)?;
            } else {
                act(id.as_encoded_bytes())?;
            }
        }
        Ok(())
    }
}

impl OneId {
    pub(crate) fn read(&self) -> Result<Cow<'_, [u8]>> {
        match self.fields.id() {
            Some(id) => Ok(Cow::Owned(id)),
            None => one(self.id.as_deref().expect("the parser asks for an id")),
        }
    }

    pub(crate) fn reads_standard_input(&self) -> bool {
        self.id.as_deref() == Some(OsStr::new("-"))
    }
}

impl Fields {
    /// Returns the id that the fields make, if any were given.
    pub(crate) fn id(&self) -> Option<Vec<u8>> {
        let fields = self.fields.iter().map(|field| {
            let (name, value) = field.text.as_encoded_bytes().split_at(field.name_bytes);
            (name, &value[1..])
        });
        (!self.fields.is_empty()).then(|| fingerprint_fields(fields))
    }
}

impl Field {
    fn parse(text: OsString) -> std::result::Result<Self, &'static str> {
        let bytes = text.as_encoded_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            None | Some(0) => Err("give a name and a value, such as host=db1"),
            // An unset variable of a script: all ids would be one.
            Some(end) if end + 1 == bytes.len() => Err("the value is empty"),
            Some(name_bytes) => Ok(Self { text, name_bytes }),
        }
    }
}

fn for_each_line(end: u8, act: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(end, &mut line).map_err(|e| unreadable(&e))? == 0 {
            return Ok(());
        }
        let id = line.strip_suffix(&[end]).unwrap_or(&line);
        if !id.is_empty() {
            act(id)?;
        }
    }
}

/// Returns the item of an id with the version that was given, if there is one.
pub(crate) fn item<'a>(id: &'a [u8], version: Option<&OsStr>) -> Item<'a> {
    match version {
        Some(version) => Item::new(id).version(version.as_encoded_bytes()),
        None => Item::new(id),
    }
}

/// Returns the id of a command that takes one. Standard input must be one line: several lines are more likely a
/// list of ids than one id.
pub(crate) fn one(id: &OsStr) -> Result<Cow<'_, [u8]>> {
    if id != "-" {
        return Ok(Cow::Borrowed(id.as_encoded_bytes()));
    }
    let mut found = Vec::new();
    for_each_line(b'\n', &mut |line| {
        if !found.is_empty() {
            return Err("standard input has more than one line, but one id is wanted".into());
        }
        found = line.to_vec();
        Ok(())
    })?;
    if found.is_empty() {
        return Err("standard input is empty, but an id is wanted".into());
    }
    Ok(Cow::Owned(found))
}

pub(crate) fn unreadable(e: &io::Error) -> Box<dyn std::error::Error + Send + Sync> {
    format!("cannot read standard input: {e}").into()
}

/// Returns the id for a message: control characters are escaped, and a long id is cut.
pub(crate) fn shown(id: &[u8]) -> String {
    match id.get(..SHOWN_BYTES) {
        Some(beginning) if id.len() > SHOWN_BYTES => format!("{}...", words::id(beginning)),
        _ => words::id(id),
    }
}
