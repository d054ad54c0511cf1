//! The verbs of claims.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use seen_store::backend::{
    EndOfClaim, Granted, Outcome, Policy, Record, TurnedAway, error, ownership, unknown_outcome,
    with_token,
};
use seen_store::{
    Claim, Error, ErrorKind, Failure, Item, Known, Ownership, Resolution, Result, Token,
};

use super::AsyncClusterStore;
use super::lease::AsyncClusterLease;
use super::marks::repeatable;
use crate::attempt::{Basis, IfUnchanged, Manner};

/// The answer of [`AsyncClusterStore::claim`].
pub type AsyncClusterClaim = Claim<AsyncClusterLease, Known>;

/// What was decided on a claim.
type Decided = Claim<Granted, Known>;

/// The pauses of a claim that waits.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(250);

fn holds(claim: &Decided, record: &Record) -> bool {
    matches!(claim, Claim::Granted(granted) if record.claim_token() == Some(granted.token))
}

/// A claim that was granted and whose answer was lost stands as long as the record has its token.
const CLAIMING: Manner<Decided> = Manner { stands: holds, is_over, ..Manner::plain() };

/// A lease that has run out while its answer was lost is no lease.
fn is_over(claim: &Decided, record: &Record, now_ms: i64) -> bool {
    matches!(claim, Claim::Granted(granted) if !record.holds_claim(granted.token, now_ms))
}

/// To confirm again is to find the id confirmed: then that is written once more, for the replicas.
const CONFIRMING: Manner<Option<bool>> =
    Manner { is_repeated: |late| late.is_some(), goes_on_while_closing: true, ..Manner::plain() };

/// To end a claim again is to find it lost.
const ENDING: Manner<Option<i64>> =
    Manner { if_unchanged: IfUnchanged::Unknown, goes_on_while_closing: true, ..Manner::plain() };

impl AsyncClusterStore {
    /// Claims the id for this task until the lease ends: see [`SeenStore::claim`](seen_store::SeenStore::claim).
    ///
    /// One command for a new id. When the future is dropped, or the lease without a verb that ends it, the claim is
    /// released by a task of the runtime.
    ///
    /// # Errors
    ///
    /// [`InvalidClaim`](ErrorKind::InvalidClaim) for a lease of zero, [`Conflict`](ErrorKind::Conflict) for another payload;
    /// otherwise those of [`mark_seen`](Self::mark_seen). After [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) the id may be
    /// in flight until the lease would end; then it can be claimed again, so no alert is lost.
    pub async fn claim<'a>(
        &self,
        id: impl Into<Item<'a>>,
        lease: Duration,
    ) -> Result<AsyncClusterClaim> {
        let item = id.into();
        let claim = if self.policy.waits_for().is_zero() {
            self.claim_once(&item, lease).await?
        } else {
            self.claim_waiting(&item, lease).await?
        };
        self.shared.activities.add_claim(&claim, AsyncClusterLease::previous);
        Ok(claim)
    }

    async fn claim_waiting(&self, item: &Item<'_>, lease: Duration) -> Result<AsyncClusterClaim> {
        let until = tokio::time::Instant::now()
            + self.policy.waits_for().min(Duration::from_secs(86_400 * 365));
        let mut look = FIRST_LOOK;
        loop {
            let claim = self.claim_once(item, lease).await?;
            let Claim::InFlight { .. } = claim else { return Ok(claim) };
            let now = tokio::time::Instant::now();
            if now >= until {
                self.count_waiter(item);
                return Ok(claim);
            }
            // Not all waiters at the same moment.
            let share = u32::from(self.policy.make_token().to_string().as_bytes()[0] % 32);
            self.shared.nodes.sleep((look + look * share / 64).min(until - now)).await;
            look = (look * 2).min(LONGEST_LOOK);
        }
    }

    /// Counts a waiter that was refused: once, however often it asked.
    fn count_waiter(&self, item: &Item<'_>) {
        self.shared
            .counts
            .add(&self.key(item), TurnedAway { refusals: 1, ..TurnedAway::default() });
    }

    /// Claims once. The claim is carried on when the caller's future is dropped: then nobody takes its lease, which is
    /// released.
    async fn claim_once(&self, item: &Item<'_>, length: Duration) -> Result<AsyncClusterClaim> {
        self.policy.check_item(item)?;
        Policy::prolonging(length)?;
        let (store, item) = (self.clone(), item.clone().into_owned());
        let grant = Arc::new(Mutex::new(None));
        let may_have = Arc::clone(&grant);
        let claimed = self.carry_on(move || *may_have.lock(), async move {
            let (write, mut granted) = (store.policy.make_token(), None);
            let decided = store.decide(
                &item,
                write,
                Basis::Guessed,
                CLAIMING,
                |policy, record, item, now_ms| {
                    let decided = policy.claim(record, item, length, now_ms)?;
                    if let Claim::Granted(claim) = &decided.answer {
                        granted = Some(claim.token);
                        *grant.lock() = granted;
                    }
                    Ok(decided)
                },
            );
            let decided = decided.await;
            let decided = decided.map_err(|e| told_by(e, granted))?;
            Ok(store.to_claim(&item, decided, length))
        });
        claimed.await
    }

    /// Claims many ids: see [`SeenStore::claim_all`](seen_store::SeenStore::claim_all).
    ///
    /// # Errors
    ///
    /// Those of [`claim`](Self::claim). What was granted before the error is released, as far as that succeeds; else it is
    /// in flight until its lease ends.
    pub async fn claim_all<'a, I>(&self, ids: I, lease: Duration) -> Result<Vec<AsyncClusterClaim>>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let items: Vec<Item<'static>> = ids.into_iter().map(|id| id.into().into_owned()).collect();
        Policy::prolonging(lease)?;
        items.iter().try_for_each(|item| self.policy.check_item(item))?;
        let store = self.clone();
        let token = self.policy.make_token();
        let claims = self.carry_on(move || Some(token), async move {
            let deadline = store.deadline();
            let manner = Manner {
                stands: |claims: &Vec<Decided>, record| {
                    claims.iter().any(|claim| holds(claim, record))
                },
                is_over: |claims, record, now_ms| {
                    claims.iter().any(|claim| is_over(claim, record, now_ms))
                },
                ..Manner::plain()
            };
            let granted = Mutex::new(HashMap::new());
            let decided = store.decide_all(
                &items,
                token,
                &Basis::Guessed,
                manner,
                |policy, record, place, now_ms| {
                    let decided = policy.claim(record, &items[place], lease, now_ms)?;
                    if let Claim::Granted(claim) = &decided.answer {
                        granted.lock().insert(place, claim.token);
                    }
                    Ok(decided)
                },
            );
            match decided.await {
                Ok(decided) => {
                    let claims = items.iter().zip(decided);
                    Ok(claims
                        .map(|(item, claim)| store.to_claim(item, claim, lease))
                        .collect::<Vec<_>>())
                }
                // Without a token nothing was written.
                Err(e) if e.token().is_none() => Err(e),
                Err(e) => {
                    let granted = granted.into_inner();
                    let claims = granted
                        .into_iter()
                        .map(|(place, token)| (items[place].clone(), token))
                        .collect::<Vec<_>>();
                    let releasing = store.clone();
                    let released =
                        store.carry_on(|| None, async move { releasing.release_all(claims).await });
                    // Goes on after the deadline.
                    _ = deadline.limit(released).await;
                    Err(e)
                }
            }
        });
        let claims = claims.await?;
        for claim in &claims {
            self.shared.activities.add_claim(claim, AsyncClusterLease::previous);
        }
        Ok(claims)
    }

    fn to_claim(&self, item: &Item<'_>, decided: Decided, length: Duration) -> AsyncClusterClaim {
        match decided {
            Claim::Granted(granted) => {
                Claim::Granted(AsyncClusterLease::new(self.clone(), item, granted, length))
            }
            Claim::InFlight { until, holder } => Claim::InFlight { until, holder },
            Claim::Seen(known) => Claim::Seen(known),
            Claim::Unresolved { since, holder } => Claim::Unresolved { since, holder },
            Claim::GivenUp { attempts } => Claim::GivenUp { attempts },
            _ => unreachable!("all answers of this version are above"),
        }
    }

    /// Confirms a claim by its token: see [`SeenStore::confirm`](seen_store::SeenStore::confirm).
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) when the claim was lost; otherwise those of [`mark_seen`](Self::mark_seen). It may
    /// be called again with the same token.
    pub async fn confirm<'a>(&self, id: impl Into<Item<'a>>, token: &Token) -> Result<()> {
        self.confirm_claim(&id.into(), *token, None).await.map(drop)
    }

    /// Confirms a claim by its token and stores a receipt: see
    /// [`SeenStore::confirm_with`](seen_store::SeenStore::confirm_with).
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm), and [`InvalidClaim`](ErrorKind::InvalidClaim) for a receipt that is too long.
    pub async fn confirm_with<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        receipt: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.confirm_claim(&id.into(), *token, Some(receipt.as_ref())).await.map(drop)
    }

    /// Returns whether the lease had run out.
    pub(crate) async fn confirm_claim(
        &self,
        item: &Item<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<bool> {
        self.policy.check_receipt(receipt)?;
        self.policy.check_item(item)?;
        let (store, item, receipt) =
            (self.clone(), item.clone().into_owned(), receipt.map(<[u8]>::to_vec));
        let confirmed = self.carry_on(move || Some(token), async move {
            let late = store.decide(
                &item,
                token,
                Basis::Unread,
                CONFIRMING,
                |policy, record, item, now_ms| {
                    policy.confirm(record, item, token, receipt.as_deref(), now_ms)
                },
            );
            let late = late.await?;
            store.shared.activities.add_confirmed(late.is_some());
            late.ok_or_else(|| store.lost(&item))
        });
        confirmed.await
    }

    fn lost(&self, item: &Item<'_>) -> Error {
        let lost = self.policy.lease_lost(item);
        self.shared.activities.add_error(&lost);
        lost
    }

    /// Gives a claim up by its token: see [`SeenStore::release`](seen_store::SeenStore::release).
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm).
    pub async fn release<'a>(&self, id: impl Into<Item<'a>>, token: &Token) -> Result<()> {
        self.end_claim(&id.into(), *token, Policy::releasing()).await.map(drop)
    }

    /// Gives a claim up with a reason: see [`SeenStore::fail`](seen_store::SeenStore::fail).
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm).
    pub async fn fail<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        failure: impl Into<Failure>,
    ) -> Result<()> {
        let end = self.policy.failing(failure.into());
        self.end_claim(&id.into(), *token, end).await.map(drop)
    }

    /// Renews a lease by its token: see [`SeenStore::renew`](seen_store::SeenStore::renew).
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm).
    pub async fn renew<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        lease: Duration,
    ) -> Result<()> {
        self.end_claim(&id.into(), *token, Policy::prolonging(lease)?).await.map(drop)
    }

    /// Returns when the lease ends, in unix milliseconds.
    pub(crate) async fn end_claim(
        &self,
        item: &Item<'_>,
        token: Token,
        end: EndOfClaim,
    ) -> Result<i64> {
        self.policy.check_item(item)?;
        let (store, item) = (self.clone(), item.clone().into_owned());
        let ended = self.carry_on(move || Some(token), async move {
            // A token of its own for the write: the claim keeps its token while it is renewed.
            let write = store.policy.make_token();
            let until_ms = store.decide(
                &item,
                write,
                Basis::Unread,
                ENDING,
                |policy, record, item, now_ms| policy.end(record, item, token, &end, now_ms),
            );
            let until_ms = until_ms.await.map_err(|e| told_by(e, Some(token)))?;
            store.shared.activities.add_end(&end, until_ms.is_some());
            until_ms.ok_or_else(|| store.lost(&item))
        });
        ended.await
    }

    /// Renews a lease on behalf of its holder. Returns when it ends, in unix milliseconds; `None`: the claim is lost.
    pub(super) async fn prolong(
        &self,
        item: &Item<'_>,
        token: Token,
        lease: Duration,
    ) -> Result<Option<i64>> {
        let write = self.policy.make_token();
        let until_ms =
            self.decide(item, write, Basis::Unread, ENDING, |policy, record, item, now_ms| {
                policy.prolong(record, item, token, lease, now_ms)
            });
        until_ms.await
    }

    /// Confirms many claims: see [`SeenStore::confirm_all`](seen_store::SeenStore::confirm_all).
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm). What was confirmed before the error stays so; it is safe to call it again.
    pub async fn confirm_all<'a, I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        let manner = Manner {
            is_repeated: |late: &Vec<Option<bool>>| late.iter().any(Option::is_some),
            goes_on_while_closing: true,
            ..Manner::plain()
        };
        let owned = self.all_claims(claims, manner, |policy, record, item, token, now_ms| {
            policy.confirm(record, item, token, None, now_ms)
        });
        let owned: Vec<bool> = owned.await?.iter().map(Option::is_some).collect();
        for is_held in &owned {
            self.shared.activities.add_confirmed(*is_held);
        }
        Ok(owned.into_iter().map(ownership).collect())
    }

    /// Gives many claims up: see [`SeenStore::release_all`](seen_store::SeenStore::release_all).
    ///
    /// # Errors
    ///
    /// Those of [`confirm_all`](Self::confirm_all).
    pub async fn release_all<'a, I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        self.end_all(claims, Policy::releasing()).await
    }

    /// Renews many leases: see [`SeenStore::renew_all`](seen_store::SeenStore::renew_all).
    ///
    /// # Errors
    ///
    /// Those of [`confirm_all`](Self::confirm_all).
    pub async fn renew_all<'a, I, B>(&self, claims: I, lease: Duration) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        self.end_all(claims, Policy::prolonging(lease)?).await
    }

    async fn end_all<'a, B: Into<Item<'a>>>(
        &self,
        claims: impl IntoIterator<Item = (B, Token)>,
        end: EndOfClaim,
    ) -> Result<Vec<Ownership>> {
        let manner: Manner<Vec<Option<i64>>> = Manner {
            if_unchanged: IfUnchanged::Unknown,
            goes_on_while_closing: true,
            ..Manner::plain()
        };
        let owned = self.all_claims(claims, manner, |policy, record, item, token, now_ms| {
            policy.end(record, item, token, &end, now_ms)
        });
        let owned: Vec<bool> = owned.await?.iter().map(Option::is_some).collect();
        for is_held in &owned {
            self.shared.activities.add_end(&end, *is_held);
        }
        Ok(owned.into_iter().map(ownership).collect())
    }

    async fn all_claims<'a, B: Into<Item<'a>>, T>(
        &self,
        claims: impl IntoIterator<Item = (B, Token)>,
        manner: Manner<Vec<T>>,
        mut verb: impl FnMut(&Policy, &mut Record, &Item<'_>, Token, i64) -> Result<Outcome<T>>,
    ) -> Result<Vec<T>> {
        let claims: Vec<(Item<'a>, Token)> =
            claims.into_iter().map(|(id, token)| (id.into(), token)).collect();
        let (items, tokens): (Vec<_>, Vec<_>) = claims.into_iter().unzip();
        let write = self.policy.make_token();
        let all = self.decide_all(
            &items,
            write,
            &Basis::Unread,
            manner,
            |policy, record, place, now_ms| {
                verb(policy, record, &items[place], tokens[place], now_ms)
            },
        );
        all.await
    }

    /// Decides on an id whose last attempt is over: see [`SeenStore::resolve`](seen_store::SeenStore::resolve).
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen).
    pub async fn resolve<'a>(
        &self,
        id: impl Into<Item<'a>>,
        resolution: Resolution,
    ) -> Result<bool> {
        let (item, token) = (id.into(), self.policy.make_token());
        let resolved = self.decide(
            &item,
            token,
            Basis::Unread,
            repeatable(),
            |policy, record, item, now_ms| policy.resolve(record, item, resolution, now_ms),
        );
        resolved.await
    }

    /// Returns whether the claim is this token's and its lease has not run out.
    pub(crate) async fn is_held(&self, item: &Item<'_>, token: Token) -> Result<bool> {
        let (record, now_ms) = self.record(item).await?;
        Ok(record.holds_claim(token, now_ms))
    }

    /// Runs a call to its end, also when the caller's future is dropped: then its answer is dropped. `may_have` returns the
    /// token of the claim that the call may have written, if it did not come to its end.
    async fn carry_on<T: Send + 'static>(
        &self,
        may_have: impl FnOnce() -> Option<Token>,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.check_not_closed()?;
        let begun = Arc::new(AtomicBool::new(false));
        let is_begun = Arc::clone(&begun);
        let call = async move {
            is_begun.store(true, SeqCst);
            call.await
        };
        let task = self.shared.tasks.spawn_on(call, &self.shared.runtime);
        task.await.unwrap_or_else(|e| {
            if let Ok(panic) = e.try_into_panic() {
                std::panic::resume_unwind(panic);
            }
            let message =
                format!("{}: the runtime of the store was shut down", self.policy.store_name());
            Err(match may_have().filter(|_| begun.load(SeqCst)) {
                Some(token) => unknown_outcome(token, message, None),
                None => error(ErrorKind::Closed, message, None),
            })
        })
    }
}

/// Returns an error whose token, if it has one, is that of the claim: by it the caller can end what may have been granted.
fn told_by(error: Error, claim: Option<Token>) -> Error {
    match (error.token(), claim) {
        (Some(_), Some(claim)) => with_token(error, claim),
        _ => error,
    }
}
