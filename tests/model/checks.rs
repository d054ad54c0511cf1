//! What is compared at the end of a sequence: everything that the model knows, with both stores, with the
//! file, and with what readers find.

use seen_store::{Reader, State as Label};

use crate::file::{held_in, reached};
use crate::ids::Counted;
use crate::ops::{SCOPES, VALID_IDS, Which};
use crate::run::Run;
use crate::state::{View, is_one_of};

impl Run {
    /// Everything that the model knows is true of both stores and of the file.
    pub(crate) fn check_everything(&mut self) {
        self.end_listing();
        for store in 0..2 {
            self.wake(store);
        }
        for store in 0..2 {
            self.stats(store);
            for scope in 0..SCOPES.len() {
                for id in VALID_IDS {
                    self.get(store, (scope, id));
                    self.is_seen(Which { store, scope, id }, None);
                }
            }
            self.check_listings(store);
            self.learn_the_time(Some(store)); // Asking for an entry writes its count down.
        }
        for ((scope, id), Counted { known, .. }) in &self.model.names {
            let held = held_in(&self.file, SCOPES[*scope], &self.ids[*id]);
            if let Some(mark) = &known.certain.mark {
                let is_it = held.mark.as_ref().is_some_and(|held| mark.is_shown_as(held));
                assert!(is_it, "{:#?} is {mark:#?}", held.mark);
            }
            if known.certain.claim.is_some() {
                assert_eq!(held.claim, known.certain.claim);
            }
        }
        for store in 0..2 {
            self.check_reader(store);
        }
    }

    /// What a reader with the clock of this store finds.
    fn check_reader(&self, store: usize) {
        let config = self.setup.config(store).clock(self.clocks.of(store).clone());
        let reader = Reader::open_with(self.place.path(), config.clone()).unwrap();
        let now = self.clocks.of_a_newcomer(store, reached(&self.file));
        let earliest = self.model.earliest().min(now);
        for ((scope, id), Counted { known, .. }) in &self.model.names {
            if known.is_haunted(earliest) {
                continue;
            }
            let entry = reader.scope(SCOPES[*scope]).get(&self.ids[*id]).unwrap();
            let found = entry.as_ref().map(View::of);
            // It shows expired marks and claims too, until they are purged.
            let lasting = |view: Option<View>| view.filter(|view| view.label != Label::Expired);
            let (found, right) = (lasting(found), lasting(known.certain.view(now)));
            let is_right = is_one_of(std::slice::from_ref(&right), found.as_ref());
            assert!(is_right, "a reader finds {scope} {id} as {found:#?}, not {right:#?}");
        }
        // A ghost that only one of the stores has swept is no damage, and may be listed as such. So may a claim of
        // what was seen for the other store.
        let mut names = self.model.names.values();
        let is_claimed = names.any(|id| id.known.certain.is_claimed_though_seen());
        if !is_claimed && !self.model.is_haunted(earliest) {
            for report in [self.store(store).verify(), reader.verify()] {
                let report = report.unwrap();
                assert!(report.is_ok(), "{:?}", report.problems);
            }
        }
    }
}
