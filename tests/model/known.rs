//! What one id may be: what is certain of it, and what the contract leaves open between stores whose clocks
//! differ.
//!
//! Pure, as `state`. What has ended for one store may have been purged by it, and may live on for another.
//! The simulator compiles this too.

use seen_store::Token;

use crate::state::{Claim, End, Mark, State, View};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    /// What holds for all stores.
    pub(crate) certain: State,
    /// Marks that have expired for at least one store, and may have been purged or not.
    pub(crate) ghosts: Vec<Mark>,
    /// Claims whose attempts were forgotten for at least one store, likewise.
    claim_ghosts: Vec<Claim>,
}

/// A state that the id may be in for a store.
#[derive(Debug, PartialEq)]
pub(crate) struct Start {
    pub(crate) state: State,
    /// The store still knows a mark whose row another one has purged.
    pub(crate) hollow: bool,
    pub(crate) certain: bool,
}

impl Known {
    /// The ghosts that are not expired by this time.
    pub(crate) fn seen_ghosts(&self, now: i64) -> impl Iterator<Item = &Mark> {
        self.ghosts.iter().filter(move |ghost| now < ghost.expires)
    }

    fn live_claim_ghosts(&self, now: i64) -> impl Iterator<Item = &Claim> {
        self.claim_ghosts.iter().filter(move |ghost| !ghost.is_forgotten(now))
    }

    pub(crate) fn starts(&self, now: i64) -> Vec<Start> {
        let mut starts = vec![Start { state: self.certain.clone(), hollow: false, certain: true }];
        if matches!(self.certain, State::Mark(_)) {
            return starts;
        }
        for ghost in self.seen_ghosts(now) {
            for hollow in [false, true] {
                let state = State::Mark(ghost.clone());
                starts.push(Start { state, hollow, certain: false });
            }
        }
        if self.certain == State::Nothing {
            starts.extend(self.live_claim_ghosts(now).map(|ghost| Start {
                state: State::Claim(ghost.clone()),
                hollow: false,
                certain: false,
            }));
        }
        starts
    }

    /// What may be shown of the id.
    pub(crate) fn views(&self, now: i64) -> Vec<Option<View>> {
        let starts = self.starts(now);
        starts.iter().filter(|start| !start.hollow).map(|start| start.state.view(now)).collect()
    }

    /// What a listing may show: besides, a claim that was forgotten while the id was marked, and that a clock
    /// set back has brought up again, comes before the mark.
    pub(crate) fn listed(&self, now: i64) -> Vec<Option<View>> {
        let mut views = self.views(now);
        views
            .extend(self.live_claim_ghosts(now).map(|ghost| State::Claim(ghost.clone()).view(now)));
        views
    }

    /// Moves what has ended by this time to the ghosts.
    pub(crate) fn bury(&mut self, latest: i64) {
        match &self.certain {
            State::Mark(mark) if mark.expires <= latest => {
                if !self.ghosts.contains(mark) {
                    self.ghosts.push(mark.clone());
                }
            }
            State::Claim(claim) if claim.is_forgotten(latest) => {
                if !self.claim_ghosts.contains(claim) {
                    self.claim_ghosts.push(claim.clone());
                }
            }
            _ => return,
        }
        self.certain = State::Nothing;
    }

    pub(crate) fn apply(&mut self, start: &Start, end: &End) {
        let from_mark = matches!(start.state, State::Mark(_));
        match (&start.state, end) {
            (_, End::Same) => return,
            (State::Claim(_), _) => self.claim_ghosts.clear(),
            // A ghost came before the claim, which stays where it is.
            (State::Mark(_), End::Mark(_)) => {
                if let State::Claim(claim) = &self.certain {
                    self.claim_ghosts.push(claim.clone());
                }
            }
            _ => {}
        }
        match end {
            End::Same => {}
            End::Mark(mark) => self.certain = State::Mark(mark.clone()),
            End::Claim(claim) => {
                self.claim_ghosts.clear();
                self.certain = State::Claim(claim.clone());
            }
            End::Gone if from_mark && !start.certain => {}
            End::Gone => self.certain = State::Nothing,
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

    /// A store has taken off what had not changed since `before_ms`.
    pub(crate) fn cleaned(&self, before_ms: i64) -> Self {
        let mut known = self.clone();
        known.claim_ghosts.retain(|ghost| ghost.changed() >= before_ms);
        match &known.certain {
            State::Mark(mark) if mark.last < before_ms => known.certain = State::Nothing,
            State::Claim(claim) if claim.changed() < before_ms => known.certain = State::Nothing,
            _ => {}
        }
        known
    }

    /// A mark of another store was taken over.
    pub(crate) fn imported(&self, first: i64, last: i64, expires: i64, now: i64) -> Vec<Self> {
        if expires <= now {
            return vec![self.clone()];
        }
        let mut all = Vec::new();
        for start in self.starts(now) {
            let mark = match &start.state {
                State::Mark(mark) if now < mark.expires => Mark {
                    first: mark.first.min(first),
                    last: mark.last.max(last),
                    expires: mark.expires.max(expires),
                    ..mark.clone()
                },
                _ => Mark { first, last, expires, ..Mark::default() },
            };
            let mut known = self.clone();
            known.apply(&start, &End::Mark(mark));
            all.push(known);
        }
        all
    }

    /// Whether something that has ended for one store lives on for another whose time is `now`.
    pub(crate) fn is_haunted(&self, now: i64) -> bool {
        self.seen_ghosts(now).next().is_some() || self.live_claim_ghosts(now).next().is_some()
    }

    /// When something of it ends.
    pub(crate) fn borders(&self) -> Vec<i64> {
        match &self.certain {
            State::Nothing => Vec::new(),
            State::Mark(mark) => vec![mark.expires],
            State::Claim(claim) => vec![claim.until, claim.expires],
        }
    }

    pub(crate) fn token(&self) -> Option<Token> {
        match &self.certain {
            State::Nothing => None,
            State::Mark(mark) => mark.token,
            State::Claim(claim) => claim.token,
        }
    }

    pub(crate) fn rename(&mut self, from: Token, to: Token) {
        let marks = self.ghosts.iter_mut().map(|mark| &mut mark.token);
        let claims = self.claim_ghosts.iter_mut().map(|claim| &mut claim.token);
        let certain = match &mut self.certain {
            State::Nothing => None,
            State::Mark(mark) => Some(&mut mark.token),
            State::Claim(claim) => Some(&mut claim.token),
        };
        for token in marks.chain(claims).chain(certain) {
            if *token == Some(from) {
                *token = Some(to);
            }
        }
    }
}
