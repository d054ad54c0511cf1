//! How the lines of an input end, for the commands that go through lines.
//!
//! Owns the two options and what they make of an input. What always holds: a line that one of these commands leaves for
//! the next run, each of them leaves.

use std::io::Read;

use clap::Args;

use crate::input::lines::Lines;

#[derive(Args, Clone, Copy)]
pub(crate) struct LineEnds {
    /// Lines end with a NUL character instead of a newline, in the input and where lines are printed.
    ///
    /// For file names, as `find -print0` prints and `xargs -0` reads them.
    #[arg(short = '0', long)]
    null: bool,

    /// Leave a last line without a newline for the next run
    ///
    /// For files that are being written: its end may be missing yet.
    #[arg(long)]
    complete: bool,
}

impl LineEnds {
    /// What ends a line.
    pub(crate) fn separator(self) -> u8 {
        if self.null { 0 } else { b'\n' }
    }

    pub(crate) fn lines<R: Read>(self, input: R) -> Lines<R> {
        Lines::new(input, self.separator()).complete(self.complete)
    }
}
