//! The table of operations: what a store can be asked, how often, and what that does to each id.
//!
//! Owns the verbs as the simulator calls them. To add one: a function that draws what it is given and says
//! what it does to each id (as [`Act`]s) and how it is called, and its line in [`TABLE`].

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use seen_store::{
    Claim, Config, Entry, ErrorKind, Filter, Ownership, Reader, Result, SeenStore, Synchronous,
    Token, Verdict, Window,
};

use crate::model::{Act, Name, Told};
use crate::state::{Answer, Life, NEVER, Span, View, Windowing};

pub const SCOPES: [&str; 2] = ["", "discord"];
/// How many ids a scope has that come up again and again.
const IDS: usize = 6;
/// From this one on they are only marked and imported.
const FIRST_IMPORTED: usize = 4;
/// Numbers of ids that come up once.
const FRESH: usize = 1_000;

pub const DEFAULT_TTL_MS: u64 = 10 * 60_000;

pub fn id_of(name: Name) -> String {
    format!("incident-{}", name.1)
}

/// The settings of all stores of a run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub stores: usize,
    /// How many threads call each store.
    pub callers: usize,
    pub window: Windowing,
    pub retry_delay_ms: u64,
    pub max_attempts: Option<u32>,
    pub wal_autocheckpoint: u32,
    pub purge_interval: Option<Duration>,
    pub purge_thread: bool,
    pub purge_on_open: bool,
    pub synchronous: Synchronous,
}

impl Setup {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5345_5455);
        Self {
            stores: rng.usize(1..4),
            callers: rng.usize(1..4),
            window: *choose(
                &mut rng,
                &[
                    Windowing::Fixed,
                    Windowing::Fixed,
                    Windowing::Sliding { max_age_ms: None },
                    Windowing::Sliding { max_age_ms: Some(20_000) },
                    Windowing::Sliding { max_age_ms: Some(900_000) },
                ],
            ),
            retry_delay_ms: *choose(&mut rng, &[0, 0, 1, 30_000]),
            max_attempts: *choose(&mut rng, &[None, None, Some(1), Some(3)]),
            // Below 1,000 commits keep the log short themselves, from there on a thread does.
            wal_autocheckpoint: *choose(&mut rng, &[10, 60, 1_000, 1_000]),
            purge_interval: *choose(
                &mut rng,
                &[None, Some(Duration::from_secs(1)), Some(Duration::from_secs(300))],
            ),
            purge_thread: rng.bool(),
            purge_on_open: rng.bool(),
            synchronous: *choose(&mut rng, &[Synchronous::Normal, Synchronous::Full]),
        }
    }

    pub fn config(&self) -> Config {
        Config::default()
            .ttl(Duration::from_millis(DEFAULT_TTL_MS))
            .window(window_of(self.window))
            .retry_delay(Duration::from_millis(self.retry_delay_ms))
            .max_attempts(self.max_attempts)
            .wal_autocheckpoint(self.wal_autocheckpoint)
            .purge_interval(self.purge_interval)
            .purge_thread(self.purge_thread && self.purge_interval.is_some())
            .purge_on_open(self.purge_on_open)
            .synchronous(self.synchronous)
    }
}

fn window_of(window: Windowing) -> Window {
    match window {
        Windowing::Fixed => Window::Fixed,
        Windowing::Sliding { max_age_ms } => {
            Window::Sliding { max_age: max_age_ms.map(Duration::from_millis) }
        }
    }
}

pub fn choose<'v, T>(rng: &mut Rng, values: &'v [T]) -> &'v T {
    &values[rng.usize(..values.len())]
}

/// What an operation does to the ids that it names.
pub enum Effect {
    On(Vec<(Name, Vec<Act>)>),
    /// To every id of the scope, or of all scopes.
    OnAll {
        scope: Option<usize>,
        act: Act,
    },
}

/// What the store said.
#[derive(Debug, Default)]
pub struct Says {
    /// Of each id of [`Effect::On`], in its order.
    pub told: Vec<Vec<Told>>,
    /// What it found wrong with the file.
    pub problems: Vec<String>,
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
    pub path: std::path::PathBuf,
}

/// How a call reaches the store: the scope, and how long what it makes lasts.
#[derive(Clone, Copy)]
struct Through {
    ttl: Option<Span>,
    window: Option<Windowing>,
}

impl Through {
    fn handle(self, store: &SeenStore, scope: usize) -> SeenStore {
        let mut handle = store.scope(SCOPES[scope]);
        if let Some(ttl) = self.ttl {
            handle = handle.ttl(ttl.ttl());
        }
        if let Some(window) = self.window {
            handle = handle.window(window_of(window));
        }
        handle
    }

    fn life(self, setup: &Setup) -> Life {
        Life {
            ttl: self.ttl.unwrap_or(Span::Ms(DEFAULT_TTL_MS)),
            window: self.window.unwrap_or(setup.window),
        }
    }
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
        Through { ttl, window }
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
            life: through.life(self.setup),
            removes: false,
            judged_alone: false,
            run,
        }
    }

    /// One act on one id.
    fn on_one(
        &self,
        called: &'static str,
        through: Through,
        name: Name,
        act: Act,
        run: impl FnOnce(&SeenStore, &str) -> Result<Told> + Send + 'static,
    ) -> Call {
        let run = move |store: &SeenStore, _: &Config| {
            run(&through.handle(store, name.0), &id_of(name))
                .map(|told| Says { told: vec![vec![told]], ..Says::default() })
        };
        self.call(called, through, Effect::On(vec![(name, vec![act])]), Box::new(run))
    }

    /// The same act on each id of a batch, in order; `run` returns what was said of each.
    fn on_batch(
        &self,
        called: &'static str,
        through: Through,
        names: Vec<Name>,
        acts: Vec<Act>,
        run: impl FnOnce(&SeenStore, &[String]) -> Result<Vec<Told>> + Send + 'static,
    ) -> Call {
        let mut by_name: Vec<(Name, Vec<Act>)> = Vec::new();
        let mut places = Vec::new();
        for (name, act) in names.iter().zip(acts) {
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
            let scope = names.first().map_or(0, |name| name.0);
            let ids: Vec<_> = names.iter().map(|name| id_of(*name)).collect();
            let told = run(&through.handle(store, scope), &ids)?;
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
        self.call(called, PLAIN, Effect::On(Vec::new()), Box::new(run))
    }

    fn on_all(
        &self,
        called: &'static str,
        scope: Option<usize>,
        act: Act,
        run: impl FnOnce(&SeenStore) -> Result<()> + Send + 'static,
    ) -> Call {
        let run = move |store: &SeenStore, _: &Config| run(store).map(|()| Says::default());
        self.call(called, PLAIN, Effect::OnAll { scope, act }, Box::new(run))
    }
}

const PLAIN: Through = Through { ttl: None, window: None };

fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.try_into().unwrap_or(0))
}

fn ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

fn view_of(entry: &Entry) -> View {
    View {
        label: entry.state,
        first: ms_of(entry.first_seen),
        last: ms_of(entry.last_seen),
        expires: entry.expires_at.map_or(NEVER, ms_of),
        until: entry.lease_until.map(ms_of),
        attempts: entry.attempts,
        error: entry.last_error.clone(),
        receipt: entry.receipt.clone(),
    }
}

fn verdict(verdict: Verdict) -> Told {
    Told::Answer(match verdict {
        Verdict::New => Answer::New,
        Verdict::Duplicate => Answer::Duplicate,
        Verdict::InFlight => Answer::Flying,
        other => panic!("{other:?} is new to the simulator"),
    })
}

fn claimed(claim: Claim) -> Told {
    match claim {
        Claim::Granted(lease) => {
            let (attempt, until) = (lease.attempt(), ms_of(lease.expires_at()));
            Told::Granted { attempt, until, token: lease.into_token() }
        }
        Claim::InFlight { until } => Told::Answer(Answer::InFlight { until: ms_of(until) }),
        Claim::Seen => Told::Answer(Answer::Seen),
        Claim::GivenUp { attempts } => Told::Answer(Answer::GivenUp { attempts }),
        other => panic!("{other:?} is new to the simulator"),
    }
}

fn held(outcome: Result<()>) -> Result<Told> {
    match outcome {
        Ok(()) => Ok(Told::Answer(Answer::Held)),
        Err(e) if e.kind() == ErrorKind::LeaseLost => Ok(Told::Answer(Answer::Lost)),
        Err(e) => Err(e),
    }
}

fn ownerships(all: Vec<Ownership>) -> Vec<Told> {
    let told = |ownership| match ownership {
        Ownership::Held => Told::Answer(Answer::Held),
        Ownership::Lost => Told::Answer(Answer::Lost),
        other => panic!("{other:?} is new to the simulator"),
    };
    all.into_iter().map(told).collect()
}

type Make = fn(&mut Draw<'_>) -> Call;

/// How often each comes up, and how it is drawn.
pub const TABLE: &[(u32, Make)] = &[
    (8, mark_seen),
    (3, mark_seen_at),
    (10, check_and_mark),
    (6, check_and_mark_all),
    (2, seed),
    (10, claim),
    (4, claim_all),
    (8, confirm),
    (2, confirm_all),
    (4, release),
    (5, fail),
    (3, renew),
    (5, forget),
    (1, forget_scope),
    (8, try_is_seen),
    (8, get),
    (4, purge_expired),
    (3, cleanup),
    (2, restore),
    (2, entries),
    (1, stats),
    (1, verify),
    (1, checkpoint),
    (1, compact),
    (2, read),
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

fn mark_seen(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    draw.on_one("mark_seen", through, name, Act::Mark, |store, id| {
        store.mark_seen(id).map(|()| Told::Answer(Answer::Done))
    })
}

fn mark_seen_at(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let away = *choose(&mut draw.rng, &[0, -1, -30_000, -3_600_000, 1, 30_000, 3_600_000]);
    let at = (draw.now_ms + away).max(1);
    draw.on_one("mark_seen_at", through, name, Act::MarkAt(at), move |store, id| {
        store.mark_seen_at(id, time(at)).map(|()| Told::Answer(Answer::Done))
    })
}

fn check_and_mark(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    draw.on_one("check_and_mark", through, name, Act::Check, |store, id| {
        store.check_and_mark(id).map(verdict)
    })
}

fn check_and_mark_all(draw: &mut Draw<'_>) -> Call {
    let (names, through) = (draw.batch(IDS), draw.through());
    let acts = vec![Act::Check; names.len()];
    draw.on_batch("check_and_mark_all", through, names, acts, |store, ids| {
        Ok(store.check_and_mark_all(ids)?.into_iter().map(verdict).collect())
    })
}

fn seed(draw: &mut Draw<'_>) -> Call {
    let (names, through) = (draw.batch(IDS), draw.through());
    let acts = vec![Act::Seed; names.len()];
    draw.on_batch("seed", through, names, acts, |store, ids| {
        store.seed(ids).map(|_| vec![Told::Nothing; ids.len()])
    })
}

fn claim(draw: &mut Draw<'_>) -> Call {
    let (name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    draw.on_one("claim", through, name, Act::Claim { lease }, move |store, id| {
        store.claim(id, lease.duration()).map(claimed)
    })
}

fn claim_all(draw: &mut Draw<'_>) -> Call {
    let (names, through, lease) = (draw.batch(FIRST_IMPORTED), draw.through(), draw.lease());
    let mut names = names;
    // A claim that meets one of its own batch has a token that is not known yet.
    names.sort_unstable();
    names.dedup();
    let acts = vec![Act::Claim { lease }; names.len()];
    draw.on_batch("claim_all", through, names, acts, move |store, ids| {
        Ok(store.claim_all(ids, lease.duration())?.into_iter().map(claimed).collect())
    })
}

fn confirm(draw: &mut Draw<'_>) -> Call {
    let (name, through, receipt) = (draw.claimed(), draw.through(), draw.receipt());
    let token = draw.token(name);
    let act = Act::Confirm { token, receipt: receipt.clone() };
    draw.on_one("confirm", through, name, act, move |store, id| {
        held(match receipt {
            Some(receipt) => store.confirm_with(id, &token, receipt),
            None => store.confirm(id, &token),
        })
    })
}

fn confirm_all(draw: &mut Draw<'_>) -> Call {
    let (mut names, through) = (draw.batch(FIRST_IMPORTED), draw.through());
    names.retain(|name| name.1 < FRESH);
    let tokens: Vec<_> = names.iter().map(|name| draw.token(*name)).collect();
    let acts = tokens.iter().map(|token| Act::Confirm { token: *token, receipt: None }).collect();
    draw.on_batch("confirm_all", through, names, acts, move |store, ids| {
        let claims = ids.iter().zip(&tokens).map(|(id, token)| (id, *token));
        store.confirm_all(claims).map(ownerships)
    })
}

fn release(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.claimed(), draw.through());
    let token = draw.token(name);
    draw.on_one("release", through, name, Act::Release { token }, move |store, id| {
        held(store.release(id, &token))
    })
}

fn fail(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.claimed(), draw.through());
    let token = draw.token(name);
    let reason = (*choose(&mut draw.rng, &["", "503"])).to_owned();
    let act = Act::Fail { token, reason: reason.clone() };
    draw.on_one("fail", through, name, act, move |store, id| held(store.fail(id, &token, &reason)))
}

fn renew(draw: &mut Draw<'_>) -> Call {
    let (name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    let token = draw.token(name);
    draw.on_one("renew", through, name, Act::Renew { token, lease }, move |store, id| {
        held(store.renew(id, &token, lease.duration()))
    })
}

fn forget(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    let call = draw.on_one("forget", PLAIN, name, Act::Forget, |store, id| {
        store.forget(id).map(|was_known| Told::Answer(Answer::Forgot(was_known)))
    });
    Call { removes: true, ..call }
}

fn forget_scope(draw: &mut Draw<'_>) -> Call {
    let scope = draw.scope();
    let call = draw.on_all("forget_scope", Some(scope), Act::ForgetAll, move |store| {
        store.scope(SCOPES[scope]).forget_scope().map(drop)
    });
    Call { removes: true, ..call }
}

fn try_is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    draw.on_one("try_is_seen", PLAIN, name, Act::IsSeen, |store, id| {
        store.try_is_seen(id).map(Told::IsSeen)
    })
}

fn get(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    get_of(draw, name)
}

/// For the end of a run, too.
pub fn get_of(draw: &Draw<'_>, name: Name) -> Call {
    draw.on_one("get", PLAIN, name, Act::Get, |store, id| {
        Ok(Told::View(store.get(id)?.as_ref().map(view_of)))
    })
}

fn purge_expired(draw: &mut Draw<'_>) -> Call {
    let run = |store: &SeenStore, _: &Config| {
        store.purge_expired()?;
        let left = store.count_expired()?;
        let problems = (left > 0).then(|| format!("{left} expired marks are left after a purge"));
        Ok(Says { problems: problems.into_iter().collect(), ..Says::default() })
    };
    let effect = Effect::OnAll { scope: None, act: Act::Purge };
    Call { judged_alone: true, ..draw.call("purge_expired", PLAIN, effect, Box::new(run)) }
}

fn cleanup(draw: &mut Draw<'_>) -> Call {
    let scope = draw.scope();
    let older_ms = *choose(&mut draw.rng, &[0, 1, 1_000, 60_000, 600_000]);
    let act = Act::Cleanup { older_ms };
    let call = draw.on_all("cleanup_old_entries", Some(scope), act, move |store| {
        let older = Duration::from_millis(older_ms.try_into().unwrap());
        store.scope(SCOPES[scope]).cleanup_old_entries(older).map(drop)
    });
    Call { removes: true, ..call }
}

fn restore(draw: &mut Draw<'_>) -> Call {
    let scope = draw.scope();
    let name = (scope, draw.rng.usize(FIRST_IMPORTED..IDS));
    let away = *choose(&mut draw.rng, &[0, -1_000, -3_600_000, 1_000]);
    let first = (draw.now_ms + away).max(1);
    let last = first + *choose(&mut draw.rng, &[0, 1, 60_000]);
    let expires = last + *choose(&mut draw.rng, &[1, 600_000, 7_200_000]);
    let suppressed = *choose(&mut draw.rng, &[0, 1, 1 << 40, u64::MAX]);
    let act = Act::Import { first, last, expires };
    draw.on_one("restore", PLAIN, name, act, move |store, id| {
        let mut entry = Entry::new(SCOPES[scope], id, time(first));
        entry.last_seen = time(last);
        entry.expires_at = Some(time(expires));
        entry.suppressed = suppressed;
        let restored = store.restore([entry])?;
        assert!(restored.refused.is_empty(), "{restored:?}");
        Ok(Told::Nothing)
    })
}

fn entries(draw: &mut Draw<'_>) -> Call {
    draw.on_none("entries", |store, _| {
        store.entries(Filter::default()).try_for_each(|entry| entry.map(drop))?;
        Ok(Vec::new())
    })
}

/// A listing while nothing else is under way, which tells of each of `names`.
pub fn entries_of(draw: &Draw<'_>, names: Vec<Name>) -> Call {
    let effect = names.iter().map(|name| (*name, vec![Act::List])).collect();
    let run = move |store: &SeenStore, _: &Config| {
        let (mut listed, mut problems) = (HashMap::new(), Vec::new());
        for entry in store.entries(Filter::default()) {
            let entry = entry?;
            let view = view_of(&entry);
            let key = (entry.scope, entry.id);
            if listed.insert(key.clone(), view).is_some() {
                problems.push(format!("{key:?} is listed twice"));
            }
        }
        let told = names.iter().map(|name| {
            let key = (SCOPES[name.0].to_owned(), id_of(*name).into_bytes());
            vec![Told::Listed(listed.get(&key).cloned())]
        });
        Ok(Says { told: told.collect(), problems })
    };
    draw.call("entries", PLAIN, Effect::On(effect), Box::new(run))
}

fn stats(draw: &mut Draw<'_>) -> Call {
    draw.on_none("stats", |store, _| store.stats().map(|_| Vec::new()))
}

pub fn verify(draw: &mut Draw<'_>) -> Call {
    draw.on_none("verify", |store, _| store.verify().map(|report| report.problems))
}

fn checkpoint(draw: &mut Draw<'_>) -> Call {
    draw.on_none("checkpoint", |store, _| match store.checkpoint() {
        // Others read, or write all the time.
        Err(e) if e.kind() == ErrorKind::Busy => Ok(Vec::new()),
        done => done.map(|()| Vec::new()),
    })
}

fn compact(draw: &mut Draw<'_>) -> Call {
    draw.on_none("compact", |store, _| store.compact().map(|()| Vec::new()))
}

pub fn read(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    let path = draw.path.clone();
    draw.on_none("Reader::verify", move |_, config| {
        let reader = Reader::open_with(&path, config)?;
        reader.get(SCOPES[name.0], id_of(name))?;
        reader.verify().map(|report| report.problems)
    })
}
