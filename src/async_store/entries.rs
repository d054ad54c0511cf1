//! Looking entries up, and listing them, for tasks.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::task::coop::consume_budget;

use super::AsyncSeenStore;
use super::blocking::{Blocking, blocking};
use crate::entry::{Entry, Filter};
use crate::error::{Error, Result};
use crate::item::Item;
use crate::store::{Entries, OwnedId};

/// The entries of a store, in no particular order: see [`AsyncSeenStore::entries`]. Ends after the first error.
#[must_use = "a listing reads nothing until it is asked"]
pub struct AsyncEntries {
    /// `None` while a page is being read.
    entries: Option<Entries>,
    /// A page that is being read: the listing, and how that ended.
    reading: Option<Blocking<(Entries, Result<()>)>>,
    // Dropped last: it has a handle too, so a listing never has the last one.
    store: AsyncSeenStore,
}

impl AsyncSeenStore {
    /// Returns what is known about the id: see [`SeenStore::get`](crate::SeenStore::get).
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`](crate::SeenStore::try_is_seen).
    pub async fn get<'a>(&self, id: impl Into<Item<'a>>) -> Result<Option<Entry>> {
        let item = id.into();
        let owned = OwnedId::new(&self.store, self.store.id(&item)?);
        self.look(move |store| store.known(owned.id())).await
    }

    /// Returns the marks and claims of all scopes that the filter selects: see
    /// [`SeenStore::entries`](crate::SeenStore::entries). Each page of 500 rows is a long call.
    ///
    /// ```
    /// use seen_store::{AsyncSeenStore, Filter, State};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> seen_store::Result<()> {
    /// # let store = AsyncSeenStore::in_memory()?;
    /// let mut failed = store.entries(Filter::default().state(State::Failed));
    /// while let Some(entry) = failed.next().await {
    ///     let entry = entry?;
    ///     println!("{:?} failed {} times", String::from_utf8_lossy(&entry.id), entry.attempts);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn entries(&self, filter: Filter) -> AsyncEntries {
        let entries = Some(self.store.entries(filter));
        AsyncEntries { entries, reading: None, store: self.clone() }
    }
}

impl AsyncEntries {
    /// Returns the next entry. A future that is dropped loses none: the next call goes on where it was.
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`](crate::SeenStore::try_is_seen).
    pub async fn next(&mut self) -> Option<Result<Entry>> {
        consume_budget().await;
        if let Some(entry) = self.entries.as_mut().and_then(Entries::next_of_page) {
            return Some(Ok(entry));
        }
        if self.reading.is_none() && self.entries.is_some() {
            // A listing that is not polled has no place among the long calls.
            let running = match self.store.tasks.long_call().await {
                Ok(running) => running,
                Err(e) => return Some(Err(self.fail(e))),
            };
            let mut entries = self.entries.take()?;
            let reading = blocking(move || {
                let _running = running;
                let filled = entries.fill();
                Ok((entries, filled))
            });
            match reading {
                Ok(reading) => self.reading = Some(reading),
                Err(e) => return Some(Err(self.fail(e))),
            }
        }
        // Not kept while it is polled: after a panic in it the listing has ended.
        let page = poll_fn(|context| {
            let Some(mut reading) = self.reading.take() else { return Poll::Ready(None) };
            let page = Pin::new(&mut reading).poll(context).map(Some);
            if page.is_pending() {
                self.reading = Some(reading);
            }
            page
        });
        let (mut entries, filled) = match page.await? {
            Ok(page) => page,
            Err(e) => return Some(Err(self.fail(e))),
        };
        let entry = entries.next_of_page();
        self.entries = Some(entries);
        match filled {
            Ok(()) => entry.map(Ok),
            Err(e) => Some(Err(e)),
        }
    }

    /// Ends the listing.
    fn fail(&mut self, e: Error) -> Error {
        self.entries = None;
        e
    }

    /// Returns the `count` entries that were last seen, the newest first: see [`Entries::newest`].
    ///
    /// # Errors
    ///
    /// Those of [`SeenStore::try_is_seen`](crate::SeenStore::try_is_seen).
    pub async fn newest(self, count: usize) -> Result<Vec<Entry>> {
        let Self { store, entries, .. } = self;
        store.long(move |_| entries.map_or(Ok(Vec::new()), |entries| entries.newest(count))).await
    }
}

impl fmt::Debug for AsyncEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncEntries").field("entries", &self.entries).finish_non_exhaustive()
    }
}
