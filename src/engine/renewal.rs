//! Leases that renew themselves: one thread for all leases of a store.
//!
//! Owns the list of such leases, and the thread, which starts with the first of them. What always holds: a lease
//! stays on the list for no longer than its holder asked for; a renewal never shortens a lease, and changes nothing
//! when the claim is no longer the holder's; the list is not locked while a renewal is written or told, so no
//! holder waits for it. A lease that is taken off the list may be renewed once more. A lease that cannot be renewed,
//! and a panic, end no other renewals.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use super::{Engine, WeakEngine};
use crate::clock::Stopwatch;
use crate::config::Ttl;
use crate::decide::verbs::prolong;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Scope;
use crate::journal::Transaction;
use crate::machine::{
    self, Mutex, Receiver, RecvTimeoutError, SyncSender, step_size, sync_channel,
};
use crate::token::Token;

/// How many times a lease is renewed before it would end.
const RENEWALS_PER_LEASE: u32 = 3;

/// How long a lease is not renewed again. A lease that is hardly longer than this may be lost.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// How many leases one commit renews, so that other callers need not wait long.
const LEASES_PER_COMMIT: usize = step_size!(500, in_a_simulation: 2);

/// How soon the thread tries again after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A lease that renews itself.
#[derive(Clone)]
pub(crate) struct Renewal {
    pub(crate) scope: Scope,
    pub(crate) id: Vec<u8>,
    pub(crate) lease: Duration,
    /// How long the attempts are remembered after the lease.
    pub(crate) ttl: Ttl,
    /// How long after the grant it is renewed.
    pub(crate) at_most: Duration,
    /// When the lease ends, in unix milliseconds.
    pub(crate) until_ms: Arc<AtomicI64>,
    pub(crate) granted: Stopwatch,
    pub(crate) renewed: Stopwatch,
}

impl Renewal {
    fn interval(&self) -> Duration {
        (self.lease / RENEWALS_PER_LEASE).max(MIN_INTERVAL)
    }

    fn is_over(&self) -> bool {
        self.granted.elapsed() >= self.at_most
    }

    /// Renews the lease and returns its end; `None` when the claim is no longer held.
    fn renew(&self, transaction: &mut Transaction<'_>, token: Token) -> Result<Option<i64>> {
        let id = self.scope.id(&self.id)?;
        prolong(transaction, id, token, Ttl::After(self.lease), self.ttl)
    }

    fn shown(&self) -> String {
        shown(&self.id)
    }
}

/// Returns the beginning of an id as it is shown in log lines.
pub(crate) fn shown(id: &[u8]) -> String {
    String::from_utf8_lossy(&id[..id.len().min(200)]).into_owned()
}

/// The leases of a store that renew themselves.
#[derive(Default)]
pub(super) struct Renewals {
    held: Mutex<HashMap<Token, Renewal>>,
    /// Wakes the thread. Dropping it ends the thread.
    wake: Mutex<Option<SyncSender<()>>>,
}

impl Renewals {
    /// Ends the thread after what it is doing.
    pub(super) fn stop(&self) {
        drop(self.wake.lock().take());
    }
}

impl Engine {
    /// Renews the lease of this token from now on.
    pub(crate) fn keep_renewed(&self, token: Token, renewal: Renewal) -> Result<()> {
        let mut wake = self.renewals.wake.lock();
        if wake.is_none() {
            let (sender, receiver) = sync_channel(1);
            let weak = self.downgrade();
            machine::spawn("seen-renew", move || renew_until_stopped(&weak, &receiver))
                .map_err(|e| Error::io("cannot start the thread that renews leases", e))?;
            *wake = Some(sender);
        }
        self.renewals.held.lock().insert(token, renewal);
        if let Some(wake) = &*wake {
            // Where a wake-up waits already, one more is not needed.
            let _ = wake.try_send(());
        }
        Ok(())
    }

    /// Takes the lease of this token off the list.
    pub(crate) fn stop_renewing(&self, token: Token) {
        // In a forked child the list is the parent's.
        if self.process.is_current() {
            self.renewals.held.lock().remove(&token);
        }
    }

    /// Returns how long no lease is to be renewed; `None` while there are none.
    fn next_renewal(&self) -> Option<Duration> {
        let held = self.renewals.held.lock();
        held.values().map(|held| held.interval().saturating_sub(held.renewed.elapsed())).min()
    }

    /// Renews the leases that are due, and takes those off the list that are lost or have been renewed for as long
    /// as was asked for.
    fn renew_due(&self) -> Result<()> {
        let over: Vec<(Token, Renewal)> =
            self.renewals.held.lock().extract_if(|_, renewal| renewal.is_over()).collect();
        for (_, renewal) in over {
            let (name, id, at_most) = (&self.name, renewal.shown(), renewal.at_most);
            log::warn!(
                file = name.as_str(), scope = renewal.scope.name(), id = id.as_str(),
                limit_seconds = at_most.as_secs_f64();
                "{name}: the lease of {id:?} is not renewed for longer than {at_most:?}"
            );
        }
        let is_due = |renewal: &Renewal| renewal.renewed.elapsed() >= renewal.interval();
        let due: Vec<(Token, Renewal)> = {
            let held = self.renewals.held.lock();
            let due = held.iter().filter(|(_, renewal)| is_due(renewal));
            due.map(|(token, renewal)| (*token, renewal.clone())).collect()
        };
        for some in due.chunks(LEASES_PER_COMMIT) {
            match self.renew(some) {
                Err(e) if e.kind() == ErrorKind::Corrupt => self.renew_one_by_one(some)?,
                renewed => renewed?,
            }
        }
        Ok(())
    }

    /// Renews these leases in one commit.
    fn renew(&self, leases: &[(Token, Renewal)]) -> Result<()> {
        let renewed = self.write_step(|transaction| {
            let renewed = leases.iter().map(|(token, renewal)| renewal.renew(transaction, *token));
            renewed.collect::<Result<Vec<Option<i64>>>>()
        })?;
        let mut lost = Vec::new();
        {
            let mut held = self.renewals.held.lock();
            for ((token, renewal), until_ms) in leases.iter().zip(renewed) {
                match (until_ms, held.get_mut(token)) {
                    (Some(until_ms), Some(renewal)) => {
                        renewal.until_ms.fetch_max(until_ms, Relaxed);
                        renewal.renewed = Stopwatch::start();
                    }
                    (None, Some(_)) => {
                        held.remove(token);
                        lost.push(renewal);
                    }
                    // It was taken off the list meanwhile.
                    (_, None) => {}
                }
            }
        }
        for renewal in lost {
            // Its holder is told when it ends the claim.
            let id = renewal.shown();
            log::info!(
                file = self.name.as_str(), scope = renewal.scope.name(), id = id.as_str();
                "{}: the lease of {id:?} is not renewed: it is no longer held", self.name
            );
        }
        Ok(())
    }

    /// Renews each of these leases in a commit of its own, so that only those fail that cannot be renewed.
    fn renew_one_by_one(&self, leases: &[(Token, Renewal)]) -> Result<()> {
        for lease in leases {
            match self.renew(std::slice::from_ref(lease)) {
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    self.stop_renewing(lease.0);
                    let id = lease.1.shown();
                    log::warn!(
                        file = self.name.as_str(), scope = lease.1.scope.name(), id = id.as_str(),
                        error:% = e, error_kind = e.kind().word();
                        "{}: the lease of {id:?} is not renewed: {e}", self.name
                    );
                }
                renewed => renewed?,
            }
        }
        Ok(())
    }
}

fn renew_until_stopped(engine: &WeakEngine, stopped: &Receiver<()>) {
    let mut retry = None;
    loop {
        let Some(next) = engine.upgrade().map(|engine| engine.next_renewal()) else { return };
        // After a failure the leases go on for a while, and the next try is soon.
        let woken = match next.map(|next| retry.unwrap_or(next)) {
            Some(wait) => stopped.recv_timeout(wait),
            None => stopped.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match woken {
            Ok(()) => continue, // There is another lease.
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let Some(engine) = engine.upgrade() else { return };
        // A panic, such as one in the caller's clock, must not end the renewals of the others.
        retry = match catch_unwind(AssertUnwindSafe(|| engine.renew_due())) {
            Ok(Ok(())) => None,
            Ok(Err(e)) if e.kind() == ErrorKind::Closed => return,
            Ok(Err(e)) => {
                log::warn!(
                    file = engine.name.as_str(), error:% = e, error_kind = e.kind().word();
                    "{}: leases cannot be renewed now: {e}", engine.name
                );
                Some(RETRY_AFTER)
            }
            Err(_) => Some(RETRY_AFTER),
        };
    }
}
