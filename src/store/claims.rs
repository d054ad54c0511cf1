//! The verbs that claim an id: it is granted to exactly one worker.
//!
//! Owns the answer to a claim, and what is known of an id that is refused. What always holds: a claim is decided under
//! the write lock, except that an id which the index knows as seen is refused at once. What becomes of a claim after
//! it was granted is in `settle`. Knows nothing of SQL.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Lease, SeenStore};
use crate::clock::{Stopwatch, from_ms};
use crate::config::Ttl;
use crate::decide::claim::Decision;
use crate::decide::verbs::{Decided, Look};
use crate::engine::renewal::Renewal;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, Key};
use crate::index::{Refused, Slot};
use crate::item::{Comparison, Digest, Item, compare, is_same};
use crate::journal::Transaction;
use crate::token::Token;

/// The answer of [`SeenStore::claim`], with a [`Lease`] and what is [`Known`].
#[derive(Debug)]
#[must_use = "a granted claim that is dropped is released"]
#[non_exhaustive]
pub enum Claim<L = Lease, K = Known> {
    /// The id belongs to this worker until the lease ends.
    Granted(L),
    /// Another worker has it, or it failed and its retry delay is not over. It can be claimed after `until`.
    InFlight {
        /// When the other worker's lease, or the retry delay, ends.
        until: SystemTime,
        /// The label of the other worker.
        holder: Option<String>,
    },
    /// It was handled before, in this version.
    Seen(K),
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
pub struct Known(Source);

/// Where it is known from.
#[derive(Clone)]
#[cfg_attr(
    feature = "backend",
    expect(clippy::large_enum_variant, reason = "the large one is the common one")
)]
enum Source {
    /// It is read when it is asked for.
    File { store: SeenStore, key: Key, slot: Slot, digest: Option<Digest> },
    /// It was read with the decision.
    #[cfg(feature = "backend")]
    Read(Option<Box<Entry>>),
}

impl Known {
    /// Returns the entry of the id, or `None` when it is not seen any more, or no more in the version or with the payload
    /// that was claimed. Reads one row, about 2 µs.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`].
    pub fn entry(&self) -> Result<Option<Entry>> {
        match &self.0 {
            Source::File { store, .. } => self.entry_by(store),
            #[cfg(feature = "backend")]
            Source::Read(entry) => Ok(entry.as_deref().cloned()),
        }
    }

    #[cfg(feature = "backend")]
    pub(crate) fn read(entry: Option<Entry>) -> Self {
        Self(Source::Read(entry.map(Box::new)))
    }

    /// Returns the [`entry`](Self::entry), read by another handle on the store.
    pub(crate) fn entry_by(&self, store: &SeenStore) -> Result<Option<Entry>> {
        match &self.0 {
            Source::File { key, slot, digest, .. } => {
                let entry = store.engine.entry_of(*key, *slot)?;
                Ok(entry.filter(|entry| is_same(entry.digest, *digest)))
            }
            #[cfg(feature = "backend")]
            Source::Read(_) => self.entry(),
        }
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

impl<L, K> Claim<L, K> {
    /// Whether a waiter need not ask again.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::InFlight { .. })
    }
}

impl SeenStore {
    /// Claims the id for this worker until the lease ends, and returns whether it was granted. Of any number
    /// of threads and processes, exactly one is granted an id. Send, then [`confirm`](Lease::confirm). When
    /// the send fails, call [`fail`](Lease::fail) or drop the lease, and the id can be claimed again. A
    /// worker that dies holds the id until its lease ends. So an alert is not lost, and it is not sent twice
    /// as long as no worker works longer than its lease.
    ///
    /// An id that is seen in another [version](crate::Item::version) is granted. Until that claim is confirmed the id
    /// stays seen in its old version, so an attempt that fails loses neither the old mark nor the change. Meanwhile it
    /// has two [entries](Self::entries).
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
    /// [`InvalidClaim`](crate::ErrorKind::InvalidClaim) for a lease of zero,
    /// [`Conflict`](crate::ErrorKind::Conflict) for an id that was claimed or marked with another
    /// [payload](crate::Item::payload); otherwise those of [`mark_seen`](Self::mark_seen).
    pub fn claim<'a>(&self, id: impl Into<Item<'a>>, lease: Duration) -> Result<Claim> {
        let item = id.into();
        let (id, terms) = (self.id(&item)?, checked_lease(lease)?);
        let is_final = Claim::is_final;
        let claim = if self.waiting.is_zero() {
            self.claim_now(id, lease, terms)?
        } else {
            self.engine.check_process()?;
            let ask = || self.claim_now(id, lease, terms);
            self.engine.waiters.ask_until(id.key, self.waiting, ask, is_final)?
        };
        self.count_claim(&claim, Lease::previous);
        if !self.waiting.is_zero() && !is_final(&claim) {
            self.count_waiter(id)?;
        }
        Ok(claim)
    }

    /// Counts a waiter that was refused: once, however often it asked.
    pub(crate) fn count_waiter(&self, id: Id<'_>) -> Result<()> {
        let now_ms = self.engine.clock.now_ms();
        let claim = self.engine.with_journal(|writer| writer.journal.claim(id, now_ms))?;
        if let Some(token) = claim.and_then(|claim| claim.token) {
            self.engine.index.refusals.add(token, Refused::once(id));
        }
        Ok(())
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
    pub fn claim_all<'a, I>(&self, ids: I, lease: Duration) -> Result<Vec<Claim>>
    where
        I: IntoIterator<Item: Into<Item<'a>>>,
    {
        let (length, lease) = (lease, checked_lease(lease)?);
        let items: Vec<_> = ids.into_iter().map(Into::into).collect();
        let ids = self.ids(&items)?;
        let decisions = self.in_batches(
            &ids,
            |id| id.key,
            |transaction, ids| self.claim_batch(transaction, ids, lease),
        )?;
        let claims = ids.iter().zip(decisions).map(|(id, decided)| {
            let claim = self.to_claim(*id, decided, length)?;
            self.count_claim(&claim, Lease::previous);
            Ok(claim)
        });
        claims.collect()
    }

    fn claim_batch(
        &self,
        transaction: &mut Transaction<'_>,
        ids: &[Id<'_>],
        lease: Ttl,
    ) -> Result<Vec<Decided>> {
        transaction.load_claims(ids.len())?;
        let verbs = self.verbs();
        let (mut granted, mut until) = (Vec::new(), HashMap::new());
        let mut decisions = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(&(until_ms, digest, token)) = until.get(&id.key) {
                // The claim may be of a change: the id is seen all the while in its old version.
                if let Look::Same(slot) = verbs.sight(transaction, *id)? {
                    decisions.push(Decided::Seen(slot));
                    continue;
                }
                if compare(digest, id.digest) == Comparison::Conflict {
                    return Err(verbs.conflict(*id));
                }
                transaction.count_refusal(*id, token);
                let holder = Some(Arc::clone(&self.engine.holder));
                decisions.push(Decided::Unseen(Decision::InFlight { until_ms, holder }));
                continue;
            }
            let decision = verbs.decide_claim(transaction, *id, lease, true)?;
            if let Decided::Unseen(Decision::Granted(claim, ..)) = &decision {
                until.insert(id.key, (claim.lease_until, claim.digest, claim.token));
                granted.push((*id, claim.clone()));
            }
            decisions.push(decision);
        }
        transaction.put_claims(granted)?;
        Ok(decisions)
    }

    pub(crate) fn claim_one(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        lease: Ttl,
    ) -> Result<Decided> {
        self.verbs().claim(transaction, id, lease, self.waiting.is_zero())
    }

    pub(crate) fn to_claim(&self, id: Id<'_>, decided: Decided, lease: Duration) -> Result<Claim> {
        let label = |holder: Option<Arc<str>>| holder.as_deref().map(str::to_owned);
        Ok(match decided {
            Decided::Seen(slot) => {
                let (key, digest) = (id.key, id.digest);
                Claim::Seen(Known(Source::File { store: self.clone(), key, slot, digest }))
            }
            Decided::Unseen(Decision::InFlight { until_ms, holder }) => {
                Claim::InFlight { until: from_ms(until_ms), holder: label(holder) }
            }
            Decided::Unseen(Decision::Unresolved { since_ms, holder }) => {
                Claim::Unresolved { since: from_ms(since_ms), holder: label(holder) }
            }
            Decided::Unseen(Decision::GivenUp { attempts }) => Claim::GivenUp { attempts },
            Decided::Unseen(Decision::Granted(claim, previous, is_change)) => {
                let mut granted = Lease {
                    previous,
                    is_change,
                    was_late: false,
                    store: Box::new(self.clone()),
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
        self.engine.keep_renewed(granted.token, renewal)
    }

    /// Returns whether the claim is this token's and its lease has not run out.
    pub(crate) fn holds(&self, id: &[u8], token: Token) -> Result<bool> {
        let id = self.scope.id(id)?;
        self.engine.check_open()?;
        self.engine.with_journal(|writer| {
            let claim = writer.journal.claim(id, self.engine.clock.now_ms())?;
            let now_ms = self.engine.clock.now_ms();
            Ok(claim.is_some_and(|claim| claim.token == Some(token) && claim.is_in_flight(now_ms)))
        })
    }
}

pub(crate) fn checked_lease(lease: Duration) -> Result<Ttl> {
    if lease.is_zero() {
        return Err(Error::new(
            ErrorKind::InvalidClaim,
            "a lease of zero would end before the work began; give the longest time a worker may take",
        ));
    }
    Ok(Ttl::After(lease))
}
