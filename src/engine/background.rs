//! A background thread of a store: it starts when it is first woken, and then waits to be woken again.
//!
//! Owns its start, its wake-ups and its end. What always holds: once [`stop`](Background::stop) has returned, the thread
//! has ended and does not start again. Knows nothing of what the thread does.

use crate::machine::{self, Mutex, Receiver, SyncSender, TrySendError, sync_channel};

pub(crate) struct Background {
    name: &'static str,
    thread: Mutex<Thread>,
}

enum Thread {
    NotStarted,
    Running { wake: SyncSender<()>, handle: machine::Thread<()> },
    Stopped,
}

impl Background {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, thread: Mutex::new(Thread::NotStarted) }
    }

    /// Wakes the thread, and starts it first if needed, with what `work` returns. It gets a wake-up for each call since
    /// the last one that it got, and an error once it is to end. Returns false where there is no thread.
    pub(crate) fn wake<W: FnOnce(&Receiver<()>) + Send + 'static>(
        &self,
        work: impl FnOnce() -> W,
    ) -> bool {
        let mut thread = self.thread.lock();
        if matches!(*thread, Thread::NotStarted) {
            *thread = self.start(work());
        }
        if let Thread::Running { wake, .. } = &*thread {
            // A full channel means that the thread was woken already.
            return !matches!(wake.try_send(()), Err(TrySendError::Disconnected(())));
        }
        false
    }

    fn start(&self, work: impl FnOnce(&Receiver<()>) + Send + 'static) -> Thread {
        let (wake, wake_ups) = sync_channel(1);
        match machine::spawn(self.name, move || work(&wake_ups)) {
            Ok(handle) => Thread::Running { wake, handle },
            Err(e) => {
                let name = self.name;
                log::warn!(
                    error:% = e;
                    "cannot start the thread {name}, so callers do its work or go without: {e}"
                );
                Thread::Stopped
            }
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(*self.thread.lock(), Thread::Running { .. })
    }

    /// Stops the thread for good. The caller must not hold a lock that the thread may be waiting for.
    pub(crate) fn stop(&self) {
        let thread = std::mem::replace(&mut *self.thread.lock(), Thread::Stopped);
        if let Thread::Running { wake, handle } = thread {
            drop(wake);
            if handle.join().is_err() {
                log::error!("the thread {} panicked", self.name);
            }
        }
    }
}
