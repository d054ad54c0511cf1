//! What one id may be: what is certain of it, and what the contract leaves open between stores whose clocks
//! differ.
//!
//! Pure, as `state`. What has ended for one store may have been purged by it, and may live on for another.
//! The simulator compiles this too.

use seen_store::{State as Label, Token};

use crate::state::{Claim, Mark, State, Tag, View};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    /// What holds for all stores.
    pub(crate) certain: State,
    /// Marks that are kept no longer for at least one store, and may have been purged or not.
    pub(crate) ghosts: Vec<Mark>,
    /// Claims whose attempts were forgotten for at least one store, likewise.
    claim_ghosts: Vec<Claim>,
}

/// A state that the id may be in for a store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Start {
    pub(crate) state: State,
    /// The store still knows a mark whose row another one has purged.
    pub(crate) hollow: bool,
    /// Whether the mark, or that there is none, holds for all stores; and the claim.
    pub(crate) certain_mark: bool,
    pub(crate) certain_claim: bool,
}

impl Known {
    /// The ghosts that are kept at this time.
    fn kept_ghosts(&self, now: i64) -> impl Iterator<Item = &Mark> {
        self.ghosts.iter().filter(move |ghost| now < ghost.kept)
    }

    fn live_claim_ghosts(&self, now: i64) -> impl Iterator<Item = &Claim> {
        self.claim_ghosts.iter().filter(move |ghost| !ghost.is_forgotten(now))
    }

    /// The first one is certain.
    pub(crate) fn starts(&self, now: i64) -> Vec<Start> {
        let mut marks = vec![(self.certain.mark.clone(), false, true)];
        if self.certain.mark.is_none() {
            for ghost in self.kept_ghosts(now) {
                marks.push((Some(ghost.clone()), false, false));
                if ghost.is_live(now) {
                    marks.push((Some(ghost.clone()), true, false));
                }
            }
        }
        let mut claims = vec![(self.certain.claim.clone(), true)];
        if self.certain.claim.is_none() {
            claims.extend(self.live_claim_ghosts(now).map(|ghost| (Some(ghost.clone()), false)));
        }
        let starts = claims.iter().flat_map(|(claim, certain_claim)| {
            marks.iter().map(|(mark, hollow, certain_mark)| Start {
                state: State { mark: mark.clone(), claim: claim.clone() },
                hollow: *hollow,
                certain_mark: *certain_mark,
                certain_claim: *certain_claim,
            })
        });
        starts.collect()
    }

    fn whole_starts(&self, now: i64) -> impl Iterator<Item = Start> {
        self.starts(now).into_iter().filter(|start| !start.hollow)
    }

    /// What may be shown of the id.
    pub(crate) fn views(&self, now: i64) -> Vec<Option<View>> {
        self.whole_starts(now).map(|start| start.state.view(now)).collect()
    }

    /// What a listing may show.
    pub(crate) fn listed(&self, now: i64) -> Vec<Vec<View>> {
        self.whole_starts(now).map(|start| start.state.listed(now)).collect()
    }

    /// Whether the id may be seen, and may not, as what it is shown with.
    pub(crate) fn is_seen(&self, shown: Option<Tag>, now: i64) -> Vec<bool> {
        let starts = self.starts(now).into_iter();
        let seen = starts.map(|start| {
            // The version of a mark whose row is gone is not known: it is looked for in vain.
            let shown = shown.filter(|_| !start.hollow);
            start.state.is_seen(shown, now)
        });
        let mut seen: Vec<bool> = seen.collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// Of marks that were turned away, only that they were: when would make worlds of their own.
    pub(crate) fn forget_when_sighted(&mut self) {
        for mark in self.ghosts.iter_mut().chain(&mut self.certain.mark) {
            if mark.sighted > 0 {
                mark.sighted = i64::MAX;
            }
        }
    }

    /// Moves what has ended by this time to the ghosts.
    pub(crate) fn bury(&mut self, latest: i64) {
        if let Some(mark) = self.certain.mark.take_if(|mark| mark.kept <= latest)
            && !self.ghosts.contains(&mark)
        {
            self.ghosts.push(mark);
        }
        if let Some(claim) = self.certain.claim.take_if(|claim| claim.is_forgotten(latest))
            && !self.claim_ghosts.contains(&claim)
        {
            self.claim_ghosts.push(claim);
        }
    }

    /// What it is once it is `after` for the store for which it was `start`.
    pub(crate) fn apply(&mut self, start: &Start, after: &State) {
        let before = &start.state;
        match (&before.mark, &after.mark) {
            _ if before.mark == after.mark => {}
            // It was turned away. Nothing tells which of the ghosts that was.
            (Some(mark), Some(seen)) if seen.is_row_of(mark) && !start.certain_mark => {
                for ghost in &mut self.ghosts {
                    ghost.sighted = ghost.sighted.max(seen.sighted);
                }
            }
            (_, Some(mark)) => self.certain.mark = Some(mark.clone()),
            (_, None) if start.certain_mark => self.certain.mark = None,
            (_, None) => {}
        }
        if before.claim != after.claim {
            self.claim_ghosts.clear();
            self.certain.claim.clone_from(&after.claim);
        }
    }

    /// A store has purged at `now`: of the claims whose attempts are forgotten, nothing is left. (A mark may
    /// live on in the memory of a store whose clock is behind.)
    pub(crate) fn purged(&self, now: i64) -> Self {
        let mut known = self.clone();
        known.bury(now);
        known.claim_ghosts.retain(|ghost| !ghost.is_forgotten(now));
        known
    }

    /// A store has taken off what had not changed since `before_ms`. What was turned away since may have changed.
    pub(crate) fn cleaned(&self, before_ms: i64) -> Vec<Self> {
        let mut known = self.clone();
        known.claim_ghosts.retain(|ghost| ghost.changed() >= before_ms);
        known.certain.claim.take_if(|claim| claim.changed() < before_ms);
        let with_mark = known.clone();
        let removed = known.certain.mark.take_if(|mark| mark.last < before_ms);
        match removed {
            Some(mark) if mark.sighted >= before_ms => vec![known, with_mark],
            _ => vec![known],
        }
    }

    /// A store has removed the entries of this label at `now`, or all but those at work. (A mark may live on in the
    /// memory of a store whose clock is behind.)
    pub(crate) fn removed(&self, label: Option<Label>, now: i64) -> Self {
        let takes_mark = |mark: &Mark| {
            let is = if mark.is_live(now) { Label::Seen } else { Label::Expired };
            // What has expired is taken only where it is asked for.
            label.map_or(is == Label::Seen, |asked| asked == is)
        };
        let takes_claim = |claim: &Claim| match claim.label(now) {
            Label::Expired => false,
            at_work @ (Label::InFlight | Label::Unresolved) => label == Some(at_work),
            is => label.is_none_or(|asked| asked == is),
        };
        let mut known = self.clone();
        known.claim_ghosts.retain(|ghost| !takes_claim(ghost));
        known.certain.claim.take_if(|claim| takes_claim(claim));
        known.certain.mark.take_if(|mark| takes_mark(mark));
        known
    }

    /// A mark of another store was taken over.
    pub(crate) fn imported(&self, first: i64, last: i64, expires: i64, now: i64) -> Vec<Self> {
        if expires <= now {
            return vec![self.clone()];
        }
        let mut all = Vec::new();
        for start in self.starts(now) {
            let mark = match start.state.seen(now) {
                Some(mark) => Mark {
                    first: mark.first.min(first),
                    last: mark.last.max(last),
                    expires: mark.expires.max(expires),
                    kept: mark.kept.max(expires),
                    ..mark.clone()
                },
                None => start
                    .state
                    .begun(Mark { first, last, expires, kept: expires, ..Mark::default() }, now),
            };
            let mut known = self.clone();
            known.apply(&start, &State { mark: Some(mark), claim: None });
            all.push(known);
        }
        all
    }

    /// Whether something that has ended for one store lives on for another whose time is `now`.
    pub(crate) fn is_haunted(&self, now: i64) -> bool {
        self.kept_ghosts(now).next().is_some() || self.live_claim_ghosts(now).next().is_some()
    }

    /// When something of it ends.
    pub(crate) fn borders(&self) -> Vec<i64> {
        let mark = self.certain.mark.iter().flat_map(|mark| [mark.expires, mark.kept]);
        let claim = self.certain.claim.iter().flat_map(|claim| [claim.until, claim.expires]);
        mark.chain(claim).collect()
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> {
        let mark = self.certain.mark.as_ref().and_then(|mark| mark.token);
        let claim = self.certain.claim.as_ref().and_then(|claim| claim.token);
        mark.into_iter().chain(claim)
    }

    pub(crate) fn rename(&mut self, from: Token, to: Token) {
        let marks = self.ghosts.iter_mut().chain(&mut self.certain.mark);
        let claims = self.claim_ghosts.iter_mut().chain(&mut self.certain.claim);
        let tokens = marks.map(|mark| &mut mark.token).chain(claims.map(|claim| &mut claim.token));
        for token in tokens {
            if *token == Some(from) {
                *token = Some(to);
            }
        }
    }
}
