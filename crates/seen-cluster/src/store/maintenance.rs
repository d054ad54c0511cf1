//! The verbs that keep a store in order: count, remove, clean up, statistics, close.

use std::sync::Weak;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use redis::{Value, cmd};
use seen_store::backend::{Outcome, Selected, TurnedAway, error};
use seen_store::{Entry, ErrorKind, Filter, Item, Result, State, Stats};

use super::marks::repeatable;
use super::{AsyncClusterStore, Shared};
use crate::attempt::{Basis, Manner};
use crate::counts::FLUSH_INTERVAL;
use crate::nodes::{Address, Deadline};

/// The first version of Redis whose `SET` takes `NX` and `GET` together.
const OLDEST_REDIS: u32 = 7;

/// How many ids are removed, or counted, in one batch.
const AT_ONCE: usize = 1_000;

/// How long a server is asked for its version.
const ASKING: Duration = Duration::from_millis(500);

/// How long closing waits until what is carried on has ended, and the counts are written.
const CLOSING: Duration = Duration::from_secs(5);

impl AsyncClusterStore {
    /// Refuses a server that does not know the commands, or forgets ids when its memory is full.
    pub(super) async fn check_servers(&self, deadline: Deadline) -> Result<()> {
        let name = self.policy.store_name();
        let refused =
            |what: String| Err(error(ErrorKind::InvalidConfig, format!("{name}: {what}"), None));
        for master in self.shared.nodes.masters() {
            let text = self.info(&master, &["server", "memory"], deadline.within(ASKING)).await;
            // One that does not answer, or to a user who may not ask, is told by the first command that it does not know.
            let Some(text) = text else { continue };
            let version = field(&text, "redis_version").unwrap_or_default();
            let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
            if major.is_some_and(|major| major < OLDEST_REDIS) {
                return refused(format!(
                    "the server {master} is Redis {version}; Redis 7 or newer, or Valkey, is needed"
                ));
            }
            let is_bounded = field(&text, "maxmemory").is_some_and(|bytes| bytes != "0");
            let policy = field(&text, "maxmemory_policy").unwrap_or("noeviction");
            if is_bounded && policy != "noeviction" {
                return refused(format!(
                    "the server {master} forgets ids when its memory is full (maxmemory-policy {policy}), and their alerts \
                     would be sent again: set `maxmemory-policy noeviction` on all servers"
                ));
            }
        }
        Ok(())
    }

    /// Returns what a server tells of itself, if it does.
    pub(super) async fn info(
        &self,
        master: &Address,
        sections: &[&str],
        deadline: Deadline,
    ) -> Option<String> {
        let mut command = cmd("INFO");
        command.arg(sections);
        match self.shared.nodes.on_master(master, command, deadline).await.ok()? {
            Value::BulkString(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            Value::VerbatimString { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Removes nothing, and returns 0: the servers remove what has expired by themselves.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) after [`close`](Self::close).
    #[expect(clippy::unused_async, reason = "as the same verb of other stores")]
    pub async fn purge_expired(&self) -> Result<u64> {
        self.check_open().map(|()| 0)
    }

    /// Removes old entries of this handle's scope and returns their number: see
    /// [`SeenStore::cleanup_old_entries`](seen_store::SeenStore::cleanup_old_entries). Reads all keys of the scope.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). What was removed before the error stays removed.
    pub async fn cleanup_old_entries(&self, older_than: Duration) -> Result<u64> {
        self.check_open()?;
        self.remove_selected(self.policy.older(older_than, self.now_ms())).await
    }

    /// Removes the entries of this handle's scope that the filter selects, and returns their number: see
    /// [`SeenStore::remove`](seen_store::SeenStore::remove). Reads all keys of the scope.
    ///
    /// # Errors
    ///
    /// Those of [`mark_seen`](Self::mark_seen). What was removed before the error stays removed.
    pub async fn remove(&self, filter: Filter) -> Result<u64> {
        self.check_open()?;
        self.remove_selected(self.policy.selected(filter, self.now_ms())).await
    }

    /// Returns the time of some server, for ages.
    fn now_ms(&self) -> i64 {
        self.shared.nodes.now_ms(b"")
    }

    async fn remove_selected(&self, selected: Selected) -> Result<u64> {
        let mut ids: Vec<Item<'static>> = Vec::new();
        let walked = self.walk(Some(selected.scope()), |policy, item, record, now_ms| {
            if policy.count(record, item, &selected, now_ms)? > 0 {
                ids.push(item.clone().into_owned());
            }
            Ok(())
        });
        let walked = walked.await;
        self.counted(walked)?;
        let (handle, mut removed) = (self.marking_nothing().scope(selected.scope()), 0);
        for batch in ids.chunks(AT_ONCE) {
            let token = self.policy.make_token();
            let all = handle.decide_all(
                batch,
                token,
                &Basis::Unread,
                repeatable(),
                |policy, record, place, now_ms| {
                    policy.remove(record, &batch[place], &selected, now_ms)
                },
            );
            removed += all.await?.into_iter().sum::<u64>();
        }
        Ok(removed)
    }

    /// Returns the number of entries of this handle's scope that the filter selects: see
    /// [`SeenStore::count`](seen_store::SeenStore::count). Reads all keys of the scope.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub async fn count(&self, filter: Filter) -> Result<u64> {
        self.check_open()?;
        let (selected, mut count) = (self.policy.selected(filter, self.now_ms()), 0);
        let walked = self.walk(Some(selected.scope()), |policy, item, record, now_ms| {
            count += policy.count(record, item, &selected, now_ms)?;
            Ok(())
        });
        let walked = walked.await;
        self.counted(walked).map(|()| count)
    }

    /// Returns the figures of the store, in all scopes: see [`SeenStore::stats`](seen_store::SeenStore::stats). What is about
    /// a file or an index is 0. Reads all keys of the namespace, unlike the other stores.
    ///
    /// # Errors
    ///
    /// Those of [`try_is_seen`](Self::try_is_seen).
    pub async fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        let walked = self.walk(None, |policy, item, record, now_ms| {
            for entry in policy.entries(record, item, now_ms)? {
                add_to(&mut stats, &entry);
            }
            Ok(())
        });
        let walked = walked.await;
        self.counted(walked)?;
        stats.since_opened = self.shared.activities.activity();
        Ok(stats)
    }

    /// Writes what was turned away, ends what is carried on, and closes the store for all its handles: see
    /// [`SeenStore::close`](seen_store::SeenStore::close). Takes up to 5 seconds. Meanwhile claims can be ended, and all else
    /// is refused. Carried on when its future is dropped; to close again waits for that.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) when it is closed already.
    pub async fn close(&self) -> Result<()> {
        if self.is_forked() {
            return self.check_open();
        }
        if self.shared.is_closing.swap(true, SeqCst) {
            // The first one may be at it, or was dropped and is carried on.
            self.shared.closed.cancelled().await;
            return self.check_open();
        }
        let (store, closed) = (self.clone(), self.shared.closed.clone().drop_guard());
        // Carried on when this future is dropped. If the runtime has ended, there is nothing left to close.
        let ended = self.shared.runtime.spawn(async move {
            let _closed = closed;
            store.end().await;
        });
        _ = ended.await;
        Ok(())
    }

    async fn end(&self) {
        let shared = &self.shared;
        shared.tasks.close();
        let deadline = Deadline::after(CLOSING);
        // A server that does not answer leaves the ends of claims on the others their time.
        let flushing = deadline.within(CLOSING / 2);
        let handle = self.busy_timeout(self.policy.timeout().min(CLOSING / 2));
        let flushed = flushing.limit(handle.flush()).await.unwrap_or_else(|| {
            Err(error(
                ErrorKind::Unavailable,
                "the servers did not answer in time".to_owned(),
                None,
            ))
        });
        // The ends of claims that were begun are carried on; then none begins any more.
        _ = deadline.limit(shared.tasks.wait()).await;
        shared.is_closed.store(true, SeqCst);
        if deadline.limit(shared.tasks.wait()).await.is_none() {
            let name = self.policy.store_name();
            log::warn!(store = name; "{name}: closed before some claims could be ended; they end with their leases");
        }
        shared.renewals.stop_all();
        shared.nodes.close().await;
        if let Err(e) = flushed {
            let name = self.policy.store_name();
            log::warn!(store = name, error:% = e; "{name}: duplicates that were counted are lost: {e}");
        }
    }

    /// Begins to write what was turned away now and then, as long as there is a handle.
    pub(super) fn start_flushing(&self) {
        let (weak, policy) = (std::sync::Arc::downgrade(&self.shared), self.policy.clone());
        self.shared.runtime.spawn(async move {
            let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
            loop {
                ticks.tick().await;
                let Some(shared) = Weak::upgrade(&weak).filter(|it: &std::sync::Arc<Shared>| !it.is_closing.load(SeqCst)) else {
                    return;
                };
                let store = AsyncClusterStore { shared, policy: policy.clone() };
                if let Err(e) = store.flush().await {
                    let name = policy.store_name();
                    log::debug!(store = name, error:% = e; "{name}: counts of duplicates are not written yet: {e}");
                }
            }
        });
    }

    /// Writes what was turned away of each id into its record.
    async fn flush(&self) -> Result<()> {
        let mut by_scope = std::collections::BTreeMap::<String, Vec<Item<'static>>>::new();
        for key in self.shared.counts.keys() {
            if let Some((scope, id)) = self.shared.keys.parse(&key) {
                by_scope.entry(scope).or_default().push(Item::from(id.to_vec()));
            }
        }
        let mut failed = None;
        for (scope, items) in by_scope {
            let handle = self.marking_nothing().scope(&scope);
            for batch in items.chunks(AT_ONCE) {
                let token = self.policy.make_token();
                // The call adds what is pending to each record. It has only to be written, where there is one.
                let all = handle.decide_all(
                    batch,
                    token,
                    &Basis::Unread,
                    Manner { is_repeated: |_| false, goes_on_while_closing: true, ..repeatable() },
                    |_, record, _, _| {
                        let is_changed = !record.is_empty();
                        Ok(Outcome { answer: (), is_changed, turned_away: TurnedAway::default() })
                    },
                );
                failed = all.await.err().or(failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Returns the value of a line of `INFO`.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn add_to(stats: &mut Stats, entry: &Entry) {
    let count = match entry.state {
        State::Seen => {
            *stats.scopes.entry(entry.scope.clone()).or_default() += 1;
            &mut stats.seen
        }
        State::InFlight => &mut stats.in_flight,
        State::Released => &mut stats.released,
        State::Failed => &mut stats.failed,
        State::GivenUp => &mut stats.given_up,
        State::Abandoned => &mut stats.abandoned,
        State::Unresolved => &mut stats.unresolved,
        _ => &mut stats.expired,
    };
    *count += 1;
}
