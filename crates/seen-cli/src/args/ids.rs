//! Ids as arguments, byte for byte; the argument `-` stands for the lines of standard input.
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

/// Calls a function with each id. Reads standard input as it arrives.
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

/// Returns all ids. Lines of standard input end in a newline, or in a NUL if `null` is set.
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
