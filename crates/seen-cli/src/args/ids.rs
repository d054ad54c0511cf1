//! Ids as arguments, `-` for the lines of standard input, or `--field` for each named field of one id.
//!
//! Owns the reading of them. What always holds: an argument is taken as a line is; an empty line is no id and is
//! skipped; an empty argument is an error. A command that takes ids asks for exactly one of the arguments `ids` (or
//! `id`) and `fields`, by a group.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use seen_store::{Item, Ttl, fingerprint_fields};

use crate::Result;
use crate::args::every::{self, Every};
use crate::input::lines::Lines;
use crate::naming::{MAX_ID_BYTES, Name, Nameless, Naming};
use crate::output::words;

/// The most bytes of an id that a message shows.
const SHOWN_BYTES: usize = 200;

const NO_INPUT: &str = "standard input is empty, but an id is wanted";

/// The ids of a command that takes several.
#[derive(Args)]
pub(crate) struct Ids {
    /// The ids. `-` reads them from standard input, one a line.
    #[arg(id = "ids", value_name = "ID")]
    lines: Vec<OsString>,

    #[command(flatten)]
    fields: Fields,

    #[command(flatten)]
    spelling: Spelling,

    /// The ids are those that `seen run --every` has in the present hour, day, week or month
    #[arg(long, value_name = "PERIOD", conflicts_with = "exact")]
    every: Option<Every>,

    /// Lines end with a NUL instead of a newline, on standard input and where ids are printed.
    #[arg(short = '0', long)]
    null: bool,
}

/// The id of a command that takes one. Has no --every: a claim may be made in one period and ended in the next.
#[derive(Args)]
pub(crate) struct OneId {
    /// The id. `-` reads it from standard input, which must be one line.
    #[arg(value_name = "ID")]
    id: Option<OsString>,

    #[command(flatten)]
    fields: Fields,

    #[command(flatten)]
    spelling: Spelling,
}

/// How an argument or a line says which id it means.
#[derive(Args)]
pub(crate) struct Spelling {
    #[command(flatten)]
    naming: Naming,

    /// The ids are as `seen list` prints them, byte for byte, not lines that ids are made of
    ///
    /// Makes a difference for ids that begin with `f1:`, which were made of several fields, of a long line, or of a
    /// line without an id.
    #[arg(long, conflicts_with_all = Naming::SHAPING)]
    exact: bool,
}

/// The named fields of one id.
#[derive(Args)]
pub(crate) struct Fields {
    /// A field of the id, instead of ID. Several, in any order, make one id
    ///
    /// `--field host=db1 --field check=disk` is the same id as `--field check=disk --field host=db1`, and as that of
    /// `--named --key host,check` for an object with these fields. The values of a name that is given twice stay in
    /// their order.
    #[arg(long = "field", value_name = "NAME=VALUE", conflicts_with_all = Naming::SHAPING,
          value_parser = OsStringValueParser::new().try_map(Field::parse))]
    fields: Vec<Field>,
}

#[derive(Clone)]
struct Field {
    text: OsString,
    name_bytes: usize,
}

/// An id that was asked for.
pub(crate) struct Asked {
    /// The argument or line, without what ends it.
    pub(crate) line: Vec<u8>,
    pub(crate) id: Vec<u8>,
}

impl Asked {
    /// Tells of it if the store has an id that is spelled like this line, and that the line does not mean. Returns
    /// whether it has.
    pub(crate) fn warn_if_spelled(
        &self,
        is_known: impl FnOnce(&[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let is_id = self.line.starts_with(b"f1:") && self.line.len() <= MAX_ID_BYTES;
        let is_spelled = is_id && self.line != self.id;
        if !is_spelled || !is_known(&self.line)? {
            return Ok(false);
        }
        log::warn!(
            "{}: not known as a line, but the store has an id that is spelled so; --exact takes it for that id",
            shown(&self.line)
        );
        Ok(true)
    }
}

impl Ids {
    /// Calls a function with each id. Reads standard input as it arrives. Tells of lines without an id.
    pub(crate) fn for_each(&self, mut act: impl FnMut(Asked) -> Result<()>) -> Result<()> {
        let mut nameless = Nameless::default();
        let done = self.for_each_noting(&mut nameless, &mut |asked| {
            let (id, _) = every::in_present(self.every, asked.id)?;
            act(Asked { id, ..asked })
        });
        nameless.warn();
        done
    }

    /// Returns all ids.
    pub(crate) fn read(&self) -> Result<Vec<Asked>> {
        let mut all = Vec::new();
        self.for_each(|asked| {
            all.push(asked);
            Ok(())
        })?;
        Ok(all)
    }

    /// How long what is done in a period is remembered; `otherwise` without one.
    pub(crate) fn ttl(&self, otherwise: Ttl) -> Ttl {
        self.every.map_or(otherwise, |every| Ttl::After(every.ttl()))
    }

    /// What ends a line of the input, and an id that is printed.
    pub(crate) fn end(&self) -> u8 {
        if self.null { 0 } else { b'\n' }
    }

    fn for_each_noting(
        &self,
        nameless: &mut Nameless,
        act: &mut impl FnMut(Asked) -> Result<()>,
    ) -> Result<()> {
        if let Some(id) = self.fields.id() {
            act(Asked { line: id.clone(), id })?;
        }
        for id in &self.lines {
            if id == "-" {
                self.spelling.for_each_line(self.end(), nameless, act)?;
            } else {
                act(self.spelling.argument(id, self.end(), nameless)?)?;
            }
        }
        Ok(())
    }
}

impl OneId {
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match self.fields.id() {
            Some(id) => Ok(id),
            None => self.spelling.one(self.id.as_deref().expect("the parser asks for an id")),
        }
    }

    pub(crate) fn reads_standard_input(&self) -> bool {
        self.id.as_deref() == Some(OsStr::new("-"))
    }
}

impl Spelling {
    /// Whether a line may mean another id than its text.
    pub(crate) fn is_given(&self) -> bool {
        self.exact || self.naming.is_shaped()
    }

    /// Returns the id of a command that takes one. Tells of it if the line has none.
    pub(crate) fn one(&self, id: &OsStr) -> Result<Vec<u8>> {
        let mut nameless = Nameless::default();
        let found = if id == "-" {
            self.only_line(&mut nameless)
        } else {
            self.argument(id, b'\n', &mut nameless).map(|asked| asked.id)
        };
        nameless.warn();
        found
    }

    /// Returns the id of all of standard input. Tells of it if it has none.
    pub(crate) fn document(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut nameless = Nameless::default();
        let found = self.asked(bytes, b'\n', || "standard input".to_owned(), &mut nameless);
        nameless.warn();
        Ok(found?.ok_or(NO_INPUT)?.id)
    }

    /// Standard input must be one line: several lines are more likely a list of ids than one id.
    fn only_line(&self, nameless: &mut Nameless) -> Result<Vec<u8>> {
        let mut found = None;
        self.for_each_line(b'\n', nameless, &mut |asked| match found.replace(asked.id) {
            None => Ok(()),
            Some(_) => Err("standard input has more than one line, but one id is wanted".into()),
        })?;
        Ok(found.ok_or(NO_INPUT)?)
    }

    fn argument(&self, argument: &OsStr, end: u8, nameless: &mut Nameless) -> Result<Asked> {
        let line = argument.as_encoded_bytes();
        let place = || format!("the argument {}", shown(line));
        self.asked(line, end, place, nameless)?.ok_or_else(|| {
            "the id is empty: an argument has no characters; is a variable not set?".into()
        })
    }

    fn for_each_line(
        &self,
        end: u8,
        nameless: &mut Nameless,
        act: &mut impl FnMut(Asked) -> Result<()>,
    ) -> Result<()> {
        let mut lines = Lines::new(io::stdin().lock(), end);
        let mut number = 0_u64;
        while let Some(batch) = lines.next_batch().map_err(|e| unreadable(&e))? {
            for line in batch {
                number += 1;
                let place = || format!("standard input: line {number}");
                if let Some(asked) = self.asked(line, end, place, nameless)? {
                    act(asked)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the id of a line at this place; nothing for an empty line. Notes a line without an id.
    pub(crate) fn asked(
        &self,
        line: &[u8],
        end: u8,
        place: impl Fn() -> String,
        nameless: &mut Nameless,
    ) -> Result<Option<Asked>> {
        let line = line.strip_suffix(&[end]).unwrap_or(line);
        if self.exact {
            let asked = Asked { line: line.to_vec(), id: line.to_vec() };
            return Ok(Some(asked).filter(|it| !it.id.is_empty()));
        }
        let name = self.naming.name(line, end);
        if let Name::Bytes(_, why) = &name {
            if self.naming.is_strict() {
                return Err(format!("{}: {why}", place()).into());
            }
            nameless.note(place, why);
        }
        Ok(name.item().map(|item| Asked { line: line.to_vec(), id: item.id().to_vec() }))
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

/// Returns the item of an id with the version that was given, if there is one.
pub(crate) fn item<'a>(id: &'a [u8], version: Option<&OsStr>) -> Item<'a> {
    match version {
        Some(version) => Item::new(id).version(version.as_encoded_bytes()),
        None => Item::new(id),
    }
}

pub(crate) fn unreadable(e: &io::Error) -> Box<dyn Error + Send + Sync> {
    format!("cannot read standard input: {e}").into()
}

/// Returns the id for a message: control characters are escaped, and a long id is cut.
pub(crate) fn shown(id: &[u8]) -> String {
    match id.get(..SHOWN_BYTES) {
        Some(beginning) if id.len() > SHOWN_BYTES => format!("{}...", words::id(beginning)),
        _ => words::id(id),
    }
}
