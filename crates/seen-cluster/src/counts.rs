//! What was turned away and is in no record yet.
//!
//! Owns the counts in memory, by key. What always holds: counting costs no command; what is counted is in the answers of
//! this store at once, and on the servers within [`FLUSH_INTERVAL`], at the next write of the id, or when the store closes.
//! It is best effort: a process that is killed takes with it what it has counted since.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use seen_store::backend::TurnedAway;

use crate::attempt::add;

/// How often counts are written.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Of how many ids counts are kept at most. What is turned away of further ones is not counted until the next flush.
const MOST: usize = 100_000;

#[derive(Default)]
pub(crate) struct Counts {
    of_keys: Mutex<HashMap<Vec<u8>, TurnedAway>>,
}

impl Counts {
    /// Returns what is counted of a key, which is then no longer counted here.
    pub(crate) fn take(&self, key: &[u8]) -> TurnedAway {
        let mut of_keys = self.of_keys.lock();
        if of_keys.is_empty() {
            TurnedAway::default()
        } else {
            of_keys.remove(key).unwrap_or_default()
        }
    }

    /// Returns what is counted of a key.
    pub(crate) fn of(&self, key: &[u8]) -> TurnedAway {
        self.of_keys.lock().get(key).copied().unwrap_or_default()
    }

    pub(crate) fn add(&self, key: &[u8], turned_away: TurnedAway) {
        if turned_away == TurnedAway::default() {
            return;
        }
        let mut of_keys = self.of_keys.lock();
        if let Some(known) = of_keys.get_mut(key) {
            *known = add(*known, turned_away);
        } else if of_keys.len() < MOST {
            of_keys.insert(key.to_vec(), turned_away);
        }
    }

    pub(crate) fn forget(&self, key: &[u8]) {
        self.of_keys.lock().remove(key);
    }

    /// Returns the keys that are counted.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        self.of_keys.lock().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duplicates(duplicates: u32) -> TurnedAway {
        TurnedAway { duplicates, ..TurnedAway::default() }
    }

    #[test]
    fn what_is_taken_is_counted_once() {
        let counts = Counts::default();
        counts.add(b"a", duplicates(2));
        counts.add(b"a", duplicates(1));
        counts.add(b"b", duplicates(0));
        assert_eq!(counts.keys(), [b"a".to_vec()]);
        assert_eq!(counts.take(b"a"), duplicates(3));
        assert_eq!(counts.take(b"a"), duplicates(0));
    }

    #[test]
    fn the_memory_for_counts_is_bounded() {
        let counts = Counts::default();
        for n in 0..MOST + 10 {
            counts.add(n.to_string().as_bytes(), duplicates(1));
        }
        assert_eq!(counts.keys().len(), MOST);
        counts.add(b"7", duplicates(1));
        assert_eq!(counts.of(b"7"), duplicates(2));
    }
}
