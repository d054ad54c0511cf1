//! Children that are forked while stores and readers are open, and while none is.
//!
//! Each test runs its parent in a process of its own: a store that another test has open at the fork
//! would change what its children may do.
//!
//! - Promise 9, several stores: a forked child is told so by what it inherited, and never spoils it.

#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "real time is read and measured")]

mod support_process;

use std::ffi::OsString;
use std::io::{PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use seen_store::{
    Claim, Clock, Config, ErrorKind, Filter, Lease, LegacyFile, Reader, SeenStore, Ttl, Verdict,
};
use support_process::{
    Child, End, assert_forked, fork, in_fork, lines, puppet, role, say, variable,
};

/// How many children are forked from a busy parent.
const CHILDREN: usize = 200;

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("puppet") => puppet(),
        Some("holder") => fork_with_each_kind_of_handle(),
        Some("closed") => fork_with_nothing_open(),
        Some("beside") => fork_beside_a_third_process(),
        Some("reading") => fork_while_a_reader_reads(),
        Some("using") => fork_with_unused_handles(),
        Some("private") => fork_with_private_stores(),
        Some("busy") => fork_from_busy_threads(),
        Some("exec") => fork_and_exec(),
        #[cfg(feature = "tokio")]
        Some("tasks") => tasks::fork_with_futures(),
        Some(role) => panic!("unknown role {role:?}"),
    }
}

/// Runs one role to its end in a process of its own, with a folder for its files.
fn run(role: &str) {
    let folder = tempfile::tempdir().unwrap();
    let parent = Child::spawn(role, &[("SEEN_FOLDER", folder.path())]);
    let said = parent.finish();
    assert_eq!(said, ["done"], "{role} ended early");
}

fn folder() -> PathBuf {
    variable("SEEN_FOLDER").into()
}

fn files(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// A file of the older format beside the stores.
fn make_seed_file(folder: &Path) -> PathBuf {
    let path = folder.join("seed.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE seen (id TEXT PRIMARY KEY, ts INTEGER NOT NULL); \
             INSERT INTO seen VALUES ('a', 1), ('b', 2);",
        )
        .unwrap();
    path
}

/// Checks that this process, a forked child, can open nothing, and that trying leaves no trace.
fn assert_can_open_nothing(folder: &Path) {
    let before = files(folder);
    let path = folder.join("seen.db");
    let config = Config::default();
    assert_forked("open", SeenStore::open(&path));
    assert_forked("open another file", SeenStore::open(folder.join("other.db")));
    assert_forked("open in a new folder", SeenStore::open(folder.join("new/folder/seen.db")));
    assert_forked("open read-only", SeenStore::open_with(&path, config.clone().read_only(true)));
    assert_forked("open exclusive", SeenStore::open_with(&path, config.exclusive(true)));
    assert_forked("open in memory", SeenStore::in_memory());
    assert_forked("open a reader", Reader::open(&path));
    assert_forked("open a seed's file", LegacyFile::open(folder.join("seed.db"), Ttl::Never));
    assert_eq!(files(folder), before, "a refused open left something behind");
}

/// Forks with `held` open: neither a child nor its child can open anything, whether it keeps its
/// parent's handle or drops it.
fn fork_holding<T>(what: &str, folder: &Path, held: T) {
    let well = in_fork(|| {
        assert_can_open_nothing(folder);
        assert!(in_fork(|| assert_can_open_nothing(folder)), "a grandchild could open");
    });
    assert!(well, "{what} was held");
    let well = in_fork(|| {
        // SAFETY: the child never uses `held` again; its `_exit` runs no destructor.
        drop(unsafe { std::ptr::read(&raw const held) });
        assert_can_open_nothing(folder);
        assert!(in_fork(|| assert_can_open_nothing(folder)), "a grandchild could open");
    });
    assert!(well, "{what} was held, and dropped in the child");
    drop(held);
    assert!(in_fork(|| assert_can_open_all(folder)), "{what} was held, and closed before the fork");
}

fn assert_can_open_all(folder: &Path) {
    let path = folder.join("seen.db");
    let store = SeenStore::open(&path).unwrap();
    assert!(store.try_is_seen("a").unwrap());
    store.mark_seen("marked by a child").unwrap();
    drop(store);
    assert!(Reader::open(&path).unwrap().try_is_seen("a").unwrap());
    assert_eq!(LegacyFile::open(folder.join("seed.db"), Ttl::Never).unwrap().count(), 2);
    SeenStore::in_memory().unwrap().mark_seen("a").unwrap();
}

fn granted(store: &SeenStore, id: &str) -> Lease {
    match store.claim(id, Duration::from_secs(60)).unwrap() {
        Claim::Granted(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn fork_with_each_kind_of_handle() {
    let folder = folder();
    let path = folder.join("seen.db");
    SeenStore::open(&path).unwrap().seed(["a", "b"]).unwrap();
    make_seed_file(&folder);
    let config = Config::default();
    let open = |config: Config| SeenStore::open_with(&path, config).unwrap();
    fork_holding("a store", &folder, open(config.clone()));
    fork_holding("a store that is read-only", &folder, open(config.clone().read_only(true)));
    fork_holding("a store in exclusive mode", &folder, open(config.clone().exclusive(true)));
    fork_holding("a store with a purge thread", &folder, {
        open(config.clone().purge_thread(true))
    });
    fork_holding("a store with a checkpoint thread", &folder, {
        let store = open(config.clone());
        store.seed((0..100_000).map(|n| format!("id-{n}"))).unwrap();
        store
    });
    fork_holding("a store in memory", &folder, SeenStore::in_memory().unwrap());
    fork_holding("a lease", &folder, {
        let store = open(config.clone());
        granted(&store, "claimed")
    });
    fork_holding("a listing", &folder, {
        let mut listing = open(config).entries(Filter::default());
        listing.next().unwrap().unwrap();
        listing
    });
    fork_holding("a reader", &folder, Reader::open(&path).unwrap());
    fork_holding("a seed's file", &folder, {
        LegacyFile::open(folder.join("seed.db"), Ttl::Never).unwrap()
    });
    say("done");
}

#[test]
fn a_child_of_a_process_that_had_anything_open_can_open_nothing() {
    run("holder");
}

fn fork_with_nothing_open() {
    let folder = folder();
    let path = folder.join("seen.db");
    make_seed_file(&folder);
    assert!(in_fork(|| SeenStore::open(&path).unwrap().mark_seen("a").unwrap()), "never open");
    let store = SeenStore::open(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert!(store.try_is_seen("a").unwrap() && reader.try_is_seen("a").unwrap());
    drop(reader);
    // Closed by hand, with handles left; also with a thread of the store's own to be ended.
    store.scope("many").seed((0..100_000).map(|n| format!("id-{n}"))).unwrap();
    store.close().unwrap();
    let well = in_fork(|| {
        let error = store.mark_seen("b").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
        assert_can_open_all(&folder);
        // What the child has open counts for its own children, and no longer once it is closed.
        let own = SeenStore::open(&path).unwrap();
        assert!(in_fork(|| assert_can_open_nothing(&folder)), "a grandchild could open");
        assert_eq!(own.check_and_mark("by a child").unwrap(), Verdict::New);
        drop(own);
        let grandchild = || {
            let own = SeenStore::open(&path).unwrap();
            assert_eq!(own.check_and_mark("by a child").unwrap(), Verdict::Duplicate);
        };
        assert!(in_fork(grandchild), "a grandchild could not open");
        drop(store.clone());
    });
    assert!(well, "closed");
    // An open that failed leaves nothing open.
    assert!(SeenStore::open(folder.join("seed.db/impossible")).is_err());
    assert!(Reader::open(folder.join("missing.db")).is_err());
    assert!(in_fork(|| assert_can_open_all(&folder)), "after opens that failed");
    let store = SeenStore::open(&path).unwrap();
    assert!(store.try_is_seen("by a child").unwrap() && store.verify().unwrap().is_ok());
    say("done");
}

#[test]
fn a_child_that_was_forked_with_nothing_open_opens_stores_of_its_own_and_so_does_its_child() {
    run("closed");
}

/// Opens a store of its own in a forked child and, where that is allowed, marks ids once it is told to go
/// on. Says which it has marked.
fn open_and_mark(path: &Path, mut go: PipeReader) {
    let opened = SeenStore::open(path);
    say(if opened.is_ok() { "opened" } else { "refused" });
    go.read_exact(&mut [0]).unwrap();
    match opened {
        Err(e) => assert_eq!(e.kind(), ErrorKind::Forked, "{e:?}"),
        Ok(store) => {
            for n in 0..500 {
                let id = format!("child {} {n}", std::process::id());
                assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New);
                say(id);
            }
        }
    }
}

fn fork_beside_a_third_process() {
    let path = folder().join("seen.db");
    let store = SeenStore::open(&path).unwrap();
    say("open");
    let mut children = Vec::new();
    for line in lines() {
        match &*line {
            "fork" | "fork and drop" => {
                let (told, tell) = std::io::pipe().unwrap();
                let child = fork(End::AtOnce, || {
                    if line == "fork and drop" {
                        // SAFETY: the child never uses `store` again; its `_exit` runs no destructor.
                        drop(unsafe { std::ptr::read(&raw const store) });
                    }
                    open_and_mark(&path, told);
                });
                children.push((child, tell));
            }
            "close" => {
                store.close().unwrap();
                say("ok");
            }
            "let the children go on" => {
                for (child, mut tell) in children.drain(..) {
                    tell.write_all(&[0]).unwrap();
                    assert!(child.ends_well(), "a child failed");
                }
                say("ok");
            }
            id => {
                assert_eq!(store.check_and_mark(id).unwrap(), Verdict::New);
                say("ok");
            }
        }
    }
    say("done");
}

/// Marks fifty more ids through a puppet.
fn mark_fifty(puppet: &mut Child, marked: &mut Vec<String>) {
    for _ in 0..50 {
        let id = format!("mark {}", marked.len());
        assert_eq!(puppet.ask(&format!("check {id}")), "new");
        marked.push(id);
    }
}

#[test]
fn no_acknowledged_mark_is_lost_while_children_come_and_go_and_their_parent_and_others_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen.db");
    let mut parent = Child::spawn("beside", &[("SEEN_FOLDER", folder.path())]);
    assert_eq!(parent.hear().as_deref(), Some("open"));
    let mut third = Child::with_store(&path);
    let mut marked = Vec::new();
    for round in 0..4 {
        mark_fifty(&mut third, &mut marked);
        let by_the_parent = format!("by the parent {round}");
        assert_eq!(parent.ask(&by_the_parent), "ok");
        marked.push(by_the_parent);
        let heard = parent.ask(if round % 2 == 0 { "fork" } else { "fork and drop" });
        assert!(heard == "opened" || heard == "refused", "{heard}");
    }
    assert_eq!(parent.ask("close"), "ok");
    mark_fifty(&mut third, &mut marked);
    // The last store to close removes the log. A child with a store of its own would be overlooked.
    assert_eq!(third.ask("close"), "ok");
    let mut late = Child::with_store(&path);
    mark_fifty(&mut late, &mut marked);
    parent.tell("let the children go on");
    loop {
        match parent.hear().unwrap() {
            line if line == "ok" => break,
            id => marked.push(id),
        }
    }
    mark_fifty(&mut late, &mut marked);
    assert_eq!(parent.finish(), ["done"]);
    assert_eq!(late.ask("close"), "ok");
    let mut last = Child::with_store(&path);
    let missing: Vec<_> =
        marked.iter().filter(|id| last.ask(&format!("check {id}")) != "duplicate").collect();
    assert!(missing.is_empty(), "{} of {} marks are lost", missing.len(), marked.len());
    assert_eq!(last.ask("verify"), "[]");
}

/// A clock in which one reading stops until it is let go. A reader reads its clock with its lock held,
/// so the thread that stops here holds it.
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

fn fork_while_a_reader_reads() {
    let path = folder().join("seen.db");
    SeenStore::open(&path).unwrap().seed(["a", "b"]).unwrap();
    let clock = Arc::new(StoppingClock {
        armed: AtomicBool::new(false),
        stopped: Barrier::new(2),
        let_go: Barrier::new(2),
    });
    let config = Config::default().clock(clock.clone());
    let reader = Reader::open_with(&path, config.clone()).unwrap();
    let mut listing = reader.entries(Filter::default());
    listing.next().unwrap().unwrap();
    thread::scope(|scope| {
        clock.armed.store(true, SeqCst);
        scope.spawn(|| reader.get("a").unwrap());
        clock.stopped.wait();
        // In the child that thread does not exist, and its lock is held for ever.
        let well = in_fork(|| {
            assert_eq!(reader.path(), path.canonicalize().unwrap());
            assert!(format!("{reader:?}").contains("seen.db"));
            assert_forked("is_seen", reader.try_is_seen("a"));
            assert_forked("get", reader.get("a"));
            assert_forked("entries", reader.entries(Filter::default()).next().unwrap());
            assert_forked("verify", reader.verify());
            assert_forked("inspect", reader.info());
            // SAFETY: the child never uses `reader` again; its `_exit` runs no destructor.
            drop(unsafe { std::ptr::read(&raw const reader) });
        });
        clock.let_go.wait();
        assert!(well, "a forked child hung or failed");
    });
    assert!(reader.try_is_seen("b").unwrap());
    say("done");
}

#[test]
fn a_child_forked_while_another_thread_reads_is_told_so_by_the_reader_and_does_not_hang() {
    run("reading");
}

fn fork_with_unused_handles() {
    let folder = folder();
    let path = folder.join("seen.db");
    let store = SeenStore::open(&path).unwrap();
    store.seed((0..2_000).map(|n| format!("id-{n}"))).unwrap();
    let reader = Reader::open(&path).unwrap();
    let mut seed = LegacyFile::open(make_seed_file(&folder), Ttl::Never).unwrap();
    let mut lease = granted(&store, "claimed");
    let mut listing = store.entries(Filter::default());
    let mut reading = reader.entries(Filter::default());
    for _ in 0..3 {
        listing.next().unwrap().unwrap();
        reading.next().unwrap().unwrap();
    }
    let well = in_fork(|| {
        assert_forked("a seed's file", seed.next().unwrap());
        assert_forked("the count of a seed's file", seed.count_rows());
        assert_forked("confirm", lease.confirm());
        assert_forked("renew", lease.renew(Duration::from_secs(1)));
        // What was read before the fork is still given out.
        assert_forked("a listing", listing.by_ref().find(Result::is_err).unwrap());
        assert_forked("a reader's listing", reading.by_ref().find(Result::is_err).unwrap());
        assert!(reader.path().ends_with("seen.db"));
        assert_forked("a reader", reader.try_is_seen("id-1"));
        assert_can_open_nothing(&folder);
    });
    assert!(well, "a forked child hung or failed");
    assert_eq!(seed.count_rows().unwrap(), 2);
    lease.confirm().unwrap();
    assert_eq!(listing.count(), 1_998, "2,000 marks and a claim, three of them listed");
    say("done");
}

#[test]
fn a_child_is_told_so_by_each_kind_of_handle_that_it_inherits() {
    run("using");
}

fn fork_with_private_stores() {
    let config = Config::default().exclusive(true);
    let exclusive = SeenStore::open_with(folder().join("seen.db"), config).unwrap();
    for (what, store) in [("exclusive", exclusive), ("memory", SeenStore::in_memory().unwrap())] {
        store.mark_seen("a").unwrap();
        let well = in_fork(|| {
            // What the parent marks from now on is not seen here.
            assert_forked("a miss", store.try_is_seen("b"));
            assert_forked("check_and_mark", store.check_and_mark("b"));
            let begun = Instant::now();
            while store.try_is_seen("a").is_ok() && store.check_and_mark("a").is_ok() {
                assert!(begun.elapsed() < Duration::from_millis(200), "hits are answered for ever");
            }
        });
        assert!(well, "{what}");
        assert!(store.try_is_seen("a").unwrap() && !store.try_is_seen("b").unwrap());
    }
    say("done");
}

#[test]
fn a_child_is_told_so_by_a_store_that_answers_from_memory_alone() {
    run("private");
}

/// What a child of a busy parent does with the handles that it inherits.
fn use_and_drop(number: usize, folder: &Path, store: SeenStore, lease: Lease, reader: Reader) {
    for n in 0..64 {
        // A hit is answered from memory or refused. Which one is a matter of time.
        if let Err(e) = store.try_is_seen(format!("id-{n}")) {
            assert_eq!(e.kind(), ErrorKind::Forked, "{e:?}");
        }
        match store.check_and_mark(format!("id-{n}")) {
            Ok(verdict) => assert_eq!(verdict, Verdict::Duplicate),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Forked, "{e:?}"),
        }
    }
    assert_forked("a new id", store.check_and_mark("never marked"));
    assert_forked("purge", store.purge_expired());
    assert_forked("stats", store.stats());
    let mut listing = store.entries(Filter::default());
    assert_forked("a listing", listing.next().unwrap());
    assert_forked("a reader", reader.try_is_seen("id-1"));
    assert!(format!("{store:?} {reader:?} {lease:?}").contains("seen.db"));
    assert_can_open_nothing(folder);
    assert!(store.close().is_err());
    match number % 3 {
        0 => drop((store, listing, reader, lease)),
        1 => drop((lease, reader, listing, store)),
        // Nothing is dropped, as by a child that just ends.
        _ => std::mem::forget((store, listing, reader, lease)),
    }
}

fn fork_from_busy_threads() {
    let folder = folder();
    make_seed_file(&folder);
    let path = folder.join("seen.db");
    let config = Config::default().purge_interval(Duration::from_millis(1)).purge_thread(true);
    let store = SeenStore::open_with(&path, config).unwrap();
    store.ttl(Ttl::Never).seed((0..20_000).map(|n| format!("id-{n}"))).unwrap();
    let (stop, marked) = (AtomicBool::new(false), AtomicU64::new(0));
    let busy = |work: &dyn Fn()| {
        while !stop.load(SeqCst) {
            work();
        }
    };
    let lease = granted(&store, "claimed");
    let reader = Reader::open(&path).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                busy(&|| {
                    for n in 0..64 {
                        let id = format!("id-{n}");
                        assert!(store.try_is_seen(&id).unwrap());
                        assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::Duplicate);
                    }
                });
            });
            scope.spawn(|| {
                busy(&|| {
                    let id = format!("mark-{}", marked.fetch_add(1, SeqCst));
                    assert_eq!(store.check_and_mark(&id).unwrap(), Verdict::New);
                });
            });
        }
        scope.spawn(|| busy(&|| assert!(store.ttl(Duration::ZERO).seed(["x", "y"]).is_ok())));
        scope.spawn(|| busy(&|| assert!(store.purge_expired().is_ok())));
        scope.spawn(|| {
            busy(&|| SeenStore::open(folder.join("busy/busy.db")).unwrap().mark_seen("a").unwrap());
        });
        scope.spawn(|| busy(&|| drop(reader.get("id-1").unwrap())));
        let mut failed = 0;
        for number in 0..CHILDREN {
            let end = if number % 2 == 0 { End::AtOnce } else { End::WithHandlers };
            let child = fork(end, || {
                // SAFETY: the child never uses the originals again: nothing after this runs in it.
                let (store, lease, reader) = unsafe {
                    (
                        std::ptr::read(&raw const store),
                        std::ptr::read(&raw const lease),
                        std::ptr::read(&raw const reader),
                    )
                };
                use_and_drop(number, &folder, store, lease, reader);
            });
            failed += usize::from(!child.ends_well());
            if failed == 3 {
                break;
            }
        }
        stop.store(true, SeqCst);
        assert_eq!(failed, 0, "children hung or failed");
    });
    for n in 0..marked.load(SeqCst) {
        assert!(store.try_is_seen(format!("mark-{n}")).unwrap(), "mark-{n} is lost");
    }
    assert!(store.verify().unwrap().is_ok());
    say("done");
}

#[test]
fn children_of_a_busy_parent_that_use_list_and_drop_its_handles_neither_hang_nor_lose_its_marks() {
    run("busy");
}

fn fork_and_exec() {
    let path = folder().join("seen.db");
    let store = SeenStore::open(&path).unwrap();
    store.mark_seen("a").unwrap();
    assert!(Command::new("true").status().unwrap().success());
    let mut executed = Child::with_store(&path);
    assert_eq!(executed.ask("seen a"), "true");
    assert_eq!(executed.ask("check b"), "new");
    assert_eq!(store.check_and_mark("b").unwrap(), Verdict::Duplicate);
    executed.finish();
    store.close().unwrap();
    say("done");
}

#[test]
fn a_program_that_was_executed_from_a_process_with_a_store_open_opens_stores_of_its_own() {
    run("exec");
}

/// What a child inherits of tasks.
#[cfg(feature = "tokio")]
mod tasks {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use seen_store::{AsyncSeenStore, Result};

    use super::*;

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Polls until it is ready.
    fn wait<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Some(output) = poll(future.as_mut()) {
                return output;
            }
            thread::yield_now();
        }
    }

    pub(super) fn fork_with_futures() {
        let path = folder().join("seen.db");
        let config = Config::default().async_queue(1);
        let store = AsyncSeenStore::from(SeenStore::open_with(&path, config).unwrap());
        let minute = Duration::from_secs(60);
        let Claim::Granted(lease) = wait(store.claim("a", minute)).unwrap() else { panic!() };
        let waiting = store.waiting(minute);
        let foreign = rusqlite::Connection::open(&path).unwrap();
        foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
        // One waits for its answer, one for a place in the queue, one for the holder.
        let mut answer = Box::pin(store.mark_seen("b"));
        let mut room = Box::pin(store.mark_seen("c"));
        let mut turn = Box::pin(async { waiting.claim("a", minute).await.map(drop) });
        for future in [&mut answer, &mut room] {
            assert!(poll(future.as_mut()).is_none());
        }
        assert!(poll(turn.as_mut()).is_none());
        let told = |name: &str, answer: Option<Result<()>>| {
            assert_forked(name, answer.unwrap_or_else(|| panic!("{name}: not told")));
        };
        let (mut lease, mut futures) = (Some(lease), Some((answer, room, turn)));
        let well = in_fork(|| {
            let (answer, room, turn) = futures.as_mut().unwrap();
            told("an answer", poll(answer.as_mut()));
            told("a place", poll(room.as_mut()));
            told("a turn", poll(turn.as_mut()));
            told("a mark", Some(wait(store.mark_seen("d"))));
            told("a lookup", Some(wait(store.try_is_seen("d")).map(drop)));
            told("figures", Some(wait(store.stats()).map(drop)));
            told("closing", Some(wait(store.close())));
            let again = AsyncSeenStore::from(SeenStore::from(store.clone()));
            told("another handle", Some(wait(again.mark_seen("d"))));
        });
        assert!(well, "used in the child");
        let well = in_fork(|| {
            drop(futures.take());
            drop(lease.take());
            drop(store.clone());
        });
        assert!(well, "dropped in the child");
        // The child has spoiled nothing.
        foreign.execute_batch("ROLLBACK").unwrap();
        let (answer, room, turn) = futures.take().unwrap();
        wait(answer).unwrap();
        wait(room).unwrap();
        wait(lease.as_mut().unwrap().confirm()).unwrap();
        wait(turn).unwrap();
        wait(store.close()).unwrap();
        say("done");
    }

    #[test]
    fn a_child_is_told_by_the_futures_that_it_inherits_and_drops_them_without_a_wait() {
        run("tasks");
    }
}
