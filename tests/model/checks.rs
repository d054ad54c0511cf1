//! What is compared at the end of a sequence: everything that the model knows, with both stores, with the
//! file, and with what readers find.

use seen_store::{Reader, State as Label};

use crate::file::{held_in, reached};
use crate::ids::Counted;
use crate::ops::{SCOPES, VALID_IDS, Which};
use crate::run::{Run, view_of};
use crate::state::State;

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
                    self.is_seen(Which { store, scope, id });
                }
            }
            self.check_listings(store);
            self.learn_the_time(Some(store)); // Asking for an entry writes its count down.
        }
        for ((scope, id), Counted { known, .. }) in &self.model.names {
            let held = held_in(&self.file, SCOPES[*scope], &self.ids[*id]);
            match &known.certain {
                State::Nothing => {}
                State::Mark(mark) => assert_eq!(held.mark.as_ref(), Some(mark)),
                State::Claim(claim) => assert_eq!(held.claim.as_ref(), Some(claim)),
            }
        }
        for store in 0..2 {
            self.check_reader(store);
        }
    }

    /// What a reader with the clock of this store finds.
    fn check_reader(&self, store: usize) {
        let config = self.setup.config().clock(self.clocks.of(store).clone());
        let reader = Reader::open_with(self.place.path(), config.clone()).unwrap();
        let now = self.clocks.of_a_newcomer(store, reached(&self.file));
        let earliest = self.model.earliest().min(now);
        for ((scope, id), Counted { known, .. }) in &self.model.names {
            if known.is_haunted(earliest) {
                continue;
            }
            let entry = reader.scope(SCOPES[*scope]).get(&self.ids[*id]).unwrap();
            let found = entry.as_ref().map(view_of);
            match &known.certain {
                // It shows expired marks too, until they are purged.
                State::Nothing => {
                    let rest = found.filter(|view| view.label != Label::Expired);
                    assert_eq!(rest, None, "a reader of {scope} {id}");
                }
                State::Claim(claim) if claim.is_forgotten(now) => {}
                certain => assert_eq!(found, certain.view(now), "a reader of {scope} {id}"),
            }
        }
        // A ghost that only one of the stores has swept is no damage, and may be listed as such.
        if !self.model.is_haunted(earliest) {
            for report in [self.store(store).verify(), reader.verify()] {
                let report = report.unwrap();
                assert!(report.is_ok(), "{:?}", report.problems);
            }
        }
    }
}
