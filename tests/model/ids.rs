//! The model of all ids: what is known of each, how often it was turned away, and what each store has seen of it.

use std::collections::{BTreeMap, BTreeSet};

use seen_store::State as Label;

use crate::known::{Known, Start};
use crate::state::{Answer, Claim, End, Mark, Setting, State, Verb, View, outcomes};

/// An id in its scope.
pub(crate) type Name = (usize, usize);

/// What the file holds of an id: its newest mark, unless a tombstone came after it, and its claim.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) mark: Option<Mark>,
    pub(crate) claim: Option<Claim>,
}

/// What is known of an id, and of its count.
#[derive(Clone, Default)]
pub(crate) struct Counted {
    pub(crate) known: Known,
    /// How many duplicates were turned away since the id was last new.
    turned_away: u64,
    /// How many of them each store must still know of.
    kept: [u64; 2],
    /// Whether the other store has replaced the row since each last had to look.
    replaced: [bool; 2],
}

impl Counted {
    pub(crate) fn duplicates(&self, store: usize) -> std::ops::RangeInclusive<u64> {
        self.kept[store]..=self.turned_away
    }

    fn apply(&mut self, store: usize, start: &Start, end: &End) {
        let from_mark = matches!(start.state, State::Mark(_));
        if from_mark && *end != End::Same {
            self.kept[1 - store] = 0;
            self.replaced[1 - store] = true;
            if start.hollow {
                self.kept[store] = 0;
            }
        }
        if !from_mark && matches!(end, End::Mark(_)) {
            (self.turned_away, self.kept) = (0, [0; 2]);
            self.replaced[1 - store] |= !self.known.ghosts.is_empty();
        }
        self.known.apply(start, end);
    }
}

/// How many new ones there may have been.
pub(crate) type AtLeastAtMost = (u64, u64);

pub(crate) type Names = BTreeMap<Name, Counted>;

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) names: Names,
    /// Each store's own view of the clock.
    pub(crate) now: [i64; 2],
    /// What the other store removed, or a restore may have changed, since this one last had to look.
    unlooked: [BTreeSet<Name>; 2],
}

impl Model {
    pub(crate) fn new(now: i64) -> Self {
        Self { now: [now; 2], ..Self::default() }
    }

    /// The file is again what it was when these `names` were known. Each store keeps its time, and may
    /// answer from memory, until it looks, for what was marked in the history that is lost.
    pub(crate) fn restored(&mut self, names: Names) {
        let lost = std::mem::replace(&mut self.names, names);
        for (name, Counted { known, .. }) in lost {
            if matches!(known.certain, State::Mark(_)) || !known.ghosts.is_empty() {
                self.unlooked.iter_mut().for_each(|unlooked| unlooked.extend([name]));
            }
        }
        for id in self.names.values_mut() {
            // The counts that were not written down are lost.
            (id.kept, id.replaced) = ([0; 2], [true; 2]);
        }
        self.bury();
    }

    pub(crate) fn latest(&self) -> i64 {
        self.now[0].max(self.now[1])
    }

    pub(crate) fn bury(&mut self) {
        let latest = self.latest();
        self.names.values_mut().for_each(|id| id.known.bury(latest));
    }

    /// The store has read what the other one committed.
    pub(crate) fn looked(&mut self, store: usize) {
        self.unlooked[store].clear();
        self.names.values_mut().for_each(|id| id.replaced[store] = false);
    }

    /// A store whose clock is more than a minute behind finds rows gone, purged by the other one, that it
    /// cannot explain. It rebuilds its index, and the counts that were not written down are lost.
    pub(crate) fn lose_counts(&mut self) {
        let latest = self.latest();
        for store in (0..2).filter(|store| latest - self.now[*store] > 60_000) {
            self.names.values_mut().for_each(|id| id.kept[store] = 0);
        }
    }

    /// Whether the store may still answer from memory for an id that the other one has removed.
    pub(crate) fn is_late(&self, store: usize, name: Name) -> bool {
        self.unlooked[store].contains(&name)
    }

    /// Whether the id is seen; `None` where both answers are right.
    pub(crate) fn is_seen(&self, store: usize, name: Name) -> Option<bool> {
        let Some(Counted { known, .. }) = self.names.get(&name) else { return Some(false) };
        match known.certain {
            State::Mark(_) => Some(true),
            _ if known.seen_ghosts(self.now[store]).next().is_some() => None,
            _ => Some(false),
        }
    }

    /// A verb has answered. `None`: with what is not known. Where several outcomes fit, the file tells
    /// which it was. Returns how many new ones that were.
    pub(crate) fn step(
        &mut self,
        store: usize,
        name: Name,
        verb: &Verb,
        setting: Setting,
        answer: Option<Answer>,
        file: impl FnOnce() -> Held,
    ) -> AtLeastAtMost {
        let late = self.is_late(store, name);
        let id = self.names.entry(name).or_default();
        let starts = id.known.starts(setting.now);
        let right: Vec<_> = starts
            .iter()
            .flat_map(|start| {
                let outcomes = outcomes(verb, &start.state, start.hollow, setting);
                outcomes.into_iter().map(move |(answer, end)| (start, answer, end))
            })
            .collect();
        let mut fit = right.clone();
        // From memory, without a look.
        let from_memory = match verb {
            Verb::Check | Verb::Seed if late => Some(Answer::Duplicate),
            Verb::Claim { .. } if late => Some(Answer::Seen),
            _ => None,
        };
        if let Some(answer) = from_memory
            && !fit.contains(&(&starts[0], answer, End::Same))
        {
            fit.push((&starts[0], answer, End::Same));
        }
        fit.retain(|(_, right, _)| answer.is_none_or(|answer| answer == *right));
        assert!(!fit.is_empty(), "{answer:?} to {verb:?} of {name:?}; right is one of {right:#?}");
        if fit.len() > 1 {
            let held = file();
            fit.retain(|(start, _, end)| held.agrees(start, end, setting.now));
            assert!(!fit.is_empty(), "{answer:?} left what it should not: {held:?} of {right:#?}");
            fit.sort_by_key(|(_, _, end)| *end == End::Same);
        }
        let (start, answer, end) = &fit[0];
        let is_sighting = |answer| matches!(answer, Answer::Duplicate | Answer::Seen);
        id.turned_away += u64::from(fit.iter().any(|(_, answer, _)| is_sighting(*answer)));
        let turned_away = id.turned_away;
        // From memory it may be counted for a row that is gone; a ghost's count goes with its row.
        if is_sighting(*answer) && !late && start.certain && !id.replaced[store] {
            id.kept[store] += 1;
        }
        id.apply(store, start, end);
        if fit.len() > 1 {
            // Where it is open whether the id was new, its count may go on.
            id.turned_away = turned_away;
        }
        if *end == End::Gone && matches!(start.state, State::Mark(_)) {
            self.unlooked[1 - store].insert(name);
        }
        id.known.bury(self.now[0].max(self.now[1]));
        let new = |(_, answer, _): &(_, Answer, _)| u64::from(*answer == Answer::New);
        (fit.iter().map(new).min().unwrap(), fit.iter().map(new).max().unwrap())
    }

    /// Takes off what a cleanup of a scope by this store has removed. Says what that was.
    pub(crate) fn clean(&mut self, store: usize, scope: usize, before_ms: i64) -> Vec<Name> {
        let mut removed = Vec::new();
        for (name, id) in self.names.iter_mut().filter(|(name, _)| name.0 == scope) {
            let cleaned = id.known.cleaned(before_ms);
            if cleaned.certain != id.known.certain {
                if matches!(id.known.certain, State::Mark(_)) {
                    self.unlooked[1 - store].insert(*name);
                }
                removed.push(*name);
            }
            id.known = cleaned;
        }
        removed
    }

    /// A store has purged: of the claims whose attempts are forgotten, nothing is left.
    pub(crate) fn purged(&mut self, store: usize) {
        let now = self.now[store];
        for id in self.names.values_mut() {
            id.known = id.known.purged(now);
        }
    }

    /// How many ids a store may count under this label.
    pub(crate) fn count(&self, store: usize, label: Label) -> std::ops::RangeInclusive<u64> {
        let now = self.now[store];
        let (mut least, mut most) = (0, 0);
        for Counted { known, .. } in self.names.values() {
            let is_it = |view: Option<View>| view.is_some_and(|view| view.label == label);
            let certain = is_it(known.certain.view(now));
            let ghosts = known.is_haunted(now) && known.listed(now).into_iter().any(is_it);
            least += u64::from(certain);
            most += u64::from(certain || ghosts);
        }
        least..=most
    }

    /// The ids that are certainly there, and that nothing else can be taken for.
    pub(crate) fn present(&self) -> impl Iterator<Item = Name> {
        let earliest = self.earliest();
        let present = self.names.iter().filter(move |(_, Counted { known, .. })| {
            known.certain != State::Nothing && !known.is_haunted(earliest)
        });
        present.map(|(name, _)| *name)
    }

    pub(crate) fn earliest(&self) -> i64 {
        self.now[0].min(self.now[1])
    }

    pub(crate) fn is_haunted(&self, now: i64) -> bool {
        self.names.values().any(|id| id.known.is_haunted(now))
    }
}

impl Held {
    fn agrees(&self, start: &Start, end: &End, now: i64) -> bool {
        match (end, &start.state) {
            // One that had expired when it was made may be gone: a purge may be due after the commit.
            (End::Mark(mark), _) if self.mark.is_none() => mark.expires <= now,
            (End::Mark(mark), _) => self.mark.as_ref() == Some(mark),
            (End::Claim(claim), _) | (End::Same, State::Claim(claim)) => {
                self.claim.as_ref() == Some(claim)
            }
            (End::Gone, State::Claim(_)) => self.claim.is_none(),
            (End::Gone, _) => self.mark.is_none(),
            (End::Same, State::Mark(mark)) => !start.certain || self.mark.as_ref() == Some(mark),
            (End::Same, State::Nothing) => true,
        }
    }
}
