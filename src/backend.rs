//! What a store on another engine is made of. For the crate `seen-cluster`; not for programs that use a store.
//!
//! Owns the door to the decisions: a [`Policy`] decides on a [`Record`] what a verb of the file's store decides on its rows.
//! What always holds: nothing is decided here, and a decision changes nothing but the record in the caller's hands. The
//! caller writes it if it is unchanged where it came from, and decides again otherwise. Knows no server. It may change in
//! any release.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, SystemTime};

use crate::clock::{duration_ms, from_ms, to_ms};
use crate::config::{Abandoned, Config, Ttl, Window, check_retention};
use crate::decide::claim::{self, Change, Previous};
use crate::decide::lifetime::Lifetime;
use crate::decide::record::Decision;
pub use crate::decide::record::{Record, TurnedAway};
pub use crate::decide::verbs::Restored;
use crate::decide::verbs::{
    Confirmed, Decided, Observation, Ownership, Resolution, Verbs, Verdict, check_notes, prolong,
};
use crate::engine::counters::{Activity, Counters, Event};
use crate::entry::{Entry, Filter};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, KeyHasher, Scope};
use crate::item::Item;
use crate::journal::selection::Selection;
pub use crate::store::Granter;
pub use crate::store::in_task::{TaskLease, work_once};
use crate::store::{
    Claim, Failure, Known, Lease, Once, RENEWED_AT_MOST, Refused, check_receipt, checked_lease,
    count_claim, end_of, event_of, failing,
};
use crate::token::{Token, Tokens};

/// What a decision came to.
#[derive(Debug)]
#[must_use]
pub struct Outcome<T> {
    /// The answer of the verb.
    pub answer: T,
    /// Whether the record has to be written for that.
    pub is_changed: bool,
    /// What was turned away, to be counted once the answer stands.
    pub turned_away: TurnedAway,
}

/// A claim that was granted, and is written with the record.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The token of the claim.
    pub token: Token,
    /// The number of the attempt.
    pub attempt: u32,
    /// When the lease ends, in unix milliseconds.
    pub until_ms: i64,
    /// How the attempt before ended.
    pub previous: Previous,
    /// Whether the id is seen in another version.
    pub is_change: bool,
}

/// What all handles of a store share.
struct Shared {
    name: String,
    config: Config,
    holder: Arc<str>,
    tokens: Tokens,
    hasher: KeyHasher,
}

/// How a handle decides: its scope and settings.
#[derive(Clone)]
pub struct Policy {
    shared: Arc<Shared>,
    scope: Scope,
    lifetime: Lifetime,
    abandoned: Abandoned,
    renewing: Option<Duration>,
    waiting: Duration,
    busy_timeout: Duration,
}

impl Policy {
    /// Returns the policy of a new store. `name` names it in messages.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for settings that make no sense, or that only a store in a file can follow.
    pub fn new(name: String, config: Config) -> Result<Self> {
        config.validate_for_servers(&name)?;
        let lifetime =
            Lifetime { ttl: config.ttl, window: config.window, retention: config.retention };
        let hasher = KeyHasher::random();
        let (scope, holder) = (Scope::new("", &hasher), config.holder_label());
        let (abandoned, busy_timeout) = (config.abandoned, config.busy_timeout);
        let shared = Shared { name, config, holder, tokens: Tokens::new(), hasher };
        Ok(Self {
            shared: Arc::new(shared),
            scope,
            lifetime,
            abandoned,
            renewing: None,
            waiting: Duration::ZERO,
            busy_timeout,
        })
    }

    /// Returns the policy of a handle on another scope.
    #[must_use]
    pub fn scope(&self, name: &str) -> Self {
        Self { scope: Scope::new(name, &self.shared.hasher), ..self.clone() }
    }

    /// Returns the policy with another TTL.
    #[must_use]
    pub fn ttl(&self, ttl: Ttl) -> Self {
        Self { lifetime: Lifetime { ttl, ..self.lifetime }, ..self.clone() }
    }

    /// Returns the policy with another window.
    #[must_use]
    pub fn window(&self, window: Window) -> Self {
        Self { lifetime: Lifetime { window, ..self.lifetime }, ..self.clone() }
    }

    /// Returns the policy with another retention.
    #[must_use]
    pub fn retention(&self, retention: Option<Duration>) -> Self {
        Self { lifetime: Lifetime { retention, ..self.lifetime }, ..self.clone() }
    }

    /// Returns the policy with another fate of abandoned claims.
    #[must_use]
    pub fn abandoned(&self, abandoned: Abandoned) -> Self {
        Self { abandoned, ..self.clone() }
    }

    /// Returns the policy whose leases renew themselves for up to this long.
    #[must_use]
    pub fn renewing(&self, at_most: Duration) -> Self {
        Self { renewing: Some(at_most), ..self.clone() }
    }

    /// Returns the policy whose claims wait up to this long.
    #[must_use]
    pub fn waiting(&self, at_most: Duration) -> Self {
        Self { waiting: at_most, ..self.clone() }
    }

    /// Returns the policy whose calls take up to this long.
    #[must_use]
    pub fn busy_timeout(&self, busy_timeout: Duration) -> Self {
        Self { busy_timeout, ..self.clone() }
    }

    /// Returns the name of the store.
    pub fn store_name(&self) -> &str {
        &self.shared.name
    }

    /// Returns the name of the scope.
    pub fn scope_name(&self) -> &str {
        self.scope.name()
    }

    /// Returns for how long leases renew themselves.
    pub fn renewed_for(&self) -> Option<Duration> {
        self.renewing
    }

    /// Returns for how long the lease of `once` renews itself.
    pub fn renewed_for_once(&self) -> Duration {
        self.renewing.unwrap_or(RENEWED_AT_MOST)
    }

    /// Returns for how long a claim waits.
    pub fn waits_for(&self) -> Duration {
        self.waiting
    }

    /// Returns how long a call may take.
    pub fn timeout(&self) -> Duration {
        self.busy_timeout
    }

    /// Returns a token that no other call has.
    pub fn make_token(&self) -> Token {
        self.shared.tokens.make()
    }

    /// Returns how this handle ends a claim that failed.
    pub fn failing(&self, failure: Failure) -> EndOfClaim {
        EndOfClaim(failing(failure, self.shared.config.retry_delay))
    }

    /// Returns the end of a claim that is given up.
    pub fn releasing() -> EndOfClaim {
        EndOfClaim(Change::Release)
    }

    /// Returns the renewal of a claim.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidClaim`] for a lease of zero.
    pub fn prolonging(lease: Duration) -> Result<EndOfClaim> {
        Ok(EndOfClaim(Change::Renew { lease: checked_lease(lease)? }))
    }

    /// Checks an item before anything is read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`], and [`ErrorKind::InvalidConfig`] for a retention that ends before the TTL.
    pub fn check_item(&self, item: &Item<'_>) -> Result<()> {
        self.id(item).map(drop)
    }

    /// Checks the length of a receipt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidClaim`] for one that is too long.
    pub fn check_receipt(&self, receipt: Option<&[u8]>) -> Result<()> {
        check_receipt(receipt, self.shared.config.max_receipt)
    }

    fn id<'a>(&'a self, item: &'a Item<'_>) -> Result<Id<'a>> {
        if self.lifetime.retention.is_some() {
            check_retention(self.lifetime.retention, self.lifetime.ttl)?;
        }
        self.scope.item(item)
    }

    fn verbs(&self) -> Verbs<'_> {
        let Shared { name, config, holder, tokens, .. } = &*self.shared;
        let (lifetime, abandoned) = (self.lifetime, self.abandoned);
        Verbs { store: name, config, lifetime, abandoned, holder, tokens }
    }

    fn decide<T>(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        now_ms: i64,
        verb: impl FnOnce(Verbs<'_>, &mut Decision<'_>, Id<'_>) -> Result<T>,
    ) -> Result<Outcome<T>> {
        let id = self.id(item)?;
        let mut decision = record.decide(id, now_ms);
        let answer = verb(self.verbs(), &mut decision, id)?;
        let Decision { is_changed, turned_away, .. } = decision;
        Ok(Outcome { answer, is_changed, turned_away })
    }

    /// Returns whether the id is seen.
    ///
    /// # Errors
    ///
    /// Those of [`check_item`](Self::check_item).
    pub fn is_seen(&self, record: &Record, item: &Item<'_>, now_ms: i64) -> Result<bool> {
        Ok(record.is_seen(self.id(item)?, now_ms))
    }

    /// Returns what is known of the id.
    ///
    /// # Errors
    ///
    /// Those of [`check_item`](Self::check_item).
    pub fn entry(&self, record: &Record, item: &Item<'_>, now_ms: i64) -> Result<Option<Entry>> {
        Ok(record.entry(self.id(item)?, now_ms))
    }

    /// Returns the entries of an id, also those that have expired.
    ///
    /// # Errors
    ///
    /// Those of [`check_item`](Self::check_item).
    pub fn entries(&self, record: &Record, item: &Item<'_>, now_ms: i64) -> Result<Vec<Entry>> {
        Ok(record.entries(self.id(item)?, now_ms).collect())
    }

    /// Returns whether a listing by this filter has the entry.
    pub fn is_listed(filter: &Filter, entry: &Entry, now_ms: i64) -> bool {
        filter.admits_state(entry.state) && filter.admits(entry, now_ms)
    }

    /// Decides as `mark_seen_at`, or as `mark_seen` if no time is given.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn mark(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        seen_at: Option<SystemTime>,
        now_ms: i64,
    ) -> Result<Outcome<bool>> {
        let seen_at_ms = seen_at.map_or(now_ms, to_ms);
        self.decide(record, item, now_ms, |verbs, rows, id| verbs.mark(rows, id, seen_at_ms))
    }

    /// Decides as `check_and_mark`. The mark has the token that the item is a [retry](Item::retry_of) of.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn check(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        now_ms: i64,
    ) -> Result<Outcome<Verdict>> {
        self.decide(record, item, now_ms, |verbs, rows, id| verbs.check(rows, id))
    }

    /// Decides as `observe`, likewise.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn observe(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        now_ms: i64,
    ) -> Result<Outcome<Observation>> {
        self.decide(record, item, now_ms, |verbs, rows, id| verbs.observe(rows, id))
    }

    /// Decides as `seed` on one id.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn seed(&self, record: &mut Record, item: &Item<'_>, now_ms: i64) -> Result<Outcome<bool>> {
        self.decide(record, item, now_ms, |verbs, rows, id| verbs.seed(rows, id))
    }

    /// Decides as `claim`.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    #[expect(clippy::missing_panics_doc, reason = "a claim that is granted has a token")]
    pub fn claim(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        lease: Duration,
        now_ms: i64,
    ) -> Result<Outcome<Claim<Granted, Known>>> {
        let lease = checked_lease(lease)?;
        let is_counted = self.waiting.is_zero();
        let decided = self.decide(record, item, now_ms, |verbs, rows, id| {
            verbs.claim(rows, id, lease, is_counted)
        })?;
        let label = |holder: Option<Arc<str>>| holder.as_deref().map(str::to_owned);
        let answer = match decided.answer {
            Decided::Seen(_) => {
                let entry = self.entry(record, item, now_ms)?;
                // Of the mark alone: a claim of another version is not what refused this one.
                Claim::Seen(Known::read(entry.map(|entry| Entry { change: None, ..entry })))
            }
            Decided::Unseen(claim::Decision::InFlight { until_ms, holder }) => {
                Claim::InFlight { until: from_ms(until_ms), holder: label(holder) }
            }
            Decided::Unseen(claim::Decision::Unresolved { since_ms, holder }) => {
                Claim::Unresolved { since: from_ms(since_ms), holder: label(holder) }
            }
            Decided::Unseen(claim::Decision::GivenUp { attempts }) => Claim::GivenUp { attempts },
            Decided::Unseen(claim::Decision::Granted(claim, previous, is_change)) => {
                Claim::Granted(Granted {
                    token: claim.token.expect("a claim that is granted has a token"),
                    attempt: claim.attempts,
                    until_ms: claim.lease_until,
                    previous,
                    is_change,
                })
            }
        };
        let Outcome { is_changed, turned_away, .. } = decided;
        Ok(Outcome { answer, is_changed, turned_away })
    }

    /// Decides as `confirm`. The answer is whether the lease had run out; `None`: the claim is lost.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn confirm(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        token: Token,
        receipt: Option<&[u8]>,
        now_ms: i64,
    ) -> Result<Outcome<Option<bool>>> {
        self.decide(record, item, now_ms, |verbs, rows, id| {
            let confirmed = verbs.confirm(rows, id, token, receipt)?;
            Ok(confirmed.map(|confirmed| confirmed == Confirmed::Late))
        })
    }

    /// Decides as `release`, `fail` or `renew`. The answer is when the lease ends now, in unix milliseconds; `None`: the
    /// claim is lost.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn end(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        token: Token,
        end: &EndOfClaim,
        now_ms: i64,
    ) -> Result<Outcome<Option<i64>>> {
        self.decide(record, item, now_ms, |verbs, rows, id| verbs.change(rows, id, token, &end.0))
    }

    /// Decides as `forget`.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn forget(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        now_ms: i64,
    ) -> Result<Outcome<bool>> {
        let is_known = self.entry(record, item, now_ms)?.is_some();
        if is_known {
            *record = Record::default();
        }
        Ok(Outcome { answer: is_known, is_changed: is_known, turned_away: TurnedAway::default() })
    }

    /// Returns the entries of this scope, or that of the filter, that `remove` takes at this time.
    pub fn selected(&self, filter: Filter, now_ms: i64) -> Selected {
        Selected(Selection::filtered(self.scope.name(), filter, now_ms))
    }

    /// Returns the entries of this scope that `cleanup_old_entries` takes at this time.
    pub fn older(&self, than: Duration, now_ms: i64) -> Selected {
        let before_ms = now_ms.saturating_sub(duration_ms(than));
        Selected(Selection::older(self.scope.name(), before_ms))
    }

    /// Returns how many of the entries of an id are selected.
    ///
    /// # Errors
    ///
    /// Those of [`check_item`](Self::check_item).
    pub fn count(
        &self,
        record: &Record,
        item: &Item<'_>,
        selected: &Selected,
        now_ms: i64,
    ) -> Result<u64> {
        Ok(record.count(self.id(item)?, &selected.0, now_ms))
    }

    /// Removes the entries of an id that are selected. The answer is how many.
    ///
    /// # Errors
    ///
    /// Those of [`check_item`](Self::check_item).
    pub fn remove(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        selected: &Selected,
        now_ms: i64,
    ) -> Result<Outcome<u64>> {
        let answer = record.remove(self.id(item)?, &selected.0, now_ms);
        Ok(Outcome { answer, is_changed: answer > 0, turned_away: TurnedAway::default() })
    }

    /// Decides on a renewal that the store makes by itself, which never shortens a lease. The answer is when the lease ends,
    /// in unix milliseconds; `None`: the claim is lost.
    ///
    /// # Errors
    ///
    /// Those of [`check_item`](Self::check_item).
    pub fn prolong(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        token: Token,
        lease: Duration,
        now_ms: i64,
    ) -> Result<Outcome<Option<i64>>> {
        let (lease, ttl) = (Ttl::After(lease), self.lifetime.ttl);
        self.decide(record, item, now_ms, |_, rows, id| prolong(rows, id, token, lease, ttl))
    }

    /// Decides as `resolve`.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn resolve(
        &self,
        record: &mut Record,
        item: &Item<'_>,
        resolution: Resolution,
        now_ms: i64,
    ) -> Result<Outcome<bool>> {
        self.decide(record, item, now_ms, |verbs, rows, id| verbs.resolve(rows, id, resolution))
    }

    /// Checks an entry before anything is read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidId`], and [`ErrorKind::InvalidClaim`] for a receipt, an error or a holder that is too long.
    pub fn check_entry(&self, entry: &Entry) -> Result<()> {
        check_notes(entry).and_then(|()| self.scope.id(&entry.id).map(drop))
    }

    /// Decides as `restore` on an entry of this scope.
    ///
    /// # Errors
    ///
    /// Those of the verb.
    pub fn restore(
        &self,
        record: &mut Record,
        entry: &Entry,
        now_ms: i64,
    ) -> Result<Outcome<Restored>> {
        let item = Item::new(&entry.id);
        self.decide(record, &item, now_ms, |verbs, rows, id| verbs.restore(rows, id, entry))
    }

    /// Returns the error of a holder that has lost its claim.
    pub fn lease_lost(&self, item: &Item<'_>) -> Error {
        match self.id(item) {
            Ok(id) => self.verbs().lease_lost(id),
            Err(e) => e,
        }
    }

    /// Returns a lease for threads whose ends go to `store`.
    pub fn lease(
        granted: Granted,
        id: &[u8],
        store: Box<dyn Granter>,
        until_ms: Arc<AtomicI64>,
        renews: bool,
    ) -> Lease {
        let Granted { token, attempt, previous, is_change, .. } = granted;
        let (claim, before) = ((token, attempt, until_ms), (previous, is_change));
        Lease::granted(store, id, renews, claim, before)
    }
}

/// Which entries of a scope are removed or counted.
pub struct Selected(Selection);

impl Selected {
    /// Returns the scope.
    pub fn scope(&self) -> &str {
        &self.0.scope
    }
}

/// What is done to a claim by its token: it is released, failed or renewed.
#[derive(Clone, Debug)]
pub struct EndOfClaim(Change);

/// What a store has done since it was opened.
#[derive(Default)]
pub struct Activities(Counters);

impl Activities {
    /// Counts verdicts.
    pub fn add_verdicts(&self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            self.0.add(event_of(*verdict), 1);
        }
    }

    /// Counts the answer to a claim. `previous` returns how the attempt before a granted one ended.
    pub fn add_claim<L, K>(&self, claim: &Claim<L, K>, previous: fn(&L) -> &Previous) {
        count_claim(&self.0, claim, previous);
    }

    /// Counts a claim that its holder confirmed, or had lost.
    pub fn add_confirmed(&self, is_held: bool) {
        self.0.add(if is_held { Event::ClaimConfirmed } else { Event::ClaimLost }, 1);
    }

    /// Counts a claim that its holder ended so, or had lost.
    pub fn add_end(&self, end: &EndOfClaim, is_held: bool) {
        let event = if is_held { end_of(&end.0) } else { Some(Event::ClaimLost) };
        if let Some(event) = event {
            self.0.add(event, 1);
        }
    }

    /// Counts an error.
    pub fn add_error(&self, error: &Error) {
        self.0.add_error(error);
    }

    /// Counts an answer "not seen" that was given because of an error.
    pub fn add_failed_open(&self) {
        self.0.add(Event::FailedOpen, 1);
    }

    /// Counts a pipeline of writes that this many calls shared.
    pub fn add_group(&self, calls: usize) {
        self.0.add(Event::Commit, 1);
        self.0.add_group(calls);
    }

    /// Returns the counts at about this moment.
    pub fn activity(&self) -> Activity {
        self.0.activity()
    }
}

/// Returns the answer of `once` to a claim that was neither granted nor refused as seen.
pub fn refused<T, L, K>(claim: Claim<L, K>) -> Once<T> {
    Once::refused(claim)
}

/// Returns what a summary tells of an entry that the store cannot take.
pub fn refused_entry(entry: &Entry, error: Error) -> Refused {
    crate::store::refused(entry, error)
}

/// Returns an error of this kind. `source` is its cause.
pub fn error(
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    match source {
        Some(source) => Error::with_source(kind, message, source),
        None => Error::new(kind, message),
    }
}

/// Returns the error of a call whose outcome is unknown.
pub fn unknown_outcome(
    token: Token,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::of_unknown_outcome(u128::from_be_bytes(token.bytes()), message, source)
}

/// Returns an error with this token: of a call that has written something, or may have.
pub fn with_token(error: Error, token: Token) -> Error {
    error.with_token(u128::from_be_bytes(token.bytes()))
}

/// Returns the time of this many unix milliseconds.
pub fn time_of(unix_ms: i64) -> SystemTime {
    from_ms(unix_ms)
}

/// Returns the ownership that a batch tells of one claim.
pub fn ownership(is_held: bool) -> Ownership {
    if is_held { Ownership::Held } else { Ownership::Lost }
}
