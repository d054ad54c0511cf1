//! The role of a worker: uses the file in ways that are more than one small write.
//!
//! Owns what a round of each work is. What always holds: what a round deletes is in scopes of its own, so it
//! must take away no id of the others.

use std::time::{Duration, SystemTime};

use seen_store::{Entry, Filter, Reader, SeenStore, Verdict};

use crate::child::{KNOWN, Me};
use crate::ledger::{Answer, Event};
use crate::support_process::{Random, variable};

/// See the module's header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// New ids in one commit, with some that others mark too.
    Batch,
    /// The same with thousands of ids each time.
    Large,
    /// Entries of another store.
    Import,
    /// Marks that expire soon, and their purge.
    Purge,
    /// Old marks and their cleanup.
    Clean,
    /// A mark that is forgotten, and made again.
    Forget,
    /// A store that is opened for one mark.
    Visit,
    /// What a reader does without a store. Holds snapshots.
    Read,
    /// A copy of the file. Holds a snapshot.
    Backup,
    /// The file written anew.
    Compact,
}

impl Work {
    const ALL: [Self; 10] = [
        Self::Batch,
        Self::Large,
        Self::Import,
        Self::Purge,
        Self::Clean,
        Self::Forget,
        Self::Visit,
        Self::Read,
        Self::Backup,
        Self::Compact,
    ];

    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|work| format!("{work:?}") == name).unwrap()
    }
}

/// How many ids a batch has at most: one commit.
const LARGEST: u64 = 10_000;

/// The same for large batches. To take one in lasts longer than the pause between two of them.
const LARGE: u64 = 4_000;

/// How many ids are imported, purged or cleaned up in a round.
const IN_A_ROUND: u64 = 2_000;

pub(crate) fn run(me: &Me) {
    let works: Vec<Work> = variable("SEEN_WORKS").split(' ').map(Work::named).collect();
    let (store, mut random) = (me.open(), me.random(0));
    for round in 0_u64.. {
        if !me.goes_on() {
            break;
        }
        let work = works[usize::try_from(random.below(works.len() as u64)).unwrap()];
        let tag = format!("{}/{round}", me.name);
        Round { me, store: &store, tag }.run(work, &mut random);
    }
    me.close(&store);
}

struct Round<'m> {
    me: &'m Me,
    store: &'m SeenStore,
    /// What names the round in all processes.
    tag: String,
}

impl Round<'_> {
    fn run(&self, work: Work, random: &mut Random) {
        match work {
            Work::Batch => {
                // Most are small: of three sizes, each ten times the next.
                let size = LARGEST / [1, 10, 10, 100][usize::try_from(random.below(4)).unwrap()];
                self.batch(1 + random.below(size), random);
            }
            Work::Large => self.batch(LARGE, random),
            Work::Import => self.import(),
            Work::Purge => self.purge(random),
            Work::Clean => self.clean(),
            Work::Forget => self.forget(),
            Work::Visit => self.visit(),
            Work::Read => self.read(random),
            Work::Backup => self.back_up(),
            Work::Compact => drop(self.call("compact", || self.store.compact())),
        }
    }

    /// What the call answers; a failure goes to the ledger.
    fn call<T>(&self, name: &str, call: impl FnOnce() -> seen_store::Result<T>) -> Option<T> {
        let begun = self.me.ledger.begin();
        match call() {
            Ok(answer) => {
                self.me.done(&begun, name);
                Some(answer)
            }
            Err(e) => {
                self.me.failed(&begun, name, &e);
                None
            }
        }
    }

    fn ids(&self, count: u64) -> impl Iterator<Item = String> {
        let tag = self.tag.clone();
        (0..count).map(move |number| format!("{tag}/{number}"))
    }

    fn batch(&self, count: u64, random: &mut Random) {
        let shared: Vec<String> = (0..2).map(|_| self.me.shared_id(random, "shared")).collect();
        let ids: Vec<String> = self.ids(count).chain(shared.iter().cloned()).collect();
        let begun = self.me.ledger.begin();
        let verdicts = match self.store.check_and_mark_all(&ids) {
            Ok(verdicts) => verdicts,
            Err(e) => return self.me.failed(&begun, "check_and_mark_all", &e),
        };
        let (own, of_all) = verdicts.split_at(usize::try_from(count).unwrap());
        let won = shared.into_iter().zip(of_all).filter(|(_, verdict)| **verdict == Verdict::New);
        let won = won.map(|(id, _)| id).collect();
        self.me.ledger.write(&begun, &Event::Batch { prefix: self.tag.clone(), count, won });
        if own.iter().any(|verdict| *verdict != Verdict::New) {
            self.me.wrong(format!("{}: an own id is not New", self.tag));
        }
    }

    fn import(&self) {
        let now = SystemTime::now();
        let entries = self.ids(IN_A_ROUND).map(|id| Entry::new("imported", id, now));
        let begun = self.me.ledger.begin();
        match self.store.restore(entries) {
            Ok(restored) if restored.added == IN_A_ROUND => {
                let event = Event::Import { prefix: self.tag.clone(), count: IN_A_ROUND };
                self.me.ledger.write(&begun, &event);
            }
            Ok(restored) => self.me.wrong(format!("{}: imported {restored:?}", self.tag)),
            Err(e) => self.me.failed(&begun, "restore", &e),
        }
    }

    fn purge(&self, random: &mut Random) {
        let brief = self.store.scope("brief").ttl(Duration::from_millis(random.below(10)));
        self.call("seed", || brief.seed(self.ids(IN_A_ROUND)));
        self.call("purge", || self.store.purge_expired());
    }

    fn clean(&self) {
        let scope = self.store.scope(format!("cleaned/{}", self.me.name));
        self.call("seed", || scope.seed(self.ids(IN_A_ROUND)));
        self.call("cleanup", || scope.cleanup_old_entries(Duration::ZERO));
    }

    fn forget(&self) {
        let (scope, id) = (self.store.scope("forgotten"), &*self.tag);
        let new = || scope.check_and_mark(id);
        let steps = [
            self.call("mark", new).map(|verdict| verdict == Verdict::New),
            self.call("forget", || scope.forget(id)),
            self.call("ask", || scope.try_is_seen(id)).map(|seen| !seen),
            self.call("mark", new).map(|verdict| verdict == Verdict::New),
        ];
        // After a call that failed, the next ones may answer otherwise.
        if steps.iter().all(Option::is_some) && steps.contains(&Some(false)) {
            self.me.wrong(format!("{id} was marked, forgotten and marked again: {steps:?}"));
        }
    }

    fn visit(&self) {
        let Ok(store) = self.me.try_open() else { return };
        let id = format!("{}/visit", self.tag);
        let begun = self.me.ledger.begin();
        match store.check_and_mark(&id) {
            Ok(Verdict::New) => {
                self.me.ledger.write(&begun, &Event::Mark { id, answer: Answer::New });
            }
            Ok(verdict) => self.me.wrong(format!("{id} is {verdict:?}")),
            Err(e) => self.me.failed(&begun, "check_and_mark", &e),
        }
        self.me.close(&store);
    }

    fn read(&self, random: &mut Random) {
        let Some(reader) = self.call("open a reader", || Reader::open(&self.me.path)) else {
            return;
        };
        let newest = self.me.id_of_another().unwrap_or_else(|| KNOWN.to_owned());
        if self.call("read", || reader.try_is_seen(&newest)) == Some(false) {
            self.me.wrong(format!("{newest} was acknowledged and a reader does not see it"));
        }
        if random.below(2) == 0 {
            self.call("list", || {
                reader.entries(Filter::default()).take(1_000).try_for_each(|entry| entry.map(drop))
            });
            return;
        }
        let report = self.call("verify", || reader.verify());
        if let Some(report) = report.filter(|report| !report.is_ok()) {
            self.me.wrong(format!("a reader verified: {:?}", report.problems));
        }
    }

    fn back_up(&self) {
        let path = format!("{}.copy-{}", self.me.path.display(), self.tag.replace('/', "-"));
        let begun = self.me.ledger.begin();
        match self.store.backup(&path) {
            Ok(()) => self.me.ledger.write(&begun, &Event::Backup { path }),
            Err(e) => self.me.failed(&begun, "backup", &e),
        }
    }
}
