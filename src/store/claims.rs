//! Claims: an id is handed to exactly one worker, and comes back when the worker does not finish.
//!
//! Owns the life of a claim: granted, perhaps renewed, then confirmed, released, failed, or taken over
//! once its lease ran out. What always holds: every step is decided under the write lock, and only
//! whoever has the token of the present claim can change it. A holder that lost its claim is told so
//! and changes nothing. Knows nothing of SQL.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::SeenStore;
use crate::clock::from_ms;
use crate::config::Ttl;
use crate::decide::claim::{self, Change, Decision, Terms};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, MAX_NOTE_BYTES};
use crate::index::Slot;
use crate::journal::claims::ClaimRow;
use crate::journal::{MarkRow, Transaction};
use crate::token::Token;

/// What [`SeenStore::claim`] answers.
#[derive(Debug)]
#[must_use = "a granted claim that is dropped is released"]
#[non_exhaustive]
pub enum Claim {
    /// The id is this worker's until the lease ends.
    Granted(Lease),
    /// Another worker has it, or it failed and its retry delay is not over. Ask again after `until`.
    InFlight {
        /// When the other's lease, or the delay, ends.
        until: SystemTime,
    },
    /// It was handled before.
    Seen,
    /// It was tried as often as [`Config::max_attempts`](crate::Config::max_attempts) allows.
    GivenUp {
        /// How often.
        attempts: u32,
    },
}

/// Whether a claim was still its holder's, in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a lost claim means that another worker may have handled the id too"]
#[non_exhaustive]
pub enum Ownership {
    /// It was, and what was asked is done.
    Held,
    /// It was not: its lease ran out and somebody else took the id over. Nothing was changed.
    Lost,
}

/// A claim that this worker holds.
///
/// Dropped with nothing attempted it is released, also during a panic. Once
/// [`confirm`](Self::confirm) was attempted it is not, whatever came of it: the send has happened, and
/// no second worker must send again before the lease has run out.
///
/// Each verb is one commit, and fails with [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost),
/// changing nothing, once the lease has run out *and* another worker has taken the id over (or it was
/// marked or forgotten meanwhile). A lease that only ran out can still be confirmed.
#[must_use = "a lease that is dropped is released"]
pub struct Lease {
    store: SeenStore,
    id: Vec<u8>,
    token: Token,
    attempt: u32,
    until_ms: i64,
    /// Something that ends the claim was attempted.
    ending: bool,
}

impl Lease {
    /// The claimed id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Which attempt this is: 1 for the first claim of an id, 2 after one that was released, failed or
    /// ran out, and so on.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the lease ends and another worker may take the id over.
    pub fn expires_at(&self) -> SystemTime {
        from_ms(self.until_ms)
    }

    /// The evidence of the claim, for a worker in another process.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Gives the claim to whoever has the token: dropping no longer releases it.
    pub fn into_token(mut self) -> Token {
        self.ending = true;
        self.token
    }

    /// Lets the lease end `lease` from now.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost); otherwise as [`SeenStore::mark_seen`].
    pub fn renew(&mut self, lease: Duration) -> Result<()> {
        self.until_ms = self.store.renew_until(&self.id, self.token, lease)?;
        Ok(())
    }

    /// Makes the id seen. Call it after the send. Confirming twice is Ok, as long as the mark lives.
    ///
    /// The maximum age of a [sliding window](crate::Window::Sliding) counts from the claim. When that is
    /// over by now, it counts from now: the mark of a long send lives too.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost); otherwise as [`SeenStore::mark_seen`], and may be
    /// called again.
    pub fn confirm(&mut self) -> Result<()> {
        self.ending = true;
        self.store.confirm(&self.id, &self.token)
    }

    /// Makes the id seen and stores up to 65,536 bytes with it, such as the message id by which the
    /// alert can be edited later. [`SeenStore::get`] returns them. When it is confirmed twice the first
    /// receipt stays.
    ///
    /// # Errors
    ///
    /// As [`confirm`](Self::confirm), and [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a longer
    /// receipt.
    pub fn confirm_with(&mut self, receipt: impl AsRef<[u8]>) -> Result<()> {
        self.ending = true;
        self.store.confirm_with(&self.id, &self.token, receipt)
    }

    /// Gives the id back as if it had never been claimed, except that the attempt counts.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost); otherwise as [`SeenStore::mark_seen`].
    pub fn release(&mut self) -> Result<()> {
        self.ending = true;
        self.store.release(&self.id, &self.token)
    }

    /// Records why the attempt failed and gives the id back, at once or after
    /// [`Config::retry_delay`](crate::Config::retry_delay). Of a reason longer than 65,536 bytes the
    /// beginning is kept.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost); otherwise as [`SeenStore::mark_seen`].
    pub fn fail(&mut self, reason: &str) -> Result<()> {
        self.ending = true;
        self.store.fail(&self.id, &self.token, reason)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.ending {
            return;
        }
        match self.store.release(&self.id, &self.token) {
            Ok(()) => {}
            // In a forked child the claim is its parent's, who goes on with it.
            Err(e) if matches!(e.kind(), ErrorKind::LeaseLost | ErrorKind::Forked) => {}
            Err(e) => log::warn!(
                "{}: a dropped claim could not be released and blocks its id until its lease ends: {e}",
                self.store.engine.name
            ),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &String::from_utf8_lossy(&self.id))
            .field("attempt", &self.attempt)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// What a token stands for now.
enum Standing {
    /// The claim is its holder's.
    Claimed(ClaimRow),
    /// It was confirmed, or marked as seen while it was its holder's.
    Done(Slot, MarkRow),
    Lost,
}

impl SeenStore {
    /// Claims the id for this worker until the lease ends: of any number of threads and processes,
    /// exactly one is granted it. Send, then [`confirm`](Lease::confirm); when the send fails,
    /// [`fail`](Lease::fail) or drop the lease, and the id can be claimed again. A worker that dies
    /// holds it until its lease ends. So an alert is neither lost nor, as long as no worker outlives
    /// its lease, sent twice.
    ///
    /// ```
    /// use seen_store::{Claim, SeenStore};
    /// use std::time::Duration;
    /// # fn send() -> Result<u64, std::io::Error> { Ok(4711) }
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = SeenStore::in_memory()?;
    /// match store.claim("incident-17", Duration::from_secs(60))? {
    ///     Claim::Granted(mut lease) => match send() {
    ///         Ok(message) => lease.confirm_with(message.to_string())?,
    ///         Err(e) => lease.fail(&e.to_string())?,
    ///     },
    ///     Claim::InFlight { .. } => {} // another worker is at it
    ///     Claim::Seen => {}            // sent before
    ///     _ => {}                      // given up, with Config::max_attempts
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A claim is one commit, and so is its confirm; an id that is seen costs a lookup in memory.
    ///
    /// A lease that is held ends at the time of day it was granted until, also when the clock is set
    /// back meanwhile: the holder may still be at work. A claim that was given back blocks nothing. One
    /// that failed blocks its id for the [retry delay](crate::Config::retry_delay), which is void when
    /// the clock was set back to more than 60 s before the claim.
    ///
    /// # Errors
    ///
    /// [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a lease of zero; otherwise as
    /// [`mark_seen`](Self::mark_seen).
    pub fn claim(&self, id: impl AsRef<[u8]>, lease: Duration) -> Result<Claim> {
        let id = self.scope.id(id.as_ref())?;
        let lease = valid_lease(lease)?;
        if self.is_duplicate(id)? {
            return Ok(Claim::Seen);
        }
        let decision = self
            .write_one(id, move |store, transaction, id| store.claim_one(transaction, id, lease))?;
        Ok(self.answer(id.bytes, decision))
    }

    /// [`claim`](Self::claim) for many ids in one commit for each 10,000, with an answer for each id, in their
    /// order. Of equal ids in the batch the first is granted and the others are in flight.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim). Up to 10,000 ids are claimed all or none. With more, an error in a later
    /// commit leaves the earlier ones claimed until their leases end, and their tokens are lost; pass at most
    /// 10,000 at a time where that matters.
    pub fn claim_all<I>(&self, ids: I, lease: Duration) -> Result<Vec<Claim>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let lease = valid_lease(lease)?;
        let ids: Vec<_> = ids.into_iter().collect();
        let ids: Vec<Id<'_>> =
            ids.iter().map(|id| self.scope.id(id.as_ref())).collect::<Result<_>>()?;
        let decisions =
            self.in_batches(&ids, |transaction, ids| self.claim_batch(transaction, ids, lease))?;
        Ok(ids
            .iter()
            .zip(decisions)
            .map(|(id, decision)| self.answer(id.bytes, decision))
            .collect())
    }

    fn claim_batch(
        &self,
        transaction: &mut Transaction<'_>,
        ids: &[Id<'_>],
        lease: Ttl,
    ) -> Result<Vec<Option<Decision>>> {
        transaction.load_claims(ids.len())?;
        let (mut granted, mut until) = (Vec::new(), HashMap::new());
        let mut decisions = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(&until_ms) = until.get(&id.key) {
                decisions.push(Some(Decision::InFlight { until_ms }));
                continue;
            }
            let decision = self.decide(transaction, *id, lease)?;
            if let Some(Decision::Granted(claim)) = &decision {
                until.insert(id.key, claim.lease_until);
                granted.push((*id, claim.clone()));
            }
            decisions.push(decision);
        }
        transaction.put_claims(granted)?;
        Ok(decisions)
    }

    fn claim_one(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        lease: Ttl,
    ) -> Result<Option<Decision>> {
        let decision = self.decide(transaction, id, lease)?;
        if let Some(Decision::Granted(claim)) = &decision {
            transaction.put_claim(id, claim.clone())?;
        }
        Ok(decision)
    }

    /// What a claim of the id comes to; `None` is seen.
    fn decide(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        lease: Ttl,
    ) -> Result<Option<Decision>> {
        if self.sighted(transaction, id)? {
            return Ok(None);
        }
        let before = transaction.claim(id)?;
        let max_attempts = self.engine.config.max_attempts;
        let terms = Terms { lease, ttl: self.lifetime.ttl, max_attempts };
        let token = || self.engine.tokens.make();
        Ok(Some(claim::claim(before, terms, token, transaction.now_ms)))
    }

    fn answer(&self, id: &[u8], decision: Option<Decision>) -> Claim {
        match decision {
            None => Claim::Seen,
            Some(Decision::InFlight { until_ms }) => Claim::InFlight { until: from_ms(until_ms) },
            Some(Decision::GivenUp { attempts }) => Claim::GivenUp { attempts },
            Some(Decision::Granted(claim)) => Claim::Granted(Lease {
                store: self.clone(),
                id: id.to_vec(),
                token: claim.token.expect("a claim that is granted has a token"),
                attempt: claim.attempts,
                until_ms: claim.lease_until,
                ending: false,
            }),
        }
    }

    /// [`Lease::confirm`] for a worker that has the token.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn confirm(&self, id: impl AsRef<[u8]>, token: &Token) -> Result<()> {
        self.finish(id.as_ref(), *token, None)
    }

    /// [`Lease::confirm_with`] for a worker that has the token.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn confirm_with(
        &self,
        id: impl AsRef<[u8]>,
        token: &Token,
        receipt: impl AsRef<[u8]>,
    ) -> Result<()> {
        let receipt = receipt.as_ref();
        if receipt.len() > MAX_NOTE_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidClaim,
                format!("the receipt has {} bytes; at most 65536 are stored", receipt.len()),
            ));
        }
        self.finish(id.as_ref(), *token, Some(receipt))
    }

    fn finish(&self, id: &[u8], token: Token, receipt: Option<&[u8]>) -> Result<()> {
        let id = self.scope.id(id)?;
        let receipt = receipt.map(<[u8]>::to_vec);
        let owned = self.write_one(id, move |store, transaction, id| {
            store.finish_in(transaction, id, token, receipt.as_deref())
        })?;
        match owned {
            Ownership::Held => Ok(()),
            Ownership::Lost => Err(lost(id, &self.engine.name)),
        }
    }

    fn finish_in(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<Ownership> {
        let (owned, ended) = self.mark_finished(transaction, id, token, receipt)?;
        if ended {
            transaction.delete_claim(id)?;
        }
        Ok(owned)
    }

    /// Marks the id as seen if the token's claim stands. True where that ends a claim, which the caller is to
    /// delete.
    fn mark_finished(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        receipt: Option<&[u8]>,
    ) -> Result<(Ownership, bool)> {
        match standing(transaction, id, token)? {
            Standing::Lost => Ok((Ownership::Lost, false)),
            Standing::Claimed(claim) => {
                let mark = claim::confirm(self.lifetime, &claim, receipt, transaction.now_ms);
                transaction.append(id, &mark)?;
                Ok((Ownership::Held, true))
            }
            Standing::Done(slot, row) => {
                if let (Some(receipt), None) = (receipt, row.receipt) {
                    transaction.add_receipt(id, slot, receipt)?;
                }
                Ok((Ownership::Held, false))
            }
        }
    }

    /// Confirms many claims in one commit for each 10,000; which of them were still held.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen). Up to 10,000 are confirmed all or none; with more, an error in a
    /// later commit leaves the earlier ones confirmed. Calling it again is safe.
    pub fn confirm_all<I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: AsRef<[u8]>,
    {
        self.for_all(claims, |transaction, claims| {
            let (mut owned, mut ended) = (Vec::with_capacity(claims.len()), Vec::new());
            for (id, token) in claims {
                let (ownership, ends) = self.mark_finished(transaction, *id, *token, None)?;
                owned.push(ownership);
                ended.extend(ends.then_some(*id));
            }
            transaction.delete_claims(ended)?;
            Ok(owned)
        })
    }

    /// Releases many claims in one commit for each 10,000; which of them were still held.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen). Up to 10,000 are released all or none; with more, an error in a
    /// later commit leaves the earlier ones released.
    pub fn release_all<I, B>(&self, claims: I) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: AsRef<[u8]>,
    {
        self.change_all(claims, &Change::Release)
    }

    /// Renews many claims in one commit for each 10,000; which of them were still held.
    ///
    /// # Errors
    ///
    /// As [`renew`](Self::renew), lost claims apart. Up to 10,000 are renewed all or none; with more, an
    /// error in a later commit leaves the earlier ones renewed.
    pub fn renew_all<I, B>(&self, claims: I, lease: Duration) -> Result<Vec<Ownership>>
    where
        I: IntoIterator<Item = (B, Token)>,
        B: AsRef<[u8]>,
    {
        self.change_all(claims, &Change::Renew { lease: valid_lease(lease)? })
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

    /// [`Lease::release`] for a worker that has the token.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn release(&self, id: impl AsRef<[u8]>, token: &Token) -> Result<()> {
        self.change_claim(id.as_ref(), *token, Change::Release).map(drop)
    }

    /// [`Lease::fail`] for a worker that has the token.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fail(&self, id: impl AsRef<[u8]>, token: &Token, reason: &str) -> Result<()> {
        let reason = reason[..reason.floor_char_boundary(MAX_NOTE_BYTES)].to_owned();
        let retry_delay = Ttl::After(self.engine.config.retry_delay);
        self.change_claim(id.as_ref(), *token, Change::Fail { reason, retry_delay }).map(drop)
    }

    /// [`Lease::renew`] for a worker that has the token.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn renew(&self, id: impl AsRef<[u8]>, token: &Token, lease: Duration) -> Result<()> {
        self.renew_until(id.as_ref(), *token, lease).map(drop)
    }

    /// Renews, and returns until when, in unix milliseconds.
    fn renew_until(&self, id: &[u8], token: Token, lease: Duration) -> Result<i64> {
        self.change_claim(id, token, Change::Renew { lease: valid_lease(lease)? })
    }

    /// Returns when the lease, or the delay after a failure, ends.
    fn change_claim(&self, id: &[u8], token: Token, change: Change) -> Result<i64> {
        let id = self.scope.id(id)?;
        let until_ms = self.write_one(id, move |store, transaction, id| {
            store.change(transaction, id, token, &change)
        })?;
        until_ms.ok_or_else(|| lost(id, &self.engine.name))
    }

    /// `None`: the claim is no longer held.
    fn change(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        token: Token,
        change: &Change,
    ) -> Result<Option<i64>> {
        let Standing::Claimed(mut claim) = standing(transaction, id, token)? else {
            return Ok(None);
        };
        change.apply(&mut claim, self.lifetime.ttl, transaction.now_ms);
        let until_ms = claim.lease_until;
        transaction.put_claim(id, claim)?;
        Ok(Some(until_ms))
    }
}

fn lost(id: Id<'_>, store: &str) -> Error {
    Error::new(
        ErrorKind::LeaseLost,
        format!(
            "{store}: the claim of {:?} is no longer held: it was ended, or its lease ran out and another \
             worker took it over",
            String::from_utf8_lossy(&id.bytes[..id.bytes.len().min(200)])
        ),
    )
}

fn standing(transaction: &mut Transaction<'_>, id: Id<'_>, token: Token) -> Result<Standing> {
    if let Some(slot) = transaction.live(id.key)? {
        let row = transaction.row(slot)?;
        return Ok(match row {
            Some(row) if row.token == Some(token) => Standing::Done(slot, row),
            _ => Standing::Lost,
        });
    }
    let claim = transaction.claim(id)?.filter(|claim| claim.token == Some(token));
    Ok(claim.map_or(Standing::Lost, Standing::Claimed))
}

fn valid_lease(lease: Duration) -> Result<Ttl> {
    if lease.is_zero() {
        return Err(Error::new(
            ErrorKind::InvalidClaim,
            "a lease of zero would end before the work began; give the longest time a worker may take",
        ));
    }
    Ok(Ttl::After(lease))
}
