//! The verbs that end or change a claim: by its token, or by a decision on what a worker left behind.
//!
//! Owns what becomes of a claim after it was granted: confirmed, released, failed, renewed, resolved. What always
//! holds: every step is decided under the write lock, and only the token of the present claim can change it, except
//! by [`resolve`](SeenStore::resolve), which takes a claim that is over. A holder that has lost its claim gets an
//! error and changes nothing. Knows nothing of SQL.

use std::collections::HashSet;
use std::time::Duration;

use super::claims::checked_lease;
use super::counted::end_of;
use super::{Failure, SeenStore};
use crate::config::RetryDelay;
use crate::decide::claim::{self, Change, Fail};
use crate::engine::counters::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, MAX_NOTE_BYTES};
use crate::index::Slot;
use crate::item::Item;
use crate::journal::ClaimRow;
use crate::journal::{MarkRow, Transaction};
use crate::machine;
use crate::token::Token;

/// The longest receipt, in bytes, that is written in one transaction with other small writes.
const LONGEST_GROUPED_RECEIPT: usize = 4_096;

/// What is decided of an id whose last attempt is over: see [`SeenStore::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Resolution {
    /// The work was done: the id is seen.
    Done,
    /// The work was not done: the id can be claimed again at once, and its attempts are counted from 0.
    Retry,
}

/// Whether a claim in a batch was still held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a lost claim means that another worker may have handled the id too"]
#[non_exhaustive]
pub enum Ownership {
    /// It was held, and the change is made.
    Held,
    /// It was not held: its lease ran out and another worker took the id over, or the claim was ended before.
    /// Nothing was changed.
    Lost,
}

/// The result of a confirm that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmed {
    InTime,
    /// After the lease had run out.
    Late,
    /// It was confirmed before.
    Before,
}

/// The present state of a token's claim.
enum ClaimStatus {
    /// The claim is held with this token.
    Claimed(ClaimRow),
    /// It was confirmed, or the id was marked while the claim was held.
    Marked(Slot, MarkRow),
    Lost,
}

impl SeenStore {
    /// Confirms a claim by its token, like [`Lease::confirm`](crate::Lease::confirm). For a worker that has no
    /// [`Lease`](crate::Lease), such as
    /// one in another process.
    ///
    /// ```
    /// use seen_store::Claim;
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// if let Claim::Granted(lease) = store.claim("incident-17", Duration::from_secs(60))? {
    ///     let token = lease.into_token(); // its text can be passed to another process
    ///     store.confirm("incident-17", &token)?;
    /// }
    /// assert!(store.is_seen("incident-17"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm`](crate::Lease::confirm).
    pub fn confirm<'a>(&self, id: impl Into<Item<'a>>, token: &Token) -> Result<()> {
        self.confirm_claim(&id.into(), *token, None).map(drop)
    }

    /// Confirms a claim by its token and stores a receipt, like [`Lease::confirm_with`](crate::Lease::confirm_with).
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm_with`](crate::Lease::confirm_with).
    pub fn confirm_with<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        receipt: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.confirm_claim(&id.into(), *token, Some(receipt.as_ref())).map(drop)
    }

    pub(super) fn confirm_claim(
        &self,
        item: &Item<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<Confirmed> {
        let id = self.id(item)?;
        self.check_receipt(receipt)?;
        let confirmed = if is_large(receipt) {
            // The others of a group would wait while it is written.
            self.engine.write(|transaction| self.confirm_in(transaction, id, token, receipt))
        } else {
            let receipt = receipt.map(<[u8]>::to_vec);
            self.write_one(id, move |store, transaction, id| {
                store.confirm_in(transaction, id, token, receipt.as_deref())
            })
        };
        self.confirmed(id, confirmed?)
    }

    pub(crate) fn check_receipt(&self, receipt: Option<&[u8]>) -> Result<()> {
        let (length, most) = (receipt.map_or(0, <[u8]>::len), self.engine.config.max_receipt);
        if length > most {
            return Err(Error::new(
                ErrorKind::InvalidClaim,
                format!(
                    "the receipt has {length} bytes; at most {most} are stored: shorten it, or raise the setting max_receipt"
                ),
            ));
        }
        Ok(())
    }

    /// Counts and tells the outcome of [`confirm_in`](Self::confirm_in).
    pub(crate) fn confirmed(&self, id: Id<'_>, confirmed: Option<Confirmed>) -> Result<Confirmed> {
        let confirmed =
            confirmed.ok_or_else(|| self.count_lost(lease_lost(id, &self.engine.name)))?;
        self.engine.counters.add(Event::ClaimConfirmed, 1);
        Ok(confirmed)
    }

    pub(crate) fn confirm_in(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<Option<Confirmed>> {
        let confirmed = self.mark_confirmed(transaction, id, token, receipt)?;
        if matches!(confirmed, Some(Confirmed::InTime | Confirmed::Late)) {
            transaction.delete_claim(id)?;
        }
        Ok(confirmed)
    }

    /// Marks the id as seen if the claim with this token is held. Unless it was confirmed before, that ends the claim,
    /// which the caller must delete. `None`: the claim is lost.
    fn mark_confirmed(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<Option<Confirmed>> {
        match claim_status(transaction, id, token)? {
            ClaimStatus::Lost => Ok(None),
            ClaimStatus::Claimed(claim) => {
                let (now_ms, old) = (transaction.now_ms, transaction.live(id.key)?);
                let old = old.map(|old| transaction.last_row(old)).transpose()?.flatten();
                let mark = claim::confirm(self.lifetime, &claim, receipt, old.as_ref(), now_ms);
                transaction.append(id, &mark)?;
                let in_time = claim.is_in_flight(now_ms);
                Ok(Some(if in_time { Confirmed::InTime } else { Confirmed::Late }))
            }
            ClaimStatus::Marked(slot, row) => {
                if let (Some(receipt), None) = (receipt, row.receipt) {
                    transaction.add_receipt(id, slot, receipt)?;
                }
                Ok(Some(Confirmed::Before))
            }
        }
    }

    /// Confirms many claims in one commit for each 10,000, and returns for each whether it was still held.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). Up to 10,000 are confirmed all or none. With more, an error
    /// in a later commit leaves the earlier ones confirmed. It is safe to call it again.
    pub fn confirm_all<'a, I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        self.for_all(claims, |transaction, claims| {
            let (mut owned, mut ended) = (Vec::with_capacity(claims.len()), Vec::new());
            let mut ended_tokens = HashSet::new();
            for (id, token) in claims {
                // The claims are deleted at the end. A mark that expires at once leaves nothing to confirm again.
                let is_over = ended_tokens.contains(token) && transaction.live(id.key)?.is_none();
                let confirmed = if is_over {
                    None
                } else {
                    self.mark_confirmed(transaction, *id, *token, None)?
                };
                owned.push(confirmed.map_or(Ownership::Lost, |_| Ownership::Held));
                if confirmed.is_some_and(|confirmed| confirmed != Confirmed::Before) {
                    ended.push(*id);
                    ended_tokens.insert(*token);
                }
            }
            transaction.delete_claims(ended)?;
            Ok(owned)
        })
        .inspect(|owned| self.count_ends(Some(Event::ClaimConfirmed), owned))
    }

    /// Releases many claims in one commit for each 10,000, and returns for each whether it was still held.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). Up to 10,000 are released all or none. With more, an error in
    /// a later commit leaves the earlier ones released.
    pub fn release_all<'a, I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        self.change_all(claims, &Change::Release)
    }

    /// Renews many claims in one commit for each 10,000, and returns for each whether it was still held.
    ///
    /// # Errors
    ///
    /// [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a lease of zero; otherwise those of
    /// [`mark_seen`](Self::mark_seen). Up to 10,000 are renewed all or none. With more, an error in a later
    /// commit leaves the earlier ones renewed.
    pub fn renew_all<'a, I, B>(&self, claims: I, lease: Duration) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: Into<Item<'a>>,
    {
        self.change_all(claims, &Change::Renew { lease: checked_lease(lease)? })
    }

    fn change_all<'a, B: Into<Item<'a>>>(
        &self,
        claims: impl IntoIterator<Item = (B, Token)>,
        change: &Change,
    ) -> Result<Vec<Ownership>> {
        self.for_all(claims, |transaction, claims| {
            let changed = claims.iter().map(|(id, token)| {
                let until_ms = self.change(transaction, *id, *token, change)?;
                Ok(until_ms.map_or(Ownership::Lost, |_| Ownership::Held))
            });
            changed.collect()
        })
        .inspect(|owned| self.count_ends(end_of(change), owned))
    }

    fn for_all<'a, B: Into<Item<'a>>>(
        &self,
        claims: impl IntoIterator<Item = (B, Token)>,
        step: impl Fn(&mut Transaction<'_>, &[(Id<'_>, Token)]) -> Result<Vec<Ownership>>,
    ) -> Result<Vec<Ownership>> {
        let claims: Vec<_> = claims.into_iter().map(|(id, token)| (id.into(), token)).collect();
        let claims: Vec<(Id<'_>, Token)> = claims
            .iter()
            .map(|(item, token)| Ok((self.id(item)?, *token)))
            .collect::<Result<_>>()?;
        self.in_batches(
            &claims,
            |(id, _)| id.key,
            |transaction, claims| {
                transaction.load_claims(claims.len())?;
                step(transaction, claims)
            },
        )
    }

    /// Releases a claim by its token, like [`Lease::release`](crate::Lease::release).
    ///
    /// ```
    /// use seen_store::Claim;
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// # let minute = Duration::from_secs(60);
    /// if let Claim::Granted(lease) = store.claim("incident-17", minute)? {
    ///     store.release("incident-17", &lease.into_token())?;
    /// }
    /// assert!(matches!(store.claim("incident-17", minute)?, Claim::Granted(lease) if lease.attempt() == 2));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Lease::release`](crate::Lease::release).
    pub fn release<'a>(&self, id: impl Into<Item<'a>>, token: &Token) -> Result<()> {
        self.change_claim(&id.into(), *token, Change::Release).map(drop)
    }

    /// Records a failed attempt by the token of its claim, like [`Lease::fail`](crate::Lease::fail).
    ///
    /// ```
    /// use seen_store::{Claim, State};
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// if let Claim::Granted(lease) = store.claim("incident-17", Duration::from_secs(60))? {
    ///     store.fail("incident-17", &lease.into_token(), "503 Service Unavailable")?;
    /// }
    /// let entry = store.get("incident-17")?.unwrap();
    /// assert_eq!(entry.state, State::Failed);
    /// assert_eq!(entry.last_error.as_deref(), Some("503 Service Unavailable"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Lease::fail`](crate::Lease::fail).
    pub fn fail<'a>(
        &self,
        id: impl Into<Item<'a>>,
        token: &Token,
        failure: impl Into<Failure>,
    ) -> Result<()> {
        self.change_claim(&id.into(), *token, self.failing(failure.into())).map(drop)
    }

    /// Returns what a failure makes of a claim.
    pub(crate) fn failing(&self, failure: Failure) -> Change {
        let Failure { reason, retry_after, is_final } = failure;
        Change::Fail(Fail {
            reason: first_bytes(&reason, MAX_NOTE_BYTES).to_owned(),
            is_final,
            retry_delay: retry_after.map_or(self.engine.config.retry_delay, RetryDelay::Fixed),
            chance: machine::random_u64(),
        })
    }

    /// Decides on an id whose last attempt is over without success, however it ended:
    /// [abandoned](crate::State::Abandoned), [held](crate::State::Unresolved) or not,
    /// [failed](crate::State::Failed), [given up](crate::State::GivenUp) or [released](crate::State::Released).
    /// Returns true. Returns false and changes nothing when the id is seen, in flight or not known, and when
    /// [`Resolution::Done`] of a held claim would make a mark that expires at once.
    ///
    /// A holder that comes back later can still confirm its claim after [`Resolution::Done`], and has lost it
    /// after [`Resolution::Retry`].
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen).
    pub fn resolve<'a>(&self, id: impl Into<Item<'a>>, resolution: Resolution) -> Result<bool> {
        let item = id.into();
        let id = self.id(&item)?;
        self.write_one(id, move |store, transaction, id| {
            store.resolve_in(transaction, id, resolution)
        })
    }

    pub(crate) fn resolve_in(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        resolution: Resolution,
    ) -> Result<bool> {
        let now_ms = transaction.now_ms;
        let is_over = |claim: &ClaimRow| !claim.is_in_flight(now_ms);
        let Some(mut claim) = transaction.claim(id)?.filter(is_over) else { return Ok(false) };
        match resolution {
            Resolution::Done => {
                return self.mark(transaction, Id { digest: claim.digest, ..id }, now_ms);
            }
            Resolution::Retry => {
                claim = transaction.last_claim(claim);
                Change::Retry.apply(&mut claim, self.lifetime.ttl, now_ms);
                transaction.put_claim(id, claim)?;
            }
        }
        Ok(true)
    }

    /// Renews a lease by its token, like [`Lease::renew`](crate::Lease::renew): it ends `lease` from now.
    ///
    /// ```
    /// use seen_store::Claim;
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// if let Claim::Granted(lease) = store.claim("incident-17", Duration::from_secs(60))? {
    ///     let token = lease.into_token();
    ///     store.renew("incident-17", &token, Duration::from_secs(300))?;
    ///     store.confirm("incident-17", &token)?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Lease::renew`](crate::Lease::renew).
    pub fn renew<'a>(&self, id: impl Into<Item<'a>>, token: &Token, lease: Duration) -> Result<()> {
        self.renew_until(&id.into(), *token, lease).map(drop)
    }

    /// Renews a lease and returns its new end in unix milliseconds.
    pub(super) fn renew_until(
        &self,
        item: &Item<'_>,
        token: Token,
        lease: Duration,
    ) -> Result<i64> {
        self.change_claim(item, token, Change::Renew { lease: checked_lease(lease)? })
    }

    /// Changes a claim and returns when its lease, or the delay after a failure, ends.
    fn change_claim(&self, item: &Item<'_>, token: Token, change: Change) -> Result<i64> {
        let (id, end) = (self.id(item)?, end_of(&change));
        let until_ms = self.write_one(id, move |store, transaction, id| {
            store.change(transaction, id, token, &change)
        })?;
        self.changed(id, end, until_ms)
    }

    /// Counts and tells the outcome of [`change`](Self::change), which ended the claim by `end` if it was held.
    pub(crate) fn changed(
        &self,
        id: Id<'_>,
        end: Option<Event>,
        until_ms: Option<i64>,
    ) -> Result<i64> {
        if let (Some(end), Some(_)) = (end, until_ms) {
            self.engine.counters.add(end, 1);
        }
        until_ms.ok_or_else(|| self.count_lost(lease_lost(id, &self.engine.name)))
    }

    /// Changes a claim in a transaction. `None`: the claim is no longer held.
    pub(crate) fn change(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        change: &Change,
    ) -> Result<Option<i64>> {
        let ClaimStatus::Claimed(mut claim) = claim_status(transaction, id, token)? else {
            return Ok(None);
        };
        if end_of(change).is_some() {
            claim = transaction.last_claim(claim);
        }
        change.apply(&mut claim, self.lifetime.ttl, transaction.now_ms);
        let until_ms = claim.lease_until;
        transaction.put_claim(id, claim)?;
        Ok(Some(until_ms))
    }
}

/// Whether a receipt is written in a transaction of its own.
pub(crate) fn is_large(receipt: Option<&[u8]>) -> bool {
    receipt.is_some_and(|receipt| receipt.len() > LONGEST_GROUPED_RECEIPT)
}

fn lease_lost(id: Id<'_>, store: &str) -> Error {
    Error::new(
        ErrorKind::LeaseLost,
        format!(
            "{store}: the claim of {} is no longer held: it was ended, or its lease ran out and another \
             worker took it over (or it was made in another scope than {:?})",
            id.shown(),
            id.scope
        ),
    )
}

fn claim_status(
    transaction: &mut Transaction<'_>,
    id: Id<'_>,
    token: Token,
) -> Result<ClaimStatus> {
    if let Some(slot) = transaction.live(id.key)?
        && let Some(row) = transaction.row(slot)?
        && row.token == Some(token)
    {
        return Ok(ClaimStatus::Marked(slot, row));
    }
    let claim = transaction.claim(id)?.filter(|claim| claim.token == Some(token));
    Ok(claim.map_or(ClaimStatus::Lost, ClaimStatus::Claimed))
}

/// The text, cut before the character that would make it longer than `most` bytes.
fn first_bytes(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
