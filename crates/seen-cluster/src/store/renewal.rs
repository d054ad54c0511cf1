//! Leases that renew themselves.
//!
//! Owns a task for each such lease. What always holds: a lease is renewed when a third of it has passed, until its holder
//! ends it, has lost it, or has had it for as long as it may; a renewal that fails is tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use seen_store::{ErrorKind, Item, Token};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::AsyncClusterStore;

/// The pause after a renewal that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Renewals {
    held: Mutex<HashMap<Token, AbortHandle>>,
}

/// A lease to be renewed.
pub(super) struct Renewal {
    pub(super) store: AsyncClusterStore,
    pub(super) item: Item<'static>,
    pub(super) token: Token,
    pub(super) length: Duration,
    pub(super) at_most: Duration,
    pub(super) until_ms: Arc<AtomicI64>,
}

impl Renewals {
    pub(super) fn keep(&self, runtime: &Handle, renewal: Renewal) {
        let token = renewal.token;
        let task = runtime.spawn(renewal.run());
        self.held.lock().insert(token, task.abort_handle());
    }

    pub(super) fn stop(&self, token: Token) {
        if let Some(task) = self.held.lock().remove(&token) {
            task.abort();
        }
    }

    pub(super) fn stop_all(&self) {
        self.held.lock().drain().for_each(|(_, task)| task.abort());
    }
}

impl Renewal {
    async fn run(self) {
        let begun = Instant::now();
        let mut pause = self.length / 3;
        loop {
            sleep(pause).await;
            if begun.elapsed() >= self.at_most {
                return;
            }
            pause = self.length / 3;
            match self.store.prolong(&self.item, self.token, self.length).await {
                Ok(None) => return,
                Ok(Some(until_ms)) => self.until_ms.store(until_ms, Relaxed),
                Err(e) if e.kind() == ErrorKind::Closed => return,
                Err(e) => {
                    let name = self.store.policy.store_name();
                    log::warn!(store = name, error:% = e; "{name}: a lease could not be renewed: {e}");
                    pause = AFTER_FAILURE;
                }
            }
        }
    }
}
