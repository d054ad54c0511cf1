//! Several real processes on one file.

#![cfg(unix)]
#![allow(clippy::needless_for_each, reason = "a line for a line")]
#![expect(clippy::disallowed_methods, reason = "the waits of real processes are measured")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use seen_store::{Clock, Config, ErrorKind, Result, SeenStore, Verdict};

use crate::support_process::{
    Child, Random, assert_forked, in_fork, lines, puppet, role, say, variable,
};

/// How soon a forget or a cleanup elsewhere, or a replaced file, must be noticed.
const NOTICED: Duration = Duration::from_millis(100);

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("puppet") => puppet(),
        Some("race") => race(),
        Some("mark") => mark_until_told(),
        Some("fork") => fork_after_open(),
        Some("fork-while-marking") => fork_while_marking(),
        Some(role) => panic!("unknown role {role:?}"),
    }
}

fn new_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    (folder, path)
}

const RACERS: usize = 4;
const THREADS: usize = 4;

/// Four threads that check the few ids of the present round, which the clock announces to all
/// processes alike.
fn race() {
    let store = SeenStore::open(variable("SEEN_PATH")).unwrap();
    say("ready");
    let millis: u64 = lines().next().unwrap().parse().unwrap();
    let begun = Instant::now();
    let work = |thread: usize| {
        let mut random = Random(u64::from(std::process::id()) << 8 | thread as u64);
        let (mut won, mut tried) = (Vec::new(), BTreeSet::new());
        let mut longest = Duration::ZERO;
        while begun.elapsed() < Duration::from_millis(millis) {
            let round = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() / 4;
            let id = format!("{round}-{}", random.below(5));
            let called = Instant::now();
            let verdict = store.check_and_mark(&id);
            longest = longest.max(called.elapsed());
            match verdict {
                Ok(Verdict::New) => won.push(id.clone()),
                Ok(_) => {}
                Err(e) => say(format!("error {e:?}")),
            }
            tried.insert(id);
        }
        (won, tried, longest)
    };
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(move || work(t))).collect();
        for thread in threads {
            let (won, tried, longest) = thread.join().unwrap();
            won.iter().for_each(|id| say(format!("won {id}")));
            tried.iter().for_each(|id| say(format!("tried {id}")));
            say(format!("longest {}", longest.as_micros()));
        }
    });
    store.close().unwrap();
}

#[test]
fn of_16_threads_in_4_processes_exactly_one_gets_new_for_each_id_and_none_an_error() {
    let (_folder, path) = new_file();
    let mut racers: Vec<_> =
        (0..RACERS).map(|_| Child::spawn("race", &[("SEEN_PATH", &path)])).collect();
    for racer in &mut racers {
        assert_eq!(racer.hear().unwrap(), "ready");
    }
    racers.iter_mut().for_each(|racer| racer.tell("3000"));

    let (mut won, mut tried) = (BTreeMap::new(), BTreeSet::new());
    let mut longest = 0;
    for racer in racers {
        let mut wins = 0;
        for line in racer.finish() {
            let (what, rest) = line.split_once(' ').unwrap();
            match what {
                "won" => {
                    wins += 1;
                    *won.entry(rest.to_owned()).or_insert(0) += 1;
                }
                "tried" => drop(tried.insert(rest.to_owned())),
                "longest" => longest = longest.max(rest.parse::<u64>().unwrap()),
                _ => panic!("a racer got an {line}"),
            }
        }
        assert!(wins > 0, "a process won nothing: there was no race");
    }
    println!("{} ids, longest wait {longest} µs", tried.len());
    let twice: Vec<_> = won.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "won more than once: {twice:?}");
    assert_eq!(won.into_keys().collect::<BTreeSet<_>>(), tried, "an id that nobody won");
    assert!(longest < 2_000_000, "a call waited {longest} µs");

    let store = SeenStore::open(&path).unwrap();
    for id in &tried {
        assert!(store.try_is_seen(id).unwrap(), "the mark of {id} is lost");
    }
    let report = store.verify().unwrap();
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(report.rows, tried.len() as u64);
}

#[test]
fn eight_processes_that_open_one_new_file_at_once_all_succeed_and_see_each_others_marks() {
    let (folder, _) = new_file();
    let mut puppets: Vec<_> = (0..8).map(|_| Child::puppet()).collect();
    for round in 0..50 {
        let path = folder.path().join(format!("{round}.db"));
        // Both lines are sent before any answer is read, so that nobody waits for anybody.
        for (number, puppet) in puppets.iter_mut().enumerate() {
            puppet.tell(&format!("open {}\ncheck id-{number}", path.display()));
        }
        for puppet in &mut puppets {
            assert_eq!(puppet.hear().as_deref(), Some("ok"), "round {round}");
            assert_eq!(puppet.hear().as_deref(), Some("new"), "round {round}");
        }
        for puppet in &mut puppets {
            (0..8).for_each(|number| puppet.tell(&format!("seen id-{number}")));
        }
        for puppet in &mut puppets {
            (0..8).for_each(|_| assert_eq!(puppet.hear().as_deref(), Some("true")));
        }
        puppets.iter_mut().for_each(|puppet| puppet.tell("close"));
        for puppet in &mut puppets {
            assert_eq!(puppet.hear().as_deref(), Some("ok"));
        }
        // Where several close at the same moment none may find itself the last; the next one does.
        let store = SeenStore::open(&path).unwrap();
        assert!((0..8).all(|number| store.is_seen(format!("id-{number}"))), "round {round}");
        store.close().unwrap();
        assert!(!path.with_extension("db-wal").exists(), "the last one leaves no log behind");
    }
    puppets.into_iter().for_each(|puppet| drop(puppet.finish()));
}

#[test]
fn four_threads_that_open_one_new_file_at_once_all_succeed_and_see_each_others_marks() {
    let (folder, _) = new_file();
    for round in 0..50 {
        let path = folder.path().join(format!("{round}.db"));
        let barrier = Barrier::new(4);
        let open_and_see_all = |number: usize| -> Result<()> {
            barrier.wait();
            let store = SeenStore::open(&path);
            let marked = store.as_ref().map(|store| store.check_and_mark(format!("id-{number}")));
            // A failure is told only after the others were met, so that they do not wait for ever.
            barrier.wait();
            let mut seen = Vec::new();
            if let Ok(store) = &store {
                seen = (0..4).map(|other| store.try_is_seen(format!("id-{other}"))).collect();
            }
            barrier.wait();
            assert_eq!(marked.map_err(Clone::clone)??, Verdict::New);
            assert_eq!(seen.into_iter().collect::<Result<Vec<_>>>()?, [true; 4]);
            store?.close()
        };
        thread::scope(|scope| {
            let work = &open_and_see_all;
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || work(n))).collect();
            for thread in threads {
                thread.join().unwrap().unwrap_or_else(|e| panic!("round {round}: {e:?}"));
            }
        });
    }
}

/// Asks until the answer is "not seen". A call that begins later than 100 ms after `since` must not
/// say otherwise; calls that begin earlier may.
fn assert_unseen_in_time(store: &SeenStore, id: &str, since: Instant) {
    loop {
        let begun = since.elapsed();
        if !store.try_is_seen(id).unwrap() {
            return;
        }
        assert!(begun <= NOTICED, "{id} still counted as seen {begun:?} later");
    }
}

#[test]
fn a_forget_and_a_cleanup_by_another_process_are_noticed_within_100_ms() {
    let (_folder, path) = new_file();
    let store = SeenStore::open(&path).unwrap();
    let mut other = Child::with_store(&path);
    for _ in 0..3 {
        store.mark_seen("a").unwrap();
        store.mark_seen("b").unwrap();
        assert!(store.is_seen("a"));
        assert_eq!(other.ask("forget a"), "true");
        assert_unseen_in_time(&store, "a", Instant::now());
        assert!(store.is_seen("b"));
        assert_eq!(store.stats().unwrap().since_opened.rebuilds, 0, "neither needs a rebuild");

        // What was marked in this very millisecond is not older than 0 ms yet.
        while other.ask("cleanup 0") != "1" {}
        assert_unseen_in_time(&store, "b", Instant::now());
        assert_eq!(store.check_and_mark("b").unwrap(), Verdict::New);
    }
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn a_mark_by_another_process_is_seen_as_soon_as_it_was_acknowledged() {
    let (_folder, path) = new_file();
    let store = SeenStore::open(&path).unwrap();
    let mut other = Child::with_store(&path);
    for round in 0..200 {
        let id = format!("id-{round}");
        assert!(!store.try_is_seen(&id).unwrap());
        if round % 2 == 0 {
            assert_eq!(other.ask(&format!("check {id}")), "new");
            assert!(store.try_is_seen(&id).unwrap());
        } else {
            assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New);
            assert_eq!(other.ask(&format!("seen {id}")), "true");
        }
    }
}

#[test]
fn a_process_that_was_stopped_for_a_while_answers_rightly_when_it_goes_on() {
    let (_folder, path) = new_file();
    let store = SeenStore::open(&path).unwrap();
    let brief = store.ttl(Duration::from_millis(300));
    store.mark_seen("refreshed").unwrap();
    store.mark_seen("forgotten").unwrap();
    store.mark_seen("cleaned away").unwrap();
    brief.mark_seen("expired").unwrap();
    brief.mark_seen("expired and marked again").unwrap();
    brief.mark_seen("prolonged").unwrap();
    let mut other = Child::with_store(&path);
    for id in ["refreshed", "forgotten", "expired", "expired and marked again", "prolonged"] {
        assert_eq!(other.ask(&format!("seen {id}")), "true", "{id}");
    }

    other.stop();
    store.mark_seen("prolonged").unwrap();
    store.mark_seen("refreshed").unwrap();
    assert!(store.forget("forgotten").unwrap());
    // More than one statement of a look reads.
    store.seed((0..2_500).map(|n| format!("later-{n}"))).unwrap();
    while store.is_seen("expired and marked again") {
        thread::yield_now();
    }
    assert_eq!(store.purge_expired().unwrap(), 2);
    assert_eq!(store.check_and_mark("expired and marked again").unwrap(), Verdict::New);
    other.go_on();

    for (question, answer) in [
        ("seen forgotten", "false"),
        ("seen refreshed", "true"),
        ("seen prolonged", "true"),
        ("seen expired", "false"),
        ("check expired and marked again", "duplicate"),
        ("seen later-0", "true"),
        ("check later-2499", "duplicate"),
        ("check forgotten", "new"),
        ("verify", "[]"),
    ] {
        assert_eq!(other.ask(question), answer, "{question}");
    }
    assert_eq!(store.check_and_mark("forgotten").unwrap(), Verdict::Duplicate);
    other.finish();
}

fn mark_until_told() {
    let store = SeenStore::open(variable("SEEN_PATH")).unwrap();
    let told = thread::spawn(|| lines().count());
    for number in 0.. {
        let id = format!("marked-{number}");
        assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New);
        say(id);
        if told.is_finished() {
            return;
        }
    }
}

#[test]
fn a_process_stopped_in_the_midst_of_a_mark_delays_others_and_loses_nothing() {
    let (_folder, path) = new_file();
    let mut random = Random::new("stopped in the midst of a mark");
    let config = Config::default().busy_timeout(Duration::from_millis(20));
    let store = SeenStore::open_with(&path, config).unwrap();
    let mut other = Child::spawn("mark", &[("SEEN_PATH", &path)]);
    let (mut heard, mut mine, mut delayed) = (Vec::new(), Vec::new(), 0);
    for round in 0..30 {
        heard.extend((0..=random.below(20)).map(|_| other.hear().unwrap()));
        other.stop();
        let id = format!("mine-{round}");
        match store.check_and_mark(&id) {
            Ok(verdict) => {
                assert_eq!(verdict, Verdict::New);
                mine.push(id);
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Busy, "{e:?}");
                delayed += 1;
                assert!(!store.try_is_seen(&id).unwrap(), "told busy, marked all the same");
            }
        }
        other.go_on();
    }
    heard.extend(other.finish());
    println!("{} marks heard, {delayed} of 30 calls met the lock", heard.len());
    for id in heard.iter().chain(&mine) {
        assert!(store.try_is_seen(id).unwrap(), "{id} is lost");
    }
    let report = store.verify().unwrap();
    assert!(report.is_ok() && report.rows == (heard.len() + mine.len()) as u64, "{report:?}");
}

fn fork_after_open() {
    let path = variable("SEEN_PATH");
    let store = SeenStore::open(&path).unwrap();
    // Enough for the store to have its own thread, which the child then lacks.
    store.scope("many").seed((0..100_000).map(|n| format!("id-{n}"))).unwrap();
    store.mark_seen("a").unwrap();
    let well = in_fork(|| {
        assert_forked("try_is_seen of a miss", store.try_is_seen("b"));
        assert_forked("mark_seen", store.mark_seen("b"));
        assert_forked("mark_seen of a hit", store.mark_seen("a"));
        assert_forked("check_and_mark", store.check_and_mark("b"));
        assert_forked("check_and_mark_all", store.check_and_mark_all(["a", "b"]));
        assert_forked("seed", store.seed(["b"]));
        assert_forked("forget", store.forget("a"));
        assert_forked("get", store.get("a"));
        assert_forked("purge_expired", store.purge_expired());
        assert_forked("cleanup", store.cleanup_old_entries(Duration::ZERO));
        assert_forked("stats", store.stats());
        assert_forked("pragmas", store.pragmas());
        assert_forked("checkpoint", store.checkpoint());
        assert_forked("verify", store.verify());
        assert_forked("backup", store.backup(format!("{path}.copy")));
        assert!(!store.is_seen("b"));
        // A hit is answered from memory while the last look is fresh, which is right as long as it is.
        let begun = Instant::now();
        while store.try_is_seen("a").is_ok() {
            assert!(begun.elapsed() < 2 * NOTICED, "a forked child goes on answering hits");
        }
        assert_forked("try_is_seen of a hit", store.try_is_seen("a"));
        assert_forked("check_and_mark of a hit", store.check_and_mark("a"));
        drop(store.clone());
        assert!(store.close().is_err());
        assert!(store.mark_seen("b").is_err(), "neither Forked nor Closed");
        // The last handle goes, as at the end of a child's main.
        // SAFETY: the child never uses `store` again; its `_exit` runs no destructor.
        drop(unsafe { std::ptr::read(&raw const store) });
    });
    say(if well { "ok" } else { "the forked child failed" });
    // In a second one nobody closes; the handle is just dropped.
    // SAFETY: as above.
    let dropped = in_fork(|| drop(unsafe { std::ptr::read(&raw const store) }));
    say(if dropped { "ok" } else { "the forked child failed" });
    for line in lines() {
        assert!(store.is_seen("a"));
        say(format!("{:?}", store.check_and_mark(line)));
    }
    store.close().unwrap();
}

#[test]
fn a_forked_child_is_told_so_by_every_verb_and_does_its_parents_store_no_harm() {
    let (_folder, path) = new_file();
    let mut other = Child::with_store(&path);
    let mut parent = Child::spawn("fork", &[("SEEN_PATH", &path)]);
    assert_eq!(parent.hear().as_deref(), Some("ok"));
    assert_eq!(parent.hear().as_deref(), Some("ok"));
    assert_eq!(parent.ask("b"), "Ok(New)", "the forked child marked something");
    // If the child had given up its parent's locks, the last other process to close would delete the
    // log that the parent goes on writing to.
    assert_eq!(other.ask("check c"), "new");
    assert_eq!(other.ask("close"), "ok");
    assert!(path.with_extension("db-wal").exists(), "the parent's lock was lost");
    assert_eq!(parent.ask("c"), "Ok(Duplicate)");
    assert_eq!(parent.ask("d"), "Ok(New)");
    parent.finish();
    let store = SeenStore::open(&path).unwrap();
    assert!(["a", "b", "c", "d"].iter().all(|id| store.try_is_seen(id).unwrap()));
    assert!(store.verify().unwrap().is_ok());
}

/// A clock in which one reading stops until it is let go. The store reads its clock with the journal's
/// lock held, so whoever stops here holds it.
struct StoppingClock {
    armed: AtomicBool,
    stopped: Barrier,
    let_go: Barrier,
}

impl Clock for StoppingClock {
    fn now(&self) -> SystemTime {
        if self.armed.swap(false, SeqCst) {
            self.stopped.wait();
            self.let_go.wait();
        }
        SystemTime::now()
    }
}

fn fork_while_marking() {
    let clock = Arc::new(StoppingClock {
        armed: AtomicBool::new(false),
        stopped: Barrier::new(2),
        let_go: Barrier::new(2),
    });
    let config = Config::default().clock(clock.clone());
    let store = SeenStore::open_with(variable("SEEN_PATH"), config).unwrap();
    thread::scope(|scope| {
        clock.armed.store(true, SeqCst);
        scope.spawn(|| store.mark_seen("by the parent").unwrap());
        clock.stopped.wait();
        // In the child that thread does not exist, and its lock is held for ever.
        let well = in_fork(|| {
            assert_forked("mark_seen", store.mark_seen("a"));
            assert_forked("try_is_seen", store.try_is_seen("a"));
            assert_forked("get", store.get("a"));
            assert!(store.close().is_err());
            // SAFETY: the child never uses `store` again; its `_exit` runs no destructor.
            drop(unsafe { std::ptr::read(&raw const store) });
        });
        clock.let_go.wait();
        say(if well { "ok" } else { "a forked child hung or failed" });
    });
    assert!(store.is_seen("by the parent"));
    store.close().unwrap();
}

#[test]
fn a_child_forked_while_another_thread_marks_is_told_so_and_does_not_hang() {
    let (_folder, path) = new_file();
    let mut parent = Child::spawn("fork-while-marking", &[("SEEN_PATH", &path)]);
    assert_eq!(parent.hear().as_deref(), Some("ok"));
    parent.finish();
}

/// Marks until the store says that its file was replaced. A call that begins later than 100 ms after
/// the fact must say so.
fn assert_replacement_noticed(store: &SeenStore, since: Instant) {
    for number in 0.. {
        let begun = since.elapsed();
        match store.mark_seen(format!("into nowhere {number}")) {
            Ok(()) => assert!(begun <= NOTICED, "marked into nowhere {begun:?} later"),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::FileReplaced, "{e:?}");
                break;
            }
        }
    }
    let miss = store.try_is_seen("never marked").unwrap_err();
    assert_eq!(miss.kind(), ErrorKind::FileReplaced);
}

#[test]
fn a_file_that_was_deleted_while_open_is_told_within_100_ms() {
    let (_folder, path) = new_file();
    let store = SeenStore::open(&path).unwrap();
    store.mark_seen("a").unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_replacement_noticed(&store, Instant::now());
    drop(store);
    assert!(!path.exists(), "closing brought the file back");
}

#[test]
fn a_file_that_was_replaced_while_open_is_told_within_100_ms_and_the_new_one_is_left_alone() {
    let (folder, path) = new_file();
    let replacement = folder.path().join("other.db");
    let other = SeenStore::open(&replacement).unwrap();
    other.mark_seen("in the new file").unwrap();
    other.close().unwrap();

    let store = SeenStore::open(&path).unwrap();
    store.mark_seen("in the old file").unwrap();
    // An emptied log belongs to any database, so what follows is not spoilt by the old one's.
    store.checkpoint().unwrap();
    std::fs::rename(&replacement, &path).unwrap();
    assert_replacement_noticed(&store, Instant::now());
    drop(store);
    let _ = std::fs::remove_file(path.with_extension("db-wal"));

    let store = SeenStore::open(&path).unwrap();
    assert!(store.try_is_seen("in the new file").unwrap());
    assert!(!store.try_is_seen("in the old file").unwrap());
    assert!(store.verify().unwrap().is_ok());
}

fn assert_busy_at_once(path: &Path) {
    let begun = Instant::now();
    let error = SeenStore::open(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.to_string().contains("exclusive"), "{error}");
    // Far from the busy timeout of 30 s.
    assert!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
}

#[test]
fn an_exclusive_holder_makes_others_busy_at_once_and_frees_the_file_by_ending_or_being_killed() {
    let (_folder, path) = new_file();
    let mut holder = Child::puppet();
    let open = format!("open-exclusive {}", path.display());
    assert_eq!(holder.ask(&open), "ok");
    assert_busy_at_once(&path); // Already before it has written anything.
    assert_eq!(holder.ask("check a"), "new");
    assert_busy_at_once(&path);
    holder.finish();
    let store = SeenStore::open(&path).unwrap();
    assert!(store.try_is_seen("a").unwrap());
    store.close().unwrap();

    let mut holder = Child::puppet();
    assert_eq!(holder.ask(&open), "ok");
    assert_eq!(holder.ask("check b"), "new");
    holder.kill();
    let store = SeenStore::open(&path).unwrap();
    assert!(store.try_is_seen("a").unwrap() && store.try_is_seen("b").unwrap());
    assert!(store.verify().unwrap().is_ok());
}

#[test]
fn an_exclusive_open_of_a_file_in_use_fails_as_busy() {
    let (_folder, path) = new_file();
    let mut user = Child::with_store(&path);
    assert_eq!(user.ask("check a"), "new");
    let config = Config::default().exclusive(true).busy_timeout(Duration::from_millis(50));
    let error = SeenStore::open_with(&path, config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert_eq!(user.ask("check b"), "new");
    user.finish();
}
