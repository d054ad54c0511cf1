//! Which store a command works on.
//!
//! Owns the options that say so and the default path.

use std::env;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use seen_store::{Activity, Config, ErrorKind, Reader, SeenStore};

use crate::Result;
use crate::output::message::with_causes;
use crate::output::words;

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
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,

    /// Fail if there is no store, instead of making one
    #[arg(long)]
    must_exist: bool,
}

impl Database {
    /// Opens the store, and makes it if it is missing. Says so: a volume that is not mounted looks like a first run.
    pub(crate) fn open(&self, config: Config) -> Result<SeenStore> {
        let store = self.location.open(config.create(!self.must_exist))?;
        if store.was_created() {
            let place = self.location.place()?;
            log::warn!("{}: there was no store here, so a new one was made", place.path.display());
        }
        Ok(store.scope(self.scope()))
    }

    /// See [`Location::open_existing`].
    pub(crate) fn open_existing(&self, config: Config) -> Result<SeenStore> {
        Ok(self.location.open_existing(config)?.scope(self.scope()))
    }

    /// Opens the store for reading; `None` if it is missing and need not exist.
    pub(crate) fn open_if_any(&self) -> Result<Option<SeenStore>> {
        match self.open_existing(Config::default().read_only(true)) {
            Ok(store) => Ok(Some(store)),
            Err(e) if kind(&*e) == Some(ErrorKind::NotFound) && !self.must_exist => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn scope(&self) -> &str {
        self.scope.as_deref().unwrap_or_default()
    }

    /// Says so if another kind of command also leaves ids in the scope that this command uses because none was named:
    /// the same id in the same scope is the same id, whichever command it comes from. A scope that was named is meant.
    pub(crate) fn announce(&self, store: &SeenStore, command: &str) {
        if self.scope.is_some() {
            return;
        }
        match store.announce(command) {
            Ok(others) => warn_of(command, &others),
            // The command meets the same error where it matters, or does without this warning.
            Err(e) => log::debug!("{}", with_causes(&e)),
        }
    }

    /// Like [`announce`](Self::announce), for a command that may be used by hand on the ids of others: then it does not
    /// join them.
    pub(crate) fn announce_unless_shared(&self, store: &SeenStore, command: &str) {
        let others = store.announced().unwrap_or_default();
        if others.iter().all(|other| is_of_same_kind(other, command)) {
            self.announce(store, command);
        } else if self.scope.is_none() {
            warn_of(command, &others);
        }
    }
}

/// Returns whether two commands make ids in the same way, and are used on the same ids: these take them from their
/// arguments.
fn is_of_same_kind(one: &str, other: &str) -> bool {
    let takes_names = |command| ["run", "claim", "mark"].contains(&command);
    one == other || takes_names(one) && takes_names(other)
}

fn warn_of(command: &str, announced: &[String]) {
    let others: Vec<String> = announced
        .iter()
        .filter(|other| !is_of_same_kind(other, command))
        .map(|other| format!("`seen {other}`"))
        .collect();
    if !others.is_empty() {
        log::warn!(
            "{} also leaves ids in the default scope of this store, where equal ids are one; give each job a --scope of \
             its own, or --scope '' where they share it on purpose",
            others.join(" or ")
        );
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
        let place = self.place()?;
        log::info!("{}: reading", place.path.display());
        Reader::open(&place.path).map_err(|e| place.explain(e))
    }

    pub(crate) fn path(&self) -> Result<PathBuf> {
        Ok(self.place()?.path)
    }

    pub(crate) fn place(&self) -> Result<Place> {
        Place::of(self.db.as_deref())
    }
}

impl Location {
    fn open(&self, config: Config) -> Result<SeenStore> {
        let place = self.place()?;
        let store = SeenStore::open_with(&place.path, config).map_err(|e| place.explain(e))?;
        log::info!("{}: opened", place.path.display());
        Ok(store)
    }

    /// Opens a store that exists. A command that changes or tidies a store must not create one because a path was
    /// mistyped.
    pub(crate) fn open_existing(&self, config: Config) -> Result<SeenStore> {
        self.open(config.create(false))
    }

    pub(crate) fn place(&self) -> Result<Place> {
        Place::of(self.db.as_deref())
    }
}

/// Where a store is, and who says so.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    named_by: &'static str,
}

impl Place {
    fn of(given: Option<&Path>) -> Result<Self> {
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

    /// Adds to an error about the path where the path comes from.
    pub(crate) fn explain(&self, error: seen_store::Error) -> Box<dyn Error + Send + Sync> {
        match error.kind() {
            ErrorKind::InvalidPath | ErrorKind::NotFound => {
                Box::new(Misplaced { named_by: self.named_by, error })
            }
            _ => error.into(),
        }
    }
}

/// An error about the path of the store.
#[derive(Debug)]
struct Misplaced {
    named_by: &'static str,
    error: seen_store::Error,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = if self.named_by == "--db" { "" } else { "; --db names another" };
        write!(f, "{} (the path is from {}{other})", self.error, self.named_by)
    }
}

impl Error for Misplaced {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Closes the store and logs a failure. Every answer is durable by now, so the command has not failed.
pub(crate) fn close(store: &SeenStore) {
    if log::log_enabled!(log::Level::Info)
        && let Ok(stats) = store.stats()
    {
        log::info!("closed: {}", done(&stats.since_opened));
    }
    if let Err(e) = store.close() {
        log::warn!("{}", with_causes(&e));
    }
}

/// Returns what a store has done since it was opened, in words.
fn done(activity: &Activity) -> String {
    let mut done: Vec<String> = [
        ("claimed", activity.claims_granted),
        ("seen before", activity.claims_seen + activity.duplicates),
        ("in flight", activity.claims_in_flight + activity.in_flight),
        ("unresolved", activity.claims_unresolved),
        ("given up", activity.claims_given_up),
        ("confirmed", activity.claims_confirmed),
        ("failed", activity.claims_failed),
        ("released", activity.claims_released),
        ("lost", activity.claims_lost),
        ("expired and removed", activity.purged),
        ("waits for other processes", activity.waits),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(what, count)| format!("{what} {count}"))
    .collect();
    done.push(match activity.commits {
        0 => "nothing written".to_owned(),
        commits => words::counted(commits, "commit"),
    });
    done.join(", ")
}

/// Returns the kind of an error that came from a store.
pub(crate) fn kind(error: &(dyn Error + Send + Sync + 'static)) -> Option<ErrorKind> {
    let misplaced = error.downcast_ref::<Misplaced>().map(|misplaced| &misplaced.error);
    misplaced.or_else(|| error.downcast_ref()).map(seen_store::Error::kind)
}
