//! The verbs of marks.

use std::collections::HashSet;
use std::time::SystemTime;

use seen_store::backend::Policy;
use seen_store::{Item, Observation, Result, Token, Verdict};

use super::AsyncClusterStore;
use crate::attempt::{Basis, IfUnchanged, Manner};

/// The manner of a verb whose decision tells by the token whether this call has written.
const CHECKING: Manner<Verdict> =
    Manner { is_repeated: |verdict| is_own(*verdict), ..Manner::plain() };

fn is_own(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::New | Verdict::Changed)
}

/// The manner of a verb that may be done twice, and whose second time finds nothing to do.
pub(super) fn repeatable<T>() -> Manner<T> {
    Manner { is_repeated: |_| true, if_unchanged: IfUnchanged::Done, ..Manner::plain() }
}

impl AsyncClusterStore {
    /// Returns the token of the call, and the item that says so.
    fn called<'a>(&self, item: impl Into<Item<'a>>) -> (Item<'a>, Token) {
        let item = item.into();
        let token = item.retried().unwrap_or_else(|| self.policy.make_token());
        (item.retry_of(token), token)
    }

    /// Returns the token of the call, which each item without one of its own gets. Of items that have the same id and the
    /// same token the first alone can have been marked by this call, or by the one that it repeats.
    fn called_all<'a>(&self, items: Vec<Item<'a>>) -> (Vec<Item<'a>>, Token) {
        let first = items.first().and_then(Item::retried);
        let is_of_one_call = items.iter().all(|item| item.retried() == first);
        let token = first.filter(|_| is_of_one_call).unwrap_or_else(|| self.policy.make_token());
        let mut known = HashSet::new();
        let called = items.into_iter().map(|item| {
            let token = item.retried().unwrap_or(token);
            let is_first = known.insert((item.id().to_vec(), token));
            item.retry_of(Some(token).filter(|_| is_first))
        });
        (called.collect(), token)
    }

    /// Returns true when the id was marked and has not expired, and false on any error: see
    /// [`SeenStore::is_seen`](seen_store::SeenStore::is_seen).
    pub async fn is_seen<'a>(&self, id: impl Into<Item<'a>>) -> bool {
        self.try_is_seen(id).await.unwrap_or_else(|e| {
            self.shared.activities.add_failed_open();
            let (store, scope) = (self.policy.store_name(), self.policy.scope_name());
            log::warn!(
                store = store, scope = scope, error:% = e;
                "{store}: answering \"not seen\" because of an error: {e}"
            );
            false
        })
    }

    /// Like [`is_seen`](Self::is_seen), and tells an error from "not seen".
    ///
    /// One `GET`, on the master of the id.
    ///
    /// # Errors
    ///
    /// [`InvalidId`](seen_store::ErrorKind::InvalidId); [`Unavailable`](seen_store::ErrorKind::Unavailable) when the cluster
    /// gives no answer within the timeout; [`Closed`](seen_store::ErrorKind::Closed).
    pub async fn try_is_seen<'a>(&self, id: impl Into<Item<'a>>) -> Result<bool> {
        let item = id.into();
        let (record, now_ms) = self.record(&item).await?;
        self.policy.is_seen(&record, &item, now_ms)
    }

    /// Marks the id as seen: see [`SeenStore::mark_seen`](seen_store::SeenStore::mark_seen).
    ///
    /// One command for a new id, two for one that is known.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen); [`OutcomeUnknown`](seen_store::ErrorKind::OutcomeUnknown) when the answer
    /// was lost or too few replicas have the mark: to mark again does no harm.
    /// [`StorageFull`](seen_store::ErrorKind::StorageFull) when the server is out of memory.
    pub async fn mark_seen<'a>(&self, id: impl Into<Item<'a>>) -> Result<()> {
        self.mark(&id.into(), None).await
    }

    /// Marks the id as seen at `seen_at`: see [`SeenStore::mark_seen_at`](seen_store::SeenStore::mark_seen_at).
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen).
    pub async fn mark_seen_at<'a>(
        &self,
        id: impl Into<Item<'a>>,
        seen_at: SystemTime,
    ) -> Result<()> {
        self.mark(&id.into(), Some(seen_at)).await
    }

    async fn mark(&self, item: &Item<'_>, seen_at: Option<SystemTime>) -> Result<()> {
        let token = self.policy.make_token();
        let marked = self.decide(
            item,
            token,
            Basis::Guessed,
            repeatable(),
            |policy, record, item, now_ms| policy.mark(record, item, seen_at, now_ms),
        );
        marked.await.map(drop)
    }

    /// Marks the id and returns whether it was new: see
    /// [`SeenStore::check_and_mark`](seen_store::SeenStore::check_and_mark).
    ///
    /// One command for a new id and for a duplicate.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). After [`OutcomeUnknown`](seen_store::ErrorKind::OutcomeUnknown) call it again
    /// with [`Item::retry_of`] and the [token](seen_store::Error::token) of the error: otherwise the mark of this very call
    /// may make it a duplicate, and the alert is lost.
    pub async fn check_and_mark<'a>(&self, id: impl Into<Item<'a>>) -> Result<Verdict> {
        let (item, token) = self.called(id);
        let verdict =
            self.decide(&item, token, Basis::Guessed, CHECKING, |policy, record, item, now_ms| {
                policy.check(record, item, now_ms)
            });
        let verdict = verdict.await?;
        self.shared.activities.add_verdicts(&[verdict]);
        Ok(verdict)
    }

    /// Decides as [`check_and_mark`](Self::check_and_mark), and tells what was known of the id before: see
    /// [`SeenStore::observe`](seen_store::SeenStore::observe).
    ///
    /// # Errors
    ///
    /// Those of [`check_and_mark`](Self::check_and_mark).
    pub async fn observe<'a>(&self, id: impl Into<Item<'a>>) -> Result<Observation> {
        let (item, token) = self.called(id);
        let manner = Manner {
            is_repeated: |observation: &Observation| is_own(observation.verdict),
            ..Manner::plain()
        };
        let observation =
            self.decide(&item, token, Basis::Guessed, manner, |policy, record, item, now_ms| {
                policy.observe(record, item, now_ms)
            });
        let observation = observation.await?;
        self.shared.activities.add_verdicts(&[observation.verdict]);
        Ok(observation)
    }

    /// Checks and marks many ids, and returns a verdict for each: see
    /// [`SeenStore::check_and_mark_all`](seen_store::SeenStore::check_and_mark_all).
    ///
    /// One command for each id, in one pipeline for each server. Not atomic: see the errors.
    ///
    /// # Errors
    ///
    /// Those of [`check_and_mark`](Self::check_and_mark). When some ids were written and others failed it is
    /// [`OutcomeUnknown`](seen_store::ErrorKind::OutcomeUnknown): call it again with the same ids, each with
    /// [`Item::retry_of`] and the token of the error (an item that had another token keeps it), and each gets the verdict
    /// that it would have got.
    pub async fn check_and_mark_all<'a, I>(&self, ids: I) -> Result<Vec<Verdict>>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let items: Vec<Item<'a>> = ids.into_iter().map(Into::into).collect();
        let (items, token) = self.called_all(items);
        let manner = Manner {
            is_repeated: |verdicts: &Vec<Verdict>| verdicts.iter().any(|verdict| is_own(*verdict)),
            ..Manner::plain()
        };
        let verdicts = self.decide_all(
            &items,
            token,
            &Basis::Guessed,
            manner,
            |policy, record, place, now_ms| policy.check(record, &items[place], now_ms),
        );
        let verdicts = verdicts.await?;
        self.shared.activities.add_verdicts(&verdicts);
        Ok(verdicts)
    }

    /// Marks many ids and returns how many were new: see [`SeenStore::seed`](seen_store::SeenStore::seed).
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). What was marked before the error stays marked.
    pub async fn seed<'a, I>(&self, ids: I) -> Result<u64>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let items: Vec<Item<'a>> = ids.into_iter().map(Into::into).collect();
        let token = self.policy.make_token();
        let seeded = self.decide_all(
            &items,
            token,
            &Basis::Guessed,
            repeatable(),
            |policy, record, place, now_ms| policy.seed(record, &items[place], now_ms),
        );
        Ok(seeded.await?.into_iter().filter(|is_new| *is_new).count() as u64)
    }

    /// Ends what is known of the id: see [`SeenStore::forget`](seen_store::SeenStore::forget).
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen).
    pub async fn forget<'a>(&self, id: impl Into<Item<'a>>) -> Result<bool> {
        let item = id.into();
        let token = self.policy.make_token();
        let forgotten = self.decide(&item, token, Basis::Unread, repeatable(), Policy::forget);
        let is_known = forgotten.await?;
        self.shared.counts.forget(&self.key(&item));
        Ok(is_known)
    }
}
