//! The store for threads: each verb blocks until the async one has its answer.
//!
//! Owns the runtime behind the handles, of one thread, which watches the sockets and runs what is carried on. What always
//! holds: the calling thread itself runs its call, so no other thread waits for a server; a verb may be called anywhere, also
//! on a worker of another runtime, which it then blocks. Decides nothing.

mod wait;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use seen_store::backend::{Granter, Policy, error};
use seen_store::{
    Abandoned, Claim, Config, Entry, ErrorKind, Failure, Filter, Item, Observation, Once,
    OnceError, Ownership, Resolution, RestoreSummary, Result, Stats, Store, StoreExt, Token, Ttl,
    Verdict, Window,
};
use tokio::runtime::{Builder, Runtime};

use self::wait::{also_at_the_end_of_a_thread, wait};
use crate::store::{AsyncClusterClaim, AsyncClusterEntries, AsyncClusterStore};

/// A store whose ids are on a Redis or Valkey Cluster.
///
/// A cheap handle with the verbs of [`SeenStore`](seen_store::SeenStore), which promise the same but for the differences that
/// [the crate](crate) lists. In async code use [`AsyncClusterStore`].
#[derive(Clone)]
pub struct ClusterStore {
    store: AsyncClusterStore,
    // Dropped last.
    runtime: Arc<Background>,
}

/// The runtime of a store.
struct Background {
    runtime: Option<Runtime>,
    /// The process whose threads it has.
    process: u32,
}

impl Drop for Background {
    fn drop(&mut self) {
        // May happen on a worker of another runtime, which must not be blocked.
        match self.runtime.take() {
            Some(runtime) if std::process::id() == self.process => runtime.shutdown_background(),
            // In a forked child it is the parent's.
            runtime => std::mem::forget(runtime),
        }
    }
}

impl UnwindSafe for ClusterStore {}
impl RefUnwindSafe for ClusterStore {}

impl ClusterStore {
    /// Opens the store at a URL, with the default settings.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::open_with`].
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(url, Config::default())
    }

    /// Opens the store at a URL: see [`AsyncClusterStore::open_with`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::open_with`].
    pub fn open_with(url: &str, config: Config) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("seen-cluster")
            .enable_all()
            .build()
            .map_err(|e| {
                let message = "cannot start the thread of a store on a cluster".to_owned();
                error(ErrorKind::Io, format!("{message}: {e}"), Some(Box::new(e)))
            })?;
        let background =
            Arc::new(Background { runtime: Some(runtime), process: std::process::id() });
        let store = wait(background.handle(), AsyncClusterStore::open_with(url, config))?;
        Ok(Self { store, runtime: background })
    }

    fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        wait(self.runtime.handle(), call)
    }

    fn with(&self, store: AsyncClusterStore) -> Self {
        Self { store, runtime: Arc::clone(&self.runtime) }
    }

    fn adopt(&self, claim: AsyncClusterClaim) -> Claim {
        match claim {
            Claim::Granted(lease) => {
                let id = lease.id().to_vec();
                let (granted, until_ms, renews) = lease.into_granted();
                let store = Box::new(self.clone());
                Claim::Granted(Policy::lease(granted, &id, store, until_ms, renews))
            }
            Claim::InFlight { until, holder } => Claim::InFlight { until, holder },
            Claim::Seen(known) => Claim::Seen(known),
            Claim::Unresolved { since, holder } => Claim::Unresolved { since, holder },
            Claim::GivenUp { attempts } => Claim::GivenUp { attempts },
            _ => unreachable!("all answers of this version are above"),
        }
    }
}

impl Background {
    fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.as_ref().expect("present until it is dropped").handle()
    }
}

/// The verbs that wait for the async verb of the same name, each as a method and as that of [`Store`].
macro_rules! verbs {
    (
        items: $($(#[$of_item:meta])* fn $one:ident($($one_arg:ident: $one_type:ty),*) -> $one_answer:ty;)+
        lists: $($(#[$of_list:meta])* fn $many:ident($($many_arg:ident: $many_type:ty),*) -> $many_answer:ty;)+
        claims: $($(#[$of_claims:meta])* fn $ends:ident($($ends_arg:ident: $ends_type:ty),*) -> $ends_answer:ty;)+
        others: $($(#[$of_other:meta])* fn $other:ident($($other_arg:ident: $other_type:ty),*) -> $other_answer:ty;)+
        handles: $($(#[$of_handle:meta])* fn $handle:ident($setting:ident: $setting_type:ty);)+
    ) => {
        impl ClusterStore {
            $($(#[$of_item])*
            pub fn $one<'a>(&self, id: impl Into<Item<'a>> $(, $one_arg: $one_type)*) -> $one_answer {
                self.wait(self.store.$one(id $(, $one_arg)*))
            })+
            $($(#[$of_list])*
            pub fn $many<'a, I>(&self, ids: I $(, $many_arg: $many_type)*) -> $many_answer
            where
                I: IntoIterator<Item: Into<Item<'a>>>,
            {
                self.wait(self.store.$many(ids $(, $many_arg)*))
            })+
            $($(#[$of_claims])*
            pub fn $ends<'a, I, B>(&self, claims: I $(, $ends_arg: $ends_type)*) -> $ends_answer
            where
                I: IntoIterator<Item = (B, Token)>,
                B: Into<Item<'a>>,
            {
                self.wait(self.store.$ends(claims $(, $ends_arg)*))
            })+
            $($(#[$of_other])*
            pub fn $other(&self $(, $other_arg: $other_type)*) -> $other_answer {
                self.wait(self.store.$other($($other_arg),*))
            })+
            $($(#[$of_handle])*
            #[must_use]
            pub fn $handle(&self, $setting: $setting_type) -> Self {
                self.with(self.store.$handle($setting))
            })+
        }

        impl Store for ClusterStore {
            $(fn $one(&self, item: Item<'_> $(, $one_arg: $one_type)*) -> $one_answer {
                ClusterStore::$one(self, item $(, $one_arg)*)
            })+
            $(fn $many(&self, items: &[Item<'_>] $(, $many_arg: $many_type)*) -> $many_answer {
                ClusterStore::$many(self, items.iter().cloned() $(, $many_arg)*)
            })+
            $(fn $ends(&self, claims: &[(Item<'_>, Token)] $(, $ends_arg: $ends_type)*) -> $ends_answer {
                ClusterStore::$ends(self, claims.iter().cloned() $(, $ends_arg)*)
            })+
            $(fn $other(&self $(, $other_arg: $other_type)*) -> $other_answer {
                ClusterStore::$other(self $(, $other_arg)*)
            })+
            $(fn $handle(&self, $setting: $setting_type) -> Box<dyn Store> {
                Box::new(ClusterStore::$handle(self, $setting))
            })+

            fn claim(&self, item: Item<'_>, lease: Duration) -> Result<Claim> {
                ClusterStore::claim(self, item, lease)
            }

            fn claim_all(&self, items: &[Item<'_>], lease: Duration) -> Result<Vec<Claim>> {
                ClusterStore::claim_all(self, items.iter().cloned(), lease)
            }

            fn confirm_with(&self, item: Item<'_>, token: &Token, receipt: &[u8]) -> Result<()> {
                ClusterStore::confirm_with(self, item, token, receipt)
            }

            fn fail(&self, item: Item<'_>, token: &Token, failure: Failure) -> Result<()> {
                ClusterStore::fail(self, item, token, failure)
            }

            fn entries(&self, filter: Filter) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
                Box::new(ClusterStore::entries(self, filter))
            }

            fn restore(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<RestoreSummary> {
                ClusterStore::restore(self, entries)
            }

            fn ttl(&self, ttl: Ttl) -> Box<dyn Store> {
                Box::new(ClusterStore::ttl(self, ttl))
            }

            fn retention(&self, retention: Option<Duration>) -> Box<dyn Store> {
                Box::new(ClusterStore::retention(self, retention))
            }

            fn renewed_for(&self) -> Option<Duration> {
                self.store.policy.renewed_for()
            }

            fn boxed(&self) -> Box<dyn Store> {
                Box::new(self.clone())
            }
        }
    };
}

verbs! {
    items:
    /// See [`AsyncClusterStore::is_seen`].
    fn is_seen() -> bool;
    /// See [`AsyncClusterStore::try_is_seen`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::try_is_seen`].
    fn try_is_seen() -> Result<bool>;
    /// See [`AsyncClusterStore::mark_seen`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::mark_seen`].
    fn mark_seen() -> Result<()>;
    /// See [`AsyncClusterStore::mark_seen_at`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::mark_seen`].
    fn mark_seen_at(seen_at: SystemTime) -> Result<()>;
    /// See [`AsyncClusterStore::check_and_mark`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::check_and_mark`].
    fn check_and_mark() -> Result<Verdict>;
    /// See [`AsyncClusterStore::observe`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::check_and_mark`].
    fn observe() -> Result<Observation>;
    /// See [`AsyncClusterStore::forget`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::mark_seen`].
    fn forget() -> Result<bool>;
    /// See [`AsyncClusterStore::confirm`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm`].
    fn confirm(token: &Token) -> Result<()>;
    /// See [`AsyncClusterStore::release`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm`].
    fn release(token: &Token) -> Result<()>;
    /// See [`AsyncClusterStore::renew`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm`].
    fn renew(token: &Token, lease: Duration) -> Result<()>;
    /// See [`AsyncClusterStore::resolve`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::mark_seen`].
    fn resolve(resolution: Resolution) -> Result<bool>;
    /// See [`AsyncClusterStore::get`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::try_is_seen`].
    fn get() -> Result<Option<Entry>>;

    lists:
    /// See [`AsyncClusterStore::check_and_mark_all`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::check_and_mark_all`].
    fn check_and_mark_all() -> Result<Vec<Verdict>>;
    /// See [`AsyncClusterStore::seed`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::mark_seen`].
    fn seed() -> Result<u64>;

    claims:
    /// See [`AsyncClusterStore::confirm_all`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm_all`].
    fn confirm_all() -> Result<Vec<Ownership>>;
    /// See [`AsyncClusterStore::release_all`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm_all`].
    fn release_all() -> Result<Vec<Ownership>>;
    /// See [`AsyncClusterStore::renew_all`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm_all`].
    fn renew_all(lease: Duration) -> Result<Vec<Ownership>>;

    others:
    /// See [`AsyncClusterStore::count`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::try_is_seen`].
    fn count(filter: Filter) -> Result<u64>;
    /// See [`AsyncClusterStore::remove`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::mark_seen`].
    fn remove(filter: Filter) -> Result<u64>;
    /// Returns 0: see [`AsyncClusterStore::purge_expired`].
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) after [`close`](Self::close).
    fn purge_expired() -> Result<u64>;
    /// See [`AsyncClusterStore::cleanup_old_entries`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::mark_seen`].
    fn cleanup_old_entries(older_than: Duration) -> Result<u64>;
    /// See [`AsyncClusterStore::stats`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::try_is_seen`].
    fn stats() -> Result<Stats>;
    /// See [`AsyncClusterStore::close`].
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) when it is closed already.
    fn close() -> Result<()>;

    handles:
    /// Returns a handle on another scope: see [`SeenStore::scope`](seen_store::SeenStore::scope).
    fn scope(name: &str);
    /// Returns a handle with another window: see [`SeenStore::window`](seen_store::SeenStore::window).
    fn window(window: Window);
    /// Returns a handle whose abandoned claims have another fate: see
    /// [`SeenStore::abandoned`](seen_store::SeenStore::abandoned).
    fn abandoned(abandoned: Abandoned);
    /// Returns a handle whose leases renew themselves: see [`SeenStore::renewing`](seen_store::SeenStore::renewing).
    fn renewing(at_most: Duration);
    /// Returns a handle whose claims wait: see [`SeenStore::waiting`](seen_store::SeenStore::waiting).
    fn waiting(at_most: Duration);
    /// Returns a handle whose calls end within this time: see
    /// [`SeenStore::busy_timeout`](seen_store::SeenStore::busy_timeout).
    fn busy_timeout(busy_timeout: Duration);
}

impl ClusterStore {
    /// Returns a handle with another TTL: see [`SeenStore::ttl`](seen_store::SeenStore::ttl).
    #[must_use]
    pub fn ttl(&self, ttl: impl Into<Ttl>) -> Self {
        self.with(self.store.ttl(ttl))
    }

    /// Returns a handle with another retention: see [`SeenStore::retention`](seen_store::SeenStore::retention).
    #[must_use]
    pub fn retention(&self, retention: impl Into<Option<Duration>>) -> Self {
        self.with(self.store.retention(retention))
    }

    /// Restores entries that another store has listed: see [`AsyncClusterStore::restore`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::restore`].
    pub fn restore<I>(&self, entries: I) -> Result<RestoreSummary>
    where
        I: IntoIterator<Item = Entry>,
    {
        self.wait(self.store.restore(entries))
    }

    /// Claims the id: see [`AsyncClusterStore::claim`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::claim`].
    pub fn claim<'a>(&self, id: impl Into<Item<'a>>, lease: Duration) -> Result<Claim> {
        Ok(self.adopt(self.wait(self.store.claim(id, lease))?))
    }

    /// Claims many ids: see [`AsyncClusterStore::claim_all`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::claim_all`].
    pub fn claim_all<'a, I>(&self, ids: I, lease: Duration) -> Result<Vec<Claim>>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let claims = self.wait(self.store.claim_all(ids, lease))?;
        Ok(claims.into_iter().map(|claim| self.adopt(claim)).collect())
    }

    /// Confirms a claim and stores a receipt: see [`AsyncClusterStore::confirm_with`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm_with`].
    pub fn confirm_with<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        receipt: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.wait(self.store.confirm_with(id, token, receipt))
    }

    /// Gives a claim up with a reason: see [`AsyncClusterStore::fail`].
    ///
    /// # Errors
    ///
    /// Those of [`AsyncClusterStore::confirm`].
    pub fn fail<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        failure: impl Into<Failure>,
    ) -> Result<()> {
        self.wait(self.store.fail(id, token, failure))
    }

    /// Lists what the filter selects: see [`AsyncClusterStore::entries`].
    pub fn entries(&self, filter: Filter) -> ClusterEntries {
        ClusterEntries { entries: self.store.entries(filter), store: self.clone() }
    }

    /// Does the work once for the id: see [`SeenStore::once`](seen_store::SeenStore::once).
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::once`](seen_store::SeenStore::once).
    pub fn once<'a, T: AsRef<[u8]>, E: fmt::Display>(
        &self,
        id: impl Into<Item<'a>>,
        lease: Duration,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<Once<T>, OnceError<E>> {
        StoreExt::once(self, id, lease, work)
    }
}

/// A listing of entries: see [`ClusterStore::entries`]. Ends after the first error.
#[must_use = "a listing reads nothing until it is iterated"]
pub struct ClusterEntries {
    entries: AsyncClusterEntries,
    // Dropped last.
    store: ClusterStore,
}

impl Iterator for ClusterEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let Self { entries, store } = self;
        store.wait(entries.next())
    }
}

impl Granter for ClusterStore {
    fn confirm(&self, id: &[u8], token: &Token, receipt: Option<&[u8]>) -> Result<bool> {
        self.wait(self.store.confirm_claim(&Item::from(id), *token, receipt))
    }

    fn release(&self, id: &[u8], token: &Token) -> Result<()> {
        // A lease may be dropped by a destructor.
        also_at_the_end_of_a_thread(|| ClusterStore::release(self, id, token))
    }

    fn fail(&self, id: &[u8], token: &Token, failure: Failure) -> Result<()> {
        ClusterStore::fail(self, id, token, failure)
    }

    fn renew(&self, id: &[u8], token: &Token, lease: Duration) -> Result<i64> {
        self.wait(self.store.end_claim(&Item::from(id), *token, Policy::prolonging(lease)?))
    }

    fn is_held(&self, id: &[u8], token: &Token) -> Result<bool> {
        self.wait(self.store.is_held(&Item::from(id), *token))
    }

    fn stop_renewing(&self, token: &Token) {
        self.store.stop_renewing(*token);
    }

    fn name_and_scope(&self) -> (&str, &str) {
        (self.store.policy.store_name(), self.store.policy.scope_name())
    }
}

impl fmt::Debug for ClusterStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterStore")
            .field("url", &self.store.policy.store_name())
            .field("scope", &self.store.policy.scope_name())
            .finish_non_exhaustive()
    }
}
