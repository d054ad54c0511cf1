//! Which store a command works on.
//!
//! Owns the options that say so, and the store that they open: in a file or on a cluster. What always holds: a command has
//! the same verbs on both, by the trait [`Store`]; what only a file has is behind [`Opened::file`].

use std::ops::Deref;
use std::path::PathBuf;

use clap::Args;
use seen_store::{Activity, Config, ErrorKind, SeenStore, Store};

use crate::Result;
use crate::args::place::{Place, kind, with_default};
use crate::cluster;
use crate::output::message::with_causes;
use crate::output::words;
use crate::reading::Reading;

/// Where a store may be, and the default.
macro_rules! places {
    ($what:literal) => {
        with_default!(concat!(
            $what,
            "\n\nThe path of a file, or the URL of a Redis or Valkey Cluster: redis://host1,host2/namespace, or with rediss:// \
             encrypted. (A `seen` that was installed with `--features cluster` opens URLs.) A list of processes shows all \
             arguments, so a URL with a password belongs in SEEN_DB_PATH."
        ))
    };
}

const DB_HELP: &str =
    places!("The store. Commands that remember ids create the file if it is missing.");

const READ_HELP: &str = places!("The store to read, which is left as it is.");

/// The options of a command that works on ids.
#[derive(Args)]
pub(crate) struct Database {
    /// The store
    #[arg(long, value_name = "PATH", long_help = DB_HELP)]
    db: Option<PathBuf>,

    /// The namespace of the ids. The same id in another scope is another id.
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,

    /// Fail if there is no store, instead of making one
    #[arg(long)]
    must_exist: bool,
}

/// A store that is open, with the verbs that files and clusters share.
pub(crate) struct Opened {
    store: Box<dyn Store>,
    /// The same store, if it is in a file.
    file: Option<SeenStore>,
}

impl Deref for Opened {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl Opened {
    fn in_file(store: SeenStore) -> Self {
        Self { store: store.boxed(), file: Some(store) }
    }

    /// Returns the store with all that a file has; `None` on a cluster.
    pub(crate) fn file(&self) -> Option<&SeenStore> {
        self.file.as_ref()
    }
}

impl Database {
    /// Opens the store, and makes it if it is a file that is missing. Says so: a volume that is not mounted looks like a
    /// first run.
    pub(crate) fn open(&self, config: Config) -> Result<Opened> {
        let place = self.place()?;
        match place.url() {
            Some(url) => self.on_cluster(&place, url, config),
            None => Ok(Opened::in_file(self.made(&place, config)?)),
        }
    }

    /// Opens a store that exists: see [`Place::open_existing`].
    pub(crate) fn open_existing(&self, config: Config) -> Result<Opened> {
        let place = self.place()?;
        match place.url() {
            Some(url) => self.on_cluster(&place, url, config),
            None => Ok(Opened::in_file(place.open_existing(config)?.scope(self.scope()))),
        }
    }

    /// Opens the store for reading; `None` if it is missing and need not exist.
    pub(crate) fn open_if_any(&self) -> Result<Option<Opened>> {
        match self.open_existing(Config::default().read_only(true)) {
            Ok(store) => Ok(Some(store)),
            Err(e) if kind(&*e) == Some(ErrorKind::NotFound) && !self.must_exist => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn place(&self) -> Result<Place> {
        Place::of(self.db.as_deref())
    }

    fn on_cluster(&self, place: &Place, url: &str, config: Config) -> Result<Opened> {
        let store = cluster::open(place, url, config)?.scope(self.scope());
        Ok(Opened { store, file: None })
    }

    fn made(&self, place: &Place, config: Config) -> Result<SeenStore> {
        let store = place.open(config.create(!self.must_exist))?;
        if store.was_created() {
            log::warn!("{}: there was no store here, so a new one was made", place.name());
        }
        Ok(store.scope(self.scope()))
    }

    pub(crate) fn scope(&self) -> &str {
        self.scope.as_deref().unwrap_or_default()
    }

    /// Says so if another kind of command also leaves ids in the scope that this command uses because none was named:
    /// the same id in the same scope is the same id, whichever command it comes from. A scope that was named is meant.
    /// Only a file knows which commands use it.
    pub(crate) fn announce(&self, store: &Opened, command: &str) {
        let Some(store) = store.file().filter(|_| self.scope.is_none()) else { return };
        match store.announce(command) {
            Ok(others) => warn_of(command, &others),
            // The command meets the same error where it matters, or does without this warning.
            Err(e) => log::debug!("{}", with_causes(&e)),
        }
    }

    /// Like [`announce`](Self::announce), for a command that may be used by hand on the ids of others: then it does not
    /// join them.
    pub(crate) fn announce_unless_shared(&self, store: &Opened, command: &str) {
        let Some(file) = store.file() else { return };
        let others = file.announced().unwrap_or_default();
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
    /// Opens the store for reading, without creating or changing any file. A missing file is an error.
    pub(crate) fn read(&self) -> Result<Reading> {
        let place = Place::of(self.db.as_deref())?;
        match place.url() {
            Some(url) => {
                let store = cluster::open(&place, url, Config::default())?;
                Ok(Reading::Cluster { store, name: place.name() })
            }
            None => Ok(Reading::File(place.read()?)),
        }
    }

    /// Returns where the file is, for what is about one.
    pub(crate) fn file(&self, command: &str) -> Result<Place> {
        Place::of(self.db.as_deref())?.in_a_file(command)
    }
}

/// Closes the store and logs a failure. Every answer is durable by now, so the command has not failed.
pub(crate) fn close(store: &Opened) {
    match store.file() {
        Some(file) => close_file(file),
        // Its figures would cost a walk over all its keys.
        None => warn_of_failure(store.close()),
    }
}

/// See [`close`].
pub(crate) fn close_file(store: &SeenStore) {
    if log::log_enabled!(log::Level::Info)
        && let Ok(stats) = store.stats()
    {
        log::info!("closed: {}", done(&stats.since_opened));
    }
    warn_of_failure(store.close());
}

fn warn_of_failure(closed: seen_store::Result<()>) {
    if let Err(e) = closed {
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
