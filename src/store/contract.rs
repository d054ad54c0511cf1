//! What all stores share, as a trait: a store in a file, in memory, and on a cluster.
//!
//! Owns the list of the verbs that make sense on each of them. What always holds: it is object-safe, so that a bot takes
//! `&dyn Store`, and each method is the verb of the same name on [`SeenStore`], where it is described. Decides nothing.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::once::run_once;
use super::{Claim, Failure, Once, OnceError, RestoreSummary, SeenStore, Stats};
use crate::config::{Abandoned, Ttl, Window};
use crate::decide::verbs::{Observation, Ownership, Resolution, Verdict};
use crate::entry::{Entry, Filter};
use crate::error::Result;
use crate::item::Item;
use crate::token::Token;

/// The verbs that every store has, whatever it keeps its ids in: a file, memory, or a Redis or Valkey Cluster (crate
/// `seen-cluster`).
///
/// Each method is the verb of [`SeenStore`] with the same name, and promises the same, but for the exceptions that the other
/// store's documentation lists. A bot that takes `&dyn Store` runs on any of them:
///
/// ```
/// use seen_store::{SeenStore, Store, StoreExt, Verdict};
/// use std::time::Duration;
/// fn alert(store: &dyn Store, incident: &str) -> seen_store::Result<bool> {
///     let alerts = store.scope("alerts").ttl(Duration::from_secs(86_400).into());
///     Ok(alerts.check_and_mark(incident.into())? == Verdict::New)
/// }
/// # fn main() -> seen_store::Result<()> {
/// let store = SeenStore::in_memory()?;
/// assert!(alert(&store, "incident-17")?);
/// assert!(!alert(&store, "incident-17")?);
/// # Ok(()) }
/// ```
///
/// [`StoreExt`] has what a trait object cannot have.
#[expect(clippy::missing_errors_doc, reason = "those of the verbs that are linked")]
pub trait Store: Send + Sync + fmt::Debug {
    /// See [`SeenStore::is_seen`].
    fn is_seen(&self, item: Item<'_>) -> bool;
    /// See [`SeenStore::try_is_seen`].
    fn try_is_seen(&self, item: Item<'_>) -> Result<bool>;
    /// See [`SeenStore::mark_seen`].
    fn mark_seen(&self, item: Item<'_>) -> Result<()>;
    /// See [`SeenStore::mark_seen_at`].
    fn mark_seen_at(&self, item: Item<'_>, seen_at: SystemTime) -> Result<()>;
    /// See [`SeenStore::check_and_mark`].
    fn check_and_mark(&self, item: Item<'_>) -> Result<Verdict>;
    /// See [`SeenStore::check_and_mark_all`].
    fn check_and_mark_all(&self, items: &[Item<'_>]) -> Result<Vec<Verdict>>;
    /// See [`SeenStore::observe`].
    fn observe(&self, item: Item<'_>) -> Result<Observation>;
    /// See [`SeenStore::seed`].
    fn seed(&self, items: &[Item<'_>]) -> Result<u64>;
    /// See [`SeenStore::forget`].
    fn forget(&self, item: Item<'_>) -> Result<bool>;

    /// See [`SeenStore::claim`].
    fn claim(&self, item: Item<'_>, lease: Duration) -> Result<Claim>;
    /// See [`SeenStore::claim_all`].
    fn claim_all(&self, items: &[Item<'_>], lease: Duration) -> Result<Vec<Claim>>;
    /// See [`SeenStore::confirm`].
    fn confirm(&self, item: Item<'_>, token: &Token) -> Result<()>;
    /// See [`SeenStore::confirm_with`].
    fn confirm_with(&self, item: Item<'_>, token: &Token, receipt: &[u8]) -> Result<()>;
    /// See [`SeenStore::confirm_all`].
    fn confirm_all(&self, claims: &[(Item<'_>, Token)]) -> Result<Vec<Ownership>>;
    /// See [`SeenStore::release`].
    fn release(&self, item: Item<'_>, token: &Token) -> Result<()>;
    /// See [`SeenStore::release_all`].
    fn release_all(&self, claims: &[(Item<'_>, Token)]) -> Result<Vec<Ownership>>;
    /// See [`SeenStore::fail`].
    fn fail(&self, item: Item<'_>, token: &Token, failure: Failure) -> Result<()>;
    /// See [`SeenStore::renew`].
    fn renew(&self, item: Item<'_>, token: &Token, lease: Duration) -> Result<()>;
    /// See [`SeenStore::renew_all`].
    fn renew_all(&self, claims: &[(Item<'_>, Token)], lease: Duration) -> Result<Vec<Ownership>>;
    /// See [`SeenStore::resolve`].
    fn resolve(&self, item: Item<'_>, resolution: Resolution) -> Result<bool>;

    /// See [`SeenStore::get`].
    fn get(&self, item: Item<'_>) -> Result<Option<Entry>>;
    /// See [`SeenStore::entries`].
    fn entries(&self, filter: Filter) -> Box<dyn Iterator<Item = Result<Entry>> + '_>;
    /// See [`SeenStore::count`].
    fn count(&self, filter: Filter) -> Result<u64>;
    /// See [`SeenStore::remove`].
    fn remove(&self, filter: Filter) -> Result<u64>;
    /// See [`SeenStore::restore`].
    fn restore(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<RestoreSummary>;
    /// See [`SeenStore::purge_expired`].
    fn purge_expired(&self) -> Result<u64>;
    /// See [`SeenStore::cleanup_old_entries`].
    fn cleanup_old_entries(&self, older_than: Duration) -> Result<u64>;
    /// See [`SeenStore::stats`].
    fn stats(&self) -> Result<Stats>;
    /// See [`SeenStore::close`].
    fn close(&self) -> Result<()>;

    /// See [`SeenStore::scope`].
    fn scope(&self, name: &str) -> Box<dyn Store>;
    /// See [`SeenStore::ttl`].
    fn ttl(&self, ttl: Ttl) -> Box<dyn Store>;
    /// See [`SeenStore::window`].
    fn window(&self, window: Window) -> Box<dyn Store>;
    /// See [`SeenStore::retention`].
    fn retention(&self, retention: Option<Duration>) -> Box<dyn Store>;
    /// See [`SeenStore::abandoned`].
    fn abandoned(&self, abandoned: Abandoned) -> Box<dyn Store>;
    /// See [`SeenStore::renewing`].
    fn renewing(&self, at_most: Duration) -> Box<dyn Store>;
    /// See [`SeenStore::waiting`].
    fn waiting(&self, at_most: Duration) -> Box<dyn Store>;
    /// See [`SeenStore::busy_timeout`]. On a cluster: how long a call may take altogether.
    fn busy_timeout(&self, busy_timeout: Duration) -> Box<dyn Store>;

    /// Returns for how long the leases of this handle renew themselves; `None` if they do not.
    fn renewed_for(&self) -> Option<Duration>;
    /// Returns another handle like this one, on the same store.
    fn boxed(&self) -> Box<dyn Store>;
}

/// What every store has besides, and a trait object cannot: verbs with a closure.
pub trait StoreExt: Store {
    /// Does the work once for the id, and gives all callers its answer: see [`SeenStore::once`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::once`].
    fn once<'a, T: AsRef<[u8]>, E: fmt::Display>(
        &self,
        id: impl Into<Item<'a>>,
        lease: Duration,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<Once<T>, OnceError<E>> {
        run_once(self, &id.into(), lease, work)
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

/// The methods of [`Store`] that hand an item and other arguments on to the verb of the same name.
macro_rules! forward {
    ($(fn $verb:ident(item $(, $argument:ident: $type:ty)*) -> $answer:ty;)+) => {
        $(fn $verb(&self, item: Item<'_>, $($argument: $type),*) -> $answer {
            SeenStore::$verb(self, item, $($argument),*)
        })+
    };
    ($(fn $verb:ident(all $list:ident: $lists:ty $(, $argument:ident: $type:ty)*) -> $answer:ty;)+) => {
        $(fn $verb(&self, $list: $lists, $($argument: $type),*) -> $answer {
            SeenStore::$verb(self, $list.iter().cloned(), $($argument),*)
        })+
    };
    ($(fn $verb:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        $(fn $verb(&self, $($argument: $type),*) -> $answer {
            SeenStore::$verb(self, $($argument),*)
        })+
    };
    ($(handle $setting:ident($argument:ident: $type:ty);)+) => {
        $(fn $setting(&self, $argument: $type) -> Box<dyn Store> {
            Box::new(SeenStore::$setting(self, $argument))
        })+
    };
}

impl Store for SeenStore {
    forward! {
        fn is_seen(item) -> bool;
        fn try_is_seen(item) -> Result<bool>;
        fn mark_seen(item) -> Result<()>;
        fn mark_seen_at(item, seen_at: SystemTime) -> Result<()>;
        fn check_and_mark(item) -> Result<Verdict>;
        fn observe(item) -> Result<Observation>;
        fn forget(item) -> Result<bool>;
        fn claim(item, lease: Duration) -> Result<Claim>;
        fn confirm(item, token: &Token) -> Result<()>;
        fn confirm_with(item, token: &Token, receipt: &[u8]) -> Result<()>;
        fn release(item, token: &Token) -> Result<()>;
        fn fail(item, token: &Token, failure: Failure) -> Result<()>;
        fn renew(item, token: &Token, lease: Duration) -> Result<()>;
        fn resolve(item, resolution: Resolution) -> Result<bool>;
        fn get(item) -> Result<Option<Entry>>;
    }
    forward! {
        fn check_and_mark_all(all items: &[Item<'_>]) -> Result<Vec<Verdict>>;
        fn seed(all items: &[Item<'_>]) -> Result<u64>;
        fn claim_all(all items: &[Item<'_>], lease: Duration) -> Result<Vec<Claim>>;
        fn confirm_all(all claims: &[(Item<'_>, Token)]) -> Result<Vec<Ownership>>;
        fn release_all(all claims: &[(Item<'_>, Token)]) -> Result<Vec<Ownership>>;
        fn renew_all(all claims: &[(Item<'_>, Token)], lease: Duration) -> Result<Vec<Ownership>>;
    }
    forward! {
        fn count(filter: Filter) -> Result<u64>;
        fn remove(filter: Filter) -> Result<u64>;
        fn purge_expired() -> Result<u64>;
        fn cleanup_old_entries(older_than: Duration) -> Result<u64>;
        fn stats() -> Result<Stats>;
        fn close() -> Result<()>;
    }
    forward! {
        handle scope(name: &str);
        handle ttl(ttl: Ttl);
        handle window(window: Window);
        handle retention(retention: Option<Duration>);
        handle abandoned(abandoned: Abandoned);
        handle renewing(at_most: Duration);
        handle waiting(at_most: Duration);
        handle busy_timeout(busy_timeout: Duration);
    }

    fn entries(&self, filter: Filter) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        Box::new(SeenStore::entries(self, filter))
    }

    fn restore(&self, entries: &mut dyn Iterator<Item = Entry>) -> Result<RestoreSummary> {
        SeenStore::restore(self, entries)
    }

    fn renewed_for(&self) -> Option<Duration> {
        self.renewing
    }

    fn boxed(&self) -> Box<dyn Store> {
        Box::new(self.clone())
    }
}
