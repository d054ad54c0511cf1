//! The progress bar of a long command.
//!
//! Owns the one bar of a run. What always holds: it is drawn on standard error, and only if that is a terminal. It
//! is removed when the work is done. A message is written above it, not into it. There is no bar with `-q`, and none
//! if standard output is the terminal too.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Smaller inputs are read so quickly that they need no bar.
const LARGE: u64 = 1 << 20;

const OF_BYTES: &str =
    "{bar:30} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
const OF_COUNT: &str = "{bar:30} {percent:>3}%  {human_pos} of {human_len}  {per_sec}  {eta} left";

/// The bar that is drawn now: messages are written above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A bar, perhaps hidden. Dropping it removes it from the terminal.
pub(crate) struct Progress(ProgressBar);

/// Returns a bar for reading these files; `-` is standard input. It is hidden if one of them has no size, such as
/// a pipe, or if they are small.
pub(crate) fn of_files(files: &[PathBuf]) -> Progress {
    let sizes: Option<u64> = files.iter().map(|path| size(path)).sum();
    match sizes {
        Some(bytes) if bytes >= LARGE => Progress::shown(bytes, OF_BYTES),
        _ => Progress::hidden(),
    }
}

/// Returns a bar for this number of things.
pub(crate) fn of_count(count: u64) -> Progress {
    Progress::shown(count, OF_COUNT)
}

fn size(path: &Path) -> Option<u64> {
    let metadata = if path == Path::new("-") { standard_input() } else { fs::metadata(path).ok() };
    metadata.filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

#[cfg(unix)]
fn standard_input() -> Option<fs::Metadata> {
    use std::os::fd::AsFd;
    let file = io::stdin().as_fd().try_clone_to_owned().ok()?;
    fs::File::from(file).metadata().ok()
}

#[cfg(not(unix))]
fn standard_input() -> Option<fs::Metadata> {
    None
}

impl Progress {
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    fn shown(length: u64, template: &str) -> Self {
        let quiet = log::max_level() < log::LevelFilter::Warn;
        if quiet || !io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self(bar)
    }

    pub(crate) fn add(&self, done: u64) {
        self.0.inc(done);
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Standard error, written above the bar.
pub(crate) struct Aside;

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match shown {
            Some(bar) => bar.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
