//! The verbs of claims: an id is granted to exactly one worker, and becomes free again when the worker does
//! not confirm it.
//!
//! Owns the life of a claim: granted, perhaps renewed, then confirmed, released, failed, or taken over once
//! its lease has run out. What always holds: every step is decided under the write lock, and only the token
//! of the present claim can change it. A holder that has lost its claim gets an error and changes nothing.
//! Knows nothing of SQL.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Failure, Lease, SeenStore};
use crate::clock::{Stopwatch, from_ms};
use crate::config::{Config, RetryDelay, Ttl};
use crate::decide::claim::{self, Change, Decision, Fail, Terms};
use crate::engine::renewal::Renewal;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, Key, MAX_NOTE_BYTES};
use crate::index::Slot;
use crate::journal::claims::ClaimRow;
use crate::journal::{MarkRow, Transaction};
use crate::machine;
use crate::token::Token;

/// The longest receipt, in bytes, that is written in one transaction with other small writes.
const LONGEST_GROUPED_RECEIPT: usize = 4_096;

/// The answer of [`SeenStore::claim`].
#[derive(Debug)]
#[must_use = "a granted claim that is dropped is released"]
#[non_exhaustive]
pub enum Claim {
    /// The id belongs to this worker until the lease ends.
    Granted(Lease),
    /// Another worker has it, or it failed and its retry delay is not over. It can be claimed after `until`.
    InFlight {
        /// When the other worker's lease, or the retry delay, ends.
        until: SystemTime,
        /// The label of the other worker.
        holder: Option<String>,
    },
    /// It was handled before.
    Seen(Known),
    /// Its claim was abandoned, and is [held](crate::Abandoned::Hold) until a decision: see
    /// [`resolve`](SeenStore::resolve).
    Unresolved {
        /// When the lease ran out.
        since: SystemTime,
        /// The label of the worker that vanished.
        holder: Option<String>,
    },
    /// It failed [finally](crate::Failure::is_final), or was tried as often as
    /// [`Config::max_attempts`](crate::Config::max_attempts) or abandoned as often as
    /// [`Config::max_abandoned`](crate::Config::max_abandoned) allows.
    GivenUp {
        /// How often it was tried.
        attempts: u32,
    },
}

/// What is known of an id whose claim was refused because it is seen. It is read from the file when it is asked for.
///
/// A row of the file does not change, so what is read later is what was known at the refusal, unless the id was
/// refreshed or forgotten in between: then it is what is known of it now.
#[derive(Clone)]
pub struct Known {
    store: SeenStore,
    key: Key,
    slot: Slot,
}

impl Known {
    /// Returns the entry of the id, or `None` when it is not seen any more. Reads one row, about 2 µs.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub fn entry(&self) -> Result<Option<Entry>> {
        let engine = &self.store.engine;
        engine.check_open()?;
        if let Some(entry) = engine.entry_at(self.key, self.slot)? {
            return Ok(Some(entry));
        }
        engine.with_journal(|writer| engine.seen_entry(writer, self.key))
    }

    /// Returns the receipt that was stored when the id was confirmed.
    ///
    /// # Errors
    ///
    /// Those of [`entry`](Self::entry).
    pub fn receipt(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.entry()?.and_then(|entry| entry.receipt))
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

/// What is decided of an id whose last attempt is over: see [`SeenStore::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// The decision on a claim.
enum Decided {
    Seen(Slot),
    Unseen(Decision),
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
    /// Claims the id for this worker until the lease ends, and returns whether it was granted. Of any number
    /// of threads and processes, exactly one is granted an id. Send, then [`confirm`](Lease::confirm). When
    /// the send fails, call [`fail`](Lease::fail) or drop the lease, and the id can be claimed again. A
    /// worker that dies holds the id until its lease ends. So an alert is not lost, and it is not sent twice
    /// as long as no worker works longer than its lease.
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
    ///         Err(e) => lease.fail(e.to_string())?,
    ///     },
    ///     Claim::InFlight { .. } => {} // another worker has it
    ///     Claim::Seen(known) => {      // sent before
    ///         println!("message {:?}", known.receipt()?);
    ///     }
    ///     _ => {}                      // given up, or to be resolved
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A claim is one commit, and so is its confirm; an id that is seen costs a lookup in memory.
    ///
    /// A held lease ends at the time of day until which it was granted, also when the clock is set back
    /// meanwhile: the holder may still be working. A claim that was released blocks nothing. A claim that
    /// failed blocks its id for the [retry delay](crate::Config::retry_delay), which ends at once when the
    /// clock is set back to more than 60 s before the claim.
    ///
    /// # Errors
    ///
    /// [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a lease of zero; otherwise those of
    /// [`mark_seen`](Self::mark_seen).
    pub fn claim(&self, id: impl AsRef<[u8]>, lease: Duration) -> Result<Claim> {
        let id = self.scope.id(id.as_ref())?;
        let terms = checked_lease(lease)?;
        if self.waiting.is_zero() {
            return self.claim_now(id, lease, terms);
        }
        self.engine.check_process()?;
        let ask = || self.claim_now(id, lease, terms);
        let is_final = |claim: &Claim| !matches!(claim, Claim::InFlight { .. });
        self.engine.waiters.ask_until(id.key, self.waiting, ask, is_final)
    }

    fn claim_now(&self, id: Id<'_>, length: Duration, lease: Ttl) -> Result<Claim> {
        let decided = match self.duplicate_in_index(id)? {
            Some(slot) => Decided::Seen(slot),
            None => self.write_one(id, move |store, transaction, id| {
                store.claim_one(transaction, id, lease)
            })?,
        };
        self.to_claim(id, decided, length)
    }

    /// Claims many ids in one commit for each 10,000, and returns an answer for each id, in their order. Of
    /// equal ids in the batch the first is granted and the others are in flight.
    ///
    /// ```
    /// use seen_store::Claim;
    /// use std::time::Duration;
    /// # fn main() -> seen_store::Result<()> {
    /// # let store = seen_store::SeenStore::in_memory()?;
    /// for claim in store.claim_all(["a", "b"], Duration::from_secs(60))? {
    ///     if let Claim::Granted(mut lease) = claim {
    ///         // send
    ///         lease.confirm()?;
    ///     }
    /// }
    /// assert!(store.is_seen("a") && store.is_seen("b"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`claim`](Self::claim). Up to 10,000 ids are claimed all or none. With more, an error in a
    /// later commit leaves the earlier ones claimed until their leases end, and their tokens are lost. Pass
    /// at most 10,000 at a time where that matters.
    pub fn claim_all<I>(&self, ids: I, lease: Duration) -> Result<Vec<Claim>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let (length, lease) = (lease, checked_lease(lease)?);
        let ids: Vec<_> = ids.into_iter().collect();
        let ids = self.scope.ids(&ids)?;
        let decisions =
            self.in_batches(&ids, |transaction, ids| self.claim_batch(transaction, ids, lease))?;
        ids.iter().zip(decisions).map(|(id, decided)| self.to_claim(*id, decided, length)).collect()
    }

    fn claim_batch(
        &self,
        transaction: &mut Transaction<'_>,
        ids: &[Id<'_>],
        lease: Ttl,
    ) -> Result<Vec<Decided>> {
        transaction.load_claims(ids.len())?;
        let (mut granted, mut until) = (Vec::new(), HashMap::new());
        let mut decisions = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(&until_ms) = until.get(&id.key) {
                let holder = Some(Arc::clone(&self.engine.holder));
                decisions.push(Decided::Unseen(Decision::InFlight { until_ms, holder }));
                continue;
            }
            let decision = self.decide(transaction, *id, lease)?;
            if let Decided::Unseen(Decision::Granted(claim, _)) = &decision {
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
    ) -> Result<Decided> {
        let decided = self.decide(transaction, id, lease)?;
        if let Decided::Unseen(Decision::Granted(claim, _)) = &decided {
            transaction.put_claim(id, claim.clone())?;
        }
        Ok(decided)
    }

    /// Decides on a claim of the id.
    fn decide(&self, transaction: &mut Transaction<'_>, id: Id<'_>, lease: Ttl) -> Result<Decided> {
        if let Some(slot) = self.record_sighting(transaction, id)? {
            return Ok(Decided::Seen(slot));
        }
        let before = transaction.claim(id)?;
        let Config { max_attempts, max_abandoned, .. } = self.engine.config;
        let terms = Terms {
            lease,
            ttl: self.lifetime.ttl,
            max_attempts,
            max_abandoned,
            abandoned: self.abandoned,
            holder: Arc::clone(&self.engine.holder),
        };
        let token = || self.engine.tokens.make();
        Ok(Decided::Unseen(claim::claim(before, terms, token, transaction.now_ms)))
    }

    fn to_claim(&self, id: Id<'_>, decided: Decided, lease: Duration) -> Result<Claim> {
        let label = |holder: Option<Arc<str>>| holder.as_deref().map(str::to_owned);
        Ok(match decided {
            Decided::Seen(slot) => Claim::Seen(Known { store: self.clone(), key: id.key, slot }),
            Decided::Unseen(Decision::InFlight { until_ms, holder }) => {
                Claim::InFlight { until: from_ms(until_ms), holder: label(holder) }
            }
            Decided::Unseen(Decision::Unresolved { since_ms, holder }) => {
                Claim::Unresolved { since: from_ms(since_ms), holder: label(holder) }
            }
            Decided::Unseen(Decision::GivenUp { attempts }) => Claim::GivenUp { attempts },
            Decided::Unseen(Decision::Granted(claim, previous)) => {
                let mut granted = Lease {
                    previous,
                    store: self.clone(),
                    id: id.bytes.to_vec(),
                    token: claim.token.expect("a claim that is granted has a token"),
                    attempt: claim.attempts,
                    until_ms: Arc::new(claim.lease_until.into()),
                    renews: false,
                    end_attempted: false,
                };
                if let Some(at_most) = self.renewing {
                    self.keep_renewed(&granted, lease, at_most)?;
                    granted.renews = true;
                }
                Claim::Granted(granted)
            }
        })
    }

    fn keep_renewed(&self, granted: &Lease, lease: Duration, at_most: Duration) -> Result<()> {
        let renewal = Renewal {
            scope: self.scope.clone(),
            id: granted.id.clone(),
            lease,
            ttl: self.lifetime.ttl,
            at_most,
            until_ms: Arc::clone(&granted.until_ms),
            granted: Stopwatch::start(),
            renewed: Stopwatch::start(),
        };
        self.engine.engine().keep_renewed(granted.token, renewal)
    }

    /// Returns whether the claim is this token's and its lease has not run out.
    pub(super) fn is_held(&self, id: &[u8], token: Token) -> Result<bool> {
        let id = self.scope.id(id)?;
        self.engine.check_open()?;
        self.engine.with_journal(|writer| {
            let claim = writer.journal.claim(id, self.engine.clock.now_ms())?;
            let now_ms = self.engine.clock.now_ms();
            Ok(claim.is_some_and(|claim| claim.token == Some(token) && claim.is_in_flight(now_ms)))
        })
    }

    /// Confirms a claim by its token, like [`Lease::confirm`]. For a worker that has no [`Lease`], such as
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
    /// Those of [`Lease::confirm`].
    pub fn confirm(&self, id: impl AsRef<[u8]>, token: &Token) -> Result<()> {
        self.confirm_claim(id.as_ref(), *token, None)
    }

    /// Confirms a claim by its token and stores a receipt, like [`Lease::confirm_with`].
    ///
    /// # Errors
    ///
    /// Those of [`Lease::confirm_with`].
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

    /// Releases a claim by its token, like [`Lease::release`].
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
    /// Those of [`Lease::release`].
    pub fn release(&self, id: impl AsRef<[u8]>, token: &Token) -> Result<()> {
        self.change_claim(id.as_ref(), *token, Change::Release).map(drop)
    }

    /// Records a failed attempt by the token of its claim, like [`Lease::fail`].
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
    /// Those of [`Lease::fail`].
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

    /// Renews a lease by its token, like [`Lease::renew`]: it ends `lease` from now.
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
    /// Those of [`Lease::renew`].
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

fn checked_lease(lease: Duration) -> Result<Ttl> {
    if lease.is_zero() {
        return Err(Error::new(
            ErrorKind::InvalidClaim,
            "a lease of zero would end before the work began; give the longest time a worker may take",
        ));
    }
    Ok(Ttl::After(lease))
}

/// The text, cut before the character that would make it longer than `most` bytes.
fn first_bytes(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
