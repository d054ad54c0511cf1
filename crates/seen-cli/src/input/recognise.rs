//! What a file to be imported is, by its first bytes.
//!
//! Owns the recognition. What always holds: a table whose ids cannot be told is refused with what was understood of
//! it; its lines are never taken for ids unless that is asked for.

use std::path::Path;

use clap::ValueEnum;

use crate::input::foreign;
use crate::output::words;

const DATABASE: &[u8] = b"SQLite format 3\0";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The format of a file, as the option names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line, as exported.
    Jsonl,
    /// Values with commas, semicolons or tabs between, and a header that names at least a column `id` or `id_hex`.
    Csv,
    /// Lines, from which ids are made as `seen filter` and the other commands make them.
    Ids,
    /// The SQLite file seen(id TEXT PRIMARY KEY, ts INTEGER NOT NULL), `ts` in unix seconds.
    Seed,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Jsonl,
    Csv { delimiter: u8 },
    Ids,
    Seed,
}

/// What is between the values of a table, and how a message calls it.
const DELIMITERS: [(u8, &str); 3] = [(b',', "commas"), (b';', "semicolons"), (b'\t', "tabs")];

/// Recognises a file of this name that begins so.
pub(crate) fn recognise(
    beginning: &[u8],
    path: &Path,
    format: Option<Format>,
) -> Result<Content, String> {
    let text = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning);
    match format {
        None if beginning.starts_with(DATABASE) => return Ok(Content::Seed),
        Some(Format::Seed) => return Ok(Content::Seed),
        _ => {}
    }
    if let Some(why) = foreign::refusal(beginning) {
        return Err(why);
    }
    match format {
        Some(Format::Csv) => return table(text),
        Some(Format::Jsonl) => return Ok(Content::Jsonl),
        Some(_) => return Ok(Content::Ids),
        None => {}
    }
    let start = text.trim_ascii_start();
    if start.starts_with(b"{") {
        return Ok(Content::Jsonl);
    }
    if start.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{")) {
        return Err("a JSON array; write one object a line, as `jq -c '.[]'` does".into());
    }
    if header(text).is_some() || looks_like_a_table(text) || is_named_so(path) {
        return table(text);
    }
    if beginning.contains(&0) {
        return Err("neither text nor a database; say --format ids if its lines are ids".into());
    }
    Ok(Content::Ids)
}

/// Returns a table whose header names an id, or what was understood of it.
fn table(text: &[u8]) -> Result<Content, String> {
    if let Some(delimiter) = header(text) {
        return Ok(Content::Csv { delimiter });
    }
    let widest =
        DELIMITERS.into_iter().max_by_key(|(delimiter, _)| first_row(text, *delimiter).len());
    let (delimiter, between) = widest.expect("there are some");
    let row = first_row(text, delimiter);
    let columns: Vec<_> = row.iter().take(5).map(|name| format!("{:?}", shown(name))).collect();
    let more = if row.len() > columns.len() { ", ..." } else { "" };
    Err(format!(
        "read as a table with {between} between the values, its first line names no column id or id_hex, but {}{more}; \
         name the column of the ids so, or say --format ids if whole lines are ids",
        columns.join(", ")
    ))
}

/// The names of columns are shown up to here.
fn shown(name: &[u8]) -> String {
    words::id(&name[..name.len().min(40)])
}

/// Returns what is between the names of the first line, if one of them is that of an id.
fn header(text: &[u8]) -> Option<u8> {
    let names_an_id = |delimiter: &u8| first_row(text, *delimiter).iter().any(is_id);
    DELIMITERS.map(|(delimiter, _)| delimiter).into_iter().find(names_an_id)
}

/// Returns whether a column of this name holds ids.
pub(crate) fn is_id(name: &[u8]) -> bool {
    let name = name.trim_ascii();
    name.eq_ignore_ascii_case(b"id") || name.eq_ignore_ascii_case(b"id_hex")
}

fn first_row(text: &[u8], delimiter: u8) -> csv::ByteRecord {
    rows(text, delimiter).next().unwrap_or_default()
}

fn rows(text: &[u8], delimiter: u8) -> impl Iterator<Item = csv::ByteRecord> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text)
        .into_byte_records()
        .map_while(Result::ok)
}

/// Returns whether all lines have the same number of values, and more than one; with semicolons or tabs, whether all
/// have more than one.
fn looks_like_a_table(text: &[u8]) -> bool {
    // The last line may be cut off.
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
    let text = &text[..end];
    // As spreadsheets write it.
    text.starts_with(b"sep=")
        || DELIMITERS.into_iter().any(|(delimiter, _)| {
            let mut counts = rows(text, delimiter).map(|row| row.len());
            let Some(first) = counts.next() else { return false };
            first > 1 && counts.all(|count| count == first || (delimiter != b',' && count > 1))
        })
}

fn is_named_so(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
    ["csv", "tsv"].iter().any(|it| it.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(beginning: &[u8]) -> Result<Content, String> {
        recognise(beginning, Path::new("-"), None)
    }

    fn csv(delimiter: char) -> Content {
        Content::Csv { delimiter: delimiter as u8 }
    }

    #[test]
    fn a_file_is_known_by_its_beginning() {
        for (beginning, content) in [
            (&b"SQLite format 3\0\x10\0"[..], Content::Seed),
            (b"\n {\"id\": 1}\n", Content::Jsonl),
            (b"\xef\xbb\xbf{\"id\": 1}\n", Content::Jsonl),
            (b"scope,id\n,a\n", csv(',')),
            (b"\xef\xbb\xbf\"id\"\r\na\r\n", csv(',')),
            (b"id_hex, seen\nff,\0\n", csv(',')),
            (b"Name;ID\r\na,b;1\r\n", csv(';')),
            (b"name\t Id \na\t1\n", csv('\t')),
            (b"identity\n", Content::Ids),
            (b"[ERROR] a, b\n[ERROR] c\n", Content::Ids),
            (b"[ERROR] a, b\n[ERROR] c, d, e\n", Content::Ids),
            (b"youtube dQw4w9WgXcQ\n", Content::Ids),
            (b"", Content::Ids),
        ] {
            assert_eq!(recognised(beginning), Ok(content), "{}", beginning.escape_ascii());
        }
        assert!(recognised(b"\x1f\x8b\x08\0\0\0").unwrap_err().contains("zcat"));
        assert!(recognised(b"a\0b").unwrap_err().contains("neither text"));
        assert!(recognised(b"[\n  {\"id\": 1}]").unwrap_err().contains("jq -c"));
    }

    #[test]
    fn a_table_without_ids_is_refused_with_what_was_understood() {
        for (table, named) in [
            (&b"name,url\na,b\n"[..], &["commas", "\"name\", \"url\""][..]),
            (b"17;2026;x\n18;2026;y;z\n", &["semicolons", "\"17\", \"2026\", \"x\""]),
            (b"a\tb\nc\td\n", &["tabs", "\"a\", \"b\""]),
            (b"\"a, b\",c\n\"d\",\"e\n\"\n", &["commas", "\"a, b\", \"c\""]),
            (b"sep=;\nName;ID\n", &["semicolons"]),
            (b"1,2,3,4,5,6\n", &["\"5\", ..."]),
        ] {
            let why = recognised(table).unwrap_err();
            for name in named.iter().chain(&["--format ids"]) {
                assert!(why.contains(name), "{name}: {why}");
            }
        }
        let named = recognise(b"a\nb\n", Path::new("x.CSV"), None).unwrap_err();
        assert!(named.contains("names no column id or id_hex, but \"a\""), "{named}");
        assert_eq!(
            recognise(b"a,b\nc,d\n", Path::new("x.csv"), Some(Format::Ids)),
            Ok(Content::Ids)
        );
    }
}
