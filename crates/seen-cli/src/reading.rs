//! A store that a command only reads: a file, or a cluster.
//!
//! Owns how the questions of such commands are asked of either. What always holds: the answers are in the same words, so a
//! command does not know which it has, but for [`Reading::is_a_file`]. Does not know what is printed of them.

mod tally;

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

use seen_store::{Clock, Entry, FileStats, Filter, Reader, Result, State, Store, SystemClock};

use self::tally::{Newest, Tally};

pub(crate) enum Reading {
    File(Reader),
    Cluster { store: Box<dyn Store>, name: String },
}

impl Reading {
    /// Returns whether the store has sizes and purges.
    pub(crate) fn is_a_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Returns the path of the file, or the URL of the cluster without its secrets.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(reader) => reader.path().to_string_lossy().into_owned(),
            Self::Cluster { name, .. } => name.clone(),
        }
    }

    /// Returns the present time by this machine's clock. That of a cluster's servers decides there what has expired.
    pub(crate) fn now(&self) -> SystemTime {
        match self {
            Self::File(reader) => reader.now(),
            Self::Cluster { .. } => SystemClock.now(),
        }
    }

    pub(crate) fn scope(&self, scope: &str) -> Self {
        match self {
            Self::File(reader) => Self::File(reader.scope(scope)),
            Self::Cluster { store, name } => {
                Self::Cluster { store: store.scope(scope), name: name.clone() }
            }
        }
    }

    pub(crate) fn get(&self, id: &[u8]) -> Result<Option<Entry>> {
        match self {
            Self::File(reader) => reader.get(id),
            Self::Cluster { store, .. } => store.get(id.into()),
        }
    }

    /// Returns what is known of each of these ids, in their order. On a cluster, each costs a round trip.
    pub(crate) fn get_all<'a>(
        &self,
        ids: impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<Vec<Option<Entry>>> {
        match self {
            Self::File(reader) => reader.get_all(ids),
            Self::Cluster { store, .. } => ids.map(|id| store.get(id.into())).collect(),
        }
    }

    /// Returns what is known of these ids in any scope, in the order of scopes and ids. Reads all that the store holds.
    pub(crate) fn get_in_all_scopes(&self, ids: Vec<&Vec<u8>>) -> Result<Vec<Entry>> {
        let store = match self {
            Self::File(reader) => return reader.get_in_all_scopes(ids),
            Self::Cluster { store, .. } => store,
        };
        let (ids, mut places) = (HashSet::<&Vec<u8>>::from_iter(ids), BTreeSet::new());
        for entry in store.entries(Filter::default()) {
            let entry = entry?;
            if ids.contains(&entry.id) {
                places.insert((entry.scope, entry.id));
            }
        }
        let found = places.iter().map(|(scope, id)| store.scope(scope).get(id.into()));
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Lists what the filter selects; on a cluster in no particular order.
    pub(crate) fn entries(&self, filter: Filter) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        match self {
            Self::File(reader) => Box::new(reader.entries(filter)),
            Self::Cluster { store, .. } => store.entries(filter),
        }
    }

    /// Returns the `count` entries that were last seen, the newest first.
    pub(crate) fn newest(&self, filter: Filter, count: usize) -> Result<Vec<Entry>> {
        match self {
            Self::File(reader) => reader.entries(filter).newest(count),
            Self::Cluster { store, .. } => {
                let mut newest = Newest::of(count);
                store.entries(filter).try_for_each(|entry| entry.map(|it| newest.add(it)))?;
                Ok(newest.sorted())
            }
        }
    }

    /// Counts what the store holds. What is about a file is missing from the figures of a cluster.
    pub(crate) fn stats(&self, since: Duration, buckets: u16) -> Result<FileStats> {
        match self {
            Self::File(reader) => reader.stats(since, buckets.into()),
            Self::Cluster { store, .. } => {
                let mut tally = Tally::of(self.now(), since, buckets);
                // A listing leaves out what has expired, unless it is of that alone.
                for filter in [Filter::default(), Filter::default().state(State::Expired)] {
                    store.entries(filter).try_for_each(|entry| entry.map(|it| tally.add(&it)))?;
                }
                Ok(tally.stats)
            }
        }
    }
}
