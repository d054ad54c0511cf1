//! The handle on a store on a cluster.
//!
//! Owns what all handles share: the connections, the names of keys, the counts. What always holds: a verb is natively
//! asynchronous, and no thread waits for a server; every call ends within the handle's timeout. The verbs are in the
//! modules beside this one, and decide nothing: decisions are those of `seen-store`.

mod call;
mod claims;
mod lease;
mod listing;
mod maintenance;
mod marks;
mod once;
mod renewal;
mod restore;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use seen_store::backend::{Activities, Policy, error};
use seen_store::{Abandoned, Config, ErrorKind, Result, Ttl, Window};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::claims::AsyncClusterClaim;
pub use self::lease::AsyncClusterLease;
pub use self::listing::AsyncClusterEntries;
use self::renewal::Renewals;
use crate::counts::Counts;
use crate::keys::Keys;
use crate::nodes::{Deadline, Nodes};
use crate::url::ClusterUrl;

/// A store whose ids are on a Redis or Valkey Cluster, for async code.
///
/// A cheap handle, as that of [`SeenStore`](seen_store::SeenStore), with the same verbs and the same answers: see
/// [the crate](crate) for the differences. It belongs to the Tokio runtime in which it was opened: connections and
/// background work live there. That runtime must run while calls are made, wherever that is: without it no call ends.
///
/// A call whose future is dropped before it is ready was done, or was not:
///
/// | verb | dropped before it was ready |
/// | --- | --- |
/// | [`is_seen`](Self::is_seen), [`get`](Self::get) and what else only reads | nothing happened |
/// | [`claim`](Self::claim), [`claim_all`](Self::claim_all), [`once`](Self::once) | nothing happened, or the claim was granted and is released at once; the work of `once` is dropped where it stands |
/// | [`AsyncClusterLease::confirm`], `fail`, `release`, `renew`, and those with a [`Token`](seen_store::Token) | once it was polled, it is carried on to its end |
/// | [`mark_seen`](Self::mark_seen), [`forget`](Self::forget), [`resolve`](Self::resolve) | not sent, or done |
/// | [`check_and_mark`](Self::check_and_mark), [`observe`](Self::observe) | nothing happened, or the id is marked although no caller got [`New`](seen_store::Verdict::New): use [`claim`](Self::claim) where that matters |
/// | batches, [`remove`](Self::remove), [`restore`](Self::restore) | some ids were done, and others were not |
#[derive(Clone)]
pub struct AsyncClusterStore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) policy: Policy,
}

/// What all handles share.
pub(crate) struct Shared {
    nodes: Nodes,
    keys: Keys,
    counts: Counts,
    activities: Arc<Activities>,
    renewals: Renewals,
    /// Whether a write must reach replicas before it is answered.
    must_replicate: bool,
    /// Nothing begins any more; what ends claims goes on until it is closed.
    is_closing: AtomicBool,
    is_closed: AtomicBool,
    /// Is cancelled when closing is over.
    closed: CancellationToken,
    /// The process that opened it.
    process: u32,
    /// Where what is carried on runs when a future or a lease is dropped.
    runtime: Handle,
    tasks: TaskTracker,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // To close the sockets in a forked child would take them from the parent's poll.
            std::mem::forget(self.nodes.clone());
        }
    }
}

impl AsyncClusterStore {
    /// Opens the store at a URL, with the default settings: see [`open_with`](Self::open_with).
    ///
    /// # Errors
    ///
    /// Those of [`open_with`](Self::open_with).
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, Config::default()).await
    }

    /// Opens the store at a URL: see [the crate](crate#the-url).
    ///
    /// Of the settings, those apply that are not about a file: TTL, window, retention, attempts, receipts, holder, what
    /// becomes of abandoned claims, and [`busy_timeout`](Config::busy_timeout), within which each call ends unless the URL
    /// says otherwise (`timeout_ms`). The clock is that of the servers, not [`Config::clock`].
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) for a URL or a setting that makes no sense, for a server that is no
    /// cluster or too old, a certificate that is not accepted, or masters that all have fewer replicas than `min_replicas`;
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) for a wrong user or password;
    /// [`Unavailable`](ErrorKind::Unavailable) when no server answers within the timeout.
    ///
    /// # Panics
    ///
    /// In a runtime without I/O or timers: it has to be built with `enable_all`.
    pub async fn open_with(url: &str, config: Config) -> Result<Self> {
        let ClusterUrl { mut settings, namespace, name } = ClusterUrl::parse(url)?;
        let policy = Policy::new(name, config)?;
        let policy =
            settings.timeout.map_or(policy.clone(), |timeout| policy.busy_timeout(timeout));
        let runtime = Handle::try_current().map_err(|e| {
            let message = format!("{}: it is opened outside a Tokio runtime", policy.store_name());
            error(ErrorKind::InvalidConfig, message, Some(Box::new(e)))
        })?;
        let must_replicate = settings.min_replicas > 0;
        let activities = Arc::new(Activities::default());
        let groups = Arc::clone(&activities);
        settings.on_group = Some(Arc::new(move |calls| groups.add_group(calls)));
        let deadline = Deadline::after(policy.timeout());
        let nodes = Nodes::connect(settings, deadline).await;
        let nodes = nodes.map_err(|e| call::error_of(policy.store_name(), e))?;
        let store = Self {
            shared: Arc::new(Shared {
                nodes,
                keys: Keys::new(&namespace),
                counts: Counts::default(),
                activities,
                renewals: Renewals::default(),
                must_replicate,
                is_closing: AtomicBool::new(false),
                is_closed: AtomicBool::new(false),
                closed: CancellationToken::new(),
                process: std::process::id(),
                runtime,
                tasks: TaskTracker::new(),
            }),
            policy,
        };
        store.check_servers(deadline).await?;
        store.start_flushing();
        Ok(store)
    }

    fn with(&self, policy: Policy) -> Self {
        Self { shared: Arc::clone(&self.shared), policy }
    }

    /// Returns a handle on another scope: see [`SeenStore::scope`](seen_store::SeenStore::scope).
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        self.with(self.policy.scope(name.as_ref()))
    }

    /// Returns a handle with another TTL: see [`SeenStore::ttl`](seen_store::SeenStore::ttl).
    #[must_use]
    pub fn ttl(&self, ttl: impl Into<Ttl>) -> Self {
        self.with(self.policy.ttl(ttl.into()))
    }

    /// Returns a handle with another window: see [`SeenStore::window`](seen_store::SeenStore::window).
    #[must_use]
    pub fn window(&self, window: Window) -> Self {
        self.with(self.policy.window(window))
    }

    /// Returns a handle with another retention: see [`SeenStore::retention`](seen_store::SeenStore::retention).
    #[must_use]
    pub fn retention(&self, retention: impl Into<Option<Duration>>) -> Self {
        self.with(self.policy.retention(retention.into()))
    }

    /// Returns a handle whose abandoned claims have another fate: see
    /// [`SeenStore::abandoned`](seen_store::SeenStore::abandoned).
    #[must_use]
    pub fn abandoned(&self, abandoned: Abandoned) -> Self {
        self.with(self.policy.abandoned(abandoned))
    }

    /// Returns a handle whose leases renew themselves: see [`SeenStore::renewing`](seen_store::SeenStore::renewing). A task
    /// of the runtime renews them.
    #[must_use]
    pub fn renewing(&self, at_most: Duration) -> Self {
        self.with(self.policy.renewing(at_most))
    }

    /// Returns a handle whose claims wait: see [`SeenStore::waiting`](seen_store::SeenStore::waiting). They ask again, after
    /// 5 ms at first and 250 ms at last.
    #[must_use]
    pub fn waiting(&self, at_most: Duration) -> Self {
        self.with(self.policy.waiting(at_most))
    }

    /// Returns a handle whose calls end within this time: see
    /// [`SeenStore::busy_timeout`](seen_store::SeenStore::busy_timeout).
    #[must_use]
    pub fn busy_timeout(&self, busy_timeout: Duration) -> Self {
        self.with(self.policy.busy_timeout(busy_timeout))
    }
}

impl fmt::Debug for AsyncClusterStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncClusterStore")
            .field("url", &self.policy.store_name())
            .field("scope", &self.policy.scope_name())
            .finish_non_exhaustive()
    }
}
