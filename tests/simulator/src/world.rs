//! The simulated world: stores with their threads and clocks on one file, and what happens to them.
//!
//! Owns the stores, the operations under way, and what each store may know of the time. What always holds:
//! each operation is told to the model when it is called and when it has ended, in the order in which that
//! happened; a clock is set only while its store does nothing; a process that was killed is buried before
//! anything else happens. Knows verbs only by the table of `ops`, and ids only by the model.

mod caller;
pub mod damage;
mod observer;
mod outside;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use parking_lot::Mutex;
use seen_store::{Error, ErrorKind, Machine, ManualClock, SeenStore};

use self::caller::{Caller, start_caller};
use self::damage::Health;
use self::observer::Observer;
use self::store::{MINUTE_MS, Store};
use crate::known::Known;
use crate::model::{Asked, Ended, Model, Name, Number};
use crate::ops::{Call, Draw, Effect, Says};
use crate::scheduler::{Scheduler, fail};
use crate::setup::{Kept, Setup};
use crate::state::Span;
use crate::vfs;

/// When the clocks begin, in Unix milliseconds.
const START_MS: i64 = 1_600_000_000_000;

/// How long after a removal another store may still say "seen".
const LATE: Duration = Duration::from_millis(100);

/// The same of one whose threads keep each other from looking.
const LATE_WHEN_BUSY: Duration = Duration::from_secs(2);

/// Of so many times that a store took it to be, one is the last that it has written down: there are steps of a
/// millisecond, and it writes each second.
const LAST_OF_ITS_OWN: usize = 8;

/// How what is found wrong with the counts of the index in the file begins.
pub const COUNTS_DIFFER: &str = "the counts differ from the table: ";

/// An id that comes up in most runs.
const KNOWN: &str = "incident-0";

/// What came of an operation.
struct Finished {
    number: Number,
    outcome: Result<Came, Error>,
    /// The time in the file, if it could be read.
    reached: Option<i64>,
}

enum Came {
    Says(Says),
    Opened(SeenStore),
    Closed,
}

/// An operation under way.
struct UnderWay {
    name: &'static str,
    store: usize,
    on: Vec<Name>,
    on_all: bool,
    /// Whether it takes effect in steps, of which the last ones tell nothing.
    in_steps: bool,
    removes: bool,
    /// Whether what it finds wrong counts only if nothing else was under way, and whether that was so.
    judged_alone: bool,
    alone: bool,
    /// How many of its process's system calls had failed when it was called.
    failed_before: u64,
    /// How many values the time in the file had had when it was called.
    reached_before: usize,
}

pub struct World {
    scheduler: &'static Scheduler,
    pub setup: Setup,
    folder: PathBuf,
    pub path: PathBuf,
    stores: Vec<Store>,
    pub model: Model,
    finished: Arc<Mutex<VecDeque<Finished>>>,
    finished_count: Arc<AtomicU64>,
    /// How many of them were taken in.
    taken: u64,
    under_way: BTreeMap<Number, UnderWay>,
    /// The values that the time in the file has had, as far as was seen.
    reached: Vec<i64>,
    /// Until when each store may say "seen" of an id that another one removed.
    late: BTreeMap<(usize, Name), Duration>,
    /// What the model knew when the last backup was made.
    backup: Option<BTreeMap<Name, HashSet<Known>>>,
    /// A view of the time in the file, without the simulated file system.
    observer: Arc<Observer>,
    verbose: bool,
    /// Whether the log was deleted under the stores that are open.
    log_is_gone: bool,
    /// How the index in the file is at the worst.
    pub index_health: Health,
    pub counts: BTreeMap<&'static str, u64>,
}

/// Whether what was found wrong may come of damage to the index in the file.
fn is_of_the_index(problem: &str) -> bool {
    problem.contains("makes the index anew") || problem.starts_with(COUNTS_DIFFER)
}

fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.try_into().unwrap_or(0))
}

impl World {
    pub fn new(scheduler: &'static Scheduler, setup: Setup, folder: &Path, verbose: bool) -> Self {
        let mut world = Self {
            scheduler,
            setup,
            folder: folder.to_owned(),
            path: folder.join("seen.db"),
            stores: Vec::new(),
            model: Model::new(START_MS),
            finished: Arc::default(),
            finished_count: Arc::default(),
            taken: 0,
            under_way: BTreeMap::new(),
            reached: Vec::new(),
            late: BTreeMap::new(),
            backup: None,
            observer: Arc::default(),
            verbose,
            log_is_gone: false,
            index_health: Health::Whole,
            counts: BTreeMap::new(),
        };
        for number in 0..=setup.stores {
            // The last one is no store: it is what others do to the file.
            let process = number + 1;
            let clock = Arc::new(ManualClock::new(time(START_MS)));
            let callers = if number == setup.stores { 1 } else { setup.callers };
            let store = Store {
                process,
                config: setup.config().clock(Arc::clone(&clock)),
                clock,
                clock_ms: START_MS,
                own: [START_MS].into(),
                carried: [0].into(),
                open: None,
                callers: (0..callers).map(|_| start_caller(scheduler, process)).collect(),
                changing: false,
            };
            world.stores.push(store);
        }
        world
    }

    fn outsider(&self) -> usize {
        self.setup.stores
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>12?} {}", self.scheduler.elapsed(), what());
        }
    }

    fn violation(&self, why: &str) -> ! {
        fail(&format!("VIOLATION: {why}"))
    }

    /// Lets the stores go on until something has ended that is to be taken in, or until a time.
    fn pause(&self, until: Option<Duration>) {
        let (count, taken) = (Arc::clone(&self.finished_count), self.taken);
        let scheduler = self.scheduler;
        scheduler.wait(&|| count.load(SeqCst) != taken || scheduler.is_dying(), until);
    }

    /// Takes in what ends, for a while.
    pub fn wait(&mut self, time: Duration) {
        let until = self.scheduler.elapsed() + time;
        self.settle();
        while self.scheduler.elapsed() < until {
            self.pause(Some(until));
            self.settle();
        }
    }

    /// Waits until nothing is under way in `store`.
    fn wait_for(&mut self, store: usize) {
        self.settle();
        while !self.stores[store].is_idle() {
            self.pause(None);
            self.settle();
        }
    }

    pub fn wait_for_all(&mut self) {
        for store in 0..self.stores.len() {
            self.wait_for(store);
        }
    }

    /// Buries who has died, and takes in what has ended.
    fn settle(&mut self) {
        loop {
            self.bury_the_dead();
            let finished = self.finished.lock().pop_front();
            let Some(finished) = finished else { return };
            self.taken += 1;
            self.ended(finished);
        }
    }

    /// Whether a store can be asked something at the moment.
    pub fn is_open(&self, store: usize) -> bool {
        self.stores[store].open.is_some() && !self.stores[store].changing
    }

    fn idle_caller(&self, store: usize) -> Option<Caller> {
        self.stores[store].callers.iter().find(|caller| !caller.busy.load(SeqCst)).cloned()
    }

    fn give(
        &self,
        caller: &Caller,
        number: Number,
        run: impl FnOnce() -> Result<Came, Error> + Send + 'static,
    ) {
        caller.busy.store(true, SeqCst);
        let (finished, count) = (Arc::clone(&self.finished), Arc::clone(&self.finished_count));
        let (observer, path) = (Arc::clone(&self.observer), self.path.clone());
        let busy = Arc::clone(&caller.busy);
        let job = move || {
            let outcome = run();
            let reached = observer.look_at(&path);
            finished.lock().push_back(Finished { number, outcome, reached });
            busy.store(false, SeqCst);
            count.fetch_add(1, SeqCst);
        };
        *caller.job.lock() = Some(Box::new(job));
    }

    fn asked(&self, store: usize, call: &Call) -> Asked {
        Asked {
            store,
            life: call.life,
            retry_delay: Span::Ms(self.setup.retry_delay_ms),
            max_attempts: self.setup.max_attempts,
            max_abandoned: self.setup.max_abandoned,
            nows: if call.by_reader {
                self.stores[store].reader_nows()
            } else {
                self.stores[store].nows()
            },
            is_late: false,
        }
    }

    /// Of one id, which the store may remember although another one has removed it.
    fn asked_of(&self, store: usize, call: &Call, name: Name) -> Asked {
        let late = self.late.get(&(store, name)).copied().unwrap_or_default();
        let is_late = self.scheduler.elapsed() <= late || self.others_remove(store, name);
        Asked { is_late, ..self.asked(store, call) }
    }

    /// Asks a store through one of its threads, and does not wait for the answer.
    pub fn ask(&mut self, number: Number, store: usize, call: Call) {
        while self.idle_caller(store).is_none() {
            self.wait(Duration::from_millis(1));
        }
        self.settle();
        if !self.is_open(store) {
            return;
        }
        let caller = self.idle_caller(store).expect("waited for");
        self.observe(None);
        self.under_way.values_mut().for_each(|other| other.alone = false);
        *self.counts.entry(call.name).or_default() += 1;
        let (on, on_all) = match &call.effect {
            Effect::On(effect) => {
                for (name, acts) in effect {
                    let asked = self.asked_of(store, &call, *name);
                    self.model.called(number, &asked, *name, acts);
                }
                (effect.iter().map(|(name, _)| *name).collect(), false)
            }
            Effect::InSteps(name, acts) => {
                let asked = self.asked_of(store, &call, *name);
                self.model.called_in_steps(number, &asked, *name, acts);
                (vec![*name], false)
            }
            Effect::OnAll { scope, act } => {
                let asked = self.asked(store, &call);
                self.model.called_on_all(number, &asked, *scope, |_| act.clone());
                (Vec::new(), true)
            }
        };
        self.under_way.insert(
            number,
            UnderWay {
                name: call.name,
                store,
                on,
                on_all,
                in_steps: matches!(call.effect, Effect::InSteps(..)),
                removes: call.removes,
                judged_alone: call.judged_alone,
                alone: self.under_way.is_empty(),
                failed_before: vfs::failed(self.stores[store].process),
                reached_before: self.reached.len(),
            },
        );
        if call.removes {
            self.be_late(number, store);
        }
        let (name, effect) = (call.name, &call.effect);
        let shown = match effect {
            Effect::On(effect) => format!("{effect:?}"),
            Effect::InSteps(name, acts) => format!("{name:?}: {acts:?}"),
            Effect::OnAll { scope, act } => format!("{act:?} of {scope:?}"),
        };
        self.say(|| format!("{number} store {store} {name} {shown}"));
        let handle = self.stores[store].open.clone().expect("open");
        let config = self.stores[store].config.clone();
        let run = call.run;
        self.give(&caller, number, move || run(&handle, &config).map(Came::Says));
    }

    fn others_remove(&self, store: usize, name: Name) -> bool {
        self.under_way.iter().any(|(number, under_way)| {
            under_way.removes
                && under_way.store != store
                && (under_way.on.contains(&name)
                    || under_way.on_all && self.model.names_of(*number).contains(&name))
        })
    }

    /// What a removal names may be answered from memory by the other stores, also after it has ended.
    fn be_late(&mut self, number: Number, store: usize) {
        let now = self.scheduler.elapsed();
        for name in self.model.names_of(number) {
            self.model.be_late(name, store);
            for other in (0..self.setup.stores).filter(|other| *other != store) {
                let busy = self.setup.callers > 1;
                let until = now + if busy { LATE_WHEN_BUSY } else { LATE };
                self.late.insert((other, name), until);
            }
        }
    }

    /// Takes in the time in the file.
    fn observe(&mut self, reached: Option<i64>) {
        match reached.or_else(|| self.observer.look_at(&self.path)) {
            Some(reached) if self.reached.last() == Some(&reached) => return,
            Some(reached) => {
                self.reached.push(reached);
                self.met(&[reached].into());
            }
            // Whatever a store writes down, it is what it takes the time to be.
            None => {
                if self.setup.kept == Kept::OwnFile {
                    let nows = self.stores[0].nows();
                    self.reached.retain(|reached| !nows.contains(reached));
                    self.reached.extend(nows);
                }
                self.met(&self.stores[..self.setup.stores].iter().flat_map(Store::nows).collect())
            }
        }
        self.follow_the_time();
    }

    /// Stores may have met these times in the file.
    fn met(&mut self, times: &BTreeSet<i64>) {
        for store in 0..self.setup.stores {
            self.stores[store].meets(times);
            let nows = self.stores[store].nows();
            self.model.meanwhile(store, &nows);
        }
    }

    /// What has ended for the store that is ahead may be purged.
    fn follow_the_time(&mut self) {
        let nows = self.stores[..self.setup.stores].iter().flat_map(Store::nows);
        self.model.latest = nows.max().expect("a store");
        self.model.bury();
    }

    fn ended(&mut self, finished: Finished) {
        let Finished { number, outcome, reached } = finished;
        self.observe(reached);
        // Killed meanwhile, and told as such already.
        let Some(under_way) = self.under_way.remove(&number) else { return };
        let UnderWay { name, store, on_all, removes, failed_before, reached_before, .. } =
            under_way;
        let is_fair = !under_way.judged_alone || under_way.alone;
        let unhurt = vfs::failed(self.stores[store].process) == failed_before;
        if removes {
            self.be_late(number, store);
        }
        let came = match outcome {
            Ok(came) => came,
            Err(error) => {
                self.say(|| format!("{number} store {store} {name}: {error}"));
                self.judge_error(name, store, failed_before, &error);
                if matches!(name, "open" | "close" | "drop") {
                    self.stores[store].changing = false;
                    self.watch_again();
                }
                let is_refused = self.did_nothing(&under_way, &error);
                let ended = if is_refused { Ended::Refused } else { Ended::Unknown };
                self.tell(number, on_all, &under_way.on, Err(ended));
                return;
            }
        };
        match came {
            Came::Says(says) => {
                self.say(|| format!("{number} store {store} {name}: {says:?}"));
                // What only one store has swept is no damage, and may be told as such.
                let earliest = self.stores[..self.outsider()].iter().flat_map(Store::nows).min();
                let is_excused = self.index_health != Health::Whole
                    && says.problems.iter().all(|it| is_of_the_index(it));
                let judged = !says.problems.is_empty() && is_fair && unhurt && !is_excused;
                if judged && !self.model.is_haunted(earliest.unwrap_or(0)) {
                    self.violation(&format!("{name} of store {store}: {:?}", says.problems));
                }
                // A lease that could not be given back when it was dropped says so in the log only.
                let is_unknown = says.was_left || under_way.in_steps && !unhurt;
                let says = if is_unknown { Err(Ended::Unknown) } else { Ok(&says) };
                self.tell(number, on_all, &under_way.on, says);
                self.has_looked(name, store, reached_before);
            }
            Came::Opened(handle) => {
                self.say(|| format!("{number} store {store} is open"));
                let store = &mut self.stores[store];
                (store.open, store.changing) = (Some(handle), false);
                self.watch_again();
                self.observe(None);
            }
            Came::Closed => {
                self.say(|| format!("{number} store {store} is closed"));
                self.stores[store].changing = false;
                self.watch_again();
            }
        }
    }

    fn watch_again(&self) {
        let stores = &self.stores;
        // A store that has the file for itself is not to find another there when it opens it again.
        if self.setup.kept == Kept::SharedFile
            && stores.iter().any(|store| store.open.is_some())
            && !stores.iter().any(|store| store.changing)
        {
            self.observer.come_back();
        }
    }

    /// An error must have a cause.
    fn judge_error(&self, name: &str, store: usize, failed_before: u64, error: &Error) {
        let process = self.stores[store].process;
        let met_fault = vfs::failed(process) > failed_before;
        let is_closing = self.stores[store].open.is_none();
        let is_fine = match error.kind() {
            ErrorKind::Closed => is_closing,
            _ => met_fault || self.log_is_gone,
        };
        if !is_fine {
            self.violation(&format!("{name} of store {store} failed without a cause: {error:?}"));
        }
    }

    /// Whether an error says that nothing was written. Not after more than one failed system call: then what
    /// a failed commit left in the log may stay, and come back after a crash.
    fn did_nothing(&self, way: &UnderWay, error: &Error) -> bool {
        let failed = vfs::failed(self.stores[way.store].process) - way.failed_before;
        let is_one_commit = !way.on_all && !way.in_steps;
        is_one_commit && failed <= 1 && !error.to_string().contains("cannot be found out")
    }

    /// Tells the model what became of an operation: what it says, or how it ended without a word.
    fn tell(&mut self, number: Number, on_all: bool, on: &[Name], says: Result<&Says, Ended>) {
        let told = if on_all {
            let ended = says.map_or_else(|ended| ended, |_| Ended::Told(Vec::new()));
            self.model.ended_on_all(number, &ended)
        } else {
            on.iter().enumerate().try_for_each(|(place, name)| {
                let ended = match &says {
                    Ok(says) => Ended::Told(says.told[place].clone()),
                    Err(ended) => ended.clone(),
                };
                self.model.ended(number, *name, &ended)
            })
        };
        if let Err(why) = told {
            self.violation(&why);
        }
    }

    /// A write has looked at the file: of the times that it held before, the store knows none any more.
    fn has_looked(&mut self, name: &str, store: usize, reached_before: usize) {
        if !matches!(name, "mark_seen" | "claim" | "forget") || self.reached.is_empty() {
            return;
        }
        let since = &self.reached[reached_before.saturating_sub(1)..];
        let own = self.stores[store].nows();
        // What it wrote itself is no news to it.
        if since.iter().any(|reached| own.contains(reached)) {
            return;
        }
        self.stores[store].carried = since.iter().copied().collect();
    }

    fn bury_the_dead(&mut self) {
        let Some(process) = self.scheduler.dying() else { return };
        let store = process - 1;
        self.say(|| format!("store {store} is killed"));
        self.observer.leave();
        while !self.stores[store].callers.iter().all(|caller| !caller.busy.load(SeqCst)) {
            let busy: Vec<_> =
                self.stores[store].callers.iter().map(|caller| Arc::clone(&caller.busy)).collect();
            self.scheduler.wait(&|| busy.iter().all(|busy| !busy.load(SeqCst)), None);
        }
        let handle = self.stores[store].open.take();
        // What it had finished and not told counts as unknown.
        let mut dropped = Vec::new();
        self.finished.lock().retain_mut(|finished| {
            let is_its = self.under_way.get(&finished.number).is_some_and(|way| way.store == store);
            if is_its && let Ok(Came::Opened(handle)) = &finished.outcome {
                dropped.push(handle.clone());
            }
            self.taken += u64::from(is_its);
            !is_its
        });
        self.scheduler.acting_for(process, || {
            drop(handle);
            drop(dropped);
        });
        vfs::bury();
        self.stores[store].changing = false;
        self.watch_again();
        let its: Vec<_> = self
            .under_way
            .iter()
            .filter(|(_, way)| way.store == store)
            .map(|(number, _)| *number)
            .collect();
        for number in its {
            let way = self.under_way.remove(&number).expect("just found");
            if way.removes {
                self.be_late(number, store);
            }
            self.tell(number, way.on_all, &way.on, Err(Ended::Unknown));
        }
    }

    fn under_way(&mut self, number: Number, name: &'static str, store: usize) {
        *self.counts.entry(name).or_default() += 1;
        self.say(|| format!("{number} store {store} {name}"));
        let failed_before = vfs::failed(self.stores[store].process);
        self.under_way.values_mut().for_each(|other| other.alone = false);
        self.under_way.insert(
            number,
            UnderWay {
                name,
                store,
                on: Vec::new(),
                on_all: false,
                in_steps: false,
                removes: false,
                judged_alone: false,
                alone: false,
                failed_before,
                reached_before: self.reached.len(),
            },
        );
    }

    pub fn open(&mut self, number: Number, store: usize) {
        self.wait_for(store);
        if self.stores[store].open.is_some() {
            return;
        }
        self.under_way(number, "open", store);
        if self.setup.kept == Kept::Memory {
            self.model.forget_all();
        }
        let (path, kept) = (self.path.clone(), self.setup.kept);
        let at = &mut self.stores[store];
        at.changing = true;
        self.observer.leave();
        // Where only the store itself could look, it has written down one of the last.
        let looked = if kept == Kept::SharedFile { 1 } else { LAST_OF_ITS_OWN };
        let reached: BTreeSet<_> = self.reached.iter().rev().take(looked).copied().collect();
        let none = reached.is_empty().then_some(0);
        (at.own, at.carried) = ([at.clock_ms].into(), reached.into_iter().chain(none).collect());
        let config = at.config.clone();
        let caller = at.callers[0].clone();
        self.give(&caller, number, move || {
            let opened = match kept {
                Kept::Memory => SeenStore::in_memory_with(config),
                _ => SeenStore::open_with(&path, config),
            };
            opened.map(Came::Opened)
        });
        self.follow_the_time();
    }

    /// Closes a store, or drops its last handle, while its other threads may be asking it.
    pub fn close(&mut self, number: Number, store: usize, by_dropping: bool) {
        while self.idle_caller(store).is_none() {
            self.wait(Duration::from_millis(1));
        }
        self.settle();
        if !self.is_open(store) {
            return;
        }
        let caller = self.idle_caller(store).expect("waited for");
        self.observer.leave();
        self.under_way(number, if by_dropping { "drop" } else { "close" }, store);
        let handle = self.stores[store].open.take().expect("open");
        self.stores[store].changing = true;
        self.give(&caller, number, move || {
            if by_dropping {
                drop(handle);
                return Ok(Came::Closed);
            }
            let closed = handle.close();
            // For all its handles, also if that failed: nothing is answered any more, not from memory either.
            for answer in [handle.try_is_seen(KNOWN).map(drop), handle.mark_seen(KNOWN)] {
                if !answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Closed) {
                    fail(&format!("VIOLATION: a store that was closed says {answer:?}"));
                }
            }
            closed.map(|()| Came::Closed)
        });
    }

    /// Sets the clock of one store, or of all, if nothing is under way there.
    pub fn step_clocks(&mut self, number: Number, of: Option<usize>, by_ms: i64) {
        let stores: Vec<_> =
            (0..self.setup.stores).filter(|n| of.is_none_or(|of| of == *n)).collect();
        if of.is_some() {
            let after = self.stores[stores[0]].clock_ms + by_ms;
            let others = self.stores[..self.setup.stores].iter().map(|store| store.clock_ms);
            let (least, most) = others.fold((after, after), |(a, b), c| (a.min(c), b.max(c)));
            if most - least > MINUTE_MS {
                return;
            }
        }
        for store in &stores {
            self.wait_for(*store);
        }
        *self.counts.entry("step_clocks").or_default() += 1;
        self.say(|| format!("{number} the clocks of {stores:?} step by {by_ms} ms"));
        let reached = self.reached.last().copied();
        for store in stores {
            let at = &mut self.stores[store];
            at.clock_ms = (at.clock_ms + by_ms).max(1);
            at.clock.set(time(at.clock_ms));
            at.read_clock(reached);
        }
        self.follow_the_time();
        // They read it before the next step, so that what they see does not depend on who asks.
        for store in 0..self.setup.stores {
            if let Some(handle) = self.stores[store].open.clone()
                && let Some(caller) = self.idle_caller(store)
            {
                let number = number + 1 + store as u64;
                self.under_way(number, "read_clock", store);
                self.give(&caller, number, move || {
                    handle.try_is_seen("of no use").map(|_| Came::Says(Says::default()))
                });
                self.wait_for(store);
            }
        }
    }

    pub fn now_ms(&self, store: usize) -> i64 {
        *self.stores[store].nows().last().expect("a time")
    }

    /// The time, of some store, at which something ends that the model knows of.
    pub fn borders(&self) -> BTreeSet<i64> {
        let names = self.model.names();
        names
            .iter()
            .filter(|name| name.1 < 100)
            .flat_map(|name| self.model.known(*name))
            .flat_map(|known| known.borders())
            .collect()
    }

    pub fn draw<'d>(
        &'d self,
        rng: Rng,
        number: Number,
        store: usize,
        tokens: &'d dyn Fn(Name) -> Vec<seen_store::Token>,
    ) -> Draw<'d> {
        Draw {
            rng,
            number,
            setup: &self.setup,
            now_ms: self.now_ms(store),
            tokens,
            path: self.path.clone(),
        }
    }

    /// The end: nothing under way, everything open. Returns the stores that are.
    pub fn come_to_rest(&mut self, number: Number) -> Vec<usize> {
        self.spare_all();
        self.wait_for_all();
        self.settle();
        for store in 0..self.setup.stores {
            self.open(number + store as u64, store);
            self.wait_for(store);
            self.settle();
        }
        (0..self.setup.stores).collect()
    }

    /// Lets a store make the index in the file anew if it was damaged, and closes all.
    pub fn make_index_anew(&mut self, number: Number, compact: impl Fn(&Self) -> Call) {
        if self.index_health == Health::Whole {
            return;
        }
        for store in self.come_to_rest(number) {
            if store == 0 {
                let call = compact(self);
                self.ask(number + 10, store, call);
                self.wait_for_all();
            }
        }
        for store in 0..self.setup.stores {
            self.close(number + 20 + store as u64, store, false);
        }
        self.wait_for_all();
        self.index_health = Health::Whole;
    }

    pub fn side_files(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("seen.db-")).collect()
    }
}
