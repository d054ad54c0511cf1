//! The verbs of marks for tasks.

use std::time::SystemTime;

use tokio::task::coop::consume_budget;

use super::AsyncSeenStore;
use super::call::{IfGone, no_look};
use crate::clock::to_ms;
use crate::decide::verbs::{Observation, Verdict};
use crate::error::Result;
use crate::id::Id;
use crate::item::Item;
use crate::journal::Transaction;
use crate::store::{OwnedId, SeenStore};

impl AsyncSeenStore {
    /// Returns true when the id was marked and has not expired, and false on any error: see [`SeenStore::is_seen`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::AsyncSeenStore::in_memory()?;
    /// assert!(!store.is_seen("incident-17").await);
    /// store.mark_seen("incident-17").await?;
    /// assert!(store.is_seen("incident-17").await);
    /// # Ok(()) }
    /// ```
    pub async fn is_seen<'a>(&self, id: impl Into<Item<'a>>) -> bool {
        let is_seen = self.try_is_seen(id).await;
        self.store.or_not_seen(is_seen)
    }

    /// Like [`is_seen`](Self::is_seen), but returns errors: see [`SeenStore::try_is_seen`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub async fn try_is_seen<'a>(&self, id: impl Into<Item<'a>>) -> Result<bool> {
        let item = id.into();
        consume_budget().await;
        let id = self.store.id(&item)?;
        if let Some(is_seen) = self.store.has_seen_at_once(id)? {
            return Ok(is_seen);
        }
        let owned = OwnedId::new(&self.store, id);
        // Apart, so that the future of a hit is small.
        Box::pin(self.look(move |store| store.has_seen(owned.id()))).await
    }

    /// Marks the id as seen now: see [`SeenStore::mark_seen`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn mark_seen<'a>(&self, id: impl Into<Item<'a>>) -> Result<()> {
        let item = id.into();
        self.mark(&item, |store, transaction, id| {
            store.mark(transaction, id, transaction.now_ms).map(drop)
        })
        .await
    }

    /// Marks the id as seen at `seen_at`: see [`SeenStore::mark_seen_at`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn mark_seen_at<'a>(
        &self,
        id: impl Into<Item<'a>>,
        seen_at: SystemTime,
    ) -> Result<()> {
        let (item, seen_at_ms) = (id.into(), to_ms(seen_at));
        self.mark(&item, move |store, transaction, id| {
            store.mark(transaction, id, seen_at_ms).map(drop)
        })
        .await
    }

    /// Marks the id unless it is seen, and returns which it was: see [`SeenStore::check_and_mark`]. Of any number of tasks,
    /// threads and processes, exactly one gets [`Verdict::New`].
    ///
    /// ```
    /// use seen_store::Verdict;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::AsyncSeenStore::in_memory()?;
    /// assert_eq!(store.check_and_mark("incident-17").await?, Verdict::New);
    /// assert_eq!(store.check_and_mark("incident-17").await?, Verdict::Duplicate);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn check_and_mark<'a>(&self, id: impl Into<Item<'a>>) -> Result<Verdict> {
        let item = id.into();
        consume_budget().await;
        let id = self.store.id(&item)?;
        let verdict = match self.store.duplicate_at_once(id)? {
            Some(_) => Verdict::Duplicate,
            // Apart, so that the future of a duplicate is small.
            None => Box::pin(self.check(id)).await?,
        };
        self.store.count_verdict(verdict);
        Ok(verdict)
    }

    async fn check(&self, id: Id<'_>) -> Result<Verdict> {
        let look = |store: &SeenStore, id: Id<'_>| {
            Ok(store.duplicate_in_index(id)?.map(|_| Verdict::Duplicate))
        };
        self.decide_unless(id, look, SeenStore::check, |_, _, verdict| verdict).await
    }

    /// Decides as [`check_and_mark`](Self::check_and_mark), and tells what was known of the id before: see
    /// [`SeenStore::observe`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn observe<'a>(&self, id: impl Into<Item<'a>>) -> Result<Observation> {
        let item = id.into();
        let id = self.store.id(&item)?;
        let observed =
            self.decide(id, IfGone::LeftOut, no_look, SeenStore::observe_one, |_, _, it| it);
        let observation = observed.await?;
        self.store.count_verdict(observation.verdict);
        Ok(observation)
    }

    /// Marks those of the ids that are not seen, and returns a verdict for each id: see
    /// [`SeenStore::check_and_mark_all`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::check_and_mark_all`].
    pub async fn check_and_mark_all<'a, I>(&self, ids: I) -> Result<Vec<Verdict>>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let items = owned(ids);
        self.long(move |store| store.check_and_mark_all(items)).await
    }

    /// Marks all ids and returns the number of those that were not seen before: see [`SeenStore::seed`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::seed`].
    pub async fn seed<'a, I>(&self, ids: I) -> Result<u64>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let items = owned(ids);
        self.long(move |store| store.seed(items)).await
    }

    /// Removes the mark and any claim of the id, and returns true when there was one: see [`SeenStore::forget`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::mark_seen`].
    pub async fn forget<'a>(&self, id: impl Into<Item<'a>>) -> Result<bool> {
        let item = id.into();
        self.mark(&item, |_, transaction, id| transaction.forget(id)).await
    }

    /// Changes what is known of an id, whatever that is.
    pub(super) async fn mark<T: Send + 'static>(
        &self,
        item: &Item<'_>,
        decide: impl FnMut(&SeenStore, &mut Transaction<'_>, Id<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let id = self.store.id(item)?;
        self.decide(id, IfGone::Done, no_look, decide, |_, _, done| done).await
    }
}

/// Returns the items of a batch, for a thread that outlives the caller.
pub(super) fn owned<'a>(ids: impl IntoIterator<Item: Into<Item<'a>>>) -> Vec<Item<'static>> {
    ids.into_iter().map(|id| id.into().into_owned()).collect()
}
