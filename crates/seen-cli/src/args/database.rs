//! Which store a command works on.
//!
//! Owns the options that say so and the default path.

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use seen_store::{Config, ErrorKind, Reader, SeenStore};

use crate::Result;
use crate::output::message::with_causes;

const DB_HELP: &str = "The store. Commands that remember ids create it if it is missing.\n\n\
                       Default: $SEEN_DB_PATH, else $XDG_DATA_HOME/seen/seen.db, else \
                       ~/.local/share/seen/seen.db.";

const READ_HELP: &str = "The store to read, which is left as it is.\n\n\
                         Default: $SEEN_DB_PATH, else $XDG_DATA_HOME/seen/seen.db, else \
                         ~/.local/share/seen/seen.db.";

/// The option of a command that works on a store as a whole.
#[derive(Args)]
pub(crate) struct Location {
    /// The store
    #[arg(long, value_name = "PATH", long_help = DB_HELP)]
    db: Option<PathBuf>,
}

/// The options of a command that works on ids.
#[derive(Args)]
pub(crate) struct Database {
    #[command(flatten)]
    location: Location,

    /// The namespace of the ids. The same id in another scope is another id.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    scope: String,
}

impl Database {
    pub(crate) fn open(&self, config: Config) -> Result<SeenStore> {
        Ok(self.location.open(config)?.scope(self.scope()))
    }

    /// See [`Location::open_existing`].
    pub(crate) fn open_existing(&self, config: Config) -> Result<SeenStore> {
        Ok(self.location.open_existing(config)?.scope(self.scope()))
    }

    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }
}

/// The option of a command that only reads.
#[derive(Args)]
pub(crate) struct ReadLocation {
    /// The store to read, which is left as it is
    #[arg(long, value_name = "PATH", long_help = READ_HELP)]
    db: Option<PathBuf>,
}

impl ReadLocation {
    /// Opens the store for reading, without creating or changing any file. A missing store is an error.
    pub(crate) fn read(&self) -> Result<Reader> {
        Ok(Reader::open(self.path()?)?)
    }

    pub(crate) fn path(&self) -> Result<PathBuf> {
        path(self.db.as_deref())
    }
}

impl Location {
    fn open(&self, config: Config) -> Result<SeenStore> {
        Ok(SeenStore::open_with(self.path()?, config)?)
    }

    /// Opens a store that exists. A command that changes or tidies a store must not create one because a path was
    /// mistyped.
    pub(crate) fn open_existing(&self, config: Config) -> Result<SeenStore> {
        let path = self.path()?;
        if let Err(e) = fs::symlink_metadata(&path)
            && e.kind() == io::ErrorKind::NotFound
        {
            let path = path.display();
            return Err(format!("{path}: there is no store here; give its path with --db").into());
        }
        self.open(config)
    }

    fn path(&self) -> Result<PathBuf> {
        path(self.db.as_deref())
    }
}

fn path(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    // An empty variable counts as unset, as the XDG specification says.
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("SEEN_DB_PATH") {
        return Ok(path);
    }
    // The specification also says to ignore a relative path.
    let folder = variable("XDG_DATA_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .ok_or("no place for the store: give --db PATH, or set SEEN_DB_PATH or HOME")?;
    Ok(folder.join("seen/seen.db"))
}

/// Closes the store and logs a failure. Every answer is durable by now, so the command has not failed.
pub(crate) fn close(store: &SeenStore) {
    if let Err(e) = store.close() {
        log::warn!("{}", with_causes(&e));
    }
}

/// Returns the kind of an error that came from a store.
pub(crate) fn kind(error: &(dyn Error + Send + Sync + 'static)) -> Option<ErrorKind> {
    error.downcast_ref::<seen_store::Error>().map(seen_store::Error::kind)
}
