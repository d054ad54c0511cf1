//! The machine under the simulated stores: one thread runs at a time, and each choice comes from the seed.
//!
//! Owns the threads (*actors*), whose turn it is, the time, and which processes are dying. What always holds:
//! an actor gives its turn away only in `wait` and `step`; the next one is chosen by the seed alone; where
//! every actor waits for another, the run has failed. Knows nothing of stores and files.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use parking_lot::{Condvar, Mutex, MutexGuard};
use seen_store::Machine;

/// The process that is no store: the driver and what it does to the files.
pub const OUTSIDE: usize = 0;

/// How often an actor that could go on does so, in percent, at the least and the most; the seed chooses.
const GOES_ON: std::ops::Range<u32> = 40..98;

/// A run that takes more turns than this goes in a circle.
const MOST_TURNS: u64 = 50_000_000;

type Ready = *const dyn Fn() -> bool;

enum State {
    Ready,
    Waiting { ready: Ready, until: Option<Duration> },
    Over,
}

struct Actor {
    name: String,
    process: usize,
    state: State,
    turn: Arc<Condvar>,
}

struct Inner {
    actors: Vec<Actor>,
    running: usize,
    now: Duration,
    /// By how much each process's time is ahead: a dying one does not make the others wait.
    skew: Vec<Duration>,
    dying: Option<usize>,
    schedule: Rng,
    random: Rng,
    goes_on: u32,
    turns: u64,
    /// A digest of all choices: equal for equal runs.
    trace: u64,
}

// SAFETY: `ready` points into the stack of an actor that waits for it to hold, and is only called
// while that actor waits.
unsafe impl Send for Inner {}

pub struct Scheduler {
    inner: Mutex<Inner>,
    /// Whether a process is dying, for those who wait for that.
    is_dying: AtomicBool,
}

thread_local! {
    static ACTOR: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Ends the run as failed.
pub fn fail(why: &str) -> ! {
    println!("{why}");
    use std::io::Write;
    let _ = std::io::stdout().flush();
    // SAFETY: no other thread runs, and what the process has open is to be left as it is.
    unsafe { libc::_exit(1) }
}

impl Scheduler {
    /// Makes the calling thread the first actor, of the process outside.
    pub fn new(seed: u64, processes: usize) -> &'static Self {
        let mut schedule = Rng::with_seed(seed ^ 0x5343_4845);
        let goes_on = schedule.u32(GOES_ON);
        ACTOR.set(Some(0));
        let driver = Actor {
            name: "driver".into(),
            process: OUTSIDE,
            state: State::Ready,
            turn: Arc::default(),
        };
        let inner = Inner {
            actors: vec![driver],
            running: 0,
            now: Duration::from_secs(1),
            skew: vec![Duration::ZERO; processes + 1],
            dying: None,
            schedule,
            random: Rng::with_seed(seed ^ 0x5241_4e44),
            goes_on,
            turns: 0,
            trace: seed,
        };
        Box::leak(Box::new(Self { inner: Mutex::new(inner), is_dying: AtomicBool::new(false) }))
    }

    /// The process that the calling thread acts for; `None` for a thread that is no actor.
    pub fn process_of_thread(&self) -> Option<usize> {
        let me = ACTOR.get()?;
        Some(self.inner.lock().actors[me].process)
    }

    /// Acts for `process` meanwhile: the driver opens its store, and drops what a killed one had.
    pub fn acting_for<T>(&self, process: usize, act: impl FnOnce() -> T) -> T {
        let me = ACTOR.get().expect("an actor");
        let before = std::mem::replace(&mut self.inner.lock().actors[me].process, process);
        let done = act();
        self.inner.lock().actors[me].process = before;
        done
    }

    pub fn dying(&self) -> Option<usize> {
        self.inner.lock().dying
    }

    /// Whether a process is dying: for those who wait for that.
    pub fn is_dying(&self) -> bool {
        self.is_dying.load(SeqCst)
    }

    /// From now on only this process runs, in time of its own, until it was buried.
    pub fn begin_dying(&self, process: usize) {
        let mut inner = self.inner.lock();
        inner.note(0xDEAD_0000 + process as u64);
        inner.dying = Some(process);
        self.is_dying.store(true, SeqCst);
    }

    pub fn end_dying(&self) {
        let mut inner = self.inner.lock();
        let process = inner.dying.take().expect("one is dying");
        self.is_dying.store(false, SeqCst);
        inner.skew[process] = Duration::ZERO;
    }

    /// A digest of all that happened so far.
    pub fn trace(&self) -> u64 {
        self.inner.lock().trace
    }

    pub fn turns(&self) -> u64 {
        self.inner.lock().turns
    }

    /// Takes down something that happened, for the digest.
    pub fn note(&self, what: u64) {
        self.inner.lock().note(what);
    }

    /// Whether something that happens once in `one_in` times happens now.
    pub fn chance(&self, one_in: u32) -> bool {
        self.inner.lock().schedule.u32(..one_in) == 0
    }

    /// A system call: takes a little time, and another actor may go on.
    pub fn step(&self) {
        let Some(me) = ACTOR.get() else { return };
        let mut inner = self.inner.lock();
        let took = inner.schedule.u64(1..30);
        inner.now += Duration::from_micros(took);
        let goes_on = inner.goes_on;
        if inner.schedule.u32(..100) >= goes_on {
            self.give_turn(inner, me, State::Ready);
        }
    }

    fn give_turn(&self, mut inner: MutexGuard<'_, Inner>, me: usize, state: State) {
        inner.actors[me].state = state;
        let next = inner.choose();
        inner.running = next;
        inner.actors[next].state = State::Ready;
        if next == me {
            return;
        }
        inner.actors[next].turn.notify_one();
        let turn = Arc::clone(&inner.actors[me].turn);
        while inner.running != me {
            turn.wait(&mut inner);
        }
    }

    fn end(&self, me: usize) {
        let mut inner = self.inner.lock();
        inner.actors[me].state = State::Over;
        let next = inner.choose();
        inner.running = next;
        inner.actors[next].state = State::Ready;
        inner.actors[next].turn.notify_one();
    }

    /// Starts an actor. It comes to its first turn when it is chosen.
    pub fn start(&'static self, process: usize, name: &str, run: Box<dyn FnOnce() + Send>) {
        let mut inner = self.inner.lock();
        let me = inner.actors.len();
        let turn = Arc::<Condvar>::default();
        inner.actors.push(Actor {
            name: format!("{name} of {process}"),
            process,
            state: State::Ready,
            turn: Arc::clone(&turn),
        });
        drop(inner);
        let body = move || {
            ACTOR.set(Some(me));
            let mut inner = self.inner.lock();
            while inner.running != me {
                turn.wait(&mut inner);
            }
            drop(inner);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                fail("a thread of a store panicked");
            }
            self.end(me);
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(body).expect("a thread");
    }
}

impl Inner {
    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }

    fn time_of(&self, actor: &Actor) -> Duration {
        self.now + self.skew[actor.process]
    }

    fn may_run(&self, actor: &Actor) -> bool {
        self.dying.is_none_or(|dying| actor.process == dying || actor.process == OUTSIDE)
    }

    fn is_runnable(&self, actor: &Actor) -> bool {
        match actor.state {
            State::Over => false,
            State::Ready => true,
            State::Waiting { ready, until } => {
                until.is_some_and(|until| until <= self.time_of(actor))
                    // SAFETY: see `Inner`.
                    || unsafe { (*ready)() }
            }
        }
    }

    fn choose(&mut self) -> usize {
        self.turns += 1;
        if self.turns > MOST_TURNS {
            fail(&format!("the run does not end:\n{}", self.shown()));
        }
        loop {
            let can: Vec<usize> = (0..self.actors.len())
                .filter(|n| self.may_run(&self.actors[*n]) && self.is_runnable(&self.actors[*n]))
                .collect();
            if !can.is_empty() {
                let next = can[self.schedule.usize(..can.len())];
                self.note(next as u64);
                return next;
            }
            self.wait_for_the_first();
        }
    }

    /// No actor can run: moves the time on to the first deadline.
    fn wait_for_the_first(&mut self) {
        let first = self.actors.iter().filter(|actor| self.may_run(actor)).filter_map(|actor| {
            let State::Waiting { until: Some(until), .. } = actor.state else { return None };
            Some(until.saturating_sub(self.time_of(actor)))
        });
        match (first.min(), self.dying) {
            (Some(left), None) => self.now += left,
            (Some(left), Some(dying)) => self.skew[dying] += left,
            (None, _) => fail(&format!("deadlock: everybody waits\n{}", self.shown())),
        }
    }

    fn shown(&self) -> String {
        let state = |actor: &Actor| match actor.state {
            State::Ready => "ready".into(),
            State::Over => "over".into(),
            State::Waiting { until, .. } => format!("waits until {until:?}"),
        };
        let actors = self.actors.iter();
        actors.map(|actor| format!("  {}: {}\n", actor.name, state(actor))).collect()
    }
}

impl Machine for Scheduler {
    fn elapsed(&self) -> Duration {
        let inner = self.inner.lock();
        let process = ACTOR.get().map_or(OUTSIDE, |me| inner.actors[me].process);
        inner.now + inner.skew[process]
    }

    fn process(&self) -> usize {
        self.process_of_thread().expect("threads of stores are actors")
    }

    fn wait(&self, ready: &dyn Fn() -> bool, until: Option<Duration>) {
        let me = ACTOR.get().expect("threads of stores are actors");
        if ready() {
            return self.step();
        }
        // SAFETY: this actor waits, with `ready` on its stack, until it holds.
        let ready = unsafe {
            std::mem::transmute::<*const dyn Fn() -> bool, Ready>(std::ptr::from_ref(ready))
        };
        self.give_turn(self.inner.lock(), me, State::Waiting { ready, until });
    }

    fn yield_now(&self) {
        self.step();
    }

    /// Later than any file was changed, by more than file systems can tell: so that what a reader finds does
    /// not depend on how fast the simulation runs.
    fn wall_clock(&self) -> SystemTime {
        std::thread::sleep(Duration::from_millis(25));
        #[expect(clippy::disallowed_methods, reason = "the real time")]
        SystemTime::now()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.inner.lock().random.fill(bytes);
    }

    fn spawn(&self, name: &str, run: Box<dyn FnOnce() + Send>) {
        let process = self.process();
        // SAFETY: schedulers are leaked, see `new`.
        let forever = unsafe { &*std::ptr::from_ref(self) };
        forever.start(process, name, run);
    }
}
