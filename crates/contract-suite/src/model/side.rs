//! One side of the comparison: stores, the claims that were granted on them, and their answers as texts.

use std::time::{Duration, SystemTime};

use seen_store::{
    Abandoned, Claim, Entry, Error, ErrorKind, Failure, Filter, Item, Observation, Previous, State,
    Stats, Store, Token, Ttl, Window,
};

use super::ops::{Chosen, End, EndAll, Failed, Handle, Op, Step, Which};

const SCOPES: [&str; 2] = ["", "{x}:"];

/// The last one has payloads instead of versions.
const IDS: [&[u8]; 4] = [b"a", b"a:{b}", b"\xff\0%", b"key"];

const RECEIPTS: [&[u8]; 4] = [b"", b"4711", b"\0\xff", b"this is too long"];

/// What is compared of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) unit: Duration,
    /// When the sequence began.
    pub(crate) start: SystemTime,
    /// Whether times are compared, and leases may run out.
    pub(crate) has_times: bool,
    /// Whether duplicates are counted for both alike.
    pub(crate) has_counts: bool,
}

pub(crate) struct Side {
    view: View,
    stores: Vec<Box<dyn Store>>,
    claims: Vec<(usize, usize, Token)>,
}

fn item(which: Which) -> Item<'static> {
    let item = Item::new(IDS[which.id]);
    let item = match which.version {
        Some(payload) if which.id == 3 => item.payload([payload]),
        Some(version) => item.version([version]),
        None => item,
    };
    match which.retry_of {
        Some(call) => item.retry_of(format!("{call:032x}").parse::<Token>().unwrap()),
        None => item,
    }
}

fn items(some: &[Which]) -> Vec<Item<'static>> {
    some.iter().map(|which| item(*which)).collect()
}

/// Returns an answer as text, or the kind of the error.
fn text<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(e) => kind(&e),
    }
}

fn kind(error: &Error) -> String {
    let kind: ErrorKind = error.kind();
    format!("{kind:?}")
}

impl Side {
    pub(crate) fn new(view: View, stores: Vec<Box<dyn Store>>) -> Self {
        Self { view, stores, claims: Vec::new() }
    }

    fn units(&self, units: u32) -> Duration {
        self.view.unit * units
    }

    fn handle(&self, store: usize, scope: usize, handle: Handle) -> Box<dyn Store> {
        let store = self.stores[store].scope(SCOPES[scope]);
        match handle {
            Handle::Plain => store,
            Handle::Shorter => store.ttl(self.units(100).into()),
            Handle::Never => store.ttl(Ttl::Never),
            Handle::Zero => store.ttl(Duration::ZERO.into()),
            Handle::Sliding => store.ttl(self.units(100).into()).window(Window::SLIDING),
            Handle::MaxAge => {
                let window = Window::Sliding { max_age: Some(self.units(150)) };
                store.ttl(self.units(100).into()).window(window)
            }
            Handle::Retained => {
                store.ttl(self.units(100).into()).retention(Some(self.units(1_000)))
            }
            Handle::Hold => store.abandoned(Abandoned::Hold),
            Handle::Retry => store.abandoned(Abandoned::Retry),
        }
    }

    pub(crate) fn apply(&mut self, step: &Step) -> String {
        let store = self.handle(step.store, step.scope, step.handle);
        let store = &*store;
        match &step.op {
            Op::Passes(_) => unreachable!("no store is asked"),
            Op::IsSeen(which) => text(store.try_is_seen(item(*which))),
            Op::Check(which) => text(store.check_and_mark(item(*which))),
            Op::CheckAll(some) => text(store.check_and_mark_all(&items(some))),
            Op::Mark(which) => text(store.mark_seen(item(*which))),
            Op::MarkAt(which, units) => {
                // Where time passes by itself, no mark is about to end: a sliding window adds a sixteenth of its TTL.
                let units = if *units == -100 && !self.view.has_times { &-75 } else { units };
                let by = self.units(units.unsigned_abs());
                let at = if *units < 0 { self.view.start - by } else { self.view.start + by };
                text(store.mark_seen_at(item(*which), at))
            }
            Op::Observe(which) => match store.observe(item(*which)) {
                Ok(Observation { verdict, before, .. }) => {
                    let before = before.map(|before| self.shown(before));
                    format!("{verdict:?} {before:?}")
                }
                Err(e) => kind(&e),
            },
            Op::Seed(some) => text(store.seed(&items(some))),
            Op::Forget(which) => text(store.forget(item(*which))),
            Op::Claim(which, lease) => {
                let claim = store.claim(item(*which), self.lease(*lease));
                self.claim(step.scope, which.id, claim)
            }
            Op::ClaimAll(some, lease) => match store.claim_all(&items(some), self.lease(*lease)) {
                Ok(claims) => {
                    let claims = some.iter().zip(claims);
                    let texts: Vec<_> = claims
                        .map(|(which, claim)| self.claim(step.scope, which.id, Ok(claim)))
                        .collect();
                    texts.join("\n")
                }
                Err(e) => kind(&e),
            },
            Op::End(claim, end) => self.end(step, *claim, *end),
            Op::EndAll(claims, end) => self.end_all(store, claims, *end),
            Op::Resolve(which, resolution) => text(store.resolve(item(*which), *resolution)),
            Op::Get(which) => {
                text(store.get(item(*which)).map(|entry| entry.map(|entry| self.shown(entry))))
            }
            Op::Entries(chosen) => self.entries(store, filter(self.view, *chosen)),
            Op::Count(chosen) => {
                unless_expired(*chosen, text(store.count(filter(self.view, *chosen))))
            }
            Op::Remove(chosen) => {
                unless_expired(*chosen, text(store.remove(filter(self.view, *chosen))))
            }
            Op::Cleanup(age) => {
                // What has expired counts too, if it is there yet.
                text(store.cleanup_old_entries(self.units(*age)).map(drop))
            }
            Op::Purge => text(store.purge_expired().map(drop)),
            Op::Stats => text(store.stats().map(|stats| states(&stats))),
        }
    }

    /// Where no time passes, no lease runs out.
    fn lease(&self, units: u32) -> Duration {
        self.units(if self.view.has_times { units } else { 1_000 })
    }

    fn claim(&mut self, scope: usize, id: usize, claim: Result<Claim, Error>) -> String {
        match claim {
            Ok(Claim::Granted(lease)) => {
                let until = self.time(lease.expires_at());
                let (attempt, is_change) = (lease.attempt(), lease.is_change());
                let previous = self.previous(lease.previous().clone());
                self.claims.push((scope, id, lease.into_token()));
                format!("granted {attempt} {is_change} {until:?} {previous:?}")
            }
            Ok(Claim::InFlight { until, holder }) => {
                format!("in flight {:?} {holder:?}", self.time(until))
            }
            Ok(Claim::Seen(known)) => {
                let mut entry = known.entry().unwrap().map(|entry| self.uncounted(entry));
                // Another item of the batch may have given the id its version since, and one store reads the entry at the
                // decision, the other when it is asked for.
                if let Some(entry) = &mut entry {
                    entry.digest = None;
                }
                format!("seen {entry:?}")
            }
            Ok(Claim::Unresolved { since, holder }) => {
                format!("unresolved {:?} {holder:?}", self.time(since))
            }
            Ok(other) => format!("{other:?}"),
            Err(e) => kind(&e),
        }
    }

    fn previous(&self, previous: Previous) -> Previous {
        match previous {
            Previous::Abandoned { since, holder } => {
                Previous::Abandoned { since: self.time(since), holder }
            }
            Previous::Superseded(entry) => Previous::Superseded(Box::new(self.uncounted(*entry))),
            other => other,
        }
    }

    /// Ends one of the claims so far through this step's store and handle, in the claim's scope.
    fn end(&self, step: &Step, claim: usize, end: End) -> String {
        let Some((scope, id, token)) = self.pick(claim) else { return String::new() };
        let store = self.handle(step.store, scope, step.handle);
        let item = || Item::new(IDS[id]);
        text(match end {
            End::Confirm => store.confirm(item(), &token),
            End::ConfirmWith(receipt) => store.confirm_with(item(), &token, RECEIPTS[receipt]),
            End::Release => store.release(item(), &token),
            End::Fail(failed) => store.fail(item(), &token, self.failure(failed)),
            End::Renew => store.renew(item(), &token, self.lease(70)),
        })
    }

    fn end_all(&self, store: &dyn Store, claims: &[usize], end: EndAll) -> String {
        let claims = claims.iter().filter_map(|claim| self.pick(*claim));
        let claims: Vec<_> = claims.map(|(_, id, token)| (Item::new(IDS[id]), token)).collect();
        text(match end {
            EndAll::Confirm => store.confirm_all(&claims),
            EndAll::Release => store.release_all(&claims),
            EndAll::Renew => store.renew_all(&claims, self.lease(70)),
        })
    }

    /// The newest claims are picked more often: most of the others are over.
    fn pick(&self, claim: usize) -> Option<(usize, usize, Token)> {
        let last =
            if claim.is_multiple_of(3) { self.claims.len() } else { self.claims.len().min(3) };
        self.claims.iter().rev().nth(claim.checked_rem(last)?).copied()
    }

    fn failure(&self, failed: Failed) -> Failure {
        match failed {
            Failed::AtOnce => Failure::new("503"),
            Failed::Later => Failure::new("429").retry_after(self.lease(20)),
            Failed::Finally => Failure::new("404").is_final(),
        }
    }

    fn entries(&self, store: &dyn Store, filter: Filter) -> String {
        let entries: Result<Vec<Entry>, Error> = store.entries(filter).collect();
        text(entries.map(|entries| {
            // What is expired and not retained may be gone.
            let is_sure =
                |entry: &Entry| entry.state != State::Expired || entry.retain_until.is_some();
            let entries = entries.into_iter().filter(is_sure);
            let mut entries: Vec<_> = entries.map(|entry| self.shown(entry)).collect();
            entries.sort_by_key(|entry| (entry.scope.clone(), entry.id.clone(), entry.state as u8));
            entries
        }))
    }

    /// Returns all that is known through one of the stores.
    pub(crate) fn everything(&self, store: usize) -> String {
        let mut all = vec![self.entries(&*self.stores[store], Filter::default())];
        for scope in 0..SCOPES.len() {
            let store = self.handle(store, scope, Handle::Plain);
            for id in IDS {
                let entry = store.get(id.into()).map(|entry| entry.map(|entry| self.shown(entry)));
                all.push(text(entry));
                all.push(text(store.try_is_seen(id.into())));
            }
        }
        all.push(text(self.stores[store].stats().map(|stats| states(&stats))));
        all.join("\n")
    }

    fn time(&self, time: SystemTime) -> SystemTime {
        if self.view.has_times { time } else { SystemTime::UNIX_EPOCH }
    }

    /// Returns what is compared of an entry.
    fn shown(&self, entry: Entry) -> Entry {
        if self.view.has_counts { self.timed(entry) } else { self.uncounted(entry) }
    }

    /// Returns what is compared of an entry besides the duplicates that were turned away of it.
    fn uncounted(&self, mut entry: Entry) -> Entry {
        (entry.duplicates, entry.last_seen) = (0, SystemTime::UNIX_EPOCH);
        if let Some(history) = &mut entry.history {
            (history.duplicates, history.last_seen) = (0, SystemTime::UNIX_EPOCH);
        }
        entry.change = entry.change.map(|change| Box::new(self.uncounted(*change)));
        self.timed(entry)
    }

    fn timed(&self, mut entry: Entry) -> Entry {
        let time = |time| self.time(time);
        if let Some(history) = &mut entry.history {
            history.first_seen = time(history.first_seen);
            history.last_seen = time(history.last_seen);
        }
        entry.first_seen = time(entry.first_seen);
        entry.last_seen = time(entry.last_seen);
        entry.expires_at = entry.expires_at.map(time);
        entry.retain_until = entry.retain_until.map(time);
        entry.lease_until = entry.lease_until.map(time);
        entry.change = entry.change.map(|change| Box::new(self.timed(*change)));
        entry
    }
}

fn filter(view: View, chosen: Chosen) -> Filter {
    let mut filter = Filter::default();
    if let Some(state) = chosen.state {
        filter = filter.state(state);
    }
    if let Some(scope) = chosen.scope {
        filter = filter.scope(SCOPES[scope]);
    }
    if let Some(id) = chosen.prefix {
        filter = filter.prefix(IDS[id]);
    }
    match chosen.age {
        Some((units, true)) => filter.older_than(view.unit * units),
        Some((units, false)) => filter.newer_than(view.unit * units),
        None => filter,
    }
}

/// How much is there of what has expired is open.
fn unless_expired(chosen: Chosen, answer: String) -> String {
    if chosen.state == Some(State::Expired) { String::new() } else { answer }
}

fn states(stats: &Stats) -> [u64; 7] {
    let Stats { seen, in_flight, released, failed, given_up, abandoned, unresolved, .. } = *stats;
    [seen, in_flight, released, failed, given_up, abandoned, unresolved]
}
