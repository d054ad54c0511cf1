//! The calls of tasks: what the queue does for them, and how they are told.
//!
//! Owns the way of a small call from its task to the queue and back, and that of a long call to a thread of the runtime.
//! What always holds: an answer that cannot be delivered, because the task has gone, is dropped, and a lease in it
//! releases its claim.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::AsyncSeenStore;
use super::blocking::blocking;
use crate::decide::claim::Change;
use crate::engine::task_queue::{Kind, TaskCall, Tasks};
use crate::error::{ErrorKind, Result};
use crate::id::Id;
use crate::item::Item;
use crate::journal::Transaction;
use crate::store::{Lease, OwnedId, SeenStore, end_of};

/// What becomes of a call in the queue whose task has gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfGone {
    /// It is done all the same.
    Done,
    /// It is left out, unless it was done already.
    LeftOut,
}

/// A decision about one id, made on the store's thread.
///
/// `look` may know the answer without the write lock; otherwise `decide` decides; `answer` makes what the task is told
/// of it.
pub(super) struct Deciding<T, A, L, D, F> {
    id: OwnedId,
    /// The same handle for calls that must not wait.
    trying: SeenStore,
    look: L,
    decide: D,
    answer: F,
    found: Option<T>,
    told: Option<oneshot::Sender<Result<A>>>,
    if_gone: IfGone,
    /// An error of a look has been counted already.
    error_is_counted: bool,
    is_large: bool,
    room: Option<OwnedSemaphorePermit>,
}

impl<T, A, L, D, F> TaskCall for Deciding<T, A, L, D, F>
where
    T: Send,
    A: Send,
    L: FnMut(&SeenStore, Id<'_>) -> Result<Option<T>> + Send,
    D: FnMut(&SeenStore, &mut Transaction<'_>, Id<'_>) -> Result<T> + Send,
    F: FnOnce(&SeenStore, Id<'_>, Result<T>) -> Result<A> + Send,
{
    fn is_wanted(&self) -> bool {
        self.if_gone == IfGone::Done || self.told.as_ref().is_some_and(|told| !told.is_closed())
    }

    fn look(&mut self) -> Result<bool> {
        let id = self.id.id();
        let looked = self.trying.engine.look_ahead([id.key].into_iter());
        let looked = looked.and_then(|()| (self.look)(&self.trying, id));
        self.found = looked.inspect_err(|e| self.error_is_counted = e.kind() != ErrorKind::Busy)?;
        Ok(self.found.is_some())
    }

    fn decide(&mut self, transaction: &mut Transaction<'_>) -> Result<()> {
        self.found = Some((self.decide)(&self.id.store, transaction, self.id.id())?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let Self {
            id,
            trying,
            look,
            decide,
            answer,
            found,
            told,
            if_gone,
            error_is_counted,
            room,
            ..
        } = *self;
        let found = found_or_counted(&id.store, found, outcome, error_is_counted);
        let answer = answer(&id.store, id.id(), found);
        let name = id.store.engine.name.clone();
        // Before the task is told, which may then drop its own handle and expect the store to be closed.
        drop((id, trying, look, decide));
        if let Some(Err(undelivered)) = told.map(|told| told.send(answer)) {
            match undelivered {
                Err(e) if if_gone == IfGone::Done => log::warn!(
                    file = name.as_str(), error:% = e, error_kind = e.kind().word();
                    "{name}: a call failed whose task has gone: {e}"
                ),
                // A lease in it is released.
                answer => drop(answer),
            }
        }
        // This wakes another task, whose waker may do anything.
        drop(room);
    }

    fn is_large(&self) -> bool {
        self.is_large
    }
}

/// Returns what was found, or the error, which is counted unless a look has done so.
fn found_or_counted<T>(
    store: &SeenStore,
    found: Option<T>,
    outcome: Result<()>,
    error_is_counted: bool,
) -> Result<T> {
    if let Err(e) = &outcome
        && !error_is_counted
    {
        store.engine.count_error(e);
    }
    outcome.map(|()| found.expect("a call that is done has an answer"))
}

/// A question that only reads, asked on the store's thread.
struct Looking<T, L> {
    store: SeenStore,
    trying: SeenStore,
    look: L,
    found: Option<T>,
    told: oneshot::Sender<Result<T>>,
    error_is_counted: bool,
    room: OwnedSemaphorePermit,
}

impl<T: Send, L: FnMut(&SeenStore) -> Result<T> + Send> TaskCall for Looking<T, L> {
    fn is_wanted(&self) -> bool {
        !self.told.is_closed()
    }

    fn look(&mut self) -> Result<bool> {
        let looked = (self.look)(&self.trying);
        self.found =
            Some(looked.inspect_err(|e| self.error_is_counted = e.kind() != ErrorKind::Busy)?);
        Ok(true)
    }

    fn decide(&mut self, _: &mut Transaction<'_>) -> Result<()> {
        unreachable!("a look always has its answer")
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let Self { store, trying, look, found, told, error_is_counted, room } = *self;
        let found = found_or_counted(&store, found, outcome, error_is_counted);
        // As above.
        drop((store, trying, look));
        let _ = told.send(found);
        drop(room);
    }
}

/// A look that finds nothing, for decisions that are always made under the write lock.
#[expect(clippy::unnecessary_wraps, reason = "other looks can fail")]
pub(super) fn no_look<T>(_: &SeenStore, _: Id<'_>) -> Result<Option<T>> {
    Ok(None)
}

impl AsyncSeenStore {
    /// Decides about an id on the store's thread, after a place in the queue was found.
    pub(super) async fn decide<T: Send + 'static, A: Send + 'static>(
        &self,
        id: Id<'_>,
        if_gone: IfGone,
        look: impl FnMut(&SeenStore, Id<'_>) -> Result<Option<T>> + Send + 'static,
        decide: impl FnMut(&SeenStore, &mut Transaction<'_>, Id<'_>) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&SeenStore, Id<'_>, Result<T>) -> Result<A> + Send + 'static,
    ) -> Result<A> {
        let room = self.tasks.room().await?;
        self.queue(id, Some(room), false, if_gone, look, decide, answer).await
    }

    /// Decides about an id that may be seen already, as `look` tells. While the queue is full it only looks at first: that
    /// has places of its own.
    pub(super) async fn decide_unless<T: Send + 'static, A: Send + 'static>(
        &self,
        id: Id<'_>,
        look: impl Fn(&SeenStore, Id<'_>) -> Result<Option<T>> + Clone + Send + 'static,
        decide: impl FnMut(&SeenStore, &mut Transaction<'_>, Id<'_>) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&SeenStore, Id<'_>, Result<T>) -> Result<A> + Send + 'static,
    ) -> Result<A> {
        let room = if let Some(room) = self.tasks.try_room()? {
            room
        } else {
            let (owned, ask) = (OwnedId::new(&self.store, id), look.clone());
            if let Some(found) = self.look(move |store| ask(store, owned.id())).await? {
                return answer(&self.store, id, Ok(found));
            }
            self.tasks.room().await?
        };
        self.queue(id, Some(room), false, IfGone::LeftOut, look, decide, answer).await
    }

    /// Decides about an id on the store's thread. Once polled, it is carried on, whatever becomes of the future: so ends
    /// a claim, which waits for no place in the queue.
    pub(super) async fn end<T: Send + 'static, A: Send + 'static>(
        &self,
        id: Id<'_>,
        is_large: bool,
        decide: impl FnMut(&SeenStore, &mut Transaction<'_>, Id<'_>) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&SeenStore, Id<'_>, Result<T>) -> Result<A> + Send + 'static,
    ) -> Result<A> {
        self.queue(id, None, is_large, IfGone::Done, no_look, decide, answer).await
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of a call")]
    async fn queue<T: Send + 'static, A: Send + 'static>(
        &self,
        id: Id<'_>,
        room: Option<OwnedSemaphorePermit>,
        is_large: bool,
        if_gone: IfGone,
        look: impl FnMut(&SeenStore, Id<'_>) -> Result<Option<T>> + Send + 'static,
        decide: impl FnMut(&SeenStore, &mut Transaction<'_>, Id<'_>) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&SeenStore, Id<'_>, Result<T>) -> Result<A> + Send + 'static,
    ) -> Result<A> {
        let (told, answered) = oneshot::channel();
        let call = Deciding {
            id: OwnedId::new(&self.store, id),
            trying: trying(&self.store),
            look,
            decide,
            answer,
            found: None,
            told: Some(told),
            if_gone,
            error_is_counted: false,
            is_large,
            room,
        };
        let kind = if call.room.is_some() { Kind::Usual } else { Kind::End };
        self.tasks.push(Box::new(call), kind, self.store.engine.busy_timeout());
        self.answer(answered).await
    }

    /// Asks on the store's thread. Nothing is written.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnMut(&SeenStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let room = self.tasks.look_room().await?;
        let (told, answered) = oneshot::channel();
        let call = Looking {
            store: self.store.clone(),
            trying: trying(&self.store),
            look,
            found: None,
            told,
            error_is_counted: false,
            room,
        };
        self.tasks.push(Box::new(call), Kind::Usual, self.store.engine.busy_timeout());
        self.answer(answered).await
    }

    /// Does long work on a thread of the runtime, when fewer than the most such calls run.
    pub(super) async fn long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SeenStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let running = self.tasks.long_call().await?;
        let store = self.clone();
        blocking(move || {
            let _running = running;
            work(&store.store)
        })?
        .await
    }

    pub(super) async fn answer<A>(&self, answered: oneshot::Receiver<Result<A>>) -> Result<A> {
        // A call that panicked while it was finished tells nothing.
        let answered = self.tasks.here(answered).await?;
        answered.unwrap_or_else(|_| Err(self.store.engine.abandoned_error()))
    }
}

/// Returns the same handle for calls that find another process in the way and are tried again by the queue.
fn trying(store: &SeenStore) -> SeenStore {
    SeenStore { engine: store.engine.trying_once(), ..store.clone() }
}

/// Releases the claim of a lease that was dropped, on the store's thread.
pub(super) fn release_later(tasks: &Tasks, store: &SeenStore, mut lease: Lease) {
    lease.begin_end();
    lease.stop_renewing();
    let item = Item::from(lease.id()).into_owned();
    let id = match store.id(&item) {
        Ok(id) => OwnedId::new(store, id),
        Err(e) => return lease.was_released(Err(e)),
    };
    let (token, timeout) = (lease.token(), store.engine.busy_timeout());
    let call = Deciding {
        id,
        trying: trying(store),
        look: no_look,
        decide: move |store: &SeenStore, transaction: &mut Transaction<'_>, id: Id<'_>| {
            store.change(transaction, id, token, &Change::Release)
        },
        answer: move |store: &SeenStore, id: Id<'_>, until_ms: Result<Option<i64>>| {
            let end = end_of(&Change::Release);
            let released = until_ms.and_then(|until_ms| store.changed(id, end, until_ms));
            lease.was_released(released.map(drop));
            Ok(())
        },
        found: None,
        told: None,
        if_gone: IfGone::Done,
        error_is_counted: false,
        is_large: false,
        room: None,
    };
    tasks.push(Box::new(call), Kind::End, timeout);
}
