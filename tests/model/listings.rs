//! Listings: of a store at rest, and while others write.

use std::collections::{BTreeMap, BTreeSet};

use seen_store::{Entries, Entry, Filter, State as Label};

use crate::common::ms;
use crate::file::expired;
use crate::ids::{Counted, Name};
use crate::ops::SCOPES;
use crate::run::Run;
use crate::state::View;

/// A listing while others write.
pub(crate) struct Listing {
    store: usize,
    entries: Entries,
    /// With whether it was a claim.
    found: Vec<(Name, bool)>,
    /// What has been there ever since it was begun, and what was claimed then: those claims are listed.
    throughout: BTreeSet<Name>,
    claimed: BTreeSet<Name>,
}

fn found(entry: &Entry, ids: &[Vec<u8>]) -> (Name, bool) {
    (name_of(entry, ids), entry.state.is_claim())
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
        let claimed = self.model.claimed().collect();
        // The claims are in memory now, and the marks are not.
        match first {
            Some(entry) => {
                let found = vec![found(&entry.unwrap(), &self.ids)];
                self.listing = Some(Listing { store, entries, found, throughout, claimed });
            }
            None => assert!(throughout.is_empty(), "{throughout:?} are not listed"),
        }
    }

    /// Whatever was there throughout was listed: as a claim, as a mark, or as both, once each.
    pub(crate) fn end_listing(&mut self) -> bool {
        let Some(store) = self.listing.as_ref().map(|listing| listing.store) else { return false };
        self.wake(store);
        let Some(mut listing) = self.listing.take() else { return false };
        let rest = listing.entries.by_ref().map(|entry| found(&entry.unwrap(), &self.ids));
        listing.found.extend(rest);
        self.model.looked(listing.store);
        for name in listing.throughout {
            let as_a =
                |is_claim| listing.found.iter().filter(|found| **found == (name, is_claim)).count();
            let times = (as_a(true), as_a(false));
            let is_right = matches!(times, (0, 1) | (1, 0 | 1));
            assert!(is_right, "{name:?} was there throughout and was listed {times:?} times");
        }
        true
    }

    pub(crate) fn note_what_left(&mut self) {
        if let Some(listing) = &mut self.listing {
            let present: BTreeSet<_> = self.model.present().collect();
            let seen: BTreeSet<_> = self.model.seen().collect();
            let was_claimed = |name: &Name| listing.claimed.contains(name);
            listing.throughout.retain(|name| {
                present.contains(name) && (was_claimed(name) || seen.contains(name))
            });
        }
    }

    /// What a store lists: of each name a claim, a mark, or both.
    fn list(&self, store: usize, filter: Filter) -> BTreeMap<Name, Vec<View>> {
        let mut views: BTreeMap<Name, Vec<View>> = BTreeMap::new();
        for entry in self.store(store).entries(filter) {
            let entry = entry.unwrap();
            views.entry(name_of(&entry, &self.ids)).or_default().push(View::of(&entry));
        }
        views
    }

    pub(crate) fn check_listings(&self, store: usize) {
        let now = self.model.now[store];
        let all = self.list(store, Filter::default());
        assert!(all.keys().all(|name| self.model.names.contains_key(name)));
        let mut open = BTreeSet::new();
        for (name, Counted { known, .. }) in &self.model.names {
            let found = all.get(name).map_or(&[][..], Vec::as_slice);
            let right = known.listed(now);
            let is_it = |right: &Vec<View>| {
                let mut pairs = right.iter().zip(found);
                right.len() == found.len() && pairs.all(|(right, found)| right.is_shown_as(found))
            };
            let is_right = right.iter().any(is_it);
            assert!(is_right, "listed {name:?} as {found:#?}, not {right:#?}");
            if known.is_haunted(now) {
                open.insert(*name);
            } else {
                assert_eq!(right.len(), 1);
            }
        }
        // Of a name that is open, one listing may show a claim and another a mark.
        let check = |filter: Filter, is_in: &dyn Fn(&Name, &View) -> bool| {
            let mut found = self.list(store, filter);
            let is_all_in =
                |(name, views): (&Name, &Vec<View>)| views.iter().all(|view| is_in(name, view));
            assert!(found.iter().all(is_all_in));
            found.retain(|name, _| !open.contains(name));
            let mut right = all.clone();
            right.retain(|name, views| {
                views.retain(|view| is_in(name, view));
                !open.contains(name) && !views.is_empty()
            });
            assert_eq!(found, right, "of {all:#?}");
        };
        for label in [Label::Seen, Label::InFlight, Label::Failed] {
            check(Filter::default().state(label), &|_, view| view.label == label);
        }
        check(Filter::default().scope(SCOPES[0]), &|name, _| name.0 == 0);
        check(Filter::default().prefix(b"a"), &|name, _| self.ids[name.1].starts_with(b"a"));
        let minute = ms(60_000);
        check(Filter::default().older_than(minute), &|_, view| view.last.0 < now - 60_000);
        check(Filter::default().newer_than(minute), &|_, view| view.last.0 >= now - 60_000);
        self.check_expired(store);
    }

    /// Expired are the marks in the file that have expired, of ids that are neither seen again nor claimed, and what is
    /// kept of claimed ones.
    fn check_expired(&self, store: usize) {
        let now = self.model.now[store];
        let found = self.list(store, Filter::default().state(Label::Expired));
        let is_expired = |views: &Vec<View>| views.len() == 1 && views[0].label == Label::Expired;
        assert!(found.values().all(is_expired), "{found:#?}");
        let mut right = BTreeSet::new();
        for (scope, id) in expired(&self.file, now) {
            let scope = SCOPES.iter().position(|name| *name == scope).unwrap();
            let name = (scope, self.ids.iter().position(|name| *name == id).unwrap());
            let is_listed = |known: &crate::known::Known| {
                let mark = known.certain.mark.as_ref();
                let is_kept = mark.is_some_and(|mark| !mark.is_live(now) && now < mark.kept);
                !known.certain.listed(now).is_empty() && !is_kept
            };
            if !self.model.names.get(&name).is_some_and(|id| is_listed(&id.known)) {
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
