//! Where a store is, and who says so.
//!
//! Owns the default path, and what an error about a path or a URL says. What always holds: no message shows the user, the
//! password or the options of a URL. Opens files only: stores on clusters are opened by [`crate::cluster`].

use std::env;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use seen_store::{Config, ErrorKind, Reader, SeenStore};

use crate::Result;
use crate::cluster;

/// The default of the option.
macro_rules! with_default {
    ($what:expr) => {
        concat!(
            $what,
            "\n\nDefault: $SEEN_DB_PATH, else $XDG_DATA_HOME/seen/seen.db, else ~/.local/share/seen/seen.db."
        )
    };
}
pub(super) use with_default;

const FILE_HELP: &str = with_default!("The store, which is a file.");

const READ_FILE_HELP: &str =
    with_default!("The store to read, which is a file and is left as it is.");

/// The option of a command that is about a store in a file, not about one on a cluster.
#[derive(Args)]
pub(crate) struct FileLocation {
    /// The store
    #[arg(long, value_name = "PATH", long_help = FILE_HELP)]
    db: Option<PathBuf>,
}

impl FileLocation {
    /// Returns where the file is. `command` is named where the store is none.
    pub(crate) fn place(&self, command: &str) -> Result<Place> {
        Place::of(self.db.as_deref())?.in_a_file(command)
    }
}

/// The option of a command that only reads such a store.
#[derive(Args)]
pub(crate) struct ReadFileLocation {
    /// The store to read, which is left as it is
    #[arg(long, value_name = "PATH", long_help = READ_FILE_HELP)]
    db: Option<PathBuf>,
}

impl ReadFileLocation {
    /// See [`FileLocation::place`].
    pub(crate) fn place(&self, command: &str) -> Result<Place> {
        Place::of(self.db.as_deref())?.in_a_file(command)
    }
}

/// The place of a store, and who says so.
pub(crate) struct Place {
    /// The text may be the URL of a cluster.
    path: PathBuf,
    named_by: &'static str,
}

impl Place {
    pub(crate) fn of(given: Option<&Path>) -> Result<Self> {
        if let Some(path) = given {
            return Ok(Self { path: path.to_owned(), named_by: "--db" });
        }
        // An empty variable counts as unset, as the XDG specification says.
        let variable =
            |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = variable("SEEN_DB_PATH") {
            return Ok(Self { path, named_by: "SEEN_DB_PATH" });
        }
        // The specification also says to ignore a relative path.
        let data = variable("XDG_DATA_HOME").filter(|folder| folder.is_absolute());
        let (folder, named_by) = match data {
            Some(folder) => (folder, "XDG_DATA_HOME"),
            None => (
                variable("HOME")
                    .ok_or("no place for the store: give --db PATH, or set SEEN_DB_PATH or HOME")?
                    .join(".local/share"),
                "the default, below HOME",
            ),
        };
        Ok(Self { path: folder.join("seen/seen.db"), named_by })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the URL of a store on a cluster; `None` for a file.
    pub(crate) fn url(&self) -> Option<&str> {
        self.path.to_str().filter(|text| cluster::is_url(text))
    }

    /// Returns the path or the URL as messages name it.
    pub(crate) fn name(&self) -> String {
        match self.url() {
            Some(url) => cluster::name(url),
            None => self.path.display().to_string(),
        }
    }

    /// Returns the place of a file, for a command that is about one.
    pub(crate) fn in_a_file(self, command: &str) -> Result<Self> {
        if self.url().is_none() {
            return Ok(self);
        }
        let name = self.name();
        Err(self.misplaced(format!(
            "{name}: `seen {command}` is about a store in a file, and this one is on a cluster; give the path of a file, or \
             copy this store with `seen export` and `seen import`"
        )))
    }

    /// Opens the store in the file.
    pub(crate) fn open(&self, config: Config) -> Result<SeenStore> {
        let store = SeenStore::open_with(&self.path, config).map_err(|e| self.explain(e))?;
        log::info!("{}: opened", self.path.display());
        Ok(store)
    }

    /// Opens a store that exists. A command that changes or tidies a store must not create one because a path was
    /// mistyped.
    pub(crate) fn open_existing(&self, config: Config) -> Result<SeenStore> {
        self.open(config.create(false))
    }

    /// Opens the file for reading, without creating or changing any file. A missing store is an error.
    pub(crate) fn read(&self) -> Result<Reader> {
        log::info!("{}: reading", self.path.display());
        Reader::open(&self.path).map_err(|e| self.explain(e))
    }

    /// Adds to an error about the path where the path comes from.
    pub(crate) fn explain(&self, error: seen_store::Error) -> Box<dyn Error + Send + Sync> {
        match error.kind() {
            kind @ (ErrorKind::InvalidPath | ErrorKind::NotFound) => {
                Box::new(Misplaced { message: self.with_origin(&error), kind, cause: Some(error) })
            }
            _ => error.into(),
        }
    }

    /// Returns the error of a place at which this command, or this program, cannot have a store.
    pub(crate) fn misplaced(&self, message: impl fmt::Display) -> Box<dyn Error + Send + Sync> {
        let message = self.with_origin(message);
        Box::new(Misplaced { message, kind: ErrorKind::InvalidPath, cause: None })
    }

    fn with_origin(&self, message: impl fmt::Display) -> String {
        let what = if self.url().is_some() { "URL" } else { "path" };
        let other = if self.named_by == "--db" { "" } else { "; --db names another" };
        format!("{message} (the {what} is from {}{other})", self.named_by)
    }
}

/// An error about the place of the store.
#[derive(Debug)]
struct Misplaced {
    message: String,
    kind: ErrorKind,
    cause: Option<seen_store::Error>,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Misplaced {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref()?.source()
    }
}

/// Returns the kind of an error that came from a store.
pub(crate) fn kind(error: &(dyn Error + Send + Sync + 'static)) -> Option<ErrorKind> {
    let of_store = || error.downcast_ref().map(seen_store::Error::kind);
    error.downcast_ref().map(|misplaced: &Misplaced| misplaced.kind).or_else(of_store)
}
