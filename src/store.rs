//! The public verbs.
//!
//! Owns the handle: a scope, a TTL and a window over a shared engine. What always holds: a verb validates its
//! ids before anything is written, and decides under the write lock. Knows nothing of SQL.

pub(crate) mod engine;
mod entries;
mod restore;
mod upkeep;

pub use entries::{Entries, Filter};
pub use restore::SeedFile;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use crate::answer::{Entry, Verdict};
use crate::clock::to_ms;
use crate::config::{Config, Lifetime, Ttl, Window, read_environment};
use crate::error::Result;
use crate::id::{Id, Scope};
use crate::index::Slot;
use crate::journal::claims::Confirmed;
use crate::journal::{Begun, Transaction};
use crate::maintenance::PurgeThread;
use engine::{Engine, Owner};

/// How many ids `check_and_mark_all` and `seed` mark in one commit.
const IDS_A_COMMIT: usize = 10_000;

/// A durable set of ids that were handled before.
///
/// A store is a cheap handle: clone it, send it to other threads, share it. All handles that were made
/// from one `open` use one connection and one index in memory. Several stores, in one process or in
/// many, may be open on one file; each sees the others' marks.
///
/// Close all stores and readers before forking, or fork and exec: a child that was forked while its parent
/// had any open, also one in memory, gets [`ErrorKind::Forked`](crate::ErrorKind::Forked) from every store
/// and reader that it inherited, and from every attempt to open one.
///
/// A [`Clock`](crate::Clock) and a logger must not call the store that reads or tells them: the store does both
/// with its locks held, and such a call waits for itself for ever. A logger that writes to a store leaves
/// out the messages whose targets begin with `seen_store`, or hands them to a thread of its own.
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
    pub(crate) engine: Arc<Owner>,
    pub(crate) scope: Scope,
    pub(crate) lifetime: Lifetime,
}

const _: () = {
    const fn managed_state<T: Send + Sync + Clone + UnwindSafe + RefUnwindSafe + 'static>() {}
    managed_state::<SeenStore>();
};

/// A panic leaves a store whole, also one in the caller's clock or ids: the locks know no poison, a
/// transaction that was under way is rolled back, and the index changes only after its commit.
impl UnwindSafe for SeenStore {}
/// See [`UnwindSafe`](#impl-UnwindSafe-for-SeenStore).
impl RefUnwindSafe for SeenStore {}

impl SeenStore {
    /// Opens the store at `path` with the default [`Config`]: a TTL of 7 days. Creates the file (mode
    /// 0600) and its folders (mode 0700) where they are missing.
    ///
    /// The file must have one name. A hard link or a bind mount of the single file gives it another, and a
    /// store that is opened by that has a log of its own: so mount the folder into a container, not the
    /// file, and use [`backup`](Self::backup) instead of hard links. A link that is made while a store is
    /// open is logged.
    ///
    /// Reads the whole file once to build the index: about 0.25 µs an id.
    ///
    /// # Errors
    ///
    /// Whatever cannot be a store is refused and left as it was:
    /// [`InvalidPath`](crate::ErrorKind::InvalidPath) for a folder, a symbolic link (also in the place of
    /// a side file), a file with a second name, `:memory:` or a `file:` URI; [`NotADatabase`](crate::ErrorKind::NotADatabase),
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
        store.start_purge_thread()?;
        Ok(store)
    }

    fn start_purge_thread(&self) -> Result<()> {
        let config = &self.engine.config;
        if let (true, Some(interval)) = (config.purge_thread, config.purge_interval) {
            let thread = PurgeThread::start(self.engine.engine(), interval)?;
            *self.engine.purge_thread.lock() = Some(thread);
        }
        Ok(())
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
        let store = Self::on(Engine::in_memory(config)?);
        store.start_purge_thread()?;
        Ok(store)
    }

    fn on(engine: Engine) -> Self {
        let lifetime = Lifetime { ttl: engine.config.ttl, window: engine.config.window };
        let scope = Scope::new("", &engine.hasher);
        Self { engine: Arc::new(Owner::new(engine)), scope, lifetime }
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
        let lifetime = Lifetime { ttl: ttl.into(), ..self.lifetime };
        Self { lifetime, ..self.clone() }
    }

    /// A handle on the same store with another [`Window`]: whether sightings keep an id seen.
    #[must_use]
    pub fn window(&self, window: Window) -> Self {
        let lifetime = Lifetime { window, ..self.lifetime };
        Self { lifetime, ..self.clone() }
    }

    /// Whether the id was marked and has not expired. **False on any error**, which is logged and
    /// counted in [`stats`](Self::stats): a repeated alert is better than a lost one. Use
    /// [`try_is_seen`](Self::try_is_seen) to tell the difference.
    ///
    /// Asking and then marking is a race between workers: [`check_and_mark`](Self::check_and_mark)
    /// decides both at once.
    ///
    /// A hit costs a lookup in memory, 0.15 to 0.4 µs. A miss asks the file whether another process
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
    /// One commit, about 6 µs; with [`Synchronous::Full`](crate::Synchronous::Full) one fsync.
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
        self.write_one(id, |store, transaction, id| store.mark(transaction, id, transaction.now_ms))
    }

    /// Marks the id as seen at `seen_at`, expiring one TTL after that: perhaps at once. On a live id
    /// it moves `first_seen` only back, and `last_seen` and the expiry only forward. The mark of an id that
    /// a worker has claimed lasts until its lease ends at least; one that would expire at once leaves the
    /// claim as it is.
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn mark_seen_at(&self, id: impl AsRef<[u8]>, seen_at: SystemTime) -> Result<()> {
        let id = self.scope.id(id.as_ref())?;
        let seen_at_ms = to_ms(seen_at);
        self.write_one(id, move |store, transaction, id| store.mark(transaction, id, seen_at_ms))
    }

    fn mark(&self, transaction: &mut Transaction<'_>, id: Id<'_>, seen_at_ms: i64) -> Result<()> {
        if let Some(old) = transaction.live(id.key)? {
            return self.refresh(transaction, id, old, seen_at_ms);
        }
        let mut expires_at = self.lifetime.expires_at(seen_at_ms, seen_at_ms);
        let Some(claim) = transaction.claim(id)? else {
            return transaction.append(id, seen_at_ms, expires_at);
        };
        if claim.is_in_flight(transaction.now_ms) {
            if expires_at.is_some_and(|at| at <= transaction.now_ms) {
                // Expired at once: the id is not seen, and still its holder's. Nothing is written: under a
                // clock that is set back a mark would live beside the claim.
                return Ok(());
            }
            // No other worker is handed the id before the lease ends.
            expires_at = expires_at.map(|at| at.max(claim.lease_until));
        }
        // The holder's token stays with the mark, so that its confirm will succeed.
        let confirmed = Confirmed {
            token: claim.token,
            attempts: claim.attempts,
            last_error: claim.last_error.as_deref(),
            receipt: None,
        };
        transaction.append_confirmed(id, seen_at_ms, seen_at_ms, expires_at, confirmed)
    }

    /// Takes note of a live id's being seen at `seen_at_ms`, within the window's maximum age.
    fn refresh(
        &self,
        transaction: &mut Transaction<'_>,
        id: Id<'_>,
        old: Slot,
        seen_at_ms: i64,
    ) -> Result<()> {
        let expires_at = self.expiry_after(transaction, old, seen_at_ms)?;
        let suppressed = self.engine.suppressed.pending(old.seq);
        transaction.refresh(id, old, seen_at_ms, expires_at, suppressed)
    }

    /// When a live id that is seen at `seen_at_ms` too expires, as far as this handle is concerned.
    fn expiry_after(
        &self,
        transaction: &mut Transaction<'_>,
        old: Slot,
        seen_at_ms: i64,
    ) -> Result<Option<i64>> {
        let first_ms = match self.lifetime.window {
            Window::Sliding { max_age: Some(_) } => {
                transaction.row(old)?.map_or(seen_at_ms, |row| row.first_seen.min(seen_at_ms))
            }
            _ => seen_at_ms,
        };
        Ok(self.lifetime.expires_at(seen_at_ms, first_ms))
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
        if self.is_duplicate(id)? {
            return Ok(Verdict::Duplicate);
        }
        self.write_one(id, Self::check)
    }

    /// Decides one small thing about an id under the write lock, together with whoever else comes at
    /// this moment.
    pub(crate) fn write_one<T: Send + 'static>(
        &self,
        id: Id<'_>,
        decide: impl FnMut(&Self, &mut Transaction<'_>, Id<'_>) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let mut direct = decide.clone();
        self.engine.write_one(
            |transaction| direct(self, transaction, id),
            || {
                let (store, bytes, key, mut decide) =
                    (self.clone(), id.bytes.to_vec(), id.key, decide);
                move |transaction: &mut Transaction<'_>| {
                    let id = Id { scope: store.scope.name(), bytes: &bytes, key };
                    decide(&store, transaction, id)
                }
            },
        )
    }

    /// Whether the index alone can turn the id away; then it is counted.
    pub(crate) fn is_duplicate(&self, id: Id<'_>) -> Result<bool> {
        // Deciding under the write lock includes a look, so a miss need not make one first.
        let now_ms = self.engine.clock.now_ms();
        let Some(slot) = self.engine.recently_live(id.key, now_ms)? else { return Ok(false) };
        if self.wants_extension(slot, now_ms)? {
            return Ok(false);
        }
        self.engine.turned_away(slot.seq)?;
        Ok(true)
    }

    fn check(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<Verdict> {
        if self.sighted(transaction, id)? {
            return Ok(Verdict::Duplicate);
        }
        let now_ms = transaction.now_ms;
        let expires_at = self.lifetime.expires_at(now_ms, now_ms);
        match transaction.claim(id)? {
            None => transaction.append(id, now_ms, expires_at)?,
            Some(claim) if claim.is_in_flight(now_ms) => return Ok(Verdict::InFlight),
            Some(claim) => {
                // Without its token: whoever let the lease run out is not the one to handle the id.
                let confirmed = Confirmed {
                    attempts: claim.attempts,
                    last_error: claim.last_error.as_deref(),
                    ..Confirmed::default()
                };
                transaction.append_confirmed(id, now_ms, now_ms, expires_at, confirmed)?;
            }
        }
        Ok(Verdict::New)
    }

    /// Whether the id is live; then the sighting is counted, and extends its mark in a sliding window.
    pub(crate) fn sighted(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<bool> {
        let Some(slot) = transaction.live(id.key)? else { return Ok(false) };
        self.engine.turned_away(slot.seq)?;
        if self.wants_extension(slot, transaction.now_ms)? {
            let expires_at = self.expiry_after(transaction, slot, transaction.now_ms)?;
            if expires_at.is_none_or(|new| slot.expires_at.is_some_and(|old| old < new)) {
                self.refresh(transaction, id, slot, transaction.now_ms)?;
            } else if let Window::Sliding { max_age: Some(age) } = self.lifetime.window {
                // At its maximum age: writing would change nothing.
                self.engine.capped.add(slot.seq, age);
            }
        }
        Ok(true)
    }

    /// Whether a sighting of a live id is to be written down.
    fn wants_extension(&self, slot: Slot, now_ms: i64) -> Result<bool> {
        if !self.lifetime.wants_more(slot.expires_at, now_ms) {
            return Ok(false);
        }
        match self.lifetime.window {
            Window::Sliding { max_age: Some(age) } => Ok(!self.engine.is_capped(slot.seq, age)?),
            _ => Ok(true),
        }
    }

    /// [`check_and_mark`](Self::check_and_mark) for many ids, with a verdict for each, in their order.
    /// Of equal ids in the batch the first is the new one.
    ///
    /// One commit for each 10,000 ids, at about 1.2 µs an id. All ids are checked for validity before
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
        self.decide_in_batches(&ids, Self::check)
    }

    /// Marks every id and alerts none: for the first run on a feed whose present items are not news.
    /// Returns how many were not seen before. Those that were claimed are among them: they are marked as
    /// by [`mark_seen`](Self::mark_seen), and a holder's confirm still succeeds.
    ///
    /// # Errors
    ///
    /// As [`check_and_mark_all`](Self::check_and_mark_all); calling it again goes on where it failed.
    pub fn seed<I>(&self, ids: I) -> Result<u64>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let ids: Vec<_> = ids.into_iter().collect();
        let seeded = self.decide_in_batches(&ids, Self::seed_one)?;
        Ok(seeded.into_iter().filter(|is_new| *is_new).count() as u64)
    }

    /// Whether the id was not seen before.
    fn seed_one(&self, transaction: &mut Transaction<'_>, id: Id<'_>) -> Result<bool> {
        if self.sighted(transaction, id)? {
            return Ok(false);
        }
        self.mark(transaction, id, transaction.now_ms)?;
        Ok(true)
    }

    fn decide_in_batches<T>(
        &self,
        ids: &[impl AsRef<[u8]>],
        decide: impl Fn(&Self, &mut Transaction<'_>, Id<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let ids: Vec<Id<'_>> =
            ids.iter().map(|id| self.scope.id(id.as_ref())).collect::<Result<_>>()?;
        self.in_batches(&ids, |transaction, batch| {
            batch.iter().map(|id| decide(self, transaction, *id)).collect()
        })
    }

    /// Decides on many things, in one commit for each [`IDS_A_COMMIT`] of them.
    pub(crate) fn in_batches<T, A>(
        &self,
        all: &[T],
        mut decide: impl FnMut(&mut Transaction<'_>, &[T]) -> Result<Vec<A>>,
    ) -> Result<Vec<A>> {
        self.engine.check_open()?;
        let mut answers = Vec::with_capacity(all.len());
        for batch in all.chunks(IDS_A_COMMIT) {
            answers.extend(self.engine.write(|transaction| decide(transaction, batch))?);
        }
        Ok(answers)
    }

    /// Makes the id unseen and drops any claim on it; whether there was anything to forget. Other
    /// processes notice within 100 ms; a worker that had claimed it gets
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost).
    ///
    /// # Errors
    ///
    /// As [`mark_seen`](Self::mark_seen).
    pub fn forget(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = self.scope.id(id.as_ref())?;
        self.write_one(id, |_, transaction, id| match transaction.live(id.key)? {
            Some(old) => transaction.forget(id, old).map(|()| true),
            None if transaction.claim(id)?.is_some() => transaction.forget_claim(id).map(|()| true),
            None => Ok(false),
        })
    }

    /// What is known of the id, if it is seen or was claimed: since when, until when, how often it was
    /// turned away, how often it was tried and what came of it, its receipt.
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
            if let Some(slot) = self.engine.index.get(id.key).filter(|slot| slot.is_live(now_ms)) {
                if let Some(row) = self.engine.row_of(writer, id.key, slot.seq)? {
                    return Ok(Some(Some(self.engine.entry(slot.seq, row, now_ms))));
                }
                if !writer.journal.is_current()? {
                    // Refreshed or forgotten since the look, or the file was restored: look again.
                    return Ok(None);
                }
                // Purged by a process whose clock is ahead: gone for everybody else.
                self.engine.index.remove(id.key, slot.seq);
            }
            let claim = writer.journal.claim(id, now_ms)?;
            if claim.is_none() && !writer.journal.is_current()? {
                return Ok(None); // It may have been confirmed between the look and the claim.
            }
            Ok(Some(claim.map(|claim| claim.entry(id.scope, id.bytes, now_ms))))
        })
    }
}

impl std::fmt::Debug for SeenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeenStore")
            .field("file", &self.engine.name)
            .field("scope", &self.scope.name())
            .field("ttl", &self.lifetime.ttl)
            .field("window", &self.lifetime.window)
            .finish_non_exhaustive()
    }
}
