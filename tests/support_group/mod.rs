//! Calls that are made to share one transaction: all wait in the queue, in a known order, until a
//! plain connection releases SQLite's write lock.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use seen_store::Clock;

/// How often a call reads the clock before it can only be one that waits in the queue and leads it.
const READS_OF_A_LEADER: u32 = 5;

/// A clock that stands still and counts how often each thread reads it, by the thread's name. A call
/// that leads the queue in vain reads the clock at each attempt.
#[derive(Default)]
pub(crate) struct Watch {
    reads: Mutex<HashMap<String, u32>>,
    changed: Condvar,
}

impl Clock for Watch {
    fn now(&self) -> SystemTime {
        if let Some(name) = thread::current().name() {
            *self.reads.lock().unwrap().entry(name.to_owned()).or_default() += 1;
            self.changed.notify_all();
        }
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }
}

impl Watch {
    /// Returns once the thread has led the queue in vain. One that did not get the mutex sleeps in the
    /// queue and reads nothing: it is given a little time instead.
    fn wait_for(&self, name: &str) {
        let reads = self.reads.lock().unwrap();
        let few = |reads: &mut HashMap<String, u32>| {
            reads.get(name).is_none_or(|reads| *reads < READS_OF_A_LEADER)
        };
        let waited = self.changed.wait_timeout_while(reads, Duration::from_millis(500), few);
        drop(waited.unwrap());
    }
}

/// A call to a store.
pub(crate) type Call<'a, T> = Box<dyn FnOnce() -> T + Send + 'a>;

/// Runs these calls of one store, which reads `watch`, as one group in this order. `prepared` runs when
/// all wait. The plain connection is closed, which releases the lock: as long as it were open, the
/// store would not recover the log when it opens the file again.
pub(crate) fn as_one_group<T: Send>(
    file: Connection,
    watch: &Watch,
    calls: Vec<Call<'_, T>>,
    prepared: impl FnOnce(),
) -> Vec<T> {
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|threads| {
        let mut waiting = Vec::new();
        for (number, call) in calls.into_iter().enumerate() {
            let name = format!("call {number}");
            let thread = thread::Builder::new().name(name.clone());
            waiting.push(thread.spawn_scoped(threads, call).unwrap());
            watch.wait_for(&name);
        }
        prepared();
        file.close().unwrap();
        waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
