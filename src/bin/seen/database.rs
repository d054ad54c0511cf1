//! Which store a command works on.
//!
//! Owns the options that say so and the default path.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use seen_store::{Config, Reader, SeenStore};

use crate::Result;

const DB_HELP: &str = "The store, created where it is missing.\n\nDefault: $SEEN_DB_PATH, else \
                       $XDG_DATA_HOME/seen/seen.db, else ~/.local/share/seen/seen.db.";

const READ_HELP: &str = "The store to read, which is left as it is.\n\nDefault: $SEEN_DB_PATH, else \
                         $XDG_DATA_HOME/seen/seen.db, else ~/.local/share/seen/seen.db.";

/// The option of every command that only reads.
#[derive(Args)]
pub(crate) struct ReadDatabase {
    /// The store to read, which is left as it is
    #[arg(long, value_name = "PATH", long_help = READ_HELP)]
    db: Option<PathBuf>,
}

impl ReadDatabase {
    /// Opens the store without a trace. A missing one is an error.
    pub(crate) fn read(&self) -> Result<Reader> {
        Ok(Reader::open(self.path()?)?)
    }

    pub(crate) fn path(&self) -> Result<PathBuf> {
        path(self.db.as_deref())
    }
}

/// The options of every command that uses a store.
#[derive(Args)]
pub(crate) struct Database {
    /// The store, created where it is missing
    #[arg(long, value_name = "PATH", long_help = DB_HELP)]
    db: Option<PathBuf>,

    /// The namespace to remember in; scopes have nothing to do with each other.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    scope: String,
}

impl Database {
    pub(crate) fn open(&self, config: Config) -> Result<SeenStore> {
        Ok(SeenStore::open_with(path(self.db.as_deref())?, config)?.scope(&self.scope))
    }
}

fn path(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    // A variable that is set to nothing counts as unset, as the XDG specification has it.
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
