//! Listing the ids of an index that is asleep: by the hashes that the index in memory and the runs have.
//!
//! Owns the step from a hash to the ids that have it. What always holds: an id has one hash, whether it is in memory, in
//! a run or in both, so an id that exists throughout is found once, however often its row moves meanwhile.

use super::Journal;
use super::load::row_at;
use super::runs::Entry;
use crate::error::Result;
use crate::id::Key;
use crate::index::{Index, run_hash, stored};

/// What a listing looks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listed {
    Id(Key),
    /// The ids with this hash. There is hardly ever more than one.
    Hash(u64),
}

impl Journal {
    /// Returns what is to be listed of one shard, each with the row where it was found; 0 where there are several.
    pub(crate) fn listed_of_shard(
        &mut self,
        index: &Index,
        shard: usize,
        now_ms: i64,
    ) -> Result<Vec<(Listed, i64)>> {
        if index.is_complete() {
            let live = index.live_slots(shard, now_ms);
            return Ok(live.into_iter().map(|(key, seq)| (Listed::Id(key), seq)).collect());
        }
        let mut entries = self.in_snapshot(index, now_ms, |journal| {
            let number = u8::try_from(shard).expect("a hash begins with the number of its shard");
            let mut entries = journal.entries_of_shard(index, number)?;
            entries.extend(index.slots(shard).into_iter().map(|(key, seq)| Entry::new(key, seq)));
            Ok(entries)
        })?;
        entries.sort_unstable();
        entries.dedup();
        let of_each_hash = entries.chunk_by(|one, other| one.hash == other.hash);
        Ok(of_each_hash
            .map(|equal| match equal {
                [one] => (Listed::Hash(one.hash), one.seq),
                [first, ..] => (Listed::Hash(first.hash), 0),
                [] => unreachable!("a chunk is not empty"),
            })
            .collect())
    }

    /// Returns the ids to be listed, with what [`look_ahead`](Self::look_ahead) does for them.
    pub(crate) fn ids_listed(
        &mut self,
        index: &Index,
        listed: &[(Listed, i64)],
        now_ms: i64,
    ) -> Result<Vec<Key>> {
        let known = listed.iter().map_while(|(listed, _)| match listed {
            Listed::Id(key) => Some(*key),
            Listed::Hash(_) => None,
        });
        let known: Vec<Key> = known.collect();
        if known.len() == listed.len() {
            return Ok(known);
        }
        let keys = self.in_snapshot(index, now_ms, |journal| {
            let mut keys = Vec::with_capacity(listed.len());
            for (listed, seq) in listed {
                match listed {
                    Listed::Id(key) => keys.push(*key),
                    Listed::Hash(hash) => keys.extend(journal.keys_of(index, *hash, *seq)?),
                }
            }
            Ok(keys)
        })?;
        self.look_ahead(index, &keys, now_ms)?;
        Ok(keys)
    }

    /// Returns what is stored of the keys with this hash. The row of one of them was found there.
    fn keys_of(&mut self, index: &Index, hash: u64, seq: i64) -> Result<Vec<Key>> {
        let (connection, hasher) = (self.open_connection(), &self.hasher);
        let found = row_at(connection, hasher, seq).map_err(|e| e.at(&self.name()))?;
        if let Some(row) = found.filter(|row| run_hash(row.key) == hash) {
            return Ok(vec![stored(row.key)]);
        }
        // The row has moved, or there are several.
        let mut keys = index.keys_with_run_hash(hash);
        keys.extend(self.keys_in_runs(index, hash)?);
        keys.sort_unstable_by_key(|key| (key.low, key.high));
        keys.dedup();
        Ok(keys)
    }
}
