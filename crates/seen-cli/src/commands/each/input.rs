//! The thread that reads the lines of `seen each`.
//!
//! What always holds: it reads on only when it is asked to, so it is never far ahead of the commands.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};

use super::Event;
use crate::args::line_ends::LineEnds;
use crate::work::stop;

/// Reads on until no more is asked for.
pub(super) fn read_all(
    files: &[PathBuf],
    ends: LineEnds,
    requested: &Receiver<()>,
    events: &Sender<Event>,
) {
    for path in files {
        let name = path.to_string_lossy();
        let opened = if path == Path::new("-") {
            stop::standard_input().map(|input| Box::new(input) as Box<dyn io::Read>)
        } else {
            File::open(path).map(|file| Box::new(file) as Box<dyn io::Read>)
        };
        let mut lines = match opened {
            Ok(input) => ends.lines(input),
            Err(e) => {
                let _ = events.send(Event::Unreadable(format!("cannot open {name}: {e}")));
                continue;
            }
        };
        while requested.recv().is_ok() {
            let sent = match lines.next_batch() {
                Ok(Some(lines)) => {
                    events.send(Event::Lines(lines.iter().map(|line| line.to_vec()).collect()))
                }
                Ok(None) => break,
                Err(e) => {
                    let _ = events.send(Event::Unreadable(format!("cannot read {name}: {e}")));
                    break;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
    let _ = events.send(Event::EndOfInput);
}
