//! Ids as they are given to a command: as arguments, or in lines for `-`.
//!
//! Owns the reading of them. What always holds: the bytes are the id; nothing is trimmed but the end of
//! a line.

use std::ffi::OsString;
use std::io::{self, Read};

use crate::Result;

/// The ids in the order in which they are given. Lines end in a newline, or in a NUL where `null` says
/// so; empty ones are left out.
pub(crate) fn read(given: &[OsString], null: bool) -> Result<Vec<Vec<u8>>> {
    let mut ids = Vec::new();
    for id in given {
        if id == "-" {
            let mut input = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut input);
            read.map_err(|e| format!("cannot read standard input: {e}"))?;
            let end = if null { 0 } else { b'\n' };
            let lines = input.split(|&byte| byte == end).filter(|line| !line.is_empty());
            ids.extend(lines.map(<[u8]>::to_vec));
        } else {
            ids.push(id.as_encoded_bytes().to_vec());
        }
    }
    Ok(ids)
}
