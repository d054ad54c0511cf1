//! Callers that wait until the claim of another worker ends.
//!
//! Owns a queue for each id that is waited for. What always holds: of the waiters for one id, threads and tasks, the one
//! that came first asks first, and the others ask only after it has an answer. The first is woken by each commit of
//! this store that ends or changes the claim of its id, and looks by itself at intervals, because other processes wake
//! no one. No lock is held while a waiter waits or asks; how it waits is its own matter.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::error::Result;
use crate::id::Key;
use crate::journal::ChangedClaims;
use crate::machine::{Mutex, sync_channel};
use crate::process::Process;

/// How often the first waiter looks whether a claim of another process has ended, while no more ids than
/// [`OFTEN_LOOKED`] are waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// While more ids than this are waited for, each is looked at more rarely, so that all looks together are no more: 5,000
/// in a second, a few per cent of a processor.
const OFTEN_LOOKED: usize = 256;

/// See the module's header.
#[derive(Default)]
pub(crate) struct Waiters {
    queues: Mutex<HashMap<Key, Queue>>,
    /// How many waiters there are, so that a commit need not lock the queues when there are none.
    count: AtomicUsize,
}

/// The waiters for one id, by numbers that grow: how each is woken. That is called with the queues locked, so it only notes
/// that the waiter is to be woken.
type Queue = BTreeMap<usize, Box<dyn Fn() + Send>>;

/// A place in the queue for an id. Dropping it lets the next waiter ask.
pub(crate) struct Place<'w> {
    waiters: &'w Waiters,
    key: Key,
    number: usize,
    timeout: Duration,
    since: Stopwatch,
    /// In a forked child the lock of the queues may be taken for ever.
    process: Process,
}

/// What a waiter does next.
pub(crate) enum Turn {
    /// Asks.
    Ask,
    /// Waits to be woken, for this long at most.
    Wait(Duration),
}

impl Waiters {
    /// Asks until the answer is not to be waited for, or the time is over. Returns the last answer.
    pub(crate) fn ask_until<T>(
        &self,
        key: Key,
        timeout: Duration,
        mut ask: impl FnMut() -> Result<T>,
        is_final: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let (wake, woken) = sync_channel(1);
        let place = self.join(key, timeout, move || {
            // Where a wake-up waits already, one more is not needed.
            let _ = wake.try_send(());
        });
        loop {
            if let Turn::Wait(most) = place.turn() {
                let _ = woken.recv_timeout(most);
                continue;
            }
            let answer = ask()?;
            match place.turn_after_answer() {
                Some(most) if !is_final(&answer) => drop(woken.recv_timeout(most)),
                _ => return Ok(answer),
            }
        }
    }

    /// Joins the queue for an id, for at most `timeout`.
    pub(crate) fn join(
        &self,
        key: Key,
        timeout: Duration,
        wake: impl Fn() + Send + 'static,
    ) -> Place<'_> {
        let since = Stopwatch::start();
        let number = self.count.fetch_add(1, SeqCst);
        let mut queues = self.queues.lock();
        let queue = queues.entry(key).or_default();
        // Numbers need only differ within a queue.
        let number = queue.last_key_value().map_or(number, |(last, _)| last + 1);
        queue.insert(number, Box::new(wake));
        drop(queues);
        Place { waiters: self, key, number, timeout, since, process: Process::current() }
    }

    /// Wakes the first waiter for each id whose claim was changed.
    pub(crate) fn wake(&self, changed: &ChangedClaims) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let queues = self.queues.lock();
        let wake = |queue: &Queue| {
            if let Some((_, wake)) = queue.first_key_value() {
                wake();
            }
        };
        match changed {
            ChangedClaims::Of(keys) => {
                keys.iter().filter_map(|key| queues.get(key)).for_each(wake);
            }
            ChangedClaims::Any => queues.values().for_each(wake),
        }
    }

    fn look_interval(&self) -> Duration {
        let ids = self.queues.lock().len();
        LOOK_INTERVAL * u32::try_from(ids.div_ceil(OFTEN_LOOKED)).unwrap_or(u32::MAX)
    }
}

impl Place<'_> {
    /// Returns what comes next: the first waiter asks, and each one whose time is over asks a last time.
    pub(crate) fn turn(&self) -> Turn {
        let left = self.left();
        if self.is_first() || left.is_zero() { Turn::Ask } else { Turn::Wait(left) }
    }

    /// Returns how long the waiter waits, after an answer that is not final, until it asks again; `None` when its time
    /// is over.
    pub(crate) fn turn_after_answer(&self) -> Option<Duration> {
        let left = self.left();
        (!left.is_zero()).then(|| left.min(self.waiters.look_interval()))
    }

    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.since.elapsed())
    }

    fn is_first(&self) -> bool {
        let queues = self.waiters.queues.lock();
        let first = queues.get(&self.key).and_then(BTreeMap::first_key_value);
        first.is_some_and(|(number, _)| *number == self.number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.process.is_current() {
            return;
        }
        let mut queues = self.waiters.queues.lock();
        if let Some(queue) = queues.get_mut(&self.key) {
            queue.remove(&self.number);
            match queue.first_key_value() {
                Some((_, wake)) => wake(),
                None => drop(queues.remove(&self.key)),
            }
        }
        self.waiters.count.fetch_sub(1, SeqCst);
    }
}
