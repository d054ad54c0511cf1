//! The machine that a simulator provides. Of all threads of its stores, one runs at a time. The simulator
//! chooses which one goes on at a lock, a sleep or a system call, so a run can be repeated.
//!
//! What always holds: a thread that has to wait tells the simulator for what, and blocks nowhere else.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

pub(crate) use parking_lot::MutexGuard;
pub(crate) use std::sync::mpsc::{RecvTimeoutError, TrySendError};

/// What the simulator provides.
pub trait Machine: Send + Sync {
    /// Returns the process of the calling thread.
    fn process(&self) -> usize;
    /// Returns the time since the simulation began, as the calling thread's process sees it.
    fn elapsed(&self) -> Duration;
    /// Returns once `ready` holds, or at the time `until`.
    fn wait(&self, ready: &dyn Fn() -> bool, until: Option<Duration>);
    /// Lets other threads run.
    fn yield_now(&self);
    /// Returns the real time of day, which is compared with the times of files.
    fn wall_clock(&self) -> SystemTime;
    /// Fills `bytes` from the simulation's seed.
    fn fill_random(&self, bytes: &mut [u8]);
    /// Starts a thread of the caller's process.
    fn spawn(&self, name: &str, run: Box<dyn FnOnce() + Send>);
}

static MACHINE: OnceLock<&'static dyn Machine> = OnceLock::new();

/// Makes all stores of this process run on `machine`. Must be called once, before the first store is opened.
///
/// # Panics
///
/// If it was called before.
pub fn run_on(machine: &'static dyn Machine) {
    assert!(MACHINE.set(machine).is_ok(), "a process has one machine");
}

fn machine() -> &'static dyn Machine {
    *MACHINE.get().expect("the simulator calls `run_on` first")
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

impl<T> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            machine().wait(&|| !self.0.is_locked(), None);
        }
    }

    pub(crate) fn try_lock_for(&self, timeout: Duration) -> Option<MutexGuard<'_, T>> {
        let until = machine().elapsed() + timeout;
        loop {
            let guard = self.0.try_lock();
            if guard.is_some() || machine().elapsed() >= until {
                return guard;
            }
            machine().wait(&|| !self.0.is_locked(), Some(until));
        }
    }
}

/// A lock of which each simulated process has one.
pub(crate) struct ProcessLock(parking_lot::Mutex<BTreeMap<usize, &'static Mutex<()>>>);

impl ProcessLock {
    pub(crate) const fn new() -> Self {
        Self(parking_lot::Mutex::new(BTreeMap::new()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        let process = machine().process();
        let lock = *self.0.lock().entry(process).or_insert_with(|| Box::leak(Box::default()));
        lock.lock()
    }
}

pub(crate) fn unlock_fair<T>(guard: MutexGuard<'_, T>) {
    drop(guard);
    machine().yield_now();
}

pub(crate) struct Condvar {
    notified: AtomicU64,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self { notified: AtomicU64::new(0) }
    }

    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let mutex = MutexGuard::mutex(&guard);
        while condition(&mut guard) {
            let before = self.notified.load(SeqCst);
            drop(guard);
            machine().wait(&|| self.notified.load(SeqCst) != before && !mutex.is_locked(), None);
            guard = mutex.try_lock().expect("one thread runs at a time");
        }
        guard
    }

    pub(crate) fn notify_one(&self) {
        self.notified.fetch_add(1, SeqCst);
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct MonotonicTime(Duration);

impl MonotonicTime {
    pub(crate) fn now() -> Self {
        Self(machine().elapsed())
    }

    pub(crate) fn elapsed(self) -> Duration {
        machine().elapsed().saturating_sub(self.0)
    }
}

pub(crate) fn coarse_ms() -> u64 {
    u64::try_from(machine().elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn sleep(time: Duration) {
    machine().wait(&|| false, Some(machine().elapsed() + time));
}

pub(crate) fn yield_now() {
    machine().yield_now();
}

pub(crate) fn wall_clock() -> SystemTime {
    machine().wall_clock()
}

pub(crate) fn fill_random(bytes: &mut [u8]) {
    machine().fill_random(bytes);
}

pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    machine().fill_random(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// A thread that can be joined.
pub(crate) struct Thread<T> {
    result: Arc<parking_lot::Mutex<Option<T>>>,
    over: Arc<AtomicBool>,
}

impl<T> Thread<T> {
    /// Waits for the end of the thread. Returns an error if it panicked.
    pub(crate) fn join(self) -> Result<T, ()> {
        machine().wait(&|| self.over.load(SeqCst), None);
        self.result.lock().take().ok_or(())
    }
}

/// Sets a flag when it is dropped, also by a panic.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the real one can fail")]
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    let (result, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let thread = Thread { result: Arc::clone(&result), over: Arc::clone(&over) };
    machine().spawn(
        name,
        Box::new(move || {
            let _over = SetOnDrop(over);
            let done = run();
            *result.lock() = Some(done);
        }),
    );
    Ok(thread)
}

/// Returns the two ends of a bounded channel. Each end can tell whether the other is gone.
pub(crate) fn sync_channel<T>(room: usize) -> (SyncSender<T>, Receiver<T>) {
    let channel = Arc::new(Channel { queue: parking_lot::Mutex::default(), room });
    (SyncSender(Arc::clone(&channel)), Receiver(channel))
}

struct Channel<T> {
    queue: parking_lot::Mutex<VecDeque<T>>,
    room: usize,
}

pub(crate) struct SyncSender<T>(Arc<Channel<T>>);
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

impl<T> SyncSender<T> {
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut queue = self.0.queue.lock();
        if Arc::strong_count(&self.0) == 1 {
            return Err(TrySendError::Disconnected(value));
        }
        if queue.len() >= self.0.room {
            return Err(TrySendError::Full(value));
        }
        queue.push_back(value);
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub(crate) fn recv(&self) -> Result<T, RecvTimeoutError> {
        self.recv_until(None)
    }

    pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(Some(machine().elapsed().saturating_add(timeout)))
    }

    fn recv_until(&self, until: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let channel = &self.0;
        machine()
            .wait(&|| Arc::strong_count(channel) == 1 || !channel.queue.lock().is_empty(), until);
        match channel.queue.lock().pop_front() {
            Some(value) => Ok(value),
            None if Arc::strong_count(channel) == 1 => Err(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }
}
