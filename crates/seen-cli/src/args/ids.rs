//! Ids as arguments: as they are, byte for byte, or for `-` from standard input, one a line.
//!
//! Owns the reading of them. What always holds: an empty line is no id and is skipped; one argument or line
//! is one id, never trimmed.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead};

use crate::Result;
use crate::output::words;

/// The most bytes of an id that a message shows.
const SHOWN_BYTES: usize = 200;

/// Goes through the ids, reading standard input as it comes.
pub(crate) fn for_each(ids: &[OsString], mut act: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    for id in ids {
        if id == "-" {
            for_each_line(b'\n', &mut act)?;
        } else {
            act(id.as_encoded_bytes())?;
        }
    }
    Ok(())
}

/// All of the ids. Lines of standard input end in a newline, or in a NUL where `null` says so.
pub(crate) fn read(given: &[OsString], null: bool) -> Result<Vec<Vec<u8>>> {
    let end = if null { 0 } else { b'\n' };
    let mut ids = Vec::new();
    for id in given {
        if id == "-" {
            for_each_line(end, &mut |line| {
                ids.push(line.to_vec());
                Ok(())
            })?;
        } else {
            ids.push(id.as_encoded_bytes().to_vec());
        }
    }
    Ok(ids)
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

/// The one id of a command that takes one. Standard input must be one line: a second one is more likely a
/// list of ids than a part of one.
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

/// An id in a message: harmless, and cut where it is very long.
pub(crate) fn shown(id: &[u8]) -> String {
    match id.get(..SHOWN_BYTES) {
        Some(beginning) if id.len() > SHOWN_BYTES => format!("{}...", words::id(beginning)),
        _ => words::id(id),
    }
}
