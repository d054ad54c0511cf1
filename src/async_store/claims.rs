//! The verbs that claim an id, or change a claim by its token, for tasks.
//!
//! Owns the answer to a claim as a task gets it. What always holds: a claim that is granted to a task that has gone is
//! released.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

use super::marks::owned;
use super::{AsyncLease, AsyncSeenStore};
use crate::config::Ttl;
use crate::decide::claim::Change;
use crate::decide::verbs::{Confirmed, Decided, Ownership, Resolution};
use crate::engine::task_queue::Tasks;
use crate::engine::waiters::Turn;
use crate::entry::Entry;
use crate::error::Result;
use crate::id::Id;
use crate::item::Item;
use crate::store::{Claim, Failure, Known, OwnedId, SeenStore, checked_lease, end_of, is_large};
use crate::token::Token;

/// The answer of [`AsyncSeenStore::claim`]: a [`Claim`] with an [`AsyncLease`] and what is [known](AsyncKnown).
pub type AsyncClaim = Claim<AsyncLease, AsyncKnown>;

/// What is known of an id whose claim was refused because it is seen: see [`Known`].
#[derive(Clone)]
pub struct AsyncKnown {
    known: Known,
    store: SeenStore,
    // Dropped last, as in a lease.
    tasks: Arc<Tasks>,
}

impl AsyncKnown {
    /// Returns the entry of the id, as [`Known::entry`] does.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn entry(&self) -> Result<Option<Entry>> {
        let (known, tasks) = (self.known.clone(), Arc::clone(&self.tasks));
        let store = AsyncSeenStore { store: self.store.clone(), tasks };
        store.look(move |store| known.entry_by(store)).await
    }

    /// Returns the receipt that was stored when the id was confirmed.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn receipt(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.entry().await?.and_then(|entry| entry.receipt))
    }
}

impl fmt::Debug for AsyncKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncKnown").finish_non_exhaustive()
    }
}

impl AsyncSeenStore {
    /// Claims the id for this task until the lease ends, and returns whether it was granted: see [`SeenStore::claim`].
    ///
    /// When the future is dropped, or the lease without a verb that ends it, the claim is released, by the store's
    /// thread.
    ///
    /// ```
    /// use seen_store::{AsyncSeenStore, Claim};
    /// use std::time::Duration;
    /// # async fn send() -> Result<u64, std::io::Error> { Ok(4711) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> seen_store::Result<()> {
    /// # let store = AsyncSeenStore::in_memory()?;
    /// match store.claim("incident-17", Duration::from_secs(60)).await? {
    ///     Claim::Granted(mut lease) => match send().await {
    ///         Ok(message) => lease.confirm_with(message.to_string()).await?,
    ///         Err(e) => lease.fail(e.to_string()).await?,
    ///     },
    ///     Claim::InFlight { .. } => {} // another worker has it
    ///     Claim::Seen(known) => {      // sent before
    ///         println!("message {:?}", known.receipt().await?);
    ///     }
    ///     _ => {}                      // given up, or to be resolved
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::claim`].
    pub async fn claim<'a>(&self, id: impl Into<Item<'a>>, lease: Duration) -> Result<AsyncClaim> {
        let item = id.into();
        consume_budget().await;
        let (id, terms) = (self.store.id(&item)?, checked_lease(lease)?);
        // Apart, so that the future of a claim that is refused at once is small.
        let claim = if self.store.waiting.is_zero() {
            self.claim_now(id, lease, terms).await?
        } else {
            Box::pin(self.claim_waiting(id, lease, terms)).await?
        };
        self.store.count_claim(&claim, AsyncLease::previous);
        if !self.store.waiting.is_zero() && !claim.is_final() {
            let owned = OwnedId::new(&self.store, id);
            self.look(move |store| store.count_waiter(owned.id())).await?;
        }
        Ok(claim)
    }

    async fn claim_now(&self, id: Id<'_>, length: Duration, lease: Ttl) -> Result<AsyncClaim> {
        if let Some(slot) = self.store.duplicate_at_once(id)? {
            let claim = self.store.to_claim(id, Decided::Seen(slot), length)?;
            return Ok(adopt(claim, &self.store, Arc::clone(&self.tasks)));
        }
        let tasks = Arc::clone(&self.tasks);
        let decided = self.decide_unless(
            id,
            |store: &SeenStore, id: Id<'_>| Ok(store.duplicate_in_index(id)?.map(Decided::Seen)),
            move |store, transaction, id| store.claim_one(transaction, id, lease),
            move |store, id, decided| {
                Ok(adopt(store.to_claim(id, decided?, length)?, store, tasks))
            },
        );
        Box::pin(decided).await
    }

    /// Asks until the answer is not to be waited for, or the time is over.
    async fn claim_waiting(&self, id: Id<'_>, length: Duration, lease: Ttl) -> Result<AsyncClaim> {
        let engine = &self.store.engine;
        engine.check_process()?;
        let woken = Arc::new(Notify::new());
        let (tasks, task) = (Arc::clone(self.tasks.queue()), Arc::clone(&woken));
        let wake = move || tasks.wake_later(&task);
        let place = engine.waiters.join(id.key, self.store.waiting, wake);
        loop {
            if let Turn::Wait(most) = place.turn() {
                self.tasks.sleep(&woken, most).await?;
                continue;
            }
            let claim = self.claim_now(id, length, lease).await?;
            match place.turn_after_answer() {
                Some(most) if !claim.is_final() => self.tasks.sleep(&woken, most).await?,
                _ => return Ok(claim),
            }
        }
    }

    /// Claims many ids and returns an answer for each id: see [`SeenStore::claim_all`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::claim_all`].
    pub async fn claim_all<'a, I>(&self, ids: I, lease: Duration) -> Result<Vec<AsyncClaim>>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let (items, tasks) = (owned(ids), Arc::clone(&self.tasks));
        self.long(move |store| {
            let claims = store.claim_all(items, lease)?;
            Ok(claims.into_iter().map(|claim| adopt(claim, store, Arc::clone(&tasks))).collect())
        })
        .await
    }

    /// Confirms a claim by its token: see [`SeenStore::confirm`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm`](crate::Lease::confirm).
    pub async fn confirm<'a>(&self, id: impl Into<Item<'a>>, token: &Token) -> Result<()> {
        self.confirm_claim(&id.into(), *token, None).await.map(drop)
    }

    /// Confirms a claim by its token and stores a receipt: see [`SeenStore::confirm_with`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm_with`](crate::Lease::confirm_with).
    pub async fn confirm_with<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        receipt: impl AsRef<[u8]>,
    ) -> Result<()> {
        let receipt = receipt.as_ref().to_vec();
        self.confirm_claim(&id.into(), *token, Some(receipt)).await.map(drop)
    }

    pub(super) async fn confirm_claim(
        &self,
        item: &Item<'_>,
        token: Token,
        receipt: Option<Vec<u8>>,
    ) -> Result<Confirmed> {
        let id = self.store.id(item)?;
        self.store.check_receipt(receipt.as_deref())?;
        let is_large = is_large(receipt.as_deref());
        self.end(
            id,
            is_large,
            move |store, transaction, id| {
                store.confirm_in(transaction, id, token, receipt.as_deref())
            },
            |store, id, confirmed| store.confirmed(id, confirmed?),
        )
        .await
    }

    /// Releases a claim by its token: see [`SeenStore::release`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::release`](crate::Lease::release).
    pub async fn release<'a>(&self, id: impl Into<Item<'a>>, token: &Token) -> Result<()> {
        self.change_claim(&id.into(), *token, Change::Release).await.map(drop)
    }

    /// Records a failed attempt by the token of its claim: see [`SeenStore::fail`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::fail`](crate::Lease::fail).
    pub async fn fail<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        failure: impl Into<Failure>,
    ) -> Result<()> {
        let change = self.store.failing(failure.into());
        self.change_claim(&id.into(), *token, change).await.map(drop)
    }

    /// Renews a lease by its token: see [`SeenStore::renew`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::renew`](crate::Lease::renew).
    pub async fn renew<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        lease: Duration,
    ) -> Result<()> {
        let change = Change::Renew { lease: checked_lease(lease)? };
        self.change_claim(&id.into(), *token, change).await.map(drop)
    }

    /// Changes a claim and returns when its lease, or the delay after a failure, ends, in unix milliseconds.
    pub(super) async fn change_claim(
        &self,
        item: &Item<'_>,
        token: Token,
        change: Change,
    ) -> Result<i64> {
        let (id, end) = (self.store.id(item)?, end_of(&change));
        self.end(
            id,
            false,
            move |store, transaction, id| store.change(transaction, id, token, &change),
            move |store, id, until_ms| store.changed(id, end, until_ms?),
        )
        .await
    }

    /// Confirms many claims, and returns for each whether it was still held: see [`SeenStore::confirm_all`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::confirm_all`].
    pub async fn confirm_all<'a, I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        let claims = owned_claims(claims);
        self.long(move |store| store.confirm_all(claims)).await
    }

    /// Releases many claims, and returns for each whether it was still held: see [`SeenStore::release_all`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::release_all`].
    pub async fn release_all<'a, I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        let claims = owned_claims(claims);
        self.long(move |store| store.release_all(claims)).await
    }

    /// Renews many claims, and returns for each whether it was still held: see [`SeenStore::renew_all`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::renew_all`].
    pub async fn renew_all<'a, I, B>(&self, claims: I, lease: Duration) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        let claims = owned_claims(claims);
        self.long(move |store| store.renew_all(claims, lease)).await
    }

    /// Decides on an id whose last attempt is over without success: see [`SeenStore::resolve`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn resolve<'a>(
        &self,
        id: impl Into<Item<'a>>,
        resolution: Resolution,
    ) -> Result<bool> {
        let item = id.into();
        self.mark(&item, move |store: &SeenStore, transaction, id| {
            store.resolve_in(transaction, id, resolution)
        })
        .await
    }
}

fn owned_claims<'a, B: Into<Item<'a>>>(
    claims: impl IntoIterator<Item = (B, Token)>,
) -> Vec<(Item<'static>, Token)> {
    claims.into_iter().map(|(id, token)| (id.into().into_owned(), token)).collect()
}

/// Returns the answer to a claim as a task gets it.
fn adopt(claim: Claim, store: &SeenStore, tasks: Arc<Tasks>) -> AsyncClaim {
    let store = store.clone();
    match claim {
        Claim::Granted(lease) => Claim::Granted(AsyncLease::new(lease, store, tasks)),
        Claim::Seen(known) => Claim::Seen(AsyncKnown { known, store, tasks }),
        Claim::InFlight { until, holder } => Claim::InFlight { until, holder },
        Claim::Unresolved { since, holder } => Claim::Unresolved { since, holder },
        Claim::GivenUp { attempts } => Claim::GivenUp { attempts },
    }
}
