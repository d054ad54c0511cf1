//! The public verbs.
//!
//! Owns the handle: a scope and a TTL over a shared engine. What always holds: a verb validates its
//! ids before anything is written, and decides under the write lock. Knows nothing of SQL.

pub(crate) mod engine;
mod upkeep;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use crate::answer::{Entry, Verdict};
use crate::clock::{from_ms, to_ms};
use crate::config::{Config, Ttl, read_environment};
use crate::error::Result;
use crate::id::{Id, Scope};
use crate::journal::{Begun, Transaction};
use crate::maintenance::PurgeThread;
use engine::Engine;

/// How many ids `check_and_mark_all` and `seed` mark in one commit.
const IDS_A_COMMIT: usize = 10_000;

/// A durable set of ids that were handled before.
///
/// A store is a cheap handle: clone it, send it to other threads, share it. All handles that were made
/// from one `open` use one connection and one index in memory. Several stores, in one process or in
/// many, may be open on one file; each sees the others' marks. (Open after forking: a forked child
/// gets [`ErrorKind::Forked`](crate::ErrorKind::Forked) from its parent's store.)
///
/// Closing happens when the last handle goes out of scope, or by [`close`](Self::close), which also
/// tells whether it worked.
///
/// ```
/// use seen_store::{SeenStore, Verdict};
/// # fn main() -> seen_store::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("seen.db");
/// let store = SeenStore::open(path)?;
/// assert_eq!(store.check_and_mark("incident-17")?, Verdict::New);
/// assert_eq!(store.check_and_mark("incident-17")?, Verdict::Duplicate);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SeenStore {
    engine: Arc<Engine>,
    scope: Scope,
    ttl: Ttl,
}

const _: () = {
    const fn managed_state<T: Send + Sync + Clone + 'static>() {}
    managed_state::<SeenStore>();
};

impl SeenStore {
    /// Opens the store at `path` with the default [`Config`]: a TTL of 7 days. Creates the file (mode
    /// 0600) and its folders where they are missing.
    ///
    /// Reads the whole file once to build the index: about 0.3 µs an id.
    ///
    /// # Errors
    ///
    /// Whatever cannot be a store is refused and left as it was:
    /// [`InvalidPath`](crate::ErrorKind::InvalidPath) for a folder, a symbolic link, `:memory:` or a
    /// `file:` URI; [`NotADatabase`](crate::ErrorKind::NotADatabase),
    /// [`Corrupt`](crate::ErrorKind::Corrupt) (also an empty or missing database beside a log that
    /// holds data), [`WrongApplication`](crate::ErrorKind::WrongApplication) and
    /// [`NewerVersion`](crate::ErrorKind::NewerVersion) for what they say;
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) and the other kinds of failure of the
    /// operating system; [`Busy`](crate::ErrorKind::Busy) when another process held the file for
    /// longer than the busy timeout, or at once when it holds it in exclusive mode.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Config::default())
    }

    /// Opens the store at `path` with settings of your own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for settings
    /// that make no sense; read-only also [`NotFound`](crate::ErrorKind::NotFound) and
    /// [`NeedsUpgrade`](crate::ErrorKind::NeedsUpgrade).
    pub fn open_with(path: impl AsRef<Path>, config: Config) -> Result<Self> {
        let (engine, expired) = Engine::open(path.as_ref(), config)?;
        let store = Self::on(engine);
        let config = &store.engine.config;
        if expired > 0 && config.purge_on_open && !config.read_only {
            // What has expired is not seen anyway: a purge that fails is no reason not to open.
            if let Err(e) = store.engine.purge_expired() {
                log::warn!("{}: the purge at opening failed: {e}", store.engine.name);
            }
        }
        if let (true, Some(interval)) = (config.purge_thread, config.purge_interval) {
            let thread = PurgeThread::start(&store.engine, interval)?;
            *store.engine.purge_thread.lock() = Some(thread);
        }
        Ok(store)
    }

    /// Opens the store that the environment describes.
    ///
    /// | variable | meaning | default |
    /// | --- | --- | --- |
    /// | `SEEN_DB_PATH` | the file | `data/seen_ids.sqlite` |
    /// | `SEEN_TTL_DAYS` | whole days that a mark lasts | 7 |
    /// | `SQLITE_SYNCHRONOUS` | `NORMAL` or `FULL` | `NORMAL` |
    /// | `SQLITE_CACHE_SIZE` | pages, KiB when negative | 10000 |
    ///
    /// `SQLITE_MMAP_SIZE` and `SEEN_STORE_CACHE_*` are accepted, have no effect, and are logged.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`InvalidConfig`](crate::ErrorKind::InvalidConfig), naming the
    /// variable and its value, where one does not parse.
    pub fn from_env() -> Result<Self> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let (path, config) = read_environment(|name| std::env::var_os(name), names)?;
        Self::open_with(path, config)
    }

    /// A store that lives as long as its handles, for tests of programs that use one. Two calls give
    /// two stores.
    ///
    /// # Errors
    ///
    /// Only when SQLite fails to allocate.
    pub fn in_memory() -> Result<Self> {
        Ok(Self::on(Engine::in_memory(Config::default())?))
    }

    /// The same with settings of your own, such as a [`ManualClock`](crate::ManualClock).
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for settings that make no sense.
    pub fn in_memory_with(config: Config) -> Result<Self> {
        Ok(Self::on(Engine::in_memory(config)?))
    }

    fn on(engine: Engine) -> Self {
        let (scope, ttl) = (Scope::new("", &engine.hasher), engine.config.ttl);
        Self { engine: Arc::new(engine), scope, ttl }
    }

    /// A handle on the same store for the ids of another scope. Ids of different scopes have nothing
    /// to do with each other. Replaces the scope of this handle, does not nest in it.
    ///
    /// A scope longer than 65,536 bytes is told by the verbs, as
    /// [`InvalidId`](crate::ErrorKind::InvalidId).
    #[must_use]
    pub fn scope(&self, name: impl AsRef<str>) -> Self {
        Self { scope: Scope::new(name.as_ref(), &self.engine.hasher), ..self.clone() }
    }

    /// A handle on the same store whose marks last another time.
    #[must_use]
    pub fn ttl(&self, ttl: impl Into<Ttl>) -> Self {
        Self { ttl: ttl.into(), ..self.clone() }
    }

    /// Whether the id was marked and has not expired. **False on any error**, which is logged and
    /// counted in [`stats`](Self::stats): a repeated alert is better than a lost one. Use
    /// [`try_is_seen`](Self::try_is_seen) to tell the difference.
    ///
    /// Asking and then marking is a race between workers: [`check_and_mark`](Self::check_and_mark)
    /// decides both at once.
    ///
    /// A hit costs a lookup in memory, 0.1 to 0.3 µs. A miss asks the file whether another process
    /// has marked something since, about 1 µs more, except in [exclusive](Config::exclusive) mode.
    pub fn is_seen(&self, id: impl AsRef<[u8]>) -> bool {
        self.try_is_seen(id).unwrap_or_else(|e| {
            self.engine.failed_open.fetch_add(1, Relaxed);
            log::warn!("{}: answering \"not seen\" because of an error: {e}", self.engine.name);
            false
        })
    }

    /// Like [`is_seen`](Self::is_seen), with errors told apart from "not seen".
    ///
    /// # Errors
    ///
    /// [`InvalidId`](crate::ErrorKind::InvalidId), [`Closed`](crate::ErrorKind::Closed), and what
    /// reading the file can meet.
    pub fn try_is_seen(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        Ok(self.engine.live(id.key)?.is_some())
    }

    /// Marks the id as seen now, or refreshes it: a later expiry is kept, an earlier one never
    /// shortens it.
    ///
    /// Belongs *after* the send: an id that is marked before a send that then fails is lost. Where
    /// several workers may send the same id, use [`check_and_mark`](Self::check_and_mark).
    ///
    /// One commit, about 5 µs; with [`Synchronous::Full`](crate::Synchronous::Full) one fsync.
    ///
    /// # Errors
    ///
    /// On an error nothing was marked. [`InvalidId`](crate::ErrorKind::InvalidId);
    /// [`Busy`](crate::ErrorKind::Busy) and [`StorageFull`](crate::ErrorKind::StorageFull), which may
    /// be retried; [`ReadOnly`](crate::ErrorKind::ReadOnly),
    /// [`FileReplaced`](crate::ErrorKind::FileReplaced), [`Io`](crate::ErrorKind::Io),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn mark_seen(&self, id: impl AsRef<[u8]>) -> Result<()> {
        let id = self.scope.id(id.as_ref())?;
        self.engine.write(|transaction| {
            let now_ms = transaction.now_ms;
            self.mark(transaction, id, now_ms)
        })
    }

    /// Marks the id as seen at `seen_at`, expiring one TTL after that: perhaps at once. On a live id
    /// it moves `first_seen` only back, and `last_seen` and the expiry only forward.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn mark_seen_at(&self, id: impl AsRef<[u8]>, seen_at: SystemTime) -> Result<()> {
        let id = self.scope.id(id.as_ref())?;
        let seen_at_ms = to_ms(seen_at);
        self.engine.write(|transaction| self.mark(transaction, id, seen_at_ms))
    }

    fn mark(&self, transaction: &mut Transaction<'_>, id: Id<'_>, seen_at_ms: i64) -> Result<()> {
        let expires_at = self.ttl.expires_at(seen_at_ms);
        match transaction.live(id.key) {
            None => transaction.append(id, seen_at_ms, expires_at),
            Some(old) => {
                let suppressed = self.engine.suppressed.pending(old.seq);
                transaction.refresh(id, old, seen_at_ms, expires_at, suppressed)
            }
        }
    }

    /// Marks the id unless it is seen: of any number of threads and processes that call this at once,
    /// exactly one gets [`Verdict::New`]. A live id is not extended.
    ///
    /// Whoever gets `New` is the only one to handle the id. If that fails the id stays marked, and
    /// nobody will try again.
    ///
    /// A duplicate costs a lookup in memory, a new id one commit, as [`mark_seen`](Self::mark_seen).
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn check_and_mark(&self, id: impl AsRef<[u8]>) -> Result<Verdict> {
        let id = self.scope.id(id.as_ref())?;
        // Deciding under the write lock includes a look, so a miss need not make one first.
        if let Some(slot) = self.engine.recently_live(id.key)? {
            self.engine.suppressed.add(slot.seq);
            return Ok(Verdict::Duplicate);
        }
        self.engine.write(|transaction| self.check(transaction, id))
    }

    fn check(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<Verdict> {
        if let Some(slot) = transaction.live(id.key) {
            self.engine.suppressed.add(slot.seq);
            return Ok(Verdict::Duplicate);
        }
        transaction.append(id, transaction.now_ms, self.ttl.expires_at(transaction.now_ms))?;
        Ok(Verdict::New)
    }

    /// [`check_and_mark`](Self::check_and_mark) for many ids, with a verdict for each, in their order.
    /// Of equal ids in the batch the first is the new one.
    ///
    /// One commit for each 10,000 ids, at 0.5 to 1 µs an id. All ids are checked for validity before
    /// the first is marked.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen). Up to 10,000 ids are marked all or none. With more, an error
    /// in a later commit leaves the earlier ones marked, and their verdicts are lost; pass at most
    /// 10,000 at a time where that matters.
    pub fn check_and_mark_all<I>(&self, ids: I) -> Result<Vec<Verdict>>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let ids: Vec<_> = ids.into_iter().collect();
        let mut verdicts = Vec::with_capacity(ids.len());
        self.check_in_batches(&ids, |batch| verdicts.extend_from_slice(batch))?;
        Ok(verdicts)
    }

    /// Marks every id and alerts none: for the first run on a feed whose present items are not news.
    /// Returns how many were new.
    ///
    /// # Errors
    ///
    /// As [`check_and_mark_all`](Self::check_and_mark_all); calling it again goes on where it failed.
    pub fn seed<I>(&self, ids: I) -> Result<u64>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let ids: Vec<_> = ids.into_iter().collect();
        let mut new = 0;
        self.check_in_batches(&ids, |batch| {
            new += batch.iter().filter(|verdict| **verdict == Verdict::New).count() as u64;
        })?;
        Ok(new)
    }

    fn check_in_batches(
        &self,
        ids: &[impl AsRef<[u8]>],
        mut report: impl FnMut(&[Verdict]),
    ) -> Result<()> {
        self.engine.check_open()?;
        let ids: Vec<Id<'_>> =
            ids.iter().map(|id| self.scope.id(id.as_ref())).collect::<Result<_>>()?;
        for batch in ids.chunks(IDS_A_COMMIT) {
            let verdicts = self.engine.write(|transaction| {
                batch.iter().map(|id| self.check(transaction, *id)).collect::<Result<Vec<_>>>()
            })?;
            report(&verdicts);
        }
        Ok(())
    }

    /// Makes the id unseen; whether it was seen. Other processes notice within 100 ms.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn forget(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        self.engine.write(|transaction| match transaction.live(id.key) {
            Some(old) => transaction.forget(id, old).map(|()| true),
            None => Ok(false),
        })
    }

    /// What is known of the id, if it is seen: when it was first and last marked, when it expires, how
    /// often it was turned away.
    ///
    /// # Errors
    ///
    /// As [`try_is_seen`](Self::try_is_seen).
    pub fn get(&self, id: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        let id = self.scope.id(id.as_ref())?;
        self.engine.check_open()?;
        self.engine.with_journal(|writer| {
            if self.engine.look(writer)? == Begun::Busy {
                return Ok(None);
            }
            let now_ms = self.engine.clock.now_ms();
            let Some(slot) = self.engine.index.get(id.key).filter(|slot| slot.is_live(now_ms))
            else {
                return Ok(Some(None));
            };
            // Refreshed or forgotten by another process since the look: look again.
            let Some(row) = writer.journal.row(slot.seq)? else { return Ok(None) };
            let pending = self.engine.suppressed.pending(slot.seq);
            Ok(Some(Some(Entry {
                scope: id.scope.to_owned(),
                id: id.bytes.to_vec(),
                first_seen: from_ms(row.first_seen),
                last_seen: from_ms(row.last_seen),
                expires_at: row.expires_at.map(from_ms),
                suppressed: row.suppressed.cast_unsigned().saturating_add(pending.into()),
            })))
        })
    }
}

impl std::fmt::Debug for SeenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeenStore")
            .field("file", &self.engine.name)
            .field("scope", &self.scope.name())
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
