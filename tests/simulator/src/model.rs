//! What every id may be, after all that was asked and answered: the model of the contract.
//!
//! Owns, for each id, the set of worlds that explain every answer so far. An operation may take effect at
//! any moment between its call and its return (Herlihy and Wing, "Linearizability"); an answer rules out the
//! worlds in which no such moment gives it (as in Lowe, "Testing for linearizability"). What always holds: an
//! operation whose process was killed has taken effect before that or never will; one that failed has not,
//! unless it may have done a part or cannot know. Where no world is left, a promise was broken. Knows nothing of
//! stores; what a verb does to one id is in `state`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::str::FromStr;

use seen_store::{State as Label, Token};

use crate::known::Known;
use crate::state::{
    Answer, Before, Life, Setting, Span, State, Tag, Verb, View, is_one_of, outcomes,
};

/// An id in its scope.
pub type Name = (usize, usize);

/// The number of an operation.
pub type Number = u64;

/// More worlds than this are not followed: the id is then taken as it is found.
const MOST_WORLDS: usize = 20_000;

/// What an operation does to one id. The time is the store's at the moment at which it takes effect.
#[derive(Clone, Debug)]
pub enum Act {
    Mark {
        tag: Option<Tag>,
    },
    MarkAt {
        at: i64,
        tag: Option<Tag>,
    },
    Check {
        tag: Option<Tag>,
        /// The token of the check that it repeats.
        retry_of: Option<Token>,
    },
    /// The same, with what was known before.
    Observe {
        tag: Option<Tag>,
    },
    Seed {
        tag: Option<Tag>,
    },
    Claim {
        tag: Option<Tag>,
        lease: Span,
        hold: bool,
    },
    Confirm {
        token: Token,
        receipt: Option<Vec<u8>>,
    },
    Release {
        token: Token,
    },
    Fail {
        token: Token,
        reason: String,
        is_final: bool,
    },
    Resolve {
        done: bool,
    },
    Renew {
        token: Token,
        lease: Span,
    },
    Forget,
    IsSeen {
        tag: Option<Tag>,
    },
    Get,
    List,
    /// The same of all ids of a scope.
    ForgetAll,
    /// Takes off what has expired.
    Purge,
    /// Takes off what has not changed for so long.
    Cleanup {
        older_ms: i64,
    },
    /// Takes off the entries of one label, or all but those at work.
    Remove {
        label: Option<Label>,
    },
    /// The id is again one of what it was.
    Restore(HashSet<Known>),
    /// A mark of another store is taken over.
    Import {
        first: i64,
        last: i64,
        expires: i64,
    },
}

/// What a store said of one id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// Nothing that tells of this id.
    Nothing,
    Answer(Answer),
    /// The token is not the model's to choose.
    Granted {
        attempt: u32,
        until: i64,
        previous: Before,
        token: Token,
    },
    IsSeen(bool),
    View(Option<View>),
    /// The same of a Reader, which may show what has expired until it is purged.
    Read(Option<View>),
    /// What a listing shows of the id.
    Listed(Vec<View>),
    /// What a listing shows of it among other things.
    Among(View),
    Observed(Answer, Option<View>),
    /// It was refused because of its payload.
    Conflicted,
}

impl Told {
    fn of(answer: Answer, number: Number) -> Self {
        match answer {
            Answer::Granted { attempt, until, previous } => {
                Self::Granted { attempt, until, previous, token: placeholder(number) }
            }
            answer => Self::Answer(answer),
        }
    }

    /// Whether a store may say this where the model says `self`.
    fn agrees(&self, told: &Told) -> bool {
        match (self, told) {
            (Self::Nothing, _) | (_, Self::Nothing) => true,
            (
                Self::Granted { attempt, until, previous, .. },
                Self::Granted { attempt: its_attempt, until: its_until, previous: its, .. },
            ) => (attempt, until, previous) == (its_attempt, its_until, its),
            (Self::View(right), Self::View(found)) => {
                is_one_of(std::slice::from_ref(right), found.as_ref())
            }
            (Self::View(right), Self::Read(found)) => {
                let lasting =
                    |view: &Option<View>| view.clone().filter(|view| view.label != Label::Expired);
                is_one_of(&[lasting(right)], lasting(found).as_ref())
            }
            (Self::Listed(right), Self::Listed(found)) => {
                let mut pairs = right.iter().zip(found);
                right.len() == found.len() && pairs.all(|(right, found)| right.is_shown_as(found))
            }
            (Self::Listed(right), Self::Among(found)) => {
                right.iter().any(|right| right.is_shown_as(found))
            }
            (Self::Observed(verdict, _), Self::Conflicted) => *verdict == Answer::Conflict,
            (Self::Observed(verdict, before), Self::Observed(told, found)) => {
                verdict == told && is_one_of(std::slice::from_ref(before), found.as_ref())
            }
            (right, told) => right == told,
        }
    }
}

/// What became of an operation on one id.
#[derive(Clone, Debug)]
pub enum Ended {
    Told(Vec<Told>),
    /// It failed, and says that it has done nothing.
    Refused,
    /// Its process was killed, or it failed and may have done a part.
    Unknown,
}

/// Who asks, and what that store may know.
#[derive(Clone, Debug)]
pub struct Asked {
    pub store: usize,
    pub life: Life,
    pub retry_delay: Span,
    pub max_attempts: Option<u32>,
    pub max_abandoned: Option<u32>,
    /// The times that it may have read.
    pub nows: BTreeSet<i64>,
    /// Whether it may answer from memory that the id is seen.
    pub is_late: bool,
}

#[derive(Clone, Debug)]
struct Pending {
    asked: Asked,
    acts: Vec<Act>,
    takes_effect: Times,
}

/// How often an operation takes effect on an id.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Times {
    /// All its acts at one moment.
    Once,
    /// A removal goes through marks and claims, one after the other.
    OnceOrTwice,
    /// Each of its acts at a moment of its own.
    OnceAnAct,
}

/// One explanation of all answers so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    known: Known,
    /// Operations that took effect and have not returned, with what they will say.
    done: BTreeMap<Number, Vec<Told>>,
}

struct Id {
    worlds: HashSet<World>,
    pending: BTreeMap<Number, Pending>,
}

impl Default for Id {
    fn default() -> Self {
        let nothing = World { known: Known::default(), done: BTreeMap::new() };
        Self { worlds: [nothing].into(), pending: BTreeMap::new() }
    }
}

#[derive(Default)]
pub struct Model {
    ids: BTreeMap<Name, Id>,
    /// Operations on every id, with the scope if it is of one, that have not returned.
    on_all: BTreeMap<Number, (Option<usize>, Pending)>,
    /// The latest time of any store: what has ended by then may have been purged.
    pub latest: i64,
    /// How many answers were held against the model.
    pub judged: u64,
    /// How often an id had too many worlds.
    pub lost_track: u64,
    pub most_worlds: usize,
}

/// How the tokens begin that stand for those of claims that have not returned.
const NOBODY_S: &str = "0000000000000000";

/// The token of a claim that has not returned.
pub fn placeholder(number: Number) -> Token {
    Token::from_str(&format!("{:032x}", u128::from(number) + 1)).expect("32 digits")
}

impl Model {
    pub fn new(latest: i64) -> Self {
        Self { latest, ..Self::default() }
    }

    pub fn names(&self) -> Vec<Name> {
        self.ids.keys().copied().collect()
    }

    /// An operation on an id was asked for.
    pub fn called(&mut self, number: Number, asked: &Asked, name: Name, acts: &[Act]) {
        let pending =
            Pending { asked: asked.clone(), acts: acts.to_vec(), takes_effect: Times::Once };
        self.id(name).pending.insert(number, pending);
    }

    /// One was asked for that does something to an id, and then something else.
    pub fn called_in_steps(&mut self, number: Number, asked: &Asked, name: Name, acts: &[Act]) {
        self.called(number, asked, name, acts);
        let pending = self.id(name).pending.get_mut(&number).expect("just called");
        pending.takes_effect = Times::OnceAnAct;
    }

    /// One on every id was asked for, of one scope or of all.
    pub fn called_on_all(
        &mut self,
        number: Number,
        asked: &Asked,
        scope: Option<usize>,
        act: impl Fn(Name) -> Act,
    ) {
        for (name, id) in &mut self.ids {
            if scope.is_none_or(|scope| scope == name.0) {
                let pending = Pending {
                    asked: asked.clone(),
                    acts: vec![act(*name)],
                    takes_effect: Times::OnceOrTwice,
                };
                id.pending.insert(number, pending);
            }
        }
        // Of an id that comes up only now.
        let pending = Pending {
            asked: asked.clone(),
            acts: vec![act((0, usize::MAX))],
            takes_effect: Times::OnceOrTwice,
        };
        self.on_all.insert(number, (scope, pending));
    }

    fn id(&mut self, name: Name) -> &mut Id {
        self.ids.entry(name).or_insert_with(|| {
            let on_all = self.on_all.iter();
            let meets = on_all.filter(|(_, (scope, _))| scope.is_none_or(|scope| scope == name.0));
            let pending = meets.map(|(number, (_, pending))| (*number, pending.clone())).collect();
            Id { pending, ..Id::default() }
        })
    }

    /// The ids on which an operation has not ended.
    pub fn names_of(&self, number: Number) -> Vec<Name> {
        let ids = self.ids.iter().filter(|(_, id)| id.pending.contains_key(&number));
        ids.map(|(name, _)| *name).collect()
    }

    /// An operation on every id has ended.
    pub fn ended_on_all(&mut self, number: Number, ended: &Ended) -> Result<(), String> {
        self.on_all.remove(&number);
        self.names_of(number).into_iter().try_for_each(|name| self.ended(number, name, ended))
    }

    /// What operations of a store that have not returned may have read, and answer, besides.
    pub fn meanwhile(&mut self, store: usize, nows: &BTreeSet<i64>) {
        for id in self.ids.values_mut() {
            for pending in id.pending.values_mut().filter(|pending| pending.asked.store == store) {
                pending.asked.nows.extend(nows);
            }
        }
    }

    /// A removal by another store may have taken effect: until it has looked, this one may say "seen".
    pub fn be_late(&mut self, name: Name, not_store: usize) {
        let Some(id) = self.ids.get_mut(&name) else { return };
        for pending in id.pending.values_mut().filter(|pending| pending.asked.store != not_store) {
            pending.asked.is_late = true;
        }
    }

    /// An operation has ended. `Err` says why no world explains that.
    pub fn ended(&mut self, number: Number, name: Name, ended: &Ended) -> Result<(), String> {
        let latest = self.latest;
        let id = self.ids.get_mut(&name).expect("it was called");
        let before = id.worlds.clone();
        let mut kept = HashSet::new();
        if matches!(ended, Ended::Refused) {
            kept.extend(id.worlds.drain().filter(|world| !world.done.contains_key(&number)));
        }
        let mut frontier: Vec<World> = id.worlds.iter().cloned().collect();
        let mut visited: HashSet<World> = id.worlds.clone();
        let optional = matches!(ended, Ended::Unknown);
        while let Some(world) = frontier.pop() {
            let pending = &id.pending[&number];
            let said = world.done.get(&number);
            let has_ended = said.is_some_and(|said| said.len() >= pending.acts.len());
            // One that was told has taken effect with all its acts.
            if let Some(said) = said.filter(|_| optional || has_ended) {
                let agrees = match ended {
                    Ended::Refused | Ended::Unknown => true,
                    Ended::Told(told) => {
                        said.iter().zip(told).all(|(said, told)| said.agrees(told))
                    }
                };
                if agrees {
                    kept.insert(world.returned(number, ended));
                }
            } else if optional {
                kept.insert(world.clone());
            }
            for (other, pending) in &id.pending {
                let done = world.done.get(other).map_or(0, Vec::len);
                // Nothing else is to take effect only because this one has.
                let is_asked = !has_ended || *other == number;
                let acts = pending.acts_after(done);
                if !is_asked || acts.is_empty() {
                    continue;
                }
                for next in pending.successors(*other, acts, &world, latest) {
                    if visited.insert(next.clone()) {
                        frontier.push(next);
                    }
                }
            }
            if visited.len() > MOST_WORLDS {
                self.lost_track += 1;
                break;
            }
        }
        self.judged += 1;
        self.most_worlds = self.most_worlds.max(visited.len());
        let pending = id.pending.remove(&number).expect("it was called");
        if visited.len() > MOST_WORLDS {
            // Too many to tell right from wrong.
            for world in &before {
                kept.insert(world.returned(number, ended));
            }
        }
        if kept.is_empty() {
            return Err(format!(
                "operation {number} of store {} on id {name:?}: {:?}\n  said {ended:?}, at one of {:?}, latest {latest}\n  \
                 not returned: {:?}\n  worlds before: {before:?}",
                pending.asked.store, pending.acts, pending.asked.nows, id.pending,
            ));
        }
        id.worlds = kept;
        Ok(())
    }

    /// The stores have lost everything, while nothing was under way.
    pub fn forget_all(&mut self) {
        self.ids.values_mut().for_each(|id| *id = Id::default());
    }

    /// What an id may be, when nothing is under way on it.
    pub fn known(&self, name: Name) -> HashSet<Known> {
        let id = self.ids.get(&name);
        id.map_or_else(
            || [Known::default()].into(),
            |id| id.worlds.iter().map(|world| world.known.clone()).collect(),
        )
    }

    /// A large step back of the clocks, or a later time: what has ended may have been purged.
    pub fn bury(&mut self) {
        let latest = self.latest;
        for id in self.ids.values_mut() {
            id.worlds = std::mem::take(&mut id.worlds)
                .into_iter()
                .map(|mut world| {
                    world.known.bury(latest);
                    world
                })
                .collect();
        }
    }

    /// Whether an id may be something else for a store whose time is `now` than for the others.
    pub fn is_haunted(&self, now: i64) -> bool {
        let mut worlds = self.ids.values().flat_map(|id| &id.worlds);
        worlds.any(|world| world.known.is_haunted(now))
    }

    /// The tokens that this id's claims and marks may have.
    pub fn tokens(&self, name: Name) -> Vec<Token> {
        let known = self.known(name);
        let tokens = known.iter().flat_map(Known::tokens);
        let sorted: BTreeMap<_, _> = tokens.map(|token| (token.to_string(), token)).collect();
        // The token of a claim that has not returned cannot be given.
        let sorted = sorted.into_iter().filter(|(text, _)| !text.starts_with(NOBODY_S));
        sorted.map(|(_, token)| token).collect()
    }
}

impl World {
    /// The operation has returned, and what it granted has its own token now.
    fn returned(&self, number: Number, ended: &Ended) -> Self {
        let mut world = self.clone();
        world.done.remove(&number);
        if let Ended::Told(told) = ended {
            for told in told {
                if let Told::Granted { token, .. } = told {
                    world.known.rename(placeholder(number), *token);
                }
            }
        }
        world
    }
}

impl Pending {
    /// What it does when it takes effect next, once it has said so much.
    fn acts_after(&self, said: usize) -> &[Act] {
        match self.takes_effect {
            Times::Once if said == 0 => &self.acts,
            Times::OnceOrTwice if said < 2 * self.acts.len() => &self.acts,
            Times::OnceAnAct if said < self.acts.len() => &self.acts[said..=said],
            _ => &[],
        }
    }

    /// The worlds in which the operation takes effect next.
    fn successors(&self, number: Number, acts: &[Act], world: &World, latest: i64) -> Vec<World> {
        let mut all = Vec::new();
        for now in &self.asked.nows {
            let mut ways = vec![(world.known.clone(), Vec::new())];
            for (place, act) in acts.iter().enumerate() {
                // What expires at once may still be known to the rest of its batch.
                if place > 0 {
                    let mut buried = ways.clone();
                    buried.iter_mut().for_each(|(known, _)| known.bury(latest));
                    ways.extend(buried);
                }
                ways = ways
                    .into_iter()
                    .flat_map(|(known, said)| {
                        self.ways(number, act, &known, *now).into_iter().map(
                            move |(known, told)| {
                                let mut said: Vec<Told> = said.clone();
                                said.push(told);
                                (known, said)
                            },
                        )
                    })
                    .collect();
            }
            all.extend(ways.into_iter().map(|(mut known, said)| {
                known.bury(latest);
                known.forget_when_sighted();
                let mut done = world.done.clone();
                done.entry(number).or_default().extend(said);
                World { known, done }
            }));
        }
        all
    }

    fn ways(&self, number: Number, act: &Act, known: &Known, now: i64) -> Vec<(Known, Told)> {
        let verb = match act {
            Act::Mark { tag } => Verb::Mark { at: now, tag: *tag },
            Act::MarkAt { at, tag } => Verb::Mark { at: *at, tag: *tag },
            Act::Check { tag, retry_of } => Verb::Check { tag: *tag, retry_of: *retry_of },
            Act::Observe { tag } => Verb::Check { tag: *tag, retry_of: None },
            Act::Seed { tag } => Verb::Seed { tag: *tag },
            Act::Claim { tag, lease, hold } => Verb::Claim {
                tag: *tag,
                lease: *lease,
                hold: *hold,
                granted: Some(placeholder(number)),
            },
            Act::Confirm { token, receipt } => {
                Verb::Confirm { token: *token, receipt: receipt.clone() }
            }
            Act::Release { token } => Verb::Release { token: *token },
            Act::Fail { token, reason, is_final } => {
                Verb::Fail { token: *token, reason: reason.clone(), is_final: *is_final }
            }
            Act::Resolve { done } => Verb::Resolve { done: *done },
            Act::Renew { token, lease } => Verb::Renew { token: *token, lease: *lease },
            Act::Forget | Act::ForgetAll => Verb::Forget,
            Act::IsSeen { tag } => return self.looks(known, *tag, now),
            Act::Get => {
                let views = known.views(now).into_iter();
                return views.map(|view| (known.clone(), Told::View(view))).collect();
            }
            Act::List => {
                let listed = known.listed(now).into_iter();
                return listed.map(|views| (known.clone(), Told::Listed(views))).collect();
            }
            Act::Purge => return vec![(known.purged(now), Told::Nothing)],
            Act::Cleanup { older_ms } => {
                let cleaned = known.cleaned(now - older_ms).into_iter();
                return cleaned.map(|known| (known, Told::Nothing)).collect();
            }
            Act::Remove { label } => return vec![(known.removed(*label, now), Told::Nothing)],
            Act::Restore(then) => {
                return then.iter().map(|known| (known.clone(), Told::Nothing)).collect();
            }
            Act::Import { first, last, expires } => {
                return known
                    .imported(*first, *last, *expires, now)
                    .into_iter()
                    .map(|known| (known, Told::Nothing))
                    .collect();
            }
        };
        let setting = Setting {
            now,
            life: self.asked.life,
            retry_delay: self.asked.retry_delay,
            max_attempts: self.asked.max_attempts,
            max_abandoned: self.asked.max_abandoned,
        };
        let mut ways = Vec::new();
        for start in known.starts(now) {
            for (answer, state) in outcomes(&verb, &start.state, start.hollow, setting) {
                let mut after = known.clone();
                after.apply(&start, &state);
                // A seed counts its new ones, and does not say which they were.
                let says_nothing = matches!(act, Act::Seed { .. } | Act::ForgetAll);
                if says_nothing && answer == Answer::Conflict {
                    continue;
                }
                let told = match act {
                    // A row that is gone is known by nothing but its number.
                    Act::Observe { .. } if start.hollow => Told::Observed(answer, None),
                    Act::Observe { .. } => Told::Observed(answer, start.state.view(now)),
                    _ if says_nothing => Told::Nothing,
                    _ => Told::of(answer, number),
                };
                ways.push((after, told));
            }
        }
        // The removal of a scope takes the claims, and then the marks.
        if matches!(act, Act::ForgetAll) {
            for start in known.starts(now) {
                let mut after = known.clone();
                after.apply(&start, &State { claim: None, ..start.state.clone() });
                ways.push((after, Told::Nothing));
            }
        }
        // From memory, without a look.
        let from_memory = match verb {
            Verb::Check { retry_of: None, .. } if self.asked.is_late => Some(Answer::Duplicate),
            Verb::Claim { .. } if self.asked.is_late => Some(Answer::Seen),
            _ => None,
        };
        if let Some(answer) = from_memory
            && !matches!(act, Act::Observe { .. })
        {
            ways.push((known.clone(), Told::of(answer, number)));
        }
        if self.asked.is_late && matches!(verb, Verb::Seed { .. }) {
            ways.push((known.clone(), Told::Nothing));
        }
        ways
    }

    fn looks(&self, known: &Known, tag: Option<Tag>, now: i64) -> Vec<(Known, Told)> {
        let mut answers: BTreeSet<bool> = known.is_seen(tag, now).into_iter().collect();
        if self.asked.is_late {
            answers.insert(true);
        }
        answers.into_iter().map(|seen| (known.clone(), Told::IsSeen(seen))).collect()
    }
}
