//! The public verbs of a store.
//!
//! Owns the handle: a scope, a TTL and a window over a shared engine. What always holds: a verb validates its
//! ids before anything is written, and decides under the write lock. Knows nothing of SQL.

mod announced;
mod claims;
mod contract;
mod counted;
mod entries;
mod lease;
mod maintenance;
mod marks;
mod once;
mod replacement;
mod restore;
mod settle;
mod sight;

#[cfg(any(feature = "tokio", feature = "backend"))]
pub(crate) use claims::checked_lease;
pub use claims::{Claim, Known};
pub use contract::{Store, StoreExt};
#[cfg(any(feature = "tokio", feature = "backend"))]
pub(crate) use counted::end_of;
#[cfg(feature = "backend")]
pub(crate) use counted::{count_claim, event_of};
pub use entries::Entries;
#[cfg(feature = "backend")]
pub use lease::Granter;
pub use lease::{Failure, Lease};
pub use maintenance::Stats;
#[cfg(feature = "backend")]
pub(crate) use once::RENEWED_AT_MOST;
#[cfg(any(feature = "tokio", feature = "backend"))]
pub(crate) use once::in_task;
pub use once::{Once, OnceError};
#[cfg(feature = "backend")]
pub(crate) use restore::refused;
pub use restore::{LegacyFile, Refused, RestoreSummary};
#[cfg(feature = "tokio")]
pub(crate) use settle::is_large;
#[cfg(feature = "backend")]
pub(crate) use settle::{check_receipt, failing};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::time::Duration;

use crate::config::{Abandoned, Config, Ttl, Window, check_retention, read_environment};
use crate::decide::lifetime::Lifetime;
use crate::decide::verbs::Verbs;
use crate::engine::purge::PurgeThread;
use crate::engine::{Engine, Handle};
use crate::error::Result;
use crate::id::{Id, Key, Scope};
use crate::item::{Digest, Item};
use crate::journal::Transaction;
use crate::token::Token;

/// How many ids `check_and_mark_all` and `seed` mark in one commit.
const IDS_PER_COMMIT: usize = 10_000;

/// A durable set of ids that were handled before.
///
/// A store is a cheap handle: clone it, send it to other threads, share it. All handles that come from one
/// `open` use one connection and one index in memory. Several stores, in one process or in many, may be open
/// on one file; each sees the others' marks.
///
/// Close all stores and readers before forking, or fork and exec. A child that was forked while its parent
/// had one open, also one in memory, gets [`ErrorKind::Forked`](crate::ErrorKind::Forked) from every store
/// and reader that it inherited, and from every attempt to open one.
///
/// A [`Clock`](crate::Clock) or a logger must not call the store that calls it: the store calls both with its
/// locks held, so the second call would wait for ever. A logger that writes to a store must skip the messages
/// whose targets begin with `seen_store`, or pass them to a thread of its own.
///
/// Dropping the last handle closes the store. [`close`](Self::close) closes it too, and reports errors.
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
    pub(crate) engine: Handle,
    pub(crate) scope: Scope,
    pub(crate) lifetime: Lifetime,
    pub(crate) abandoned: Abandoned,
    /// For how long leases renew themselves.
    pub(crate) renewing: Option<Duration>,
    /// For how long a claim waits for the present holder.
    pub(crate) waiting: Duration,
}

const _: () = {
    const fn managed_state<T: Send + Sync + Clone + UnwindSafe + RefUnwindSafe + 'static>() {}
    managed_state::<SeenStore>();
};

/// A panic leaves a store usable, also a panic in the caller's clock or ids: the locks are not poisoned, a
/// running transaction is rolled back, and the index changes only after its commit.
impl UnwindSafe for SeenStore {}
/// See [`UnwindSafe`](#impl-UnwindSafe-for-SeenStore).
impl RefUnwindSafe for SeenStore {}

impl SeenStore {
    /// Opens the store at `path` with the default [`Config`]: a TTL of 7 days. Creates the file (mode 0600)
    /// and its folders (mode 0700) where they are missing.
    ///
    /// The file must have only one name. A hard link or a bind mount of the single file gives it a second
    /// name, and a store that is opened by that name uses another log. So mount the folder into a container,
    /// not the file, and use [`backup`](Self::backup) instead of hard links. A link that is made while a
    /// store is open is logged.
    ///
    /// Reads the end of the file, whatever its size; [`IndexMode`](crate::IndexMode) tells what becomes of the rest. The
    /// first store to open a file that a program without this index made, or one that is damaged, reads all of it,
    /// about 0.3 µs for each id.
    ///
    /// ```
    /// use seen_store::SeenStore;
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data/seen.db");
    /// let store = SeenStore::open(&path)?;
    /// store.mark_seen("incident-17")?;
    /// store.close()?;
    /// assert!(SeenStore::open(&path)?.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// A file that cannot be a store is refused and not changed:
    ///
    /// - [`InvalidPath`](crate::ErrorKind::InvalidPath) for a folder, a symbolic link (also at the name of a
    ///   side file), a file with a second name, `:memory:`, a URL, or a path that no shell has expanded, such as
    ///   `~/seen.db` or `$HOME/seen.db`, as Docker, systemd and cron hand it on (what follows `./` is taken literally:
    ///   `./~/seen.db`);
    /// - [`NotADatabase`](crate::ErrorKind::NotADatabase) for a file that is not a SQLite database;
    /// - [`Corrupt`](crate::ErrorKind::Corrupt) for a damaged file, also for an empty or missing database
    ///   beside a log that holds data, and for a [backup](Self::backup) that was copied over a store whose log is
    ///   still there (a plain copy of a store that was in use cannot be told from the store);
    /// - [`WrongApplication`](crate::ErrorKind::WrongApplication) for a database of another application;
    /// - [`NewerVersion`](crate::ErrorKind::NewerVersion) for a file of a newer version of this crate;
    /// - [`Busy`](crate::ErrorKind::Busy) when another process held the file for longer than the busy
    ///   timeout, or at once when it holds the file in exclusive mode;
    /// - [`FileReplaced`](crate::ErrorKind::FileReplaced) when other files took its place for longer than the busy
    ///   timeout;
    /// - [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    ///   [`StorageFull`](crate::ErrorKind::StorageFull), [`ReadOnly`](crate::ErrorKind::ReadOnly) or
    ///   [`Io`](crate::ErrorKind::Io) when the operating system fails a call;
    /// - [`UnsupportedSqlite`](crate::ErrorKind::UnsupportedSqlite) when the SQLite library is too old;
    /// - [`Forked`](crate::ErrorKind::Forked) in a child that was forked while a store or a reader was open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Config::default())
    }

    /// Opens the store at `path` with these settings.
    ///
    /// ```
    /// use seen_store::{Config, SeenStore};
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("seen.db");
    /// let config = Config::default().ttl(Duration::from_secs(3600)).exclusive(true);
    /// let store = SeenStore::open_with(path, config)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for settings
    /// that make no sense. A store that is not to be [created](Config::create), or read-only, also fails with
    /// [`NotFound`](crate::ErrorKind::NotFound) where there is no file, and with
    /// [`NotADatabase`](crate::ErrorKind::NotADatabase) where it is empty; a read-only one with
    /// [`NeedsUpgrade`](crate::ErrorKind::NeedsUpgrade) for a file of an older
    /// format.
    pub fn open_with(path: impl AsRef<Path>, config: Config) -> Result<Self> {
        let (engine, expired) = Engine::open(path.as_ref(), config)?;
        let store = Self::from_engine(engine);
        let config = &store.engine.config;
        if expired != Some(0) && config.purge_on_open && !config.read_only {
            let purged = match expired {
                Some(_) => store.engine.purge_expired().map(drop),
                None => store.engine.purge_oldest(),
            };
            // Expired entries are not seen in any case, so a failed purge is no reason to fail.
            if let Err(e) = purged {
                log::warn!(
                    file = store.engine.name.as_str(), error:% = e, error_kind = e.kind().word();
                    "{}: the purge at opening failed: {e}", store.engine.name
                );
            }
        }
        store.start_purge_thread()?;
        Ok(store)
    }

    fn start_purge_thread(&self) -> Result<()> {
        let config = &self.engine.config;
        if let (true, Some(interval)) = (config.purge_thread, config.purge_interval) {
            let thread = PurgeThread::start(&self.engine, interval)?;
            *self.engine.purge_thread.lock() = Some(thread);
        }
        Ok(())
    }

    /// Opens the store that environment variables describe: `SEEN_DB_PATH` names the file, and
    /// [`Config::from_env`] has the settings.
    ///
    /// Without `SEEN_DB_PATH`, the file is `data/seen_ids.sqlite` in the folder in which the program runs. The command
    /// `seen` has another default, `~/.local/share/seen/seen.db`: that is the store of a person's shell, and ids of a
    /// program would meet unrelated ones there. To let both use one store, set `SEEN_DB_PATH` for both.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`Config::from_env`].
    pub fn from_env() -> Result<Self> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let (path, config) = read_environment(|name| std::env::var_os(name), names)?;
        Self::open_with(path, config)
    }

    /// Opens a new store in memory, for tests of programs that use one. It is lost with its last handle. Each
    /// call opens another store.
    ///
    /// # Errors
    ///
    /// Fails only when SQLite cannot allocate memory, and with [`Forked`](crate::ErrorKind::Forked) as
    /// [`open`](Self::open) does.
    pub fn in_memory() -> Result<Self> {
        Ok(Self::from_engine(Engine::in_memory(Config::default())?))
    }

    /// Opens a new store in memory with these settings, such as a [`ManualClock`](crate::ManualClock).
    ///
    /// # Errors
    ///
    /// Those of [`in_memory`](Self::in_memory), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for
    /// settings that make no sense.
    pub fn in_memory_with(config: Config) -> Result<Self> {
        let store = Self::from_engine(Engine::in_memory(config)?);
        store.start_purge_thread()?;
        Ok(store)
    }

    fn from_engine(engine: Engine) -> Self {
        let Config { ttl, window, retention, .. } = engine.config;
        let lifetime = Lifetime { ttl, window, retention };
        let (scope, abandoned) = (Scope::new("", &engine.hasher), engine.config.abandoned);
        Self {
            engine: Handle::new(engine),
            scope,
            lifetime,
            abandoned,
            renewing: None,
            waiting: Duration::ZERO,
        }
    }

    /// Returns a handle on the same store for the ids of another scope. Equal ids in different scopes are
    /// different ids. The new scope replaces the scope of this handle and does not nest in it.
    ///
    /// With a scope longer than 65,536 bytes each verb fails with [`InvalidId`](crate::ErrorKind::InvalidId).
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        Self { scope: Scope::new(name.as_ref(), &self.engine.hasher), ..self.clone() }
    }

    /// Returns a handle on the same store whose marks last this long.
    #[must_use]
    pub fn ttl(&self, ttl: impl Into<Ttl>) -> Self {
        let lifetime = Lifetime { ttl: ttl.into(), ..self.lifetime };
        Self { lifetime, ..self.clone() }
    }

    /// Returns a handle on the same store with this [`Window`]: whether a sighting extends a mark.
    #[must_use]
    pub fn window(&self, window: Window) -> Self {
        let lifetime = Lifetime { window, ..self.lifetime };
        Self { lifetime, ..self.clone() }
    }

    /// Returns a handle on the same store that keeps what is known of an id for this long, counted from the mark as
    /// the TTL is. With `None`, the default, it is kept no longer than the id is seen.
    ///
    /// An id that is kept and no longer seen is [`Expired`](crate::State::Expired): [`get`](Self::get) returns its
    /// entry. When it comes again it is new, and its entry then tells of the windows before:
    /// [`Entry::history`](crate::Entry::history).
    /// [`purge_expired`](Self::purge_expired) removes it when its retention is over. An id that is kept takes as much
    /// memory and disk as one that is seen.
    ///
    /// With a retention that is shorter than the TTL each verb fails with
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig).
    ///
    /// ```
    /// use seen_store::{Config, ManualClock, SeenStore, Verdict};
    /// use std::{sync::Arc, time::Duration};
    /// # fn main() -> seen_store::Result<()> {
    /// let clock = Arc::new(ManualClock::default());
    /// let store = SeenStore::in_memory_with(Config::default().clock(clock.clone()))?;
    /// let day = Duration::from_secs(24 * 3600);
    /// let alerts = store.ttl(day).retention(30 * day);
    /// assert_eq!(alerts.check_and_mark("disk full")?, Verdict::New);
    /// clock.advance(3 * day);
    /// assert_eq!(alerts.check_and_mark("disk full")?, Verdict::New);
    /// assert_eq!(alerts.get("disk full")?.unwrap().history.unwrap().windows, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn retention(&self, retention: impl Into<Option<Duration>>) -> Self {
        let lifetime = Lifetime { retention: retention.into(), ..self.lifetime };
        Self { lifetime, ..self.clone() }
    }

    /// Returns a handle on the same store that decides so of claims which are [abandoned](Abandoned).
    ///
    /// ```
    /// use seen_store::{Abandoned, Claim, Config, ManualClock, Resolution, SeenStore};
    /// use std::{sync::Arc, time::Duration};
    /// # fn main() -> seen_store::Result<()> {
    /// let clock = Arc::new(ManualClock::default());
    /// let store = SeenStore::in_memory_with(Config::default().clock(clock.clone()))?;
    /// let payments = store.scope("payments").abandoned(Abandoned::Hold);
    /// let minute = Duration::from_secs(60);
    /// if let Claim::Granted(lease) = payments.claim("invoice-17", minute)? {
    ///     lease.into_token(); // The worker vanishes.
    /// }
    /// clock.advance(2 * minute);
    /// assert!(matches!(payments.claim("invoice-17", minute)?, Claim::Unresolved { .. }));
    /// payments.resolve("invoice-17", Resolution::Done)?;
    /// assert!(payments.is_seen("invoice-17"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn abandoned(&self, abandoned: Abandoned) -> Self {
        Self { abandoned, ..self.clone() }
    }

    /// Returns a handle on the same store whose leases renew themselves, each for at most this long after it was
    /// granted. A lease then ends only with its [`Lease`], with the process, or after that time: it can be short,
    /// so that a worker that dies is noticed soon, and the work may take long.
    ///
    /// One thread renews the leases of all handles of the store after a third of their length, up to 500 in one
    /// commit. [`Lease::into_token`] ends that. A lease that could not be renewed in time, such as one of a few
    /// milliseconds, is lost as any other that runs out.
    ///
    /// ```
    /// use seen_store::{Claim, SeenStore};
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// let hour = Duration::from_secs(3600);
    /// if let Claim::Granted(mut lease) = store.renewing(hour).claim("video-17", Duration::from_secs(10))? {
    ///     // Work that takes minutes.
    ///     lease.confirm()?;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn renewing(&self, at_most: Duration) -> Self {
        Self { renewing: Some(at_most), ..self.clone() }
    }

    /// Returns a handle on the same store whose [`claim`](Self::claim) waits for the present holder, or for the end of a
    /// retry delay, for at most this long before it answers [`InFlight`](Claim::InFlight). Batches do not wait.
    ///
    /// A waiter is woken when the claim ends in this process; claims of other processes it looks at every 50 ms (beyond 256
    /// ids that are waited for, more rarely: 10,000 ids each every 2 s).
    /// Of several waiters for an id in this process, the one that came first asks first, except that one whose time
    /// is over asks a last time. A waiter does not wait longer than asked for, even if the holder never ends; its
    /// last question may wait for other processes like any other claim, for up to the busy timeout.
    ///
    /// ```
    /// use seen_store::{Claim, SeenStore};
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// let minute = Duration::from_secs(60);
    /// let Claim::Granted(mut lease) = store.claim("invoice-17", minute)? else { panic!() };
    /// lease.confirm_with("4711")?; // In another thread or process, within half a minute.
    /// let Claim::Seen(known) = store.waiting(minute / 2).claim("invoice-17", minute)? else { panic!() };
    /// assert_eq!(known.receipt()?, Some(b"4711".to_vec()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn waiting(&self, at_most: Duration) -> Self {
        Self { waiting: at_most, ..self.clone() }
    }

    /// Returns a handle on the same store whose calls wait this long for other stores and processes that hold the
    /// file, before they fail with [`Busy`](crate::ErrorKind::Busy). Default: [`Config::busy_timeout`]. With zero a
    /// call tries once.
    ///
    /// A bot that would rather send an alert twice than late uses a short timeout. The time is counted for each commit
    /// and each page of a call: a batch, a listing or a purge may take longer. Waits for other callers of this store
    /// do not count; they take no longer than what those do. The store's threads keep the timeout of the [`Config`],
    /// and so do the renewals of leases.
    ///
    /// ```
    /// use seen_store::{ErrorKind, SeenStore, Verdict};
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// let alerts = store.busy_timeout(Duration::from_millis(200));
    /// match alerts.check_and_mark("incident-17") {
    ///     Ok(Verdict::New) => println!("sends it"),
    ///     Ok(_) => {}
    ///     Err(e) if e.kind() == ErrorKind::Busy => println!("sends it all the same"),
    ///     Err(e) => return Err(e),
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn busy_timeout(&self, busy_timeout: Duration) -> Self {
        Self { engine: self.engine.waiting_at_most(busy_timeout), ..self.clone() }
    }

    /// Returns how this handle decides.
    pub(crate) fn verbs(&self) -> Verbs<'_> {
        let engine = &self.engine;
        Verbs {
            store: &engine.name,
            config: &engine.config,
            lifetime: self.lifetime,
            abandoned: self.abandoned,
            holder: &engine.holder,
            tokens: &engine.tokens,
        }
    }

    /// Validates an item, and that this handle's settings make sense together.
    #[inline]
    pub(crate) fn id<'a>(&'a self, item: &'a Item<'_>) -> Result<Id<'a>> {
        if self.lifetime.retention.is_some() {
            check_retention(self.lifetime.retention, self.lifetime.ttl)?;
        }
        self.scope.item(item)
    }

    /// Validates items: see [`id`](Self::id).
    pub(crate) fn ids<'a>(&'a self, items: &'a [Item<'_>]) -> Result<Vec<Id<'a>>> {
        items.iter().map(|item| self.id(item)).collect()
    }

    /// Runs one small decision about an id under the write lock, in one commit with those of other callers
    /// that come at the same time.
    pub(crate) fn write_one<T: Send + 'static>(
        &self,
        id: Id<'_>,
        decide: impl FnMut(&Self, &mut Transaction<'_>, Id<'_>) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        self.engine.look_ahead([id.key].into_iter())?;
        let mut direct = decide.clone();
        let answer = self.engine.write_one(
            |transaction| direct(self, transaction, id),
            || {
                let (owned, mut decide) = (OwnedId::new(self, id), decide);
                move |transaction: &mut Transaction<'_>| {
                    decide(&owned.store, transaction, owned.id())
                }
            },
        );
        answer.inspect_err(|e| self.engine.counters.add_error(e))
    }

    /// Runs a decision on many items, in one commit for each [`IDS_PER_COMMIT`] of them. `key` returns the id of one.
    pub(crate) fn in_batches<T, A>(
        &self,
        all: &[T],
        key: impl Fn(&T) -> Key,
        mut decide: impl FnMut(&mut Transaction<'_>, &[T]) -> Result<Vec<A>>,
    ) -> Result<Vec<A>> {
        self.engine.check_open()?;
        let mut answers = Vec::with_capacity(all.len());
        for batch in all.chunks(IDS_PER_COMMIT) {
            self.engine.look_ahead(batch.iter().map(&key))?;
            answers.extend(self.engine.write(|transaction| decide(transaction, batch))?);
        }
        Ok(answers)
    }
}

/// An id and the handle that it was given to, for a decision that another thread may make.
pub(crate) struct OwnedId {
    pub(crate) store: SeenStore,
    bytes: Vec<u8>,
    key: Key,
    digest: Option<Digest>,
    retry_of: Option<Token>,
}

impl OwnedId {
    pub(crate) fn new(store: &SeenStore, id: Id<'_>) -> Self {
        let Id { bytes, key, digest, retry_of, .. } = id;
        Self { store: store.clone(), bytes: bytes.to_vec(), key, digest, retry_of }
    }

    pub(crate) fn id(&self) -> Id<'_> {
        let Self { store, bytes, key, digest, retry_of } = self;
        Id { scope: store.scope.name(), bytes, key: *key, digest: *digest, retry_of: *retry_of }
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
