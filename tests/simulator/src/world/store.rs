//! One store of the world, and what it may take the time to be.
//!
//! Its rule is the one of DESIGN.md, "Time": a store's time is the latest of its own readings, or that in the
//! file where it is up to a minute later; one that stands still goes back when another store has committed at
//! an earlier time. What it has read and met is known only in part, so both are sets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use seen_store::{Config, ManualClock, SeenStore};

use super::caller::Caller;

/// Backward steps of up to this much are absorbed, and clocks differ by no more.
pub const MINUTE_MS: i64 = 60_000;

/// To within how much a store writes down its time.
const TOLD_EVERY_MS: i64 = 1_000;

pub struct Store {
    /// Of the scheduler and the file system; 0 is the driver.
    pub process: usize,
    pub clock: Arc<ManualClock>,
    pub clock_ms: i64,
    /// The times that it may have read on its own clock at the latest.
    pub own: BTreeSet<i64>,
    /// The times in the file that it may have met; 0 is none.
    pub carried: BTreeSet<i64>,
    pub config: Config,
    pub open: Option<SeenStore>,
    pub callers: Vec<Caller>,
    /// Being opened or closed.
    pub changing: bool,
}

impl Store {
    /// What it may take the time to be.
    pub fn nows(&self) -> BTreeSet<i64> {
        self.own.iter().flat_map(|own| self.nows_of(*own)).collect()
    }

    /// What a Reader with its clock may take the time to be: it remembers no reading of its own. Which times
    /// of the file the store itself may meet, it may meet as well.
    pub fn reader_nows(&self) -> BTreeSet<i64> {
        self.nows_of(self.clock_ms).chain(self.nows()).collect()
    }

    fn nows_of(&self, own: i64) -> impl Iterator<Item = i64> {
        self.carried.iter().map(move |carried| {
            let is_ahead = *carried > own && carried - own <= MINUTE_MS;
            if is_ahead { *carried } else { own }
        })
    }

    /// It may have met these times in the file. One that stands still goes back to its clock's reading when
    /// another store has committed at an earlier time.
    pub fn meets(&mut self, times: &BTreeSet<i64>) {
        self.carried.extend(times);
        let goes_back = |own: &i64, reached: &i64| {
            own - reached >= TOLD_EVERY_MS && self.clock_ms - reached <= MINUTE_MS
        };
        let stands_still = |own: &&i64| **own > self.clock_ms;
        let mut still = self.own.iter().filter(stands_still);
        if still.any(|own| times.iter().any(|reached| goes_back(own, reached))) {
            self.own.insert(self.clock_ms);
        }
    }

    pub fn is_idle(&self) -> bool {
        !self.changing && self.callers.iter().all(|caller| !caller.busy.load(SeqCst))
    }

    /// A step of the clock, or its first reading, as the store takes it.
    ///
    /// `reached` is the time in the file, which it may not have met yet.
    pub fn read_clock(&mut self, reached: Option<i64>) {
        let is_large = |own: &i64| own - self.clock_ms > MINUTE_MS;
        if self.own.iter().any(is_large) {
            self.carried.extend(reached.into_iter().chain([0]));
        }
        let read = |own: &i64| if is_large(own) { self.clock_ms } else { *own.max(&self.clock_ms) };
        self.own = self.own.iter().map(read).collect();
        self.meets(&self.carried.clone());
    }
}
