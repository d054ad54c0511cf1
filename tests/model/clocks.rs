//! The clock of each store, and what each store takes for the time.
//!
//! Owns the two clocks, and what each store has read and heard. A store's time is the latest that it has
//! read on its own clock, or the time that it has heard of from the file where that is up to a minute later.
//! One that stands still goes back when another one, whose time is a second or more before its own, has
//! committed. A store that rests reads and hears nothing until it is asked for something.
//! Knows nothing of stores and ids: a run tells it when a clock is stepped and what the file holds.

use std::sync::Arc;
use std::time::SystemTime;

use seen_store::ManualClock;

use crate::common::ms;
use crate::has_small_index;

/// How far a clock may step back without being followed, and how far ahead a time may be to be taken over.
const SMALL_STEP_MS: i64 = 60_000;
/// How exactly the file knows the time of the store that has committed last.
const TOLD_EVERY_MS: i64 = 1_000;

pub(crate) fn time(unix_ms: i64) -> SystemTime {
    let distance = ms(unix_ms.unsigned_abs());
    if unix_ms < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

struct StoreClock {
    clock: Arc<ManualClock>,
    shown: i64,
    /// What the store has read on the clock at the latest.
    own: i64,
    /// The time that the store goes on from, if it is ahead by a small step.
    carried: i64,
    /// The time in the file that the store knows of; `None` before it has met a restored file.
    heard: Option<i64>,
    /// Whether others have committed since.
    others_committed: bool,
    rests: bool,
}

pub(crate) struct StoreClocks([StoreClock; 2]);

/// What a store takes for the time.
fn reckon(own: i64, carried: i64) -> i64 {
    let is_small_step = (own..=own + SMALL_STEP_MS).contains(&carried);
    if is_small_step { carried } else { own }
}

impl StoreClocks {
    pub(crate) fn new(now: i64) -> Self {
        Self([0, 1].map(|_| StoreClock {
            clock: Arc::new(ManualClock::new(time(now))),
            shown: now,
            own: now,
            carried: 0,
            heard: None,
            others_committed: false,
            rests: false,
        }))
    }

    pub(crate) fn of(&self, store: usize) -> &Arc<ManualClock> {
        &self.0[store].clock
    }

    /// What the store's clock shows.
    pub(crate) fn shown(&self, store: usize) -> i64 {
        self.0[store].shown
    }

    /// What the store takes for the time.
    pub(crate) fn now(&self, store: usize) -> i64 {
        reckon(self.0[store].own, self.0[store].carried)
    }

    /// The time of a store or reader that is opened with this store's clock.
    pub(crate) fn of_a_newcomer(&self, store: usize, reached: Option<i64>) -> i64 {
        reckon(self.shown(store), reached.unwrap_or(0))
    }

    pub(crate) fn step(&mut self, store: usize, by: i64) {
        let it = &mut self.0[store];
        it.shown = (it.shown + by).max(1);
        // A store whose time stands still goes back after a commit of another one. Where these come at any time, none does.
        if has_small_index() && it.own - it.shown <= SMALL_STEP_MS {
            it.shown = it.shown.max(it.own);
        }
        it.clock.set(time(it.shown));
    }

    /// The store reads its clock. Back by a minute or less is no step at all. A larger step back makes the
    /// store forget what others had reached.
    pub(crate) fn read(&mut self, store: usize) {
        let it = &mut self.0[store];
        if it.own - it.shown > SMALL_STEP_MS {
            (it.own, it.carried) = (it.shown, 0);
        }
        it.own = it.own.max(it.shown);
    }

    pub(crate) fn rests(&self, store: usize) -> bool {
        self.0[store].rests
    }

    pub(crate) fn set_rests(&mut self, store: usize, rests: bool) {
        self.0[store].rests = rests;
    }

    /// Others than this store have committed.
    pub(crate) fn others_committed(&mut self, store: usize) {
        self.0[store].others_committed = true;
    }

    /// The store learns the time that the file holds. What it `wrote` itself is no news.
    pub(crate) fn hear(&mut self, store: usize, reached: Option<i64>, wrote: bool) {
        let it = &mut self.0[store];
        let news = it.heard != reached && !wrote;
        it.heard = reached;
        let reached = reached.unwrap_or(0);
        let is_behind = it.own - reached >= TOLD_EVERY_MS && it.shown - reached <= SMALL_STEP_MS;
        let goes_back = it.others_committed && it.shown < it.own && is_behind;
        it.others_committed = false;
        if news || goes_back {
            it.carried = reached;
        }
        if goes_back {
            it.own = it.shown;
        }
    }

    /// The file was restored: the time that it holds now is news to every store, even to the one that wrote
    /// it.
    pub(crate) fn forget_what_was_heard(&mut self) {
        for it in &mut self.0 {
            it.heard = None;
        }
    }

    /// The store is opened again, and finds this time in the file.
    pub(crate) fn reopen(&mut self, store: usize, reached: Option<i64>) {
        let it = &mut self.0[store];
        (it.own, it.carried, it.heard) = (it.shown, reached.unwrap_or(0), reached);
        (it.others_committed, it.rests) = (false, false);
    }
}
