//! The verbs that end or change a claim: by its token, or by a decision on what a worker left behind.
//!
//! Owns what becomes of a claim after it was granted: confirmed, released, failed, renewed, resolved. What always
//! holds: every step is decided under the write lock, and only the token of the present claim can change it, except
//! by [`resolve`](SeenStore::resolve), which takes a claim that is over. A holder that has lost its claim gets an
//! error and changes nothing. Knows nothing of SQL.

use std::time::Duration;

use super::claims::checked_lease;
use super::{Failure, SeenStore};
use crate::config::RetryDelay;
use crate::decide::claim::{self, Change, Fail};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, MAX_NOTE_BYTES};
use crate::index::Slot;
use crate::journal::claims::ClaimRow;
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

/// The present state of a token's claim.
enum ClaimStatus {
    /// The claim is held with this token.
    Claimed(ClaimRow),
    /// It was confirmed, or the id was marked while the claim was held.
    Marked(Slot, MarkRow),
    Lost,
}

impl SeenStore {
    /// Confirms a claim by its token, like [`Lease::confirm`](crate::Lease::confirm). For a worker that has no [`Lease`](crate::Lease), such as
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
    pub fn confirm(&self, id: impl AsRef<[u8]>, token: &Token) -> Result<()> {
        self.confirm_claim(id.as_ref(), *token, None)
    }

    /// Confirms a claim by its token and stores a receipt, like [`Lease::confirm_with`](crate::Lease::confirm_with).
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm_with`](crate::Lease::confirm_with).
    pub fn confirm_with(
        &self,
        id: impl AsRef<[u8]>,
        token: &Token,
        receipt: impl AsRef<[u8]>,
    ) -> Result<()> {
        let receipt = receipt.as_ref();
        let most = self.engine.config.max_receipt;
        if receipt.len() > most {
            return Err(Error::new(
                ErrorKind::InvalidClaim,
                format!(
                    "the receipt has {} bytes; at most {most} are stored, by the setting max_receipt",
                    receipt.len()
                ),
            ));
        }
        self.confirm_claim(id.as_ref(), *token, Some(receipt))
    }

    fn confirm_claim(&self, id: &[u8], token: Token, receipt: Option<&[u8]>) -> Result<()> {
        let id = self.scope.id(id)?;
        let owned = match receipt {
            // The others of a group would wait while it is written.
            Some(receipt) if receipt.len() > LONGEST_GROUPED_RECEIPT => self
                .engine
                .write(|transaction| self.confirm_in(transaction, id, token, Some(receipt))),
            _ => {
                let receipt = receipt.map(<[u8]>::to_vec);
                self.write_one(id, move |store, transaction, id| {
                    store.confirm_in(transaction, id, token, receipt.as_deref())
                })
            }
        };
        match owned? {
            Ownership::Held => Ok(()),
            Ownership::Lost => Err(lease_lost(id, &self.engine.name)),
        }
    }

    fn confirm_in(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<Ownership> {
        let (owned, ends_claim) = self.mark_confirmed(transaction, id, token, receipt)?;
        if ends_claim {
            transaction.delete_claim(id)?;
        }
        Ok(owned)
    }

    /// Marks the id as seen if the claim with this token is held. The bool is true when that ends a claim,
    /// which the caller must delete.
    fn mark_confirmed(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<(Ownership, bool)> {
        match claim_status(transaction, id, token)? {
            ClaimStatus::Lost => Ok((Ownership::Lost, false)),
            ClaimStatus::Claimed(claim) => {
                let mark = claim::confirm(self.lifetime, &claim, receipt, transaction.now_ms);
                transaction.append(id, &mark)?;
                Ok((Ownership::Held, true))
            }
            ClaimStatus::Marked(slot, row) => {
                if let (Some(receipt), None) = (receipt, row.receipt) {
                    transaction.add_receipt(id, slot, receipt)?;
                }
                Ok((Ownership::Held, false))
            }
        }
    }

    /// Confirms many claims in one commit for each 10,000, and returns for each whether it was still held.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). Up to 10,000 are confirmed all or none. With more, an error
    /// in a later commit leaves the earlier ones confirmed. It is safe to call it again.
    pub fn confirm_all<I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: AsRef<[u8]>,
    {
        self.for_all(claims, |transaction, claims| {
            let (mut owned, mut ended) = (Vec::with_capacity(claims.len()), Vec::new());
            for (id, token) in claims {
                let (ownership, ends) = self.mark_confirmed(transaction, *id, *token, None)?;
                owned.push(ownership);
                ended.extend(ends.then_some(*id));
            }
            transaction.delete_claims(ended)?;
            Ok(owned)
        })
    }

    /// Releases many claims in one commit for each 10,000, and returns for each whether it was still held.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). Up to 10,000 are released all or none. With more, an error in
    /// a later commit leaves the earlier ones released.
    pub fn release_all<I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: AsRef<[u8]>,
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
    pub fn renew_all<I, B>(&self, claims: I, lease: Duration) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: AsRef<[u8]>,
    {
        self.change_all(claims, &Change::Renew { lease: checked_lease(lease)? })
    }

    fn change_all<B: AsRef<[u8]>>(
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
    }

    fn for_all<B: AsRef<[u8]>>(
        &self,
        claims: impl IntoIterator<Item = (B, Token)>,
        step: impl Fn(&mut Transaction<'_>, &[(Id<'_>, Token)]) -> Result<Vec<Ownership>>,
    ) -> Result<Vec<Ownership>> {
        let claims: Vec<(B, Token)> = claims.into_iter().collect();
        let claims: Vec<(Id<'_>, Token)> = claims
            .iter()
            .map(|(id, token)| Ok((self.scope.id(id.as_ref())?, *token)))
            .collect::<Result<_>>()?;
        self.in_batches(&claims, |transaction, claims| {
            transaction.load_claims(claims.len())?;
            step(transaction, claims)
        })
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
    pub fn release(&self, id: impl AsRef<[u8]>, token: &Token) -> Result<()> {
        self.change_claim(id.as_ref(), *token, Change::Release).map(drop)
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
    pub fn fail(
        &self,
        id: impl AsRef<[u8]>,
        token: &Token,
        failure: impl Into<Failure>,
    ) -> Result<()> {
        let Failure { reason, retry_after, is_final } = failure.into();
        let change = Change::Fail(Fail {
            reason: first_bytes(&reason, MAX_NOTE_BYTES).to_owned(),
            is_final,
            retry_delay: retry_after.map_or(self.engine.config.retry_delay, RetryDelay::Fixed),
            chance: machine::random_u64(),
        });
        self.change_claim(id.as_ref(), *token, change).map(drop)
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
    pub fn resolve(&self, id: impl AsRef<[u8]>, resolution: Resolution) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        self.write_one(id, move |store, transaction, id| {
            store.resolve_in(transaction, id, resolution)
        })
    }

    fn resolve_in(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        resolution: Resolution,
    ) -> Result<bool> {
        let now_ms = transaction.now_ms;
        if transaction.live(id.key)?.is_some() {
            return Ok(false);
        }
        let is_over = |claim: &ClaimRow| !claim.is_in_flight(now_ms);
        let Some(mut claim) = transaction.claim(id)?.filter(is_over) else { return Ok(false) };
        match resolution {
            Resolution::Done => return self.mark(transaction, id, now_ms),
            Resolution::Retry => {
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
    pub fn renew(&self, id: impl AsRef<[u8]>, token: &Token, lease: Duration) -> Result<()> {
        self.renew_until(id.as_ref(), *token, lease).map(drop)
    }

    /// Renews a lease and returns its new end in unix milliseconds.
    pub(super) fn renew_until(&self, id: &[u8], token: Token, lease: Duration) -> Result<i64> {
        self.change_claim(id, token, Change::Renew { lease: checked_lease(lease)? })
    }

    /// Changes a claim and returns when its lease, or the delay after a failure, ends.
    fn change_claim(&self, id: &[u8], token: Token, change: Change) -> Result<i64> {
        let id = self.scope.id(id)?;
        let until_ms = self.write_one(id, move |store, transaction, id| {
            store.change(transaction, id, token, &change)
        })?;
        until_ms.ok_or_else(|| lease_lost(id, &self.engine.name))
    }

    /// Changes a claim in a transaction. `None`: the claim is no longer held.
    fn change(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        change: &Change,
    ) -> Result<Option<i64>> {
        let ClaimStatus::Claimed(mut claim) = claim_status(transaction, id, token)? else {
            return Ok(None);
        };
        change.apply(&mut claim, self.lifetime.ttl, transaction.now_ms);
        let until_ms = claim.lease_until;
        transaction.put_claim(id, claim)?;
        Ok(Some(until_ms))
    }
}

fn lease_lost(id: Id<'_>, store: &str) -> Error {
    Error::new(
        ErrorKind::LeaseLost,
        format!(
            "{store}: the claim of {:?} is no longer held: it was ended, or its lease ran out and another \
             worker took it over",
            String::from_utf8_lossy(&id.bytes[..id.bytes.len().min(200)])
        ),
    )
}

fn claim_status(
    transaction: &mut Transaction<'_>,
    id: Id<'_>,
    token: Token,
) -> Result<ClaimStatus> {
    if let Some(slot) = transaction.live(id.key)? {
        let row = transaction.row(slot)?;
        return Ok(match row {
            Some(row) if row.token == Some(token) => ClaimStatus::Marked(slot, row),
            _ => ClaimStatus::Lost,
        });
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
