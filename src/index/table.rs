//! One shard of the index: slots in the order of their hashes, with gaps.
//!
//! Owns where a slot lies. A hash, taken as a fraction of 2^64, tells a slot's home; slots that share one,
//! or that were pushed on, follow it without a gap. (Linear probing kept sorted: Amble and Knuth, "Ordered
//! hash tables", 1974.) So a lookup touches one run of memory, mostly one cache line, and ends at the first
//! greater hash whether it finds its key or not; growing copies from front to back. Nobody can aim at one
//! home, for the hashes are keyed.
//!
//! What always holds: no slot lies before its home, none is separated from its home by an empty place, and
//! the last place is empty.

use super::Packed;

/// The largest share of homes that slots may have: beyond it the runs become long.
const FULLEST: (usize, usize) = (2, 3);
/// Places after the last home, for the slots that are pushed beyond it; there may be more.
const SPARE: usize = 16;

#[derive(Default)]
pub(super) struct Table {
    /// None, or `homes` and spare ones after the last of them.
    places: Vec<Packed>,
    homes: usize,
    len: usize,
}

/// Where a key is, or where it belongs.
enum Place {
    Found(usize),
    Missing(usize),
}

impl Table {
    /// With room for so many slots.
    pub(super) fn with_room(count: usize) -> Self {
        if count == 0 {
            return Self::default();
        }
        let homes = Self::homes_for(count);
        Self { places: vec![Packed::EMPTY; homes + SPARE], homes, len: 0 }
    }

    /// What a table with room for so many slots takes.
    pub(super) fn bytes_with_room(count: usize) -> usize {
        if count == 0 { 0 } else { (Self::homes_for(count) + SPARE) * size_of::<Packed>() }
    }

    fn homes_for(count: usize) -> usize {
        count.saturating_mul(FULLEST.1) / FULLEST.0 + 1
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Packed>()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Packed> {
        self.places.iter().filter(|place| !place.is_empty())
    }

    pub(super) fn get(&self, key: (u64, u32)) -> Option<Packed> {
        match self.place(key) {
            Place::Found(at) => Some(self.places[at]),
            Place::Missing(_) => None,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "below `homes`")]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.homes as u128) >> 64) as usize
    }

    fn place(&self, key: (u64, u32)) -> Place {
        if self.places.is_empty() {
            return Place::Missing(0);
        }
        let home = self.home(key.0);
        for (pushed, place) in self.places[home..].iter().enumerate() {
            if place.is_empty() || place.key() > key {
                return Place::Missing(home + pushed);
            }
            if place.key() == key {
                return Place::Found(home + pushed);
            }
        }
        Place::Missing(self.places.len())
    }

    /// Puts the slot in place of an older one of its key.
    pub(super) fn put(&mut self, packed: Packed) {
        if self.places.is_empty() {
            *self = Self::with_room(SPARE);
        }
        match self.place(packed.key()) {
            Place::Found(at) if self.places[at].seq() <= packed.seq() => self.places[at] = packed,
            Place::Found(_) => {}
            Place::Missing(_) if self.len * FULLEST.1 >= self.homes * FULLEST.0 => {
                self.rebuild(self.len + self.len / 2 + SPARE, |_| true);
                self.put(packed);
            }
            Place::Missing(at) => self.insert(at, packed),
        }
    }

    /// Pushes the slots from `at` to the next gap one on.
    fn insert(&mut self, at: usize, packed: Packed) {
        let gap = self.places[at..].iter().position(Packed::is_empty).map(|run| at + run);
        let gap = gap.expect("the last place is empty");
        if gap + 1 == self.places.len() {
            self.places.resize(gap + 1 + SPARE, Packed::EMPTY);
        }
        self.places.copy_within(at..gap, at + 1);
        self.places[at] = packed;
        self.len += 1;
    }

    /// Removes the key's slot, if `condition` holds for it.
    pub(super) fn remove(&mut self, key: (u64, u32), condition: impl FnOnce(&Packed) -> bool) {
        let Place::Found(at) = self.place(key) else { return };
        if !condition(&self.places[at]) {
            return;
        }
        let pushed = |at: usize| {
            let place = &self.places[at];
            !place.is_empty() && self.home(place.key().0) < at
        };
        let end = (at + 1..self.places.len()).find(|&next| !pushed(next));
        let end = end.unwrap_or(self.places.len());
        self.places.copy_within(at + 1..end, at);
        self.places[end - 1] = Packed::EMPTY;
        self.len -= 1;
    }

    /// Drops the slots that do not fulfil `keep`, and gives back the memory of a table that has become
    /// mostly empty.
    pub(super) fn retain(&mut self, keep: impl Fn(&Packed) -> bool) {
        let kept = self.slots().filter(|slot| keep(slot)).count();
        if kept < self.len || kept < self.homes / 3 {
            self.rebuild(kept + kept / 4, keep);
        }
    }

    /// Moves what is kept to new places, from front to back.
    fn rebuild(&mut self, room: usize, keep: impl Fn(&Packed) -> bool) {
        let mut table = Self::with_room(room);
        let mut free = 0;
        for slot in self.slots().filter(|slot| keep(slot)) {
            let at = free.max(table.home(slot.hash));
            if at + 1 >= table.places.len() {
                table.places.resize(at + 1 + SPARE, Packed::EMPTY);
            }
            table.places[at] = *slot;
            table.len += 1;
            free = at + 1;
        }
        *self = table;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Slot;
    use super::*;
    use crate::id::Key;

    fn packed(hash: u64, rest: u32, seq: i64) -> Packed {
        Packed::new(Key { low: hash, high: rest.into() }, Slot { seq, expires_at: None })
    }

    fn check(table: &Table, expected: &BTreeMap<(u64, u32), i64>) {
        let found: Vec<_> = table.slots().map(|slot| (slot.key(), slot.seq())).collect();
        let expected: Vec<_> = expected.iter().map(|(key, seq)| (*key, *seq)).collect();
        assert_eq!(found, expected, "in the order of their keys");
        assert_eq!(table.len(), expected.len());
        for (at, place) in table.places.iter().enumerate().filter(|(_, place)| !place.is_empty()) {
            let home = table.home(place.hash);
            assert!(table.places[home..at].iter().all(|between| !between.is_empty()));
        }
        assert!(table.places.last().is_none_or(Packed::is_empty));
    }

    /// A table and a sorted map through the same changes, with hashes that crowd at both ends.
    #[test]
    fn it_holds_what_a_sorted_map_would() {
        let mut random = 1_u64;
        let mut next = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        for crowd in [8, 200, 100_000] {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for step in 0..20_000 {
                let hash = match next(3) {
                    0 => next(crowd),
                    1 => u64::MAX - next(crowd),
                    _ => next(crowd).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                };
                let (rest, seq) = (u32::try_from(next(2)).unwrap(), i64::from(step) + 1);
                match next(8) {
                    0..5 => {
                        table.put(packed(hash, rest, seq));
                        map.insert((hash, rest), seq);
                    }
                    5..7 => {
                        table.remove((hash, rest), |_| true);
                        map.remove(&(hash, rest));
                    }
                    _ if step % 500 == 0 => {
                        table.retain(|slot| slot.seq() % 3 == 0);
                        map.retain(|_, seq| *seq % 3 == 0);
                    }
                    _ => {}
                }
                let found = table.get((hash, rest)).map(|slot| slot.seq());
                assert_eq!(found, map.get(&(hash, rest)).copied());
                if step % 97 == 0 {
                    check(&table, &map);
                }
            }
            check(&table, &map);
        }
    }
}
