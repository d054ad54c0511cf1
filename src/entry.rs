//! Entries, the filter that selects them, and the newest of a listing.
//!
//! Plain values: nothing here refers to a store.

#[cfg(feature = "serde")]
mod serialized;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::clock::{duration_ms, from_ms};
use crate::error::{Error, ErrorKind, Result};
use crate::item::{Digest, is_change};

/// The state of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
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

    /// Returns the state in the command's words: `seen`, `in-flight`, `released`, `failed`, `given-up`, `abandoned`,
    /// `unresolved`, `expired`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::InFlight => "in-flight",
            Self::Released => "released",
            Self::Failed => "failed",
            Self::GivenUp => "given-up",
            Self::Abandoned => "abandoned",
            Self::Unresolved => "unresolved",
            Self::Expired => "expired",
        }
    }

    /// Returns whether the entry is of a claim that was not confirmed. An expired entry may be of either.
    pub fn is_claim(self) -> bool {
        !matches!(self, Self::Seen | Self::Expired)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = Error;

    /// Reads one of the words of [`State::as_str`]. Fails with [`ErrorKind::InvalidConfig`].
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == text).ok_or_else(|| {
            let states: Vec<&str> = Self::ALL.iter().map(|state| state.as_str()).collect();
            let message = format!("{text:?} is no state; a state is one of {}", states.join(", "));
            Error::new(ErrorKind::InvalidConfig, message)
        })
    }
}

/// What a store knows about an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "serialized::EntryForm", into = "serialized::EntryForm")
)]
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
    /// The latest time that it was marked with, or turned away as a duplicate. Of the latter, as of `duplicates`, best
    /// effort. For a claim, the time of the claim.
    pub last_seen: SystemTime,
    /// When it stops being seen, or when the attempts of a claim are forgotten; `None` is never.
    pub expires_at: Option<SystemTime>,
    /// Until when it is kept after it stopped being seen, by the [retention](crate::SeenStore::retention) that it was
    /// marked with.
    pub retain_until: Option<SystemTime>,
    /// What its version or its payload is told by; for a claim, those that are being handled.
    pub digest: Option<Digest>,
    /// The claim of another version of it, which is being handled, failed, or waits to be resolved. `get` tells of it; a
    /// listing has both entries.
    pub change: Option<Box<Entry>>,
    /// What is known of the windows before this one, where its [retention](crate::SeenStore::retention) kept them.
    pub history: Option<History>,
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
    /// crash loses the counts since the last flush, the counts of other processes show once they have flushed, and between
    /// two flushes the duplicates of up to 65,536 ids are counted.
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
            retain_until: None,
            digest: None,
            change: None,
            history: None,
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

    /// Returns whether the entry is of this version of its id. One without a version, or with a payload, is of all.
    pub fn is_of(&self, version: impl Into<Option<Digest>>) -> bool {
        !is_change(version.into(), self.digest)
    }
}

/// What is known of an id from before its present window: it was seen, expired, and came again within its
/// [retention](crate::SeenStore::retention).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct History {
    /// How many windows there were before this one.
    pub windows: u64,
    /// How many duplicates were turned away in all of them.
    pub duplicates: u64,
    /// When the first of them began.
    pub first_seen: SystemTime,
    /// When the id was last seen in the last of them.
    pub last_seen: SystemTime,
}

impl History {
    /// Returns the history of an id that was seen in this many windows.
    pub fn new(
        windows: u64,
        duplicates: u64,
        first_seen: SystemTime,
        last_seen: SystemTime,
    ) -> Self {
        Self { windows, duplicates, first_seen, last_seen }
    }
}

/// The number of entries in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
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

/// Selects the entries of a listing, a count or a removal. The default selects all but expired marks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "serialized::FilterForm", into = "serialized::FilterForm")
)]
#[must_use]
pub struct Filter {
    pub(crate) scope: Option<String>,
    pub(crate) state: Option<State>,
    prefix: Vec<u8>,
    older_than: Option<Duration>,
    newer_than: Option<Duration>,
}

impl Filter {
    /// Selects the entries of this scope. Without it, a listing has those of all scopes, whichever handle is asked;
    /// [`count`](crate::SeenStore::count) and [`remove`](crate::SeenStore::remove) take those of the handle's scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Returns the scope that is selected.
    pub fn scope_name(&self) -> Option<&str> {
        self.scope.as_deref()
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
        self.scope.as_ref().is_none_or(|scope| *scope == entry.scope)
            && self.state.is_none_or(|state| state == entry.state)
            && self.admits_id(&entry.id, entry.last_seen, now_ms)
    }

    /// Returns true when the filter selects this id with this age, in a scope and a state that it admits.
    pub(crate) fn admits_id(&self, id: &[u8], last_seen: SystemTime, now_ms: i64) -> bool {
        let since = |age: Duration| from_ms(now_ms.saturating_sub(duration_ms(age)));
        id.starts_with(&self.prefix)
            && self.older_than.is_none_or(|age| last_seen < since(age))
            && self.newer_than.is_none_or(|age| last_seen >= since(age))
    }
}

/// Returns the `count` entries that were last seen, the newest first. Of entries of the same time, the one that
/// was listed last comes first. A mark or a claim that is listed twice is returned once, as it was seen last.
pub(crate) fn newest(
    listing: impl Iterator<Item = Result<Entry>>,
    count: usize,
) -> Result<Vec<Entry>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut listed = Vec::new();
    for (place, entry) in listing.enumerate() {
        listed.push((place, entry?));
        if listed.len() >= count.saturating_mul(2).max(1_000) {
            keep_newest(&mut listed, count);
        }
    }
    keep_newest(&mut listed, count);
    Ok(listed.into_iter().map(|(_, entry)| entry).collect())
}

fn keep_newest(listed: &mut Vec<(usize, Entry)>, count: usize) {
    listed.sort_unstable_by_key(|(place, entry)| Reverse((entry.last_seen, *place)));
    let mut ids = HashSet::new();
    listed.retain(|(_, entry)| {
        let name = (entry.scope.clone(), entry.id.clone(), entry.state.is_claim());
        ids.len() < count && ids.insert(name)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(id: &str, second: u64) -> Entry {
        Entry::new("", id, SystemTime::UNIX_EPOCH + Duration::from_secs(second))
    }

    fn ids(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| str::from_utf8(&entry.id).unwrap()).collect()
    }

    #[test]
    fn the_newest_entries_come_first_and_each_id_once() {
        let listing = [at("a", 5), at("b", 9), at("c", 1), at("d", 9), at("a", 7), at("e", 8)];
        let newest = newest(listing.into_iter().map(Ok), 4).unwrap();
        assert_eq!(ids(&newest), ["d", "b", "e", "a"]);
        assert_eq!(newest[3].last_seen, at("a", 7).last_seen);
    }

    #[test]
    fn of_a_long_listing_no_more_entries_are_kept_than_needed() {
        // Pseudo-random times, of which the greatest are known.
        let listing = (0..10_007).map(|n| at(&n.to_string(), n * 5_003 % 10_007));
        let newest = newest(listing.map(Ok), 600).unwrap();
        let expected: Vec<_> = (0..600).map(|n| at("", 10_006 - n).last_seen).collect();
        assert_eq!(newest.iter().map(|entry| entry.last_seen).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_error_of_the_listing_is_returned() {
        let error = || Err(crate::error::Error::try_again());
        assert!(newest([Ok(at("a", 1)), error()].into_iter(), 1).is_err());
        assert_eq!(newest([error()].into_iter(), 0).unwrap(), []);
    }
}
