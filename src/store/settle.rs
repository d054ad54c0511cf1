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
use crate::decide::claim::{Change, Fail};
use crate::decide::verbs::{Confirmed, Ownership, Resolution};
use crate::engine::counters::Event;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, MAX_NOTE_BYTES};
use crate::item::Item;
use crate::journal::Transaction;
use crate::machine;
use crate::token::Token;

/// The longest receipt, in bytes, that is written in one transaction with other small writes.
const LONGEST_GROUPED_RECEIPT: usize = 4_096;

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
        check_receipt(receipt, self.engine.config.max_receipt)
    }

    /// Counts and tells the outcome of [`confirm_in`](Self::confirm_in).
    pub(crate) fn confirmed(&self, id: Id<'_>, confirmed: Option<Confirmed>) -> Result<Confirmed> {
        let confirmed = confirmed.ok_or_else(|| self.count_lost(self.verbs().lease_lost(id)))?;
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
        self.verbs().confirm(transaction, id, token, receipt)
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
        let verbs = self.verbs();
        self.for_all(claims, |transaction, claims| {
            let (mut owned, mut ended) = (Vec::with_capacity(claims.len()), Vec::new());
            let mut ended_tokens = HashSet::new();
            for (id, token) in claims {
                // The claims are deleted at the end. A mark that expires at once leaves nothing to confirm again.
                let is_over = ended_tokens.contains(token) && transaction.live(id.key)?.is_none();
                let confirmed = if is_over {
                    None
                } else {
                    verbs.mark_confirmed(transaction, *id, *token, None)?
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
        failing(failure, self.engine.config.retry_delay)
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
        self.verbs().resolve(transaction, id, resolution)
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
        until_ms.ok_or_else(|| self.count_lost(self.verbs().lease_lost(id)))
    }

    /// Changes a claim in a transaction. `None`: the claim is no longer held.
    pub(crate) fn change(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        change: &Change,
    ) -> Result<Option<i64>> {
        self.verbs().change(transaction, id, token, change)
    }
}

/// Whether a receipt is written in a transaction of its own.
pub(crate) fn is_large(receipt: Option<&[u8]>) -> bool {
    receipt.is_some_and(|receipt| receipt.len() > LONGEST_GROUPED_RECEIPT)
}

/// Checks the length of a receipt, of which at most this many bytes are stored.
pub(crate) fn check_receipt(receipt: Option<&[u8]>, most: usize) -> Result<()> {
    let length = receipt.map_or(0, <[u8]>::len);
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

/// Returns the change of a claim that failed. `retry_delay` is that of the store.
pub(crate) fn failing(failure: Failure, retry_delay: RetryDelay) -> Change {
    let Failure { reason, retry_after, is_final } = failure;
    Change::Fail(Fail {
        reason: first_bytes(&reason, MAX_NOTE_BYTES).to_owned(),
        is_final,
        retry_delay: retry_after.map_or(retry_delay, RetryDelay::Fixed),
        chance: machine::random_u64(),
    })
}

/// The text, cut before the character that would make it longer than `most` bytes.
fn first_bytes(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
