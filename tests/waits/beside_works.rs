//! How long a single mark waits beside other uses of the file: batches, imports, purges and cleanups, in
//! the same store, in other stores and in other processes.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "the waits are what is measured")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use seen_store::{Config, Entry, Filter, SeenStore};

use crate::common::Place;
use crate::support_process::{Child, lines, role, say, variable};

/// What a single mark may wait at most.
const MOST: Duration = Duration::from_millis(500);

/// For how long marks are made beside each work.
const MEASURED: Duration = Duration::from_millis(500);

/// How many lookups lie between two marks. A store that marks without a pause holds the write lock most of
/// the time; one that marks now and then has to get it first.
const LOOKUPS: usize = 1_000;

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("work") => {
            let store = SeenStore::open(variable("SEEN_PATH")).unwrap();
            let work = Work::named(&variable("SEEN_WHAT"));
            let stopped = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    lines().for_each(drop);
                    stopped.store(true, SeqCst);
                });
                work.go_on(&store, &variable("SEEN_TAG"), &stopped, || say("begun"));
            });
        }
        Some(role) => panic!("unknown role {role:?}"),
    }
}

/// Something that takes the write lock again and again.
#[derive(Clone, Copy, Debug)]
enum Work {
    Batches(u64),
    Imports,
    Purges,
    Cleanups,
    ForgottenScopes,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::Batches(1_000),
        Self::Batches(10_000),
        Self::Imports,
        Self::Purges,
        Self::Cleanups,
        Self::ForgottenScopes,
    ];

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|work| work.name() == name).unwrap()
    }

    /// Works until it is stopped. Calls `begun` once, when the first round is done.
    fn go_on(self, store: &SeenStore, tag: &str, stopped: &AtomicBool, begun: impl FnOnce()) {
        let (mut begun, imported) = (Some(begun), self.entries());
        for round in 0_u64.. {
            self.round(store, &format!("{tag}/{round}"), &imported);
            if let Some(begun) = begun.take() {
                begun();
            }
            if stopped.load(SeqCst) {
                return;
            }
        }
    }

    fn entries(self) -> Vec<Entry> {
        let Self::Imports = self else { return Vec::new() };
        let source = SeenStore::in_memory().unwrap();
        source.seed((0..10_000).map(|n| format!("{n}"))).unwrap();
        source.entries(Filter::default()).map(Result::unwrap).collect()
    }

    fn round(self, store: &SeenStore, tag: &str, imported: &[Entry]) {
        let ids = |count| (0..count).map(move |n| format!("{tag}/{n}"));
        match self {
            Self::Batches(count) => drop(store.check_and_mark_all(ids(count)).unwrap()),
            Self::Imports => {
                let entries = imported.iter().map(|entry| {
                    let mut entry = entry.clone();
                    tag.clone_into(&mut entry.scope);
                    entry
                });
                assert_eq!(store.restore(entries).unwrap().refused.len(), 0);
            }
            Self::Purges => {
                store.ttl(Duration::ZERO).seed(ids(5_000)).unwrap();
                store.purge_expired().unwrap();
            }
            Self::Cleanups => {
                let scope = store.scope(tag);
                scope.seed(ids(5_000)).unwrap();
                scope.cleanup_old_entries(Duration::ZERO).unwrap();
            }
            Self::ForgottenScopes => {
                let scope = store.scope(tag);
                scope.seed(ids(5_000)).unwrap();
                scope.forget_scope().unwrap();
            }
        }
    }
}

/// Where the works run.
#[derive(Clone, Copy, Debug)]
enum Beside {
    SameStore,
    OtherStores,
    OtherProcesses,
}

/// The longest of the marks that are made beside `works`.
fn worst_wait(works: &[Work], beside: Beside) -> Duration {
    let place = Place::new();
    let store = place.open(Config::default());
    store.mark_seen("known").unwrap();
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let (begun, all_begun) = mpsc::channel();
        let mut children = Vec::new();
        for (number, work) in works.iter().copied().enumerate() {
            let (tag, begun) = (number.to_string(), begun.clone());
            match beside {
                Beside::OtherProcesses => children.push(spawn(work, place.path(), &tag)),
                Beside::SameStore | Beside::OtherStores => {
                    let store = match beside {
                        Beside::SameStore => store.clone(),
                        _ => place.open(Config::default()),
                    };
                    let stopped = &stopped;
                    scope.spawn(move || {
                        work.go_on(&store, &tag, stopped, || begun.send(()).unwrap());
                    });
                }
            }
        }
        drop(begun);
        all_begun.iter().take(works.len()).for_each(drop);
        let worst = marks(&store);
        stopped.store(true, SeqCst);
        for child in children {
            child.finish();
        }
        worst
    })
}

fn spawn(work: Work, path: &Path, tag: &str) -> Child {
    let (path, what) = (path.to_str().unwrap(), work.name());
    let variables = [("SEEN_PATH", path), ("SEEN_WHAT", &*what), ("SEEN_TAG", tag)];
    let mut child = Child::spawn("work", &variables);
    assert_eq!(child.hear().as_deref(), Some("begun"));
    child
}

fn marks(store: &SeenStore) -> Duration {
    let (begun, mut worst) = (Instant::now(), Duration::ZERO);
    for number in 0.. {
        if begun.elapsed() >= MEASURED {
            break;
        }
        let id = format!("single-{number}");
        let asked = Instant::now();
        store.mark_seen(&id).unwrap();
        worst = worst.max(asked.elapsed());
        for _ in 0..LOOKUPS {
            assert!(store.is_seen("known"));
        }
    }
    worst
}

/// A busy machine may take the processor from whoever holds a lock, for as long as it pleases; a store that
/// keeps others waiting does so in each of three runs.
fn check(works: &[Work], beside: Beside) {
    let mut worst = Vec::new();
    while worst.len() < 3 && worst.last().is_none_or(|worst| *worst > MOST) {
        worst.push(worst_wait(works, beside));
    }
    println!("{works:?} {beside:?}: {worst:?}");
    assert!(worst.last().is_some_and(|worst| *worst <= MOST), "{works:?} {beside:?}: {worst:?}");
}

#[test]
fn a_mark_gets_in_beside_each_work_in_the_same_store() {
    for work in Work::ALL {
        check(&[work], Beside::SameStore);
    }
}

#[test]
fn a_mark_gets_in_beside_each_work_in_another_store() {
    for work in Work::ALL {
        check(&[work], Beside::OtherStores);
    }
}

#[test]
fn a_mark_gets_in_beside_each_work_in_another_process() {
    for work in Work::ALL {
        check(&[work], Beside::OtherProcesses);
    }
}

#[test]
fn a_mark_gets_in_beside_two_that_write_batches_in_turn() {
    for beside in [Beside::SameStore, Beside::OtherStores, Beside::OtherProcesses] {
        check(&[Work::Batches(1_000); 2], beside);
        check(&[Work::Batches(10_000); 2], beside);
    }
}
