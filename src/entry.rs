//! What is known of an id, and which of them a listing is to hold.
//!
//! Plain values: nothing here refers to a store.

use std::time::{Duration, SystemTime};

use crate::clock::{duration_ms, from_ms};

/// What has become of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Marked or confirmed, and not expired.
    Seen,
    /// Claimed, and the lease runs.
    InFlight,
    /// An attempt failed and none has succeeded since; it may be claimed again.
    Failed,
    /// No longer in force and not purged yet: a mark past its expiry, or a claim that was released or
    /// whose lease ran out.
    Expired,
}

/// What a store knows of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The scope that the id lives in.
    pub scope: String,
    /// The id, byte for byte.
    pub id: Vec<u8>,
    /// What has become of it.
    pub state: State,
    /// The earliest time it was marked with; of a claim, when it was claimed.
    pub first_seen: SystemTime,
    /// The latest time it was marked with or, in a sliding window, seen at: up to a sixteenth of the
    /// TTL behind. Of a claim, when it was claimed.
    pub last_seen: SystemTime,
    /// When it stops being seen, or the claim's attempts are forgotten; `None` is never.
    pub expires_at: Option<SystemTime>,
    /// While it is in flight, when the lease ends; after a failure, when it may be claimed again.
    pub lease_until: Option<SystemTime>,
    /// How often it was claimed; 0 for one that was only marked.
    pub attempts: u32,
    /// Why the last failed attempt failed.
    pub last_error: Option<String>,
    /// What was stored when it was confirmed.
    pub receipt: Option<Vec<u8>>,
    /// How many duplicates were turned away by `check_and_mark` and `claim`. Best effort: a crash loses what was
    /// counted since the last flush, and counts of other processes show once they have flushed.
    pub suppressed: u64,
}

impl Entry {
    /// An id that was seen once, at `seen_at`, and is never to expire. Set the fields that are to be
    /// otherwise, and [`restore`](crate::SeenStore::restore) it.
    pub fn new(scope: impl Into<String>, id: impl Into<Vec<u8>>, seen_at: SystemTime) -> Self {
        Self {
            scope: scope.into(),
            id: id.into(),
            state: State::Seen,
            first_seen: seen_at,
            last_seen: seen_at,
            expires_at: None,
            lease_until: None,
            attempts: 0,
            last_error: None,
            receipt: None,
            suppressed: 0,
        }
    }
}

/// Which entries to list. The default lists all.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Filter {
    scope: Option<String>,
    pub(crate) state: Option<State>,
    prefix: Vec<u8>,
    older_than: Option<Duration>,
    newer_than: Option<Duration>,
}

impl Filter {
    /// Only this scope's. Without it, all scopes', whatever handle is asked.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Only those in this state. Without it, all states but [`State::Expired`] marks, which cost a
    /// walk over the whole file.
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Only ids that begin with these bytes.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        prefix.as_ref().clone_into(&mut self.prefix);
        self
    }

    /// Only those last seen longer ago than this.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Only those last seen at most this long ago.
    pub fn newer_than(mut self, age: Duration) -> Self {
        self.newer_than = Some(age);
        self
    }

    /// Whether entries in this state are asked for. Expired marks are only where nothing else is.
    pub(crate) fn admits_state(&self, state: State) -> bool {
        self.state == Some(state) || self.state.is_none() && state != State::Expired
    }

    pub(crate) fn admits(&self, entry: &Entry, now_ms: i64) -> bool {
        let since = |age: Duration| from_ms(now_ms.saturating_sub(duration_ms(age)));
        self.scope.as_ref().is_none_or(|scope| *scope == entry.scope)
            && self.state.is_none_or(|state| state == entry.state)
            && entry.id.starts_with(&self.prefix)
            && self.older_than.is_none_or(|age| entry.last_seen < since(age))
            && self.newer_than.is_none_or(|age| entry.last_seen >= since(age))
    }
}
