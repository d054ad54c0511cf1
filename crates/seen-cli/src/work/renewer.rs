//! Renews the claims of a batch while its output blocks, on a full pipe or a stopped terminal. (A single lease
//! renews itself.)
//!
//! Owns the thread that renews. What always holds: once [`Renewer::give_back`] has returned, the claims that it
//! returned are no longer renewed.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use seen_store::Store;

use crate::Result;
use crate::work::memory::{Held, Memory, as_claims};

/// How many times a claim is renewed during one lease.
const RENEWALS_A_LEASE: u32 = 3;

/// Renews the claims that it holds. Dropping it ends its thread.
pub(crate) struct Renewer {
    held: Arc<Mutex<Vec<Held>>>,
    _stop: Option<mpsc::Sender<()>>,
}

impl Renewer {
    pub(crate) fn start(memory: &Memory) -> Result<Self> {
        match memory {
            Memory::Lasting { store, lease, .. } => Self::of(&**store, *lease),
            Memory::Dry { .. } => Ok(Self { held: Arc::default(), _stop: None }),
        }
    }

    /// Renews claims of this store for as long again.
    fn of(store: &dyn Store, lease: Duration) -> Result<Self> {
        let held = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = mpsc::channel();
        let (store, renewed) = (store.boxed(), Arc::clone(&held));
        thread::Builder::new()
            .name("seen-renew".into())
            .spawn(move || renew_until_stopped(&*store, lease, &renewed, &stopped))
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Self { held, _stop: Some(stop) })
    }

    pub(crate) fn hold(&self, held: Vec<Held>) {
        *lock(&self.held) = held;
    }

    pub(crate) fn give_back(&self) -> Vec<Held> {
        std::mem::take(&mut lock(&self.held))
    }
}

fn renew_until_stopped(
    store: &dyn Store,
    lease: Duration,
    held: &Mutex<Vec<Held>>,
    stopped: &mpsc::Receiver<()>,
) {
    while stopped.recv_timeout(lease / RENEWALS_A_LEASE) == Err(RecvTimeoutError::Timeout) {
        let held = lock(held);
        if held.is_empty() {
            continue;
        }
        // The confirm reports which claims were lost.
        if let Err(e) = store.renew_all(&as_claims(&held), lease) {
            log::warn!("cannot renew claims: {}", crate::output::message::with_causes(&e));
        }
    }
}

/// The list is consistent whenever the lock is free, also after a panic.
fn lock(held: &Mutex<Vec<Held>>) -> MutexGuard<'_, Vec<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
