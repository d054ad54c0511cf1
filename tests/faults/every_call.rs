//! Each call of a script fails in turn, while its user believes every answer.
#![expect(clippy::needless_for_each, reason = "a line for a line")]
#![expect(clippy::disallowed_methods, reason = "that nothing hangs is measured")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use seen_store::{Config, Error, ManualClock, Result, SeenStore, Synchronous, Verdict};

use crate::shim::{Action, Faults};
use crate::{copy, new_file};

/// What the answers so far oblige the store to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    Seen,
    Unseen,
    /// A write failed, and so did the second look that would have told its outcome.
    Unknown,
}

/// A user that believes every answer, and checks each against the ones before.
pub(crate) struct Believer {
    pub(crate) beliefs: BTreeMap<String, Belief>,
    /// Whether a failed write may have happened: only where reopening may fail too.
    doubts: bool,
    failures: Vec<String>,
    pub(crate) tell: fn(String),
}

impl Believer {
    pub(crate) fn new(doubts: bool) -> Self {
        let beliefs =
            [("old", Belief::Seen), ("refreshed", Belief::Seen), ("gone", Belief::Unseen)];
        let beliefs = beliefs.into_iter().map(|(id, belief)| (id.to_owned(), belief)).collect();
        Self { beliefs, doubts, failures: Vec::new(), tell: |_| {} }
    }

    fn belief(&self, id: &str) -> Belief {
        self.beliefs.get(id).copied().unwrap_or(Belief::Unseen)
    }

    fn believe(&mut self, id: &str, belief: Belief) {
        (self.tell)(format!("{belief:?} {id}"));
        self.beliefs.insert(id.to_owned(), belief);
    }

    fn doubt(&mut self, id: &str, wanted: Belief, error: &Error) {
        self.failed(error);
        if self.doubts && self.belief(id) != wanted {
            self.believe(id, Belief::Unknown);
        }
    }

    fn failed(&mut self, error: &Error) {
        self.failures.push(format!("{error:?}"));
    }

    fn check(&mut self, store: &SeenStore, id: &str) {
        match store.check_and_mark(id) {
            Ok(verdict) => {
                let wrong = if verdict == Verdict::New { Belief::Seen } else { Belief::Unseen };
                assert_ne!(self.belief(id), wrong, "check_and_mark of {id} answered {verdict:?}");
                self.believe(id, Belief::Seen);
            }
            Err(e) => self.doubt(id, Belief::Seen, &e),
        }
    }

    fn mark(&mut self, store: &SeenStore, id: &str) {
        match store.mark_seen(id) {
            Ok(()) => self.believe(id, Belief::Seen),
            Err(e) => self.doubt(id, Belief::Seen, &e),
        }
    }

    fn ask(&mut self, store: &SeenStore, id: &str) {
        match store.try_is_seen(id) {
            Ok(seen) => {
                let wrong = if seen { Belief::Unseen } else { Belief::Seen };
                assert_ne!(self.belief(id), wrong, "try_is_seen of {id} answered {seen}");
            }
            Err(e) => self.failed(&e),
        }
    }

    fn forget(&mut self, store: &SeenStore, id: &str) {
        match store.forget(id) {
            Ok(was_seen) => {
                let wrong = if was_seen { Belief::Unseen } else { Belief::Seen };
                assert_ne!(self.belief(id), wrong, "forget of {id} answered {was_seen}");
                self.believe(id, Belief::Unseen);
            }
            Err(e) => self.doubt(id, Belief::Unseen, &e),
        }
    }

    /// Opens, marks, checks, forgets, purges and closes.
    pub(crate) fn live(&mut self, path: &Path, config: Config) -> Result<()> {
        let store = SeenStore::open_with(path, config)?;
        (self.tell)("opened".into());
        // Without one it would wait for readers, and make them wait.
        let log = path.with_extension("db-wal");
        assert!(log.exists(), "the store is open and has no write-ahead log");
        self.check(&store, "old");
        self.check(&store, "new");
        self.ask(&store, "new");
        self.mark(&store, "refreshed");
        self.ask(&store, "gone");
        let batch: Vec<_> = (0..40).map(|n| format!("batch-{n}")).collect();
        match store.check_and_mark_all(&batch) {
            Ok(_) => batch.iter().for_each(|id| self.believe(id, Belief::Seen)),
            Err(e) => {
                self.failed(&e);
                if self.doubts {
                    batch.iter().for_each(|id| self.believe(id, Belief::Unknown));
                }
            }
        }
        self.forget(&store, "new");
        self.ask(&store, "new");
        let _ = store.purge_expired().inspect_err(|e| self.failed(e));
        let _ = store.checkpoint().inspect_err(|e| self.failed(e));
        self.check(&store, "last");
        self.forget(&store, "batch-7");
        self.check(&store, "last");
        store.close()
    }

    /// With the fault gone, the file must open and be as was believed.
    fn confirm(&self, path: &Path, config: Config) {
        let store = SeenStore::open_with(path, config).unwrap_or_else(|e| panic!("{e:?}"));
        for (id, belief) in &self.beliefs {
            let seen = store.try_is_seen(id).unwrap();
            let right = match belief {
                Belief::Seen => seen,
                Belief::Unseen => !seen,
                Belief::Unknown => true,
            };
            assert!(right, "{id} is believed {belief:?} and answered {seen}");
        }
        let report = store.verify().unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(store.check_and_mark("afterwards").unwrap(), Verdict::New);
        store.close().unwrap();
    }
}

/// A file with live, refreshed and expired rows; part of it only in a log that a killed process left.
fn make_template(folder: &Path) -> PathBuf {
    let path = folder.join("template.db");
    let clock = Arc::new(ManualClock::default());
    let store = SeenStore::open_with(&path, Config::default().clock(clock.clone())).unwrap();
    store.mark_seen("refreshed").unwrap();
    store.ttl(Duration::from_secs(1)).seed((0..50).map(|n| format!("expired-{n}"))).unwrap();
    store.ttl(Duration::from_secs(1)).mark_seen("gone").unwrap();
    store.checkpoint().unwrap();
    store.mark_seen("old").unwrap();
    // Opening the files cancels this process's locks on them, which nobody needs any more.
    copy(&path, &folder.join("killed.db"));
    folder.join("killed.db")
}

/// The settings of the script's runs: everything has to happen in them, checkpoints too.
pub(crate) fn settings() -> [Config; 2] {
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(60));
    let config = Config::default().clock(clock).busy_timeout(Duration::from_millis(100));
    [
        config.clone().wal_autocheckpoint(1),
        config.synchronous(Synchronous::Full).exclusive(true).purge_interval(None),
    ]
}

/// Runs the script with the nth call failing, for every n; how many runs there were.
fn fail_each_call(template: Option<&Path>, config: &Config, action: Action) -> u32 {
    for nth in 1.. {
        assert!(nth < 3_000, "the script never passes without a fault");
        let (folder, path) = new_file();
        let mut believer = Believer::new(action == Action::FailFromThenOn);
        match template {
            Some(template) => copy(template, &path),
            None => believer.beliefs.clear(),
        }
        let faults = Faults::on(folder.path(), None, "", action, nth);
        let begun = Instant::now();
        let run = || {
            let done = believer.live(&path, config.clone());
            let hits = faults.hits();
            drop(faults);
            // One failure costs one call; the store mends itself for the next.
            let most = if action == Action::FailOnce { 1 } else { usize::MAX };
            assert!(believer.failures.len() <= most, "{:#?}", believer.failures);
            believer.confirm(&path, config.clone());
            (done, hits)
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let (done, hits) = outcome.unwrap_or_else(|_| {
            panic!("{action:?} at call {nth}, new file: {}, {config:?}", template.is_none())
        });
        assert!(begun.elapsed() < Duration::from_secs(20), "call {nth} hung for a while");
        if hits == 0 {
            done.unwrap();
            return nth;
        }
    }
    unreachable!()
}

#[test]
fn whichever_call_fails_once_no_answer_is_wrong_and_nothing_acknowledged_is_lost() {
    every_call_with_every_setting(Action::FailOnce);
}

#[test]
fn whichever_call_all_begin_to_fail_at_no_answer_is_wrong_and_nothing_acknowledged_is_lost() {
    every_call_with_every_setting(Action::FailFromThenOn);
}

fn every_call_with_every_setting(action: Action) {
    let (folder, _) = new_file();
    let template = make_template(folder.path());
    for config in settings() {
        let new = fail_each_call(None, &config, action);
        let old = fail_each_call(Some(&template), &config, action);
        println!("{action:?}: {new} runs with a new file, {old} with an old one");
        assert!(new > 50 && old > 50, "the shim does not see the calls");
    }
}
