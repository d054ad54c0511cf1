//! A store that is called from other runtimes than its own, and from none.

use std::pin::pin;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cluster_harness::{Cluster, Fault, Injected, Options, needs_server};
use seen_cluster::{AsyncClusterStore, ClusterStore};
use seen_store::{Claim, Config, ErrorKind, Verdict};
use tokio::runtime::{Builder, Runtime};

const SECOND: Duration = Duration::from_secs(1);

fn on_threads(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

fn on_this_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "how long calls take")]
fn now() -> Instant {
    Instant::now()
}

/// A store of a runtime of its own, on servers that can be made slow.
struct Bench {
    cluster: Cluster,
    home: Runtime,
    store: AsyncClusterStore,
    ids: std::ops::RangeFrom<u32>,
}

impl Bench {
    fn new() -> Self {
        let cluster = Cluster::start_with(&Options::new().announce_through_proxies(true));
        let home = on_threads(2);
        let config = Config::default().busy_timeout(10 * SECOND);
        let url = format!("{}?min_replicas=0", cluster.url());
        let store = home.block_on(AsyncClusterStore::open_with(&url, config)).unwrap();
        Self { cluster, home, store, ids: 0.. }
    }

    /// A new id of the first server: all calls share its connection.
    fn id(&mut self) -> String {
        let ids = self.ids.by_ref().map(|n| format!("incident-{n}"));
        let is_of_first = |id: &String| {
            let slot = self.cluster.slot_of(&format!("seen{{}}::{id}"));
            self.cluster.master_of_slot(slot).index() == 0
        };
        ids.into_iter().find(is_of_first).unwrap()
    }

    fn slow(&self, by: Duration) -> Injected {
        self.cluster.proxy(0).inject(Fault::delay_answer(by).on(&["SET"]))
    }

    /// Checks, in its home, that a call is answered soon.
    fn is_answered(&mut self) {
        let (id, begun) = (self.id(), now());
        assert_eq!(self.home.block_on(self.store.check_and_mark(&id)).unwrap(), Verdict::New);
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    }
}

#[test]
fn blocking_verbs_in_a_task_are_slow_and_not_dead() {
    needs_server!();
    let store = ClusterStore::open(&format!("{}blocking", super::CLUSTER.url())).unwrap();
    for runtime in [on_this_thread(), on_threads(1)] {
        let store = store.clone();
        // Many more than a task may do without yielding.
        let calls = runtime.spawn(async move {
            for n in 0..400 {
                let _ = store.check_and_mark(n.to_string()).unwrap();
            }
        });
        runtime.block_on(calls).unwrap();
    }
}

#[test]
fn a_runtime_that_stands_still_or_ends_after_its_call_holds_up_no_other() {
    needs_server!();
    let mut bench = Bench::new();
    for round in 0..3 {
        let slow = bench.slow(Duration::from_millis(4));
        let (store, id) = (bench.store.clone(), bench.id());
        let ((answered, is_answered), (ends, end)) = (channel(), channel::<()>());
        let other = std::thread::spawn(move || {
            let runtime = on_this_thread();
            answered.send(runtime.block_on(store.check_and_mark(&id)).unwrap()).unwrap();
            // It is there, and runs nothing.
            _ = end.recv();
        });
        // The other's call leads, and this one waits in the queue.
        std::thread::sleep(Duration::from_millis(2));
        bench.is_answered();
        assert_eq!(is_answered.recv().unwrap(), Verdict::New);
        slow.remove();
        bench.is_answered();
        // A connection that the other opens is no other's.
        if round == 1 {
            bench.cluster.proxy(0).cut_connections();
            std::thread::sleep(Duration::from_millis(50));
            let (runtime, id) = (on_this_thread(), bench.id());
            let verdict = runtime.block_on(bench.store.check_and_mark(&id)).unwrap();
            assert_eq!(verdict, Verdict::New);
            bench.is_answered();
            drop(runtime);
            bench.is_answered();
        }
        drop(ends);
        other.join().unwrap();
        bench.is_answered();
    }
}

#[test]
fn a_runtime_that_ends_in_the_middle_of_its_call_fails_no_other() {
    needs_server!();
    let mut bench = Bench::new();
    for round in 0..8 {
        let slow = bench.slow(Duration::from_millis(100));
        let runtime = if round % 2 == 0 { on_threads(1) } else { on_this_thread() };
        let (store, id) = (bench.store.clone(), bench.id());
        runtime.spawn(async move { store.check_and_mark(&id).await });
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(3)).await });
        let (store, id) = (bench.store.clone(), bench.id());
        let call = bench.home.spawn(async move { store.check_and_mark(&id).await });
        // Before or after a task has taken the sending over.
        std::thread::sleep(Duration::from_millis(if round < 4 { 2 } else { 20 }));
        if round % 4 < 2 {
            drop(runtime);
        } else {
            runtime.shutdown_background();
        }
        assert_eq!(bench.home.block_on(call).unwrap().unwrap(), Verdict::New);
        slow.remove();
    }
}

#[test]
fn a_call_that_is_dropped_outside_of_its_runtime_fails_no_other() {
    needs_server!();
    let mut bench = Bench::new();
    let _slow = bench.slow(Duration::from_millis(100));
    let (id, ids) = (bench.id(), [(); 3].map(|()| bench.id()));
    let store = bench.store.clone();
    let mut leads = Box::pin(store.check_and_mark(&id));
    bench.home.block_on(async {
        _ = tokio::time::timeout(Duration::from_millis(1), &mut leads).await;
    });
    let calls = ids.map(|id| {
        let store = bench.store.clone();
        bench.home.spawn(async move { store.check_and_mark(&id).await })
    });
    std::thread::sleep(Duration::from_millis(2));
    drop(leads);
    for call in calls {
        assert_eq!(bench.home.block_on(call).unwrap().unwrap(), Verdict::New);
    }
}

#[test]
fn a_call_needs_no_runtime_around_it_and_is_closed_with_that_of_its_store() {
    needs_server!();
    let mut bench = Bench::new();
    let (store, id) = (bench.store.clone(), bench.id());
    let mut call = pin!(store.check_and_mark(&id));
    let mut context = Context::from_waker(Waker::noop());
    let begun = now();
    let verdict = loop {
        match call.as_mut().poll(&mut context) {
            Poll::Ready(verdict) => break verdict.unwrap(),
            Poll::Pending => assert!(begun.elapsed() < 5 * SECOND),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(verdict, Verdict::New);
    let other = on_threads(1);
    let _slow = bench.slow(Duration::from_millis(300));
    let (store, id) = (bench.store.clone(), bench.id());
    let under_way = other.spawn(async move { store.check_and_mark(&id).await });
    std::thread::sleep(Duration::from_millis(20));
    drop(bench.home);
    let begun = now();
    let error = other.block_on(under_way).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "it was sent: {error}");
    let error = other.block_on(bench.store.check_and_mark("late")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

#[test]
fn an_end_that_its_runtime_cut_off_is_unknown_and_not_called_closed() {
    needs_server!();
    for round in 0..3 {
        let mut bench = Bench::new();
        let (other, id) = (on_threads(1), bench.id());
        let claimed = bench.home.block_on(bench.store.claim(&id, 60 * SECOND)).unwrap();
        let Claim::Granted(lease) = claimed else { panic!("{claimed:?}") };
        let token = lease.into_token();
        let held =
            bench.cluster.proxy(0).inject(Fault::hold_answer().on(&["EVALSHA", "EVAL", "SET"]));
        let (store, new) = (bench.store.clone(), bench.id());
        let call = other.spawn(async move {
            match round {
                0 => store.confirm(&id, &token).await,
                1 => store.fail(&id, &token, "503").await,
                _ => store.claim(&new, 60 * SECOND).await.map(drop),
            }
        });
        while held.hits() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(bench.home);
        let error = other.block_on(call).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{round}: {error}");
        assert!(error.token().is_some_and(|told| round == 2 || told == token), "{round}");
    }
}

#[test]
fn what_a_thread_that_ends_still_holds_is_given_back() {
    thread_local! {
        static HELD: std::cell::RefCell<Vec<Box<dyn std::any::Any>>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    needs_server!();
    let mut bench = Bench::new();
    let (id, begun, other) = (bench.id(), bench.id(), bench.id());
    let store = ClusterStore::open(&format!("{}?min_replicas=0", bench.cluster.url())).unwrap();
    let (its, store_of_tasks) = (store.clone(), bench.store.clone());
    let slow = bench.slow(Duration::from_millis(100));
    let (lease_id, home) = (id.clone(), bench.home.handle().clone());
    std::thread::spawn(move || {
        // It is dropped after what the runtimes keep of this thread.
        HELD.with_borrow_mut(|held| held.push(Box::new(())));
        let Claim::Granted(lease) = its.claim(&lease_id, 60 * SECOND).unwrap() else { panic!() };
        let mut call = Box::pin(async move { store_of_tasks.check_and_mark(begun).await });
        home.block_on(async {
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut call).await.is_err());
        });
        HELD.with_borrow_mut(|held| {
            held.push(Box::new(lease));
            held.push(Box::new(call));
        });
    })
    .join()
    .unwrap();
    slow.remove();
    let again = store.waiting(5 * SECOND).claim(&id, 60 * SECOND).unwrap();
    assert!(matches!(again, Claim::Granted(_)), "{again:?}");
    assert_eq!(bench.home.block_on(bench.store.check_and_mark(&other)).unwrap(), Verdict::New);
}
