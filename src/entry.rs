//! Entries, and the filter that selects them for a listing.
//!
//! Plain values: nothing here refers to a store.

use std::time::{Duration, SystemTime};

use crate::clock::{duration_ms, from_ms};

/// The state of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Marked or confirmed, and not expired.
    Seen,
    /// Claimed, and the lease has not ended.
    InFlight,
    /// The last attempt was released, as if nothing had been tried; it may be claimed again.
    Released,
    /// The last attempt failed; it may be claimed again.
    Failed,
    /// The last attempt [failed finally](crate::Failure::is_final): a claim is refused. (An id that was tried or
    /// abandoned as often as the store allows is refused too, but the limit is the store's, so its state is the
    /// one of the last attempt.)
    GivenUp,
    /// The lease of the last attempt ran out and its holder said nothing: whether it did its work is not
    /// known. It may be claimed again.
    Abandoned,
    /// As abandoned, by a claim that is [held](crate::Abandoned::Hold): it may be claimed again only after
    /// [`resolve`](crate::SeenStore::resolve).
    Unresolved,
    /// A mark past its expiry that is not purged yet. A claim whose attempts are forgotten counts as expired too, and
    /// is not listed.
    Expired,
}

impl State {
    /// All states.
    pub const ALL: &[Self] = &[
        Self::Seen,
        Self::InFlight,
        Self::Released,
        Self::Failed,
        Self::GivenUp,
        Self::Abandoned,
        Self::Unresolved,
        Self::Expired,
    ];

    /// Returns whether the entry is of a claim that was not confirmed. An expired entry may be of either.
    pub fn is_claim(self) -> bool {
        !matches!(self, Self::Seen | Self::Expired)
    }
}

/// What a store knows about an id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The scope of the id.
    pub scope: String,
    /// The id, byte for byte.
    pub id: Vec<u8>,
    /// The state of the id.
    pub state: State,
    /// The earliest time that it was marked with; for a claim, the time of the claim.
    pub first_seen: SystemTime,
    /// The latest time that it was marked with or, in a sliding window, seen at: up to a sixteenth of the TTL
    /// behind. For a claim, the time of the claim.
    pub last_seen: SystemTime,
    /// When it stops being seen, or when the attempts of a claim are forgotten; `None` is never.
    pub expires_at: Option<SystemTime>,
    /// The end of the lease of a claim; after a failure, when it may be claimed again.
    pub lease_until: Option<SystemTime>,
    /// Who holds or last held the claim: the label of its [holder](crate::Config::holder).
    pub holder: Option<String>,
    /// Whether the claim binds after its lease has run out, until it is resolved:
    /// [`Abandoned::Hold`](crate::Abandoned::Hold).
    pub held: bool,
    /// How often it was claimed; 0 for an id that was only marked.
    pub attempts: u32,
    /// How many of the attempts before the last one were abandoned. 0 for a mark.
    pub abandoned: u32,
    /// The reason of the last failed attempt.
    pub last_error: Option<String>,
    /// The receipt that was stored when it was confirmed.
    pub receipt: Option<Vec<u8>>,
    /// The duplicate count: how many duplicates `check_and_mark` and `claim` have turned away. Best effort: a
    /// crash loses the counts since the last flush, and the counts of other processes show once they have
    /// flushed.
    pub duplicates: u64,
}

impl Entry {
    /// Returns the entry of an id that was seen once, at `seen_at`, and never expires. Set the fields that
    /// differ, and [`restore`](crate::SeenStore::restore) it.
    pub fn new(scope: impl Into<String>, id: impl Into<Vec<u8>>, seen_at: SystemTime) -> Self {
        Self {
            scope: scope.into(),
            id: id.into(),
            state: State::Seen,
            first_seen: seen_at,
            last_seen: seen_at,
            expires_at: None,
            lease_until: None,
            holder: None,
            held: false,
            attempts: 0,
            abandoned: 0,
            last_error: None,
            receipt: None,
            duplicates: 0,
        }
    }
}

/// The number of entries in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// The number of ids that are seen.
    pub seen: u64,
    /// The number of ids that are claimed and in flight.
    pub in_flight: u64,
    /// The number of ids whose last attempt was released.
    pub released: u64,
    /// The number of ids that failed in their last attempt and may be claimed again.
    pub failed: u64,
    /// The number of ids whose last attempt failed finally.
    pub given_up: u64,
    /// The number of ids whose last attempt ended with its lease, and that may be claimed again.
    pub abandoned: u64,
    /// The number of ids whose last attempt ended with its lease, and that wait for a decision.
    pub unresolved: u64,
    /// The number of expired marks and claims that are not purged yet. An id that was marked again since
    /// counts here too.
    pub expired: u64,
}

impl Counts {
    /// Returns the number of entries in this state.
    pub fn of(&self, state: State) -> u64 {
        let mut counts = *self;
        *counts.field(state)
    }

    pub(crate) fn add_one(&mut self, state: State) {
        *self.field(state) += 1;
    }

    pub(crate) fn add(&mut self, more: &Self) {
        for &state in State::ALL {
            *self.field(state) += more.of(state);
        }
    }

    fn field(&mut self, state: State) -> &mut u64 {
        match state {
            State::Seen => &mut self.seen,
            State::InFlight => &mut self.in_flight,
            State::Released => &mut self.released,
            State::Failed => &mut self.failed,
            State::GivenUp => &mut self.given_up,
            State::Abandoned => &mut self.abandoned,
            State::Unresolved => &mut self.unresolved,
            State::Expired => &mut self.expired,
        }
    }
}

/// Selects the entries of a listing. The default selects all but expired marks.
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
    /// Selects the entries of this scope. Without it, those of all scopes, whichever handle is asked.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Selects the entries in this state. Without it, all states, but not expired marks: to list those costs
    /// a scan of the whole file.
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Selects ids that begin with these bytes.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        prefix.as_ref().clone_into(&mut self.prefix);
        self
    }

    /// Selects entries that were last seen longer ago than this.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Selects entries that were last seen at most this long ago.
    pub fn newer_than(mut self, age: Duration) -> Self {
        self.newer_than = Some(age);
        self
    }

    /// Returns true when the filter selects entries in this state. Expired marks are selected only by their
    /// state.
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
