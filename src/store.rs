//! The public verbs.
//!
//! Owns the handle: a scope, a TTL and a window over a shared engine. What always holds: a verb validates its
//! ids before anything is written, and decides under the write lock. Knows nothing of SQL.

mod claims;
mod entries;
mod maintenance;
mod marks;
mod restore;

pub use claims::{Claim, Lease, Ownership};
pub use entries::Entries;
pub use maintenance::Stats;
pub use marks::Verdict;
pub use restore::{Refused, Restored, SeedFile};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, Ttl, Window, read_environment};
use crate::decide::lifetime::Lifetime;
use crate::engine::purge::PurgeThread;
use crate::engine::{Engine, Owner};
use crate::error::Result;
use crate::id::{Id, Scope};
use crate::journal::Transaction;

/// How many ids `check_and_mark_all` and `seed` mark in one commit.
const IDS_PER_COMMIT: usize = 10_000;

/// A durable set of ids that were handled before.
///
/// A store is a cheap handle: clone it, send it to other threads, share it. All handles that were made
/// from one `open` use one connection and one index in memory. Several stores, in one process or in
/// many, may be open on one file; each sees the others' marks.
///
/// Close all stores and readers before forking, or fork and exec: a child that was forked while its parent
/// had any open, also one in memory, gets [`ErrorKind::Forked`](crate::ErrorKind::Forked) from every store
/// and reader that it inherited, and from every attempt to open one.
///
/// A [`Clock`](crate::Clock) and a logger must not call the store that reads or tells them: the store does both
/// with its locks held, and such a call waits for itself for ever. A logger that writes to a store leaves
/// out the messages whose targets begin with `seen_store`, or hands them to a thread of its own.
///
/// Closing happens when the last handle goes out of scope, or by [`close`](Self::close), which also
/// tells whether it worked.
///
/// ```
/// use seen_store::{SeenStore, Verdict};
/// # fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("seen.db");
/// let store = SeenStore::open(path)?;
/// assert_eq!(store.check_and_mark("incident-17")?, Verdict::New);
/// assert_eq!(store.check_and_mark("incident-17")?, Verdict::Duplicate);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SeenStore {
    pub(crate) engine: Arc<Owner>,
    pub(crate) scope: Scope,
    pub(crate) lifetime: Lifetime,
}

const _: () = {
    const fn managed_state<T: Send + Sync + Clone + UnwindSafe + RefUnwindSafe + 'static>() {}
    managed_state::<SeenStore>();
};

/// A panic leaves a store whole, also one in the caller's clock or ids: the locks know no poison, a
/// transaction that was under way is rolled back, and the index changes only after its commit.
impl UnwindSafe for SeenStore {}
/// See [`UnwindSafe`](#impl-UnwindSafe-for-SeenStore).
impl RefUnwindSafe for SeenStore {}

impl SeenStore {
    /// Opens the store at `path` with the default [`Config`]: a TTL of 7 days. Creates the file (mode
    /// 0600) and its folders (mode 0700) where they are missing.
    ///
    /// The file must have one name. A hard link or a bind mount of the single file gives it another, and a
    /// store that is opened by that has a log of its own: so mount the folder into a container, not the
    /// file, and use [`backup`](Self::backup) instead of hard links. A link that is made while a store is
    /// open is logged.
    ///
    /// Reads the whole file once to build the index: about 0.25 µs an id.
    ///
    /// # Errors
    ///
    /// Whatever cannot be a store is refused and left as it was:
    /// [`InvalidPath`](crate::ErrorKind::InvalidPath) for a folder, a symbolic link (also in the place of
    /// a side file), a file with a second name, `:memory:` or a `file:` URI; [`NotADatabase`](crate::ErrorKind::NotADatabase),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) (also an empty or missing database beside a log that
    /// holds data), [`WrongApplication`](crate::ErrorKind::WrongApplication) and
    /// [`NewerVersion`](crate::ErrorKind::NewerVersion) for what they say;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) and the other kinds of failure of the
    /// operating system; [`Busy`](crate::ErrorKind::Busy) when another process held the file for
    /// longer than the busy timeout, or at once when it holds it in exclusive mode.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Config::default())
    }

    /// Opens the store at `path` with settings of your own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for settings
    /// that make no sense; read-only also [`NotFound`](crate::ErrorKind::NotFound) and
    /// [`NeedsUpgrade`](crate::ErrorKind::NeedsUpgrade).
    pub fn open_with(path: impl AsRef<Path>, config: Config) -> Result<Self> {
        let (engine, expired) = Engine::open(path.as_ref(), config)?;
        let store = Self::from_engine(engine);
        let config = &store.engine.config;
        if expired > 0 && config.purge_on_open && !config.read_only {
            // What has expired is not seen anyway: a purge that fails is no reason not to open.
            if let Err(e) = store.engine.purge_expired() {
                log::warn!("{}: the purge at opening failed: {e}", store.engine.name);
            }
        }
        store.start_purge_thread()?;
        Ok(store)
    }

    fn start_purge_thread(&self) -> Result<()> {
        let config = &self.engine.config;
        if let (true, Some(interval)) = (config.purge_thread, config.purge_interval) {
            let thread = PurgeThread::start(self.engine.engine(), interval)?;
            *self.engine.purge_thread.lock() = Some(thread);
        }
        Ok(())
    }

    /// Opens the store that the environment describes.
    ///
    /// | variable | meaning | default |
    /// | --- | --- | --- |
    /// | `SEEN_DB_PATH` | the file | `data/seen_ids.sqlite` |
    /// | `SEEN_TTL_DAYS` | whole days that a mark lasts | 7 |
    /// | `SQLITE_SYNCHRONOUS` | `NORMAL` or `FULL` | `NORMAL` |
    /// | `SQLITE_CACHE_SIZE` | pages, KiB when negative | 10000 |
    ///
    /// `SQLITE_MMAP_SIZE` and `SEEN_STORE_CACHE_*` are accepted, have no effect, and are logged.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig), naming the
    /// variable and its value, where one does not parse.
    pub fn from_env() -> Result<Self> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let (path, config) = read_environment(|name| std::env::var_os(name), names)?;
        Self::open_with(path, config)
    }

    /// A store that lives as long as its handles, for tests of programs that use one. Two calls give
    /// two stores.
    ///
    /// # Errors
    ///
    /// Only when SQLite fails to allocate.
    pub fn in_memory() -> Result<Self> {
        Ok(Self::from_engine(Engine::in_memory(Config::default())?))
    }

    /// The same with settings of your own, such as a [`ManualClock`](crate::ManualClock).
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for settings that make no sense.
    pub fn in_memory_with(config: Config) -> Result<Self> {
        let store = Self::from_engine(Engine::in_memory(config)?);
        store.start_purge_thread()?;
        Ok(store)
    }

    fn from_engine(engine: Engine) -> Self {
        let lifetime = Lifetime { ttl: engine.config.ttl, window: engine.config.window };
        let scope = Scope::new("", &engine.hasher);
        Self { engine: Arc::new(Owner::new(engine)), scope, lifetime }
    }

    /// A handle on the same store for the ids of another scope. Ids of different scopes have nothing
    /// to do with each other. Replaces the scope of this handle, does not nest in it.
    ///
    /// A scope longer than 65,536 bytes is told by the verbs, as
    /// [`InvalidId`](crate::ErrorKind::InvalidId).
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        Self { scope: Scope::new(name.as_ref(), &self.engine.hasher), ..self.clone() }
    }

    /// A handle on the same store whose marks last another time.
    #[must_use]
    pub fn ttl(&self, ttl: impl Into<Ttl>) -> Self {
        let lifetime = Lifetime { ttl: ttl.into(), ..self.lifetime };
        Self { lifetime, ..self.clone() }
    }

    /// A handle on the same store with another [`Window`]: whether sightings keep an id seen.
    #[must_use]
    pub fn window(&self, window: Window) -> Self {
        let lifetime = Lifetime { window, ..self.lifetime };
        Self { lifetime, ..self.clone() }
    }

    /// Decides one small thing about an id under the write lock, together with whoever else comes at
    /// this moment.
    pub(crate) fn write_one<T: Send + 'static>(
        &self,
        id: Id<'_>,
        decide: impl FnMut(&Self, &mut Transaction<'_>, Id<'_>) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let mut direct = decide.clone();
        self.engine.write_one(
            |transaction| direct(self, transaction, id),
            || {
                let (store, bytes, key, mut decide) =
                    (self.clone(), id.bytes.to_vec(), id.key, decide);
                move |transaction: &mut Transaction<'_>| {
                    let id = Id { scope: store.scope.name(), bytes: &bytes, key };
                    decide(&store, transaction, id)
                }
            },
        )
    }

    /// Decides on many things, in one commit for each [`IDS_PER_COMMIT`] of them.
    pub(crate) fn in_batches<T, A>(
        &self,
        all: &[T],
        mut decide: impl FnMut(&mut Transaction<'_>, &[T]) -> Result<Vec<A>>,
    ) -> Result<Vec<A>> {
        self.engine.check_open()?;
        let mut answers = Vec::with_capacity(all.len());
        for batch in all.chunks(IDS_PER_COMMIT) {
            answers.extend(self.engine.write(|transaction| decide(transaction, batch))?);
        }
        Ok(answers)
    }
}

impl std::fmt::Debug for SeenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeenStore")
            .field("file", &self.engine.name)
            .field("scope", &self.scope.name())
            .field("ttl", &self.lifetime.ttl)
            .field("window", &self.lifetime.window)
            .finish_non_exhaustive()
    }
}
