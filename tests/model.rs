//! Random sequences of verbs on two stores of one file, against a plain map.
//!
//! The model is written from the contract, not from the code. It is exact except in two places, where
//! the contract leaves two answers open:
//!
//! - An entry that has expired for one of the stores, under a clock that was then set back by more
//!   than a minute, is seen again or not, depending on whether it was swept in between. The model
//!   keeps such entries as *ghosts* and takes either answer, until somebody marks the id again.
//! - What the other store forgot or cleaned up less than 100 ms ago may still be answered "seen" from
//!   memory. The model allows that to the two verbs that may answer from memory (`is_seen` and
//!   `check_and_mark`), for exactly the ids that were removed since this store last had to look.
//!
//! `SEEN_MODEL_CASES` sets how many sequences are run, `SEEN_MODEL_SEED` repeats a run.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{JournalRow, Place, marks, ms, rows, unix_ms};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestError, TestRng, TestRunner};
use rusqlite::Connection;
use seen_store::{Config, Entry, ErrorKind, ManualClock, SeenStore, Ttl, Verdict};

/// The latest instant that an entry can expire at.
const LAST_MS: i64 = (1 << 48) - 2;
const START_MS: i64 = 1_700_000_000_000;
const SCOPES: [&str; 3] = ["", "discord", "Discord"];
const HOUR_MS: u64 = 3_600_000;

/// Ids that a careless store confuses or refuses.
fn ids() -> Vec<Vec<u8>> {
    vec![
        b"a".to_vec(),
        b"A".to_vec(),
        b"a ".to_vec(),
        b"a\0".to_vec(),
        b"a\0b".to_vec(),
        b"\xff\xfe".to_vec(),
        "\u{e9}".into(),
        b"1".to_vec(),
        b"1.0".to_vec(),
        vec![b'x'; 65_536],
        vec![],
        vec![b'x'; 65_537],
    ]
}

/// Where in [`ids`] the valid ones are.
const VALID_IDS: std::ops::Range<usize> = 0..10;

fn is_valid(id: &[u8]) -> bool {
    (1..=65_536).contains(&id.len())
}

#[derive(Clone, Copy, Debug)]
struct Which {
    store: usize,
    scope: usize,
    id: usize,
}

#[derive(Clone, Debug)]
enum Op {
    IsSeen(Which),
    Get(Which),
    Mark(Which, Life),
    /// Milliseconds from now, or from 1970.
    MarkAt(Which, Life, At),
    Check(Which, Life),
    CheckAll(Which, Life, Vec<usize>),
    Seed(Which, Life, Vec<usize>),
    Forget(Which),
    Purge(usize),
    Cleanup {
        store: usize,
        scope: usize,
        older_than_ms: u64,
    },
    Step(i64),
    /// To the moment at which one of the present entries expires, or the millisecond before.
    ToBorder {
        which: usize,
        before: bool,
    },
    Reopen {
        store: usize,
        purge: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum At {
    FromNow(i64),
    Absolute(i64),
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Default,
    Ms(u64),
    Saturating,
    Never,
}

const DEFAULT_TTL_MS: u64 = 10 * 60_000;

impl Life {
    fn ttl(self) -> Ttl {
        match self {
            Life::Default => ms(DEFAULT_TTL_MS).into(),
            Life::Ms(length) => ms(length).into(),
            Life::Saturating => Duration::MAX.into(),
            Life::Never => Ttl::Never,
        }
    }

    /// `i64::MAX` stands for never, so that "the later of both" is the maximum.
    fn expires(self, at: i64) -> i64 {
        let end = |length: u64| at.saturating_add_unsigned(length).clamp(1, LAST_MS);
        match self {
            Life::Default => end(DEFAULT_TTL_MS),
            Life::Ms(length) => end(length),
            Life::Saturating => LAST_MS,
            Life::Never => i64::MAX,
        }
    }
}

fn which() -> impl Strategy<Value = Which> {
    // Most of the time few ids in one scope, so that sequences come back to them.
    let scope = prop_oneof![4 => Just(0_usize), 1 => 0..SCOPES.len()];
    let id = prop_oneof![3 => 0..3_usize, 2 => 0..ids().len()];
    (0..2_usize, scope, id).prop_map(|(store, scope, id)| Which { store, scope, id })
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        4 => Just(Life::Default),
        4 => prop::sample::select(vec![0, 1, 5_000, 61_000, 2 * HOUR_MS]).prop_map(Life::Ms),
        1 => Just(Life::Saturating),
        1 => Just(Life::Never),
    ]
}

fn at() -> impl Strategy<Value = At> {
    prop_oneof![
        6 => prop::sample::select(vec![-7_200_000, -300_000, -5_000, -1, 0, 1, 5_000, 7_200_000])
            .prop_map(At::FromNow),
        1 => prop::sample::select(vec![-86_400_000, -1, 0, 1, LAST_MS]).prop_map(At::Absolute),
    ]
}

fn step() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => prop::sample::select(vec![1, 999, 5_000, 61_000, 600_000, 3_600_000, 10_800_000]),
        3 => prop::sample::select(vec![-1, -5_000, -59_999, -60_000]),
        1 => prop::sample::select(vec![-60_001, -300_000, -7_200_000]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    // A batch holds the odd ids too, but mostly valid ones, or it would mark nothing.
    let batch = || vec(prop_oneof![15 => VALID_IDS, 1 => 10..12_usize], 0..6);
    prop_oneof![
        6 => which().prop_map(Op::IsSeen),
        4 => which().prop_map(Op::Get),
        5 => (which(), life()).prop_map(|(which, life)| Op::Mark(which, life)),
        4 => (which(), life(), at()).prop_map(|(which, life, at)| Op::MarkAt(which, life, at)),
        8 => (which(), life()).prop_map(|(which, life)| Op::Check(which, life)),
        2 => (which(), life(), batch()).prop_map(|(w, life, ids)| Op::CheckAll(w, life, ids)),
        1 => (which(), life(), batch()).prop_map(|(w, life, ids)| Op::Seed(w, life, ids)),
        4 => which().prop_map(Op::Forget),
        2 => (0..2_usize).prop_map(Op::Purge),
        2 => (0..2_usize, 0..SCOPES.len(), prop::sample::select(vec![0, 1, 5_000, 600_000, u64::MAX]))
            .prop_map(|(store, scope, older_than_ms)| Op::Cleanup { store, scope, older_than_ms }),
        4 => step().prop_map(Op::Step),
        3 => (0..8_usize, any::<bool>()).prop_map(|(which, before)| Op::ToBorder { which, before }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(store, purge)| Op::Reopen { store, purge }),
    ]
}

/// An id in its scope.
type Name = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    first: i64,
    last: i64,
    /// `i64::MAX` is never.
    expires: i64,
}

impl Mark {
    fn fresh(at: i64, life: Life) -> Self {
        Self { first: at, last: at, expires: life.expires(at) }
    }

    fn refreshed(self, at: i64, life: Life) -> Self {
        Self {
            first: self.first.min(at),
            last: self.last.max(at),
            expires: self.expires.max(life.expires(at)),
        }
    }
}

/// What a store answers about an id now.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Live(Mark),
    Dead,
    /// A ghost that the clock was set back for: both answers are right.
    Either,
}

#[derive(Default)]
struct Model {
    /// Marks that are live for both stores.
    live: BTreeMap<Name, Mark>,
    /// Marks that have expired for at least one store and were not certainly removed since.
    ghosts: BTreeMap<Name, Vec<Mark>>,
    /// How many duplicates were turned away at most since the id was last new.
    suppressed: BTreeMap<Name, u64>,
    /// Each store's own view of the clock.
    now: [i64; 2],
    /// What the other store removed since this one last had to look.
    unlooked: [BTreeSet<Name>; 2],
}

impl Model {
    fn expected(&self, store: usize, name: Name) -> Expected {
        if let Some(mark) = self.live.get(&name) {
            return Expected::Live(*mark);
        }
        match self.seen_ghosts(store, name).next() {
            Some(_) => Expected::Either,
            None => Expected::Dead,
        }
    }

    /// The ghosts that are not expired by this store's present time.
    fn seen_ghosts(&self, store: usize, name: Name) -> impl Iterator<Item = Mark> {
        let now = self.now[store];
        let ghosts = self.ghosts.get(&name).into_iter().flatten().copied();
        ghosts.filter(move |ghost| now < ghost.expires)
    }

    /// A step of the clock, as a store that reads it at once takes it: back by a minute or less is no
    /// step at all.
    fn tick(&mut self, clock_ms: i64) {
        for now in &mut self.now {
            if clock_ms > *now || *now - clock_ms > 60_000 {
                *now = clock_ms;
            }
        }
        self.bury();
    }

    /// Moves what has expired for a store to the ghosts.
    fn bury(&mut self) {
        let latest = self.now[0].max(self.now[1]);
        let expired: Vec<_> = self.live.extract_if(.., |_, mark| mark.expires <= latest).collect();
        for (name, mark) in expired {
            self.ghosts.entry(name).or_default().push(mark);
        }
    }

    fn put(&mut self, name: Name, mark: Mark) {
        self.live.insert(name, mark);
        self.bury();
    }

    fn put_new(&mut self, name: Name, mark: Mark) {
        self.suppressed.insert(name, 0);
        self.put(name, mark);
    }

    fn turned_away(&mut self, name: Name) {
        *self.suppressed.entry(name).or_default() += 1;
    }

    /// Takes an id off, for a reason that the other store may learn of late.
    fn remove(&mut self, store: usize, name: Name) {
        self.live.remove(&name);
        self.unlooked[1 - store].insert(name);
    }

    /// The store has read what the other one committed.
    fn looked(&mut self, store: usize) {
        self.unlooked[store].clear();
    }
}

/// A run of one sequence: two real stores, and the model.
struct Run {
    place: Place,
    clock: Arc<ManualClock>,
    clock_ms: i64,
    stores: [Option<SeenStore>; 2],
    /// A view of the file beside the stores.
    file: Connection,
    ids: Vec<Vec<u8>>,
    model: Model,
}

fn time(unix_ms: i64) -> SystemTime {
    let distance = ms(unix_ms.unsigned_abs());
    if unix_ms < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

fn open(place: &Place, clock: &Arc<ManualClock>, purge: bool) -> SeenStore {
    let config = Config::default()
        .ttl(ms(DEFAULT_TTL_MS))
        .purge_on_open(purge)
        // A hang is a failure here: nobody else holds this file.
        .busy_timeout(ms(500))
        .clock(clock.clone());
    place.open(config)
}

fn mark_of(entry: &Entry) -> Mark {
    Mark {
        first: unix_ms(entry.first_seen),
        last: unix_ms(entry.last_seen),
        expires: entry.expires_at.map_or(i64::MAX, unix_ms),
    }
}

impl Run {
    fn new() -> Self {
        let place = Place::in_ram();
        let clock = Arc::new(ManualClock::new(time(START_MS)));
        let stores = [0, 1].map(|_| Some(open(&place, &clock, true)));
        let file = place.sql();
        let model = Model { now: [START_MS; 2], ..Model::default() };
        Self { place, clock, clock_ms: START_MS, stores, file, ids: ids(), model }
    }

    fn store(&self, store: usize) -> &SeenStore {
        self.stores[store].as_ref().unwrap()
    }

    /// The handle, the id and its name in the model; `None` after checking that an id that is not
    /// valid is refused by every verb that takes one.
    fn target(&self, which: Which, life: Life) -> Option<(SeenStore, &[u8], Name)> {
        let handle = self.store(which.store).scope(SCOPES[which.scope]).ttl(life.ttl());
        let id = &*self.ids[which.id];
        if is_valid(id) {
            return Some((handle, id, (which.scope, which.id)));
        }
        let kinds = [
            handle.try_is_seen(id).map(drop),
            handle.get(id).map(drop),
            handle.mark_seen(id),
            handle.mark_seen_at(id, time(0)),
            handle.check_and_mark(id).map(drop),
            handle.forget(id).map(drop),
        ]
        .map(|outcome| outcome.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::InvalidId; 6]);
        assert!(!handle.is_seen(id));
        None
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::IsSeen(which) => self.is_seen(*which),
            Op::Get(which) => {
                if self.target(*which, Life::Default).is_some() {
                    self.get(which.store, (which.scope, which.id));
                }
            }
            Op::Mark(which, life) => self.mark(*which, *life, None),
            Op::MarkAt(which, life, at) => {
                let at = match at {
                    At::FromNow(by) => self.model.now[which.store] + by,
                    At::Absolute(at) => *at,
                };
                self.mark(*which, *life, Some(at));
            }
            Op::Check(which, life) => self.check(*which, *life),
            Op::CheckAll(which, life, batch) => self.check_all(*which, *life, batch),
            Op::Seed(which, life, batch) => self.seed(*which, *life, batch),
            Op::Forget(which) => self.forget(*which),
            Op::Purge(store) => self.purge(*store),
            Op::Cleanup { store, scope, older_than_ms } => {
                self.cleanup(*store, *scope, *older_than_ms);
            }
            Op::Step(by) => self.set_clock(self.clock_ms + by),
            Op::ToBorder { which, before } => {
                let borders: Vec<_> = self.model.live.values().map(|mark| mark.expires).collect();
                let soon = |border: &&i64| **border < LAST_MS;
                if let Some(border) = borders.iter().filter(soon).nth(*which) {
                    self.set_clock(border - i64::from(*before));
                }
            }
            Op::Reopen { store, purge } => self.reopen(*store, *purge),
        }
    }

    fn set_clock(&mut self, clock_ms: i64) {
        self.clock_ms = clock_ms.max(1);
        self.clock.set(time(self.clock_ms));
        // A store that does not read the clock between two steps sees one step. Both read it here, so
        // that what they see does not depend on which verbs happen to read it.
        for store in 0..2 {
            self.store(store).stats().unwrap();
            self.model.looked(store);
        }
        self.model.tick(self.clock_ms);
    }

    fn is_seen(&mut self, which: Which) {
        let Some((handle, id, name)) = self.target(which, Life::Default) else { return };
        let seen = handle.is_seen(id);
        match self.model.expected(which.store, name) {
            Expected::Live(mark) => assert!(seen, "{mark:?} is live and was not seen"),
            Expected::Dead if self.model.unlooked[which.store].contains(&name) => {}
            Expected::Dead => assert!(!seen, "seen, and was never marked or is gone"),
            Expected::Either => {}
        }
        if !seen {
            self.model.looked(which.store); // A miss is answered only after a look.
        }
    }

    /// Asks for the entry, which always looks, and compares it. Returns what it is.
    fn get(&mut self, store: usize, (scope, id): Name) -> Option<Mark> {
        let name = (scope, id);
        let entry = self.store(store).scope(SCOPES[scope]).get(&self.ids[id]).unwrap();
        self.model.looked(store);
        let found = entry.as_ref().map(mark_of);
        match self.model.expected(store, name) {
            Expected::Live(mark) => assert_eq!(found, Some(mark)),
            Expected::Dead => assert_eq!(found, None),
            Expected::Either => {
                let ghosts: Vec<_> = self.model.seen_ghosts(store, name).collect();
                assert!(
                    found.is_none_or(|mark| ghosts.contains(&mark)),
                    "{found:?} is none of {ghosts:?}"
                );
            }
        }
        if let Some(entry) = entry {
            let most = self.model.suppressed.get(&name).copied().unwrap_or(0);
            assert!(entry.suppressed <= most, "{} turned away of {most}", entry.suppressed);
            assert_eq!((&*entry.scope, &entry.id), (SCOPES[scope], &self.ids[id]));
        }
        found
    }

    fn mark(&mut self, which: Which, life: Life, at: Option<i64>) {
        let Some((handle, id, name)) = self.target(which, life) else { return };
        match at {
            None => handle.mark_seen(id).unwrap(),
            Some(at) => handle.mark_seen_at(id, time(at)).unwrap(),
        }
        let at = at.unwrap_or(self.model.now[which.store]);
        self.model.looked(which.store);
        match self.model.expected(which.store, name) {
            Expected::Live(old) => self.model.put(name, old.refreshed(at, life)),
            Expected::Dead => self.model.put_new(name, Mark::fresh(at, life)),
            Expected::Either => self.settle(which.store, name, at, life),
        }
    }

    /// Finds out whether a mark on a ghost refreshed it or began anew.
    fn settle(&mut self, store: usize, name: Name, at: i64, life: Life) {
        let fresh = Mark::fresh(at, life);
        let mut right = vec![fresh];
        for ghost in self.model.seen_ghosts(store, name) {
            right.push(ghost.refreshed(at, life));
            // Refreshed by a store that still knew the ghost after the other had purged its row.
            right.push(Mark { expires: ghost.expires.max(fresh.expires), ..fresh });
        }
        let entry = self.store(store).scope(SCOPES[name.0]).get(&self.ids[name.1]).unwrap();
        if let Some(mark) = entry.as_ref().map(mark_of) {
            assert!(right.contains(&mark), "{mark:?} is none of {right:?}");
            self.model.put(name, mark);
        } else {
            assert!(fresh.expires <= self.model.now[store], "{fresh:?} was marked and is gone");
            self.model.put(name, fresh);
        }
    }

    fn check(&mut self, which: Which, life: Life) {
        let Some((handle, id, name)) = self.target(which, life) else { return };
        let verdict = handle.check_and_mark(id).unwrap();
        let fresh = Mark::fresh(self.model.now[which.store], life);
        let late = self.model.unlooked[which.store].contains(&name);
        match (self.model.expected(which.store, name), verdict) {
            (Expected::Live(_) | Expected::Either, Verdict::Duplicate) => {
                self.model.turned_away(name);
            }
            (Expected::Dead, Verdict::Duplicate) if late => {}
            (Expected::Dead | Expected::Either, Verdict::New) => {
                self.model.looked(which.store);
                self.model.put_new(name, fresh);
            }
            (expected, verdict) => panic!("{verdict:?}, and it was {expected:?}"),
        }
    }

    /// The valid batch of a handle, or `None` after checking that one bad id refuses all of it.
    fn batch(&self, which: Which, life: Life, batch: &[usize]) -> Option<(SeenStore, Vec<&[u8]>)> {
        let handle = self.store(which.store).scope(SCOPES[which.scope]).ttl(life.ttl());
        let ids: Vec<_> = batch.iter().map(|id| &*self.ids[*id]).collect();
        if ids.iter().all(|id| is_valid(id)) {
            return Some((handle, ids));
        }
        let before = rows(&self.file);
        let error = handle.check_and_mark_all(&ids).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidId);
        assert_eq!(handle.seed(&ids).unwrap_err().kind(), ErrorKind::InvalidId);
        assert_eq!(rows(&self.file), before);
        None
    }

    fn check_all(&mut self, which: Which, life: Life, batch: &[usize]) {
        let Some((handle, ids)) = self.batch(which, life, batch) else { return };
        let verdicts = handle.check_and_mark_all(ids).unwrap();
        assert_eq!(verdicts.len(), batch.len());
        if !batch.is_empty() {
            self.model.looked(which.store); // Decided under the write lock, after a look.
        }
        for (id, verdict) in batch.iter().zip(verdicts) {
            let name = (which.scope, *id);
            match (self.model.expected(which.store, name), verdict) {
                (Expected::Live(_) | Expected::Either, Verdict::Duplicate) => {
                    self.model.turned_away(name);
                }
                (Expected::Dead | Expected::Either, Verdict::New) => {
                    self.model.put_new(name, Mark::fresh(self.model.now[which.store], life));
                }
                (expected, verdict) => panic!("{verdict:?} of {id}, and it was {expected:?}"),
            }
        }
    }

    fn seed(&mut self, which: Which, life: Life, batch: &[usize]) {
        let Some((handle, ids)) = self.batch(which, life, batch) else { return };
        let new = handle.seed(ids).unwrap();
        if !batch.is_empty() {
            self.model.looked(which.store);
        }
        let (mut least, mut open) = (0, 0);
        let mut ghosts = BTreeSet::new();
        let fresh = Mark::fresh(self.model.now[which.store], life);
        for id in batch {
            let name = (which.scope, *id);
            match self.model.expected(which.store, name) {
                Expected::Live(_) => self.model.turned_away(name),
                Expected::Dead => {
                    least += 1;
                    self.model.put_new(name, fresh);
                }
                Expected::Either => {
                    open += 1;
                    self.model.turned_away(name);
                    ghosts.insert(name);
                }
            }
        }
        assert!((least..=least + open).contains(&new), "{new} new of {least} and {open} ghosts");
        // Of the ghosts that were marked anew the fresh mark must be there. (A ghost may look like it,
        // where the clock came back to the very millisecond of its own mark.)
        let (mut fresh_ones, mut certain) = (0, 0);
        for name in ghosts {
            let entry = self.store(which.store).scope(SCOPES[name.0]).get(&self.ids[name.1]);
            let Some(mark) = entry.unwrap().as_ref().map(mark_of) else {
                if fresh.expires <= self.model.now[which.store] {
                    self.model.put(name, fresh); // Marked perhaps, and expired at once: one more ghost.
                }
                continue;
            };
            let ghost = self.model.seen_ghosts(which.store, name).any(|ghost| ghost == mark);
            assert!(ghost || mark == fresh, "{mark:?} is not what was seeded");
            if mark == fresh {
                fresh_ones += 1;
                certain += u64::from(!ghost);
                self.model.put(name, fresh);
            }
        }
        if fresh.expires > self.model.now[which.store] {
            let marked = new - least;
            assert!(
                (certain..=fresh_ones).contains(&marked),
                "{marked} of {certain}..={fresh_ones}"
            );
        }
    }

    fn forget(&mut self, which: Which) {
        let Some((handle, id, name)) = self.target(which, Life::Default) else { return };
        let was_seen = handle.forget(id).unwrap();
        let expected = self.model.expected(which.store, name);
        self.model.looked(which.store);
        match expected {
            Expected::Live(_) => assert!(was_seen),
            Expected::Dead => assert!(!was_seen),
            Expected::Either => {}
        }
        if was_seen {
            self.model.remove(which.store, name);
            assert!(!self.store(which.store).scope(SCOPES[name.0]).is_seen(&self.ids[name.1]));
        }
    }

    /// The count of what a purge or a cleanup deletes is checked against the file itself, for it holds
    /// rows that the map knows nothing of: expired ones of ids that were marked again.
    fn purge(&mut self, store: usize) {
        let now = self.model.now[store];
        let doomed = |row: &JournalRow, newest: i64| {
            row.seq < newest && row.expires_at.is_some_and(|at| (1..=now).contains(&at))
        };
        let before = rows(&self.file);
        let newest = before.last().map_or(0, |row| row.seq);
        let expected = before.iter().filter(|row| doomed(row, newest)).count() as u64;
        assert_eq!(self.store(store).purge_expired().unwrap(), expected);
        let after = rows(&self.file);
        assert!(!after.iter().any(|row| doomed(row, newest)));
        self.model.looked(store);
        self.newest_row_never_goes_back(newest);
    }

    fn cleanup(&mut self, store: usize, scope: usize, older_than_ms: u64) {
        let before_ms = self.model.now[store].saturating_sub_unsigned(older_than_ms);
        let rows_before = marks(&self.file);
        let newest = rows(&self.file).last().map_or(0, |row| row.seq);
        let doomed = |row: &&JournalRow| row.scope == SCOPES[scope] && row.last_seen < before_ms;
        let expected = rows_before.iter().filter(doomed).count() as u64;
        let older_than = ms(older_than_ms);
        let removed = self.store(store).scope(SCOPES[scope]).cleanup_old_entries(older_than);
        assert_eq!(removed.unwrap(), expected);
        self.model.looked(store);
        let old = |name: &Name, mark: &Mark| name.0 == scope && mark.last < before_ms;
        let names: Vec<_> =
            self.model.live.iter().filter(|(name, mark)| old(name, mark)).map(|it| *it.0).collect();
        for name in names {
            self.model.remove(store, name);
            assert_eq!(self.get(store, name), None);
        }
        self.newest_row_never_goes_back(newest);
    }

    /// A `seq` that was given once is never given again, whatever is deleted.
    fn newest_row_never_goes_back(&self, newest: i64) {
        assert!(rows(&self.file).last().map_or(0, |row| row.seq) >= newest);
    }

    fn reopen(&mut self, store: usize, purge: bool) {
        self.stores[store] = None;
        self.stores[store] = Some(open(&self.place, &self.clock, purge));
        self.model.now[store] = self.clock_ms;
        self.model.looked(store);
        self.model.bury();
    }

    /// Everything that the model knows is true of both stores and of the file.
    fn check_everything(&mut self) {
        for store in 0..2 {
            for scope in 0..SCOPES.len() {
                for id in VALID_IDS {
                    self.get(store, (scope, id));
                    self.is_seen(Which { store, scope, id });
                }
            }
        }
        let latest = self.model.now[0].max(self.model.now[1]);
        for ((scope, id), mark) in &self.model.live {
            let is_its = |row: &&JournalRow| {
                let bytes = match &row.id {
                    rusqlite::types::Value::Text(text) => text.as_bytes(),
                    rusqlite::types::Value::Blob(bytes) => bytes,
                    other => panic!("{other:?} is no id"),
                };
                row.scope == SCOPES[*scope] && bytes == self.ids[*id]
            };
            let rows = marks(&self.file);
            let rows: Vec<_> = rows.iter().filter(is_its).collect();
            let row = rows.last().expect("a live id has a row");
            let stored = Mark {
                first: row.first_seen,
                last: row.last_seen,
                expires: row.expires_at.unwrap_or(i64::MAX),
            };
            assert_eq!(stored, *mark);
        }
        // A ghost that only one of the stores has swept is no damage, and may be listed as such.
        let haunted = self.model.ghosts.values().flatten().any(|ghost| {
            ghost.expires > self.model.now[0].min(self.model.now[1]) || ghost.expires > latest
        });
        if !haunted {
            let report = self.store(0).verify().unwrap();
            assert!(report.is_ok(), "{:?}", report.problems);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

#[test]
fn two_stores_on_one_file_answer_as_a_plain_map_does() {
    let cases = number("SEEN_MODEL_CASES").unwrap_or(2_000);
    let seed = number("SEEN_MODEL_SEED")
        .unwrap_or_else(|| std::hash::RandomState::new().hash_one("model"));
    eprintln!("{cases} sequences, SEEN_MODEL_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Cases {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Cases::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let outcome = TestRunner::new_with_rng(config, rng).run(&vec(op(), 10..=50), |ops| {
        let mut run = Run::new();
        for op in &ops {
            run.apply(op);
        }
        run.check_everything();
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, ops)) => {
            panic!("SEEN_MODEL_SEED={seed}: {why}\nthe shortest sequence that fails:\n{ops:#?}")
        }
        Err(abort) => panic!("SEEN_MODEL_SEED={seed}: {abort}"),
    }
}
