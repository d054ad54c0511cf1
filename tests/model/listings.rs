//! Listings: of a store at rest, and while others write.

use std::collections::{BTreeMap, BTreeSet};

use seen_store::{Entries, Entry, Filter, State as Label};

use crate::common::{marks, ms};
use crate::file::stored;
use crate::ids::{Counted, Name};
use crate::ops::SCOPES;
use crate::run::{Run, view_of};
use crate::state::{State, View};

/// A listing while others write.
pub(crate) struct Listing {
    store: usize,
    entries: Entries,
    found: Vec<Name>,
    /// What has been there ever since it was begun.
    throughout: BTreeSet<Name>,
}

fn name_of(entry: &Entry, ids: &[Vec<u8>]) -> Name {
    let scope = SCOPES.iter().position(|scope| *scope == entry.scope).unwrap();
    (scope, ids.iter().position(|id| *id == entry.id).unwrap())
}

impl Run {
    pub(crate) fn begin_listing(&mut self, store: usize) {
        let mut entries = self.store(store).entries(Filter::default());
        let first = entries.next();
        self.model.looked(store);
        let throughout: BTreeSet<_> = self.model.present().collect();
        // The claims are in memory now, and the marks are not.
        match first {
            Some(entry) => {
                let found = vec![name_of(&entry.unwrap(), &self.ids)];
                self.listing = Some(Listing { store, entries, found, throughout });
            }
            None => assert!(throughout.is_empty(), "{throughout:?} are not listed"),
        }
    }

    /// Whatever was there throughout was listed, once.
    pub(crate) fn end_listing(&mut self) -> bool {
        let Some(store) = self.listing.as_ref().map(|listing| listing.store) else { return false };
        self.wake(store);
        let Some(mut listing) = self.listing.take() else { return false };
        let rest = listing.entries.by_ref().map(|entry| name_of(&entry.unwrap(), &self.ids));
        listing.found.extend(rest);
        self.model.looked(listing.store);
        for name in listing.throughout {
            let times = listing.found.iter().filter(|found| **found == name).count();
            assert_eq!(times, 1, "{name:?} was there throughout and was listed {times} times");
        }
        true
    }

    pub(crate) fn note_what_left(&mut self) {
        if let Some(listing) = &mut self.listing {
            let present: BTreeSet<_> = self.model.present().collect();
            listing.throughout.retain(|name| present.contains(name));
        }
    }

    /// What a store lists; every name at most once.
    fn list(&self, store: usize, filter: Filter) -> BTreeMap<Name, View> {
        let mut views: BTreeMap<Name, View> = BTreeMap::new();
        for entry in self.store(store).entries(filter) {
            let entry = entry.unwrap();
            let before = views.insert(name_of(&entry, &self.ids), view_of(&entry));
            assert_eq!(before, None, "listed twice: {entry:?}");
        }
        views
    }

    pub(crate) fn check_listings(&self, store: usize) {
        let now = self.model.now[store];
        let all = self.list(store, Filter::default());
        assert!(all.keys().all(|name| self.model.names.contains_key(name)));
        let mut open = BTreeSet::new();
        for (name, Counted { known, .. }) in &self.model.names {
            let (found, right) = (all.get(name).cloned(), known.listed(now));
            assert!(right.contains(&found), "listed {name:?} as {found:#?}, not {right:#?}");
            if known.is_haunted(now) {
                open.insert(*name);
            } else {
                assert_eq!(right.len(), 1);
            }
        }
        // Of a name that is open, one listing may show a claim and another a mark.
        let check = |filter: Filter, is_in: &dyn Fn(&Name, &View) -> bool| {
            let mut found = self.list(store, filter);
            assert!(found.iter().all(|(name, view)| is_in(name, view)));
            found.retain(|name, _| !open.contains(name));
            let right = all.iter().filter(|(name, view)| !open.contains(name) && is_in(name, view));
            assert!(found.iter().eq(right), "{found:#?} of {all:#?}");
        };
        for label in [Label::Seen, Label::InFlight, Label::Failed] {
            check(Filter::default().state(label), &|_, view| view.label == label);
        }
        check(Filter::default().scope(SCOPES[0]), &|name, _| name.0 == 0);
        check(Filter::default().prefix(b"a"), &|name, _| self.ids[name.1].starts_with(b"a"));
        let minute = ms(60_000);
        check(Filter::default().older_than(minute), &|_, view| view.last < now - 60_000);
        check(Filter::default().newer_than(minute), &|_, view| view.last >= now - 60_000);
        let ended = all.iter().filter(|(_, view)| view.label == Label::Expired);
        self.check_expired(store, ended.map(|(name, _)| *name).collect());
    }

    /// Expired are the claims that have `ended`, and the marks in the file that have expired, of ids
    /// that were neither marked again nor claimed.
    fn check_expired(&self, store: usize, ended: BTreeSet<Name>) {
        let now = self.model.now[store];
        let found = self.list(store, Filter::default().state(Label::Expired));
        assert!(found.values().all(|view| view.label == Label::Expired));
        let mut right = ended;
        for row in marks(&self.file) {
            let scope = SCOPES.iter().position(|scope| *scope == row.scope).unwrap();
            let name = (scope, self.ids.iter().position(|id| stored(id) == row.id).unwrap());
            let nothing =
                self.model.names.get(&name).is_none_or(|id| id.known.certain == State::Nothing);
            if nothing && row.expires_at.is_some_and(|at| at <= now) {
                right.insert(name);
            }
        }
        let mut found: BTreeSet<_> = found.into_keys().collect();
        // Of ids that a ghost leaves open, either may be.
        let is_certain =
            |name: &Name| self.model.names.get(name).is_none_or(|id| !id.known.is_haunted(now));
        found.retain(is_certain);
        right.retain(is_certain);
        assert_eq!(found, right);
    }
}
