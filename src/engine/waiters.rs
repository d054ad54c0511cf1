//! Callers that wait until the claim of another worker ends.
//!
//! Owns a queue for each id that is waited for. What always holds: of the waiters for one id, the one that came
//! first asks first, and the others ask only after it has an answer. The first is woken by each commit of this
//! store that ends or changes a claim, and looks by itself at intervals, because other processes wake no one. No
//! lock is held while a waiter waits or asks.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::error::Result;
use crate::id::Key;
use crate::machine::{Mutex, Receiver, SyncSender, sync_channel};

/// How often the first waiter looks whether a claim of another process has ended.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// See the module's header.
#[derive(Default)]
pub(crate) struct Waiters {
    queues: Mutex<HashMap<Key, VecDeque<Waiter>>>,
    /// How many waiters there are, so that a commit need not lock the queues when there are none.
    count: AtomicUsize,
}

struct Waiter {
    number: usize,
    wake: SyncSender<()>,
}

/// A place in the queue for an id. Dropping it lets the next waiter ask.
struct Place<'w> {
    waiters: &'w Waiters,
    key: Key,
    number: usize,
    woken: Receiver<()>,
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
        let waited = Stopwatch::start();
        let place = self.join(key);
        loop {
            let left = timeout.saturating_sub(waited.elapsed());
            if !place.is_first() && !left.is_zero() {
                let _ = place.woken.recv_timeout(left);
                continue;
            }
            let answer = ask()?;
            let left = timeout.saturating_sub(waited.elapsed());
            if is_final(&answer) || left.is_zero() {
                return Ok(answer);
            }
            let _ = place.woken.recv_timeout(left.min(LOOK_INTERVAL));
        }
    }

    fn join(&self, key: Key) -> Place<'_> {
        let (wake, woken) = sync_channel(1);
        let number = self.count.fetch_add(1, SeqCst);
        let mut queues = self.queues.lock();
        let queue = queues.entry(key).or_default();
        // Numbers need only differ within a queue.
        let number = queue.back().map_or(number, |last| last.number.wrapping_add(1));
        queue.push_back(Waiter { number, wake });
        drop(queues);
        Place { waiters: self, key, number, woken }
    }

    /// Wakes the first waiter of each queue: a claim was changed.
    pub(crate) fn wake(&self) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        for first in self.queues.lock().values().filter_map(VecDeque::front) {
            // Where a wake-up waits already, one more is not needed.
            let _ = first.wake.try_send(());
        }
    }
}

impl Place<'_> {
    fn is_first(&self) -> bool {
        let queues = self.waiters.queues.lock();
        let first = queues.get(&self.key).and_then(VecDeque::front);
        first.is_some_and(|first| first.number == self.number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.waiters.queues.lock();
        if let Some(queue) = queues.get_mut(&self.key) {
            queue.retain(|waiter| waiter.number != self.number);
            match queue.front() {
                Some(next) => drop(next.wake.try_send(())),
                None => drop(queues.remove(&self.key)),
            }
        }
        self.waiters.count.fetch_sub(1, SeqCst);
    }
}
