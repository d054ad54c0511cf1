//! Decides for the filter whether an id is new.
//!
//! Owns the difference between a normal and a dry run. What always holds: a normal run claims an id before it is
//! printed and confirms it afterwards, so that a crash in between does not lose it; a dry run gives the same answers
//! and changes no file.

use std::collections::HashSet;
use std::time::Duration;

use seen_store::{Claim, Config, Entry, Item, Ownership, SeenStore, State, Token, Ttl, Verdict};

use crate::Result;
use crate::args::database::{self, Database, Opened};

/// A claim that this run holds: the id and the token.
pub(crate) type Held = (Vec<u8>, Token);

/// The decision on a line.
pub(crate) enum Decision {
    /// It was not printed before. With the claim to be confirmed, unless it is never remembered.
    New(Option<Held>),
    /// It was printed before in another version. With the claim to be confirmed.
    Changed(Option<Held>),
    Duplicate,
    /// Another filter has claimed it and may be printing it at this moment.
    InFlight,
    /// It is held because its worker vanished, or it was given up: it is not printed before a decision.
    Withheld,
}

/// Returns the claims as a store takes them.
pub(crate) fn as_claims(held: &[Held]) -> Vec<(Item<'_>, Token)> {
    held.iter().map(|(id, token)| (id.into(), *token)).collect()
}

pub(crate) enum Memory {
    Lasting {
        store: Opened,
        lease: Duration,
    },
    /// `before` is the store, if it exists; `run` holds the ids of this run.
    Dry {
        before: Option<Opened>,
        run: SeenStore,
    },
}

impl Memory {
    pub(crate) fn lasting(database: &Database, config: Config, lease: Duration) -> Result<Self> {
        let store = database.open(config)?;
        database.announce(&store, "filter");
        Ok(Self::Lasting { store, lease })
    }

    pub(crate) fn dry(database: &Database, ttl: Ttl) -> Result<Self> {
        let before = database.open_if_any()?;
        Ok(Self::Dry { before, run: SeenStore::in_memory_with(Config::default().ttl(ttl))? })
    }

    /// Returns what stands in for a store that cannot be opened. Nothing is asked of it.
    pub(crate) fn unusable() -> Result<Self> {
        Ok(Self::Dry { before: None, run: SeenStore::in_memory()? })
    }

    /// Returns a decision for each id, in their order.
    pub(crate) fn decide(&self, items: &[&Item<'_>]) -> Result<Vec<Decision>> {
        match self {
            Self::Lasting { store, lease } => {
                let all: Vec<Item<'_>> = items.iter().map(|item| (*item).into()).collect();
                Ok(decisions(items, store.claim_all(&all, *lease)?))
            }
            Self::Dry { before, run } => items
                .iter()
                .map(|item| {
                    // Of an id of this run, the store knows an earlier version.
                    let before = before.as_ref().filter(|_| !run.is_seen(item.id()));
                    if let Some(store) = before
                        && store.try_is_seen((*item).into())?
                    {
                        run.mark_seen(*item)?;
                        return Ok(Decision::Duplicate);
                    }
                    let is_known = before.is_some_and(|store| store.is_seen(item.id().into()));
                    Ok(match run.check_and_mark(*item)? {
                        Verdict::New if !is_known => Decision::New(None),
                        Verdict::New | Verdict::Changed => Decision::Changed(None),
                        _ => Decision::Duplicate,
                    })
                })
                .collect(),
        }
    }

    /// Returns whether the item is a duplicate, as far as that is known without a claim.
    pub(crate) fn is_seen(&self, item: &Item<'_>) -> Result<bool> {
        Ok(match self {
            Self::Lasting { store, .. } => store.try_is_seen(item.into())?,
            Self::Dry { before: Some(store), run } if !run.is_seen(item.id()) => {
                store.try_is_seen(item.into())?
            }
            Self::Dry { run, .. } => run.is_seen(item),
        })
    }

    /// Confirms the ids that were printed. Returns how many claims were lost because their lease ran out and another
    /// filter took them over.
    pub(crate) fn confirm(&self, held: &[Held]) -> Result<usize> {
        let Self::Lasting { store, .. } = self else { return Ok(0) };
        let kept = store.confirm_all(&as_claims(held))?;
        Ok(kept.iter().filter(|kept| **kept == Ownership::Lost).count())
    }

    /// Releases the ids that were not printed.
    pub(crate) fn release(&self, held: &[Held]) -> Result<()> {
        if let Self::Lasting { store, .. } = self
            && !held.is_empty()
        {
            // A lost claim belongs to another filter, which prints the line.
            let _ = store.release_all(&as_claims(held))?;
        }
        Ok(())
    }

    /// Returns whether another filter still holds a claim on the id.
    pub(crate) fn is_in_flight(&self, id: &[u8]) -> Result<bool> {
        match self {
            Self::Lasting { store, .. } => {
                let in_flight = |entry: &Entry| entry.state == State::InFlight;
                let entry = store.get(id.into())?;
                Ok(entry.is_some_and(|it| {
                    in_flight(&it) || it.change.as_deref().is_some_and(in_flight)
                }))
            }
            Self::Dry { .. } => Ok(false),
        }
    }

    pub(crate) fn close(self) {
        let (Self::Lasting { store, .. } | Self::Dry { before: Some(store), .. }) = self else {
            return;
        };
        database::close(&store);
    }
}

/// An id that comes twice in a batch is in flight the second time, claimed by this run. That is a duplicate. (No batch has
/// two versions of an id.)
fn decisions(items: &[&Item<'_>], claims: Vec<Claim>) -> Vec<Decision> {
    // If no id is in flight, as is usual, this run's own ids need not be remembered.
    let in_flight = claims.iter().any(|claim| matches!(claim, Claim::InFlight { .. }));
    let mut ours = HashSet::new();
    items
        .iter()
        .zip(claims)
        .map(|(item, claim)| match claim {
            Claim::Granted(lease) => {
                if in_flight {
                    ours.insert(item.id());
                }
                let is_change = lease.is_change();
                let held = Some((item.id().to_vec(), lease.into_token()));
                if is_change { Decision::Changed(held) } else { Decision::New(held) }
            }
            Claim::InFlight { .. } if !ours.contains(item.id()) => Decision::InFlight,
            Claim::Unresolved { .. } | Claim::GivenUp { .. } => Decision::Withheld,
            _ => Decision::Duplicate,
        })
        .collect()
}
