//! What the filter asks whether an id is new.
//!
//! Owns the difference between a run that remembers and a dry one. What always holds: a remembering run
//! claims an id before it is printed and confirms it afterwards, so that no crash in between loses it;
//! a dry run answers the same and changes no file.

use std::collections::HashSet;
use std::time::Duration;

use seen_store::{
    Claim, Config, ErrorKind, Ownership, SeenStore, State, Token, Ttl, Verdict, Window,
};

use crate::Result;
use crate::args::database::{self, Database};

/// A claim that this run holds: the id, and the proof.
pub(crate) type Held = (Vec<u8>, Token);

/// What is to be done with a line.
pub(crate) enum Decision {
    /// Nobody has printed it. With the claim to be confirmed, unless it is never remembered.
    New(Option<Held>),
    Duplicate,
    /// Another filter has claimed it and may be printing it at this moment.
    InFlight,
}

pub(crate) enum Memory {
    Lasting {
        store: SeenStore,
        lease: Duration,
        /// With a time to live of zero a line that comes twice is new twice.
        forgetful: bool,
    },
    /// `before` is the store as it is, if there is one; `run` knows what this run has met.
    Dry { before: Option<SeenStore>, run: SeenStore },
}

impl Memory {
    pub(crate) fn lasting(
        database: &Database,
        ttl: Ttl,
        window: Window,
        lease: Duration,
    ) -> Result<Self> {
        let store = database.open(Config::default().ttl(ttl).window(window))?;
        Ok(Self::Lasting { store, lease, forgetful: ttl == Ttl::After(Duration::ZERO) })
    }

    pub(crate) fn dry(database: &Database, ttl: Ttl) -> Result<Self> {
        let before = match database.open(Config::default().read_only(true)) {
            Ok(store) => Some(store),
            Err(e) if database::kind(&*e) == Some(ErrorKind::NotFound) => None,
            Err(e) => return Err(e),
        };
        Ok(Self::Dry { before, run: SeenStore::in_memory_with(Config::default().ttl(ttl))? })
    }

    /// A decision for each id, in their order.
    pub(crate) fn decide(&self, ids: &[impl AsRef<[u8]>]) -> Result<Vec<Decision>> {
        match self {
            Self::Lasting { store, lease, forgetful } => {
                let claims = store.claim_all(ids.iter().map(AsRef::as_ref), *lease)?;
                Ok(decisions(ids, claims, *forgetful))
            }
            Self::Dry { before, run } => ids
                .iter()
                .map(|id| match before {
                    Some(store) if store.try_is_seen(id)? => Ok(Decision::Duplicate),
                    _ => Ok(match run.check_and_mark(id)? {
                        Verdict::New => Decision::New(None),
                        _ => Decision::Duplicate,
                    }),
                })
                .collect(),
        }
    }

    /// Whether the id is a duplicate, as far as that can be said without claiming it.
    pub(crate) fn is_seen(&self, id: &[u8]) -> Result<bool> {
        Ok(match self {
            Self::Lasting { store, .. } => store.try_is_seen(id)?,
            Self::Dry { before: Some(store), run } => store.try_is_seen(id)? || run.is_seen(id),
            Self::Dry { before: None, run } => run.is_seen(id),
        })
    }

    /// Remembers what was printed. Returns how many claims were lost to another filter because they
    /// outlived their lease.
    pub(crate) fn confirm(&self, held: Vec<Held>) -> Result<usize> {
        let Self::Lasting { store, .. } = self else { return Ok(0) };
        let kept = store.confirm_all(held)?;
        Ok(kept.iter().filter(|kept| **kept == Ownership::Lost).count())
    }

    /// Gives back what was not printed.
    pub(crate) fn release(&self, held: Vec<Held>) -> Result<()> {
        if let Self::Lasting { store, .. } = self
            && !held.is_empty()
        {
            // One that was lost is somebody else's to print.
            let _ = store.release_all(held)?;
        }
        Ok(())
    }

    /// Whether another filter still has the id.
    pub(crate) fn is_in_flight(&self, id: &[u8]) -> Result<bool> {
        match self {
            Self::Lasting { store, .. } => {
                Ok(store.get(id)?.is_some_and(|entry| entry.state == State::InFlight))
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

/// An id that comes twice is in flight the second time, by this very run: a duplicate, unless the
/// first is going to be forgotten at once.
fn decisions(ids: &[impl AsRef<[u8]>], claims: Vec<Claim>, forgetful: bool) -> Vec<Decision> {
    // Mostly nobody has anything in flight, and nothing is to be looked up.
    let in_flight = claims.iter().any(|claim| matches!(claim, Claim::InFlight { .. }));
    let mut ours = HashSet::new();
    ids.iter()
        .zip(claims)
        .map(|(id, claim)| match claim {
            Claim::Granted(lease) => {
                if in_flight {
                    ours.insert(id.as_ref());
                }
                Decision::New(Some((id.as_ref().to_vec(), lease.into_token())))
            }
            Claim::InFlight { .. } if forgetful || !ours.contains(id.as_ref()) => {
                Decision::InFlight
            }
            _ => Decision::Duplicate,
        })
        .collect()
}
