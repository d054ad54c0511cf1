//! The files that an import reads, as entries.
//!
//! Owns the reading of each format. What always holds: a file is read once, from its beginning
//! to its end, in bounded memory. A message about it has its name, the line, the cause and the remedy. A line that
//! is not understood ends the reading. A line that is understood, but that no store can hold, is left out.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use seen_store::{Entry, LegacyFile};
use serde_json::{Map, Value};

use crate::Result;
use crate::args::ids::Spelling;
use crate::input::recognise::{Content, Format, recognise};
use crate::naming::Nameless;
use crate::output::entry::{Defaults, from_json};
use crate::output::message;
use crate::output::progress::{self, Progress};

/// How many bytes of a file are read to recognise its format.
const TELLING: usize = 1 << 16;

/// The longest line that is read: longer than an id, a scope, an error and a receipt, all escaped.
const LONGEST_LINE: u64 = 4 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file that is being read.
pub(crate) struct Source<'a> {
    name: String,
    spelling: &'a Spelling,
    nameless: Nameless,
    defaults: &'a Defaults,
    progress: Progress,
    reader: Reader,
    left_out: u64,
}

type Text = BufReader<Chain<Cursor<Vec<u8>>, Box<dyn Read>>>;

enum Reader {
    Json(Lines),
    Ids(Lines),
    Csv(Table),
    Seed(LegacyFile),
}

impl<'a> Source<'a> {
    pub(crate) fn open(
        path: &Path,
        format: Option<Format>,
        spelling: &'a Spelling,
        defaults: &'a Defaults,
    ) -> Result<Self> {
        let standard_input = path == Path::new("-");
        let name = if standard_input { "standard input".into() } else { path.to_string_lossy() };
        let name = name.into_owned();
        let mut input: Box<dyn Read> = if standard_input {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).map_err(|e| format!("cannot open {name}: {e}"))?)
        };
        let cannot_read = |e| format!("cannot read {name}: {e}");
        let beginning = beginning(&mut input).map_err(cannot_read)?;
        if spelling.is_given() && format.is_some_and(|format| format != Format::Ids) {
            return Err("the options that say what of a line is its id are for --format ids".into());
        }
        let format = if spelling.is_given() { Some(Format::Ids) } else { format };
        let content =
            recognise(&beginning, path, format).map_err(|why| format!("{name}: {why}"))?;
        let nameless = Nameless::default();
        if content == Content::Seed {
            if standard_input {
                return Err("a database cannot be read from standard input; give its path".into());
            }
            let seed = LegacyFile::open(path, defaults.ttl)?;
            let progress = progress::of_count(seed.count_rows()?);
            let reader = Reader::Seed(seed);
            return Ok(Self { name, spelling, nameless, defaults, progress, reader, left_out: 0 });
        }
        let marked = if beginning.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let text = BufReader::new(Cursor::new(beginning[marked..].to_vec()).chain(input));
        let reader = match content {
            Content::Ids => Reader::Ids(Lines::new(text)),
            Content::Csv { delimiter } => {
                Reader::Csv(Table::new(text, delimiter).map_err(|why| format!("{name}: {why}"))?)
            }
            _ => Reader::Json(Lines::new(text)),
        };
        let progress = progress::of_files(&[path.to_owned()]);
        Ok(Self { name, spelling, nameless, defaults, progress, reader, left_out: 0 })
    }

    /// Reads up to `limit` entries; none at the end. After an error, `entries` holds those before it. Prints a message
    /// for each line that is left out.
    pub(crate) fn fill(&mut self, entries: &mut Vec<Entry>, limit: usize) -> Result<()> {
        while entries.len() < limit {
            let Some(entry) = self.next()? else { break };
            match valid(&entry) {
                Ok(()) => entries.push(entry),
                Err(why) => {
                    message::tell(&format!("{}: line {}: left out: {why}", self.name, self.line()));
                    self.left_out += 1;
                }
            }
        }
        Ok(())
    }

    /// Returns how many lines were understood and left out.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Returns the line of the last entry, from 1; 0 if the format has no lines.
    fn line(&self) -> u64 {
        match &self.reader {
            Reader::Json(lines) | Reader::Ids(lines) => lines.number,
            Reader::Csv(table) => table.line,
            Reader::Seed(_) => 0,
        }
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        let Self { name, spelling, nameless, defaults, progress, reader, .. } = self;
        match reader {
            Reader::Json(lines) => {
                let Some((line, number)) = lines.next(name, progress)? else { return Ok(None) };
                let entry = serde_json::from_slice::<Map<String, Value>>(line)
                    .map_err(|e| format!("not a JSON object: {e}"))
                    .and_then(|object| from_json(&object, defaults));
                entry.map(Some).map_err(|why| wrong_line(name, number, &why))
            }
            Reader::Ids(lines) => {
                while let Some((line, number)) = lines.next(name, progress)? {
                    let place = || format!("{name}: line {number}");
                    if let Some(asked) = spelling.asked(line, b'\n', place, nameless)? {
                        return Ok(Some(defaults.entry(asked.id)));
                    }
                }
                Ok(None)
            }
            Reader::Csv(table) => {
                let Some(object) = table.next(name, progress)? else { return Ok(None) };
                let entry = object.and_then(|object| from_json(&object, defaults));
                entry.map(Some).map_err(|why| wrong_line(name, table.line, &why))
            }
            Reader::Seed(seed) => {
                progress.add(1);
                let Some(mut entry) = seed.next().transpose()? else { return Ok(None) };
                entry.scope.clone_from(&defaults.scope);
                Ok(Some(entry))
            }
        }
    }

    /// Prints what was left out, and removes the progress bar.
    pub(crate) fn finish(&self) {
        self.progress.finish();
        self.nameless.warn();
        if let Reader::Seed(seed) = &self.reader
            && seed.skipped() > 0
        {
            log::warn!(
                "{}: {} rows have no valid id (NULL, empty or longer than 65536 bytes) and were left out",
                self.name,
                seed.skipped()
            );
        }
    }
}

/// Reads the first bytes, until they hold the first line and more.
fn beginning(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut beginning = Vec::new();
    input.take(TELLING as u64).read_to_end(&mut beginning)?;
    Ok(beginning)
}

/// Checks that a store can hold the entry. It is checked here because the line is known here.
fn valid(entry: &Entry) -> Result<(), String> {
    let note = entry.last_error.as_ref().map_or(0, String::len);
    let receipt = entry.receipt.as_ref().map_or(0, Vec::len);
    for (what, length, most) in [
        ("id", entry.id.len(), 65_536),
        ("scope", entry.scope.len(), 65_536),
        ("last_error", note, 65_536),
        ("receipt", receipt, 1 << 20),
    ] {
        if length > most {
            return Err(format!("its {what} has {length} bytes; at most {most} are stored"));
        }
    }
    if entry.id.is_empty() { Err("its id is empty".into()) } else { Ok(()) }
}

fn wrong_line(name: &str, line: u64, why: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{name}: line {line}: {why}; mend or remove this line and import the file again").into()
}

/// The lines of a text that are not blank.
struct Lines {
    text: Text,
    line: Vec<u8>,
    /// The number of the present line, from 1.
    number: u64,
}

impl Lines {
    fn new(text: Text) -> Self {
        Self { text, line: Vec::new(), number: 0 }
    }

    /// Returns the next line and its number.
    fn next(&mut self, name: &str, progress: &Progress) -> Result<Option<(&[u8], u64)>> {
        loop {
            self.line.clear();
            let mut limited = (&mut self.text).take(LONGEST_LINE);
            let read = limited
                .read_until(b'\n', &mut self.line)
                .map_err(|e| format!("cannot read {name}: {e}"))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            progress.add(read as u64);
            if read as u64 == LONGEST_LINE {
                return Err(wrong_line(name, self.number, "it is longer than 4 MiB"));
            }
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
            }
            if !self.line.is_empty() {
                return Ok(Some((&self.line, self.number)));
            }
        }
    }
}

/// The rows of a CSV file.
struct Table {
    rows: csv::Reader<Limited>,
    row: csv::ByteRecord,
    header: Vec<String>,
    /// How many bytes the present row may still read.
    allowance: Rc<Cell<u64>>,
    /// The line at which the present row begins.
    line: u64,
}

/// Limits what one row can read: otherwise a quote that is never closed reads the rest of the file into memory.
struct Limited {
    text: Text,
    allowance: Rc<Cell<u64>>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(buffer)?;
        match self.allowance.get().checked_sub(read as u64) {
            Some(left) => self.allowance.set(left),
            None => {
                return Err(io::Error::other("a row of more than 4 MiB; is a quote not closed?"));
            }
        }
        Ok(read)
    }
}

impl Table {
    fn new(text: Text, delimiter: u8) -> Result<Self, String> {
        let allowance = Rc::new(Cell::new(LONGEST_LINE));
        let mut rows = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .from_reader(Limited { text, allowance: allowance.clone() });
        let header = rows.byte_headers().map_err(|e| cause(&e))?;
        let name = |field: &[u8]| String::from_utf8_lossy(field.trim_ascii()).to_ascii_lowercase();
        let header: Vec<_> = header.iter().map(name).collect();
        if let [_, _, ..] = *header.iter().filter(|name| *name == "id").collect::<Vec<_>>() {
            return Err("its first line names two columns id; name one of them otherwise".into());
        }
        Ok(Self { rows, row: csv::ByteRecord::new(), header, allowance, line: 1 })
    }

    /// Returns the next row as an object, or what is wrong with it.
    fn next(
        &mut self,
        name: &str,
        progress: &Progress,
    ) -> Result<Option<Result<Map<String, Value>, String>>> {
        self.allowance.set(LONGEST_LINE);
        let before = self.rows.position().clone();
        let read = self.rows.read_byte_record(&mut self.row);
        self.line = self.row.position().map_or(before.line(), csv::Position::line);
        progress.add(self.rows.position().byte() - before.byte());
        match read {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(self.object())),
            Err(e) => Err(wrong_line(name, self.line, &cause(&e))),
        }
    }

    /// An empty field counts as missing, except the scope, which may be empty.
    fn object(&self) -> Result<Map<String, Value>, String> {
        let mut object = Map::new();
        for (name, field) in self.header.iter().zip(&self.row) {
            if field.is_empty() && name != "scope" {
                continue;
            }
            let text = str::from_utf8(field).map_err(|_| {
                format!("{name} is not UTF-8; `seen export` shows how bytes are written")
            })?;
            object.insert(name.clone(), text.into());
        }
        Ok(object)
    }
}

fn cause(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} fields, and the first line {expected_len}")
        }
        csv::ErrorKind::Io(e) => e.to_string(),
        _ => error.to_string(),
    }
}
