//! What the filter asks whether an id is new.
//!
//! Owns the difference between a run that remembers and a dry one. What always holds: an answer of a
//! remembering run is durable before it is given; a dry run answers the same and changes no file.

use seen_store::{Config, ErrorKind, SeenStore, Ttl, Verdict};

use crate::Result;
use crate::database::Database;

pub(crate) enum Memory {
    Lasting(SeenStore),
    /// `before` is the store as it is, if there is one; `run` knows what this run has met.
    Dry {
        before: Option<SeenStore>,
        run: SeenStore,
    },
}

impl Memory {
    pub(crate) fn lasting(database: &Database, ttl: Ttl) -> Result<Self> {
        Ok(Self::Lasting(database.open(Config::default().ttl(ttl))?))
    }

    pub(crate) fn dry(database: &Database, ttl: Ttl) -> Result<Self> {
        let before = match database.open(Config::default().read_only(true)) {
            Ok(store) => Some(store),
            Err(e) if is_missing(&*e) => None,
            Err(e) => return Err(e),
        };
        Ok(Self::Dry { before, run: SeenStore::in_memory_with(Config::default().ttl(ttl))? })
    }

    /// A verdict for each id, in their order. At most 10,000 at a time, so that an error leaves none
    /// of them remembered.
    pub(crate) fn check<I: AsRef<[u8]>>(
        &self,
        ids: impl Iterator<Item = I>,
    ) -> Result<Vec<Verdict>> {
        match self {
            Self::Lasting(store) => Ok(store.check_and_mark_all(ids)?),
            Self::Dry { before, run } => ids
                .map(|id| match before {
                    Some(store) if store.try_is_seen(&id)? => Ok(Verdict::Duplicate),
                    _ => Ok(run.check_and_mark(&id)?),
                })
                .collect(),
        }
    }

    /// Closes the store and tells what went wrong. Every verdict is durable by now, so that is no
    /// failure of the run.
    pub(crate) fn close(self) {
        let (Self::Lasting(store) | Self::Dry { before: Some(store), .. }) = self else { return };
        if let Err(e) = store.close() {
            log::warn!("{}", crate::message::with_causes(&e));
        }
    }
}

fn is_missing(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<seen_store::Error>().is_some_and(|e| e.kind() == ErrorKind::NotFound)
}
