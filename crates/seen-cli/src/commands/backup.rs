//! `seen backup`: a copy of the store.
//!
//! Owns the names of older copies. What always holds: a copy gets its name when it is complete and on the disk, so that
//! each name is at each moment a complete copy or none; only a copy of a store is replaced.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use seen_store::{Config, ErrorKind, SeenStore};

use crate::Result;
use crate::args::database;
use crate::args::place::FileLocation;

/// Copy the store to a new file while others go on writing
///
/// The copy is the store at one moment, in one file of mode 0600. `seen restore` puts it in the place of the store. If
/// PATH exists, nothing is written, unless --replace or --keep says otherwise. Statuses: 0 done, 2 an error; after an
/// error no incomplete copy is left, and those of before are there.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The new file
    #[arg(value_name = "PATH")]
    path: PathBuf,

    #[command(flatten)]
    location: FileLocation,

    /// Replace the copy that PATH may be, in one step, when the new one is complete
    #[arg(long)]
    replace: bool,

    /// Keep N copies: the newest is PATH, those before it are PATH.1, PATH.2 and so on
    ///
    /// When the new copy is complete, each older one gets the next number, and those beyond N are removed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keep: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let place = arguments.location.place("backup")?;
    let store = place.open_existing(Config::default().read_only(true))?;
    let path = &arguments.path;
    match (arguments.keep, arguments.replace) {
        (None, false) => store.backup(path).map_err(or_replace)?,
        (keep, _) => replace(&store, path, keep.unwrap_or(1))?,
    }
    log::info!("{}: the copy is complete", path.display());
    database::close_file(&store);
    Ok(ExitCode::SUCCESS)
}

/// Tells of the options where a copy stands at the path already.
fn or_replace(error: seen_store::Error) -> Box<dyn Error + Send + Sync> {
    match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{error}, or replace a copy with --replace or --keep").into()
        }
        _ => error.into(),
    }
}

/// Makes a copy beside `path`, and then gives each copy its new name.
fn replace(store: &SeenStore, path: &Path, keep: u32) -> Result<()> {
    refuse_other_file(path)?;
    let fresh = with_suffix(path, &format!(".new-{}", std::process::id()));
    store.backup(&fresh)?;
    let placed = sync(&fresh)
        .and_then(|()| number(path, keep))
        .and_then(|()| fs::rename(&fresh, path))
        .and_then(|()| sync_folder(path));
    if placed.is_err() {
        // It has no name that anything is known by. If it cannot be removed either, the error says why.
        let _ = fs::remove_file(&fresh);
    }
    placed.map_err(|e| format!("cannot replace {}: {e}", path.display()))?;
    for number in keep.. {
        let older = with_suffix(path, &format!(".{number}"));
        if !older.exists() || refuse_other_file(&older).is_err() {
            break;
        }
        fs::remove_file(&older).map_err(|e| format!("cannot remove {}: {e}", older.display()))?;
    }
    Ok(())
}

/// Gives the copies from `path` on their next numbers. The last one is replaced by the one before it. `path` itself
/// keeps its name until the new copy takes it.
fn number(path: &Path, keep: u32) -> io::Result<()> {
    let copy = |number: u32| match number {
        0 => path.to_owned(),
        number => with_suffix(path, &format!(".{number}")),
    };
    // Up to a gap, as a copy that was taken away leaves it: those above it stay.
    let count = (0..keep).take_while(|number| copy(*number).exists()).count();
    let Some(last) = u32::try_from(count).unwrap_or(keep).min(keep - 1).checked_sub(1) else {
        return Ok(());
    };
    for older in (1..=last).rev() {
        fs::rename(copy(older), copy(older + 1))?;
    }
    // By a second name for the moment, so that there is a copy at `path` throughout.
    let link = with_suffix(path, &format!(".old-{}", std::process::id()));
    match fs::hard_link(path, &link) {
        Ok(()) => fs::rename(&link, copy(1)),
        // A file system without such names.
        Err(_) => fs::rename(path, copy(1)),
    }
}

/// Refuses to replace what is no copy of a store, and a store that is in use.
fn refuse_other_file(path: &Path) -> Result<()> {
    let mut header = [0; 100];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) if header.starts_with(b"SQLite format 3\0") && header[68..72] == *b"SEEN" => {}
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(format!(
                "cannot read {}, which is to be replaced; give another path: {e}",
                path.display()
            )
            .into());
        }
        _ => {
            return Err(format!(
                "{}: there is a file that is no copy of a store, and is not replaced; give another path",
                path.display()
            )
            .into());
        }
    }
    // A store whose log is empty differs from a copy by its journal mode.
    if header[18] != 1 || with_suffix(path, "-wal").exists() {
        return Err(format!(
            "{}: this is a store that programs use, not a copy of one, and is not replaced; give another path",
            path.display()
        )
        .into());
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes names durable. Only Unix opens folders for that.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}
