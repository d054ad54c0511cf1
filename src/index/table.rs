//! One shard of the index: slots in the order of their hashes, with gaps.
//!
//! Owns where a slot is. A hash, taken as a fraction of 2^64, gives the slot's home cell. Slots with the same
//! home, and slots that these have pushed on, follow without a gap. (This is linear probing kept sorted: Amble
//! and Knuth, "Ordered hash tables", 1974.) So a lookup touches one run of memory, mostly one cache line, and
//! ends at the first greater hash whether it finds its key or not. Growing copies from front to back. No one
//! can choose ids that all have one home, because the hashes are keyed.
//!
//! What always holds: no slot is before its home, no empty cell is between a slot and its home, and the last
//! cell is empty.

use super::Packed;

/// The largest number of slots, as a share of the homes. Beyond it the runs become long.
const MAX_LOAD: (usize, usize) = (2, 3);
/// The number of cells after the last home, for slots that are pushed beyond it. There may be more.
const SPARE_CELLS: usize = 16;

#[derive(Default)]
pub(super) struct Table {
    /// Empty, or `homes` cells and spare ones after them.
    cells: Vec<Packed>,
    homes: usize,
    len: usize,
}

/// Where a key is, or where it would be inserted.
enum Lookup {
    Found(usize),
    Missing(usize),
}

impl Table {
    /// Returns an empty table with room for this many slots.
    pub(super) fn with_room(count: usize) -> Self {
        if count == 0 {
            return Self::default();
        }
        let homes = Self::homes_for(count);
        Self { cells: vec![Packed::EMPTY; homes + SPARE_CELLS], homes, len: 0 }
    }

    /// Returns the size in bytes of a table with room for this many slots.
    pub(super) fn bytes_with_room(count: usize) -> usize {
        if count == 0 { 0 } else { (Self::homes_for(count) + SPARE_CELLS) * size_of::<Packed>() }
    }

    fn homes_for(count: usize) -> usize {
        count.saturating_mul(MAX_LOAD.1) / MAX_LOAD.0 + 1
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Packed>()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Packed> {
        self.cells.iter().filter(|cell| !cell.is_empty())
    }

    pub(super) fn get(&self, key: (u64, u32)) -> Option<Packed> {
        match self.find(key) {
            Lookup::Found(at) => Some(self.cells[at]),
            Lookup::Missing(_) => None,
        }
    }

    /// Returns the slots from this key on, in the order of keys.
    pub(super) fn slots_from(&self, key: (u64, u32)) -> impl Iterator<Item = &Packed> {
        let at = match self.find(key) {
            Lookup::Found(at) | Lookup::Missing(at) => at,
        };
        self.cells[at..].iter().filter(|cell| !cell.is_empty())
    }

    #[expect(clippy::cast_possible_truncation, reason = "below `homes`")]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.homes as u128) >> 64) as usize
    }

    fn find(&self, key: (u64, u32)) -> Lookup {
        if self.cells.is_empty() {
            return Lookup::Missing(0);
        }
        let home = self.home(key.0);
        for (pushed, cell) in self.cells[home..].iter().enumerate() {
            if cell.is_empty() || cell.key() > key {
                return Lookup::Missing(home + pushed);
            }
            if cell.key() == key {
                return Lookup::Found(home + pushed);
            }
        }
        Lookup::Missing(self.cells.len())
    }

    /// Inserts the slot, or replaces an older one of the same key.
    pub(super) fn put(&mut self, packed: Packed) {
        if self.cells.is_empty() {
            *self = Self::with_room(SPARE_CELLS);
        }
        match self.find(packed.key()) {
            Lookup::Found(at) if self.cells[at].seq() <= packed.seq() => self.cells[at] = packed,
            Lookup::Found(_) => {}
            Lookup::Missing(_) if self.len * MAX_LOAD.1 >= self.homes * MAX_LOAD.0 => {
                self.rebuild(self.len + self.len / 2 + SPARE_CELLS, |_| true);
                self.put(packed);
            }
            Lookup::Missing(at) => self.insert(at, packed),
        }
    }

    /// Moves the slots from `at` to the next gap by one cell, and inserts the slot at `at`.
    fn insert(&mut self, at: usize, packed: Packed) {
        let gap = self.cells[at..].iter().position(Packed::is_empty).map(|run| at + run);
        let gap = gap.expect("the last cell is empty");
        if gap + 1 == self.cells.len() {
            self.cells.resize(gap + 1 + SPARE_CELLS, Packed::EMPTY);
        }
        self.cells.copy_within(at..gap, at + 1);
        self.cells[at] = packed;
        self.len += 1;
    }

    /// Removes the key's slot if `condition` holds for it.
    pub(super) fn remove(&mut self, key: (u64, u32), condition: impl FnOnce(&Packed) -> bool) {
        let Lookup::Found(at) = self.find(key) else { return };
        if !condition(&self.cells[at]) {
            return;
        }
        let pushed = |at: usize| {
            let cell = &self.cells[at];
            !cell.is_empty() && self.home(cell.key().0) < at
        };
        let end = (at + 1..self.cells.len()).find(|&next| !pushed(next));
        let end = end.unwrap_or(self.cells.len());
        self.cells.copy_within(at + 1..end, at);
        self.cells[end - 1] = Packed::EMPTY;
        self.len -= 1;
    }

    /// Removes the slots that `keep` does not accept, and frees the memory of a table that has become mostly
    /// empty.
    pub(super) fn retain(&mut self, keep: impl Fn(&Packed) -> bool) {
        let kept = self.slots().filter(|slot| keep(slot)).count();
        if kept < self.len || kept < self.homes / 3 {
            self.rebuild(kept + kept / 4, keep);
        }
    }

    /// Copies the kept slots to a new table, from front to back.
    fn rebuild(&mut self, room: usize, keep: impl Fn(&Packed) -> bool) {
        let mut table = Self::with_room(room);
        let mut free = 0;
        for slot in self.slots().filter(|slot| keep(slot)) {
            let at = free.max(table.home(slot.hash));
            if at + 1 >= table.cells.len() {
                table.cells.resize(at + 1 + SPARE_CELLS, Packed::EMPTY);
            }
            table.cells[at] = *slot;
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
        Packed::new(Key { low: hash, high: rest.into() }, Slot::new(seq, None))
    }

    fn check(table: &Table, expected: &BTreeMap<(u64, u32), i64>) {
        let found: Vec<_> = table.slots().map(|slot| (slot.key(), slot.seq())).collect();
        let expected: Vec<_> = expected.iter().map(|(key, seq)| (*key, *seq)).collect();
        assert_eq!(found, expected, "in the order of their keys");
        assert_eq!(table.len(), expected.len());
        for (at, cell) in table.cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
            let home = table.home(cell.hash);
            assert!(table.cells[home..at].iter().all(|between| !between.is_empty()));
        }
        assert!(table.cells.last().is_none_or(Packed::is_empty));
    }

    /// Makes the same changes to a table and to a sorted map, with many hashes near both ends.
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
