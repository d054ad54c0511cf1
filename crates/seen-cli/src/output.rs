//! What the commands print. This module: standard output.
//!
//! Owns the buffer, and what a closed pipe means: the reader of the output wants no more of it, and the command
//! ends with its usual status and no message. The modules below it own the formats.

pub(crate) mod entry;
pub(crate) mod lines;
pub(crate) mod message;
pub(crate) mod progress;
pub(crate) mod words;

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use crate::Result;

pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    closed: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, io::stdout().lock()), closed: false }
    }

    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Returns whether the reader of the output has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn line(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        self.record(text.as_ref(), b'\n')
    }

    /// Writes bytes and their terminator.
    pub(crate) fn record(&mut self, bytes: &[u8], end: u8) -> Result<()> {
        let written = self.out.write_all(bytes).and_then(|()| self.out.write_all(&[end]));
        self.unless_closed(written)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        let flushed = self.out.flush();
        self.unless_closed(flushed)
    }

    fn unless_closed(&mut self, written: io::Result<()>) -> Result<()> {
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            written => written.map_err(|e| format!("cannot write to standard output: {e}"))?,
        }
        Ok(())
    }
}

/// Prints one line and returns status 0.
pub(crate) fn line(text: &str) -> Result<ExitCode> {
    let mut output = Output::new();
    output.line(text)?;
    output.finish()?;
    Ok(ExitCode::SUCCESS)
}
