//! The verbs of a store for tasks: they never block the thread that they are called on.
//!
//! Owns the async handle, and which verb goes which way: a hit in memory is answered at once; a small call goes through
//! the queue of `engine::task_queue`; a long one runs on a thread of the runtime for blocking work. What always holds: a
//! verb decides what the store's verb of its name decides, by the same code. Knows nothing of SQL.

mod blocking;
mod call;
mod claims;
mod entries;
mod lease;
mod maintenance;
mod marks;
mod once;

pub use claims::{AsyncClaim, AsyncKnown};
pub use entries::AsyncEntries;
pub use lease::AsyncLease;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::blocking::blocking;
use crate::config::{Abandoned, Config, Ttl, Window};
use crate::engine::task_queue::Tasks;
use crate::error::Result;
use crate::store::SeenStore;

/// A [`SeenStore`] for tasks: the same verbs as `async fn`, with the same items, answers and errors.
///
/// A cheap handle, as a [`SeenStore`] is: clone it, send it to other tasks, make handles with other settings of it. Made
/// by [`open`](Self::open), or `From` a [`SeenStore`], and turned back by `From`; handles of both kinds on one store
/// work side by side. What a verb does, costs and fails with is said at the verb of the same name of [`SeenStore`]; here
/// is said what differs.
///
/// # What blocks
///
/// No verb blocks the thread of the runtime that polls it, also not on a current-thread runtime.
///
/// - A hit in memory (a duplicate of [`check_and_mark`](Self::check_and_mark) or [`claim`](Self::claim), a "seen" of
///   [`is_seen`](Self::is_seen), without a version or payload) is answered at once, in the task, if the store has looked into
///   the file within the last 100 ms.
/// - Other small calls go to a thread of the store. What waits there at one time shares one commit, up to 256
///   calls.
/// - Long calls (batches, listings, purges and removals, counts, `stats`, `verify`, `backup`, `compact`, `checkpoint`,
///   `restore`, `announce`) run by
///   [`spawn_blocking`](tokio::task::spawn_blocking), up to four at once for a store. They need a Tokio runtime; all else
///   works with any executor.
///
/// While the queue is full ([`Config::async_queue`]), callers wait for a place, in the order in which they came; lookups have
/// places of their own. What ends a claim does not wait for a place. A future that is kept and not polled keeps its turn:
/// poll it or drop it.
///
/// The chapter [In async code](crate::guide#in-async-code) of the guide has times, tests, and how to size the queue.
///
/// # What cancelling means
///
/// A future that is dropped before it is ready leaves no claim behind, poisons nothing, and never undoes what another
/// caller was told. Its own call was done, or was not:
///
/// | verb | dropped before it was ready |
/// | --- | --- |
/// | [`is_seen`](Self::is_seen), [`get`](Self::get) and what else only reads | nothing happened |
/// | [`claim`](Self::claim), [`claim_all`](Self::claim_all), [`once`](Self::once) | nothing happened, or the claim was granted and is released at once; that counts as an attempt. Of `once`, the work is dropped where it stands, and the next attempt is told that this one was [released](crate::Previous::Released) |
/// | [`AsyncLease::confirm`], [`fail`](AsyncLease::fail), [`release`](AsyncLease::release), [`renew`](AsyncLease::renew), and the verbs with a [`Token`](crate::Token) | once it was polled, it is carried on to its end |
/// | [`mark_seen`](Self::mark_seen), [`forget`](Self::forget), [`resolve`](Self::resolve) | not done if it still waited for a place in the queue, otherwise carried on |
/// | [`check_and_mark`](Self::check_and_mark), [`observe`](Self::observe) | nothing happened, or the id is marked although no caller got [`New`](crate::Verdict::New): as after a crash between the mark and the send. Use [`claim`](Self::claim) where that matters |
/// | batches and other long calls | not begun, or carried on to the end |
/// | [`close`](Self::close) | carried on |
///
/// # Closing
///
/// [`close`](Self::close) does what is in the queue, closes the store for all handles of both kinds, and reports errors.
/// When the last handle is dropped, the store's thread does what is in the queue and closes the store a little later; a
/// program that ends before that leaves the log beside the file, and leases that were dropped last run out by
/// themselves. Dropping the runtime loses nothing that was acknowledged.
///
/// ```
/// use seen_store::{AsyncSeenStore, Verdict};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("seen.db");
/// let store = AsyncSeenStore::open(path).await?;
/// assert_eq!(store.check_and_mark("incident-17").await?, Verdict::New);
/// assert_eq!(store.check_and_mark("incident-17").await?, Verdict::Duplicate);
/// store.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AsyncSeenStore {
    // Dropped first: the other one still has a handle, so this is never the last.
    store: SeenStore,
    tasks: Arc<Tasks>,
}

const _: () = {
    const fn managed_state<T: Send + Sync + Clone + UnwindSafe + RefUnwindSafe + 'static>() {}
    managed_state::<AsyncSeenStore>();
};

/// A panic leaves a store usable: see [`SeenStore`](SeenStore#impl-UnwindSafe-for-SeenStore).
impl UnwindSafe for AsyncSeenStore {}
/// See [`UnwindSafe`](#impl-UnwindSafe-for-AsyncSeenStore).
impl RefUnwindSafe for AsyncSeenStore {}

impl From<SeenStore> for AsyncSeenStore {
    /// Returns an async handle with the settings of this one. All async handles of a store share a queue and a thread,
    /// which starts with the first of them. If it cannot start, each call that needs it says why.
    fn from(store: SeenStore) -> Self {
        Self { tasks: store.engine.tasks(), store }
    }
}

impl From<AsyncSeenStore> for SeenStore {
    /// Returns a handle with the settings of this one, whose verbs block.
    fn from(store: AsyncSeenStore) -> Self {
        store.store
    }
}

impl AsyncSeenStore {
    /// Opens the store at `path` with the default [`Config`]: see [`SeenStore::open`]. Needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Config::default()).await
    }

    /// Opens the store at `path` with these settings: see [`SeenStore::open_with`]. Needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::open_with`].
    pub async fn open_with(path: impl AsRef<Path>, config: Config) -> Result<Self> {
        let path = path.as_ref().to_owned();
        blocking(move || SeenStore::open_with(path, config).map(Self::from))?.await
    }

    /// Opens the store that environment variables describe: see [`SeenStore::from_env`]. Needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::from_env`].
    pub async fn from_env() -> Result<Self> {
        blocking(|| SeenStore::from_env().map(Self::from))?.await
    }

    /// Opens a new store in memory, for tests: see [`SeenStore::in_memory`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::in_memory`].
    pub fn in_memory() -> Result<Self> {
        SeenStore::in_memory().map(Self::from)
    }

    /// Opens a new store in memory with these settings: see [`SeenStore::in_memory_with`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::in_memory_with`].
    pub fn in_memory_with(config: Config) -> Result<Self> {
        SeenStore::in_memory_with(config).map(Self::from)
    }

    fn with(&self, store: SeenStore) -> Self {
        Self { store, tasks: Arc::clone(&self.tasks) }
    }

    /// Returns a handle for the ids of another scope: see [`SeenStore::scope`].
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        self.with(self.store.scope(name))
    }

    /// Returns a handle whose marks last this long: see [`SeenStore::ttl`].
    #[must_use]
    pub fn ttl(&self, ttl: impl Into<Ttl>) -> Self {
        self.with(self.store.ttl(ttl))
    }

    /// Returns a handle with this [`Window`]: see [`SeenStore::window`].
    #[must_use]
    pub fn window(&self, window: Window) -> Self {
        self.with(self.store.window(window))
    }

    /// Returns a handle that keeps what is known of an id for this long: see [`SeenStore::retention`].
    #[must_use]
    pub fn retention(&self, retention: impl Into<Option<Duration>>) -> Self {
        self.with(self.store.retention(retention))
    }

    /// Returns a handle that decides so of abandoned claims: see [`SeenStore::abandoned`].
    #[must_use]
    pub fn abandoned(&self, abandoned: Abandoned) -> Self {
        self.with(self.store.abandoned(abandoned))
    }

    /// Returns a handle whose leases renew themselves: see [`SeenStore::renewing`].
    #[must_use]
    pub fn renewing(&self, at_most: Duration) -> Self {
        self.with(self.store.renewing(at_most))
    }

    /// Returns a handle whose [`claim`](Self::claim) waits for the present holder: see [`SeenStore::waiting`].
    ///
    /// A task that waits costs no thread and no place in the queue. Threads and tasks that wait for one id ask in the
    /// order in which they came.
    #[must_use]
    pub fn waiting(&self, at_most: Duration) -> Self {
        self.with(self.store.waiting(at_most))
    }

    /// Returns a handle whose calls wait this long for other processes: see [`SeenStore::busy_timeout`].
    ///
    /// The time of a small call counts while another process is in the way, from when the call came into the queue. The wait
    /// for a place in the queue does not count.
    #[must_use]
    pub fn busy_timeout(&self, busy_timeout: Duration) -> Self {
        self.with(self.store.busy_timeout(busy_timeout))
    }
}

impl std::fmt::Debug for AsyncSeenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AsyncSeenStore").field(&self.store).finish()
    }
}
