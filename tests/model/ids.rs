//! The model of all ids: what is known of each, how often it was turned away, and what each store has seen of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use seen_store::State as Label;

use crate::known::{Known, Start};
use crate::state::{Answer, Claim, Mark, Setting, State, Tag, Verb, outcomes};

/// An id in its scope.
pub(crate) type Name = (usize, usize);

/// What the file holds of an id: its newest mark, unless a tombstone came after it, and its claim.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) mark: Option<Mark>,
    pub(crate) claim: Option<Claim>,
}

/// What a store must still know of what it has turned away.
#[derive(Clone, Copy, Default)]
struct Kept {
    /// How many duplicates of the mark, and when the last one came.
    of_mark: u64,
    last: Option<i64>,
    /// How many while the id was claimed.
    of_claim: u64,
}

/// What is known of an id, and of its count.
#[derive(Clone, Default)]
pub(crate) struct Counted {
    pub(crate) known: Known,
    /// How many were turned away since the id was last new.
    turned_away: u64,
    /// How many were ever turned away while it was claimed: these are known by id, and written down later.
    refused: u64,
    /// What of that each store must still know of.
    kept: [Kept; 2],
    /// How many there were in the windows before: at least, and at most.
    earlier: AtLeastAtMost,
    /// Whether the other store has replaced the row since each last had to look.
    replaced: [bool; 2],
}

impl Counted {
    /// How many duplicates a store may show of the mark or the claim.
    pub(crate) fn duplicates(&self, store: usize, label: Label) -> RangeInclusive<u64> {
        // What a ghost has, like a ghost, may be there or not.
        let least = if label.is_claim() {
            self.known.certain.claim.as_ref().map_or(0, |_| self.kept[store].of_claim)
        } else {
            self.known.certain.mark.as_ref().map_or(0, |_| self.kept[store].of_mark)
        };
        least..=self.turned_away
    }

    /// How many there may have been in the windows before.
    pub(crate) fn duplicates_before(&self) -> RangeInclusive<u64> {
        let least = self.known.certain.mark.as_ref().map_or(0, |_| self.earlier.0);
        least..=self.earlier.1
    }

    /// When the store must at least show that the mark was seen last.
    pub(crate) fn last(&self, store: usize) -> Option<i64> {
        self.known.certain.mark.as_ref().and_then(|_| self.kept[store].last)
    }

    /// Of what a store has answered, what it counts.
    fn count(&mut self, store: usize, start: &Start, answer: &Answer, is_late: bool, now: i64) {
        let kept = &mut self.kept[store];
        match answer {
            // From memory it may be counted for a row that is gone; a ghost's count goes with its row.
            Answer::Duplicate | Answer::Seen
                if !is_late && start.certain_mark && !self.replaced[store] =>
            {
                kept.of_mark += 1;
                kept.last = kept.last.max(Some(now));
            }
            Answer::Flying | Answer::InFlight { .. } | Answer::Unresolved { .. }
                if start.certain_claim && has_token(start) =>
            {
                kept.of_claim += 1;
            }
            _ => {}
        }
    }

    fn apply(&mut self, store: usize, verb: &Verb, start: &Start, after: &State, now: i64) {
        let (before, other) = (&start.state, 1 - store);
        let is_refresh = matches!(verb, Verb::Mark { .. } | Verb::Resolve { done: true });
        let is_written = match (&before.mark, &after.mark) {
            // A refresh that changes nothing is a row of its own too.
            (Some(mark), Some(after)) => {
                is_refresh && before.seen(now).is_some() || !after.is_row_of(mark)
            }
            (before, after) => before.is_some() != after.is_some(),
        };
        let had_claim = before.claim.is_some() && after.claim.is_none();
        let token = |claim: &Option<Claim>| claim.as_ref().and_then(|claim| claim.token);
        let ends = before.claim.is_some() && token(&before.claim) != token(&after.claim);
        let becomes_mark =
            after.mark.as_ref().is_some_and(|mark| mark.token == token(&before.claim));
        if ends && !becomes_mark {
            // The other store knows its refusals by a token that is gone.
            self.kept[other].of_claim = 0;
        }
        let of_claims = self.kept.map(|kept| kept.of_claim);
        if is_written && before.seen(now).is_some() {
            (self.kept[other].of_mark, self.kept[other].last) = (0, None);
            self.replaced[other] = true;
            if start.hollow {
                self.kept[store] = Kept::default();
            }
        } else if is_written {
            let windows = after.mark.as_ref().and_then(|mark| mark.earlier.as_ref());
            self.earlier = match windows {
                Some(_) if self.refused > 0 => (0, self.earlier.1 + self.turned_away),
                Some(_) => {
                    let (least, most) = self.earlier;
                    (least + self.kept[store].of_mark, most + self.turned_away)
                }
                None => (0, 0),
            };
            if before.claim.is_none() {
                self.turned_away = self.refused;
            }
            self.kept.iter_mut().for_each(|kept| (kept.of_mark, kept.last) = (0, None));
            self.replaced[other] |= !self.known.ghosts.is_empty();
        }
        if had_claim {
            for (kept, of_claim) in self.kept.iter_mut().zip(of_claims) {
                kept.of_claim = 0;
                // They go to the mark that ends the claim.
                if is_written && after.mark.is_some() {
                    kept.of_mark += of_claim;
                }
            }
        }
        if before.claim.is_none() && after.claim.is_some() {
            // What was turned away of a mark goes with it.
            if before.mark.is_none() && self.known.ghosts.is_empty() {
                self.turned_away = self.refused;
            }
            for kept in &mut self.kept {
                kept.of_claim = 0;
                // What was refused of an earlier claim, and is not written down yet, goes to this one.
                if self.refused > 0 {
                    kept.of_mark = 0;
                }
            }
        }
        self.known.apply(start, after);
    }
}

/// Whether the claim has a holder, or had one that said nothing: a refusal counts for that claim.
fn has_token(start: &Start) -> bool {
    start.state.claim.as_ref().is_some_and(|claim| claim.token.is_some())
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
        for (name, Counted { known, refused, .. }) in lost {
            if known.certain.mark.is_some() || !known.ghosts.is_empty() {
                self.unlooked.iter_mut().for_each(|unlooked| unlooked.extend([name]));
            }
            // What was refused of a claim is known by id, and may be written down yet.
            let id = self.names.entry(name).or_default();
            (id.turned_away, id.refused) = (id.turned_away + refused, id.refused + refused);
        }
        for id in self.names.values_mut() {
            // The counts that were not written down are lost.
            (id.kept, id.replaced) = ([Kept::default(); 2], [true; 2]);
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
            self.names.values_mut().for_each(|id| id.kept[store] = Kept::default());
        }
    }

    /// Whether the store may still answer from memory for an id that the other one has removed.
    pub(crate) fn is_late(&self, store: usize, name: Name) -> bool {
        self.unlooked[store].contains(&name)
    }

    /// Whether the id is seen as what it is shown with; `None` where both answers are right.
    pub(crate) fn is_seen(&self, store: usize, name: Name, shown: Option<Tag>) -> Option<bool> {
        let Some(Counted { known, .. }) = self.names.get(&name) else { return Some(false) };
        match known.is_seen(shown, self.now[store])[..] {
            [seen] => Some(seen),
            _ => None,
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
        answer: Option<&Answer>,
        file: impl FnOnce() -> Held,
    ) -> AtLeastAtMost {
        let late = self.is_late(store, name);
        let id = self.names.entry(name).or_default();
        let starts = id.known.starts(setting.now);
        let right: Vec<_> = starts
            .iter()
            .flat_map(|start| {
                let outcomes = outcomes(verb, &start.state, start.hollow, setting);
                outcomes.into_iter().map(move |(answer, after)| (start, answer, after))
            })
            .collect();
        let mut fit = right.clone();
        // From memory, without a look.
        let from_memory = match verb {
            Verb::Check { retry_of: None, .. } | Verb::Seed { .. } if late => {
                Some(Answer::Duplicate)
            }
            Verb::Claim { .. } if late => Some(Answer::Seen),
            _ => None,
        };
        if let Some(answer) = from_memory {
            let from_memory = (&starts[0], answer, starts[0].state.clone());
            if !fit.contains(&from_memory) {
                fit.push(from_memory);
            }
        }
        fit.retain(|(_, right, _)| {
            answer.map_or(*right != Answer::Conflict, |answer| answer == right)
        });
        assert!(!fit.is_empty(), "{answer:?} to {verb:?} of {name:?}; right is one of {right:#?}");
        if fit.len() > 1 {
            let held = file();
            fit.retain(|(start, _, after)| held.agrees(start, after, setting.now));
            assert!(!fit.is_empty(), "{answer:?} left what it should not: {held:?} of {right:#?}");
            // What was written tells more than what may have been left as it was.
            fit.sort_by_key(|(start, _, after)| after.is_left_of(&start.state));
        }
        let (start, answer, after) = &fit[0];
        let is_counted = |(_, answer, _): &(_, Answer, _)| {
            use Answer::{Duplicate, Flying, InFlight, Seen, Unresolved};
            matches!(answer, Duplicate | Seen | Flying | InFlight { .. } | Unresolved { .. })
        };
        let is_refusal =
            matches!(answer, Answer::Flying | Answer::InFlight { .. } | Answer::Unresolved { .. });
        id.turned_away += u64::from(fit.iter().any(is_counted));
        id.refused += u64::from(is_refusal);
        let turned_away = id.turned_away;
        id.count(store, start, answer, late, setting.now);
        id.apply(store, verb, start, after, setting.now);
        if fit.len() > 1 {
            // Where it is open whether the id was new, its count may go on.
            id.turned_away = turned_away;
        }
        if after.mark.is_none() && start.state.mark.is_some() {
            self.unlooked[1 - store].insert(name);
        }
        id.known.bury(self.now[0].max(self.now[1]));
        let new = |(_, answer, _): &(_, Answer, _)| u64::from(*answer == Answer::New);
        (fit.iter().map(new).min().unwrap(), fit.iter().map(new).max().unwrap())
    }

    /// Whether one of these verbs, each after those before it, may meet another payload.
    pub(crate) fn may_conflict(&self, verbs: &[(Name, Verb)], setting: Setting) -> bool {
        let mut names: BTreeMap<Name, Vec<Known>> = BTreeMap::new();
        for (name, verb) in verbs {
            let known = names.entry(*name).or_insert_with(|| {
                vec![self.names.get(name).map_or_else(Known::default, |id| id.known.clone())]
            });
            let mut after_it = Vec::new();
            for known in known.iter() {
                for start in known.starts(setting.now) {
                    for (answer, after) in outcomes(verb, &start.state, start.hollow, setting) {
                        if answer == Answer::Conflict {
                            return true;
                        }
                        let mut known = known.clone();
                        known.apply(&start, &after);
                        after_it.push(known);
                    }
                }
            }
            *known = after_it;
        }
        false
    }

    /// Takes off what a cleanup of a scope by this store has removed. Says what that was.
    pub(crate) fn clean(
        &mut self,
        store: usize,
        scope: usize,
        before_ms: i64,
        file: impl Fn(Name) -> Held,
    ) -> Vec<Name> {
        let mut removed = Vec::new();
        for (name, id) in self.names.iter_mut().filter(|(name, _)| name.0 == scope) {
            let mut ways = id.known.cleaned(before_ms);
            if ways.len() > 1 {
                let is_left = file(*name).mark.is_some();
                ways.retain(|known| known.certain.mark.is_some() == is_left);
            }
            let cleaned = ways.remove(0);
            if cleaned.certain != id.known.certain {
                if cleaned.certain.mark.is_none() && id.known.certain.mark.is_some() {
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

    /// How many marks and claims a store may count under this label.
    pub(crate) fn count(&self, store: usize, label: Label) -> RangeInclusive<u64> {
        let now = self.now[store];
        let (mut least, mut most) = (0, 0);
        for Counted { known, .. } in self.names.values() {
            // A claim of a mark's version is listed instead of it, and both are counted.
            let counts = known.starts(now).into_iter().filter(|start| !start.hollow).map(|start| {
                let mark = start.state.seen(now).map(|_| Label::Seen);
                let claim = start.state.claim.as_ref().map(|claim| claim.label(now));
                mark.into_iter().chain(claim).filter(|it| *it == label).count() as u64
            });
            let counts: Vec<u64> = counts.collect();
            least += counts.iter().min().unwrap();
            most += counts.iter().max().unwrap();
        }
        least..=most
    }

    /// The ids that are certainly there, and that nothing else can be taken for.
    pub(crate) fn present(&self) -> impl Iterator<Item = Name> {
        let earliest = self.earliest();
        let present = self.names.iter().filter(move |(_, Counted { known, .. })| {
            let is_listed = |now: &i64| !known.certain.listed(*now).is_empty();
            self.now.iter().all(is_listed) && !known.is_haunted(earliest)
        });
        present.map(|(name, _)| *name)
    }

    /// The ids that certainly have a claim.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = Name> {
        let claimed = self.names.iter().filter(|(_, id)| id.known.certain.claim.is_some());
        claimed.map(|(name, _)| *name)
    }

    /// The ids that are seen for both stores.
    pub(crate) fn seen(&self) -> impl Iterator<Item = Name> {
        let is_seen =
            |id: &Counted| self.now.iter().all(|now| id.known.certain.seen(*now).is_some());
        self.names.iter().filter(move |(_, id)| is_seen(id)).map(|(name, _)| *name)
    }

    pub(crate) fn earliest(&self) -> i64 {
        self.now[0].min(self.now[1])
    }

    pub(crate) fn is_haunted(&self, now: i64) -> bool {
        self.names.values().any(|id| id.known.is_haunted(now))
    }
}

impl Held {
    fn agrees(&self, start: &Start, after: &State, now: i64) -> bool {
        let is_row = |mark: &Mark| self.mark.as_ref().is_some_and(|held| mark.is_shown_as(held));
        let before = &start.state;
        let mark = match (&before.mark, &after.mark) {
            (before, after) if before == after && !start.certain_mark => true,
            (Some(mark), Some(after)) if after.is_row_of(mark) => {
                !start.certain_mark || is_row(after)
            }
            // One that had expired when it was made may be gone: a purge may be due after the commit.
            (_, Some(after)) if self.mark.is_none() => after.kept <= now,
            (_, Some(after)) => is_row(after),
            (Some(_), None) => self.mark.is_none(),
            (None, None) => true,
        };
        let claim = match (&before.claim, &after.claim) {
            (None, None) => true,
            (_, after) => self.claim == *after,
        };
        mark && claim
    }
}
