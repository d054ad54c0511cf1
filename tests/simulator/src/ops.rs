//! The table of operations: what a store can be asked, how often, and what that does to each id.
//!
//! To add a verb: a function that draws what it is given and says what it does to each id (as [`Act`]s) and
//! how it is called, and its line in [`TABLE`].
//!
//! The verbs for tasks are the same [`Act`]s; of a future that is dropped it is not known whether it was done
//! ([`Says::was_left`]).
//!
//! Some ids come in versions, and one with payloads: [`Draw::tag`]. Batches are drawn so that no payload refuses them.
//!
//! One that does what no other verb does needs an [`Act`] too, with its arm in `model::Pending::ways`. Where it
//! decides on an id by itself, it is a verb of `tests/model/state.rs`, which the library's model test shares.
//! Besides: [`Call::removes`] where other stores may answer from memory what it took away, and
//! [`Call::judged_alone`] where its answer is of no one moment. A new answer of a store is a [`Told`]. What may
//! be said from memory of an id that another store has removed stands at the end of `ways`. What is said of
//! more than one id at once, such as a count, is judged where the verb is called: it is one of [`Says::problems`],
//! or an assertion.

mod claims;
mod marks;
mod reading;
mod tasks;
mod upkeep;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use seen_store::{Config, ErrorKind, Item, Result, SeenStore, Token};

pub use self::reading::{entries_of, get_of, read, read_all_of, stats, verify};
pub use self::upkeep::compact;
use crate::model::{Act, Name, Told};
use crate::setup::{Setup, choose};
use crate::state::{Answer, Life, Span, Tag, Windowing};
use crate::through::{DEFAULT_TTL_MS, Through};

pub const SCOPES: [&str; 2] = ["", "discord"];
/// How many ids a scope has that come up again and again.
const IDS: usize = 6;
/// The one that has payloads.
const OF_PAYLOADS: usize = 2;
/// From this one on they are only marked and imported.
const FIRST_IMPORTED: usize = 4;
/// Numbers of ids that come up once.
const FRESH: usize = 1_000;

pub fn id_of(name: Name) -> String {
    format!("incident-{}", name.1)
}

/// What an operation does to the ids that it names.
pub enum Effect {
    /// To each of these ids, at one moment an id.
    On(Vec<(Name, Vec<Act>)>),
    /// To one id: each act takes effect at a moment of its own.
    InSteps(Name, Vec<Act>),
    /// To every id of the scope, or of all scopes.
    OnAll { scope: Option<usize>, act: Act },
}

/// What the store said.
#[derive(Debug, Default)]
pub struct Says {
    /// Of each id that the effect names, in its order.
    pub told: Vec<Vec<Told>>,
    /// What it found wrong with the file.
    pub problems: Vec<String>,
    /// Whether its caller left before it was told anything.
    pub was_left: bool,
}

pub type Run = Box<dyn FnOnce(&SeenStore, &Config) -> Result<Says> + Send>;

/// An operation, drawn.
pub struct Call {
    pub name: &'static str,
    pub effect: Effect,
    pub life: Life,
    /// Whether it takes away what other stores may know.
    pub removes: bool,
    /// Whether what it finds wrong counts only if nothing else was under way.
    pub judged_alone: bool,
    /// Whether a Reader answers, which knows the time from its clock and the file alone.
    pub by_reader: bool,
    pub run: Run,
}

/// What an operation is drawn from.
pub struct Draw<'d> {
    pub rng: Rng,
    pub number: u64,
    pub setup: &'d Setup,
    pub now_ms: i64,
    /// The tokens that an id's claim may have.
    pub tokens: &'d dyn Fn(Name) -> Vec<Token>,
    /// The file, and a place for copies of it.
    pub path: PathBuf,
}

impl Draw<'_> {
    fn scope(&mut self) -> usize {
        // Mostly one, so that operations meet.
        usize::from(self.rng.u32(..5) == 0)
    }

    fn name_below(&mut self, ids: usize) -> Name {
        let scope = self.scope();
        (scope, self.rng.usize(..ids))
    }

    fn name(&mut self) -> Name {
        self.name_below(IDS)
    }

    fn claimed(&mut self) -> Name {
        self.name_below(FIRST_IMPORTED)
    }

    fn fresh(&mut self, scope: usize, count: usize) -> Vec<Name> {
        let first = FRESH + usize::try_from(self.number).unwrap() * 100;
        (0..count).map(|n| (scope, first + n)).collect()
    }

    /// Ids of one scope: some that are known, also twice, and some that come up once.
    fn batch(&mut self, ids: usize) -> Vec<Name> {
        let scope = self.scope();
        let known = self.rng.usize(..5);
        let mut names: Vec<_> = (0..known).map(|_| (scope, self.rng.usize(..ids))).collect();
        let fresh = *choose(&mut self.rng, &[0, 0, 1, 20]);
        names.extend(self.fresh(scope, fresh));
        self.rng.shuffle(&mut names);
        names
    }

    fn through(&mut self) -> Through {
        let short = Span::Ms(*choose(&mut self.rng, &[0, 1, 1_000, 60_000]));
        let ttl = match self.rng.u32(..8) {
            0 => Some(short),
            1 => Some(Span::Never),
            _ => None,
        };
        let window = (self.rng.u32(..10) == 0).then_some(Windowing::Fixed);
        let retention = Span::Ms(*choose(&mut self.rng, &[DEFAULT_TTL_MS, 660_000, 4_200_000]));
        let retention = (self.rng.u32(..4) == 0).then_some(retention);
        Through { ttl, window, hold: self.rng.u32(..3) == 0, retention }
    }

    /// What an id is shown with. Only one has payloads, and imported ones have nothing.
    fn tag(&mut self, name: Name) -> Option<Tag> {
        const VERSIONS: [Option<Tag>; 5] =
            [None, None, Some(Tag::Version(0)), Some(Tag::Version(1)), Some(Tag::Version(2))];
        const PAYLOADS: [Option<Tag>; 5] = [
            None,
            Some(Tag::Payload(0)),
            Some(Tag::Payload(0)),
            Some(Tag::Payload(1)),
            Some(Tag::Version(0)),
        ];
        match name.1 {
            OF_PAYLOADS => *choose(&mut self.rng, &PAYLOADS),
            FIRST_IMPORTED..IDS => None,
            _ => *choose(&mut self.rng, &VERSIONS),
        }
    }

    /// The same of a batch: it is not to be refused as a whole.
    fn tagged(&mut self, names: Vec<Name>) -> Vec<(Name, Option<Tag>)> {
        let tag = |name: Name| (name, self.tag(name).filter(|_| name.1 != OF_PAYLOADS));
        names.into_iter().map(tag).collect()
    }

    fn lease(&mut self) -> Span {
        Span::Ms(*choose(&mut self.rng, &[1, 1_000, 10_000, 30_000, 60_000, 600_000]))
    }

    fn token(&mut self, name: Name) -> Token {
        let tokens = (self.tokens)(name);
        if tokens.is_empty() || self.rng.u32(..8) == 0 {
            return "0123456789abcdef0123456789abcdef".parse().unwrap();
        }
        *choose(&mut self.rng, &tokens)
    }

    fn receipt(&mut self) -> Option<Vec<u8>> {
        let receipts = [None, Some(b"".to_vec()), Some(b"4711".to_vec())];
        choose(&mut self.rng, &receipts).clone()
    }

    fn call(&self, name: &'static str, through: Through, effect: Effect, run: Run) -> Call {
        Call {
            name,
            effect,
            life: through.life(self.setup.window),
            removes: false,
            judged_alone: false,
            by_reader: false,
            run,
        }
    }

    /// One act on one id.
    fn on_one(
        &self,
        called: &'static str,
        through: Through,
        (name, tag): (Name, Option<Tag>),
        act: Act,
        run: impl FnOnce(&SeenStore, Item<'_>) -> Result<Told> + Send + 'static,
    ) -> Call {
        let run = move |store: &SeenStore, _: &Config| {
            let id = id_of(name);
            let handle = through.handle(store, SCOPES[name.0]);
            let told = match run(&handle, Tag::item(tag, id.as_bytes())) {
                Err(e) if e.kind() == ErrorKind::Conflict => Told::Answer(Answer::Conflict),
                told => told?,
            };
            Ok(Says { told: vec![vec![told]], ..Says::default() })
        };
        self.call(called, through, Effect::On(vec![(name, vec![act])]), Box::new(run))
    }

    /// The same act on each id of a batch, in order; `run` returns what was said of each.
    fn on_batch(
        &self,
        called: &'static str,
        through: Through,
        names: Vec<(Name, Option<Tag>)>,
        acts: Vec<Act>,
        run: impl FnOnce(&SeenStore, &[Item<'_>]) -> Result<Vec<Told>> + Send + 'static,
    ) -> Call {
        let mut by_name: Vec<(Name, Vec<Act>)> = Vec::new();
        let mut places = Vec::new();
        for ((name, _), act) in names.iter().zip(acts) {
            let place = by_name.iter().position(|(known, _)| known == name);
            let place = place.unwrap_or_else(|| {
                by_name.push((*name, Vec::new()));
                by_name.len() - 1
            });
            by_name[place].1.push(act);
            places.push(place);
        }
        let count = by_name.len();
        let run = move |store: &SeenStore, _: &Config| {
            let scope = names.first().map_or(0, |(name, _)| name.0);
            let ids: Vec<_> = names.iter().map(|(name, _)| id_of(*name)).collect();
            let tags = names.iter().map(|(_, tag)| *tag);
            let items = ids.iter().zip(tags).map(|(id, tag)| Tag::item(tag, id.as_bytes()));
            let items: Vec<_> = items.collect();
            let told = run(&through.handle(store, SCOPES[scope]), &items)?;
            let mut says = Says { told: vec![Vec::new(); count], ..Says::default() };
            for (place, told) in places.into_iter().zip(told) {
                says.told[place].push(told);
            }
            Ok(says)
        };
        self.call(called, through, Effect::On(by_name), Box::new(run))
    }

    /// What tells nothing of a single id.
    fn on_none(
        &self,
        called: &'static str,
        run: impl FnOnce(&SeenStore, &Config) -> Result<Vec<String>> + Send + 'static,
    ) -> Call {
        let run = move |store: &SeenStore, config: &Config| {
            run(store, config).map(|problems| Says { problems, ..Says::default() })
        };
        self.call(called, Through::PLAIN, Effect::On(Vec::new()), Box::new(run))
    }

    fn on_all(
        &self,
        called: &'static str,
        scope: Option<usize>,
        act: Act,
        run: impl FnOnce(&SeenStore) -> Result<()> + Send + 'static,
    ) -> Call {
        let run = move |store: &SeenStore, _: &Config| run(store).map(|()| Says::default());
        self.call(called, Through::PLAIN, Effect::OnAll { scope, act }, Box::new(run))
    }
}

type Make = fn(&mut Draw<'_>) -> Call;

/// How often each comes up, and how it is drawn.
pub const TABLE: &[(u32, Make)] = &[
    (8, marks::mark_seen),
    (3, marks::mark_seen_at),
    (10, marks::check_and_mark),
    (4, marks::check_again),
    (4, marks::observe),
    (6, marks::check_and_mark_all),
    (2, marks::seed),
    (5, marks::forget),
    (1, marks::forget_scope),
    (2, marks::restore),
    (8, claims::claim),
    (4, claims::claim_all),
    (4, claims::lease),
    (3, claims::once),
    (8, claims::confirm),
    (2, claims::confirm_all),
    (4, claims::release),
    (2, claims::release_all),
    (5, claims::fail),
    (3, claims::renew),
    (4, claims::resolve),
    (2, claims::renew_all),
    (6, reading::try_is_seen),
    (2, reading::is_seen),
    (8, reading::get),
    (2, reading::entries),
    (1, reading::stats),
    (1, reading::verify),
    (3, reading::read),
    (1, reading::read_all),
    (4, upkeep::purge_expired),
    (3, upkeep::cleanup_old_entries),
    (4, upkeep::remove),
    (1, upkeep::checkpoint),
    (1, upkeep::compact),
    (1, upkeep::pragmas),
    (4, tasks::mark_seen),
    (8, tasks::check_and_mark),
    (6, tasks::claim),
    (4, tasks::lease),
    (4, tasks::confirm),
    (2, tasks::fail),
    (3, tasks::forget),
    (4, tasks::try_is_seen),
    (3, tasks::get),
];

pub fn draw_from(draw: &mut Draw<'_>) -> Call {
    let total: u32 = TABLE.iter().map(|(often, _)| often).sum();
    let mut left = draw.rng.u32(..total);
    for (often, make) in TABLE {
        if left < *often {
            return make(draw);
        }
        left -= often;
    }
    unreachable!("the shares add up")
}

fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.try_into().unwrap_or(0))
}

fn ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}
