//! A run of one sequence: two real stores, and the model beside them.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::Connection;
use seen_store::{
    AsyncSeenStore, Claim as Granting, Entry, Error, ErrorKind, Failure, IndexMode, Item,
    ManualClock, Previous, Resolution, Result, SeenStore, State as Label, Token, Verdict,
};

use crate::clocks::{StoreClocks, time};
use crate::common::{Place, ms, rows, unix_ms};
use crate::face::{Handle, Held, wait};
use crate::file::{
    doomed_marks, forgotten_claims, held_in, marks_by_scope, old_claims, old_marks, reached,
    version,
};
use crate::has_small_index;
use crate::ids::{Model, Name, Names};
use crate::listings::Listing;
use crate::ops::{
    At, Back, Batch, How, Op, REASONS, RECEIPTS, SCOPES, Setup, Stores, Which, ids, is_valid,
};
use crate::state::{Answer, Before, LAST_MS, Outcome, Setting, Span, Tag, Verb, View, is_one_of};
use crate::through::Through;

const START_MS: i64 = 1_700_000_000_000;

/// An id, and what it is shown with.
type Tagged = (Which, Option<Tag>);

/// A claim that was granted once, whatever has become of it.
struct Ticket {
    name: Name,
    token: Token,
    store: usize,
    through: Through,
    lease: Option<Held>,
    /// When the lease believes to end.
    until: i64,
    attempt: u32,
    /// Something that ends the claim was attempted by the lease.
    ending: bool,
}

pub(crate) struct Run {
    pub(crate) listing: Option<Listing>,
    /// The first to go: a lease that is dropped releases.
    tickets: Vec<Ticket>,
    pub(crate) setup: Setup,
    pub(crate) clocks: StoreClocks,
    /// What the model knew when the last backup was made.
    pub(crate) backup: Option<Names>,
    /// The file as it was when the stores last learned of it.
    version: i64,
    /// Of the stores that are used by tasks. They go before the stores, which are closed where they are dropped.
    tasks: [Option<AsyncSeenStore>; 2],
    stores: [Option<SeenStore>; 2],
    /// A view of the file beside the stores.
    pub(crate) file: Connection,
    pub(crate) place: Place,
    pub(crate) ids: Vec<Vec<u8>>,
    pub(crate) model: Model,
}

fn open(
    place: &Place,
    setup: Setup,
    store: usize,
    clock: &Arc<ManualClock>,
    purge: bool,
) -> SeenStore {
    // A hang is a failure here: nobody else holds this file.
    let config = setup.config(store).purge_on_open(purge).busy_timeout(ms(500));
    place.open(config.clock(clock.clone()))
}

/// The store as tasks use it, if they do. While it is kept, the thread for their calls goes on.
fn tasks_of(setup: Setup, store: usize, opened: Option<&SeenStore>) -> Option<AsyncSeenStore> {
    opened.filter(|_| setup.by_tasks[store]).map(|opened| opened.clone().into())
}

fn verdict(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::New => Answer::New,
        Verdict::Changed => Answer::Changed,
        Verdict::Duplicate => Answer::Duplicate,
        Verdict::InFlight => Answer::Flying,
        other => panic!("{other:?} is new to the model"),
    }
}

/// The token of one of a few checks.
fn token_of_a_check(number: u8) -> Token {
    format!("{:032x}", 0xC0DE_0000 + u32::from(number)).parse().expect("32 digits")
}

/// What else may come of a verb.
fn conflict(error: &Error) -> Answer {
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    Answer::Conflict
}

fn held(outcome: Result<()>) -> Answer {
    match outcome {
        Ok(()) => Answer::Held,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
            Answer::Lost
        }
    }
}

pub(crate) fn before(previous: &Previous) -> Before {
    match previous {
        Previous::None => Before::Nothing,
        Previous::Released => Before::Ended(Outcome::Released),
        Previous::Failed { .. } => Before::Ended(Outcome::Failed),
        Previous::Abandoned { since, .. } => Before::Abandoned { since: unix_ms(*since) },
        Previous::Superseded(old) => Before::Superseded(Box::new(View::of(old).fixed())),
        other => panic!("{other:?} is new to the model"),
    }
}

fn is_zero(how: How) -> bool {
    matches!(how, How::Renew(Span::Ms(0)))
}

fn by_token(handle: &Handle, id: &[u8], token: &Token, how: How) -> Result<()> {
    match how {
        How::Confirm => handle.confirm(id, token),
        How::ConfirmWith(receipt) => handle.confirm_with(id, token, RECEIPTS[receipt]),
        How::Release => handle.release(id, token),
        How::Fail(reason) => handle.fail(id, token, REASONS[reason]),
        How::FailFinally(reason) => {
            handle.fail(id, token, Failure::new(REASONS[reason]).is_final())
        }
        How::Renew(lease) => handle.renew(id, token, lease.duration()),
    }
}

fn by_lease(lease: &mut Held, how: How) -> Result<()> {
    match how {
        How::Confirm => lease.confirm(),
        How::ConfirmWith(receipt) => lease.confirm_with(RECEIPTS[receipt]),
        How::Release => lease.release(),
        How::Fail(reason) => lease.fail(REASONS[reason]),
        How::FailFinally(reason) => lease.fail(Failure::new(REASONS[reason]).is_final()),
        How::Renew(length) => lease.renew(length.duration()),
    }
}

fn verb_of(token: Token, how: How) -> Verb {
    match how {
        How::Confirm => Verb::Confirm { token, receipt: None },
        How::ConfirmWith(receipt) => {
            Verb::Confirm { token, receipt: Some(RECEIPTS[receipt].to_vec()) }
        }
        How::Release => Verb::Release { token },
        How::Fail(reason) | How::FailFinally(reason) => {
            let is_final = matches!(how, How::FailFinally(_));
            Verb::Fail { token, reason: REASONS[reason].to_owned(), is_final }
        }
        How::Renew(lease) => Verb::Renew { token, lease },
    }
}

impl Run {
    pub(crate) fn new(setup: Setup) -> Self {
        let place = Place::in_ram();
        let mut clocks = StoreClocks::new(START_MS);
        let stores = [0, 1].map(|store| Some(open(&place, setup, store, clocks.of(store), true)));
        let tasks = [0, 1].map(|store| tasks_of(setup, store, stores[store].as_ref()));
        let file = place.sql();
        for store in 0..2 {
            clocks.hear(store, reached(&file), false);
        }
        let (model, version) = (Model::new(START_MS), version(&file));
        let (tickets, ids) = (Vec::new(), ids());
        Self {
            listing: None,
            tickets,
            setup,
            clocks,
            backup: None,
            version,
            tasks,
            stores,
            file,
            place,
            ids,
            model,
        }
    }

    pub(crate) fn store(&self, store: usize) -> &SeenStore {
        self.stores[store].as_ref().unwrap()
    }

    /// The handle by which threads or tasks use a store.
    fn handle(&self, store: usize, through: Through, scope: usize) -> Handle {
        let handle = through.handle(self.store(store), SCOPES[scope]);
        if self.setup.by_tasks[store] {
            Handle::Tasks(handle.into())
        } else {
            Handle::Threads(handle)
        }
    }

    fn setting(&self, store: usize, through: Through) -> Setting {
        Setting {
            now: self.model.now[store],
            life: through.life(self.setup.window),
            retry_delay: Span::Ms(self.setup.retry_delay_ms),
            max_attempts: self.setup.max_attempts,
            max_abandoned: self.setup.max_abandoned,
        }
    }

    /// The handle, the id and its name in the model; `None` after checking that an id or a handle that is not
    /// valid is refused by every verb.
    fn target(&self, which: Which, through: Through) -> Option<(Handle, &[u8], Name)> {
        let handle = self.handle(which.store, through, which.scope);
        let id = &*self.ids[which.id];
        let right = match (through.is_refused(), is_valid(id)) {
            (false, true) => return Some((handle, id, (which.scope, which.id))),
            (true, _) => ErrorKind::InvalidConfig,
            (false, false) => ErrorKind::InvalidId,
        };
        let before = rows(&self.file);
        let token: Token = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let second = ms(1_000);
        let kinds = [
            handle.try_is_seen(id).map(drop),
            handle.get(id).map(drop),
            handle.mark_seen(id),
            handle.mark_seen_at(id, time(0)),
            handle.check_and_mark(id).map(drop),
            handle.observe(id).map(drop),
            handle.forget(id).map(drop),
            handle.claim(id, second).map(drop),
            handle.confirm(id, &token),
            handle.confirm_with(id, &token, b"4711"),
            handle.release(id, &token),
            handle.fail(id, &token, "503"),
            handle.renew(id, &token, second),
            handle.resolve(id, Resolution::Done).map(drop),
        ]
        .map(|outcome| outcome.unwrap_err().kind());
        assert_eq!(kinds, [right; 14]);
        assert!(!handle.is_seen(id));
        assert_eq!(rows(&self.file), before);
        None
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        let acting = self.acting(op);
        if let Some(store) = acting {
            self.wake(store);
        }
        self.do_it(op);
        self.learn_the_time(acting);
        self.model.lose_counts();
        self.note_what_left();
    }

    /// A store learns the time that the other has reached at its next look. Where that changes its time it
    /// looks now, so that what it knows does not depend on which verbs happen to look. One that rests learns
    /// it when it is used again.
    pub(crate) fn learn_the_time(&mut self, acting: Option<usize>) {
        let (reached, version) = (reached(&self.file), version(&self.file));
        let committed = std::mem::replace(&mut self.version, version) != version;
        for store in 0..2 {
            if committed && acting != Some(store) {
                self.clocks.others_committed(store);
            }
            if self.clocks.rests(store) {
                continue;
            }
            self.clocks.hear(store, reached, acting == Some(store));
            if self.model.now[store] != self.clocks.now(store) {
                self.go_by_the_clocks();
                self.stats(store);
            }
        }
    }

    /// A store that rested is used again: it reads its clock and looks.
    pub(crate) fn wake(&mut self, store: usize) {
        if !self.clocks.rests(store) {
            return;
        }
        self.clocks.set_rests(store, false);
        self.clocks.read(store);
        self.clocks.hear(store, reached(&self.file), false);
        self.go_by_the_clocks();
        self.model.lose_counts();
        self.note_what_left();
        self.stats(store);
    }

    fn rest(&mut self, store: usize) {
        // An index that may be waking looks by itself, at any time.
        let may_wake = has_small_index() && self.setup.index[store] == IndexMode::Wakes;
        if !may_wake && !self.clocks.rests(store) {
            self.stats(store); // What was committed by now is known to it.
            self.clocks.set_rests(store, true);
        }
    }

    /// The store that an operation is of, and that may write down its time.
    fn acting(&self, op: &Op) -> Option<usize> {
        match op {
            Op::IsSeen(which, _)
            | Op::Get(which)
            | Op::Mark(which, ..)
            | Op::MarkAt(which, ..)
            | Op::Check(which, ..)
            | Op::Retry(which, ..)
            | Op::Observe(which, ..)
            | Op::CheckAll(which, ..)
            | Op::Seed(which, ..)
            | Op::Claim(which, ..)
            | Op::ClaimAll(which, ..)
            | Op::Stray(_, which, ..)
            | Op::Resolve(which, ..)
            | Op::Forget(which) => Some(which.store),
            Op::ByToken(_, store, ..)
            | Op::Purge(store)
            | Op::Cleanup { store, .. }
            | Op::Stats(store)
            | Op::List(store)
            | Op::Backup(store)
            | Op::Reopen { store, .. } => Some(*store),
            Op::ByLease(back, _) | Op::Drop(back) | Op::IntoToken(back) => {
                self.ticket(*back).map(|ticket| self.tickets[ticket].store)
            }
            Op::Step(..) | Op::Align { .. } | Op::ToBorder { .. } | Op::Restore | Op::Rest(_) => {
                None
            }
        }
    }

    fn go_by_the_clocks(&mut self) {
        self.model.now = [0, 1].map(|store| self.clocks.now(store));
        self.model.bury();
    }

    fn do_it(&mut self, op: &Op) {
        match op {
            Op::IsSeen(which, tag) => self.is_seen(*which, *tag),
            Op::Get(which) => {
                if self.target(*which, Through::PLAIN).is_some() {
                    self.get(which.store, (which.scope, which.id));
                }
            }
            Op::Mark(which, tag, through) => self.mark((*which, *tag), *through, None),
            Op::MarkAt(which, tag, through, at) => {
                let at = match at {
                    At::FromNow(by) => self.model.now[which.store] + by,
                    At::Absolute(at) => *at,
                };
                self.mark((*which, *tag), *through, Some(at));
            }
            Op::Check(which, tag, through) => self.check((*which, *tag), *through),
            Op::Retry(which, tag, through, token) => {
                self.retry((*which, *tag), *through, token_of_a_check(*token));
            }
            Op::Observe(which, tag, through) => self.observe((*which, *tag), *through),
            Op::CheckAll(which, through, batch) => {
                self.check_all(*which, *through, &self.once_if_haunted(*which, batch));
            }
            Op::Seed(which, through, batch) => {
                self.seed(*which, *through, &self.once_if_haunted(*which, batch));
            }
            Op::Claim(which, tag, through, lease) => {
                self.claim((*which, *tag), *through, *lease);
            }
            Op::ClaimAll(which, through, batch, lease) => {
                self.claim_all(*which, *through, &self.once_if_haunted(*which, batch), *lease);
            }
            Op::ByLease(back, how) => self.by_lease(*back, *how),
            Op::ByToken(back, store, through, how) => {
                if let Some(ticket) = self.ticket(*back) {
                    let (scope, id) = self.tickets[ticket].name;
                    let which = Which { store: *store, scope, id };
                    self.by_token(ticket, which, *through, *how);
                }
            }
            Op::Stray(back, which, through, how) => {
                if let Some(ticket) = self.ticket(*back)
                    && self.target(*which, *through).is_some()
                {
                    self.by_token(ticket, *which, *through, *how);
                }
            }
            Op::Drop(back) => {
                if let Some(ticket) = self.ticket(*back) {
                    self.drop_lease(ticket);
                }
            }
            Op::IntoToken(back) => {
                if let Some(ticket) = self.ticket(*back) {
                    self.keep_token(ticket);
                }
            }
            Op::Forget(which) => self.forget(*which),
            Op::Resolve(which, through, done) => self.resolve(*which, *through, *done),
            Op::Purge(store) => self.purge(*store),
            Op::Cleanup { store, scope, older_than_ms } => {
                self.cleanup(*store, *scope, *older_than_ms);
            }
            Op::Stats(store) => self.stats(*store),
            Op::List(store) => {
                if !self.end_listing() {
                    self.begin_listing(*store);
                }
            }
            Op::Step(stores, by) => self.step_clocks(*stores, *by),
            Op::Align { store, ahead_ms } => {
                let by = self.clocks.shown(1 - store) + ahead_ms - self.clocks.shown(*store);
                self.step_clocks(Stores::One(*store), by);
            }
            Op::Rest(store) => self.rest(*store),
            Op::Backup(store) => self.backup(*store),
            Op::Restore => self.restore(),
            Op::ToBorder { which, before } => self.step_to_border(*which, *before),
            Op::Reopen { store, purge, release } => self.reopen(*store, *purge, *release),
        }
    }

    fn step_clocks(&mut self, stores: Stores, by: i64) {
        // A time that was learned before a step counts otherwise than one that is learned after it: the
        // stores look before, but for those that rest.
        let used = [0, 1].into_iter().filter(|store| !self.clocks.rests(*store));
        let used: Vec<usize> = used.collect();
        for store in &used {
            self.stats(*store);
        }
        for store in stores.numbers() {
            self.clocks.step(store, by);
        }
        // A store that does not read the clock between two steps sees one step. Those that do not rest read
        // it here, so that what they see does not depend on which verbs happen to read it.
        for store in &used {
            self.clocks.read(*store);
        }
        self.go_by_the_clocks();
        for store in &used {
            self.stats(*store);
        }
    }

    fn step_to_border(&mut self, which: usize, before: bool) {
        let latest = self.model.latest();
        let borders: BTreeSet<i64> = self
            .model
            .names
            .values()
            .flat_map(|id| id.known.borders())
            .filter(|border| (latest + 1..LAST_MS).contains(border))
            .collect();
        if !borders.is_empty() {
            let border = borders.iter().nth(which % borders.len()).unwrap();
            // The store that is ahead comes to the border, and the other one keeps its distance.
            let ahead = usize::from(self.model.now[1] > self.model.now[0]);
            let by = border - i64::from(before) - self.clocks.shown(ahead);
            self.step_clocks(Stores::Both, by);
        }
    }

    pub(crate) fn stats(&mut self, store: usize) {
        let stats = self.store(store).stats().unwrap();
        self.model.looked(store);
        let in_table = marks_by_scope(&self.file);
        assert_eq!(stats.scopes, in_table);
        // An index that is asleep counts what has expired too.
        let may_sleep = self.setup.index[store] != IndexMode::Awake;
        let is_count_of_table = may_sleep && stats.seen == in_table.values().sum::<u64>();
        let seen = (Label::Seen, stats.seen);
        for (label, count) in (!is_count_of_table)
            .then_some(seen)
            .into_iter()
            .chain([(Label::InFlight, stats.in_flight), (Label::Failed, stats.failed)])
        {
            let right = self.model.count(store, label);
            assert!(right.contains(&count), "{count} are {label:?}, not {right:?}");
        }
    }

    pub(crate) fn is_seen(&mut self, which: Which, tag: Option<Tag>) {
        let Some((handle, id, name)) = self.target(which, Through::PLAIN) else { return };
        let seen = handle.is_seen(Tag::item(tag, id));
        match self.model.is_seen(which.store, name, tag) {
            Some(false) if self.model.is_late(which.store, name) => {}
            Some(right) => assert_eq!(seen, right, "of {name:?}"),
            None => {}
        }
        // A miss is answered only after a look, unless it is of another version.
        if !seen && tag.is_none() {
            self.model.looked(which.store);
        }
    }

    /// Asks for the entry, which always looks, and compares it.
    pub(crate) fn get(&mut self, store: usize, name: Name) {
        let (scope, id) = name;
        let entry = self.handle(store, Through::PLAIN, scope).get(&self.ids[id]).unwrap();
        self.model.looked(store);
        self.check_entry(store, name, entry);
    }

    fn check_entry(&self, store: usize, name: Name, entry: Option<Entry>) {
        let (scope, id) = name;
        let found = entry.as_ref().map(View::of);
        let Some(counted) = self.model.names.get(&name) else {
            assert_eq!(found, None);
            return;
        };
        let right = counted.known.views(self.model.now[store]);
        assert!(
            is_one_of(&right, found.as_ref()),
            "{name:?} is {found:#?}; right is one of {right:#?}"
        );
        if let Some(entry) = entry {
            assert_eq!((&*entry.scope, &entry.id), (SCOPES[scope], &self.ids[id]));
            let (right, count) = (counted.duplicates(store, entry.state), entry.duplicates);
            assert!(right.contains(&count), "{count} of {name:?} turned away, not {right:?}");
            if entry.state.is_claim() {
                return;
            }
            let (known, shown) = (counted.last(store), unix_ms(entry.last_seen));
            assert!(known <= Some(shown), "{name:?} was seen at {shown}, before {known:?}");
            if let Some(history) = entry.history {
                let (right, count) = (counted.duplicates_before(), history.duplicates);
                assert!(right.contains(&count), "{count} of {name:?} before, not {right:?}");
            }
        }
    }

    /// Tells the model what a verb has answered.
    fn step(
        &mut self,
        store: usize,
        name: Name,
        through: Through,
        verb: &Verb,
        answer: Option<&Answer>,
    ) -> (u64, u64) {
        let setting = self.setting(store, through);
        let Self { model, file, ids, .. } = self;
        let held = || held_in(file, SCOPES[name.0], &ids[name.1]);
        model.step(store, name, verb, setting, answer, held)
    }

    fn mark(&mut self, (which, tag): Tagged, through: Through, at: Option<i64>) {
        let Some((handle, id, name)) = self.target(which, through) else { return };
        let item = Tag::item(tag, id);
        let done = match at {
            None => handle.mark_seen(item),
            Some(at) => handle.mark_seen_at(item, time(at)),
        };
        let answer = done.map_or_else(|e| conflict(&e), |()| Answer::Done);
        let at = at.unwrap_or(self.model.now[which.store]);
        self.model.looked(which.store);
        self.step(which.store, name, through, &Verb::Mark { at, tag }, Some(&answer));
    }

    fn check(&mut self, (which, tag): Tagged, through: Through) {
        let Some((handle, id, name)) = self.target(which, through) else { return };
        let answer = handle.check_and_mark(Tag::item(tag, id));
        let answer = answer.map_or_else(|e| conflict(&e), verdict);
        self.step(which.store, name, through, &Verb::Check { tag, retry_of: None }, Some(&answer));
        if answer != Answer::Duplicate {
            self.model.looked(which.store); // Decided under the write lock, after a look.
        }
    }

    /// Checks as the repetition of a check with this token, which may have been made before or not.
    fn retry(&mut self, (which, tag): Tagged, through: Through, token: Token) {
        let Some((handle, id, name)) = self.target(which, through) else { return };
        let answer = handle.check_and_mark(Tag::item(tag, id).retry_of(token));
        let answer = answer.map_or_else(|e| conflict(&e), verdict);
        self.model.looked(which.store); // Decided under the write lock.
        let verb = Verb::Check { tag, retry_of: Some(token) };
        self.step(which.store, name, through, &verb, Some(&answer));
    }

    fn observe(&mut self, (which, tag): Tagged, through: Through) {
        let Some((handle, id, name)) = self.target(which, through) else { return };
        let observed = handle.observe(Tag::item(tag, id));
        self.model.looked(which.store);
        let answer = match observed {
            Ok(observation) => {
                self.check_entry(which.store, name, observation.before);
                verdict(observation.verdict)
            }
            Err(error) => conflict(&error),
        };
        self.step(which.store, name, through, &Verb::Check { tag, retry_of: None }, Some(&answer));
    }

    /// The file tells only what the last of equal ids in a batch has left. Where a ghost leaves open what an id is, that
    /// must tell of all of them: it comes once.
    fn once_if_haunted(&self, which: Which, batch: &[(usize, Option<Tag>)]) -> Batch {
        let now = self.model.now[which.store];
        let mut kept = Batch::new();
        for (id, tag) in batch {
            let known = self.model.names.get(&(which.scope, *id));
            let is_open = known.is_some_and(|id| id.known.is_haunted(now));
            if !is_open || kept.iter().all(|(other, _)| other != id) {
                kept.push((*id, *tag));
            }
        }
        kept
    }

    /// The valid batch of a handle, or `None` after checking that one bad id refuses all of it.
    fn batch<'b>(
        &'b self,
        which: Which,
        through: Through,
        batch: &'b [(usize, Option<Tag>)],
    ) -> Option<(Handle, Vec<Item<'b>>)> {
        let handle = self.handle(which.store, through, which.scope);
        let items: Vec<_> = batch.iter().map(|(id, tag)| Tag::item(*tag, &self.ids[*id])).collect();
        let right = if through.is_refused() && !batch.is_empty() {
            ErrorKind::InvalidConfig
        } else if items.iter().all(|item| is_valid(item.id())) {
            return Some((handle, items));
        } else {
            ErrorKind::InvalidId
        };
        let before = rows(&self.file);
        let kinds = [
            handle.check_and_mark_all(&items).map(drop),
            handle.seed(&items).map(drop),
            handle.claim_all(&items, ms(1_000)).map(drop),
        ]
        .map(|outcome| outcome.unwrap_err().kind());
        assert_eq!(kinds, [right; 3]);
        assert_eq!(rows(&self.file), before);
        None
    }

    /// What a batch has answered, or `None` after checking that it had to be refused because of a payload.
    fn unless_conflict<T>(
        &self,
        which: Which,
        through: Through,
        batch: &[(usize, Option<Tag>)],
        verb: impl Fn(Option<Tag>) -> Verb,
        outcome: Result<T>,
    ) -> Option<T> {
        let error = match outcome {
            Ok(answers) => return Some(answers),
            Err(error) => error,
        };
        conflict(&error);
        let verbs = batch.iter().map(|(id, tag)| ((which.scope, *id), verb(*tag)));
        let verbs: Vec<_> = verbs.collect();
        let setting = self.setting(which.store, through);
        assert!(self.model.may_conflict(&verbs, setting), "{error}: {verbs:?}");
        None
    }

    fn check_all(&mut self, which: Which, through: Through, batch: &[(usize, Option<Tag>)]) {
        let Some((handle, items)) = self.batch(which, through, batch) else { return };
        let verdicts = handle.check_and_mark_all(items);
        if !batch.is_empty() {
            self.model.looked(which.store);
        }
        let verb = |tag| Verb::Check { tag, retry_of: None };
        let verdicts = self.unless_conflict(which, through, batch, verb, verdicts);
        let Some(verdicts) = verdicts else { return };
        assert_eq!(verdicts.len(), batch.len());
        for ((id, tag), answer) in batch.iter().zip(verdicts) {
            let (name, answer) = ((which.scope, *id), verdict(answer));
            self.step(which.store, name, through, &verb(*tag), Some(&answer));
        }
    }

    fn seed(&mut self, which: Which, through: Through, batch: &[(usize, Option<Tag>)]) {
        let Some((handle, items)) = self.batch(which, through, batch) else { return };
        let new = handle.seed(items);
        if !batch.is_empty() {
            self.model.looked(which.store);
        }
        let verb = |tag| Verb::Seed { tag };
        let Some(new) = self.unless_conflict(which, through, batch, verb, new) else { return };
        let (mut least, mut most) = (0, 0);
        for (id, tag) in batch {
            let name = (which.scope, *id);
            let (at_least, at_most) = self.step(which.store, name, through, &verb(*tag), None);
            (least, most) = (least + at_least, most + at_most);
        }
        assert!((least..=most).contains(&new), "{new} new of {least} to {most}");
    }

    fn claim(&mut self, (which, tag): Tagged, through: Through, lease: Span) {
        let Some((handle, id, name)) = self.target(which, through) else { return };
        let item = Tag::item(tag, id);
        if lease == Span::Ms(0) {
            let error = handle.claim(item, lease.duration()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidClaim);
            return;
        }
        let claim = handle.claim(item, lease.duration());
        let answer = self.claimed((which.store, name, tag), through, lease, claim);
        if answer != Answer::Seen {
            self.model.looked(which.store);
        }
    }

    fn claim_all(
        &mut self,
        which: Which,
        through: Through,
        batch: &[(usize, Option<Tag>)],
        lease: Span,
    ) {
        let Some((handle, items)) = self.batch(which, through, batch) else { return };
        if lease == Span::Ms(0) {
            let error = handle.claim_all(items, lease.duration()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidClaim);
            return;
        }
        let claims = handle.claim_all(items, lease.duration());
        if !batch.is_empty() {
            self.model.looked(which.store);
        }
        let verb = |tag| Verb::Claim { tag, lease, hold: through.hold, granted: None };
        let claims = self.unless_conflict(which, through, batch, verb, claims);
        let Some(claims) = claims else { return };
        assert_eq!(claims.len(), batch.len());
        for ((id, tag), claim) in batch.iter().zip(claims) {
            let name = (which.scope, *id);
            self.claimed((which.store, name, *tag), through, lease, Ok(claim));
        }
    }

    fn claimed(
        &mut self,
        (store, name, tag): (usize, Name, Option<Tag>),
        through: Through,
        length: Span,
        claim: Result<Granting<Held, ()>>,
    ) -> Answer {
        let mut granted = None;
        let answer = match claim {
            Err(error) => conflict(&error),
            Ok(Granting::Granted(lease)) => {
                let (token, attempt) = (lease.token(), lease.attempt());
                let (until, previous) = (unix_ms(lease.expires_at()), before(lease.previous()));
                granted = Some(token);
                assert_eq!(lease.id(), self.ids[name.1]);
                assert!(self.tickets.iter().all(|ticket| ticket.token != token));
                let lease = Some(lease);
                let ending = false;
                let ticket = Ticket { name, token, store, through, lease, until, attempt, ending };
                self.tickets.push(ticket);
                Answer::Granted { attempt, until, previous }
            }
            Ok(Granting::InFlight { until, .. }) => Answer::InFlight { until: unix_ms(until) },
            Ok(Granting::Seen(())) => Answer::Seen,
            Ok(Granting::Unresolved { since, .. }) => Answer::Unresolved { since: unix_ms(since) },
            Ok(Granting::GivenUp { attempts }) => Answer::GivenUp { attempts },
            Ok(_) => panic!("an answer to a claim is new to the model"),
        };
        let verb = Verb::Claim { tag, lease: length, hold: through.hold, granted };
        self.step(store, name, through, &verb, Some(&answer));
        answer
    }

    fn ticket(&self, back: Back) -> Option<usize> {
        let count = self.tickets.len();
        (count > 0).then(|| count - 1 - back % count)
    }

    fn by_lease(&mut self, back: Back, how: How) {
        let Some(number) = self.ticket(back) else { return };
        let ticket = &mut self.tickets[number];
        let Some(lease) = &mut ticket.lease else { return };
        let outcome = by_lease(lease, how);
        ticket.ending |= !matches!(how, How::Renew(_));
        if is_zero(how) {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidClaim);
            return;
        }
        let answer = held(outcome);
        let (store, name, token, through) =
            (ticket.store, ticket.name, ticket.token, ticket.through);
        if let (How::Renew(length), Answer::Held) = (how, &answer) {
            ticket.until = length.end(self.model.now[store]);
        }
        assert_eq!(unix_ms(lease.expires_at()), ticket.until);
        assert_eq!((lease.attempt(), lease.token()), (ticket.attempt, token));
        self.model.looked(store);
        self.step(store, name, through, &verb_of(token, how), Some(&answer));
    }

    fn by_token(&mut self, ticket: usize, which: Which, through: Through, how: How) {
        let token = self.tickets[ticket].token;
        let handle = self.handle(which.store, through, which.scope);
        if through.is_refused() {
            self.target(which, through);
            return;
        }
        let outcome = by_token(&handle, &self.ids[which.id], &token, how);
        if is_zero(how) {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidClaim);
            return;
        }
        self.model.looked(which.store);
        let name = (which.scope, which.id);
        let answer = held(outcome);
        self.step(which.store, name, through, &verb_of(token, how), Some(&answer));
    }

    fn drop_lease(&mut self, ticket: usize) {
        let ticket = &mut self.tickets[ticket];
        let Some(lease) = ticket.lease.take() else { return };
        drop(lease);
        if ticket.ending {
            return;
        }
        let (store, name, token, through) =
            (ticket.store, ticket.name, ticket.token, ticket.through);
        if let Some(tasks) = &self.tasks[store] {
            // The store's thread releases it. What comes after it in the queue is decided after it.
            wait(tasks.scope("a scope of its own").forget("nothing")).unwrap();
        }
        self.model.looked(store);
        self.step(store, name, through, &Verb::Release { token }, None);
    }

    fn keep_token(&mut self, ticket: usize) {
        let ticket = &mut self.tickets[ticket];
        if let Some(lease) = ticket.lease.take() {
            assert_eq!(lease.into_token(), ticket.token);
        }
    }

    fn forget(&mut self, which: Which) {
        let Some((handle, id, name)) = self.target(which, Through::PLAIN) else { return };
        let known = handle.forget(id).unwrap();
        self.model.looked(which.store);
        let answer = Answer::Forgot(known);
        self.step(which.store, name, Through::PLAIN, &Verb::Forget, Some(&answer));
    }

    fn resolve(&mut self, which: Which, through: Through, done: bool) {
        let Some((handle, id, name)) = self.target(which, through) else { return };
        let resolution = if done { Resolution::Done } else { Resolution::Retry };
        let resolved = handle.resolve(id, resolution);
        self.model.looked(which.store);
        let answer = resolved.map_or_else(|e| conflict(&e), Answer::Resolved);
        self.step(which.store, name, through, &Verb::Resolve { done }, Some(&answer));
    }

    /// The count of what a purge or a cleanup deletes is checked against the file itself, for it holds
    /// rows that the model knows nothing of: expired ones of ids that were marked again.
    fn purge(&mut self, store: usize) {
        let now = self.model.now[store];
        let newest = rows(&self.file).last().map_or(0, |row| row.seq);
        let expected = doomed_marks(&self.file, now);
        let handle = self.handle(store, Through::PLAIN, 0);
        assert_eq!(handle.count_expired().unwrap(), expected);
        assert_eq!(handle.purge_expired().unwrap(), expected);
        assert_eq!(doomed_marks(&self.file, now), 0);
        self.model.looked(store);
        self.model.purged(store);
        let forgotten = forgotten_claims(&self.file, now);
        assert_eq!(forgotten, 0, "claims whose attempts are forgotten outlived a purge");
        self.newest_row_never_goes_back(newest);
    }

    fn cleanup(&mut self, store: usize, scope: usize, older_than_ms: u64) {
        let before_ms = self.model.now[store].saturating_sub_unsigned(older_than_ms);
        let newest = rows(&self.file).last().map_or(0, |row| row.seq);
        let old = |file| {
            old_marks(file, SCOPES[scope], before_ms) + old_claims(file, SCOPES[scope], before_ms)
        };
        let expected = old(&self.file);
        let (handle, older_than) = (self.handle(store, Through::PLAIN, scope), ms(older_than_ms));
        assert_eq!(handle.count_old_entries(older_than).unwrap(), expected);
        // What this store has turned away since is written down before.
        assert!(handle.cleanup_old_entries(older_than).unwrap() <= expected);
        assert_eq!(old(&self.file), 0);
        self.model.looked(store);
        let Self { model, file, ids, .. } = self;
        let held = |name: Name| held_in(file, SCOPES[name.0], &ids[name.1]);
        for name in model.clean(store, scope, before_ms, held) {
            self.get(store, name);
        }
        self.newest_row_never_goes_back(newest);
    }

    /// A `seq` that was given once is never given again, whatever is deleted.
    fn newest_row_never_goes_back(&self, newest: i64) {
        assert!(rows(&self.file).last().map_or(0, |row| row.seq) >= newest);
    }

    fn reopen(&mut self, store: usize, purge: bool, release: bool) {
        self.end_listing(); // It keeps its store open too.
        // A lease keeps its store open.
        for ticket in 0..self.tickets.len() {
            if self.tickets[ticket].store == store {
                if release {
                    self.drop_lease(ticket);
                } else {
                    self.keep_token(ticket);
                }
            }
        }
        self.tasks[store] = None;
        self.stores[store] = None;
        self.clocks.reopen(store, reached(&self.file));
        self.stores[store] =
            Some(open(&self.place, self.setup, store, self.clocks.of(store), purge));
        self.tasks[store] = tasks_of(self.setup, store, self.stores[store].as_ref());
        self.go_by_the_clocks();
        self.model.looked(store);
    }
}
